"""`dragoman models | status | predict`: ask a running server. They speak HTTP like any other client and load nothing of the server."""

import argparse
import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.core.errors import Kind, ServingError, invalid

_TIMEOUT_S = 300.0


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    models = commands.add_parser("models", help="list the models of a running server")
    models.set_defaults(run=_models)
    status = commands.add_parser("status", help="say whether a running server is ready; exit code 1 when it is not")
    status.set_defaults(run=_status)
    predict = commands.add_parser(
        "predict",
        help="call a model of a running server",
        description="Call a model. INPUT is JSON, @FILE, or - for standard input: a list is one item per row, an object names the inputs.",
    )
    predict.add_argument("model", metavar="NAME[:VERSION]", help="the model, and which version when it is not the default one")
    predict.add_argument("input", metavar="INPUT", help="for example '[[5.1, 3.5, 1.4, 0.2]]' or '{\"X\": [[5.1, 3.5, 1.4, 0.2]]}'")
    predict.add_argument("--signature", default="", metavar="NAME", help="the signature to call, for models that have several")
    predict.set_defaults(run=_predict)
    for command in (models, status, predict):
        command.add_argument(
            "--url", default=os.environ.get("DRAGOMAN_URL", "http://127.0.0.1:3000"), help="the server (default: %(default)s)"
        )
        command.add_argument("--key", default=os.environ.get("DRAGOMAN_KEY", ""), help="API key, where the server asks for one")
    for command in (models, status):
        command.add_argument("--output", choices=("table", "json"), default="table", help="how to print (default: table)")


def _models(options: argparse.Namespace) -> int:
    answer = _call(options, "GET", "/dragoman/v1/models")
    if "models" not in answer:
        raise _foreign(options)
    if options.output == "json":
        print(json.dumps(answer["models"], indent=2))
    else:
        _table(answer["models"])
    return 0


def _status(options: argparse.Namespace) -> int:
    answer = _call(options, "GET", "/dragoman/v1/status")
    if not {"name", "version", "ready", "draining", "models"} <= answer.keys():
        raise _foreign(options)
    if options.output == "json":
        print(json.dumps(answer, indent=2))
    else:
        state = "draining" if answer["draining"] else "ready" if answer["ready"] else "not ready"
        print(f"{answer['name']} {answer['version']} at {options.url} is {state}")
        _table(answer["models"])
    return 0 if answer["ready"] else 1


def _predict(options: argparse.Namespace) -> int:
    name, _, version = options.model.partition(":")
    text = options.input
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"{text.removeprefix('@')} cannot be read: {error}") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"the input is not JSON: {error}") from error
    body: dict[str, Any] = {"inputs" if isinstance(value, dict) else "instances": value}
    if options.signature:
        body["signature_name"] = options.signature
    path = f"/v1/models/{quote(name, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
    answer = _call(options, "POST", f"{path}:predict", body)
    print(json.dumps(answer.get("predictions", answer.get("outputs", answer))))
    return 0


def _call(options: argparse.Namespace, method: str, path: str, body: object = None) -> dict[str, Any]:
    """One request; the server's own words when it refuses."""
    url = options.url.rstrip("/") + path
    if not url.startswith(("http://", "https://")):
        raise invalid(f"--url is {options.url}, expected http://... or https://...")
    headers = {"Accept": "application/json", **({"Authorization": f"Bearer {options.key}"} if options.key else {})}
    payload = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, payload, headers, method=method)  # noqa: S310 # the scheme was checked above
    except ValueError as error:
        raise invalid(f"--url is {options.url}: {error}") from error
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310
            answer = json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode("utf-8", "replace")
        try:
            text = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            text = text[:500] or error.reason
        raise ServingError(Kind.UNAVAILABLE, f"the server answers {error.code}: {text}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise ServingError(Kind.UNAVAILABLE, f"there is no server at {options.url}: {reason}; is `dragoman serve` running?") from error
    except ValueError as error:
        raise _foreign(options) from error
    if not isinstance(answer, dict):
        raise _foreign(options)
    return answer


def _foreign(options: argparse.Namespace) -> ServingError:
    return ServingError(Kind.UNAVAILABLE, f"{options.url} does not answer as a Dragoman server does")


def _table(versions: list[dict[str, Any]]) -> None:
    columns = ("name", "version", "state", "platform", "reason")
    rows = [[str(v.get(c, "")) for c in columns] for v in versions]
    widths = [max(len(c), *(len(r[i]) for r in rows)) if rows else len(c) for i, c in enumerate(columns)]
    for row in [list(columns), *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
