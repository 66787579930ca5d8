"""The Open Inference Protocol over gRPC: four numbers and 600 kB in raw contents, beside Triton, in turns, by one and the same client."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import rpc, servers
from benchmarks.duel import Figures
from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError, free_port
from benchmarks.results import Section, Table, Target
from benchmarks.servers import Server
from benchmarks.traffic import IRIS_ROWS, Array, image, image_v2_binary, iris_v2
from dragoman.proto.messages import message_class, new

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_IN_FLIGHT = (1, 16)


def run(models: Models, options: Options) -> Section:
    section = Section("grpc", "grpc: Open Inference Protocol over gRPC, two workers, one client process")
    ports = {"Dragoman": free_port()}
    with servers.dragoman(models, models.iris, models.image_mean, flags=("--grpc-port", str(ports["Dragoman"]))) as ours:
        ours.wait([*iris_v2(models.predict_iris), *image_v2_binary(models.predict_image)])
        if "triton" not in options.peers:
            section.parts.append(_table(models, [_Side(ours, ports["Dragoman"])], options, section))
            return section
        reason = servers.install("triton")
        if reason:
            raise BenchmarkError(f"Triton cannot be installed: {reason}")
        with servers.peer(models, "triton") as theirs:
            theirs.wait(image_v2_binary(models.predict_image))
            sides = [_Side(ours, ports["Dragoman"]), _Side(theirs, theirs.port + 1)]
            section.parts.append(_table(models, sides, options, section))
    return section


class _Side:
    """One server and its gRPC port."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port

    def measure(self, body: Path, in_flight: int, seconds: int) -> Figures:
        before = self.server.processes.cpu_s()
        done = rpc.load(self.port, _INFER, body, in_flight, seconds)
        cpu_s = self.server.processes.cpu_s() - before
        self.server.processes.settle()
        return Figures(done.rate, done.p50_ms, done.p99_ms, cpu_s / done.requests * 1e6, done.refused)


def _table(models: Models, sides: Sequence[_Side], options: Options, section: Section) -> Table:
    rows = []
    for name, model, key, array, expected in (
        ("4 floats", "iris", "X", np.array([IRIS_ROWS[0]], np.float32), models.predict_iris),
        ("image", "image_mean", "image", image(), models.predict_image),
    ):
        body = models.folder / f"{model}.message"
        body.write_bytes(_message(model, key, array))
        for side in sides:
            _check(side.port, body, float(np.ravel(expected(array)[0])[0]), model)
        for in_flight in _IN_FLIGHT:
            figures: list[list[Figures]] = [[] for _ in sides]
            for turn in range(options.pairs):
                for index in range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides))):
                    figures[index].append(sides[index].measure(body, in_flight, options.seconds))
            for side, found in zip(sides, figures, strict=True):
                middle = partial(_median, found)
                rows.append(
                    [name, str(in_flight), side.server.name, f"{middle('rate'):,.0f}", f"{middle('p50_ms'):.2f}", f"{middle('p99_ms'):.2f}",
                     f"{middle('cpu_us'):,.0f}", str(sum(each.failed for each in found))]
                )  # fmt: skip
                print(f"  {rows[-1]}", flush=True)
            if len(sides) == 2:
                ratios = [a.rate / b.rate for a, b in zip(*figures, strict=True)]
                text = ", ".join(f"{ratio:.2f}" for ratio in ratios)
                what = f"{name}, {in_flight} in flight: at least level with Triton"
                section.targets.append(Target(what, f"{median(ratios):.2f}x ({text})", median(ratios) >= 1))
    return Table(("input", "in flight", "server", "calls/s", "p50 ms", "p99 ms", "CPU us a call", "failed"), rows)


def _median(found: Sequence[Figures], name: str) -> float:
    return float(median(getattr(each, name) for each in found))


def _message(model: str, key: str, array: Array) -> bytes:
    message: Any = new("inference.ModelInferRequest")
    message.model_name = model
    tensor = message.inputs.add(name=key, datatype="FP32")
    tensor.shape.extend(array.shape)
    message.raw_input_contents.append(array.tobytes())
    encoded: bytes = message.SerializeToString()
    return encoded


def _check(port: int, body: Path, expected: float, model: str) -> None:
    """The first number of the first output is what the model itself computes."""
    answer: Any = message_class("inference.ModelInferResponse").FromString(rpc.call(port, _INFER, body.read_bytes()))
    datatype = {"FP32": "<f4", "INT64": "<i8"}[answer.outputs[0].datatype]
    got = float(np.frombuffer(answer.raw_output_contents[0], datatype)[0])
    if abs(got - expected) > 1e-4:
        raise BenchmarkError(f"{model} answered {got}, expected {expected}")
