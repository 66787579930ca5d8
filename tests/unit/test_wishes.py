"""Documents of wishes: what they ask for, what a wish has brought, and what is left of one that failed."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.lifecycle import Policy, PolicyKind, Wanted
from dragoman.serving.wishes import (
    Document,
    brought,
    entry,
    failed_of,
    labels_of,
    policy_json,
    policy_of,
    standing_of,
    tried_again,
    versions_of,
    wanted_of,
    withdrawn,
)
from dragoman.store import Wish


def document(labels: dict[str, str] | None = None, policy: Policy | None = None, **revisions: str) -> dict[str, Any]:
    """Versions v1, v2 ... with these revisions."""
    found: dict[str, Any] = {"versions": {version[1:]: entry(revision, {"model": "m"}) for version, revision in revisions.items()}}
    if labels is not None:
        found["labels"] = labels
    if policy is not None:
        found["policy"] = policy_json(policy)
    return found


def test_what_a_document_asks_for() -> None:
    """The empty one for nothing at all, by no policy."""
    asked = document({"best": "1"}, Policy(PolicyKind.LATEST, 2, ("1",)), v1="a")
    assert wanted_of(asked) == {"1": Wanted("a", None, {"model": "m"})}
    assert labels_of(asked) == {"best": "1"}
    assert policy_of(asked) == Policy(PolicyKind.LATEST, 2, ("1",))
    assert (wanted_of({}), labels_of({}), failed_of({}), policy_of({})) == ({}, {}, {}, Policy())


def test_what_a_wish_has_brought() -> None:
    """New versions and other revisions; what stands already was brought by somebody else."""
    assert brought({}, document(v1="a", v2="a")) == {"1", "2"}
    assert brought(document(v1="a", v2="a"), document(v1="a", v2="b", v3="a")) == {"2", "3"}
    assert brought(document(v1="a"), {}) == set()


def test_a_failed_wish_that_nobody_followed_is_taken_back_whole() -> None:
    """What it had left out is wanted again, policy and labels are those before; the reason is kept."""
    before = document({"best": "5"}, Policy(versions=("5",)), v5="a")
    mine = Wish("m", 8, document({"best": "6"}, Policy(PolicyKind.LATEST), v6="a"))
    after = withdrawn(mine, mine, before, {"6": "no memory"})
    assert after == {**before, "failed": {"6": {"revision": "a", "reason": "no memory"}}}
    assert failed_of(after) == {"6": "no memory"}


def test_a_failed_wish_that_somebody_followed_loses_only_what_failed() -> None:
    """And nothing that served before is left out because of it."""
    before = document(v5="a")
    mine = Wish("m", 8, document({}, Policy(PolicyKind.LATEST, 1, ("6",)), v6="a"))
    later = Wish("m", 9, document({"x": "6", "y": "7"}, Policy(PolicyKind.LATEST, 1, ("6", "7")), v6="a", v7="a"))
    after = withdrawn(later, mine, before, {"6": "no"})
    assert set(versions_of(after)) == {"5", "7"}
    assert labels_of(after) == {"y": "7"}
    assert policy_of(after) == Policy(PolicyKind.LATEST, 1, ("7",))
    assert failed_of(after) == {"6": "no"}


def test_a_reload_that_failed_leaves_no_reason_at_a_version_that_serves() -> None:
    """The old revision is wanted again."""
    mine = Wish("m", 8, document(v1="b"))
    assert withdrawn(mine, mine, document(v1="a"), {"1": "damaged"}) == {**document({}, v1="a"), "failed": {}}


def test_what_of_a_wish_still_stands() -> None:
    """A later wish may have taken a version away, or brought another revision of it."""
    mine = document(v1="a", v2="a", v3="a")
    standing = Wish("m", 9, document(v1="a", v2="b"))
    assert standing_of(standing, {"1", "2", "3"}, mine) == {"1"}
    assert standing_of(None, {"1"}, mine) == set()


def test_to_try_again_is_another_wish_for_the_same() -> None:
    """A store takes a document that stands for no change."""
    once = tried_again(Wish("m", 1, document(v1="a")))
    assert once is not None
    twice = tried_again(Wish("m", 2, once))
    assert twice is not None
    assert (once["again"], twice["again"]) == (1, 2)
    assert wanted_of(once) == wanted_of(twice) == wanted_of(document(v1="a"))
    assert tried_again(None) is None


documents = st.dictionaries(st.sampled_from("1234"), st.sampled_from("ab"), max_size=4).map(
    lambda versions: document({v: v for v in versions}, Policy(versions=tuple(versions)), **{f"v{v}": r for v, r in versions.items()})
)


@given(documents, documents, st.one_of(st.none(), documents), st.data())
def test_withdrawing_removes_what_failed_and_never_what_served(
    before: Document, mine: Document, later: Document | None, data: st.DataObject
) -> None:
    """Whatever was wished in between: no failed revision stays, labels have versions, and what was wanted before and not failed is wanted."""
    new = sorted(brought(before, mine))
    failed = data.draw(st.sets(st.sampled_from(new), min_size=1)) if new else set()
    wish = Wish("m", 5, mine)
    standing = wish if later is None else Wish("m", 6, later)
    still = standing_of(standing, failed, mine)
    after = withdrawn(standing, wish, before, dict.fromkeys(still, "no"))
    for version in still:
        assert versions_of(after).get(version, {}).get("revision") != versions_of(mine)[version]["revision"]
    assert set(labels_of(after).values()) <= set(versions_of(after))
    if later is None:
        assert versions_of(after) == versions_of(before)
    elif still:
        assert set(versions_of(before)) - set(versions_of(mine)) <= set(versions_of(after))
        assert set(versions_of(later)) - still <= set(versions_of(after))
    assert not failed_of(after).keys() & versions_of(after).keys()
