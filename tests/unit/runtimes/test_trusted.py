"""Which types a skops file may bring, and what is checked of those that compiled code trusts blindly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest, chi2, f_classif
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, Matern, WhiteKernel
from sklearn.linear_model import LogisticRegression, SGDClassifier, TweedieRegressor
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier, OutputCodeClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, SplineTransformer, StandardScaler
from sklearn.random_projection import SparseRandomProjection
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from dragoman.core.errors import Kind, ServingError
from dragoman.runtimes.trusted import TRUSTED, verify
from tests.models import learned
from tests.models.calls import ask, load, tensor

X, Y = learned.flowers()
X64 = X.astype(np.float64)
CATEGORIES = np.c_[Y, X64[:, :2]]

ESTIMATORS: dict[str, Any] = {
    "tree": DecisionTreeClassifier(),
    "forest": RandomForestClassifier(n_estimators=3),
    "extra trees": ExtraTreesRegressor(n_estimators=3),
    "boosting": GradientBoostingClassifier(n_estimators=3),
    "histogram": HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=3),
    "histogram of poisson": HistGradientBoostingRegressor(loss="poisson", max_iter=3),
    "ada": AdaBoostClassifier(n_estimators=3),
    "bagging": BaggingClassifier(n_estimators=3, max_features=2),
    "isolation": IsolationForest(n_estimators=3),
    "isolation of some features": IsolationForest(n_estimators=3, max_features=2),
    "neighbours": KNeighborsClassifier(algorithm="kd_tree"),
    "balls": KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"),
    "neighbours at a power": KNeighborsRegressor(algorithm="kd_tree", p=3),
    "support vectors": SVC(probability=False),
    "gradient": SGDClassifier(loss="modified_huber"),
    "tweedie": TweedieRegressor(power=1.5),
    "network": MLPClassifier((4,), max_iter=20, random_state=0),
    "process": GaussianProcessRegressor(RBF() + WhiteKernel()),
    "process classifier": GaussianProcessClassifier(Matern() * DotProduct()),
    "calibrated": CalibratedClassifierCV(LinearSVC(), cv=2),
    "isotonic": CalibratedClassifierCV(LinearSVC(), method="isotonic", cv=2),
    "search": GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=StratifiedKFold(2), scoring="accuracy"),
    "votes": VotingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier())]),
    "stack": StackingClassifier([("a", LogisticRegression()), ("b", KNeighborsClassifier())], cv=2),
    "one against the rest": OneVsRestClassifier(LogisticRegression()),
    "codes": OutputCodeClassifier(LogisticRegression(), random_state=0),
    "chosen features": make_pipeline(SelectKBest(f_classif, k=2), LogisticRegression()),
    "counted features": make_pipeline(SelectKBest(chi2, k=2), LogisticRegression()),
    "splines": make_pipeline(SplineTransformer(), LogisticRegression()),
    "bins": make_pipeline(KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"), LogisticRegression()),
    "projection": make_pipeline(SparseRandomProjection(2, random_state=0), LogisticRegression()),
    "scaled": make_pipeline(StandardScaler(), LogisticRegression()),
    "clusters": KMeans(3, random_state=0),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_of_scikit_learn_are_served(name: str, tmp_path: Path) -> None:
    """Whatever scikit-learn's own estimators are made of is admitted, and they answer as before."""
    with learned.quiet():
        estimator = ESTIMATORS[name].fit(np.abs(X64), Y)
    model = load("sklearn", learned.write(tmp_path / "m.skops", learned.skops_of(estimator)))
    answer = ask(model, tensor("X", np.abs(X64)), outputs=("predict",))["predict"]
    with learned.quiet():
        np.testing.assert_allclose(answer.array, estimator.predict(np.abs(X64)))


def test_categories_are_served(tmp_path: Path) -> None:
    """Histogram trees with categorical features too."""
    estimator = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=3, categorical_features=[0]).fit(CATEGORIES, Y)
    model = load("sklearn", learned.write(tmp_path / "m.skops", learned.skops_of(estimator)))
    assert ask(model, tensor("X", CATEGORIES))["predict"].array.tolist() == Y.tolist()


def test_what_is_admitted_is_harmless() -> None:
    """No whole modules, no builtins, nothing that runs, opens or imports things."""
    assert not [name for name in TRUSTED if name.endswith(".") or "*" in name]
    assert not [
        name for name in TRUSTED if name.startswith(("builtins.", "os.", "sys.", "subprocess.", "pickle.", "joblib.", "importlib."))
    ]
    for word in ("eval", "exec", "load", "open", "fetch", "import", "memmap", "FunctionTransformer"):
        assert not [name for name in TRUSTED if word in name.rpartition(".")[2].split("_")]


def first_tree(estimator: Any) -> Any:
    return estimator.tree_


def rebuilt(tree: Any, **changes: Any) -> Any:
    """A compiled tree with other nodes: its state is what a file brings."""
    state = tree.__getstate__()
    nodes = state["nodes"].copy()
    for name, (index, value) in changes.items():
        nodes[name][index] = value
    state["nodes"] = nodes
    fresh = type(tree)(tree.n_features, np.asarray(tree.n_classes, dtype=np.intp), tree.n_outputs)
    fresh.__setstate__(state)
    return fresh


def grown() -> DecisionTreeClassifier:
    return DecisionTreeClassifier(random_state=0).fit(X64, Y)


def test_honest_trees_pass() -> None:
    """What scikit-learn grows is never refused."""
    verify(grown())
    verify(make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=3)).fit(X64, Y))
    verify(DecisionTreeClassifier(max_depth=1).fit(X64, np.zeros(len(X64))))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"left_child": (0, 1000)}, "leads outside"),
        ({"right_child": (0, 1000)}, "leads outside"),
        ({"left_child": (0, 0)}, "leads outside"),
        ({"left_child": (0, -5)}, "leads outside"),
        ({"right_child": (0, -1)}, "one child"),
        ({"feature": (0, 4)}, "does not exist"),
        ({"feature": (0, -7)}, "does not exist"),
        ({"feature": (0, 1 << 40)}, "does not exist"),
    ],
)
def test_trees_that_lead_outside(changes: dict[str, Any], says: str) -> None:
    """A node that points out of the tree, to itself, or at a feature that is not there would read foreign memory."""
    estimator = grown()
    estimator.tree_ = rebuilt(estimator.tree_, **changes)
    with pytest.raises(ValueError, match=says):
        verify(estimator)
    with pytest.raises(ValueError, match=says):
        verify({"deep": [make_pipeline(StandardScaler(), estimator)]})


def test_trees_of_another_width() -> None:
    """A tree that was grown for more features than its estimator checks would read beyond each row."""
    wide = DecisionTreeClassifier().fit(np.c_[np.zeros((len(X64), 10)), X64], Y)
    wide.n_features_in_ = 4
    with pytest.raises(ValueError, match="another number of features"):
        verify(wide)
    for ensemble in (RandomForestClassifier(n_estimators=2), GradientBoostingClassifier(n_estimators=2), IsolationForest(n_estimators=2)):
        fitted = ensemble.fit(np.c_[np.zeros((len(X64), 10)), X64], Y)
        verify(fitted)
        fitted.n_features_in_ = fitted._max_features = 4
        with pytest.raises(ValueError, match="another number of features"):
            verify(fitted)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("left", 1000, "leads outside"),
        ("right", 1 << 31, "leads outside"),
        ("left", 0, "leads outside"),
        ("feature_idx", 3, "does not exist"),
        ("feature_idx", -1, "does not exist"),
    ],
)
def test_histogram_trees_that_lead_outside(field: str, value: int, says: str) -> None:
    """The same for the trees of histogram boosting."""
    estimator = HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=3).fit(CATEGORIES, Y)
    verify(estimator)
    estimator._predictors[0][0].nodes[field][0] = value
    with pytest.raises(ValueError, match=says):
        verify(estimator)


def test_categories_that_do_not_exist() -> None:
    """A split by category needs a categorical feature and a set of categories."""

    def fitted() -> Any:
        return HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=3, categorical_features=[0]).fit(CATEGORIES, Y)

    estimator = fitted()
    nodes = estimator._predictors[0][0].nodes
    split = int(np.flatnonzero(nodes["is_categorical"])[0])
    nodes["bitset_idx"][split] = 500
    with pytest.raises(ValueError, match="reads categories outside"):
        verify(estimator)
    estimator = fitted()
    estimator._predictors[0][0].nodes["feature_idx"][split] = 1
    with pytest.raises(ValueError, match="takes a number for a category"):
        verify(estimator)
    estimator = fitted()
    estimator.n_features_in_ = 2
    with pytest.raises(ValueError, match="for another number of features"):
        verify(estimator)
    estimator = fitted()
    estimator._predictors[0][0].nodes = estimator._predictors[0][0].nodes[:0]
    with pytest.raises(ValueError, match="is empty"):
        verify(estimator)


@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree"])
@pytest.mark.parametrize(
    ("part", "index", "value", "says"),
    [
        (1, 0, 1_000_000, "points outside"),
        (1, 0, -1, "points outside"),
        (2, ("idx_end", 0), 1_000_000, "points outside"),
        (2, ("idx_start", 0), -5, "points outside"),
        (2, ("is_leaf", -1), 0, "leads outside"),
    ],
)
def test_neighbour_trees_that_point_outside(algorithm: str, part: int, index: Any, value: int, says: str) -> None:
    """The same for the trees that neighbours are found with."""
    estimator = KNeighborsClassifier(algorithm=algorithm, leaf_size=10).fit(X64, Y)
    verify(estimator)
    state = list(estimator._tree.__getstate__())
    state[part] = state[part].copy()
    if isinstance(index, tuple):
        state[part][index[0]][index[1]] = value
    else:
        state[part][index] = value
    kind: Any = type(estimator._tree)
    tree = kind.__new__(kind)
    tree.__setstate__(tuple(state))
    estimator._tree = tree
    with pytest.raises(ValueError, match=says):
        verify(estimator)


def test_sparse_matrices_that_point_outside() -> None:
    """Column numbers beyond the matrix are found, wherever it lies."""
    matrix = sparse.csr_matrix(np.eye(3))
    verify([{"a": matrix}])
    matrix.indices[0] = 1000
    with pytest.raises(ValueError, match="indices must be"):
        verify([{"a": matrix}])


def test_splines_that_do_not_fit() -> None:
    """A spline with fewer coefficients than its knots ask for is found."""
    estimator = SplineTransformer().fit(X64)
    verify(estimator)
    estimator.bsplines_[0].c = estimator.bsplines_[0].c[:2]
    with pytest.raises(ValueError, match="coefficients"):
        verify(estimator)


def test_any_object_can_be_looked_through() -> None:
    """Cycles, empty things and deep nesting end; endless ones are refused."""
    knot: list[Any] = []
    knot.append(knot)
    verify(knot)
    verify(None)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    verify(deep)
    with pytest.raises(ValueError, match="more than 1000000 objects"):
        verify([[] for _ in range(1_000_001)])


def test_a_file_with_a_bad_tree_is_refused(tmp_path: Path) -> None:
    """Through the front door: the file is refused, and nothing crashes."""
    estimator = grown()
    estimator.tree_ = rebuilt(estimator.tree_, left_child=(0, 100_000_000))
    with pytest.raises(ServingError, match="a node of a decision tree leads outside of the tree") as caught:
        load("sklearn", learned.write(tmp_path / "m.skops", learned.skops_of(estimator)))
    assert caught.value.kind is Kind.INVALID_INPUT
