"""Routers over fake members of tensors, rows and whole requests: answers, failures, time-outs, circles (MLRun requirement M31)."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dragoman.core.bodies import event
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest, InferResponse, ModelSpec, Servable, Step, Timings
from dragoman.core.tensors import FP32, INT64, Blob, Form, Reply, Rows, Signature, Tensor, Tensors, TensorSpec, Value
from dragoman.server.eager import Stepped
from dragoman.serving.gateway import Entry, Gateway
from dragoman.serving.routers.options import PARALLEL, ROUTER, VOTING
from dragoman.serving.routers.router import RUNTIME, Router, open_router
from tests.servables import FakeServable, run, settle
from tests.unit.test_composed import gateway_of

PLAIN = Signature(Form.ROWS, input_schema={"type": "object", "properties": {"inputs": {}}, "required": ["inputs"]}, whole=True)
MATRIX = Signature(
    inputs=(TensorSpec("x", FP32, (-1, 2)),), outputs=(TensorSpec("label", INT64, (-1,)), TensorSpec("score", FP32, (-1, 3))), batch=True
)
FEATURES = Signature(
    Form.ROWS,
    (TensorSpec("a", None, None), TensorSpec("b", None, None)),
    (TensorSpec("score", FP32, (-1,)), TensorSpec("more", FP32, (-1,))),
    input_schema={"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]},
)


class Member(FakeServable):
    """Notes its requests, waits for its gate and raises its error."""

    async def called(self, request: InferRequest) -> None:
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error


class Whole(Member):
    """A model of whole requests: answers `body`, or what it makes of the request's body."""

    def __init__(
        self, name: str, outputs: Value = None, *, gate: asyncio.Event | None = None, version: str = "1", status: int = 200
    ) -> None:
        super().__init__(ModelSpec(name, version), gate, {"": PLAIN})
        self.operations = frozenset({"predict", "infer", "infer_dict", "predict_dict", "explain", "ping"})
        self.outputs = outputs
        self.status = status
        self.whole: Value = None
        """The whole body of the answer, if not None."""

    @property
    def bodies(self) -> list[Any]:
        return [request.inputs.items[0]["body"] for request in self.requests if isinstance(request.inputs, Rows)]

    async def infer(self, request: InferRequest) -> InferResponse:
        await self.called(request)
        assert isinstance(request.inputs, Rows)
        (row,) = request.inputs.items
        outputs = self.outputs if self.outputs is not None else [0]
        body = (
            self.whole if self.whole is not None else {"id": row["id"], "model_name": self.spec.name, "outputs": outputs, "timestamp": "t"}
        )
        return InferResponse(Rows([Reply(body, self.status)]), Timings())


class Matrix(Member):
    """x FP32 [n,2] -> label INT64 [n], score FP32 [n,3]."""

    def __init__(self, name: str, label: int) -> None:
        super().__init__(ModelSpec(name), None, {"": MATRIX})
        self.label = label

    async def infer(self, request: InferRequest) -> InferResponse:
        await self.called(request)
        assert isinstance(request.inputs, Tensors)
        rows = len(request.inputs.items[0].array)
        outputs = [
            Tensor("label", INT64, np.full(rows, self.label)),
            Tensor("score", FP32, np.full((rows, 3), 0.5, "f4")),
        ]
        return InferResponse(Tensors([t for t in outputs if not request.outputs or t.name in request.outputs]), Timings())


class Scores(Member):
    """Rows of a and b -> score a + b and more."""

    def __init__(self, name: str) -> None:
        super().__init__(ModelSpec(name), None, {"": FEATURES})

    async def infer(self, request: InferRequest) -> InferResponse:
        await self.called(request)
        assert isinstance(request.inputs, Rows)
        return InferResponse(Rows([{"score": row["a"] + row["b"], "more": 0.0} for row in request.inputs.items]), Timings())


def spec_of(kind: str, *members: str, name: str = "r", **args: Any) -> ModelSpec:
    steps = tuple(Step(key.partition(":")[0], key.partition(":")[2]) for key in members)
    return ModelSpec(name, runtime=RUNTIME, steps=steps, arguments={"kind": kind, "args": args})


def router(gateway: Gateway, kind: str, *members: str, name: str = "r", **args: Any) -> Router:
    """Opened at once: nothing is waited for but the process of a user's class."""
    opening = open_router(spec_of(kind, *members, name=name, **args), gateway, no_process)
    try:
        opening.send(None)
    except StopIteration as ended:
        made: Router = ended.value
        return made
    raise AssertionError("it waited")


async def no_process(spec: ModelSpec) -> Servable:
    raise AssertionError(f"a process for {spec.name}")


def ask(inputs: Value = None, operation: str = "infer", **more: Value) -> InferRequest:
    body = {"inputs": inputs if inputs is not None else [[1.0, 2.0]], **more}
    return InferRequest(Rows([event(body, id=more.get("id", "7"))]), operation=operation)


async def answer(subject: Router, request: InferRequest | None = None) -> Any:
    response = await subject.infer(request or ask())
    assert isinstance(response.outputs, Rows)
    (reply,) = response.outputs.items
    assert isinstance(reply, Reply)
    return reply.body


async def refused(subject: Router, request: InferRequest | None = None) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await subject.infer(request or ask())
    return caught.value


# --- VotingEnsemble ---


def test_an_ensemble_of_every_form() -> None:
    """Members of tensors, rows and whole requests vote on one request; the answer is as MLRun's is."""

    async def test() -> None:
        whole, matrix, rows = Whole("whole", [3, 3]), Matrix("matrix", 3), Scores("rows")
        subject = router(gateway_of(whole, matrix, rows), VOTING, "whole", "matrix", "rows", vote_type="classification")
        assert await answer(subject, ask([[1, 2], [3, 4]])) == {"id": "7", "model_name": "r", "outputs": [3, 3], "model_version": "v1"}
        assert matrix.requests[0].outputs == ("label",), "only what is voted on is asked for"
        assert matrix.requests[0].operation == "predict"
        assert whole.requests[0].operation == "infer"

    run(test)


def test_the_column_is_chosen_by_name() -> None:
    """`prediction_col_name` says which output is voted on; without it, or where it is missing, the first."""

    async def test() -> None:
        matrix = Matrix("matrix", 1)
        subject = router(gateway_of(matrix), VOTING, "matrix", prediction_col_name="score")
        assert (await answer(subject))["outputs"] == [[0.5, 0.5, 0.5]]
        assert [s.name for s in subject.signatures[""].outputs] == ["score"]

    run(test)


def test_answers_by_column_name() -> None:
    """With format_response_with_col_name_flag members may answer an object, and the ensemble does."""

    async def test() -> None:
        one, two = Whole("one", {"prediction": [1, 0], "other": [9, 9]}), Whole("two", {"prediction": [1, 0]})
        subject = router(gateway_of(one, two), VOTING, "one", "two", format_response_with_col_name_flag=True)
        assert (await answer(subject))["outputs"] == {"prediction": [1, 0]}
        two.outputs = {"a": [1, 1], "b": [1, 1]}
        error = await refused(subject)
        assert error.message == "router 'r': member 'two' answered 'a', 'b', but no 'prediction' (the argument prediction_col_name)"

    run(test)


def test_the_type_is_decided_once() -> None:
    """By the first answer: whole numbers make it classification for ever; a declared type is not looked for."""

    async def test() -> None:
        one, two = Whole("one", [1]), Whole("two", [4.0])
        subject = router(gateway_of(one, two), VOTING, "one", "two", weights={"one": 2, "two": 1})
        assert (await answer(subject))["outputs"] == [1]
        one.outputs, two.outputs = [2.0], [5]
        assert (await answer(subject))["outputs"] == [2]
        two.outputs = [2.5]
        assert (await refused(subject)).kind is Kind.MODEL_FAILED
        assert (await answer(router(gateway_of(one, two), VOTING, "one", "two")))["outputs"] == [2.25]

    run(test)


def test_a_bare_answer_of_a_bare_point() -> None:
    """Members that answer a number for a flat point, not a list: so does the ensemble."""

    async def test() -> None:
        subject = router(gateway_of(Whole("one", 1.5), Whole("two", 2.5)), VOTING, "one", "two")
        assert (await answer(subject, ask([1, 2])))["outputs"] == 2.0

    run(test)


def test_arrays_are_answers_as_lists_are() -> None:
    """What NumPy made of a list in a model's process."""

    async def test() -> None:
        gateway = gateway_of(
            Whole("one", np.array([1, 2])), Whole("two", {"prediction": np.array([1, 3])}), Whole("three", np.array([0, 3]))
        )
        assert (await answer(router(gateway, VOTING, "one", "two", "three")))["outputs"] == [1, 3]

    run(test)


def test_different_lengths_are_a_failure() -> None:
    """Nobody's predictions are cut or made up."""

    async def test() -> None:
        error = await refused(router(gateway_of(Whole("one", [1, 2]), Whole("two", [1])), VOTING, "one", "two"))
        assert error.kind is Kind.MODEL_FAILED
        assert error.message == "router 'r': the members answered different numbers of predictions: 2 of 'one', 1 of 'two'"

    run(test)


def test_features_by_name() -> None:
    """infer_dict goes on to members of whole requests as it is; members of rows get theirs, without what is too much (M10, M12)."""

    async def test() -> None:
        whole, rows = Whole("whole", [3.5]), Scores("rows")
        subject = router(gateway_of(whole, rows), VOTING, "whole", "rows")
        assert (await answer(subject, ask([{"b": 2, "a": 1, "z": 0}], "infer_dict")))["outputs"] == [3.25]
        assert (whole.requests[0].operation, whole.bodies[0]["inputs"]) == ("infer_dict", [{"b": 2, "a": 1, "z": 0}])
        error = await refused(subject, ask([{"b": 2}], "predict_dict"))
        assert (error.kind, "member 'rows' of router 'r'" in error.message) == (Kind.INVALID_INPUT, True)

    run(test)


def test_explanations() -> None:
    """Numbers of one shape are averaged by weight; anything else stands under its member's name."""

    async def test() -> None:
        one, two = Whole("one", [[1, 0]]), Whole("two", [[0, 1]])
        subject = router(gateway_of(one, two), VOTING, "one", "two", weights={"one": 3, "two": 1})
        assert (await answer(subject, ask(operation="explain")))["outputs"] == [[0.75, 0.25]]
        assert [r.operation for r in one.requests] == ["explain"]
        two.outputs = {"base": 1}
        assert (await answer(subject, ask(operation="explain")))["outputs"] == {"one": [[1, 0]], "two": {"base": 1}}

    run(test)


# --- ParallelRun ---


def test_parallel_answers_are_merged() -> None:
    """Objects become one, lists stand under their member's name, and what a member says beside its outputs is kept."""

    async def test() -> None:
        one, two, three = Whole("one", {"a": 1}), Whole("two", {"b": [2]}), Whole("three", [3])
        subject = router(gateway_of(one, two, three), PARALLEL, "one", "two", "three")
        expected = {"id": "7", "model_name": "r", "outputs": {"a": 1, "b": [2], "three": [3]}}
        assert await answer(subject) == expected
        two.whole = {"seen": True}
        assert await answer(subject) == {**expected, "outputs": {"a": 1, "three": [3]}, "seen": True}

    run(test)


def test_parallel_answers_that_collide() -> None:
    """Nothing is overwritten: the error names both, and by_member keeps them apart."""

    async def test() -> None:
        gateway = gateway_of(Whole("one", {"a": 1}), Whole("two", {"a": 2}))
        error = await refused(router(gateway, PARALLEL, "one", "two"))
        assert error.kind is Kind.MODEL_FAILED
        assert error.message == "members 'one' and 'two' of router 'r' both answer 'a': give the router the argument by_member"
        body = await answer(router(gateway, PARALLEL, "one", "two", by_member=True))
        assert body["outputs"] == {"one": {"a": 1}, "two": {"a": 2}}

    run(test)


def test_a_parallel_run_may_extend_the_event() -> None:
    """The answer starts with the request's body."""

    async def test() -> None:
        subject = router(gateway_of(Whole("one", [1])), PARALLEL, "one", extend_event=True)
        body = await answer(subject, ask([[5]], mine="yes"))
        assert body == {"inputs": [[5]], "mine": "yes", "id": "7", "model_name": "r", "outputs": {"one": [1]}}

    run(test)


# --- ModelRouter ---


def test_a_model_router_asks_the_member_that_is_named() -> None:
    """By the body's model, with or without version; without one, or by its own name, the first."""

    async def test() -> None:
        one, two = Whole("one", [1]), Whole("two", [2], version="v2")
        subject = router(gateway_of(one, two), ROUTER, "one", "two:v2")
        for model, outputs in ((None, [1]), ("r", [1]), ("one", [1]), ("two:v2", [2])):
            body = await answer(subject, ask(**({"model": model} if model else {})))
            assert body["outputs"] == outputs
        assert body["model_name"] == "two"
        error = await refused(subject, ask(model="two"))
        assert (error.kind, error.message) == (Kind.INVALID_INPUT, "router 'r' has no member 'two'; it has one, two:v2")

    run(test)


def test_a_model_router_has_the_operations_of_its_members() -> None:
    """Also those of users, with bodies of any form."""

    async def test() -> None:
        one = Whole("one")
        one.whole = "pong"
        subject = router(gateway_of(one), ROUTER, "one")
        assert {"ping", "infer", "explain"} <= subject.operations
        request = InferRequest(Rows([event({"x": 1}, id="7")]), operation="ping")
        assert await answer(subject, request) == "pong"

    run(test)


# --- every kind ---


def test_members_do_not_see_each_others_changes() -> None:
    """Each owns the body that it gets."""

    async def test() -> None:
        class Spoiling(Whole):
            async def infer(self, request: InferRequest) -> InferResponse:
                response = await super().infer(request)
                self.bodies[0]["inputs"][0][0] += 1
                return response

        one, two = Spoiling("one", [1]), Spoiling("two", [1])
        await answer(router(gateway_of(one, two), VOTING, "one", "two", executor_type="array"), ask([[1]]))
        assert (one.bodies[0]["inputs"], two.bodies[0]["inputs"]) == ([[2]], [[2]])

    run(test)


def test_members_run_side_by_side_or_in_turn() -> None:
    """Side by side both wait for one gate; with executor_type "array" the second is asked when the first has answered."""

    async def test() -> None:
        for kind, together in (("thread", True), ("process", True), ("array", False)):
            gate = asyncio.Event()
            one, two = Whole("one", [1], gate=gate), Whole("two", [1], gate=gate)
            call = asyncio.ensure_future(router(gateway_of(one, two), VOTING, "one", "two", executor_type=kind).infer(ask()))
            await settle(lambda one=one: len(one.requests) == 1)  # type: ignore[misc] # mypy cannot see the type of a default of a lambda
            if together:
                await settle(lambda two=two: len(two.requests) == 1)  # type: ignore[misc] # the same
            assert len(two.requests) == together
            gate.set()
            await call

    run(test)


def test_what_the_caller_said_reaches_every_member() -> None:
    """Deadline, priority, caller and the body's parameters; members are metered as a router's."""

    async def test() -> None:
        whole, matrix = Whole("whole", [1]), Matrix("matrix", 1)
        request = ask(parameters={"t": 1})
        request.deadline, request.priority, request.caller, request.id = time.monotonic() + 9, 3, "me", "7"
        await answer(router(gateway_of(whole, matrix), VOTING, "whole", "matrix"), request)
        for part in (*whole.requests, *matrix.requests):
            assert (part.deadline, part.priority, part.caller, part.id) == (request.deadline, 3, "me", "7")
            assert (part.dialect, part.parameters) == ("router", {"t": 1})

    run(test)


def test_a_file_as_the_body() -> None:
    """Is one input (M15)."""

    async def test() -> None:
        one = Whole("one", [1])
        request = InferRequest(Rows([event(Blob(b"png", "image/png"))]), operation="infer")
        await answer(router(gateway_of(one), VOTING, "one"), request)
        assert one.bodies == [{"inputs": [Blob(b"png", "image/png")]}]

    run(test)


@pytest.mark.parametrize(
    ("body", "operation", "words"),
    [
        ([1], "infer", "must be an object"),
        ({}, "infer", "has no 'inputs'"),
        ({"inputs": 1}, "explain", "must be a list"),
        ({"inputs": {"a": 1}}, "infer", "must be a list"),
    ],
)
def test_bodies_that_are_none(body: Value, operation: str, words: str) -> None:
    """Refused before any member is asked (M16)."""

    async def test() -> None:
        one = Whole("one", [1])
        error = await refused(router(gateway_of(one), VOTING, "one"), InferRequest(Rows([event(body)]), operation=operation))
        assert (error.kind, words in error.message) == (Kind.INVALID_INPUT, True)
        assert not one.requests

    run(test)


def test_tensors_are_refused() -> None:
    """Codecs make events of them; a router itself takes one event."""

    async def test() -> None:
        subject = router(gateway_of(Whole("one", [1])), VOTING, "one")
        assert (await refused(subject, InferRequest(Tensors([])))).kind is Kind.INVALID_INPUT
        assert (await refused(subject, InferRequest(Rows([1, 2])))).kind is Kind.INVALID_INPUT

    run(test)


# --- failures ---


@pytest.mark.parametrize("kind", [Kind.INVALID_INPUT, Kind.MODEL_FAILED, Kind.TIMEOUT, Kind.OVERLOADED, Kind.UNSUPPORTED])
@pytest.mark.parametrize("executor", ["thread", "array"])
def test_a_failing_member_fails_the_call_and_is_named(kind: Kind, executor: str) -> None:
    """Never dropped in silence. Its kind, its status and its wish to be asked later are kept."""

    async def test() -> None:
        one, two = Whole("one", [1]), Whole("two", [1])
        two.error = ServingError(kind, "no", retry_after_s=3, status=418)
        error = await refused(router(gateway_of(one, two), VOTING, "one", "two", executor_type=executor))
        assert (error.kind, error.message, error.retry_after_s, error.status) == (kind, "member 'two' of router 'r': no", 3, 418)

    run(test)


def test_a_status_of_user_code_is_a_failure() -> None:
    """A member that answers 4xx or 5xx has not voted."""

    async def test() -> None:
        error = await refused(router(gateway_of(Whole("one", status=422)), VOTING, "one"))
        assert (error.kind, error.status) == (Kind.INVALID_INPUT, 422)

    run(test)


def test_a_failing_member_cancels_the_others() -> None:
    """Nobody needs them any more."""

    async def test() -> None:
        waiting, failed = Whole("one", gate=asyncio.Event()), Whole("two")
        failed.error = ServingError(Kind.MODEL_FAILED, "no")
        gateway = gateway_of(waiting, failed)
        assert "member 'two'" in (await refused(router(gateway, PARALLEL, "one", "two"))).message
        assert [e.in_flight for e in gateway.entries()] == [0, 0]

    run(test)


def test_tolerated_failures_are_in_the_answer() -> None:
    """By name and with their reason, in every protocol's own way; the weights of those that answered are normalised again."""

    async def test() -> None:
        one, two, three = Whole("one", [1.5]), Whole("two"), Whole("three", [4.5])
        two.error = ServingError(Kind.MODEL_FAILED, "no")
        gateway = gateway_of(one, two, three)
        subject = router(gateway, VOTING, "one", "two", "three", tolerate=True, weights={"one": 1, "two": 7, "three": 2})
        response = await subject.infer(ask())
        assert isinstance(response.outputs, Rows)
        assert response.outputs.items[0].body == {
            "id": "7",
            "model_name": "r",
            "outputs": [3.5],
            "model_version": "v1",
            "failed": {"two": "member 'two' of router 'r': no"},
        }
        assert response.parameters == {"failed_members": "two"}
        body = await answer(router(gateway, PARALLEL, "one", "two", "three", tolerate=True))
        assert (body["outputs"], list(body["failed"])) == ({"one": [1.5], "three": [4.5]}, ["two"])

    run(test)


def test_when_all_members_fail_so_does_the_call() -> None:
    """Even if failures are tolerated; and so it does when only members without weight are left."""

    async def test() -> None:
        one, two = Whole("one", [1]), Whole("two", [1])
        one.error = ServingError(Kind.MODEL_FAILED, "no")
        subject = router(gateway_of(one, two), VOTING, "one", "two", tolerate=True, weights={"one": 1})
        assert (await refused(subject)).message == "router 'r': only members with the weight 0 have answered"
        two.error = ServingError(Kind.TIMEOUT, "slow")
        assert (await refused(subject)).kind in (Kind.MODEL_FAILED, Kind.TIMEOUT)

    run(test)


def test_a_bug_is_an_internal_error() -> None:
    """Its text is for the log, whatever is tolerated."""

    async def test() -> None:
        one = Whole("one")
        one.error = KeyError("secret")
        error = await refused(router(gateway_of(one, Whole("two")), VOTING, "one", "two", tolerate=True))
        assert (error.kind, error.message) == (Kind.INTERNAL, "router 'r' failed")

    run(test)


def test_a_member_that_left_and_came_back() -> None:
    """Meanwhile the call fails, and never with "not found": the router itself is there."""

    async def test() -> None:
        gateway = gateway_of(Whole("one", [1]))
        subject = router(gateway, VOTING, "one")
        table = gateway.table()
        gateway.swap({})
        gateway.publish("one", [], {})
        error = await refused(subject)
        assert (error.kind, error.message) == (Kind.UNAVAILABLE, "member 'one' of router 'r': model 'one' is not known to this server")
        gateway.swap(table)
        assert (await answer(subject))["outputs"] == [1]

    run(test)


def test_cancelling_the_call_cancels_the_members() -> None:
    """Whoever hangs up leaves nothing running."""

    async def test() -> None:
        one, two = Whole("one", gate=asyncio.Event()), Whole("two", gate=asyncio.Event())
        gateway = gateway_of(one, two)
        call = asyncio.ensure_future(router(gateway, VOTING, "one", "two", tolerate=True).infer(ask()))
        await settle(lambda: len(one.requests) == len(two.requests) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert [e.in_flight for e in gateway.entries()] == [0, 0]

    run(test)


def test_a_first_step_without_a_task() -> None:
    """As the HTTP server runs it."""

    async def test() -> None:
        subject = router(gateway_of(Whole("one", [1])), VOTING, "one")
        answers: list[Any] = []
        endings: list[BaseException | None] = []

        async def request() -> None:
            answers.append(await answer(subject))

        def outside() -> None:
            assert asyncio.current_task() is None
            Stepped(request(), endings.append, asyncio.get_running_loop()).go_on()

        asyncio.get_running_loop().call_soon(outside)
        await settle(lambda: bool(endings))
        assert endings == [None]
        assert answers[0]["outputs"] == [1]

    run(test)


# --- routers of routers ---


def nested(gateway: Gateway, kind: str, *members: str, name: str) -> None:
    """Put a router into the table, beside what is there."""
    entry = Entry(spec_of(kind, *members, name=name), router(gateway, kind, *members, name=name))
    gateway.swap({**gateway.table(), (entry.name, entry.version): entry, (entry.name, ""): entry})


def test_routers_of_routers() -> None:
    """A router is a model of whole requests like any other."""

    async def test() -> None:
        gateway = gateway_of(Whole("one", [1.5]), Whole("two", [2.0]), Matrix("three", 5))
        nested(gateway, VOTING, "one", "two", name="inner")
        assert (await answer(router(gateway, VOTING, "inner", "three", name="outer")))["outputs"] == [3.375]

    run(test)


def test_a_circle_is_refused() -> None:
    """However far around; the router's name is in the reason."""

    async def test() -> None:
        gateway = gateway_of(Whole("one", [1]))
        nested(gateway, VOTING, "one", name="a")
        nested(gateway, PARALLEL, "a", name="b")
        with pytest.raises(ServingError, match="router 'a' is made of itself"):
            router(gateway, ROUTER, "b", name="a")
        with pytest.raises(ServingError, match="router 'x' is made of itself"):
            router(gateway, ROUTER, "x", name="x")

    run(test)


# --- what cannot be a router ---


def test_members_that_are_not_there() -> None:
    """UNAVAILABLE with both names, so that the start says what is missing."""
    with pytest.raises(ServingError, match="member 'gone' of router 'r': model 'gone' is not known") as caught:
        router(gateway_of(Whole("one")), VOTING, "one", "gone")
    assert caught.value.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize(
    ("kind", "args", "words"),
    [
        (VOTING, {"vote_type": "most"}, "'vote_type' of router 'r' is 'most', expected one of classification, regression"),
        (VOTING, {"executor_type": "fork"}, "expected one of thread, process, array"),
        (VOTING, {"prediction_col_name": 5}, "expected a text"),
        (VOTING, {"tolerate": "yes"}, "expected true or false"),
        (VOTING, {"weigths": {}}, "router 'r' has no argument 'weigths'; a VotingEnsemble takes executor_type,"),
        (PARALLEL, {"weights": {}}, "router 'r' has no argument 'weights'"),
        (ROUTER, {"tolerate": True}, "router 'r' has no argument 'tolerate'"),
    ],
)
def test_arguments_that_are_none(kind: str, args: Mapping[str, Any], words: str) -> None:
    """Refused when the router is made; spelling mistakes do not pass."""
    with pytest.raises(ServingError) as caught:
        router(gateway_of(Whole("one")), kind, "one", **args)
    assert words in caught.value.message


# --- what others see of it ---


def test_data_points_are_described_as_the_members_describe_them() -> None:
    """By the first member that does, so that every other protocol knows what to send."""
    described = router(gateway_of(Whole("whole"), Scores("rows")), VOTING, "whole", "rows").signatures[""]
    assert described.whole
    assert list((described.input_schema or {})["properties"]) == ["a", "b"]
    assert [spec.name for spec in described.inputs] == ["a", "b"]
    assert [spec.name for spec in described.outputs] == ["score"]
    bare = router(gateway_of(Whole("whole")), PARALLEL, "whole").signatures[""]
    assert (bare.inputs, bare.outputs) == ((), ())


def test_what_it_is_called() -> None:
    """Platforms and weights, for metadata and the list of models."""
    gateway = gateway_of(Whole("one"), Whole("two"))
    ensemble = router(gateway, VOTING, "one", "two", weights={"one": 1})
    assert (ensemble.platform, ensemble.weights) == ("mlrun_voting_ensemble", {"one": 1.0, "two": 0.0})
    assert router(gateway, PARALLEL, "one").platform == "mlrun_parallel_run"
    assert router(gateway, ROUTER, "one").platform == "mlrun_model_router"


def test_names_of_other_runtimes_are_not_shown() -> None:
    """What TensorFlow calls a tensor would be read as MLRun's value_type."""
    member = Matrix("one", 1)
    member.signatures = {"": replace(MATRIX, inputs=(TensorSpec("x", FP32, (-1, 2), native="x:0"),))}
    (spec,) = router(gateway_of(member), PARALLEL, "one").signatures[""].inputs
    assert (spec.name, spec.native) == ("x", "")


def test_records_have_the_kind_as_class() -> None:
    """As MLRun's records of an ensemble have (M32); nobody asked, nothing is said."""

    async def test() -> None:
        subject = router(gateway_of(Whole("one", [1])), VOTING, "one")
        for record, said in ((True, {"class": "VotingEnsemble"}), (False, None)):
            request = ask()
            request.record = record
            response = await subject.infer(request)
            assert isinstance(response.outputs, Rows)
            assert response.outputs.items[0].record == said

    run(test)
