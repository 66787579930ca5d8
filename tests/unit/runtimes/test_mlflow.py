"""MLflow folders as models: from the folder through the spec to answers, for every flavor that a runtime of ours loads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.plugins import find
from dragoman.core.tensors import BOOL, BYTES, FP32, FP64, INT64, Tensor, Tensors, TensorSpec
from dragoman.runtimes.mlflow_columns import MATRIX
from dragoman.serving.mlflow_specs import spec_of
from tests.models import build, learned
from tests.models import mlflow_folders as made
from tests.models.calls import ask, tensor

X = build.IRIS_CENTRES.astype(float)
COLUMNS = made.columns(**dict.fromkeys(made.FLOWER, "double"))


def load(folder: Path, *, trusted: bool = False, **arguments: Any) -> Model:
    """The folder as the model 'm', in this process."""
    spec = spec_of(ModelSpec("m", arguments={"trust_pickle": trusted, **arguments}), folder, environments="never")
    model: Model = find("runtimes", spec.runtime)(spec)
    return model


def flowers(names: tuple[str, ...] = made.FLOWER, x: Any = X) -> list[Tensor]:
    return [tensor(name, np.array(x[:, made.FLOWER.index(name)])) for name in names]


def refused(model: Model, *tensors: Tensor, **call: Any) -> str:
    with pytest.raises(ServingError) as caught:
        model.predict(Call(Tensors(list(tensors)), **call))
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value.message


def values(answer: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: output.array.tolist() for name, output in answer.items()}


@pytest.mark.parametrize("form", ["skops", "pickle", "cloudpickle"])
def test_columns_become_the_matrix(tmp_path: Path, form: str) -> None:
    """Columns are picked by name, in whatever order they come; the answer is what predict answers."""
    model = load(made.flowers(tmp_path, form=form), trusted=form != "skops")
    assert model.signatures[""].inputs == tuple(TensorSpec(name, FP64, (-1,), native="double") for name in made.FLOWER)
    assert model.signatures[""].outputs == (TensorSpec("predict", INT64, (-1,)),)
    assert model.signatures[""].batch
    assert values(ask(model, *reversed(flowers()))) == {"predict": [0, 1, 2]}


@pytest.mark.parametrize("form", ["pickle", "cloudpickle"])
def test_pickles_need_trust(tmp_path: Path, form: str) -> None:
    """A pickle is refused with the way out."""
    with pytest.raises(ServingError, match="--trust-pickle") as caught:
        load(made.flowers(tmp_path, form=form))
    assert caught.value.kind is Kind.UNSUPPORTED


def test_the_matrix_is_a_signature_of_its_own(tmp_path: Path) -> None:
    """Who has one array of all features sends it as it is."""
    model = load(made.flowers(tmp_path))
    answer = model.predict(Call(Tensors([tensor("X", X)]), signature=MATRIX))
    assert isinstance(answer, Tensors)
    assert answer.items[0].array.tolist() == [0, 1, 2]


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    """Missing, unknown, unequal, nested, of another type: the message names the column and not what is in it."""
    model = load(made.flowers(tmp_path))
    whole = flowers()
    assert "'petal_width' of model 'm' is missing" in refused(model, *whole[:3])
    assert "no column 'other'" in refused(model, *whole, tensor("other", X[:, 0]))
    assert "disagree: 'petal_width' has 1 rows" in refused(model, *whole[:3], tensor("petal_width", X[:1, 3]))
    assert "shape [3, 2], expected one value per row" in refused(model, *whole[:3], tensor("petal_width", X[:, :2]))
    assert "'petal_width' of model 'm' is BYTES, expected FP64" in refused(model, *whole[:3], tensor("petal_width", [b"secret"] * 3))
    assert "no output 'nothing'" in refused(model, *whole, outputs=("nothing",))


def test_a_column_of_one_value_in_a_list_each(tmp_path: Path) -> None:
    """[n, 1] is a column too, as clients of other servers send it."""
    model = load(made.flowers(tmp_path))
    answer = ask(model, *[Tensor(t.name, t.datatype, t.array.reshape(3, 1)) for t in flowers()])
    assert values(answer) == {"predict": [0, 1, 2]}


def test_the_order_of_training_wins(tmp_path: Path) -> None:
    """A signature in another order than the table that the estimator was fitted on must not swap features."""
    import pandas
    from sklearn.linear_model import LogisticRegression

    x, y = learned.flowers()
    estimator = LogisticRegression().fit(pandas.DataFrame(x, columns=made.FLOWER), y)
    described = made.signature(made.columns(**dict.fromkeys(reversed(made.FLOWER), "double")))
    assert values(ask(load(made.sklearn(tmp_path, estimator, described)), *flowers())) == {"predict": [0, 1, 2]}


def test_optional_columns_are_missing_values(tmp_path: Path) -> None:
    """An optional column that does not come is NaN, which some models take."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    estimator = HistGradientBoostingClassifier(max_iter=3).fit(*learned.flowers())
    described = made.signature(made.columns(sepal_length="double", sepal_width="double?", petal_length="double", petal_width="double?"))
    model = load(made.sklearn(tmp_path, estimator, described))
    assert [spec.optional for spec in model.signatures[""].inputs] == [False, True, False, True]
    assert values(ask(model, *flowers(("sepal_length", "petal_length")))) == {"predict": [0, 1, 2]}


def test_types_of_columns(tmp_path: Path) -> None:
    """MLflow's types are datatypes; numbers of several kinds are widened to one matrix."""
    described = made.signature(made.columns(sepal_length="float", sepal_width="long", petal_length="boolean", petal_width="integer"))
    model = load(made.sklearn(tmp_path, learned.classifier(), described))
    assert [str(spec.datatype) for spec in model.signatures[""].inputs] == ["FP32", "INT64", "BOOL", "INT32"]
    row = [
        tensor("sepal_length", np.array([5], np.float32)),
        tensor("sepal_width", np.array([3])),
        Tensor("petal_length", BOOL, np.array([True])),
        tensor("petal_width", np.array([0], np.int32)),
    ]
    assert values(ask(model, *row)) == {"predict": [0]}


def test_what_predict_fn_names(tmp_path: Path) -> None:
    """The method that MLflow's pyfunc_predict_fn chose is the only answer, with its labels."""
    described = made.signature(COLUMNS, [made.tensor("float64", -1, 3)])
    model = load(made.sklearn(tmp_path, learned.classifier(), described, predict_fn="predict_proba"))
    (output,) = model.signatures[""].outputs
    assert (output.shape, output.labels) == ((-1, 3), ("0", "1", "2"))
    assert ask(model, *flowers())["predict"].array.argmax(axis=1).tolist() == [0, 1, 2]


def test_a_predict_fn_that_is_no_answer(tmp_path: Path) -> None:
    """Not every attribute of an estimator may be called by what a file says."""
    with pytest.raises(ServingError, match="'fit'"):
        load(made.sklearn(tmp_path, learned.classifier(), predict_fn="fit"))


def test_several_named_outputs(tmp_path: Path) -> None:
    """A matrix of answers under as many names is as many outputs."""
    from sklearn.linear_model import LinearRegression

    x, y = learned.flowers()
    estimator = LinearRegression().fit(x, np.stack([y, 10.0 * y], axis=1))
    model = load(made.sklearn(tmp_path, estimator, made.signature(COLUMNS, made.columns(small="double", large="double"))))
    assert [spec.name for spec in model.signatures[""].outputs] == ["small", "large"]
    answer = ask(model, *flowers())
    np.testing.assert_allclose(answer["large"].array, 10 * answer["small"].array, rtol=1e-5)
    assert list(ask(model, *flowers(), outputs=("large",))) == ["large"]
    assert answer["large"].array.flags.c_contiguous


def people() -> Any:
    import pandas

    table = pandas.DataFrame({"city": ["a", "b", "c"] * 4, "age": [20, 30, 40] * 4, "income": [1.0, 2.0, 3.0] * 4})
    return table, np.array(["no", "maybe", "yes"] * 4)


PEOPLE = made.signature(made.columns(city="string", age="long", income="double?"), [made.tensor("str", -1)])


def test_a_pipeline_that_chooses_columns(tmp_path: Path) -> None:
    """Text and numbers go to a ColumnTransformer by their names, without pandas."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps = ColumnTransformer([("city", OneHotEncoder(handle_unknown="ignore"), ["city"]), ("n", StandardScaler(), ["age", "income"])])
    model = load(made.sklearn(tmp_path, make_pipeline(steps, LogisticRegression()).fit(*people()), PEOPLE))
    assert [spec.datatype for spec in model.signatures[""].inputs] == [BYTES, INT64, FP64]
    given = [tensor("income", np.array([1.0, 3.0])), tensor("city", [b"a", b"c"]), tensor("age", np.array([20, 40]))]
    assert values(ask(model, *given)) == {"predict": [b"no", b"yes"]}
    assert "UTF-8" in refused(model, given[0], tensor("city", [b"\xff", b"c"]), given[2])


def test_a_step_that_asks_for_a_table(tmp_path: Path) -> None:
    """Where a step picks columns from a data frame itself, it gets one; optional columns are NaN in it."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    table, labels = people()
    estimator = make_pipeline(FunctionTransformer(numbers_of), SimpleImputer(), LogisticRegression()).fit(table, labels)
    model = load(made.sklearn(tmp_path, estimator, PEOPLE, form="cloudpickle"), trusted=True)
    given = [tensor("city", [b"a", b"c"]), tensor("age", np.array([20, 40])), tensor("income", np.array([1.0, 3.0]))]
    assert values(ask(model, *given)) == {"predict": [b"no", b"yes"]}
    assert values(ask(model, *given[:2])) == {"predict": [b"no", b"yes"]}
    assert "'age' of model 'm' is missing" in refused(model, given[0])


def numbers_of(table: Any) -> Any:
    return table[["age", "income"]]


def test_one_column_of_text(tmp_path: Path) -> None:
    """A text model takes the one column of the signature, under its name."""
    described = made.signature(made.columns(mail="string"), made.columns(kind="string"))
    model = load(made.sklearn(tmp_path, learned.text_classifier(), described))
    assert values(ask(model, tensor("mail", [b"free money", b"lunch"]))) == {"kind": [b"spam", b"ham"]}


def test_columns_that_are_not_the_models(tmp_path: Path) -> None:
    """A signature of text for a model of numbers, or of other width, is an error of the folder."""
    with pytest.raises(ServingError, match="column 'a' is text"):
        load(made.sklearn(tmp_path / "a", learned.classifier(), made.signature(made.columns(a="string", b="long", c="long", d="long"))))
    with pytest.raises(ServingError, match="do not make the inputs"):
        load(made.sklearn(tmp_path / "b", learned.classifier(), made.signature(made.columns(a="double"))))


@pytest.mark.parametrize("described", [None, made.signature([made.tensor("float64", -1, 4)], [made.tensor("int64", -1)])])
def test_without_columns(tmp_path: Path, described: Any) -> None:
    """No signature, or one of a tensor: the model's own input, of any numeric datatype."""
    model = load(made.sklearn(tmp_path, learned.classifier(), described))
    assert model.signatures[""].inputs == (TensorSpec("X", None, (-1, 4)),)
    assert values(ask(model, tensor("X", X))) == {"predict": [0, 1, 2]}
    assert values(ask(model, tensor("X", X.astype(np.float32)))) == {"predict": [0, 1, 2]}


def test_a_named_tensor(tmp_path: Path) -> None:
    """The names of a tensor signature are those that clients use."""
    described = made.signature([made.tensor("float64", -1, 4, name="features")], [made.tensor("int64", -1, name="class")])
    model = load(made.sklearn(tmp_path, learned.classifier(), described))
    assert values(ask(model, tensor("features", X))) == {"class": [0, 1, 2]}


def xgboost(folder: Path, model_class: str, data: bytes, described: Any = None) -> Path:
    flavors = {"xgboost": {"data": "model.ubj", "model_class": model_class, "model_format": "ubj", "xgb_version": "3.2.0"}}
    return made.write(folder, made.document(flavors, described=described), {"model.ubj": data})


def test_xgboost_answers_what_its_class_answers(tmp_path: Path) -> None:
    """A Booster gives probabilities, an XGBClassifier the number of the class."""
    described = made.signature(COLUMNS)
    booster = load(xgboost(tmp_path / "b", "xgboost.core.Booster", learned.xgboost_model(), described))
    assert ask(booster, *flowers())["predict"].array.argmax(axis=1).tolist() == [0, 1, 2]
    classifier = load(xgboost(tmp_path / "c", "xgboost.sklearn.XGBClassifier", learned.xgboost_model(), described))
    assert values(ask(classifier, *flowers())) == {"predict": [0, 1, 2]}
    assert classifier.signatures[""].outputs == (TensorSpec("predict", INT64, (-1,)),)


@pytest.mark.parametrize(("objective", "expected"), [("binary:logistic", [0, 1, 1]), ("multi:softmax", [0, 1, 2])])
def test_classes_by_objective(tmp_path: Path, objective: str, expected: list[int]) -> None:
    """Two classes are told apart at one half; softmax has the number of the class already."""
    import xgboost as framework

    x, y = learned.flowers()
    settings = {"objective": objective, "verbosity": 0, **({"num_class": 3} if "multi" in objective else {})}
    booster = framework.train(settings, framework.DMatrix(x, y if "multi" in objective else y > 0), 4)
    model = load(xgboost(tmp_path, "xgboost.sklearn.XGBClassifier", bytes(booster.save_raw("ubj"))))
    assert values(ask(model, tensor("X", X))) == {"predict": expected}


def test_lightgbm(tmp_path: Path) -> None:
    """The text of a Booster, whatever its file is called."""
    flavors = {"lightgbm": {"data": "model.lgb", "model_class": "lightgbm.basic.Booster"}}
    folder = made.write(tmp_path, made.document(flavors, described=made.signature(COLUMNS)), {"model.lgb": learned.lightgbm_model()})
    assert ask(load(folder), *flowers())["predict"].array.argmax(axis=1).tolist() == [0, 1, 2]


def test_a_lightgbm_estimator_needs_trust(tmp_path: Path) -> None:
    """Its classes of scikit-learn's kind are no types that are known to be safe, whatever the folder says of them."""
    import lightgbm

    with learned.quiet():
        estimator = lightgbm.LGBMClassifier(n_estimators=3, min_child_samples=3, verbosity=-1).fit(*learned.flowers())
    flavors = {"lightgbm": {"data": "model.skops", "skops_trusted_types": ["lightgbm.sklearn.LGBMClassifier"]}}
    document = made.document(flavors, described=made.signature(COLUMNS))
    folder = made.write(tmp_path, document, {"model.skops": learned.skops_of(estimator)})
    with pytest.raises(ServingError, match=r"lightgbm\.sklearn\.LGBMClassifier"):
        load(folder)
    with learned.quiet():
        assert values(ask(load(folder, trusted=True), *flowers())) == {"predict": [0, 1, 2]}


def test_onnx(tmp_path: Path) -> None:
    """Columns of doubles for the one FP32 matrix of a graph; of its outputs those that the signature names."""
    data = build.iris(tmp_path / "m.onnx").read_bytes()
    described = made.signature(COLUMNS, [made.tensor("int64", -1, 1, name="label")])
    model = load(made.write(tmp_path / "f", made.document({"onnx": {"data": "model.onnx"}}, described=described), {"model.onnx": data}))
    assert values(ask(model, *flowers())) == {"label": [[0], [1], [2]]}
    plain = load(made.write(tmp_path / "g", made.document({"onnx": {"data": "model.onnx"}}), {"model.onnx": data}))
    assert plain.signatures[""].inputs == (TensorSpec("X", FP32, (-1, 4)),)


def pytorch(folder: Path, file: str, data: bytes, described: Any, **more: Any) -> Path:
    flavors = {"pytorch": {"model_data": "data", "pytorch_version": "2.9.0", **more}}
    return made.write(folder, made.document(flavors, described=described), {f"data/{file}": data})


def test_an_exported_program(tmp_path: Path) -> None:
    """PyTorch's exported programs say themselves what they take."""
    described = made.signature([made.tensor("float32", -1, 4)], [made.tensor("float32", -1, 3)])
    model = load(pytorch(tmp_path, "model.pt2", learned.exported(), described, serialization_format="pt2"))
    assert ask(model, tensor("x", build.IRIS_CENTRES))["label"].array.shape == (3,)


def test_torchscript(tmp_path: Path) -> None:
    """The signature gives TorchScript its datatypes and batch."""
    described = made.signature([made.tensor("float32", -1, 4)], [made.tensor("float32", -1, 3)])
    model = load(pytorch(tmp_path, "model.pth", learned.scripted_matrix(), described))
    assert model.signatures[""].batch
    assert ask(model, tensor("input-0", build.IRIS_CENTRES))["predict"].array.shape == (3, 3)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The error names the file, and not where it would lie."""
    folder = made.flowers(tmp_path)
    (folder / "model.skops").unlink()
    with pytest.raises(ServingError, match=r"'model\.skops' of model 'm' does not exist") as caught:
        load(folder)
    assert str(tmp_path) not in caught.value.message


def test_a_spec_that_no_folder_made() -> None:
    """The runtime without a folder says what it is for."""
    with pytest.raises(ServingError, match="MLmodel"):
        find("runtimes", "mlflow")(ModelSpec("m", arguments={"mlflow": "x"}))
