"""Inputs written as FIELD=VALUE on a command line, and outputs with files, by the JSON schema that a model shows. Called by predict.py."""

import base64
import binascii
import json
import mimetypes
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dragoman.core.errors import invalid

_LARGEST_FILE = 1 << 30
_URL = re.compile(r"(?:data|https?):", re.IGNORECASE)
_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*?;base64,", re.IGNORECASE)


def parsed(texts: Iterable[str]) -> dict[str, str]:
    """Field -> value; everything behind the first "=" is the value."""
    fields: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise invalid(f"-i is {text!r}, expected FIELD=VALUE")
        if name in fields:
            raise invalid(f"-i gives the field '{name}' twice")
        fields[name] = value
    return fields


def filled(fields: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """One input for a model: each value as its field wants it. The model's own checks say what is wrong with it."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        raise invalid("this model has no named fields: give its INPUT as JSON")
    unknown = next((name for name in fields if name not in properties), None)
    if unknown is not None:
        raise invalid(f"the model has no field '{unknown}'; it has {', '.join(properties)}")
    return {name: _value(name, text, properties[name]) for name, text in fields.items()}


def saved(output: Any, schema: Mapping[str, Any], folder: Path, name: str = "output") -> Any:
    """An output with its files saved, each replaced by its path. No file that is there is overwritten."""
    if isinstance(output, dict):
        inner = schema.get("properties", {})
        usual = schema.get("additionalProperties", {})
        return {key: saved(each, _schema(inner.get(key, usual)), folder, key) for key, each in output.items()}
    if isinstance(output, list):
        return [saved(each, _schema(schema.get("items")), folder, name) for each in output]
    match = _DATA_URI.match(output) if isinstance(output, str) and schema.get("format") == "uri" else None
    if match is None:
        return output
    try:
        content = base64.b64decode(output[match.end() :], validate=True)
    except binascii.Error:
        return output
    return str(_write(content, folder, name, mimetypes.guess_extension(match[1] or "") or ".bin"))


def _value(name: str, text: str, schema: Any) -> Any:
    schema = _schema(schema)
    if schema.get("format") == "uri":
        return _file(name, text)
    kind = schema.get("type")
    if kind in ("object", "array"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise invalid(f"-i {name}=...: expected JSON for this field: {error}") from error
        return _with_files(name, value, schema)
    if kind in ("integer", "number", "boolean"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text  # perhaps "yes"; the model decides
        return value if isinstance(value, int | float) else text
    return text


def _with_files(name: str, value: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        return {key: _with_files(f"{name}.{key}", each, _schema(inner.get(key))) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_files(name, each, _schema(schema.get("items"))) for each in value]
    return _file(name, value) if isinstance(value, str) and schema.get("format") == "uri" else value


def _file(name: str, text: str) -> str:
    """A path as a data URI; URLs as they are."""
    if _URL.match(text):
        return text
    path = Path(text.removeprefix("@")).expanduser()
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise invalid(f"-i {name}={text}: the file has more than {_LARGEST_FILE} bytes")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise invalid(f"-i {name}={text}: expected a file or a URL; the file cannot be read: {reason}") from error
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _write(content: bytes, folder: Path, name: str, suffix: str) -> Path:
    stem = re.sub(r"[^\w.-]", "_", name).lstrip(".")[:100] or "output"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(10_000):
            path = folder / (f"{stem}{suffix}" if not number else f"{stem}-{number}{suffix}")
            try:
                with path.open("xb") as file:
                    file.write(content)
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise invalid(f"the folder {folder} cannot be written: {error.strerror}") from error
    raise invalid(f"the folder {folder} is full of files called {stem}")


def _schema(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
