"""The brokers that tests of streams start, and the clients that these tests use: what they keep, and that they are shared and end."""

import signal

import pytest

from tests import brokers


def test_kafka_keeps_keys_headers_and_order_of_a_partition() -> None:
    """What one client of the fixture writes another reads."""
    broker = brokers.kafka()
    topic = broker.topic(partitions=3)
    broker.send(topic, {"n": 1}, {"n": 2}, key="a", headers={"h": "1"})
    first, second = broker.received(topic, 2)
    assert (first.json, second.json, first.key, first.headers) == ({"n": 1}, {"n": 2}, "a", {"h": "1"})
    assert broker.committed(topic, "nobody") == 0


def test_a_restarted_kafka_is_empty() -> None:
    """Its memory is all that it has: topics are made anew."""
    broker = brokers.kafka()
    topic = broker.topic()
    broker.send(topic, b"old")
    broker.stop(signal.SIGKILL)
    broker.start()
    broker.topic(name=topic)
    broker.send(topic, b"new")
    assert [record.value for record in broker.received(topic, 1)] == [b"new"]


def test_mosquitto_brings_what_mqtt_5_has() -> None:
    """Response topic, correlation data and user properties arrive."""
    broker = brokers.mosquitto()
    topic = brokers.fresh()
    with broker.listen(f"{topic}/#") as listener:
        broker.send(f"{topic}/a", {"n": 1}, response_topic="r", correlation=b"\x01", headers={"h": "1"})
        record = listener.next()
    assert (record.json, record.topic, record.response_topic, record.correlation) == ({"n": 1}, f"{topic}/a", "r", b"\x01")
    assert record.headers == {"h": "1"}


def test_a_restarted_mosquitto_keeps_what_is_retained() -> None:
    """Its files survive an end in order."""
    broker = brokers.mosquitto()
    topic = brokers.fresh()
    broker.send(topic, b"kept", retain=True)
    broker.restart()
    with broker.listen(topic) as listener:
        assert listener.next().value == b"kept"


def test_kinesis_keeps_keys_over_its_shards() -> None:
    """What is put is read back, of all shards."""
    broker = brokers.kinesis()
    stream = broker.stream(shards=2)
    broker.send(stream, {"n": 1}, {"n": 2}, key="a")
    assert [(record.json, record.key) for record in broker.received(stream, 2)] == [({"n": 1}, "a"), ({"n": 2}, "a")]
    assert len(broker.shards(stream)) == 2


@pytest.mark.parametrize("broker", [brokers.kafka, brokers.mosquitto, brokers.kinesis])
def test_a_process_has_one_of_each(broker: object) -> None:
    """Tests share a broker, and tell each other's messages apart by names."""
    assert callable(broker)
    assert broker() is broker()
    assert brokers.fresh() != brokers.fresh()
