"""Converting models to other formats, in a virtualenv that is made for it. Called by `dragoman convert`.

The work is done by program.py in the Python of that virtualenv; the server's own environment needs none of the packages. Here are the order to
it, and what becomes of its answer.
"""

import asyncio
import json
import os
import platform
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Environment
from dragoman.engines import bootstrap
from dragoman.engines.builder import Log, run
from dragoman.engines.environment import Environments

TF2ONNX = "tf2onnx==1.17.0"
"""Exactly this one, whose internals leave room for surprises; what it needs itself is up to the installer."""
NEWEST_PYTHON = (3, 13)
"""The newest Python for which TensorFlow has wheels."""
MARK = "convert: "
"""What the lines of the program begin with that are for people; TensorFlow prints many that are not."""
_MAIN = """\
from dragoman.conversion.program import main
main(*arguments)
"""


@dataclass(frozen=True, slots=True)
class Order:
    """What to convert: the SavedModel `source`, known as `name` in messages; `signatures` are all when there are none.

    `samples` are inputs by signature, for the comparison with the original; `tolerance` is in proportion to the largest number of an output.
    """

    name: str
    source: str
    tags: tuple[str, ...] = ("serve",)
    signatures: tuple[str, ...] = ()
    opset: int = 18
    tolerance: float = 1e-3
    samples: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What was converted, with its differences from the original, and what was not, with the reasons."""

    signatures: Mapping[str, Mapping[str, float]]
    left_out: Mapping[str, str]
    versions: Mapping[str, str]


def environment(python: str = "", tensorflow: str = "") -> Environment:
    """The virtualenv for the conversion: with the given versions, else this Python, or the newest that TensorFlow has wheels for."""
    if not python and sys.version_info[:2] > NEWEST_PYTHON:
        python = "{}.{}".format(*NEWEST_PYTHON)
    package = "tensorflow-cpu" if (sys.platform, platform.machine()) == ("linux", "x86_64") else "tensorflow"
    versions = f"=={tensorflow}" if tensorflow else ">=2.16,<2.22"
    return Environment(python, (package + versions, TF2ONNX, "onnxruntime>=1.20,<2"))


async def to_onnx(order: Order, target: Path, wanted: Environment, environments: Environments, log: Log) -> Report:
    """Write the folder `target`, which appears when all is done. CONFLICT: it is there already. UNSUPPORTED: ONNX cannot express the model.

    Other errors are those of the program: INVALID_INPUT for what is no SavedModel, MODEL_FAILED, and UNAVAILABLE when it cannot be run.
    """
    if await asyncio.to_thread(target.exists):
        raise ServingError(Kind.CONFLICT, f"{target} exists already; name another folder with --output, or remove it")
    with await environments.hold(wanted, log) as held:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise invalid(f"{target} cannot be written: {error.strerror or error}") from error
        try:
            (scratch / "model").mkdir()
            answer = await _run(held.python, {**asdict(order), "target": str(scratch / "model")}, scratch, log)
            (scratch / "model").rename(target)
        except OSError as error:
            raise invalid(f"{target} cannot be written: {error.strerror or error}") from error
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
    return Report(answer["signatures"], answer["left_out"], answer["versions"])


async def _run(python: Path, order: Mapping[str, Any], scratch: Path, log: Log) -> dict[str, Any]:
    """The program's answer. Raises its ServingError; UNAVAILABLE with its last words when it ended without an answer."""
    request, report = scratch / "request.json", scratch / "report.json"
    request.write_text(json.dumps(order), "utf-8")
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}

    def heard(line: str) -> None:
        if line.startswith(MARK):
            log(line.removeprefix(MARK))

    tail: deque[str] = deque(maxlen=20)
    code = await run(bootstrap.command(str(python), _MAIN, str(request), str(report)), scratch, environ, heard, tail)
    if code or not report.is_file():
        words = f": {tail[-1][:300]}" if tail else ""
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        raise ServingError(Kind.UNAVAILABLE, f"the conversion of '{order['name']}' ended {how}{words}", trace="\n".join(tail))
    answer: dict[str, Any] = json.loads(report.read_text("utf-8"))
    if "error" in answer:
        raise ServingError(Kind(answer["error"]), answer["message"])
    return answer
