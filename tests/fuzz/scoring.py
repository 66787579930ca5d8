"""Valid requests of MLflow's scoring protocol and of Seldon's predictions, each with a check that knows the result from elsewhere."""

import base64
import gzip
import json
from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.cases import Case
from tests.fuzz.models import FLOWERS
from tests.fuzz.tfserving import floats_json
from tests.fuzz.v2 import array_of, elements
from tests.fuzz.wire import Answer

_NUMERIC = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64")
_TYPES = (b"application/json", b"application/json; charset=utf-8", b"Application/JSON;charset=UTF-8", b"")
_SELDON = (
    "/serve/{}-1/api/v1.0/predictions",
    "/serve/{}-1/api/v0.1/predictions",
    "/{}/1/api/v1.0/predictions",
    "/seldon/ns/{}/1/api/v0.1/predictions",
)
_WORDS = ("hello", "a b", "x" * 300, "€", "007", "null", "\u2028", '"', "a,b")


# --- MLflow ---


def _shape(names: list[str], rows: list[list[Any]], rng: Random) -> tuple[dict[str, Any], bool]:
    """Rows of named cells in one of the ways that there are, and whether that is a table."""
    order = rng.sample(range(len(names)), len(names))
    shuffled = [names[i] for i in order]
    records = [dict(zip(shuffled, (row[i] for i in order), strict=True)) for row in rows]
    match rng.randrange(5):
        case 0:
            split = {"columns": [*shuffled, "extra"], "data": [[*record.values(), None] for record in records]}
            return {"dataframe_split": split}, True
        case 1:
            return {"dataframe_records": records}, True
        case 2:
            return {"instances": records}, False
        case 3:
            return {"inputs": records}, False
    return {"inputs": {name: [record[name] for record in records] for name in shuffled}}, False


def _ask(model: str, tree: dict[str, Any], check: Callable[[Any], None], rng: Random) -> Case:
    tree = {**tree, **rng.choice(({}, {}, {"params": {"a": 1}}, {"params": None}))}
    kind = rng.choice(_TYPES)
    headers = [(b"content-type", kind)] if kind else []
    return Case(
        "POST", f"/serve/{model}-1/invocations".encode(), tree, headers=headers, check=_good("predictions", check), what=f"score {model}"
    )


def _good(key: str, check: Callable[[Any], None]) -> Callable[[Answer], None]:
    def judge(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        check(json.loads(answer.body)[key])

    return judge


def _equals(wanted: Any) -> Callable[[Any], None]:
    text = json.dumps(wanted)

    def check(found: Any) -> None:
        assert json.dumps(found) == text, f"{found} instead of {text[:500]}"

    return check


def _matrix(rng: Random) -> Case:
    """One matrix, in every shape that brings one."""
    datatype = rng.choice(_NUMERIC)
    array = array_of(datatype, (rng.randrange(1, 5), rng.randrange(2, 5)), rng)
    values, names = elements(array, nested=True), [f"c{i}" for i in range(array.shape[1])]
    trees: list[dict[str, Any]] = [
        {"instances": values},
        {"inputs": values},
        {"inputs": {"x": values}},
        {"instances": [{"x": row} for row in values]},
        {"dataframe_split": {"columns": names, "data": values, "index": list(range(len(values)))}},
        {"dataframe_records": [dict(zip(names, row, strict=True)) for row in values]},
    ]
    return _ask(f"id_{datatype}", rng.choice(trees), _equals(floats_json(array)), rng)


def _several(rng: Random) -> Case:
    rows = [[[rng.randrange(-1000, 1000) for _ in range(16)] for _ in range(2)] for _ in range(rng.randrange(1, 4))]
    tree, table = _shape(["INPUT0", "INPUT1"], rows, rng)
    out = [{"OUTPUT0": [x + y for x, y in zip(a, b, strict=True)], "OUTPUT1": [x - y for x, y in zip(a, b, strict=True)]} for a, b in rows]
    wanted: Any = out if table else {name: [row[name] for row in out] for name in ("OUTPUT0", "OUTPUT1")}
    return _ask("sums", tree, _equals(wanted), rng)


def _rows(rng: Random) -> Case:
    """The Tungsten model, which takes rows; a missing option is one that is not given."""
    count = rng.choice((1, 1, 2, 9))
    rows: list[list[Any]] = [[rng.choice(_WORDS[:2]), rng.choice((1, 2, None)), rng.choice((0.5, 2))] for _ in range(count)]
    tree, _ = _shape(["prompt", "times", "share"], rows, rng)
    wanted = [{"text": " ".join([prompt] * (times or 1)), "share": float(share)} for prompt, times, share in rows]
    return _ask("talk", tree, _equals(wanted), rng)


def _texts(rng: Random) -> Case:
    words = [rng.choice(_WORDS) for _ in range(rng.randrange(1, 5))]
    trees: list[dict[str, Any]] = [
        {"instances": words},
        {"inputs": words},
        {"dataframe_split": {"columns": ["t"], "data": [[word] for word in words]}},
        {"dataframe_records": [{"text_input": word, "n": 1} for word in words]},
    ]
    return _ask("shout", rng.choice(trees), _equals([word.upper() for word in words]), rng)


def _csv(rng: Random) -> Case:
    picked = [rng.randrange(len(FLOWERS[1])) for _ in range(rng.randrange(1, 4))]
    end = rng.choice(("\n", "\r\n"))
    lines = [
        "a,b,c,d",
        *(",".join(rng.choice((repr, lambda v: f'"{v}"', lambda v: f"{v:e}"))(float(v)) for v in FLOWERS[0][i]) for i in picked),
    ]
    body = (end.join(lines) + end).encode()

    def check(found: Any) -> None:
        assert [row["predict"] for row in found] == FLOWERS[1][picked].tolist()

    headers = [(b"content-type", rng.choice((b"text/csv", b"text/csv; charset=utf-8", b"TEXT/CSV")))]
    return Case("POST", b"/serve/flowers-1/invocations", raw=body, headers=headers, check=_good("predictions", check), what="csv")


def _page(rng: Random) -> Case:
    name = rng.choice(("ping", "health", "version"))
    path = rng.choice((f"/serve/iris-1/{name}", f"/serve/talk-1/{name}", f"/{name}"))

    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        assert answer.body == b"\n" if name != "version" else answer.body.startswith(b"dragoman ")

    return Case("GET", path.encode(), check=check, what=name)


_BAD: tuple[tuple[str, Any, int], ...] = (
    ("/serve/nothing-1/invocations", {"instances": [1]}, 404),
    ("/serve/id_FP32-2/invocations", {"instances": [1]}, 404),
    ("/serve/id_FP32-1/invocations", {"instances": [["a", "b"]]}, 400),
    ("/serve/id_INT64-1/invocations", {"instances": [[1.5]]}, 400),
    ("/serve/id_INT64-1/invocations", {"instances": [[None]]}, 400),
    ("/serve/id_FP32-1/invocations", {}, 400),
    ("/serve/id_FP32-1/invocations", {"instances": [[1]], "inputs": [[1]]}, 400),
    ("/serve/sums-1/invocations", {"dataframe_records": [{"INPUT0": [1]}]}, 400),
    ("/serve/talk-1/invocations", {"dataframe_split": {"columns": ["times"], "data": [[1]]}}, 400),
    ("/serve/talk-1/invocations", {"inputs": {"prompt": "a", "times": 1.5}}, 400),
)


def _refused(rng: Random) -> Case:
    path, tree, status = rng.choice(_BAD)
    return Case("POST", path.encode(), tree, check=lambda answer: _is(answer, status), what=f"refused {path}")


def _is(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.status


_KINDS = ((_matrix, 8), (_several, 4), (_rows, 4), (_texts, 3), (_csv, 3), (_page, 2), (_refused, 3))


def mlflow(rng: Random) -> Case:
    """Any request of MLflow's that must be answered rightly."""
    (kind,) = rng.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])
    return _sometimes_packed(kind(rng), rng)


def _sometimes_packed(case: Case, rng: Random) -> Case:
    if case.body is None or rng.random() > 0.1:
        return case
    case = case.materialised()
    case.raw = gzip.compress(case.raw or b"", 1, mtime=0)
    case.headers.append((b"content-encoding", b"gzip"))
    return case


# --- Seldon ---


def _predict(model: str, tree: dict[str, Any], key: str, check: Callable[[Any], None], rng: Random) -> Case:
    tree = {**tree, **rng.choice(({}, {"meta": {}}, {"meta": {"puid": "x", "tags": {"a": 1}}}))}
    return Case("POST", rng.choice(_SELDON).format(model).encode(), tree, check=_good(key, check), what=f"seldon {model}")


def _data(rng: Random) -> Case:
    datatype = rng.choice(_NUMERIC)
    array = array_of(datatype, (rng.randrange(1, 5), rng.randrange(2, 5)), rng)
    values, names = elements(array, nested=True), [f"c{i}" for i in range(array.shape[1])]
    wanted = floats_json(array)
    if rng.random() < 0.5 or datatype == "BOOL":
        data = {"ndarray": values, **rng.choice(({}, {"names": names}, {"names": []}))}
        return _predict(f"id_{datatype}", {"data": data}, "data", lambda found: _equals(wanted)(found["ndarray"]), rng)
    shape = rng.choice(([len(values), len(names)], [-1, len(names)]))
    data = {"tensor": {"shape": shape, "values": [cell for row in values for cell in row]}}
    flat = {"shape": [len(values), len(names)], "values": [cell for row in wanted for cell in row]}
    return _predict(f"id_{datatype}", {"data": data}, "data", lambda found: _equals(flat)(found["tensor"]), rng)


def _columns(rng: Random) -> Case:
    prompt, times = rng.choice(_WORDS[:2]), rng.choice((1, 2))
    text = " ".join([prompt] * times)
    match rng.randrange(3):
        case 0:
            data = {"names": ["times", "prompt"], "ndarray": [[times, prompt]]}
            return _predict("talk", {"data": data}, "data", _equals({"names": ["text", "share"], "ndarray": [[text, 0.5]]}), rng)
        case 1:
            row = {"prompt": prompt, "times": times}
            return _predict("talk", {"jsonData": row}, "jsonData", _equals({"text": text, "share": 0.5}), rng)
    rows = [{"prompt": prompt, "times": times}] * 2
    return _predict("talk", {"jsonData": rows}, "jsonData", _equals([{"text": text, "share": 0.5}] * 2), rng)


def _content(rng: Random) -> Case:
    word = rng.choice(_WORDS)
    if rng.random() < 0.5:
        return _predict("shout", {"strData": word}, "strData", _equals(word.upper()), rng)
    sent = base64.b64encode(word.encode()).decode()
    return _predict("shout", {"binData": sent}, "binData", _equals(base64.b64encode(word.upper().encode()).decode()), rng)


_BAD_SELDON: tuple[tuple[str, Any, int], ...] = (
    ("nothing", {"data": {"ndarray": [[1]]}}, 404),
    ("id_FP32", {}, 400),
    ("id_FP32", {"data": {"tensor": {"shape": [2], "values": [1]}}}, 400),
    ("id_FP32", {"data": {"ndarray": [["a"]]}}, 400),
    ("id_INT64", {"data": {"ndarray": [[1.5]]}}, 400),
    ("shout", {"binData": "!"}, 400),
    ("talk", {"strData": ""}, 400),
    ("talk", {"data": {"names": ["times"], "ndarray": [[1]]}}, 400),
)


def _bad_seldon(rng: Random) -> Case:
    model, tree, status = rng.choice(_BAD_SELDON)
    path = rng.choice(_SELDON).format(model)
    return Case("POST", path.encode(), tree, check=lambda answer: _is(answer, status), what=f"refused {path}")


_SELDON_KINDS = ((_data, 8), (_columns, 4), (_content, 3), (_bad_seldon, 3))


def seldon(rng: Random) -> Case:
    """Any request of Seldon's that must be answered rightly."""
    (kind,) = rng.choices([kind for kind, _ in _SELDON_KINDS], [weight for _, weight in _SELDON_KINDS])
    return _sometimes_packed(kind(rng), rng)
