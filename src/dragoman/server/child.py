"""One worker process under the supervisor: `python -m dragoman.server.child FD`. Reads its orders from the line, reports over it."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from dataclasses import replace
from typing import Any

from dragoman.server.ending import GRACE_S, end_within, ignore_sigterm, on_sigterm
from dragoman.server.logs import configure_logging
from dragoman.server.loop import new_event_loop, share_the_interpreter
from dragoman.server.settings import Settings
from dragoman.server.worker import Worker


async def serve(line: socket.socket) -> int:
    """Serve until SIGTERM, or until the supervisor is gone. Returns the exit code."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    on_sigterm(loop, stopping.set)
    reader, writer = await asyncio.open_connection(sock=line)
    order: dict[str, Any] = json.loads(await reader.readline())
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in order["settings"].items()}
    settings = Settings(**values)
    if order["serial"] > settings.workers:  # it takes the place of one that died: the others serve, and so does it
        settings = replace(settings, exit_on_error=False, wait_for_models=False)
    configure_logging(settings.log_level, settings.log_format)
    sockets = [socket.socket(fileno=fd) for fd in order["sockets"]]

    def report(event: str, **facts: Any) -> None:
        writer.write(json.dumps({"event": event, **facts}).encode() + b"\n")

    abandoned = False

    async def leave_with_supervisor() -> None:
        nonlocal abandoned
        with contextlib.suppress(OSError):  # a reset: it died before it had read what was reported
            await reader.read()
        abandoned = True
        stopping.set()

    watch = loop.create_task(leave_with_supervisor())
    worker = Worker(
        settings, run_dir=order["run_dir"], index=order["index"], serial=order["serial"], keeper=order["keeper"], run=order["run"]
    )
    serving = loop.create_task(worker.serve(sockets, lambda text: report("progress", text=text), lambda: report("listening")))
    try:
        ended = loop.create_task(stopping.wait())
        await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            loaded = serving.result()
            report("loaded", ready=loaded.ready, failed=loaded.failed, samples=loaded.samples, hopeless=loaded.hopeless)
            await ended
        else:
            serving.cancel()
        end_within(settings.drain_timeout + GRACE_S)
        await worker.close(abandoned=abandoned)
        return 0
    finally:
        watch.cancel()
        writer.close()


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    share_the_interpreter()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        code = runner.run(serve(line))
    ignore_sigterm()
    sys.exit(code)


if __name__ == "__main__":
    main()
