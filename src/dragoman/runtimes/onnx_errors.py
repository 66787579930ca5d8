"""What onnxruntime's exceptions mean, in words that help. Called by the ONNX runtime when a session does not open or does not run."""

import re
from pathlib import Path

from dragoman.core.errors import Kind, ServingError
from dragoman.runtimes import onnx_file

_LOADING = re.compile(r"^Load model from .*? failed: ?", re.DOTALL)
_PLACE = re.compile(r"(?:\S*/)?\w+\.(?:cc|h):\d+ ")
"""Where in onnxruntime's sources an error comes from. What follows is a function, with its types or without, and maybe a condition."""
_FUNCTION = re.compile(r"(?:[^()]{0,200}\((?:[^()]{0,500}|\([^()]{0,200}\)){0,20}\)(?:::\S+)?|\w+) ")
_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_RESOLVED = re.compile(r" resolved path: .*", re.DOTALL)
_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_OPSET = re.compile(r"Opset (\d+) is under development.*?official support for domain (\S+) is till opset (\d+)", re.DOTALL)
_OPERATOR = re.compile(r"(\S+) is not a registered function/op|No Op registered for (\S+)|Could not find an implementation for (\S+)")
_EXTERNAL = re.compile(r"external (?:data|initializer)", re.IGNORECASE)
_MEMORY = "Failed to allocate memory"


def at_load(error: Exception, model: str, path: Path, version: str) -> ServingError:
    """Why a file does not open. `version` is onnxruntime's own."""
    text = str(error)
    if match := _IR.search(text):
        facts = onnx_file.read(path)
        opset = f" (opset {facts.opsets['']})" if facts is not None and facts.opsets.get("") else ""
        return ServingError(
            Kind.UNSUPPORTED,
            f"model '{model}' is written in ONNX IR version {match[1]}{opset}, but onnxruntime {version} reads at most IR version {match[2]}: "
            f"install a newer onnxruntime, or set ir_version to {match[2]} when exporting",
            what="model",
        )
    if match := _OPSET.search(text):
        domain = "" if match[2] == "ai.onnx" else f" of the domain '{match[2]}'"
        return ServingError(
            Kind.UNSUPPORTED,
            f"model '{model}' uses opset {match[1]}{domain}, but onnxruntime {version} knows opsets up to {match[3]}: "
            f"install a newer onnxruntime, or export with an opset of at most {match[3]}",
            what="model",
        )
    if match := _OPERATOR.search(text):
        name = next(group for group in match.groups() if group)
        return ServingError(
            Kind.UNSUPPORTED,
            f"model '{model}' uses the operator {name}, for which onnxruntime {version} has no implementation",
            what="model",
        )
    reason = plain(text).replace(f"{path.resolve().parent}/", "").replace(f"{path.parent}/", "").replace(str(path.parent), ".")
    if "Protobuf parsing failed" in text or "No graph was found" in text:
        return ServingError(
            Kind.INVALID_INPUT, f"the file '{path.name}' of model '{model}' is damaged or is not an ONNX model", what="model"
        )
    if _EXTERNAL.search(text):
        return ServingError(
            Kind.INVALID_INPUT,
            f"the weights of model '{model}' lie in a file of their own, which must be complete and inside the model's folder: {reason}",
            what="model",
        )
    return ServingError(Kind.INVALID_INPUT, f"onnxruntime {version} cannot open '{path.name}' of model '{model}': {reason}", what="model")


def at_run(error: Exception, model: str, *, dimensions_open: bool) -> Exception:
    """INVALID_INPUT when the input is to blame, otherwise the error itself.

    onnxruntime says INVALID_ARGUMENT for most input that it refuses, but a node that meets a shape it cannot work with just fails. With
    `dimensions_open` the signature lets the caller choose dimensions, so such a failure is taken for the caller's.
    """
    kind = type(error).__name__
    blamed = kind == "InvalidArgument" or (kind == "Fail" and dimensions_open and _MEMORY not in str(error))
    if blamed or (isinstance(error, ValueError) and str(error).startswith("Required inputs")):
        return ServingError(Kind.INVALID_INPUT, f"model '{model}' refused the input: {plain(str(error))}")
    return error


def plain(text: str) -> str:
    """onnxruntime's message without codes, source files and C++ types; one line."""
    text = _LOADING.sub("", _CODE.sub("", text.strip())).removeprefix("Exception during initialization: ")
    node, status, reason = text.partition("Status Message: ")
    text = _without_place(reason if status else text)
    if status and (match := re.search(r"while running (\w+) node", node)):
        text = f"{match[1]}: {text}"
    text = _RESOLVED.sub("", text).replace(" Please fix either the inputs/outputs or the model.", "")
    return " ".join(text.split())[:500]


def _without_place(text: str) -> str:
    text = text[:4000]
    places = list(_PLACE.finditer(text))
    if not places:
        return text
    before = text[: places[0].start()] if len(places) == 1 else ""
    after = text[places[-1].end() :]
    _, was_false, reason = after.partition(" was false. ")
    if was_false:
        return before + reason
    function = _FUNCTION.match(after)
    return before + (after[function.end() :] if function else after)
