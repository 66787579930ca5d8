"""MLflow's python_function in this process: what tables its code gets, what it may answer, and what is refused."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.tensors import BOOL, BYTES, FP64, INT64, Form, Rows, Signature, Tensor, Tensors, TensorSpec
from dragoman.runtimes.mlflow_frames import Framed
from dragoman.runtimes.mlflow_function import load_function, parameters
from dragoman.serving.mlflow_specs import spec_of
from tests.models import mlflow_folders as made
from tests.models.calls import ask, call, tensor
from tests.models.snippets import same_process


def loaded(folder: Path, *, trusted: bool = True) -> Model:
    spec = spec_of(ModelSpec("m", arguments={"trust_pickle": True}), folder, environments="never")
    arguments = {**spec.arguments, "trust_pickle": trusted}
    return load_function(ModelSpec("m", artifact=spec.artifact, signature=spec.signature, arguments=arguments), arguments["mlflow"])


def framed(function: Any, *inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (), form: Form = Form.TENSORS, **more: Any) -> Framed:
    signature = Signature(form, inputs, outputs, batch=True)
    return Framed(ModelSpec("m"), signature, lambda table, _: function(table), platform="mlflow", **more)


def column(name: str, kind: str, *, optional: bool = False) -> TensorSpec:
    datatype = {"double": FP64, "long": INT64, "boolean": BOOL}.get(kind, BYTES)
    return TensorSpec(name, datatype, (-1,), optional, native=kind)


# --- code of its own ---


def test_a_loader_of_its_own(tmp_path: Path) -> None:
    """The module of the folder's code is loaded and asked, with the parameters of the request."""
    with same_process():
        model = loaded(made.own_code(tmp_path))
        answer = ask(model, tensor("x", np.array([1.0, 2.5])))
        assert answer["twice"].array.tolist() == [2.0, 5.0]
        assert answer["text"].array.tolist() == [b"1", b"2.5"]
        request = Call(Tensors([tensor("x", np.array([1.0]))]), parameters={"times": 5, "other": 1}, outputs=("twice",))
        again = model.predict(request)
        assert isinstance(again, Tensors)
        assert [(t.name, t.array.tolist()) for t in again.items] == [("twice", [5.0])]
        assert model.signatures[""].reads == {"times"}
        model.close()
        with pytest.raises(ServingError) as caught:
            model.predict(call(tensor("x", np.array([1.0]))))
        assert caught.value.kind is Kind.UNAVAILABLE


def test_it_is_never_loaded_without_trust(tmp_path: Path) -> None:
    """Neither when the spec is made nor, with a spec from elsewhere, when it is loaded."""
    folder = made.own_code(tmp_path, "raise SystemExit('this must not run')")
    with pytest.raises(ServingError, match="--trust-pickle") as caught:
        loaded(folder, trusted=False)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_code_that_fails_to_load(tmp_path: Path) -> None:
    """The model's failure, with its traceback for the log."""
    with same_process(), pytest.raises(ServingError, match="ZeroDivisionError") as caught:
        loaded(made.own_code(tmp_path, "1 / 0"))
    assert caught.value.kind is Kind.MODEL_FAILED
    assert "Traceback" in caught.value.trace


def test_mlflow_is_missing(tmp_path: Path) -> None:
    """A loader of MLflow's own needs MLflow in the environment, and the message says how it gets there."""
    folder = made.write(tmp_path, made.document({}, loader="mlflow.pyfunc.model", described=made.doubling()))
    with pytest.raises(ServingError, match=r"requirements\.txt") as caught:
        loaded(folder)
    assert caught.value.kind is Kind.UNSUPPORTED


# --- what it gets ---


def test_the_table(tmp_path: Path) -> None:
    """Columns in the signature's order and MLflow's types; optional ones that did not come are left out."""
    seen: list[Any] = []

    def function(table: Any) -> Any:
        seen.append(table)
        return table["n"]

    specs = [
        column("t", "string"),
        column("n", "double"),
        column("d", "datetime"),
        column("b", "binary"),
        column("o", "long", optional=True),
    ]
    model = framed(function, *specs)
    given = [
        tensor("d", [b"2024-05-01T10:00:00", b"2024-05-02"]),
        tensor("n", np.array([1.0, 2.0])),
        tensor("b", [b"\xff", b""]),
        tensor("t", [b"a", "ü".encode()]),
    ]
    assert ask(model, *given)["predict"].array.tolist() == [1.0, 2.0]
    (table,) = seen
    assert list(table.columns) == ["t", "n", "d", "b"]
    assert list(table["t"]) == ["a", "ü"]
    assert list(table["b"]) == [b"\xff", b""]
    assert table["d"][0] == datetime.datetime(2024, 5, 1, 10)  # noqa: DTZ001 # MLflow's datetimes have no zone
    with pytest.raises(ServingError, match="column 'd' of model 'm' holds a text that is no ISO 8601 date") as caught:
        ask(model, tensor("d", [b"tomorrow", b"x"]), *given[1:])
    assert "tomorrow" not in caught.value.message


def test_wrong_columns() -> None:
    """Named, in the words of the column adapter."""
    model = framed(lambda table: table["n"], column("n", "double"), column("t", "string"))
    for given, message in [
        ([tensor("n", np.array([1.0]))], "column 't' of model 'm' is missing"),
        ([tensor("n", np.array([1])), tensor("t", [b"a"])], "column 'n' of model 'm' is INT64, expected FP64"),
        ([tensor("n", np.array([1.0])), tensor("t", [b"\xff"])], "UTF-8"),
        ([tensor("n", np.array([1.0])), tensor("t", [b"a", b"b"])], "disagree"),
        ([], "is missing"),
    ]:
        with pytest.raises(ServingError, match=message) as caught:
            model.predict(call(*given))
        assert caught.value.kind is Kind.INVALID_INPUT


def test_tensors() -> None:
    """A tensor signature gets an array, or arrays by name where there are several."""
    one = framed(lambda array: array.sum(axis=1), TensorSpec("input-0", FP64, (-1, 2), native="tensor"))
    assert ask(one, tensor("input-0", np.ones((3, 2))))["predict"].array.tolist() == [2.0, 2.0, 2.0]
    specs = [TensorSpec(name, FP64, (-1,), native="tensor") for name in "ab"]
    two = framed(lambda arrays: arrays["a"] - arrays["b"], *specs)
    assert ask(two, tensor("b", np.array([1.0])), tensor("a", np.array([3.0])))["predict"].array.tolist() == [2.0]


def test_a_plain_list() -> None:
    """A model whose signature is its type hints gets the list that they say."""
    model = framed(lambda texts: [text.upper() for text in texts], column("input-0", "string"), listed=True)
    assert ask(model, tensor("input-0", [b"a", b"b"]))["predict"].array.tolist() == [b"A", b"B"]


def test_nothing_declared() -> None:
    """One value per row of each tensor makes a table; anything else comes as it is."""
    assert ask(framed(lambda table: table["a"] + table["b"]), tensor("a", np.array([1])), tensor("b", np.array([2])))[
        "predict"
    ].array.tolist() == [3]
    assert ask(framed(lambda array: array[:, 0]), tensor("x", np.array([[1, 2], [3, 4]])))["predict"].array.tolist() == [1, 3]
    model = framed(lambda arrays: arrays["x"][:, 0])
    assert ask(model, tensor("x", np.ones((2, 2))), tensor("y", np.ones(1)))["predict"].array.tolist() == [1.0, 1.0]


def test_rows() -> None:
    """Rows of objects are a table with their fields, and the answer is rows again."""
    model = framed(lambda table: [sum(values) for values in table["list"]], column("list", "array"), form=Form.ROWS)
    answer = model.predict(Call(Rows([{"list": [1, 2]}, {"list": []}])))
    assert isinstance(answer, Rows)
    assert answer.items == [{"predict": 3}, {"predict": 0}]


# --- what it answers ---


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (np.array([1, 2]), {"predict": [1, 2]}),
        ([1.5, 2.5], {"predict": [1.5, 2.5]}),
        (["a", "b"], {"predict": [b"a", b"b"]}),
        ({"a": [1, 2], "b": np.array(["x", "y"])}, {"a": [1, 2], "b": [b"x", b"y"]}),
        (np.array(["2024-01-01", "2024-01-02"], "M8[D]"), {"predict": [b"2024-01-01", b"2024-01-02"]}),
    ],
)
def test_answers_as_tensors(answer: Any, expected: dict[str, Any]) -> None:
    """Arrays, lists and mappings of either."""
    got = ask(framed(lambda _: answer, column("x", "double")), tensor("x", np.array([1.0, 2.0])))
    assert {name: output.array.tolist() for name, output in got.items()} == expected


@pytest.mark.parametrize("answer", [[{"a": 1}, {"a": None}], [[1], [1, 2]], [None, "a"], "text", {"a": 1}, 7, None])
def test_answers_that_are_no_tensors(answer: Any) -> None:
    """Nested and mixed values are rows, as they are."""
    got = framed(lambda _: answer, column("x", "double")).predict(call(tensor("x", np.array([1.0, 2.0]))))
    assert isinstance(got, Rows)
    assert got.items == (answer if isinstance(answer, list) else [answer])


def test_tables_and_series() -> None:
    """A table is one output per column; columns that are only numbered are one matrix; declared names win over the table's."""
    import pandas

    given = tensor("x", np.array([1.0, 2.0]))
    spec = column("x", "double")
    table = ask(framed(lambda t: pandas.DataFrame({"a": t["x"], "b": ["u", "v"]}), spec), given)
    assert {name: output.array.tolist() for name, output in table.items()} == {"a": [1.0, 2.0], "b": [b"u", b"v"]}
    matrix = ask(framed(lambda t: pandas.DataFrame(np.ones((2, 3))), spec), given)
    assert matrix["predict"].array.shape == (2, 3)
    outputs = (TensorSpec("y", INT64, (-1,)), TensorSpec("z", FP64, (-1,)))
    named = ask(framed(lambda t: pandas.DataFrame({"a": [1, 2], "b": [3.0, 4.0]}), spec, outputs=outputs), given)
    assert list(named) == ["y", "z"]
    split = ask(framed(lambda t: np.array([[1, 2], [3, 4]]), spec, outputs=outputs), given)
    assert split["z"].array.tolist() == [2.0, 4.0]
    assert split["z"].datatype is FP64


def test_the_declared_datatype_where_nothing_is_lost() -> None:
    """Integers become the declared doubles; fractions stay what they are where integers were declared."""
    given = tensor("x", np.array([1.0]))
    outputs = (TensorSpec("y", FP64, (-1,)),)
    assert ask(framed(lambda _: [1], column("x", "double"), outputs=outputs), given)["y"].datatype is FP64
    outputs = (TensorSpec("y", INT64, (-1,)),)
    assert ask(framed(lambda _: [1.5], column("x", "double"), outputs=outputs), given)["y"].array.tolist() == [1.5]


def test_an_output_that_did_not_come() -> None:
    """Asked for by name, and not in the answer."""
    model = framed(lambda _: [1], column("x", "double"))
    with pytest.raises(ServingError, match="no output 'y'"):
        model.predict(call(tensor("x", np.array([1.0])), outputs=("y",)))


def test_what_mlflow_refuses() -> None:
    """Its own schema errors show the caller's data; ours does not, and keeps what it said for the log."""

    def function(_: Any) -> Any:
        raise LookupError("the secret of the caller")

    model = framed(function, column("x", "double"), refusals=(LookupError,))
    with pytest.raises(ServingError) as caught:
        model.predict(call(tensor("x", np.array([1.0]))))
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "secret" not in caught.value.message
    assert "secret" in caught.value.trace


# --- parameters ---

DECLARED = [
    {"name": "n", "type": "long", "list": False},
    {"name": "t", "type": "double", "list": False},
    {"name": "f", "type": "boolean", "list": False},
    {"name": "s", "type": "string", "list": True},
]


def test_parameters_by_type() -> None:
    """Those that are declared, in their types; others are ignored, and so is null."""
    given = {"n": 3, "t": 1, "f": True, "s": ["a", "b"], "other": object()}
    assert parameters(given, DECLARED, "m") == {"n": 3, "t": 1.0, "f": True, "s": ["a", "b"]}
    assert parameters({"n": None}, DECLARED, "m") == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 1.5}, "parameter 'n' of model 'm' is a fraction, expected long"),
        ({"n": True}, "is a boolean, expected long"),
        ({"n": 1 << 70}, "is an integer, expected long"),
        ({"n": "3"}, "is a text, expected long"),
        ({"t": [1]}, "is a list, expected double"),
        ({"f": 1}, "is an integer, expected boolean"),
        ({"s": "a"}, "is a text, expected a list of string"),
        ({"s": ["a", 1]}, "is an integer, expected string"),
    ],
)
def test_wrong_parameters(given: dict[str, Any], message: str) -> None:
    """Refused with the name and both kinds, without the value."""
    with pytest.raises(ServingError) as caught:
        parameters(given, DECLARED, "m")
    assert caught.value.kind is Kind.INVALID_INPUT
    assert message in caught.value.message


def test_tensors_own_their_memory() -> None:
    """What is answered may be written to."""
    frozen = np.array([1.0])
    frozen.flags.writeable = False
    answer = ask(framed(lambda _: frozen, column("x", "double")), Tensor("x", FP64, np.array([1.0])))
    assert answer["predict"].array.flags.writeable
