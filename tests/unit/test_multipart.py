"""Forms with files, taken apart while they come (core/multipart.py)."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.multipart import Form, Part, boundary_of

Taken = list[tuple[Part, bytes]]


def taken(body: bytes, boundary: str = "B", step: int = 0) -> tuple[Taken, Form]:
    """The parts of a form that comes in pieces of `step` bytes, 0 for all at once."""
    form = Form(boundary)
    found: Taken = []
    pieces = [body] if not step else [body[at : at + step] for at in range(0, len(body), step)]
    for piece in pieces:
        for item in form.feed(piece):
            if isinstance(item, Part):
                found.append((item, b""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + item)
    return found, form


def part(disposition: bytes, content: bytes = b"x") -> bytes:
    return b"--B\r\nContent-Disposition: form-data" + disposition + b"\r\nContent-Type: text/plain\r\n\r\n" + content + b"\r\n"


def name_of(disposition: bytes) -> str | None:
    ((found, _),), _ = taken(part(b'; name="code"' + disposition) + b"--B--\r\n")
    return found.filename


def refused(body: bytes) -> str:
    with pytest.raises(ServingError) as caught:
        taken(body)
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "body")
    return caught.value.message


@given(
    st.lists(st.tuples(st.text(st.characters(codec="ascii", exclude_characters='"\\\r\n%', min_codepoint=32)), st.binary(max_size=200))),
    st.integers(1, 60),
)
def test_whatever_is_put_in_comes_out(parts: list[tuple[str, bytes]], step: int) -> None:
    """Any content comes out as it went in, also when it looks like the form around it, however the form is cut into pieces."""
    parts = [(name, content.replace(b"\r\n--B", b"")) for name, content in parts]
    body = b"".join(part(f'; name="code"; filename="{name}"'.encode(), content) for name, content in parts) + b"--B--\r\n"
    found, form = taken(body, step=step)
    assert [(each.filename, content) for each, content in found] == parts
    assert form.complete


@given(st.binary(max_size=300), st.integers(1, 40))
def test_no_bytes_crash_it(body: bytes, step: int) -> None:
    """What is no form is refused, or waits for more."""
    with suppress(ServingError):
        taken(b"--B" + body, step=step)


@pytest.mark.parametrize("step", [0, 1, 3])
def test_content_that_looks_like_a_boundary(step: int) -> None:
    """Only a line that begins with the whole boundary ends a part."""
    content = b"a\r\n--b\r\n--\r\n\r\n-B--B\r\n-"
    found, _ = taken(part(b'; name="code"; filename="x"', content) + part(b'; name="json"', b"{}") + b"--B--", step=step)
    assert [content for _, content in found] == [content, b"{}"]
    assert found[1][0] == Part("json", None, "text/plain")


def test_what_is_before_and_behind_is_dropped() -> None:
    """A preamble and an epilogue mean nothing, and neither has to fit into memory."""
    form = Form("B")
    for _ in range(100):
        assert not list(form.feed(b"before " * 1000))
    assert [item for item in form.feed(b"\r\n" + part(b"; name=a") + b"--B--") if isinstance(item, Part)] == [Part("a", None, "text/plain")]
    assert form.complete
    assert not list(form.feed(part(b"; name=b")))


def test_a_form_that_breaks_off_is_not_complete() -> None:
    """Its parts come, but it does not say that it is whole."""
    body = part(b"; name=a") + b"--B--"
    for end in range(len(body)):
        assert not taken(body[:end])[1].complete
    assert taken(body)[1].complete


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (b'; filename="./a/b c.txt"', "./a/b c.txt"),
        (b'; filename="a;b,c=d\'e.txt"', "a;b,c=d'e.txt"),
        ('; filename="größe.txt"'.encode(), "größe.txt"),
        (b'; filename="quo%22te"', 'quo"te'),
        (b'; filename="quo\\"te"', 'quo"te'),
        (b'; filename="back\\\\slash"', "back\\slash"),
        (b'; filename=".\\sub\\file"', ".\\sub\\file"),
        (b'; filename="tab%09here%41%2F"', "tab\there%41%2F"),
        (b"; filename*=utf-8''gr%C3%B6%C3%9Fe%20%22.txt", 'größe ".txt'),
        (b"; filename*=UTF-8'en'a", "a"),
        (b"; filename*=iso-8859-1''gr%F6", "grö"),
        (b"; filename=\"fallback\"; filename*=utf-8''better", "better"),
        (b"; filename=plain.txt", "plain.txt"),
        (b'; filename=""', ""),
        (b"", None),
    ],
)
def test_names_of_files(written: bytes, meant: str | None) -> None:
    """Every way of writing a file's name that clients have."""
    assert name_of(written) == meant


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"--Bx\r\n", "boundary"),
        (b"--B\r\nContent-Type: text/plain\r\n\r\nx\r\n--B--", "Content-Disposition"),
        (b"--B\r\nContent-Disposition: attachment; name=a\r\n\r\nx", "Content-Disposition"),
        (part(b'; name="a; filename=b'), "Content-Disposition"),
        (part(b"; filename=b"), "no name"),
        (part(b'; name="a"; filename="\xff\xfe"'), "UTF-8"),
        (part(b"; name=a; filename*=utf-8''%ff"), "UTF-8"),
        (b"--B\r\nX: " + b"y" * 20000, "16384"),
    ],
)
def test_what_is_no_form(body: bytes, word: str) -> None:
    """The reason is told."""
    assert word in refused(body)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", "abc"),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b"', "a b"),
    ],
)
def test_boundaries(content_type: str, boundary: str) -> None:
    """In quotes or not, beside other parameters."""
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=a", "multipart/form-data; boundary="]
)
def test_no_boundary(content_type: str) -> None:
    """Other bodies are refused."""
    with pytest.raises(ServingError, match="form with files"):
        boundary_of(content_type)
