"""Requests through the gateway while tracking is on: which are recorded, what their records say, and what recording leaves alone."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from dragoman.core.bodies import event
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest, InferResponse, ModelSpec, Timings
from dragoman.core.tensors import BF16, BYTES, FP32, Blob, Form, Reply, Rows, Signature, Tensor, Tensors, TensorSpec
from dragoman.serving.gateway import Entry, Gateway
from dragoman.serving.meters import Meters
from dragoman.serving.records.snapshot import MOST_BYTES
from tests.fakes_records import Site
from tests.servables import FakeServable, ask, run, settle

POINT = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]}
NAMED = (TensorSpec("a", None, None), TensorSpec("b", None, None))
ROWS = Signature(Form.ROWS, NAMED, (TensorSpec("y", None, None),), batch=True, input_schema=POINT)
WHOLE = Signature(Form.ROWS, NAMED, (TensorSpec("y", None, None),), batch=True, input_schema=POINT, whole=True)


class Answering(FakeServable):
    """Answers as told, in one or more parts."""

    def __init__(self, signature: Signature, answer: Callable[[InferRequest], Tensors | Rows], parts: int = 1) -> None:
        super().__init__(ModelSpec("m", "1", runtime="toy"))
        self.signatures = {"": signature}
        self._answer = answer
        self._parts = parts

    async def infer(self, request: InferRequest) -> InferResponse:
        await asyncio.sleep(0)
        return InferResponse(self._answer(request), Timings())

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        for number in range(self._parts):
            yield InferResponse(self._answer(request), Timings(), more=number + 1 < self._parts)


class Served(Site):
    """One model behind a gateway that is recorded."""

    def __init__(self, servable: FakeServable | None = None, **options: Any) -> None:
        super().__init__(**options)
        servable = servable or FakeServable(ModelSpec("m", "1", runtime="toy", named_version=True))
        self.servable = servable
        self.entry = Entry(servable.spec, servable)
        self.gateway = Gateway(Meters(), recorder=self.recorder)
        self.gateway.swap({("m", "1"): self.entry, ("m", ""): self.entry})
        self.writer.start()

    async def infer(self, request: InferRequest) -> InferResponse:
        return await self.gateway.infer(self.entry, request)


def recorded(test: Callable[[Served], Awaitable[None]], servable: FakeServable | None = None, **options: Any) -> list[dict[str, Any]]:
    """The records of what a test does."""
    found: list[dict[str, Any]] = []

    async def whole() -> None:
        served = Served(servable, **options)
        await test(served)
        await served.close()
        found.extend(dict(record) for record in served.records)

    run(whole)
    return found


def tensors(request: InferRequest) -> Tensors:
    assert isinstance(request.inputs, Tensors)
    return request.inputs


def event_of(request: InferRequest) -> dict[str, Any]:
    assert isinstance(request.inputs, Rows)
    found = request.inputs.items[0]
    assert isinstance(found, dict)
    return found


def test_what_a_record_says() -> None:
    """Everything of the sheet's record: who answered, where, what was asked and answered, when and for how long."""

    async def test(served: Served) -> None:
        request = ask(1, 2)
        request.id = "abc"
        request.parameters = {"k": 1}
        await served.infer(request)

    (record,) = recorded(test)
    when, microsec = record.pop("when"), record.pop("microsec")
    assert record == {
        "class": "toy",
        "worker": "3",
        "model": "m",
        "version": "1",
        "host": "here",
        "function_uri": "dragoman",
        "request": {"id": "abc", "inputs": [[1.0, 2.0]], "parameters": {"k": 1}},
        "op": "predict",
        "resp": {"id": "abc", "model_name": "m", "outputs": [[1.0, 1.0]], "model_version": "1"},
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00", when)
    assert isinstance(microsec, int)


def test_the_time_is_the_whole_time() -> None:
    """A request of more than a second has all of it in `microsec`, and `when` is its start."""

    async def test(served: Served) -> None:
        recording = served.recorder.begin(served.entry.spec, served.entry.signatures[""], ask(1, 2))
        recording.answered(5_000_000_000, 7_500_250_000, Rows([1]))

    before = datetime.now().astimezone()
    (record,) = recorded(test)
    assert record["microsec"] == 2_500_250
    assert before - timedelta(seconds=1) < datetime.fromisoformat(record["when"]) < before + timedelta(minutes=1)


def test_a_request_without_an_id_gets_one() -> None:
    """Of its own, the same in request and answer."""

    async def test(served: Served) -> None:
        await served.infer(ask(1, 2))
        await served.infer(ask(1, 2))

    one, other = recorded(test)
    assert one["request"]["id"] == one["resp"]["id"] != other["request"]["id"]


def test_nothing_is_recorded_while_it_is_off() -> None:
    """No place is opened, and models are not asked to say anything."""

    async def test(served: Served) -> None:
        await served.infer(ask(1, 2))
        assert not served.recorder.active
        assert not served.servable.requests[0].record
        assert not served.opened

    assert recorded(test, on=False) == []


def test_it_is_switched_while_the_server_runs() -> None:
    """On, with another sampling, and off again; what was seen before it went off still arrives."""

    async def test(served: Served) -> None:
        await served.infer(ask(0, 0))
        served.settings.update({"on": True, "url": "http://other.example/"})
        await served.infer(ask(1, 1))
        served.settings.update({"sample": 2})
        for number in range(2, 6):
            await served.infer(ask(number, number))
        served.settings.update({"on": False})
        await served.infer(ask(9, 9))

    assert [record["request"]["inputs"][0][0] for record in recorded(test, on=False)] == [1, 3, 5]


@pytest.mark.parametrize(("sample", "expected"), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [2, 5]), (8, [])])
def test_every_so_many_are_recorded(sample: int, expected: list[int]) -> None:
    """The N-th, 2N-th and so on of a model."""

    async def test(served: Served) -> None:
        for number in range(7):
            await served.infer(ask(number, 0))

    assert [record["request"]["inputs"][0][0] for record in recorded(test, sample=sample)] == expected


def test_models_are_counted_apart() -> None:
    """Requests of one model do not bring the turn of another nearer."""

    async def test(served: Served) -> None:
        other = Entry(ModelSpec("n", "1"), FakeServable(ModelSpec("n", "1")))
        for entry in (served.entry, other, served.entry, other):
            await served.gateway.infer(entry, ask(1, 1))

    assert [record["model"] for record in recorded(test, sample=2)] == ["m", "n"]


def test_errors_are_never_sampled_away() -> None:
    """Each has its record, with `error`, without `resp`, and with what was asked."""

    async def test(served: Served) -> None:
        served.servable.error = ServingError(Kind.MODEL_FAILED, "it burns")
        for number in range(3):
            with pytest.raises(ServingError):
                await served.infer(ask(number, 0))

    records = recorded(test, sample=100)
    assert [(record["error"], record["request"]["inputs"][0][0]) for record in records] == [
        ("it burns", 0),
        ("it burns", 1),
        ("it burns", 2),
    ]
    assert all("resp" not in record and record["microsec"] >= 0 for record in records)


def test_what_the_gateway_refuses_is_an_error_too() -> None:
    """A tensor of the wrong shape, an operation that there is not, a signature that there is not."""

    async def test(served: Served) -> None:
        wrong = InferRequest(Tensors([Tensor("x", FP32, np.zeros((1, 3), "f4"))]))
        for request in (wrong, InferRequest(ask(1, 2).inputs, operation="dance"), ask(1, 2, signature="none")):
            with pytest.raises(ServingError):
                await served.infer(request)

    records = recorded(test)
    assert [record["op"] for record in records] == ["predict", "dance", "predict"]
    assert [record["request"]["inputs"] for record in records] == [[[0, 0, 0]], [[1, 2]], [[1, 2]]]
    assert all(record["error"] for record in records)


def test_whoever_may_not_ask_is_not_recorded() -> None:
    """What strangers send to a locked model is no request of it."""

    async def test(served: Served) -> None:
        served.gateway.locked = {"m"}
        with pytest.raises(ServingError):
            await served.infer(ask(1, 2))

    assert recorded(test) == []


def test_a_bug_and_a_caller_who_goes() -> None:
    """Both are failures, in few words and without anything internal."""

    async def test(served: Served) -> None:
        served.servable.error = RuntimeError("secret")
        with pytest.raises(RuntimeError):
            await served.infer(ask(1, 2))
        served.servable.error = None
        served.servable.gate = asyncio.Event()
        task = asyncio.create_task(served.infer(ask(3, 4)))
        await settle(lambda: len(served.servable.requests) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert [record["error"] for record in recorded(test)] == ["RuntimeError", "the caller has gone"]


def test_inputs_are_as_they_came() -> None:
    """A model owns its inputs and may change them; the record has what the client sent."""

    def spoil(request: InferRequest) -> Tensors:
        array = tensors(request).items[0].array
        array[...] = 99
        return Tensors([Tensor("y", FP32, array)])

    async def test(served: Served) -> None:
        await served.infer(ask(1, 2))

    (record,) = recorded(test, Answering(FakeServable(ModelSpec("m")).signatures[""], spoil))
    assert (record["request"]["inputs"], record["resp"]["outputs"]) == ([[1, 2]], [[99, 99]])


def test_answers_are_as_they_were_given() -> None:
    """The caller owns the answer, and may write into it before the record is made."""

    async def test(served: Served) -> None:
        response = await served.infer(ask(1, 2))
        assert isinstance(response.outputs, Tensors)
        response.outputs.items[0].array[...] = 99

    (record,) = recorded(test)
    assert record["resp"]["outputs"] == [[1, 1]]


def test_rows_and_files() -> None:
    """Rows by name become lists in the order of the features, files and bytes base64, what is no number null."""

    async def test(served: Served) -> None:
        await served.infer(InferRequest(Rows([{"b": Blob(b"\x00", "image/png"), "a": b"\x01"}, {"a": float("nan"), "b": [1, {"c": "d"}]}])))

    (record,) = recorded(test, Answering(ROWS, lambda request: Rows([{"y": 1, "z": [2]}, {"y": 3}])))
    assert record["request"]["inputs"] == [["AQ==", "data:image/png;base64,AA=="], [None, [1, {"c": "d"}]]]
    assert record["resp"]["outputs"] == [{"y": 1, "z": [2]}, 3]


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (Tensor("t", BYTES, np.array([b"a", b"\xff"], object)), ["a", "/w=="]),
        (Tensor("t", BF16, np.array([0x3F80, 0x4000], "u2")), {"t": [1.0, 2.0]}),
        (Tensor("t", FP32, np.array([[1, np.inf]], "f4")), [[1.0, None]]),
    ],
)
def test_tensors_of_every_kind(tensor: Tensor, expected: object) -> None:
    """Texts are texts, bits are numbers, infinities are null."""
    any_shape = Signature(inputs=(TensorSpec("t", None, None),), outputs=(TensorSpec("t", None, None),), batch=True)

    async def test(served: Served) -> None:
        await served.infer(InferRequest(Tensors([tensor])))

    (record,) = recorded(test, Answering(any_shape, lambda request: Tensors([tensor])))
    assert record["request"]["inputs"] == expected


def test_several_tensors() -> None:
    """Data points of several inputs are lists, of several outputs objects by name; what is no data point is named."""
    signature = Signature(inputs=NAMED, outputs=(*NAMED,), batch=True)

    def uneven(request: InferRequest) -> Tensors:
        return Tensors([Tensor("a", FP32, np.zeros(2, "f4")), Tensor("b", FP32, np.zeros(3, "f4"))])

    async def test(served: Served) -> None:
        columns = [Tensor("b", FP32, np.array([3, 4], "f4")), Tensor("a", FP32, np.array([1, 2], "f4"))]
        await served.infer(InferRequest(Tensors(columns)))

    (record,) = recorded(test, Answering(signature, tensors))
    assert record["request"]["inputs"] == [[1, 3], [2, 4]]
    assert record["resp"]["outputs"] == [{"b": 3, "a": 1}, {"b": 4, "a": 2}]
    (record,) = recorded(test, Answering(signature, uneven))
    assert record["resp"]["outputs"] == {"a": [0, 0], "b": [0, 0, 0]}


def test_what_is_too_large_is_left_out() -> None:
    """The record says so in its place, and everything else as always."""

    async def test(served: Served) -> None:
        large = np.zeros((MOST_BYTES // 8 + 1, 2), "f4")
        await served.infer(InferRequest(Tensors([Tensor("x", FP32, large)]), id="i"))

    (record,) = recorded(test, Answering(FakeServable(ModelSpec("m")).signatures[""], tensors))
    left_out = {"id": "i", "left_out": f"{MOST_BYTES + 8} bytes or more"}
    assert (record["request"], record["resp"]) == (left_out, left_out)
    assert record["microsec"] >= 0


def test_a_call_of_many_rows_is_one_record() -> None:
    """As it is metered and traced."""

    async def test(served: Served) -> None:
        await served.gateway.infer_rows(served.entry, [{"x": [1, 2]}, {"x": [3, 4]}], request_id="r")

    (record,) = recorded(
        test, Answering(FakeServable(ModelSpec("m")).signatures[""], lambda r: Tensors([Tensor("y", FP32, tensors(r).items[0].array)]))
    )
    assert record["request"] == {"id": "r", "inputs": [[1, 2], [3, 4]]}
    assert record["resp"]["outputs"] == [[1, 2], [3, 4]]


def test_a_call_of_many_rows_that_fails() -> None:
    """Is one record with the error."""

    async def test(served: Served) -> None:
        served.servable.error = ServingError(Kind.TIMEOUT, "too late")
        with pytest.raises(ServingError):
            await served.gateway.infer_rows(served.entry, [{"x": [1, 2]}, {"x": [3, 4]}])

    (record,) = recorded(test, sample=5)
    assert (record["error"], record["request"]["inputs"]) == ("too late", [[1, 2], [3, 4]])


@pytest.mark.parametrize(("parts", "expected"), [(1, [5]), (3, [[5], [5], [5]])])
def test_streams(parts: int, expected: object) -> None:
    """One part is the answer; several are a list of answers."""

    async def test(served: Served) -> None:
        async for _ in served.gateway.stream(served.entry, InferRequest(Rows([{"a": 1, "b": 2}]))):
            pass

    (record,) = recorded(test, Answering(ROWS, lambda request: Rows([{"y": 5}]), parts))
    assert record["resp"]["outputs"] == expected


def test_a_stream_that_is_left() -> None:
    """Is a caller who has gone."""

    async def test(served: Served) -> None:
        stream = served.gateway.stream(served.entry, InferRequest(Rows([{"a": 1, "b": 2}])))
        await anext(stream)
        await stream.aclose()

    (record,) = recorded(test, Answering(ROWS, lambda request: Rows([{"y": 5}]), 3))
    assert record["error"] == "the caller has gone"


def test_an_endless_stream_is_not_kept() -> None:
    """Parts beyond what one record holds are forgotten while they come."""

    async def test(served: Served) -> None:
        async for _ in served.gateway.stream(served.entry, InferRequest(Rows([{"a": 1, "b": 2}]))):
            pass

    (record,) = recorded(test, Answering(ROWS, lambda request: Rows(["x" * (MOST_BYTES // 4)]), 20))
    assert "left_out" in record["resp"]


# --- models of whole requests ---


def said(request: InferRequest) -> Rows:
    """What an MLRun class says in its Reply, where it is asked to."""
    about = {"class": "Iris", "request": {"inputs": [[7]], "id": "x"}, "op": "infer_dict", "resp": {"outputs": [8]}, "labels": {"l": "v"}}
    body = {"id": "x", "model_name": "m", "outputs": [1]}
    return Rows([Reply(body, record={**about, "metrics": {"loss": 0.5}} if request.record else None)])


def test_a_whole_model_says_it_itself() -> None:
    """Its hooks may have changed request and answer, or chosen what is logged: that is what is recorded, with labels and metrics."""

    async def test(served: Served) -> None:
        await served.infer(InferRequest(Rows([event({"inputs": [[1, 2]]}, id="x")]), "predict"))

    (record,) = recorded(test, Answering(WHOLE, said))
    assert {name: record[name] for name in ("class", "op", "request", "resp", "labels", "metrics")} == {
        "class": "Iris",
        "op": "infer_dict",
        "request": {"inputs": [[7]], "id": "x"},
        "resp": {"outputs": [8]},
        "labels": {"l": "v"},
        "metrics": {"loss": 0.5},
    }
    assert record["model"] == "m"


def test_a_whole_model_is_asked_on_its_turn_only() -> None:
    """Telling what it saw costs it something."""

    async def test(served: Served) -> None:
        for _ in range(4):
            await served.infer(InferRequest(Rows([event({"inputs": [1]})])))

    assert len(recorded(test, Answering(WHOLE, said), sample=2)) == 2


def test_a_whole_model_of_another_protocol() -> None:
    """Rows that became one event are recorded as the model saw them, too."""

    async def test(served: Served) -> None:
        await served.gateway.infer_rows(served.entry, [{"a": 1, "b": 2}])

    (record,) = recorded(test, Answering(WHOLE, said))
    assert (record["class"], record["request"]["inputs"], record["resp"]["outputs"]) == ("Iris", [[7]], [8])


def test_a_whole_model_that_says_nothing() -> None:
    """The body of the event and the body of the reply are recorded; a file is its content."""

    async def test(served: Served) -> None:
        await served.infer(InferRequest(Rows([event({"inputs": [[1]], "extra": "e"}, id=5)]), "predict"))
        await served.infer(InferRequest(Rows([event(Blob(b"\x00", "image/png"), id="p")])))

    one, other = recorded(test, Answering(WHOLE, lambda request: Rows([Reply({"outputs": np.array([1, 2])})])))
    assert (one["request"], one["resp"]) == ({"inputs": [[1]], "extra": "e", "id": 5}, {"outputs": [1, 2]})
    assert other["request"] == {"inputs": ["data:image/png;base64,AA=="], "id": "p"}


def test_a_router_says_its_class_only() -> None:
    """The rest is what it was asked and what it answered."""

    async def test(served: Served) -> None:
        await served.infer(InferRequest(Rows([event({"inputs": [[1]]}, id="x")]), "predict"))

    (record,) = recorded(test, Answering(WHOLE, lambda request: Rows([Reply({"outputs": [2]}, record={"class": "VotingEnsemble"})])))
    assert (record["class"], record["request"], record["resp"]) == ("VotingEnsemble", {"inputs": [[1]], "id": "x"}, {"outputs": [2]})


def test_a_status_that_user_code_chose_is_an_error() -> None:
    """A Reply of 4xx or 5xx has no `resp`, and its words are the error."""

    async def test(served: Served) -> None:
        await served.infer(InferRequest(Rows([event({"inputs": []})])))

    (record,) = recorded(test, Answering(WHOLE, lambda request: Rows([Reply("too cold", 418)])))
    assert record["error"] == "418: too cold"
    assert "resp" not in record


def test_a_body_that_cannot_be_copied_does_no_harm() -> None:
    """Whatever user code put there, the answer goes out and a record is made."""

    class Odd:
        pass

    async def test(served: Served) -> None:
        response = await served.infer(InferRequest(Rows([event({"inputs": [(1, 2)], "odd": Odd()})])))
        assert isinstance(response.outputs, Rows)

    (record,) = recorded(test, Answering(WHOLE, lambda request: Rows([Reply(event_of(request)["body"])])))
    assert record["request"]["inputs"] == [[1, 2]]
    assert "Odd object" in record["resp"]["odd"]
