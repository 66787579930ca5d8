"""Routers of users: which hooks are called, with what, in which order, and what happens when they fail (MLRun requirement M31)."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.bodies import event
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, InferRequest, InferResponse, Model, ModelSpec, Servable, Step, Timings
from dragoman.core.tensors import Blob, Rows
from dragoman.runtimes.python import load
from dragoman.serving.routers.hooks import Hooks
from dragoman.serving.routers.router import RUNTIME, Router, open_router
from tests.models.snippets import same_process
from tests.servables import FakeServable, run, settle
from tests.unit.routers.test_router import PLAIN, Whole, answer, ask, refused
from tests.unit.test_composed import gateway_of

SOURCE = """
from mlrun.serving.routers import ModelRouter, ParallelRun, VotingEnsemble
from mlrun.serving.server import Response

class Widest(VotingEnsemble):
    def __init__(self, *args, margin=0, **kwargs):
        super().__init__(*args, vote_type="regression", **kwargs)
        self.margin = margin

    def logic(self, predictions, weights):
        return predictions.max(axis=1) - predictions.min(axis=1) + self.margin

class Plain(VotingEnsemble):
    pass

class Same(VotingEnsemble):
    def logic(self, predictions, weights):
        return super().logic(predictions, weights)

class Steps(ParallelRun):
    def preprocess(self, event):
        event.body["steps"] = ["preprocess", event.method, event.path, event.trigger.kind]
        event.body["files"] = [each.read() for each in event.body.get("files", [])]
        event.terminated = "stop" in event.body
        return event

    def parse_event(self, event):
        body = super().parse_event(event)
        body["steps"].append("parse_event")
        return body

    def merger(self, body, results):
        return {**body, "by": {name: result["outputs"] for name, result in results.items()}}

    async def postprocess(self, event):
        event.body["after"] = event.path
        if event.body.get("teapot"):
            event.body = Response(body="short and stout", status_code=418)
        return event

class Strict(VotingEnsemble):
    def validate(self, request, method):
        if len(request["inputs"]) > 1:
            raise ValueError("one at a time")
        return request

    def logic(self, predictions, weights):
        raise ArithmeticError("no majority")

class Broken(VotingEnsemble):
    def __init__(self, *args, **kwargs):
        raise RuntimeError("not today")

class Nothing:
    pass
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("routers") / "my_routers.py"
    path.write_text(SOURCE)
    return path


class Here:
    """Opens a router's class in this process, in a thread, and notes what is opened."""

    def __init__(self) -> None:
        self.opened: list[Noted] = []

    async def open(self, spec: ModelSpec) -> Servable:
        assert spec.engine == "process"
        self.opened.append(Noted(spec, load(spec)))
        return self.opened[-1]


class Noted(FakeServable):
    """A loaded model, as its process runs it: beside the loop, one call at a time."""

    def __init__(self, spec: ModelSpec, model: Model) -> None:
        super().__init__(spec, signatures=model.signatures)
        self.model = model
        self.operations, self.platform = model.operations, model.platform

    @property
    def asked(self) -> list[str]:
        return [request.operation for request in self.requests]

    async def infer(self, request: InferRequest) -> InferResponse:
        assert not self.closed
        self.requests.append(request)
        return InferResponse(await asyncio.to_thread(self.model.predict, Call(request.inputs, request.operation)), Timings())

    async def close(self) -> None:
        await asyncio.to_thread(self.model.close)
        await super().close()


def of_users(file: Path, name: str, test: Callable[[Router, Noted], Awaitable[None]], *members: FakeServable, **args: Any) -> None:
    """Run a test with a router of the class `name` over these members; it is closed afterwards."""

    async def whole() -> None:
        here = Here()
        subject = await open_router(spec_of(file, name, *members, **args), gateway_of(*members), here.open)
        try:
            await test(subject, here.opened[0])
        finally:
            await subject.close()
        assert here.opened[0].closed == 1

    run(whole)


def spec_of(file: Path, name: str, *members: FakeServable, **args: Any) -> ModelSpec:
    steps = tuple(Step(member.spec.name) for member in members)
    return ModelSpec("r", runtime=RUNTIME, artifact=str(file), steps=steps, arguments={"kind": "", "class": name, "args": args})


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    with same_process():
        yield


def test_logic_decides(file: Path) -> None:
    """It gets arrays, by data point and member; the class arguments are the constructor's; nothing else is asked of the class."""

    async def test(subject: Router, hooks: Noted) -> None:
        assert await answer(subject, ask([[1], [2]])) == {"id": "7", "model_name": "r", "outputs": [8, 5], "model_version": "v1"}
        assert (subject.platform, hooks.asked) == ("mlrun_voting_ensemble", ["predict", "logic"])

    of_users(file, "Widest", test, Whole("one", [1, 2]), Whole("two", [4, 2]), margin=5)


def test_the_object_has_the_last_word_about_options(file: Path) -> None:
    """Its attributes are what the router goes by; arguments for MLRun's own constructor get there."""

    async def test(subject: Router, hooks: Noted) -> None:
        assert subject.options.weights == {"one": 0.75, "two": 0.25}
        assert subject.options.column == "p"
        assert (await answer(subject))["outputs"] == {"p": [1.75]}
        assert hooks.asked == ["predict"]

    members = Whole("one", {"p": [1.5]}), Whole("two", {"p": [2.5]})
    of_users(file, "Plain", test, *members, weights={"one": 3, "two": 1}, prediction_col_name="p", format_response_with_col_name_flag=True)


def test_logic_may_ask_its_base_class(file: Path) -> None:
    """What MLRun's own logic decides is then ours."""

    async def test(subject: Router, hooks: Noted) -> None:
        assert (await answer(subject))["outputs"] == [3]

    of_users(file, "Same", test, Whole("one", [3]), Whole("two", [3]), Whole("three", [4]))


def test_logic_gets_one_number_per_point_and_member(file: Path) -> None:
    """Also of members that answer tensors of shape [n, 1]."""

    async def test(subject: Router, hooks: Noted) -> None:
        assert (await answer(subject))["outputs"] == [4, 1]

    of_users(file, "Widest", test, Whole("one", [[1], [2]]), Whole("two", [5, 3]))


def test_hooks_in_order(file: Path) -> None:
    """preprocess, parse_event, the members, merger, postprocess, each with the event; coroutines are awaited; files are file objects."""

    async def test(subject: Router, hooks: Noted) -> None:
        body = {"inputs": [[1]], "files": [Blob(b"abc")]}
        request = InferRequest(Rows([event(body, path="/v2/models/r", trigger="kafka")]), operation="infer")
        assert await answer(subject, request) == {
            "inputs": [[1]],
            "files": [b"abc"],
            "steps": ["preprocess", "POST", "/v2/models/r", "kafka", "parse_event"],
            "by": {"one": [1]},
            "after": "infer",
        }
        assert hooks.asked == ["predict", "before", "merger", "after"]

    of_users(file, "Steps", test, Whole("one", [1]), extend_event=True)


def test_preprocess_may_end_a_request(file: Path) -> None:
    """With `terminated` the event is the answer, and no member is asked."""
    one = Whole("one", [1])

    async def test(subject: Router, hooks: Noted) -> None:
        assert (await answer(subject, ask(stop=True)))["stop"] is True
        assert not one.requests

    of_users(file, "Steps", test, one)


def test_postprocess_may_choose_a_status(file: Path) -> None:
    """A Response is the whole answer."""

    async def test(subject: Router, hooks: Noted) -> None:
        response = await subject.infer(ask(teapot=True))
        assert isinstance(response.outputs, Rows)
        (reply,) = response.outputs.items
        assert (reply.status, reply.body) == (418, "short and stout")

    of_users(file, "Steps", test, Whole("one", [1]), extend_event=True)


def test_hooks_that_fail(file: Path) -> None:
    """A request that validate refuses is the client's fault, and no member hears of it; a logic that raises is the model's. Both say why."""
    one = Whole("one", [1])

    async def test(subject: Router, hooks: Noted) -> None:
        error = await refused(subject, ask([[1], [2]]))
        assert (error.kind, error.message) == (Kind.INVALID_INPUT, "model 'r' refused the request: ValueError: one at a time")
        assert not one.requests
        error = await refused(subject)
        assert (error.kind, error.message) == (Kind.MODEL_FAILED, "router 'r': model 'r' failed: ArithmeticError: no majority")

    of_users(file, "Strict", test, one)


def test_what_the_caller_said_reaches_the_hooks(file: Path) -> None:
    """Deadline, priority, id and caller, so that a hook that hangs is broken off as a model is."""

    async def test(subject: Router, hooks: Noted) -> None:
        request = ask()
        request.deadline, request.priority, request.id, request.caller = time.monotonic() + 99, 3, "7", "me"
        await answer(subject, request)
        for each in hooks.requests[1:]:
            assert (each.deadline, each.priority, each.id, each.caller) == (request.deadline, 3, "7", "me")

    of_users(file, "Steps", test, Whole("one", [1]))


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("Missing", {}, "has no class 'Missing'"),
        ("Nothing", {}, "the class 'Nothing' of router 'r' is not derived from one of MLRun's VotingEnsemble, ParallelRun, ModelRouter"),
        ("Broken", {}, "model 'r' could not be loaded: RuntimeError: not today"),
        ("Plain", {"weights": {"gone": 1}}, "the weights of router 'r' name 'gone'"),
        ("Plain", {"vote_type": "most"}, "expected one of classification, regression"),
    ],
)
def test_classes_that_cannot_be_served(file: Path, name: str, args: dict[str, Any], words: str) -> None:
    """The reason names the class; what was opened before is closed."""

    async def test() -> None:
        here, member = Here(), Whole("one", [1])
        with pytest.raises(ServingError) as caught:
            await open_router(spec_of(file, name, member, **args), gateway_of(member), here.open)
        assert words in caught.value.message
        assert [each.closed for each in here.opened] == [1] * len(here.opened)

    run(test)


def test_members_are_looked_for_first(file: Path) -> None:
    """No process is started for a router that lacks a member."""

    async def test() -> None:
        here = Here()
        with pytest.raises(ServingError, match="member 'one' of router 'r'"):
            await open_router(spec_of(file, "Plain", Whole("one")), gateway_of(), here.open)
        assert not here.opened

    run(test)


def test_a_router_lives_and_dies_with_its_process(file: Path) -> None:
    """What the process says of itself is what the router says: lost, trouble, waiting requests, draining."""

    async def test() -> None:
        inner = FakeServable(ModelSpec("r"))
        hooks = Hooks(inner, "r", "VotingEnsemble", {})
        subject = Router(spec_of(file, "Plain", Whole("one")), gateway_of(Whole("one")), [PLAIN], hooks)
        assert (subject.trouble(), subject.pending()) == ("", 7)
        waiting = asyncio.ensure_future(subject.lost())
        await settle(lambda: inner.gone is not None)
        assert inner.gone is not None
        inner.gone.set_result("killed")
        assert await waiting == "killed"
        await subject.drain(5.0)
        await subject.close()
        assert (inner.drained_until, inner.closed) == (5.0, 1)

    run(test)
