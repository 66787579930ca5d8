"""The look through XGBoost's models: what XGBoost writes passes, what would crash it does not."""

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.runtimes.xgboost_model import check
from tests.models import learned

KINDS = ["multi", "value", "linear", "dart", "category", "pair"]
Change = Callable[[Any], None]


def edited(kind: str, change: Change) -> bytes:
    """A model of which the document is changed; in JSON, because that can be written again."""
    document = json.loads(learned.xgboost_model(kind, "json"))
    change(document)
    return json.dumps(document).encode()


def tree_of(document: Any) -> Any:
    booster = document["learner"]["gradient_booster"]
    return booster.get("gbtree", booster)["model"]["trees"][0]


def put(name: str, index: int, value: object) -> Change:
    """Give one node of the first tree another value."""

    def change(document: Any) -> None:
        tree_of(document)[name][index] = value

    return change


def replace(name: str, value: object) -> Change:
    """Give a field of the first tree another value."""

    def change(document: Any) -> None:
        tree_of(document)[name] = value

    return change


def drop(*path: str) -> Change:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def setting(name: str, value: str) -> Change:
    def change(document: Any) -> None:
        tree_of(document)["tree_param"][name] = value

    return change


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_what_xgboost_writes_passes(kind: str, suffix: str) -> None:
    """Every sort of booster, in both formats; spaces in JSON do not matter."""
    check(learned.xgboost_model(kind, suffix))
    check(edited(kind, lambda document: None))
    check(json.dumps(json.loads(learned.xgboost_model(kind, "json")), indent=2).encode())


@pytest.mark.parametrize("kind", KINDS)
def test_both_formats_are_the_same_document(kind: str) -> None:
    """Every field that is checked in one format is found in the other: cutting either anywhere is seen."""
    for suffix in ("ubj", "json"):
        whole = learned.xgboost_model(kind, suffix)
        for length in range(0, len(whole), max(1, len(whole) // 50)):
            with pytest.raises(ValueError):
                check(whole[:length])


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("multi", put("left_children", 0, 1000), "tree 0: a split leads outside"),
        ("multi", put("right_children", 0, -7), "tree 0: a split leads outside"),
        ("multi", put("left_children", 0, 0), "not its parent's child|leads back up"),
        ("multi", put("parents", 0, 5), "root has a parent"),
        ("multi", put("parents", 1, 7), "not its parent's child"),
        ("multi", put("split_indices", 0, 4), "feature that does not exist"),
        ("multi", put("split_indices", 0, -1), "feature that does not exist"),
        ("multi", put("left_children", 0, 1.5), "no list of whole numbers"),
        ("multi", put("left_children", 0, "1"), "no list of whole numbers"),
        ("multi", replace("left_children", 5), "tree 0"),
        ("multi", replace("left_children", [[1, 2, 3]]), "tree 0"),
        ("multi", replace("split_conditions", []), "'split_conditions' holds 0 values"),
        ("multi", replace("base_weights", [1.0]), "'base_weights' holds 1 values"),
        ("multi", replace("sum_hessian", [1.0]), "'sum_hessian' holds 1 values"),
        ("multi", replace("id", 3), "its number is another"),
        ("multi", setting("num_nodes", "100"), "expected 100"),
        ("multi", setting("num_nodes", "0"), "contradicts itself"),
        ("multi", setting("num_nodes", "x"), "tree 0"),
        ("multi", setting("num_feature", "40"), "contradicts itself"),
        ("multi", setting("num_deleted", "99"), "contradicts itself"),
        ("multi", setting("size_leaf_vector", "9"), "expected"),
        ("pair", setting("size_leaf_vector", "3"), "points outside of its values"),
        ("pair", replace("leaf_weights", [0.5, 0.5]), "points outside of its values"),
        ("category", replace("categories_nodes", []), "holds 3 values, expected 0|for other splits"),
        ("category", replace("categories_segments", [100]), "do not exist|expected"),
        ("category", replace("categories", []), "do not exist"),
        ("category", replace("categories_sizes", [-1]), "do not exist|expected"),
        ("category", put("categories", 0, 1 << 40), "no small number"),
        ("category", put("categories", 0, -1), "no small number"),
        ("multi", put("split_type", 0, 1), "for other splits"),
        ("multi", drop("learner", "gradient_booster"), "'gradient_booster' is missing"),
        ("multi", drop("learner", "learner_model_param", "num_feature"), "'num_feature' is missing"),
        ("multi", drop("learner", "gradient_booster", "model", "trees"), "'trees' is missing"),
        ("multi", drop("version"), "'version' is missing"),
        ("dart", drop("learner", "gradient_booster", "weight_drop"), "'weight_drop' is missing"),
        ("linear", drop("learner", "gradient_booster", "model", "weights"), "'weights' is missing"),
    ],
)
def test_models_that_would_crash(kind: str, change: Change, says: str) -> None:
    """Each is refused, with the tree where it is one."""
    with pytest.raises(ValueError, match=says):
        check(edited(kind, change))


def model(document: Any) -> Any:
    return document["learner"]["gradient_booster"]["model"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: model(d)["trees"].pop(), "number of trees is wrong"),
        (lambda d: model(d)["tree_info"].pop(), "'tree_info' holds"),
        (lambda d: model(d)["tree_info"].__setitem__(0, 3), "class that does not exist"),
        (lambda d: model(d)["tree_info"].__setitem__(0, -1), "class that does not exist"),
        (lambda d: model(d)["iteration_indptr"].__setitem__(-1, 100), "iterations do not fit"),
        (lambda d: model(d)["iteration_indptr"].clear(), "iterations do not fit"),
        (lambda d: model(d)["iteration_indptr"].__setitem__(1, 7), "iterations do not fit"),
        (lambda d: d["learner"]["gradient_booster"].__setitem__("name", "gbforest"), "none of gbtree, dart and gblinear"),
        (lambda d: d["learner"].__setitem__("feature_names", ["a"]), "'feature_names' does not name 4 features"),
        (lambda d: d["learner"].__setitem__("feature_types", ["q"] * 5), "'feature_types' does not name 4 features"),
        (lambda d: d.__setitem__("version", [3, 2]), "version is none"),
        (lambda d: d.__setitem__("version", [3, 2, -1]), "version is none"),
        (lambda d: d.__setitem__("learner", []), "wrong kind"),
        (lambda d: d["learner"].__setitem__("learner_model_param", None), "wrong kind"),
    ],
)
def test_documents_that_contradict_themselves(change: Change, says: str) -> None:
    """What the trees are read by must be right itself."""
    with pytest.raises(ValueError, match=says):
        check(edited("multi", change))


def test_weights_of_other_boosters() -> None:
    """Linear weights are as many as features, and dart's as many as trees."""
    with pytest.raises(ValueError, match="not as many as its features"):
        check(edited("linear", lambda d: model(d)["weights"].pop()))
    with pytest.raises(ValueError, match="not as many as its trees"):
        check(edited("dart", lambda d: d["learner"]["gradient_booster"]["weight_drop"].append(1.0)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "does not begin with an object"),
        (b"[]", "does not begin with an object"),
        (b"{", "."),
        (b"{}", "'learner' is missing"),
        (b'{"learner":1,"learner":2}', "a key comes twice"),
        (b'{"a":' * 100_000, "wrong kind"),
        (b"{L" + bytes(7) + b"\x01aZ}", "'learner' is missing"),
        (b"{i\x01aZi\x01aZ}", "a key comes twice"),
        (b"{i\x01aZ}x", "something follows its end"),
        (b"{i\xffaZ}", "ends too early"),
        (b"{L\x7f" + b"\xff" * 7 + b"a", "ends too early"),
        (b"{i\x01a?}", "unknown type '\\?'"),
        (b"{i\x01a[$S#i\x01", "array is of the type 'S'"),
        (b"{i\x01a[$l#L\x7f" + b"\xff" * 7, "ends too early"),
        (b"{i\x01a[#L\x7f" + b"\xff" * 7, "ends too early"),
        (b"{i\x01aSS", "length is of the type 'S'"),
        (b"{i\x01a" * 100, "nested too deeply"),
        (b"{i\x01a" + b"[" * 100, "nested too deeply"),
    ],
)
def test_bytes_that_are_no_document(data: bytes, says: str) -> None:
    """Neither JSON nor UBJSON may end early, repeat a key, claim more than there is, or go too deep."""
    with pytest.raises(ValueError, match=says):
        check(data)


def test_every_type_of_ubjson() -> None:
    """All types of the format are read, although XGBoost uses few of them."""
    values = [
        b"i\x80",
        b"U\xff",
        b"I" + struct.pack(">h", -300),
        b"l" + struct.pack(">i", 70_000),
        b"L" + struct.pack(">q", 1 << 40),
        b"d" + struct.pack(">f", 0.5),
        b"D" + struct.pack(">d", 0.25),
        b"Si\x02ok",
        b"T",
        b"F",
        b"Z",
        b"[i\x01i\x02]",
        b"[#i\x02TF",
        b"[$U#i\x03abc",
        b"{}",
    ]
    whole = b"{" + b"".join(b"i\x01" + bytes([97 + index]) + value for index, value in enumerate(values)) + b"}"
    with pytest.raises(ValueError, match="'learner' is missing"):
        check(whole)


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes(data: bytes) -> None:
    """No bytes at all make it raise anything else."""
    for start in (b"", b"{", b"{i\x07learner", b"{L" + bytes(7) + b"\x07learner{"):
        with pytest.raises(ValueError):
            check(start + data)
