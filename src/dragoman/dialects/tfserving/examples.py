"""The body of a :classify or :regress request to serialized tf.Examples, and such Examples to plain features.

Serialized Examples are what both doors of this protocol have in common: gRPC brings them, and a TensorFlow graph is fed with them. Called by
rest.py; `features` by classified.py, for models that parse no Examples themselves.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from dragoman.core.errors import ServingError, invalid
from dragoman.dialects.json import NumberList, is_list, json_type
from dragoman.dialects.tfserving import messages
from dragoman.dialects.tfserving.room import Room, with_context
from dragoman.dialects.tfserving.values import with_bytes
from dragoman.proto.messages import new, parse

Feature: TypeAlias = list[bytes] | list[float] | list[int]
"""The values of one feature, all of one type."""

_EXAMPLE = "tensorflow.Example"
_KINDS: Mapping[type, str] = {int: "int64", bool: "int64", float: "float", str: "bytes", bytes: "bytes"}
"""How a JSON element is written decides what a feature is: 80 is an integer, 80.0 is not (section 6 of the protocol)."""
_LARGEST = 2**63 - 1


def asked(tree: Mapping[str, Any], body: bytes, room: Room) -> list[bytes]:
    """The Examples of a document, one or more, each with the features of `context`.

    Raises INVALID_INPUT in this protocol's words, and TOO_LARGE from `room` for a context that is large in all examples together.
    """
    context = _example(tree["context"]) if "context" in tree else b""
    # TensorFlow Serving says "classify" for both methods, and clients match on it.
    if "examples" not in tree:
        raise messages.document_error(body, "When method is classify, key 'examples' is expected and was not found")
    examples = tree["examples"]
    if not is_list(examples):
        raise messages.document_error(body, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise messages.document_error(body, "'examples' value is an empty array")
    return with_context(context, [_example(each) for each in examples], room)


def features(example: bytes) -> dict[str, Feature]:
    """The features of a serialized Example; one without a value is left out. Raises INVALID_INPUT for bytes that are no Example."""
    try:
        parsed: Any = parse(_EXAMPLE, example)
    except ValueError as error:
        raise invalid(f"Could not parse example input: {error}") from None
    found: dict[str, Feature] = {}
    for name, feature in parsed.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind is not None else []
        if values:
            found[name] = values
    return found


def _example(value: object) -> bytes:
    if type(value) is not dict:
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    made: Any = new(_EXAMPLE)
    entries = made.features.feature
    for name, given in value.items():
        items: list[Any] = given.tolist() if type(given) is NumberList else given if type(given) is list else [given]
        feature = entries[name]  # there also without a value: whoever parses it falls back on the default then
        types = set(map(type, items))
        if dict in types:
            items = [with_bytes(item) for item in items]
            types = set(map(type, items))
        kinds = {_KINDS.get(each, "") for each in types}
        if len(kinds) > 1 or "" in kinds:
            raise _refused(name, items)
        if kinds == {"float"}:
            feature.float_list.value.extend(items)
        elif kinds == {"bytes"}:
            feature.bytes_list.value.extend([item.encode() if type(item) is str else item for item in items])
        elif kinds:
            if max(items) > _LARGEST:
                raise _refused(name, items)
            feature.int64_list.value.extend(map(int, items))  # true is 1
    encoded: bytes = made.SerializeToString()
    return encoded


def _refused(name: str, items: list[Any]) -> ServingError:
    """Why the first faulty element is refused. The first element decides which type the others must have."""
    feature = f"Feature: {messages.cut(name)}"
    expected = _KINDS.get(type(items[0]), "")
    for item in items:
        kind = _KINDS.get(type(item))
        if kind is None:
            if messages.is_b64(item):
                return invalid(f"{feature} has an element that is no base64: Unable to base64 decode")
            return invalid(f"{feature} has element with unexpected JSON type: {json_type(item)}")
        if kind == "int64" and item > _LARGEST:
            return invalid(f"{feature} has uint64_t element. Only int64_t is supported.")
        if kind != expected:
            break
    return invalid(f"Unexpected element type in feature: {messages.cut(name)} expecting type: {expected}")
