"""`fetch` on files and on URLs that never reach the network: schemes, confinement, limits, and what texts show of a URL."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dragoman.core.data_uris import bare_name
from dragoman.core.errors import Kind, ServingError
from dragoman.serving.fetch import Fetched, FetchPolicy, fetch, media_type, shown


def get(url: str, policy: FetchPolicy) -> Fetched:
    """One fetch in a loop of its own."""
    return asyncio.run(fetch(url, policy))


def refused(url: str, policy: FetchPolicy) -> ServingError:
    """The error of a fetch that must fail."""
    with pytest.raises(ServingError) as caught:
        get(url, policy)
    return caught.value


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that will be opened, with a file beside it that must stay closed."""
    (tmp_path / "secret.txt").write_bytes(b"secret")
    opened = tmp_path / "opened"
    (opened / "deep").mkdir(parents=True)
    (opened / "cat.png").write_bytes(b"\x89PNG")
    (opened / "deep" / "a b#1.txt").write_bytes(b"text")
    return opened


@pytest.fixture
def policy(root: Path) -> FetchPolicy:
    """Opens `root` for at most 100 bytes a file."""
    return FetchPolicy.parse([f"file://{root}"], max_bytes=100, timeout_s=10)


def test_a_file_is_read(root: Path, policy: FetchPolicy) -> None:
    """A file below an opened directory comes with its bytes, a type by its name, its bare name and a showable URL."""
    assert get(f"file://{root}/cat.png", policy) == Fetched(b"\x89PNG", "image/png", "cat.png", f"file://{root}/cat.png")


def test_escapes_in_a_file_url_are_undone(root: Path, policy: FetchPolicy) -> None:
    """Percent escapes name any character; `localhost` as the host is the same as none; the scheme's case does not matter."""
    assert get(f"FILE://localhost{root}/deep/a%20b%231.txt", policy).data == b"text"


def test_files_are_closed_by_default(root: Path) -> None:
    """Without any opened directory no file is read, whether it exists or not, and both get the same answer."""
    there = refused(f"file://{root}/cat.png", FetchPolicy())
    missing = refused(f"file://{root}/dog.png", FetchPolicy())
    assert there.kind is missing.kind is Kind.FORBIDDEN
    assert there.message.replace("cat", "dog") == missing.message


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/%2e%2e/secret.txt", "/deep/../../secret.txt", "/..%2Fsecret.txt", "/link", "/up/secret.txt"]
)
def test_nothing_outside_the_directory_is_read(root: Path, policy: FetchPolicy, path: str) -> None:
    """Dots in any spelling and links to files or directories outside lead to FORBIDDEN."""
    (root / "link").symlink_to("../secret.txt")
    (root / "up").symlink_to("..")
    assert refused(f"file://{root}{path}", policy).kind is Kind.FORBIDDEN


def test_a_link_that_stays_inside_is_followed(root: Path, policy: FetchPolicy) -> None:
    """Links within the opened directory work: data sets are often built from them."""
    (root / "alias").symlink_to("deep")
    assert get(f"file://{root}/alias/a%20b%231.txt", policy).data == b"text"


@pytest.mark.parametrize("path", ["/dog.png", "/deep", "/", "", "/cat.png/x", "/cat.png?x=1", "/cat.png#x", "/a%00b", "/pipe", "/loop"])
def test_what_is_no_file_is_invalid(root: Path, policy: FetchPolicy, path: str) -> None:
    """Missing files, directories, pipes (which would block), NUL characters and queries are the caller's mistake."""
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("gone")
    assert refused(f"file://{root}{path}", policy).kind is Kind.INVALID_INPUT


def test_files_of_other_hosts_are_not_read(root: Path, policy: FetchPolicy) -> None:
    """A host in a file URL is refused, and what may be a password in it is not repeated."""
    error = refused(f"file://user:hunter2@host{root}/cat.png", policy)
    assert error.kind is Kind.INVALID_INPUT
    assert "hunter2" not in error.message


def test_a_relative_file_url_is_invalid(policy: FetchPolicy) -> None:
    """`file:cat.png` would depend on the directory that the server was started in."""
    assert refused("file:cat.png", policy).kind is Kind.INVALID_INPUT


def test_an_unreadable_file_is_forbidden(root: Path, policy: FetchPolicy) -> None:
    """A file that the server's user may not open is FORBIDDEN; root may open everything and reads it."""
    (root / "cat.png").chmod(0)
    if os.geteuid() == 0:
        assert get(f"file://{root}/cat.png", policy).data == b"\x89PNG"
    else:
        assert refused(f"file://{root}/cat.png", policy).kind is Kind.FORBIDDEN


def test_the_size_limit_holds_for_files(root: Path, policy: FetchPolicy) -> None:
    """A file of exactly the limit is read; one byte more is TOO_LARGE, and the text says the limit."""
    (root / "full").write_bytes(b"x" * 100)
    (root / "over").write_bytes(b"x" * 101)
    assert len(get(f"file://{root}/full", policy).data) == 100
    error = refused(f"file://{root}/over", policy)
    assert error.kind is Kind.TOO_LARGE
    assert "100 bytes" in error.message


@pytest.mark.parametrize("url", ["", "cat.png", "//host/x", "ftp://host/x", "hdfs://host/x", "data:,x", "javascript:1", "gopher://h"])
def test_other_schemes_are_invalid(url: str) -> None:
    """Only http and https are read; the text says so, and names file only where a directory is open."""
    error = refused(url, FetchPolicy())
    assert error.kind is Kind.INVALID_INPUT
    assert "http:// or https://" in error.message
    assert "file" not in error.message


def test_the_error_for_schemes_names_file_where_it_is_open(policy: FetchPolicy) -> None:
    """With an opened directory file:// is among what is expected."""
    assert "file://" in refused("ftp://host/x", policy).message


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http:///x", "http:x", "http://:80/", "http://host:0/", "http://host:65536/", "http://host:x/", "http://a b/"),
        *("http://[::1/", "http://[::1%25lo]/", "http://[1.2.3.4]/", "http://%31%32%37.0.0.1/", "http://host..x/", "http://host\\x/"),
        *(
            "http://host\n.x/",
            " http://host",
            "http://host/\x00",
            "http://" + "a" * 64 + "/",
            "http://①②⑦.0.0.1/",
            "http://\ud800/",
            "http://host/\ud800",
        ),
    ],
)
def test_malformed_urls_are_invalid(url: str) -> None:
    """A URL without a proper host or port never gets as far as a resolver."""

    async def resolver(host: str, port: int) -> list[str]:
        raise AssertionError((host, port))

    with pytest.raises(ServingError) as caught:
        asyncio.run(fetch(url, FetchPolicy(), resolver=resolver))
    assert caught.value.kind is Kind.INVALID_INPUT
    assert caught.value.message.isprintable()


@given(st.text(max_size=40) | st.text(alphabet="htps:/@[]%.?#\\0x7f1 \t\n", max_size=20).map("http://".__add__))
@example("http://[")
@example("http://]/")
@example("https://a:b:c@d:e")
def test_no_text_causes_anything_but_a_serving_error(url: str) -> None:
    """Whatever a client calls a URL is answered with a ServingError, one line long, and connects to nothing."""

    async def nowhere(host: str, port: int) -> list[str]:
        raise OSError(host, port)

    with pytest.raises(ServingError) as caught:
        asyncio.run(fetch(url, FetchPolicy(), resolver=nowhere))
    assert caught.value.kind in {Kind.INVALID_INPUT, Kind.FORBIDDEN}
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://host/a/b", "http://host/a/b"),
        ("https://Host:8443/a?token=hunter2#hunter2", "https://Host:8443/a"),
        ("https://user:hunter2@host/a", "https://host/a"),
        ("https://user:hun@ter2@host/a", "https://host/a"),
        ("https://[::1]:80/a", "https://[::1]:80/a"),
        ("https://user:hun/ter2@host/a", "https:..."),
        ("hunter2@host", "..."),
        ("user:hunter2@host", "..."),
        ("http://[hunter2", "..."),
        ("http://host/a\x1b[2Jb", "http://host/a?[2Jb"),
        ("file:///srv/a.png?x", "file:///srv/a.png"),
    ],
)
def test_credentials_and_queries_are_never_shown(url: str, text: str) -> None:
    """What texts show of a URL has neither credentials nor query, nor anything that may be a mistyped password."""
    assert shown(url) == text


def test_long_urls_are_cut() -> None:
    """A URL of a megabyte does not fill the log."""
    assert len(shown("http://host/" + "a" * 10**6)) < 250


@given(st.text(max_size=60))
def test_bare_names_are_safe(path: str) -> None:
    """A name taken from a URL cannot leave a directory, is printable, and is not too long for a file system."""
    name = bare_name(path * 9)
    assert name not in {".", ".."}
    assert not set(name) & set("/\\\0")
    assert len(name.encode("utf-8", "surrogatepass")) <= 4 * 120


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/cat.png", "cat.png"), ("/a/", ""), ("/..", ""), ("/a/..\\..\\cat.png", "cat.png"), ("cat\n.png", "cat.png"), ("/ ", "")],
)
def test_bare_names_keep_the_last_segment(path: str, name: str) -> None:
    """The last segment of either kind of slash is the name, without control characters; "" where nothing is left."""
    assert bare_name(path) == name


def test_a_long_name_keeps_its_ending() -> None:
    """The suffix says what a file is, so a long name is cut at its front."""
    assert bare_name("/" + "a" * 500 + ".png").endswith("a.png")


@pytest.mark.parametrize(
    ("declared", "name", "expected"),
    [
        ("image/png", "x.gif", "image/png"),
        ("Text/CSV; charset=utf-8", "", "text/csv"),
        ("application/vnd.api+json;v=1", "", "application/vnd.api+json"),
        ("", "x.gif", "image/gif"),
        ("", "x.tar.gz", "application/octet-stream"),
        ("", "x", "application/octet-stream"),
        ("nonsense", "x.gif", "image/gif"),
        ("a/b c", "", "application/octet-stream"),
        ("text/html\r\nX: y", "", "application/octet-stream"),
    ],
)
def test_media_types(declared: str, name: str, expected: str) -> None:
    """The declared type wins where it is one; else the name decides; else it is plain bytes."""
    assert media_type(declared, name) == expected
