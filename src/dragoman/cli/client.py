"""How every command asks a running server: over HTTP like any other client; nothing of the server is loaded."""

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid

USUAL = "http://127.0.0.1:3000"
_TIMEOUT_S = 300.0


class NoServerError(ServingError):
    """Nothing answers at the address."""


def add_server(command: argparse.ArgumentParser) -> None:
    """The options that say which server is asked."""
    command.add_argument("--url", default="", help=f"the server (default: DRAGOMAN_URL, else {USUAL})")
    command.add_argument("--key", default=os.environ.get("DRAGOMAN_KEY", ""), help="API key, where the server asks for one")


def add_output(command: argparse.ArgumentParser) -> None:
    """The option that says for whom to print."""
    command.add_argument("--output", choices=("table", "json"), default="table", help="how to print (default: table)")


def add_place(command: argparse.ArgumentParser) -> None:
    """The options that say where models are stored."""
    command.add_argument("--data-dir", metavar="DIR", help="the data directory with the store of models")
    command.add_argument("--store", metavar="URL", help="the store's database, where it is not in the data directory: see dragoman serve")


def url_of(options: argparse.Namespace) -> str:
    """The address of the server that is asked."""
    return str(options.url or os.environ.get("DRAGOMAN_URL") or USUAL)


def call(options: argparse.Namespace, method: str, path: str, body: object = None) -> dict[str, Any]:
    """One request; the server's own words, as UNAVAILABLE, when it refuses."""
    return accepted(options, *exchange(options, method, path, body))


def accepted(options: argparse.Namespace, status: int, answer: Any) -> dict[str, Any]:
    """An answer that is no refusal."""
    if status >= 300:
        raise ServingError(Kind.UNAVAILABLE, f"the server answers {status}: {words_of(answer)[:500]}")
    if not isinstance(answer, dict):
        raise foreign(options)
    return answer


def words_of(answer: Any) -> str:
    """What a refusal says, in the form of whichever protocol: `message`, `error`, `error.message`, or all of it."""
    text = answer.get("message", answer.get("error", answer)) if isinstance(answer, dict) else answer
    return str(text.get("message", text) if isinstance(text, dict) else text)


def exchange(
    options: argparse.Namespace, method: str, path: str, body: object = None, extra: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """One request: the status and the JSON of the answer, or its text for a refusal that is none. Raises NoServerError without a server.

    `extra`: headers besides, or in the place of, those that every request has.
    """
    base = url_of(options)
    url = base.rstrip("/") + path
    if not url.startswith(("http://", "https://")):
        raise invalid(f"--url is {base}, expected http://... or https://...")
    headers = {"Accept": "application/json", **({"Authorization": f"Bearer {options.key}"} if options.key else {}), **(extra or {})}
    payload = None if body is None else json.dumps(body).encode()
    if payload is not None:
        headers["Content-Type"] = "application/json"
    try:
        request = urllib.request.Request(url, payload, headers, method=method)  # noqa: S310 # the scheme was checked above
    except ValueError as error:
        raise invalid(f"--url is {base}: {error}") from error
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310 # the same
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode("utf-8", "replace")
        try:
            return error.code, json.loads(text)
        except (ValueError, RecursionError):
            return error.code, text[:500] or error.reason
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise NoServerError(Kind.UNAVAILABLE, f"there is no server at {base}: {reason}; is `dragoman serve` running?") from error
    except (ValueError, RecursionError) as error:
        raise foreign(options) from error


def foreign(options: argparse.Namespace) -> ServingError:
    return ServingError(Kind.UNAVAILABLE, f"{url_of(options)} does not answer as a Dragoman server does")


def versions_table(versions: list[dict[str, Any]]) -> None:
    """The models of a server."""
    columns = ("name", "version", "state", "platform", "reason")
    table(columns, [[str(v.get(c, "")) for c in columns] for v in versions])


def moment(seconds: float) -> str:
    """A time for a table, in the zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], *, ruled: bool = False) -> None:
    """Columns under a heading, aligned, without trailing blanks; `ruled`: with a line of dashes below the heading."""
    widths = [max(len(line[i]) for line in [heading, *rows]) for i in range(len(heading))]
    for line in [heading, *([["-" * width for width in widths]] if ruled else []), *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def confirmed(question: str, yes: bool) -> bool:
    """Ask; the end of standard input is a no."""
    if yes:
        return True
    print(f"{question} [y/n]: ", end="", flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print()
    return answer.strip().lower() in ("y", "yes")
