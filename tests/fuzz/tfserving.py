"""Valid requests of TensorFlow Serving's protocol (and of Gradient's deployments), each with a check that knows the result from elsewhere."""

import base64
import gzip
import json
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from tests.fuzz.cases import Case
from tests.fuzz.models import FLOWERS
from tests.fuzz.v2 import array_of, elements
from tests.fuzz.wire import Answer
from tests.models.build import IRIS_CENTRES

_NUMERIC = ("BOOL", "UINT8", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64")
_WHERE = ("/v1/models/{}", "/v1/models/{}", "/v1/models/{}/versions/1", "/model-serving/{}", "/V1/Models/{}", "/v1/models/{}/versions/01")


def predict(model: str, tree: dict[str, Any], wanted: Any, rng: Random) -> Case:
    """A request for `model`, whose answer holds `wanted` as its predictions or outputs."""
    path = rng.choice(_WHERE).format(model) + rng.choice((":predict", ":predict", ":PREDICT", ":predict?x=1"))
    tree = {**rng.choice(({}, {"signature_name": ""}, {"signature_name": "serving_default"}, {"other": None})), **tree}
    case = Case("POST", path.encode(), tree, what=f"predict {model}")
    key = "predictions" if "instances" in tree else "outputs"
    case.check = _answers(key, wanted)
    return case


def _answers(key: str, wanted: Any) -> Callable[[Answer], None]:
    text = json.dumps(wanted)

    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        found = json.loads(answer.body)
        assert list(found) == [key], list(found)
        assert json.dumps(found[key]) == text, f"{key} are {found[key]}, expected {text[:500]}"

    return check


def floats_json(array: Any) -> Any:
    """What comes back for the elements of an array: float32 is written in its own shortest form."""
    if array.dtype == np.float32:
        return np.array([float(str(item)) for item in array.ravel()]).reshape(array.shape).tolist()
    return array.tolist()


def _identity(rng: Random) -> Case:
    datatype = rng.choice(_NUMERIC)
    array = array_of(datatype, (rng.randrange(1, 5), rng.randrange(1, 5)), rng)
    if rng.random() < 0.2 and array.dtype.kind == "f":
        array[0, 0] = rng.choice((np.nan, np.inf, -np.inf))
    values = elements(array, nested=True)
    tree: dict[str, Any]
    match rng.randrange(4):
        case 0:
            tree = {"instances": values}
        case 1:
            tree = {"instances": [{"x": row} for row in values]}
        case 2:
            tree = {"inputs": values}
        case _:
            tree = {"inputs": {"x": values}}
    return predict(f"id_{datatype}", tree, floats_json(array), rng)


def _texts(rng: Random) -> Case:
    array = array_of("BYTES", (rng.randrange(1, 4), rng.randrange(1, 3)), rng)
    texts = elements(array, nested=True)
    sent = [[text if rng.random() < 0.5 else {"b64": base64.b64encode(text.encode()).decode()} for text in row] for row in texts]
    return predict("id_BYTES", {rng.choice(("instances", "inputs")): sent}, texts, rng)


def _words(rng: Random) -> Case:
    words = [rng.choice(("hello", "a b", "", "x" * 300)) for _ in range(rng.randrange(1, 5))]
    sent = [word if rng.random() < 0.5 else {"b64": base64.b64encode(word.encode()).decode().rstrip("=")} for word in words]
    return predict("shout", {rng.choice(("instances", "inputs")): sent}, [word.upper() for word in words], rng)


def _sums(rng: Random) -> Case:
    rows = rng.randrange(1, 4)
    a, b = (np.array([[rng.randrange(-1000, 1000) for _ in range(16)] for _ in range(rows)], "i4") for _ in range(2))
    added, taken = (a + b).tolist(), (a - b).tolist()
    if rng.random() < 0.5:
        instances = [{"INPUT0": x, "INPUT1": y} for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        wanted = [{"OUTPUT0": x, "OUTPUT1": y} for x, y in zip(added, taken, strict=True)]
        return predict("sums", {"instances": instances}, wanted, rng)
    return predict("sums", {"inputs": {"INPUT1": b.tolist(), "INPUT0": a.tolist()}}, {"OUTPUT0": added, "OUTPUT1": taken}, rng)


def _others(rng: Random) -> Case:
    """An ensemble, a label, a scalar, an optional input, a model that was learned."""
    match rng.randrange(5):
        case 0:
            a = [[rng.randrange(99) for _ in range(16)]]
            return predict("twice", {"inputs": {"A": a, "B": a}}, [[2 * item for item in a[0]]], rng)
        case 1:
            return predict("scalar", {"inputs": 1.5}, 3.0, rng)
        case 2:
            return predict("optional_input", {"inputs": {"x": [[1.0, 2.0]], "factor": [3.0]}}, [[3.0, 6.0]], rng)
        case 3:
            return predict("optional_input", {"inputs": {"x": [[1.0, 2.0]]}}, [[10.0, 20.0]], rng)
    labels = [rng.randrange(3) for _ in range(rng.randrange(1, 4))]
    case = predict("iris", {"instances": IRIS_CENTRES[labels].tolist()}, None, rng)

    def check(answer: Answer) -> None:
        assert [row["label"] for row in json.loads(answer.body)["predictions"]] == [[label] for label in labels]

    case.check = check
    return case


def _flowers(rng: Random) -> Case:
    picked = [rng.randrange(len(FLOWERS[1])) for _ in range(rng.randrange(1, 4))]
    case = predict("flowers", {"instances": FLOWERS[0][picked].tolist()}, None, rng)

    def check(answer: Answer) -> None:
        assert answer.status == 200
        rows = json.loads(answer.body)["predictions"]
        found = [next(v for v in row.values() if isinstance(v, int)) if isinstance(row, dict) else row for row in rows]
        assert found == FLOWERS[1][picked].tolist()

    case.check = check
    return case


def _regressed(rng: Random) -> Case:
    """Examples for the model that gives back its input: the features of each are its numbers."""
    numbers = [rng.randrange(-1000, 1000) / 4 for _ in range(rng.randrange(1, 6))]
    examples: list[dict[str, Any]] = [{"x": number if rng.random() < 0.5 else [number]} for number in numbers]
    tree: dict[str, Any] = {"examples": examples}
    if rng.random() < 0.3:
        tree["context"] = examples.pop()
        examples.append({})
    path = rng.choice(_WHERE).format("id_FP32") + ":regress"
    case = Case("POST", path.encode(), tree, what="regress id_FP32")

    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.body[:300]
        assert json.loads(answer.body)["results"] == numbers

    case.check = check
    return case


def _fact(rng: Random) -> Case:
    model = rng.choice(("iris", "sums", "twice", "flowers", "id_INT64"))
    path = rng.choice(_WHERE[:-2]).format(model)
    if rng.random() < 0.5:
        return Case("GET", path.encode(), check=lambda answer: _has(answer, "model_version_status"), what="status")
    return Case("GET", f"{path}/metadata".encode(), check=lambda answer: _has(answer, "model_spec"), what="metadata")


def _refused(rng: Random) -> Case:
    method, path, status = rng.choice(
        (
            ("POST", "/v1/models/nothing:predict", 404),
            ("POST", "/v1/models/iris/versions/2:predict", 404),
            ("POST", "/v1/models/iris/labels/none:predict", 400),
            ("GET", "/v1/models/nothing", 404),
            ("GET", "/v1/models/iris/labels/none", 400),
            ("GET", "/v1/models/iris:predict", 400),
            ("PUT", "/v1/models/iris:predict", 400),
            ("POST", "/v1/models/iris:classify", 400),
            ("POST", "/v1/models/iris:regress", 400),
            ("POST", "/v1/models/iris", 400),
            ("GET", "/v1/models", 400),
            ("GET", "/v1/models/iris/versions/99999999999999999999", 400),
        )
    )
    tree = {"instances": [[1.0, 2.0, 3.0, 4.0]]} if method != "GET" else None
    return Case(method, path.encode(), tree, check=lambda answer: _is(answer, status), what=f"{method} {path}")


def _has(answer: Answer, key: str) -> None:
    assert answer.status == 200
    assert key in json.loads(answer.body)


def _is(answer: Answer, status: int) -> None:
    assert answer.status == status


_KINDS = ((_identity, 8), (_texts, 3), (_words, 2), (_sums, 4), (_others, 4), (_flowers, 2), (_regressed, 2), (_fact, 2), (_refused, 2))


def valid(rng: Random) -> Case:
    """Any request that must be answered rightly."""
    (kind,) = rng.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])
    case = kind(rng)
    if case.tree is not None and rng.random() < 0.1:
        case = case.materialised()
        case.raw = gzip.compress(case.raw or b"", 1, mtime=0)
        case.headers.append((b"content-encoding", b"gzip"))
    return case
