"""The names that `--env` takes: FloydHub's images, which Python and framework each had, and the nearest that can be had today. Pure.

The API lists them and refuses others; serving/jobs/environments.py makes virtualenvs after them (FloydHub requirement F5).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dragoman.core.errors import invalid

DEFAULT = "default"
ARCHITECTURES = ("cpu", "gpu", "gpu2")
"""As the client asks for them; cpu2 looks into cpu."""

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """One environment of FloydHub."""

    name: str
    image: str
    """As FloydHub called it, for a machine without a GPU; "" for the default."""
    python: Version
    """What the image had; () for whatever the server has."""
    framework: str = ""
    version: str = ""
    """Of the framework."""
    companions: tuple[tuple[str, str], ...] = ()
    """Other packages that made up the image, with their versions."""

    @property
    def contents(self) -> str:
        """What the image was made for, as a person would write it."""
        return ", ".join(f"{name} {version}".strip() for name, version in ((self.framework, self.version), *self.companions) if name)


@dataclass(frozen=True, slots=True)
class Nearest:
    """What can be installed today in place of a framework: requirement lines, or the reason why there are none."""

    requirements: tuple[str, ...] = ()
    reason: str = ""


def named(name: str) -> Named:
    """The environment of this name. INVALID_INPUT, with all names, for any other."""
    found = _NAMED.get(name)
    if found is None:
        raise invalid(f"there is no environment {name[:60]!r}; the environments are: {', '.join(_NAMED)}")
    return found


def listed() -> dict[str, dict[str, str]]:
    """Architecture -> name -> image: every name, for each kind of machine."""
    return {kind: {name: _image(env, kind) for name, env in _NAMED.items()} for kind in ARCHITECTURES}


def check(name: str) -> str:
    """The name again; raises as `named` does."""
    return named(name).name


def nearest(framework: str, version: str, python: tuple[int, int], platform: str = "linux-x86_64") -> Nearest:
    """The release that is nearest to a framework's version and runs on this Python."""
    if framework in _GONE:
        return Nearest(reason=_GONE[framework])
    if framework in _RELEASES:
        return _ranged(framework, version, python, platform)
    last, newest = _LAST[framework]
    if python > newest:
        return Nearest(reason=f"{framework} has no release for Python {python[0]}.{python[1]}, only up to {newest[0]}.{newest[1]}")
    return Nearest(last)


def _ranged(framework: str, version: str, python: tuple[int, int], platform: str) -> Nearest:
    """Of a framework with releases for each Python: its version if there was one for this Python, else the first that there was."""
    package, first = _RELEASES[framework]
    if python not in first or not platform.startswith("linux-x86_64"):
        return Nearest((package,))
    low = max(first[python], _numbers(version)[:2])
    lines = [f"{package}>={low[0]}.{low[1]},<{low[0]}.{low[1] + 1}", *bounds(package, low)]
    if package == "torch":  # its images had torchvision, whose releases go along with it
        vision = low[1] + (1 if low[0] == 1 else 15)
        lines.append(f"torchvision>=0.{vision},<0.{vision + 1}")
    return Nearest(tuple(lines))


def bounds(package: str, version: Version) -> tuple[str, ...]:
    """What a release of tensorflow or torch did not forbid, and cannot work with: lines that do."""
    return tuple(line for below, line in _BOUNDS[package] if version < below)


_BOUNDS: Mapping[str, tuple[tuple[Version, str], ...]] = {
    "tensorflow": (((2, 18), "numpy<2"), ((2, 12), "protobuf<3.21"), ((2, 6), "keras<2.5")),
    "torch": (((2, 3), "numpy<2"),),
}
"""Package -> below which release what is needed."""

_RELEASES: Mapping[str, tuple[str, Mapping[tuple[int, int], Version]]] = {
    "tensorflow": (
        "tensorflow",
        {(3, 8): (2, 2), (3, 9): (2, 5), (3, 10): (2, 8), (3, 11): (2, 12), (3, 12): (2, 16), (3, 13): (2, 20)},
    ),
    "pytorch": ("torch", {(3, 8): (1, 4), (3, 9): (1, 8), (3, 10): (1, 11), (3, 11): (2, 0), (3, 12): (2, 2), (3, 13): (2, 6)}),
}
"""Framework -> package, and the first release with wheels for each Python."""

_LAST: Mapping[str, tuple[tuple[str, ...], tuple[int, int]]] = {
    "theano": (("theano==1.0.5", "numpy<1.22"), (3, 9)),
    "chainer": (("chainer==7.8.1", "numpy<1.24", "setuptools<70"), (3, 11)),
    "mxnet": (("mxnet==1.9.1", "numpy<1.24"), (3, 11)),
}
"""Frameworks that are finished: the last release, and the newest Python that it runs on."""

_GONE = {
    "caffe": "Caffe was never released as a Python package",
    "torch": "Torch 7 is a Lua program, not a Python package",
    "kur": "Kur needs releases of its frameworks that no Python of today can run",
}


def _numbers(version: str) -> Version:
    return tuple(int(part) for part in version.split("."))


def _image(environment: Named, architecture: str) -> str:
    if not environment.image or architecture == "cpu":
        return environment.image or "python"
    repository, _, tag = environment.image.partition(":")
    version, _, python = tag.rpartition("-")
    return f"{repository}:{version}-gpu-{python}"


_KERAS_1 = (("keras", "1.2.2"), ("tflearn", "0.3.2"))
_IN_BOTH: Mapping[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    "tensorflow-0.12": ("tensorflow", "0.12.1", _KERAS_1),
    "tensorflow-1.0": ("tensorflow", "1.0", ()),
    "tensorflow": ("tensorflow", "1.1", ()),
    **{f"tensorflow-1.{n}": ("tensorflow", f"1.{n}", ()) for n in (2, 3, 4, 5, 7, 8, 9, 10, 11, 12)},
    **{f"pytorch-{v}": ("pytorch", v, ()) for v in ("0.1", "0.2", "0.3", "0.4", "1.0")},
    "pytorch": ("pytorch", "0.1", ()),
    "keras": ("tensorflow", "1.1", (("keras", "2.0.6"),)),
    "theano-0.8": ("theano", "0.8", ()),
    "theano-0.9": ("theano", "0.9", ()),
    "theano": ("theano", "0.9", ()),
    "caffe": ("caffe", "1.0", ()),
    "torch": ("torch", "7", ()),
    "chainer-1.23": ("chainer", "1.23", ()),
    "chainer-2.0": ("chainer", "2.0", ()),
    "chainer": ("chainer", "1.23", ()),
    "mxnet": ("mxnet", "0.10", ()),
}
"""Those that there were for Python 3, and with `:py2` for Python 2."""

_IN_PYTHON_3: Mapping[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    **{f"tensorflow-{v}": ("tensorflow", v, ()) for v in ("1.13", "1.14", "1.15", "2.0", "2.1", "2.2")},
    **{f"pytorch-{v}": ("pytorch", v, ()) for v in ("1.1", "1.2", "1.3", "1.4", "1.5")},
    "kur": ("kur", "0.7", ()),
}

_FIRST_WITH_3_6 = {"tensorflow": (1, 3), "pytorch": (0, 3)}
_FIRST_WITH_3_7 = {"tensorflow": (2, 2), "pytorch": (1, 5)}


def _python_3(framework: str, version: str) -> Version:
    """Which Python 3 the image of a framework had."""
    numbers = _numbers(version)[:2]
    if framework in _FIRST_WITH_3_7 and numbers >= _FIRST_WITH_3_7[framework]:
        return 3, 7
    return (3, 6) if framework in _FIRST_WITH_3_6 and numbers >= _FIRST_WITH_3_6[framework] else (3, 5)


def _all() -> Iterator[Named]:
    yield Named(DEFAULT, "", ())
    for table in (_IN_BOTH, _IN_PYTHON_3):
        for name, (framework, version, companions) in table.items():
            image = f"floydhub/{'keras' if name == 'keras' else framework}:{version}"
            yield Named(name, f"{image}-py3", _python_3(framework, version), framework, version, companions)
            if table is _IN_BOTH:
                yield Named(f"{name}:py2", f"{image}-py2", (2, 7), framework, version, companions)


_NAMED: Mapping[str, Named] = {environment.name: environment for environment in _all()}
