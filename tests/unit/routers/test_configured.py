"""What `--router` says, and the models that are made of it."""

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Step
from dragoman.serving.reading import Defaults
from dragoman.serving.repository import Repository
from dragoman.serving.routers.configured import Routers


def test_a_router_is_a_model_made_of_others() -> None:
    """Members are steps, so that they are loaded before it; versions go behind a colon; its revision changes with its arguments."""
    (found,) = Routers(["vote=VotingEnsemble:m1, m3:v1"], {"vote": {"weights": {"m1": 1}}}).found()
    (spec,) = found.versions.values()
    assert (found.name, found.error, spec.name, spec.steps) == ("vote", "", "vote", (Step("m1"), Step("m3", "v1")))
    (other,) = Routers(["vote=VotingEnsemble:m1,m3:v1"]).found()
    assert other.versions["1"].revision != spec.revision


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vote",
        "vote=VotingEnsemble",
        "vote=VotingEnsemble:",
        "vote=Other:m",
        "=ParallelRun:m",
        "v=ModelRouter:a,,b",
        "v=ModelRouter:a,a",
    ],
)
def test_texts_that_are_none(text: str) -> None:
    """What is wrong is said before anything is started."""
    with pytest.raises(ServingError, match="is no router, expected ") as caught:
        Routers([text])
    assert caught.value.kind is Kind.INVALID_INPUT


def test_what_cannot_be_served_has_its_reason() -> None:
    """A name that no URL carries, arguments that the kind does not take: the others are served."""
    bad, worse, good = Routers(["a/b=ParallelRun:m", "c=ParallelRun:m", "d=ParallelRun:m"], {"c": {"nonsense": 1}}).found()
    assert "'a/b'" in bad.error
    assert "router 'c' has no argument 'nonsense'" in worse.error
    assert not good.error


def test_a_repository_finds_routers() -> None:
    """After its targets, by name, and as one of its names; two of one name are an error."""
    repository = Repository((), Defaults(), routers=["vote=ParallelRun:m", "vote=ModelRouter:m"])
    assert repository.names() == ["vote"]
    assert [bool(found.error) for found in repository.discover()] == [False, True]
    found = repository.find("vote")
    assert found is not None
    assert found.versions["1"].arguments["kind"] == "ParallelRun"
    assert repository.find("other") is None
