"""Jobs on a server that is killed, ended and started again; jobs that are busy, idle, or take too long. Real processes throughout."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import Running, serving
from tests.floyd import until
from tests.hub_api import Hub, Job, alive
from tests.web import web

COUNTING = """\
import http.server, json, os, subprocess, sys, time
HELD = {}

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.endswith("/slow"):
            open("/output/slow", "w").close()
            while not os.path.exists("go"):
                time.sleep(0.02)
        if self.path.endswith("/go"):
            open("go", "w").close()
        runs = len(open("runs").read())
        body = json.dumps({"pid": os.getpid(), "runs": runs, "word": WORD}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_OPTIONS(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

WORD = "first"
with open("runs", "a") as file:
    file.write(".")
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
print("ready", flush=True)
http.server.HTTPServer(("0.0.0.0", 5000), Handler).serve_forever()
"""
"""It counts its starts in its folder, has a child that went off on its own, and keeps a request until it is told to go on."""

FILES = {"app.py": COUNTING}


def _kill(server: Running) -> None:
    """As the kernel does it when memory runs out."""
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(30)


def _end(folder: Path, job: Job) -> None:
    """Every process of a job, at once."""
    for pid in alive(folder, job):
        with contextlib.suppress(ProcessLookupError):  # the end of one may be that of others
            os.kill(pid, signal.SIGKILL)


def _gone(folder: Path, job: Job) -> None:
    until(lambda: not alive(folder, job), lambda: f"processes are left: {alive(folder, job)}")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_server_is_followed_by_one_that_takes_over(tmp_path: Path, workers: str) -> None:
    """The program runs on, its endpoint is the same, its seconds count, and it can be stopped."""
    with serving(tmp_path, "--workers", workers) as server:
        job = Hub(server.url).run(FILES)
        first = job.ask("/").json()
        path = job.endpoint.removeprefix(server.url)
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(30)
    assert alive(tmp_path, job)
    with serving(tmp_path, "--workers", workers) as server:
        job = Hub(server.url).job(job.id)
        assert job.until("running")["duration"] > 0
        assert web.get(server.url + path + "/").json() == first
        assert first["runs"] == 1
        job.stop()
        job.until("shutdown")
        _gone(tmp_path, job)
        assert web.get(server.url + path).status_code in (404, 410)
        assert job.log().rstrip().endswith("[shutdown] Task execution cancelled")


def test_a_worker_that_dies_takes_no_job_with_it(tmp_path: Path) -> None:
    """The one that looks after them, above all: its successor goes on. Requests go by the others meanwhile, and wake what sleeps."""
    with serving(tmp_path, "--workers", "2") as server:
        job = Hub(server.url).run(FILES)
        first = job.ask("/").json()
        lock = tmp_path / "dragoman" / "jobs" / "runner.lock"
        before = _holder(lock)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        until(lambda: _holder(lock) not in (None, before), "nobody looks after the jobs")
        until(lambda: _answers(server.url), "the server does not answer")
        back = Hub(server.url).job(job.id)
        assert back.ask("/").json() == first
        sleepy = Hub(server.url).run(FILES, idle_timeout=0.5)
        sleepy.ask("/")
        until(lambda: "it goes to sleep" in sleepy.log(), sleepy.log)
        assert {sleepy.ask("/").status_code for _ in range(4)} == {200}
        back.stop()
        back.until("shutdown")
        _gone(tmp_path, back)


def _holder(lock: Path) -> int | None:
    """The process that has this file open."""
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):
            if any(os.readlink(f"/proc/{pid}/fd/{name}") == str(lock) for name in os.listdir(f"/proc/{pid}/fd")):
                return pid
    return None


def _answers(url: str) -> bool:
    """A connection that the dead worker had taken is lost; the next one is not."""
    with contextlib.suppress(httpx.TransportError):
        return web.get(f"{url}/api/v1/env").status_code == 200
    return False


def test_a_server_that_ends_ends_every_process_and_brings_jobs_back(tmp_path: Path) -> None:
    """Under their number and endpoint, with their files; one that waited in line, too. What had ended stays ended."""
    with serving(tmp_path, "--max-jobs", "2") as server:
        hub = Hub(server.url)
        over = hub.run({}, "command", full_command="echo over")
        over.until("success")
        seconds = over.look()["duration"]
        job, other, waiting = (hub.run(FILES) for _ in range(3))
        pids = [each.ask("/").json()["pid"] for each in (job, other)]
        assert len(pids) == 2
        until(lambda: "no jobs are ahead of it" in waiting.log(), waiting.log)
        path = job.endpoint.removeprefix(server.url)
        assert server.terminate() == 0
        for each in (job, other, waiting):
            assert alive(tmp_path, each) == []
    with serving(tmp_path) as server:
        hub = Hub(server.url)
        back = hub.job(job.id)
        assert back.endpoint == server.url + path
        assert back.name == job.name
        assert back.ask("/").json()["runs"] == 2
        assert hub.job(waiting.id).ask("/").json()["runs"] == 1
        assert hub.job(over.id).look()["state"] == "success"
        assert hub.job(over.id).look()["duration"] == seconds
        assert len(hub.call("GET", f"/experiments/?family_id={hub.call('GET', '/projects/ann/x')['id']}")) == 4


def test_jobs_that_are_lost_with_their_server_start_anew_with_the_next(tmp_path: Path) -> None:
    """As when the whole machine went down: under the same number, with their files."""
    with serving(tmp_path) as server:
        job = Hub(server.url).run(FILES)
        job.ask("/")
        _kill(server)
    _end(tmp_path, job)
    with serving(tmp_path) as server:
        back = Hub(server.url).job(job.id)
        assert back.ask("/").json()["runs"] == 2
        assert back.name == job.name


def test_a_busy_job_delays_nobody(tmp_path: Path) -> None:
    """Neither another job nor the API; its own requests wait in line, and none is lost (requirement F15)."""
    with serving(tmp_path) as server:
        hub = Hub(server.url)
        busy, other = hub.run(FILES), hub.run(FILES)
        busy.ask("/")
        other.ask("/")
        answers: list[int] = []
        endpoint = busy.endpoint
        folder = tmp_path / "dragoman" / "jobs" / "run" / busy.id
        threads = [
            threading.Thread(target=lambda path=path: answers.append(web.get(endpoint + path, timeout=90.0).status_code))
            for path in ("/slow", *["/"] * 5)
        ]
        threads[0].start()
        until((folder / "output" / "slow").exists, busy.log)
        for thread in threads[1:]:
            thread.start()
        assert other.ask("/", timeout_s=30.0).status_code == 200
        assert busy.state == "running"
        assert web.get(f"{server.url}/api/v1/env", timeout=30.0).status_code == 200
        assert answers == []
        until(lambda: (look := busy.look())["waiting"] == 5 and look["busy"] == 1, busy.look)
        (folder / "home" / "go").touch()
        for thread in threads:
            thread.join(60)
        assert answers == [200] * 6
        until(lambda: (look := busy.look())["calls"] == 7 and look["waiting"] == 0, busy.look)


def test_an_idle_job_sleeps_and_a_request_wakes_it(tmp_path: Path) -> None:
    """Nothing of it runs and nothing is counted meanwhile; whoever asks waits for it (scale to zero)."""
    with serving(tmp_path) as server:
        job = Hub(server.url).run(FILES, idle_timeout=1.0)
        endpoint = job.endpoint
        assert job.ask("/").json()["runs"] == 1
        until(lambda: "it goes to sleep" in job.log(), job.log)
        _gone(tmp_path, job)
        until(lambda: job.look()["phase"] == "asleep", job.log)
        slept = job.look()["duration"]
        time_of_day = time.monotonic()
        until(lambda: time.monotonic() > time_of_day + 1.1)
        assert job.look()["duration"] == slept
        answer = web.get(endpoint + "/", timeout=60.0)
        assert answer.status_code == 200, answer.text
        assert answer.json()["runs"] == 2
        job.stop()
        job.until("shutdown")


def test_a_job_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """After --max-runtime seconds of running, with every process, and its endpoint (requirement F23)."""
    with serving(tmp_path) as server:
        job = Hub(server.url).run(FILES, max_runtime=2)
        job.ask("/")
        over = job.until("timeout")
        assert 2 <= over["duration"] < 30
        _gone(tmp_path, job)
        assert web.get(job.endpoint).status_code in (404, 410)
        assert job.log().rstrip().endswith("[timeout] Task execution cancelled")
        assert job.look()["duration"] == over["duration"]


def test_programs_that_fail_have_failed(tmp_path: Path) -> None:
    """With the reason in the log, which comes before the last line (requirement F25)."""
    with serving(tmp_path, "--job-start-timeout", "2") as server:
        hub = Hub(server.url)
        cases = {
            "app.py": hub.run({"main.py": ""}),
            "ZeroDivisionError": hub.run({"app.py": "1/0\n"}),
            "2": hub.run({"app.py": "import time\ntime.sleep(1000)\n"}),
            "no-such-package-of-ours": hub.run({"app.py": "", "floyd_requirements.txt": "no-such-package-of-ours==9\n"}),
        }
        for word, job in cases.items():
            job.until("failed")
            log = job.log().rstrip()
            assert log.endswith("[failed] Task execution failed")
            assert word in log.splitlines()[-2]
            assert web.get(job.endpoint).status_code in (404, 410)


def test_a_program_that_is_killed_fails_and_the_others_go_on(tmp_path: Path) -> None:
    """The platform notices by itself."""
    with serving(tmp_path) as server:
        hub = Hub(server.url)
        job, other = hub.run(FILES), hub.run(FILES)
        job.ask("/")
        other.ask("/")
        _end(tmp_path, job)
        job.until("failed")
        _gone(tmp_path, job)
        assert other.ask("/").status_code == 200
        assert "killed" in job.log().splitlines()[-2]


def test_seconds_and_calls_are_exact_whatever_is_killed(tmp_path: Path) -> None:
    """The server, a job while it has none, and a job's first process: every request that a program was given counts, once (requirement F24)."""
    with serving(tmp_path) as server:
        hub = Hub(server.url)
        job, lost = hub.run(FILES), hub.run(FILES)
        for each in (job, lost):
            for _ in range(3):
                assert each.ask("/").status_code == 200
        _kill(server)
    _end(tmp_path, lost)
    with serving(tmp_path) as server:
        hub = Hub(server.url)
        job, lost = hub.job(job.id), hub.job(lost.id)
        assert lost.ask("/").json()["runs"] == 2
        assert job.ask("/").json()["runs"] == 1
        assert [each.look()["calls"] for each in (job, lost)] == [4, 4]
        _end(tmp_path, job)
        over = job.until("failed")
        assert over["calls"] == 4
        assert over["duration"] > 0
        lost.stop()
        assert lost.until("shutdown")["calls"] == 4


def test_commands_that_are_done_at_once_have_succeeded(tmp_path: Path) -> None:
    """Also when many come together, and each ends before anybody could ask how it is."""
    with serving(tmp_path) as server:
        hub = Hub(server.url)
        jobs = [hub.run({}, "command", full_command="echo over > /output/said; exit $((0))") for _ in range(8)]
        bad = hub.run({}, "command", full_command="exit 3")
        for job in jobs:
            assert job.until("success")["reason"] == ""
        assert "exit code 3" in bad.until("failed")["reason"]
