"""Models from buckets, web servers and other servers' registries behind the real command: served, registered, deployed, and used offline."""

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.plain import Plain
from tests.e2e.running import Running, command, environment, serving
from tests.models import build, mlflow_folders
from tests.unit.artifacts.shelf import Shelf, shelf
from tests.unit.library.bucket import bucket

ROW = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
FLOWER = {"dataframe_records": [dict(zip(mlflow_folders.FLOWER, (6.6, 3.0, 5.6, 2.0), strict=True))]}


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An ONNX file."""
    path = tmp_path_factory.mktemp("iris") / "model.onnx"
    build.iris(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow folder."""
    return mlflow_folders.flowers(tmp_path_factory.mktemp("logged") / "flowers")


@pytest.fixture
def web() -> Iterator[Shelf]:
    with shelf() as found:
        yield found


def variables(url: str) -> dict[str, str]:
    """How a process finds a bucket."""
    names = {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y", "REGION": "us-east-1", "ALLOW_HTTP": "true"}
    return {f"AWS_{name}": value for name, value in names.items()}


def packed(folder: Path) -> bytes:
    """As .tar.gz, in one folder."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        archive.add(folder, folder.name)
    return held.getvalue()


def do(data: Path, *words: str, code: int = 0, extra: dict[str, str] | None = None) -> str:
    """What a command prints; its exit code is as expected."""
    done = subprocess.run(
        command(*words), capture_output=True, text=True, timeout=90, env=environment(data, extra), stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def classified(server: Running, model: str) -> int:
    """The status of a prediction."""
    return Plain(server.port).post(f"/v1/models/{model}:predict", ROW).status


class TestBuckets:
    def test_served_and_served_offline(self, tmp_path: Path, logged: Path) -> None:
        """A folder in a bucket is a target; once it is here, the bucket may be away."""
        with bucket() as (url, objects):
            for path in logged.iterdir():
                objects[f"team/flowers/{path.name}"] = path.read_bytes()
            extra = variables(url)
            with serving(tmp_path, "s3://models/team/flowers", extra=extra) as server:
                reply = Plain(server.port).post("/invocations", FLOWER)
                assert (reply.status, reply.json()) == (200, {"predictions": [2]})
        with serving(tmp_path, "s3://models/team/flowers", extra={**extra, "AWS_MAX_ATTEMPTS": "1"}) as server:
            assert Plain(server.port).post("/serve/flowers-1/invocations", FLOWER).json() == {"predictions": [2]}
            assert "what was fetched on" in server.output

    def test_registered_and_deployed(self, tmp_path: Path, iris: bytes) -> None:
        """A server fetches what is registered from a bucket, and serves it when it is deployed, also after a restart without the bucket."""
        with bucket() as (url, objects):
            objects["iris/model.onnx"] = iris
            extra = variables(url)
            with serving(tmp_path, "--model-root", str(tmp_path), extra=extra) as server:
                address = {"DRAGOMAN_URL": server.url}
                assert "iris:1" in do(tmp_path, "register", "iris", "s3://models/iris", extra=address)
                assert classified(server, "iris") == 404
                assert "ready" in do(tmp_path, "deploy", "iris", extra=address)
                assert classified(server, "iris") == 200
                told = do(tmp_path, "register", "iris", "s3://models/nothing", code=1, extra=address)
                assert "there is nothing at s3://models/nothing" in told
        with serving(tmp_path, "--model-root", str(tmp_path)) as server:
            assert classified(server, "iris") == 200


class TestWeb:
    def test_a_download_that_breaks_off(self, tmp_path: Path, web: Shelf, iris: bytes) -> None:
        """It goes on where it was, and the file is whole."""
        web.files["/iris.onnx"] = iris
        web.breaks["/iris.onnx"] = [100, 50]
        with serving(tmp_path, f"{web.url}/iris.onnx") as server:
            assert classified(server, "iris") == 200
        assert [asked for _, asked in web.seen] == ["", "bytes=100-", "bytes=150-"]

    def test_an_archive_and_a_start_without_the_net(self, tmp_path: Path, web: Shelf, logged: Path) -> None:
        """A folder in a .tar.gz, used from the cache when its place answers with errors."""
        web.files["/flowers.tar.gz"] = packed(logged)
        target = f"blooms={web.url}/flowers.tar.gz"
        with serving(tmp_path, target) as server:
            assert Plain(server.port).post("/invocations", FLOWER).json() == {"predictions": [2]}
        web.down = True
        with serving(tmp_path, target) as server:
            assert Plain(server.port).post("/serve/blooms-1/invocations", FLOWER).json() == {"predictions": [2]}

    def test_a_checksum(self, tmp_path: Path, web: Shelf, iris: bytes) -> None:
        """Of other content the server says so and ends; with the right one it serves."""
        web.files["/iris.onnx"] = iris
        told = do(tmp_path, "serve", f"{web.url}/iris.onnx#sha256={'0' * 64}", "--port", "0", code=1)
        assert "does not hold what its checksum says" in told
        with serving(tmp_path, f"{web.url}/iris.onnx#sha256={hashlib.sha256(iris).hexdigest()}") as server:
            assert classified(server, "iris") == 200

    def test_what_is_not_there(self, tmp_path: Path, web: Shelf) -> None:
        """A line that names the address, and exit code 1."""
        told = do(tmp_path, "serve", f"{web.url}/iris.onnx", "--port", "0", code=1)
        assert f"{web.url}/iris.onnx" in told

    def test_clients_reach_no_private_hosts(self, tmp_path: Path, web: Shelf, iris: bytes) -> None:
        """What a request names is guarded: this machine only where --allow-fetch opens it."""
        web.files["/iris.onnx"] = iris
        source = f"{web.url}/iris.onnx"
        with serving(tmp_path / "guarded", "--model-root", str(tmp_path)) as server:
            told = do(tmp_path, "register", "iris", source, code=1, extra={"DRAGOMAN_URL": server.url})
            assert "--allow-fetch" in told
        assert web.seen == []
        with serving(tmp_path / "open", "--model-root", str(tmp_path), "--allow-fetch", "127.0.0.1") as server:
            address = {"DRAGOMAN_URL": server.url}
            do(tmp_path, "register", "iris", source, extra=address)
            do(tmp_path, "deploy", "iris:1", extra=address)
            assert classified(server, "iris") == 200


class TestAnotherServer:
    """`models:/` of a registry that is a Dragoman server which asks for keys."""

    @pytest.fixture
    def registry(self, tmp_path: Path, logged: Path) -> Iterator[tuple[Running, str]]:
        data = tmp_path / "registry"
        key = do(data, "keys", "add", "boss", "--scope", "admin").split()[-1]
        with serving(data, "--model-root", str(logged.parent), "--require-key") as server:
            for _ in range(2):
                do(tmp_path, "register", "flowers", str(logged), "--key", key, "--alias", "champion", extra={"DRAGOMAN_URL": server.url})
            yield server, key

    def test_served(self, registry: tuple[Running, str], tmp_path: Path) -> None:
        """By number, alias and as the newest, with the key that MLflow's client takes too."""
        server, key = registry
        extra = {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_TRACKING_TOKEN": key}
        uris = {"number": "models:/flowers/1", "alias": "models:/flowers@champion", "newest": "models:/flowers/latest"}
        with serving(tmp_path / "mine", *(f"{name}={uri}" for name, uri in uris.items()), extra=extra) as mine:
            for name in uris:
                reply = Plain(mine.port).post(f"/serve/{name}-1/invocations", FLOWER)
                assert (reply.status, reply.json()) == (200, {"predictions": [2]})

    def test_the_key(self, registry: tuple[Running, str], tmp_path: Path) -> None:
        """Without one, or with a wrong one, the line says what is asked for; it never shows the key."""
        server, _ = registry
        for token in ("", "wrong-and-secret"):
            extra = {"MLFLOW_TRACKING_TOKEN": token}
            words = ("serve", "models:/flowers/1", "--mlflow-registry", server.url, "--port", "0")
            told = do(tmp_path / "mine", *words, code=1, extra=extra)
            assert "asks for a key" in told
            assert "MLFLOW_TRACKING_TOKEN" in told
            assert "wrong-and-secret" not in told

    def test_uploaded_models_while_the_registry_is_away(self, registry: tuple[Running, str], tmp_path: Path, logged: Path) -> None:
        """What was uploaded as artifacts is fetched through them; then the registry may be gone."""
        server, key = registry
        port, access = Plain(server.port), {"Authorization": f"Bearer {key}"}
        for path in logged.iterdir():
            reply = port.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/up/{path.name}", body=path.read_bytes(), headers=access)
            assert reply.status == 200, reply.body
        made = port.post("/api/2.0/mlflow/model-versions/create", {"name": "flowers", "source": "mlflow-artifacts:/up"}, headers=access)
        assert made.json()["model_version"]["version"] == "3"
        extra = {"MLFLOW_REGISTRY_URI": server.url, "MLFLOW_TRACKING_TOKEN": key}
        for _ in range(2):
            with serving(tmp_path / "mine", "models:/flowers/3", extra=extra) as mine:
                assert Plain(mine.port).post("/invocations", FLOWER).json() == {"predictions": [2]}
            if server.process.poll() is None:
                os.kill(server.process.pid, 15)
                server.process.wait(60)
