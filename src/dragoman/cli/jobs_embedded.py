"""The server that `dragoman run` is where none runs: in this process, for one job.

It is a server like any other: on the usual data directory, so that a later `dragoman serve` knows the job, and on a port, so that the
job's endpoint can be called. However the command ends, the job is ended before the server.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Self
from urllib.parse import urlsplit

from dragoman.cli.client import USUAL
from dragoman.cli.jobs import stop
from dragoman.cli.jobs_api import Api
from dragoman.cli.jobs_logs import ENDED, Follower
from dragoman.core.errors import ServingError
from dragoman.embed import Server
from dragoman.server.configuration import read

_INTERRUPTED = 130


class Embedded:
    """A server for one job. A context manager; `url` while it is entered."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._undo = ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C, so that the job ends before its server
                if threading.current_thread() is threading.main_thread():
                    undo.callback(signal.signal, number, signal.signal(number, _interrupt))
            server = undo.enter_context(self._started())
            self.url = server.url
            print(
                f"There is no server at {USUAL}: this command is one, at {self.url}, until the job ends (Ctrl-C ends both)", file=sys.stderr
            )
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._undo.close()

    def until_it_ends(self, api: Api, job: str, show: Callable[[], object]) -> int:
        """Say what a job is (`show`), then its log until it has ended. Ctrl-C ends the job, a second one waits for nothing. The exit code."""
        following = Follower(api, job, sys.stdout)
        try:
            show()
            print("\nPress Ctrl-C to end the job and this server.\n", flush=True)
            return 0 if following.to_the_end().get("state") == "success" else 1
        except KeyboardInterrupt:
            _end(api, job)  # first: a terminal that is gone takes no words
            print("\nEnding the job ...", file=sys.stderr, flush=True)
            following.to_the_end()
            return _INTERRUPTED
        except BaseException:
            _end(api, job)
            raise

    def _started(self) -> Server:
        """On the port that was asked for; else on the usual one, or any where that is taken."""
        given = self._options.port
        flags = {"data_dir": self._options.data_dir, "jobs": "on", "host": "127.0.0.1"}
        data = str(read(flags).data_path)  # named, so that a server that has it says so instead of another folder being used
        for port in [given] if given is not None else [urlsplit(USUAL).port or 0, 0]:
            try:
                return Server(read({**flags, "data_dir": data, "port": [port]}))
            except OSError:
                if port == given or not port:
                    raise
        raise AssertionError("a free port is always tried last")


def _end(api: Api, job: str) -> None:
    try:
        if api.ask("GET", f"/experiments/{job}").get("state") not in ENDED:
            stop(api, job)
    except ServingError as error:
        print(f"dragoman: the job could not be ended: {error.message}", file=sys.stderr)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
