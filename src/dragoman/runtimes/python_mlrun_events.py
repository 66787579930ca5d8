"""What goes into MLRun's hooks and comes out of them: the event object, files as file objects, paths into bodies, Responses, errors with a status.

Called by python_mlrun.py. Nothing here knows the class; what is taken from user code is told by its shape, as the original and our stand-in
have types of their own.
"""

import asyncio
import inspect
import io
from collections.abc import Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.tensors import Blob, Reply, Value
from dragoman.core.tracebacks import first_line, trace_of
from dragoman.core.values import normalise
from dragoman.runtimes.python_parts import guarded, pieces

_DEEPEST = 100
_DEEP = frozenset({Blob, bytes, dict, list})
"""What files may be in. A list of numbers, which may be long, is not looked at one by one."""
_PLAIN = frozenset({type(None), bool, int, float, str})


class Event:
    """What an `op_xx` method gets."""

    def __init__(self, given: Mapping[str, Value], body: Any, operation: str) -> None:
        self.body = body
        self.id = given.get("id")
        self.key = ""
        self.path = operation  # as MLRun's router leaves it
        self.method = given.get("method", "")
        self.headers: dict[str, Value] = dict(given.get("headers") or {})
        self.content_type = given.get("content_type", "")
        self.trigger = SimpleNamespace(kind=given.get("trigger", ""), name="")
        self.error: Any = None

    def __str__(self) -> str:
        return f"Event(id={self.id}, path={self.path}, method={self.method})"


class Calls:
    """Runs what hooks answer to its end: coroutines on one loop that lasts as long as the model, generators into the list of what they give."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def settled(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            return self.settled(self._run(value))
        if inspect.isgenerator(value):
            return _joined(list(pieces(value)))
        if inspect.isasyncgen(value):
            return _joined(self._run(_collected(value)))
        return value

    def hook(self, instance: Any, name: str, kind: Kind, model: str, *arguments: Any) -> Any:
        """What a hook of user code answers, to its end; what it raises is an error of `kind`, unless it says which status it means."""
        try:
            return self.settled(guarded(getattr(instance, name), *arguments))
        except Exception as error:
            raise failure(error, model, kind) from error

    def _run(self, coroutine: Any) -> Any:
        if self._runner is None:
            self._runner = asyncio.Runner()
        loop = self._runner.get_loop()
        task = loop.create_task(coroutine)
        try:
            return guarded(loop.run_until_complete, task)
        except BaseException:
            if not task.done():  # the call was interrupted, and must not go on beside the next one
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    loop.run_until_complete(task)
            raise

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


async def _collected(generator: Any) -> list[Any]:
    return [piece async for piece in generator]


def _joined(parts: list[Any]) -> Any:
    """Pieces of text are one text."""
    return "".join(parts) if parts and all(isinstance(part, str) for part in parts) else parts


# --- inwards ---


def opened(body: Value) -> Any:
    """A body with its files as file objects; one that is a file itself is a request with that as its only input."""
    if isinstance(body, Blob | bytes):
        return {"inputs": [_opened(body)]}
    return _opened(body)


def _opened(value: Value) -> Any:
    if isinstance(value, Blob):
        file = io.BytesIO(value.data)
        file.name = value.name
        return file
    if type(value) is bytes:
        return io.BytesIO(value)
    if type(value) is list:
        return value if _DEEP.isdisjoint(map(type, value)) else [_opened(each) for each in value]
    if type(value) is dict:
        return {key: _opened(each) for key, each in value.items()}
    return value


def selected(body: Any, path: str, model: str) -> dict[str, Any]:
    """The part of a body that is the request. Raises INVALID_INPUT when it is no object."""
    for key in path.split(".") if path else ():
        if not isinstance(body, dict) or key not in body:
            raise invalid(f"the request for model '{model}' has nothing at '{path}', where its input_path says the request is", "body")
        body = body[key]
    if not isinstance(body, dict):
        raise invalid(f"the request for model '{model}' must be an object with inputs, not {type(body).__name__}", "body")
    return body


# --- outwards ---


def placed(body: Any, path: str, result: Any) -> Any:
    """The result, or the body of the request with the result put at a path of it (the class argument result_path)."""
    if not path or not isinstance(body, dict):
        return result
    *parents, last = path.split(".")
    target = body
    for key in parents:
        inner = target.get(key)
        target[key] = target = inner if isinstance(inner, dict) else {}
    target[last] = result
    return body


def answer_of(value: Any, model: str) -> Reply | None:
    """The Reply that a Response of user code stands for; None for anything else."""
    status = getattr(value, "status_code", None)
    if not hasattr(value, "body") or not isinstance(status, int) or isinstance(status, bool):
        return None
    if not 100 <= status <= 599:
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered the status {status}, which is none")
    body = finished(value.body, model)
    headers = {str(name): str(text) for name, text in dict(getattr(value, "headers", None) or {}).items()}
    kind = str(getattr(value, "content_type", None) or "") if isinstance(body, str | bytes) else ""
    return Reply(body, status, kind, headers)


def finished(value: Any, model: str) -> Value:
    """A result made of plain values (requirement M27). Raises MODEL_FAILED, naming the place, for what none can be made of."""
    return normalise(_plain(value, _DEEPEST), f"the answer of model '{model}'")


def _plain(value: Any, levels: int) -> Any:
    """File objects as their bytes; series, frames and other frameworks' tensors as arrays."""
    kind = type(value)
    if kind in _PLAIN or kind is np.ndarray or not levels:
        return value
    if kind is list or kind is tuple:
        return value if _PLAIN.issuperset(map(type, value)) else [_plain(each, levels - 1) for each in value]
    if kind is dict:
        return {key: _plain(each, levels - 1) for key, each in value.items()}
    if isinstance(value, io.BytesIO):
        return value.getvalue()
    if hasattr(value, "__array__") and not isinstance(value, np.ndarray | np.generic):
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    return value


def failure(error: Exception, model: str, kind: Kind) -> ServingError:
    """What callers are told of an exception of a hook (requirements M24, M25): its type and first line, and the status that it says."""
    if isinstance(error, ServingError):
        return error
    line = first_line(error)
    text = f"{type(error).__name__}: {line}" if line else type(error).__name__
    status = _status(error)
    if status is not None:
        kind = Kind.INVALID_INPUT if status < 500 else Kind.MODEL_FAILED
    elif isinstance(error, NotImplementedError):
        return ServingError(Kind.UNSUPPORTED, f"model '{model}' does not implement this: {text}", what="operation")
    trace = trace_of(error) if kind is Kind.MODEL_FAILED else ""
    verb = "failed" if kind is Kind.MODEL_FAILED else "refused the request"
    return ServingError(kind, f"model '{model}' {verb}: {text}", status=status, trace=trace)


def _status(error: Exception) -> int | None:
    """The status that an exception means, in MLRun's word for it or in that of web frameworks."""
    for name in ("error_status_code", "status_code"):
        status = getattr(error, name, None)
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status <= 599:
            return int(status)
    return None
