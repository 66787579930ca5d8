"""TensorFlow Serving's PredictionService over gRPC, for models of every runtime. Made by the server, once; called by its gRPC listener.

Messages that carry tensors are read and written as bytes (predict_call.py); the small ones are message objects.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.core.convert import inwards, output_tensors
from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import InferRequest
from dragoman.core.tensors import Tensors
from dragoman.dialects import Access, Services
from dragoman.dialects.rows import infer
from dragoman.dialects.rpc import Code, Method, RpcCall
from dragoman.dialects.tfserving import answers, calls, classified, encode, finding, messages, predict_call, tensor_proto
from dragoman.dialects.tfserving.classified import Classes, Terms
from dragoman.dialects.tfserving.decode import widen
from dragoman.dialects.tfserving.room import Room, with_context
from dragoman.proto import wire
from dragoman.proto.messages import new, parse_json
from dragoman.proto.wire import LENGTH, Buffer, tag
from dragoman.serving.gateway import Entry

_FIRST, _SECOND = tag(1, LENGTH), tag(2, LENGTH)
_METADATA_FIELD = "signature_def"
_DEPTH = 32


class PredictionService:
    """An RpcService."""

    name = f"{calls.PACKAGE}.PredictionService"

    def __init__(self, services: Services) -> None:
        self._gateway = services.gateway
        self._limit = services.max_inflated
        self._check_methods = services.check_methods
        self.methods: Mapping[str, Method] = {
            "Predict": Method(Access.INFER, self._predict),
            "Classify": Method(Access.INFER, self._classify),
            "Regress": Method(Access.INFER, self._regress),
            "MultiInference": Method(Access.INFER, self._multi),
            "GetModelMetadata": Method(Access.PUBLIC, self._metadata),
        }

    def refuse(self, error: ServingError) -> tuple[Code, str]:
        return calls.refuse(error)

    # --- Predict ---

    async def _predict(self, message: bytes, call: RpcCall) -> bytes:
        spec, inputs, wanted = predict_call.read(message)
        entry = calls.find(self._gateway, spec)
        found = finding.signature_of(entry, spec.signature_name)
        if found is None:
            asked = messages.cut(spec.signature_name or answers.DEFAULT_SIGNATURE)
            raise invalid(f'Serving signature key "{asked}" not found.', calls.PRECONDITION)
        key, signature = found
        if self._check_methods:
            classified.check_predict(signature)
        predict_call.check_inputs(inputs, signature)
        room = Room(self._limit)
        tensors = [tensor_proto.decode(name, value, room) for name, value in inputs.items()]
        predict_call.check_outputs(wanted, signature)
        widened = widen(tensors, signature, entry.servable.platform)
        request = InferRequest(
            inwards(Tensors(tensors), signature, entry.name),
            signature=key,
            outputs=tuple(wanted),
            deadline=call.deadline,
            caller=call.caller,
            strict=False,
            dialect="tfserving-grpc",
        )
        response = await infer(self._gateway, entry, request)
        outputs = output_tensors(response.outputs, signature, entry.name).items
        if wanted:
            outputs = predict_call.chosen(outputs, wanted)
        if widened:
            encode.narrow(outputs, signature, widened)
        return predict_call.write(entry, key, outputs)

    # --- Classify, Regress, MultiInference ---

    async def _classify(self, message: bytes, call: RpcCall) -> bytes:
        entry, key, examples = self._examples(message)
        found = await classified.classify(self._gateway, entry, key, examples, self._terms(call, "tfserving-grpc-classify"))
        answer: Any = new(f"{calls.PACKAGE}.ClassificationResponse")
        _tell_classes(answer.result, found)
        return _told(answer, entry, key)

    async def _regress(self, message: bytes, call: RpcCall) -> bytes:
        entry, key, examples = self._examples(message)
        found = await classified.regress(self._gateway, entry, key, examples, self._terms(call, "tfserving-grpc-regress"))
        answer: Any = new(f"{calls.PACKAGE}.RegressionResponse")
        _tell_numbers(answer.result, found)
        return _told(answer, entry, key)

    async def _multi(self, message: bytes, call: RpcCall) -> bytes:
        tasks, given = [], []
        for field, value in wire.fields(message):
            if field == _FIRST:
                tasks.append(calls.read("InferenceTask", bytes(value)))
            elif field == _SECOND:
                given.append(value)
        if not tasks:
            raise invalid("Inference request tasks are empty: expected one or more", "body")
        examples = _read_examples(given, Room(self._limit))
        first = tasks[0].model_spec
        if any(task.model_spec.name != first.name for task in tasks):
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.", "model")
        entry = calls.find(self._gateway, first)
        keys = [_key_of(entry, task.model_spec) for task in tasks]
        asked = [(key, task.method_name) for key, task in zip(keys, tasks, strict=True)]
        found = await classified.multi(self._gateway, entry, asked, examples, self._terms(call, "tfserving-grpc-multi"))
        answer: Any = new(f"{calls.PACKAGE}.MultiInferenceResponse")
        for (key, method), values in zip(asked, found, strict=True):
            result = answer.results.add()
            calls.tell(result.model_spec, entry, key)
            if method == classified.CLASSIFY:
                _tell_classes(result.classification_result, values)
            else:
                _tell_numbers(result.regression_result, values)
        return _bytes(answer)

    def _terms(self, call: RpcCall, dialect: str) -> Terms:
        return Terms(call.caller, call.deadline, dialect, self._check_methods)

    def _examples(self, message: bytes) -> tuple[Entry, str, list[bytes]]:
        """Who answers a Classify or Regress call, by which signature, and its Examples. The entry is found last: nothing is awaited after."""
        specs, given = [], []
        for field, value in wire.fields(message):
            if field == _FIRST:
                specs.append(value)
            elif field == _SECOND:
                given.append(value)
        spec = calls.read("ModelSpec", b"".join(specs))
        examples = _read_examples(given, Room(self._limit))
        entry = calls.find(self._gateway, spec)
        return entry, _key_of(entry, spec), examples

    # --- GetModelMetadata ---

    async def _metadata(self, message: bytes, call: RpcCall) -> bytes:
        request = calls.read("GetModelMetadataRequest", message)
        calls.check_name(request.model_spec)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field", "body")
        unknown = next((field for field in request.metadata_field if field != _METADATA_FIELD), None)
        if unknown is not None:
            raise invalid(f"Metadata field {messages.cut(unknown)} is not supported", "body")
        entry = calls.find(self._gateway, request.model_spec)
        described: Any = new(f"{calls.PACKAGE}.SignatureDefMap")
        parse_json(answers.metadata(entry)["metadata"][_METADATA_FIELD], described, _DEPTH)
        answer: Any = new(f"{calls.PACKAGE}.GetModelMetadataResponse")
        calls.tell(answer.model_spec, entry, "")
        answer.model_spec.signature_name = ""  # it is about all of them
        answer.metadata[_METADATA_FIELD].Pack(described)
        return _bytes(answer)


# --- reading ---


def _read_examples(given: Sequence[memoryview], room: Room) -> list[bytes]:
    """The serialized Examples of an Input that came in these pieces, each with the features of the context before its own, which win.

    Raises INVALID_INPUT when there are none.
    """
    kind = 0
    examples: list[bytes] = []
    contexts: list[Buffer] = []
    for piece in given:
        for field, value in wire.fields(piece):
            if field not in (_FIRST, _SECOND):
                continue
            if field != kind:  # one of the two: the later one
                kind, examples, contexts = field, [], []
            for inner, content in wire.fields(value, wire.ELEMENTS):
                if inner == _FIRST:
                    examples.append(bytes(content))
                elif inner == _SECOND and field == _SECOND:
                    contexts.append(content)
    if not examples:
        raise invalid("Input is empty.", "body")
    return with_context(b"".join(contexts), examples, room)


def _key_of(entry: Entry, spec: Any) -> str:
    """The key of the signature that Classify and Regress mean."""
    found = finding.signature_of(entry, spec.signature_name)
    if found is None:
        raise messages.no_signature_found(spec.signature_name or answers.DEFAULT_SIGNATURE)
    return found[0]


# --- writing ---


def _tell_classes(result: Any, found: Any) -> None:
    result.SetInParent()
    each: Classes
    for each in found:
        classes = result.classifications.add().classes
        for label, score in each:
            classes.add(label=label, score=score)


def _tell_numbers(result: Any, found: Any) -> None:
    result.SetInParent()
    for value in found:
        result.regressions.add(value=value)


def _told(answer: Any, entry: Entry, key: str) -> bytes:
    calls.tell(answer.model_spec, entry, key)
    return _bytes(answer)


def _bytes(answer: Any) -> bytes:
    serialized: bytes = answer.SerializeToString()
    return serialized
