"""`dragoman build | tag | remove | clear | extract | push | pull`: the models that are stored in the data directory."""

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from dragoman.cli.client import add_place, confirmed
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Environment
from dragoman.engines.environment import FOLDER as ENVIRONMENTS
from dragoman.engines.environment import Environments
from dragoman.server.configuration import read
from dragoman.server.settings import Settings
from dragoman.serving.library.building import Log, Project, build
from dragoman.serving.library.dockerfile import write_context
from dragoman.serving.library.library import Library, Stored
from dragoman.serving.library.opening import Place, opened, resolved
from dragoman.serving.library.references import Reference, parse
from dragoman.serving.library.specs import write_record
from dragoman.serving.library.transfer import pull, push

T = TypeVar("T")
REMOTE = "DRAGOMAN_REMOTE"


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    building = commands.add_parser(
        "build",
        help="put a project or a model file into the store of models",
        description="Copy a Tungsten project, a Python model or an artifact into the store, check it, and give it a name.",
    )
    add_build(building)
    building.set_defaults(run=run_build)
    tagging = commands.add_parser("tag", help="give a stored model a second name")
    tagging.add_argument("source", metavar="SOURCE", help="NAME[:TAG] of a stored model")
    tagging.add_argument("target", metavar="TARGET", help="NAME[:TAG]; without a tag it is 'latest'")
    tagging.set_defaults(run=run_tag)
    removing = commands.add_parser("remove", help="remove a stored model; its files go with its last tag")
    removing.add_argument("model", metavar="NAME[:TAG]", help="which; without a tag as `serve` would understand it")
    removing.set_defaults(run=run_remove)
    clearing = commands.add_parser("clear", help="remove every version of a stored model, or all models")
    clearing.add_argument("repository", metavar="NAME", nargs="?", default="", help="default: all")
    clearing.add_argument("-y", "--yes", action="store_true", help="do not ask")
    clearing.set_defaults(run=run_clear)
    extracting = commands.add_parser("extract", help="copy the files of a stored model to a folder")
    extracting.add_argument("model", metavar="NAME[:TAG]", nargs="?", default="", help="default: the newest")
    extracting.add_argument("-d", "--save_dir", "--save-dir", default=".", metavar="DIR", help="where to (default: .)")
    extracting.set_defaults(run=run_extract)
    pushing = commands.add_parser("push", help="send a stored model to a folder or bucket that others reach")
    pushing.add_argument("model", metavar="NAME[:TAG]", help="which of the stored models")
    pushing.add_argument("--as", dest="name", default="", metavar="NAME:TAG", help="the name there (default: the same)")
    pulling = commands.add_parser("pull", help="bring a model from such a place into the store")
    pulling.add_argument("model", metavar="NAME[:TAG]", help="without a tag: the one that was built last")
    pulling.add_argument("--as", dest="name", default="", metavar="NAME[:TAG]", help="the name here (default: the same)")
    pushing.set_defaults(run=run_push)
    pulling.set_defaults(run=run_pull)
    for command, flag in ((pushing, "--to"), (pulling, "--from")):
        add_remote(command, flag)
    for command in (building, tagging, removing, clearing, extracting, pushing, pulling):
        add_place(command)


def add_remote(command: argparse.ArgumentParser, flag: str) -> None:
    command.add_argument(
        flag, dest="remote", default=os.environ.get(REMOTE, ""), metavar="URL",
        help=f"a folder, file:///FOLDER, s3://BUCKET/PATH, gs://, az:// or what fsspec reaches (default: {REMOTE})",
    )  # fmt: skip


def add_build(command: argparse.ArgumentParser) -> None:
    """What Tungsten's build takes, and what is ours."""
    command.add_argument("source", metavar="DIR", nargs="?", default=".", help="the project's folder, or a model file (default: .)")
    command.add_argument("-n", "--name", default="", metavar="NAME[:TAG]", help="default: tungsten-DIR and the beginning of the digest")
    command.add_argument("-m", "--model-module", default="", metavar="MODULE", help="the module with the model (default: tungsten_model)")
    command.add_argument("-c", "--model-class", default="", metavar="CLASS", help="which class, where the module has several")
    command.add_argument(
        "--copy-files", action="append", default=[], metavar="SRC:DEST", help="more files for the model, from anywhere; repeatable"
    )
    command.add_argument("--dockerfile", default="", metavar="DIR", help="also write a Dockerfile and its context into this new folder")
    command.add_argument(
        "--environments", default=None, metavar="auto|always|never", help="in which virtualenv the model is looked at: see dragoman serve"
    )
    command.add_argument("-y", "--yes", action="store_true", help="do not ask before an existing name is given to this model")


def place(options: argparse.Namespace) -> Place:
    return settings_of(options).place


def settings_of(options: argparse.Namespace) -> Settings:
    return read({"data_dir": options.data_dir, "store": options.store, "environments": getattr(options, "environments", None)})


def with_library(where: Place, work: Callable[[Library], Awaitable[T]]) -> T:
    """Open the store, do something, close it."""

    async def session() -> T:
        async with opened(where) as library:
            return await work(library)

    return asyncio.run(session())


def pairs_of(texts: list[str]) -> tuple[tuple[str, str], ...]:
    """SRC:DEST, cut at the last colon."""
    pairs = []
    for text in texts:
        source, separator, target = text.rpartition(":")
        if not separator or not source or not target:
            raise invalid(f"--copy-files is {text!r}, expected SRC:DEST")
        pairs.append((source, target))
    return tuple(pairs)


def run_build(options: argparse.Namespace) -> int:
    stored = built(options)
    if stored is None:
        return 1
    print(f"Successfully built model: '{stored.name}'")
    print(f"  dragoman serve {stored.name}")
    print(f"  dragoman predict {stored.name} -i FIELD=VALUE")
    return 0


def built(options: argparse.Namespace) -> Stored | None:
    """Build as the options say; None when the answer to a question was no."""
    settings = settings_of(options)
    name = parse(options.name) if options.name else None
    project = Project(
        Path(options.source).expanduser(), options.model_module, options.model_class, pairs_of(options.copy_files), settings.environments
    )
    if options.dockerfile and Path(options.dockerfile).exists():
        raise invalid(f"--dockerfile is {options.dockerfile}, which exists already; expected a new folder")
    if (
        name is not None
        and name.tag
        and _taken(settings.place, name)
        and not confirmed(f"'{name}' exists already. Replace it?", options.yes)
    ):
        print("Cancelled")
        return None
    environments = Environments(settings.data_path / ENVIRONMENTS)

    async def python_for(environment: Environment, log: Log) -> Path:
        return await environments.python_for(environment, log)

    stored = with_library(settings.place, lambda library: build(library, project, name, _log, python_for))
    if options.dockerfile:
        for note in write_context(stored, Path(options.dockerfile)):
            _log(note)
        print(f"Wrote {options.dockerfile}/Dockerfile: docker build -t {stored.name} {options.dockerfile}")
    return stored


def _taken(where: Place, name: Reference) -> bool:
    try:
        return asyncio.run(resolved(where, str(name))).tag == name.tag
    except ServingError as error:
        if error.kind is Kind.NOT_FOUND:
            return False
        raise


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_tag(options: argparse.Namespace) -> int:
    stored = with_library(place(options), lambda library: library.tag(options.source, options.target))
    print(f"Tagged model '{options.source}' to '{stored.name}'.")
    return 0


def run_remove(options: argparse.Namespace) -> int:
    stored = with_library(place(options), lambda library: library.remove(options.model))
    print(f"Removed: '{stored.name}'")
    return 0


def run_clear(options: argparse.Namespace) -> int:
    if not options.repository and not confirmed("Remove all models?", options.yes):
        print("Cancelled")
        return 1
    for stored in with_library(place(options), lambda library: library.clear(options.repository)):
        print(f"Removed: '{stored.name}'")
    return 0


def run_extract(options: argparse.Namespace) -> int:
    stored = asyncio.run(resolved(place(options), options.model))
    stored.check()
    target = Path(options.save_dir) / stored.served_name
    if target.exists():
        raise invalid(f"{target} exists already; expected a folder that is new there")
    try:
        for file in stored.files:
            (target / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(stored.folder / file.path, target / file.path)
        write_record(target, stored.version.kind, stored.version.spec)
    except OSError as error:
        raise ServingError(Kind.UNAVAILABLE, f"{target} cannot be written: {error.strerror}") from error
    print(f"Extracted '{stored.name}' to {target}")
    return 0


def run_push(options: argparse.Namespace) -> int:
    url = remote_of(options, "--to")

    async def work(library: Library) -> tuple[Stored, Reference, bool]:
        stored = await library.resolve(options.model)
        asked = parse(options.name or options.model)
        target = Reference(asked.repository, asked.tag or stored.tag or stored.version.version)
        return stored, target, await push(library, stored, target, url)

    stored, target, new = with_library(place(options), work)
    print(f"Pushed '{stored.name}' as '{target}'" if new else f"'{target}' is there already")
    return 0


def run_pull(options: argparse.Namespace) -> int:
    url = remote_of(options, "--from")
    target = parse(options.name) if options.name else None
    stored, new = with_library(place(options), lambda library: pull(library, parse(options.model), url, target))
    print(f"Pulled '{stored.name}'" if new else f"'{stored.name}' is here already")
    return 0


def remote_of(options: argparse.Namespace, flag: str) -> str:
    if not options.remote:
        raise invalid(f"say where: {flag} URL, or the environment variable {REMOTE}")
    return str(options.remote)
