"""`dragoman streams`: what feeds the models of a running server, how fast, and how much of it waits."""

import argparse
import json
from typing import Any

from dragoman.cli.client import add_output, add_server, call, foreign, table

_HEADING = ("stream", "state", "workers", "msg/s", "waiting", "in flight", "answered", "errors")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    streams = commands.add_parser(
        "streams",
        help="show the streams of a running server: rates, lag and what is wrong with them",
        description="Show what --stream has made of a running server: messages per second over the last ten seconds, how many wait at the"
        " broker, and why a stream does not run. Exit code 1 when one of them does not.",
    )
    add_output(streams)
    add_server(streams)
    streams.set_defaults(run=_streams)


def _streams(options: argparse.Namespace) -> int:
    rows = call(options, "GET", "/dragoman/v1/streams").get("streams")
    if not isinstance(rows, list):
        raise foreign(options)
    if options.output == "json":
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("no stream: start the server with --stream URL")
    else:
        table(_HEADING, [_shown(row) for row in rows])
        for row in rows:
            if row["reason"]:
                print(f"{row['stream']}: {row['reason']}")
    return 0 if all(row["state"] == "running" for row in rows) else 1


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    waiting = [lag for lag in row["lag"].values() if lag is not None]
    known = str(sum(waiting)) if waiting or not row["lag"] else "?"
    counts = (row["in_flight"], row["answered"], row["failed"])
    return (row["stream"], row["state"], str(row["workers"]), f"{row['rate']:g}", known, *map(str, counts))
