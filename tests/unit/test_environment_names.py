"""The names of FloydHub's environments: all of them, what they stand for, and the releases that come nearest today."""

import re

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.engines.requirements import from_model
from dragoman.serving.jobs.environment_names import ARCHITECTURES, bounds, check, listed, named, nearest

BOTH = [
    *("tensorflow", "keras", "theano", "theano-0.8", "theano-0.9", "caffe", "torch", "chainer", "chainer-1.23", "chainer-2.0", "mxnet"),
    *("tensorflow-0.12", *(f"tensorflow-1.{n}" for n in (0, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12))),
    *("pytorch", *(f"pytorch-{v}" for v in ("0.1", "0.2", "0.3", "0.4", "1.0"))),
]
ONLY_3 = [
    *(f"tensorflow-{v}" for v in ("1.13", "1.14", "1.15", "2.0", "2.1", "2.2")),
    *(f"pytorch-1.{n}" for n in range(1, 6)),
    *("kur", "default"),
]
EVERY = sorted([*BOTH, *(f"{name}:py2" for name in BOTH), *ONLY_3])


def test_every_name_for_each_machine() -> None:
    """The client looks a name up under the kind of its machine, so that none may be missing anywhere."""
    lists = listed()
    assert sorted(lists) == sorted(ARCHITECTURES)
    for images in lists.values():
        assert sorted(images) == EVERY
        assert all(images.values())
    assert lists["cpu"]["tensorflow-0.12:py2"] == "floydhub/tensorflow:0.12.1-py2"
    assert lists["gpu"]["tensorflow-1.9"] == lists["gpu2"]["tensorflow-1.9"] == "floydhub/tensorflow:1.9-gpu-py3"
    assert lists["cpu"]["keras"] == "floydhub/keras:1.1-py3"
    on_gpu = [image for name, image in lists["gpu"].items() if name != "default"]
    assert all(re.fullmatch(r"floydhub/[a-z]+:[0-9.]+-gpu-py[23]", image) for image in on_gpu)


@pytest.mark.parametrize("name", EVERY)
def test_each_has_a_python_and_something_to_say(name: str) -> None:
    """And whatever is proposed to be installed is what an installer takes from a stranger."""
    environment = named(name)
    assert check(name) == environment.name == name
    assert (environment.python[:1] == (2,)) == name.endswith(":py2")
    if name == "default":
        assert (environment.python, environment.framework) == ((), "")
        return
    assert (2, 7) <= environment.python <= (3, 7)
    assert environment.version in environment.contents
    for minor in range(8, 16):
        found = nearest(environment.framework, environment.version, (3, minor))
        assert bool(found.requirements) != bool(found.reason)
        assert len(from_model(found.requirements)) == len(found.requirements)


@pytest.mark.parametrize(
    "name", ["", "tensorflow-1.6", "tensorflow-1.13:py2", "kur:py2", "Default", "default:py2", "../x", "é", "x" * 100_000]
)
def test_others_are_refused_with_the_list(name: str) -> None:
    """Whoever misspells one sees what there is; a long name is cut."""
    with pytest.raises(ServingError) as caught:
        named(name)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "tensorflow-0.12:py2, " in caught.value.message
    assert len(caught.value.message) < 3000


@pytest.mark.parametrize(
    ("name", "python"),
    [
        ("tensorflow-1.2", (3, 5)),
        ("tensorflow-1.3", (3, 6)),
        ("tensorflow-2.1", (3, 6)),
        ("tensorflow-2.2", (3, 7)),
        ("pytorch-0.2", (3, 5)),
        ("pytorch-0.3", (3, 6)),
        ("pytorch-1.5", (3, 7)),
        ("keras", (3, 5)),
        ("tensorflow-1.12:py2", (2, 7)),
    ],
)
def test_the_python_of_the_image(name: str, python: tuple[int, int]) -> None:
    """3.5, later 3.6, at last 3.7."""
    assert named(name).python == python


@pytest.mark.parametrize(
    ("framework", "version", "python", "requirements"),
    [
        ("tensorflow", "0.12.1", (3, 8), ("tensorflow>=2.2,<2.3", "numpy<2", "protobuf<3.21", "keras<2.5")),
        ("tensorflow", "2.2", (3, 9), ("tensorflow>=2.5,<2.6", "numpy<2", "protobuf<3.21", "keras<2.5")),
        ("tensorflow", "1.9", (3, 11), ("tensorflow>=2.12,<2.13", "numpy<2")),
        ("tensorflow", "1.9", (3, 13), ("tensorflow>=2.20,<2.21",)),
        ("tensorflow", "1.9", (3, 40), ("tensorflow",)),
        ("pytorch", "0.1", (3, 8), ("torch>=1.4,<1.5", "numpy<2", "torchvision>=0.5,<0.6")),
        ("pytorch", "1.5", (3, 8), ("torch>=1.5,<1.6", "numpy<2", "torchvision>=0.6,<0.7")),
        ("pytorch", "1.5", (3, 11), ("torch>=2.0,<2.1", "numpy<2", "torchvision>=0.15,<0.16")),
        ("pytorch", "1.5", (3, 13), ("torch>=2.6,<2.7", "torchvision>=0.21,<0.22")),
        ("theano", "0.9", (3, 8), ("theano==1.0.5", "numpy<1.22")),
    ],
)
def test_the_nearest_release(framework: str, version: str, python: tuple[int, int], requirements: tuple[str, ...]) -> None:
    """Its own where this Python had it, else the first that this Python got."""
    assert nearest(framework, version, python).requirements == requirements


def test_where_releases_are_not_known() -> None:
    """On other machines any release will do; what ended before this Python came is said."""
    assert nearest("tensorflow", "1.9", (3, 8), "linux-aarch64").requirements == ("tensorflow",)
    assert nearest("chainer", "2.0", (3, 12)).reason == "chainer has no release for Python 3.12, only up to 3.11"
    assert "Lua" in nearest("torch", "7", (3, 8)).reason


def test_what_old_releases_need_beside_them() -> None:
    """They did not forbid what came later."""
    assert bounds("tensorflow", (2, 3)) == ("numpy<2", "protobuf<3.21", "keras<2.5")
    assert bounds("tensorflow", (2, 18)) == bounds("torch", (2, 3)) == ()
