"""Looks through an XGBoost model before XGBoost does. Called by the XGBoost runtime.

XGBoost ends the whole process over a UBJSON file that is cut short, and follows node numbers of either format without looking. What is checked
here is what its parser and its predictions rely on.
"""

import json
from typing import Any

import numpy as np

from dragoman.core.tensors import Array

_NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
_SIZES = {marker: np.dtype(code).itemsize for marker, code in _NUMBERS.items()}
_CONSTANTS = {"T": True, "F": False, "Z": None}
_DEEPEST = 64
_PER_NODE = ("left_children", "right_children", "parents", "split_indices", "split_conditions", "default_left")
_NO_PARENT = (-1, (1 << 31) - 1)
_OPTIONAL_PER_NODE = ("split_type", "sum_hessian", "loss_changes")


def check(data: bytes) -> None:
    """Raise ValueError, saying where, unless the model is complete and consistent."""
    if data.lstrip()[:1] != b"{":
        raise ValueError("it does not begin with an object")
    try:
        document = json.loads(data, object_pairs_hook=_once) if _is_json(data) else _Ubjson(data).document()
        learner = document["learner"]
        booster = learner["gradient_booster"]
        features = int(learner["learner_model_param"]["num_feature"])
        groups = max(int(learner["learner_model_param"]["num_class"]), int(learner["learner_model_param"].get("num_target", 1)), 1)
        for name in ("feature_names", "feature_types"):
            if len(learner.get(name, ())) not in (0, features):
                raise ValueError(f"'{name}' does not name {features} features")
        _version(document["version"])
        if booster["name"] == "gblinear":
            if len(booster["model"]["weights"]) != (features + 1) * groups:
                raise ValueError("its weights are not as many as its features")
        elif booster["name"] == "dart":
            _trees(booster["gbtree"]["model"], features, groups)
            if len(booster["weight_drop"]) != len(booster["gbtree"]["model"]["trees"]):
                raise ValueError("its weights are not as many as its trees")
        elif booster["name"] == "gbtree":
            _trees(booster["model"], features, groups)
        else:
            raise ValueError("its booster is none of gbtree, dart and gblinear")
    except KeyError as error:
        raise ValueError(f"{str(error)[:100]} is missing") from None
    except (TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"a value is of the wrong kind: {str(error)[:200]}") from None


def _is_json(data: bytes) -> bool:
    # the byte after the brace: UBJSON says the type of the first key's length there
    return data.lstrip()[1:2] not in (b"i", b"U", b"I", b"l", b"L")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key comes twice")
    return document


def _version(version: Any) -> None:
    numbers = np.asarray(version, np.int64)
    if numbers.shape != (3,) or numbers.min() < 0 or numbers.max() > 10_000:
        raise ValueError("its version is none")


def _trees(model: dict[str, Any], features: int, groups: int) -> None:
    trees = model["trees"]
    if int(model["gbtree_model_param"]["num_trees"]) != len(trees):
        raise ValueError("its number of trees is wrong")
    group = _whole(model["tree_info"], "tree_info", len(trees))
    if np.any(group < 0) or np.any(group >= groups):
        raise ValueError("a tree is for a class that does not exist")
    if "iteration_indptr" in model:
        steps = _whole(model["iteration_indptr"], "iteration_indptr", None)
        if not len(steps) or steps[0] != 0 or steps[-1] != len(trees) or np.any(np.diff(steps) < 0):
            raise ValueError("its iterations do not fit its trees")
    for index, tree in enumerate(trees):
        try:
            if int(tree["id"]) != index:
                raise ValueError("its number is another")  # XGBoost puts it in that place
            _tree(tree, features, groups)
        except KeyError as error:
            raise ValueError(f"tree {index}: {str(error)[:100]} is missing") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"tree {index}: {str(error)[:200]}") from None


def _tree(tree: dict[str, Any], features: int, groups: int) -> None:
    settings = tree["tree_param"]
    count = int(settings["num_nodes"])
    targets = int(settings.get("size_leaf_vector", 1))
    if count < 1 or not 0 <= int(settings.get("num_deleted", 0)) < count or int(settings["num_feature"]) > features:
        raise ValueError("it contradicts itself")
    for name in _PER_NODE:
        if len(tree[name]) != count:
            raise ValueError(f"'{name}' holds {len(tree[name])} values, expected {count}")
    for name in _OPTIONAL_PER_NODE:
        if name in tree and len(tree[name]) not in (0, count):
            raise ValueError(f"'{name}' holds {len(tree[name])} values, expected {count}")
    left, right, parents, split = (_whole(tree[name], name, count) for name in _PER_NODE[:4])
    inner = left != -1
    if np.any(split[inner] < 0) or np.any(split[inner] >= features):
        raise ValueError("a split reads a feature that does not exist")
    for child in (left[inner], right[inner]):
        if np.any(child < 0) or np.any(child >= count):
            raise ValueError("a split leads outside of the tree")
        if np.any(parents[child] != np.flatnonzero(inner)):
            raise ValueError("a node is not its parent's child")
    if parents[0] not in _NO_PARENT:
        raise ValueError("its root has a parent")
    _reach(left, right, inner, count)
    if targets > 1 and "leaf_weights" in tree:
        values = len(tree["leaf_weights"])
        if targets != groups or values % targets or np.any(right[~inner] < 0) or np.any(right[~inner] >= values // targets):
            raise ValueError("a leaf points outside of its values")
    elif len(tree["base_weights"]) != count * max(targets, 1) or targets not in (0, 1, groups):
        raise ValueError(f"'base_weights' holds {len(tree['base_weights'])} values, expected {count * max(targets, 1)}")
    _categories(tree, count, inner)


def _reach(left: Array, right: Array, inner: Array, count: int) -> None:
    """Walk down from the root: a node that is met twice would make a path endless."""
    met = 1
    level = np.zeros(1, np.int64)
    while len(level := level[inner[level]]):
        level = np.concatenate((left[level], right[level]))
        met += len(level)
        if met > count:
            raise ValueError("a split leads back up the tree")


def _categories(tree: dict[str, Any], count: int, inner: Array) -> None:
    kinds = _whole(tree.get("split_type", ()), "split_type", None)
    by_category = set(np.flatnonzero(kinds == 1).tolist()) if len(kinds) else set()
    nodes = _whole(tree.get("categories_nodes", ()), "categories_nodes", None)
    starts = _whole(tree.get("categories_segments", ()), "categories_segments", len(nodes))
    sizes = _whole(tree.get("categories_sizes", ()), "categories_sizes", len(nodes))
    values = _whole(tree.get("categories", ()), "categories", None)
    if set(nodes.tolist()) != by_category or np.any(np.diff(nodes) <= 0) or not all(inner[node] for node in by_category):
        raise ValueError("its categories are for other splits")
    if np.any(starts < 0) or np.any(sizes < 0) or np.any(starts + sizes > len(values)):
        raise ValueError("a split reads categories that do not exist")
    if np.any(values < 0) or np.any(values > 1 << 24):
        raise ValueError("a category is no small number")


def _whole(values: Any, name: str, count: int | None) -> Array:
    array = np.asarray(values)
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "iub"):
        raise ValueError(f"'{name}' is no list of whole numbers")
    if count is not None and len(array) != count:
        raise ValueError(f"'{name}' holds {len(array)} values, expected {count}")
    return array.astype(np.int64)


class _Ubjson:
    """UBJSON as XGBoost writes it: big-endian, lengths before texts, arrays of one type as one block."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def document(self) -> Any:
        value = self._value(self._marker(), 0)
        if self._position != len(self._data):
            raise ValueError("something follows its end")
        return value

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if count < 0 or end > len(self._data):
            raise ValueError("it ends too early")
        part = self._data[self._position : end]
        self._position = end
        return part

    def _marker(self) -> str:
        return self._take(1).decode("latin-1")

    def _length(self) -> int:
        marker = self._marker()
        if marker not in "iUIlL":
            raise ValueError(f"a length is of the type {marker!r}")
        return int(np.frombuffer(self._take(_SIZES[marker]), _NUMBERS[marker])[0])

    def _value(self, marker: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if marker == "{":
            return self._object(depth)
        if marker == "[":
            return self._array(depth)
        if marker == "S":
            return self._take(self._length()).decode()
        if marker in _SIZES:
            return np.frombuffer(self._take(_SIZES[marker]), _NUMBERS[marker])[0].item()
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        raise ValueError(f"a value is of the unknown type {marker!r}")

    def _object(self, depth: int) -> dict[str, Any]:
        pairs = []
        while self._data[self._position : self._position + 1] != b"}":
            key = self._take(self._length()).decode()
            pairs.append((key, self._value(self._marker(), depth + 1)))
        self._position += 1
        return _once(pairs)

    def _array(self, depth: int) -> Any:
        marker = self._marker()
        if marker == "$":
            kind = self._marker()
            if kind not in _SIZES or self._marker() != "#":
                raise ValueError(f"an array is of the type {kind!r}")
            return np.frombuffer(self._take(self._length() * _SIZES[kind]), _NUMBERS[kind])
        if marker == "#":
            count = self._length()
            if not 0 <= count <= len(self._data):
                raise ValueError("it ends too early")
            return [self._value(self._marker(), depth + 1) for _ in range(count)]
        values = []
        while marker != "]":
            values.append(self._value(marker, depth + 1))
            marker = self._marker()
        return values
