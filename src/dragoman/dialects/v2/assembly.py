"""What the REST and the gRPC codec share: requests put together from tensors, and the outputs of an answer picked as they are wanted.

Nothing here knows JSON or protobuf. Called by codec.py and grpc_codec.py.
"""

from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import replace

from dragoman.core.bodies import answered_tensors, points_of, whole_request
from dragoman.core.convert import inwards, output_tensors
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import InferRequest, InferResponse
from dragoman.core.tensors import DATATYPES, Datatype, Form, Rows, Signature, Tensor, Tensors
from dragoman.dialects import rows
from dragoman.dialects.v2.classification import classify
from dragoman.dialects.v2.parameters import steer, text
from dragoman.dialects.v2.plan import AS_BINARY, AS_JSON, Plan, Wanted
from dragoman.serving.gateway import Entry, Gateway

NAMES: Mapping[str, Datatype] = {name: each for name, each in DATATYPES.items() if each.kind != "complex"}
"""The datatypes of this protocol."""
MAX_RANK = 32

_TENSORS = Form.TENSORS


def find(gateway: Gateway, model: str, version: str) -> Entry:
    """Gateway.find, without the labels that this protocol does not have. "name:version" is MLRun's way to name both."""
    if version[:1] == "@":  # how the gateway's table spells labels
        raise ServingError(Kind.NOT_FOUND, f"model '{model}' has no version '{version}'", what="version")
    try:
        return gateway.find(model, version)
    except ServingError as error:
        name, _, tail = model.partition(":")
        if version or not name or not tail or error.kind is not Kind.NOT_FOUND or error.what != "model":
            raise
    return find(gateway, name, tail)


def default_signature(entry: Entry) -> Signature:
    """The signature that requests of this protocol are for. Raises UNSUPPORTED for a model that has none by default."""
    signature = entry.signatures.get("")
    if signature is None:
        raise ServingError(Kind.UNSUPPORTED, f"model '{entry.name}' has no default signature", what="signature")
    return signature


def unknown_datatype(tensor: str, datatype: str, model: str) -> ServingError:
    return invalid(f"input '{tensor}' of model '{model}' has the unknown datatype {text(datatype)}; there are {', '.join(NAMES)}")


def request_of(entry: Entry, signature: Signature, tensors: list[Tensor]) -> InferRequest:
    """The request with these inputs; the signature is the model's default one, or that whose inputs they name. Raises INVALID_INPUT."""
    if len(tensors) > 1:
        _refuse_twins(tensors, entry.name)
    elif tensors and signature.any_name:  # MLServer and KServe never look at the name: "predict" and "input-0" in their manuals
        tensors[0].name = signature.inputs[0].name
    request = InferRequest(Tensors(tensors), dialect="v2")
    if signature.whole:
        request.inputs = Rows(points_of(request.inputs, signature))
        return request
    if len(entry.signatures) > 1 and tensors and tensors[0].name not in signature.input_by_name:
        request.signature = _other(entry, tensors)
    if signature.form is not _TENSORS:
        request.inputs = inwards(request.inputs, signature, entry.name)
    return request


def steered(request: InferRequest, parameters: object, model: str) -> Wanted:
    """Take the parameters of the request; the answer is how outputs that it does not name are written. Raises INVALID_INPUT."""
    steering = steer(parameters, model)
    request.parameters = steering.parameters
    request.deadline = steering.deadline
    request.priority = steering.priority
    return AS_BINARY if steering.binary else AS_JSON


def infer(gateway: Gateway, entry: Entry, request: InferRequest) -> Awaitable[InferResponse]:
    """As `infer` of rows.py, but that the reply of a model of whole requests stays whole: `answered` makes tensors of it."""
    if type(request.inputs) is Rows and entry.signatures[request.signature].whole:
        return gateway.infer(entry, whole_request(request.inputs.items, request))
    return rows.infer(gateway, entry, request)


def answered(entry: Entry, response: InferResponse) -> Tensors:
    """The outputs as tensors, in the model's order."""
    outputs = response.outputs
    if type(outputs) is Rows and default_signature(entry).whole:
        return answered_tensors(outputs, default_signature(entry), entry.name)
    return outputs if type(outputs) is Tensors else output_tensors(outputs, default_signature(entry), entry.name)


def answered_part(entry: Entry, response: InferResponse) -> Tensors:
    """As `answered`, of a part of a stream: a model of rows declares its whole answer, of which a part may be a single element."""
    try:
        return answered(entry, response)
    except ServingError as error:
        signature = default_signature(entry)
        elements = [replace(s, shape=(s.shape[0], *s.shape[2:])) if s.shape and len(s.shape) > 1 else s for s in signature.outputs]
        try:
            return output_tensors(response.outputs, replace(signature, outputs=tuple(elements)), entry.name)
        except ServingError:
            raise error from None


def picked(entry: Entry, outputs: Tensors, plan: Plan) -> Iterator[tuple[Tensor, Wanted]]:
    """The outputs that are wanted, as classes where they are. Raises INVALID_INPUT for one that there is not, or that has no classes."""
    signature = default_signature(entry)
    found = 0
    for tensor in outputs.items:
        wanted = plan.named.get(tensor.name)
        if wanted is None:
            if plan.named:
                continue
            wanted = plan.others
        if wanted.classes:
            spec = signature.output_by_name.get(tensor.name)
            tensor = classify(tensor, wanted.classes, signature.batch, spec.labels if spec else (), entry.name)
        found += 1
        yield tensor, wanted
    if found < len(plan.named):
        # Only models that do not declare their outputs come here: for all others the gateway knows before it runs them.
        have = [tensor.name for tensor in outputs.items]
        missing = next(name for name in plan.named if name not in have)
        raise invalid(f"model '{entry.name}' has no output '{missing}'; it answered {', '.join(repr(name) for name in have)}")


def _other(entry: Entry, tensors: list[Tensor]) -> str:
    """The signature whose inputs have just these names, where they are not the default one's; this protocol has no field to name it."""
    names = {tensor.name for tensor in tensors}
    for name, signature in entry.signatures.items():
        if name and not name.startswith("@") and signature.form is _TENSORS and names == signature.input_by_name.keys():
            return name
    return ""


def _refuse_twins(tensors: list[Tensor], model: str) -> None:
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise invalid(f"input '{tensor.name}' of model '{model}' is given twice")
        seen.add(tensor.name)
