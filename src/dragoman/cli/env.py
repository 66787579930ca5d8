"""`dragoman env`: list, build, remove and collect the virtualenvs of models and jobs.

Works on the data directory; running servers notice and are noticed.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dragoman.cli.client import add_output
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Environment
from dragoman.engines.environment import FOLDER, Environments
from dragoman.engines.requirements import environment_of
from dragoman.engines.shelf import Installed
from dragoman.server.configuration import read
from dragoman.serving.jobs.environments import JOBS_FOLDER, JobEnvironments

_DAY_S = 86_400.0
_SHORTEST_PREFIX = 4


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    env = commands.add_parser("env", help="list, build and remove the virtualenvs of models and jobs")
    actions = env.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the environments that are ready")
    listing.set_defaults(run=_list)
    build = actions.add_parser("build", help="build an environment ahead of the model that wants it; prints its hash and its interpreter")
    build.add_argument("packages", nargs="*", metavar="PACKAGE", help="what to install, for example pillow or 'numpy<2'; repeatable")
    build.add_argument("--python", default="", metavar="VERSION", help="Python version, for example 3.12 (default: the server's own)")
    build.add_argument("--requirements", metavar="FILE", help="a requirements file")
    build.set_defaults(run=_build)
    remove = actions.add_parser("remove", help="remove environments that are not in use")
    remove.add_argument("hashes", nargs="+", metavar="HASH", help="which, by the first 4 or more letters of its hash; repeatable")
    remove.set_defaults(run=_remove)
    collect = actions.add_parser(
        "collect", help="remove the environments that nothing has used for some time, and what is left of broken builds"
    )
    collect.add_argument("--unused-days", type=float, default=30.0, metavar="N", help="for how many days (default: 30)")
    collect.set_defaults(run=_collect)
    for action in (listing, build, remove, collect):
        action.add_argument("--data-dir", metavar="DIR", help="the server's data directory")
        add_output(action)


def _environments(options: argparse.Namespace) -> Environments:
    return Environments(read({"data_dir": options.data_dir}).data_path / FOLDER)


def _all(options: argparse.Namespace) -> list[Environments]:
    """Those of models, then those of jobs, which have folders of their own."""
    data = read({"data_dir": options.data_dir}).data_path
    return [Environments(data / FOLDER), *JobEnvironments(data / JOBS_FOLDER).all()]


def _list(options: argparse.Namespace) -> int:
    found = [environment for environments in _all(options) for environment in environments.installed()]
    if options.output == "json":
        print(json.dumps([asdict(e) for e in found], indent=2))
    elif not found:
        print("there are no environments")
    else:
        _table(found)
    return 0


def _build(options: argparse.Namespace) -> int:
    file = Path(options.requirements) if options.requirements else None
    if file is not None and not file.is_file():
        raise invalid(f"--requirements is {file}, which is no file")
    wanted = environment_of(options.packages, options.python, file)
    if wanted is None:
        raise invalid("there is nothing to install: name packages, a requirements file, or another version of Python")
    built = asyncio.run(_hold(_environments(options), wanted))
    print(json.dumps({"hash": built[0], "python": built[1]}) if options.output == "json" else "  ".join(built))
    return 0


async def _hold(environments: Environments, wanted: Environment) -> tuple[str, str]:
    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with await environments.hold(wanted, log) as held:
        return held.hash, str(held.python)


def _remove(options: argparse.Namespace) -> int:
    known = [(e.hash, environments) for environments in _all(options) for e in environments.installed()]
    hashes = list(dict.fromkeys(key for key, _ in known))
    chosen = list(dict.fromkeys(_whole(text, hashes) for text in options.hashes))  # all are looked up before the first goes
    for key, environments in known:
        if key in chosen:
            environments.remove(key)
    _removed(options, chosen)
    return 0


def _collect(options: argparse.Namespace) -> int:
    if not options.unused_days >= 0:
        raise invalid(f"--unused-days is {options.unused_days:g}, expected 0 or more")
    _removed(options, [key for environments in _all(options) for key in environments.collect(options.unused_days * _DAY_S)])
    return 0


def _whole(text: str, known: Sequence[str]) -> str:
    """The one hash that begins like this."""
    found = [key for key in known if key.startswith(text)] if len(text) >= _SHORTEST_PREFIX else []
    if len(found) == 1:
        return found[0]
    raise ServingError(Kind.NOT_FOUND, f"{len(found) or 'no'} environments have a hash that begins with {text!r}; see `dragoman env list`")


def _removed(options: argparse.Namespace, keys: Sequence[str]) -> None:
    if options.output == "json":
        print(json.dumps({"removed": list(keys)}))
    else:
        print("\n".join(f"removed {key}" for key in keys) or "nothing to remove")


def _table(found: Sequence[Installed]) -> None:
    rows = [["hash", "python", "size", "created", "last used", "in use", "packages"]]
    for e in found:
        times = [time.strftime("%Y-%m-%d %H:%M", time.localtime(t)) for t in (e.created, e.last_used)]
        rows.append([e.hash, e.python, f"{e.size_bytes / 1e6:.1f} MB", *times, "yes" if e.in_use else "no", " ".join(e.packages)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
