"""Sends generated requests to a running server, judges every answer, and watches the process. Called by the test and by the script."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz import console, registry, scoring, submarine, tfserving, tungsten, v2
from tests.fuzz.cases import Case, WrongAnswerError, judge
from tests.fuzz.framing import Odd, odd
from tests.fuzz.mutations import mutated
from tests.fuzz.wire import BrokenAnswerError, Wire

VALID: Mapping[str, Callable[[Random], Case]] = {
    "v2": v2.valid,
    "tfserving": tfserving.valid,
    "tungsten": tungsten.valid,
    "submarine": submarine.valid,
    "mlflow": scoring.mlflow,
    "mlflow-registry": registry.valid,
    "seldon": scoring.seldon,
    "console": console.valid,
}
PREPARE: Mapping[str, Callable[[], list[Case]]] = {"submarine": submarine.prepare, "mlflow-registry": registry.prepare}
"""What a dialect's requests need to be there."""
DIALECTS = (*VALID, "http")
"""The last one is not about what requests say but about how they are framed."""

_VALID_SHARE = 0.3
_WARM_ROUNDS = 20
_WARM_SHARE = 0.25
_MOST_FAILURES = 20
_WARM_UP = 40
_ANSWER_S = 0.05
"""How long an answer is waited for where there may be none, before the connection is closed on our side."""
_SETTLE_S = 15.0
_TELL_EVERY = 5_000


@dataclass(slots=True)
class Report:
    """What a run found."""

    requests: int = 0
    valid: int = 0
    connections: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    rss_before: int = 0
    rss_now: int = 0
    rss_warm: int = 0
    rss_end: int = 0
    descriptors_before: int = 0
    descriptors_after: int = 0
    seconds: float = 0.0

    def count(self, low: int, high: int) -> int:
        """Answers with a status of that range."""
        return sum(number for status, number in self.statuses.items() if low <= status <= high)


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """Open files and sockets of a process, but for the one by which it shows that it lives: that is opened once, some time after the store."""
    links = [_link(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(1 for link in links if link and "/owners/" not in link)


def _link(entry: Path) -> str:
    """Where a descriptor leads; "" when it was closed meanwhile."""
    try:
        return os.readlink(entry)
    except FileNotFoundError:
        return ""


def logged_errors(lines: Iterable[str]) -> list[str]:
    """What a server logged that it should not have; that the spare model did not load with a spoilt configuration is no error here."""
    return [line for line in lines if "Traceback" in line or ('"level": "error"' in line and "model 'spare' version" not in line)]


class Driver:
    """`connections` requests are in flight at a time, so that good and bad ones meet in one batch.

    Without `strict` wrong answers are not kept: for servers that lack the models which the requests are for.
    """

    def __init__(self, port: int, pid: int, dialect: str, seed: int, connections: int = 4, *, strict: bool = True) -> None:
        self._port = port
        self._pid = pid
        self._dialect = dialect
        self._seed = seed
        self._rng = Random(f"{dialect} {seed}")
        self._wires: list[Wire] = []
        self._many = connections
        self._strict = strict
        self._report = Report()

    def run(self, requests: int, progress: Callable[[Report], None] = lambda _: None) -> Report:
        """At least that many requests, or fewer when too many went wrong."""
        report, begin, told = self._report, time.monotonic(), 0
        self._warm()
        for _ in range(
            _WARM_ROUNDS if self._dialect != "http" else 0
        ):  # the database opens files of its own when it first reads behind a write
            self._round()
        self._hang_up()
        self._settle()
        report.descriptors_before = descriptors(self._pid)
        report.rss_before = rss_bytes(self._pid)
        while report.requests < requests and len(report.failures) < _MOST_FAILURES:
            if self._dialect == "http":
                self._odd()
            else:
                self._round()
            if not report.rss_warm and report.requests >= requests * _WARM_SHARE:
                report.rss_warm = rss_bytes(self._pid)
            if report.requests >= told + _TELL_EVERY:
                told = report.requests
                report.rss_now = rss_bytes(self._pid)
                progress(report)
        self._hang_up()
        self._settle()
        report.descriptors_after = self._settled_descriptors()
        report.rss_end = rss_bytes(self._pid)
        report.seconds = time.monotonic() - begin
        return report

    def _hang_up(self) -> None:
        for wire in self._wires:
            wire.close()
        self._wires.clear()

    def _warm(self) -> None:
        """What is opened once and kept, such as the database with the first prediction, is open before anything is counted."""
        if self._dialect == "http":
            return
        rng, wire = Random(0), Wire(self._port)
        for case in PREPARE.get(self._dialect, list)():
            wire.send(case.message())
            wire.answer(case.method)
        for _ in range(_WARM_UP):
            case = VALID[self._dialect](rng)
            wire.send(case.message())
            wire.answer(case.method)
        wire.close()

    def _round(self) -> None:
        """One request on every connection, then all the answers."""
        valid, rng = VALID[self._dialect], self._rng
        while len(self._wires) < self._many:
            self._wires.append(Wire(self._port))
            self._report.connections += 1
        cases = []
        for wire in self._wires:
            case = valid(rng)
            if rng.random() < _VALID_SHARE:
                self._report.valid += 1
            else:
                case = mutated(case, rng)
            wire.send(case.message())
            cases.append(case)
        for wire, case in zip(self._wires, cases, strict=True):
            self._answer(wire, case)
        for wire, case in zip(self._wires, cases, strict=True):
            if case.undo is not None and not wire.ended:
                wire.send(case.undo.message())
                self._answer(wire, case.undo)
        self._wires = [wire for wire in self._wires if not self._dropped(wire)]

    def _dropped(self, wire: Wire) -> bool:
        if wire.ended:
            wire.close()
        return wire.ended

    def _odd(self) -> None:
        """One connection of its own."""
        rng = self._rng
        request = odd(VALID[rng.choice(("v2", "tfserving", "console"))], rng)
        wire = Wire(self._port)
        self._report.connections += 1
        try:
            for piece in request.pieces:
                if not wire.send(piece):
                    break
            if request.cases:
                self._report.valid += len(request.cases)
                for case in request.cases:
                    self._answer(wire, case)
                    if wire.ended:
                        break
            else:
                self._unknown(wire, request)
        finally:
            wire.close()

    def _unknown(self, wire: Wire, request: Odd) -> None:
        """Whatever comes must be answers, and the connection must end once we have closed our side of it."""
        self._report.requests += 1
        wire.readable(_ANSWER_S)
        wire.half_close()
        what = Case("GET", b"".join(request.pieces)[:500], what=request.what)
        try:
            for answer in wire.answers():
                self._report.statuses[answer.status] += 1
                judge(what, answer)
        except (BrokenAnswerError, WrongAnswerError) as error:
            self._failed(f"{request.what}: {error}", b"".join(request.pieces))

    def _answer(self, wire: Wire, case: Case) -> None:
        self._report.requests += 1
        try:
            answer = wire.answer(case.method)
            if answer is None:
                raise BrokenAnswerError("no answer")
            self._report.statuses[answer.status] += 1
            judge(case, answer)
        except BrokenAnswerError as error:
            wire.ended = True
            self._failed(f"{case.what}: {error}", case.message())
        except WrongAnswerError as error:
            self._failed(f"{case.what}: {error}", case.message())

    def _failed(self, why: str, sent: bytes) -> None:
        if self._strict:
            self._report.failures.append(
                f"{self._dialect}, seed {self._seed}, request {self._report.requests}: {why}\n    sent {sent[:700]!r}"
            )

    def _settle(self) -> None:
        """Have everything answered that could still be under way."""
        wire = Wire(self._port)
        wire.send(b"GET /v2/health/live HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        answer = wire.answer("GET")
        wire.close()
        if answer is None or answer.status != 200:
            raise WrongAnswerError("the server is not alive")

    def _settled_descriptors(self) -> int:
        """The count once the server has noticed that we hung up."""
        deadline = time.monotonic() + _SETTLE_S
        while (count := descriptors(self._pid)) > self._report.descriptors_before and time.monotonic() < deadline:
            time.sleep(0.01)
        return count
