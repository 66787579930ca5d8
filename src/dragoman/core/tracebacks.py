"""What an exception of a model looks like to its author: the traceback from the first line of user code on. Called where models are run.

Nothing here trusts the exception: its text may fail, or be of any length.
"""

import importlib
import traceback
from pathlib import Path

_OURS = (str(Path(__file__).parents[1]), importlib.__file__, "<frozen importlib.")
"""Whose frames come before those of the user: this package's, and what it imports models with."""
_LINE = 500
_TRACE = 64 << 10


def first_line(error: BaseException) -> str:
    """The first line of its text, shortened; "" when it has none, or cannot say it."""
    try:
        lines = str(error).strip().splitlines()
    except BaseException:  # the text of an exception is user code, too
        return ""
    return lines[0][:_LINE] if lines else ""


def trace_of(error: BaseException) -> str:
    """The traceback without the frames of the server before it, causes included. The last line is the type and the text."""
    try:
        seen = traceback.TracebackException.from_exception(error, max_group_width=5, max_group_depth=3)
        _strip(seen, set())
        text = "".join(seen.format())
    except BaseException:  # as above
        text = f"{type(error).__name__}\n"
    if len(text) > _TRACE:
        text = f"{text[: _TRACE // 2]}\n  ...\n{text[-_TRACE // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _strip(seen: traceback.TracebackException | None, done: set[int]) -> None:
    """Remove leading frames that are not the user's, of an exception and of those that it came from."""
    while seen is not None and id(seen) not in done:
        done.add(id(seen))
        while seen.stack and seen.stack[0].filename.startswith(_OURS):
            del seen.stack[0]
        _strip(seen.__context__, done)
        seen = seen.__cause__
