"""Two servers in one run, in turns: what the one does is divided by what the other does right before or after. Used by iris, image."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median

from benchmarks.options import Options
from benchmarks.processes import BenchmarkError
from benchmarks.results import Table, Target
from benchmarks.servers import Server
from benchmarks.traffic import Shot, fire
from benchmarks.wrk import load


@dataclass(frozen=True, slots=True)
class Figures:
    """One load on one server."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """User and system time of all its processes, per request."""
    failed: int


@dataclass(frozen=True, slots=True)
class Contender:
    server: Server
    shots: Sequence[Shot]
    """The first one is the load; all are checked before and after."""


@dataclass(frozen=True, slots=True)
class Duel:
    name: str
    connections: int
    ours: Sequence[Figures]
    theirs: Sequence[Figures]

    def ratios(self, of: Callable[[Figures], float]) -> list[float]:
        """Ours by theirs, pair by pair."""
        return [of(a) / max(of(b), 1e-9) for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def speed(self) -> float:
        """Requests per second, ours by theirs: the median of the pairs."""
        return median(self.ratios(lambda figures: figures.rate))

    @property
    def cpu(self) -> float:
        """CPU per request, ours by theirs: the median of the pairs."""
        return median(self.ratios(lambda figures: figures.cpu_us))


def measure(contender: Contender, connections: int, seconds: int) -> Figures:
    """One load; the answers are checked before and after it."""
    server, shots = contender.server, contender.shots
    fire(server.port, shots)
    before = server.processes.cpu_s()
    done = load(server.port, shots[0], connections, seconds)
    cpu_s = server.processes.cpu_s() - before
    fire(server.port, shots)
    server.processes.settle()
    if not done.requests:
        raise BenchmarkError(f"{server.name} answered nothing in {seconds} s")
    return Figures(done.rate, done.p50_ms, done.p99_ms, cpu_s / done.requests * 1e6, done.refused + done.broken)


def duel(ours: Contender, theirs: Contender, connections: int, seconds: int, pairs: int) -> Duel:
    """Alternate the two; who begins alternates too. Each is loaded for a second before, which does not count."""
    for contender in (ours, theirs):
        load(contender.server.port, contender.shots[0], connections, 1)
        contender.server.processes.settle()
    figures: tuple[list[Figures], list[Figures]] = ([], [])
    for number in range(pairs):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            figures[side].append(measure((ours, theirs)[side], connections, seconds))
    result = Duel(theirs.server.name, connections, *figures)
    print(f"  {result.name}, {connections} connections: {_text(figures[0])}  against  {_text(figures[1])}: {result.speed:.2f}x", flush=True)
    return result


def _text(figures: Sequence[Figures]) -> str:
    return " ".join(f"{each.rate:.0f}" for each in figures)


@dataclass(frozen=True, slots=True)
class Opponent:
    """Somebody to compare with; `install` makes what it needs and returns why that is impossible, "" when it is there."""

    name: str
    start: Callable[[], AbstractContextManager[Server]]
    shots: Sequence[Shot]
    install: Callable[[], str] = str


def contest(ours: Contender, opponents: Sequence[Opponent], connections: Sequence[int], options: Options) -> tuple[list[Duel], list[str]]:
    """A duel with each opponent at each number of connections, and remarks: memory, failures, and who could not take part, and why.

    Two servers are up at a time. An opponent that fails is left out; a failure of ours is raised.
    """
    duels: list[Duel] = []
    remarks: list[str] = []
    ours.server.wait(ours.shots)
    for opponent in opponents:
        print(f"{opponent.name} ...", flush=True)
        reason = opponent.install()
        if reason:
            remarks.append(f"{opponent.name} is left out, it cannot be installed: {reason}")
            continue
        try:
            with opponent.start() as server:
                server.wait(opponent.shots)
                fought = [duel(ours, Contender(server, opponent.shots), n, options.seconds, options.pairs) for n in connections]
                remarks += _remarks(ours.server, server, fought)
                duels += fought
        except BenchmarkError as error:
            fire(ours.server.port, ours.shots)
            remarks.append(f"{opponent.name} is left out: {error}")
    remarks.append(f"All processes of Dragoman together: {ours.server.processes.memory_mb():.0f} MB (PSS).")
    return duels, remarks


def _remarks(ours: Server, theirs: Server, duels: Sequence[Duel]) -> list[str]:
    remarks = [f"All processes of {theirs.name} together: {theirs.processes.memory_mb():.0f} MB (PSS)."]
    for each in duels:
        for name, figures in ((ours.name, each.ours), (theirs.name, each.theirs)):
            failed = sum(one.failed for one in figures)
            if failed:
                remarks.append(f"{name} failed to answer {failed} requests at {each.connections} connections against {theirs.name}.")
    return remarks


def table(duels: Sequence[Duel]) -> Table:
    """A line per duel; medians of the pairs, and all ratios of speed."""
    head = (
        "against",
        "connections",
        "req/s",
        "its req/s",
        "ratio (pairs)",
        "p50 ms / its",
        "p99 ms / its",
        "CPU us a request / its",
        "CPU ratio",
    )
    return Table(head, [_row(each) for each in duels])


def _row(duel: Duel) -> list[str]:
    def both(of: Callable[[Figures], float], digits: int) -> str:
        return f"{median(map(of, duel.ours)):,.{digits}f} / {median(map(of, duel.theirs)):,.{digits}f}"

    rate, its_rate = both(lambda f: f.rate, 0).split(" / ")
    pairs = ", ".join(f"{ratio:.2f}" for ratio in duel.ratios(lambda f: f.rate))
    return [
        duel.name,
        str(duel.connections),
        rate,
        its_rate,
        f"**{duel.speed:.2f}** ({pairs})",
        both(lambda f: f.p50_ms, 2),
        both(lambda f: f.p99_ms, 2),
        both(lambda f: f.cpu_us, 0),
        f"{duel.cpu:.2f}",
    ]


def speed_target(text: str, duels: Sequence[Duel], name: str, connections: int | None, least: float) -> Target:
    """At least so many times the speed of somebody, at one number of connections or at each."""
    found = [each.speed for each in duels if each.name == name and connections in (None, each.connections)]
    return Target(text, ", ".join(f"{speed:.2f}x" for speed in found) or "not measured", min(found) >= least if found else None)


def cpu_target(text: str, duels: Sequence[Duel], name: str, most: float) -> Target:
    """At most so many times the CPU of somebody, at every number of connections."""
    found = [each.cpu for each in duels if each.name == name]
    return Target(text, ", ".join(f"{cpu:.2f}x" for cpu in found) or "not measured", max(found) <= most if found else None)
