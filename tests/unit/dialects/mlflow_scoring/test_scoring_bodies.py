"""Bodies of MLflow's scoring protocol in all their shapes, to models of tensors and of rows."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dragoman.core import tensors as t
from dragoman.core.tensors import Form, Signature, Tensor, TensorSpec
from dragoman.dialects.mlflow.scoring import MLflowScoring
from tests.fakes_scoring import Caller, columns, document, rows_models, toys
from tests.fakes_tfs import Reply, Toy
from tests.models.snippets import same_process

CSV = {"content-type": "text/csv"}
MATRIX = [[1.0, 2.0], [3.0, 4.5]]
COLUMNS = [{"total": 3.0, "name": "x"}, {"total": 5.5, "name": "y"}]


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    with same_process():
        yield Caller({**toys(), **rows_models(tmp_path_factory.mktemp("rows"))}, MLflowScoring)


def post(caller: Caller, body: Any, model: str = "matrix", headers: dict[str, str] | None = None) -> Reply:
    return caller.send("POST", "/invocations", body, headers, (model, "1"))


def predictions(caller: Caller, body: Any, model: str = "matrix", headers: dict[str, str] | None = None) -> Any:
    answer = document(post(caller, body, model, headers))
    assert list(answer) == ["predictions"]
    return answer["predictions"]


def refused(reply: Reply, code: str = "BAD_REQUEST", status: int = 400) -> str:
    assert reply.status == status, reply.body
    assert list(reply.json) == ["error_code", "message"]
    assert reply.json["error_code"] == code
    return str(reply.json["message"])


# --- the four shapes ---


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["p", "q"], "data": MATRIX}},
        {"dataframe_split": {"columns": ["p", "q"], "data": MATRIX, "index": [0, 1]}},
        {"dataframe_split": {"columns": [0, 1], "data": MATRIX}},
        {"dataframe_split": {"data": MATRIX}},
        {"dataframe_records": [{"p": 1, "q": 2}, {"p": 3, "q": 4.5}]},
        {"instances": MATRIX},
        {"instances": [{"x": [1, 2]}, {"x": [3, 4.5]}]},
        {"inputs": MATRIX},
        {"inputs": {"x": MATRIX}},
        {"inputs": {"p": [1, 3], "q": [2, 4.5]}},
        {"instances": MATRIX, "params": None},
        {"instances": MATRIX, "signature_name": "x", "other": [1]},
    ],
)
def test_every_shape_brings_a_matrix(caller: Caller, body: Any) -> None:
    """One output is its bare value; what else stands in the body is ignored."""
    assert predictions(caller, body) == MATRIX


@pytest.mark.parametrize(
    ("body", "table"),
    [
        ({"dataframe_split": {"columns": ["name", "b", "z", "a"], "data": [["x", 2, 0, 1], ["y", 5, 0, 0.5]]}}, True),
        ({"dataframe_records": [{"a": 1, "b": 2, "name": "x"}, {"name": "y", "b": 5, "a": 0.5}]}, True),
        ({"instances": [{"a": 1, "b": 2, "name": "x"}, {"name": "y", "b": 5, "a": 0.5}]}, False),
        ({"inputs": [{"a": 1, "b": 2, "name": "x"}, {"name": "y", "b": 5, "a": 0.5}]}, False),
        ({"inputs": {"a": [1, 0.5], "b": [2, 5], "name": ["x", "y"]}}, False),
    ],
)
def test_every_shape_brings_columns_by_name(caller: Caller, body: Any, table: bool) -> None:
    """Several outputs are one record per row of a table, and lists by name for tensors, as MLflow does."""
    expected: Any = COLUMNS if table else {"total": [3.0, 5.5], "name": ["x", "y"]}
    assert predictions(caller, body, "columns") == expected


def test_optional_columns(caller: Caller) -> None:
    """May be there and may hold missing values, which are NaN, which is null in the answer."""
    body = {"dataframe_split": {"columns": ["a", "b", "name", "c"], "data": [[1, 2, "x", 0.5], [1, 2, "y", None]]}}
    assert predictions(caller, body, "columns") == [{"total": 3.5, "name": "x"}, {"total": None, "name": "y"}]


def test_rows_by_name(caller: Caller) -> None:
    """Models of rows answer one record per row, whatever the shape; extra columns are ignored, missing optional values default."""
    expected = [{"text": "aa", "score": 1.0}, {"text": "b", "score": 2.5}]
    for body in (
        {"dataframe_split": {"columns": ["weight", "z", "text", "count"], "data": [[1, 0, "a", 2], [2.5, 0, "b", None]]}},
        {"dataframe_records": [{"text": "a", "weight": 1, "count": 2}, {"text": "b", "weight": 2.5}]},
        {"instances": [{"text": "a", "weight": 1, "count": 2}, {"text": "b", "weight": 2.5}]},
        {"inputs": {"text": ["a", "b"], "weight": [1, 2.5], "count": [2, 1]}},
    ):
        assert predictions(caller, body, "frame") == expected


def test_rows_of_one_field(caller: Caller) -> None:
    """Values without names are for it, and an output without a name is bare."""
    for body in (
        {"instances": [1, 2]},
        {"inputs": [1, 2]},
        {"inputs": {"x": [1, 2]}},
        {"dataframe_split": {"columns": ["x"], "data": [[1], [2]]}},
    ):
        assert predictions(caller, body, "one") == [2.0, 4.0]
    assert predictions(caller, {"inputs": 3}, "one") == [6.0]


def test_what_rows_models_answer(caller: Caller) -> None:
    """Objects stay objects, different ones too; bytes are base64 and not finite numbers null."""
    assert predictions(caller, {"instances": [0, 1]}, "any") == [{"y": 0.0}, {"x": 1.0, "list": [1.0, "a"]}]
    assert predictions(caller, {"instances": [3]}, "odd") == [{"a": None}]
    assert predictions(caller, {"instances": [2]}, "odd") == [[2, None]]
    assert predictions(caller, {"instances": ["aGk="]}, "size") == [2]
    for index in (0, 1):
        assert "JSON cannot carry" in refused(post(caller, {"instances": [index]}, "odd"), "INTERNAL_ERROR", 500)


def test_answers_of_tensors(caller: Caller) -> None:
    """Texts, bytes that are none, integers, booleans, and several outputs of which one has several columns."""
    assert predictions(caller, {"instances": ["é", ""]}, "words") == ["é", ""]
    assert predictions(caller, {"inputs": [2**62, -1]}, "whole") == [2**62, -1]
    assert predictions(caller, {"inputs": [[True], [False]]}, "open") == [[True], [False]]
    image = {"dataframe_split": {"columns": ["pixels"], "data": [[[0] * 784]]}}
    assert predictions(caller, image, "digits") == [{"classes": 7, "probabilities": [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]}]
    assert predictions(caller, {"instances": [[0] * 784]}, "digits") == {"classes": [7], "probabilities": [[0, 0, 0, 0, 0, 0, 0, 1, 0, 0]]}


def test_outputs_that_are_no_table_are_lists_by_name() -> None:
    """Although a table was asked about."""
    specs = (TensorSpec("s", t.FP32, ()), TensorSpec("v", t.FP32, (-1,)))
    raw = np.array([b"\xff\x00", b"a"], object)
    toy = Toy(
        {"": Signature(inputs=(TensorSpec("x", t.FP32, (-1, 2)),), outputs=specs)},
        lambda _, __: [Tensor("s", t.FP32, np.array(1.5, "f4")), Tensor("v", t.BYTES, raw)],
    )
    caller = Caller({"m": toy}, MLflowScoring)
    assert predictions(caller, {"dataframe_split": {"data": [[1, 2]]}}, "m") == {"s": 1.5, "v": ["/wA=", "a"]}


def test_numbers_that_are_no_json(caller: Caller) -> None:
    """NaN and infinity are read, as Python's clients write them."""
    assert predictions(caller, '{"instances": [[NaN, -Infinity], [1, null]]}') == [[None, None], [1.0, None]]


def test_long_matrices(caller: Caller) -> None:
    """The same through the packed reader."""
    data = [[i, i / 4] for i in range(5000)]
    assert predictions(caller, {"dataframe_split": {"columns": ["p", "q"], "data": data}}) == data
    named = {"dataframe_split": {"columns": ["b", "a", "name"], "data": [[i, 0.5, "n"] for i in range(3000)]}}
    assert [row["total"] for row in predictions(caller, named, "columns")] == [i + 0.5 for i in range(3000)]


# --- params ---


def test_params_reach_the_model_that_declares_them() -> None:
    """Unknown ones are ignored; they may be any JSON."""
    toy = columns(frozenset({"alpha", "deep"}))
    caller = Caller({"m": toy}, MLflowScoring)
    row = {"a": 1, "b": 1, "name": ""}
    document(post(caller, {"instances": [row], "params": {"alpha": 0.5, "beta": 1, "deep": {"a": [1, None]}}}, "m"))
    document(post(caller, {"instances": [row]}, "m"))
    assert [dict(seen.parameters) for seen in toy.seen] == [{"alpha": 0.5, "deep": {"a": [1, None]}}, {}]
    assert {seen.dialect for seen in toy.seen} == {"mlflow"}


def test_params_are_an_object(caller: Caller) -> None:
    """Nothing else."""
    for params in ([1], "x", 1, True):
        assert "'params'" in refused(post(caller, {"instances": MATRIX, "params": params}))


# --- CSV ---


def test_csv_by_name(caller: Caller) -> None:
    """A header line; text that is declared stays text, whatever it looks like; an empty cell is a missing value."""
    body = 'name,b,a,extra\n007,2,1,\n"a, ""b""\n c",5,0.5,z\n'
    assert predictions(caller, body, "columns", CSV) == [{"total": 3.0, "name": "007"}, {"total": 5.5, "name": 'a, "b"\n c'}]
    assert predictions(caller, "a,b,name,c\r\n1,2,x,\r\n", "columns", CSV) == [{"total": None, "name": "x"}]


def test_csv_of_a_matrix(caller: Caller) -> None:
    """In the order of its columns; empty lines are no rows, the usual words stand for a missing number."""
    assert predictions(caller, "p,q\n1,2\n\n3,4.5\n", headers=CSV) == MATRIX
    assert predictions(caller, "p,q\n1e3,NaN\nNA,-0.5\n,inf", headers=CSV) == [[1000.0, None], [None, -0.5], [None, None]]


def test_csv_of_rows(caller: Caller) -> None:
    """Texts, numbers, defaults."""
    assert predictions(caller, "text,weight,count\n5,1,2\nb,2.5,\n", "frame", CSV) == [
        {"text": "55", "score": 1.0},
        {"text": "b", "score": 2.5},
    ]


def test_csv_of_types_that_nobody_declared(caller: Caller) -> None:
    """Integers, numbers, booleans or texts, as all cells of a column look."""
    assert predictions(caller, "x\n1\n2\n", "open", CSV) == [1, 2]
    assert predictions(caller, "x\n1\n2.5\n", "open", CSV) == [1.0, 2.5]
    assert predictions(caller, "x\ntrue\nFalse\n", "open", CSV) == [True, False]
    assert predictions(caller, "x\n1_000\n2\n", "open", CSV) == ["1_000", "2"]
    assert predictions(caller, "x\nNA\nb\n", "open", CSV) == ["NA", "b"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "no header line"),
        ("\n\n", "no header line"),
        ("a,b\n1\n", "row 0 of the body has 1 cells, its header has 2"),
        ("a,b\n1,2\n1,2,3\n", "row 1 of the body has 3 cells"),
        ("a,a\n1,2\n", "the column 'a' is there twice"),
        ('a,b\n"1,2\n', "is not CSV"),
        (b"a,b\n\xff,1\n", "not text in utf-8"),
        ("a,b\n" + "x" * 200_000 + ",1\n", "is not CSV"),
    ],
)
def test_what_is_no_csv(caller: Caller, body: Any, words: str) -> None:
    """400 in words."""
    assert words in refused(post(caller, body, headers=CSV))


def test_csv_that_does_not_fit(caller: Caller) -> None:
    """Texts are not numbers, decimals not integers, and there must be rows."""
    code = "INVALID_PARAMETER_VALUE"
    for body in ("p,q\n1,no\n", "p,q\n1,true\n"):
        assert "where FP32 takes numbers" in refused(post(caller, body, headers=CSV), code)
    assert "has no rows" in refused(post(caller, "p,q\n", headers=CSV), code)
    assert "has shape [1, 3]" in refused(post(caller, "p,q,r\n1,2,3\n", headers=CSV), code)
    assert "no integer" in refused(post(caller, "a,b,name\n1,2.5,x\n", "columns", CSV), "INVALID_PARAMETER_VALUE")
    assert "missing value" in refused(post(caller, "a,b,name\n1,2,\n", "columns", CSV), "INVALID_PARAMETER_VALUE")


# --- content types ---


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json; charset=UTF8; x=y",
    ],
)
def test_json_by_any_name(caller: Caller, header: str | None) -> None:
    """No type at all is JSON too."""
    assert predictions(caller, {"instances": MATRIX}, headers=None if header is None else {"content-type": header}) == MATRIX


def test_other_character_sets(caller: Caller) -> None:
    """Of JSON and of CSV; a mark at the beginning is no character."""
    for charset in ("latin-1", "utf-16", "utf-32-be", "utf-8-sig"):
        body = json.dumps({"instances": ["é"]}, ensure_ascii=False).encode(charset)
        assert predictions(caller, body, "words", {"content-type": f"application/json; charset={charset}"}) == ["é"]
        header = {"content-type": f"text/csv; charset={charset}"}
        assert predictions(caller, "x\né\n".encode(charset), "words", header) == ["é"]
    assert predictions(caller, b'\xef\xbb\xbf{"instances":["a"]}', "words") == ["a"]
    assert predictions(caller, "\ufefftext,weight\na,1\n".encode(), "frame", CSV) == [{"text": "a", "score": 1.0}]


@pytest.mark.parametrize(
    "header",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/x-parquet",
        "application/json; format=pandas-split",
        "text/csv; format=x",
        "application/json; charset=klingon",
        "application/json; charset=base64",
        "application/json; charset=punycode",
        "application/json; charset=",
        "nonsense",
        "/",
        "\xff",
    ],
)
def test_other_types_are_named_back(caller: Caller, header: str) -> None:
    """415 with what is taken, as JSON."""
    told = refused(post(caller, {"instances": MATRIX}, headers={"content-type": header}), status=415)
    assert told.endswith("send application/json or text/csv")


def test_a_body_that_is_not_in_its_character_set(caller: Caller) -> None:
    """400, not a failure."""
    assert "not text in utf-16" in refused(post(caller, b"\x00\xd8\x00", headers={"content-type": "application/json; charset=utf-16-le"}))
    assert "not JSON" in refused(post(caller, b'{"instances":["\xff"]}'))


# --- what is wrong with JSON ---


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "the document is empty"),
        ("{", "not JSON"),
        ('{"instances": [1,]}', "not JSON"),
        ("[]", "it is no object"),
        ("null", "it is no object"),
        ({}, "exactly one of dataframe_split, dataframe_records, instances, inputs; it has none"),
        ({"columns": ["a"], "data": [[1]]}, "it has none"),
        ({"instances": [[1]], "inputs": [[1]]}, "it has instances and inputs"),
        ({"instances": 1}, "'instances' must be a list"),
        ({"instances": {"x": 1}}, "'instances' must be a list"),
        ({"instances": [{"x": [1, 2]}, [1, 2]]}, "item 1 is none"),
        ({"inputs": [{"x": [1, 2]}, None]}, "item 1 is none"),
        ({"dataframe_records": {"a": [1]}}, "a list of objects"),
        ({"dataframe_records": [1]}, "item 0 is none"),
        ({"dataframe_split": []}, "an object with 'columns' and 'data'"),
        ({"dataframe_split": {"columns": ["a"]}}, "an object with 'columns' and 'data'"),
        ({"dataframe_split": {"columns": "a", "data": [[1]]}}, "a list of names"),
        ({"dataframe_split": {"columns": ["a"], "data": [1]}}, "row 0 is no list"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "twice"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "2 cells in a row for 1 column names"),
    ],
)
def test_what_cannot_be_read(caller: Caller, body: Any, words: str) -> None:
    """BAD_REQUEST, for whatever model."""
    assert words in refused(post(caller, body))


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        ("matrix", {"instances": []}, "holds no input"),
        ("matrix", {"inputs": {}}, "holds no input"),
        ("matrix", {"dataframe_records": []}, "has no rows"),
        ("matrix", {"instances": [[1, 2, 3]]}, "has shape [1, 3], expected [-1, 2]"),
        ("matrix", {"instances": [[1, 2], [3]]}, "do not form a box"),
        ("matrix", {"instances": ["secret"]}, "a value of the type String came where FP32 takes numbers"),
        ("columns", {"instances": [[1, 2, "x"]]}, "which must be named: 'a', 'b', 'name', 'c'"),
        ("columns", {"dataframe_records": [{"a": 1}]}, "lacks the inputs 'b', 'name'; it expects 'a', 'b', 'name', 'c'"),
        ("columns", {"dataframe_split": {"data": [[1, 2, "x", 1]]}}, "the request names none"),
        ("frame", {"dataframe_records": [{"text": "secret", "weight": "secret"}]}, "field 'weight': value is not a valid float"),
        ("frame", {"instances": ["secret"]}, "the request names none; it expects 'text', 'weight', 'count'"),
    ],
)
def test_what_does_not_fit_the_model(caller: Caller, model: str, body: Any, words: str) -> None:
    """INVALID_PARAMETER_VALUE, with what is expected and without what was sent."""
    told = refused(post(caller, body, model), "INVALID_PARAMETER_VALUE")
    assert words in told
    assert "secret" not in told


def test_signatures_of_nothing() -> None:
    """A model of rows that declares no fields takes any object."""
    caller = Caller({"m": Toy({"": Signature(Form.TENSORS, batch=True)}, lambda inputs, _: inputs.items)}, MLflowScoring)
    assert predictions(caller, {"dataframe_records": [{"a": 1, "b": "x"}]}, "m") == [{"a": 1, "b": "x"}]


def test_a_body_that_is_a_file(caller: Caller) -> None:
    """Is the one input of a model that takes bytes; of another model the type is not read."""
    sizes = Toy(
        {"": Signature(inputs=(TensorSpec("f", t.BYTES, (-1,)),), outputs=(TensorSpec("size", t.INT64, (-1,)),), batch=True)},
        lambda inputs, _: [Tensor("size", t.INT64, np.array([len(each) for each in inputs.items[0].array]))],
    )
    files = Caller({"files": sizes}, MLflowScoring)
    declared = {"content-type": "image/png"}
    assert document(files.send("POST", "/invocations", b"\x89PNG", declared, ("files", "1"))) == {"predictions": [4]}
    assert "model 'matrix' does not take one file" in refused(post(caller, b"\x89PNG", headers=declared), status=415)
