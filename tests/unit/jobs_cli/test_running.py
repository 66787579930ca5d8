"""`dragoman run` and `restart` against a server that answers as FloydHub's did: what is sent, printed and exited with."""

import json
import os
from pathlib import Path

import pytest

from tests.fakes_floyd_server import SUCCESS, State, job, version
from tests.unit.jobs_cli.conftest import Run

ODD = (
    "app.py",
    "sub/deeper/data.bin",
    "empty",
    'quo"te.txt',
    "back\\slash",
    "per%22cent",
    "née/ü €.txt",
    "two  spaces",
    "a;b=c,d",
    "line\nend",
)


@pytest.fixture
def project(place: Path, server: State, command: Run) -> Path:
    """A folder that is the project ann/shop, with one file of its own."""
    assert command("init", "shop").code == 0
    (place / "app.py").write_text("print(1)")
    return place


def test_init(place: Path, server: State, command: Run) -> None:
    """Three files, as FloydHub's client writes them; the project is looked up, which makes it."""
    ran = command("init", "shop")
    assert (ran.code, ran.out) == (0, 'Project "shop" initialized in current directory\n')
    assert json.loads((place / ".floydexpt").read_text()) == {"name": "shop", "namespace": "ann", "family_id": "projects-ann-shop"}
    assert ".git" in (place / ".floydignore").read_text().splitlines()
    assert "#env: tensorflow-1.8" in (place / "floyd.yml").read_text().splitlines()


def test_init_keeps_what_is_there(place: Path, server: State, command: Run) -> None:
    """Rules and configuration of one's own stay; the project is changed."""
    (place / ".floydignore").write_text("mine")
    (place / "floyd.yaml").write_text("mode: serve")
    for name in ("one", "bob/projects/two"):
        assert command("init", name).code == 0
    assert (place / ".floydignore").read_text() == "mine"
    assert not (place / "floyd.yml").exists()
    assert json.loads((place / ".floydexpt").read_text())["namespace"] == "bob"


def test_init_of_a_name_that_cannot_be(place: Path, server: State, command: Run) -> None:
    """Nothing is written."""
    assert command("init", "a b").code == 2
    assert not list(place.iterdir())


def test_init_without_a_server(place: Path, command: Run) -> None:
    """Where none is named either, the project is made by the first run; where one is named, it is an error."""
    ran = command("init", "shop", "--url", "http://127.0.0.1:9")
    assert (ran.code, list(place.iterdir())) == (1, [])


def test_serve(project: Path, server: State, command: Run) -> None:
    """Size, progress, name, endpoint; the code is sent with what was asked for, then the job."""
    ran = command("run", "--mode", "serve", "-m", "my shop", "--env", "tensorflow-1.8", "--max-runtime", "60", "--concurrency", "3")
    assert ran.code == 0, ran
    assert "Total upload size" in ran.out
    assert "Syncing code ..." in ran.lines
    at = ran.lines.index("JOB NAME")
    assert ran.lines[at + 1 : at + 3] == ["-------------------", "ann/projects/shop/1"]
    assert f"URL to job: {os.environ['DRAGOMAN_URL']}/api/v1/experiments/ann/projects/shop/1" in ran.lines
    assert "URL to service endpoint: http://127.0.0.1:1/expose/0123456789abcdef" in ran.lines
    assert ran.lines[-1] == "   dragoman logs -f ann/projects/shop/1"
    (about,) = server.about
    assert about["mode"] == "serve"
    assert about["module_type"] == "code"
    (sent,) = server.sent("POST", "/api/v1/experiments/run_module/")
    given = sent.json()
    assert given["module_id"] == "code1"
    assert given["name"] == "ann/shop"
    assert given["description"] == "my shop"
    assert given["env"] == "tensorflow-1.8"
    assert given["max_runtime"] == 60
    assert given["concurrency"] == 3
    assert "network" not in given
    assert "idle_timeout" not in given
    assert given["family_id"] == "projects-ann-shop"
    assert given["full_command"] == "dragoman run --mode serve --env tensorflow-1.8 --message 'my shop'"
    assert given["cli_default"] == {"description": "", "command": "", "instance_type": "c1"}


def test_files_arrive_as_they_are(project: Path, server: State, command: Run) -> None:
    """Names of every kind and all bytes, below their folders; what is ignored does not leave (requirement F4)."""
    for name in ODD:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"" if name == "empty" else name.encode() + bytes(range(256)) * 9)
    (project / "x.pyc").write_text("no")
    assert command("run", "--mode", "serve").code == 0
    (code,) = server.code.values()
    assert set(code) == {f"./{name}" for name in (*ODD, ".floydexpt", ".floydignore", "floyd.yml")}
    for name in ODD:
        assert code[f"./{name}"] == (project / name).read_bytes(), name


def test_a_big_file_is_not_held(project: Path, server: State, command: Run) -> None:
    """It is sent in pieces, and is whole."""
    (project / "big").write_bytes(os.urandom(3 << 20))
    assert command("run", "python app.py").code == 0
    assert server.code["code1"]["./big"] == (project / "big").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("python train.py",),
        ("python", "train.py"),
        ("--env", "default", "python", "train.py"),
        ("python", "--cpu", "train.py"),
        ("--", "python", "train.py"),
    ],
)
def test_commands(project: Path, server: State, command: Run, words: tuple[str, ...]) -> None:
    """A CMD in one word or in many, before and behind options; it goes with the code."""
    ran = command("run", *words)
    assert ran.code == 0, ran
    assert server.about[0]["command"] == "python train.py"
    assert server.about[0]["mode"] is None
    assert server.about[0]["cli_default"]["mode"] == "command"
    assert "service endpoint" not in ran.out


def test_options_of_the_command_itself(project: Path, server: State, command: Run) -> None:
    """They stand behind --; before it they are none of ours."""
    assert command("run", "--gpu", "--", "python", "train.py", "--mode", "fast").code == 0
    assert server.about[0]["command"] == "python train.py --mode fast"
    assert server.about[0]["instance_type"] == "g1"
    assert command("run", "python", "train.py", "--epochs", "3").code == 2


def test_a_configuration_goes_along(project: Path, server: State, command: Run) -> None:
    """As it is written, with the task that was chosen: the server reads it. The mode is then what the server says."""
    (project / "floyd.yml").write_text("task: {web: {mode: serve}}")
    assert command("run", "--task", "web").code == 0
    given = server.sent("POST", "/api/v1/experiments/run_module/")[0].json()
    assert (given["yaml_config"], given["task"]) == ("task: {web: {mode: serve}}", "web")
    assert given["cli_default"] == {"description": "", "command": "", "env": "default", "mode": "command", "instance_type": "c1"}
    assert given["env"] is given["instance_type"] is given["max_runtime"] is given["description"] is None


def test_words_of_our_own(project: Path, server: State, command: Run) -> None:
    """Sleep, queue and network."""
    assert command("run", "--mode", "serve", "--idle-timeout", "30", "--no-network", "--no-open", "--tensorboard").code == 0
    given = server.sent("POST", "/api/v1/experiments/run_module/")[0].json()
    assert (given["idle_timeout"], given["network"]) == (30, False)


def test_data_is_mounted(project: Path, server: State, command: Run) -> None:
    """By the id that the server knows it by; the table says where."""
    server.data["ann/datasets/pics/1"] = version()
    ran = command("run", "--mode", "serve", "--data", "pics/1:input")
    assert ran.code == 0, ran
    assert server.sent("POST", "/api/v1/experiments/run_module/")[0].json()["data_ids"] == ["data1:input"]
    assert ran.lines[ran.lines.index("DATANAME  MOUNTING DIRECTORY") + 2] == "pics/1    /input"


def test_data_that_is_not_there(project: Path, server: State, command: Run) -> None:
    """It is said by name, and nothing is uploaded."""
    ran = command("run", "--mode", "serve", "--data", "pics/7:input")
    assert ran.code == 1
    assert "ann/datasets/pics/7" in ran.err
    assert not server.code


def test_an_unknown_environment(project: Path, server: State, command: Run) -> None:
    """The list of those that there are, exit code 3, and nothing is uploaded (requirement F5)."""
    ran = command("run", "--mode", "serve", "--env", "fortran-77")
    assert ran.code == 3
    assert ran.err.splitlines() == [
        "fortran-77 is not in the list of supported environments:", "  default", "  pytorch-1.0", "  tensorflow-1.8"
    ]  # fmt: skip
    assert not server.code
    assert command("run", "--cpu", "--env", "pytorch-1.0").code == 3
    assert command("run", "--gpu", "--env", "pytorch-1.0").code == 0


@pytest.mark.parametrize("mode", ["serve", "jupyter"])
def test_a_command_where_none_can_be(project: Path, server: State, command: Run, mode: str) -> None:
    """Exit code 3, before anything is asked."""
    ran = command("run", "--mode", mode, "python app.py")
    assert (ran.code, server.sent("POST", ".*")) == (3, [])
    assert f"--mode {mode}" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("--env", "a", "--env", "b"),
        ("--data", "x"),
        ("--max-runtime", "0"),
        ("--max-runtime", "1.5"),
        ("--concurrency", "0"),
        ("--mode", "fly"),
        ("--idle-timeout", "x"),
    ],
)
def test_wrong_options(project: Path, server: State, command: Run, words: tuple[str, ...]) -> None:
    """Exit code 2, before anything is asked."""
    before = len(server.asked)
    assert command("run", *words).code == 2
    assert len(server.asked) == before


def test_a_folder_that_is_no_project(place: Path, server: State, command: Run) -> None:
    """The sentence says what to do."""
    ran = command("run", "--mode", "serve")
    assert ran.code == 2
    assert "dragoman init NAME" in ran.err


def test_a_folder_without_files(project: Path, server: State, command: Run) -> None:
    """There is nothing to run."""
    (project / ".floydignore").write_text("*")
    ran = command("run", "--mode", "serve")
    assert ran.code == 2
    assert "no file to upload" in ran.err


def test_a_project_of_another_server(project: Path, server: State, command: Run) -> None:
    """The id in the folder is not believed: the server that is asked says which project that is, and it is written down."""
    (project / ".floydexpt").write_text(json.dumps({"name": "shop", "namespace": None, "family_id": "of long ago"}))
    assert command("run", "x").code == 0
    assert server.about[0]["family_id"] == "projects-ann-shop"
    assert json.loads((project / ".floydexpt").read_text()) == {"name": "shop", "namespace": "ann", "family_id": "projects-ann-shop"}


def test_a_damaged_project(project: Path, server: State, command: Run) -> None:
    """It is named, and not written over."""
    (project / ".floydexpt").write_text("{")
    ran = command("run", "x")
    assert ran.code == 2
    assert ".floydexpt" in ran.err


def test_a_refusal_before_everything_was_sent(project: Path, server: State, command: Run) -> None:
    """The server's own words and number, not a broken connection: it hangs up without reading the rest."""
    (project / "big").write_bytes(bytes(12 << 20))
    server.refuse["POST /api/v1/modules/"] = (413, {"message": "the code has 12582912 bytes, at most 1000 are taken"})
    ran = command("run", "--mode", "serve")
    assert ran.code == 1
    assert "at most 1000 are taken" in ran.err


def test_refusals_in_the_servers_words(project: Path, server: State, command: Run) -> None:
    """A 400 is a command that was wrong, others are failures."""
    server.refuse["POST /api/v1/experiments/run_module/"] = (400, {"message": "floyd.yml is no YAML, line 3"})
    ran = command("run", "x")
    assert (ran.code, "line 3" in ran.err) == (2, True)
    server.refuse["POST /api/v1/experiments/run_module/"] = (429, {"message": "8 jobs run already"})
    ran = command("run", "x")
    assert (ran.code, "8 jobs run already" in ran.err) == (1, True)


@pytest.mark.parametrize("ranges", [False, True])
def test_following(project: Path, server: State, command: Run, ranges: bool) -> None:
    """The log as it grows, each byte once, letters that are cut in two whole; the exit code of the job."""
    server.ranges = ranges
    server.logs["log1"] = [b"waiting, 2 ahead\n", "né".encode()[:2], "né".encode()[2:], b"\n", SUCCESS.encode()]
    ran = command("run", "--follow", "python app.py")
    assert ran.code == 0
    assert ran.out.endswith(f"waiting, 2 ahead\nné\n{SUCCESS}")


def test_following_a_job_that_fails(project: Path, server: State, command: Run) -> None:
    """Exit code 1."""
    server.jobs["ann/projects/shop/0"] = job("ann/projects/shop/0")
    server.logs["log2"] = [b"Traceback ...\n[failed] Task execution failed\n"]
    server.refuse["GET /api/v1/experiments/job2"] = (200, job("ann/projects/shop/2", state="failed"))
    ran = command("run", "--follow", "python app.py")
    assert ran.code == 1
    assert ran.out.endswith("[failed] Task execution failed\n")


def test_restart(project: Path, server: State, command: Run) -> None:
    """The same code, with what is to be otherwise, under a new number and endpoint."""
    server.jobs["ann/projects/shop/1"] = job(mode="serve", state="success")
    server.data["ann/datasets/pics/1"] = version()
    ran = command("restart", "1", "-m", "again", "--env", "pytorch-1.0", "--gpu", "--data", "pics:input", "--gpu+")
    assert ran.code == 0, ran
    assert "Restarting job 1..." in ran.lines
    assert "ann/projects/shop/2" in ran.lines
    assert "URL to service endpoint: http://h/expose/two" in ran.lines
    (sent,) = server.sent("POST", "/api/v1/experiments/restart/job1")
    assert sent.json() == {"instance_type": "g1", "env": "pytorch-1.0", "data_ids": ["data1:input"], "description": "again"}


def test_restart_as_it_was(project: Path, server: State, command: Run) -> None:
    """Nothing is changed that was not named; a new command can be."""
    server.jobs["ann/projects/shop/1"] = job()
    assert command("restart", "shop/1").code == 0
    assert command("restart", "shop/1", "--", "python", "x.py", "--fast").code == 0
    first, second = server.sent("POST", "/api/v1/experiments/restart/job1")
    assert (first.json(), second.json()) == ({}, {"command": "python x.py --fast"})
