"""What only models in processes of their own must survive: death, crash loops, calls that nobody waits for, calls that do not end."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind
from dragoman.core.model import BatchPolicy, Environment, ModelSpec
from dragoman.engines import Context, Engines
from dragoman.engines.environment import Environments, Held
from dragoman.engines.interpreters import Interpreter
from dragoman.engines.locks import FileLock
from tests.contract.test_engines import Heard, World, check, failure, out, until, world
from tests.scripted import noted, rows, runs, scripted_runtime
from tests.servables import run


def checks(folder: Path, test: Callable[[World], Awaitable[None]], **changes: Any) -> None:
    check("process", folder, test, **changes)


def pids(folder: Path) -> list[int]:
    """The processes in which the model was loaded so far."""
    return [each["pid"] for each in noted(folder, "setup")]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


# --- death ---


def test_what_had_started_fails_and_the_rest_is_answered_by_the_next_process(tmp_path: Path) -> None:
    """kill -9 with a full queue: nothing that waited is lost, and the model is loaded again."""

    async def test(w: World) -> None:
        first = [w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))]
        await w.running("first")
        waiting = [w.ask(rows({"name": str(i), "value": i})) for i in range(20)]
        await until(lambda: w.servable.pending() == 20)
        os.kill(pids(w.folder)[0], signal.SIGKILL)
        error = await failure(first[0])
        assert error.kind is Kind.UNAVAILABLE
        assert error.message == "model process ended (signal 9) while it ran this request for model 'm'"
        assert [out(await each) for each in waiting] == [[i] for i in range(20)]
        assert len(pids(w.folder)) == 2
        assert w.servable.trouble() == ""
        assert w.servable.pending() == 0

    checks(tmp_path, test, batch=BatchPolicy(max_size=4, max_queue=20))


@pytest.mark.parametrize(("act", "words"), [({"do": "exit"}, "exit code 7"), ({"do": "kill"}, "signal 9")])
def test_a_request_that_kills_its_process_fails_alone(act: dict[str, Any], words: str, tmp_path: Path) -> None:
    """It is not sent again, although the process dies in the very moment in which it starts."""

    async def test(w: World) -> None:
        for _ in range(3):
            error = await failure(w.ask(rows(act)))
            assert error.kind is Kind.UNAVAILABLE
            assert words in error.message
            assert out(await w.ask(rows({"value": 1}))) == [1]
        assert len(noted(w.folder, "run")) == 6

    checks(tmp_path, test)


def test_a_repeatable_model_runs_once_more(tmp_path: Path) -> None:
    """What had started is run again in the next process, once; a second death is a failure."""

    async def test(w: World) -> None:
        heard = Heard()
        assert out(await w.ask(rows({"do": "once", "gate": w.gate(), "value": 5}, watch=heard))) == [5]
        assert heard.starts == 2
        assert "exit code 7" in (await failure(w.ask(rows({"do": "exit"})))).message
        assert len(noted(w.folder, "run")) == 4

    checks(tmp_path, test, repeatable=True)


def test_requests_wait_while_the_process_starts_again(tmp_path: Path) -> None:
    """The servable says what the matter is; deadlines and the bound of the queue hold meanwhile; then everything is answered."""

    async def test(w: World) -> None:
        (w.folder / "gate").touch()
        assert w.servable.trouble() == ""
        (w.folder / "gate").unlink()
        os.kill(pids(w.folder)[0], signal.SIGKILL)
        await until(lambda: bool(w.servable.trouble()))
        assert "starts again" in w.servable.trouble()
        await until(lambda: w.servable.trouble() == "model process ended (signal 9) and starts again")
        waits = [w.ask(rows({"value": i})) for i in range(3)]
        late = w.ask(rows({"name": "late"}, deadline=time.monotonic() + 0.05))
        await until(lambda: w.servable.pending() == 4)
        assert (await failure(w.ask(rows({})))).kind is Kind.OVERLOADED
        assert (await failure(late)).kind is Kind.TIMEOUT
        waits[0].cancel()
        w.open_gate()
        assert [out(await each) for each in waits[1:]] == [[1], [2]]
        assert ["late"] not in runs(w.folder)
        assert w.servable.trouble() == ""

    (tmp_path / "gate").touch()
    setup = [{"do": "gate", "gate": str(tmp_path / "gate")}]
    checks(tmp_path, test, arguments={"setup": setup}, batch=BatchPolicy(max_size=1, max_queue=4))


def test_a_crash_loop_is_given_up(tmp_path: Path) -> None:
    """After five deaths within a minute the servable is lost, with the reason; what waits and what comes is told so."""

    async def test(w: World) -> None:
        lost = asyncio.ensure_future(w.servable.lost())
        for _ in range(4):
            assert (await failure(w.ask(rows({"do": "exit"})))).kind is Kind.UNAVAILABLE
        assert not lost.done()
        killer = w.ask(rows({"name": "killer", "do": "gate", "gate": w.gate()}))
        await w.running("killer")
        waits = w.ask(rows({}))
        await until(lambda: w.servable.pending() == 1)
        os.kill(pids(w.folder)[-1], signal.SIGKILL)
        reason = await lost
        assert reason == "its process ended 5 times within 60 s, at last: model process ended (signal 9)"
        for each in (killer, waits, w.ask(rows({}))):
            assert (await failure(each)).kind is Kind.UNAVAILABLE
        assert reason in (await failure(w.ask(rows({})))).message
        assert reason in w.servable.trouble()

    checks(tmp_path, test)


def test_a_process_that_cannot_be_set_up_again_is_given_up(tmp_path: Path) -> None:
    """The reason has both: how it ended, and why it does not start."""

    async def test(w: World) -> None:
        os.kill(pids(w.folder)[0], signal.SIGKILL)
        reason = await w.servable.lost()
        assert reason.startswith("model process ended (signal 9) and could not be started again: ")
        assert reason.endswith("the process of model 'm' ended (exit code 9) before the model was loaded")

    (tmp_path / "mark").touch()
    setup = [{"do": "once", "gate": str(tmp_path / "mark")}]

    async def whole() -> None:
        async with world("process", tmp_path, arguments={"setup": setup}) as w:
            (tmp_path / "mark").unlink()
            await test(w)

    run(whole)


# --- setup ---


def test_a_setup_that_raises_is_told_in_words_and_logged_in_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The reason has the type and the text, the log the traceback from user code on."""

    async def test() -> None:
        with scripted_runtime(tmp_path):
            engines = Engines()
            arguments = {"journal": str(tmp_path / "journal"), "setup": [{"do": "raise", "text": "no weights"}]}
            error = await failure(engines.open(ModelSpec("m", runtime="scripted", engine="process", arguments=arguments)))
            assert (error.kind, error.message) == (Kind.MODEL_FAILED, "model 'm' failed: ValueError: no weights")
            await engines.close()

    with caplog.at_level(logging.INFO, "dragoman.models"):
        run(test)
    lines = [r.getMessage() for r in caplog.records if r.name == "dragoman.models.m"]
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: no weights"
    assert "scripted.py" in lines[1]
    assert not any(alive(pid) for pid in pids(tmp_path))


@pytest.mark.parametrize(
    ("setup", "changes", "words"),
    [
        ({"do": "exit", "code": 3}, {}, "ended (exit code 3) before the model was loaded"),
        ({"do": "leave"}, {}, "SystemExit: 3"),
        ({"do": "sleep"}, {"load_timeout_s": 0.3}, "was not loaded within 0.3 s"),
        ({"do": "native"}, {"load_timeout_s": 0.3}, "was not loaded within 0.3 s"),
    ],
)
def test_a_load_that_fails_leaves_nothing_behind(setup: dict[str, Any], changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    """Whether it dies, leaves, or takes too long, even in native code."""

    async def test() -> None:
        with scripted_runtime(tmp_path):
            engines = Engines()
            arguments = {"journal": str(tmp_path / "journal"), "setup": [setup]}
            spec = ModelSpec("m", runtime="scripted", engine="process", instances=2, arguments=arguments, **changes)
            assert words in (await failure(engines.open(spec))).message
            await engines.close()

    run(test)
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_a_load_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    """The process is killed, whatever its setup does."""

    async def test() -> None:
        with scripted_runtime(tmp_path):
            engines = Engines()
            arguments = {"journal": str(tmp_path / "journal"), "setup": [{"do": "native"}]}
            opening = asyncio.ensure_future(engines.open(ModelSpec("m", runtime="scripted", engine="process", arguments=arguments)))
            await until(lambda: bool(pids(tmp_path)))
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await engines.close()

    run(test)
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_an_interpreter_that_does_not_exist_is_a_failed_load(tmp_path: Path) -> None:
    """And one that is no Python; and a server that builds no environments says that."""

    class Elsewhere(Environments):
        """Holds one interpreter, whatever is asked for."""

        def __init__(self, python: Path) -> None:
            super().__init__(tmp_path / "environments")
            self._python = python

        async def hold(
            self, environment: Environment, log: Callable[[str], None] = lambda _: None, *, interpreter: Interpreter | None = None
        ) -> Held:
            return Held("0", self._python, await FileLock.wait(tmp_path / "lock", shared=True))

    async def test() -> None:
        spec = ModelSpec("m", runtime="scripted", engine="process", environment=Environment())
        cases = ((Elsewhere(tmp_path / "nowhere"), "cannot be started"), (Elsewhere(Path("/bin/false")), "ended (exit code 1)"))
        for environments, words in (*cases, (None, "does not build")):
            engines = Engines(Context(environments=environments))
            assert words in (await failure(engines.open(spec))).message
            await engines.close()

    run(test)


# --- breaking off ---


@pytest.mark.parametrize("act", ["sleep", "stubborn"])
def test_a_running_call_that_nobody_waits_for_is_interrupted(act: str, tmp_path: Path) -> None:
    """At once, also while it sleeps or tries again after every Exception; the process is free for the next, and not a new one."""

    async def test(w: World) -> None:
        asked = [w.ask(rows({"name": "a", "do": act, "gate": w.gate()})), w.ask(rows({"name": "next", "value": 1}))]
        await w.running("a")
        asked[0].cancel()
        assert out(await asked[1]) == [1]
        assert len(pids(w.folder)) == 1
        assert [each["names"] for each in noted(w.folder, "ran")] == [["next"]]

    checks(tmp_path, test, batch=BatchPolicy(max_size=1))


def test_a_shared_call_is_interrupted_when_the_last_one_has_left(tmp_path: Path) -> None:
    """One leaves by cancelling, one by its deadline; not before both have left."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        one = w.ask(rows({"name": "a", "do": "sleep"}))
        other = w.ask(rows({"name": "b"}, deadline=time.monotonic() + 1.5))
        await until(lambda: w.servable.pending() == 2)
        w.open_gate()
        await w.running("a", "b")
        one.cancel()
        after = w.ask(rows({"name": "after", "value": 2}))
        assert (await failure(other)).kind is Kind.TIMEOUT
        assert out(await after) == [2]
        await first
        assert len(pids(w.folder)) == 1
        assert [each["names"] for each in noted(w.folder, "ran")] == [["first"], ["after"]]

    checks(tmp_path, test)


def test_a_group_that_runs_alone_is_interrupted_alone(tmp_path: Path) -> None:
    """After a failed batch of two, the one that runs alone can be cancelled, and the other still gets its answer."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        slow = w.ask(rows({"name": "slow", "do": "once-alone"}))
        bad = w.ask(rows({"name": "bad", "do": "raise"}))
        await until(lambda: w.servable.pending() == 2)
        w.open_gate()
        await w.running("slow")
        slow.cancel()
        assert (await failure(bad)).kind is Kind.MODEL_FAILED
        await first
        assert runs(w.folder)[1:] == [["slow", "bad"], ["slow"], ["bad"]]

    checks(tmp_path, test)


def test_a_call_that_takes_too_long_is_broken_off(tmp_path: Path) -> None:
    """Its requests are answered TIMEOUT; the process goes on."""

    async def test(w: World) -> None:
        error = await failure(w.ask(rows({"do": "sleep"})))
        assert (error.kind, error.message) == (Kind.TIMEOUT, "model 'm' ran for more than 1.5 s")
        assert out(await w.ask(rows({"value": 1}))) == [1]
        assert len(pids(w.folder)) == 1

    checks(tmp_path, test, run_timeout_s=1.5)  # which the second has, too


@pytest.mark.parametrize("act", ["deaf", "native"])
def test_a_call_that_cannot_be_interrupted_costs_the_process(act: str, tmp_path: Path) -> None:
    """After the grace time it is killed: by itself where signals are blocked, by its owner where native code holds the interpreter."""

    async def test(w: World) -> None:
        asked = w.ask(rows({"name": "hangs", "do": act}))
        await w.running("hangs")
        waits = w.ask(rows({"value": 1}))
        asked.cancel()
        assert out(await waits) == [1]
        assert len(pids(w.folder)) == 2
        assert not alive(pids(w.folder)[0])

    checks(tmp_path, test, interrupt_grace_s=0.3, batch=BatchPolicy(max_size=1))


@pytest.mark.parametrize("act", ["deaf", "native"])
def test_a_call_that_takes_too_long_and_cannot_be_interrupted(act: str, tmp_path: Path) -> None:
    """Its requests are answered TIMEOUT all the same, and the next one by the next process."""

    async def test(w: World) -> None:
        assert (await failure(w.ask(rows({"do": act})))).kind is Kind.TIMEOUT
        assert out(await w.ask(rows({"value": 1}))) == [1]
        assert len(pids(w.folder)) == 2

    checks(tmp_path, test, run_timeout_s=1.5, interrupt_grace_s=0.3)


def test_native_code_that_somebody_waits_for_is_left_alone(tmp_path: Path) -> None:
    """One of a shared batch leaves while nothing of the process can react: the other is not hurt."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        leaves, stays = w.ask(rows({"name": "a"})), w.ask(rows({"name": "b", "do": "busy", "value": 2}))
        await until(lambda: w.servable.pending() == 2)
        w.open_gate()
        await w.running("a", "b")
        leaves.cancel()
        assert out(await stays) == [2]
        await first
        assert len(pids(w.folder)) == 1

    checks(tmp_path, test, interrupt_grace_s=0.1)


# --- output ---


def test_what_a_model_prints_is_logged_and_goes_to_whoever_follows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Live, while it runs; only to those whose requests are in that batch; line by line in the log, in pieces when a line is endless."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        one, other, stranger = Heard(), Heard(), Heard()
        asked = [
            w.ask(rows({"name": "a", "do": "print", "text": "half a line, ", "also": "an error\n"}, watch=one)),
            w.ask(rows({"name": "b", "do": "print", "text": "10 %\r20 %\n" + "x" * 10_000 + "\n\x00 ünï\n"}, watch=other)),
            w.ask(rows({"name": "c", "do": "gate", "gate": w.gate("second")})),
            w.ask(rows({"name": "d", "option": 1}, watch=stranger)),
        ]
        await until(lambda: w.servable.pending() == 4)
        w.open_gate()
        await until(lambda: "ünï" in "".join(one.texts))
        assert not asked[0].done()
        w.open_gate("second")
        await asyncio.gather(first, *asked)
        expected = "half a line, an error\n10 %\r20 %\n" + "x" * 10_000 + "\n\x00 ünï\n"
        assert "".join(one.texts) == "".join(other.texts) == expected
        assert stranger.texts == []

    with caplog.at_level(logging.INFO, "dragoman.models"):
        checks(tmp_path, test)
    lines = [r.getMessage() for r in caplog.records if r.name == "dragoman.models.m"]
    assert "an error" in lines
    assert "20 %" in lines
    assert [len(line) for line in lines if line.startswith("x")] == [4096, 4096, 1808]
    assert "\x00 ünï" in lines


# --- several processes ---


def test_instances_share_the_work(tmp_path: Path) -> None:
    """An idle process comes first; while all are busy, batches fill up; the death of one does not stop the other."""

    async def test(w: World) -> None:
        busy = [w.ask(rows({"name": f"busy {i}", "do": "gate", "gate": w.gate()})) for i in range(2)]
        await until(lambda: len(runs(w.folder)) == 2)
        assert len({each["pid"] for each in noted(w.folder, "run")}) == 2
        waiting = [w.ask(rows({"name": str(i), "value": i})) for i in range(4)]
        await until(lambda: w.servable.pending() == 4)
        w.open_gate()
        await asyncio.gather(*busy)
        assert [out(await each) for each in waiting] == [[0], [1], [2], [3]]
        assert sorted(runs(w.folder)[2:]) == [["0", "1", "2", "3"]]
        os.kill(pids(w.folder)[0], signal.SIGKILL)
        assert [out(await w.ask(rows({"value": i}))) for i in range(10)] == [[i] for i in range(10)]

    checks(tmp_path, test, instances=2, batch=BatchPolicy(max_size=4))


def test_requests_of_one_sequence_go_to_one_process(tmp_path: Path) -> None:
    """Whatever else is free."""

    async def test(w: World) -> None:
        def pid(response: Any) -> int:
            return int(response.outputs.items[0]["pid"])

        for sequence in ("a", "b", 7):
            asked = [w.ask(rows({}, parameters={"sequence_id": sequence})) for _ in range(6)]
            assert len({pid(await each) for each in asked}) == 1
        others = [w.ask(rows({})) for _ in range(6)]
        assert len({pid(await each) for each in others}) == 3

    checks(tmp_path, test, instances=3, batch=BatchPolicy(max_size=2))


def test_a_child_of_the_model_keeps_nothing_alive(tmp_path: Path) -> None:
    """A process that user code forked, and that holds our sockets open, neither hides the death of the model nor outlives it."""

    async def test(w: World) -> None:
        asked = w.ask(rows({"name": "forks", "do": "fork", "gate": w.gate()}))
        await until(lambda: bool(noted(w.folder, "child")))
        os.kill(pids(w.folder)[0], signal.SIGKILL)
        assert (await failure(asked)).kind is Kind.UNAVAILABLE
        assert out(await w.ask(rows({"value": 1}))) == [1]
        await until(lambda: not alive(noted(w.folder, "child")[0]["pid"]))

    checks(tmp_path, test)


# --- the end of the owner ---

_OWNER = """
import asyncio, sys
from pathlib import Path
from dragoman.core.model import ModelSpec
from dragoman.engines import Engines
from tests.scripted import rows, scripted_runtime

async def main():
    folder = Path(sys.argv[1])
    with scripted_runtime(folder):
        spec = ModelSpec("m", runtime="scripted", engine="process", instances=2, arguments={"journal": str(folder / "journal")})
        servable = await Engines().open(spec)
        asked = [asyncio.ensure_future(servable.infer(rows({"name": act, "do": act}))) for act in ("native", "deaf")]
        await asyncio.gather(*asked)

asyncio.run(main())
"""


def test_no_process_outlives_its_owner(tmp_path: Path) -> None:
    """kill -9 of the owner ends the model processes at once, even one whose interpreter is held by native code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(tmp_path)], env=environment)
    try:
        deadline = time.monotonic() + 30
        while len(noted(tmp_path, "run")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        owner.kill()
        owner.wait()
        while any(alive(pid) for pid in pids(tmp_path)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        owner.kill()
        owner.wait()
