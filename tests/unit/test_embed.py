"""The server inside a program: with sockets, without any, several at once, and what is left when it ends or fails."""

import asyncio
import gc
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

import dragoman
from dragoman.core.errors import Kind
from tests.models import build
from tests.packages import installed

IRIS = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [5.0, 3.4, 1.5, 0.2]}]}
BROKEN = """
from tests.fakes import FakeModel
models = []

def load(spec):
    models.append(FakeModel())
    return models[-1]
"""


@pytest.fixture
def iris(tmp_path: Path) -> Path:
    """A model file."""
    return build.iris(tmp_path / "iris.onnx")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Each test must leave as many threads as it found; whatever it forgot to close warns, which is an error here."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    assert not [t for t in threading.enumerate() if t not in before]


def call(url: str, path: str, body: object = None) -> Any:
    """One request over a socket."""
    data = None if body is None else orjson.dumps(body)
    with urllib.request.urlopen(url + path, data, timeout=30) as reply:
        return orjson.loads(reply.read())


def label(answer: Any) -> list[int]:
    (found,) = [o["data"] for o in answer["outputs"] if o["name"] == "label"]
    return list(found)


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


# --- with sockets ---


def test_serve_answers_until_its_block_ends(iris: Path) -> None:
    """On a free port of its own; afterwards the port is free again."""
    with dragoman.serve(str(iris)) as server:
        assert server.url == f"http://127.0.0.1:{server.ports[0]}"
        assert (server.loaded.ready, server.loaded.failed) == (("iris",), ())
        assert label(call(server.url, "/v2/models/iris/infer", IRIS)) == [0]
        assert call(server.url, "/v1/models/iris:predict", {"instances": [[6.6, 3.0, 5.6, 2.0]]})["predictions"][0]["label"] == [2]
        assert call(server.url, "/dragoman/v1/status")["ready"] is True
    assert refuses(server.ports[0])
    with socket.create_server(("127.0.0.1", server.ports[0])):
        pass


def test_grpc_has_a_port_of_its_own(iris: Path) -> None:
    """A free one for 0; twice in one process, which shares the library between them; afterwards it is free again."""
    for _ in range(2):
        with dragoman.serve(str(iris), grpc_port=0) as server:
            (port,) = server.grpc_ports
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
                assert ready(b"", timeout=30) == b"\x08\x01"
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff", timeout=30)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refuses(port)


def test_stopping_twice_does_no_harm(iris: Path) -> None:
    """By hand inside of the block, and again."""
    with dragoman.serve(str(iris)) as server:
        server.stop()
        assert refuses(server.ports[0])
    server.stop()


def test_several_servers_in_one_process(iris: Path) -> None:
    """Each with its own models and ports; one may end before the other."""
    with dragoman.serve(f"a={iris}", port=[0, 0]) as first, dragoman.serve(f"b={iris}") as second:
        assert len({*first.ports, *second.ports}) == 3
        for port in first.ports:
            assert label(call(f"http://127.0.0.1:{port}", "/v2/models/a/infer", IRIS)) == [0]
        first.stop()
        assert call(second.url, "/v2/models")["models"] == ["b"]
        assert all(refuses(port) for port in first.ports)


def test_settings_are_those_of_the_command_line(iris: Path) -> None:
    """With underscores; the environment and files do not count."""
    with dragoman.serve(str(iris), name="flowers", batch_size=3) as server:
        (row,) = call(server.url, "/dragoman/v1/models")["models"]
        assert (row["name"], row["max_batch_size"]) == ("flowers", 3)


def test_a_server_without_models(tmp_path: Path) -> None:
    """It answers, and models can be asked for later."""
    with dragoman.serve(data_dir=str(tmp_path)) as server:
        assert server.loaded.ready == ()
        assert call(server.url, "/v2/health/ready")["ready"] is True


def test_a_data_directory_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One that was named raises and leaves nothing behind; in the place of the usual one comes another, for as long as the server runs."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    usual = tmp_path / "dragoman"
    with dragoman.serve() as first:
        assert caplog.text == ""
        with pytest.raises(dragoman.ServingError) as caught:
            dragoman.serve(data_dir=str(usual))
        assert caught.value.kind is Kind.UNAVAILABLE
        assert first.url in caught.value.message
        with pytest.raises(dragoman.ServingError):
            dragoman.serve(store=f"sqlite:///{usual}/dragoman.db", data_dir=str(tmp_path / "else"))
        with dragoman.serve() as second:
            assert call(second.url, "/v2/health/ready")["ready"] is True
            (words,) = [record.getMessage() for record in caplog.records if "another server" in record.getMessage()]
            (other,) = re.findall(r"is in (\S+), until it ends", words)
            assert (Path(other) / "dragoman.db.lock").exists()
        assert not Path(other).exists()
    with dragoman.serve(data_dir=str(usual)) as third, dragoman.serve(data_dir=str(tmp_path / "more")) as fourth:
        assert call(third.url, "/v2/health/ready") == call(fourth.url, "/v2/health/ready")


def test_one_bad_target_of_two(iris: Path, tmp_path: Path) -> None:
    """The good one is served, the reason of the other is in what `serve` returns and in the status."""
    with dragoman.serve(str(iris), str(tmp_path / "none.onnx")) as server:
        assert server.loaded.ready == ("iris",)
        assert server.loaded.failed == (("none", f"there is no {tmp_path}/none.onnx"),)
        rows = call(server.url, "/dragoman/v1/models")["models"]
        assert [(r["name"], r["state"]) for r in rows] == [("iris", "ready"), ("none", "failed")]


def test_targets_that_all_fail_raise(tmp_path: Path) -> None:
    """With every reason; no thread, loop or port stays."""
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(dragoman.ServingError) as caught:
        dragoman.serve(str(tmp_path / "none.onnx"), str(tmp_path / "empty.onnx"))
    assert caught.value.kind is Kind.UNAVAILABLE
    assert "none: there is no" in caught.value.message
    assert "empty: " in caught.value.message


def test_a_taken_port_raises(iris: Path) -> None:
    """The first port is given back when the second cannot be had: a socket that is left open would warn."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}: the port is already in use"):
            dragoman.serve(str(iris), port=[0, port])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prot": 3000}, "no setting called 'prot'"),
        ({"port": 70_000}, "--port is 70000"),
        ({"workers": "many"}, "--workers is 'many'"),
        ({"api_key_file": "/nowhere/keys.toml"}, "/nowhere/keys.toml cannot be read"),
        ({"tls_cert": "/nowhere/cert.pem", "tls_key": "/nowhere/key.pem"}, "/nowhere/cert.pem"),
    ],
)
def test_wrong_settings_raise(iris: Path, settings: dict[str, Any], message: str) -> None:
    """Found at once or when listening begins: the error names the setting, and what was loaded is closed."""
    with pytest.raises(dragoman.ServingError, match=message) as caught:
        dragoman.serve(str(iris), **settings)
    assert caught.value.kind is Kind.INVALID_INPUT


def test_namespaces_for_jobs_that_cannot_be_had_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything listens."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(dragoman.ServingError, match="--job-isolation namespaces is not possible here: bubblewrap") as caught:
        dragoman.serve(data_dir=str(tmp_path / "data"), job_isolation="namespaces")
    assert caught.value.kind is Kind.UNSUPPORTED


def test_models_are_closed_when_the_server_ends_or_cannot_begin(tmp_path: Path) -> None:
    """After the block, and after an error that came when they were loaded already."""
    with installed(tmp_path, "dragoman.runtimes", "package", BROKEN) as package:
        folder = tmp_path / "m"
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.onnx").touch()
        (folder / "config.pbtxt").write_text('backend: "package"')
        with dragoman.serve(str(folder)) as server:
            body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
            assert call(server.url, "/v2/models/m/infer", body)["outputs"][0]["data"] == [2.0, 4.0]
            assert not package.models[0].closed
        with pytest.raises(dragoman.ServingError, match=r"cert\.pem"):
            dragoman.serve(str(folder), tls_cert="/nowhere/cert.pem", tls_key="/nowhere/key.pem")
        assert [m.closed for m in package.models] == [True, True]


def test_a_server_for_everyone_has_an_address(tmp_path: Path) -> None:
    """Bound to every address, its URL leads to this machine."""
    with dragoman.serve(host="0.0.0.0", data_dir=str(tmp_path)) as server:
        assert server.url == f"http://127.0.0.1:{server.ports[0]}"
        assert call(server.url, "/v2/health/live") == {"live": True}


def test_it_can_be_started_from_a_running_loop(iris: Path) -> None:
    """A program that has a loop of its own may use it: the server has another one, in its thread."""

    async def program() -> list[int]:
        with dragoman.serve(str(iris)) as server:
            return label(await asyncio.to_thread(call, server.url, "/v2/models/iris/infer", IRIS))

    assert asyncio.run(program()) == [0]


# --- without ---


def test_the_test_client_needs_no_socket(iris: Path) -> None:
    """The same paths, statuses, headers and bodies."""
    with dragoman.TestClient(str(iris)) as client:
        reply = client.post("/v2/models/iris/infer", json=IRIS)
        assert (reply.status, reply.headers["content-type"], label(reply.json())) == (200, "application/json", [0])
        assert client.get("/v2/models/none").status == 404
        assert client.request("PUT", "/v2/models/iris/infer").status == 405
        assert client.get("/", headers={"Accept": "text/html"}).headers["content-type"] == "text/html; charset=utf-8"
        assert client.get("/metrics").status == 200


def test_the_test_client_speaks_every_detail_of_a_request(tmp_path: Path) -> None:
    """Percent escapes, queries, raw bodies and headers reach the server as from a socket."""
    with dragoman.TestClient(f"a b={build.iris(tmp_path / 'iris.onnx')}") as client:
        assert client.get("/v2/models/a%20b?x=1").json()["name"] == "a b"
        bad = client.post("/v2/models/a%20b/infer", body=b"{", headers={"Content-Type": "text/plain", "X-Request-Id": "seven"})
        assert (bad.status, bad.headers["x-request-id"]) == (400, "seven")


def test_a_test_client_over_targets_that_fail(tmp_path: Path) -> None:
    """It shows what a server would answer, so it does not raise."""
    with dragoman.TestClient(str(tmp_path / "none.onnx")) as client:
        assert client.loaded.failed[0][0] == "none"
        assert client.get("/v2/health/ready").status == 503
        client.close()


def test_the_package_offers_what_it_says() -> None:
    """Every public name is there; the server's are imported when they are asked for."""
    for name in dragoman.__all__:
        assert getattr(dragoman, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'client'"):
        _ = dragoman.client


def test_a_client_leaves_alone_what_is_deployed(tmp_path: Path) -> None:
    """A program that asks one model does not load the server's."""
    build.iris(tmp_path / "root" / "iris.onnx")
    where = {"data_dir": str(tmp_path / "data"), "model_root": [str(tmp_path / "root")]}
    with dragoman.serve(**where) as server:
        urllib.request.urlopen(f"{server.url}/v2/repository/models/iris/load", b"{}", timeout=60).close()
    with dragoman.TestClient(**where) as client:
        assert client.get("/dragoman/v1/status").json()["models"] == []
    with dragoman.serve(**where) as server, urllib.request.urlopen(f"{server.url}/v2/models/iris", timeout=60) as answer:
        assert answer.status == 200
