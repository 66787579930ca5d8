"""Class arguments of MLRun models: how operators write them, who gets which, and where a model_path lies."""

from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import ModelSpec
from dragoman.serving.class_arguments import applied, nothing_fetched, of, parse, state_of, strays


def test_they_belong_to_a_name_or_to_one_version() -> None:
    """What is said of the version wins."""
    arguments = parse(['m={"a": 1, "b": 2}', 'm:v1={"b": 3}', "n={}"])
    assert of(arguments, "m", "v1") == {"a": 1, "b": 3}
    assert of(arguments, "m", "v2") == {"a": 1, "b": 2}
    assert of(arguments, "other", "1") == {}


def test_those_for_nothing() -> None:
    """A name or a version that is not there; of a model that cannot be read the versions are not known."""
    arguments = parse(["m={}", "m:v1={}", "m:v2={}", "n:v1={}", "o={}"])
    assert strays(arguments, {"m": {"v1": 1}, "n": {}}) == ["m:v2", "o"]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["m"], "NAME=JSON"),
        (["m={"], "no JSON"),
        (["m=[1]"], "must be a JSON object"),
        (["m=" + "[" * 100_000], "no JSON"),
        (["=1"], "1 to 256 characters"),
        (["a/b={}"], "cannot carry"),
        (["m:={}"], "version of 'm'"),
        (["m:a b={}"], "version of 'm'"),
        (["m={}", "m={}"], "given twice"),
    ],
)
def test_what_cannot_be_read(texts: list[str], reason: str) -> None:
    """Each fault is named."""
    with pytest.raises(ServingError, match=reason) as caught:
        parse(texts)
    assert caught.value.kind is Kind.INVALID_INPUT


def test_a_model_path_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be relative to where the server was started; what is not there is left to the model's own process. Its files count as the model's."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "model.pkl").write_text("one")
    monkeypatch.chdir(tmp_path)
    spec = applied(ModelSpec("m"), parse(['m={"model_path": "files"}']), nothing_fetched)
    assert spec.arguments["class_args"] == {"model_path": str(tmp_path / "files")}
    before = state_of(spec)
    (tmp_path / "files" / "model.pkl").write_text("another")
    assert before
    assert state_of(spec) != before
    missing = applied(ModelSpec("m"), parse(['m={"model_path": "beside.pkl"}']), nothing_fetched)
    assert missing.arguments["class_args"] == {"model_path": "beside.pkl"}
    assert state_of(missing) == ""
    assert applied(ModelSpec("other"), parse(["m={}"]), nothing_fetched) == ModelSpec("other")


def test_a_model_path_elsewhere(tmp_path: Path) -> None:
    """The server fetches it, with all that it has for that, but for a specification; a server that fetches nothing says so."""
    arguments = parse(['m={"model_path": "s3://bucket/model.pkl"}'])
    spec = applied(ModelSpec("m"), arguments, lambda uri: tmp_path / uri.rpartition("/")[2])
    assert spec.arguments["class_args"] == {"model_path": str(tmp_path / "model.pkl")}
    whole = applied(ModelSpec("m"), parse(['m={"model_path": "s3://bucket/model_spec.yaml"}']), nothing_fetched)
    assert whole.arguments["class_args"] == {"model_path": "s3://bucket/model_spec.yaml"}
    with pytest.raises(ServingError, match="s3://bucket"):
        applied(ModelSpec("m"), arguments, nothing_fetched)
