"""Where sources may lead: roots, links, URIs, and which place answers for a file."""

import os
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.roots import Root, Roots, check_source, scheme_of


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """models/iris/model.onnx below a root, other/secret beside it, and a data directory with an upload and keys."""
    place = tmp_path.resolve()
    for file in ("models/iris/model.onnx", "other/secret/model.onnx", "data/artifacts/run/model.onnx", "data/keys.toml", "data/uploads/x"):
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(b"x")
    return place


def roots(site: Path, *trusted: str) -> Roots:
    return Roots.of([str(site / "models")], [str(site / name) for name in trusted], site / "data")


def refused(site: Path, source: str) -> str:
    """Why a source is refused."""
    with pytest.raises(ServingError) as caught:
        roots(site).resolve(source)
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "source")
    caught.value.message.encode()
    assert "other/secret" not in caught.value.message or "other/secret" in source
    return caught.value.message


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{site}/models/iris", "models/iris"),
        ("{site}/models/iris/", "models/iris"),
        ("{site}/models/../models/./iris/model.onnx", "models/iris/model.onnx"),
        ("file://{site}/models/iris", "models/iris"),
        ("FILE:{site}/models/iris", "models/iris"),
        ("file://localhost{site}/models/iris", "models/iris"),
        ("file://{site}/models/%69ris", "models/iris"),
        ("file://{site}/models/iris%2F..%2Firis", "models/iris"),
        ("iris", "models/iris"),
        ("iris/model.onnx", "models/iris/model.onnx"),
        (".", "models"),
        ("run", "data/artifacts/run"),
        ("mlflow-artifacts:/run", "data/artifacts/run"),
        ("mlflow-artifacts://host:80/run/model.onnx", "data/artifacts/run/model.onnx"),
        ("{site}/data/artifacts/run", "data/artifacts/run"),
    ],
)
def test_sources_inside(site: Path, source: str, expected: str) -> None:
    """Paths, URIs of this machine, paths relative to the first root or to the uploads."""
    assert roots(site).resolve(source.format(site=site)) == site / expected


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd",
        "/",
        "{site}/other/secret",
        "{site}/other/nothing",
        "{site}/models/../other/secret",
        "../other/secret",
        "iris/../../other/secret",
        "file://{site}/other/secret",
        "file://{site}/models/%2e%2e/other/secret",
        "file://{site}/models/%2E%2E%2Fother%2Fsecret",
        "{site}/models-of-somebody-else",
        "{site}/data/keys.toml",
        "{site}/data/uploads/x",
        "{site}/data",
    ],
)
def test_sources_outside(site: Path, source: str) -> None:
    """What is outside is refused, there or not, in the same words; the way in is named."""
    message = refused(site, source.format(site=site))
    assert "--model-root" in message
    assert "not in a folder that models may be registered from" in message


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("x" * 5000, "5000 characters"),
        ("iris\0", "control characters"),
        ("iris\nx", "control characters"),
        ("iris\\model.onnx", "control characters"),
        ("\ud800", "control characters"),
        ("file://{site}/models/%00", "control characters"),
        ("file://{site}/models/%5C", "control characters"),
        ("file://{site}/models/%ff", "UTF-8"),
        ("file://elsewhere/models/iris", "another machine"),
        ("file://me@localhost/models/iris", "another machine"),
        ("file://localhost:80/models/iris", "another machine"),
        ("file://localhost:x/models/iris", "no URI"),
        ("file://[x/models/iris", "no URI"),
        ("file:iris", "no file: URI of an absolute path"),
        ("file://", "no file: URI of an absolute path"),
        ("file://{site}/models/iris?x=1", "no file: URI of an absolute path"),
        ("file://{site}/models/iris#x", "no file: URI of an absolute path"),
        ("s3://bucket/iris", "neither a path nor a file: URI"),
        ("mlflow-artifacts:/../keys.toml", "'..'"),
        ("mlflow-artifacts:/%2e%2e/keys.toml", "'..'"),
        ("mlflow-artifacts:/nothing", "does not exist"),
        ("nothing", "does not exist"),
        ("~/models", "does not exist"),
        ("{site}/models/nothing", "does not exist"),
        ("iris/model.onnx/below", "does not exist"),
        ("i" * 300, "cannot be read"),
    ],
)
def test_sources_that_are_none(site: Path, source: str, told: str) -> None:
    """Each with what is wrong with it."""
    assert told in refused(site, source.format(site=site))


def test_links(site: Path) -> None:
    """A link counts as what it leads to: inside it is taken, outside and in a circle it is refused."""
    (site / "models" / "inside").symlink_to("iris")
    (site / "models" / "outside").symlink_to(site / "other")
    (site / "models" / "self").symlink_to("self")
    (site / "models" / "a").symlink_to("b/x")
    (site / "models" / "b").symlink_to("a/x")
    assert roots(site).resolve("inside") == site / "models" / "iris"
    assert "--model-root" in refused(site, "outside/secret")
    assert "--model-root" in refused(site, "outside/nothing")
    for circle in ("self", "self/model.onnx", "a", "b/x"):
        assert "cannot be read" in refused(site, circle)


def test_what_is_neither_file_nor_folder(site: Path) -> None:
    """A pipe is refused without being opened, which would wait for a writer."""
    os.mkfifo(site / "models" / "pipe.onnx")
    assert "neither a file nor a folder" in refused(site, "pipe.onnx")


def test_a_root_that_is_a_link_and_moves(site: Path) -> None:
    """A root may be a link; where it leads is looked up each time, as is whether it is there."""
    (site / "current").symlink_to("models")
    subject = Roots.of([str(site / "current")], [], site / "data")
    subject.check()
    assert subject.resolve("iris") == site / "models" / "iris"
    assert subject.resolve(str(site / "models" / "iris")) == site / "models" / "iris"
    (site / "current").unlink()
    (site / "current").symlink_to("other")
    assert subject.resolve("secret") == site / "other" / "secret"
    (site / "current").unlink()
    with pytest.raises(ServingError, match="does not exist"):
        subject.resolve("secret")
    with pytest.raises(ServingError, match=r"--model-root is .*current, which is no folder"):
        subject.check()


def test_no_root_at_all(site: Path) -> None:
    """Without a root only uploads can be registered."""
    subject = Roots.of([], [], site / "data")
    assert subject.resolve("run") == site / "data" / "artifacts" / "run"
    with pytest.raises(ServingError, match="--model-root"):
        subject.resolve(str(site / "models" / "iris"))


def test_roots_are_of_the_folder_of_the_start(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative root goes on meaning the same."""
    monkeypatch.chdir(site)
    subject = Roots.of(["models"], [], Path("data"))
    monkeypatch.chdir("/")
    assert subject.resolve("iris") == site / "models" / "iris"
    assert subject.artifacts == site / "data" / "artifacts"


@pytest.mark.parametrize(
    ("trusted", "path", "expected"),
    [
        ((), "models/iris", False),
        (("models",), "models/iris", True),
        (("models",), "models", True),
        (("models",), "other/secret", False),
        (("models/iris",), "models/iris/model.onnx", True),
        (("models/iris",), "models/else", False),
        ((".",), "models/iris", False),
        ((".",), "other/secret", True),
        ((".",), "data/artifacts/run", False),
        ((".",), "data/uploads/x", False),
        (("data/artifacts",), "data/artifacts/run", True),
    ],
)
def test_who_answers_for_a_file(site: Path, trusted: tuple[str, ...], path: str, expected: bool) -> None:
    """The innermost place decides; what clients uploaded is trusted only by an operator who names just that folder."""
    assert roots(site, *trusted).trusted(site / path) is expected


def test_the_data_directory_stays_closed_below_a_root(site: Path) -> None:
    """A root around the data directory opens neither keys nor the uploads of others."""
    subject = Roots([Root(site)], site / "data")
    assert subject.open_to(site / "other")
    assert subject.open_to(site / "data" / "artifacts" / "run")
    assert not subject.open_to(site / "data" / "keys.toml")
    assert not subject.open_to(site / "data" / "uploads" / "x")
    assert Roots([Root(site / "data" / "own")], site / "data").open_to(site / "data" / "own" / "m")


def test_places_of_one_trust(site: Path) -> None:
    """Files of a trusted and of an untrusted root are not in one place."""
    subject = roots(site, "models/iris")
    assert subject.same(site / "models" / "a", site / "models" / "b")
    assert not subject.same(site / "models" / "a", site / "models" / "iris" / "b")


@pytest.mark.parametrize(("source", "scheme"), [("S3://b", "s3"), ("a/b:c", ""), ("models:/m", "models"), (":x", ""), ("é:x", "")])
def test_schemes(source: str, scheme: str) -> None:
    """The part before the first colon, if it can be one."""
    assert scheme_of(source) == scheme
    assert check_source(source) == source
