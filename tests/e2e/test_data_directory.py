"""Data directories and stores with the real command: one server at a time on a SQLite file, several on one PostgreSQL database."""

import json
import os
import signal
from pathlib import Path

import pytest
import requests

from tests import postgres
from tests.e2e.running import Running, run, serving
from tests.models import build


@pytest.fixture
def iris(tmp_path: Path) -> str:
    return str(build.iris(tmp_path / "iris.onnx"))


@pytest.fixture
def database(tmp_path: Path) -> str:
    """The URL of an empty one in PostgreSQL."""
    return postgres.database_of(tmp_path)


def ready(server: Running) -> bool:
    return requests.get(f"{server.url}/v2/health/ready", timeout=30).status_code == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_server_is_told_who_is_there(workers: int, iris: str, tmp_path: Path) -> None:
    """It ends at once with exit code 1 and one line, before it takes a port or writes a key; the first one does not notice."""
    data = tmp_path / "data"
    with serving(data, iris, "--workers", str(workers)) as first:
        second = run(data, "serve", iris, "--port", str(first.port), "--host", "0.0.0.0")
        assert second.returncode == 1
        (line,) = second.stderr.splitlines()
        assert line.startswith(f"dragoman: another server (process {first.process.pid}, {first.url}, since 20")
        assert str(data / "dragoman") in line
        assert "--data-dir" in line
        assert not list((data / "dragoman").glob("keys*"))
        assert ready(first)
        with serving(data, iris, "--data-dir", str(tmp_path / "another")) as other:
            assert ready(other)
        assert first.terminate() == 0
    with serving(data, iris) as again:
        assert ready(again)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_server_is_no_obstacle(workers: int, iris: str, tmp_path: Path) -> None:
    """The next one starts as soon as the last worker has ended, and serves."""
    data = tmp_path / "data"
    with serving(data, iris, "--workers", str(workers)) as first:
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(30)
        with serving(data, iris, "--workers", str(workers)) as second:
            assert ready(second)


def test_commands_work_beside_a_server(iris: str, tmp_path: Path) -> None:
    """The lock is between servers: building, listing, tagging and removing go on."""
    data = tmp_path / "data"
    with serving(data, iris) as server:
        assert run(data, "build", iris, "-n", "flowers:1").returncode == 0
        assert run(data, "tag", "flowers:1", "flowers:good").returncode == 0
        listed = json.loads(run(data, "models", "--output", "json").stdout)
        assert {row["tag"] for row in listed} == {"1", "good"}
        assert run(data, "remove", "flowers:1").returncode == 0
        assert ready(server)


def test_servers_share_a_database(iris: str, database: str, tmp_path: Path) -> None:
    """What is stored through one address is there for every server and command that has it; nobody is locked out, no SQLite file is made."""
    data = tmp_path / "data"
    built = run(data, "build", iris, "-n", "flowers:1", "--store", database)
    assert built.returncode == 0, built.stderr
    listed = run(data, "models", "--output", "json", "--store", database.replace("postgresql:", "postgresql+psycopg:"))
    assert [(row["repository"], row["tag"]) for row in json.loads(listed.stdout)] == [("flowers", "1")]
    variable = {"DRAGOMAN_STORE": database}
    with serving(data, "flowers", extra=variable) as one, serving(data, "flowers:1", "--workers", "2", extra=variable) as other:
        for server in (one, other):
            assert ready(server)
            assert postgres.PASSWORD not in server.output
            assert postgres.QUOTED not in server.output
        assert one.terminate() == other.terminate() == 0
    assert not list((data / "dragoman").glob("*.db*"))


def test_a_deploy_reaches_every_server_of_a_database(iris: str, database: str, tmp_path: Path) -> None:
    """The call to one of them returns when all serve it, whatever their workers; a new one begins with it, and a killed one holds up nobody."""
    data, extra = tmp_path / "data", {"DRAGOMAN_STORE": database}
    flags = ("--model-root", str(tmp_path))
    with serving(data, *flags, extra=extra) as one:
        with serving(data, *flags, "--workers", "2", extra=extra) as other:
            done = run(data, "register", "flowers", iris, "--deploy", "--url", one.url)
            assert done.returncode == 0, done.stderr
            for server in (one, other, other, other):
                assert predicts(server, "flowers")
            with serving(data, *flags, extra=extra) as late:
                assert predicts(late, "flowers")
                os.kill(late.process.pid, signal.SIGKILL)
                late.process.wait(30)
            done = run(data, "undeploy", "flowers", "--url", other.url)
            assert done.returncode == 0, done.stderr
            assert not predicts(one, "flowers")
            assert not predicts(other, "flowers")
            assert other.terminate() == 0
        assert ready(one)


def predicts(server: Running, model: str) -> bool:
    body = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [5.0, 3.4, 1.5, 0.2]}]}
    return requests.post(f"{server.url}/v2/models/{model}/infer", json=body, timeout=30).status_code == 200


def test_a_database_that_is_away_at_the_start(iris: str, database: str, tmp_path: Path) -> None:
    """Targets are served all the same; what needs the database says what is wrong, without its password."""
    away = database.replace(f":{postgres.server().port}/", ":1/")
    with serving(tmp_path / "data", iris, "--store", away) as server:
        assert ready(server)
        assert requests.post(f"{server.url}/v2/models/iris/infer", json={}, timeout=30).status_code == 400
    assert postgres.PASSWORD not in server.output
    assert postgres.QUOTED not in server.output


@pytest.mark.parametrize("command", [("models",), ("serve",), ("build", "x.onnx")])
def test_a_store_that_refuses(command: tuple[str, ...], database: str, tmp_path: Path) -> None:
    """One line says what is wrong; the password is in none."""
    wrong = database.replace("/t_", "/none_")
    answer = run(tmp_path / "data", *command, "--store", wrong)
    assert answer.returncode == 1
    if command != ("build", "x.onnx"):
        assert "make it with CREATE DATABASE" in answer.stderr
    assert postgres.PASSWORD not in answer.stderr + answer.stdout
    assert postgres.QUOTED not in answer.stderr + answer.stdout


def test_the_printed_configuration_has_no_password(database: str, tmp_path: Path) -> None:
    """Wherever the address came from."""
    printed = run(tmp_path, "serve", "--store", database, "--print-config")
    assert f'store = "{database.replace(f":{postgres.QUOTED}@", "@")}"' in printed.stdout
    assert postgres.QUOTED not in printed.stdout
    refused = run(tmp_path, "serve", "--store", "postgresql://u:s3cr/et@h/d", "--print-config")
    assert refused.returncode == 2
    assert "--store: 'postgresql://...' is no store" in refused.stderr
    assert "s3cr" not in refused.stderr
