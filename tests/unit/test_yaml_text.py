"""YAML within bounds: plain objects are read, whatever could grow or run is refused."""

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.yaml_text import mapping


@pytest.mark.parametrize(
    ("text", "document"),
    [
        (b"modelName: iris\nmodelVersion: 1\n", {"modelName": "iris", "modelVersion": 1}),
        (b'{"modelName": "iris", "modelVersion": 1,}', {"modelName": "iris", "modelVersion": 1}),
        (b"---\na: [x, 'y', \"z\"]  # words\nb:\n- 1.5\n- true\n- ~\n", {"a": ["x", "y", "z"], "b": [1.5, True, None]}),
        ("name: café\n".encode(), {"name": "café"}),
    ],
)
def test_objects_are_read(text: bytes, document: object) -> None:
    """Block style and flow style, with YAML's own trailing comma."""
    assert mapping(text, "here") == document


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "an object at the top, not nothing"),
        (b"- a\n", "not a list"),
        (b"iris", "not a text"),
        (b"a: [", "no YAML"),
        (b"a: b\n c: d: e\n", "no YAML, line 2"),
        (b"\xff\xfe", "no YAML"),
        (b"a: 2024-99-99\n", "no YAML"),
        (b"a: &x [1]\nb: *x\n", "anchors and tags are not read, line 1"),
        (b"a: !!python/object/apply:os.system [ls]\n", "tags are not read, line 1"),
        (b"a: " + b"[" * 100_000, "nested deeper than 40"),
        (b"- " * 100_000, "nested deeper than 40"),
        (b"a: [" + b"1," * 60_000 + b"]", "more than 50000 values"),
    ],
)
def test_what_is_not_read_says_where(text: bytes, words: str) -> None:
    """INVALID_INPUT that begins with what was read."""
    with pytest.raises(ServingError, match=r"^here: ") as caught:
        mapping(text, "here")
    assert caught.value.kind is Kind.INVALID_INPUT
    assert words in caught.value.message
