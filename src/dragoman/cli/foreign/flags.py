"""Flags as other servers write them: --flag=value, --flag value, -flag, bare booleans, words joined by dashes or underscores.

Each server's flags are a table, from which parsing, --help and docs/migrating.md's test are made.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dragoman.core.errors import invalid

_TRUE = ("true", "1", "yes", "on", "t", "y")
_FALSE = ("false", "0", "no", "off", "f", "n")


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of a server. `idle` says why it has no effect here; a flag without it does what it does there."""

    name: str
    kind: type = str
    text: str = ""
    default: Any = ""
    idle: str = ""
    many: bool = False
    refused: str = ""
    """What to do instead, of a flag that cannot be left without effect: it would leave a door open that it closes there."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a command line says: values by flag name, only those that it has; and what is no flag."""

    values: Mapping[str, Any]
    words: tuple[str, ...]
    idle: tuple[str, ...]
    """Flags without an effect that were set to something else than their default, as they were written."""

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)


def parse(program: str, flags: Sequence[Flag], arguments: Iterable[str]) -> Given:
    """Read a command line. The last of several equal flags wins, as there, but for those that may be repeated.

    Raises INVALID_INPUT for a flag that there is not (with the nearest ones), that cannot be left without effect, and for a wrong value.
    """
    known = {_plain(flag.name): flag for flag in flags}
    values: dict[str, Any] = {}
    words: list[str] = []
    idle: dict[str, None] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        written, separator, text = word.partition("=")
        flag = known.get(_plain(written.lstrip("-")))
        if flag is None:
            raise invalid(_unknown(program, written, [f"--{each.name}" for each in flags]))
        if separator:
            value = _value(flag, written, text)
        elif flag.kind is bool and not (rest and rest[0].lower() in ("true", "false")):
            value = True
        elif rest:
            value = _value(flag, written, rest.pop(0))
        else:
            raise invalid(f"{written} needs a value: {written}=VALUE")
        if flag.refused and value != flag.default:
            raise invalid(f"{written} is not possible here: {flag.refused}")
        if flag.many:
            values.setdefault(flag.name, []).append(value)
        else:
            values[flag.name] = value
        if flag.idle and value != flag.default:
            idle[f"--{flag.name}"] = None
    return Given(values, tuple(words), tuple(idle))


def usage(program: str, description: str, flags: Sequence[Flag]) -> str:
    """What --help prints."""
    lines = [f"usage: {program}", "", description.rstrip(), "", "flags:"]
    for flag in flags:
        default = "" if flag.default in ("", None, False) else f" (default: {str(flag.default).lower()})"
        text = (flag.refused and f"not possible here: {flag.refused}") or (flag.idle and f"no effect here: {flag.idle}") or flag.text
        lines.append(f"  --{flag.name}{'' if flag.kind is bool else '=' + _METAVARS[flag.kind]}{default}\n      {text}")
    return "\n".join([*lines, ""])


_METAVARS: Mapping[type, str] = {str: "TEXT", int: "N", float: "NUMBER"}
_EXPECTED: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _value(flag: Flag, written: str, text: str) -> Any:
    if flag.kind is str:
        return text
    if flag.kind is bool:
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
    else:
        try:
            return flag.kind(text)
        except (ValueError, OverflowError):
            pass
    raise invalid(f"{written} is {text!r}, expected {_EXPECTED[flag.kind]}")


def _unknown(program: str, written: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(
        f"--{_plain(written.lstrip('-'))}", [name.replace("-", "_").replace("__", "--", 1) for name in names], 3
    )
    back = {name.replace("-", "_").replace("__", "--", 1): name for name in names}
    text = f"{program} has no flag {written}"
    return f"{text}; did you mean {' or '.join(back[each] for each in near)}?" if near else f"{text}; see {program} --help"
