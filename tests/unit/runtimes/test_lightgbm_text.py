"""The look through LightGBM's text: what LightGBM writes passes, what would crash it does not."""

import random
import re
from collections.abc import Callable

import pytest

from dragoman.runtimes.lightgbm_text import check
from tests.models import learned

KINDS = ["multi", "value", "category", "linear", "stump"]


def edited(kind: str, change: Callable[[str], str], tree: int = 0) -> bytes:
    """A model with one tree changed; the list of sizes is brought up to date, so that only the change itself is wrong."""
    text = learned.lightgbm_model(kind).decode()
    head, _, rest = text.partition("\n\n")
    body, end, tail = rest.partition("end of trees")
    blocks = re.split(r"(?=^Tree=)", body, flags=re.MULTILINE)[1:]
    blocks[tree] = change(blocks[tree])
    sizes = " ".join(str(len(block)) for block in blocks)
    head = re.sub(r"tree_sizes=.*", f"tree_sizes={sizes}", head)
    return (head + "\n\n" + "".join(blocks) + end + tail).encode()


def field(name: str, value: str) -> Callable[[str], str]:
    """Give a field of a tree another value."""
    return lambda block: re.sub(rf"^{name}=.*", f"{name}={value}", block, flags=re.MULTILINE)


def without(name: str) -> Callable[[str], str]:
    return lambda block: re.sub(rf"^{name}=.*\n", "", block, flags=re.MULTILINE)


def first(name: str, value: str) -> Callable[[str], str]:
    """Give the first number of a field another value."""
    return lambda block: re.sub(rf"^{name}=\S+", f"{name}={value}", block, flags=re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lightgbm_writes_passes(kind: str) -> None:
    """Every sort of tree, and the same with nothing really changed."""
    check(learned.lightgbm_model(kind))
    check(edited(kind, lambda block: block))


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("multi", first("left_child", "1000"), "leads outside"),
        ("multi", first("right_child", "-1000"), "leads outside"),
        ("multi", first("left_child", "0"), "leads outside"),
        ("multi", first("split_feature", "4"), "feature that does not exist"),
        ("multi", first("split_feature", "-1"), "feature that does not exist"),
        ("multi", first("threshold", "x"), "'threshold' holds something that is no number"),
        ("multi", first("leaf_value", "--1"), "'leaf_value' holds something that is no number"),
        ("multi", first("leaf_value", "1 2"), "'leaf_value' holds"),
        ("multi", field("left_child", ""), "'left_child' holds 0 numbers"),
        ("multi", field("num_leaves", "100"), "expected 100"),
        ("multi", field("num_leaves", "0"), "no leaves"),
        ("multi", field("num_leaves", ""), "'num_leaves' holds 0 numbers, expected 1"),
        ("multi", field("num_cat", "3"), "'cat_boundaries' is missing"),
        ("multi", field("shrinkage", "fast"), "'shrinkage' holds something that is no number"),
        ("multi", field("is_linear", "1"), "'leaf_const' is missing"),
        ("multi", first("internal_count", "?"), "'internal_count' holds something"),
        ("multi", without("decision_type"), "'decision_type' is missing"),
        ("multi", without("num_cat"), "'num_cat' is missing"),
        ("multi", without("num_leaves"), "'num_leaves' is missing"),
        ("multi", lambda block: block.replace("num_cat=0\n", "num_cat=0\n\n"), "is missing"),
        ("multi", lambda block: block.replace("num_cat=0\n", "num_cat=0\nnum_cat=0\n"), "repeats one"),
        ("multi", lambda block: block.replace("num_cat=0\n", "num_cat 0\n"), "no field"),
        ("category", field("cat_boundaries", "0 100"), "contradict"),
        ("category", field("cat_boundaries", "1 1"), "contradict"),
        ("category", field("cat_boundaries", "0"), "'cat_boundaries' holds 1 numbers, expected"),
        ("category", without("cat_threshold"), "'cat_threshold' is missing"),
        ("category", first("threshold", "50"), "categories that do not exist"),
        ("linear", first("num_features", "9"), "'leaf_features' holds"),
        ("linear", without("leaf_coeff"), "'leaf_coeff' is missing"),
    ],
)
def test_trees_that_would_crash(kind: str, change: Callable[[str], str], says: str) -> None:
    """Each is refused with the number of its tree."""
    with pytest.raises(ValueError, match=says) as caught:
        check(edited(kind, change))
    assert str(caught.value).startswith("tree 0: ")


def test_the_right_tree_is_named() -> None:
    """Of several trees the wrong one is named."""
    with pytest.raises(ValueError, match=r"^tree 2: "):
        check(edited("multi", first("left_child", "1000"), tree=2))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (rb"tree_sizes=.*\n", b"", "tree sizes is missing"),
        (rb"tree_sizes=\S+", b"tree_sizes=x", "no number"),
        (rb"tree_sizes=\S+", b"tree_sizes=5", "not where it should be"),
        (rb"tree_sizes=\S+", b"tree_sizes=-5", "not where it should be"),
        (rb"tree_sizes=\S+ ", b"tree_sizes=", "contradicts itself"),
        (rb"max_feature_idx=3", b"max_feature_idx=30", "does not name 31 features"),
        (rb"max_feature_idx=3", b"max_feature_idx=-2", "contradicts itself"),
        (rb"max_feature_idx=.*\n", b"", "'max_feature_idx' is missing"),
        (rb"num_tree_per_iteration=3", b"num_tree_per_iteration=0", "contradicts itself"),
        (rb"feature_infos=\S+ ", b"feature_infos=", "'feature_infos' does not name 4 features"),
        (rb"feature_names=.*", b"feature_names=a b c", "'feature_names' does not name 4 features"),
        (rb"num_class=.*\n", b"", "'num_class' is missing"),
        (rb"version=.*\n", b"", "'version' is missing"),
        (rb"end of trees", b"end of tr", "the end of the trees is missing"),
        (rb"Tree=1\n", b"Tree=2\n", "tree 1 of 9 is not where it should be"),
    ],
)
def test_headers_that_are_wrong(old: bytes, new: bytes, says: str) -> None:
    """What the trees are read by must be right itself."""
    with pytest.raises(ValueError, match=says):
        check(re.sub(old, new, learned.lightgbm_model("multi"), count=1))


@pytest.mark.parametrize("kind", KINDS)
def test_changed_bytes_never_upset_the_look(kind: str) -> None:
    """Random changes are either harmless or a ValueError."""
    whole = learned.lightgbm_model(kind)
    generator = random.Random(3)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(3):
            data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            check(bytes(data))
        except ValueError:
            continue
