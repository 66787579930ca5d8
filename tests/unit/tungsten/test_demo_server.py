"""Uploads and the demo server's routes: what multipart bodies hold, files in the place of their URLs, one object per run."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import ServingError
from dragoman.core.predictions import Progress
from dragoman.core.tensors import Blob, Form, Signature
from dragoman.dialects.tungsten.files import serve
from dragoman.dialects.tungsten.forms import file_of
from tests.fakes_predictions import NUMBERS, PICTURES, TEXT, Client

FIRST = f"{1:032x}"
OWN = "http://models.example:3000"
FORM = "multipart/form-data; boundary=frontier"


def multipart(name: str = "file", filename: str | None = "a.png", content: bytes = b"\x89PNG", kind: str = "image/png") -> bytes:
    """One part, as browsers and requests write it."""
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"{named}\r\nContent-Type: {kind}\r\n\r\n'
    return head.encode() + content + b"\r\n--frontier--\r\n"


def upload(body: bytes, content_type: bytes, sizes: Iterable[int] = ()) -> Blob:
    """The file of a body that comes in pieces of these sizes, again and again, or as a whole."""

    async def whole() -> Blob:
        left = iter(pieces(body, list(sizes)))

        async def read() -> bytes:
            return next(left, b"")

        file = await file_of(read, content_type)
        async with aclosing(file.content) as content:
            taken = b"".join([piece async for piece in content])
        assert next(left, None) is None, "the rest of the body was not read"
        return Blob(taken, file.media_type, file.name)

    return asyncio.run(whole())


def pieces(body: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in itertools.cycle(sizes or [len(body) or 1]):
        if not body:
            return
        yield body[:size]
        body = body[size:]


def put(client: Client, folder: str = "", **part: Any) -> str:
    url: str = client.post(f"{folder}/files", multipart(**part), {"Content-Type": FORM})["serving_url"]
    return url


# --- uploads ---


@pytest.mark.parametrize("folder", ["", "/demo"])
def test_an_upload_has_a_url_of_its_own(folder: str) -> None:
    """Two files of one name are two files, and each is what was sent."""
    client = Client()
    first, second = put(client, folder, content=b"one"), put(client, folder, content=b"two")
    assert first.startswith(f"{OWN}{folder}/files/")
    assert first != second
    for url, content in ((first, b"one"), (second, b"two")):
        reply = client.send("GET", url.removeprefix(OWN))
        assert (reply.status, reply.body, reply.headers[b"content-type"]) == (200, content, b"image/png")


def test_what_was_uploaded_runs_nothing() -> None:
    """A page of somebody's is shown as a stranger's."""
    client = Client()
    reply = client.send("GET", put(client, filename="a.html", kind="text/html", content=b"<script>").removeprefix(OWN))
    assert b"sandbox" in reply.headers[b"content-security-policy"]
    assert reply.headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize("kind", ["text/html\nx: y", "image png", ""])
def test_a_type_that_is_none(kind: str) -> None:
    """The name decides, and no header is added."""
    client = Client()
    reply = client.send("GET", put(client, kind=kind.replace("\n", "\r\n")).removeprefix(OWN))
    assert reply.headers[b"content-type"] in (b"image/png", b"text/html")
    assert b"x" not in reply.headers


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../b", "..", "%2e%2e%2fpasswd", "\0", "no-such.png"])
def test_files_that_are_not_there(name: str) -> None:
    """404 in the original's words."""
    escaped = "".join(f"%{byte:02x}" for byte in name.encode())
    for folder in ("", "/demo"):
        assert Client().refused(404, "GET", f"{folder}/files/{escaped}") == {"detail": "File not found"}


@pytest.mark.parametrize("host", ["evil.example/<script>", "a b", "", "x\r\ny"])
def test_urls_name_a_host_or_loopback(host: str) -> None:
    """Whatever the client calls it."""
    client = Client()
    url = client.post("/files", multipart(), {"Content-Type": FORM, "host": host})["serving_url"]
    assert url.startswith("http://127.0.0.1/files/")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, b""),
        (FORM, b"--frontier--\r\n"),
        (FORM, multipart(name="other")),
        (FORM, multipart(filename=None)),
        ("multipart/form-data", multipart()),
        ("application/json", b"{}"),
        ("multipart/form-data; boundary=other", multipart()),
    ],
)
def test_an_upload_without_a_file(content_type: str, body: bytes) -> None:
    """422: the field is missing."""
    (problem,) = Client().refused(422, "POST", "/files", body, {"Content-Type": content_type})["detail"]
    assert problem == {"loc": ["body", "file"], "msg": "field required", "type": "value_error.missing"}


@pytest.mark.parametrize("body", [multipart()[:-20], b"--frontier\r\n" + b"x" * 20_000, b"--frontier\r\nContent-Disposition: form-data"])
def test_a_broken_upload(body: bytes) -> None:
    """422, as no part ends."""
    (problem,) = Client().refused(422, "POST", "/files", body, {"Content-Type": FORM})["detail"]
    assert problem["loc"] == ["body"]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="file"; filename="b.txt"', "b.txt"),
        ("form-data; name=file; filename=b.txt", "b.txt"),
        ("FORM-DATA; filename*=UTF-8''%e2%82%ac.txt; name=\"file\"", "€.txt"),
        ('form-data; name="file"; filename="a\\"b.txt"', 'a"b.txt'),
        ('form-data; name="file"; filename=""', ""),
    ],
)
def test_names_of_parts(disposition: str, name: str) -> None:
    """As browsers and libraries write them; other parts before it are passed over."""
    before = b'--frontier\r\nContent-Disposition: form-data; name="token"\r\n\r\nsecret\r\n'
    body = before + f"--frontier\r\ncontent-disposition: {disposition}\r\n\r\n".encode() + b"x\r\n\r\ny\r\n--frontier--"
    found = upload(body, b'multipart/form-data; charset=utf-8; boundary="frontier"')
    assert (found.data, found.name) == (b"x\r\n\r\ny", name)


def test_a_form_has_few_fields() -> None:
    """What is looked at holds up everybody else: neither very many parts nor very long names are gone through."""
    part = b"--frontier\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n"
    with pytest.raises(ServingError, match="more than 100 fields"):
        upload(part * 200_000 + multipart(), FORM.encode())
    assert upload(part * 99 + multipart(content=b"y"), FORM.encode()).data == b"y"
    long = b"--frontier\r\nContent-Disposition: form-data; name=" + b"a" * 16_000 + b"\r\n\r\n\r\n"
    assert upload(long * 99 + multipart(content=b"z"), FORM.encode()).data == b"z"


@pytest.mark.parametrize(
    ("media_type", "shown"),
    [("image/png", "inline"), ("Video/MP4", "inline"), ("image/svg+xml", "attachment"), ("text/html", "attachment"), ("odd", "attachment")],
)
def test_only_what_runs_nothing_is_shown(media_type: str, shown: str) -> None:
    """Browsers save everything else."""
    assert (b"content-disposition", shown.encode()) in serve(Blob(b"x", media_type)).headers


def test_an_empty_file() -> None:
    """Is a file."""
    assert upload(multipart(content=b""), FORM.encode()).data == b""


SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=4)
NEARLY = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"--fron", b"\r\n--frontie", b"x", b"\r\n\r\n"]), max_size=12).map(
    b"".join
)


@given(NEARLY, SIZES)
def test_wherever_the_pieces_are_cut(content: bytes, sizes: list[int]) -> None:
    """In a boundary, in a head, in what looks like either: the file is what was sent, also with fields before and behind it."""
    field = b'--frontier\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + content + b"\r\n"
    body = b"preamble\r\n" + field + multipart(content=content)[:-2] + b"\r\n" + field + b"--frontier--\r\nepilogue"
    assert upload(body, FORM.encode(), sizes).data == content


@given(st.integers(1, 300), SIZES)
def test_a_form_that_ends_too_early(length: int, sizes: list[int]) -> None:
    """Is refused wherever it ends, and the file is not taken for whole."""
    body = multipart(content=b"x" * 100)
    with pytest.raises(ServingError):
        upload(body[: min(length, len(body) - len("--frontier--\r\n"))], FORM.encode(), sizes)


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_any_bytes_are_a_file_or_refused(noise: bytes, content: bytes) -> None:
    """No body fails the server, and what is taken is what was sent."""
    with contextlib.suppress(ServingError):
        upload(b"--frontier" + noise, FORM.encode())
    if b"--frontier" not in content:
        assert upload(multipart(content=content), FORM.encode()).data == content


# --- uploads in rows ---


@pytest.mark.parametrize("kind", ["predictions", "demo"])
@pytest.mark.parametrize("form", ["{url}", "{path}"])
def test_an_upload_in_a_row(kind: str, form: str) -> None:
    """Its file takes the place of its URL, so the server never calls itself; the path alone will do."""
    client = Client(p=PICTURES)
    url = put(client, content=b"hi", filename="cat.png")
    client.post(f"/{kind}", [{"image": form.format(url=url, path=url.removeprefix(OWN))}])
    assert client.predictions.given[FIRST] == [{"image": Blob(b"hi", "image/png", "cat.png"), "strength": 0.5}]


@pytest.mark.parametrize("url", [f"{OWN}/files/none.png", "/files/none.png", f"{OWN}/demo/files/none.png", f"{OWN}/files/..%2F..%2Fetc"])
def test_an_upload_that_is_gone(url: str) -> None:
    """404, at once."""
    assert Client(p=PICTURES).refused(404, "POST", "/predictions", [{"image": url}]) == {"detail": "File not found"}


@pytest.mark.parametrize(
    "url", ["http://other.example/files/a.png", f"{OWN}/elsewhere/files/a.png", f"{OWN}/files/a/b", f"{OWN}/files/a?b"]
)
def test_other_urls_are_left_alone(url: str) -> None:
    """They are fetched like any."""
    client = Client(p=PICTURES)
    client.post("/predictions", [{"image": url}])
    assert client.predictions.given[FIRST][0]["image"] == url


def test_uploads_in_masks_and_lists() -> None:
    """Wherever the signature has files; text that looks like a URL is text."""
    uri = {"type": "string", "format": "uri"}
    masked = {"type": "object", "properties": {"image": uri, "mask": uri}, "required": ["image", "mask"]}
    schema = {
        "type": "object",
        "properties": {"pic": masked, "many": {"type": "array", "items": uri}, "note": {"type": "string"}},
        "required": ["pic", "many", "note"],
    }
    places = {"pic.image": "image", "pic.mask": "image", "many.$item": "audio"}
    signature = Signature(form=Form.ROWS, batch=True, input_schema=schema, output_schema={"type": "object"}, input_files=places)
    client = Client(p={"": signature})
    url = put(client, content=b"hi")
    client.post("/predictions", [{"pic": {"image": url, "mask": url}, "many": [url, "data:,x"], "note": url}])
    blob = Blob(b"hi", "image/png", "a.png")
    assert client.predictions.given[FIRST] == [{"pic": {"image": blob, "mask": blob}, "many": [blob, "data:,x"], "note": url}]


# --- the demo server ---


def test_metadata() -> None:
    """Name, schemas and kinds of files."""
    client = Client(p=PICTURES, m=TEXT, n=NUMBERS)
    found = client.get("/demo/metadata")
    assert (found["name"], found["avatar_url"], found["readme"]) == ("p", None, None)
    assert found["input_schema"] == PICTURES[""].input_schema
    assert found["input_filetypes"] == found["output_filetypes"] == found["demo_output_filetypes"] == {"image": "image"}
    assert list(client.get("/models/m/demo/metadata")["demo_output_schema"]["properties"]) == ["page"]
    assert client.get("/models/n:1/demo/metadata")["input_filetypes"] == {}


def test_the_readme_is_text() -> None:
    """What its author wrote, in JSON, whatever it holds."""
    client = Client()
    client.serve("r", TEXT, readme="# Hi\n<script>alert(1)</script> ![x](x.png)")
    reply = client.send("GET", "/models/r/demo/metadata")
    assert reply.headers[b"content-type"] == b"application/json"
    assert json.loads(reply.body)["readme"] == "# Hi\n<script>alert(1)</script> ![x](x.png)"


def test_one_run() -> None:
    """One object in, everything about its run in one object out."""
    client = Client()
    run = client.post("/demo/predictions", {"prompt": "hello"})
    row = {"prompt": "hello", "seed": 7, "style": "plain"}
    empty = {"output": None, "demo_output": None, "logs": "", "failure_reason": None}
    assert run == {"id": FIRST, "status": "pending", "input": row, **empty}
    assert client.predictions.views[FIRST].operation == "demo"
    client.predictions.change(FIRST, progress=Progress.RUNNING, logs="half\n")
    assert client.get(f"/demo/predictions/{FIRST}") == {"id": FIRST, "status": "running", "input": row, **empty, "logs": "half\n"}
    client.predictions.succeed(FIRST, {"output": {"text": "a"}, "demo_output": {"page": "b"}})
    found = client.get(f"/models/m/demo/predictions/{FIRST}")
    assert (found["status"], found["output"], found["demo_output"]) == ("success", {"text": "a"}, {"page": "b"})
    assert client.get(f"/demo/{FIRST}")["outputs"] == [{"text": "a"}]


def test_a_run_that_failed() -> None:
    """The traceback ends the logs."""
    client = Client()
    client.post("/demo/predictions", {"prompt": "hello"})
    client.predictions.change(FIRST, progress=Progress.FAILED, logs="half\n", error="ValueError: boom\n")
    found = client.get(f"/demo/predictions/{FIRST}")
    assert (found["status"], found["logs"], found["failure_reason"], found["output"]) == ("failed", "half\nValueError: boom\n", None, None)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_cancelling_a_run(method: str) -> None:
    """null, and 404 for what is none."""
    client = Client()
    client.post("/demo/predictions", {"prompt": "hello"})
    reply = client.send(method, f"/demo/predictions/{FIRST}/cancel")
    assert (reply.status, reply.body) == (200, b"null")
    assert client.predictions.cancelled == [FIRST]
    for path in ("/demo/predictions/none", "/demo/predictions/none/cancel", f"/models/other/demo/predictions/{FIRST}"):
        assert client.refused(404, "GET", path) == {"detail": f"No such prediction: {'none' if 'none' in path else FIRST}"}


def test_bad_input_of_a_run() -> None:
    """The places have no list and no index, as there is none."""
    client = Client()
    (problem,) = client.refused(422, "POST", "/demo/predictions", {"prompt": "a"})["detail"]
    assert (problem["loc"], problem["type"]) == (["body", "prompt"], "value_error.any_str.min_length")
    (problem,) = client.refused(422, "POST", "/demo/predictions", [{"prompt": "hello"}])["detail"]
    assert (problem["loc"], problem["type"]) == (["body"], "type_error.dict")


def test_files_of_a_run_have_urls() -> None:
    """Inputs and outputs, each by its place; they are the prediction's and need no store."""
    client = Client(p=PICTURES)
    url = put(client, "/demo", content=b"input", filename="in.png")
    run = client.post("/demo/predictions", {"image": url})
    assert run["input"]["image"].startswith(f"{OWN}/demo/files/run-{FIRST}-0")
    client.predictions.succeed(FIRST, {"image": Blob(b"output", "image/jpeg", "out.jpg")})
    found = client.get(f"/demo/predictions/{FIRST}")
    assert found["input"] == run["input"], "a URL that was told stays good"
    assert found["output"] == found["demo_output"] == {"image": f"{OWN}/demo/files/run-{FIRST}-1.jpg"}
    for shown, content in ((found["input"]["image"], b"input"), (found["output"]["image"], b"output")):
        reply = client.send("GET", shown.removeprefix(OWN))
        assert (reply.status, reply.body) == (200, content)
    for name in (f"run-{FIRST}-2.jpg", f"run-{2:032x}-0.jpg", f"run-{FIRST}-000000.png.exe", f"{FIRST}-1.jpg"):
        assert client.refused(404, "GET", f"/demo/files/{name}") == {"detail": "File not found"}


def test_files_beside_what_only_the_slow_writer_takes() -> None:
    """They have URLs there, too."""
    client = Client(p=PICTURES)
    client.post("/demo/predictions", {"image": "data:,x"})
    client.predictions.succeed(FIRST, {"image": Blob(b"o", "image/png"), "big": 2**70})
    reply = client.send("GET", f"/demo/predictions/{FIRST}")
    assert json.loads(reply.body)["output"] == {"image": f"{OWN}/demo/files/run-{FIRST}-0.png", "big": 2**70}
