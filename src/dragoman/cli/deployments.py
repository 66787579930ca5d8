"""`dragoman deployments`: Gradient's commands for deployments, with its options and sentences, against a running server.

Options are written as Gradient writes them (`--deploymentType`). Those that say where something runs (machines, clusters, images) are kept with
the deployment and change nothing here, so none of them is required.
"""

import argparse
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from dragoman.cli.client import add_output, add_server, call, foreign, table
from dragoman.cli.deployment_options import STATES, add_fields, add_tags, choice, given, seconds, switch, words
from dragoman.core.errors import invalid
from dragoman.serving.gradient.records import TYPES, State

_PATH = "/deployments"
_LOOK_S = 0.5
_ENDED = (State.STOPPED.value, State.ERROR.value)
_COLUMNS: Mapping[str, str] = {
    "Name": "name",
    "ID": "id",
    "Endpoint": "endpoint",
    "Api Type": "apiType",
    "Deployment Type": "deploymentType",
    "Deployment State": "state",
}
_DETAILS: Mapping[str, str] = {
    "ID": "id",
    "Name": "name",
    "State": "state",
    "Reason": "reason",
    "Machine type": "machineType",
    "Instance count": "instanceCount",
    "Command": "command",
    "Deployment type": "deploymentType",
    "Model ID": "modelId",
    "Project ID": "projectId",
    "Endpoint": "endpoint",
    "API type": "apiType",
    "Cluster ID": "clusterId",
}


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    group = commands.add_parser("deployments", help="Gradient's commands: create, list, details, start, stop, update, delete, logs, ...")
    verbs = group.add_subparsers(dest="verb", metavar="COMMAND", required=True)

    creating = _verb(verbs, "create", "create a deployment, which starts at once", _create)
    creating.add_argument("--name", required=True, metavar="NAME", help="what people call it")
    creating.add_argument("--deploymentType", type=choice(TYPES), default="TFServing", metavar="|".join(TYPES), help="default: TFServing")
    creating.add_argument("--auth", action="store_true", help="ask for a user name and a password, which are made up and shown once")
    add_tags(creating)
    updating = _verb(verbs, "update", "change a deployment; what is not named stays", _update, one=True)
    updating.add_argument("--name", metavar="NAME", help="what people call it")
    updating.add_argument("--deploymentType", type=choice(TYPES), metavar="|".join(TYPES), help="of what type it is from now on")
    for command in (creating, updating):
        add_fields(command)

    listing = _verb(verbs, "list", "list deployments", _list)
    listing.add_argument("--state", type=choice(STATES), metavar="STATE", help=f"only those in it: {', '.join(STATES)}")
    listing.add_argument("--projectId", metavar="ID", help="only those of this project")
    listing.add_argument("--modelId", metavar="ID", help="only those of this model")
    listing.add_argument("--tag", dest="tags", action="append", default=[], metavar="TAG", help="only those with one of these; repeatable")

    _verb(verbs, "details", "show all about a deployment", _details, one=True)
    _verb(verbs, "start", "serve a deployment again", _start, one=True)
    _verb(verbs, "stop", "serve a deployment no longer; it can be started again", _stop, one=True)
    _verb(verbs, "delete", "serve a deployment no longer, and forget it", _delete, one=True)
    logs = _verb(verbs, "logs", "show what became of a deployment and what its model printed", _logs, one=True)
    logs.add_argument("--line", type=int, default=0, metavar="N", help="leave out the first N lines")
    logs.add_argument("--limit", type=int, default=10000, metavar="N", help="show at most so many lines (default: 10000)")
    logs.add_argument("--follow", nargs="?", const=True, default=False, type=switch, metavar="true|false", help="go on until it has ended")

    tags = verbs.add_parser("tags", help="add or remove tags").add_subparsers(dest="what", metavar="COMMAND", required=True)
    for word, handler in (("add", _tags_add), ("remove", _tags_remove)):
        add_tags(_verb(tags, word, f"{word} tags of a deployment", handler, one=True))

    metrics = verbs.add_parser("metrics", help="figures of this moment").add_subparsers(dest="what", metavar="COMMAND", required=True)
    getting = _verb(metrics, "get", "show figures of a deployment", _metrics_get, one=True)
    names = _verb(metrics, "list", "list the figures that there are", _metrics_list, one=True)
    streaming = _verb(metrics, "stream", "show figures again and again, until Ctrl-C", _metrics_stream, one=True)
    for command in (getting, streaming):
        command.add_argument("--metric", dest="metrics", action="append", default=[], metavar="NAME", help="which; repeatable")
    for command in (getting, names, streaming):
        command.add_argument("--interval", type=seconds, default=30.0, metavar="30s", help="how often `stream` shows them (default: 30s)")
    for command in (getting, names):
        for option in ("--start", "--end"):
            command.add_argument(option, metavar="TIME", help="taken, without effect: no history is kept here, see /metrics")


# --- what the commands take ---


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    help_text: str,
    run: Callable[[argparse.Namespace], int],
    *,
    one: bool = False,
) -> argparse.ArgumentParser:
    command = verbs.add_parser(name, help=help_text)
    if one:
        command.add_argument("--id", required=True, metavar="ID", help="of the deployment")
    add_output(command)
    add_server(command)
    command.add_argument("--apiKey", dest="key", default=argparse.SUPPRESS, metavar="KEY", help="the same as --key")
    command.set_defaults(run=run)
    return command


# --- what they do ---


def _create(options: argparse.Namespace) -> int:
    body, tags = given(options), words(options)
    if tags:
        body["tags"] = tags
    if options.auth:
        if "authUsername" in body:
            raise invalid("use either --authUsername and --authPassword, or --auth")
        body |= {"authUsername": secrets.token_hex(6), "authPassword": secrets.token_urlsafe(18)}
    made = call(options, "POST", _PATH, body)
    if not isinstance(made.get("id"), str):
        raise foreign(options)
    lines = [f"New deployment created with id: {made['id']}", str(made.get("endpoint", ""))]
    if options.auth:
        lines = [f"Generated credentials:\nusername:{body['authUsername']}\npassword:{body['authPassword']}", *lines]
        made |= {"oauthKey": body["authUsername"], "oauthSecret": body["authPassword"]}
    return _said(options, made, "\n".join(lines))


def _update(options: argparse.Namespace) -> int:
    body = given(options)
    if not body:
        raise invalid("nothing to change was named: see dragoman deployments update --help")
    return _said(options, call(options, "PATCH", _at(options), body), "Deployment data updated")


def _list(options: argparse.Namespace) -> int:
    asked = [(name, value) for name in ("state", "projectId", "modelId") if (value := getattr(options, name))]
    query = urlencode([*asked, *(("tag", tag) for tag in options.tags)])
    found = call(options, "GET", f"{_PATH}?{query}" if query else _PATH).get("deployments")
    if not isinstance(found, list):
        raise foreign(options)
    if options.output == "json":
        print(json.dumps(found, indent=2))
    elif found:
        table(tuple(_COLUMNS), [[str(each.get(key, "")) for key in _COLUMNS.values()] for each in found])
    else:
        print("No data found")
    return 0


def _details(options: argparse.Namespace) -> int:
    found = call(options, "GET", _at(options))
    if options.output == "json":
        print(json.dumps(found, indent=2))
        return 0
    rows = [[title, str(found[key])] for title, key in _DETAILS.items() if key in found]
    rows.append(["Tags", ", ".join(found.get("tags", []))])
    scaling = found.get("autoscaling", {})
    rows += [
        [title, str(scaling[key])]
        for title, key in (("Min Instance Count", "minInstanceCount"), ("Max Instance Count", "maxInstanceCount"))
        if key in scaling
    ]
    table(rows[0], rows[1:])
    return 0


def _start(options: argparse.Namespace) -> int:
    return _said(options, call(options, "POST", f"{_at(options)}/start"), "Deployment started")


def _stop(options: argparse.Namespace) -> int:
    return _said(options, call(options, "POST", f"{_at(options)}/stop"), "Deployment stopped")


def _delete(options: argparse.Namespace) -> int:
    return _said(options, call(options, "DELETE", _at(options)), "Deployment deleted")


def _logs(options: argparse.Namespace) -> int:
    rows, state = _rows(options, options.line)
    if not options.follow:
        if options.output == "json":
            print(json.dumps(rows, indent=2))
        elif rows:
            table(("LINE", "MESSAGE"), [[str(row["line"]), row["message"]] for row in rows])
        else:
            print("No logs found")
        return 0
    line = options.line
    while rows or state not in _ENDED:
        for row in rows:
            print(json.dumps(row) if options.output == "json" else f"{row['line']}\t{row['message']}", flush=True)
        line += len(rows)
        if not rows:
            time.sleep(_LOOK_S)
        rows, state = _rows(options, line)
    return 0


def _rows(options: argparse.Namespace, line: int) -> tuple[list[dict[str, Any]], str]:
    if line < 0 or options.limit < 1:
        raise invalid("--line is a number from 0 on, and --limit one from 1 on")
    found = call(options, "GET", f"{_at(options)}/logs?{urlencode({'line': line, 'limit': options.limit})}")
    if not isinstance(found.get("logs"), list):
        raise foreign(options)
    return found["logs"], str(found.get("state", ""))


def _tags_add(options: argparse.Namespace) -> int:
    return _tagged(options, "Tags added to deployment", lambda old, words: [*old, *words])


def _tags_remove(options: argparse.Namespace) -> int:
    return _tagged(options, "Tags removed from deployment", lambda old, words: [tag for tag in old if tag not in words])


def _tagged(options: argparse.Namespace, text: str, change: Callable[[list[str], list[str]], list[str]]) -> int:
    named = words(options)
    if not named:
        raise invalid("name a tag: --tag TAG, or --tags TAG,TAG")
    old = call(options, "GET", _at(options)).get("tags", [])
    return _said(options, call(options, "PUT", f"{_at(options)}/tags", {"tags": list(dict.fromkeys(change(old, named)))}), text)


def _metrics_get(options: argparse.Namespace) -> int:
    print(json.dumps(_charts(options, options.metrics), indent=2, sort_keys=True))
    return 0


def _metrics_list(options: argparse.Namespace) -> int:
    found = call(options, "GET", f"{_at(options)}/metrics").get("chart_names")
    print(json.dumps(found, indent=2))
    return 0


def _metrics_stream(options: argparse.Namespace) -> int:
    while True:
        print(json.dumps(_charts(options, options.metrics), sort_keys=True), flush=True)
        time.sleep(options.interval)


def _charts(options: argparse.Namespace, names: Sequence[str]) -> Any:
    query = f"?{urlencode({'charts': ','.join(names)})}" if names else ""
    return call(options, "GET", f"{_at(options)}/metrics{query}").get("charts")


def _at(options: argparse.Namespace) -> str:
    return f"{_PATH}/{quote(options.id, safe='')}"


def _said(options: argparse.Namespace, answer: object, text: str) -> int:
    print(json.dumps(answer, indent=2) if options.output == "json" else text)
    return 0
