"""Models of rows behind protocols of tensors: how a codec calls them, and how values of a request become values of rows. Used by every codec."""

from collections.abc import Awaitable
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest, InferResponse, Timings
from dragoman.core.tensors import Failure, Rows, Tensors, Value
from dragoman.core.values import jsonable
from dragoman.dialects.json import NumberList
from dragoman.serving.gateway import Entry, Gateway


def infer(gateway: Gateway, entry: Entry, request: InferRequest) -> Awaitable[InferResponse]:
    """Gateway.infer; the rows of a request go one by one, so that the model's own batcher puts them into batches."""
    if type(request.inputs) is Tensors:
        return gateway.infer(entry, request)
    return _infer_rows(gateway, entry, request)


async def _infer_rows(gateway: Gateway, entry: Entry, request: InferRequest) -> InferResponse:
    assert isinstance(request.inputs, Rows)
    answered = await gateway.infer_rows(
        entry,
        request.inputs.items,
        operation=request.operation,
        parameters=request.parameters,
        request_id=request.id,
        deadline=request.deadline,
        priority=request.priority,
        caller=request.caller,
        dialect=request.dialect,
    )
    return InferResponse(Rows(answered), Timings())


def only_row(outputs: Rows, model: str) -> dict[str, Any]:
    """The answer to a request of one row, by output name, made of JSON types."""
    if len(outputs.items) != 1:
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered {len(outputs.items)} outputs for 1 input")
    row = outputs.items[0]
    if isinstance(row, Failure):
        raise ServingError(Kind.MODEL_FAILED, row.message, trace=row.trace)
    answer: dict[str, Any] = jsonable(row if isinstance(row, dict) else {"output": row})
    return answer


def plain(value: Any) -> Value:
    """A parsed JSON value without the packed lists that our reader makes."""
    if type(value) is NumberList:
        return value.tolist()
    if type(value) is list:
        return [plain(item) for item in value]
    if type(value) is dict:
        return {key: plain(item) for key, item in value.items()}
    return value
