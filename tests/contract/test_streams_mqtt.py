"""The MQTT connector against mosquitto: sessions that outlive connections, brokers and readers; back-pressure; what MQTT 5 carries; TLS."""

import asyncio
import signal
from collections.abc import Awaitable, Mapping

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import EMPTY
from dragoman.streams import Lane, Message, Outgoing, Surroundings
from dragoman.streams.addresses import parse_stream
from dragoman.streams.mqtt import Mqtt, matches
from tests import brokers
from tests.ports import free_port
from tests.streams_reading import Lost, run, some, values
from tests.tcp_line import Line


def connector(
    topic: str, query: str = "", *, port: int = 0, scheme: str = "mqtt", host: str = "", environ: Mapping[str, str] = EMPTY
) -> Mqtt:
    where = host or f"127.0.0.1:{port or brokers.mosquitto().port}"
    return Mqtt(parse_stream(f"{scheme}://{where}/{topic}?group={topic[:12].strip('$/')}&{query}"), Surroundings("tests", None, environ))


async def some_without_end(made: Mqtt) -> None:
    """Wait for messages that must not come, until it fails."""
    while True:
        assert not await made.fetch(1, ())


def missed(topic: str, *messages: int) -> None:
    """Have a session of the connector of `topic` at the broker, and these messages wait for it."""

    async def nothing(made: Mqtt, reader: Lost) -> None:
        del made, reader

    run(connector(topic), nothing)
    brokers.mosquitto().send(topic, *messages)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_what_came_while_nobody_was_there_waits(version: str) -> None:
    """The session outlives its connection, with the same client id each time."""
    topic = brokers.fresh()

    async def first(made: Mqtt, reader: Lost) -> None:
        del reader
        brokers.mosquitto().send(topic, 1)
        (message,) = await some(made, 1)
        await made.commit({message.lane: message})

    async def second(made: Mqtt, reader: Lost) -> None:
        assert values(await some(made, 2)) == [2, 3]
        assert not reader.lanes

    run(connector(topic, f"version={version}"), first)
    brokers.mosquitto().send(topic, 2, 3)
    run(connector(topic, f"version={version}"), second)


def test_what_was_not_acknowledged_comes_again() -> None:
    """A commit acknowledges a message and all before it; the rest is for whoever comes next."""
    topic = brokers.fresh()
    missed(topic, 1, 2, 3, 4)

    async def first(made: Mqtt, reader: Lost) -> None:
        del reader
        messages = await some(made, 4)
        assert values(messages) == [1, 2, 3, 4]
        await made.commit({messages[0].lane: messages[1]})

    async def second(made: Mqtt, reader: Lost) -> None:
        del reader
        assert values(await some(made, 2)) == [3, 4]

    run(connector(topic), first)
    run(connector(topic), second)


def test_the_broker_sends_no_more_than_the_window() -> None:
    """With MQTT 5 the window is asked of the broker, and what is beyond it stays there."""
    topic = brokers.fresh()
    missed(topic, *range(10))

    async def check(made: Mqtt, reader: Lost) -> None:
        del reader
        messages = await some(made, 4)
        assert not await made.fetch(4, ())
        await made.commit({messages[0].lane: messages[-1]})
        assert values(await some(made, 4)) == [4, 5, 6, 7]

    run(connector(topic, "in_flight=1"), check)


def test_messages_of_qos_0_are_braked_and_not_dropped() -> None:
    """They have no window: the connection is not read while there are too many, and all arrive."""
    topic = brokers.fresh()

    async def check(made: Mqtt, reader: Lost) -> None:
        del reader
        await asyncio.to_thread(brokers.mosquitto().send, topic, *range(500), qos=0)
        assert not await made.fetch(0, ())
        assert values(await some(made, 500)) == list(range(500))

    run(connector(topic, "in_flight=10"), check)


def test_a_paused_lane_is_not_read() -> None:
    """The bridge pauses what it has no room for."""
    topic = brokers.fresh()
    missed(topic, 1)

    async def check(made: Mqtt, reader: Lost) -> None:
        del reader
        (first,) = await some(made, 1)
        brokers.mosquitto().send(topic, 2)
        assert not await made.fetch(5, [first.lane])

    run(connector(topic), check)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_broker_that_restarts_keeps_everything(version: str) -> None:
    """The lane is lost and another takes its place; what was not acknowledged comes again, and so does what follows."""
    topic = brokers.fresh()
    broker = brokers.mosquitto()

    async def check(made: Mqtt, reader: Lost) -> None:
        broker.send(topic, 1, 2)
        before = await some(made, 2)
        await made.commit({before[0].lane: before[0]})
        assert not await made.fetch(1, ())
        await asyncio.to_thread(broker.restart)
        await asyncio.to_thread(broker.send, topic, 3)
        after = await some(made, 2)
        assert values(after) == [2, 3]
        assert reader.lanes == [before[0].lane]
        assert after[0].lane is not before[0].lane
        await made.commit({before[0].lane: before[1]})

    run(connector(topic, f"version={version}"), check)


def test_a_broker_that_forgot_the_session_is_subscribed_to_again() -> None:
    """It was killed and has lost its sessions: the subscription is made anew, by itself."""
    topic = brokers.fresh()
    broker = brokers.mosquitto()

    async def check(made: Mqtt, reader: Lost) -> None:
        await made.fetch(1, ())
        await asyncio.to_thread(broker.restart, signal.SIGKILL)
        while not reader.lanes or not await _quietly(made.fetch(1, ())):
            await _quietly(made.fetch(1, ()))
        await asyncio.to_thread(broker.send, topic, 7)
        assert values(await some(made, 1)) == [7]

    run(connector(topic), check)


async def _quietly(what: Awaitable[object]) -> bool:
    try:
        await what
    except ServingError:
        await asyncio.sleep(0.02)
        return False
    return True


def test_a_cut_connection_is_made_again() -> None:
    """Answers that were being written are reported as not written, and can be written again."""
    topic, out = brokers.fresh(), brokers.fresh()
    broker = brokers.mosquitto()
    with Line(broker.port) as line, broker.listen(out) as listener:

        async def check(made: Mqtt, reader: Lost) -> None:
            await asyncio.to_thread(broker.send, topic, 1)
            (message,) = await some(made, 1)
            line.cut_at(b"marked", answered=False)
            answers = [Outgoing(out, b"marked", message), Outgoing(out, b"second", message)]
            with pytest.raises(ServingError, match="was lost") as refused:
                await made.publish(answers)
            assert refused.value.kind is Kind.UNAVAILABLE
            assert await made.publish(answers) == [None, None]
            assert [await asyncio.to_thread(listener.next) for _ in answers]
            assert not reader.lanes

        run(connector(topic, port=line.port), check)


def test_a_broker_that_hangs_is_found_out() -> None:
    """Its connection is given up after `keep_alive`, twice; when it goes on, what was not acknowledged is there again."""
    topic, broker = brokers.fresh(), brokers.mosquitto()

    async def check(made: Mqtt, reader: Lost) -> None:
        await asyncio.to_thread(broker.send, topic, 1)
        (message,) = await some(made, 1)
        broker.freeze()
        try:
            with pytest.raises(ServingError, match="is gone") as lost:
                await some_without_end(made)
            assert lost.value.kind is Kind.UNAVAILABLE
        finally:
            broker.thaw()
        assert reader.lanes == [message.lane]
        assert values(await some(made, 1)) == [1]

    run(connector(topic, "keep_alive=1"), check)


def test_a_broker_that_greets_and_goes() -> None:
    """As one does that is about to end: the connection is not taken for one, and the next is made."""
    out, port = brokers.fresh(), brokers.mosquitto().port
    goes = 0

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal goes
        hello = await reader.read(1000)
        if goes:
            goes -= 1
            writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK, and the end in the same moment
            writer.close()
            return
        inwards, outwards = await asyncio.open_connection("127.0.0.1", port)
        outwards.write(hello)
        await asyncio.wait({asyncio.create_task(_carried(reader, outwards)), asyncio.create_task(_carried(inwards, writer))})

    async def check() -> None:
        nonlocal goes
        async with await asyncio.start_server(welcome, "127.0.0.1", 0) as server:
            made = connector(brokers.fresh(), port=server.sockets[0].getsockname()[1])
            try:
                await made.open(Lost())
                await made._writing.close()
                goes = 3
                answer = [Outgoing(out, b"1", Message(Lane("l"), 1, b"", ""))]
                for _ in range(goes):
                    with pytest.raises(ServingError) as refused:
                        await made.publish(answer)
                    assert refused.value.kind is Kind.UNAVAILABLE
                assert await made.publish(answer) == [None]
            finally:
                await made.close()

    with brokers.mosquitto().listen(out) as listener:
        asyncio.run(asyncio.wait_for(check(), brokers.DEADLINE_S))
        assert listener.next().value == b"1"


async def _carried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


def test_a_connection_that_is_cut_while_it_acknowledges_brings_the_rest_again() -> None:
    """Of what was acknowledged the broker may not have heard."""
    topic, broker = brokers.fresh(), brokers.mosquitto()
    with Line(broker.port) as line:

        async def check(made: Mqtt, reader: Lost) -> None:
            await asyncio.to_thread(broker.send, topic, 1, 2)
            messages = await some(made, 2)
            line.cut_at(b"\x40\x02", answered=False)  # the beginning of an acknowledgement
            await made.commit({messages[0].lane: messages[0]})
            again = await some(made, 2)
            assert values(again) == [1, 2]
            assert reader.lanes == [messages[0].lane]
            await made.commit({messages[0].lane: messages[1]})
            await made.commit({again[0].lane: again[1]})
            assert line.cuts == 1

        run(connector(topic, port=line.port), check)


def test_an_answer_goes_where_the_request_says() -> None:
    """Response topic and correlation data of MQTT 5 lead back to the client, and user properties come along."""
    topic, reply, out = brokers.fresh(), brokers.fresh(), brokers.fresh()
    broker = brokers.mosquitto()
    with broker.listen(reply, out) as listener:

        async def check(made: Mqtt, reader: Lost) -> None:
            del reader
            broker.send(topic, 1, response_topic=reply, correlation=b"\x00\x01", headers={"trace": "é"})
            (message,) = await some(made, 1)
            assert (message.reply_to, message.headers) == (reply, [("trace", "é".encode())])
            answers = [Outgoing(reply, b"r", message, None, message.headers), Outgoing(out, b"o", message)]
            assert await made.publish(answers) == [None, None]
            records = {record.topic: record for record in await asyncio.to_thread(listener.take, 2)}
            assert (records[reply].correlation, records[reply].headers) == (b"\x00\x01", {"trace": "é"})
            assert (records[out].correlation, records[out].value) == (b"", b"o")

        run(connector(topic, f"out={out}"), check)


@pytest.mark.parametrize("query", ["replies=false", ""])
def test_an_answer_never_becomes_a_request(query: str) -> None:
    """A response topic that is among the input, or when they are switched off, is not used."""
    topic = brokers.fresh()

    async def check(made: Mqtt, reader: Lost) -> None:
        del reader
        brokers.mosquitto().send(f"{topic}/a", 1, response_topic=f"{topic}/b" if not query else "elsewhere")
        assert (await some(made, 1))[0].reply_to == ""

    run(connector(f"{topic}/%23", query), check)


def test_wildcards_bring_topics_in_order_of_each() -> None:
    """The topic of each message is its source and, behind wildcards, its key."""
    topic = brokers.fresh()

    async def check(made: Mqtt, reader: Lost) -> None:
        del reader
        for level in ("a", "b"):
            brokers.mosquitto().send(f"{topic}/{level}/x", 1, 2)
        messages = await some(made, 4)
        assert [message.source for message in messages] == [f"{topic}/a/x"] * 2 + [f"{topic}/b/x"] * 2
        assert messages[0].key == f"{topic}/a/x".encode()

    run(connector(f"{topic}/+/x"), check)


@pytest.mark.parametrize(("query", "key"), [("", None), ("ordered=true", "topic")])
def test_messages_of_one_topic_have_an_order_if_that_is_wanted(query: str, key: str | None) -> None:
    """Without it they run side by side, and a batch can be made of them."""
    topic = brokers.fresh()

    async def check(made: Mqtt, reader: Lost) -> None:
        del reader
        brokers.mosquitto().send(topic, 1)
        assert (await some(made, 1))[0].key == (key and topic.encode())

    run(connector(topic, query), check)


def test_shared_subscriptions_share() -> None:
    """Two clients of a group get each message once between them."""
    topic = brokers.fresh()
    first, second = (connector(f"$share/g/{topic}", f"client_id={brokers.fresh()}") for _ in range(2))

    async def both(one: Mqtt, reader: Lost) -> None:
        try:
            await second.open(reader)
            brokers.mosquitto().send(topic, *range(20))
            found: list[int] = []
            while len(found) < 20:
                for each in (one, second):
                    found += values(await each.fetch(20, ()))
            assert sorted(found) == list(range(20))
        finally:
            await second.close()

    run(first, both)


def test_who_is_thrown_out_says_so_before_it_comes_back() -> None:
    """Two clients of one id take each other's place; both see it, and each time is reported."""
    topic = brokers.fresh()
    other = connector(topic)

    async def check(made: Mqtt, reader: Lost) -> None:
        assert not await made.fetch(1, ())
        try:
            await other.open(reader)
            with pytest.raises(ServingError, match="is gone"):
                await made.fetch(1, ())
            assert not await made.fetch(1, ())
        finally:
            await other.close()

    run(connector(topic), check)


def test_publishing_to_no_topic_fails_that_message_only() -> None:
    """An answer that can never be written has an outcome of its own."""
    topic, out = brokers.fresh(), brokers.fresh()

    async def check(made: Mqtt, reader: Lost) -> None:
        del reader
        about = Message(Lane("x"), 1, b"", topic)
        bad, good = await made.publish([Outgoing("a/+", b"", about), Outgoing(out, b"", about)])
        assert bad is not None
        assert bad.kind is Kind.INVALID_INPUT
        assert good is None

    run(connector(topic), check)


def test_thousands_are_written_at_once() -> None:
    """More than a broker takes without confirming: they wait for their turn."""
    topic, out = brokers.fresh(), brokers.fresh()
    with brokers.mosquitto().listen(out) as listener:

        async def check(made: Mqtt, reader: Lost) -> None:
            del reader
            about = Message(Lane("x"), 1, b"", topic)
            assert not any(await made.publish([Outgoing(out, str(n).encode(), about) for n in range(2000)]))
            records = await asyncio.to_thread(listener.take, 2000)
            assert [int(record.value) for record in records] == list(range(2000))

        run(connector(topic), check)


def test_tls_and_a_password_of_the_environment() -> None:
    """The certificate is checked, and the password needs to be nowhere but in a variable."""
    broker = brokers.mosquitto()
    topic = brokers.fresh()
    host = f"{brokers.USER}@{broker.tls_address}"

    async def check(made: Mqtt, reader: Lost) -> None:
        del reader
        await asyncio.to_thread(broker.send, topic, 1)
        about = Message(Lane("x"), 1, b"", topic)
        assert await made.publish([Outgoing(f"{topic}-out", b"", about)]) == [None]

    run(connector(topic, f"ca={broker.ca}", scheme="mqtts", host=host, environ={"DRAGOMAN_MQTT_PASSWORD": brokers.PASSWORD}), check)
    run(connector(topic, f"ca={broker.ca}", scheme="mqtts", host=f"{brokers.USER}:{brokers.QUOTED}@{broker.tls_address}"), check)


@pytest.mark.parametrize(
    ("environ", "ca", "kind"),
    [
        ({"DRAGOMAN_MQTT_PASSWORD": "wr0ng"}, True, Kind.FORBIDDEN),
        ({"DRAGOMAN_MQTT_PASSWORD": brokers.PASSWORD}, False, Kind.UNAVAILABLE),
    ],
)
def test_who_is_not_let_in_says_why_without_the_password(environ: dict[str, str], ca: bool, kind: Kind) -> None:
    """A wrong password ends the stream; a certificate of a stranger may be mended by somebody."""
    broker = brokers.mosquitto()
    query = f"ca={broker.ca}" if ca else ""
    made = connector("t", query, scheme="mqtts", host=f"{brokers.USER}@{broker.tls_address}", environ=environ)

    async def refused() -> ServingError:
        try:
            with pytest.raises(ServingError) as caught:
                await made.open(Lost())
            return caught.value
        finally:
            await made.close()

    error = asyncio.run(refused())
    assert error.kind is kind
    assert broker.tls_address in error.message
    assert environ["DRAGOMAN_MQTT_PASSWORD"] not in f"{error.message} {made!r}"


def test_no_broker_is_worth_another_try() -> None:
    """Nobody listens: unavailable, and with a second host that answers all is well."""
    port = free_port()

    async def refused() -> None:
        made = connector("t", port=port)
        with pytest.raises(ServingError) as caught:
            await made.open(Lost())
        assert caught.value.kind is Kind.UNAVAILABLE
        await made.close()

    asyncio.run(refused())

    async def nothing(made: Mqtt, reader: Lost) -> None:
        assert await made.lag() == {"t": None}
        del reader

    run(connector("t", host=f"127.0.0.1:{port},127.0.0.1:{brokers.mosquitto().port}"), nothing)


def test_cancelling_loses_nothing() -> None:
    """Whoever waits may be cancelled at any moment, while it connects, too."""
    topic = brokers.fresh()
    missed(topic, 1, 2)
    made = connector(topic)

    async def check() -> None:
        try:
            for turns in range(8):
                opening = asyncio.create_task(made.open(Lost()))
                for _ in range(turns):
                    await asyncio.sleep(0)
                opening.cancel()
                await asyncio.wait([opening])
            await made.open(Lost())
            for turns in range(4):
                fetching = asyncio.create_task(made.fetch(0, ()))
                for _ in range(turns):
                    await asyncio.sleep(0)
                fetching.cancel()
                await asyncio.wait([fetching])
            assert values(await some(made, 2)) == [1, 2]
        finally:
            await made.close()

    asyncio.run(asyncio.wait_for(check(), brokers.DEADLINE_S))


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("a%23", "topic filter"),
        ("%23/a", "topic filter"),
        ("a/b+", "topic filter"),
        ("$share/g", "topic filter"),
        ("in?out=a/%2B", "'out'"),
        ("in/%2B?out=in/x", "its own input"),
        ("in?errors=in", "its own input"),
        ("in?nonsense=1", "nonsense"),
        ("in?version=4", "version"),
        ("in?replies=perhaps", "replies"),
        ("in?ordered=perhaps", "ordered"),
        ("in?session_expiry=-1", "session_expiry"),
        ("in?keep_alive=0", "keep_alive"),
        ("in?password_env=NOT_SET", "NOT_SET"),
        ("in?ca=/nowhere/ca.pem", "mqtts://"),
    ],
)
def test_addresses_that_cannot_work_are_refused(topic: str, words: str) -> None:
    """At once, and in words that name what is wrong."""
    with pytest.raises(ServingError, match="stream") as refused:
        Mqtt(parse_stream(f"mqtt://localhost/{topic}"), Surroundings("tests"))
    assert refused.value.kind is Kind.INVALID_INPUT
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("topic", "wanted", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/+", True),
        ("a/b/c", "a/+", False),
        ("a", "a/#", True),
        ("a/b/c", "a/#", True),
        ("b", "a/#", False),
        ("/a", "/+", True),
        ("$SYS/x", "#", False),
        ("$SYS/x", "+/x", False),
        ("a/b", "$share/g/a/+", True),
        ("a", "a/+", False),
    ],
)
def test_filters_match_topics_as_mqtt_says(topic: str, wanted: str, expected: bool) -> None:
    """Wildcards, shared subscriptions, and topics that begin with a dollar."""
    assert matches(topic, wanted) is expected
