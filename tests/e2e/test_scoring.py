"""MLflow's scoring protocol and Seldon's predictions over real sockets, for models of every runtime that is here."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.plain import Plain, Reply
from tests.e2e.running import Running, serving
from tests.models import build, learned, mlflow_folders
from tests.models.build import IRIS_CENTRES

ROWS = IRIS_CENTRES.tolist()
COLUMNS = list(mlflow_folders.FLOWER)
MATRIX_MODELS = ("iris", "flowers", "trees", "leaves", "net", "logged")
"""Each takes rows of four numbers and tells the three flowers apart, or answers something for each row."""
CSV = {"Content-Type": "text/csv"}
SELDON = (
    "/serve/{}-1/api/v1.0/predictions",
    "/serve/{}-1/api/v0.1/predictions",
    "/{}/1/api/v1.0/predictions",
    "/seldon/ns/{}/1/api/v0.1/predictions",
)
PYTHON = """
import time


def predict(text: str, weight: float, times: int = 1) -> dict:
    if text == "wait":
        time.sleep(60)
    if text == "boom":
        raise ValueError("boom happened")
    return {"text": text * times, "weight": weight}
"""
ARRAYS = """
import numpy as np


def predict(x: np.ndarray) -> np.ndarray:
    return x * 2
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("scoring")
    root = folder / "models"
    build.iris(root / "iris" / "1" / "model.onnx")
    build.shout(root / "shout" / "1" / "model.onnx")
    build.add_sub(root / "sums" / "1" / "model.onnx", "INT64", ("N", 2))
    build.identity(root / "numbers" / "1" / "model.onnx", "FP64")
    learned.write(root / "net" / "1" / "model.pt2", learned.exported())
    files = [
        learned.write(folder / "flowers.skops", learned.skops_of(learned.classifier())),
        learned.write(folder / "trees.ubj", learned.xgboost_model()),
        learned.write(folder / "leaves.txt", learned.lightgbm_model()),
        learned.write(folder / "rows.py", PYTHON.encode()),
        learned.write(folder / "arrays.py", ARRAYS.encode()),
        mlflow_folders.flowers(folder / "logged"),
    ]
    with serving(folder, str(files[-1]), *map(str, files[:-1]), str(root)) as running:
        yield running


@pytest.fixture(scope="module")
def plain(server: Running) -> Plain:
    return Plain(server.port)


def score(plain: Plain, model: str, value: object = None, **options: Any) -> Reply:
    return plain.post(f"/serve/{model}-1/invocations", value, **options)


def predictions(reply: Reply) -> Any:
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json()
    assert list(answer) == ["predictions"]
    return answer["predictions"]


def refused(reply: Reply, status: int = 400) -> str:
    """The message of an error, which is a JSON object of two keys."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json()
    assert list(answer) == ["error_code", "message"]
    assert "Traceback" not in answer["message"]
    return str(answer["message"])


@pytest.mark.parametrize("model", MATRIX_MODELS)
def test_every_shape_answers_alike(plain: Plain, model: str) -> None:
    """Tables, records and CSV are the same request to a model of one matrix, and so are nested lists."""
    split = {"dataframe_split": {"columns": COLUMNS, "data": ROWS}}
    first = predictions(score(plain, model, split))
    assert len(first) == 3
    records = {"dataframe_records": [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]}
    assert predictions(score(plain, model, records)) == first
    lines = "\n".join([",".join(COLUMNS), *(",".join(map(str, row)) for row in ROWS)])
    assert predictions(score(plain, model, body=lines.encode(), headers=CSV)) == first
    if model == "logged":  # its columns have names
        named = {name: [row[index] for row in ROWS] for index, name in enumerate(COLUMNS)}
        assert predictions(score(plain, model, {"inputs": named})) == first
        assert predictions(score(plain, model, {"instances": records["dataframe_records"]})) == first
        assert "must be named" in refused(score(plain, model, {"instances": ROWS}))
    else:
        nested = predictions(score(plain, model, {"instances": ROWS}))
        assert predictions(score(plain, model, {"inputs": ROWS})) == nested


def test_columns_of_a_logged_model(plain: Plain) -> None:
    """A signature picks by name whatever the order, ignores what it does not know, and names what is missing; answers are bare."""
    turned = {"dataframe_split": {"columns": ["z", *COLUMNS[::-1]], "data": [[None, *row[::-1]] for row in ROWS]}}
    assert predictions(score(plain, "logged", turned)) == [0, 1, 2]
    short = {"dataframe_split": {"columns": COLUMNS[:3], "data": [row[:3] for row in ROWS]}}
    told = refused(score(plain, "logged", short))
    assert told == f"model 'logged' lacks the input 'petal_width'; it expects {', '.join(repr(name) for name in COLUMNS)}"
    whole = {"dataframe_split": {"columns": COLUMNS, "data": [[5, 3, 1, 0]]}}
    assert predictions(score(plain, "logged", whole)) == [0]
    text = {"dataframe_split": {"columns": COLUMNS, "data": [[5, 3, 1, "0"]]}}
    assert "a value of the type String came where FP64 takes numbers" in refused(score(plain, "logged", text))


def test_the_default_model(plain: Plain) -> None:
    """The first of the command line, at the root, with its readiness and the MLflow that logged it."""
    whole = {"dataframe_split": {"columns": COLUMNS, "data": ROWS}}
    assert predictions(plain.post("/invocations", whole)) == [0, 1, 2]
    for path in ("/ping", "/health", "/serve/logged-1/ping", "/serve/rows-1/health"):
        reply = plain.get(path)
        assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"\n", "application/json")
    assert plain.get("/version").body == b"3.17.2"
    assert plain.get("/serve/iris-1/version").body.startswith(b"dragoman ")
    data = plain.post("/api/v1.0/predictions", {"data": {"names": COLUMNS, "ndarray": ROWS}}).json()["data"]
    assert [cell if isinstance(cell, int) else cell[0] for cell in data["ndarray"]] == [0, 1, 2]


def test_rows_of_a_python_model(plain: Plain) -> None:
    """In a process of its own: records, defaults for missing values, base of every shape; its failures are 500 in words."""
    expected = [{"text": "aa", "weight": 1.0}, {"text": "b", "weight": None}]
    split = {"dataframe_split": {"columns": ["times", "weight", "more", "text"], "data": [[2, 1, 0, "a"], [None, None, 0, "b"]]}}
    assert predictions(score(plain, "rows", split)) == expected
    assert predictions(score(plain, "rows", body=b"text,weight,times\na,1,2\nb,,\n", headers=CSV)) == expected
    many = [{"text": str(i), "weight": i} for i in range(300)]
    assert predictions(score(plain, "rows", {"instances": many})) == many
    assert "'weight'" in refused(score(plain, "rows", {"instances": [{"text": "a"}]}))
    assert "boom happened" in refused(score(plain, "rows", {"instances": [{"text": "boom", "weight": 1}]}), 500)


def test_arrays_of_a_python_model(plain: Plain) -> None:
    """A function of arrays takes a matrix as one of every other runtime does."""
    assert predictions(score(plain, "arrays", {"inputs": [[1, 2.5]]})) == [[2.0, 5.0]]
    assert predictions(score(plain, "arrays", {"dataframe_split": {"data": [[1, 2.5]]}})) == [[2.0, 5.0]]


def test_several_inputs(plain: Plain) -> None:
    """Named, with whole tensors in cells."""
    rows = [{"INPUT0": [1, 2], "INPUT1": [3, 4]}, {"INPUT0": [5, 6], "INPUT1": [7, 8]}]
    assert predictions(score(plain, "sums", {"dataframe_records": rows})) == [
        {"OUTPUT0": [4, 6], "OUTPUT1": [-2, -2]},
        {"OUTPUT0": [12, 14], "OUTPUT1": [-2, -2]},
    ]
    assert predictions(score(plain, "sums", {"instances": rows})) == {"OUTPUT0": [[4, 6], [12, 14]], "OUTPUT1": [[-2, -2], [-2, -2]]}


def test_missing_and_odd_numbers(plain: Plain) -> None:
    """NaN comes back as null, which is JSON."""
    reply = score(plain, "numbers", body=b'{"instances": [[1, null, NaN, Infinity, 0.1]]}')
    assert reply.body == b'{"predictions":[[1.0,null,null,null,0.1]]}'


def test_ten_thousand_rows(plain: Plain) -> None:
    """At once, exactly."""
    data = [[row / 8, row, -row] for row in range(10_000)]
    assert predictions(score(plain, "numbers", {"dataframe_split": {"columns": ["a", "b", "c"], "data": data}})) == data


@pytest.mark.parametrize("path", SELDON)
def test_seldon_below_every_prefix(plain: Plain, path: str) -> None:
    """The paths that Submarine and Seldon have had, in each representation."""
    answer = plain.post(path.format("iris"), {"data": {"ndarray": ROWS}}).json()
    assert answer["meta"] == {}
    assert answer["data"]["names"] == ["label", "probabilities:0", "probabilities:1", "probabilities:2"]
    assert [row[0] for row in answer["data"]["ndarray"]] == [0, 1, 2]
    values = [cell for row in ROWS for cell in row]
    tensor = plain.post(path.format("numbers"), {"data": {"tensor": {"shape": [-1, 4], "values": values}}}).json()["data"]["tensor"]
    assert tensor == {"shape": [3, 4], "values": values}
    assert plain.post(path.format("shout"), {"strData": "abc"}).json() == {"strData": "ABC", "meta": {}}
    row = {"text": "a", "weight": 1, "times": 3}
    assert plain.post(path.format("rows"), {"jsonData": row}).json() == {"jsonData": {"text": "aaa", "weight": 1.0}, "meta": {}}
    for model, status in (("nothing", 404), ("iris", 400)):
        reply = plain.post(path.format(model), {"data": {"ndarray": [["no"]]}})
        assert (reply.status, list(reply.json()["status"])) == (status, ["code", "info", "reason", "status"])


def test_what_is_wrong_is_4xx(plain: Plain) -> None:
    """Never a failure of the server, always JSON; the server serves on."""
    deep = b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for model in ("iris", "rows", "flowers"):
        for body in (
            b"",
            b"{",
            b"[1]",
            b'{"instances": [{}]}',
            b'{"instances": [null]}',
            b'{"instances": "\xff"}',
            deep,
            b'{"inputs": {"a": {}}}',
        ):
            refused(score(plain, model, body=body))
        assert refused(score(plain, model, body=b"x", headers={"Content-Type": "application/x-parquet"}), 415)
    refused(score(plain, "nothing", {"instances": ROWS}), 404)
    refused(plain.post("/serve/iris-2/invocations", {"instances": ROWS}), 404)
    wrong = plain.get("/serve/iris-1/invocations")
    assert refused(wrong, 405)
    assert wrong.headers["allow"] == "POST"
    assert predictions(score(plain, "iris", {"instances": ROWS}))["label"] == [[0], [1], [2]]


def test_clients_at_once_and_clients_that_leave(plain: Plain, server: Running) -> None:
    """Each of many gets its own answer, while others hang up on a model that takes long."""
    left = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
    body = json.dumps({"instances": [{"text": "wait", "weight": 1}]}).encode()
    head = b"POST /serve/rows-1/invocations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    for each in left:
        each.sendall(head + body)
    with ThreadPoolExecutor(16) as pool:
        asked = [[[float(i), i / 2]] for i in range(200)]
        answered = list(pool.map(lambda rows: predictions(score(plain, "numbers", {"instances": rows})), asked))
    assert answered == asked
    for each in left:
        each.close()
    assert predictions(score(plain, "rows", {"instances": [{"text": "a", "weight": 1}]})) == [{"text": "a", "weight": 1.0}]


def test_keys_are_asked_for_where_they_are_in_force(tmp_path: Path) -> None:
    """Predictions need one; readiness and the version are public."""
    build.iris(tmp_path / "models" / "iris" / "1" / "model.onnx")
    with serving(tmp_path, str(tmp_path / "models"), "--require-key") as running:
        plain = Plain(running.port)
        refused(plain.post("/invocations", {"instances": ROWS}), 401)
        seldon = plain.post("/api/v1.0/predictions", {"data": {"ndarray": ROWS}})
        assert (seldon.status, seldon.json()["status"]["reason"]) == (401, "UNAUTHENTICATED")
        for path in ("/ping", "/health", "/version", "/serve/iris-1/ping"):
            assert plain.get(path).status == 200
