"""Models made of models: order, branches, members that fail or leave, what members get and what comes back."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import InferRequest, InferResponse, ModelSpec, Step, Timings
from dragoman.core.tensors import FP32, Array, Rows, Signature, Tensor, Tensors, TensorSpec
from dragoman.server.eager import Stepped
from dragoman.serving.composed import Ensemble
from dragoman.serving.gateway import Entry, Gateway, VersionStatus
from dragoman.serving.meters import Meters
from tests.servables import FakeServable, run, settle

Work = Callable[[dict[str, Array]], Mapping[str, Array]]


def declared(*names: str, optional: tuple[str, ...] = ()) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, FP32, (-1, 2), optional=name in optional) for name in names)


class Member(FakeServable):
    """Inputs a and b (optional), outputs c and d: by default a and twice a. With a gate it waits for it."""

    def __init__(self, name: str, work: Work | None = None, gate: asyncio.Event | None = None, version: str = "1") -> None:
        signature = Signature(inputs=declared("a", "b", optional=("b",)), outputs=declared("c", "d"), batch=True)
        super().__init__(ModelSpec(name, version), gate, {"": signature})
        self._work: Work = work or (lambda inputs: {"c": inputs["a"], "d": inputs["a"] * 2})

    async def infer(self, request: InferRequest) -> InferResponse:
        await super().infer(request)
        assert isinstance(request.inputs, Tensors)
        outputs = self._work({t.name: t.array for t in request.inputs.items})
        return InferResponse(Tensors([Tensor(n, FP32, a) for n, a in outputs.items()]), Timings(queue_ns=5))


def gateway_of(*members: FakeServable) -> Gateway:
    gateway = Gateway(Meters())
    table: dict[tuple[str, str], Entry] = {}
    for member in members:
        entry = Entry(member.spec, member)
        table |= {(entry.name, entry.version): entry, (entry.name, ""): entry}
        gateway.publish(entry.name, [VersionStatus(entry.name, entry.version, State.READY, "")], {})
    gateway.swap(table)
    return gateway


def ensemble(
    gateway: Gateway, *steps: Step, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",), optional: tuple[str, ...] = ()
) -> Ensemble:
    signature = Signature(inputs=declared(*inputs, optional=optional), outputs=declared(*outputs), batch=True)
    return Ensemble(ModelSpec("e", signature=signature, steps=steps), gateway)


def step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str], version: str = "") -> Step:
    return Step(model, version, inputs, outputs)


def ask(rows: int = 1, **values: float) -> InferRequest:
    return InferRequest(Tensors([Tensor(name, FP32, np.full((rows, 2), value, "f4")) for name, value in (values or {"x": 1.0}).items()]))


def numbers(response: InferResponse) -> dict[str, list[float]]:
    """The first column of each output."""
    assert isinstance(response.outputs, Tensors)
    return {t.name: t.array[:, 0].tolist() for t in response.outputs.items}


async def failing(call: Awaitable[InferResponse]) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await call
    return caught.value


CHAIN = (step("one", {"a": "x"}, {"d": "half"}), step("two", {"a": "half"}, {"d": "y"}))
FORK = (
    step("one", {"a": "x"}, {"d": "left"}),
    step("two", {"a": "x"}, {"c": "right"}),
    step("three", {"a": "left", "b": "right"}, {"c": "y"}),
)


# --- order ---


@pytest.mark.parametrize("steps", [CHAIN, CHAIN[::-1]], ids=["in order", "reversed"])
def test_steps_run_when_their_tensors_exist(steps: tuple[Step, ...]) -> None:
    """In whatever order they are written; names are those of the ensemble outside and of the members inside."""

    async def test() -> None:
        one, two = Member("one"), Member("two")
        assert numbers(await ensemble(gateway_of(one, two), *steps).infer(ask(3, x=1.5))) == {"y": [6.0] * 3}
        for member in (one, two):
            (request,) = member.requests
            assert isinstance(request.inputs, Tensors)
            assert [t.name for t in request.inputs.items] == ["a"]
            assert request.outputs == ("d",)

    run(test)


def test_branches_run_at_the_same_time() -> None:
    """Both wait for a gate that opens when both have been called."""

    async def test() -> None:
        gate = asyncio.Event()
        one, two, three = Member("one", gate=gate), Member("two", gate=gate), Member("three", lambda i: {"c": i["a"] + i["b"]})
        call = asyncio.ensure_future(ensemble(gateway_of(one, two, three), *FORK).infer(ask(x=1)))
        await settle(lambda: len(one.requests) == len(two.requests) == 1)
        assert not three.requests
        gate.set()
        assert numbers(await call) == {"y": [3.0]}

    run(test)


def test_a_version_can_be_named() -> None:
    """Without one the member's default answers, at each call anew."""

    async def test() -> None:
        old, new = Member("one", lambda _: {"c": np.zeros((1, 2), "f4")}), Member("one", version="2")
        gateway = gateway_of(old, new)
        outputs = [
            numbers(await ensemble(gateway, step("one", {"a": "x"}, {"c": "y"}, version)).infer(ask(x=4))) for version in ("", "1", "2")
        ]
        assert [o["y"] for o in outputs] == [[4.0], [0.0], [4.0]]

    run(test)


def test_only_wanted_outputs_are_answered() -> None:
    """In the order of the declaration; inputs may be outputs too."""

    async def test() -> None:
        subject = ensemble(gateway_of(Member("one")), step("one", {"a": "x"}, {"c": "y", "d": "z"}), outputs=("z", "y", "x"))
        assert list(numbers(await subject.infer(ask()))) == ["z", "y", "x"]
        wanted = ask()
        wanted.outputs = ("y", "z")
        assert list(numbers(await subject.infer(wanted))) == ["z", "y"]

    run(test)


def test_batch_sizes_and_times() -> None:
    """The ensemble counts its own rows; its time in queues is the longest of its members."""

    async def test() -> None:
        response = await ensemble(gateway_of(Member("one"), Member("two")), *CHAIN).infer(ask(7))
        timings = response.timings
        assert (timings.batch_size, timings.rows, timings.leader, timings.queue_ns) == (7, 7, True, 5)
        assert timings.infer_ns > 0

    run(test)


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_any_number_of_rows(rows: int) -> None:
    """An empty batch goes through all steps too."""

    async def test() -> None:
        assert numbers(await ensemble(gateway_of(Member("one"), Member("two")), *CHAIN).infer(ask(rows))) == {"y": [4.0] * rows}

    run(test)


# --- what members get ---


def test_members_may_write_into_their_inputs() -> None:
    """Two members of one tensor never see each other's changes, and the request's own array stays as it was."""

    async def test() -> None:
        def spoil(inputs: dict[str, Array]) -> Mapping[str, Array]:
            inputs["a"] += 10
            return {"c": inputs["a"]}

        request = ask(x=1)
        assert isinstance(request.inputs, Tensors)
        steps = (step("one", {"a": "x"}, {"c": "y"}), step("two", {"a": "x"}, {"c": "z"}), step("three", {"a": "y", "b": "y"}, {"c": "w"}))
        subject = ensemble(gateway_of(*(Member(n, spoil) for n in ("one", "two", "three"))), *steps, outputs=("y", "z", "w", "x"))
        assert numbers(await subject.infer(request)) == {"y": [11.0], "z": [11.0], "w": [21.0], "x": [1.0]}
        assert request.inputs.items[0].array.tolist() == [[1, 1]]

    run(test)


def test_what_the_caller_said_reaches_every_member() -> None:
    """Deadline, parameters, priority, id and caller; members are metered as the ensemble's."""

    async def test() -> None:
        one, two = Member("one"), Member("two")
        request = ask()
        request.deadline, request.parameters, request.priority = time.monotonic() + 9, {"t": 1}, 3
        request.id, request.caller, request.dialect = "7", "me", "v2"
        await ensemble(gateway_of(one, two), *CHAIN).infer(request)
        for part in (*one.requests, *two.requests):
            assert (part.deadline, part.parameters, part.priority) == (request.deadline, {"t": 1}, 3)
            assert (part.id, part.caller, part.dialect) == ("7", "me", "ensemble")

    run(test)


def test_optional_inputs() -> None:
    """Left out, a member gets none; sent, it gets it; a member that needs it names both sides."""

    async def test() -> None:
        member = Member("one", lambda i: {"c": i["a"] + i.get("b", 0)})
        subject = ensemble(gateway_of(member), step("one", {"a": "x", "b": "more"}, {"c": "y"}), inputs=("x", "more"), optional=("more",))
        assert numbers(await subject.infer(ask(x=1))) == {"y": [1.0]}
        assert numbers(await subject.infer(ask(x=1, more=2))) == {"y": [3.0]}
        needing = ensemble(gateway_of(member), step("one", {"a": "more"}, {"c": "y"}), inputs=("x", "more"), optional=("more",))
        error = await failing(needing.infer(ask(x=1)))
        assert error.kind is Kind.INVALID_INPUT
        assert error.message == "member 'one' of ensemble 'e': its input 'a' is needed, but the request has no 'more'"

    run(test)


def test_rows_are_refused() -> None:
    """Ensembles are of tensors."""

    async def test() -> None:
        error = await failing(ensemble(gateway_of(Member("one")), step("one", {"a": "x"}, {"c": "y"})).infer(InferRequest(Rows([1]))))
        assert error.kind is Kind.INVALID_INPUT

    run(test)


# --- failures ---


@pytest.mark.parametrize("kind", [Kind.INVALID_INPUT, Kind.MODEL_FAILED, Kind.TIMEOUT, Kind.OVERLOADED])
def test_a_failing_member_is_named(kind: Kind) -> None:
    """Its kind and its wish to be asked later are kept; no later step runs."""

    async def test() -> None:
        one, two = Member("one"), Member("two")
        one.error = ServingError(kind, "no", what="model", retry_after_s=3)
        error = await failing(ensemble(gateway_of(one, two), *CHAIN).infer(ask()))
        assert (error.kind, error.message, error.retry_after_s) == (kind, "member 'one' of ensemble 'e': no", 3)
        assert not two.requests

    run(test)


def test_a_member_that_fails_cancels_its_siblings() -> None:
    """Nobody needs them any more."""

    async def test() -> None:
        waiting, failed, three = Member("one", gate=asyncio.Event()), Member("two"), Member("three")
        failed.error = ServingError(Kind.MODEL_FAILED, "no")
        gateway = gateway_of(waiting, failed, three)
        assert "member 'two'" in (await failing(ensemble(gateway, *FORK).infer(ask()))).message
        assert [e.in_flight for e in gateway.entries()] == [0, 0, 0]

    run(test)


def test_a_bug_in_a_member_is_an_internal_error() -> None:
    """Its text is for the log; the caller hears which ensemble it was."""

    async def test() -> None:
        one = Member("one")
        one.error = KeyError("secret")
        error = await failing(ensemble(gateway_of(one, Member("two")), *CHAIN).infer(ask()))
        assert (error.kind, error.message) == (Kind.INTERNAL, "ensemble 'e' failed")

    run(test)


@pytest.mark.parametrize(
    ("state", "reason", "kind"),
    [(State.GONE, "unloaded", Kind.UNAVAILABLE), (State.LOADING, "", Kind.NOT_READY), (None, "", Kind.UNAVAILABLE)],
)
def test_a_member_that_left_meanwhile(state: State | None, reason: str, kind: Kind) -> None:
    """The ensemble is still there, so its caller never hears that a model was not found; when the member is back, it answers again."""

    async def test() -> None:
        gateway = gateway_of(Member("one"))
        subject = ensemble(gateway, step("one", {"a": "x"}, {"c": "y"}))
        table = gateway.table()
        gateway.swap({})
        gateway.publish("one", [VersionStatus("one", "1", state, reason)] if state else [], {})
        error = await failing(subject.infer(ask()))
        assert error.kind is kind
        assert error.message.startswith("member 'one' of ensemble 'e': model 'one' is ")
        gateway.swap(table)
        assert numbers(await subject.infer(ask())) == {"y": [1.0]}

    run(test)


@pytest.mark.parametrize("lost", ["half", "y"])
def test_a_member_that_gives_less_than_it_declares(lost: str) -> None:
    """A later step that needs the tensor, or the answer itself, says what is missing: the model's fault, not ours."""

    async def test() -> None:
        members = {"half": "one", "y": "two"}
        silent = members[lost]
        gateway = gateway_of(*(Member(name, (lambda _: {}) if name == silent else None) for name in members.values()))
        error = await failing(ensemble(gateway, *CHAIN).infer(ask()))
        assert error.kind is Kind.MODEL_FAILED
        assert f"'{lost}'" in error.message

    run(test)


def test_cancelling_the_call_cancels_the_members() -> None:
    """Whoever hangs up leaves nothing running."""

    async def test() -> None:
        one = Member("one", gate=asyncio.Event())
        gateway = gateway_of(one)
        call = asyncio.ensure_future(ensemble(gateway, step("one", {"a": "x"}, {"c": "y"})).infer(ask()))
        await settle(lambda: len(one.requests) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert gateway.entries()[0].in_flight == 0

    run(test)


# --- what cannot be an ensemble ---


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((step("one", {"a": "p"}, {"c": "q"}), step("two", {"a": "q"}, {"c": "p"})), "nothing produces the tensor 'p'"),
        ((step("one", {"a": "y"}, {"c": "y"}),), "nothing produces the tensor 'y'"),
        ((step("one", {"a": "x"}, {"c": "z"}),), "no step produces its output 'y'"),
        ((), "no step produces its output 'y'"),
    ],
    ids=["a circle", "itself", "no output", "no steps"],
)
def test_steps_that_cannot_run(steps: tuple[Step, ...], message: str) -> None:
    """Refused when it is made, naming the ensemble and the tensor."""
    with pytest.raises(ServingError, match=message) as caught:
        ensemble(Gateway(Meters()), *steps)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "'e'" in caught.value.message


def test_an_ensemble_must_declare_its_tensors() -> None:
    """Nothing else could say what clients may send."""
    with pytest.raises(ServingError, match="declares no inputs"):
        Ensemble(ModelSpec("e", steps=CHAIN), Gateway(Meters()))


@pytest.mark.parametrize(
    ("member", "kind", "message"),
    [
        (step("gone", {"a": "x"}, {"c": "y"}), Kind.UNAVAILABLE, "needs a member that is not served: model 'gone' is not known"),
        (step("one", {"a": "x"}, {"c": "y"}, "9"), Kind.UNAVAILABLE, "has no version '9'"),
        (step("one", {"q": "x"}, {"c": "y"}), Kind.INVALID_INPUT, "feeds the input 'q', which its member 'one' does not have"),
        (step("one", {"a": "x"}, {"q": "y"}), Kind.INVALID_INPUT, "reads the output 'q', which its member 'one' does not have"),
    ],
)
def test_members_are_checked_when_it_is_loaded(member: Step, kind: Kind, message: str) -> None:
    """A mistake in the configuration shows at once and not at the first call."""
    with pytest.raises(ServingError, match=message) as caught:
        ensemble(gateway_of(Member("one")), member).check_members()
    assert caught.value.kind is kind
    ensemble(gateway_of(Member("one")), step("one", {"a": "x"}, {"c": "y"})).check_members()


# --- the server's first step ---


def test_the_first_step_may_have_no_task() -> None:
    """The HTTP server runs a request to its first suspension outside of any task; an ensemble works there too."""

    async def test() -> None:
        subject = ensemble(gateway_of(Member("one"), Member("two")), *CHAIN)
        answers: list[InferResponse] = []

        async def request() -> None:
            answers.append(await subject.infer(ask(x=2)))

        endings: list[BaseException | None] = []

        def outside() -> None:
            assert asyncio.current_task() is None
            Stepped(request(), endings.append, asyncio.get_running_loop()).go_on()

        asyncio.get_running_loop().call_soon(outside)
        await settle(lambda: bool(endings))
        assert endings == [None]
        assert numbers(answers[0]) == {"y": [8.0]}

    run(test)
