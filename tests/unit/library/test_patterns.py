"""Patterns of files, against the rules of .gitignore as the package pathspec has them."""

import pytest
from pathspec import GitIgnoreSpec

from dragoman.serving.library.patterns import ALWAYS_EXCLUDED, Patterns

PATHS = [
    "a", "b.py", "a/b.py", "a/b/c.txt", "a/b/c/d", "deep/a/x", ".hidden", ".git/config", "x.pyc", "__pycache__/x", "a b", "foo[1]", "weights/w.bin",
    "sub/weights/w.bin", "doc/frotz", "a/doc/frotz", "cache/x", ".mypy_cache/y", "venv/lib/z", "ab", "abc",
]  # fmt: skip
LINES = [
    "*", "*.py", "a", "a/", "/a", "/a/", "a/b", "a/*", "a/**", "**/b.py", "**/weights", "a/**/d",
    "!b.py", "!a/b.py", "# comment", "", "  ", "\\#x", "\\!y",
    "a?c", "[ab]", "[!a]*", "[a-c].py", "foo\\[1\\]", ".*", ".*/", "doc/frotz", "/doc/frotz", "weights/*.bin", "a b", "a\\ b",
    "**", "/**", "b*", "*/b.py",
    "[z-a]", "[", "a\\",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_single_patterns(line: str) -> None:
    """Every path, one by one."""
    other = GitIgnoreSpec.from_lines([line]) if line not in ("[", "a\\", "[z-a]") else GitIgnoreSpec.from_lines([])
    for path in PATHS:
        assert Patterns([line]).match(path) == other.match_file(path), path


@pytest.mark.parametrize(
    ("lines", "matching"),
    [
        (["*", "!b.py"], "a a/b.py a/b/c.txt deep/a/x a/doc/frotz x.pyc weights/w.bin sub/weights/w.bin"),
        (["*.py", "!b.py"], ""),
        (["*.py", "!/b.py"], "a/b.py"),
        (["!b.py", "*.py"], "b.py a/b.py"),
        (["a/", "!a/b.py"], "a/b.py a/b/c.txt deep/a/x a/doc/frotz"),
        (["a/*", "!a/b.py"], "a/b/c.txt a/doc/frotz"),
        (["weights", "!sub/weights", "sub/**"], "weights/w.bin sub/weights/w.bin"),
    ],
)
def test_several_patterns(lines: list[str], matching: str) -> None:
    """The last one that matches counts, but what lies in a folder that matches cannot be taken back. As `git check-ignore` answers."""
    of_interest = ["a", "b.py", "a/b.py", "a/b/c.txt", "deep/a/x", "a/doc/frotz", "x.pyc", "weights/w.bin", "sub/weights/w.bin"]
    assert [path for path in of_interest if Patterns(lines).match(path)] == [path for path in of_interest if path in matching.split()]


def test_the_usual_exclusions() -> None:
    """What versions control and tools leave; a later pattern takes something in again."""
    usual = Patterns(ALWAYS_EXCLUDED)
    left = [path for path in PATHS if usual.match(path)]
    assert left == [".git/config", "x.pyc", "__pycache__/x", ".mypy_cache/y", "venv/lib/z"]
    assert usual.match(".env")
    assert not Patterns([*ALWAYS_EXCLUDED, "!.env"]).match(".env")
    assert usual.match_folder(".git")
