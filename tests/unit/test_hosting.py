"""The parts of a model process by themselves: calls that are interrupted, tracebacks as users see them, printed text, errors in headers."""

import asyncio
import io
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, Problem, ServingError
from dragoman.core.tracebacks import first_line, trace_of
from dragoman.hosting.batch import as_serving_error
from dragoman.hosting.frames import Frame, FrameError, FrameReader, encode
from dragoman.hosting.frames import Kind as FrameKind
from dragoman.hosting.line import Line
from dragoman.hosting.messages import error_in, error_out, facts_in, payload_in, response_in
from dragoman.hosting.output import Pieces, Tee
from dragoman.hosting.runner import Interrupted, Runner
from tests.servables import run, settle

# --- calls ---


@pytest.fixture
def runner() -> Iterator[Runner]:
    """A runner of this very process; its signal means nothing again afterwards."""
    before = signal.getsignal(signal.SIGUSR1)
    yield Runner()
    signal.signal(signal.SIGUSR1, before)


def test_a_sleeping_call_is_interrupted_at_once(runner: Runner) -> None:
    """Whatever Exceptions it catches; and what comes after it is not."""
    sleeping = threading.Event()
    seen: list[str] = []

    def sleep() -> None:
        for _ in range(3):
            try:
                sleeping.set()
                time.sleep(60)
            except Exception:
                seen.append("caught")

    def job() -> None:
        with pytest.raises(Interrupted):
            runner.call(1, sleep)
        seen.append("interrupted")
        runner.call(2, lambda: seen.append("next"))
        runner.stop()

    def other() -> None:
        sleeping.wait(10)
        runner.interrupt(1)

    thread = threading.Thread(target=other)
    thread.start()
    runner.submit(job)
    runner.work()
    thread.join()
    assert seen == ["interrupted", "next"]


def test_a_call_is_interrupted_once(runner: Runner) -> None:
    """User code that cleans up after it is left alone, however often the interruption is asked for."""

    def call() -> str:
        try:
            runner.interrupt(1)
            time.sleep(60)
        except Interrupted:
            runner.interrupt(1)
            time.sleep(0)
        return "cleaned up"

    assert runner.call(1, call) == "cleaned up"


def test_what_does_not_run_is_not_interrupted(runner: Runner) -> None:
    """Neither what has ended, nor another call that runs in the meantime."""
    runner.call(1, lambda: None)
    runner.interrupt(1)

    def call() -> str:
        runner.interrupt(1)
        runner.interrupt(3)
        return "done"

    assert runner.call(2, call) == "done"
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(0)


def test_interruptions_never_strike_outside_of_calls(runner: Runner) -> None:
    """Thousands of short calls while another thread interrupts as fast as it can: each ends in one of two ways, nothing else is hit."""
    current = 0
    stopping = threading.Event()

    def disturb() -> None:
        while not stopping.is_set():
            runner.interrupt(current)
            time.sleep(0)

    thread = threading.Thread(target=disturb)
    thread.start()
    ended = interrupted = 0
    try:
        for current in range(1, 3000):
            try:
                runner.call(current, lambda: sum(range(300)))
                ended += 1
            except Interrupted:
                interrupted += 1
    finally:
        stopping.set()
        thread.join()
    assert ended + interrupted == 2999


# --- tracebacks ---


def user_code() -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer\nsecond line") from error


class HostileError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_a_traceback_begins_with_user_code_and_ends_with_the_error() -> None:
    """Our own frames before it are left out, causes are kept, and strangers hear the first line only."""
    with pytest.raises(ValueError) as caught:
        user_code()
    error = as_serving_error(caught.value, "m")
    assert error.message == "model 'm' failed: ValueError: outer"
    lines = error.trace.splitlines()
    assert lines[-2:] == ["ValueError: outer", "second line"]
    assert "KeyError: 'inner'" in lines
    assert "dragoman" not in lines[1] or "tests" in lines[1]


def test_no_exception_can_break_its_own_report() -> None:
    """Texts that raise, are endless, or are no UTF-8; circles of causes; deep recursion."""
    assert first_line(HostileError()) == ""
    assert "HostileError" in trace_of(HostileError())
    assert as_serving_error(HostileError(), "m").message == "model 'm' failed: HostileError"
    assert len(first_line(ValueError("x" * 10_000))) == 500
    assert len(trace_of(ValueError("x" * 1_000_000))) < 70_000
    assert trace_of(ValueError("\ud800")).encode()
    circle = ValueError("round")
    circle.__cause__ = KeyError("and round")
    circle.__cause__.__cause__ = circle
    assert "round" in trace_of(circle)

    def deep() -> None:
        deep()

    with pytest.raises(RecursionError) as caught:
        deep()
    assert len(trace_of(caught.value)) < 5000


# --- printed text ---


def test_a_tee_writes_through_and_tells(tmp_path: Path) -> None:
    """At once, in UTF-8 whatever the text; bytes written below it reach the file only."""
    heard: list[str] = []
    with (tmp_path / "out").open("w+") as file:
        tee = Tee(file, heard.append)
        assert tee.write("ünï\ud800") == 4
        assert (tmp_path / "out").read_bytes() == "ünï".encode() + b"\\ud800"
        print("a", 1, file=tee, flush=True)
        tee.buffer.write(b"raw")
        tee.flush()
        assert (tmp_path / "out").read_bytes().endswith(b"a 1\nraw")
        assert "".join(heard) == "ünï\ud800a 1\n"
        assert (tee.writable(), tee.isatty(), tee.encoding, tee.fileno()) == (True, False, "utf-8", file.fileno())
        with pytest.raises((TypeError, AttributeError)):
            tee.write(b"bytes")  # type: ignore[arg-type]


def test_a_tee_survives_the_end_of_its_reader() -> None:
    """The process ends a moment later; user code need not see that in the form of an exception."""
    read, write = os.pipe()
    with io.open(write, "w") as file:  # noqa: UP020 # of a descriptor
        os.close(read)
        Tee(file, lambda _: None).write("nobody reads this")


def test_pieces_are_joined_and_bounded() -> None:
    """One post however many come before they are taken; what is too much is counted."""
    posts: list[int] = []
    pieces = Pieces(lambda: posts.append(1))
    for batch, text in ((1, "a"), (1, "b"), (2, "c"), (1, "d")):
        pieces.add(batch, text)
    assert posts == [1]
    assert pieces.take() == [(1, "ab"), (2, "c"), (1, "d")]
    pieces.add(3, "x" * 200_000)
    pieces.add(3, "y" * 200_000)
    assert pieces.take() == [(3, "x" * 200_000), (3, "\n... 200000 characters left out ...\n")]
    assert pieces.take() == []
    assert posts == [1, 1]


# --- headers ---


@given(
    st.sampled_from(Kind), st.text(), st.none() | st.floats(0, 1e9), st.none() | st.integers(100, 599),
    st.lists(st.tuples(st.lists(st.integers(0, 9) | st.text(), max_size=3), st.text(), st.text(), st.dictionaries(st.text(), st.integers()))),
)  # fmt: skip
def test_every_field_of_an_error_travels(
    kind: Kind, text: str, retry: float | None, status: int | None, problems: list[tuple[list[int | str], str, str, dict[str, object]]]
) -> None:
    """Kind, words, subject, problems, retry, status and trace; the exception object itself does not."""
    given_problems = tuple(Problem(tuple(path), code, message, context) for path, code, message, context in problems)
    error = ServingError(kind, text, what=text[:5], problems=given_problems, retry_after_s=retry, status=status, trace=text * 2)
    data = b"".join(map(bytes, encode(FrameKind.ERROR, error_out(error), "t")))
    reader_frames = _frames(data)
    back = error_in(reader_frames[0].read("t"))
    for name in ("kind", "message", "what", "problems", "retry_after_s", "status", "trace"):
        assert getattr(back, name) == getattr(error, name)


def _frames(data: bytes) -> list[Frame]:
    reader = FrameReader()
    reader.room()[: len(data)] = data
    return list(reader.received(len(data)))


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"kind": "sorrow", "message": "x"},
        {"kind": "timeout"},
        {"kind": "timeout", "message": "x", "problems": [1]},
        {"kind": [], "message": ""},
    ],
)
def test_a_header_that_is_no_error_is_refused(header: dict[str, object]) -> None:
    """With a FrameError, whatever it lacks."""
    with pytest.raises(FrameError):
        error_in(header)


def test_headers_that_are_no_answers_are_refused() -> None:
    """Tensors of another type than they say, timings that are none, facts that are none."""
    headers: list[dict[str, object]] = [
        {},
        {"tensors": 1},
        {"tensors": [["x", "FP33", None]]},
        {"tensors": [["x", "FP32", [1.0]]]},
        {"rows": {}},
    ]
    for header in headers:
        with pytest.raises(FrameError):
            payload_in(header)
    with pytest.raises(FrameError):
        response_in({"rows": []})
    with pytest.raises(FrameError):
        facts_in({"signatures": {"": {"form": "?"}}, "operations": [], "platform": ""})


# --- lines ---


def test_a_line_joins_what_is_sent_in_one_pass() -> None:
    """Frames arrive in order, large ones too; the end is told once, with what was wrong."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        got: list[dict[str, object]] = []
        ends: list[str] = []
        far = Line(lambda frame: got.append(frame.read("t")), ends.append, "t")
        near = Line(lambda _: None, ends.append, "t")
        near.send(FrameKind.LOG, {"early": 1})
        await loop.create_connection(lambda: near, sock=here)
        await loop.create_connection(lambda: far, sock=there)
        for index in range(100):
            near.send(FrameKind.LOG, {"n": index, "data": b"x" * (index * 5000)})
        deadline = time.monotonic() + 10
        while len(got) < 101:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)
        assert [each.get("n") for each in got] == [None, *range(100)]
        with pytest.raises(FrameError):
            near.send(FrameKind.LOG, {"x": object()})
        near.close()
        near.send(FrameKind.LOG, {"late": 1})
        await settle(lambda: len(ends) == 2)
        assert ends == ["", ""]
        assert near.closed
        assert far.closed

    run(test)


def test_a_line_ends_when_the_other_end_breaks_a_rule() -> None:
    """With the reason: bytes that are no frame, or a frame that its owner cannot understand."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        for sent, words in ((b"HTTP/1.1 400 Bad Request\r\n\r\n", "another language"), (None, "cannot be understood")):
            here, there = socket.socketpair()
            ends: list[str] = []

            def stumble(frame: Frame) -> None:
                raise KeyError(frame.kind)

            line = Line(stumble, ends.append, "t")
            await loop.create_connection(lambda line=line: line, sock=here)  # type: ignore[misc]
            there.sendall(sent or b"".join(map(bytes, encode(FrameKind.LOG, {}, "t"))))
            await settle(lambda ends=ends: bool(ends))  # type: ignore[misc]
            assert words in ends[0]
            there.close()

    run(test)
