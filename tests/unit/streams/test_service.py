"""The streams of a worker: which it reads, what it says of them, over all workers, and what it does with one that breaks."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.gateway import Gateway
from dragoman.serving.meters import Meters
from dragoman.streams.addresses import parse_stream
from dragoman.streams.kafka_client import connection
from dragoman.streams.service import Streams
from tests.servables import run

AWAY = "kafka://127.0.0.1:1/in?out=out"
"""Nobody listens there."""


def streams(*urls: str, index: int = 0, shared: Path | None = None) -> Streams:
    return Streams(urls, Gateway(Meters()), None, index=index, shared=shared, environ={})


async def until(found: Any) -> None:
    for _ in range(2000):
        if found():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def test_a_broker_that_is_not_there() -> None:
    """The stream says so, tries again and can be ended at any time; nothing is raised."""

    async def test() -> None:
        made = streams(AWAY)
        assert made.report()[0]["state"] == "connecting"
        made.start()
        await until(lambda: made.report()[0]["state"] == "waiting")
        (row,) = made.report()
        assert row["reason"].startswith("connecting: the brokers of kafka://127.0.0.1:1/in")
        assert (row["stream"], row["workers"], row["in_flight"], row["answered"], row["lag"]) == (AWAY, 1, 0, 0, {})
        await made.drain(1.0)

    run(test)


def test_no_stream() -> None:
    """A server without streams has none to say anything of."""

    async def test() -> None:
        made = streams()
        made.start()
        assert made.report() == []
        await made.drain(1.0)

    run(test)


def test_only_kafka_is_read_by_every_worker() -> None:
    """What has one reader by its nature is the first worker's."""

    async def test() -> None:
        urls = (AWAY, "mqtt://127.0.0.1:1/in?out=out")
        assert [row["kind"] for row in streams(*urls).report()] == ["kafka", "mqtt"]
        assert [row["kind"] for row in streams(*urls, index=1).report()] == ["kafka"]

    run(test)


def test_what_all_workers_say(tmp_path: Path) -> None:
    """Counts and lag are added up, the state is the worst; who has said nothing for long is gone."""

    async def test() -> None:
        made = streams(AWAY, shared=tmp_path)
        row = {**made.report()[0], "state": "running", "answered": 7, "rate": 1.5, "lag": {"in/1": 3}}
        for index, at in ((1, time.time()), (2, time.time() - 60)):
            (tmp_path / f"streams-{index}.json").write_text(json.dumps({"at": at, "streams": [row]}))
        (tmp_path / "streams-3.json").write_text("")
        (whole,) = made.report()
        assert (whole["workers"], whole["answered"], whole["rate"], whole["lag"]) == (2, 7, 1.5, {"in/1": 3})
        assert whole["state"] == "connecting"

    run(test)


def test_a_worker_shows_itself_to_the_others(tmp_path: Path) -> None:
    """In a file, for as long as it runs."""

    async def test() -> None:
        first, second = (streams(AWAY, index=index, shared=tmp_path) for index in (0, 1))
        first.start()
        await until(lambda: second.report()[0]["workers"] == 2)
        await first.drain(1.0)
        assert second.report()[0]["workers"] == 1

    run(test)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("kafka://a/in?colour=red", "the option 'colour'"),
        ("kafka://a/in?out=in", "among its own input"),
        ("kafka://a/in,b?errors=b", "among its own input"),
        ("kafka://a/two%20words", "is no topic"),
        ("kafka://a/in?start=middle", "one of earliest, latest"),
        ("kafka://a/in?compression=zip", "one of none"),
        ("kafka://user@a/in", "DRAGOMAN_KAFKA_PASSWORD"),
        ("kafka://a/in?sasl=SCRAM-SHA-256", "needs a user and a password"),
        ("kafka://user:hidden@a/in?sasl=GSSAPI", "one of"),
        ("kafka://a/in?ca=/nowhere/ca.pem", "certificates of the stream"),
        ("kafka://a/in?session_timeout=0", "from 1 to 3600"),
        ("kafka://a/in?tls=perhaps", "true or false"),
    ],
)
def test_an_address_that_cannot_work(url: str, told: str) -> None:
    """It is refused when the server starts, before anything is connected to, and without the password."""

    async def test() -> None:
        with pytest.raises(ServingError, match=told) as caught:
            streams(url)
        assert caught.value.kind is Kind.INVALID_INPUT
        assert "hidden" not in caught.value.message

    run(test)


def test_what_brokers_are_told() -> None:
    """TLS and SASL as the address says, and the usual port where it has none."""

    def told(url: str, **environ: str) -> dict[str, Any]:
        return connection(parse_stream(url), environ, "me")

    assert told("kafka://a,b:1/in") == {"bootstrap_servers": ["a:9092", "b:1"], "client_id": "me", "security_protocol": "PLAINTEXT"}
    plain = told("kafka://u:p%40@a/in")
    assert (plain["security_protocol"], plain["sasl_mechanism"]) == ("SASL_PLAINTEXT", "PLAIN")
    assert (plain["sasl_plain_username"], plain["sasl_plain_password"]) == ("u", "p@")
    scram = told("kafka://u@a/in?sasl=SCRAM-SHA-512&tls=true", DRAGOMAN_KAFKA_PASSWORD="from outside")
    assert (scram["security_protocol"], scram["sasl_plain_password"]) == ("SASL_SSL", "from outside")
    assert scram["ssl_context"].check_hostname
