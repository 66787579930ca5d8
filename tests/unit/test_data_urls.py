"""MLRun's `data_url`: what fetched content means, and whose fault it is when there is none (MLRun requirement M13)."""

from pathlib import Path
from urllib.parse import quote

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Blob, Value
from dragoman.serving.data_urls import fetched, inputs_at, inputs_of
from dragoman.serving.fetch import Fetched, FetchPolicy
from tests.unit.fetch_site import LOOPBACK, ok, redirect, run, site


def found(data: bytes, media_type: str = "application/octet-stream", name: str = "") -> Fetched:
    return Fetched(data, media_type, name, "http://h/x")


@pytest.mark.parametrize(
    ("content", "inputs"),
    [
        (found(b"[[1, 2.5], [3, null]]"), [[1, 2.5], [3, None]]),
        (found(b" \n[]", "application/json"), []),
        (found(b'{"inputs": [[1]], "id": "x"}', "application/json"), [[1]]),
        (found(b'{"inputs": 7}', "application/vnd.k.v1+json"), 7),
    ],
)
def test_json_becomes_the_inputs(content: Fetched, inputs: Value) -> None:
    """A list, or the inputs of an object, whatever its type says."""
    assert inputs_of(content) == inputs


@pytest.mark.parametrize(
    "content",
    [
        found(b"\x89PNG", "image/png", "a.png"),
        found(b"{broken"),
        found(b"[1, 2", "text/plain"),
        found(b'{"rows": [1]}', "application/json"),
        found(b'"text"', "application/json"),
        found(b""),
        found(b"1,2\n3,4", "text/csv"),
    ],
)
def test_other_content_becomes_a_file(content: Fetched) -> None:
    """The only element of the list of inputs, with its type and name."""
    assert inputs_of(content) == [Blob(content.data, content.media_type, content.name)]


@pytest.mark.parametrize("data", [b"[1, 2", b"", b"[" * 100_000, b"\xff", b"[NaN]"])
def test_broken_json(data: bytes) -> None:
    """Content that is called JSON and is none is a client error that names the URL."""
    with pytest.raises(ServingError) as caught:
        inputs_of(found(data, "application/json"))
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "URL http://h/x is called application/json and holds no valid JSON" in caught.value.message


def test_inputs_at_a_web_server() -> None:
    """Fetched with the guarded client, a large content too."""

    async def scenario() -> None:
        large = b"[" + b"1," * 300_000 + b"1]"
        wide = FetchPolicy.parse(["127.0.0.0/8"], max_bytes=1 << 20)
        async with site(lambda path: ok(large if path == "/large" else b"[[1, 2]]", "Content-Type: application/json")) as server:
            assert await inputs_at(server.url("/small"), wide) == [[1, 2]]
            assert await inputs_at(server.url("/large"), wide) == [1] * 300_001

    run(scenario())


@pytest.mark.parametrize("url", [None, 7, "", ["http://h/x"], {"url": "x"}])
def test_no_url_at_all(url: Value) -> None:
    """Anything but a text."""

    async def scenario() -> None:
        with pytest.raises(ServingError, match="data_url must be a text"):
            await fetched(url, LOOPBACK)

    run(scenario())


@pytest.mark.parametrize(
    "url",
    ["nonsense", "ftp://h/x", "store://models/p/m", "ds://profile/x", "http://", "http://[::1", "javascript:1", "\0", "http://\ud800/x"],
)
def test_urls_that_mean_nothing(url: str) -> None:
    """A client error that says what is expected."""

    async def scenario() -> None:
        with pytest.raises(ServingError) as caught:
            await fetched(url, LOOPBACK)
        assert caught.value.kind is Kind.INVALID_INPUT
        assert caught.value.message.startswith("data_url: ")

    run(scenario())


def test_failures_of_others_are_client_errors() -> None:
    """A server that answers 500, that breaks off, that is not there, or redirects to places that are closed."""

    async def scenario() -> None:
        answers = {
            "/500": b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
            "/cut": ok(b"abc", length=9),
            "/there": redirect("http://10.0.0.1/"),
        }
        async with site(lambda path: answers[path]) as server:
            kinds = {}
            for path in answers:
                with pytest.raises(ServingError) as caught:
                    await fetched(server.url(path), LOOPBACK)
                kinds[path] = caught.value.kind
        assert kinds == {"/500": Kind.INVALID_INPUT, "/cut": Kind.INVALID_INPUT, "/there": Kind.FORBIDDEN}
        with pytest.raises(ServingError) as caught:
            await fetched(server.url("/"), LOOPBACK)
        assert caught.value.kind is Kind.INVALID_INPUT

    run(scenario())


def test_paths_that_no_file_has() -> None:
    """Halves of characters, zeros and dots are a client error, too."""

    async def scenario() -> None:
        for path in ("/a\ud800b", "/a\0b", "/../../..", "//host/x"):
            with pytest.raises(ServingError) as caught:
                await fetched(path, FetchPolicy.parse(["file:///"]))
            assert caught.value.kind in (Kind.INVALID_INPUT, Kind.FORBIDDEN)

    run(scenario())


def test_files_of_this_machine(tmp_path: Path) -> None:
    """Only below a root that was opened, by URL and by path; never through a link or dots that lead out."""
    root = tmp_path / "open"
    root.mkdir()
    (tmp_path / "secret.json").write_text("[9]")
    (root / "a b.json").write_text("[[1]]")
    (root / "out.json").symlink_to(tmp_path / "secret.json")
    policy = FetchPolicy.parse([root.as_uri()])

    async def scenario() -> None:
        assert await inputs_at(f"file://{quote(str(root))}/a%20b.json", policy) == [[1]]
        assert await inputs_at(f"{root}/a b.json", policy) == [[1]]
        for url in (f"{root}/out.json", f"{root}/../secret.json", f"file://{root}/%2e%2e/secret.json", str(tmp_path / "secret.json")):
            with pytest.raises(ServingError) as caught:
                await fetched(url, policy)
            assert caught.value.kind is Kind.FORBIDDEN, url
        with pytest.raises(ServingError, match="--allow-fetch file:///DIR") as caught:
            await fetched(f"{root}/a b.json", FetchPolicy())
        assert caught.value.kind is Kind.FORBIDDEN
        with pytest.raises(ServingError, match="there is no such file") as caught:
            await fetched(f"{root}/none.json", policy)
        assert caught.value.kind is Kind.INVALID_INPUT

    run(scenario())
