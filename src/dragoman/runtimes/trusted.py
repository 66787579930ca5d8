"""Which types a .skops file may bring, and checks of those that scikit-learn trusts blindly. Called by the scikit-learn runtime.

skops admits public estimators by itself and asks about the rest. Types that only hold numbers and settings are admitted here by name. Those
with indexes that compiled code follows without looking (trees, sparse matrices) are admitted too, but what they hold is checked.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_ADMITTED: Mapping[str, str] = {
    "functools": "partial",
    "numpy": "dtype mean",
    "scipy._lib.array_api_compat.numpy._aliases": "asarray",
    "scipy.interpolate._bsplines": "BSpline",
    "scipy.sparse._csr": "csr_matrix csr_array",
    "scipy.sparse._csc": "csc_matrix csc_array",
    "sklearn._loss.link": "HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit",
    "sklearn._loss.loss": (
        "AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss HalfPoissonLoss HalfSquaredError HalfTweedieLoss "
        "HalfTweedieLossIdentity HuberLoss PinballLoss"
    ),
    "sklearn.calibration": "_CalibratedClassifier _SigmoidCalibration",
    "sklearn.cluster._bisect_k_means": "_BisectingTree",
    "sklearn.cluster._kmeans": "_kmeans_single_elkan _kmeans_single_lloyd",
    "sklearn.ensemble._gb_losses": "BinomialDeviance LeastSquaresError MultinomialDeviance",
    "sklearn.ensemble._hist_gradient_boosting.binning": "_BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "sklearn.feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
    "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_oneway f_regression r_regression",
    "sklearn.gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels": (
        "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Hyperparameter Matern PairwiseKernel Product RBF "
        "RationalQuadratic Sum WhiteKernel"
    ),
    "sklearn.linear_model._sgd_fast": (
        "EpsilonInsensitive Hinge Huber Log ModifiedHuber SquaredEpsilonInsensitive SquaredHinge SquaredLoss"
    ),
    "sklearn.metrics._classification": "accuracy_score balanced_accuracy_score f1_score log_loss precision_score recall_score",
    "sklearn.metrics._dist_metrics": " ".join(
        f"{name}Distance{bits}"
        for name in ("BrayCurtis", "Canberra", "Chebyshev", "Euclidean", "Hamming", "Jaccard", "Manhattan", "Minkowski", "SEuclidean")
        for bits in ("", "32", "64")
    ),
    "sklearn.metrics._ranking": "average_precision_score roc_auc_score",
    "sklearn.metrics._regression": "mean_absolute_error mean_squared_error r2_score root_mean_squared_error",
    "sklearn.metrics._scorer": "_CurveScorer _PassthroughScorer _PredictScorer _ProbaScorer _Scorer _ThresholdScorer",
    "sklearn.model_selection._search_successive_halving": "HalvingGridSearchCV HalvingRandomSearchCV",
    "sklearn.model_selection._split": "GroupKFold KFold RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedKFold "
    "StratifiedShuffleSplit TimeSeriesSplit",
    "sklearn.multiclass": "_ConstantPredictor",
    "sklearn.neighbors._ball_tree": "BallTree BallTree32 BallTree64",
    "sklearn.neighbors._kd_tree": "KDTree KDTree32 KDTree64",
    "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
    "sklearn.tree._tree": "Tree",
    "sklearn.utils._bunch": "Bunch",
    "sklearn.utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
    "sklearn.utils.validation": "check_array",
}
TRUSTED: frozenset[str] = frozenset(f"{module}.{name}" for module, names in _ADMITTED.items() for name in names.split())
"""Full names, as skops spells them."""

_MOST_OBJECTS = 1_000_000


def verify(root: object) -> None:
    """Raise ValueError when an object that was loaded holds a tree or matrix whose indexes lead outside of it."""
    from scipy import interpolate, sparse
    from sklearn.ensemble import BaseEnsemble, IsolationForest
    from sklearn.tree import BaseDecisionTree

    for item in _objects(root):
        if isinstance(item, BaseDecisionTree):
            _decision_tree(item)
        elif isinstance(item, BaseEnsemble):
            # These hand their input to their trees unseen; others let each member look at it.
            if isinstance(item, IsolationForest) or hasattr(item, "apply"):
                _forest(item)
        elif type(item).__name__.startswith("HistGradientBoosting"):
            _histogram_trees(item)
        elif type(item).__name__ in ("KDTree", "KDTree32", "KDTree64", "BallTree", "BallTree32", "BallTree64"):
            _neighbour_tree(item)
        elif isinstance(item, interpolate.BSpline):
            interpolate.BSpline(item.t, item.c, item.k)  # its constructor looks; loading goes past it
        elif sparse.issparse(item) and hasattr(item, "check_format"):
            item.check_format(full_check=True)


def _objects(root: object) -> Iterator[Any]:
    """Everything reachable through containers and attributes, once."""
    seen: dict[int, object] = {}
    stack: list[object] = [root]
    while stack:
        item = stack.pop()
        if item is None or isinstance(item, str | bytes | int | float | type) or id(item) in seen:
            continue
        seen[id(item)] = item
        if len(seen) > _MOST_OBJECTS:
            raise ValueError(f"it holds more than {_MOST_OBJECTS} objects")
        yield item
        if isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set):
            stack += item
        elif isinstance(item, np.ndarray):
            if item.dtype.hasobject:
                stack += item.ravel().tolist()
        elif hasattr(item, "__dict__"):
            stack.append(vars(item))


def _require(condition: object, what: str) -> None:
    if not np.all(np.asarray(condition)):
        raise ValueError(what)


def _decision_tree(estimator: Any) -> None:
    tree = getattr(estimator, "tree_", None)
    if tree is None:
        return
    _require(tree.n_features == estimator.n_features_in_, "a decision tree was grown for another number of features")
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = left != -1
    here = np.arange(tree.node_count)[inner]
    _require(tree.node_count > 0, "a decision tree is empty")
    _require((right != -1) == inner, "a node of a decision tree has one child")
    for child in (left[inner], right[inner]):
        # children come after their parent, so no path is endless
        _require((child > here) & (child < tree.node_count), "a node of a decision tree leads outside of the tree")
    _require((feature[inner] >= 0) & (feature[inner] < tree.n_features), "a node of a decision tree reads a feature that does not exist")


def _forest(ensemble: Any) -> None:
    members = np.asarray(getattr(ensemble, "estimators_", []), dtype=object).ravel()
    width = ensemble.n_features_in_
    subsets = getattr(ensemble, "estimators_features_", None)
    if subsets is None or ensemble._max_features == width:  # noqa: SLF001 # then its trees get whole rows, whatever the subsets say
        subsets = [range(width)] * len(members)
    for member, subset in zip(members, subsets, strict=True):
        _require(member.tree_.n_features == len(subset), "a tree of a forest was grown for another number of features")


def _histogram_trees(estimator: Any) -> None:
    width = estimator.n_features_in_
    categorical = np.zeros(width, bool)
    mapper = getattr(estimator, "_bin_mapper", None)
    known = getattr(mapper, "is_categorical_", None)
    if known is not None:
        _require(len(known) == width, "the categories of a histogram tree are for another number of features")
        categorical = np.asarray(known, bool)
    for predictors in getattr(estimator, "_predictors", []):
        for predictor in predictors:
            nodes = predictor.nodes
            _require(len(nodes) > 0, "a histogram tree is empty")
            split = nodes["is_leaf"] == 0
            here = np.arange(len(nodes))[split]
            for child in (nodes["left"][split].astype(np.int64), nodes["right"][split].astype(np.int64)):
                _require((child > here) & (child < len(nodes)), "a node of a histogram tree leads outside of the tree")
            feature = nodes["feature_idx"][split]
            _require((feature >= 0) & (feature < width), "a node of a histogram tree reads a feature that does not exist")
            by_category = split & (nodes["is_categorical"] != 0)
            _require(categorical[nodes["feature_idx"][by_category]], "a node of a histogram tree takes a number for a category")
            _require(
                nodes["bitset_idx"][by_category] < len(predictor.raw_left_cat_bitsets),
                "a node of a histogram tree reads categories outside",
            )


def _neighbour_tree(tree: Any) -> None:
    data, order, nodes, bounds, _leaf_size, _n_levels, count, *_ = tree.__getstate__()
    samples, width = data.shape
    _require(len(order) == samples and len(nodes) == count == bounds.shape[1], "a neighbour tree does not fit its data")
    _require(bounds.shape[2] == width, "a neighbour tree was grown for another number of features")
    _require((order >= 0) & (order < samples), "a neighbour tree points outside of its data")
    _require((nodes["idx_start"] >= 0) & (nodes["idx_start"] <= nodes["idx_end"]), "a neighbour tree points outside of its data")
    _require(nodes["idx_end"] <= samples, "a neighbour tree points outside of its data")
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    _require(2 * inner + 2 < count, "a node of a neighbour tree leads outside of the tree")
