"""MLflow's model versions over HTTP: what each path does, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.dialects.mlflow.site import FILES, Site

LOGGED = "m-" + "0" * 32


def stages(site: Site) -> dict[str, str]:
    found = site.get("model-versions/search", filter="name = 'iris'").json["model_versions"]
    return {each["version"]: each["current_stage"] for each in found}


def test_a_version_is_made_and_shown(tmp_path: Path) -> None:
    """It is ready at once; its number is text; its source is shown as it was given."""
    site = Site(tmp_path)
    site.model("iris")
    made = site.post(
        "model-versions/create",
        name="iris",
        source="iris",
        run_id="r1",
        run_link="http://runs/1",
        description="first",
        tags=[{"key": "k", "value": "v"}],
    )
    assert made.status == 200
    version = made.json["model_version"]
    times = version.pop("creation_timestamp"), version.pop("last_updated_timestamp")
    assert 1_600_000_000_000 < times[0] == times[1]
    assert version == {
        "name": "iris",
        "version": "1",
        "current_stage": "None",
        "description": "first",
        "source": "iris",
        "run_id": "r1",
        "run_link": "http://runs/1",
        "status": "READY",
        "tags": [{"key": "k", "value": "v"}],
    }
    for number in ("1", 1, "01"):
        assert site.get("model-versions/get", name="iris", version=number).json == made.json


@pytest.mark.parametrize("spelling", ["{root}/iris", "file://{root}/iris", "file:{root}/iris", "iris", "./iris/", "{root}/iris/../wine"])
def test_a_source_may_be_spelled_in_many_ways(spelling: str, tmp_path: Path) -> None:
    """A path, a file: URI, or relative to the first root (requirement R11)."""
    site = Site(tmp_path)
    site.model("m")
    source = spelling.format(root=site.root)
    made = site.post("model-versions/create", name="m", source=source)
    assert made.json["model_version"]["source"] == source


@pytest.mark.parametrize(
    "source",
    [
        "/etc",
        "file:///etc/passwd",
        "../data",
        "{root}/../data",
        "nothing",
        "",
        " ",
        "runs:/1/model",
        "models:/nothing/1",
        "models:/m-" + "f" * 32,
        "models:/",
        "mlflow-artifacts:/nothing",
        "mlflow-artifacts:/../../etc",
        "file://elsewhere/x",
        "s3:///",
        "odd:thing",
        "x" * 5000,
        "a\x00b",
        7,
        None,
        ["iris"],
    ],
)
def test_a_source_must_be_a_model_in_an_allowed_place(source: Any, tmp_path: Path) -> None:
    """Everything else is 4xx with a code and makes no version (requirements R11, R14)."""
    site = Site(tmp_path)
    site.model("m")
    refused = site.post("model-versions/create", name="m", source=source.format(root=site.root) if isinstance(source, str) else source)
    assert (refused.status, refused.code) in ((400, "INVALID_PARAMETER_VALUE"), (404, "RESOURCE_DOES_NOT_EXIST"))
    assert site.versions("name = 'm'") == []


def test_a_version_may_be_made_of_another(tmp_path: Path) -> None:
    """By number, stage or alias: how the client copies versions."""
    site = Site(tmp_path)
    site.model("iris", versions=1)
    site.post("registered-models/alias", name="iris", alias="champion", version="1")
    site.post("model-versions/transition-stage", name="iris", version="1", stage="Production")
    site.model("copy")
    for source in ("models:/iris/1", "models:/iris@champion", "models:/iris/Production"):
        made = site.post("model-versions/create", name="copy", source=source).json["model_version"]
        assert made["source"] == source
        uri = site.get("model-versions/get-download-uri", name="copy", version=made["version"]).json["artifact_uri"]
        assert uri == str(site.root / "iris")


def test_a_version_may_be_made_of_a_logged_model(tmp_path: Path) -> None:
    """Whose files were uploaded: they are where the client finds them."""
    site = Site(tmp_path)
    logged = site.post("logged-models", experiment_id="0", name="model").json["model"]["info"]
    place = logged["artifact_uri"].removeprefix("mlflow-artifacts:")
    assert site.ask("PUT", f"{FILES}{place}/model.onnx", raw=b"x").status == 200
    site.model("iris")
    source = f"models:/{logged['model_id']}"
    made = site.post("model-versions/create", name="iris", source=source).json["model_version"]
    assert (made["source"], made["model_id"]) == (source, logged["model_id"])
    uri = site.get("model-versions/get-download-uri", name="iris", version="1").json
    assert uri == {"artifact_uri": logged["artifact_uri"]}
    assert site.versions(f"model_id = '{logged['model_id']}'") == [("iris", "1")]


def test_the_download_uri_of_a_single_file_is_the_file(tmp_path: Path) -> None:
    """And not the folder that it is in."""
    site = Site(tmp_path)
    (site.root / "alone.onnx").write_text("x")
    site.model("m", versions=1, source="alone.onnx")
    assert site.get("model-versions/get-download-uri", name="m", version="1").json == {"artifact_uri": str(site.root / "alone.onnx")}


def test_unknown_versions_are_not_found(tmp_path: Path) -> None:
    """Of models that exist and that do not; what is no number is a wrong value."""
    site = Site(tmp_path)
    site.model("iris", versions=1)
    for method, path, fields in (
        ("GET", "model-versions/get", {}),
        ("GET", "model-versions/get-download-uri", {}),
        ("PATCH", "model-versions/update", {"description": "x"}),
        ("DELETE", "model-versions/delete", {}),
        ("POST", "model-versions/transition-stage", {"stage": "Production"}),
        ("POST", "model-versions/set-tag", {"key": "k", "value": "v"}),
        ("DELETE", "model-versions/delete-tag", {"key": "k"}),
    ):
        for name, version, status in (
            ("iris", "2", 404),
            ("nothing", "1", 404),
            ("iris", "x", 400),
            ("iris", "0", 400),
            ("iris", "1.5", 400),
            ("iris", "9" * 40, 400),
            ("iris", "-1", 400),
            ("iris", "", 400),
        ):
            body = {"name": name, "version": version, **fields}
            found = site.ask(method, path, query=body) if method == "GET" else site.ask(method, path, body)
            assert found.status == status, (path, version)
            assert found.code == ("RESOURCE_DOES_NOT_EXIST" if status == 404 else "INVALID_PARAMETER_VALUE")
    assert site.post("model-versions/create", name="nothing", source="iris").status == 404


def test_a_version_is_changed_and_removed(tmp_path: Path) -> None:
    """A number is never given again; one that is served stays."""
    site = Site(tmp_path)
    site.model("iris", versions=2)
    changed = site.ask("PATCH", "model-versions/update", {"name": "iris", "version": "2", "description": "new"})
    assert changed.json["model_version"]["description"] == "new"
    site.deployed.add(("iris", "1"))
    refused = site.ask("DELETE", "model-versions/delete", {"name": "iris", "version": "1"})
    assert (refused.status, refused.code) == (409, "RESOURCE_CONFLICT")
    assert site.ask("DELETE", "model-versions/delete", {"name": "iris", "version": "2"}).json == {}
    assert site.versions("name = 'iris'") == [("iris", "1")]


def test_version_tags_are_set_changed_and_removed(tmp_path: Path) -> None:
    """Only those of that version."""
    site = Site(tmp_path)
    site.model("iris", versions=2)
    for version in ("1", "2"):
        for value in ("1", "2"):
            assert site.post("model-versions/set-tag", name="iris", version=version, key="k", value=value).json == {}
    for _ in range(2):
        assert site.ask("DELETE", "model-versions/delete-tag", {"name": "iris", "version": "1", "key": "k"}).json == {}
    assert "tags" not in site.get("model-versions/get", name="iris", version="1").json["model_version"]
    assert site.get("model-versions/get", name="iris", version="2").json["model_version"]["tags"] == [{"key": "k", "value": "2"}]


def test_stages_move_and_others_are_archived(tmp_path: Path) -> None:
    """In any case of letters, and Submarine's stage too (requirement R10)."""
    site = Site(tmp_path)
    site.model("iris", versions=3)
    for version, stage in (("1", "production"), ("2", "PRODUCTION"), ("3", "Developing")):
        assert site.post("model-versions/transition-stage", name="iris", version=version, stage=stage).status == 200
    assert stages(site) == {"1": "Production", "2": "Production", "3": "Developing"}
    moved = site.post("model-versions/transition-stage", name="iris", version="3", stage="Production", archive_existing_versions=True)
    assert moved.json["model_version"]["current_stage"] == "Production"
    assert stages(site) == {"1": "Archived", "2": "Archived", "3": "Production"}
    site.post("model-versions/transition-stage", name="iris", version="3", stage="none")
    assert stages(site)["3"] == "None"


@pytest.mark.parametrize(
    "fields",
    [
        {"stage": "best"},
        {"stage": ""},
        {},
        {"stage": 3},
        {"stage": "Archived", "archive_existing_versions": True},
        {"stage": "Production", "archive_existing_versions": "perhaps"},
    ],
)
def test_other_stages_are_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    """And nothing moves."""
    site = Site(tmp_path)
    site.model("iris", versions=1)
    refused = site.post("model-versions/transition-stage", name="iris", version="1", **fields)
    assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE")
    assert stages(site) == {"1": "None"}


def test_versions_are_searched(tmp_path: Path) -> None:
    """Newest first of each model; by run, number, source, tag, and lists."""
    site = Site(tmp_path)
    site.model("iris", versions=2)
    site.model("wine", versions=1, source="wine")
    site.post("model-versions/create", name="iris", source="wine", run_id="r1", tags=[{"key": "k", "value": "v"}])
    assert site.versions("") == [("iris", "3"), ("iris", "2"), ("iris", "1"), ("wine", "1")]
    assert site.versions("name='wine'") == [("wine", "1")]
    assert site.versions("run_id = 'r1'") == [("iris", "3")]
    assert site.versions("run_id IN ('r1', 'r2')") == [("iris", "3")]
    assert site.versions("run_id NOT IN ('r1') AND name = 'iris'") == [("iris", "2"), ("iris", "1")]
    assert site.versions("version_number >= 2") == [("iris", "3"), ("iris", "2")]
    assert site.versions("source_path LIKE 'w%'") == [("iris", "3"), ("wine", "1")]
    assert site.versions("tags.k = 'v'") == [("iris", "3")]
    assert site.versions("", order_by=["version_number ASC", "name DESC"]) == [("wine", "1"), ("iris", "1"), ("iris", "2"), ("iris", "3")]
    assert site.versions("name LIKE '%'", max_results=2, order_by=["creation_timestamp ASC"])[0] == ("iris", "1")


def test_pages_of_versions_go_on(tmp_path: Path) -> None:
    """Every version once, whichever way they are sorted."""
    site = Site(tmp_path)
    for name in ("a", "b"):
        site.model(name, versions=4)
    for order in ([], ["version_number DESC"], ["last_updated_timestamp ASC"], ["name DESC"]):
        seen: list[tuple[str, str]] = []
        query: dict[str, Any] = {"max_results": 3, "order_by": order}
        while True:
            page = site.get("model-versions/search", **query).json
            seen += [(each["name"], each["version"]) for each in page["model_versions"]]
            if "next_page_token" not in page:
                break
            query["page_token"] = page["next_page_token"]
        assert sorted(seen) == [(name, str(version)) for name in ("a", "b") for version in range(1, 5)]
