"""The Kinesis connector: over moto for what that has, over a fake of ours for ends of shards, expiry, throttling and refusals."""

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.late_store import LateStore
from dragoman.store import Edit, Store
from dragoman.streams import Lane, Message, Outgoing, Surroundings
from dragoman.streams.addresses import parse_stream
from dragoman.streams.kinesis import Kinesis
from dragoman.streams.kinesis_lease import KIND
from dragoman.streams.kinesis_shards import Checkpoint, Place, Shard, Start, checkpoint, readable
from tests import brokers
from tests.fakes_kinesis import FakeKinesis
from tests.fakes_store import FakeStore
from tests.stores import SHARED, Case, with_store
from tests.streams_reading import Lost, run, some, values

FAST = "poll=0.01"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any keys do."""
    for name, value in brokers.KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def fake() -> Iterator[FakeKinesis]:
    with FakeKinesis() as made:
        made.stream("in")
        made.stream("out")
        yield made


def late(store: Store) -> LateStore:
    async def opened() -> Store:
        return store

    return LateStore(opened)


def connector(url: str, store: Store, stream: str = "in", query: str = FAST, client: str = "tests") -> Kinesis:
    return Kinesis(parse_stream(f"kinesis://{stream}?endpoint={url}&{query}"), Surroundings(client, late(store)))


async def answered(made: Kinesis, count: int) -> list[int]:
    """Fetch so many, commit all of them; their values."""
    messages = await some(made, count)
    await made.commit({message.lane: message for message in messages})
    return values(messages)


# --- over moto ---


def test_every_shard_is_read_and_the_place_is_kept() -> None:
    """What was committed does not come again after a restart, what was not does."""
    broker, store = brokers.kinesis(), FakeStore()
    stream = broker.stream(shards=3)
    left: list[tuple[bytes | None, bytes]] = []
    for key in "abcdef":
        broker.send(stream, 1, 2, key=key)

    async def first(made: Kinesis, reader: Lost) -> None:
        messages = await some(made, 12)
        assert len({message.lane for message in messages}) == 3
        assert {message.key for message in messages} == {key.encode() for key in "abcdef"}
        assert values([message for message in messages if message.key == b"a"]) == [1, 2]
        last = messages[-1].lane
        left.extend((message.key, message.value) for message in messages if message.lane is last)
        await made.commit({message.lane: message for message in messages if message.lane is not last})
        assert not reader.lanes

    async def second(made: Kinesis, reader: Lost) -> None:
        del reader
        assert [(message.key, message.value) for message in await some(made, len(left))] == left
        broker.send(stream, 3, key="a")
        assert values(await some(made, 1)) == [3]

    run(connector(broker.url, store, stream), first)
    run(connector(broker.url, store, stream), second)


def test_answers_keep_their_partition_key() -> None:
    """Written in order for each key."""
    broker, store = brokers.kinesis(), FakeStore()
    stream, out = broker.stream(), broker.stream(shards=2)
    broker.send(stream, 1, 2, 3, key="a")

    async def check(made: Kinesis, reader: Lost) -> None:
        del reader
        answers = [Outgoing(out, message.value, message, message.key) for message in await some(made, 3)]
        assert await made.publish(answers) == [None] * 3
        records = await asyncio.to_thread(broker.received, out, 3)
        assert [(record.json, record.key) for record in records] == [(1, "a"), (2, "a"), (3, "a")]

    run(connector(broker.url, store, stream), check)


def test_latest_means_from_the_first_start_on() -> None:
    """What came before is left alone; what came after the first start and before its first commit is not missed by the second."""
    broker, store = brokers.kinesis(), FakeStore()
    stream = broker.stream()
    broker.send(stream, 1)
    old = time.time()
    brokers.eventually(lambda: time.time() > int(old) + 1.1)  # Kinesis' clock is told in whole seconds

    async def first(made: Kinesis, reader: Lost) -> None:
        del made, reader

    async def second(made: Kinesis, reader: Lost) -> None:
        del reader
        assert await answered(made, 1) == [2]

    run(connector(broker.url, store, stream, f"{FAST}&start=latest"), first)
    broker.send(stream, 2)
    run(connector(broker.url, store, stream, f"{FAST}&start=latest"), second)


def test_a_stream_that_is_not_there_yet_is_waited_for() -> None:
    """It is unavailable and no mistake."""
    made = connector(brokers.kinesis().url, FakeStore(), brokers.fresh())

    async def refused() -> None:
        with pytest.raises(ServingError, match="there is no stream") as caught:
            await made.open(Lost())
        assert caught.value.kind is Kind.UNAVAILABLE
        await made.close()

    asyncio.run(refused())


# --- over the fake ---


def test_children_are_read_after_their_parents(fake: FakeKinesis) -> None:
    """The order of a key outlives a split and a merge, and what is in no answer yet holds its children back."""

    async def check(made: Kinesis, reader: Lost) -> None:
        fake.put("in", 1, 2, key="a")
        before = await some(made, 2)
        fake.split("in", "shardId-000000000000")
        fake.put("in", 3, key="a")
        assert not await made.fetch(1, ())
        await made.commit({before[0].lane: before[-1]})
        assert await answered(made, 1) == [3]
        fake.merge("in", "shardId-000000000001", "shardId-000000000002")
        fake.put("in", 4, key="a")
        assert await answered(made, 1) == [4]
        assert sorted(lane.native for lane in reader.lanes) == [f"shardId-00000000000{index}" for index in range(3)]

    run(connector(fake.url, FakeStore()), check)


def test_a_restart_between_parent_and_child_misses_nothing(fake: FakeKinesis) -> None:
    """The end of a shard is in the store: a new process begins with its children."""
    store = FakeStore()
    fake.put("in", 1)
    fake.split("in", "shardId-000000000000")
    fake.put("in", 2)

    async def first(made: Kinesis, reader: Lost) -> None:
        assert await answered(made, 1) == [1]
        assert [lane.native for lane in reader.lanes] == ["shardId-000000000000"]

    async def second(made: Kinesis, reader: Lost) -> None:
        del reader
        assert await answered(made, 1) == [2]

    run(connector(fake.url, store), first)
    run(connector(fake.url, store), second)


def test_iterators_are_renewed(fake: FakeKinesis) -> None:
    """One that has expired is replaced by one behind the last record that was read."""

    async def check(made: Kinesis, reader: Lost) -> None:
        del reader
        fake.put("in", 1)
        assert values(await some(made, 1)) == [1]
        fake.expire()
        fake.put("in", 2)
        assert values(await some(made, 1)) == [2]

    run(connector(fake.url, FakeStore()), check)


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("GetRecords", "ProvisionedThroughputExceededException"),
        ("GetRecords", "ExpiredTokenException"),
        ("GetShardIterator", "InternalFailure"),
    ],
)
def test_reading_goes_on_after_what_passes(fake: FakeKinesis, operation: str, code: str) -> None:
    """Throttling is waited out in silence, other failures are told and tried again."""

    async def check(made: Kinesis, reader: Lost) -> None:
        assert values(await some(made, 2)) == [1, 2]
        assert not reader.lanes

    fake.put("in", 1, 2)
    fake.fail(operation, code, code)
    run(connector(fake.url, FakeStore()), check)


def test_records_that_are_refused_are_written_again_in_order(fake: FakeKinesis) -> None:
    """Only those, and what follows with the same key waits for them."""
    about = Message(Lane("x"), "1", b"", "in")
    answers = [Outgoing("out", b"%d" % n, about, b"a" if n % 2 else b"b") for n in range(6)]

    async def check(made: Kinesis, reader: Lost) -> None:
        del reader
        fake.refuse(True, False, True)
        assert await made.publish(answers) == [None] * 6
        assert [value for value in fake.values("out") if value % 2] == [1, 3, 5]
        assert [value for value in fake.values("out") if not value % 2] == [0, 2, 4]

    run(connector(fake.url, FakeStore()), check)


def test_what_can_never_be_written_has_its_own_outcome(fake: FakeKinesis) -> None:
    """Too large, too long a key, no name of a stream: the others are written."""
    about = Message(Lane("x"), "1", b"", "in")
    answers = [
        Outgoing("out", b"x" * (1 << 20), about, b"a"),
        Outgoing("out", b"1", about, b"k" * 257),
        Outgoing("a/b", b"1", about),
        Outgoing("out", b"2", about),
    ]

    async def check(made: Kinesis, reader: Lost) -> None:
        del reader
        outcomes = await made.publish(answers)
        assert [outcome and outcome.kind for outcome in outcomes] == [Kind.TOO_LARGE, Kind.INVALID_INPUT, Kind.INVALID_INPUT, None]
        assert fake.values("out") == [2]

    run(connector(fake.url, FakeStore()), check)


def test_one_bad_record_does_not_take_its_neighbours_with_it(fake: FakeKinesis) -> None:
    """Kinesis refuses the whole call without saying which: they are written one by one."""
    about = Message(Lane("x"), "1", b"", "in")

    async def check(made: Kinesis, reader: Lost) -> None:
        del reader
        fake.fail("PutRecords", "ValidationException", "ValidationException")
        first, second = await made.publish([Outgoing("out", b"1", about, b"a"), Outgoing("out", b"2", about, b"b")])
        assert first is not None
        assert first.kind is Kind.INVALID_INPUT
        assert second is None
        assert fake.values("out") == [2]

    run(connector(fake.url, FakeStore()), check)


def test_a_stream_that_was_made_anew_is_read_from_its_beginning(fake: FakeKinesis) -> None:
    """Places in the old one mean nothing."""
    store = FakeStore()

    async def check(made: Kinesis, reader: Lost) -> None:
        fake.put("in", 1, 2)
        assert await answered(made, 2) == [1, 2]
        fake.fail("GetRecords", "ResourceNotFoundException")
        fake.created += 100
        fake.stream("in")
        fake._sequence = 0
        fake.put("in", 3)
        assert await answered(made, 1) == [3]
        assert reader.lanes

    run(connector(fake.url, store), check)


def test_one_server_reads_for_a_group(fake: FakeKinesis) -> None:
    """Another waits, and goes on where the first one stopped as soon as that has ended."""
    store = FakeStore()
    fake.put("in", 1, 2)
    second = connector(fake.url, store, client="elsewhere")

    async def check(first: Kinesis, reader: Lost) -> None:
        del reader
        with pytest.raises(ServingError, match="is read by tests@") as refused:
            await second.open(Lost())
        assert refused.value.kind is Kind.UNAVAILABLE
        (message,) = await some(first, 1)
        await first.commit({message.lane: message})
        await first.close()
        await second.open(Lost())
        assert await answered(second, 1) == [2]
        await second.close()

    run(connector(fake.url, store), check)


def test_who_lost_the_stream_commits_nothing(fake: FakeKinesis) -> None:
    """Another server took over from one that was away for too long: its lanes are gone, and its places are not written."""
    store = FakeStore()
    fake.put("in", 1)

    async def check(made: Kinesis, reader: Lost) -> None:
        (message,) = await some(made, 1)
        key = f"{fake.url}/in/dragoman"

        def taken(found: Any) -> Any:
            return {**found, "owner": "somebody", "until": time.time() + 100}

        await store.edit_document(KIND, key, taken)
        with pytest.raises(ServingError, match="another server"):
            await made.commit({message.lane: message})
        assert [lane.native for lane in reader.lanes] == [message.lane.native]
        found = checkpoint(await store.document(KIND, key))
        assert found is not None
        assert not found.places

    run(connector(fake.url, store), check)


@pytest.mark.parametrize("case", SHARED, ids=str)
def test_places_are_kept_in_every_store(fake: FakeKinesis, case: Case, tmp_path: Path) -> None:
    """SQLite and PostgreSQL: a process that was killed goes on where it was, at once."""
    fake.stream("in", 2)
    for key in "ab":
        fake.put("in", 1, 2, key=key)

    async def check(store: Store) -> None:
        killed, made = (connector(fake.url, store) for _ in range(2))
        await killed.open(Lost())
        try:
            assert sorted(await answered(killed, 4)) == [1, 1, 2, 2]
            fake.put("in", 3)
            await made.open(Lost())
            assert await answered(made, 1) == [3]
        finally:
            await made.close()
            await killed.close()

    with_store(case, tmp_path, check)


def test_groups_have_places_of_their_own(fake: FakeKinesis) -> None:
    """Each reads everything."""
    store = FakeStore()
    fake.put("in", 1)
    for group in ("one", "two"):

        async def check(made: Kinesis, reader: Lost) -> None:
            del reader
            assert await answered(made, 1) == [1]

        run(connector(fake.url, store, query=f"{FAST}&group={group}"), check)


def test_no_more_is_read_than_there_is_room_for(fake: FakeKinesis) -> None:
    """A shard is read again when what it has brought was taken."""
    fake.put("in", *range(50))

    async def check(made: Kinesis, reader: Lost) -> None:
        del reader
        assert not await made.fetch(0, ())
        assert fake.calls["GetRecords"] == 1
        assert values(await some(made, 50)) == list(range(50))
        assert not await made.fetch(1, ())
        assert await made.lag() == {"in/shardId-000000000000": 0}

    run(connector(fake.url, FakeStore(), query=f"{FAST}&in_flight=5"), check)


def test_cancelling_loses_nothing(fake: FakeKinesis) -> None:
    """Whoever waits may be cancelled at any moment, while the stream is opened, too."""
    fake.put("in", *range(5))
    made = connector(fake.url, FakeStore())

    async def cancelled(what: Coroutine[Any, Any, object], turns: int) -> None:
        task = asyncio.create_task(what)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    async def check() -> None:
        try:
            for turns in range(12):
                await cancelled(made.open(Lost()), turns)
            await made.open(Lost())
            for turns in range(6):
                await cancelled(made.fetch(0, ()), turns)
            messages = await some(made, 5)
            assert values(messages) == list(range(5))
            for turns in range(6):
                await cancelled(made.commit({messages[0].lane: messages[turns % 5]}), turns)
            await made.commit({messages[0].lane: messages[-1]})
        finally:
            await made.close()

    asyncio.run(asyncio.wait_for(check(), brokers.DEADLINE_S))


def test_a_store_that_is_away_delays_places_only(fake: FakeKinesis) -> None:
    """Reading goes on; the commit says that it did not happen, and may be repeated."""
    store = Failing()
    fake.put("in", 1)

    async def check(made: Kinesis, reader: Lost) -> None:
        (message,) = await some(made, 1)
        store.away = True
        with pytest.raises(ServingError, match="away") as failed:
            await made.commit({message.lane: message})
        assert failed.value.kind is Kind.UNAVAILABLE
        fake.put("in", 2)
        assert values(await some(made, 1)) == [2]
        store.away = False
        await made.commit({message.lane: message})
        assert not reader.lanes

    run(connector(fake.url, store), check)


class Failing(FakeStore):
    """A store that fails while it is away."""

    away = False

    async def edit_document(self, kind: str, key: str, edit: Edit, *, group: str = "", rings: bool = False) -> Mapping[str, Any]:
        if self.away:
            raise ServingError(Kind.UNAVAILABLE, "the database is away")
        return await super().edit_document(kind, key, edit, group=group, rings=rings)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDeniedException", Kind.FORBIDDEN),
        ("UnrecognizedClientException", Kind.UNAUTHENTICATED),
        ("InternalFailure", Kind.UNAVAILABLE),
    ],
)
def test_who_may_not_read_is_told_so(fake: FakeKinesis, code: str, kind: Kind) -> None:
    """What no waiting mends ends the stream with its reason."""
    fake.fail("DescribeStreamSummary", code)

    async def refused() -> None:
        made = connector(fake.url, FakeStore())
        with pytest.raises(ServingError, match="Kinesis") as caught:
            await made.open(Lost())
        assert caught.value.kind is kind
        await made.close()

    asyncio.run(refused())


def test_missing_credentials_are_named(fake: FakeKinesis, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variables that bring them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")

    async def refused() -> None:
        made = connector(fake.url, FakeStore())
        with pytest.raises(ServingError, match="AWS_ACCESS_KEY_ID") as caught:
            await made.open(Lost())
        assert caught.value.kind is Kind.UNAUTHENTICATED
        await made.close()

    asyncio.run(refused())


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("in?out=in", "its own input"),
        ("in?out=a/b", "must name streams"),
        ("in?endpoint=ftp://x", "endpoint"),
        ("in?endpoint=http://user:secret@host", "endpoint"),
        ("in?start=middle", "start"),
        ("in?poll=0", "poll"),
        ("in?nonsense=1", "nonsense"),
    ],
)
def test_addresses_that_cannot_work_are_refused(address: str, words: str) -> None:
    """At once, and in words that name what is wrong."""
    with pytest.raises(ServingError, match="stream") as refused:
        Kinesis(parse_stream(f"kinesis://{address}"), Surroundings("tests"))
    assert refused.value.kind is Kind.INVALID_INPUT
    assert words in refused.value.message
    assert "secret" not in refused.value.message


# --- pure ---


def test_shards_are_readable_when_no_parent_is_left() -> None:
    """Parents that Kinesis has forgotten hold nobody back."""
    shards = [Shard("1", (), True), Shard("2", ("1",)), Shard("3", ("1", "9")), Shard("4", ("8",))]
    assert readable(shards, {}) == ["1", "4"]
    assert readable(shards, {"1": Place("5")}) == ["1", "4"]
    assert readable(shards, {"1": Place("5", True)}) == ["2", "3", "4"]


def test_places_never_go_back() -> None:
    """Numbers are compared as numbers, and an end stays one."""
    stands = Checkpoint("x", Start(1.5), {"1": Place("10", True)})
    assert stands.at({"1": Place("9")}) == stands
    assert stands.at({"1": Place("11"), "2": Place("1")}).places == {"1": Place("11", True), "2": Place("1")}
    assert stands.without(()).places == {}
    assert Checkpoint(places={"1": Place("1")}).without(()).places == {"1": Place("1")}


def test_a_checkpoint_is_read_as_it_was_written() -> None:
    """From JSON and into it."""
    stands = Checkpoint("x", Start(1.5), {"1": Place("10", True)}, "me", 7.5)
    assert checkpoint(stands.written()) == stands
    assert checkpoint(None) is None
