"""Looks through a LightGBM text model before LightGBM does. Called by the LightGBM runtime.

LightGBM parses trees in parallel and aborts the whole process over a truncated file; and it follows node numbers without looking, so a wrong
one reads anywhere in memory. What is checked here is what its parser and its predictions rely on.
"""

import re

import numpy as np

from dragoman.core.tensors import Array

_PER_SPLIT = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
_OPTIONAL_PER_SPLIT = ("split_gain", "internal_value", "internal_weight", "internal_count")
_PER_LEAF = ("leaf_value",)
_OPTIONAL_PER_LEAF = ("leaf_weight", "leaf_count", "leaf_const", "num_features")
_LINE = re.compile(rb"[A-Za-z_]+")
_FLAGS = (b"tree", b"average_output")
_CATEGORICAL = 1
"""The bit of decision_type that makes a threshold the number of a set of categories."""


def check(data: bytes) -> None:
    """Raise ValueError, saying where, unless the model is complete and consistent."""
    start = data.find(b"tree_sizes=")
    if start < 0:
        raise ValueError("the list of tree sizes is missing")
    end = data.find(b"\n", start)
    header = _fields(data[: max(end, start)])
    sizes = _numbers(header, "tree_sizes", None).astype(np.int64).tolist()
    features = int(_numbers(header, "max_feature_idx", 1)[0]) + 1
    per_iteration = int(_numbers(header, "num_tree_per_iteration", 1)[0])
    if features < 1 or per_iteration < 1 or len(sizes) % per_iteration:
        raise ValueError("the header contradicts itself")
    for name in ("version", "num_class", "label_index"):
        if name not in header:
            raise ValueError(f"'{name}' is missing")
    for name in ("feature_names", "feature_infos"):
        if len(header.get(name, b"").split()) != features:
            raise ValueError(f"'{name}' does not name {features} features")
    position = end + 1
    while data[position : position + 1] in (b"\n", b"\r"):
        position += 1
    for index, size in enumerate(sizes):
        block = data[position : position + size]
        if size <= 0 or len(block) != size or not block.startswith(f"Tree={index}\n".encode()):
            raise ValueError(f"tree {index} of {len(sizes)} is not where it should be")
        try:
            _tree(_fields(block), features)
        except ValueError as error:
            raise ValueError(f"tree {index}: {error}") from None
        position += size
    if not data[position:].lstrip().startswith(b"end of trees"):
        raise ValueError("the end of the trees is missing")


def _fields(block: bytes) -> dict[str, bytes]:
    """Name -> value up to the first empty line, where LightGBM stops reading too."""
    fields: dict[str, bytes] = {}
    for line in block.split(b"\n"):
        if not line:
            break
        name, equals, value = line.partition(b"=")
        if not _LINE.fullmatch(name) or (not equals and name not in _FLAGS) or name.decode() in fields:
            raise ValueError("a line is no field, or repeats one")
        fields[name.decode()] = value
    return fields


def _numbers(fields: dict[str, bytes], name: str, count: int | None) -> Array:
    """The numbers of a field; `count` None is any number of them."""
    try:
        values = np.array(fields[name].split(), dtype=np.float64)
    except KeyError:
        raise ValueError(f"'{name}' is missing") from None
    except ValueError:
        raise ValueError(f"'{name}' holds something that is no number") from None
    if count is not None and len(values) != count:
        raise ValueError(f"'{name}' holds {len(values)} numbers, expected {count}")
    return values


def _tree(fields: dict[str, bytes], features: int) -> None:
    leaves = int(_numbers(fields, "num_leaves", 1)[0])
    if leaves < 1:
        raise ValueError("it has no leaves")
    splits = leaves - 1
    for name in _PER_LEAF:
        _numbers(fields, name, leaves)
    for names, count in ((_OPTIONAL_PER_SPLIT, splits), (_OPTIONAL_PER_LEAF, leaves)):
        for name in names:
            if fields.get(name, b"").strip():
                _numbers(fields, name, count)
    for name in ("shrinkage", "is_linear"):
        if name in fields:
            _numbers(fields, name, 1)
    if fields.get("is_linear", b"0").strip() != b"0":
        _linear(fields, leaves, features)
    sets = int(_numbers(fields, "num_cat", 1)[0])
    if sets:
        _categories(fields, sets)
    if not splits:
        return
    feature, threshold, kinds, left, right = (_numbers(fields, name, splits) for name in _PER_SPLIT)
    if np.any(feature < 0) or np.any(feature >= features):
        raise ValueError("a split reads a feature that does not exist")
    here = np.arange(splits)
    for child in (left, right):
        # a child that is a split comes after its parent, so no path is endless; a negative one is a leaf
        if np.any((child >= 0) & ((child <= here) | (child >= splits))) or np.any(child < -leaves):
            raise ValueError("a split leads outside of the tree")
    by_category = (kinds.astype(np.int64) & _CATEGORICAL) != 0
    if np.any(threshold[by_category] < 0) or np.any(threshold[by_category] >= sets):
        raise ValueError("a split reads categories that do not exist")


def _categories(fields: dict[str, bytes], sets: int) -> None:
    bounds = _numbers(fields, "cat_boundaries", sets + 1)
    words = len(_numbers(fields, "cat_threshold", None))
    if bounds[0] != 0 or np.any(np.diff(bounds) < 0) or bounds[-1] != words:
        raise ValueError("its categories contradict each other")


def _linear(fields: dict[str, bytes], leaves: int, features: int) -> None:
    _numbers(fields, "leaf_const", leaves)
    total = int(_numbers(fields, "num_features", leaves).sum())
    used = _numbers(fields, "leaf_features", total)
    _numbers(fields, "leaf_coeff", total)
    if np.any(used < 0) or np.any(used >= features):
        raise ValueError("a leaf reads a feature that does not exist")
