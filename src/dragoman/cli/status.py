"""`dragoman status`: whether a running server is ready; of jobs, where one is named or the folder is a project."""

import argparse
import json
import sys
import time
from typing import Any

from dragoman.cli.client import NoServerError, add_output, add_server, call, foreign, url_of, versions_table
from dragoman.cli.jobs import job_status
from dragoman.cli.jobs_files import PROJECT

_LOOK_S = 0.5
CLEAR = "\x1b[2J\x1b[H"


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    status = commands.add_parser(
        "status",
        help="say whether a running server is ready, exit code 1 when it is not; or show jobs",
        description="Say whether a running server is ready, and what it serves; exit code 1 when it is not. With a JOB, and in the folder of a"
        " project (`dragoman init`), show jobs instead: the one, or all of the project.",
    )
    status.add_argument("job", metavar="JOB", nargs="?", default="", help="a job: USER/projects/NAME/NUMBER, NAME/NUMBER, NUMBER or its id")
    status.add_argument("--server", action="store_true", help="the server's status, in the folder of a project too")
    add_output(status)
    status.add_argument("--watch", action="store_true", help="go on: print again whenever something has changed, until Ctrl-C")
    add_server(status)
    status.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> int:
    if options.job or (not options.server and not options.watch and PROJECT.exists()):
        return job_status(options)
    if options.watch:
        return _watch(options)
    answer = _asked(options)
    _print_status(options, answer)
    return 0 if answer["ready"] else 1


def _watch(options: argparse.Namespace) -> int:
    """Print the status whenever it has changed. A server that has gone is a change, too: it is waited for."""
    before: object = None
    while True:
        try:
            now: object = _asked(options)
        except NoServerError as error:
            now = error.message
        if now != before:
            if options.output == "table":
                print(f"{CLEAR if sys.stdout.isatty() else ''}{time.strftime('%H:%M:%S')}")
            if isinstance(now, dict):
                _print_status(options, now)
            else:
                print(json.dumps({"error": now}) if options.output == "json" else now)
            sys.stdout.flush()
        before = now
        time.sleep(_LOOK_S)


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    answer = call(options, "GET", "/dragoman/v1/status")
    if not {"name", "version", "ready", "draining", "models"} <= answer.keys():
        raise foreign(options)
    return answer


def _print_status(options: argparse.Namespace, answer: dict[str, Any]) -> None:
    if options.output == "json":
        print(json.dumps(answer, indent=None if options.watch else 2))
    else:
        state = "draining" if answer["draining"] else "ready" if answer["ready"] else "not ready"
        print(f"{answer['name']} {answer['version']} at {url_of(options)} is {state}")
        versions_table(answer["models"])
