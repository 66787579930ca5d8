"""What every store promises: one suite over all of them. What needs several processes is in test_stores_processes.py."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Progress, may_move
from dragoman.store import Change, Store, StoredVersion
from dragoman.store.blobs import LEAST_BYTES
from tests.stores import CASES, MEMORY, SHARED, SQLITE, Case, as_stored, claimed, done, ended, version, waiting, with_store, with_stores

every_store = pytest.mark.parametrize("case", CASES, ids=str)
every_shared_store = pytest.mark.parametrize("case", SHARED, ids=str)
LARGE = b"\x00\xff" * LEAST_BYTES


async def refused(awaitable: Awaitable[object]) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await awaitable
    return caught.value


# --- models, versions, aliases ---


@every_store
def test_a_version_comes_back_as_it_was_added(case: Case, tmp_path: Path) -> None:
    """Every field, nested JSON and odd texts included."""
    added = version(
        "größe/ü",
        "1.0-β",
        kind="tungsten",
        spec={"runtime": "python", "arguments": {"class": "", "n": [1, 2.5, None, True]}},
        manifest={"a b.py": {"size": 3, "sha256": "ab"}},
        folder="models/ab",
        source="file:///x",
    )

    async def body(store: Store) -> None:
        stored = await store.add_version(added)
        assert stored == as_stored(added)
        assert await store.version("größe/ü", "1.0-β") == stored
        assert await store.version("größe/ü", "2") is None
        assert await store.version("other", "1.0-β") is None

    with_store(case, tmp_path, body)


@every_store
def test_an_existing_version_is_kept_unless_it_is_to_be_replaced(case: Case, tmp_path: Path) -> None:
    """CONFLICT, and then neither the version nor its aliases have changed; a replaced one keeps the aliases that point at it."""

    async def body(store: Store) -> None:
        await store.add_version(version(digest="old"), aliases=["a"])
        error = await refused(store.add_version(version(digest="new"), aliases=["b"]))
        assert (error.kind, error.what) == (Kind.CONFLICT, "version")
        assert "'1'" in error.message
        assert "'m'" in error.message
        assert await store.version("m", "1") == as_stored(version(digest="old"))
        assert await store.aliases() == {("m", "a"): "1"}
        await store.add_version(version(digest="new"), aliases=["b"], replace=True)
        assert await store.version("m", "1") == as_stored(version(digest="new"))
        assert await store.aliases("m") == {("m", "a"): "1", ("m", "b"): "1"}

    with_store(case, tmp_path, body)


@every_store
def test_replacing_what_is_not_there_adds_it(case: Case, tmp_path: Path) -> None:
    """`replace` permits, it does not demand."""

    async def body(store: Store) -> None:
        await store.add_version(version(), replace=True)
        assert await store.versions() == [as_stored(version())]

    with_store(case, tmp_path, body)


@every_store
def test_versions_are_listed_newest_first(case: Case, tmp_path: Path) -> None:
    """Of one model or of all; of one moment the last added first."""
    some = [version("m", "1", created=5.0), version("n", "1", created=7.0), version("m", "2", created=6.0), version("m", "3", created=6.0)]

    async def body(store: Store) -> None:
        assert await store.versions() == []
        for one in some:
            await store.add_version(one)
        assert [(v.model, v.version) for v in await store.versions()] == [("n", "1"), ("m", "3"), ("m", "2"), ("m", "1")]
        assert [v.version for v in await store.versions("m")] == ["3", "2", "1"]
        assert await store.versions("x") == []

    with_store(case, tmp_path, body)


@every_store
def test_a_removed_version_takes_its_aliases_with_it(case: Case, tmp_path: Path) -> None:
    """Those of other versions and other models stay; removing twice says so."""

    async def body(store: Store) -> None:
        await store.add_version(version("m", "1"), aliases=["x", "y"])
        await store.add_version(version("m", "2"), aliases=["z"])
        await store.add_version(version("n", "1"), aliases=["x"])
        assert await store.remove_version("m", "1") is True
        assert await store.remove_version("m", "1") is False
        assert await store.remove_version("x", "1") is False
        assert await store.version("m", "1") is None
        assert await store.aliases() == {("m", "z"): "2", ("n", "x"): "1"}
        assert await store.aliases("m") == {("m", "z"): "2"}

    with_store(case, tmp_path, body)


@every_store
def test_a_model_can_come_again(case: Case, tmp_path: Path) -> None:
    """After its last version has gone, the name is free."""

    async def body(store: Store) -> None:
        await store.add_version(version(), aliases=["a"])
        await store.remove_version("m", "1")
        await store.add_version(version(digest="again"))
        assert await store.versions() == [as_stored(version(digest="again"), number=2)]
        assert await store.aliases() == {}

    with_store(case, tmp_path, body)


@every_store
def test_aliases_are_set_moved_and_removed(case: Case, tmp_path: Path) -> None:
    """By set_alias and by adding a version that brings them."""

    async def body(store: Store) -> None:
        await store.add_version(version("m", "1"), aliases=["latest", "latest"])
        await store.add_version(version("m", "2"), aliases=["latest"])
        assert await store.aliases("m") == {("m", "latest"): "2"}
        await store.set_alias("m", "latest", "1")
        await store.set_alias("m", "best", "2")
        assert await store.aliases() == {("m", "best"): "2", ("m", "latest"): "1"}
        assert await store.remove_alias("m", "latest") is True
        assert await store.remove_alias("m", "latest") is False
        assert await store.aliases() == {("m", "best"): "2"}

    with_store(case, tmp_path, body)


@every_store
def test_an_alias_needs_its_version(case: Case, tmp_path: Path) -> None:
    """NOT_FOUND; an alias that stood before still points where it did."""

    async def body(store: Store) -> None:
        await store.add_version(version("m", "1"), aliases=["a"])
        for model, number in (("m", "9"), ("n", "1")):
            error = await refused(store.set_alias(model, "a", number))
            assert (error.kind, error.what) == (Kind.NOT_FOUND, "version")
        assert await store.aliases() == {("m", "a"): "1"}

    with_store(case, tmp_path, body)


@every_store
def test_of_many_who_add_one_version_one_succeeds(case: Case, tmp_path: Path) -> None:
    """The others get CONFLICT, and the one that won is what is stored."""

    async def body(store: Store) -> None:
        some = [version(digest=str(n)) for n in range(20)]
        results = await asyncio.gather(*(store.add_version(one) for one in some), return_exceptions=True)
        winners = [result for result in results if isinstance(result, StoredVersion)]
        assert len(winners) == 1
        assert sum(isinstance(r, ServingError) and r.kind is Kind.CONFLICT for r in results) == 19
        assert await store.versions() == winners

    with_store(case, tmp_path, body)


# --- predictions: adding and finding ---


@every_store
@pytest.mark.parametrize("inputs", [b"", b"[1]", b"\x00" * (LEAST_BYTES - 1), LARGE], ids=["empty", "small", "just in the row", "large"])
def test_a_prediction_comes_back_as_it_was_added(case: Case, inputs: bytes, tmp_path: Path) -> None:
    """Every field, whatever the size."""
    added = ended(
        inputs=inputs,
        outputs=inputs[::-1],
        error="Größe\n\t'\"",
        error_kind="model_failed",
        logs="a\nb\r\x1b[0m",
        webhook="https://x/y",
        delivered=True,
        caller="key",
    )

    async def body(store: Store) -> None:
        await store.add_prediction(added)
        assert await store.prediction(added.id) == added
        assert await store.prediction(added.id, inputs=False) == replace(added, inputs=b"")
        assert await store.prediction("0" * 32) is None

    with_store(case, tmp_path, body)


@every_store
def test_no_outputs_are_not_empty_outputs(case: Case, tmp_path: Path) -> None:
    """None stays None, b"" stays b""."""

    async def body(store: Store) -> None:
        none, empty = ended(outputs=None), ended(outputs=b"")
        for one in (none, empty):
            await store.add_prediction(one)
            assert await store.prediction(one.id) == one

    with_store(case, tmp_path, body)


@every_store
def test_an_id_is_taken_once(case: Case, tmp_path: Path) -> None:
    """CONFLICT for the second, whatever its size; strangers added at the same moment do not notice."""

    async def body(store: Store) -> None:
        first = waiting()
        await store.add_prediction(first)
        others = [waiting() for _ in range(10)]
        bad = [replace(first, inputs=b"other"), replace(first, inputs=LARGE)]
        results = await asyncio.gather(*(store.add_prediction(one) for one in (*others, *bad)), return_exceptions=True)
        assert results[:10] == [None] * 10
        for result in results[10:]:
            assert isinstance(result, ServingError)
            assert (result.kind, result.what) == (Kind.CONFLICT, "prediction")
        assert await store.prediction(first.id) == first
        assert [await store.prediction(one.id) for one in others] == others

    with_store(case, tmp_path, body)


@every_store
def test_hundreds_at_once_are_all_there(case: Case, tmp_path: Path) -> None:
    """Concurrent adds, finds and changes, more than one transaction takes."""

    async def body(store: Store) -> None:
        some = [claimed(created=float(n), inputs=b"%d" % n) for n in range(700)]
        await asyncio.gather(*(store.add_prediction(one) for one in some))
        assert await asyncio.gather(*(store.prediction(one.id) for one in some)) == some
        changes = [done(one, outputs=one.inputs * 2) for one in some]
        assert all(await asyncio.gather(*(store.change_prediction(change) for change in changes)))
        found = await asyncio.gather(*(store.prediction(one.id) for one in some))
        assert [one.outputs for one in found if one is not None] == [one.inputs * 2 for one in some]

    with_store(case, tmp_path, body)


@pytest.mark.parametrize("case", SHARED, ids=str)
def test_what_no_database_holds_is_replaced(case: Case, tmp_path: Path) -> None:
    """Half a surrogate pair or a NUL in a model's error or logs must not keep the prediction from ending, nor in an id from a client."""

    async def body(store: Store) -> None:
        one = claimed()
        await store.add_prediction(one)
        assert await store.change_prediction(done(one, progress=Progress.FAILED, error="a\ud800b\0c", logs="x\udfffy\0"))
        found = await store.prediction(one.id)
        assert found is not None
        assert found.progress is Progress.FAILED
        assert found.error == "a?b\ufffdc"
        assert found.logs.startswith("x?y")
        assert await store.prediction("\ud800\0") is None
        assert await store.version("\ud800", "\0") is None

    with_store(case, tmp_path, body)


# --- changes ---


@every_store
def test_a_change_sets_what_it_names_and_nothing_else(case: Case, tmp_path: Path) -> None:
    """From CLAIMED over RUNNING, with logs on the way, to the end and the delivery."""

    async def body(store: Store) -> None:
        now = claimed(webhook="https://x")
        await store.add_prediction(now)
        steps: list[tuple[Change, dict[str, object]]] = [
            (Change(now.id, Progress.RUNNING, owner="me", attempt=1, started=110.0), {"progress": Progress.RUNNING, "started": 110.0}),
            (Change(now.id, logs="one\n"), {"logs": "one\n"}),
            (Change(now.id, logs="one\ntwo\n", owner="me"), {"logs": "one\ntwo\n"}),
            (done(now, outputs=b"[2]"), {"progress": Progress.SUCCEEDED, "outputs": b"[2]", "finished": 130.0}),
            (Change(now.id, expect=frozenset({Progress.SUCCEEDED}), delivered=True), {"delivered": True}),
        ]
        for change, expected in steps:
            assert await store.change_prediction(change) is True
            now = replace(now, **expected)  # type: ignore[arg-type]
            assert await store.prediction(now.id) == now

    with_store(case, tmp_path, body)


@every_store
def test_a_change_of_something_else_changes_nothing(case: Case, tmp_path: Path) -> None:
    """Another owner, another attempt, another state, another id: a late result of a lost lease."""

    async def body(store: Store) -> None:
        one = claimed(attempt=2)
        await store.add_prediction(one)
        for change in (
            done(one, owner="somebody"),
            done(one, attempt=1),
            done(one, expect=frozenset({Progress.RUNNING})),
            done(waiting()),
            Change(one.id, delivered=True, expect=frozenset({Progress.FAILED})),
            done(one, owner="", outputs=LARGE),
        ):
            assert await store.change_prediction(change) is False
        assert await store.prediction(one.id) == one

    with_store(case, tmp_path, body)


@every_store
@pytest.mark.parametrize("after", list(Progress), ids=lambda p: p.value)
def test_only_moves_of_the_table_are_made(case: Case, after: Progress, tmp_path: Path) -> None:
    """Whatever the change expects: a terminal state is never left."""

    async def body(store: Store) -> None:
        for before in Progress:
            one = claimed(progress=before, finished=1.0 if before.terminal else None)
            await store.add_prediction(one)
            finished = 140.0 if after.terminal else None
            moved = await store.change_prediction(Change(one.id, after, expect=frozenset(Progress), finished=finished))
            found = await store.prediction(one.id)
            assert found is not None
            assert (moved, found.progress) == ((True, after) if may_move(before, after) else (False, before))

    with_store(case, tmp_path, body)


@every_store
def test_without_expectations_only_active_ones_change(case: Case, tmp_path: Path) -> None:
    """What has ended stays as it is, its logs included."""

    async def body(store: Store) -> None:
        one = ended(logs="end")
        await store.add_prediction(one)
        assert await store.change_prediction(Change(one.id, logs="late")) is False
        assert await store.prediction(one.id) == one

    with_store(case, tmp_path, body)


@every_store
def test_back_to_pending_frees_it_of_its_owner(case: Case, tmp_path: Path) -> None:
    """It waits as it did before, but for the attempts."""

    async def body(store: Store) -> None:
        one = claimed(progress=Progress.RUNNING, started=110.0, attempt=3)
        await store.add_prediction(one)
        assert await store.change_prediction(Change(one.id, Progress.PENDING, owner="me", attempt=3))
        free = replace(one, progress=Progress.PENDING, owner="", lease_until=0.0, started=None)
        assert await store.prediction(one.id) == free
        assert await store.owners() == []
        claim = await store.claim_predictions("you", ["m"], lease_until=300.0, limit=5)
        assert claim == [replace(free, progress=Progress.CLAIMED, owner="you", lease_until=300.0, attempt=4)]

    with_store(case, tmp_path, body)


def test_an_end_has_its_time() -> None:
    """Without it the prediction would be kept for ever."""
    with pytest.raises(ValueError, match="finished"):
        Change("0" * 32, Progress.FAILED)


@every_store
def test_of_many_changes_at_once_one_wins(case: Case, tmp_path: Path) -> None:
    """A result and cancellations race: one ends it, and it stays what that one said."""

    async def body(store: Store) -> None:
        for _ in range(5):
            one = claimed()
            await store.add_prediction(one)
            changes = [done(one, outputs=b"%d" % n) for n in range(10)] + [Change(one.id, Progress.CANCELLED, finished=140.0)] * 10
            results = await asyncio.gather(*(store.change_prediction(change) for change in changes))
            assert results.count(True) == 1
            winner = changes[results.index(True)]
            found = await store.prediction(one.id)
            assert found is not None
            assert (found.progress, found.outputs, found.finished) == (winner.progress, winner.outputs, winner.finished)

    with_store(case, tmp_path, body)


@every_store
def test_several_changes_of_one_prediction_at_once_add_up(case: Case, tmp_path: Path) -> None:
    """In the order in which they were asked, though they share a transaction."""

    async def body(store: Store) -> None:
        one = claimed()
        await store.add_prediction(one)
        changes = [
            Change(one.id, logs="a", owner="me"),
            Change(one.id, Progress.RUNNING, owner="me", started=1.0),
            Change(one.id, Progress.RUNNING, owner="me", started=2.0),
            Change(one.id, logs="ab", owner="me"),
            done(one, outputs=b"x"),
            Change(one.id, logs="abc", owner="me"),
        ]
        results = await asyncio.gather(*(store.change_prediction(change) for change in changes))
        assert results == [True, True, False, True, True, False]
        assert await store.prediction(one.id) == replace(
            one, progress=Progress.SUCCEEDED, started=1.0, finished=130.0, logs="ab", outputs=b"x"
        )

    with_store(case, tmp_path, body)


@every_store
def test_large_outputs_and_logs_can_be_replaced(case: Case, tmp_path: Path) -> None:
    """By small ones and the other way round."""

    async def body(store: Store) -> None:
        one = claimed()
        await store.add_prediction(one)
        for logs in ("a" * LEAST_BYTES, "b" * (LEAST_BYTES + 1), "c", "d" * LEAST_BYTES):
            assert await store.change_prediction(Change(one.id, logs=logs))
            assert await store.prediction(one.id) == replace(one, logs=logs)
        assert await store.change_prediction(done(one, outputs=LARGE))
        found = await store.prediction(one.id)
        assert found is not None
        assert found.outputs == LARGE

    with_store(case, tmp_path, body)


# --- claims, leases, owners ---


@every_store
def test_claims_take_the_oldest_of_the_models_asked_for(case: Case, tmp_path: Path) -> None:
    """Up to the limit, with their payloads, and one attempt more."""

    async def body(store: Store) -> None:
        new, old, other = waiting(created=3.0), waiting(created=1.0, inputs=LARGE), waiting(created=0.0, model="other")
        middle = waiting(created=2.0, model="n", attempt=1)
        for one in (new, old, other, middle, claimed(created=0.5), ended(created=0.6)):
            await store.add_prediction(one)

        taken = {"progress": Progress.CLAIMED, "owner": "me", "lease_until": 50.0}
        first = await store.claim_predictions("me", ["m", "n"], lease_until=50.0, limit=2)
        assert first == [replace(old, **taken, attempt=1), replace(middle, **taken, attempt=2)]  # type: ignore[arg-type]
        assert await store.prediction(old.id) == first[0]
        second = await store.claim_predictions("me", ["m", "n"], lease_until=50.0, limit=2)
        assert [one.id for one in second] == [new.id]
        assert await store.claim_predictions("me", ["m", "n"], lease_until=50.0, limit=2) == []
        assert await store.claim_predictions("me", [], lease_until=50.0, limit=2) == []
        assert await store.claim_predictions("me", ["other"], lease_until=50.0, limit=0) == []

    with_store(case, tmp_path, body)


@every_store
def test_the_models_that_are_waited_for(case: Case, tmp_path: Path) -> None:
    """Each once, in order; what runs or has ended waits for none."""

    async def body(store: Store) -> None:
        assert await store.pending_models() == []
        for one in (waiting(model="b"), waiting(model="b"), waiting(model="a"), claimed(model="c"), ended(model="d")):
            await store.add_prediction(one)
        assert await store.pending_models() == ["a", "b"]

    with_store(case, tmp_path, body)


@every_store
def test_what_has_not_ended_is_counted_by_model(case: Case, tmp_path: Path) -> None:
    """Whoever owns it: what waits, claimed or not, and what runs."""

    async def body(store: Store) -> None:
        assert await store.unfinished() == {}
        running = claimed(model="b", progress=Progress.RUNNING, started=110.0)
        for one in (waiting(model="a"), claimed(model="a"), waiting(model="b"), running, ended(model="c")):
            await store.add_prediction(one)
        assert await store.unfinished() == {"a": (2, 0), "b": (1, 1)}
        assert await store.change_prediction(Change(running.id, Progress.FAILED, finished=120.0))
        assert await store.unfinished() == {"a": (2, 0), "b": (1, 0)}

    with_store(case, tmp_path, body)


@every_store
def test_nothing_is_claimed_twice(case: Case, tmp_path: Path) -> None:
    """By many claims at once in one process."""

    async def body(store: Store) -> None:
        some = [waiting(created=float(n)) for n in range(600)]
        await asyncio.gather(*(store.add_prediction(one) for one in some))
        claims = await asyncio.gather(*(store.claim_predictions(f"w{n}", ["m"], lease_until=1.0, limit=40) for n in range(20)))
        ids = [one.id for claim in claims for one in claim]
        assert sorted(ids) == sorted(one.id for one in some)

    with_store(case, tmp_path, body)


@every_shared_store
def test_stores_on_one_database_claim_for_themselves(case: Case, tmp_path: Path) -> None:
    """Three stores, each with threads of its own, share the work without a second helping."""

    async def body(stores: list[Store]) -> None:
        some = [waiting(created=float(n)) for n in range(300)]
        await asyncio.gather(*(stores[n % 3].add_prediction(one) for n, one in enumerate(some)))

        async def work(store: Store, owner: str) -> list[str]:
            ids = []
            while claim := await store.claim_predictions(owner, ["m"], lease_until=1.0, limit=7):
                ids += [one.id for one in claim]
                assert all(await asyncio.gather(*(store.change_prediction(done(one)) for one in claim)))
            return ids

        taken = await asyncio.gather(*(work(store, str(n)) for n, store in enumerate(stores)))
        assert sorted(one for ids in taken for one in ids) == sorted(one.id for one in some)
        assert all(found is not None and found.progress is Progress.SUCCEEDED for found in [await stores[0].prediction(p.id) for p in some])

    with_stores(case, tmp_path, 3, body)


@every_shared_store
def test_stores_on_one_database_race_for_one_change(case: Case, tmp_path: Path) -> None:
    """Compare-and-set holds between them."""

    async def body(stores: list[Store]) -> None:
        for n in range(20):
            one = claimed()
            await stores[n % 2].add_prediction(one)
            results = await asyncio.gather(*(store.change_prediction(done(one, outputs=b"%d" % m)) for m, store in enumerate(stores)))
            assert sorted(results) == [False, True]
            found = await stores[0].prediction(one.id)
            assert found is not None
            assert found.outputs == b"%d" % results.index(True)

    with_stores(case, tmp_path, 2, body)


@every_store
def test_orphans_are_those_whose_lease_is_over_or_whose_owner_is_dead(case: Case, tmp_path: Path) -> None:
    """The oldest first, and without payloads."""

    async def body(store: Store) -> None:
        over = claimed(created=3.0, lease_until=9.9, inputs=LARGE, logs="x")
        running = claimed(created=1.0, progress=Progress.RUNNING, lease_until=9.0)
        of_dead = claimed("dead", created=2.0, lease_until=99.0)
        fine = claimed(created=0.0, lease_until=10.0)
        for one in (over, running, of_dead, fine, waiting(), ended(owner="dead", lease_until=1.0)):
            await store.add_prediction(one)
        bare = {"inputs": b"", "outputs": None, "logs": ""}
        assert await store.orphans(now=10.0) == [replace(running, **bare), replace(over, **bare)]  # type: ignore[arg-type]
        assert [one.id for one in await store.orphans(now=0.0, dead=["dead", "x"])] == [of_dead.id]
        assert [one.id for one in await store.orphans(now=10.0, dead=["dead"])] == [running.id, of_dead.id, over.id]

    with_store(case, tmp_path, body)


@every_store
def test_owners_are_those_who_have_work(case: Case, tmp_path: Path) -> None:
    """Each once, in order; those of ended predictions are none."""

    async def body(store: Store) -> None:
        assert await store.owners() == []
        for one in (claimed("b"), claimed("b"), claimed("a", progress=Progress.RUNNING), ended(owner="c"), waiting()):
            await store.add_prediction(one)
        assert await store.owners() == ["a", "b"]

    with_store(case, tmp_path, body)


@every_store
def test_leases_are_renewed_for_one_owner(case: Case, tmp_path: Path) -> None:
    """Of what it has CLAIMED or RUNNING and names, and nothing else."""

    async def body(store: Store) -> None:
        mine, running, other = claimed(), claimed(progress=Progress.RUNNING), claimed("you")
        over = ended(owner="me")
        for one in (mine, running, other, over):
            await store.add_prediction(one)
        unheard = claimed()
        await store.add_prediction(unheard)
        ids = [one.id for one in (mine, running, other, over)] * 300
        await store.renew_leases("me", ids, 500.0)
        await store.renew_leases("nobody", ids, 600.0)
        await store.renew_leases("me", [], 700.0)
        leases = [found.lease_until for one in (mine, running, other, over, unheard) if (found := await store.prediction(one.id))]
        assert leases == [500.0, 500.0, 200.0, 200.0, 200.0]

    with_store(case, tmp_path, body)


@every_store
def test_an_owner_learns_what_was_taken_from_it(case: Case, tmp_path: Path) -> None:
    """Cancelled, removed, given to another; not what it has, nor what it ended itself."""

    async def body(store: Store) -> None:
        kept, cancelled, taken, finished = claimed(), claimed(progress=Progress.RUNNING), claimed(), claimed()
        for one in (kept, cancelled, taken, finished):
            await store.add_prediction(one)
        assert await store.change_prediction(Change(cancelled.id, Progress.CANCELLED, finished=1.0))
        assert await store.change_prediction(Change(taken.id, Progress.PENDING))
        assert await store.change_prediction(done(finished))
        ids = [one.id for one in (taken, kept, cancelled, finished)]
        assert await store.cancelled_of("me", [*ids, "gone"]) == [taken.id, cancelled.id, "gone"]
        assert await store.cancelled_of("me", []) == []
        assert await store.cancelled_of("you", [kept.id]) == [kept.id]
        many = [f"{n:032x}" for n in range(1200)]
        assert await store.cancelled_of("me", [*many, kept.id]) == many

    with_store(case, tmp_path, body)


# --- the end ---


@every_store
def test_webhooks_that_are_due(case: Case, tmp_path: Path) -> None:
    """Of what has ended, whatever way, until delivered; the longest ended first."""

    async def body(store: Store) -> None:
        late = ended(webhook="https://x", finished=9.0, outputs=LARGE)
        early = ended(Progress.CANCELLED, webhook="https://x", finished=3.0)
        failed = ended(Progress.FAILED, webhook="https://x", finished=5.0)
        others = [ended(), ended(webhook="https://x", delivered=True), claimed(webhook="https://x"), waiting(webhook="https://x")]
        for one in (late, early, failed, *others):
            await store.add_prediction(one)
        found = await store.undelivered(10)
        assert [one.id for one in found] == [early.id, failed.id, late.id]
        assert found[2].outputs == LARGE
        assert [one.id for one in await store.undelivered(1)] == [early.id]
        assert await store.change_prediction(Change(early.id, expect=frozenset({Progress.CANCELLED}), delivered=True))
        assert [one.id for one in await store.undelivered(10)] == [failed.id, late.id]

    with_store(case, tmp_path, body)


@every_store
def test_what_ended_long_ago_is_removed(case: Case, tmp_path: Path) -> None:
    """The longest ended first, up to the limit; never what waits or runs."""

    async def body(store: Store) -> None:
        some = [ended(finished=float(n), outputs=LARGE if n == 1 else b"x", webhook="https://x") for n in range(5)]
        active = [waiting(created=0.0), claimed(created=0.0), claimed(created=0.0, progress=Progress.RUNNING, started=0.0)]
        for one in (*reversed(some), *active):
            await store.add_prediction(one)
        assert await store.remove_predictions(finished_before=4.0, limit=2) == [some[0].id, some[1].id]
        assert await store.remove_predictions(finished_before=4.0, limit=100) == [some[2].id, some[3].id]
        assert await store.remove_predictions(finished_before=4.0, limit=100) == []
        assert [await store.prediction(one.id) for one in some] == [None, None, None, None, some[4]]
        assert [await store.prediction(one.id) for one in active] == active

    with_store(case, tmp_path, body)


@every_store
def test_more_than_one_statement_takes_can_be_removed(case: Case, tmp_path: Path) -> None:
    """Over a thousand at once."""

    async def body(store: Store) -> None:
        some = [ended(finished=float(n)) for n in range(1100)]
        await asyncio.gather(*(store.add_prediction(one) for one in some))
        assert await store.remove_predictions(finished_before=2000.0, limit=5000) == [one.id for one in some]

    with_store(case, tmp_path, body)


@every_store
def test_a_closed_store_refuses(case: Case, tmp_path: Path) -> None:
    """UNAVAILABLE at once; closing twice is no error."""

    async def run() -> None:
        store = await case.open(tmp_path)
        await store.close()
        await store.close()
        for call in (store.versions(), store.add_prediction(waiting()), store.add_prediction(waiting(inputs=LARGE))):
            assert (await refused(call)).kind is Kind.UNAVAILABLE

    asyncio.run(run())


@every_shared_store
def test_everything_is_there_after_a_restart(case: Case, tmp_path: Path) -> None:
    """In a store that is opened anew at the same place."""
    one, result = claimed(inputs=LARGE), ended(outputs=LARGE, logs="x")

    async def fill(store: Store) -> None:
        await store.add_version(version(), aliases=["a"])
        await store.add_prediction(one)
        await store.add_prediction(result)

    async def look(store: Store) -> None:
        assert await store.versions() == [as_stored(version())]
        assert await store.aliases() == {("m", "a"): "1"}
        assert await store.prediction(one.id) == one
        assert await store.prediction(result.id) == result

    with_store(case, tmp_path, fill)
    with_store(case, tmp_path, look)


# --- the fake is as good as the real one ---

IDS = [f"{n:032x}" for n in range(3)]
some_id = st.sampled_from(IDS)
some_owner = st.sampled_from(["a", "b"])
some_change = st.builds(
    lambda i, p, e, o, a, out, logs: Change(
        i, p, expect=e, owner=o, attempt=a, outputs=out, logs=logs, finished=9.0 if p and p.terminal else None
    ),
    some_id,
    st.none() | st.sampled_from(Progress),
    st.frozensets(st.sampled_from(Progress), max_size=2),
    st.none() | some_owner,
    st.none() | st.integers(0, 2),
    st.none() | st.binary(max_size=3),
    st.none() | st.text("ab", max_size=3),
)
Step = Callable[[Store], Awaitable[object]]
some_step: st.SearchStrategy[Step] = st.one_of(
    st.builds(lambda i, o: lambda s: s.add_prediction(claimed(o, id=i, created=float(IDS.index(i)))), some_id, some_owner),
    st.builds(lambda i: lambda s: s.add_prediction(waiting(id=i, created=5.0)), some_id),
    st.builds(lambda c: lambda s: s.change_prediction(c), some_change),
    st.builds(lambda o, n: lambda s: s.claim_predictions(o, ["m"], lease_until=7.0, limit=n), some_owner, st.integers(0, 3)),
    st.builds(lambda o, ids: lambda s: s.renew_leases(o, ids, 300.0), some_owner, st.lists(some_id, max_size=2)),
    st.builds(lambda o: lambda s: s.cancelled_of(o, IDS), some_owner),
    st.builds(lambda now, o: lambda s: s.orphans(now=now, dead=[o]), st.sampled_from([0.0, 250.0]), some_owner),
    st.builds(lambda: lambda s: s.owners()),
    st.builds(lambda: lambda s: s.pending_models()),
    st.builds(lambda: lambda s: s.unfinished()),
    st.builds(lambda n: lambda s: s.remove_predictions(finished_before=10.0, limit=n), st.integers(1, 2)),
)


async def outcome(store: Store, step: Step) -> object:
    try:
        return await step(store)
    except ServingError as error:
        return error.kind


def test_the_fake_answers_as_the_real_store_does(tmp_path: Path) -> None:
    """The same random histories, step by step: what tests of other parts see is what the server does."""

    async def run() -> None:
        real = await SQLITE.open(tmp_path)
        loop = asyncio.get_running_loop()

        @given(st.lists(some_step, max_size=15))
        def history(steps: list[Step]) -> None:
            asyncio.run_coroutine_threadsafe(compare(steps), loop).result(60)

        async def compare(steps: list[Step]) -> None:
            fake = await MEMORY.open(tmp_path)
            for one in IDS:  # what an earlier history left
                await real.change_prediction(Change(one, Progress.CANCELLED, finished=0.0))
            await real.remove_predictions(finished_before=1e9, limit=100)
            for step in steps:
                assert await outcome(real, step) == await outcome(fake, step)
                for one in IDS:
                    assert await real.prediction(one) == await fake.prediction(one)

        try:
            await asyncio.to_thread(history)
        finally:
            await real.close()

    asyncio.run(run())
