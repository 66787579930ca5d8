"""Stands for a server that runs jobs: does what it is asked, one JSON object per line on its standard input, and answers each with one.

Started by tests/jobs.py, as root or as somebody else, with an isolation that is forced; it may be killed, as servers are.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dragoman.core.errors import ServingError
from dragoman.core.jobs import Limits, Mode, Start
from dragoman.engines.jobs import sandbox
from dragoman.engines.jobs.isolation import Isolation, find
from dragoman.engines.jobs.launch import adopt, launch
from dragoman.engines.jobs.started import Started
from dragoman.server.loop import new_event_loop

KINDS: dict[str, Callable[[Isolation], Isolation]] = {
    "whole": lambda found: found,
    "uplinkless": lambda found: replace(found, uplink="", why="no uplink in this test"),
    "files": lambda found: replace(found, own_network=False, uplink="", why="no networks in this test"),
    "shim": lambda found: Isolation(why="no namespaces in this test"),
}
"""What a machine may allow, made of what this one does."""


class Driver:
    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self._jobs: dict[str, Started] = {}

    async def answer(self, asked: dict[str, Any]) -> Any:
        match asked.pop("do"):
            case "launch":
                started = await launch(start_in(asked), self._isolation)
            case "cancelled launch":
                task = asyncio.create_task(launch(start_in(asked), self._isolation))
                await asyncio.sleep(0)
                task.cancel()
                return repr((await asyncio.gather(task, return_exceptions=True))[0])
            case "adopt":
                adopted = await adopt(Path(asked["folder"]))
                if adopted is None:
                    return None
                started = adopted
            case "seen":
                return asdict(await self._jobs[asked["folder"]].seen())
            case "ended":
                return asdict(await self._jobs[asked["folder"]].ended())
            case "stop":
                return asdict(await self._jobs[asked["folder"]].stop(asked["grace_s"]))
            case "release":
                return await self._jobs.pop(asked["folder"]).release()
            case "kill":
                return self._jobs[asked["folder"]].kill()
            case "sandboxed":
                paths = {name: [Path(path) for path in asked.get(name, ())] for name in ("readable", "writable")}
                return await sandbox.sandboxed(self._isolation, asked["command"], **paths, network=asked.get("network", True))
            case other:
                raise AssertionError(other)
        self._jobs[str(started.folder)] = started
        return {"isolation": started.isolation, "pid": started.pid}


def start_in(asked: dict[str, Any]) -> Start:
    folder, mounts = Path(asked.pop("folder")), {name: Path(path) for name, path in asked.pop("mounts", {}).items()}
    mode, limits = Mode(asked.pop("mode", "command")), Limits(**asked.pop("limits", {}))
    argv, readable = tuple(asked.pop("argv", ("python", "app.py"))), tuple(Path(path) for path in asked.pop("readable", ()))
    python = Path(asked.pop("python"))
    return Start(folder.name, folder, mode, argv, python, readable, mounts=mounts, limits=limits, **asked)


async def main(kind: str, user: int, python: str) -> None:
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        sys.executable = python
    driver = Driver(KINDS[kind](await find("auto")))
    loop = asyncio.get_running_loop()
    print(json.dumps({"ready": True}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            said: dict[str, Any] = {"result": await driver.answer(json.loads(line))}
        except ServingError as error:
            said = {"error": error.message, "kind": error.kind.value}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:  # that of servers
        runner.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
