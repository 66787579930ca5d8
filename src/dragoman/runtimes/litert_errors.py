"""What LiteRT's exceptions mean, in words that help. Called by the LiteRT runtime when a file does not open or does not run."""

import re

from dragoman.core.errors import Kind, ServingError, invalid

_SOURCE = re.compile(r"\S*/\w+\.(?:cc|h):\d+ ")
_NODE = re.compile(r"\s*Node number (\d+) \(([^)]*)\) failed to \w+\.?")
_ADVICE = re.compile(r"\s*(?:For the Android, it can be|See instructions:).*?(?=Node number|$)", re.DOTALL)
_CUSTOM = re.compile(r"unresolved custom op: (.*?)\.\s")
_VERSION = re.compile(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'")
_CALLERS = re.compile(r"out of (?:bounds?|range)|index_value|Cannot set tensor", re.IGNORECASE)


def at_load(error: Exception, model: str, file: str) -> ServingError:
    """Why a file does not open."""
    text = str(error)
    lacks = _lacks(text, model)
    if lacks is not None:
        return lacks
    if "valid Flatbuffer" in text or "model_content" in text or "identifier" in text:
        return invalid(f"the file '{file}' of model '{model}' is damaged or is not a LiteRT model", what="model")
    return invalid(f"LiteRT cannot open '{file}' of model '{model}': {plain(text)}", what="model")


def at_run(error: Exception, model: str, *, dimensions_open: bool) -> Exception:
    """INVALID_INPUT when the input is to blame, otherwise the error itself.

    LiteRT has one kind of error for everything. With `dimensions_open` the signature lets the caller choose dimensions, so what an operation
    cannot work with is taken for the caller's.
    """
    text = str(error)
    lacks = _lacks(text, model)
    if lacks is not None:
        return lacks
    if dimensions_open or _CALLERS.search(text) is not None:
        return invalid(f"model '{model}' refused the input: {plain(text)}")
    return error


def plain(text: str) -> str:
    """LiteRT's message without source files and advice for phones, the operation in front; one line."""
    text = _ADVICE.sub("", text)
    nodes = _NODE.findall(text)
    reason = " ".join(_SOURCE.sub(" ", _NODE.split(text)[0]).split())
    operation = nodes[0][1] if nodes else ""
    return (f"{operation}: {reason}" if operation and reason else reason or f"{operation} failed")[:500]


def _lacks(text: str, model: str) -> ServingError | None:
    """The error for an operation that this LiteRT does not have."""
    named = [name for _, name in _NODE.findall(text)]
    if "Select TensorFlow op" in text:
        reason = f"uses TensorFlow's operation {named[0].removeprefix('Flex')}" if named else "uses operations of TensorFlow"
        advice = "convert the model with LiteRT's own operations only, or serve its SavedModel"
    elif match := _CUSTOM.search(text):
        reason, advice = f"uses the custom operation {match[1][:100]}", "only built-in operations can be run"
    elif match := _VERSION.search(text):
        reason, advice = f"uses version {match[2]} of the operation {match[1]}", "install a newer ai-edge-litert"
    else:
        return None
    return ServingError(Kind.UNSUPPORTED, f"model '{model}' {reason}, which LiteRT has no implementation for: {advice}", what="model")
