"""FIELD=VALUE by a model's schema, and files of outputs."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.cli.fields import filled, parsed, saved
from dragoman.core.errors import ServingError

FILE = {"type": "string", "format": "uri"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "seed": {"type": "integer"},
        "scale": {"type": "number"},
        "loud": {"type": "boolean"},
        "photo": FILE,
        "masked": {"type": "object", "properties": {"image": FILE, "mask": FILE}},
        "points": {"type": "array", "items": {"type": "number"}},
        "clips": {"type": "array", "items": FILE},
        "any": {},
    },
}


def uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def test_parsing() -> None:
    """Everything behind the first "=" is the value, further ones and blanks included."""
    assert parsed(["a=1", "b=x=y", "c=", "d= z "]) == {"a": "1", "b": "x=y", "c": "", "d": " z "}
    for wrong in (["a"], ["=x"], [""], ["a=1", "a=2"]):
        with pytest.raises(ServingError, match="-i"):
            parsed(wrong)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("text", "7", "7"),
        ("text", "[1]", "[1]"),
        ("seed", "7", 7),
        ("seed", "2.5", 2.5),
        ("seed", "seven", "seven"),
        ("seed", "null", "null"),
        ("scale", "1e3", 1000.0),
        ("loud", "true", True),
        ("loud", "yes", "yes"),
        ("points", "[1, 2.5]", [1, 2.5]),
        ("any", "x", "x"),
        ("photo", "https://example.org/a.png", "https://example.org/a.png"),
        ("photo", "data:image/png;base64,aaaa", "data:image/png;base64,aaaa"),
    ],
)
def test_values(field: str, text: str, value: Any) -> None:
    """As the field wants them; what is wrong is left for the model to name."""
    assert filled({field: text}, SCHEMA) == {field: value}


def test_files(tmp_path: Path) -> None:
    """Paths become data URIs, also deep in an object or a list; the type is that of the name."""
    path = tmp_path / "a.png"
    path.write_bytes(b"pixels")
    expected = uri(b"pixels")
    assert filled({"photo": str(path)}, SCHEMA) == {"photo": expected}
    assert filled({"photo": f"@{path}"}, SCHEMA) == {"photo": expected}
    masked = json.dumps({"image": str(path), "mask": "https://example.org/m.png"})
    assert filled({"masked": masked}, SCHEMA) == {"masked": {"image": expected, "mask": "https://example.org/m.png"}}
    assert filled({"clips": json.dumps([str(path)])}, SCHEMA) == {"clips": [expected]}
    odd = tmp_path / "odd"
    odd.write_bytes(b"")
    assert filled({"photo": str(odd)}, SCHEMA) == {"photo": "data:application/octet-stream;base64,"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"other": "1"}, "no field 'other'; it has text, seed"),
        ({"photo": "/no/such/file"}, "expected a file or a URL"),
        ({"photo": "."}, "expected a file or a URL"),
        ({"photo": "a\x00b"}, "expected a file or a URL"),
        ({"points": "[1"}, "expected JSON"),
        ({"masked": "{"}, "expected JSON"),
    ],
)
def test_values_that_cannot_be(fields: dict[str, str], message: str) -> None:
    """Said before anybody is asked."""
    with pytest.raises(ServingError, match=message):
        filled(fields, SCHEMA)


def test_a_model_without_fields() -> None:
    """Takes JSON only."""
    with pytest.raises(ServingError, match="INPUT as JSON"):
        filled({"a": "1"}, {"type": "array"})


def test_outputs_without_files() -> None:
    """Stay as they are, texts that look like files included where the schema does not say that they are."""
    output = {"text": uri(b"x"), "points": [1, None], "other": {"a": True}}
    assert saved(output, SCHEMA, Path("/nowhere")) == output


def test_outputs_with_files(tmp_path: Path) -> None:
    """Saved under the field's name and the type's suffix; nothing is overwritten; the paths stand in their place."""
    schema = {
        "type": "object",
        "properties": {"photo": FILE, "clips": SCHEMA["properties"]["clips"]},
        "additionalProperties": FILE,
    }
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.png").write_bytes(b"mine")
    output = {
        "photo": uri(b"1"),
        "clips": [uri(b"2", "video/mp4"), uri(b"3", "video/mp4")],
        "../x": uri(b"4", "odd/type"),
        "bad": "data:x;base64,?",
    }
    done = saved(output, schema, tmp_path / "out")
    assert {key: done[key] for key in ("photo", "clips", "../x")} == {
        "photo": str(tmp_path / "out" / "photo-1.png"),
        "clips": [str(tmp_path / "out" / "clips.mp4"), str(tmp_path / "out" / "clips-1.mp4")],
        "../x": str(tmp_path / "out" / "_x.bin"),
    }
    assert done["bad"] == "data:x;base64,?"
    assert (tmp_path / "out" / "photo.png").read_bytes() == b"mine"
    assert (tmp_path / "out" / "clips-1.mp4").read_bytes() == b"3"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["_x.bin", "clips-1.mp4", "clips.mp4", "out", "photo-1.png", "photo.png"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A sentence."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(ServingError, match="cannot be written"):
        saved(uri(b"x"), FILE, tmp_path / "file" / "below")
