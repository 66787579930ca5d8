"""Whether requirements are met by what is installed."""

from importlib.metadata import PackageNotFoundError

import pytest

from dragoman.serving.installed import name_of, unmet

HAVE = {"torch": "2.3.1+cpu", "numpy": "1.26.4", "early": "2.0rc1", "later": "1.0.post2"}


def installed(name: str) -> str:
    if name.lower() not in HAVE:
        raise PackageNotFoundError(name)
    return HAVE[name.lower()]


@pytest.mark.parametrize(
    "requirement",
    [
        "torch", "Torch", "torch==2.3.1", "torch == 2.3.1", "torch>=2", "torch>2.3", "torch<3,>=2.1", "torch!=2.0", "torch==2.3.*", "torch~=2.3.0",
        "torch~=2.1", "numpy (>=1.20)", "torch>=2.3.1.0", "", "# a comment", "torch # a comment", "torch!=2.2.*", "later>=1.0",
    ],
)  # fmt: skip
def test_met(requirement: str) -> None:
    """Names with plain clauses, blanks and comments."""
    assert unmet([requirement], installed) == []


@pytest.mark.parametrize(
    "requirement",
    [
        "missing", "torch==2.3", "torch>2.3.1", "torch<2", "torch>=2.4", "torch!=2.3.1", "torch==2.4.*", "torch~=2.3.2", "torch~=2", "torch~=3.0",
        "torch[extra]", "torch; python_version < '4'", "torch @ https://example.org/x", "git+https://example.org/x", "torch==2.3.1+cpu",
        "early", "early>=1", "./folder", "-r other.txt", "torch>=2.*", "torch=2",
    ],
)  # fmt: skip
def test_not_met_or_not_for_certain(requirement: str) -> None:
    """Whatever is not plain is left to the installer."""
    assert unmet([requirement], installed) == [requirement]


def test_the_real_environment() -> None:
    """The default looks at what this Python has."""
    assert unmet(["numpy", "no-such-package-at-all"]) == ["no-such-package-at-all"]


@pytest.mark.parametrize(
    ("line", "name"), [("Torch_Vision==1", "torch-vision"), ("a.b", "a-b"), ("./a", ""), ("https://x/y", ""), ("a/b", "")]
)
def test_names(line: str, name: str) -> None:
    """As indexes compare them; addresses and paths have none."""
    assert name_of(line) == name
