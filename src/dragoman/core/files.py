"""Files that a request carries as text: `data:` URIs and bare base64 become Blobs. Pure; what must be fetched is somebody else's.

Called by convert.py and by the codecs of protocols that do not fetch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dragoman.core.data_uris import OCTETS, Encoded, read_data_uri
from dragoman.core.errors import Kind, Problem, ServingError
from dragoman.core.rows import row_schema
from dragoman.core.tensors import Blob, JsonSchema, Signature, Value


def decoded(text: str) -> Blob | None:
    """The file that a `data:` URI or bare base64 holds; None for any other URL. Raises ValueError for what cannot be decoded."""
    if text[:5].lower() == "data:":
        return read_data_uri(text).decode()
    return None if ":" in text else Encoded(text, True, OCTETS).decode()


def decode_files(rows: Sequence[dict[str, Value]], signature: Signature, model: str) -> list[dict[str, Value]]:
    """Checked rows with a Blob in the place of every file that came as text. Raises INVALID_INPUT for one that cannot be decoded, and for URLs."""
    walk = _walker(row_schema(signature))
    if walk is None:
        return list(rows)
    made = []
    for index, row in enumerate(rows):
        try:
            made.append(walk(row, (index,)))
        except _BadFileError as error:
            place = ".".join(str(part) for part in error.path[1:])
            text = f"input of model '{model}', row {index}, field '{place}': {error}"
            problem = Problem((*error.path, "__root__"), "value_error", str(error))
            raise ServingError(Kind.INVALID_INPUT, text, problems=(problem,)) from None
    return made


class _BadFileError(Exception):
    def __init__(self, message: str, path: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.path = path


_Walk = Callable[[Any, tuple[str | int, ...]], Any]


def _walker(described: JsonSchema) -> _Walk | None:
    """What replaces the files below a schema; None where there are none."""
    if described.get("format") == "uri":
        return _one
    if described.get("type") == "array" and (inner := _walker(described.get("items", {}))) is not None:
        each = inner
        return lambda value, path: [each(item, (*path, i)) for i, item in enumerate(value)] if isinstance(value, list) else value
    properties: Mapping[str, JsonSchema] = described.get("properties", {})
    others = described.get("additionalProperties")
    default = _walker(others) if isinstance(others, Mapping) else None
    walks = {name: found for name, field in properties.items() if (found := _walker(field)) is not None}
    if not walks and default is None:
        return None

    def walk_object(value: Any, path: tuple[str | int, ...]) -> Any:
        if not isinstance(value, dict):
            return value
        made = {}
        for name, item in value.items():
            walk = walks.get(name, default)
            made[name] = item if walk is None else walk(item, (*path, name))
        return made

    return walk_object


def _one(value: Any, path: tuple[str | int, ...]) -> Any:
    if not isinstance(value, str):
        return value
    try:
        blob = decoded(value)
    except ValueError:
        raise _BadFileError("Invalid file input", path) from None
    if blob is None:
        raise _BadFileError("URLs are not fetched here: send the content", path)
    return blob
