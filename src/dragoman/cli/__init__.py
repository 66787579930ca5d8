"""The `dragoman` command: thin commands over the server or over HTTP. Exit codes: 0 done, 1 it failed, 2 the command was wrong."""

import argparse
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from dragoman import __version__
from dragoman.core.errors import Kind, ServingError

_MODULES: Mapping[str, tuple[str, ...]] = {
    "serve": ("serve",),
    "store": ("build", "tag", "remove", "clear", "extract", "push", "pull"),
    "listing": ("models",),
    "status": ("status",),
    "registry": ("register", "deploy", "undeploy", "versions"),
    "deployments": ("deployments",),
    "predict": ("predict",),
    "jobs_run": ("run", "restart"),
    "login": ("login", "logout"),
    "jobs": ("init", "info", "logs", "stop", "delete", "clone", "output"),
    "data_sets": ("data",),
    "streams": ("streams",),
    "keys": ("keys",),
    "accounts": ("accounts",),
    "tracking": ("tracking",),
    "env": ("env",),
    "convert": ("convert",),
}
"""Module -> its commands. One is imported when a command of it is called: most only talk to a server, and need not load one themselves."""
_MODULE_OF = {command: module for module, commands in _MODULES.items() for command in commands}
_FOREIGN = ("tfserving", "triton", "mlserver")
"""Other servers' start commands, see foreign/: their flags are parsed as theirs are, not by argparse."""

_EPILOG = """\
examples:
  dragoman serve model.onnx                      serve one file on http://127.0.0.1:3000
  dragoman serve iris=iris.skops repo/ -p 8000   several targets; folders may be Triton, TF Serving or MLServer repositories
  dragoman serve path/to/tungsten_model.py       a Tungsten project, as it lies there
  dragoman build path/to/project -n text:1       keep a model in the store; then: dragoman serve text:1
  dragoman models                                what is stored, and what of it runs
  dragoman register iris s3://bucket/iris --deploy   add a version to a running server's registry, and serve it
  dragoman predict iris '[[5.1, 3.5, 1.4, 0.2]]' call it
  dragoman init shop; dragoman run --mode serve  run this folder's app.py as a service with an endpoint
"""


def parser(command: str = "") -> argparse.ArgumentParser:
    """The whole command line; documentation and completion are made from it. For a `command` that there is, only what its module adds."""
    root = argparse.ArgumentParser(
        prog="dragoman",
        description="One model server, any model, every client's protocol.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"dragoman {__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (_MODULE_OF[command],) if command in _MODULE_OF else _MODULES:
        _imported(module).add_to(commands)
    if command in _MODULE_OF:
        return root
    commands.add_parser("tungsten", help="Tungstenkit's own commands: dragoman tungsten --help", add_help=False)
    commands.add_parser("floyd", help="FloydHub's own client, against this server: dragoman floyd --help", add_help=False)
    for name, foreign in _imported("foreign").FOREIGN.items():
        commands.add_parser(name, help=foreign.help, add_help=False)
    return root


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What a command line says.

    Targets of `serve`, the CMD of `run` and the INPUT of `predict` may stand before, between and after flags, which argparse alone does not
    take. A CMD behind -- may hold flags of its own.
    """
    words, behind = list(sys.argv[1:] if arguments is None else arguments), []
    root = parser(words[0] if words else "")
    if words[:1] in (["run"], ["restart"]) and "--" in words:
        cut = words.index("--")
        words, behind = words[:cut], words[cut + 1 :]
    options, rest = root.parse_known_args(words)
    if rest and not any(text.startswith("-") for text in rest):
        if options.command == "serve":
            options.targets, rest = [*options.targets, *rest], []
        elif options.command in ("run", "restart"):
            options.words, rest = [*options.words, *rest], []
        elif options.command == "predict" and options.input is None:
            options.input, *rest = rest
    if rest:
        root.error(f"unrecognized arguments: {' '.join(rest)}")
    if behind:
        options.words = [*options.words, *behind]
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] in (["tungsten"], ["floyd"]):
            sys.exit(_imported(words[0]).main(words[1:]))
        if words and words[0] in _FOREIGN:
            sys.exit(_imported("foreign").FOREIGN[words[0]].main(words[1:]))
        options = parse(words)
        code: int = options.run(options)
    except ServingError as error:
        print(f"dragoman: {error.message}", file=sys.stderr)  # this is the command's output
        code = 2 if error.kind is Kind.INVALID_INPUT else 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # whoever read what this prints has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _imported(module: str) -> Any:
    """A module of this package."""
    collecting = gc.isenabled()
    gc.disable()  # what is imported stays: to look through it for garbage again and again takes a tenth of the start
    try:
        return import_module(f"{__name__}.{module}")
    finally:
        if collecting:
            gc.enable()
