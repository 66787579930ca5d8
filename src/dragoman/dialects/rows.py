"""Models of rows behind protocols of tensors: how a codec calls them, and how values of a request become values of rows. Used by every codec."""

import base64
from collections.abc import Awaitable
from itertools import chain
from typing import Any

import numpy as np

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import InferRequest, InferResponse, Timings
from dragoman.core.tensors import Array, Failure, Rows, Tensors, Value
from dragoman.core.values import jsonable
from dragoman.dialects.json import NumberList
from dragoman.serving.gateway import Entry, Gateway

_DEEPEST = 200
"""Levels of lists and objects in a request to a model of rows. Everything that walks through them is recursive."""


def infer(gateway: Gateway, entry: Entry, request: InferRequest) -> Awaitable[InferResponse]:
    """Gateway.infer; the rows of a request go one by one, so that the model's own batcher puts them into batches."""
    if type(request.inputs) is Tensors:
        return gateway.infer(entry, request)
    return _infer_rows(gateway, entry, request)


async def _infer_rows(gateway: Gateway, entry: Entry, request: InferRequest) -> InferResponse:
    return InferResponse(Rows(await gateway.infer_each(entry, request)), Timings())


def only_row(outputs: Rows, model: str) -> dict[str, Any]:
    """The answer to a request of one row, by output name, made of JSON types."""
    if len(outputs.items) != 1:
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered {len(outputs.items)} outputs for 1 input")
    row = outputs.items[0]
    if isinstance(row, Failure):
        raise ServingError(Kind.MODEL_FAILED, row.message, trace=row.trace)
    answer: dict[str, Any] = jsonable(row if isinstance(row, dict) else {"output": row})
    return answer


def texts(array: Array) -> Any:
    """BYTES in lists nested as the array's shape: text where it is UTF-8, else base64."""
    made: Array = np.empty(array.size, object)
    made[:] = [_text(item) for item in array.ravel().tolist()]
    return made.reshape(array.shape).tolist()


def _text(item: bytes) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return base64.b64encode(item).decode()


def plain(value: Any) -> Value:
    """A parsed JSON value without the packed lists that our reader makes; itself where it has none.

    Raises INVALID_INPUT for one that is nested without end.
    """
    return _unpacked(value) if _holds_packed(value) else value


def _holds_packed(value: Any) -> bool:
    """Level by level, so that the work is C's: 50,000 lists of texts, numbers and objects take 30 ms, and 200 one by one."""
    level = [value]
    for _ in range(_DEEPEST + 1):
        types = set(map(type, level))
        if NumberList in types:
            return True
        lists = [each for each in level if type(each) is list] if list in types else []
        objects = [each.values() for each in level if type(each) is dict] if dict in types else []
        if not lists and not objects:
            return False
        level = [*chain.from_iterable(lists), *chain.from_iterable(objects)]
    raise _too_deep()


def _unpacked(value: Any, depth: int = 0) -> Value:
    if type(value) is NumberList:
        return value.tolist()
    if depth > _DEEPEST:
        raise _too_deep()
    if type(value) is list:
        if {list, dict, NumberList}.isdisjoint(map(type, value)):
            return value
        return [_unpacked(item, depth + 1) for item in value]
    if type(value) is dict:
        return {key: _unpacked(item, depth + 1) for key, item in value.items()}
    return value


def _too_deep() -> ServingError:
    return invalid(f"the body is nested deeper than {_DEEPEST} levels", "body")
