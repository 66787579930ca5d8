"""Patterns of files as .gitignore has them, for `include_files` and `exclude_files`. Called by packing."""

import re
from collections.abc import Iterable
from functools import lru_cache

ALWAYS_EXCLUDED = (
    "/dragoman.json", ".*/", "__pycache__/", "*.pyc", "*.pyo", "*.pyd", ".venv", "venv/", ".env", "env/", ".git*", ".vscode",
    ".*cache", ".ipynb_checkpoints",
)  # fmt: skip
"""What is left out of a build (the record of an earlier one, too) unless a later pattern, such as `!.env`, takes it in again."""


class Patterns:
    """Of several patterns that match, the last one counts; `!` turns one around. What lies in a matching folder matches."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for rule in map(_rule, lines) if rule is not None]

    def match(self, path: str) -> bool:
        """Whether a file matches, by itself or by a folder above it. `path` is relative, with "/"."""
        parts = path.split("/")
        folders = ("/".join(parts[:count]) for count in range(1, len(parts)))
        return any(self._matches(folder, is_folder=True) for folder in folders) or self._matches(path, is_folder=False)

    def match_folder(self, path: str) -> bool:
        """Whether a folder itself matches, so that everything in it does."""
        return self._matches(path, is_folder=True)

    def _matches(self, path: str, *, is_folder: bool) -> bool:
        for regex, wanted, folders_only in reversed(self._rules):
            if (is_folder or not folders_only) and regex.fullmatch(path):
                return wanted
        return False


@lru_cache(maxsize=256)
def _rule(line: str) -> tuple[re.Pattern[str], bool, bool] | None:
    """A line as (expression, matches, folders only); None for blanks, comments and what can match nothing."""
    text = line.rstrip("\r\n")
    while text.endswith(" ") and not text.endswith("\\ "):
        text = text[:-1]
    if not text or text.startswith("#"):
        return None
    wanted = not text.startswith("!")
    if not wanted:
        text = text[1:]
    folders_only = text.endswith("/")
    text = text.rstrip("/") if folders_only else text
    if not text:
        return None
    anchored = "/" in text
    parts = text.lstrip("/").split("/")
    expression = "" if anchored else "(?:.*/)?"
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**" and last:
            expression += ".+"
        elif part == "**":
            expression += "(?:.*/)?"
        else:
            translated = _component(part)
            if translated is None:
                return None
            expression += translated + ("" if last else "/")
    return re.compile(expression, re.DOTALL), wanted, folders_only


def _component(text: str) -> str | None:
    """One part between slashes; None when a bracket or a backslash is left open, which matches nothing."""
    result = ""
    index = 0
    while index < len(text):
        char = text[index]
        index += 1
        if char == "*":
            result += "[^/]*"
        elif char == "?":
            result += "[^/]"
        elif char == "\\":
            if index == len(text):
                return None
            result += re.escape(text[index])
            index += 1
        elif char == "[":
            end = text.find("]", index + (2 if text[index : index + 1] in ("!", "^") else 1))
            if end < 0:
                return None
            negated = text[index] in ("!", "^")
            inside = text[index + negated : end]
            result += f"(?!/)[{'^' if negated else ''}{_inside(inside)}]"
            index = end + 1
        else:
            result += re.escape(char)
    return re.sub(r"(\[\^/\]\*)+", "[^/]*", result)


def _inside(text: str) -> str:
    """The characters of a bracket; a range the wrong way round is empty."""
    result = ""
    index = 0
    while index < len(text):
        if text[index + 1 : index + 2] == "-" and index + 2 < len(text):
            low, high = text[index], text[index + 2]
            result += f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
            index += 3
        else:
            result += re.escape(text[index])
            index += 1
    return result or r"\x00"
