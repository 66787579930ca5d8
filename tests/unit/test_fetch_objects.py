"""Objects in buckets and file systems behind the guarded client: what an entry opens, limits, and drivers that are not installed."""

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Blob
from dragoman.serving.data_urls import fetched, inputs_at
from dragoman.serving.fetch import FetchPolicy, fetch
from dragoman.serving.fetch_places import Place, read_place
from tests.unit.fetch_site import run
from tests.unit.library.bucket import bucket


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """What a bucket of this machine holds, which the server's own variables lead to."""
    with bucket() as (address, held):
        facts = {"ENDPOINT": address, "ALLOW_HTTP": "true", "ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "it", "REGION": "here"}
        for name, value in facts.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield held


def refused(url: str, policy: FetchPolicy) -> ServingError:
    """How a fetch fails."""
    caught: list[ServingError] = []

    async def scenario() -> None:
        with pytest.raises(ServingError) as error:
            await fetch(url, policy)
        caught.append(error.value)

    run(scenario())
    return caught[0]


# --- places ---


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://b/a/c.json", Place("s3", "b", ("a", "c.json"))),
        ("s3://b", Place("s3", "b")),
        ("s3://b/", Place("s3", "b")),
        ("s3://", Place("s3")),
        ("S3://b/x", Place("s3", "b", ("x",))),
        ("gcs://b/a%20b", Place("gs", "b", ("a b",))),
        ("abfss://box@acc.dfs.core.windows.net/a", Place("abfss", "box@acc.dfs.core.windows.net", ("a",))),
        ("v3io:///projects/x/y.csv", Place("v3io", "", ("projects", "x", "y.csv"))),
        ("v3io://host/projects/x", Place("v3io", "host", ("projects", "x"))),
    ],
)
def test_places(url: str, place: Place) -> None:
    """Scheme, bucket and the segments of the path, decoded."""
    assert read_place(url) == place


@pytest.mark.parametrize(
    "url",
    [
        "s3://b/a/../c",
        "s3://b/a/%2e%2e/c",
        "s3://b/./c",
        "s3://b/a//c",
        "s3://b/a%2fc",
        "s3://b/a%5cc",
        "s3://b/a%00c",
        "s3://b/a?versionId=1",
        "s3://b/a#x",
        "s3:///a",
        "s3:/b/a",
        "s3:b/a",
        "s3://user:pass@b/a",
        "s3://b:80/a",
        "s3://../a",
        "v3io:///a/b::file:///etc/passwd",
        "v3io:///..",
    ],
)
def test_urls_that_name_no_place(url: str) -> None:
    """Nothing with two spellings, that climbs, hides a password or chains file systems."""
    with pytest.raises(ValueError, match=r"expected|path|write|malformed"):
        read_place(url)


@given(st.text(max_size=40))
def test_any_text_is_a_place_or_refused(text: str) -> None:
    """And the segments of a place are never such that lead elsewhere."""
    try:
        place = read_place(f"s3://b/{text}")
    except ValueError:
        return
    assert not {"", ".", ".."} & set(place.segments)
    assert place.authority == "b"


@pytest.mark.parametrize(
    ("entry", "url", "open_"),
    [
        ("s3://b", "s3://b/a/c", True),
        ("s3://b/a", "s3://b/a/c", True),
        ("s3://b/a/", "s3://b/a", True),
        ("s3://b/a", "s3://b/ab", False),
        ("s3://b/a", "s3://b/c", False),
        ("s3://b", "s3://bb/a", False),
        ("s3://b", "gs://b/a", False),
        ("s3://", "s3://any/a", True),
        ("s3://", "gs://any/a", False),
        ("v3io:///projects", "v3io:///projects/x", True),
        ("v3io:///projects", "v3io://host/projects/x", False),
        ("v3io:///projects", "v3io:///users/x", False),
    ],
)
def test_what_an_entry_opens(entry: str, url: str, open_: bool) -> None:
    """A bucket, what is below a path of whole segments, or every place of a scheme."""
    (place,) = FetchPolicy.parse([entry]).places
    assert place.holds(read_place(url)) is open_


@pytest.mark.parametrize("entry", ["s3://b/../c", "s3:///x", "s3://u:p@b", "gs://b?x"])
def test_entries_that_open_nothing(entry: str) -> None:
    """Are refused when the server starts."""
    with pytest.raises(ServingError, match="--allow-fetch"):
        FetchPolicy.parse([entry])


# --- buckets ---


def test_objects_of_a_bucket(objects: dict[str, bytes]) -> None:
    """Their bytes, with name and type; JSON becomes inputs."""
    objects |= {"in/rows.json": b"[[1, 2]]", "in/a b.png": b"\x89PNG", "in/empty": b"", "in/full": b"x" * 1000}
    policy = FetchPolicy.parse(["s3://models/in"], max_bytes=1000)

    async def scenario() -> None:
        assert await inputs_at("s3://models/in/rows.json", policy) == [[1, 2]]
        assert await inputs_at("s3://models/in/a%20b.png", policy) == [Blob(b"\x89PNG", "image/png", "a b.png")]
        assert (await fetch("s3://models/in/empty", policy)).data == b""
        assert len((await fetch("S3://models/in/full", policy)).data) == 1000

    run(scenario())


def test_limits_of_objects(objects: dict[str, bytes]) -> None:
    """Size, what there is not, what names no object."""
    objects |= {"in/big": b"x" * 1001}
    policy = FetchPolicy.parse(["s3://models"], max_bytes=1000)
    assert refused("s3://models/in/big", policy).kind is Kind.TOO_LARGE
    absent = refused("s3://models/in/none", policy)
    assert (absent.kind, absent.message) == (Kind.INVALID_INPUT, "URL s3://models/in/none: there is no such object")
    assert "names no object" in refused("s3://models/", policy).message
    assert refused("s3://models/a?b", policy).kind is Kind.INVALID_INPUT


def test_buckets_are_closed_by_default(objects: dict[str, bytes]) -> None:
    """Whatever credentials the server has; the message says how to open one."""
    objects |= {"in/x": b"1"}
    error = refused("s3://models/in/x", FetchPolicy())
    assert error.kind is Kind.FORBIDDEN
    assert error.message.endswith("--allow-fetch s3://models")
    assert refused("s3://models/in/x", FetchPolicy.parse(["s3://models/other", "127.0.0.0/8"])).kind is Kind.FORBIDDEN
    assert refused("v3io:///projects/x", FetchPolicy()).message.endswith("--allow-fetch v3io:///projects")


def test_a_bucket_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a client error of data_url that says nothing of endpoints."""
    with contextlib.ExitStack() as stack:
        address, _ = stack.enter_context(bucket())
    for name, value in {
        "ENDPOINT": address,
        "ALLOW_HTTP": "true",
        "ACCESS_KEY_ID": "me",
        "SECRET_ACCESS_KEY": "it",
        "REGION": "here",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    policy = FetchPolicy.parse(["s3://models"], timeout_s=0.5)

    async def scenario() -> None:
        with pytest.raises(ServingError) as caught:
            await fetched("s3://models/x", policy)
        assert caught.value.kind is Kind.INVALID_INPUT
        assert address.removeprefix("http://") not in caught.value.message

    run(scenario())


# --- v3io ---


_REGISTERED: dict[str, Any] = sys.modules["fsspec.registry"]._registry


class _Platform:
    """A driver of ours in the place of the platform's."""

    held: ClassVar[dict[str, bytes]] = {}
    hangs = threading.Event()

    def open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> Any:
        if path == "/projects/slow":
            self.hangs.wait(30)
        if path not in self.held:
            raise FileNotFoundError(path)
        return io.BytesIO(self.held[path])


@pytest.fixture
def platform() -> Iterator[dict[str, bytes]]:
    """What the platform holds by path."""
    fsspec.register_implementation("v3io", _Platform, clobber=True)
    _Platform.hangs.clear()
    yield _Platform.held
    _Platform.hangs.set()
    _Platform.held.clear()
    _REGISTERED.pop("v3io")


def test_files_of_the_platform(platform: dict[str, bytes]) -> None:
    """Through its driver, under the same limits."""
    platform |= {"/projects/x/rows.json": b'{"inputs": [[1]]}', "/projects/big": b"x" * 1001}
    policy = FetchPolicy.parse(["v3io:///projects"], max_bytes=1000)

    async def scenario() -> None:
        assert await inputs_at("v3io:///projects/x/rows.json", policy) == [[1]]

    run(scenario())
    assert refused("v3io:///projects/big", policy).kind is Kind.TOO_LARGE
    assert refused("v3io:///projects/none", policy).kind is Kind.INVALID_INPUT


def test_a_driver_that_hangs(platform: dict[str, bytes]) -> None:
    """Is given up after the time-out; the thread ends when the driver does."""
    policy = FetchPolicy.parse(["v3io:///projects"], timeout_s=0.1)

    async def scenario() -> None:
        with pytest.raises(ServingError) as caught:
            await fetch("v3io:///projects/slow", policy)
        assert caught.value.kind is Kind.TIMEOUT
        _Platform.hangs.set()

    run(scenario())


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client error that names the extra."""
    monkeypatch.setitem(sys.modules, "v3iofs", None)  # as if it were not installed

    async def scenario() -> None:
        with pytest.raises(ServingError, match=r"pip install 'dragoman\[v3io\]'") as caught:
            await fetched("v3io:///projects/x", FetchPolicy.parse(["v3io:///projects"]))
        assert (caught.value.kind, caught.value.status) == (Kind.UNSUPPORTED, 400)

    run(scenario())
