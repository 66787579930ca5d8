"""What is kept in files: as FloydHub's client writes and reads it, in one step, and refused by name when it is damaged."""

import json
import os
import stat
from pathlib import Path

import pytest

from dragoman.cli.jobs_files import (
    DATA,
    PROJECT,
    Project,
    Upload,
    configuration,
    data_set,
    forget_login,
    login,
    needed_data_set,
    needed_project,
    project,
    save_data_set,
    save_login,
    save_project,
    upload,
)
from dragoman.core.errors import Kind, ServingError

pytestmark = pytest.mark.usefixtures("place")
SHOP = Project("shop", "ann", "id")


def test_nothing_is_kept() -> None:
    """Nobody is logged in, the folder is nothing; what needs it says how to begin."""
    assert [login(), project(), data_set(), configuration()] == [None] * 4
    assert not upload().begun
    forget_login()
    with pytest.raises(ServingError, match="dragoman init NAME"):
        needed_project()
    with pytest.raises(ServingError, match="dragoman data init NAME"):
        needed_data_set()


def test_a_project_is_found_again() -> None:
    """With what it was saved with, and so is a data set beside it."""
    save_project(SHOP)
    save_data_set(Project("pics", "bob", "id2"))
    assert (needed_project(), needed_data_set()) == (SHOP, Project("pics", "bob", "id2"))
    assert stat.S_IMODE(PROJECT.stat().st_mode) == 0o644
    assert set(os.listdir()) == {".floydexpt", ".floyddata"}


def test_an_upload_is_found_again(tmp_path: Path) -> None:
    """As long as its archive is there; or when all has been sent, and is being unpacked."""
    archive = tmp_path / "a.tar.gz"
    archive.touch()
    begun = Upload("d1", "ann/datasets/shop/1", str(archive), "http://h/u")
    save_data_set(SHOP, begun)
    assert upload() == begun
    assert upload().begun
    archive.unlink()
    assert not upload().begun
    save_data_set(SHOP, Upload("d1", "ann/datasets/shop/1", resource="r1"))
    assert upload().begun
    content = json.loads(DATA.read_text())
    assert content["tarball_path"] is content["data_endpoint"] is None


@pytest.mark.parametrize("content", ["", "[]", "{", '"x"', "[" * 100_000, "\xff"])
@pytest.mark.parametrize("path", [PROJECT, DATA])
def test_damage_is_named(path: Path, content: str) -> None:
    """No guess is made of half a file."""
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ServingError, match=path.name) as caught:
        project() if path == PROJECT else data_set()
    assert caught.value.kind is Kind.INVALID_INPUT


@pytest.mark.parametrize("content", [{}, {"name": ""}, {"name": 3}, {"name": None}])
def test_a_file_that_names_nothing(content: object) -> None:
    """It is to be made anew."""
    PROJECT.write_text(json.dumps(content))
    DATA.write_text(json.dumps(content))
    with pytest.raises(ServingError, match="`dragoman init NAME`"):
        project()
    with pytest.raises(ServingError, match="`dragoman data init NAME`"):
        data_set()


def test_files_of_floydhubs_client() -> None:
    """Without an owner, as its `init NAME` wrote them once; with members that nobody knows."""
    PROJECT.write_text('{"name": "shop", "namespace": null, "family_id": "x", "more": 1}')
    assert project() == Project("shop", "", "x")
    DATA.write_text('{"name": "pics", "family_id": "y", "data_id": null, "tarball_path": ""}')
    assert data_set() == Project("pics", "", "y")


def test_logins() -> None:
    """A key or a token; neither is nobody."""
    save_login("ann", "http://h", key="k")
    assert (found := login()) is not None
    assert (found.user, found.authorization, found.server) == ("ann", "apikey k", "http://h")
    save_login("ann", "http://h", token="t")
    assert (found := login()) is not None
    assert found.authorization == "Bearer t"
    kept = Path.home() / ".floydconfig"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kept.write_text('{"username": "ann"}')
    assert login() is None
    kept.write_text('{"username": "ann", "apikey": "a\\r\\nb"}')
    with pytest.raises(ServingError, match="dragoman login"):
        login()


def test_a_place_that_cannot_be_written(place: Path) -> None:
    """The file is named; what was there stays."""
    save_project(SHOP)
    PROJECT.unlink()
    PROJECT.mkdir()
    with pytest.raises(ServingError, match=r"\.floydexpt cannot be written"):
        save_project(SHOP)
    assert os.listdir() == [".floydexpt"]


def test_configurations() -> None:
    """The text, of either name; of both, the one that FloydHub's client takes."""
    Path("floyd.yml").write_text("mode: serve # é", "utf-8")
    assert configuration() == "mode: serve # é"
    Path("floyd.yaml").write_text("mode: job")
    assert configuration() == "mode: job"
    Path("floyd.yaml").write_bytes(b"\xff")
    with pytest.raises(ServingError, match=r"floyd\.yaml cannot be read"):
        configuration()
