"""Model files that do what no model should: whatever one does, its request is answered, and the next one is served."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.plain import Plain, until
from tests.e2e.running import Running, serving
from tests.models.tungsten_wild import write_wild

ANSWER_S = 30.0


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("wild")
    with serving(folder, str(write_wild(folder / "wild"))) as running:
        yield running


def predict(running: Running, source: str, **options: Any) -> dict[str, Any]:
    reply = Plain(running.port).post("/predict", [{"prompt": source, **options}], timeout_s=ANSWER_S)
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json()
    return answer


def error_of(answer: dict[str, Any]) -> str:
    assert answer["status"] == "failed", answer
    return str(answer["error_message"])


def text_of(answer: dict[str, Any]) -> str:
    assert answer["status"] == "success", answer
    return str(answer["outputs"][0]["text"])


FAILING = {
    "its text cannot be had": ("class Odd(Exception):\n  def __str__(self): raise ValueError('no')\nraise Odd", "Odd"),
    "its text is no text": ("class Odd(Exception):\n  def __str__(self): return 5\n  __repr__ = __str__\nraise Odd", "Odd"),
    "its text calls itself": ("class Odd(Exception):\n  def __str__(self): return str(self)\nraise Odd", "Odd"),
    "its text ends the process": ("class Odd(Exception):\n  def __str__(self): sys.exit(4)\nraise Odd", "Odd"),
    "its text is half a character": ("raise ValueError('a\\ud800b')", "ValueError"),
    "its name is half a character": ("raise type('E\\ud800', (Exception,), {})('x')", "x"),
    "it is long": ("raise ValueError('x' * 20_000_000)", "ValueError"),
    "it is its own cause": ("e = ValueError('own')\ne.__cause__ = e.__context__ = e\nraise e", "own"),
    "it has many causes": (
        "e = None\nfor i in range(3000):\n  n = ValueError(str(i)); n.__cause__ = e; e = n\nraise e",
        "ValueError: 2999",
    ),
    "it leaves": ("sys.exit('bye')", "SystemExit"),
    "it is a Ctrl-C": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "it is of no kind": ("raise BaseException('bare')", "bare"),
    "it calls itself": ("def f(): f()\nf()", "RecursionError"),
    "it has no memory": ("raise MemoryError", "MemoryError"),
    "a generator fails late": ("def g():\n  yield {'text': 'g', 'pid': 1, 'batch': 1}\n  raise ValueError('late')\nwhole = g()", "late"),
    "a generator never ends": ("import itertools\nwhole = ({'text': 'g', 'pid': 1, 'batch': 1} for _ in itertools.count())", "more than 1"),
    "it gives nothing": ("whole = None", "NoneType"),
    "it gives a number": ("whole = 5", "int"),
    "it gives a text": ("whole = 'x'", "str"),
    "it gives what holds itself": ("whole = []\nwhole.append(whole)", "list"),
    "it gives its inputs": ("whole = inputs", "Input"),
}


@pytest.mark.parametrize(("source", "said"), FAILING.values(), ids=FAILING)
def test_a_run_that_fails_oddly_is_a_failed_prediction(wild: Running, source: str, said: str) -> None:
    """Whatever is raised or returned: the caller reads what it was, the process stays."""
    process = predict(wild, "pass")["outputs"][0]["pid"]
    assert said in error_of(predict(wild, source))
    assert predict(wild, "pass")["outputs"][0]["pid"] == process


HARMLESS = {
    "a generator": "whole = (Output(text='', pid=1, batch=1) for _ in inputs)",
    "an emptied list of inputs": "inputs.clear()",
    "a longer list of inputs": "inputs.append(inputs[0])\nwhole = [{'text': '', 'pid': 1, 'batch': 1}]",
    "half a character printed": "print('a\\ud800b')",
    "bytes printed": "os.write(1, bytes(range(256)) * 10)\nsys.stdout.buffer.write(b'\\xff\\xfe')",
    "megabytes in one line": "os.write(1, b'x' * 5_000_000)\nsys.stdout.write('y' * 5_000_000)",
    "many lines": "for i in range(5000): print('line', i)",
    "no standard input": "os.close(0)",
    "a closed output": "sys.stdout.close()\nprint('nobody hears')",
    "no output at all": "sys.stdout = None\nprint('nobody hears')",
    "closed descriptors": "os.close(1)\nos.close(2)\nprint('nobody hears')",
    "another folder": "os.chdir('/')",
    "a child": "subprocess.Popen(['sleep', '300'])",
    "a copy of the process": "pid = os.fork()\nif pid == 0:\n  time.sleep(300)\n  os._exit(0)",
    "a thread": "threading.Thread(target=time.sleep, args=(300,)).start()",
    "a thread that prints": "t = threading.Thread(target=print, args=('hello',))\nt.start()\nt.join()",
    "signal handlers": "signal.signal(signal.SIGUSR1, signal.SIG_IGN)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "blocked signals": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
    "few descriptors": "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))",
    "no permissions": "os.umask(0o777)",
    "little recursion": "sys.setrecursionlimit(80)",
    "a greedy interpreter": "sys.setswitchinterval(100)",
    "an exit that waits": "import atexit\natexit.register(time.sleep, 300)",
    "an event loop": "import asyncio\nasyncio.run(asyncio.sleep(0))",
    "half a character answered": "result = 'a\\ud800b'",
    "no files any more": "Path(__file__).unlink()",
}


def test_what_a_run_leaves_behind_hurts_no_later_one(tmp_path: Path) -> None:
    """One thing after the other in one process, which serves all along."""
    with serving(tmp_path, str(write_wild(tmp_path / "wild"))) as running:
        process = predict(running, "pass")["outputs"][0]["pid"]
        for what, source in HARMLESS.items():
            assert predict(running, source)["status"] == "success", what
            after = predict(running, "result = 'next'")
            assert (text_of(after), after["outputs"][0]["pid"]) == ("next", process), what


BREAKING = {
    "it writes to every descriptor": "for fd in range(3, 40):\n  try: os.write(fd, b'garbage!' * 10)\n  except OSError: pass",
    "it closes every descriptor": "os.closerange(3, 256)",
    "it breaks a module of ours": "import json\njson.loads = json.dumps = None",
    "it ends its process group": "os.kill(0, signal.SIGTERM)\ntime.sleep(60)",
}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_process_that_is_broken_is_replaced(tmp_path: Path, workers: str) -> None:
    """Whether the run itself is answered depends; the next one is, by a new process."""
    with serving(tmp_path, str(write_wild(tmp_path / "wild")), "--workers", workers) as running:
        process = predict(running, "pass")["outputs"][0]["pid"]
        for what, source in BREAKING.items():
            broken = Plain(running.port).post("/predict", [{"prompt": source}], timeout_s=ANSWER_S)
            assert broken.status == 200, what
            after = predict(running, "result = 'next'")
            assert text_of(after) == "next", what
            assert after["outputs"][0]["pid"] != process, what
            process = after["outputs"][0]["pid"]


def test_a_run_that_will_not_be_cancelled_is_killed(tmp_path: Path) -> None:
    """`except BaseException` around everything: the cancelled prediction has its answer at once, the process ends after the grace time."""
    stubborn = "while True:\n  try:\n    while True: time.sleep(0.01)\n  except BaseException: pass"
    with serving(tmp_path, str(write_wild(tmp_path / "wild"))) as running:
        client = Plain(running.port)
        process = predict(running, "pass")["outputs"][0]["pid"]
        prediction = client.post("/predictions", [{"prompt": stubborn}]).json()["prediction_id"]
        until(lambda: client.get(f"/predictions/{prediction}").json()["status"] == "running", what="the run")
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(predict, running, "result = 'patient'", tail="another batch")
            assert client.post(f"/predictions/{prediction}/cancel").status == 200
            assert client.get(f"/predictions/{prediction}").json()["error_message"] == "Canceled"
            after = other.result()
        assert text_of(after) == "patient"
        assert after["outputs"][0]["pid"] != process


def test_a_stopped_process_is_not_waited_for(tmp_path: Path) -> None:
    """SIGSTOP: what waits can be cancelled, the process is replaced, and what nobody cancelled is answered by the next one."""
    with serving(tmp_path, str(write_wild(tmp_path / "wild"))) as running:
        client = Plain(running.port)
        process = predict(running, "pass")["outputs"][0]["pid"]
        os.kill(process, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(predict, running, "result = 'patient'", tail="another batch")
            prediction = client.post("/predictions", [{"prompt": "pass"}]).json()["prediction_id"]
            assert client.get("/v2/health/live").status == 200
            assert client.post(f"/predictions/{prediction}/cancel").status == 200
            after = other.result()
        assert text_of(after) == "patient"
        assert after["outputs"][0]["pid"] != process


def test_a_continued_process_goes_on(wild: Running) -> None:
    """SIGSTOP and SIGCONT in the middle of a run change nothing but the time it takes."""
    client = Plain(wild.port)
    process = predict(wild, "pass")["outputs"][0]["pid"]
    prediction = client.post("/predictions", [{"prompt": "time.sleep(0.1)\nresult = 'done'"}]).json()["prediction_id"]
    os.kill(process, signal.SIGSTOP)
    assert client.get(f"/predictions/{prediction}").json()["status"] in ("pending", "running")
    os.kill(process, signal.SIGCONT)
    ended = client.get(f"/predictions/{prediction}?wait=30").json()
    assert (ended["status"], ended["outputs"][0]["pid"]) == ("success", process)


SETUPS = {
    "sys.exit(3)": "SystemExit",
    "os._exit(3)": "exit code 3",
    "os.closerange(3, 256)": "does the model close descriptors?",
    "class Odd(Exception):\n  def __str__(self): return '\\ud800'\nraise Odd": "Odd",
}


@pytest.mark.parametrize("setup", SETUPS)
def test_a_setup_that_goes_wrong_says_so(tmp_path: Path, setup: str) -> None:
    """T28: the command ends with an error that names the reason; it never hangs."""
    with (
        pytest.raises(AssertionError, match="the server ended with 1") as caught,
        serving(tmp_path, str(write_wild(tmp_path / "w", setup))),
    ):
        pass
    assert SETUPS[setup] in str(caught.value)


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("serve", "--setup-timeout", "0.5"), {}),
        (("serve",), {"DRAGOMAN_SETUP_TIMEOUT": "0.5", "SETUP_TIMEOUT": "600"}),
        (("tungsten", "serve"), {"SETUP_TIMEOUT": "0.5"}),
        (("tungsten", "serve"), {"SETUP_TIMEOUT": "600", "DRAGOMAN_SETUP_TIMEOUT": "0.5"}),
    ],
)
def test_a_setup_that_takes_too_long(tmp_path: Path, words: tuple[str, ...], extra: dict[str, str]) -> None:
    """The model is not loaded; the variable of the original's containers counts for the original's command, unless ours says otherwise."""
    with (
        pytest.raises(AssertionError, match=r"model 'w' was not loaded within 0\.5 s"),
        serving(tmp_path, str(write_wild(tmp_path / "w", "time.sleep(600)")), verb=words, extra=extra),
    ):
        pass
