"""Write the tables of docs/settings.md, jobs.md and migrating.md from the settings and the commands themselves; the text around them stays.

    python scripts/settings_page.py

A test runs `page`, `jobs` and `migrating` and fails when a file is not what they return.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from dragoman.cli import parser
from dragoman.cli.foreign import FOREIGN
from dragoman.cli.foreign.flags import Flag
from dragoman.server.configuration import flag_of
from dragoman.server.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
JOBS = PAGE.with_name("jobs.md")
MIGRATING = PAGE.with_name("migrating.md")
_OF_JOBS = ("run", "restart", "login", "init", "info", "logs", "stop", "delete", "clone", "output", "data", "accounts")
_SIZES = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))


def page(text: str) -> str:
    """The page with its tables renewed: what stands between `<!-- NAME -->` and `<!-- end -->`."""
    return _filled(text, [("settings", settings_table()), *commands()])


def jobs(text: str) -> str:
    """The page about the commands for jobs and data sets."""
    return _filled(text, [(name, _arguments(command)) for name, command in subcommands(parser()) if name.split()[0] in _OF_JOBS])


def migrating(text: str) -> str:
    """The page about other servers with the tables of their flags renewed."""
    return _filled(text, [(name, _flags(command.flags)) for name, command in FOREIGN.items() if command.flags])


def _flags(flags: Sequence[Flag]) -> str:
    rows = ["| Flag | Default | Here |", "|---|---|---|"]
    for flag in flags:
        default = "" if flag.default in ("", None, False) else f"`{str(flag.default).lower()}`"
        here = f"refused: {flag.refused}" if flag.refused else f"no effect: {flag.idle}" if flag.idle else flag.text
        rows.append(f"| `--{flag.name}` | {default} | {here} |".replace("|  |", "| |"))
    return "\n".join(rows) + "\n"


def _filled(text: str, tables: Sequence[tuple[str, str]]) -> str:
    for name, table in tables:
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not start or not end:
            raise SystemExit(f"the page has no place for the table of '{name}'")
        text = before + start + table + end + after
    return text


def settings_table() -> str:
    rows = ["| Flag | Default | Meaning |", "|---|---|---|"]
    rows += [f"| {_flag(spec)} | {_default(spec)} | {_sentence(spec.metadata['help'])} |" for spec in fields(Settings)[1:]]
    rows += [
        "| `--config FILE` | | TOML file with any of these settings |",
        "| `--print-config` | | print the settings that result, and exit |",
    ]
    return "\n".join(rows) + "\n"


def _flag(spec: "Field[Any]") -> str:
    meta = spec.metadata
    flag = f"`{flag_of(spec.name)}`"
    if spec.default is False:
        return flag
    value = "\\|".join(meta["choices"]) or meta["metavar"] or ("SIZE" if meta["unit"] == "size" else "VALUE" if spec.default == "" else "N")
    short = f"`{meta['short']}`, " if meta["short"] else ""
    return f"{short}`{flag_of(spec.name)} {value}`"


def _default(spec: "Field[Any]") -> str:
    default = spec.default
    if default is MISSING or default is False or default == "":
        return ""
    if spec.metadata["unit"] == "size":
        return next(f"{default // size}{unit}" for size, unit in _SIZES if default % size == 0)
    if isinstance(default, tuple):
        default = default[0]
    return f"{default:g}" if isinstance(default, float) else str(default)


def _sentence(text: str) -> str:
    return re.sub(r" \(default: .*\)$", "", text) if "user's" not in text and "keys.toml" not in text else text


def commands() -> list[tuple[str, str]]:
    """One table per command: its arguments and flags. Those of `serve` are the settings; jobs, Tungsten and Gradient have their own pages."""
    elsewhere = ("serve", "tungsten", "deployments", "floyd", "logout", *_OF_JOBS, *FOREIGN)
    return [(name, _arguments(command)) for name, command in subcommands(parser()) if name.split()[0] not in elsewhere]


def subcommands(command: argparse.ArgumentParser, prefix: str = "") -> list[tuple[str, argparse.ArgumentParser]]:
    """The commands of a parser by their words, those inside of others too."""
    found = []
    for action in command._actions:  # noqa: SLF001 # argparse has no other way to ask what was added
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, child in action.choices.items():
                below = subcommands(child, f"{prefix}{name} ")
                found += below or [(f"{prefix}{name}", child)]
    return found


def _arguments(command: argparse.ArgumentParser) -> str:
    rows = ["| Argument | Meaning |", "|---|---|"]
    for action in command._actions:  # noqa: SLF001
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:  # noqa: SLF001
            continue
        value = str(action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper()))
        name = (_names(action.option_strings) + (f" {value}" if action.nargs != 0 else "") if action.option_strings else value).replace(
            "|", "\\|"
        )
        default = "http://127.0.0.1:3000" if action.dest == "url" else action.default
        text = (action.help or "").replace("%(default)s", str(default)).replace("|", "\\|")
        rows.append(f"| `{name}` | {text} |")
    return "\n".join(rows) + "\n"


def _names(strings: Sequence[str]) -> str:
    """The short form of a flag, if it has one, and the first long one."""
    return ", ".join([*[s for s in strings if s[1] != "-"][:1], *[s for s in strings if s[1] == "-"][:1]])


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    JOBS.write_text(jobs(JOBS.read_text("utf-8")), "utf-8")
    MIGRATING.write_text(migrating(MIGRATING.read_text("utf-8")), "utf-8")
