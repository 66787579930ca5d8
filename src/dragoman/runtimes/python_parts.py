"""What both kinds of Python models share: cutting a call into batches that keep the model's promises, and user code that wants to exit."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.keys import canonical_json
from dragoman.core.model import Call
from dragoman.core.tensors import Rows, Value

T = TypeVar("T")


def rows_of(call: Call, model: str) -> list[dict[str, Value]]:
    """The rows of a call. Raises INVALID_INPUT for anything else, and for outputs that are asked for by name, which rows do not have."""
    if not isinstance(call.inputs, Rows):
        raise invalid(f"model '{model}' takes rows, not tensors")
    if not all(isinstance(row, dict) for row in call.inputs.items):
        raise invalid(f"every row for model '{model}' must be an object by input name")
    return call.inputs.items


def batches(rows: Sequence[dict[str, Value]], options: Sequence[str], size: int) -> Iterator[list[dict[str, Value]]]:
    """Cut rows into runs of at most `size` neighbours with equal options: what a model is promised, whoever calls it."""
    batch: list[dict[str, Value]] = []
    key = None
    for row in rows:
        own = canonical_json([row.get(name) for name in options]) if options and len(rows) > 1 else ""
        if batch and (own != key or len(batch) >= size):
            yield batch
            batch = []
        key = own
        batch.append(row)
    if batch:
        yield batch


def guarded(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Call user code. An attempt to end the process is a failure like any other; everything else that it raises passes through."""
    try:
        return function(*arguments, **named)
    except SystemExit as error:
        raise RuntimeError(f"the model tried to end its process: SystemExit: {error.code}") from error


def pieces(generator: Generator[T, Any, Any]) -> Generator[T, None, None]:
    """What the user's generator yields, guarded as above; it is closed when this is."""
    try:
        while True:
            try:
                piece = guarded(next, generator)
            except StopIteration:
                return
            yield piece
    finally:
        generator.close()


def closed(model: str) -> ServingError:
    return ServingError(Kind.UNAVAILABLE, f"model '{model}' is closed", what="model")


def wrong_number(model: str, got: int, expected: int) -> ServingError:
    """T32 of the Tungsten requirements: a clear answer at once."""
    return ServingError(
        Kind.MODEL_FAILED, f"model '{model}' answered {got} output{'s' * (got != 1)} for {expected} input{'s' * (expected != 1)}"
    )
