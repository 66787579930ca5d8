"""What a message comes to: answers, errors and where they go, what is waited for, and what is tried again."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.serving.gateway import Gateway, VersionStatus
from dragoman.serving.meters import Meters
from dragoman.streams import Lane, Message, Outgoing
from dragoman.streams.addresses import parse_stream
from dragoman.streams.answering import Answering
from dragoman.streams.tickets import Response
from tests.servables import run

LANE = Lane("in/0")


@dataclass
class Answered:
    document: Any
    id: Any = "i"
    status: int = 200
    error: ServingError | None = None

    def written(self) -> tuple[bytes, str]:
        if isinstance(self.document, bytes):
            return self.document, "text/plain"
        return json.dumps(self.document).encode(), "application/json"


def refusal(kind: Kind, text: str = "no", what: str = "", status: int = 400) -> Answered:
    error = ServingError(kind, text, what=what)
    return Answered({"id": "i", "error": text}, "i", status, error)


class Dialect:
    """Answers with each of its outcomes in turn, the last one again and again."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[dict[str, Any]] = []
        self.first = 0
        """So many calls are not counted in `together` and `most`."""
        self.together = 0
        self.most = 0

    async def __call__(self, gateway: Gateway, body: bytes, **options: Any) -> Answered:
        self.asked.append({"body": body, **options})
        again = len(self.asked) > self.first
        self.together += again
        self.most = max(self.most, self.together)
        await asyncio.sleep(0)
        self.together -= again
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(outcome, Answered)
        return outcome


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def message(value: bytes = b"{}", **more: Any) -> Message:
    return Message(LANE, 7, value, "in", **more)


def told(letter: Outgoing) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(letter.value)
    return document


def answering(
    dialect: Dialect, url: str = "kafka://b/in?out=out", *, wait_s: float = 3.0, starting: bool = False, gateway: Gateway | None = None
) -> Answering:
    gateway = gateway or Gateway(Meters())
    gateway.starting = starting
    return Answering(dialect, gateway, parse_stream(url), model_wait_s=wait_s, monotonic=Clock())


def with_status(state: State, reason: str) -> Gateway:
    """One that knows the model m, which it does not serve."""
    gateway = Gateway(Meters())
    gateway.publish("m", [VersionStatus("m", "1", state, reason, served=True)], {})
    return gateway


def response(dialect: Dialect, url: str = "kafka://b/in?out=out", *, asked: Message | None = None, **options: Any) -> Response:
    found: list[Response] = []

    async def test() -> None:
        found.append(await answering(dialect, url, **options).respond(asked or message()))

    run(test)
    return found[0]


def test_an_answer() -> None:
    """It goes to the output with the key and headers of its message; the dialect gets what the address says."""
    dialect = Dialect(Answered({"outputs": [1]}))
    asked = message(key=b"k", headers=[("trace", b"\xff7")])
    (letter,) = response(dialect, "kafka://b/in?out=out&model=iris:2&operation=explain", asked=asked).outgoing
    assert (letter.to, told(letter), letter.key, letter.headers) == ("out", {"outputs": [1]}, b"k", [("trace", b"\xff7")])
    (options,) = dialect.asked
    assert (options["body"], options["model"], options["operation"], options["trigger"], options["path"]) == (
        b"{}", "iris:2", "explain", "kafka", "in",
    )  # fmt: skip
    assert options["headers"] == {"trace": "�7"}


def test_an_answer_for_whoever_asked() -> None:
    """A message may say where its answer goes; its error goes there, too, and to the topic for errors."""
    asked = message(reply_to="mine")
    (letter,) = response(Dialect(Answered({})), asked=asked).outgoing
    assert letter.to == "mine"
    refused = response(Dialect(refusal(Kind.INVALID_INPUT)), "kafka://b/in?out=out&errors=bad", asked=asked)
    assert [letter.to for letter in refused.outgoing] == ["mine", "bad"]


def test_an_error_on_the_output() -> None:
    """Without a topic for errors: an object with id, error and status."""
    refused = response(Dialect(refusal(Kind.NOT_FOUND, "no such model", status=404)))
    assert refused.failed
    (letter,) = refused.outgoing
    assert (letter.to, told(letter)) == ("out", {"id": "i", "error": "no such model", "status": 404})


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        (b"text", {"message": "text"}),
        (b"\xff", {"message_base64": "/w=="}),
        (b"x" * 300_000, {"message": "x" * 262_144, "message_bytes": 300_000}),
    ],
)
def test_an_error_on_its_own_topic(value: bytes, quoted: dict[str, Any]) -> None:
    """It says where the message was, and what."""
    refused = response(Dialect(refusal(Kind.INVALID_INPUT)), "kafka://b/in?out=out&errors=bad", asked=message(value))
    (letter,) = refused.outgoing
    where = {"source": "in", "lane": "in/0", "position": "7"}
    assert (letter.to, told(letter)) == ("bad", {"id": "i", "error": "no", "status": 400, **where, **quoted})


def test_a_status_that_user_code_chose() -> None:
    """An answer with an error status is an error, whatever it says."""
    for document, error in (({"why": 1}, {"why": 1}), (b"plain", "plain"), (b"\xff", "�")):
        refused = response(Dialect(Answered(document, status=422)))
        assert refused.failed
        assert told(refused.outgoing[0]) == {"id": "i", "error": error, "status": 422}


def test_nothing_is_written_without_an_output(caplog: pytest.LogCaptureFixture) -> None:
    """Errors are at least in the log, one a second."""
    dialect = Dialect(refusal(Kind.INVALID_INPUT, "a bad one"))

    async def test() -> None:
        asked = answering(dialect, "kafka://b/in")
        assert not (await asked.respond(message())).outgoing
        assert (await asked.respond(message())).failed

    run(test)
    assert "in/0 at 7 failed" in caplog.text
    assert "a bad one" in caplog.text
    assert not response(Dialect(Answered({})), "kafka://b/in").outgoing


@pytest.mark.parametrize("kind", [Kind.NOT_READY, Kind.OVERLOADED])
def test_what_passes_is_waited_for(kind: Kind) -> None:
    """A model that is loading, or whose queue is full, is asked again."""
    dialect = Dialect(refusal(kind), refusal(kind), Answered({}))
    assert not response(dialect).failed
    assert len(dialect.asked) == 3


def test_waiting_has_an_end() -> None:
    """Then the message is an error like any other."""
    dialect = Dialect(refusal(Kind.NOT_READY, "still loading"))
    assert told(response(dialect, wait_s=1.0).outgoing[0])["error"] == "still loading"
    assert len(dialect.asked) == 2


def test_a_model_that_is_not_known_yet() -> None:
    """While the server starts it may still come; later it is an error at once."""
    assert not response(Dialect(refusal(Kind.NOT_FOUND), Answered({})), starting=True).failed
    assert response(Dialect(refusal(Kind.NOT_FOUND), Answered({}))).failed


def test_a_model_that_loads_at_the_start_is_waited_for_as_long_as_it_takes() -> None:
    """Loading has time-outs of its own."""
    loading = [refusal(Kind.NOT_READY)] * 4
    assert not response(Dialect(*loading, Answered({})), starting=True, wait_s=0.1).failed


@pytest.mark.parametrize(
    ("state", "what", "words"),
    [(State.GONE, "unloaded", "model 'm' is unloaded"), (State.FAILED, "model", "model 'm' version 1 stopped: of age")],
)
def test_a_model_that_is_gone_is_waited_for_by_its_own_stream(state: State, what: str, words: str) -> None:
    """Unloaded, or stopped after its process ended again and again: the stream says what it waits for. A message that names it is told at once."""
    gateway = with_status(state, "of age" if state is State.FAILED else "unloaded")
    gone = refusal(Kind.UNAVAILABLE, words, what)

    async def test() -> None:
        dialect = Dialect(gone, gone, gone, Answered({}))
        waits = answering(dialect, "kafka://b/in?out=out&model=m:1", gateway=gateway)
        assert waits.trouble() == ""
        task = asyncio.create_task(waits.respond(message()))
        while not waits.trouble():
            await asyncio.sleep(0)
        assert waits.trouble() == f"answering: {words}"
        assert not (await task).failed
        assert (len(dialect.asked), waits.trouble()) == (4, "")
        assert told((await answering(Dialect(gone), gateway=gateway).respond(message())).outgoing[0])["error"] == words

    run(test)


def test_a_process_that_died_is_tried_once_more() -> None:
    """It may have been another message that ended it; a second time it is an error."""
    died = refusal(Kind.UNAVAILABLE, "the process ended", "model")
    assert not response(Dialect(died, Answered({}))).failed
    dialect = Dialect(died)
    assert told(response(dialect).outgoing[0])["error"] == "the process ended"
    assert len(dialect.asked) == 2


def test_what_is_tried_once_more_runs_alone() -> None:
    """So that one that ends the process takes no other along twice."""
    died = refusal(Kind.UNAVAILABLE, "the process ended", "model")
    dialect = Dialect(*[died] * 5, Answered({}))

    async def test() -> None:
        asked = answering(dialect)
        dialect.first = 5
        responses = await asyncio.gather(*(asked.respond(message()) for _ in range(5)))
        assert not any(each.failed for each in responses)
        assert (len(dialect.asked), dialect.most) == (10, 1)

    run(test)


@pytest.mark.parametrize(
    ("raised", "status"),
    [(RuntimeError("secret"), 500), (asyncio.CancelledError(), 499), (ServingError(Kind.MODEL_FAILED, "no JSON"), 500)],
)
def test_a_message_stops_nothing(raised: BaseException, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong inside is an error of this message; its words are for the log."""
    document = told(response(Dialect(raised)).outgoing[0])
    assert document["status"] == status
    assert "secret" not in document["error"]


def test_cancelling_is_no_answer() -> None:
    """A message that is given up is not answered at all: it comes again."""

    async def test() -> None:
        asked = answering(Dialect(refusal(Kind.NOT_READY)), wait_s=1e9)
        task = asyncio.get_running_loop().create_task(asked.respond(message()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(test)


@pytest.mark.parametrize(("answer", "given"), [(b'{"id": 5, "outputs": []}', {"id": 5}), (b"no json", {}), (b'{"id": [1]}', {})])
def test_what_stands_for_an_answer_that_cannot_be_written(answer: bytes, given: dict[str, Any]) -> None:
    """A small error with the id, to the same place."""
    letter = Outgoing("out", answer, message(), b"k")
    instead = answering(Dialect(Answered({}))).refuse(letter, ServingError(Kind.TOO_LARGE, "too large"))
    assert instead is not None
    document = told(instead)
    assert (instead.to, instead.key) == ("out", b"k")
    assert "too large" in document["error"]
    assert {name: document[name] for name in ("id",) if name in document} == given


def test_ids_that_json_has_no_number_for() -> None:
    """Python's large numbers are written as they are."""
    outcome = refusal(Kind.INVALID_INPUT)
    outcome.id = 10**30
    assert told(response(Dialect(outcome)).outgoing[0])["id"] == 10**30


@pytest.mark.parametrize(
    ("topic", "model", "operation"),
    [
        ("v2/models/iris/infer", "iris", "infer"),
        ("/v2/models/iris/versions/2/explain", "iris:2", "explain"),
        ("v2/models/iris:2", "iris:2", ""),
        ("v2/models/", "", ""),
        ("v2/models/iris/infer/more", "", ""),
        ("sensors/1", "", ""),
    ],
)
def test_a_topic_that_is_a_url(topic: str, model: str, operation: str) -> None:
    """Devices may address a model by their topic; a model that the address names answers everything."""
    asked = Message(Lane("mqtt"), 1, b"{}", topic)
    dialect = Dialect(Answered({}))
    response(dialect, "mqtt://b/in?out=out", asked=asked)
    response(dialect, "mqtt://b/in?out=out&model=fixed", asked=asked)
    assert [(options["model"], options["operation"]) for options in dialect.asked] == [(model, operation), ("fixed", "")]
