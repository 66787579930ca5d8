"""Four numbers in, a class out: what the server itself costs. V2 JSON by two workers against raw ASGI echoes and the peers."""

from functools import partial

from benchmarks import servers
from benchmarks.duel import Contender, Opponent, contest, cpu_target, speed_target, table
from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.results import Section
from benchmarks.traffic import echoed, iris_rows, iris_v2

CONNECTIONS = (16, 64)


def run(models: Models, options: Options) -> Section:
    shots = iris_v2(models.predict_iris)
    rows = iris_rows(models.predict_iris)
    echo = echoed(shots)
    opponents = [Opponent(f"raw echo under {kind}", partial(servers.raw, models, kind, "echo"), echo) for kind in ("dragoman", "uvicorn")]
    for name in options.peers:
        protocol = shots if name in ("triton", "mlserver") else rows
        opponents.append(Opponent(name, partial(servers.peer, models, name), protocol, partial(servers.install, name)))
    with servers.dragoman(models, models.iris) as ours:
        duels, remarks = contest(Contender(ours, shots), opponents, CONNECTIONS, options)
    targets = [
        speed_target("16 connections: at least 1.5 times Triton", duels, "triton", 16, 1.5),
        speed_target("64 connections: at least level with Mosec", duels, "mosec", 64, 1.0),
        cpu_target("CPU per request at most 3 times a raw echo's under uvicorn", duels, "raw echo under uvicorn", 3.0),
        cpu_target("CPU per request at most 3 times a raw echo's under our HTTP server", duels, "raw echo under our HTTP server", 3.0),
    ]
    title = "iris: a tiny ONNX model, Open Inference Protocol JSON, two workers"
    return Section("iris", title, [table(duels), "\n".join(f"- {remark}" for remark in remarks)], targets)
