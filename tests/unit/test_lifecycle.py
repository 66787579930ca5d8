"""The plan: situations, and random histories that must converge without a gap."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.core.lifecycle import Drain, Forget, Have, Load, Policy, PolicyKind, Retry, State, choose, plan, version_order
from dragoman.core.model import ModelSpec


def have(version: str, state: State, revision: str = "a", retry_at: float = math.inf) -> Have:
    return Have(version, revision, state, retry_at=retry_at)


@pytest.mark.parametrize(
    ("wanted", "present", "expected"),
    [
        pytest.param({"1": "a"}, [], [Load("1", "a")], id="load what is wanted"),
        pytest.param({"1": "a", "10": "a", "9": "a"}, [], [Load("10", "a")], id="the highest number first, one at a time"),
        pytest.param({"1": "a", "2": "a"}, [have("2", State.LOADING)], [], id="one load at a time"),
        pytest.param({"1": "a"}, [have("1", State.READY)], [], id="settled"),
        pytest.param({}, [have("1", State.READY)], [Drain("1", "a")], id="nothing wanted: drain"),
        pytest.param({"2": "a"}, [have("1", State.READY)], [Load("2", "a")], id="the old serves while the new one loads"),
        pytest.param({"2": "a"}, [have("1", State.READY), have("2", State.LOADING)], [], id="and until it is ready"),
        pytest.param({"2": "a"}, [have("1", State.READY), have("2", State.READY)], [Drain("1", "a")], id="then it drains"),
        pytest.param({"2": "a"}, [have("1", State.READY), have("2", State.FAILED)], [], id="a failed new version leaves the old one"),
        pytest.param({"1": "b"}, [have("1", State.READY)], [Load("1", "b")], id="a reload is another revision"),
        pytest.param(
            {"1": "b"},
            [have("1", State.READY), have("1", State.READY, "b")],
            [Drain("1", "a")],
            id="whose readiness drains the old one",
        ),
        pytest.param(
            {"1": "b", "2": "a"},
            [have("1", State.READY), have("2", State.READY)],
            [Load("1", "b")],
            id="a version that is reloaded does not vanish because another is ready",
        ),
        pytest.param({}, [have("1", State.LOADING)], [Forget("1", "a")], id="an unwanted load is forgotten"),
        pytest.param({"1": "a"}, [have("1", State.FAILED)], [], id="a failure is final without a retry time"),
        pytest.param({"1": "a"}, [have("1", State.FAILED, retry_at=5.0)], [Retry("1", "a")], id="and is tried again when that has come"),
        pytest.param({"1": "a"}, [have("1", State.FAILED, retry_at=15.0)], [], id="not before"),
        pytest.param(
            {"3": "a"},
            [have("1", State.READY), have("2", State.READY), have("3", State.READY)],
            [Drain("1", "a"), Drain("2", "a")],
            id="several drains at once",
        ),
        pytest.param(
            {"2": "a", "3": "a"},
            [have("1", State.READY), have("2", State.READY), have("3", State.LOADING)],
            [Drain("1", "a")],
            id="a slow load does not block a drain",
        ),
    ],
)
def test_situations(wanted: dict[str, str], present: list[Have], expected: list[object]) -> None:
    """Each situation has exactly these next steps."""
    assert plan(wanted, present, now=10.0) == expected


def test_moves_that_the_table_lacks_are_refused() -> None:
    """A version cannot become ready again while it drains."""
    with pytest.raises(ValueError, match="DRAINING to READY"):
        have("1", State.DRAINING).to(State.READY)


def test_versions_order_as_numbers_above_texts() -> None:
    """10 is above 9, and any number above any word."""
    assert sorted(["10", "9", "beta", "alpha", "2"], key=version_order) == ["alpha", "beta", "2", "9", "10"]


wishes = st.dictionaries(st.sampled_from(["1", "2", "3"]), st.sampled_from(["a", "b"]), max_size=3)


@settings(max_examples=300)
@given(st.lists(st.tuples(wishes, st.lists(st.booleans(), max_size=6)), min_size=1, max_size=6))
def test_random_histories_converge_without_a_gap(history: list[tuple[dict[str, str], list[bool]]]) -> None:
    """Whatever is wished and whatever fails: the end is what was wished last, and while a wanted version was ready one always is."""
    present: dict[tuple[str, str], Have] = {}
    wanted: dict[str, str] = {}

    def step(outcomes: list[bool]) -> bool:
        before = {k for k, h in present.items() if h.state is State.READY}
        actions = plan(wanted, present.values(), now=0.0)
        for action in actions:
            match action:
                case Load(v, r):
                    present[v, r] = have(v, State.LOADING, r)
                case Retry(v, r):
                    present[v, r] = present[v, r].to(State.LOADING)
                case Drain(v, r):
                    present[v, r] = present[v, r].to(State.DRAINING).to(State.GONE)
                    del present[v, r]
                case Forget(v, r):
                    del present[v, r]
        after = {k for k, h in present.items() if h.state is State.READY}
        if wanted and before:
            still_wanted = {v for v, _ in before if v in wanted}
            assert after, "no ready version although one was"
            assert still_wanted <= {v for v, _ in after}, "a wanted version vanished"
        for key, h in list(present.items()):
            if h.state is State.LOADING:
                ok = outcomes.pop() if outcomes else True
                present[key] = h.to(State.READY) if ok else h.to(State.FAILED)
        return bool(actions)

    for wish, outcomes in history:
        wanted = dict(wish)
        remaining = list(outcomes)
        for _ in range(20):
            if not step(remaining):
                break
        else:
            pytest.fail("the plan never settled")
    for version, revision in wanted.items():
        assert present[version, revision].state in (State.READY, State.FAILED)
    if all(present[key].state is State.READY for key in wanted.items()):
        assert set(present) == set(wanted.items())


def test_a_spec_changes_its_revision_with_its_artifact() -> None:
    """The same spec over the same files is the same revision; a changed file is another."""
    base = ModelSpec("m", artifact="/models/m.onnx")
    assert base.with_revision("x").revision == base.with_revision("x").revision
    assert base.with_revision("x").revision != base.with_revision("y").revision
    assert base.with_revision("x").revision != replace(base, instances=2).with_revision("x").revision


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(), []),
        (Policy(versions=("2", "7")), ["2"]),
        (Policy(PolicyKind.LATEST), ["10"]),
        (Policy(PolicyKind.LATEST, 2), ["10", "9"]),
        (Policy(PolicyKind.LATEST, 99), ["10", "9", "2", "beta"]),
        (Policy(PolicyKind.LATEST, 1, ("2",)), ["10", "2"]),
        (Policy(PolicyKind.ALL), ["10", "9", "2", "beta"]),
    ],
)
def test_policies(policy: Policy, expected: list[str]) -> None:
    """The highest by number; what is named is served besides, if it exists."""
    assert choose(policy, ["2", "10", "beta", "9"]) == expected
