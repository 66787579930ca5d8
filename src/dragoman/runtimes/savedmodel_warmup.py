"""The warm-up requests that a SavedModel brings: assets.extra/tf_serving_warmup_requests, as TensorFlow Serving replays them.

A TFRecord file of PredictionLog messages. Called by the SavedModel runtime while it loads.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call
from dragoman.core.tensors import BF16, BYTES, Array, Signature, Tensor, Tensors
from dragoman.proto.messages import new
from dragoman.runtimes import savedmodel_errors
from dragoman.runtimes.arrays import encoded
from dragoman.runtimes.refusals import no_input, no_signature

FILE = "tf_serving_warmup_requests"
MOST = 1000


class Warmed(Protocol):
    """What is warmed up: savedmodel.SavedModel."""

    @property
    def signatures(self) -> Mapping[str, Signature]: ...
    def predict(self, call: Call) -> Tensors: ...
    def run_tensors(self, feeds: Mapping[str, Array], fetches: list[str]) -> None: ...


def replay(tensorflow: Any, folder: Path, model: Warmed, name: str) -> None:
    """Run every request of the file once. Raises MODEL_FAILED, naming the request, when one fails, and INVALID_INPUT for a damaged file."""
    path = folder / "assets.extra" / FILE
    if not path.is_file():
        return
    number = 0
    try:
        for number, record in enumerate(_records(tensorflow, path, name), 1):  # noqa: B007 # the message needs it
            _replay(tensorflow, record, model, name)
    except (ServingError, tensorflow.errors.OpError, UnicodeDecodeError) as error:
        if isinstance(error, ServingError) and error.what == "warmup":
            raise
        reason = savedmodel_errors.plain(error)
        raise ServingError(Kind.MODEL_FAILED, f"warm-up request {number} of model '{name}' failed: {reason}", what="model") from None


def _records(tensorflow: Any, path: Path, name: str) -> Iterator[Any]:
    """Each message of the file. Raises INVALID_INPUT (what="warmup") for what is no such file, or too long."""
    from google.protobuf.message import DecodeError

    number = 0
    try:
        for data in tensorflow.compat.v1.io.tf_record_iterator(str(path)):
            number += 1
            if number > MOST:
                raise invalid(f"the file {FILE} of model '{name}' has more than {MOST} requests", "warmup")
            record: Any = new("tensorflow.serving.PredictionLog")
            record.ParseFromString(data)
            yield record
    except (tensorflow.errors.DataLossError, DecodeError) as error:
        raise invalid(f"the file {FILE} of model '{name}' is damaged after {number} requests", "warmup") from error


def _replay(tensorflow: Any, record: Any, model: Warmed, name: str) -> None:
    match record.WhichOneof("log_type"):
        case "predict_log":
            request = record.predict_log.request
            key = request.model_spec.signature_name
            signature = _signature(model, key, name)
            tensors = [_tensor(tensorflow, each, value, signature, name) for each, value in request.inputs.items()]
            model.predict(Call(Tensors(tensors), signature=key, outputs=tuple(request.output_filter)))
        case "classify_log":
            _examples(model, record.classify_log.request.model_spec, record.classify_log.request.input, name)
        case "regress_log":
            _examples(model, record.regress_log.request.model_spec, record.regress_log.request.input, name)
        case "multi_inference_log":
            for task in record.multi_inference_log.request.tasks:
                _examples(model, task.model_spec, record.multi_inference_log.request.input, name)
        case "session_run_log":
            request = record.session_run_log.request
            feeds = {each.name: _array(tensorflow, each.tensor, each.name, name) for each in request.feed}
            model.run_tensors(feeds, [*request.fetch, *request.target])
        case _:
            raise invalid(f"model '{name}': it is of a kind that is not known here")


def _examples(model: Warmed, spec: Any, given: Any, name: str) -> None:
    """Feed serialized Examples to the one input of a signature, each with the features of the context that it lacks."""
    signature = _signature(model, spec.signature_name, name)
    if len(signature.inputs) != 1 or signature.inputs[0].datatype is not BYTES:
        raise invalid(f"the signature '{spec.signature_name}' of model '{name}' does not take Examples")
    kind = given.WhichOneof("kind")
    examples = [] if kind is None else list(getattr(given, kind).examples)
    if kind == "example_list_with_context":
        for example in examples:
            for feature, value in given.example_list_with_context.context.features.feature.items():
                if feature not in example.features.feature:
                    example.features.feature[feature].CopyFrom(value)
    if not examples:
        raise invalid(f"model '{name}': Input is empty.")
    array: Array = np.empty(len(examples), dtype=object)
    array[:] = [example.SerializeToString() for example in examples]
    model.predict(Call(Tensors([Tensor(signature.inputs[0].name, BYTES, array)]), signature=spec.signature_name))


def _signature(model: Warmed, key: str, name: str) -> Signature:
    signature = model.signatures.get(key)
    if signature is None:
        raise no_signature(name, key)
    return signature


def _tensor(tensorflow: Any, key: str, value: Any, signature: Signature, name: str) -> Tensor:
    spec = signature.input_by_name.get(key)
    if spec is None or spec.datatype is None:
        raise no_input(name, key)
    array = _array(tensorflow, value, key, name)
    if spec.datatype is BF16 and array.dtype == tensorflow.bfloat16.as_numpy_dtype:
        array = array.view("u2")
    if array.dtype != spec.datatype.numpy:
        raise invalid(f"input '{key}' of model '{name}' has datatype {array.dtype}, expected {spec.datatype}")
    return Tensor(key, spec.datatype, array)


def _array(tensorflow: Any, value: Any, key: str, name: str) -> Array:
    from tensorflow.core.framework import tensor_pb2

    try:
        array: Array = tensorflow.make_ndarray(tensor_pb2.TensorProto.FromString(value.SerializeToString()))
    except (TypeError, ValueError) as error:
        raise invalid(f"input '{key}' of model '{name}' is no tensor: {error}") from error
    return encoded(array) if array.dtype.kind in "SUO" else array
