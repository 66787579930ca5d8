"""Logging in, looking at jobs, ending them and fetching their files, against a server that answers as FloydHub's did."""

import json
import os
import stat
import time
from pathlib import Path

import pytest

from tests.fakes_floyd_server import SUCCESS, State, floydhub, job
from tests.unit.jobs_cli.conftest import Run


@pytest.fixture
def project(place: Path, server: State, command: Run) -> Path:
    """The project ann/shop with two jobs."""
    assert command("init", "shop").code == 0
    server.jobs["ann/projects/shop/2"] = job("ann/projects/shop/2", mode="serve", service_url="http://h/expose/two", description=None)
    server.jobs["ann/projects/shop/1"] = job(state="success", latest_metrics={"loss": 0.5, "acc": 1})
    return place


def local(text: str) -> str:
    """A time in UTC as the tables show it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) - time.timezone))


# --- who ---


def test_login_with_a_key(place: Path, server: State, command: Run) -> None:
    """Kept for this user's eyes only, with the server that it is for."""
    server.keys = {"good"}
    ran = command("login", "-k", "good")
    assert (ran.code, ran.out) == (0, "Login Successful as ann\n")
    kept = Path.home() / ".floydconfig"
    assert json.loads(kept.read_text()) == {"username": "ann", "apikey": "good", "server": os.environ["DRAGOMAN_URL"]}
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert server.asked[-1].headers["authorization"] == "apikey good"
    assert command("logout").code == command("logout").code == 0
    assert not kept.exists()


def test_a_wrong_key(place: Path, server: State, command: Run) -> None:
    """It is not kept."""
    server.keys = {"good"}
    ran = command("login", "-k", "bad")
    assert ran.code == 1
    assert "Invalid Token" in ran.err
    assert not (Path.home() / ".floydconfig").exists()


def test_login_with_a_password(place: Path, server: State, command: Run) -> None:
    """A token is kept, the password is not. It may come from standard input."""
    server.passwords["ann"] = "sesame"
    assert command("login", "-u", "ann", stdin="sesame\n").out == "Login Successful as ann\n"
    assert json.loads((Path.home() / ".floydconfig").read_text())["token"] == "token-of-ann"
    assert server.asked[-1].headers["authorization"] == "Bearer token-of-ann"
    ran = command("login", "-u", "ann", "-p", "wrong")
    assert (ran.code, "does not know this user name" in ran.err) == (1, True)


def test_login_with_what_is_typed(place: Path, server: State, command: Run) -> None:
    """A token or a key; nothing is none."""
    assert command("login", "--token", stdin="t.o.k\n").code == 0
    assert server.asked[-1].headers["authorization"] == "Bearer t.o.k"
    assert command("login", stdin="k\n").code == 0
    assert server.asked[-1].headers["authorization"] == "apikey k"
    assert command("login", stdin="\n").code == 2
    assert command("login", stdin="schlüssel\n").code == 2
    assert command("login", "--token", "-k", "x").code == 2


def test_a_login_is_sent_to_its_server_alone(project: Path, server: State, command: Run) -> None:
    """Another server is asked as the user of this machine; without a name of one, the server of the login is asked."""
    assert command("login", "-k", "good").code == 0
    with floydhub() as (url, other):
        other.jobs["ann/projects/shop/2"] = job("ann/projects/shop/2")
        assert command("status", "2", "--url", url).code == 0
        assert {each.headers["authorization"] for each in other.asked} == {"apikey ann"}
        assert command("status", "2", "--url", url, "--key", "other").code == 0
        assert other.asked[-1].headers["authorization"] == "apikey other"
    del os.environ["DRAGOMAN_URL"]
    assert command("status", "2").code == 0
    assert server.asked[-1].headers["authorization"] == "apikey good"


def test_a_login_of_floydhubs_client(project: Path, server: State, command: Run) -> None:
    """It says no server, so it is for any."""
    (Path.home() / ".floydconfig").write_text(json.dumps({"username": "zoe", "apikey": "theirs"}))
    server.jobs["zoe/projects/toys/1"] = job("zoe/projects/toys/1")
    ran = command("status", "toys/1")
    assert ran.code == 0, ran
    assert server.asked[-1].headers["authorization"] == "apikey theirs"


def test_a_key_that_is_refused(project: Path, server: State, command: Run) -> None:
    """The sentence says how to get another."""
    server.keys = {"good"}
    ran = command("status")
    assert ran.code == 1
    assert "dragoman login" in ran.err
    assert command("status", "--key", "kéy").code == 2


# --- looking ---


def test_status_of_a_project(project: Path, server: State, command: Run) -> None:
    """All its jobs in a table of FloydHub's columns; the time is that of this machine's zone, seconds are whole."""
    ran = command("status")
    assert ran.code == 0, ran
    assert ran.lines[0].split() == ["JOB", "NAME", "CREATED", "STATUS", "DURATION(s)", "INSTANCE", "DESCRIPTION", "METRICS"]
    assert set(ran.lines[1]) == {"-", " "}
    created = local("2026-03-09T12:00:00")
    assert ran.lines[2].split() == ["ann/projects/shop/2", *created.split(), "running", "61", "c1"]
    assert ran.lines[3].split() == ["ann/projects/shop/1", *created.split(), "success", "61", "c1", "first", "acc=1,", "loss=0.5"]
    assert json.loads(command("status", "--output", "json").out)[0]["id"] == "job2"


def test_status_of_one_job(project: Path, server: State, command: Run) -> None:
    """By number, short name, full name and id."""
    for name in ("1", "shop/1", "ann/projects/shop/1", "job1"):
        ran = command("status", name)
        assert [line.split()[0] for line in ran.lines[2:]] == ["ann/projects/shop/1"], name
    server.jobs["ann/projects/shop/1"] |= {"state": "running", "phase": "asleep"}
    assert command("status", "1").lines[2].split()[3] == "asleep"
    ran = command("status", "9")
    assert ran.code == 1
    assert "ann/projects/shop/9" in ran.err


def test_status_elsewhere_is_the_servers(place: Path, server: State, command: Run) -> None:
    """Without a project and without a JOB it asks whether the server is ready, as ever; with --server in a project, too."""
    server.refuse["GET /dragoman/v1/status"] = (200, {"name": "d", "version": "1", "ready": True, "draining": False, "models": []})
    assert "is ready" in command("status").out
    (place / ".floydexpt").write_text('{"name": "shop", "namespace": "ann", "family_id": "x"}')
    assert "is ready" in command("status", "--server").out
    assert "is ready" not in command("status").out
    (place / ".floydexpt").unlink()
    server.jobs["ann/projects/shop/2"] = job("ann/projects/shop/2")
    assert "ann/projects/shop/2" in command("status", "shop/2").out


def test_info(project: Path, server: State, command: Run) -> None:
    """The same facts below each other; mode and endpoint of a service; what our own server says besides."""
    server.jobs["ann/projects/shop/2"] |= {"reason": "waits for a free place, 2 ahead", "calls": 0, "waiting": 3}
    rows = {title: text.strip() for title, _, text in (line.partition("  ") for line in command("info", "2").lines)}
    assert rows["Job name"] == "ann/projects/shop/2"
    assert rows["Status"] == "running"
    assert rows["Duration(s)"] == "61"
    assert rows["Mode"] == "serving"
    assert rows["Url"] == "http://h/expose/two"
    assert rows["Reason"] == "waits for a free place, 2 ahead"
    assert rows["Waiting requests"] == "3"
    assert "Url" not in command("info", "1").out
    assert json.loads(command("info", "1", "--output", "json").out)["id"] == "job1"


def test_logs(project: Path, server: State, command: Run) -> None:
    """All there is; a job whose log is empty says so; the address of it."""
    server.logs["log2"] = [b"one\n", b"two \xc3\xa9\n"]
    assert command("logs", "2").out == "one\n"
    assert command("logs").out == "one\ntwo é\n"
    server.jobs["ann/projects/shop/2"]["instance_log_id"] = None
    assert "Try after a few seconds" in command("logs", "2").out
    assert command("logs", "2", "-u").out == f"{os.environ['DRAGOMAN_URL']}/api/v1/resources/log2?content=true\n"


@pytest.mark.parametrize("flag", ["-f", "--follow", "-t", "--tail"])
def test_following_a_log(project: Path, server: State, command: Run, flag: str) -> None:
    """It ends by itself when the job has ended (requirement F20)."""
    server.logs["log2"] = [f"one\n{SUCCESS}".encode()]
    ran = command("logs", flag, "2")
    assert (ran.code, ran.out) == (0, f"Launching job ...\none\n{SUCCESS}")


# --- ending ---


def test_stop(project: Path, server: State, command: Run) -> None:
    """Asked for at once; a second stop is refused (requirement F22)."""
    ran = command("stop", "2")
    assert (ran.code, ran.out) == (0, "Experiment shutdown request submitted. Check status to confirm shutdown\n")
    assert server.jobs["ann/projects/shop/2"]["state"] == "shutdown"
    ran = command("stop", "2")
    assert (ran.code, ran.out) == (1, "Job in shutdown state cannot be stopped\n")


def test_delete(project: Path, server: State, command: Run) -> None:
    """After a question, or without one; what cannot be deleted does not keep others from it (requirement F27)."""
    assert "Skipped" in command("delete", "1", stdin="n\n").out
    assert len(server.jobs) == 2
    ran = command("delete", "-y", "9", "1")
    assert ran.code == 1
    assert "Job ann/projects/shop/1 Deleted" in ran.lines
    assert "ann/projects/shop/9" in ran.err
    assert list(server.jobs) == ["ann/projects/shop/2"]
    server.refuse["DELETE /api/v1/experiments/job2"] = (409, {"message": "it has not ended"})
    ran = command("delete", "2", stdin="y\n")
    assert (ran.code, "it has not ended" in ran.err) == (1, True)


# --- fetching ---


def test_clone(project: Path, server: State, command: Run) -> None:
    """The code, whole or one folder of it; nothing that is here is written over unless that is asked for."""
    server.files["code-res"] = {"./app.py": b"theirs", "sub/x.bin": bytes(9)}
    server.files["code:job1:sub"] = {"x.bin": b"one"}
    (project / "app.py").write_text("mine")
    ran = command("clone", "1")
    assert ran.code == 2
    assert "app.py' is here already" in ran.err
    assert not (project / "sub").exists()
    assert command("clone", "1", "-d", "there").out.splitlines()[-1] == "2 files downloaded to there"
    assert (project / "there/sub/x.bin").read_bytes() == bytes(9)
    assert command("clone", "1", "--replace").code == 0
    assert (project / "app.py").read_text() == "theirs"
    assert command("clone", "1", "-p", "sub").code == 0
    assert (project / "x.bin").read_text() == "one"


def test_output(project: Path, server: State, command: Run) -> None:
    """What a job has written, or the address of it."""
    server.jobs["ann/projects/shop/2"]["output_id"] = "job2.output"
    server.files["job2.output"] = {"a.txt": b"a"}
    server.files["files:job2:sub"] = {"b.txt": b"b"}
    assert command("output", "2").code == 0
    assert (project / "a.txt").read_text() == "a"
    assert command("output", "2", "-p", "/sub").code == 0
    assert (project / "b.txt").read_text() == "b"
    assert server.asked[-1].query["part"] == ["output"]
    assert command("output", "-u").out == f"{os.environ['DRAGOMAN_URL']}/api/v1/resources/job2.output?content=true&download=true\n"
    assert command("output", "1").code == 1


def test_an_archive_that_leads_out(project: Path, server: State, command: Run) -> None:
    """Nothing of it is unpacked."""
    server.files["code-res"] = {"fine": b"", "../out": b"x"}
    ran = command("clone", "1")
    assert ran.code == 2
    assert not (project / "fine").exists()
    assert not (project.parent / "out").exists()


def test_a_download_that_breaks_off(project: Path, server: State, command: Run) -> None:
    """Half an archive is not unpacked."""
    server.files["code-res"] = {"app.py": bytes(2000)}
    server.cut_downloads = True
    ran = command("clone", "1", "-d", "there")
    assert ran.code == 1
    assert "broke" in ran.err
    assert not list((project / "there").iterdir())


def test_a_server_of_something_else(place: Path, server: State, command: Run) -> None:
    """It is said, and nothing breaks."""
    server.refuse["GET /api/v1/user/"] = (200, {"hello": "world"})
    ran = command("init", "shop")
    assert ran.code == 1
    assert "does not answer as a Dragoman server does" in ran.err
