"""What a model file may do with Tungstenkit: every snippet of tests/golden/tungsten runs under ours and does what the original did.

The original's answers were recorded by scripts/record_tungsten.py. Where ours differs on purpose, DIFFERENT has our answer and the reason.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.compat import tungstenkit
from tests.golden.tungsten import player
from tests.golden.tungsten.cases import CASES

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "tungsten" / "recorded.json").read_bytes())
Y = {"type": "object", "properties": {"y": {"type": "integer"}}, "required": ["y"]}
INNER = {
    "type": "object",
    "description": "An inner one.",
    "properties": {"n": {"type": "integer", "minimum": 1}, "pic": {"type": "string", "format": "uri"}},
    "required": ["n", "pic"],
}
MODE = {"type": "string", "enum": ["fast", "best"]}


def _wrong_file(came: str, *loc: int) -> tuple[str, Any]:
    where, words = ["x", *loc, "__root__"], f"a file is given as a path or a URI, not as {came}"
    text = f"1 validation error for Input\n{' -> '.join(map(str, where))}\n  {words} (type=value_error)"
    return "our own words", {"errors": [{"loc": where, "msg": words, "type": "value_error"}], "text": text}


DIFFERENT: dict[str, tuple[str, Any]] = {
    "define async predict": ("a coroutine is never awaited; the original found that out at the first prediction", {"raises": "TypeError"}),
    "data uri without comma": ("is none; the original made an empty file of it", {"raises": "ValueError"}),
    "pil image from a broken data uri": ("the URI is wrong, not the picture", {"raises": "ValueError"}),
    "suffix of a data uri": (
        "the type of every sound recorder's files is known on every system",
        {"result": [".png", ".jpg", ".txt", ".wav", ".mp4", ".bin", ""]},
    ),
    "enum of integers": (
        "schemas have no titles, and 'An enumeration.' describes nothing",
        {"result": [True, True, {"type": "object", "properties": {"size": {"type": "integer", "enum": [1, 2], "default": 2}}}]},
    ),
    "define with an enum": (
        "the same; and the field's own description is shown",
        {
            "result": [
                {
                    "type": "object",
                    "properties": {
                        "mode": {**MODE, "description": "Mode"},
                        "other": {**MODE, "description": "Other", "default": "fast"},
                        "described": {**MODE, "description": "how", "default": "fast"},
                    },
                    "required": ["mode"],
                },
                {"type": "object", "properties": {"mode": MODE}, "required": ["mode"]},
            ]
        },
    ),
    "define nested output": (
        "objects in lists are inlined as well; the original's references lead nowhere there",
        {
            "result": {
                "type": "object",
                "properties": {
                    "inner": INNER,
                    "more": {"type": "array", "items": INNER, "description": "several"},
                    "named": {"type": "object", "additionalProperties": INNER},
                    "described": {**INNER, "description": "one"},
                },
                "required": ["inner", "more", "named", "described"],
            }
        },
    ),
    "methods of files": (
        "a file's schema is the same alone as in a field",
        {"result": [*RECORDED["cases"]["methods of files"]["result"][:-1], {"type": "string", "format": "uri"}]},
    ),
    "validate x: Image <- {'x': 5}": _wrong_file("int"),
    "validate x: Image <- {'x': b'abc'}": _wrong_file("bytes"),
    "validate x: Image <- {'x': {}}": _wrong_file("dict"),
    "validate x: Image <- {'x': ['a']}": _wrong_file("list"),
    "validate x: List[Image] <- {'x': ['data:,a', 5]}": _wrong_file("int", 1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_snippet_does_what_it_did_under_the_original(case: str, tmp_path: Path) -> None:
    """The same result, the same faults in the same words, or an exception of the same kind."""
    player.furnish(tmp_path)
    _, expected = DIFFERENT.get(case, ("", RECORDED["cases"][case]))
    assert player.play(CASES[case], tungstenkit, tmp_path) == expected


@pytest.mark.parametrize("case", DIFFERENT)
def test_every_difference_is_one(case: str) -> None:
    """No entry of the list says what the original does anyway, and each has a reason."""
    reason, ours = DIFFERENT[case]
    assert reason
    assert ours != RECORDED["cases"][case]


def test_the_record_is_of_these_snippets() -> None:
    """A new snippet needs the recorder to be run."""
    assert RECORDED["tungstenkit"] == tungstenkit.__version__
    assert set(RECORDED["cases"]) == set(CASES)
    assert len(CASES) > 300
