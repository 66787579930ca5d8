"""Addresses of streams: what they mean, what is refused, and that no secret is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.streams.addresses import IN_FLIGHT, check_streams, parse_stream


def refused(url: str) -> str:
    with pytest.raises(ServingError) as caught:
        parse_stream(url)
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value.message


def outcome(url: str) -> str:
    """What parsing comes to, as text."""
    try:
        return repr(parse_stream(url))
    except ServingError as error:
        return f"{error.kind}: {error.message}"


def test_kafka() -> None:
    """Brokers, topics and the options of every stream."""
    address = parse_stream("kafka://a:9092,b:9093/in,other?out=answers&group=g&model=iris:2&errors=bad&in_flight=7&acks=1")
    assert (address.kind, address.hosts, address.source) == ("kafka", ("a:9092", "b:9093"), "in,other")
    assert (address.out, address.group, address.model, address.errors, address.in_flight) == ("answers", "g", "iris:2", "bad", 7)
    assert address.options == {"acks": "1"}


def test_what_is_not_said() -> None:
    """A stream without options runs models for their effects, in the usual group."""
    address = parse_stream("kafka://[::1]:9092/in")
    assert (address.out, address.group, address.model, address.errors, address.operation) == ("", "dragoman", "", "", "")
    assert address.in_flight == IN_FLIGHT
    assert address.hosts == ("[::1]:9092",)


def test_mqtt() -> None:
    """Topics of several levels with wildcards, with and without TLS; user and password may have escaped signs."""
    address = parse_stream("mqtts://me:p%40ss%2Fword@broker/v2/models/+/infer/%23?out=answers")
    assert (address.kind, address.scheme, address.hosts, address.source) == ("mqtt", "mqtts", ("broker",), "v2/models/+/infer/#")
    assert (address.user, address.password) == ("me", "p@ss/word")


def test_kinesis() -> None:
    """A stream has no host: its endpoint and region are options."""
    address = parse_stream("kinesis://in?out=out&endpoint=http://127.0.0.1:15000&region=us-east-1")
    assert (address.kind, address.hosts, address.source, address.out) == ("kinesis", (), "in", "out")
    assert address.option("endpoint") == "http://127.0.0.1:15000"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "a stream must be"),
        ("in", "a stream must be"),
        ("amqp://broker/in", "'amqp' is not known"),
        ("kafka://broker:9092", "a host and a topic"),
        ("kafka:///in", "a host and a topic"),
        ("kafka://bro ker/in", "a stream must be"),
        ("kafka://a:9092,/in", "a host and a topic"),
        ("kafka://a:port/in", "a host and a topic"),
        ("kinesis://in/more", "one name"),
        ("kafka://a/in?group=a&group=b", "'group' twice"),
        ("kafka://a/in?group=", "group of the stream"),
        ("kafka://a/in?in_flight=0", "'in_flight' of the stream"),
        ("kafka://a/in?in_flight=nan", "from 1 to 100000"),
        ("kafka://a/in?in_flight=many", "not 'many'"),
        ("kafka://a/in#part", "a stream must be"),
    ],
)
def test_what_is_no_stream(url: str, told: str) -> None:
    """Each mistake is named."""
    assert told in refused(url)


def test_options_of_a_connector() -> None:
    """It takes its own, refuses others by name and wrong values with what they should be."""
    address = parse_stream("kafka://a/in?tls=yes&wait=5&sasl=PLAIN")
    address.only(("tls", "wait", "sasl"))
    assert address.flag("tls") is True
    assert address.flag("other") is False
    assert address.number("wait", 1, 0, 10) == 5
    assert address.number("other", 1.5, 0, 10) == 1.5
    assert address.option("sasl", choices=("PLAIN",)) == "PLAIN"
    for wrong, told in (
        (lambda: address.only(("tls",)), "'wait', which kafka streams do not have"),
        (lambda: address.flag("wait"), "must be true or false, not '5'"),
        (lambda: address.number("wait", 1, 0, 4), "from 0 to 4, not '5'"),
        (lambda: address.option("sasl", choices=("SCRAM-SHA-256",)), "one of SCRAM-SHA-256"),
    ):
        with pytest.raises(ServingError, match=told):
            wrong()


def test_passwords_come_from_address_or_environment() -> None:
    """The address first, then the variable that it names, then the usual one of the kind."""
    environ = {"DRAGOMAN_KAFKA_PASSWORD": "usual", "MINE": "named"}
    assert parse_stream("kafka://u:own@a/in").secret(environ) == "own"
    assert parse_stream("kafka://u@a/in?password_env=MINE").secret(environ) == "named"
    assert parse_stream("kafka://u@a/in").secret(environ) == "usual"
    assert parse_stream("mqtt://u@a/in").secret(environ) == ""
    with pytest.raises(ServingError, match="'ABSENT'"):
        parse_stream("kafka://u@a/in?password_env=ABSENT").secret(environ)


@pytest.mark.parametrize(
    "url",
    [
        "kafka://user:hidden@a:9092/in?out=o&sasl=hidden",
        "mqtt://user:hidden@a/in?password=hidden",
        "kafka://user:hidden@a",
        "amqp://user:hidden@a/in",
        "kafka://user:hidden@/in",
        "kinesis://in?secret=hidden&region=r",
    ],
)
def test_secrets_are_not_shown(url: str) -> None:
    """Neither by the name of a stream nor by its repr, nor in the error about a wrong one."""
    assert "hidden" not in outcome(url)


def test_names_tell_streams_apart() -> None:
    """The name is an address again, with what matters of it."""
    name = parse_stream("mqtt://u:p@a:1883/in/%23?out=o&model=m:1&qos=1").name
    assert name == "mqtt://a:1883/in/%23?out=o&model=m:1"
    assert parse_stream(name).source == "in/#"


@given(st.text(max_size=60), st.sampled_from(["kafka://", "mqtt://", "kinesis://", ""]))
def test_no_text_breaks_the_parser(text: str, scheme: str) -> None:
    """Whatever it is, it is an address or INVALID_INPUT."""
    assert outcome(scheme + text)


def test_orders() -> None:
    """What is answered one after the other is one of three."""
    assert [parse_stream(f"kafka://a/in{query}").order for query in ("", "?order=lane", "?order=none")] == ["key", "lane", "none"]
    assert "one of key, lane, none" in refused("kafka://a/in?order=any")


def test_a_stream_is_named_once() -> None:
    """Two of one address in one server would only share its messages out."""
    check_streams(["kafka://a/in?out=x", "kafka://a/in?out=y"])
    with pytest.raises(ServingError, match="named twice"):
        check_streams(["kafka://u:hidden@a/in", "kafka://u:other@a/in"])
