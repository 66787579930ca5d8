"""`dragoman tracking`: shows and switches the recording of requests in a running server, in all its workers at once."""

import argparse
import json
from typing import Any

from dragoman.cli.client import add_output, add_server, call, foreign

_PATH = "/api/tracking"


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    group = commands.add_parser("tracking", help="show or switch the recording of requests in a running server")
    group.add_argument("action", choices=("status", "on", "off"), metavar="status|on|off", help="what to do")
    group.add_argument("--to", metavar="URL", help="where records go from now on: kafka://..., http://..., or the plain name of a file")
    group.add_argument("--sample", type=int, metavar="N", help="record every so many-th request of each model and worker")
    group.add_argument("--batch", type=int, metavar="N", help="requests of one model in one record")
    add_output(group)
    add_server(group)
    group.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    wanted: dict[str, Any] = {} if options.action == "status" else {"on": options.action == "on"}
    given = {"url": options.to, "sample": options.sample, "batch": options.batch}
    wanted |= {name: value for name, value in given.items() if value is not None}
    answer = call(options, "PUT", _PATH, wanted) if wanted else call(options, "GET", _PATH)
    if not {"on", "url", "sample", "batch", "recorded", "dropped"} <= answer.keys():
        raise foreign(options)
    if options.output == "json":
        print(json.dumps(answer, indent=2))
        return 0
    where = f" to {answer['url']}" if answer["url"] else ""
    often = "" if answer["sample"] == 1 else f", every {answer['sample']}. request"
    batch = "" if answer["batch"] == 1 else f", {answer['batch']} in one record"
    print(f"tracking is {'on' if answer['on'] else 'off'}{where}{often}{batch}")
    print(f"{answer['recorded']} requests were recorded, {answer['dropped']} records were dropped")
    return 0
