"""A runtime whose models do what each row says, for tests of engines: it runs in this process and in model processes alike.

Registered by `scripted_runtime`. Every run is written to the journal that the spec's arguments name, so that a test sees what happened.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.core.model import Call, InferRequest, ModelSpec
from dragoman.core.tensors import FP32, INT64, Failure, Form, Rows, Signature, Tensor, Tensors, TensorSpec
from tests.fakes import DOUBLER
from tests.packages import installed

ROWS = Signature(Form.ROWS, (TensorSpec("do", None, (-1,)),), (TensorSpec("out", None, (-1,)),), batch=True, options=("option",))


class Script:
    """Rows: see `_do`. With the argument "tensors" it takes these: doubles, and refuses negative numbers."""

    def __init__(self, spec: ModelSpec) -> None:
        self.signatures: Mapping[str, Signature] = {"": DOUBLER if spec.arguments.get("tensors") else ROWS}
        self.operations = frozenset({"predict", "explain"})
        self.platform = "scripted"
        self.concurrent = False
        self._journal = Path(str(spec.arguments["journal"]))
        self._note("setup")
        for act in spec.arguments.get("setup", ()):
            self._do(act)

    def predict(self, call: Call) -> Tensors | Rows:
        if isinstance(call.inputs, Tensors):
            array = call.inputs.items[0].array
            self._note("tensors", size=len(array))
            if (array < 0).any():
                raise ArithmeticError("a negative number")
            array *= 2
            outputs = [Tensor("y", FP32, array), Tensor("pid", INT64, np.full(len(array), os.getpid()))]
            return Tensors([t for t in outputs if not call.outputs or t.name in call.outputs])
        rows = call.inputs.items
        self._note("run", names=[row.get("name", "") for row in rows], operation=call.operation)
        if [row.get("do") for row in rows] == ["once-alone"]:
            time.sleep(60)
        outputs = [self._do(row) for row in rows]
        self._note("ran", names=[row.get("name", "") for row in rows])
        return Rows([each for each in outputs if each is not None])

    def close(self) -> None:
        self._note("close")

    def _do(self, row: dict[str, Any]) -> Any:
        match row.get("do", "echo"):
            case "raise":
                raise ValueError(row.get("text", "boom"))
            case "leave":
                raise SystemExit(3)
            case "stop":
                raise KeyboardInterrupt
            case "fail":
                return Failure("this row", "its trace")
            case "exit":
                os._exit(row.get("code", 7))
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "print":
                sys.stdout.write(row["text"])
                if row.get("also"):
                    sys.stderr.write(row["also"])
            case "gate":
                _wait(Path(row["gate"]))
            case "sleep":
                time.sleep(60)
            case "stubborn":  # as user code that tries again whatever happens
                while not Path(row["gate"]).exists():
                    try:
                        time.sleep(0.01)
                    except Exception:
                        continue
            case "deaf":
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
                time.sleep(60)
            case "native":  # holds the interpreter, so nothing else of this process runs
                ctypes.PyDLL(None).sleep(60)
            case "busy":  # the same, but it ends
                ctypes.PyDLL(None).sleep(1)
            case "once" if not Path(row["gate"]).exists():
                Path(row["gate"]).touch()
                os._exit(9)
            case "busy for long":
                ctypes.PyDLL(None).sleep(5)
            case "fork":
                if os.fork() == 0:
                    self._note("child")
                    time.sleep(60)
                    os._exit(0)
                time.sleep(60)
            case "nothing":
                return None
            case "odd":
                return {"out": object()}
        return {"out": row.get("value"), "pid": os.getpid()}

    def _note(self, event: str, **facts: Any) -> None:
        with self._journal.open("a") as file:
            file.write(json.dumps({"event": event, "pid": os.getpid(), **facts}) + "\n")


def load(spec: ModelSpec) -> Script:
    return Script(spec)


def _wait(gate: Path) -> None:
    deadline = time.monotonic() + 60
    while not gate.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the test never opened the gate")
        time.sleep(0.002)


@contextmanager
def scripted_runtime(folder: Path) -> Iterator[None]:
    """The runtime "scripted" in this process and in those that it starts."""
    with installed(folder, "dragoman.runtimes", "scripted", "from tests.scripted import load\n"):
        yield


def journal(folder: Path) -> list[dict[str, Any]]:
    """What the model has noted so far."""
    path = folder / "journal"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def noted(folder: Path, event: str) -> list[dict[str, Any]]:
    return [each for each in journal(folder) if each["event"] == event]


def runs(folder: Path) -> list[list[str]]:
    """The names of the rows of each run, in order."""
    return [each["names"] for each in noted(folder, "run")]


def rows(*items: dict[str, Any], **options: Any) -> InferRequest:
    return InferRequest(Rows(list(items)), **options)
