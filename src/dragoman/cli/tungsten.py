"""`dragoman tungsten ...`: the commands of Tungstenkit with its words, options, defaults and exit codes, over our store and server.

No docker is needed for any of them. Exit codes: 0 done, 1 it failed, 2 the command was wrong.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dragoman import __version__, compat
from dragoman.cli import serve, store
from dragoman.cli.client import add_place, moment, table
from dragoman.cli.fields import parsed
from dragoman.cli.listing import stored_models
from dragoman.cli.predict import add_fields, locally
from dragoman.core.errors import Kind, ServingError
from dragoman.serving.library.library import Stored
from dragoman.serving.library.opening import resolved
from dragoman.serving.library.references import parse

SPOKEN = "0.2.20"
"""The version of Tungstenkit whose commands these are."""
_LEVELS = ("trace", "debug", "info", "warning", "error")
_NONE = "No available models. Please build or pull first."
_VARIABLES = ("SETUP_TIMEOUT", "PREDICTION_TIMEOUT", "RESULT_EXPIRATION")
"""What the containers of the original read from the environment, in seconds: settings of the same names here, whose own variables win."""
_LOGIN = "there is no server to log in to: models are pushed to and pulled from a folder or a bucket, named by --to and --from"


class _Parser(argparse.ArgumentParser):
    """Options after a command go to that command; --debug and -h are everywhere."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.format_usage()}Error: {message}\n")


def parser() -> argparse.ArgumentParser:
    root = _Parser(prog="tungsten", description="Tungstenkit's commands, done by Dragoman.")
    root.add_argument("--version", action="version", version=f"tungstenkit, version {SPOKEN} (Dragoman {__version__})")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    building = commands.add_parser("build", help="build a model")
    store.add_build(building)
    building.set_defaults(run=_build)
    serving = commands.add_parser("serve", help="serve a model over HTTP")
    _add_model(serving)
    serving.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serving.add_argument("-p", "--port", type=int, default=3000, help="default: %(default)s")
    serving.add_argument("--batch-size", type=int, default=None, help="largest batch (default: what the model declares)")
    serving.add_argument("--log-level", choices=_LEVELS, default="info", help="default: %(default)s")
    serving.set_defaults(run=_serve)
    demo = commands.add_parser("demo", help="serve a model; its demo is below /demo")
    _add_model(demo)
    demo.add_argument("--host", default="localhost", help="address to listen on (default: %(default)s)")
    demo.add_argument("-p", "--port", type=int, default=3300, help="default: %(default)s")
    demo.add_argument("--batch-size", type=int, default=None, help="largest batch (default: what the model declares)")
    demo.add_argument("--log-level", choices=_LEVELS, default="info", help="default: %(default)s")
    demo.set_defaults(run=_serve)
    predicting = commands.add_parser("predict", help="run one prediction")
    _add_model(predicting)
    add_fields(predicting)
    predicting.set_defaults(run=_predict)
    commands.add_parser("models", help="list models").set_defaults(run=_models)
    tagging = commands.add_parser("tag", help="give a model a second name")
    tagging.add_argument("source", metavar="SRC")
    tagging.add_argument("target", metavar="TARGET")
    tagging.set_defaults(run=store.run_tag)
    removing = commands.add_parser("remove", help="remove a model")
    removing.add_argument("model", metavar="MODEL")
    removing.set_defaults(run=store.run_remove)
    clearing = commands.add_parser("clear", help="remove all models, or all of one repository")
    clearing.add_argument("repository", metavar="REPO", nargs="?", default="")
    clearing.set_defaults(run=store.run_clear, yes=False)
    extracting = commands.add_parser("extract", help="copy the files of a model to a folder")
    _add_model(extracting)
    extracting.add_argument("-d", "--save_dir", "--save-dir", default=".", metavar="DIR")
    extracting.set_defaults(run=store.run_extract)
    for name, run, flag in (("push", _push, "--to"), ("pull", store.run_pull, "--from")):
        moving = commands.add_parser(name, help=f"{name} a model")
        moving.add_argument("model", metavar="[NAMESPACE/]PROJECT:VERSION")
        store.add_remote(moving, flag)
        moving.set_defaults(run=run, name="")
    commands.add_parser("path", help="print the folder that makes `import tungstenkit` work in scripts of your own").set_defaults(run=_path)
    login = commands.add_parser("login", help="not needed here")
    login.add_argument("server", nargs="?")
    login.add_argument("-u", "--user")
    login.add_argument("-p", "--password")
    login.set_defaults(run=_login)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="log more, and show where an error comes from")
        add_place(command)
    return root


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ServingError as error:
        if options.debug:
            raise
        print(_words(error, getattr(options, "model", "") or getattr(options, "source", "")), file=sys.stderr)
        code = 1
    return code


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model", metavar="MODEL", nargs="?", default="", help="NAME[:TAG] or a project's folder (default: the newest model)"
    )


def _words(error: ServingError, model: str) -> str:
    """An error as Tungstenkit puts it."""
    if error.what == "name":
        return f"InvalidName: {error.message}"
    if error.kind is Kind.NOT_FOUND and error.what == "model":
        if not model:
            return _NONE
        return (
            f"ModelNotFound: '{model}'. Build or pull the model first by running `tungsten build` or `tungsten pull`."
            " You can list models by running `tungsten models`."
        )
    return f"Error: {error.message}"


def _target(options: argparse.Namespace) -> str:
    """What to serve: a project that lies there, else a stored model, by default the newest."""
    if options.model and Path(options.model).exists():
        return str(options.model)
    stored = asyncio.run(resolved(store.place(options), options.model))
    if not options.model:
        print("Finding the latest model... succeeded", file=sys.stderr)
        print(f"Use model '{stored.name}'", file=sys.stderr)
    return stored.name


def _build(options: argparse.Namespace) -> int:
    stored = store.built(options)
    if stored is None:
        return 1
    print(f"Successfully built tungsten model: '{stored.name}'")
    print(f"Run a demo:          dragoman tungsten demo {stored.name}")
    print(f"Serve it over HTTP:  dragoman tungsten serve {stored.name}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    level = "debug" if options.debug else options.log_level
    words = ["serve", _target(options), "--host", options.host, "--port", str(options.port), "--log-level", level]
    if options.batch_size is not None:
        words += ["--batch-size", str(options.batch_size)]
    if options.data_dir:
        words += ["--data-dir", options.data_dir]
    if options.store:
        words += ["--store", options.store]
    for name in _VARIABLES:
        if (text := os.environ.get(name)) and f"DRAGOMAN_{name}" not in os.environ:
            words.append(f"--{name.lower().replace('_', '-')}={text}")
    commands = argparse.ArgumentParser(prog="dragoman").add_subparsers()
    serve.add_to(commands)
    return serve.run(commands.choices["serve"].parse_args(words[1:]))


def _predict(options: argparse.Namespace) -> int:
    return locally(_target(options), parsed(options.fields), options)


def _models(options: argparse.Namespace) -> int:
    def row(each: Stored) -> list[str]:
        return [each.repository, each.tag or "<none>", each.model_class, moment(each.version.created), each.version.digest[:12]]

    table(("Repository", "Tag", "Model Class", "Created", "ID"), [row(each) for each in stored_models(options)])
    return 0


def _push(options: argparse.Namespace) -> int:
    if not parse(options.model).tag:
        print(f"Error: a version is needed: {options.model}:VERSION", file=sys.stderr)
        return 1
    return store.run_push(options)


def _path(_options: argparse.Namespace) -> int:
    print(Path(compat.__file__).parent)
    return 0


def _login(options: argparse.Namespace) -> int:
    print(f"Error: {_LOGIN}", file=sys.stderr)
    return 1
