"""The real floyd-cli 0.11.17 against a server of ours, from `login` to `delete` (FloydHub requirements F1 to F7, F14, F17 to F27)."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import Running
from tests.floyd import WEB, Done, Floyd, answering, hub, project, until
from tests.web import web

KEY = {"Authorization": "apikey alice"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with hub(tmp_path_factory.mktemp("hub"), "--max-code", "1MB", "--max-code-files", "100") as running:
        yield running


@pytest.fixture(scope="module")
def floyd(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Floyd:
    """The client of somebody who has logged in."""
    return Floyd(server.url, tmp_path_factory.mktemp("home")).logged_in("alice")


@pytest.fixture
def folder(floyd: Floyd, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A project with a program, initialised under the test's own name."""
    made = project(tmp_path / "project", app_py=WEB)
    floyd(made, "init", name_of(request))
    return made


def name_of(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).removeprefix("test_")[:60]


def serve(floyd: Floyd, folder: Path, *options: str) -> Done:
    """A job whose program answers."""
    done = floyd(folder, "run", "--mode", "serve", *options)
    answering(done.endpoint)
    return done


class TestPeople:
    def test_login_is_quiet_about_versions(self, server: Running, tmp_path: Path) -> None:
        """Any key is taken where there are no accounts, and nothing is said of upgrades; also with a slash at the end of the host (F1, F2)."""
        for url in (server.url, server.url + "/"):
            assert Floyd(url, tmp_path)(tmp_path, "login", "-k", "bob").out.strip() == "Login Successful as bob"

    def test_the_first_look_makes_a_project(self, floyd: Floyd, tmp_path: Path) -> None:
        """`init` needs nobody to press a key (F3), whatever name the client goes by; who says no name makes nothing."""
        done = floyd(tmp_path, "init", "fresh")
        assert done.out.strip() == 'Project "fresh" initialized in current directory'
        assert {".floydexpt", ".floydignore", "floyd.yml"} <= {path.name for path in tmp_path.iterdir()}
        assert web.get(f"{floyd.url}/api/v1/projects/bob/x").status_code == 404
        assert web.get(f"{floyd.url}/api/v1/projects/bob/x", headers=KEY).json()["owner"] == "bob"


class TestServe:
    def test_a_job_from_run_to_delete(self, floyd: Floyd, folder: Path) -> None:
        """Its table, endpoint, log, status, information, end and removal (F6, F7, F9, F14, F16, F19 to F22, F27)."""
        done = floyd(folder, "run", "--mode", "serve", "--env", "tensorflow-0.12:py2", "-m", "the first")
        job = done.job
        assert re.fullmatch(r"alice/projects/a_job_from_run_to_delete/1", job)
        assert re.fullmatch(re.escape(floyd.url) + r"/expose/[\w-]{16,}", done.endpoint)
        seen = answering(done.endpoint).json()
        assert seen["word"] == "of the program"
        assert seen["floydhub"] == "1"
        until(lambda: floyd.state(folder, job) == "running")
        table = floyd(folder, "status").out
        assert "the first" in table
        assert "c1" in table
        information = floyd(folder, "info", job).out
        assert re.search(r"Mode\s+serving", information)
        assert done.endpoint in information
        log = floyd(folder, "logs", job).out
        assert "starting" in log
        assert "tensorflow" in log
        with floyd.meanwhile(folder, "logs", "-f", job) as following:
            assert following.stdout is not None
            assert next(line for line in following.stdout if "starting" in line), "shown while it runs"
            assert "shutdown request submitted" in floyd(folder, "stop", job).out
            assert "[shutdown] Task execution cancelled" in following.stdout.read()
            assert following.wait(60) == 0
        until(lambda: floyd.state(folder, job) == "shutdown")
        assert "[shutdown] Task execution cancelled" in floyd(folder, "logs", "-f", job).out
        assert web.get(done.endpoint).status_code == 410
        assert "cannot be stopped" in floyd(folder, "stop", job, code=1).out
        assert f"Job {job} Deleted" in floyd(folder, "delete", "-y", job).out
        assert "not found" in floyd(folder, "delete", "-y", job, code=1).out
        assert web.get(done.endpoint).status_code == 404

    def test_two_at_once_on_one_port(self, floyd: Floyd, folder: Path) -> None:
        """Both have port 5000, and each endpoint its own program (F10, F15)."""
        first = serve(floyd, folder)
        (folder / "app.py").write_text(WEB.replace("of the program", "of the second"), "utf-8")
        second = serve(floyd, folder)
        assert [web.get(each.endpoint).json()["word"] for each in (first, second)] == ["of the program", "of the second"]
        assert second.job.endswith("/2")
        body = bytes(range(256)) * 4096
        files = {"file": ("picture.png", body)}
        sent = httpx.Request("POST", second.endpoint, files=files)
        assert web.post(second.endpoint, content=sent.read(), headers=sent.headers).text == hashlib.sha256(sent.read()).hexdigest()
        floyd(folder, "stop", first.job)
        until(lambda: web.get(first.endpoint).status_code == 410)
        assert web.get(second.endpoint).status_code == 200
        floyd(folder, "stop", second.job)

    def test_files_arrive_byte_for_byte(self, floyd: Floyd, folder: Path) -> None:
        """Sub-folders, binary, empty and oddly named files; what is ignored never leaves (F4). `clone` brings them back."""
        contents = {
            "a/b/c/deep.bin": bytes(range(256)) * 100,
            "empty": b"",
            "größe 日本.txt": "naïve".encode(),
            'quo"te;semi.txt': b"\r\n--boundary\r\n",
            "space in name/x y": b"1",
            "lib/ignored.py": b"never",
            "x.pyc": b"never",
        }
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        done = serve(floyd, folder)
        seen = web.get(done.endpoint).json()["files"]
        kept = {name: content for name, content in contents.items() if not name.startswith("lib/") and not name.endswith(".pyc")}
        assert {name: seen.get(f"./{name}") for name in kept} == {
            name: hashlib.sha256(content).hexdigest() for name, content in kept.items()
        }
        assert not {"./lib/ignored.py", "./x.pyc"} & seen.keys()
        back = folder.parent / "back"
        back.mkdir()
        floyd(back, "clone", done.job)
        assert {name: (back / name).read_bytes() for name in kept} == kept
        floyd(folder, "stop", done.job)

    def test_restart_and_tasks(self, floyd: Floyd, folder: Path) -> None:
        """The same code under a new number and address; a task of floyd.yml says mode, environment and text (F6, F26)."""
        (folder / "floyd.yml").write_text("task:\n  web:\n    mode: serve\n    env: keras\n    description: from the file\n", "utf-8")
        job = floyd(folder, "run", "--task", "web").job
        found = web.get(f"{floyd.url}/api/v1/experiments/{job}", headers=KEY).json()
        assert (found["mode"], found["env"], found["description"]) == ("serve", "keras", "from the file")
        answering(found["service_url"])
        (folder / "app.py").unlink()
        again = floyd(folder, "restart", job, "-m", "once more")
        assert again.job == job[:-1] + "2"
        assert again.endpoint != found["service_url"]
        assert answering(again.endpoint).json()["word"] == "of the program"
        for each in (job, again.job):
            floyd(folder, "stop", each)

    def test_the_time_of_a_job_is_limited(self, floyd: Floyd, folder: Path) -> None:
        """`--max-runtime` ends it as timeout; its seconds stand still then (F23, F24)."""
        done = floyd(folder, "run", "--mode", "serve", "--max-runtime", "2")
        assert "2 seconds" in done.out
        until(lambda: floyd.state(folder, done.job) == "timeout")
        assert "[timeout] Task execution cancelled" in floyd(folder, "logs", "-f", done.job).out
        assert web.get(done.endpoint).status_code == 410
        shown = [web.get(f"{floyd.url}/api/v1/experiments/{done.job}", headers=KEY).json()["duration"] for _ in range(2)]
        assert shown[0] == shown[1] >= 2
        columns = floyd(folder, "status", done.job).out.splitlines()[2].split()
        assert str(int(shown[0])) in columns


class TestFailures:
    def test_without_a_program(self, floyd: Floyd, folder: Path) -> None:
        """The job fails, and its log names what is missing (F25)."""
        (folder / "app.py").unlink()
        done = floyd(folder, "run", "--mode", "serve")
        log = floyd(folder, "logs", "-f", done.job).out
        assert "app.py" in log
        assert "[failed] Task execution failed" in log
        assert floyd.state(folder, done.job) == "failed"
        assert web.get(done.endpoint).status_code == 410

    def test_a_program_that_crashes(self, floyd: Floyd, folder: Path) -> None:
        """What it said last is in the log (F25)."""
        (folder / "app.py").write_text("raise SystemExit('no luck today')\n", "utf-8")
        done = floyd(folder, "run", "--mode", "serve")
        assert "no luck today" in floyd(folder, "logs", "-f", done.job).out
        assert floyd.state(folder, done.job) == "failed"

    def test_what_is_refused(self, floyd: Floyd, folder: Path) -> None:
        """Unknown environments with the list of those there are, and what is wrong with floyd.yml, in the client's own words (F5)."""
        refused = floyd(folder, "run", "--mode", "serve", "--env", "tensorflow-9", code=3).out
        assert "tensorflow-0.12:py2" in refused
        (folder / "floyd.yml").write_text("mode: dance\n", "utf-8")
        assert "expected job, serve or jupyter" in floyd(folder, "run", code=4).out
        (folder / "floyd.yml").write_text("env: tensorflow-9\n", "utf-8")
        assert "pytorch-1.0" in floyd(folder, "run", "ls", code=4).out
        assert "not found" in floyd(folder, "status", "alice/projects/nothing/1", code=1).out

    def test_too_much_code(self, floyd: Floyd, folder: Path) -> None:
        """The limit is in the client's own output, however much it was about to send: neither a bare number nor a broken connection."""
        (folder / "large").write_bytes(bytes(20 << 20))
        assert "larger than the limit of 1048576 bytes" in floyd(folder, "run", "ls", code=4).out
        (folder / "large").unlink()
        for number in range(101):
            (folder / f"file{number}").write_bytes(b"x")
        assert "100" in floyd(folder, "run", "ls", code=4).out

    def test_a_command_runs_to_its_end(self, floyd: Floyd, folder: Path) -> None:
        """Its output is kept and can be fetched; `run --follow` ends with it."""
        done = floyd(folder, "run", "--follow", "echo hello > /output/greeting.txt; mkdir sub; echo hello | tee sub/x")
        assert "hello" in done.out
        assert "[success] Finished execution" in done.out
        assert floyd.state(folder, done.job) == "success"
        back = folder.parent / "back"
        back.mkdir()
        floyd(back, "data", "clone", f"{done.job}/output")
        assert (back / "greeting.txt").read_text() == "hello\n"
        assert "sub/x" in floyd(back, "data", "listfiles", f"{done.job}/files").out
