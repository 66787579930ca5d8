"""What the calls of both gRPC services have in common: reading messages, the model that is meant, and how errors are told. Called by them."""

from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects.refusals import words
from dragoman.dialects.rpc import Code
from dragoman.dialects.tfserving import answers, finding, messages
from dragoman.proto.messages import parse
from dragoman.serving.gateway import Entry, Gateway

PACKAGE = "tensorflow.serving"
PRECONDITION = "precondition"
"""What an INVALID_INPUT is about that this protocol calls FAILED_PRECONDITION."""

_LONGEST = 1024
_CUT = "...TRUNCATED"
_INT64 = 2**63


def refuse(error: ServingError) -> tuple[Code, str]:
    """The status and the text of any error; a long text is cut at 1024 bytes, and says so."""
    early = error.kind is Kind.CONFLICT and error.what == "label"  # of a version that does not answer yet
    code = Code.FAILED_PRECONDITION if early or error.what == PRECONDITION else Code[messages.ANSWERS[error.kind][0]]
    text = words(error, None)
    encoded = text.encode()
    return code, text if len(encoded) <= _LONGEST else encoded[:_LONGEST].decode("utf-8", "ignore") + _CUT


def read(name: str, message: bytes) -> Any:
    """A message of this protocol's package. Raises INVALID_INPUT for bytes that are none."""
    try:
        return parse(f"{PACKAGE}.{name}", message)
    except ValueError as error:
        raise invalid(str(error), "body") from None


def version_of(spec: Any) -> str:
    """The version that a ModelSpec names, "" for none."""
    return str(spec.version.value) if spec.WhichOneof("version_choice") == "version" else ""


def check_name(spec: Any) -> None:
    """A ModelSpec without a name, or none at all, is for no model."""
    if not spec.name:
        raise invalid("ModelSpec has no name specified.", "model")


def find(gateway: Gateway, spec: Any) -> Entry:
    """The entry that a ModelSpec means. No await may follow before it is asked."""
    check_name(spec)
    return finding.find(gateway, spec.name, version_of(spec), spec.version_label)


def tell(spec: Any, entry: Entry, signature: str) -> None:
    """Fill the ModelSpec of an answer: who has answered, by which signature. A version that is no number of 64 bits is left out."""
    spec.name = entry.name
    version = number(entry.version)
    if version is not None:
        spec.version.value = version
    spec.signature_name = signature or answers.DEFAULT_SIGNATURE


def number(version: str) -> int | None:
    """A version as this protocol's messages can hold it, None for one that they cannot."""
    return int(version) if version.isascii() and version.isdigit() and len(version) < 20 and int(version) < _INT64 else None
