"""Uploads of code as floyd-cli sent them, byte for byte: every file arrives under its name with its content (FloydHub requirement F4)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dragoman.serving.jobs.code import Code, Home
from tests.jobs_files import contents, late, pieces, run

FOLDER = Path(__file__).parent / "floydhub"
NAMED = (
    "größe ünï.txt",
    'quo"te.txt',
    "back\\slash.txt",
    "semi;colon, and space.txt",
    "日本語.py",
    "per%cent%41.txt",
    "tab\there.txt",
    "apos'tr.txt",
)
EXPECTED = {
    **{name: name.encode() for name in (*NAMED, ".hidden")},
    "app.py": b"import flask\napp = flask.Flask(__name__)\n",
    "floyd.yml": b"env: tensorflow-1.8\ntask:\n  serve:\n    mode: serve\n",
    "floyd_requirements.txt": b"flask\n",
    ".floydignore": b"junk\n*.tmp\n",
    ".floydexpt": b'{"family_id": "fam1", "name": "x", "namespace": "alice"}',
    "sub/__init__.py": b"",
    "sub/run.sh": b"#!/bin/sh\necho hi\n",
    "sub/deep/model.bin": bytes(range(256)) + b"\r\n--\r\n\r\n--abc\r\nContent-Disposition: form-data\r\n\r\n" + bytes(range(255, -1, -1)),
}
"""The project that was uploaded; its floydignore kept two files at home."""


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize("recorded", ["code", "code-old"])
def test_recorded_uploads(recorded: str, step: int, tmp_path: Path) -> None:
    """However the body is cut: the placed files are those of the project, and what the client says of them is passed on."""
    content_type = json.loads((FOLDER / f"{recorded}.json").read_text())["content_type"]
    said: dict[str, Any] = {}

    async def accept(words: Mapping[str, Any]) -> Home:
        said.update(words)
        return Home("alice", "x", "fam1")

    async def go() -> None:
        code = Code(late(), tmp_path / "files")
        module = await code.add(pieces((FOLDER / f"{recorded}.body").read_bytes(), step), content_type, accept)
        await code.place(module.id, tmp_path / "home")
        assert module.files == len(EXPECTED)
        assert module.size == sum(map(len, EXPECTED.values()))

    run(go())
    assert contents(tmp_path / "home") == EXPECTED
    assert said["name"] == "alice/x"
    assert said["mode"] == ("serve" if recorded == "code" else "serving")


def test_scripts_may_be_run(tmp_path: Path) -> None:
    """The client does not say which files are programs: those that begin with `#!` are."""

    async def accept(words: Mapping[str, Any]) -> Home:
        return Home("alice", "x", "fam1")

    async def go() -> None:
        code = Code(late(), tmp_path / "files")
        content_type = json.loads((FOLDER / "code.json").read_text())["content_type"]
        module = await code.add(pieces((FOLDER / "code.body").read_bytes()), content_type, accept)
        await code.place(module.id, tmp_path / "home")

    run(go())
    modes = {name: (tmp_path / "home" / name).stat().st_mode & 0o777 for name in ("sub/run.sh", "app.py")}
    assert modes == {"sub/run.sh": 0o755, "app.py": 0o644}
