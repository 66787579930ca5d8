"""XGBoost and LightGBM models: formats, shapes, missing values, threads, and files that are not theirs."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import BF16, FP32, FP64, Signature, TensorSpec
from tests.models import build, learned
from tests.models.calls import ask, load, tensor

CENTRES = build.IRIS_CENTRES
X, Y = learned.flowers()


def write(tmp_path: Path, name: str, data: bytes) -> Path:
    return learned.write(tmp_path / name, data)


def refusal(runtime: str, path: Path) -> ServingError:
    with pytest.raises(ServingError) as caught:
        load(runtime, path)
    assert f"'{path.name}' of model 'm'" in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("multi", (-1, 3)), ("value", (-1,)), ("linear", (-1,)), ("dart", (-1,)), ("category", (-1,)), ("pair", (-1, 2))],
)
@pytest.mark.parametrize("name", ["model.ubj", "model.json", "model.bst"])
def test_xgboost(kind: str, shape: tuple[int, ...], name: str, tmp_path: Path) -> None:
    """Every booster, in both formats, under any file name, gives what XGBoost itself gives."""
    import xgboost

    data = learned.xgboost_model(kind, "json" if name.endswith("json") else "ubj")
    model = load("xgboost", write(tmp_path, name, data))
    signature = model.signatures[""]
    assert signature.inputs == (TensorSpec("X", None, (-1, 4)),)
    assert signature.outputs == (TensorSpec("predict", FP32, shape),)
    assert signature.batch
    assert model.concurrent is (kind != "linear")
    booster = xgboost.Booster(model_file=bytearray(data))
    kinds = ["q", "c", "q", "q"] if kind == "category" else None
    x = np.c_[X[:, :1], Y % 3, X[:, 2:]].astype(np.float32)
    expected = booster.predict(xgboost.DMatrix(x, feature_types=kinds))
    np.testing.assert_allclose(ask(model, tensor("X", x))["predict"].array, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shape"), [("multi", (-1, 3)), ("value", (-1,)), ("category", (-1,)), ("linear", (-1,)), ("stump", (-1,))]
)
def test_lightgbm(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Every sort of tree gives what LightGBM itself gives, in double precision."""
    import lightgbm

    data = learned.lightgbm_model(kind)
    model = load("lightgbm", write(tmp_path, "model.txt", data))
    assert model.signatures[""].outputs == (TensorSpec("predict", FP64, shape),)
    assert model.signatures[""].batch
    expected = lightgbm.Booster(model_str=data.decode()).predict(X.astype(np.float64))
    np.testing.assert_allclose(ask(model, tensor("X", X.astype(np.float64)))["predict"].array, expected)


@pytest.mark.parametrize(("runtime", "file"), [("xgboost", "booster.ubj"), ("lightgbm", "booster.txt")])
@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        ("float32", None),
        ("float64", None),
        ("float16", None),
        ("int8", None),
        ("uint8", None),
        ("int64", None),
        ("bool", None),
        ("uint16", BF16),
    ],
)
def test_any_number_goes_in(runtime: str, file: str, dtype: str, datatype: Any, tmp_path: Path) -> None:
    """Every numeric datatype is read as the same numbers."""
    model = load(runtime, write(tmp_path, file, learned.LEARNED[file]()))
    ones = np.full((2, 4), 0x3F80, np.uint16) if datatype is BF16 else np.ones((2, 4), dtype)
    expected = ask(model, tensor("X", np.ones((2, 4), np.float32)))["predict"].array
    np.testing.assert_allclose(ask(model, tensor("X", ones, datatype))["predict"].array, expected, rtol=1e-6)


@pytest.mark.parametrize(("runtime", "file"), [("xgboost", "booster.ubj"), ("lightgbm", "booster.txt")])
def test_missing_values(runtime: str, file: str, tmp_path: Path) -> None:
    """NaN is a missing value, and rows of it are answered; views of any layout are read."""
    model = load(runtime, write(tmp_path, file, learned.LEARNED[file]()))
    rows = np.array(X[:4])
    rows[1] = np.nan
    rows[2, 0] = np.nan
    answer = ask(model, tensor("X", rows))["predict"].array
    assert np.isfinite(answer).all()
    np.testing.assert_allclose(ask(model, tensor("X", np.asfortranarray(rows)))["predict"].array, answer)
    np.testing.assert_allclose(ask(model, tensor("X", rows[::2]))["predict"].array, answer[::2])


@pytest.mark.parametrize(("runtime", "file"), [("xgboost", "booster.ubj"), ("lightgbm", "booster.txt")])
def test_declared_signature(runtime: str, file: str, tmp_path: Path) -> None:
    """A configuration may fix the input's datatype and name the classes; it may not contradict the booster."""
    path = write(tmp_path, file, learned.LEARNED[file]())
    declared = Signature(
        inputs=(TensorSpec("X", FP32, (-1, 4)),), outputs=(TensorSpec("predict", None, None, labels=build.IRIS_CLASSES),), batch=True
    )
    signature = load(runtime, path, declared).signatures[""]
    assert signature.inputs[0].datatype is FP32
    assert signature.outputs[0].labels == build.IRIS_CLASSES
    with pytest.raises(ServingError, match=r"with shape \[-1, 5\], but the model has \[-1, 4\]"):
        load(runtime, path, Signature(inputs=(TensorSpec("X", FP32, (-1, 5)),)))


@pytest.mark.parametrize(("runtime", "file", "other"), [("xgboost", "booster.ubj", "nthread"), ("lightgbm", "booster.txt", "num_threads")])
def test_threads(runtime: str, file: str, other: str, tmp_path: Path) -> None:
    """The number of threads is an option, under our name and the framework's, and does not change the answer."""
    path = write(tmp_path, file, learned.LEARNED[file]())
    expected = ask(load(runtime, path), tensor("X", CENTRES))["predict"].array
    options: list[dict[str, Any]] = [{"threads": 2}, {other: "2"}, {"threads": 0}]
    for arguments in options:
        np.testing.assert_allclose(ask(load(runtime, path, **arguments), tensor("X", CENTRES))["predict"].array, expected)
    with pytest.raises(ServingError, match="argument 'threads' of model 'm'"):
        load(runtime, path, threads="all")


def test_early_stopping(tmp_path: Path) -> None:
    """Trees beyond the best iteration are left out, as XGBoost's own classes do."""
    import xgboost

    booster = xgboost.Booster(model_file=bytearray(learned.xgboost_model("value")))
    booster.set_attr(best_iteration="1")
    model = load("xgboost", write(tmp_path, "model.ubj", bytes(booster.save_raw("ubj"))))
    expected = booster.predict(xgboost.DMatrix(CENTRES), iteration_range=(0, 2))
    np.testing.assert_allclose(ask(model, tensor("X", CENTRES))["predict"].array, expected)
    assert not np.allclose(expected, booster.predict(xgboost.DMatrix(CENTRES)))


def test_other_json(tmp_path: Path) -> None:
    """A JSON file that is no XGBoost model is told from one, whatever else it is."""
    for text in ('{"name": "iris"}', "[]", '"learner"', "null"):
        error = refusal("xgboost", write(tmp_path, "model.json", text.encode()))
        assert error.kind is Kind.INVALID_INPUT
        assert "is not an XGBoost model in JSON or UBJSON" in error.message


@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_xgboost_files_that_are_cut(suffix: str, tmp_path: Path) -> None:
    """Wherever a file ends too early, the error says that it is damaged."""
    whole = learned.xgboost_model("multi", suffix)
    for length in (60, 100, len(whole) // 2, len(whole) - 10):
        error = refusal("xgboost", write(tmp_path, f"model.{suffix}", whole[:length]))
        assert error.kind is Kind.INVALID_INPUT
        assert "is damaged" in error.message


def test_xgboost_json_without_a_booster(tmp_path: Path) -> None:
    """A file that has the right beginning and nothing else is damaged too."""
    assert "is damaged" in refusal("xgboost", write(tmp_path, "model.json", b'{"learner":{},"version":[3,2,0]}')).message
    document = json.loads(learned.xgboost_model("multi", "json"))
    del document["learner"]["gradient_booster"]["model"]["trees"]
    assert "is damaged" in refusal("xgboost", write(tmp_path, "model.json", json.dumps(document).encode())).message


def test_lightgbm_files_that_are_cut(tmp_path: Path) -> None:
    """Wherever a file ends too early, the error says so; LightGBM itself would end the process."""
    whole = learned.lightgbm_model()
    end = whole.index(b"end of trees")
    for length in (10, 300, end // 2, end - 1, end):
        error = refusal("lightgbm", write(tmp_path, "model.txt", whole[:length]))
        assert error.kind is Kind.INVALID_INPUT
        assert "is damaged" in error.message
    load("lightgbm", write(tmp_path, "model.txt", whole[: end + 20]))


def test_lightgbm_reports_to_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """What LightGBM has to say about a file that it does not like goes to the log and the error, not to the terminal."""
    data = learned.lightgbm_model("value").replace(b"objective=regression", b"objective=nonsense\n")
    with caplog.at_level(logging.INFO):
        error = refusal("lightgbm", write(tmp_path, "model.txt", data))
    assert "is damaged" in error.message
    assert capfd.readouterr().out == ""
