"""MLflow's search language: what it means, and what hostile filters do."""

import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects.mlflow.filters import By, Searchable, like, ordering, parse, select
from dragoman.dialects.mlflow.paging import page
from dragoman.dialects.mlflow.wire import Fields

Thing = Mapping[str, Any]
KINDS = Searchable(texts=frozenset({"name", "run_id"}), numbers=frozenset({"size"}), groups={"tag": False, "metric": True})
THINGS: list[Thing] = [
    {"name": "iris", "size": 1, "tag": {"team": "blue", "a.b": "1"}, "metric": {"acc": 0.5}},
    {"name": "Iris-2", "size": 20, "tag": {"team": "red"}, "metric": {"acc": 0.9}},
    {"name": "it's", "size": 3, "run_id": "r1", "tag": {"mlflow.prompt.is_prompt": "true"}, "metric": {"acc": float("nan")}},
]


def look(thing: Thing, group: str, key: str) -> Any:
    return (thing[group] if group else thing).get(key)


def found(filter_: str) -> list[str]:
    return [thing["name"] for thing in select(THINGS, parse(filter_, KINDS), look)]


@pytest.mark.parametrize(
    ("filter_", "names"),
    [
        ("", ["iris", "Iris-2", "it's"]),
        ("  \n ", ["iris", "Iris-2", "it's"]),
        ("name = 'iris'", ["iris"]),
        ("name='iris'", ["iris"]),
        ('name = "iris"', ["iris"]),
        ("attribute.name = 'iris'", ["iris"]),
        ("`name` = 'iris'", ["iris"]),
        ("attributes.`name` = 'iris'", ["iris"]),
        ("name != 'iris'", ["Iris-2", "it's"]),
        ("name <> 'iris'", ["Iris-2", "it's"]),
        ("name LIKE 'i%'", ["iris", "it's"]),
        ("name like '%s'", ["iris", "it's"]),
        ("name ILIKE 'IRIS%'", ["iris", "Iris-2"]),
        ("name LIKE '____'", ["iris", "it's"]),
        ("name = 'it''s'", ["it's"]),
        (r"name = 'it\'s'", ["it's"]),
        ('name = "it\'s"', ["it's"]),
        ("name IN ('iris', 'it''s', 'other')", ["iris", "it's"]),
        ("name NOT IN ('iris')", ["Iris-2", "it's"]),
        ("size > 2", ["Iris-2", "it's"]),
        ("size >= 3 AND size <= 20 and size != 20", ["it's"]),
        ("size = 1.0", ["iris"]),
        ("size < 1e1", ["iris", "it's"]),
        ("size > -5 AND size < '4'", ["iris", "it's"]),
        ("tags.team = 'blue'", ["iris"]),
        ("tag.`team` = 'blue'", ["iris"]),
        ("tag.\"team\" = 'blue'", ["iris"]),
        ("tags.team != 'blue'", ["Iris-2"]),
        ("tags.a.b = '1'", ["iris"]),
        ("tags.`a.b` LIKE '_'", ["iris"]),
        ("tags.missing != 'x'", []),
        ("run_id = 'r1'", ["it's"]),
        ("run_id != 'r1'", []),
        ("tag.`mlflow.prompt.is_prompt` != 'true'", ["iris", "Iris-2"]),
        ("tag.`mlflow.prompt.is_prompt` = 'true'", ["it's"]),
        ("tag.`mlflow.prompt.is_prompt` = 'false'", ["iris", "Iris-2"]),
        ("metrics.acc > 0.6", ["Iris-2"]),
        ("metric.acc < 100 AND name LIKE '%'", ["iris", "Iris-2"]),
    ],
)
def test_a_filter_finds(filter_: str, names: list[str]) -> None:
    """What it says, and nothing else."""
    assert found(filter_) == names


@pytest.mark.parametrize(
    "filter_",
    [
        "name",
        "name =",
        "name = iris",
        "name = 'iris",
        "name = 5",
        "= 'iris'",
        "name 'iris'",
        "name = 'a' name = 'b'",
        "name = 'a' OR name = 'b'",
        "name = 'a' AND",
        "AND name = 'a'",
        "name = 'a' AND AND name = 'b'",
        "(name = 'a')",
        "name > 'a'",
        "size LIKE '1'",
        "size IN (1)",
        "size IN ('1')",
        "size = 'x'",
        "size = one",
        "color = 'red'",
        "params.x = '1'",
        "tags = 'x'",
        "tags. = 'x'",
        "tags.x IN ('a')",
        "name IN 'a'",
        "name IN ()",
        "name IN ('a'",
        "name IN ('a',)",
        "name IN ('a' 'b')",
        "name NOT 'a'",
        "name NOT LIKE 'a'",
        "name == 'a'",
        "name = 'a'; DROP TABLE models",
        "name = 'a' -- x",
        "\x00",
        "ñame = '\U0001f600'",
        "name = 'a' " + "AND name = 'a' " * 60,
        "name IN (" + ", ".join(["'a'"] * 2000) + ")",
        "x" * 20_000,
        "(" * 5000,
        "'" * 5001,
        "`" * 4999,
        "." * 100,
        "size = " + "9" * 5000 + "x",
    ],
)
def test_a_wrong_filter_is_refused(filter_: str) -> None:
    """With a text that says what was expected."""
    with pytest.raises(ServingError, match=r"expected|more than") as caught:
        parse(filter_, KINDS)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert len(caught.value.message) < 500


PIECES = ["name", " = ", "'a'", "AND ", "tags.", "`k`", "(", ")", ",", "IN ", "5", "'"]


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_no_filter_breaks_the_parser(filter_: str) -> None:
    """It means something, or it is refused."""
    try:
        found(filter_)
    except ServingError as error:
        if error.kind is not Kind.INVALID_INPUT:
            raise


@given(st.text("ab_%", max_size=8), st.text("ab", max_size=10))
def test_like_is_what_it_says(pattern: str, text: str) -> None:
    """Against the plain definition, letter by letter."""

    def matches(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "%":
            return any(matches(p[1:], t[i:]) for i in range(len(t) + 1))
        return bool(t) and p[0] in ("_", t[0]) and matches(p[1:], t[1:])

    assert like(pattern)(text) == matches(pattern, text)


def test_no_pattern_takes_for_ever() -> None:
    """Patterns that would be tried in every way elsewhere: this ends at all because nothing is tried twice."""
    test = like("%a" * 2000 + "%b")
    started = time.process_time()
    assert not any(test("a" * 10_000) for _ in range(3))
    assert time.process_time() - started < 20


# --- order and pages ---


def test_orders_are_read() -> None:
    """Of several for one attribute the first counts; what decides between equals comes last."""
    last = [By("", "name")]
    assert ordering([], KINDS, last) == last
    assert ordering(["size DESC", "size", "`name` asc"], KINDS, last) == [By("", "size", ascends=False), By("", "name")]
    assert ordering(["metrics.`acc` desc", "attribute.size"], KINDS, last) == [
        By("metric", "acc", ascends=False),
        By("", "size"),
        By("", "name"),
    ]


@pytest.mark.parametrize("order", ["", "color", "size up", "size ASC DESC", "size, name", "tags", "'size'", "\x00", "x" * 20_000])
def test_wrong_orders_are_refused(order: str) -> None:
    """As filters are."""
    with pytest.raises(ServingError, match="'order_by'") as caught:
        ordering([order], KINDS, [])
    assert caught.value.kind is Kind.INVALID_INPUT


def test_what_has_no_value_comes_last_both_ways() -> None:
    """And a value that is no number counts as none, so that the best run is never one without the metric."""
    for order, first in (("metrics.acc ASC", "iris"), ("metrics.acc DESC", "Iris-2")):
        by = ordering([order], KINDS, [By("", "name")])
        shown, _ = page(THINGS, by, look, Fields({}), usual=10, most=10)
        assert [shown[0]["name"], shown[-1]["name"]] == [first, "it's"]


VALUES = st.one_of(st.none(), st.integers(-3, 3), st.floats(), st.sampled_from(["a", "b"]))


@given(st.lists(st.tuples(VALUES, st.integers()), unique_by=lambda row: row[1], max_size=12), st.booleans(), st.integers(1, 4))
def test_pages_together_are_everything(rows: list[tuple[Any, int]], ascends: bool, size: int) -> None:
    """In the order of one large page, whatever the values are."""
    things = [{"v": value, "id": number} for value, number in rows]
    order = [By("", "v", ascends), By("", "id")]
    whole, token = page(things, order, look, Fields({}), usual=100, most=100)
    assert not token
    seen: list[Thing] = []
    for _ in range(len(things) + 1):
        shown, token = page(things, order, look, Fields({"max_results": size, "page_token": token}), usual=100, most=100)
        seen += shown
        if not token:
            break
    assert [each["id"] for each in seen] == [each["id"] for each in whole]
