"""`dragoman predict`: call a model, with JSON as it is or with fields (-i). A running server is asked; else the model is loaded here."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.cli.client import NoServerError, accepted, add_place, add_server, exchange, url_of
from dragoman.cli.fields import filled, parsed, saved
from dragoman.core.errors import Kind, ServingError, invalid

_DESCRIPTION = """\
Call a model. INPUT is JSON, @FILE, or - for standard input: a list is one item per row, an object names the inputs.
Or give one input field by field: -i prompt="a cat" -i photo=cat.jpg. Fields that are files take a path or a URL; files
of the output are saved. Without a running server, or if it does not have the model, NAME is loaded here: a stored
model, a file or a folder.
"""


_Ask = Callable[[str, str, object], tuple[int, Any]]
"""Method, path, body: the status and what was answered."""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    predict = commands.add_parser(
        "predict", help="call a model", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    predict.add_argument("model", metavar="NAME[:VERSION]", help="the model, and which version or tag when it is not the default one")
    predict.add_argument(
        "input", metavar="INPUT", nargs="?", help="for example '[[5.1, 3.5, 1.4, 0.2]]' or '{\"X\": [[5.1, 3.5, 1.4, 0.2]]}'"
    )
    predict.add_argument("--signature", default="", metavar="NAME", help="the signature to call, for models that have several (with INPUT)")
    add_fields(predict)
    predict.add_argument("--local", action="store_true", help="ask no server: load the model here")
    add_place(predict)
    add_server(predict)
    predict.set_defaults(run=_predict)


def add_fields(command: argparse.ArgumentParser) -> None:
    """The options that give an input by fields."""
    command.add_argument("-i", "--input", dest="fields", action="append", default=[], metavar="FIELD=VALUE", help="one field; repeatable")
    command.add_argument("--output-file-dir", default=".", metavar="DIR", help="where files of the output are saved (default: .)")


def _predict(options: argparse.Namespace) -> int:
    if (options.input is None) == (not options.fields):
        raise invalid("give an INPUT or fields (-i FIELD=VALUE)" + ("" if options.input is None else ", not both"))
    return _by_json(options) if options.input is not None else _by_fields(options)


def _by_json(options: argparse.Namespace) -> int:
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
    if not options.local:
        path = f"/v1/models/{quote(name, safe='')}" + (f"/versions/{version}" if version else "") + ":predict"
        sent = body
        if version and not version.isdecimal():  # of names of versions that are no numbers only MLRun's words know
            path = f"/v2/models/{quote(name, safe='')}/versions/{quote(version, safe='')}/predict"
            sent = {"inputs": value if isinstance(value, list) else [value]}
        try:
            status, answer = exchange(options, "POST", path, sent)
        except NoServerError:
            if options.url:
                raise
        else:
            if status != 404 or options.url:
                return _shown(options, status, answer)
    with _loaded(options.model, options) as (own, ask):
        return _shown(options, *ask("POST", f"/v1/models/{quote(own, safe='')}:predict", body))


def _shown(options: argparse.Namespace, status: int, answer: Any) -> int:
    answer = accepted(options, status, answer)
    print(json.dumps(answer.get("predictions", answer.get("outputs", answer))))
    return 0


def _by_fields(options: argparse.Namespace) -> int:
    fields = parsed(options.fields)
    if options.local:
        return locally(options.model, fields, options)
    name, _, tag = options.model.rpartition("/")[2].partition(":")
    path = f"/models/{quote(name, safe='')}" + (f":{quote(tag, safe='')}" if tag else "")
    try:
        status, answer = exchange(options, "GET", path)
    except NoServerError:
        if options.url:
            raise
        return locally(options.model, fields, options)
    if status == 404 and not options.url:
        return locally(options.model, fields, options)
    if status != 200:
        raise ServingError(Kind.UNAVAILABLE, f"{url_of(options)} answers {status}: {_reason(answer)}")

    def ask(method: str, where: str, body: object) -> tuple[int, Any]:
        return exchange(options, method, path + where, body)

    return _asked(ask, answer, fields, options)


def locally(target: str, fields: dict[str, str], options: argparse.Namespace) -> int:
    """Load a model in this program, call it once with these fields, and close it."""
    with _loaded(target, options) as (name, ask_server):
        path = f"/models/{quote(name, safe='')}"

        def ask(method: str, where: str, body: object) -> tuple[int, Any]:
            return ask_server(method, path + where, body)

        status, described = ask("GET", "", None)
        if status != 200:
            raise ServingError(Kind.UNAVAILABLE, f"model '{target}' does not say what it takes: {_reason(described)}")
        return _asked(ask, described, fields, options)


@contextmanager
def _loaded(target: str, options: argparse.Namespace) -> Iterator[tuple[str, _Ask]]:
    """A model in this program: the name under which it is served, and how to ask."""
    from dragoman.embed import TestClient  # a whole server, which a running one makes needless
    from dragoman.server.configuration import read

    settings = read({"data_dir": options.data_dir, "store": options.store, "targets": [target]})
    with TestClient(
        target, data_dir=str(settings.data_path), store=settings.store, environments=settings.environments, load="wait"
    ) as client:
        for _, reason in client.loaded.failed:
            raise ServingError(Kind.UNAVAILABLE, f"model '{target}' cannot be loaded: {reason}")

        def ask(method: str, path: str, body: object) -> tuple[int, Any]:
            answer = client.request(method, path, json=body, headers={"content-type": "application/json"})
            return answer.status, answer.json()

        yield client.loaded.ready[0], ask


def _asked(ask: _Ask, described: Any, fields: dict[str, str], options: argparse.Namespace) -> int:
    """Call the model with one input and print its output."""
    if not isinstance(described, dict) or not isinstance(described.get("input_schema"), dict):
        raise ServingError(Kind.UNAVAILABLE, f"{url_of(options)} does not say what the model takes; is it a Dragoman server?")
    status, answer = ask("POST", "/predict", [filled(fields, described["input_schema"])])
    if status == 422:
        raise ServingError(Kind.UNAVAILABLE, f"the input is refused: {_reason(answer)}")
    if status != 200:
        raise ServingError(Kind.UNAVAILABLE, f"the server answers {status}: {_reason(answer)}")
    if answer["status"] != "success":
        raise ServingError(Kind.MODEL_FAILED, f"the prediction {answer['status']}: {str(answer['error_message']).strip()}")
    output = saved(answer["outputs"][0], described.get("output_schema", {}), Path(options.output_file_dir))
    print(json.dumps(output, indent=2, ensure_ascii=False))
    return 0


def _reason(answer: Any) -> str:
    """What an answer says is wrong: a list of problems with their places, or a text."""
    detail = answer.get("detail", answer.get("error", answer)) if isinstance(answer, dict) else answer
    if isinstance(detail, list):
        return "; ".join(
            f"{'.'.join(str(p) for p in item.get('loc', ()) if p not in ('body', '__root__', 0))}: {item.get('msg', '')}"
            for item in detail
            if isinstance(item, dict)
        )
    return str(detail)[:2000]
