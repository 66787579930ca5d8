"""The whole server against requests that are wrong in every way, some thousands per run. benchmarks/fuzz.py runs the same for hours."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.e2e.crowd import until
from tests.e2e.running import Running, serving
from tests.fuzz import submarine
from tests.fuzz.cases import Case, WrongAnswerError, judge
from tests.fuzz.documents import dumps, spoilt
from tests.fuzz.driver import DIALECTS, VALID, Driver, logged_errors
from tests.fuzz.models import make
from tests.fuzz.wire import Answer
from tests.models import build

REQUESTS = 1_500
SEED = 20
MOST_GROWTH_BYTES = 64 << 20
"""A leak of what a request holds would be seen in long runs; this finds a body or a batch that is never given back."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("fuzz")
    registry = submarine.write(folder / "registry")
    with serving(folder, str(make(folder / "models")), "--model-root", str(registry)) as running:
        yield running


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nothing_that_comes_breaks_the_server(server: Running, dialect: str) -> None:
    """Valid requests are answered rightly between thousands of broken ones, which are refused in words; nothing leaks and nothing is logged."""
    report = Driver(server.port, server.process.pid, dialect, SEED).run(REQUESTS)
    assert not report.failures, "\n".join(report.failures)
    assert report.requests >= REQUESTS
    assert report.valid > REQUESTS / 5
    assert report.statuses[200] > REQUESTS / 5
    assert report.count(400, 499) > REQUESTS / 10
    assert report.statuses[500] == 0
    assert report.descriptors_after <= report.descriptors_before
    assert report.rss_end - report.rss_warm < MOST_GROWTH_BYTES
    assert server.process.poll() is None
    assert not logged_errors(server.lines)


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_the_log_stays_readable(tmp_path: Path, form: str) -> None:
    """With two workers and an access log: one line per record whatever was asked, without control characters."""
    build.iris(tmp_path / "models" / "iris" / "1" / "model.onnx")
    with serving(tmp_path, str(tmp_path / "models"), "--workers", "2", "--access-log", "--log-format", form) as running:
        until(lambda: any("Pages: " in line for line in running.lines))
        begun = len(running.lines)
        for dialect in ("http", "console"):
            report = Driver(running.port, running.process.pid, dialect, SEED, strict=False).run(400)
            assert report.statuses[500] == 0
            assert report.count(400, 499) > 40
        until(lambda: len(running.lines) - begun >= 700, "the access log lacks records")
        records = [line for line in running.lines[begun:] if line != "\n" and not line.startswith("  iris: ")]
    for line in records:
        assert line[:-1].isprintable(), line
        if form == "json":
            assert json.loads(line)["logger"].startswith("dragoman")
        else:
            assert re.match(r"\d\d:\d\d:\d\d\.\d{3} [A-Z]+ +[a-z.]+: ", line), line
    assert not logged_errors(records)


@pytest.mark.parametrize("dialect", VALID)
def test_the_same_seed_sends_the_same_requests(dialect: str) -> None:
    """A failure can be run again from the seed in its message."""
    first, second = (Random(3), Random(3))
    for _ in range(50):
        assert VALID[dialect](first).message() == VALID[dialect](second).message()


def test_a_spoilt_document_is_another_one() -> None:
    """Mutations leave the original alone, and nearly always change the copy."""
    rng = Random(1)
    tree = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}], "id": "7"}
    text = dumps(tree)
    changed = sum(dumps(spoilt(tree, rng)) != text for _ in range(200))
    assert dumps(tree) == text
    assert changed > 180


JSON = {b"content-type": b"application/json"}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, JSON, b'{"error":"internal error"}'),
        Answer(302, JSON, b""),
        Answer(400, JSON, b'{"detail":"x"}'),
        Answer(400, JSON, b'{"error":""}'),
        Answer(400, {b"content-type": b"text/html"}, b"<p>no</p>"),
        Answer(400, JSON, b'{"error":"Traceback (most recent call last)"}'),
        Answer(405, JSON, b'{"error":"no"}'),
        Answer(501, JSON, b'{"error":"not done yet"}'),
        Answer(503, JSON, b'{"error":"too busy"}'),
        Answer(200, JSON, b'{"outputs":[NaN]}'),
        Answer(200, {b"content-type": b"application/octet-stream", b"inference-header-content-length": b"99"}, b"{}"),
    ],
    ids=lambda answer: f"{answer.status} {answer.body.decode()}",
)
def test_the_judge_knows_a_wrong_answer(answer: Answer) -> None:
    """What the runs rely on: no answer of these kinds passes, whatever was asked."""
    with pytest.raises(WrongAnswerError):
        judge(Case("POST", b"/v2/models/x/infer"), answer)


def test_the_judge_lets_right_answers_pass() -> None:
    """And these do."""
    judge(Case("POST", b"/v2/models/x/infer"), Answer(200, JSON, b"{}"))
    judge(Case("POST", b"/v1/models/x:predict"), Answer(200, JSON, b'{"predictions":[NaN,-Infinity]}'))
    judge(Case("POST", b"/v2/models/x/infer"), Answer(400, JSON, b'{"error":"the shape is wrong"}'))
    judge(Case("HEAD", b"/v2"), Answer(200, JSON, b""))
