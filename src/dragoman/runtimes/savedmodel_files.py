"""A SavedModel's files before TensorFlow opens them: where they lie, which graph is wanted, and that it does nothing but compute.

A graph is a program: it can read and write files and call Python. Loading runs parts of it. So what reaches out of the model is refused by
the names of its operations, unless the operator trusts the model. That is no sandbox: TensorFlow itself must be trusted with hostile input.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dragoman.core import artifacts
from dragoman.core.artifacts import SAVED_MODEL, TRUST, is_saved_model
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import ModelSpec

_LARGEST = (2 << 30) - 1
"""No protobuf is larger."""
_REACHING_OUT = frozenset(
    {
        *("ReadFile", "WriteFile", "MatchingFiles", "ImmutableConst", "LoadAndRemapMatrix", "GenerateVocabRemapping", "FileSystemSetConfiguration"),
        *("WholeFileReader", "WholeFileReaderV2", "TextLineReader", "TextLineReaderV2", "TFRecordReader", "TFRecordReaderV2"),
        *("FixedLengthRecordReader", "FixedLengthRecordReaderV2", "LMDBReader"),
        *("TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "LMDBDataset"),
        *("ExperimentalLMDBDataset", "CSVDataset", "CSVDatasetV2", "ExperimentalCSVDataset", "SqlDataset", "ExperimentalSqlDataset"),
        *("MatchingFilesDataset", "ExperimentalMatchingFilesDataset", "CacheDataset", "CacheDatasetV2", "SnapshotDataset", "SnapshotDatasetV2"),
        *("SaveDataset", "SaveDatasetV2", "LoadDataset", "DistributedSave", "DatasetToTFRecord", "ExperimentalDatasetToTFRecord"),
        *("DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3", "DataServiceDatasetV4", "RegisterDataset", "RegisterDatasetV2"),
        *("CreateSummaryFileWriter", "CreateSummaryDbWriter", "PyFunc", "PyFuncStateless", "EagerPyFunc"),
        *("DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugNanCount", "DebugNumericSummary", "DebugNumericSummaryV2"),
    }
)  # fmt: skip
"""Operations that read or write files of their own choice, speak to other machines, or call Python."""
_FILE_OF_CHOICE = {
    "PrintV2": ("output_stream", b"file://"),
    "DecodeProtoV2": ("descriptor_source", b"/"),
    "EncodeProto": ("descriptor_source", b"/"),
}
"""Operations that do so when an attribute begins like that."""
_CHECKPOINTS = frozenset({"Save", "SaveV2", "SaveSlices", "Restore", "RestoreV2", "RestoreSlice", "MergeV2Checkpoints"})
"""Every export has them, for its variables: nothing that a request, or the start of the model, may reach with a file of its choice."""


def locate(spec: ModelSpec) -> Path:
    """The folder with saved_model.pb. Raises ServingError when there is none."""
    folder = Path(spec.artifact)
    if folder.name in SAVED_MODEL:
        folder = folder.parent
    if not is_saved_model(folder):
        raise ServingError(
            Kind.NOT_FOUND, f"the folder of model '{spec.name}' holds no SavedModel: there is no '{SAVED_MODEL[0]}' in it", what="model"
        )
    return folder


def read(tensorflow: Any, folder: Path, tags: Sequence[str], model: str, *, trusted: bool) -> Any:
    """The MetaGraphDef with exactly these tags. Raises INVALID_INPUT for damaged files, UNSUPPORTED when it is not there or reaches out."""
    saved = _parsed(folder, model)
    for graph in saved.meta_graphs:
        if set(graph.meta_info_def.tags) == set(tags):
            break
    else:
        there = "; ".join(",".join(sorted(graph.meta_info_def.tags)) or "none" for graph in saved.meta_graphs) or "there is no graph in it"
        raise ServingError(
            Kind.UNSUPPORTED,
            f"model '{model}' has no graph with the tags {','.join(tags)}; its tags are: {there} (choose with saved_model_tags)",
            what="model",
        )
    if not trusted:
        _check(graph, model)
    return graph


def _parsed(folder: Path, model: str) -> Any:
    from google.protobuf import message, text_format
    from tensorflow.core.protobuf import saved_model_pb2

    binary, text = SAVED_MODEL
    path = artifacts.locate(str(folder / (binary if (folder / binary).is_file() else text)), "savedmodel", model)
    saved = saved_model_pb2.SavedModel()
    try:
        if path.stat().st_size > _LARGEST:
            raise ServingError(Kind.TOO_LARGE, f"the file '{path.name}' of model '{model}' is larger than any protobuf", what="model")
        if path.name == binary:
            saved.ParseFromString(path.read_bytes())
        else:
            text_format.Parse(path.read_text("utf-8"), saved)
    except (message.DecodeError, text_format.ParseError, UnicodeDecodeError, RecursionError):
        raise invalid(f"the file '{path.name}' of model '{model}' is damaged or is no SavedModel", what="model") from None
    except OSError as error:
        raise invalid(f"the file '{path.name}' of model '{model}' cannot be read: {error.strerror or error}", what="model") from None
    return saved


def _check(graph: Any, model: str) -> None:
    """Raise UNSUPPORTED for a graph that could do more than compute."""
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    for nodes in (graph.graph_def.node, *functions.values()):
        for node in nodes:
            attribute, beginning = _FILE_OF_CHOICE.get(node.op, ("", b""))
            if node.op in _REACHING_OUT or (attribute and node.attr[attribute].s.startswith(beginning)):
                raise _refused(node.op, model)
    for node in _reached(graph, functions):
        if node.op in _CHECKPOINTS:
            raise _refused(node.op, model)


def _refused(operation: str, model: str) -> ServingError:
    return ServingError(
        Kind.UNSUPPORTED,
        f"model '{model}' has the operation {operation}, which reaches out of the model to files, other machines or Python code; {TRUST}",
        what="model",
    )


def _reached(graph: Any, functions: Mapping[str, Iterable[Any]]) -> Iterator[Any]:
    """The nodes that requests and the start of the model can run, as far as the wiring tells."""
    nodes = {node.name: node for node in graph.graph_def.node}
    waiting = [info.name for definition in graph.signature_def.values() for info in definition.outputs.values()]
    waiting += [name for collection in graph.collection_def.values() for name in collection.node_list.value]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        waiting += nodes[name].input
        yield from _called(nodes[name], functions, seen)


def _called(node: Any, functions: Mapping[str, Iterable[Any]], seen: set[str]) -> Iterator[Any]:
    """A node, and all nodes of the functions that it calls."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        for value in each.attr.values():
            for function in (value.func, *value.list.func) if value.HasField("func") or value.HasField("list") else ():
                key = f"function {function.name}"
                if function.name in functions and key not in seen:
                    seen.add(key)
                    waiting += functions[function.name]
