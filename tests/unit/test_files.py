"""What clients write for files, as files: data URIs, base64, uploads, fetched URLs; and everything hostile in their place."""

import asyncio
import base64
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.data_uris import TooLongError, read_data_uri
from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Blob, Form, Signature
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.files import FileLimits, resolve
from dragoman.serving.uploads import Uploads
from tests.unit.fetch_site import LOOPBACK, ok, site
from tests.uploading import put

CLOSED = FetchPolicy.parse([])
LIMITS = FileLimits(max_files=5, max_file=1000, max_total=2500, max_pixels=10_000)
ONE = Signature(form=Form.ROWS, input_files={"image": "image"})
NESTED = Signature(form=Form.ROWS, input_files={"f.image": "image", "f.mask": "image", "list.$item": "binary", "deep.$item.pic": "image"})


def made(rows: list[Any], signature: Signature = ONE, limits: FileLimits = LIMITS, **options: Any) -> list[Any]:
    return asyncio.run(resolve(rows, signature, options.get("policy", CLOSED), limits, options.get("uploads")))


def refused(value: Any, limits: FileLimits = LIMITS, **options: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        made([{"image": "data:,ok"}, {"image": value}], limits=limits, **options)
    assert caught.value.message.startswith("input 1, field 'image': ")
    assert caught.value.problems[0].path == (1, "image")
    assert len(caught.value.message) < 600
    return caught.value


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\0\0\0"


# --- what is accepted ---


@pytest.mark.parametrize(
    ("text", "blob"),
    [
        ("data:image/png;base64,aGVsbG8=", Blob(b"hello", "image/png")),
        ("DATA:Image/PNG;charset=x;BASE64,aGVsbG8", Blob(b"hello", "image/png")),
        ("data:;base64,aGVs\n bG8=", Blob(b"hello", "text/plain")),
        ("data:,a%20b%2Cc%00", Blob(b"a b,c\0", "text/plain")),
        ("data:text/html,<p>%E2%82%AC", Blob("<p>€".encode(), "text/html")),
        ("data:image/png;base64,aGVsbG8%3D", Blob(b"hello", "image/png")),
        ("data:a/b;base64,-_-_", Blob(b"\xfb\xff\xbf", "a/b")),
        ("data:image/png;name=..%2Fmy%20cat.png;base64,aGVsbG8=", Blob(b"hello", "image/png", "my cat.png")),
        ("data:image/png;base64,", Blob(b"", "image/png")),
        ("aGVsbG8=", Blob(b"hello")),
        ("aGVsbG8", Blob(b"hello")),
        ("", Blob(b"")),
        (b"raw", Blob(b"raw")),
        (Blob(b"as it is", "x/y", "n"), Blob(b"as it is", "x/y", "n")),
    ],
)
def test_files_in_the_input(text: Any, blob: Blob) -> None:
    """Both forms of data URIs, as forgiving as browsers; bare base64; bytes; and files."""
    assert made([{"image": text, "n": 1}]) == [{"image": blob, "n": 1}]


def test_none_and_missing_files_stay_out() -> None:
    """Optional files need not be there; fields that are no files are never looked at."""
    rows = [{"image": None, "text": "file:///etc/passwd"}, {"other": 1}, 7, None]
    assert made(rows) == rows
    assert made([{"image": "x:y"}], Signature(form=Form.ROWS)) == [{"image": "x:y"}]


def test_nested_files() -> None:
    """Files in objects and lists, each by its own place; the caller's rows stay as they were."""
    uri = "data:a/b,x"
    rows = [{"f": {"image": uri, "mask": uri, "n": 1}, "list": [uri, None, uri], "deep": [{"pic": uri}, {}, 5]}]
    file = Blob(b"x", "a/b")
    expected = {"f": {"image": file, "mask": file, "n": 1}, "list": [file, None, file], "deep": [{"pic": file}, {}, 5]}
    assert made(rows, NESTED, FileLimits()) == [expected]
    assert rows[0]["f"]["image"] == uri  # type: ignore[index]
    assert made([{"f": "no object", "list": {"a": uri}, "deep": None}], NESTED) == [{"f": "no object", "list": {"a": uri}, "deep": None}]


@given(st.binary(max_size=500), st.booleans())
def test_any_bytes_come_through(data: bytes, encoded: bool) -> None:
    """Whatever is written as a data URI is read back."""
    body = base64.b64encode(data).decode() if encoded else "".join(f"%{byte:02x}" for byte in data)
    text = f"data:a/b{';base64' if encoded else ''},{body}"
    assert read_data_uri(text).decode(1000) == Blob(data, "a/b")


@given(st.text(max_size=200))
def test_no_text_crashes(text: str) -> None:
    """Any text is a file or a refusal."""
    for value in (text, f"data:{text}", f"data:a/b;base64,{text}", f"http://{text}", f"/files/{text}"):
        with suppress(ServingError):
            assert isinstance(made([{"image": value}])[0]["image"], Blob)


# --- what is not ---


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("file:///etc/passwd", "file: URLs are not accepted"),
        ("FILE:///etc/passwd", "file: URLs are not accepted"),
        ("ftp://host/x", "ftp: URLs are not accepted"),
        ("javascript:alert(1)", "javascript: URLs are not accepted"),
        ("data:image/png;base64", "a data: URI without a comma"),
        ("data:" + "x" * 5000 + ",y", "a data: URI without a comma"),
        ("data:no type,x", "TYPE/SUBTYPE"),
        ("data:a/b;base64,!!!", "characters that are not base64"),
        ("data:a/b;base64,aGVsbG8=aGVsbG8=", "characters that are not base64"),
        ("data:a/b;base64,a", "characters that are not base64"),
        ("data:a/b;base64,é", "characters that are not base64"),
        ("not base64!", "characters that are not base64"),
        ("\ud800", "characters that are not base64"),
        (7, "a file must be a data: URI, base64 or an http(s) URL, got int"),
        ({"a": 1}, "got dict"),
        ("https://10.0.0.1/x.png", "only if the server runs with --allow-fetch"),
        ("http://127.0.0.1:1/x", "loopback address"),
        ("http://", "malformed"),
        ("http://[", "malformed"),
    ],
)
def test_what_is_refused(value: Any, text: str) -> None:
    """Each refusal says what was expected."""
    error = refused(value)
    assert text in error.message
    assert error.kind in (Kind.INVALID_INPUT, Kind.FORBIDDEN)


def test_a_directory_that_is_open_for_fetching_is_closed_here(tmp_path: Path) -> None:
    """--allow-fetch file:///DIR is for other uses: no prediction reads this machine's files."""
    (tmp_path / "x").write_text("secret")
    assert "file: URLs are not accepted" in refused(f"file://{tmp_path}/x", policy=FetchPolicy.parse([f"file://{tmp_path}"])).message


# --- bounds ---


def test_too_many_files() -> None:
    """Counted before any is decoded."""
    with pytest.raises(ServingError, match="6 files in one call, at most 5 are accepted") as caught:
        made([{"image": "data:broken"}] * 6)
    assert caught.value.kind is Kind.TOO_LARGE


def test_a_file_that_is_too_large() -> None:
    """Found out before it is decoded, in every form."""
    for value in (
        "A" * 1400,
        "data:a/b;base64," + "A" * 1400,
        "data:," + "x" * 1001,
        "data:," + "%41" * 1001,
        b"x" * 1001,
        Blob(b"x" * 1001),
    ):
        error = refused(value)
        assert error.kind is Kind.TOO_LARGE
        assert "a file may have 1000 bytes, all files of a call together 2500" in error.message
    assert len(made([{"image": "data:," + "%41" * 1000}])[0]["image"].data) == 1000
    assert len(made([{"image": "QUFB" + " " * 5000}])[0]["image"].data) == 3


def test_encoded_sizes_are_known_without_decoding() -> None:
    """A gigabyte of base64 is refused by its length."""
    encoded = read_data_uri("data:a/b;base64," + "A" * 4_000_000)
    assert encoded.least_bytes > 2_900_000
    with pytest.raises(TooLongError):
        encoded.decode(1000)


def test_files_that_are_too_large_together() -> None:
    """Each would do, all of them are too much."""
    with pytest.raises(ServingError) as caught:
        made([{"image": b"x" * 900}] * 3)
    assert (caught.value.kind, caught.value.problems[0].path) == (Kind.TOO_LARGE, (2, "image"))


def test_images_with_too_many_pixels() -> None:
    """A small file that unpacks to a huge image never reaches a model; for other files the bytes are all that counts."""
    error = refused("data:image/png;base64," + base64.b64encode(png(60_000, 60_000)).decode())
    assert error.kind is Kind.TOO_LARGE
    assert "the image has 60000 x 60000 pixels, at most 10000 are accepted" in error.message
    assert made([{"image": png(100, 100)}])[0]["image"].data == png(100, 100)
    assert made([{"image": png(60_000, 60_000)}], Signature(form=Form.ROWS, input_files={"image": "binary"}))
    assert made([{"image": png(60_000, 60_000)}], limits=FileLimits(max_pixels=0))


# --- elsewhere ---


def test_urls_are_fetched() -> None:
    """Through the guarded client, each URL once; type and name come from the answer."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"pixels", "Content-Type: image/png")) as it:
            rows = [{"image": it.url("/a/cat.png?x=1")}, {"image": it.url("/a/cat.png?x=1")}, {"image": it.url("/b")}]
            found = await resolve(rows, ONE, LOOPBACK, LIMITS)
            assert found[0] == found[1] == {"image": Blob(b"pixels", "image/png", "cat.png")}
            assert found[2] == {"image": Blob(b"pixels", "image/png", "b")}
            assert len(it.heads) == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered 404"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "answered 503"),
        (b"rubbish", "broken"),
        (ok(b"x" * 2000), "holds more than 1000 bytes"),
        (ok(png(5000, 5000)), "the image has 5000 x 5000 pixels"),
    ],
    ids=["missing", "busy", "broken", "too large", "too many pixels"],
)
def test_urls_that_lead_nowhere(answer: bytes, text: str) -> None:
    """The input is what is wrong, whatever the other server's trouble: never UNAVAILABLE or TIMEOUT of this one."""

    async def scenario() -> None:
        async with site(lambda path: answer) as it:
            with pytest.raises(ServingError) as caught:
                await resolve([{"image": it.url("/x.png")}], ONE, LOOPBACK, LIMITS)
            assert text in caught.value.message
            assert caught.value.kind in (Kind.INVALID_INPUT, Kind.TOO_LARGE)
            assert caught.value.problems[0].path == (0, "image")

    asyncio.run(scenario())


def test_one_bad_url_stops_the_others() -> None:
    """The first failure is raised once; nothing is left running."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"x") if path != "/3" else b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n") as it:
            rows = [{"image": it.url(f"/{n}")} for n in range(5)]
            with pytest.raises(ServingError, match="input 3, field 'image'"):
                await resolve(rows, ONE, LOOPBACK, LIMITS)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_uploads_are_found_here(tmp_path: Path) -> None:
    """A URL that names an upload of this server is read from its folder, under whatever host, and never fetched."""
    uploads = Uploads(tmp_path)
    key = asyncio.run(put(uploads, b"pixels", "my cat.png", ""))
    upload = Blob(b"pixels", "image/png", "my cat.png")
    name = key.replace(" ", "%20")
    for url in (f"/files/{name}", f"http://anything:3000/files/{name}", f"https://x/models/m/files/{key[:32]}", f"/demo/files/{key[:32]}"):
        assert made([{"image": url}], uploads=uploads) == [{"image": upload}], url
    gone = "0" * 32
    assert "there is no uploaded file" in refused(f"/files/{gone}", uploads=uploads).message
    assert refused(f"http://127.0.0.1/files/{gone}", uploads=uploads).kind is Kind.FORBIDDEN
    for hostile in ("/files/../secret", f"/files/{gone}/../x", "/etc/./passwd", f"//files/{gone}\0"):
        refused(hostile, uploads=uploads)
    assert made([{"image": "/etc/passwd+"}], uploads=uploads)[0]["image"].data == base64.b64decode("/etc/passwd+")
