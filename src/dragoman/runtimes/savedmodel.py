"""TensorFlow SavedModels: load(spec) -> Model, with every signature. See docs/runtimes/savedmodel.md.

They run as in TensorFlow Serving: a session over the exported graph, fed by the tensor names of the signature. That serves exports of
TensorFlow 1 and 2 alike, leaves shapes to the graph, and costs a quarter of calling what `tf.saved_model.load` gives.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.plugins import missing
from dragoman.core.tensors import BF16, BYTES, Array, Rows, Signature, Tensor, Tensors
from dragoman.runtimes import memory, savedmodel_errors, savedmodel_files, savedmodel_notices, savedmodel_signatures, savedmodel_warmup
from dragoman.runtimes.options import Options, processors
from dragoman.runtimes.refusals import needs_input, no_input, no_output, no_signature, takes_tensors
from dragoman.runtimes.savedmodel_signatures import Described
from dragoman.runtimes.signatures import settle

log = logging.getLogger("dragoman.runtimes.savedmodel")

_MOST_CALLABLES = 64
"""Prepared calls of one model, one for each signature and choice of outputs; clients choose, so there is a bound."""


def load(spec: ModelSpec) -> Model:
    """Open the SavedModel, run its warm-up requests. Raises ServingError when it cannot be served, with the reason."""
    folder = savedmodel_files.locate(spec)
    try:
        with savedmodel_notices.quiet():
            import tensorflow
    except ImportError as error:
        raise _missing(spec.name, error) from error
    options = Options(spec)
    trusted = options.boolean("trust_pickle") or False
    tags = [str(tag) for tag in options.items("saved_model_tags")] or ["serve"]
    graph = savedmodel_files.read(tensorflow, folder, tags, spec.name, trusted=trusted)
    session = tensorflow.compat.v1.Session(graph=tensorflow.Graph(), config=_config(tensorflow, options, spec))
    try:
        with session.graph.as_default():
            tensorflow.compat.v1.saved_model.loader.load(session, tags, str(folder))
        model = SavedModel(tensorflow, session, spec, savedmodel_signatures.described(graph.signature_def, spec.name))
        if options.boolean("model_warmup") is not False:
            savedmodel_warmup.replay(tensorflow, folder, model, spec.name)
    except Exception as error:  # TensorFlow's own kinds, and those of its Python parts
        session.close()
        known = isinstance(error, ServingError | tensorflow.errors.OpError)  # the trace of TensorFlow's own loader says nothing more
        raise savedmodel_errors.at_load(error, spec.name, folder, tensorflow.__version__) from (None if known else error)
    return model


class SavedModel:
    """A session and the calls that are prepared on it, one for each signature and choice of outputs that was asked for."""

    operations = frozenset({"predict"})
    platform = "tensorflow_savedmodel"
    concurrent = True

    def __init__(self, tensorflow: Any, session: Any, spec: ModelSpec, entries: Mapping[str, Described]) -> None:
        self._tensorflow = tensorflow
        self._name = spec.name
        self._session = session
        self._lock = threading.Lock()
        self._callables: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._bits = tensorflow.bfloat16.as_numpy_dtype
        entries = {key: entry for key, entry in entries.items() if self._wired(entry)}
        if not entries:
            raise ServingError(Kind.UNSUPPORTED, f"no signature of model '{spec.name}' names tensors that are in its graph", what="model")
        default = savedmodel_signatures.DEFAULT if savedmodel_signatures.DEFAULT in entries else min(entries)
        self._entries: dict[str, Described] = {"": entries[default], **entries}
        for key, entry in entries.items():
            self._entries[key] = savedmodel_signatures.joining(entry, lambda inputs, entry=entry: self._run(entry, inputs, ()))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        first = self._entries[default]
        settled = first.with_signature(settle(spec, first.signature))
        self._entries[""] = settled
        if default == savedmodel_signatures.DEFAULT:
            self._entries[default] = settled
        self.signatures: Mapping[str, Signature] = {key: entry.signature for key, entry in self._entries.items()}

    def predict(self, call: Call) -> Tensors:
        if isinstance(call.inputs, Rows):
            raise takes_tensors(self._name)
        entry = self._entries.get(call.signature)
        if entry is None:
            raise no_signature(self._name, call.signature)
        try:
            return self._run(entry, call.inputs, call.outputs)
        except (self._tensorflow.errors.OpError, UnicodeDecodeError) as error:
            raise savedmodel_errors.at_run(error, self._name) from error

    def run_tensors(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> None:
        """Run the graph by its own tensor names, as a warm-up request of the oldest kind asks. Raises TensorFlow's errors."""
        self._session.run(list(fetches), dict(feeds))

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._callables.clear()  # each gives its part of the session back
            session.close()
            del session
            memory.release(cycles=True)

    def _run(self, entry: Described, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        signature = entry.signature
        given = {tensor.name: tensor for tensor in inputs.items}
        arguments = []
        for spec in signature.inputs:
            tensor = given.pop(spec.name, None)
            if tensor is None:
                if spec.name not in entry.defaults:
                    raise needs_input(self._name, spec.name)
                arguments.append(entry.defaults[spec.name])
                continue
            if tensor.datatype is not spec.datatype:  # TensorFlow would read some types as others
                raise invalid(f"input '{spec.name}' of model '{self._name}' has datatype {tensor.datatype}, expected {spec.datatype}")
            arguments.append(tensor.array.view(self._bits) if tensor.datatype is BF16 else tensor.array)
        if given:
            raise no_input(self._name, min(given))
        for name in outputs:
            if name not in signature.output_by_name:
                raise no_output(self._name, name)
        wanted = tuple(spec for spec in signature.outputs if not outputs or spec.name in outputs)
        results = self._callable(entry, tuple(spec.native for spec in wanted))(*arguments)
        answer = []
        for spec, result in zip(wanted, results, strict=True):
            assert spec.datatype is not None
            array = result if isinstance(result, np.ndarray) else np.array(result, object if spec.datatype is BYTES else None)
            answer.append(Tensor(spec.name, spec.datatype, array.view(np.uint16) if spec.datatype is BF16 else array))
        return Tensors(answer)

    def _wired(self, entry: Described) -> bool:
        """Whether the graph has the tensors that a signature names; says so in the log when it has not."""
        try:
            self._callable(entry, tuple(spec.native for spec in entry.signature.outputs))
        except (self._tensorflow.errors.OpError, UnicodeDecodeError) as error:
            reason = savedmodel_errors.plain(error)
            log.warning("model '%s': signature '%s' is left out: %s", self._name, entry.key, reason)
            return False
        return True

    def _callable(self, entry: Described, fetches: tuple[str, ...]) -> Any:
        """What runs a signature for these outputs: feeding through Session.run would refuse shapes that differ from the declared ones."""
        key = (entry.key, fetches)
        found = self._callables.get(key)
        if found is not None:
            return found
        from tensorflow.core.protobuf import config_pb2

        with self._lock:
            if self._session is None:
                raise ServingError(Kind.UNAVAILABLE, f"model '{self._name}' is closed", what="model")
            options = config_pb2.CallableOptions()
            options.feed.extend(spec.native for spec in entry.signature.inputs)
            options.fetch.extend(fetches)
            if len(self._callables) >= _MOST_CALLABLES:
                del self._callables[next(iter(self._callables))]
            made = self._callables[key] = self._session._make_callable_from_options(options)  # noqa: SLF001 # no public door leaves shapes to the graph
        return made


def _config(tensorflow: Any, options: Options, spec: ModelSpec) -> Any:
    config = tensorflow.compat.v1.ConfigProto()
    threads = options.integer("threads", "intra_op_parallelism", low=0, high=1024)
    if threads is None:
        share = options.processors()
        threads = 0 if share is None and spec.instances == 1 else max(1, (share or processors()) // spec.instances)
    config.intra_op_parallelism_threads = threads
    config.inter_op_parallelism_threads = options.integer("inter_op_threads", "inter_op_parallelism", low=0, high=1024) or 0
    device = options.text("device").lower().replace("cuda", "gpu")
    kind, _, index = device.partition(":")
    if kind == "gpu":
        if not tensorflow.config.list_physical_devices("GPU"):
            raise ServingError(
                Kind.UNSUPPORTED,
                f"model '{spec.name}' asks for {device}, but TensorFlow {tensorflow.__version__} sees no GPU",
                what="model",
            )
        config.gpu_options.visible_device_list = index if index.isdecimal() else ""
        config.gpu_options.allow_growth = True
        config.allow_soft_placement = True
        fraction = options.text("per_process_gpu_memory_fraction")
        config.gpu_options.per_process_gpu_memory_fraction = _fraction(fraction, spec.name) if fraction else 0.0
    elif kind in ("", "cpu"):
        config.device_count["GPU"] = 0
        config.allow_soft_placement = True  # a graph that names a GPU runs without one
    else:
        raise invalid(f"argument 'device' of model '{spec.name}' is {device[:50]!r}, expected cpu, cuda or cuda:N", what="model")
    return config


def _fraction(text: str, model: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise invalid(
            f"argument 'per_process_gpu_memory_fraction' of model '{model}' is {text[:50]!r}, expected a number from 0 to 1", what="model"
        )
    return value


def _missing(model: str, error: ImportError) -> ServingError:
    known = missing("tensorflow", "TensorFlow", error)
    way = "or convert it once with 'dragoman convert', after which it needs the extra 'onnx' only"
    return ServingError(known.kind, f"model '{model}' is a SavedModel: {known.message}; {way}", what="model")
