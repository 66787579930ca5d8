"""The model store with the real command: built, listed, served, called, moved, removed, as one would do it."""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import Running, run, serving
from tests.models import build
from tests.unit.library.projects import project, put


def post(server: Running, path: str, body: object) -> Any:
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        content = reply.read()
    return json.loads(content) if content else None


def done(data: Path, *arguments: str, **options: Any) -> str:
    """What a command prints that must succeed."""
    ran = run(data, *arguments, **options)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def says(server: Running, text: str, model: str = "") -> str:
    """What the model answers, over HTTP."""
    answer = post(server, f"{model}/predict", [{"text": text}])
    assert answer["status"] == "success", answer
    return str(answer["outputs"][0]["said"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory in which text:1 is stored."""
    folder = tmp_path / "data"
    done(folder, "build", str(project(tmp_path / "text")), "-n", "text:1")
    return folder


def test_a_models_life(data: Path, tmp_path: Path) -> None:
    """T1: build, list, serve NAME:TAG, predict, tag, remove; what is removed cannot be served."""
    with serving(data, "text:1") as server:
        assert f"{server.url} (Press CTRL+C to quit)" in server.output  # T5
        assert says(server, "hello") == says(server, "hello", "/models/text") == says(server, "hello", "/models/text:1") == "HELLO"
        listed = json.loads(done(data, "models", "--output", "json"))
        assert [(row["repository"], row["tag"], row["running"]) for row in listed] == [("text", "1", False)]  # not at the usual address
        ran = run(data, "predict", "text:1", "-i", "text=hi", "--url", server.url)
        assert (ran.returncode, json.loads(ran.stdout)) == (0, {"said": "HI"})
        assert done(data, "tag", "text:1", "text:stable").startswith("Tagged model")
        assert server.terminate() == 0
    assert done(data, "remove", "text:1") == "Removed: 'text:1'\n"
    with serving(data, "text:stable") as server:
        assert says(server, "x") == "X"
    done(data, "remove", "text:stable")
    ran = run(data, "serve", "text:1", "--port", "0")
    assert ran.returncode == 1
    assert "no model 'text:1' is stored" in ran.stderr


def test_the_newest_is_the_default(data: Path, tmp_path: Path) -> None:
    """T2: `serve` without a target; a folder of other models does not matter."""
    put(project(tmp_path / "second") / "helper.py", "def say(text): return text[::-1]\n")
    done(data, "build", str(tmp_path / "second"), "-n", "second:1")
    with serving(data) as server:
        assert "Use model 'second:1'" in server.output
        assert says(server, "abc") == "cba"


def test_nothing_stored(tmp_path: Path) -> None:
    """It starts empty, and says so."""
    with serving(tmp_path / "data") as server:
        assert "No model is served yet" in server.output
        assert server.terminate() == 0


def test_tungsten_serve(data: Path) -> None:
    """The original's command, over the same store; batch size and log level as it has them."""
    with serving(data, "--batch-size", "2", "--log-level", "trace", verb=("tungsten", "serve")) as server:
        assert "Use model 'text:1'" in server.output
        assert says(server, "x") == "X"
        with urllib.request.urlopen(f"{server.url}/dragoman/v1/models", timeout=60) as reply:
            (row,) = json.load(reply)["models"]
        assert row["max_batch_size"] == 2
        assert server.terminate() == 0
    ran = run(data, "tungsten", "serve", "other")
    assert (ran.returncode, ran.stderr.startswith("ModelNotFound: 'other'")) == (1, True)
    assert run(data, "tungsten", "serve", "--log-level", "verbose").returncode == 2


SIZES = """
import time
from tungstenkit import BaseIO, define_model

class In(BaseIO):
    number: int

class Out(BaseIO):
    together: int

@define_model(input=In, output=Out, batch_size=2)
class Sizes:
    def predict(self, inputs):
        time.sleep(0.2)
        return [Out(together=len(inputs)) for _ in inputs]
"""


@pytest.mark.parametrize("stored", [False, True])
def test_the_operators_batch_size(tmp_path: Path, stored: bool) -> None:
    """T3: what is declared, unless --batch-size says otherwise, in either direction; for what lies there and for what is stored."""
    data = tmp_path / "data"
    target = str(put(tmp_path / "sizes" / "tungsten_model.py", SIZES))
    if stored:
        done(data, "build", target, "-n", "sizes:1")
        target = "sizes:1"

    def largest(*flags: str) -> int:
        with serving(data, target, *flags) as server:
            answer = post(server, "/predict", [{"number": n} for n in range(12)])
            return max(int(each["together"]) for each in answer["outputs"])

    assert largest() == 2
    assert largest("--batch-size", "1") == 1
    assert 2 < largest("--batch-size", "6") <= 6


def test_a_new_build_is_served_after_loading_it_again(data: Path, tmp_path: Path) -> None:
    """The target is a name: what it means is looked up when the model is loaded."""
    with serving(data, "text") as server:
        assert says(server, "abc") == "ABC"
        put(tmp_path / "text" / "helper.py", "def say(text): return text[::-1]\n")
        done(data, "build", str(tmp_path / "text"), "-n", "text:2")
        post(server, "/v2/repository/models/text/load", {})
        assert says(server, "abc") == "cba"
        assert says(server, "abc", "/models/text:2") == "cba"


def test_push_and_pull(data: Path, tmp_path: Path) -> None:
    """Into a folder, and from there into another data directory, where it is served. The same twice is no error, other content is one."""
    place = tmp_path / "place"
    done(data, "push", "text:1", "--to", str(place))
    other = tmp_path / "other"
    assert done(other, "pull", "text", "--from", place.as_uri()) == "Pulled 'text:1'\n"
    with serving(other, "text:1") as server:
        assert says(server, "x") == "X"
    put(tmp_path / "text" / "helper.py", "def say(text): return text[::-1]\n")
    done(data, "build", str(tmp_path / "text"), "-n", "text:1", "--yes")
    ran = run(data, "push", "text:1", "--to", str(place))
    assert (ran.returncode, "is another model" in ran.stderr) == (1, True)


def test_the_image_serves(data: Path, tmp_path: Path) -> None:
    """T6: the entry point of the Dockerfile, on the folder that the image would have."""
    done(data, "build", str(tmp_path / "text"), "-n", "team/text:1", "--dockerfile", str(tmp_path / "image"))
    text = (tmp_path / "image" / "Dockerfile").read_text()
    entry = json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[0])
    assert entry[:2] == ["dragoman", "serve"]
    assert entry[-4:] == ["--host", "0.0.0.0", "--port", "3000"]
    arguments = [word.replace("/model", str(tmp_path / "image" / "model")) for word in entry[2:-4]]
    with serving(tmp_path / "fresh", *arguments, extra={"DRAGOMAN_ENVIRONMENTS": "never"}) as server:
        assert says(server, "x") == says(server, "x", "/models/text") == "X"


def test_a_setup_that_fails(tmp_path: Path) -> None:
    """T28: the model's own error is visible and the command ends with 1; what is built can still fail so."""
    source = project(tmp_path / "text", body="def setup(self): raise RuntimeError('no weights')")
    data = tmp_path / "data"
    done(data, "build", str(source), "-n", "text:1")
    for target in (str(source), "text:1"):
        ran = run(data, "serve", target, "--port", "0")
        assert ran.returncode == 1
        assert "no weights" in ran.stderr


def test_a_damaged_model(data: Path) -> None:
    """Is not served; the file is named."""
    (helper,) = (data / "dragoman" / "models").rglob("helper.py")
    helper.chmod(0o644)
    helper.write_text("changed = True")
    ran = run(data, "serve", "text:1", "--port", "0")
    assert ran.returncode == 1
    assert "'helper.py' is missing or has changed" in ran.stderr


def test_other_models_are_stored_too(tmp_path: Path) -> None:
    """One store for all: an ONNX file under a name, served beside a file."""
    data = tmp_path / "data"
    file = build.iris(tmp_path / "iris.onnx")
    done(data, "build", str(file), "-n", "iris:1")
    with serving(data, "iris:1", f"other={file}") as server:
        for name in ("iris", "other"):
            answer = post(server, f"/v1/models/{name}:predict", {"instances": [[5.0, 3.4, 1.5, 0.2]]})
            assert answer["predictions"]


def test_several_workers_find_it_too(data: Path) -> None:
    """Each looks the name up."""
    with serving(data, "text:1", "--workers", "2") as server:
        assert says(server, "x") == "X"
        assert server.terminate() == 0
