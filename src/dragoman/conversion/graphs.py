"""From a signature of a SavedModel to an ONNX graph, by tf2onnx. Runs in the virtualenv of `dragoman convert`; called by program.py.

Messages of TensorFlow and ONNX have no static types here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Shape, Signature, TensorSpec

BATCH = "batch"
"""The name of a dimension along which requests may be joined, in the graphs that are written."""
_STRING = 7
"""TensorFlow's DT_STRING."""
_PASSES_STRINGS = frozenset({"Placeholder", "Identity", "Const"})
"""What tf2onnx knows to do with strings."""
_EXAMPLES = frozenset({"ParseExample", "ParseExampleV2", "ParseSingleExample", "ParseSequenceExample", "ParseSequenceExampleV2"})
_CALLS = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall", "StatefulPartitionedCall", "Case", "StatelessCase"})


class Graphs:
    """The graph of one SavedModel, loaded with its variables. Raises TensorFlow's errors when it cannot be."""

    def __init__(self, tensorflow: Any, folder: str, tags: Sequence[str]) -> None:
        self._tensorflow = tensorflow
        self._session = tensorflow.compat.v1.Session(graph=tensorflow.Graph(), config=_without_gpu(tensorflow))
        with self._session.graph.as_default():
            tensorflow.compat.v1.saved_model.loader.load(self._session, list(tags), folder)
        self._graph = self._session.graph.as_graph_def(add_shapes=True)

    def convert(self, signature: Signature, opset: int) -> tuple[Any, dict[str, str], dict[str, str]]:
        """The ONNX model of one signature, and the names of its inputs and outputs in it. Raises UNSUPPORTED for what ONNX cannot express."""
        import tf2onnx

        if any(spec.datatype is not None and spec.datatype.kind == "complex" for spec in signature.inputs + signature.outputs):
            raise ServingError(Kind.UNSUPPORTED, "it takes or gives complex numbers, which onnxruntime has not")
        feeds = {spec.name: f"dragoman_input_{index}" for index, spec in enumerate(signature.inputs)}
        fetches = {spec.name: f"dragoman_output_{index}" for index, spec in enumerate(signature.outputs)}
        taken = [f"{name}:0" for name in feeds.values()], [f"{name}:0" for name in fetches.values()]
        graph = self._frozen(self._inlined(self._cut(signature, feeds, fetches), [*taken[0], *taken[1]]), list(fetches.values()))
        refuse(graph, fetches.values())
        inputs, outputs = port_names(signature)
        renamed = {f"{feeds[name]}:0": tensor for name, tensor in inputs.items()}
        renamed |= {f"{fetches[name]}:0": tensor for name, tensor in outputs.items()}
        try:
            model, _ = tf2onnx.convert.from_graph_def(
                graph, name="model", input_names=taken[0], output_names=taken[1], opset=opset, tensors_to_rename=renamed
            )
        except Exception as error:  # whatever tf2onnx stumbles over
            raise ServingError(Kind.UNSUPPORTED, f"tf2onnx cannot convert it: {_line(error)}") from error
        unknown = sorted(set(_unknown(model, model.graph)))
        if unknown:
            raise ServingError(Kind.UNSUPPORTED, f"ONNX has no operation for TensorFlow's {', '.join(unknown)}")
        declare(model.graph, signature, inputs, outputs)
        return model, inputs, outputs

    def close(self) -> None:
        self._session.close()

    def _cut(self, signature: Signature, feeds: Mapping[str, str], fetches: Mapping[str, str]) -> Any:
        """The graph with a placeholder in the place of each input, wherever in the graph that lies, and a node for each output."""
        v1 = self._tensorflow.compat.v1
        graph = v1.GraphDef()
        graph.CopyFrom(self._graph)
        instead = {_tensor(spec.native): feeds[spec.name] for spec in signature.inputs}
        made = []
        for spec in signature.inputs:
            tensor = self._session.graph.get_tensor_by_name(spec.native)
            node = v1.NodeDef(name=feeds[spec.name], op="Placeholder")
            node.attr["dtype"].type = tensor.dtype.base_dtype.as_datatype_enum
            node.attr["shape"].shape.CopyFrom(self._tensorflow.TensorShape(_dims(spec)).as_proto())
            made.append(node)
        for spec in signature.outputs:
            tensor = self._session.graph.get_tensor_by_name(spec.native)
            node = v1.NodeDef(name=fetches[spec.name], op="Identity", input=[spec.native])
            node.attr["T"].type = tensor.dtype.base_dtype.as_datatype_enum
            made.append(node)
        graph.node.extend(made)
        for node in graph.node:
            node.device = ""
            for index, name in enumerate(node.input):
                if not name.startswith("^") and _tensor(name) in instead:
                    node.input[index] = instead[_tensor(name)]
        return graph

    def _inlined(self, graph: Any, tensors: Sequence[str]) -> Any:
        """With the calls of functions replaced by what they do: exports of TensorFlow 2 are one call each."""
        from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
        from tensorflow.python.grappler import tf_optimizer

        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            for node in nodes:
                if "_lower_using_switch_merge" in node.attr:  # loops stay loops, which ONNX has as well
                    node.attr["_lower_using_switch_merge"].b = False
        with self._tensorflow.Graph().as_default():
            whole = self._tensorflow.compat.v1.train.export_meta_graph(graph_def=graph)
        collection = meta_graph_pb2.CollectionDef()
        collection.node_list.value.extend(tensors)
        whole.collection_def["train_op"].CopyFrom(collection)
        config = config_pb2.ConfigProto()
        rewrite = config.graph_options.rewrite_options
        rewrite.min_graph_nodes = -1  # graphs of a few nodes, too
        rewrite.optimizers.append("function")
        rewrite.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
        return tf_optimizer.OptimizeGraph(config, whole)

    def _frozen(self, graph: Any, outputs: list[str]) -> Any:
        """With the variables' values in their places, and without what no output needs."""
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_from_session_graph

        return convert_variables_to_constants_from_session_graph(self._session, graph, outputs)


def port_names(signature: Signature) -> tuple[dict[str, str], dict[str, str]]:
    """The names of inputs and outputs in the graph: their own, but for an output that is called like an input."""
    inputs = {spec.name: spec.name for spec in signature.inputs}
    outputs: dict[str, str] = {}
    taken = set(inputs) | {spec.name for spec in signature.outputs}
    for spec in signature.outputs:
        name = spec.name
        while name in inputs or (name != spec.name and name in taken):
            name += "_out"
        outputs[spec.name] = name
        taken.add(name)
    return inputs, outputs


def refuse(graph: Any, outputs: Any) -> None:
    """Raise UNSUPPORTED when what the outputs are made of parses Examples, works with text or keeps tables."""
    nodes = list(_reached(graph, outputs))
    names = {node.op for node in nodes}
    if names & _EXAMPLES:
        raise ServingError(
            Kind.UNSUPPORTED, "it parses serialized tf.Examples, which ONNX cannot; call a signature that takes tensors instead"
        )
    tables = sorted(name for name in names if "LookupTable" in name or "HashTable" in name)
    if tables:
        raise ServingError(Kind.UNSUPPORTED, f"it looks up tables ({', '.join(tables)}), which ONNX has not")
    texts = sorted({node.op for node in nodes if node.op not in _PASSES_STRINGS | _CALLS and _has_strings(node)})
    if texts:
        raise ServingError(Kind.UNSUPPORTED, f"it works with strings ({', '.join(texts[:8])}), which ONNX cannot")


def declare(graph: Any, signature: Signature, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Write the signature's own shapes to the graph's inputs and outputs, in the signature's order.

    The names of variable dimensions say whether requests may be joined: the first is the same one everywhere, or nowhere.
    """
    for values, specs, names in ((graph.input, signature.inputs, inputs), (graph.output, signature.outputs, outputs)):
        found = {value.name: value for value in values}
        ordered = [found[names[spec.name]] for spec in specs if names[spec.name] in found]
        for spec, value in zip(specs, ordered, strict=True):
            _declare(value.type.tensor_type, spec, batch=signature.batch)
        copies = [type(value).FromString(value.SerializeToString()) for value in ordered]
        del values[:]
        values.extend(copies)


def _declare(tensor: Any, spec: TensorSpec, *, batch: bool) -> None:
    tensor.ClearField("shape")
    if spec.shape is None:
        return
    tensor.shape.SetInParent()
    for axis, size in enumerate(spec.shape):
        dimension = tensor.shape.dim.add()
        if size >= 0:
            dimension.dim_value = size
        elif axis == 0:
            dimension.dim_param = BATCH if batch else f"rows of {spec.name}"
        else:
            dimension.dim_param = f"{spec.name}_dim_{axis}"


def _unknown(model: Any, graph: Any) -> Iterator[str]:
    """Operations that are in no set of ONNX's: what tf2onnx has left as it was."""
    import onnx

    opsets = {opset.domain: opset.version for opset in model.opset_import}
    for node in graph.node:
        try:
            onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
        except onnx.defs.SchemaError:
            yield node.op_type
        for attribute in node.attribute:
            for part in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
                yield from _unknown(model, part)


def _reached(graph: Any, outputs: Any) -> Iterator[Any]:
    """The nodes that the outputs are made of, and those of the functions that they call."""
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    waiting = [nodes[name] for name in outputs]
    seen = {node.name for node in waiting}
    called: set[str] = set()
    while waiting:
        node = waiting.pop()
        yield node
        for name in (_tensor(each)[0] for each in node.input if not each.startswith("^")):
            if name in nodes and name not in seen:
                seen.add(name)
                waiting.append(nodes[name])
        for value in node.attr.values():
            for function in (value.func, *value.list.func):
                if function.name in functions and function.name not in called:
                    called.add(function.name)
                    waiting += functions[function.name]


def _has_strings(node: Any) -> bool:
    """Whether an operation takes or gives text, by its attributes or always."""
    from tensorflow.python.framework import op_def_registry

    known = op_def_registry.get(node.op)
    always = known is not None and any(each.type == _STRING for each in (*known.input_arg, *known.output_arg))
    return always or any(value.type == _STRING or _STRING in value.list.type for value in node.attr.values())


def _tensor(name: str) -> tuple[str, int]:
    """A tensor's node and which of its outputs it is."""
    node, _, index = name.lstrip("^").partition(":")
    return node, int(index) if index.isdecimal() else 0


def _dims(spec: TensorSpec) -> list[int | None] | None:
    shape: Shape | None = spec.shape
    return None if shape is None else [None if size < 0 else size for size in shape]


def _without_gpu(tensorflow: Any) -> Any:
    return tensorflow.compat.v1.ConfigProto(device_count={"GPU": 0})


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:300]
