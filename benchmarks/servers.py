"""The servers that are compared: Dragoman, raw ASGI applications, and the peers by their start scripts. Each runs until its block ends."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.models import Models
from benchmarks.processes import BenchmarkError, Processes, environment, free_port
from benchmarks.traffic import Shot, fire

SCRIPTS = Path(__file__).parent / "peers"
PEERS = ("triton", "mosec", "mlserver", "litserve")
WORKERS = 2
_INSTALL_S = 900
_READY_S = 120.0
_PORTS_OF_A_PEER = 3


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    port: int
    processes: Processes

    def wait(self, shots: Sequence[Shot]) -> None:
        """Wait until it answers, and answers right."""
        wrong = ""

        def answers() -> bool:
            nonlocal wrong
            if not self.processes.listens(self.port):
                return False
            try:
                fire(self.port, shots)
            except (OSError, BenchmarkError) as error:
                wrong = str(error)
                return False
            return True

        try:
            self.processes.wait_until(answers, _READY_S, self.name)
        except BenchmarkError as error:
            raise BenchmarkError(f"{error} {wrong}".strip()) from error


@contextmanager
def dragoman(models: Models, *targets: Path | str, workers: int = WORKERS, flags: Sequence[str] = ()) -> Iterator[Server]:
    """`dragoman serve` with its defaults."""
    port = free_port()
    arguments = [*map(str, targets), "--port", str(port), "--workers", str(workers), *flags]
    command = [sys.executable, "-m", "dragoman", "serve", *arguments]
    with Processes(command, environment({"XDG_DATA_HOME": str(models.folder / "data")}), models.folder / "dragoman.log") as processes:
        yield Server("Dragoman", port, processes)


@contextmanager
def raw(models: Models, kind: str, app: str) -> Iterator[Server]:
    """A raw ASGI application under our own HTTP server or under uvicorn."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.asgi", kind, app, str(port), str(WORKERS)]
    under = "our HTTP server" if kind == "dragoman" else "uvicorn"
    with Processes(command, environment(), models.folder / "raw.log") as processes:
        yield Server(f"raw {app} under {under}", port, processes)


@contextmanager
def peer(models: Models, name: str) -> Iterator[Server]:
    """A peer by its script, installed before."""
    port = free_port(_PORTS_OF_A_PEER)
    command = [str(SCRIPTS / f"{name}.sh"), str(port)]
    with Processes(command, _peer_environment(models.folder), models.folder / f"{name}.log") as processes:
        yield Server(name, port, processes)


def install(name: str) -> str:
    """Make a peer's environment if it is not there. Returns why it cannot be made, "" when it is there."""
    try:
        done = subprocess.run(
            [str(SCRIPTS / f"{name}.sh"), "install"],
            env=_peer_environment(None),
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return (lines[-1] if lines else f"exit code {done.returncode}") if done.returncode else ""


def _peer_environment(models: Path | None) -> dict[str, str]:
    """Peers see nothing of ours but the models and the version of onnxruntime."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ours = {"PEER_PYTHON": sys.executable, "ORT_VERSION": version("onnxruntime"), "WORKERS": str(WORKERS)}
    return {**ours, **kept, **({"MODELS": str(models)} if models else {})}
