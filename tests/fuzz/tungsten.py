"""Valid requests of Tungsten's protocol, each with a check that knows the result from elsewhere; most lead to a second one, about what came of it."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, urlsplit

from tests.fuzz.cases import Case
from tests.fuzz.wire import Answer

TALK = """
from typing import List
from tungstenkit import BaseIO, Field, Option, define_model


class Input(BaseIO):
    prompt: str = Field(min_length=1, max_length=200)
    times: int = Option(1, ge=1, le=3)
    style: str = Option("plain", choices=["plain", "loud"])
    share: float = 0.5
    flag: bool = False


class Output(BaseIO):
    text: str
    share: float


class Shown(BaseIO):
    page: str


@define_model(input=Input, output=Output, demo_output=Shown, batch_size=8)
class Talk:
    def predict(self, inputs: List[Input]):
        print("talking of", len(inputs))
        texts = [" ".join([each.prompt] * each.times) for each in inputs]
        return [{"text": t.upper() if e.style == "loud" else t, "share": e.share} for t, e in zip(texts, inputs)]

    def predict_demo(self, inputs: List[Input]):
        outputs = self.predict(inputs)
        return outputs, [{"page": each["text"]} for each in outputs]
"""
COPY = """
from typing import Dict, List
from tungstenkit import BaseIO, Binary, Image, Option, define_model


class Input(BaseIO):
    image: Image
    more: Binary = Option(None)


class Inner(BaseIO):
    copies: List[Binary]


class Output(BaseIO):
    size: int
    inner: Inner
    named: Dict[str, Binary]


@define_model(input=Input, output=Output, batch_size=4)
class Copy:
    def predict(self, inputs: List[Input]):
        outputs = []
        for each in inputs:
            data = each.image.path.read_bytes()
            outputs.append({"size": len(data), "inner": {"copies": [Binary.from_bytes(data)]}, "named": {}})
        return outputs
"""
_WORDS = ("hello", "a b", "é€", "x" * 150, "\u2028", "0", "null", '"', "\\", "\x00", "\U0001f600", "<b>&amp;</b>")
_NAMES = ("a.png", "../../etc/passwd", "", "x" * 300, "é€.bin", 'a"b', "a\\b", ".", "C:\\x.html", "%2e%2e", "a\x00b", "con")
_TYPES = ("image/png", "text/html", "", "odd", "image/svg+xml", "a/b; charset=x", "x" * 300)
_IDS = ("0" * 32, "f" * 32, "nope", "F" * 32, "0" * 31, "0" * 33, "..", "%00", "a" * 300, "null", "é")


def write(folder: Path) -> None:
    """The two models, each in a folder of its own."""
    for name, source in (("talk", TALK), ("copy", COPY)):
        (folder / name).mkdir(parents=True)
        (folder / name / "tungsten_model.py").write_text(source, "utf-8")


def _inputs(rng: Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows for `talk`, as clients may write them, and what comes back."""
    rows, wanted = [], []
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        word, times, share = rng.choice(_WORDS), rng.choice((1, 1, 2, 3)), rng.choice((0.5, 0.5, 0.25, -1e300, 3))
        loud = rng.random() < 0.2
        row: dict[str, Any] = {"prompt": word}
        if times != 1:
            row["times"] = rng.choice((times, str(times), times + 0.5))
        if share != 0.5 or rng.random() < 0.2:
            row["share"] = rng.choice((share, str(share)))
        if loud:
            row["style"] = "loud"
        if rng.random() < 0.2:
            row["flag"] = rng.choice((True, 1, "yes", "off"))
        if rng.random() < 0.1:
            row["unknown"] = [1, {"a": None}]
        rows.append(row)
        text = " ".join([word] * times)
        wanted.append({"text": text.upper() if loud else text, "share": float(share)})
    return rows, wanted


def _where(rng: Random, model: str) -> str:
    return f"/models/{model}{rng.choice(('', '', ':1'))}"


def _predict(rng: Random) -> Case:
    rows, wanted = _inputs(rng)
    return Case("POST", f"{_where(rng, 'talk')}/predict".encode(), rows, check=_is({**_OK, "outputs": wanted}), what="predict")


_OK = {"status": "success", "error_message": None}
_CANCELED = {"outputs": None, "status": "failed", "error_message": "Canceled"}


def _is(wanted: Any) -> Callable[[Answer], None]:
    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        found = json.loads(answer.body)
        assert found == wanted, f"{found} instead of {wanted}"

    return check


def _submit(rng: Random) -> Case:
    """A prediction or a demo; then it is asked for, followed or cancelled."""
    rows, wanted = _inputs(rng)
    kind = rng.choice(("predictions", "predictions", "demo"))
    where = _where(rng, "talk")
    case = Case("POST", f"{where}/{kind}".encode(), rows, what=f"submit {kind}")
    after, root = Random(rng.random()), rng.choice(("", "/models/talk"))

    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        (key,) = json.loads(answer.body).values()
        assert len(bytes.fromhex(key)) == 16
        case.undo = _about(f"{root}/{kind}/{key}", kind, wanted, after)

    case.check = check
    return case


def _about(path: str, kind: str, wanted: list[dict[str, Any]], rng: Random) -> Case:
    """A request about a prediction that has been accepted."""
    done: dict[str, Any] = {**_OK, "outputs": wanted}
    match rng.randrange(5):
        case 0:
            return Case("POST", f"{path}/cancel".encode(), raw=b"", check=_empty, what="cancel")
        case 1:
            return Case("GET", f"{path}/events".encode(), check=_events, what="events")
        case 2:
            return Case("GET", path.encode(), check=_status, what="poll")
        case _:

            def check(answer: Answer) -> None:
                found = json.loads(answer.body)
                logs, pages = found.pop("logs", None), found.pop("demo_outputs", None)
                assert found == done, f"{found} instead of {done}"
                assert kind != "demo" or (logs.startswith("talking of") and pages == [{"page": each["text"]} for each in wanted])

            return Case("GET", f"{path}?wait=30".encode(), check=check, what="wait")


def _empty(answer: Answer) -> None:
    assert (answer.status, answer.body) == (200, b"")


def _status(answer: Answer) -> None:
    found = json.loads(answer.body)
    assert found["status"] in ("pending", "running", "success"), found
    assert (found["outputs"] is None) == (found["status"] != "success"), found


def _events(answer: Answer) -> None:
    """The last one is the end."""
    assert answer.status == 200
    assert answer.body.rpartition(b"event: status\ndata: ")[2].startswith(b'{"status":"success"'), answer.body[-300:]


def _single(rng: Random) -> Case:
    """As the demo server of the original has it: one input, everything about the run in one object."""
    (row, *_), (wanted, *_) = _inputs(rng)
    case = Case("POST", b"/models/talk/demo/predictions", row, what="submit one")

    def check(answer: Answer) -> None:
        found = json.loads(answer.body)
        assert {"id", "status", "input", "output", "demo_output", "logs", "failure_reason"} == set(found)
        path = f"/models/talk/demo/predictions/{found['id']}"
        case.undo = Case("GET", path.encode(), check=shown, what="show one")

    def shown(answer: Answer) -> None:
        found = json.loads(answer.body)
        assert found["output"] in (None, wanted), f"{found} instead of {wanted}"

    case.check = check
    return case


def _content(rng: Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 2, 3, 100, 100, 5_000, 200_000)))


def _multipart(content: bytes, rng: Random) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    name = rng.choice(_NAMES).replace("\x00", "").replace("\\", "\\\\").replace('"', '\\"').encode()
    boundary = rng.choice((b"frontier", b"-" * 30 + b"1", b"x" * 70))
    before = b'--%b\r\nContent-Disposition: form-data; name="other"\r\n\r\nvalue\r\n' % boundary if rng.random() < 0.2 else b""
    head = b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n' % (boundary, name)
    kind = rng.choice(_TYPES).encode()
    body = b"".join([before, head, b"Content-Type: %b\r\n" % kind if kind else b"", b"\r\n", content, b"\r\n--%b--\r\n" % boundary])
    return body, [(b"content-type", b"multipart/form-data; boundary=" + boundary)]


def _upload(rng: Random) -> Case:
    """A file; then it is fetched, or a prediction is made of it."""
    content = _content(rng)
    folder = rng.choice((b"/files", b"/demo/files"))
    body, headers = _multipart(content, rng)
    case = Case("POST", folder, raw=body, headers=headers, what="upload")
    use = rng.random() < 0.4

    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        path = urlsplit(json.loads(answer.body)["serving_url"]).path
        assert path.startswith(folder.decode() + "/"), path
        if use:
            case.undo = Case("POST", b"/models/copy/predict", [{"image": path}], check=_copied(content), what="use of an upload")
        else:
            case.undo = Case("GET", path.encode(), check=fetched, what="download")

    def fetched(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        assert answer.body == content
        assert answer.headers[b"x-content-type-options"] == b"nosniff"

    case.check = check
    return case


def _copied(content: bytes) -> Callable[[Answer], None]:
    def check(answer: Answer) -> None:
        found = json.loads(answer.body)
        assert found["status"] == "success", found
        (output,) = found["outputs"]
        assert output["size"] == len(content)
        head, _, text = output["inner"]["copies"][0].partition(",")
        assert head.endswith(";base64"), head
        assert base64.b64decode(text) == content

    return check


def _files(rng: Random) -> Case:
    """A file inside a row, in every spelling."""
    content = _content(rng) or b"x"
    text = base64.b64encode(content).decode()
    match rng.randrange(5):
        case 0:
            uri = f"data:{rng.choice(('image/png', 'application/octet-stream', 'text/html'))};base64,{text}"
        case 1:
            uri = f"data:;name={rng.choice(('a.png', '..%2Fx', 'x' * 200))};base64,{text.rstrip('=')}"
        case 2:
            uri = f"DATA:image/png,{quote(content)}"
        case 3:
            uri = f"data:image/png;base64,{quote(text)}"
        case _:
            uri = text
    return Case("POST", f"{_where(rng, 'copy')}/predict".encode(), [{"image": uri}], check=_copied(content), what="file in a row")


def _tensors(rng: Random) -> Case:
    """A model that knows nothing of Tungsten."""
    values = [rng.randrange(-5, 5) for _ in range(rng.randrange(1, 5))]
    rows = [{"x": values}] * rng.choice((1, 1, 3))

    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        found = json.loads(answer.body)
        assert [list(row.values()) for row in found["outputs"]] == [[values]] * len(rows), found

    return Case("POST", b"/models/id_INT64/predict", rows, check=check, what="tensors")


_BAD: tuple[tuple[Any, str], ...] = (
    ([{}], "value_error.missing"),
    ([{"prompt": ""}], "value_error.any_str.min_length"),
    ([{"prompt": "x" * 201}], "value_error.any_str.max_length"),
    ([{"prompt": "x", "times": 4}], "value_error.number.not_le"),
    ([{"prompt": "x", "times": []}], "type_error.integer"),
    ([{"prompt": None}], "type_error.none.not_allowed"),
    ([{"prompt": "x"}, 7], "type_error.dict"),
    ({"prompt": "x"}, "type_error.list"),
    ([], "value_error.list.min_items"),
)


def _bad(rng: Random) -> Case:
    tree, code = rng.choice(_BAD)

    def check(answer: Answer) -> None:
        assert answer.status == 422, answer.status
        assert json.loads(answer.body)["detail"][0]["type"] == code, answer.body

    return Case("POST", f"/models/talk/{rng.choice(('predict', 'predictions', 'demo'))}".encode(), tree, check=check, what=f"bad {code}")


def _unknown(rng: Random) -> Case:
    kind = rng.choice(("predictions/{}", "demo/{}", "predictions/{}/cancel", "predictions/{}/events", "demo/predictions/{}", "files/{}"))
    method = "POST" if kind.endswith("cancel") else "GET"
    path = f"{rng.choice(('/', '/', '/models/talk/'))}{kind.format(quote(rng.choice(_IDS[:6])))}{rng.choice(('', '', '?wait=9'))}"

    def check(answer: Answer) -> None:
        assert answer.status == 404, answer.status

    return Case(method, path.encode(), check=check, what=f"unknown {kind}")


def _odd(rng: Random) -> Case:
    """No particular answer, but one."""
    kind = rng.choice(
        ("predictions/{}", "demo/{}", "predictions/{}/cancel", "predictions/{}/events", "files/{}", "demo/files/{}", "{}/predict")
    )
    query = rng.choice(
        ("wait=nan", "wait=-1", "wait=1e999", "wait=" + "9" * 5000, "wait", "verbose=%FF", "&" * 1000, "webhook=ftp://x", "wait=0x1")
    )
    path = f"{rng.choice(('', '/models/talk', '/models/copy:9', '/models/nothing', '/models/talk:1'))}/{kind.format(quote(rng.choice(_IDS)))}?{query}"
    return Case(rng.choice(("GET", "GET", "POST")), path.encode(), what="odd")


def _describe(rng: Random) -> Case:
    path = rng.choice(("/models/talk", "/models/talk:1", "/models/copy", "/models/talk/demo/metadata", "/openapi.json"))

    def check(answer: Answer) -> None:
        assert answer.status == 200
        assert b"properties" in answer.body

    return Case("GET", path.encode(), check=check, what=path)


_KINDS: tuple[tuple[Callable[[Random], Case], int], ...] = (
    *(
        (_predict, 6),
        (_submit, 6),
        (_single, 2),
        (_upload, 4),
        (_files, 4),
        (_tensors, 1),
        (_bad, 2),
        (_unknown, 2),
        (_odd, 2),
        (_describe, 1),
    ),
)


def valid(rng: Random) -> Case:
    """Any request that must be answered rightly."""
    (make,) = rng.choices([make for make, _ in _KINDS], [weight for _, weight in _KINDS])
    case = make(rng)
    if rng.random() < 0.1 and case.tree is not None:
        case.headers.append((b"x-webhook-url", rng.choice((b"http://127.0.0.1:9/", b"http://localhost:9/x", b"http://[::1]:9/"))))
    return case
