"""`dragoman models`: the models that are stored here, and which of them run; or what a server has, when one is named."""

import argparse
import asyncio
import json
from collections.abc import Collection
from typing import Any

from dragoman.cli.client import NoServerError, add_output, add_place, add_server, call, foreign, moment, table, url_of, versions_table
from dragoman.core.errors import Kind, ServingError
from dragoman.server.configuration import read
from dragoman.serving.library.library import Stored
from dragoman.serving.library.opening import opened

_HEADING = ("repository", "tag", "version", "model class", "created", "id", "running")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    models = commands.add_parser(
        "models",
        help="list the models that are stored, and which of them run; with --url, those of a server",
        description="List the stored models and say which of them the server runs. With --url, or where nothing is stored, list the server's.",
    )
    add_output(models)
    add_place(models)
    add_server(models)
    models.set_defaults(run=_models)


def stored_models(options: argparse.Namespace) -> list[Stored]:
    """Every tag of every stored version, the newest first."""
    place = read({"data_dir": options.data_dir, "store": options.store}).place

    async def listed() -> list[Stored]:
        async with opened(place) as library:
            return await library.all()

    return asyncio.run(listed()) if place.exists else []


def _models(options: argparse.Namespace) -> int:
    stored = [] if options.url else stored_models(options)
    try:
        served = _served(options)
    except NoServerError as error:
        if not stored:
            if options.url:
                raise
            raise ServingError(Kind.UNAVAILABLE, f"no model is stored, and {error.message}") from error
        served = []
    except ServingError:
        if not stored:
            raise
        served = []
    if not stored:
        if options.output == "json":
            print(json.dumps(served, indent=2))
        else:
            versions_table(served)
        return 0
    running = {str(row.get("digest", "")): str(row.get("name", "")) for row in served if row.get("state") == "ready"}
    if options.output == "json":
        print(json.dumps([_row(each, running) for each in stored], indent=2))
        return 0
    rows = []
    for each in stored:
        version = each.version
        mark = f"as {running[version.digest]} at {url_of(options)}" if version.digest in running else ""
        what = each.model_class or version.kind
        rows.append([each.repository, each.tag or "<none>", version.version, what, moment(each.version.created), version.digest[:12], mark])
    table(_HEADING, rows)
    return 0


def _served(options: argparse.Namespace) -> list[dict[str, Any]]:
    answer = call(options, "GET", "/dragoman/v1/models")
    if not isinstance(answer.get("models"), list):
        raise foreign(options)
    return list(answer["models"])


def _row(each: Stored, running: Collection[str]) -> dict[str, Any]:
    version = each.version
    return {
        "repository": each.repository, "tag": each.tag, "version": version.version, "kind": version.kind, "model_class": each.model_class,
        "created": version.created, "digest": version.digest, "size": version.manifest.get("size", 0), "source": version.source,
        "running": version.digest in running,
    }  # fmt: skip
