"""Names as people type them, made whole."""

import pytest

from dragoman.cli.jobs_names import Here, data_names, job_names, mounts, split_name
from dragoman.core.errors import ServingError

SHOP = Here("ann", "shop", "ann")
NOWHERE = Here("ann")


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("", "ann/projects/shop"),
        ("3", "ann/projects/shop/3"),
        ("shop/3", "ann/projects/shop/3"),
        ("ann/shop/3", "ann/projects/shop/3"),
        ("ann/projects/shop/3", "ann/projects/shop/3"),
        ("bob/projects/toys", "bob/projects/toys"),
        ("bob/toys", "bob/projects/toys"),
        ("bob/projects/toys/3/", "bob/projects/toys/3"),
    ],
)
def test_names_of_jobs(text: str, full: str) -> None:
    """What is left out is the user's, this folder's, or the newest."""
    assert job_names(text, SHOP)[0] == full


def test_one_word_is_a_project_or_an_id() -> None:
    """The server is asked for the newest job of such a project first."""
    assert job_names("Zk3vAbCd", SHOP) == ["ann/projects/Zk3vAbCd", "Zk3vAbCd"]
    assert data_names("Zk3vAbCd", NOWHERE) == ["ann/datasets/Zk3vAbCd", "Zk3vAbCd"]


def test_a_project_of_somebody_else() -> None:
    """Its owner is filled in for its jobs, the user for jobs of other projects."""
    theirs = Here("ann", "shop", "bob")
    assert job_names("3", theirs) == ["bob/projects/shop/3"]
    assert job_names("toys/3", theirs) == ["ann/projects/toys/3"]


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("pics", "ann/datasets/pics"),
        ("pics/1", "ann/datasets/pics/1"),
        ("bob/pics", "bob/datasets/pics"),
        ("bob/pics/2", "bob/datasets/pics/2"),
        ("bob/datasets/pics/2", "bob/datasets/pics/2"),
        ("bob/projects/shop/2", "bob/projects/shop/2"),
        ("bob/projects/shop/2/output", "bob/projects/shop/2/output"),
        ("shop/2/files", "ann/projects/shop/2/files"),
    ],
)
def test_names_of_data(text: str, full: str) -> None:
    """Versions of data sets, and what jobs left."""
    assert data_names(text, NOWHERE)[0] == full


@pytest.mark.parametrize("text", ["a/b/c/d/e", "a/b/c", "../x", "a/../b/1", "a b", "a/projects/x/one", "ü/1"])
def test_names_that_none_has(text: str) -> None:
    """They are refused here, and sent nowhere."""
    with pytest.raises(ServingError):
        job_names(text, SHOP)
    with pytest.raises(ServingError):
        data_names(text, SHOP)


def test_without_a_project_a_name_is_needed() -> None:
    """And the sentence says how to make this folder one."""
    with pytest.raises(ServingError, match="dragoman init NAME"):
        job_names("3", NOWHERE)
    with pytest.raises(ServingError, match="dragoman data init NAME"):
        data_names("", NOWHERE)


@pytest.mark.parametrize("text", ["shop", "ann/shop", "ann/projects/shop", "ann/datasets/shop"])
def test_names_of_new_projects(text: str) -> None:
    """With and without their owner."""
    assert split_name(text, "ann") == ("ann", "shop")


@pytest.mark.parametrize("text", ["", "a/b/c", "..", "../x", "a b", "a/projects/x/1", "ä"])
def test_names_that_no_project_has(text: str) -> None:
    """A new project is called by letters, digits and three signs."""
    with pytest.raises(ServingError, match="is no name"):
        split_name(text, "ann")


def test_mounts() -> None:
    """A slash in front of the mount, and behind it, changes nothing."""
    assert [(each.name, each.mount) for each in mounts(["a/datasets/x/1:input", "x:/model/"])] == [
        ("a/datasets/x/1", "input"),
        ("x", "model"),
    ]


@pytest.mark.parametrize("texts", [["x"], ["x:"], [":m"], ["x:a/b"], ["x:.."], ["x:m", "y:/m"], ["x:a b"], [f"x:{i}" for i in range(6)]])
def test_mounts_that_cannot_be(texts: list[str]) -> None:
    """One level, each once, five at most."""
    with pytest.raises(ServingError, match="--data"):
        mounts(texts)
