"""Accounts with the real floyd-cli: who is let in, and that each sees their own (FloydHub requirements F2, F14)."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import command, environment
from tests.floyd import WEB, Floyd, answering, hub, project
from tests.web import web


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


def accounts(data: Path, *words: str, said: str = "") -> str:
    done = subprocess.run(
        command("accounts", *words), env=environment(data), input=said, capture_output=True, text=True, timeout=100, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def keys(data: Path) -> dict[str, str]:
    """Two people with keys; the first has a password as well."""
    return {"alice": accounts(data, "add", "alice", "--password", said="open sesame\n"), "bob": accounts(data, "add", "bob")}


@pytest.fixture(scope="module")
def url(data: Path, keys: dict[str, str]) -> Iterator[str]:
    with hub(data) as running:
        yield running.url


def test_only_who_has_an_account(url: str, keys: dict[str, str], tmp_path: Path) -> None:
    """A wrong key is refused in the client's own words; the right one says whose it is."""
    floyd = Floyd(url, tmp_path)
    assert "Invalid Token" in floyd(tmp_path, "login", "-k", "wrong", code=1).out
    assert "Login Successful as bob" in floyd(tmp_path, "login", "-k", keys["bob"]).out
    for path in ("user/", "projects", "experiments/", "datasets", "projects/alice/x"):
        assert web.get(f"{url}/api/v1/{path}").status_code == 401
    assert {web.get(f"{url}/api/v1/{path}").status_code for path in ("cli_version", "env")} == {200}


def test_a_password_gives_a_token(url: str) -> None:
    """It is taken where a key is."""
    login = f"{url}/api/v1/user/login"
    assert web.post(login, json={"username": "alice", "password": "wrong"}).status_code == 401
    token = web.post(login, json={"username": "alice", "password": "open sesame"}).json()["access_token"]
    assert web.get(f"{url}/api/v1/user/", headers={"Authorization": f"Bearer {token}"}).json()["username"] == "alice"


def test_each_sees_their_own(url: str, keys: dict[str, str], tmp_path: Path) -> None:
    """Of others there is nothing: neither jobs, nor logs, code, data or files. The endpoint is for everybody."""
    alice, bob = (Floyd(url, tmp_path / name).logged_in(keys[name]) for name in ("alice", "bob"))
    app = project(tmp_path / "app", app_py=WEB)
    alice(app, "init", "private")
    done = alice(app, "run", "--mode", "serve")
    assert answering(done.endpoint).status_code == 200, alice(app, "logs", done.job).out
    key = {"Authorization": f"apikey {keys['alice']}"}
    job = web.get(f"{url}/api/v1/experiments/{done.job}", headers=key).json()
    task = web.get(f"{url}/api/v1/taskinstances/{job['id']}", headers=key).json()
    places = [
        f"experiments/{job['id']}",
        f"experiments/{done.job}",
        f"experiments/cancel/{job['id']}",
        f"taskinstances/{job['id']}",
        f"modules/{task['module_id']}",
        f"modules/{done.job}/output",
        f"resources/code.{task['module_id']}?content=true&download=true",
        f"resources/{job['log_id']}?content=true",
        f"resources/{job['output_id']}/kept.txt?content=true",
        f"download/artifacts/files/{job['id']}?is_dir=true",
        "projects/alice/private",
    ]
    for place in places:
        other = web.get(f"{url}/api/v1/{place}", headers={"Authorization": f"apikey {keys['bob']}"})
        assert (other.status_code, "message" in other.json()) == (404, True), place
    assert web.get(f"{url}/api/v1/projects", headers={"Authorization": f"apikey {keys['bob']}"}).json() == {"projects": []}
    for place in places:
        if "cancel" not in place:
            assert web.get(f"{url}/api/v1/{place}", headers=key).status_code == 200, place
    bob(app, "init", "own")
    assert "not found" in bob(app, "stop", done.job, code=1).out
    assert web.get(done.endpoint).status_code == 200
    alice(app, "stop", done.job)
