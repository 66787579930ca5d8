"""The command line in this process: what it takes, prints and exits with, against a real server."""

import io
import json
import os
import shlex
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

import dragoman
from dragoman.cli import main, parse
from dragoman.cli.banner import banner
from dragoman.embed import Server
from dragoman.server.configuration import flag_of, read
from dragoman.server.loading import Loaded
from dragoman.server.settings import Settings
from tests.models import build

ROW = [[5.0, 3.4, 1.5, 0.2]]


@dataclass
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with arguments, and text on standard input."""
    for name in list(os.environ):
        if name.startswith("DRAGOMAN_"):
            monkeypatch.delenv(name)

    def run(*arguments: str, stdin: str | bytes = "") -> Ran:
        content = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        assert isinstance(caught.value.code, int)
        return Ran(caught.value.code, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one good model and one that failed."""
    folder = tmp_path_factory.mktemp("models")
    build.iris(folder / "iris.onnx")
    build.iris(folder / "two" / "1" / "model.onnx")
    named = f"named:v1={folder / 'iris.onnx'}"
    with dragoman.serve(str(folder / "iris.onnx"), str(folder / "two"), named, str(folder / "gone.onnx")) as running:
        yield running


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Something that takes one connection and sends these bytes, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=talk)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


# --- help and errors of the command itself ---


@pytest.mark.parametrize("arguments", [[], ["serve"], ["models"], ["status"], ["predict"], ["keys"], ["keys", "add"], ["keys", "list"]])
def test_every_command_explains_itself(command: Run, arguments: list[str]) -> None:
    """--help ends with 0 and is not empty."""
    ran = command(*arguments, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert "usage: dragoman" in ran.out


def test_the_help_of_serve_has_every_setting(command: Run) -> None:
    """Its flag and its explanation; those that take a choice show it."""
    text = " ".join(command("serve", "--help").out.split())
    for spec in fields(Settings)[1:]:
        assert flag_of(spec.name) in text
        assert " ".join(spec.metadata["help"].split())[:40] in text
    assert "wait|background" in text
    assert "(default: 4096)" in text
    assert "--no-no-auth" not in text


def test_version(command: Run) -> None:
    """The package's own."""
    assert command("--version").out == f"dragoman {dragoman.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["serve", "--prot", "1"],
        ["models", "iris"],
        ["serve", "--port", "http"],
        ["serve", "--workers", "0"],
        ["serve", "--config", "/nowhere.toml"],
        ["serve", "--load", "later"],
        ["predict", "iris"],
        ["predict", "iris", "[1"],
        ["predict", "iris", "@/nowhere.json"],
        ["models", "--url", "ftp://host"],
        ["models", "--output", "xml"],
        ["keys", "add", "a b"],
    ],
)
def test_wrong_commands_end_with_2(command: Run, arguments: list[str]) -> None:
    """One readable line at least, on standard error only."""
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err


def test_every_flag_reaches_its_setting() -> None:
    """What is made of the flags is what `read` expects; targets may stand anywhere between them."""
    options = parse(
        [
            "serve",
            "a.onnx",
            "-p",
            "1",
            "--port",
            "2",
            "--max-body",
            "1k",
            "--cors",
            "--no-access-log",
            "--no-auth",
            "--allow-fetch",
            "x",
            "b=c",
        ]
    )
    settings = read({f.name: getattr(options, f.name) for f in fields(Settings)}, environ={})
    assert (settings.targets, settings.port, settings.max_body) == (("a.onnx", "b=c"), (1, 2), 1024)
    assert (settings.cors, settings.access_log, settings.no_auth, settings.allow_fetch) == (True, False, True, ("x",))


def test_print_config(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of file, environment and flags, in a form that --config takes."""
    file = tmp_path / "d.toml"
    file.write_text("workers = 2\nhost = '::1'")
    monkeypatch.setenv("DRAGOMAN_HOST", "127.0.0.2")
    ran = command("serve", "m.onnx", "--config", str(file), "--timeout", "5", "--print-config")
    assert ran.code == 0
    again = tmp_path / "again.toml"
    again.write_text(ran.out)
    monkeypatch.delenv("DRAGOMAN_HOST")
    settings = read({}, str(again), {})
    assert (settings.targets, settings.workers, settings.host, settings.timeout) == (("m.onnx",), 2, "127.0.0.2", 5.0)
    assert command("serve", "--config", str(again), "--print-config").out == ran.out


# --- models and status ---


def test_models_as_a_table(command: Run, server: Server) -> None:
    """One line per version under a heading, columns aligned, no trailing blanks."""
    ran = command("models", "--url", server.url)
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert [line.split()[:3] for line in lines] == [
        ["name", "version", "state"],
        ["gone", "failed", "there"],
        ["iris", "1", "ready"],
        ["named", "v1", "ready"],
        ["two", "1", "ready"],
    ]
    assert len({line.index(word) for line, word in zip(lines, ("state", "failed", *["ready"] * 3), strict=True)}) == 1
    assert all(line == line.rstrip() for line in lines)


def test_models_as_json(command: Run, server: Server) -> None:
    """The same rows with everything that the server says of them."""
    rows = json.loads(command("models", "--url", server.url + "/", "--output", "json").out)
    assert [(r["name"], r["state"]) for r in rows] == [("gone", "failed"), ("iris", "ready"), ("named", "ready"), ("two", "ready")]
    assert rows[1]["platform"] == "onnxruntime_onnx"


def test_status_says_whether_it_is_ready(command: Run, server: Server) -> None:
    """Exit code 1 while a model is not; the table says which and why."""
    ran = command("status", "--url", server.url)
    assert ran.code == 1
    assert ran.out.startswith(f"dragoman {dragoman.__version__} at {server.url} is not ready\n")
    assert "there is no" in ran.out
    assert json.loads(command("status", "--url", server.url, "--output", "json").out)["ready"] is False
    with dragoman.serve() as other:
        ready = command("status", "--url", other.url)
        assert (ready.code, ready.out.splitlines()[0].endswith("is ready")) == (0, True)


def test_the_url_can_come_from_the_environment(command: Run, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers do it."""
    monkeypatch.setenv("DRAGOMAN_URL", server.url)
    assert command("models").code == 0


# --- predict ---


@pytest.mark.parametrize("value", [ROW, {"X": ROW}], ids=["rows", "named"])
@pytest.mark.parametrize("way", ["argument", "file", "standard input"])
def test_predict(command: Run, server: Server, tmp_path: Path, way: str, value: Any) -> None:
    """Rows or named inputs, from the command line, a file or standard input; the answer is JSON."""
    text = json.dumps(value)
    (tmp_path / "input.json").write_text(text)
    given = {"argument": text, "file": f"@{tmp_path}/input.json", "standard input": "-"}[way]
    ran = command("predict", "iris", given, "--url", server.url, stdin=text)
    assert (ran.code, ran.err) == (0, "")
    answer = json.loads(ran.out)
    assert (answer[0]["label"] if isinstance(answer, list) else answer["label"][0]) == [0]


def test_predict_a_version(command: Run, server: Server) -> None:
    """NAME:VERSION; one that does not exist is refused in the server's words."""
    assert command("predict", "two:1", json.dumps(ROW), "--url", server.url).code == 0
    for value in (ROW, {"X": ROW[0]}):
        ran = command("predict", "named:v1", json.dumps(value), "--url", server.url)
        assert json.loads(ran.out)[0]["label"] == [0]
    ran = command("predict", "named:v2", json.dumps(ROW), "--url", server.url)
    assert "answers 404: model 'named' has no version 'v2'" in ran.err
    ran = command("predict", "two:7", json.dumps(ROW), "--url", server.url)
    assert ran.code == 1
    assert ran.err.startswith("dragoman: the server answers 404: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "[[1]]"], "answers 404"),
        (["gone", "[[1]]"], "answers 503"),
        (["iris", "[[1, 2]]"], "answers 400"),
        (["iris", "[[1, 2, 3, 4]]", "--signature", "other"], "other"),
        (["a/b", "[[1]]"], "answers 4"),
    ],
)
def test_refusals_are_the_servers_words(command: Run, server: Server, arguments: list[str], message: str) -> None:
    """On standard error, with exit code 1."""
    ran = command("predict", *arguments, "--url", server.url)
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err


def test_input_that_is_no_text(command: Run, server: Server, tmp_path: Path) -> None:
    """Neither a file nor standard input of other bytes than UTF-8, nor endless nesting, is a crash."""
    (tmp_path / "input").write_bytes(b"\xff")
    for given in (f"@{tmp_path}/input", "-"):
        ran = command("predict", "iris", given, "--url", server.url, stdin=b"\xff")
        assert (ran.code, "cannot be read" in ran.err) == (2, True)
    assert command("predict", "iris", "[" * 100_000, "--url", server.url).code == 2


def test_keys_are_sent(command: Run, tmp_path: Path) -> None:
    """A server that asks for one is satisfied by --key; keys are made by `dragoman keys`."""
    file = str(tmp_path / "keys.toml")
    assert "no keys" in command("keys", "list", "--api-key-file", file).out
    key = command("keys", "add", "me", "--api-key-file", file).out.strip()
    assert command("keys", "list", "--api-key-file", file).out == "me  infer\n"
    assert "already has a key named me" in command("keys", "add", "me", "--api-key-file", file).err
    model = build.iris(tmp_path / "iris.onnx")
    with dragoman.serve(str(model), api_key_file=file, require_key=True) as running:
        asked = ("predict", "iris", json.dumps(ROW), "--url", running.url)
        assert "answers 401" in command(*asked).err
        assert command(*asked, "--key", key).code == 0


# --- servers that are not there, or something else ---


@pytest.mark.parametrize("subject", [["models"], ["status"], ["predict", "m", "[1]"]])
def test_no_server(command: Run, subject: list[str]) -> None:
    """The message asks the right question."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ran = command(*subject, "--url", url)
    assert ran.code == 1
    assert f"there is no server at {url}: " in ran.err
    assert "is `dragoman serve` running?" in ran.err


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\n{]}",
        b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
)
@pytest.mark.parametrize("subject", ["models", "status"])
def test_something_else_answers(command: Run, subject: str, answer: bytes) -> None:
    """Other web servers, other protocols, broken answers: a sentence and exit code 1."""
    with answering(answer) as url:
        ran = command(subject, "--url", url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("dragoman: ")


@pytest.mark.parametrize("url", ["http://", "http://a b", "http://[::1", "http://127.0.0.1:99999", "nonsense", "http://\u0000x"])
def test_addresses_that_are_none(command: Run, url: str) -> None:
    """A sentence, and no traceback."""
    ran = command("models", "--url", url)
    assert ran.code in (1, 2)
    assert ran.err.startswith("dragoman: ")


# --- the banner ---


def test_the_lines_of_the_banner_survive_a_shell() -> None:
    """Names and texts with quotes and blanks are quoted; names are percent-encoded in URLs."""
    sample = {"name": "it's a model", "rows": [{"x": "it's"}], "inputs": [{"name": "x", "data": ["it's"]}], "instances": ["it's"]}
    text = banner(Settings(), [3000], Loaded(("it's a model",), (), (sample,)))
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("  ")]
    assert [line[0] for line in lines] == ["curl", "curl", "curl", "dragoman"]
    assert lines[0][1:4] == ["http://127.0.0.1:3000/predict", "-H", "Content-Type: application/json"]
    assert json.loads(lines[0][5]) == sample["rows"]
    assert lines[1][1] == "http://127.0.0.1:3000/v2/models/it%27s%20a%20model/infer"
    assert json.loads(lines[1][3]) == {"inputs": sample["inputs"]}
    assert lines[2][1] == "http://127.0.0.1:3000/v1/models/it%27s%20a%20model:predict"
    assert lines[3][1:4] == ["predict", "it's a model", '["it\'s"]']


@pytest.mark.parametrize(("ready", "failed"), [(("first", "m"), ()), (("m",), (("first", "no"),))])
def test_the_banner_shows_what_there_is(ready: tuple[str, ...], failed: tuple[tuple[str, str], ...]) -> None:
    """Only protocols with a sample; the model's own path where the root means another model, or may."""
    text = banner(Settings(), [3000], Loaded(ready, failed, ({"name": "m", "rows": [{"x": 1}], "inputs": None, "instances": None},)))
    (line,) = [shlex.split(line) for line in text.splitlines() if line.startswith("  ")]
    assert line[1] == "http://127.0.0.1:3000/models/m/predict"


def test_the_banner_of_a_model_of_whole_requests() -> None:
    """Its own plain lists, and the command that asks it."""
    text = banner(Settings(), [3000], Loaded(("m",), (), ({"name": "m", "points": [[0.5, "text"]]},)))
    curl, predict = [shlex.split(line) for line in text.splitlines() if line.startswith("  ")]
    assert (curl[1], json.loads(curl[3])) == ("http://127.0.0.1:3000/v2/models/m/infer", {"inputs": [[0.5, "text"]]})
    assert (predict[:3], json.loads(predict[3])) == (["dragoman", "predict", "m"], [[0.5, "text"]])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), "http://127.0.0.1:3000, http://127.0.0.1:8000"),
        (Settings(host="::1"), "http://[::1]:3000"),
        (Settings(host="0.0.0.0"), "http://0.0.0.0:3000"),
        (Settings(tls_cert="c", tls_key="k"), "https://127.0.0.1:3000"),
    ],
)
def test_the_banner_has_every_address(settings: Settings, expected: str) -> None:
    """With the scheme and the brackets that a URL needs; links lead to this machine."""
    text = banner(settings, [3000, 8000], Loaded((), (("bad", "no"),), ()))
    assert expected in text
    assert "0.0.0.0:3000/" not in text


def test_the_banner_while_models_load() -> None:
    """It says where to see how far they are; without targets, what to do."""
    assert "/v2/health/ready" in banner(Settings(), [1], None)
    only = banner(replace(Settings(), grpc_port=(5,)), [], Loaded(("m",), (), ()), 7)
    assert only.startswith("\nDragoman is listening on 127.0.0.1:5 (")
    assert "Metrics, and nothing else: http://127.0.0.1:7/metrics" in only
    assert "Pages" not in only
    assert "http" not in banner(replace(Settings(), grpc_port=(5,)), [], None)
    both = banner(replace(Settings(), grpc_port=(5,), grpc_host="::1"), [1], Loaded((), (), ()))
    assert "gRPC: [::1]:5" in both
    assert "No model is served yet" in banner(Settings(), [1], Loaded((), (), ()))
    assert "failed: bad" in banner(Settings(), [1], Loaded(("good",), (("bad", "no"),), ()))


@pytest.mark.parametrize(
    ("settings", "ready", "told"),
    [
        (Settings(), (), True),
        (Settings(), ("m",), False),
        (Settings(jobs="off"), (), False),
        (Settings(host="0.0.0.0"), (), False),
        (Settings(host="0.0.0.0", jobs="on"), (), True),
    ],
)
def test_the_banner_of_a_server_for_jobs(settings: Settings, ready: tuple[str, ...], told: bool) -> None:
    """Where there is no model, what else it is good for, if it runs jobs."""
    said = "dragoman run --mode serve --url http://127.0.0.1:3000" in banner(settings, [3000], Loaded(ready, (), ()))
    assert said is told


def test_namespaces_that_this_machine_does_not_allow(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose jobs must have them does not start."""
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = command("serve", "-p", "0", "--data-dir", str(tmp_path / "data"), "--job-isolation", "namespaces")
    assert ran.code == 1
    assert ran.err == "dragoman: --job-isolation namespaces is not possible here: bubblewrap is not installed\n"
    assert not (tmp_path / "data").exists()
