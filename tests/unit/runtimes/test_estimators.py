"""scikit-learn models: what is opened, what they take and give, and what they refuse."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import IsolationForest
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import RadiusNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Model, ModelSpec
from dragoman.core.tensors import BF16, BOOL, BYTES, FP16, FP32, FP64, INT64, Signature, TensorSpec
from dragoman.hosting.servable import LocalServable
from tests.models import build, learned
from tests.models.calls import ask, call, load, tensor

X, Y = learned.flowers()
CENTRES = build.IRIS_CENTRES


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """Write an estimator as skops, load it."""

    def serve(estimator: Any, signature: Signature | None = None) -> Model:
        return load("sklearn", learned.write(tmp_path / "model.skops", learned.skops_of(estimator)), signature)

    return serve


def refusal(path: Path, **arguments: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        load("sklearn", path, **arguments)
    assert "'m'" in caught.value.message
    assert f"'{path.name}'" in caught.value.message
    return caught.value


def test_classes_and_probabilities(served: Any) -> None:
    """A classifier gives its classes, of their own type, and their probabilities, labelled."""
    model = served(learned.classifier(named=True))
    outputs = model.signatures[""].outputs
    assert outputs == (TensorSpec("predict", BYTES, (-1,)), TensorSpec("predict_proba", FP64, (-1, 3), labels=build.IRIS_CLASSES))
    answer = ask(model, tensor("X", CENTRES))
    assert answer["predict"].array.tolist() == [name.encode() for name in build.IRIS_CLASSES]
    np.testing.assert_allclose(answer["predict_proba"].array, learned.classifier(named=True).predict_proba(CENTRES), rtol=1e-5)


@pytest.mark.parametrize(
    ("classes", "datatype", "answers"),
    [
        ([0, 1, 2], INT64, [0, 1, 2]),
        (np.array([5, 6, 7], np.uint8), INT64, [5, 6, 7]),
        ([1.0, 2.0, 3.0], FP64, [1.0, 2.0, 3.0]),
        (["a", "b", "c"], BYTES, [b"a", b"b", b"c"]),
        (np.array(["a", "b", "c"], object), BYTES, [b"a", b"b", b"c"]),
        ([True, False, True], BOOL, [True, False, True]),
    ],
)
def test_types_of_classes(classes: Any, datatype: Any, answers: list[Any], served: Any) -> None:
    """Whatever the classes are, their datatype is declared and kept."""
    model = served(DecisionTreeClassifier().fit(X, np.array(classes)[Y]))
    assert model.signatures[""].output_by_name["predict"].datatype is datatype
    out = ask(model, tensor("X", CENTRES), outputs=("predict",))["predict"]
    assert out.datatype is datatype
    assert out.array.tolist() == answers


@pytest.mark.parametrize(
    ("array", "datatype"),
    [
        (CENTRES, FP32),
        (CENTRES.astype(np.float64), FP64),
        (CENTRES.astype(np.float16), FP16),
        ((CENTRES.view(np.uint32) >> 16).astype(np.uint16), BF16),
        (np.rint(CENTRES).astype(np.int32), None),
        (np.rint(CENTRES).astype(np.uint8), None),
    ],
)
def test_any_number_goes_in(array: Any, datatype: Any, served: Any) -> None:
    """Every numeric datatype is taken, and the answer's datatype does not depend on it."""
    answer = ask(served(learned.classifier()), tensor("X", array, datatype))
    assert answer["predict"].array.tolist() == [0, 1, 2]
    assert answer["predict_proba"].datatype is FP64


def test_regressor(served: Any) -> None:
    """A number per row."""
    model = served(LinearRegression().fit(X, X[:, 0] * 2))
    assert model.signatures[""].outputs == (TensorSpec("predict", FP64, (-1,)),)
    np.testing.assert_allclose(ask(model, tensor("X", CENTRES))["predict"].array, CENTRES[:, 0] * 2, rtol=1e-4)


def test_several_targets(served: Any) -> None:
    """Values of several targets are columns; probabilities of several targets are one output each."""
    model = served(Ridge().fit(X, X[:, :2]))
    assert model.signatures[""].outputs == (TensorSpec("predict", FP64, (-1, 2)),)
    targets = np.c_[Y, Y > 0]
    model = served(MultiOutputClassifier(LogisticRegression()).fit(X, targets))
    assert model.signatures[""].outputs == (
        TensorSpec("predict", INT64, (-1, 2)),
        TensorSpec("predict_proba_0", FP64, (-1, 3), labels=("0", "1", "2")),
        TensorSpec("predict_proba_1", FP64, (-1, 2), labels=("0", "1")),
    )
    answer = ask(model, tensor("X", CENTRES))
    assert answer["predict"].array.tolist() == [[0, 0], [1, 1], [2, 1]]
    assert answer["predict_proba_1"].array.shape == (3, 2)
    assert list(ask(model, tensor("X", CENTRES), outputs=("predict_proba_1",))) == ["predict_proba_1"]
    assert list(ask(model, tensor("X", CENTRES), outputs=("predict",))) == ["predict"]


def test_other_kinds(served: Any) -> None:
    """Clusterers and detectors predict whole numbers, transformers transform, searches and pipelines are what they hold."""
    assert served(IsolationForest(n_estimators=5, random_state=0).fit(X)).signatures[""].outputs == (TensorSpec("predict", INT64, (-1,)),)
    pca = PCA(2).fit(X.astype(np.float64))
    model = served(pca)
    assert model.signatures[""].outputs == (TensorSpec("transform", FP64, (-1, 2)),)
    np.testing.assert_allclose(ask(model, tensor("X", CENTRES))["transform"].array, pca.transform(CENTRES), atol=1e-5)
    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1, 10]}, cv=2).fit(X, Y)
    model = served(search)
    assert model.signatures[""].inputs == (TensorSpec("X", None, (-1, 4)),)
    assert ask(model, tensor("X", CENTRES))["predict"].array.tolist() == [0, 1, 2]


@pytest.mark.parametrize("fitted", [np.float32, np.float64])
def test_precision_of_the_fit(fitted: Any, served: Any) -> None:
    """KMeans takes only the precision that it was fitted in; callers need not know."""
    model = served(KMeans(3, random_state=0).fit(X.astype(fitted)))
    assert model.signatures[""].outputs == (TensorSpec("predict", INT64, (-1,)),)
    answers = [ask(model, tensor("X", CENTRES.astype(dtype)))["predict"].array.tolist() for dtype in (np.float32, np.float64)]
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == 3


def test_sparse_answers_are_filled(served: Any) -> None:
    """A transformer's sparse matrix comes as a plain one."""
    encoder = OneHotEncoder().fit(np.array([[0], [1], [2]]))
    assert ask(served(encoder), tensor("X", np.array([[2], [0]])))["transform"].array.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_text_models(served: Any) -> None:
    """A pipeline that begins with words takes one text per row, and numbers are refused."""
    model = served(learned.text_classifier())
    assert model.signatures[""].inputs == (TensorSpec("X", BYTES, (-1,)),)
    assert ask(model, tensor("X", [b"free money", b"lunch at noon"]))["predict"].array.tolist() == [b"spam", b"ham"]
    with pytest.raises(ServingError, match="has datatype FP32, expected BYTES"):
        ask(model, tensor("X", CENTRES))
    hashing = make_pipeline(HashingVectorizer(n_features=64), LogisticRegression()).fit(["a b", "c d"] * 3, [0, 1] * 3)
    assert ask(served(hashing), tensor("X", [b"a b"]))["predict"].array.tolist() == [0]
    counts = served(CountVectorizer().fit(["a1 b1", "b1 c1"]))
    assert ask(counts, tensor("X", [b"b1 b1 c1"]))["transform"].array.tolist() == [[0, 2, 1]]


def test_text_in_tables(served: Any) -> None:
    """Estimators of categories take text columns; text that is no number is refused by the others."""
    encoder = OrdinalEncoder().fit(np.array([["red", "s"], ["blue", "m"]], object))
    model = served(encoder)
    assert model.signatures[""].outputs[0].name == "transform"
    assert ask(model, tensor("X", [[b"red", b"m"], [b"blue", b"s"]]))["transform"].array.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ServingError, match="Found unknown categories"):
        ask(model, tensor("X", [[b"green", b"m"]]))


def fitted_on_columns(names: list[str], **columns: Any) -> Any:
    """A pipeline as fitting it on a data frame leaves it: transformers that select columns by name."""
    table = np.array([["red", 1.0, "x y"], ["blue", 2.0, "y z"], ["red", 3.0, "x z"], ["blue", 4.0, "x x"]], object)
    steps = [
        ("colour", OneHotEncoder(), [0]),
        ("size", StandardScaler(), [1]),
        ("words", CountVectorizer(token_pattern="[a-z]"), 2),
    ]
    pipeline = make_pipeline(ColumnTransformer(steps), LogisticRegression()).fit(table, [1, 0, 1, 0])
    transformer = pipeline.steps[0][1]
    transformer.feature_names_in_ = np.array(names, object)
    transformer.transformers_ = [(name, step, columns[name]) for name, step, _ in transformer.transformers_]
    return pipeline


@pytest.mark.parametrize(
    "columns",
    [
        {"colour": ["colour"], "size": ["size"], "words": "words"},
        {"colour": slice("colour", "colour"), "size": np.array(["size"], object), "words": "words"},
        {"colour": slice(0, 1), "size": [1], "words": 2},
        {"colour": slice(None, "colour"), "size": [1], "words": 2},
    ],
)
def test_columns_by_name(columns: dict[str, Any], tmp_path: Path) -> None:
    """A model that was fitted on a data frame takes one input per column, in any order, numbers and text mixed."""
    path = learned.write(tmp_path / "m.pkl", pickle.dumps(fitted_on_columns(["colour", "size", "words"], **columns)))
    model = load("sklearn", path, trust_pickle=True)
    assert model.signatures[""].inputs == tuple(TensorSpec(name, None, (-1, 1)) for name in ("colour", "size", "words"))
    assert model.signatures[""].batch
    size = tensor("size", np.array([[1.5], [2.5]], np.float32))
    colour = tensor("colour", [[b"red"], [b"blue"]])
    words = tensor("words", [[b"x"], [b"z"]])
    assert ask(model, size, colour, words)["predict"].array.tolist() == [1, 0]
    with pytest.raises(ServingError, match="missing or unknown: 'words'"):
        ask(model, size, colour)
    with pytest.raises(ServingError, match="missing or unknown: 'other'"):
        ask(model, size, colour, words, tensor("other", [b"a"]))
    with pytest.raises(ServingError, match="'words' has 1 elements, another 2"):
        ask(model, size, colour, tensor("words", [b"x"]))
    with pytest.raises(ServingError, match="unknown categories"):
        ask(model, size, tensor("colour", [[b"green"], [b"red"]]), words)


def test_names_of_columns_do_not_warn(tmp_path: Path) -> None:
    """A model that knows column names takes a matrix without a word about it."""
    estimator = LogisticRegression().fit(X, Y)
    estimator.feature_names_in_ = np.array(["a", "b", "c", "d"], object)
    model = load("sklearn", learned.write(tmp_path / "m.skops", learned.skops_of(estimator)))
    assert model.signatures[""].inputs == (TensorSpec("X", None, (-1, 4)),)
    assert ask(model, tensor("X", CENTRES))["predict"].array.tolist() == [0, 1, 2]


def test_refused_numbers(served: Any) -> None:
    """NaN, infinity and wrong widths are refused in scikit-learn's words, with its first line only."""
    model = served(learned.classifier())
    for array, says in [
        (np.full((1, 4), np.nan), "contains NaN"),
        (np.full((1, 4), np.inf), "contains infinity"),
        (np.zeros((1, 5)), "has 5 features"),
        (np.zeros(4), "Expected 2D array"),
    ]:
        with pytest.raises(ServingError) as caught:
            ask(model, tensor("X", array))
        assert caught.value.kind is Kind.INVALID_INPUT
        assert "model 'm' refused the input: ValueError: " in caught.value.message
        assert says in caught.value.message
        assert "\n" not in caught.value.message


def test_one_number_is_no_table(served: Any) -> None:
    """TensorFlow Serving's protocol lets shapes through: a scalar is the caller's mistake, not the model's."""
    with pytest.raises(ServingError) as caught:
        ask(served(learned.classifier()), tensor("X", np.array(1.0, "f4")))
    assert caught.value.kind is Kind.INVALID_INPUT


def test_a_mean_of_whole_numbers_may_be_one(served: Any) -> None:
    """A regressor that was fitted on whole numbers is declared to give fractions."""
    model = served(RadiusNeighborsRegressor(radius=3.0).fit(np.zeros((4, 2)), np.array([1, 1, 1, 1])))
    assert model.signatures[""].outputs[0].datatype is FP64
    model = served(DummyRegressor(strategy="constant", constant=3).fit(X, Y))
    assert model.signatures[""].outputs[0].datatype is FP64
    assert ask(model, tensor("X", CENTRES))["predict"].array.tolist() == [3.0, 3.0, 3.0]


def test_pickles_need_trust(tmp_path: Path) -> None:
    """Without --trust-pickle a pickle is not even opened; the error says why and what to do."""
    for name, data in {
        "m.pkl": learned.pickle_of(Trap()),
        "m.pickle": learned.pickle_of(Trap()),
        "m.joblib": learned.joblib_of(Trap()),
    }.items():
        for arguments in ({}, {"trust_pickle": False}, {"trust_pickle": "false"}):
            error = refusal(learned.write(tmp_path / name, data), **arguments)
            assert error.kind is Kind.UNSUPPORTED
            assert "--trust-pickle" in error.message
            assert "runs whatever code" in error.message
    assert not Trap.sprung


class Trap:
    """Notices when it is unpickled."""

    sprung = False

    def __reduce__(self) -> Any:
        return (_spring, ())


def _spring() -> int:
    Trap.sprung = True
    return 0


def test_trusted_pickles(tmp_path: Path) -> None:
    """With trust they are served like any other, joblib's compressed form included."""
    import joblib

    path = tmp_path / "m.joblib"
    joblib.dump(learned.forest(), path, compress=3)
    model = load("sklearn", path, trust_pickle=True)
    assert ask(model, tensor("X", CENTRES))["predict"].array.tolist() == [0, 1, 2]
    model = load("sklearn", learned.write(tmp_path / "m.pickle", learned.pickle_of(learned.classifier())), trust_pickle="true")
    assert ask(model, tensor("X", CENTRES))["predict"].array.tolist() == [0, 1, 2]


def test_pickles_of_something_else(tmp_path: Path) -> None:
    """What is no model, or needs code that is not here, is said."""
    error = refusal(learned.write(tmp_path / "m.pkl", pickle.dumps({"a": 1})), trust_pickle=True)
    assert "holds dict, which has neither predict nor transform" in error.message
    error = refusal(learned.write(tmp_path / "m.pkl", pickle.dumps(LogisticRegression)), trust_pickle=True)
    assert "neither predict nor transform" in error.message
    error = refusal(learned.write(tmp_path / "m.pkl", b"cno_such_module\nModel\n."), trust_pickle=True)
    assert error.kind is Kind.UNSUPPORTED
    assert "needs code that is not installed here: ModuleNotFoundError: No module named 'no_such_module'" in error.message
    error = refusal(learned.write(tmp_path / "m.pkl", b"\x80\x04junk"), trust_pickle=True)
    assert error.kind is Kind.INVALID_INPUT
    assert "cannot be unpickled" in error.message


class Mine(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator of one's own, whose predict depends on `mode`."""

    def __init__(self, mode: str = "ok") -> None:
        self.mode = mode
        self.classes_ = np.array([0, 1])
        self.n_features_in_ = 2

    def predict(self, x: Any) -> Any:
        if self.mode == "crash":
            raise ZeroDivisionError("mine")
        if self.mode == "fraction" and x.any():
            return np.full(len(x), 0.5)
        return np.zeros(len(x), np.int32)


def test_estimators_of_ones_own(tmp_path: Path) -> None:
    """Anything with predict is served; what fails inside is the model's failure, and is not hidden."""
    one = np.ones((1, 2), np.float32)
    model = load("sklearn", learned.write(tmp_path / "m.pkl", pickle.dumps(Mine())), trust_pickle=True)
    assert model.signatures[""].outputs == (TensorSpec("predict", INT64, (-1,)),)
    assert ask(model, tensor("X", one))["predict"].array.tolist() == [0]
    model = load("sklearn", learned.write(tmp_path / "m.pkl", pickle.dumps(Mine("crash"))), trust_pickle=True)
    assert model.signatures[""].outputs == (TensorSpec("predict", INT64, None),)
    with pytest.raises(ZeroDivisionError):
        ask(model, tensor("X", one))
    model = load("sklearn", learned.write(tmp_path / "m.pkl", pickle.dumps(Mine("fraction"))), trust_pickle=True)
    with pytest.raises(RuntimeError, match="'predict' was INT64 when the model was loaded and is float64 now"):
        ask(model, tensor("X", one))


def test_skops_refuses_code_of_ones_own(tmp_path: Path) -> None:
    """Types that are not known to be safe are named, with what to do instead; nothing is loaded."""
    error = refusal(learned.write(tmp_path / "m.skops", learned.skops_of(Mine())))
    assert error.kind is Kind.UNSUPPORTED
    assert "test_estimators.Mine" in error.message
    assert "ONNX" in error.message
    assert "--trust-pickle" in error.message


def test_models_that_were_not_fitted(tmp_path: Path) -> None:
    """A model that cannot predict anything yet is refused when it is loaded."""
    for estimator in (LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        path = learned.write(tmp_path / "m.skops", learned.skops_of(estimator))
        with pytest.raises(ServingError, match="saved before it was fitted"):
            load("sklearn", path)


def test_models_of_dictionaries(served: Any) -> None:
    """An estimator whose input is no tensor is refused with its name."""
    vectorizer = make_pipeline(DictVectorizer(), LogisticRegression()).fit([{"a": 1}, {"b": 2}], [0, 1])
    with pytest.raises(ServingError, match="starts with DictVectorizer") as caught:
        served(vectorizer)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_other_versions_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pickle of another version of scikit-learn is served, with a warning in the log."""
    state = LogisticRegression().fit(X, Y).__getstate__()
    state["_sklearn_version"] = "0.0.1"
    path = learned.write(tmp_path / "m.pkl", pickle.dumps(Dressed(state)))
    model = load("sklearn", path, trust_pickle=True)
    assert "while model 'm' was loaded: InconsistentVersionWarning" in caplog.text
    assert "0.0.1" in caplog.text
    assert ask(model, tensor("X", CENTRES))["predict"].array.tolist() == [0, 1, 2]


class Dressed:
    """Unpickles as a logistic regression with a state of one's choice."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return (LogisticRegression, (), self.state)


def test_declared_signature(served: Any) -> None:
    """A configuration may fix the datatype and hide outputs; what is hidden is not computed."""
    declared = Signature(inputs=(TensorSpec("X", FP32, (-1, 4)),), outputs=(TensorSpec("predict_proba", FP64, (-1, 3)),), batch=True)
    model = served(learned.classifier(), declared)
    assert model.signatures[""].inputs[0].datatype is FP32
    assert list(ask(model, tensor("X", CENTRES))) == ["predict_proba"]
    with pytest.raises(ServingError, match=r"with shape \[-1, 2\], but the model has \[-1, 3\]"):
        served(learned.classifier(), Signature(outputs=(TensorSpec("predict_proba", FP64, (-1, 2)),)))


def test_warmed_up_without_a_datatype(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The server's warm-up runs the model although its input takes any number."""
    path = learned.write(tmp_path / "m.skops", learned.skops_of(learned.classifier()))
    servable = LocalServable.load(ModelSpec("m", runtime="sklearn", artifact=str(path)))
    assert servable._cost.expect(4) < 100_000_000
    assert "refused" not in caplog.text


def test_warnings_of_predict_are_not_errors(served: Any) -> None:
    """Filters that turn warnings into errors are the tests' own; the runtime changes only the one about names."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = served(learned.classifier())
        assert model.predict(call(tensor("X", CENTRES)))
