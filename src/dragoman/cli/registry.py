"""`dragoman register | deploy | undeploy | versions`: the registry of a server, or the one in this machine's data directory where none runs."""

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.cli.client import add_output, add_server, call, foreign, moment, table
from dragoman.core.errors import invalid

_STATES = "/dragoman/v1/deployments"
_REGISTRY = "/dragoman/v1/registry"
_LOOK_S = 0.5


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    registering = commands.add_parser(
        "register",
        help="register a model's files as the next version of a name",
        description="Tell a running server of a model: SOURCE is a path below one of its model roots, or s3://, gs://, https://,"
        " models:/NAME/VERSION. To copy files from elsewhere into its store: dragoman build.",
    )
    registering.add_argument("name", metavar="NAME", help="the registered model; it is made where it does not exist yet")
    registering.add_argument("source", metavar="SOURCE", help="a path that the server may read, or a URI")
    registering.add_argument("--alias", action="append", default=[], metavar="ALIAS", help="point this alias at it; repeatable")
    registering.add_argument("--description", default="", metavar="TEXT", help="what people should know about this version")
    registering.add_argument("--deploy", action="store_true", help="and deploy it, beside what is deployed of that model")
    registering.set_defaults(run=_register)
    deploying = commands.add_parser(
        "deploy",
        help="serve registered versions of a model; waits until every worker does",
        description="Without a version: serve the newest one, and newer ones as soon as they are registered."
        " NAME:VERSION serves that one beside the others.",
    )
    deploying.add_argument("model", metavar="NAME[:VERSION]", help="what to deploy")
    deploying.add_argument("--versions", default="", metavar="latest[:N]|all|V,V", help="which versions should be served, and no others")
    deploying.set_defaults(run=_deploy)
    undeploying = commands.add_parser("undeploy", help="serve a model, or one version of it, no longer; what runs is finished")
    undeploying.add_argument("model", metavar="NAME[:VERSION]", help="what to take down")
    undeploying.set_defaults(run=_undeploy)
    listing = commands.add_parser("versions", help="list the registered versions of a model, or of all models")
    listing.add_argument("model", metavar="NAME", nargs="?", default="", help="default: all")
    listing.set_defaults(run=_versions)
    for command in (registering, deploying, undeploying, listing):
        add_output(command)
        add_server(command)


def _register(options: argparse.Namespace) -> int:
    here = Path(options.source).expanduser()
    source = str(here.absolute()) if "://" not in options.source and here.exists() else options.source
    body = {"source": source, "description": options.description, "aliases": options.alias}
    with _progress(options, options.name, "registering"):
        made = call(options, "POST", f"{_REGISTRY}/{quote(options.name, safe='')}", body)
    version = str(made.get("version", ""))
    if not version:
        raise foreign(options)
    if not options.deploy:
        _print(options, made, f"Registered {options.name}:{version}\n  dragoman deploy {options.name}:{version}")
        return 0
    print(f"Registered {options.name}:{version}", file=sys.stderr)
    return _deployed(options, options.name, version, None)


def _deploy(options: argparse.Namespace) -> int:
    name, version = _split(options.model)
    if version and options.versions:
        raise invalid(f"give the version of {name} as NAME:VERSION or --versions, not both")
    return _deployed(options, name, version, options.versions)


def _deployed(options: argparse.Namespace, name: str, version: str, versions: str | None) -> int:
    path = f"{_STATES}/{quote(name, safe='')}"
    with _progress(options, name, "loading"):
        if version:
            answer = call(options, "POST", f"{path}/{quote(version, safe='')}")
        else:
            answer = call(options, "POST", path, {"versions": _wanted(versions or "latest")})
    _states(options, answer)
    return 0


def _undeploy(options: argparse.Namespace) -> int:
    name, version = _split(options.model)
    path = f"{_STATES}/{quote(name, safe='')}" + (f"/{quote(version, safe='')}" if version else "")
    with _progress(options, options.model, "draining"):
        answer = call(options, "DELETE", path)
    _states(options, answer)
    return 0


def _versions(options: argparse.Namespace) -> int:
    if options.model:
        models = [call(options, "GET", f"{_REGISTRY}/{quote(options.model, safe='')}")]
    else:
        models = call(options, "GET", _REGISTRY).get("models", [])
    try:
        rows = [_row(model["name"], each) for model in models for each in model["versions"]]
    except (KeyError, TypeError) as error:  # some other server's JSON
        raise foreign(options) from error
    if options.output == "json":
        print(json.dumps(models, indent=2))
        return 0
    table(("name", "version", "kind", "stage", "aliases", "state", "created", "source"), rows)
    return 0


def _row(name: str, version: dict[str, Any]) -> list[str]:
    aliases, created = " ".join(version["aliases"]), moment(version["created"])
    return [name, version["version"], version["kind"], version["stage"], aliases, version["state"], created, version["source"]]


def _split(text: str) -> tuple[str, str]:
    """NAME[:VERSION]; a name has no colon."""
    name, colon, version = text.partition(":")
    if not name or (colon and not version):
        raise invalid(f"'{text}' is no model: expected NAME or NAME:VERSION")
    return name, version


def _wanted(text: str) -> str | list[str]:
    if text == "all" or text.startswith("latest"):
        return text
    return [part.strip() for part in text.split(",") if part.strip()]


def _states(options: argparse.Namespace, answer: dict[str, Any]) -> None:
    """What is deployed of the model now."""
    if not isinstance(answer.get("deployments"), list):
        raise foreign(options)
    columns = ("model", "version", "state", "stage", "reason")
    if options.output == "json":
        print(json.dumps(answer["deployments"], indent=2))
    elif answer["deployments"]:
        table(columns, [[str(each.get(column, "")) for column in columns] for each in answer["deployments"]])
    else:
        print("nothing of it is served")


def _print(options: argparse.Namespace, value: object, text: str) -> None:
    print(json.dumps(value, indent=2) if options.output == "json" else text)


@contextmanager
def _progress(options: argparse.Namespace, what: str, doing: str) -> Iterator[None]:
    """On a terminal: one line that counts the seconds until the block ends, and is gone then."""
    if options.output == "json" or not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    begin = time.monotonic()

    def show() -> None:
        while not ended.wait(_LOOK_S):
            sys.stderr.write(f"\r\x1b[K{what}: {doing}, {time.monotonic() - begin:.0f} s")
            sys.stderr.flush()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
