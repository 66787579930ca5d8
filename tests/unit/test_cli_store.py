"""The commands of the model store in this process: what they print and exit with. Serving what they made is tested end to end."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import dragoman
from dragoman.cli import main
from tests.e2e.running import run
from tests.models import build
from tests.unit.library.projects import project, put


@dataclass
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command in a fresh folder with a data directory of its own, and text on standard input."""
    for name in ("DRAGOMAN_URL", "DRAGOMAN_REMOTE", "DRAGOMAN_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        printed = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Ran(caught.value.code, printed.out, printed.err)

    return run


@pytest.fixture
def iris(command: Run, tmp_path: Path) -> Path:
    """A model file that is stored as iris:1."""
    file = build.iris(tmp_path / "iris.onnx")
    assert command("build", str(file), "-n", "iris:1").code == 0
    return file


# --- build ---


def test_build(command: Run, tmp_path: Path) -> None:
    """It says the name and what can be done with it."""
    project(tmp_path / "My_Text")
    ran = command("build", "My_Text")
    name = ran.out.split("'")[1]
    assert (ran.code, name.split(":")[0]) == (0, "tungsten-my-text")
    assert f"dragoman serve {name}" in ran.out
    assert command("build", "My_Text", "-n", "text:1").out.startswith("Successfully built model: 'text:1'\n")


def test_an_existing_name_is_asked_for(command: Run, iris: Path, tmp_path: Path) -> None:
    """The end of input is a no; --yes asks nothing; a new tag needs no question."""
    put(tmp_path / "other" / "model.onnx", build.add_sub(tmp_path / "m.onnx").read_bytes())
    again = command("build", "other", "-n", "iris:1")
    assert (again.code, again.out) == (1, "'iris:1' exists already. Replace it? [y/n]: \nCancelled\n")
    assert command("build", "other", "-n", "iris:1", stdin="n\n").code == 1
    assert command("build", "other", "-n", "iris:1", stdin="y\n").code == 0
    assert command("build", "other", "-n", "iris:1", "-y").code == 0
    assert command("build", "other", "-n", "iris:2").code == 0
    rows = json.loads(command("models", "--output", "json").out)
    assert {(r["tag"], r["version"]) for r in rows} == {("1", "2"), ("2", "2"), ("", "1")}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gone"], 2, "there is no gone"),
        (["."], 2, "no runtime knows"),
        (["iris.onnx", "-n", "Iris"], 2, "not a model name"),
        (["iris.onnx", "--copy-files", "a"], 2, "SRC:DEST"),
        (["iris.onnx", "--copy-files", "a:"], 2, "SRC:DEST"),
        (["iris.onnx", "--copy-files", "gone:x"], 2, "there is no gone"),
        (["iris.onnx", "--dockerfile", "empty"], 2, "exists already"),
        (["iris.onnx", "--environments", "sometimes"], 2, "auto, always, never"),
        (["broken"], 1, "cannot be imported"),
    ],
)
def test_builds_that_fail(command: Run, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    """2 for what was asked, 1 for what the model did."""
    build.iris(tmp_path / "iris.onnx")
    (tmp_path / "empty").mkdir()
    put(tmp_path / "broken" / "tungsten_model.py", "1 / 0")
    if arguments == ["."]:
        (tmp_path / "iris.onnx").unlink()
        (tmp_path / "broken" / "tungsten_model.py").unlink()
    ran = command("build", *arguments)
    assert (ran.code, message in ran.err) == (code, True), ran.err


def test_build_with_a_dockerfile(command: Run, tmp_path: Path) -> None:
    """T6: file and context are there."""
    project(tmp_path / "text")
    ran = command("build", "text", "-n", "text:1", "--dockerfile", "image")
    assert "docker build -t text:1 image" in ran.out
    assert (tmp_path / "image" / "Dockerfile").read_text().startswith("# text:1, ")
    assert (tmp_path / "image" / "model" / "helper.py").exists()


# --- models, tag, remove, clear, extract ---


def test_models(command: Run, iris: Path) -> None:
    """A table of what is stored; nothing runs."""
    heading, row = command("models").out.splitlines()
    assert heading.split() == ["repository", "tag", "version", "model", "class", "created", "id", "running"]
    assert row.split()[:4] == ["iris", "1", "1", "onnx"]


def test_models_that_run(command: Run, iris: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marked by their digest, not by their name: the same name from a file is another model. T37: no docker."""
    with dragoman.serve("iris:1", f"other={iris}", data_dir=str(Path("data/dragoman").absolute())) as server:
        assert server.loaded.failed == ()
        monkeypatch.setenv("DRAGOMAN_URL", server.url)
        assert command("models").out.splitlines()[1].endswith(f"as iris at {server.url}")
        assert json.loads(command("models", "--output", "json").out)[0]["running"] is True
        served = json.loads(command("models", "--url", server.url, "--output", "json").out)
        assert [(r["name"], "digest" in r) for r in served] == [("iris", True), ("other", False)]
    assert json.loads(command("models", "--output", "json").out)[0]["running"] is False


def test_no_models_and_no_server(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are said, and no database is made by looking."""
    monkeypatch.setenv("DRAGOMAN_URL", "http://127.0.0.1:9")
    ran = command("models")
    assert (ran.code, ran.out) == (1, "")
    assert "no model is stored, and there is no server at http://127.0.0.1:9" in ran.err
    assert not Path("data").exists()


def test_tag_and_remove(command: Run, iris: Path) -> None:
    """A second name, and each taken away again; the files go with the last one."""
    assert command("tag", "iris:1", "iris").out == "Tagged model 'iris:1' to 'iris:latest'.\n"
    assert command("tag", "iris", "flowers:x").out == "Tagged model 'iris' to 'flowers:x'.\n"
    for name in ("iris:1", "iris:latest", "flowers:x"):
        assert list(Path("data").rglob("iris.onnx"))
        assert command("remove", name).out == f"Removed: '{name}'\n"
    assert not list(Path("data").rglob("iris.onnx"))
    ran = command("remove", "iris:1")
    assert (ran.code, ran.err) == (1, "dragoman: no model 'iris:1' is stored\n")
    assert command("tag", "nobody", "x").code == 1
    assert command("tag", "iris:1", "No Name").code in (1, 2)


def test_clear(command: Run, iris: Path) -> None:
    """Everything only after a yes."""
    assert command("clear").code == 1
    assert command("clear", "nobody").code == 1
    assert command("clear", "-y").out == "Removed: 'iris:1'\n"
    assert command("clear", stdin="yes\n").code == 0


def test_extract(command: Run, iris: Path) -> None:
    """The files, in a new folder; by default of the newest model."""
    assert command("extract", "-d", "out").out == "Extracted 'iris:1' to out/iris\n"
    assert Path("out/iris/iris.onnx").read_bytes() == iris.read_bytes()
    assert "exists already" in command("extract", "iris", "-d", "out").err
    assert command("extract", "nobody").code == 1


# --- push and pull ---


def test_push_and_pull(command: Run, iris: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an option or the environment; the same again is no error."""
    assert command("push", "iris").code == 2
    assert command("push", "iris", "--to", "place").out == "Pushed 'iris:1' as 'iris:1'\n"
    assert command("push", "iris", "--to", "place").out == "'iris:1' is there already\n"
    assert command("push", "iris:1", "--to", "place", "--as", "team/iris:2").out == "Pushed 'iris:1' as 'team/iris:2'\n"
    monkeypatch.setenv("DRAGOMAN_REMOTE", "place")
    assert command("pull", "iris").out == "'iris:1' is here already\n"
    command("clear", "-y")
    assert command("pull", "team/iris", "--as", "mine").out == "Pulled 'mine:2'\n"
    assert command("pull", "iris:9").code == 1
    assert command("pull", "iris", "--from", "s3://").code == 2


# --- predict by fields ---


def test_predict_loads_the_model_here(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no server answers; a stored model, or a path. A second "=" belongs to the value."""
    monkeypatch.setenv("DRAGOMAN_URL", "http://127.0.0.1:9")
    project(tmp_path / "text")
    command("build", "text", "-n", "text:1")
    for name in ("text:1", "text/tungsten_model.py"):
        ran = command("predict", name, "-i", "text=a=b", "-i", "loud=yes")
        assert (ran.code, ran.out) == (0, '{\n  "said": "A=B"\n}\n'), ran.err


def test_predict_with_json_loads_the_model_here(command: Run, iris: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As with fields: where no server answers, where the server does not have the model, or when told so; not where a server is named."""
    monkeypatch.setenv("DRAGOMAN_URL", "http://127.0.0.1:9")
    row = "[[5.0, 3.4, 1.5, 0.2]]"
    for target in ("iris", "iris:1", "iris.onnx"):
        ran = command("predict", target, row)
        assert (ran.code, json.loads(ran.out)[0]["label"]) == (0, [0]), ran.err
    project(tmp_path / "text")
    named = command("predict", "text", '{"text": ["a"]}')
    assert (named.code, json.loads(named.out)) == (0, ["A"]), named.err
    with dragoman.serve("text", port=0) as server:
        monkeypatch.setenv("DRAGOMAN_URL", server.url)
        assert command("predict", "iris", row).code == 0
        assert "answers 404" in command("predict", "iris", row, "--url", server.url).err
        monkeypatch.setenv("DRAGOMAN_URL", "nonsense")
        assert command("predict", "iris", row, "--local").code == 0
    nobody = command("predict", "nobody", row, "--local")
    assert (nobody.code, "no model 'nobody' is stored" in nobody.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-i", "text"], 2, "FIELD=VALUE"),
        (["-i", "more=1"], 2, "no field 'more'"),
        (["-i", "loud=1"], 1, "text: field required"),
        (["-i", "text=1", "[1]"], 2, "not both"),
        ([], 2, "give an INPUT or fields"),
        (["-i", "text=1", "--url", "http://127.0.0.1:9"], 1, "there is no server"),
    ],
)
def test_predictions_that_are_refused(command: Run, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    """In the command's words or the model's."""
    project(tmp_path / "text")
    ran = command("predict", "text", *(["--local"] if "--url" not in arguments else []), *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err


def test_a_prediction_that_fails(command: Run, tmp_path: Path) -> None:
    """Exit code 1 and the model's own error."""
    put(project(tmp_path / "text") / "helper.py", "def say(text): raise ValueError('boom')")
    ran = command("predict", "text", "-i", "text=x", "--local")
    assert (ran.code, ran.out) == (1, "")
    assert "boom" in ran.err


def test_predict_asks_the_server(command: Run, tmp_path: Path) -> None:
    """By name or with a tag; what it does not have is its own error when it was named."""
    project(tmp_path / "text")
    with dragoman.serve("text", data_dir=str(tmp_path / "other")) as server:
        ran = command("predict", "text", "-i", "text=x", "--url", server.url)
        assert (ran.code, json.loads(ran.out)) == (0, {"said": "X"})
        ran = command("predict", "nobody", "-i", "text=x", "--url", server.url)
        assert (ran.code, "answers 404" in ran.err) == (1, True)


# --- serve ---


@pytest.mark.parametrize("level", ["trace", "debug", "info", "warning", "error"])
def test_log_levels(command: Run, level: str) -> None:
    """T4: Tungsten's five words; the default is info; another one is a wrong command."""
    assert f'log_level = "{level}"' in command("serve", "--log-level", level, "--print-config").out
    assert 'log_level = "info"' in command("serve", "--print-config").out
    ran = command("serve", "--log-level", f"{level}s")
    assert (ran.code, "--log-level" in ran.err) == (2, True)


def test_serve_without_a_target(command: Run, iris: Path) -> None:
    """The newest stored model is the target."""
    out = command("serve", "--print-config").out
    assert "targets = []" in out  # the settings are as they were given


def test_serve_with_a_name_that_nothing_has(tmp_path: Path) -> None:
    """T2 and T28: an error with both readings, and exit code 1. In a process of its own, which serving ends in any case."""
    ran = run(tmp_path, "serve", "nobody:1", "--port", "0")
    assert ran.returncode == 1
    assert "no model 'nobody:1' is stored" in ran.stderr


# --- Tungsten's words ---


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["build"],
        ["serve"],
        ["demo"],
        ["predict"],
        ["models"],
        ["tag"],
        ["remove"],
        ["clear"],
        ["extract"],
        ["push"],
        ["pull"],
        ["login"],
    ],
)
def test_every_command_of_tungsten_explains_itself(command: Run, arguments: list[str]) -> None:
    """-h as well as --help, without docker."""
    for flag in ("-h", "--help"):
        ran = command("tungsten", *arguments, flag)
        assert ran.code == 0
        assert ran.out.startswith("usage: tungsten")


def test_tungstens_version(command: Run) -> None:
    """The one whose commands these are, and ours."""
    assert command("tungsten", "--version").out == f"tungstenkit, version 0.2.20 (Dragoman {dragoman.__version__})\n"


@pytest.mark.parametrize("arguments", [["serve"], ["demo"], ["predict", "-i", "a=1"], ["extract"]])
def test_no_available_models(command: Run, arguments: list[str]) -> None:
    """T2."""
    ran = command("tungsten", *arguments)
    assert (ran.code, ran.out, ran.err) == (1, "", "No available models. Please build or pull first.\n")


@pytest.mark.parametrize(
    "arguments", [["serve", "x"], ["demo", "x"], ["predict", "x", "-i", "a=1"], ["remove", "x"], ["extract", "x"], ["tag", "x", "y"]]
)
def test_a_model_that_is_not_there(command: Run, iris: Path, arguments: list[str]) -> None:
    """Named, with what to do."""
    ran = command("tungsten", *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("ModelNotFound: 'x'. Build or pull the model first")


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--log-level", "verbose"],
        ["serve", "-p", "x"],
        ["serve", "a", "b"],
        ["demo", "--log-level", ""],
        ["fly"],
        [],
        ["models", "x"],
        ["tag", "x"],
        ["predict", "--fields"],
    ],
)
def test_wrong_commands_of_tungsten(command: Run, arguments: list[str]) -> None:
    """T4: exit code 2."""
    ran = command("tungsten", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "Error: " in ran.err


def test_tungsten_from_build_to_remove(command: Run, tmp_path: Path) -> None:
    """The original's sentences."""
    project(tmp_path / "text")
    built = command("tungsten", "build", "text", "-n", "text:1")
    assert built.out.splitlines()[0] == "Successfully built tungsten model: 'text:1'"
    heading, row = command("tungsten", "models").out.splitlines()
    assert heading.split() == ["Repository", "Tag", "Model", "Class", "Created", "ID"]
    assert row.split()[:3] == ["text", "1", "tungsten_model:Echo"]
    ran = command("tungsten", "predict", "-i", "text=x")
    assert (ran.code, json.loads(ran.out)) == (0, {"said": "X"})
    assert "Use model 'text:1'" in ran.err
    assert command("tungsten", "predict", "text", "-i", "text=x").code == 0
    assert command("tungsten", "tag", "text:1", "copy:2").out == "Tagged model 'text:1' to 'copy:2'.\n"
    assert command("tungsten", "push", "copy", "--to", "place").code == 1
    assert command("tungsten", "push", "copy:2", "--to", "place").code == 0
    assert command("tungsten", "remove", "copy:2").out == "Removed: 'copy:2'\n"
    assert command("tungsten", "pull", "copy", "--from", "place").out == "Pulled 'copy:2'\n"
    assert command("tungsten", "clear", stdin="y\n").code == 0


def test_the_path_of_tungsten(command: Run) -> None:
    """With it a script of anybody's imports tungstenkit, in a Python that has nothing else of ours."""
    ran = command("tungsten", "path")
    script = "import tungstenkit; print(tungstenkit.__version__, tungstenkit.__file__)"
    told = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": ran.out.strip()}, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["0.2.20", f"{ran.out.strip()}/tungstenkit/__init__.py"]


def test_names_and_logins_of_tungsten(command: Run, iris: Path) -> None:
    """InvalidName as the original calls it; there is nobody to log in to."""
    ran = command("tungsten", "serve", "No Name")
    assert (ran.code, ran.err.startswith("InvalidName: ")) == (1, True)
    assert command("tungsten", "build", "iris.onnx", "-n", "No").err.startswith("InvalidName: ")
    ran = command("tungsten", "login", "https://example.org", "-u", "me")
    assert (ran.code, "no server to log in to" in ran.err) == (1, True)
