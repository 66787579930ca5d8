"""Tungsten's protocol beside the real Tungstenkit: a model that does nothing, one that takes 20 ms a batch, durable predictions, start.

Both serve the same model file. The load is wrk's where one request is the whole story, and our own clients where a client has to poll.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import orjson

from benchmarks import servers
from benchmarks.duel import Contender, Duel, duel, table
from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.polling import poll
from benchmarks.processes import BenchmarkError, Processes, environment, free_port
from benchmarks.results import Section, Table, Target
from benchmarks.servers import Server
from benchmarks.traffic import JSON, Shot
from benchmarks.wrk import load

CLIENTS = (1, 8, 32, 64)
_PEER = "tungstenkit"
_APPS = Path(__file__).parent / "peers" / "apps"
_ROW = [{"x": 0.25}]
_RUN_S = 0.02
_BATCH = 8
_WAITING = "1000000"
"""Predictions that may wait: the load must not be refused."""


def run(models: Models, options: Options) -> Section:
    section = Section("tungsten", "tungsten: the model server's protocol, beside the real Tungstenkit 0.2.20")
    shot = Shot("/predict", JSON, orjson.dumps(_ROW), _numbers, [0.25])
    _noop(models, options, shot, section)
    _batching(models, options, shot, section)
    return section


def _noop(models: Models, options: Options, shot: Shot, section: Section) -> None:
    """/predict and create+poll, in turns, then what only we do."""
    reason = servers.install(_PEER)
    with ours(models, "tungsten_noop") as server:
        server.wait([shot])
        if reason:
            section.parts.append(f"- {_PEER} is left out, it cannot be installed: {reason}")
        else:
            with theirs(models, "tungsten_noop", 16) as peer:
                peer.wait([shot])
                duels = [_duel(server, peer, shot, clients, options) for clients in CLIENTS]
                section.parts.append(table(duels))
                at_32 = next(each for each in duels if each.connections == 32)
                section.targets.append(
                    Target("/predict at 32 clients: at least 3 times Tungstenkit", f"{at_32.speed:.2f}x", at_32.speed >= 3)
                )
                section.parts.append(_polled(server, peer, options, section))
        section.parts.append(_durable(server, options))
    section.parts.append(_first_answer(models, options, shot))


def _duel(server: Server, peer: Server, shot: Shot, clients: int, options: Options) -> Duel:
    return duel(Contender(server, [shot]), Contender(peer, [shot]), clients, options.seconds, options.pairs)


def _polled(server: Server, peer: Server, options: Options, section: Section) -> Table:
    """Submit, then poll every 5 ms; 32 clients; in turns."""
    body = orjson.dumps(_ROW)
    rows = []
    ratios = []
    for _ in range(options.pairs):
        mine, its = poll(server.port, body, 32, options.seconds), poll(peer.port, body, 32, options.seconds)
        print(f"  create and poll: {mine.rate:.0f} against {its.rate:.0f}", flush=True)
        ratios.append(mine.rate / its.rate)
        rows.append(
            [f"{mine.rate:,.0f}", f"{its.rate:,.0f}", f"**{ratios[-1]:.2f}**", f"{mine.p50_ms:.1f} / {its.p50_ms:.1f}",
             f"{mine.p99_ms:.1f} / {its.p99_ms:.1f}"]
        )  # fmt: skip
    share = median(ratios)
    section.targets.append(Target("create and poll at 32 clients: at least 3 times Tungstenkit", f"{share:.2f}x", share >= 3))
    return Table(("create and poll, 32 clients: predictions/s", "its", "ratio", "p50 ms / its", "p99 ms / its"), rows)


def _durable(server: Server, options: Options) -> Table:
    """Accepted predictions, each in the database before its id is answered."""
    shot = Shot("/predictions", JSON, orjson.dumps(_ROW), lambda _headers, _body: [1], [1])
    rows = []
    for clients in (1, 32):
        done = load(server.port, shot, clients, options.seconds)
        if done.refused or done.broken:
            raise BenchmarkError(f"{done.refused + done.broken} predictions were not accepted")
        rows.append([str(clients), f"{done.rate:,.0f}", f"{done.p50_ms:.2f}", f"{done.p99_ms:.2f}"])
        server.processes.settle()
    return Table(("durable predictions: clients", "accepted/s", "p50 ms", "p99 ms"), rows)


def _first_answer(models: Models, options: Options, shot: Shot) -> str:
    """From the command to the first right answer of the model."""
    times = []
    for _ in range(options.starts):
        begin = time.perf_counter()
        with ours(models, "tungsten_noop") as server:
            server.wait([shot])
            times.append(time.perf_counter() - begin)
    return f"- From `serve` to the first answer: {median(times):.2f} s ({', '.join(f'{t:.2f}' for t in sorted(times))})"


def _batching(models: Models, options: Options, shot: Shot, section: Section) -> None:
    """32 clients on a model that takes 20 ms for up to 8: with batching and without."""
    rows = []
    shares = []
    for batch in (_BATCH, 1):
        with ours(models, "tungsten_steady", "--batch-size", str(batch)) as server:
            server.wait([shot])
            load(server.port, shot, 32, 1)
            for _ in range(options.pairs if batch > 1 else 1):
                alone_s = median(_sleep_s() for _ in range(20))
                done = load(server.port, shot, 32, options.seconds)
                ideal = batch / alone_s
                if batch > 1:
                    shares.append(done.rate / ideal)
                rows.append([str(batch), f"{done.rate:,.0f}", f"{ideal:,.0f}", f"{done.rate / ideal:.1%}", f"{done.p50_ms:.0f}"])
                print(f"  20 ms model, batch {batch}: {done.rate:.0f} of {ideal:.0f}", flush=True)
    section.parts.append(Table(("20 ms model, 32 clients: batch", "req/s", "ideal", "of ideal", "p50 ms"), rows))
    share = median(shares)
    section.targets.append(Target("20 ms model, batch 8: at least 90 % of ideal", f"{share:.1%}", share >= 0.9))


def _sleep_s() -> float:
    """What the model's sleep really takes here."""
    begin = time.perf_counter()
    time.sleep(_RUN_S)
    return time.perf_counter() - begin


@contextmanager
def ours(models: Models, app: str, *flags: str) -> Iterator[Server]:
    """`dragoman serve` with the model file."""
    with servers.dragoman(models, _APPS / app, workers=1, flags=("--max-predictions", _WAITING, *flags)) as server:
        yield server


@contextmanager
def theirs(models: Models, app: str, batch: int) -> Iterator[Server]:
    """Tungstenkit's own server with the same file."""
    port = free_port()
    kept: dict[str, str] = {"PEER_PYTHON": sys.executable, "MODELS": str(models.folder), "MODEL": app, "BATCH": str(batch)}
    if "PEERS_DIR" in os.environ:
        kept["PEERS_DIR"] = os.environ["PEERS_DIR"]
    env = {name: value for name, value in environment(kept).items() if name != "PYTHONPATH"}
    with Processes([str(servers.SCRIPTS / f"{_PEER}.sh"), str(port)], env, models.folder / f"{_PEER}.log") as processes:
        yield Server(_PEER, port, processes)


def _numbers(_headers: object, body: bytes) -> Sequence[float]:
    answer = orjson.loads(body)
    return [output["y"] for output in answer["outputs"] or []]
