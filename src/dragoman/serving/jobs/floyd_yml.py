"""What a run is to be: options of the command line, the chosen task and the rest of floyd.yml, and the client's defaults, in this order. Pure.

The client sends the file as text and leaves the merging to the server (sheet, section 3). Called by dialects/floydhub and by the command line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.core.errors import invalid
from dragoman.core.jobs import Mode
from dragoman.serving.settings import quoted
from dragoman.serving.yaml_text import mapping

MODES: Mapping[str, Mode] = {
    **dict.fromkeys(("serve", "serving"), Mode.SERVE),
    **dict.fromkeys(("command", "job", "cli", "default"), Mode.COMMAND),
    "jupyter": Mode.JUPYTER,
}
"""Clients of all ages: `serving` and `cli` are those of 0.9 and 0.10."""

MACHINES: Mapping[str, str] = {"cpu": "c1", "gpu": "g1", "cpu2": "c2", "gpu2": "g2"}

_INSTANCES = frozenset(MACHINES.values())
_KEYS = ("env", "machine", "mode", "command", "description", "max_runtime")
_INPUTS = ("input", "data")
"""Published samples say either."""
_MOST_MOUNTS = 32
_NAME = re.compile(r"/?([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})/?\Z")
_TAKEN = frozenset(
    "bin boot dev etc floyd home lib lib32 lib64 libx32 media mnt opt output proc root run sbin srv sys tmp usr var".split()  # noqa: SIM905 # one line
)
"""First levels of paths that a job finds something else at."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One run. `inputs` are names or ids of data, and where each is mounted ("" for wherever older clients had it)."""

    mode: Mode
    command: str
    description: str
    environment: str
    instance: str
    max_runtime_s: float | None
    inputs: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    """For the log: what of floyd.yml is not understood."""


def merged(given: Mapping[str, Any], text: str | None = None, task: str | None = None, default: Mapping[str, Any] | None = None) -> Wanted:
    """`given` are the options that were really given, by the keys of floyd.yml (`instance` in place of `machine`, `data` for the inputs).

    Raises INVALID_INPUT, which names the key and what was expected.
    """
    file = _read(text) if text and _says_anything(text) else {}
    notes: list[str] = []
    chosen = _task(file, task, notes)
    default = default or {}

    def value(key: str) -> Any:
        for source in (given, chosen, file):
            if source.get(key) is not None:
                return source[key]
        return None

    mode = _mode(value("mode"), default)
    command = _text(value("command"), "command")
    if mode is not Mode.COMMAND and given.get("command") is None:
        command = ""  # that of the file is for its other tasks
    return Wanted(
        mode=mode,
        command=(command or _text(default.get("command"), "command")) if mode is Mode.COMMAND else command,
        description=_text(value("description"), "description") or _text(default.get("description"), "description"),
        environment=_text(value("env"), "env") or _text(default.get("env"), "env") or "default",
        instance=_instance(given, chosen, file, default),
        max_runtime_s=_seconds(value("max_runtime")),
        inputs=_inputs(given, chosen, file),
        notes=tuple(notes),
    )


def mount_name(mount: str, taken: frozenset[str] | set[str]) -> str:
    """Where data appears: one level, with or without a slash in front. Raises INVALID_INPUT for what is none, is taken, or is the system's."""
    match = _NAME.match(mount)
    if match is None or match[1] in (".", ".."):
        raise invalid(
            f"data is mounted at {quoted(mount)}, expected one level of letters, digits, '-', '_' and '.', as in NAME:input", "data"
        )
    name = match[1]
    if name in _TAKEN:
        raise invalid(f"data is mounted at '/{name}', where every job has something else; take another name, such as input", "data")
    if name in taken:
        raise invalid(f"two data sets are mounted at '/{name}'; give each a name of its own", "data")
    return name


def _read(text: str) -> Mapping[str, Any]:
    if len(text) > 1 << 20:
        raise invalid("floyd.yml has more than a mebibyte", "yaml_config")
    return mapping(text.encode("utf-8", "surrogatepass"), "floyd.yml")


def _says_anything(text: str) -> bool:
    """The sample that `floyd init` makes has comments only."""
    return any(line.strip() not in ("", "---", "...") and not line.lstrip().startswith("#") for line in text.splitlines())


def _task(file: Mapping[str, Any], task: str | None, notes: list[str]) -> Mapping[str, Any]:
    _note_unknown(file, (*_KEYS, *_INPUTS, "task"), "", notes)
    tasks = file.get("task") or {}
    if not isinstance(tasks, Mapping) or not all(isinstance(each, Mapping | None) for each in tasks.values()):
        raise invalid("floyd.yml: task is not an object of tasks, each with the keys of a run", "task")
    if not task:
        return {}
    if task not in tasks:
        there = ", ".join(sorted(map(str, tasks))) or "none"
        raise invalid(f"there is no task {quoted(task)} in floyd.yml; the tasks are: {there}", "task")
    chosen: Mapping[str, Any] = tasks[task] or {}
    _note_unknown(chosen, (*_KEYS, *_INPUTS), f"task {task}: ", notes)
    return chosen


def _note_unknown(said: Mapping[str, Any], known: tuple[str, ...], where: str, notes: list[str]) -> None:
    listed = ", ".join(known)
    notes.extend(
        f"floyd.yml: {where}{quoted(str(key))} means nothing here, and is left out; known are {listed}" for key in said if key not in known
    )


def _mode(value: Any, default: Mapping[str, Any]) -> Mode:
    word = _text(value, "mode") or _text(default.get("mode"), "mode") or "command"
    if word not in MODES:
        raise invalid(f"mode is {quoted(word)}, expected job, serve or jupyter", "mode")
    return MODES[word]


def _instance(given: Mapping[str, Any], chosen: Mapping[str, Any], file: Mapping[str, Any], default: Mapping[str, Any]) -> str:
    instance = _text(given.get("instance"), "instance_type")
    machine = _text(chosen.get("machine") or file.get("machine"), "machine")
    if not instance and machine:
        if machine not in MACHINES:
            raise invalid(f"machine is {quoted(machine)}, expected {', '.join(MACHINES)}", "machine")
        instance = MACHINES[machine]
    instance = (instance or _text(default.get("instance"), "instance_type") or "c1").split("_")[0]
    if instance not in _INSTANCES:
        raise invalid(f"instance_type is {quoted(instance)}, expected {', '.join(sorted(_INSTANCES))}", "instance_type")
    return instance


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e12:
        raise invalid(f"max_runtime is {quoted(str(value)[:60])}, expected seconds, more than 0", "max_runtime")
    return float(value)


def _inputs(given: Mapping[str, Any], chosen: Mapping[str, Any], file: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Of the strongest place that says anything. Raises INVALID_INPUT."""
    for source in (given, chosen, file):
        for key in _INPUTS:
            said = source.get(key)
            if said:
                listed = said if isinstance(said, list) else [said]
                if len(listed) > _MOST_MOUNTS:
                    raise invalid(f"{key} has {len(listed)} entries, expected {_MOST_MOUNTS} at most", key)
                return tuple(_input(each, key) for each in listed)
    return ()


def _input(said: Any, key: str) -> tuple[str, str]:
    if isinstance(said, Mapping):
        source, destination = said.get("source"), said.get("destination", "")
        if isinstance(source, str) and source and isinstance(destination, str):
            return source.rstrip("/"), destination
    elif isinstance(said, str) and said:
        scheme = "file:" if said.startswith("file:") else ""
        source, _, destination = said.removeprefix(scheme).partition(":")
        return (scheme + source).rstrip("/"), destination
    raise invalid(f"{key}: expected SOURCE:DESTINATION, or an object with source and destination, in each entry", key)


def _text(value: Any, key: str) -> str:
    """A value that is a text, "" for none. Numbers are texts, as YAML reads some versions as such."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise invalid(f"{key}: expected a text", key)
    return str(value).strip()
