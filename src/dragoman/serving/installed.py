"""Whether this Python already has what a model asks for, so that no virtualenv has to be built. Called by python_models.py.

Deliberately simple: what cannot be decided by comparing plain release numbers counts as missing, and the installer decides.
"""

import re
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version

_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(.*)")
_CLAUSE = re.compile(r"(==|!=|>=|<=|~=|>|<)\s*([0-9]+(?:\.[0-9]+)*)(\.\*)?")
_RELEASE = re.compile(r"[vV]?([0-9]+(?:\.[0-9]+)*)(?:\.?post[0-9]+)?(?:\+[A-Za-z0-9.]+)?")
"""Of an installed version: a local part ("+cpu") does not matter; a pre-release is not a release."""


def name_of(requirement: str) -> str:
    """The package's name as indexes compare it; "" for what is no name, such as a path or an address."""
    match = _REQUIREMENT.fullmatch(requirement.strip())
    return re.sub(r"[-_.]+", "-", match[1]).lower() if match and not match[2].startswith(("/", ":")) else ""


def unmet(requirements: Iterable[str], installed: Callable[[str], str] = version) -> list[str]:
    """Those of these requirement lines that are not installed here, or not for certain. Blank lines and comments count for nothing."""
    return [line for line in requirements if line.strip() and not line.lstrip().startswith("#") and not _met(line, installed)]


def _met(requirement: str, installed: Callable[[str], str]) -> bool:
    match = _REQUIREMENT.fullmatch(requirement.split(" #")[0].strip())
    if match is None:
        return False
    clauses = [part.strip() for part in match[2].strip().strip("()").split(",") if part.strip()]
    parsed = [_CLAUSE.fullmatch(clause) for clause in clauses]
    if None in parsed:  # extras, markers, addresses, pre-releases
        return False
    try:
        have = _RELEASE.fullmatch(installed(match[1]))
    except (PackageNotFoundError, ValueError):
        return False
    if have is None:
        return False
    return all(_holds(_numbers(have[1]), clause[1], _numbers(clause[2]), bool(clause[3])) for clause in parsed if clause is not None)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _holds(have: tuple[int, ...], sign: str, want: tuple[int, ...], prefix: bool) -> bool:
    if prefix or sign == "~=":  # 1.2.* and ~=1.2.3 say what the beginning is
        begin = want[:-1] if sign == "~=" else want
        same = _padded(have, len(begin))[: len(begin)] == begin
        if sign == "~=":
            return len(want) > 1 and not prefix and same and _compare(have, want) >= 0
        return {"==": same, "!=": not same}.get(sign, False)
    order = _compare(have, want)
    return {"==": order == 0, "!=": order != 0, ">=": order >= 0, "<=": order <= 0, ">": order > 0, "<": order < 0}[sign]


def _compare(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    size = max(len(a), len(b))
    left, right = _padded(a, size), _padded(b, size)
    return (left > right) - (left < right)


def _padded(numbers: tuple[int, ...], size: int) -> tuple[int, ...]:
    return numbers + (0,) * (size - len(numbers))
