"""A model whose call never returns: the server ends all the same when it is told to."""

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import requests

from tests import packages
from tests.e2e.running import environment, serving
from tests.fakes import wait_until

RUNTIME = """
import pathlib, time
from dragoman.core.tensors import FP32, Signature, TensorSpec

class Hung:
    signatures = {"": Signature(inputs=(TensorSpec("x", FP32, (-1, 2)),), outputs=(TensorSpec("y", FP32, (-1, 2)),), batch=True)}
    operations = frozenset({"predict"})
    platform = "hung"
    concurrent = False

    def predict(self, call):
        if not call.inputs.items[0].array.any():
            time.sleep(0.01)  # the warm-up: slow enough for a thread of its own
            return call.inputs
        pathlib.Path("MARK").touch()
        while True:
            time.sleep(1)

    def close(self):
        pass

def load(spec):
    return Hung()
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_a_call_that_never_returns_does_not_keep_the_server(tmp_path: Path, workers: Sequence[str]) -> None:
    """SIGTERM ends it after the drain time-out and a few seconds; whoever waited for the call is cut off."""
    mark = tmp_path / "called"
    packages.write(tmp_path / "packages", "dragoman.runtimes", "hung", RUNTIME.replace("MARK", str(mark)))
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").touch()
    (tmp_path / "m" / "config.pbtxt").write_text('backend: "hung"')
    path = os.pathsep.join((environment(tmp_path)["PYTHONPATH"], str(tmp_path / "packages")))
    with serving(tmp_path, str(tmp_path / "m"), "--drain-timeout", "0", *workers, extra={"PYTHONPATH": path}) as server:
        body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 1]}]}
        ends: list[BaseException] = []

        def ask() -> None:
            try:
                requests.post(f"{server.url}/v2/models/m/infer", json=body, timeout=60)
            except requests.RequestException as error:
                ends.append(error)

        client = threading.Thread(target=ask)
        client.start()
        wait_until(mark.exists, 30)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        client.join(10)
        assert ends
    assert "ends without it" in server.output
