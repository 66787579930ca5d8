"""What the frames between a server and a model process say: requests, answers, errors and facts as headers, and back. Pure.

Called at both ends: engines/remote.py in the server, host.py in the model's process. Whatever does not fit raises FrameError.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.core.errors import Kind, Problem, ServingError
from dragoman.core.model import EMPTY, InferRequest, InferResponse, Timings
from dragoman.core.spec_json import signatures_from_json, signatures_to_json
from dragoman.core.tensors import DATATYPES, Rows, Signature, Tensor, Tensors, Value
from dragoman.hosting.frames import FrameError


@dataclass(frozen=True, slots=True)
class Facts:
    """What a loaded model says of itself."""

    signatures: Mapping[str, Signature]
    operations: frozenset[str]
    platform: str
    batch_size: int = 0
    """What the model itself says of its largest batch; 0: nothing."""


def facts_out(facts: Facts) -> dict[str, Value]:
    return {
        "signatures": signatures_to_json(facts.signatures),
        "operations": sorted(facts.operations),
        "platform": facts.platform,
        "batch_size": facts.batch_size,
    }


def facts_in(header: Mapping[str, Value]) -> Facts:
    try:
        return Facts(
            signatures_from_json(header["signatures"]),
            frozenset(header["operations"]),
            str(header["platform"]),
            int(header["batch_size"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FrameError(f"the facts of a model cannot be read: {error}") from error


def payload_out(payload: Tensors | Rows) -> dict[str, Value]:
    if isinstance(payload, Rows):
        return {"rows": payload.items}
    return {"tensors": [[t.name, t.datatype.name, t.array] for t in payload.items]}


def payload_in(header: Mapping[str, Value]) -> Tensors | Rows:
    if "rows" in header:
        return Rows(_list(header["rows"]))
    tensors = []
    for name, type_name, array in _list(header.get("tensors")):
        datatype = DATATYPES.get(type_name)
        if datatype is None or getattr(array, "dtype", None) != datatype.numpy or type(name) is not str:
            raise FrameError(f"a tensor is no {type_name}")
        tensors.append(Tensor(name, datatype, array))
    return Tensors(tensors)


def request_out(number: int, request: InferRequest, key: str | None, length: int, *, again: bool) -> dict[str, Value]:
    """`again`: it was accepted before and comes back after a crash, so it is not refused for want of room."""
    header: dict[str, Value] = {"id": number, "key": key, "length": length}
    if request.operation != "predict":
        header["operation"] = request.operation
    if request.signature:
        header["signature"] = request.signature
    if request.outputs:
        header["outputs"] = list(request.outputs)
    if request.parameters:
        header["parameters"] = request.parameters
    if request.deadline != math.inf:
        header["left_s"] = request.deadline - time.monotonic()
    if request.priority:
        header["priority"] = request.priority
    if request.group:
        header["group"] = request.group
    if request.watch is not None:
        header["log"] = True
    if request.part is not None:
        header["stream"] = True
    if request.record:
        header["record"] = True
    if again:
        header["again"] = True
    header.update(payload_out(request.inputs))
    return header


def request_in(header: Mapping[str, Value]) -> InferRequest:
    """Everything but what the model process itself needs: id, key, length, log, stream, again."""
    left_s = header.get("left_s")
    return InferRequest(
        payload_in(header),
        operation=header.get("operation", "predict"),
        signature=header.get("signature", ""),
        outputs=tuple(header.get("outputs", ())),
        parameters=header.get("parameters", EMPTY),
        deadline=math.inf if left_s is None else time.monotonic() + left_s,
        priority=header.get("priority", 0),
        group=header.get("group", ""),
        record=header.get("record", False) is True,
    )


def response_out(number: int, response: InferResponse) -> dict[str, Value]:
    t = response.timings
    header: dict[str, Value] = {
        "id": number,
        "timings": [t.queue_ns, t.input_ns, t.infer_ns, t.output_ns, t.batch_size, t.leader, t.rows],
    }
    if response.parameters:
        header["parameters"] = response.parameters
    header.update(payload_out(response.outputs))
    return header


def response_in(header: Mapping[str, Value]) -> InferResponse:
    try:
        timings = Timings(*header["timings"])
    except (LookupError, TypeError) as error:
        raise FrameError("an answer has no timings") from error
    return InferResponse(payload_in(header), timings, header.get("parameters", EMPTY))


def error_out(error: ServingError) -> dict[str, Value]:
    header: dict[str, Value] = {"kind": error.kind.value, "message": error.message}
    if error.what:
        header["what"] = error.what
    if error.problems:
        header["problems"] = [[list(p.path), p.code, p.message, _simple(p.context)] for p in error.problems]
    if error.retry_after_s is not None:
        header["retry_after_s"] = error.retry_after_s
    if error.status is not None:
        header["status"] = error.status
    if error.trace:
        header["trace"] = error.trace
    return header


def error_in(header: Mapping[str, Value]) -> ServingError:
    try:
        return ServingError(
            Kind(header["kind"]),
            header["message"],
            what=header.get("what", ""),
            problems=tuple(Problem(tuple(path), code, text, context) for path, code, text, context in header.get("problems", ())),
            retry_after_s=header.get("retry_after_s"),
            status=header.get("status"),
            trace=header.get("trace", ""),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise FrameError("an error cannot be read") from error


def _simple(context: Mapping[str, object]) -> dict[str, Any]:
    """The context of a problem, with texts for what could not travel: it is for messages."""
    allowed = (str, int, float, bool, type(None), list, dict)
    return {str(name): value if isinstance(value, allowed) else str(value) for name, value in context.items()}


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise FrameError("a frame has something else where a list belongs")
    return value
