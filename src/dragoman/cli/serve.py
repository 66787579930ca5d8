"""`dragoman serve`: read the settings, bind the ports, run one worker here or several under a supervisor, say where it listens."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from typing import Any

from dragoman.cli.banner import Progress, addresses, banner
from dragoman.core.errors import Kind, ServingError
from dragoman.server.configuration import as_toml, flag_of, read
from dragoman.server.ending import GRACE_S, end_within, ignore_sigterm, on_sigterm
from dragoman.server.guard import first_key, key_file
from dragoman.server.holder import Holder
from dragoman.server.jobs import check_isolation
from dragoman.server.listeners import bound, metrics_port, ports, reserved
from dragoman.server.loading import Loaded
from dragoman.server.logs import configure_logging
from dragoman.server.loop import new_event_loop, share_the_interpreter
from dragoman.server.settings import Settings
from dragoman.server.supervisor import Supervisor
from dragoman.server.worker import Worker
from dragoman.serving.library.opening import newest
from dragoman.serving.model_config import read_models
from dragoman.serving.roots import Roots

log = logging.getLogger("dragoman")

_DESCRIPTION = """\
Serve models until Ctrl-C or SIGTERM.

A TARGET is a file (.onnx, .tflite, .skops, .ubj, .json, .txt, .pt2, .pt, .py), a folder with one model (a SavedModel for
example), a Tungsten project, a folder with numeric version folders (TF Serving), a Triton repository (config.pbtxt) or an MLServer one
(model-settings.json); where no such path exists, it is NAME[:TAG] of a stored model. NAME=TARGET names it, and
FILE.py:CLASS chooses one of several classes. Without a TARGET and without --model-root the newest model that was built is served.
Every model answers on every port in every protocol. Settings come from --config FILE (TOML), then DRAGOMAN_* variables,
then flags; --print-config shows the result.
"""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Make the command's flags from the table of settings."""
    command = commands.add_parser(
        "serve", help="serve models", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("targets", nargs="*", metavar="TARGET", help=fields(Settings)[0].metadata["help"])
    for spec in fields(Settings)[1:]:
        meta = spec.metadata
        flags = [meta["short"]] if meta.get("short") else []
        flags.append(flag_of(spec.name))
        if spec.name.startswith("no_"):  # with a --no-no-... to undo it nobody would be served
            command.add_argument(*flags, dest=spec.name, action="store_true", default=None, help=meta["help"])
        elif spec.default is False:
            command.add_argument(*flags, dest=spec.name, action=argparse.BooleanOptionalAction, default=None, help=meta["help"])
        else:
            default = Settings.__dataclass_fields__[spec.name].default
            shown = f" (default: {default})" if isinstance(default, int | float | str) and default not in ("", 0) else ""
            command.add_argument(
                *flags,
                dest=spec.name,
                action="append" if meta.get("many") else "store",
                metavar=meta["metavar"] or (None if not meta["choices"] else "|".join(meta["choices"])) or spec.name.upper(),
                help=meta["help"] + (" (default: 3000)" if spec.name == "port" else "" if "default" in meta["help"] else shown),
            )
    command.add_argument("--config", metavar="FILE", default="", help="TOML file with any of these settings")
    command.add_argument("--print-config", action="store_true", help="print the settings that result, and exit")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    flags = {spec.name: getattr(options, spec.name) for spec in fields(Settings)}
    flags["targets"] = flags["targets"] or None
    settings = read(flags, options.config)
    if options.print_config:
        sys.stdout.write(as_toml(settings))
        return 0
    return start(settings)


def start(settings: Settings, warnings: Sequence[str] = ()) -> int:
    """Serve until a signal; returns the exit code. `warnings` are logged first: what a command line asked for in vain."""
    Roots.of(settings.model_root, settings.trusted_root, settings.data_path).check()
    asyncio.run(check_isolation(settings))
    configure_logging(settings.log_level, settings.log_format)
    for text in warnings:
        log.warning("%s", text)
    with ExitStack() as stack:
        stack.callback(ignore_sigterm)
        holder = stack.enter_context(Holder(settings.store_url, addresses(settings, settings.port)))
        if settings.model_config_file:
            read_models(settings.model_config_file)  # before anything is started: what is wrong with it ends the command
        elif not settings.targets and not settings.model_root and not settings.trusted_root:  # with roots, clients say what to serve
            settings = _newest(settings)
        token = first_key(settings)
        if token is not None:
            sys.stderr.write(f"Admin key, shown this once and stored only as a hash in {key_file(settings)}:\n  {token}\n")
        progress = Progress(sys.stderr)
        share_the_interpreter()
        try:
            sockets = bound(settings, stack)
            settings = reserved(settings, stack)
        except OSError as error:
            raise ServingError(Kind.UNAVAILABLE, str(error.strerror or error)) from error
        holder.say(addresses(settings, ports(sockets, settings)))
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            if settings.workers == 1:
                return runner.run(_one(settings, sockets, progress))
            return runner.run(_several(settings, sockets, progress, holder))


def _newest(settings: Settings) -> Settings:
    """These settings with the newest model that was built as the target, if there is one and nothing is deployed."""
    stored = asyncio.run(newest(settings.place))
    if stored is None:
        return settings
    sys.stderr.write(f"Finding the latest model... succeeded\nUse model '{stored.name}'\n")
    return replace(settings, targets=(stored.name,))


async def _one(settings: Settings, sockets: list[socket.socket], progress: Progress) -> int:
    """Supervisor and worker in this process: the default."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    _on_signals(loop, stopping.set, lambda: os._exit(130))
    worker = Worker(settings)
    serving = loop.create_task(worker.serve(sockets, progress, lambda: _announce(settings, sockets, None)))
    ended = loop.create_task(stopping.wait())
    code = 0
    try:
        await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done() and not ended.done():
            loaded = serving.result()
            if _served(settings, sockets, loaded):
                await ended
            else:
                code = 1
        return code
    finally:
        end_within(settings.drain_timeout + GRACE_S, code)
        serving.cancel()
        ended.cancel()
        await worker.close()


async def _several(settings: Settings, sockets: list[socket.socket], progress: Progress, holder: Holder) -> int:
    """One supervisor here, the workers in processes of their own."""
    announced = listening = False

    def on_report(index: int, report: dict[str, Any]) -> None:
        nonlocal announced, listening
        if report["event"] == "progress" and index == 0 and not announced:  # after the banner only the log speaks
            progress(report["text"])
        elif report["event"] == "listening" and not listening:
            listening = True
            _announce(settings, sockets, None)
        elif report["event"] == "loaded" and not announced:
            announced = True
            loaded = Loaded(
                tuple(report["ready"]), tuple((n, r) for n, r in report["failed"]), tuple(report["samples"]), report["hopeless"]
            )
            if not _served(settings, sockets, loaded):
                supervisor.stop(1)

    with tempfile.TemporaryDirectory(prefix="dragoman-") as run_dir:
        supervisor = Supervisor(settings, sockets, run_dir, on_report, holder.inherited)
        _on_signals(asyncio.get_running_loop(), supervisor.stop, supervisor.kill)
        return await supervisor.run()


def _served(settings: Settings, sockets: list[socket.socket], loaded: Loaded) -> bool:
    """Say how loading ended; False when nothing was loaded and the server was to wait for it."""
    if loaded.fatal(settings):
        strict = settings.exit_on_error
        log.error("a model could not be loaded (--exit-on-error)" if strict else "no model could be loaded, so there is nothing to serve")
        return False
    if settings.load != "background":
        _announce(settings, sockets, loaded)
    return True


def _announce(settings: Settings, sockets: list[socket.socket], loaded: Loaded | None) -> None:
    sys.stderr.write(banner(settings, ports(sockets, settings), loaded, metrics_port(sockets, settings)))
    sys.stderr.flush()


def _on_signals(loop: asyncio.AbstractEventLoop, drain: Callable[[], None], kill: Callable[[], None]) -> None:
    """The first signal drains; a second Ctrl-C ends at once."""
    signalled = False

    def interrupt() -> None:
        nonlocal signalled
        (kill if signalled else drain)()
        signalled = True

    on_sigterm(loop, drain)
    loop.add_signal_handler(signal.SIGINT, interrupt)
