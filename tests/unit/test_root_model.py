"""Which model answers a client that names none."""

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.serving.gateway import Gateway, VersionStatus
from dragoman.serving.root_model import default_entry
from tests.fakes_predictions import NUMBERS, Client


def answer(gateway: Gateway) -> str | tuple[Kind, str]:
    """The name of the default model, or why there is none."""
    try:
        return default_entry(gateway).name
    except ServingError as error:
        return error.kind, error.message


def test_the_first_that_was_named() -> None:
    """Then the next one that can serve; then the first by name of what came later."""
    client = Client(b=NUMBERS, a=NUMBERS)
    gateway = client.gateway
    assert answer(gateway) == "b"
    gateway.named = ("gone", "a", "b")
    assert answer(gateway) == "a"
    gateway.publish("gone", [VersionStatus("gone", "1", State.FAILED, "no")], {})
    assert answer(gateway) == "a"
    gateway.named = ()
    assert answer(gateway) == "a"


def test_a_model_that_loads_is_waited_for() -> None:
    """A client must not reach another model because it loaded faster; also before its loading has begun."""
    gateway = Client(quick=NUMBERS).gateway
    gateway.named = ("slow", "quick")
    gateway.publish("slow", [VersionStatus("slow", "1", State.LOADING, "")], {})
    assert answer(gateway) == (Kind.NOT_READY, "model 'slow' is loading")
    gateway.publish("slow", [], {})
    assert answer(gateway) == "quick"
    gateway.starting = True
    assert answer(gateway) == (Kind.NOT_READY, "model 'slow' is loading")


def test_nothing_to_answer() -> None:
    """With the reason, if what was named has one."""
    gateway = Client().gateway
    gateway.swap({})
    gateway.named = ()
    assert answer(gateway) == (Kind.NOT_FOUND, "this server serves no model yet")
    gateway.starting = True
    assert answer(gateway) == (Kind.NOT_READY, "the server is starting: its models are not known yet")
    gateway.starting = False
    gateway.named = ("m",)
    gateway.publish("m", [VersionStatus("m", "1", State.FAILED, "setup raised")], {})
    assert answer(gateway) == (Kind.UNAVAILABLE, "model 'm' version 1 failed to load: setup raised")
