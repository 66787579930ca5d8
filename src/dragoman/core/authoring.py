"""What the author of a Python model writes besides plain Python: `@dragoman.batched`. Imported by user code, so it needs nothing but this.

@dragoman.batched(max_size=16)
def predict(texts: list[str], language: str = "en") -> list[str]: ...
"""

from collections.abc import Callable
from typing import Any, TypeVar, overload

Function = TypeVar("Function", bound=Callable[..., Any])

MARK = "__dragoman_batch_size__"
"""The attribute of a function that takes batches."""
USUAL_SIZE = 32


@overload
def batched(function: Function, /) -> Function: ...
@overload
def batched(*, max_size: int = USUAL_SIZE) -> Callable[[Function], Function]: ...
def batched(function: Any = None, /, *, max_size: int = USUAL_SIZE) -> Any:
    """Mark a `predict` that takes a list of up to `max_size` inputs and returns a list of as many outputs.

    A parameter without a default is a list with one item per input, or an array with one element per input along axis 0. A parameter with a
    default is an option: one value, which all inputs of a batch share. Raises ValueError for a size below 1.
    """
    if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 1:
        raise ValueError(f"max_size must be a whole number of at least 1, not {max_size!r}")

    def mark(marked: Function) -> Function:
        setattr(marked, MARK, max_size)
        return marked

    return mark if function is None else mark(function)
