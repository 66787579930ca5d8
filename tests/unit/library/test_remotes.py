"""Places for models: one suite over folders, buckets and other file systems, and what is no place."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.library.references import parse
from dragoman.serving.library.remotes import Folder, Remote, open_remote, told, without_secrets
from dragoman.serving.library.transfer import pull, push
from tests.unit.library.bucket import bucket
from tests.unit.library.projects import put
from tests.unit.library.test_transfer import added, library


@pytest.fixture(params=["folder", "s3", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place that is empty."""
    if request.param == "s3":
        with bucket() as (address, _):
            for name, value in {
                "ENDPOINT": address,
                "ALLOW_HTTP": "true",
                "ACCESS_KEY_ID": "me",
                "SECRET_ACCESS_KEY": "it",
                "REGION": "here",
            }.items():
                monkeypatch.setenv(f"AWS_{name}", value)
            yield "s3://models/below"
    elif request.param == "memory":
        yield "memory://models/below"
        fsspec.filesystem("memory").store.clear()
        fsspec.filesystem("memory").pseudo_dirs[:] = [""]
    else:
        yield (tmp_path / "place").as_uri()


@pytest.fixture
def remote(url: str) -> Remote:
    return open_remote(url)


def test_sent_and_fetched(remote: Remote, tmp_path: Path) -> None:
    """The same bytes; what is sent again is replaced; what is not there is False."""
    for content in (b"one", b"", b"x" * 3_000_000):
        remote.send("team/m/a.tar", put(tmp_path / "in", content))
        assert remote.fetch("team/m/a.tar", tmp_path / "out", 3_000_000)
        assert (tmp_path / "out").read_bytes() == content
    assert not remote.fetch("team/m/b.tar", tmp_path / "out", 10)
    assert not remote.fetch("nobody/b.tar", tmp_path / "out", 10)


def test_no_more_than_the_limit(remote: Remote, tmp_path: Path) -> None:
    """Whatever lies there."""
    remote.send("a", put(tmp_path / "in", b"x" * 11))
    with pytest.raises(ServingError) as caught:
        remote.fetch("a", tmp_path / "out", 10)
    assert caught.value.kind is Kind.TOO_LARGE


def test_a_claim_is_won_once(remote: Remote, tmp_path: Path) -> None:
    """The first one stays."""
    assert remote.claim("m/1.json", put(tmp_path / "a", "first"))
    assert not remote.claim("m/1.json", put(tmp_path / "b", "second"))
    remote.fetch("m/1.json", tmp_path / "out", 100)
    assert (tmp_path / "out").read_text() == "first"


def test_names(remote: Remote, tmp_path: Path) -> None:
    """The files directly in a folder, in order; none in one that is not there."""
    file = put(tmp_path / "in", "x")
    for name in ("team/m/b.json", "team/m/a.json", "team/m/deep/c.json", "team/more.json"):
        remote.send(name, file)
    assert remote.names("team/m") == ["a.json", "b.json"]
    assert remote.names("team/none") == []


def test_a_model_there_and_back(url: str, tmp_path: Path) -> None:
    """Over every kind of place."""

    async def work() -> None:
        here, there = library(tmp_path / "a"), library(tmp_path / "b")
        stored = await added(here)
        assert await push(here, stored, parse("team/m:1"), url)
        pulled, _ = await pull(there, parse("team/m"), url)
        assert pulled.version.digest == stored.version.digest

    asyncio.run(work())


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("s3:bucket/x", Kind.INVALID_INPUT),
        ("s3://", Kind.INVALID_INPUT),
        ("file://other-machine/x", Kind.INVALID_INPUT),
        ("nonsense://x", Kind.UNSUPPORTED),
        ("mailto:me", Kind.INVALID_INPUT),
    ],
)
def test_what_is_no_place(url: str, kind: Kind) -> None:
    """Said in one sentence."""
    with pytest.raises(ServingError) as caught:
        open_remote(url)
    assert caught.value.kind is kind


def test_folders_by_any_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths, relative ones too, and file URLs with escaped characters."""
    monkeypatch.chdir(tmp_path)
    file = put(tmp_path / "in", "x")
    for url in ("a place", str(tmp_path / "a place"), f"file://{tmp_path}/a%20place", f"file:{tmp_path}/a%20place"):
        open_remote(url).send("x", file)
        assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["a place"]
        assert isinstance(open_remote(url), Folder)


def test_what_goes_wrong_there() -> None:
    """UNAVAILABLE, with the place but not its password, and the first line of the reason."""
    with pytest.raises(ServingError) as caught, told("s3://key:secret@bucket/x?token=1"):
        raise OSError("no route\nto it")
    assert (caught.value.kind, caught.value.message) == (Kind.UNAVAILABLE, "s3://bucket/x cannot be used: no route")
    assert without_secrets("file:///a") == "file:///a"


@pytest.mark.parametrize(("module", "url"), [("obstore", "s3://bucket/x"), ("fsspec", "sftp://host/x")])
def test_an_extra_that_is_not_installed(module: str, url: str) -> None:
    """The message names the package and the extra that brings it. In a process that cannot import it."""
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from dragoman.serving.library.remotes import open_remote\n"
        f"try: open_remote({url!r})\nexcept Exception as error: print(error)"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed == f"{url.split(':')[0]}:// needs {module}, which is not installed: pip install 'dragoman[remote]'\n"
