"""MLflow's registered models over HTTP: what each path does, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.dialects.mlflow.site import Site


def names(site: Site, **query: Any) -> list[str]:
    found = site.get("registered-models/search", **query)
    assert found.status == 200, found
    return [each["name"] for each in found.json["registered_models"]]


def test_a_model_is_made_and_shown(tmp_path: Path) -> None:
    """Times are milliseconds; what it does not have is left out."""
    site = Site(tmp_path)
    made = site.post("registered-models/create", name="iris", description="flowers", tags=[{"key": "team", "value": "blue"}, {"key": "x"}])
    assert made.status == 200
    model = made.json["registered_model"]
    assert model["name"] == "iris"
    assert model["description"] == "flowers"
    assert model["tags"] == [{"key": "team", "value": "blue"}, {"key": "x", "value": ""}]
    assert 1_600_000_000_000 < model["creation_timestamp"] == model["last_updated_timestamp"]
    assert {"latest_versions", "aliases"}.isdisjoint(model)
    assert site.get("registered-models/get", name="iris").json == made.json


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    """The client goes on after this code, so it must be this one."""
    site = Site(tmp_path)
    site.model("iris")
    refused = site.post("registered-models/create", name="iris")
    assert (refused.status, refused.code) == (400, "RESOURCE_ALREADY_EXISTS")


@pytest.mark.parametrize("name", ["a/b", "a:b", "", " ", "..", "a\\b", "a\x00b", "a\nb", "x" * 257, 7, None, ["a"], {"a": 1}, True])
def test_no_model_has_a_bad_name(name: Any, tmp_path: Path) -> None:
    """The message says what is wrong, and nothing is made (requirements R7 and R14)."""
    site = Site(tmp_path)
    refused = site.post("registered-models/create", name=name)
    assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE")
    assert names(site) == []


def test_unknown_models_are_not_found(tmp_path: Path) -> None:
    """Whatever is asked of them."""
    site = Site(tmp_path)
    for method, path, fields in (
        ("GET", "registered-models/get", {}),
        ("PATCH", "registered-models/update", {"description": "x"}),
        ("POST", "registered-models/rename", {"new_name": "y"}),
        ("DELETE", "registered-models/delete", {}),
        ("POST", "registered-models/get-latest-versions", {}),
        ("POST", "registered-models/set-tag", {"key": "k", "value": "v"}),
        ("DELETE", "registered-models/delete-tag", {"key": "k"}),
        ("GET", "registered-models/alias", {"alias": "a"}),
        ("POST", "registered-models/alias", {"alias": "a", "version": "1"}),
        ("DELETE", "registered-models/alias", {"alias": "a"}),
    ):
        body = {"name": "nothing", **fields}
        found = site.ask(method, path, query=body) if method == "GET" else site.ask(method, path, body)
        assert (found.status, found.code) == (404, "RESOURCE_DOES_NOT_EXIST"), path


def test_a_model_is_changed_renamed_and_removed(tmp_path: Path) -> None:
    """Versions and aliases follow the new name."""
    site = Site(tmp_path)
    site.model("iris", versions=2)
    site.post("registered-models/alias", name="iris", alias="champion", version="2")
    changed = site.ask("PATCH", "registered-models/update", {"name": "iris", "description": "new"})
    assert changed.json["registered_model"]["description"] == "new"
    assert site.ask("PATCH", "registered-models/update", {"name": "iris"}).json["registered_model"]["description"] == "new"
    renamed = site.post("registered-models/rename", name="iris", new_name="lily").json["registered_model"]
    assert (renamed["name"], renamed["aliases"]) == ("lily", [{"alias": "champion", "version": "2"}])
    assert site.versions("name = 'lily'") == [("lily", "2"), ("lily", "1")]
    assert site.get("registered-models/get", name="iris").status == 404
    assert site.ask("DELETE", "registered-models/delete", {"name": "lily"}).json == {}
    assert names(site) == []


def test_a_served_model_stays(tmp_path: Path) -> None:
    """Until it is undeployed."""
    site = Site(tmp_path)
    site.model("iris", versions=1)
    site.deployed.add(("iris", "1"))
    refused = site.ask("DELETE", "registered-models/delete", {"name": "iris"})
    assert (refused.status, refused.code) == (409, "RESOURCE_CONFLICT")
    site.deployed.clear()
    assert site.ask("DELETE", "registered-models/delete", {"name": "iris"}).status == 200


def test_tags_are_set_changed_and_removed(tmp_path: Path) -> None:
    """Removing one that is not there is no error."""
    site = Site(tmp_path)
    site.model("iris")
    for value in ("1", "2"):
        assert site.post("registered-models/set-tag", name="iris", key="k", value=value).json == {}
    assert site.get("registered-models/get", name="iris").json["registered_model"]["tags"] == [{"key": "k", "value": "2"}]
    for _ in range(2):
        assert site.ask("DELETE", "registered-models/delete-tag", {"name": "iris", "key": "k"}).json == {}
    assert "tags" not in site.get("registered-models/get", name="iris").json["registered_model"]


def test_aliases_point_at_versions(tmp_path: Path) -> None:
    """They move, show with their version, and go; an unknown one is a wrong value, as the original has it."""
    site = Site(tmp_path)
    site.model("iris", versions=2)
    for version in ("1", "2"):
        assert site.post("registered-models/alias", name="iris", alias="champion", version=version).json == {}
    found = site.get("registered-models/alias", name="iris", alias="champion").json["model_version"]
    assert (found["version"], found["aliases"]) == ("2", ["champion"])
    assert "aliases" not in site.get("model-versions/get", name="iris", version="1").json["model_version"]
    for _ in range(2):
        assert site.ask("DELETE", "registered-models/alias", {"name": "iris", "alias": "champion"}).json == {}
    unknown = site.get("registered-models/alias", name="iris", alias="champion")
    assert (unknown.status, unknown.code) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("alias", ["latest", "v1", "V12", "a b", "a/b", "", "x" * 257])
def test_some_words_are_no_aliases(alias: str, tmp_path: Path) -> None:
    """They mean something else already, or fit into no URI."""
    site = Site(tmp_path)
    site.model("iris", versions=1)
    refused = site.post("registered-models/alias", name="iris", alias=alias, version="1")
    assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE")


def test_an_alias_needs_its_version(tmp_path: Path) -> None:
    """Which exists, and is a number."""
    site = Site(tmp_path)
    site.model("iris", versions=1)
    assert site.post("registered-models/alias", name="iris", alias="a", version="7").status == 404
    assert site.post("registered-models/alias", name="iris", alias="a", version="x").code == "INVALID_PARAMETER_VALUE"
    assert site.post("registered-models/alias", name="iris", alias="a").code == "INVALID_PARAMETER_VALUE"


def test_search_takes_filters(tmp_path: Path) -> None:
    """Names, patterns and tags; what every client asks first finds models that are no prompts."""
    site = Site(tmp_path)
    for name, tags in (("iris", {"team": "blue"}), ("Iris-2", {"team": "red"}), ("prompt", {"mlflow.prompt.is_prompt": "true"})):
        site.model(name, tags=[{"key": key, "value": value} for key, value in tags.items()])
    assert names(site) == ["Iris-2", "iris", "prompt"]
    assert names(site, filter="tag.`mlflow.prompt.is_prompt` != 'true'") == ["Iris-2", "iris"]
    assert names(site, filter="tags.`mlflow.prompt.is_prompt` = 'true'") == ["prompt"]
    assert names(site, filter="name = 'iris'") == ["iris"]
    assert names(site, filter="name LIKE 'Iris%'") == ["Iris-2"]
    assert names(site, filter="name ILIKE 'iris%' AND tags.team = 'blue'") == ["iris"]
    assert names(site, filter="tags.team != 'blue'") == ["Iris-2"]
    assert names(site, order_by=["name DESC"], max_results=2) == ["prompt", "iris"]
    assert site.ask("POST", "registered-models/search", {"filter": "name = 'iris'"}).json["registered_models"][0]["name"] == "iris"


def test_pages_hold_while_models_come_and_go(tmp_path: Path) -> None:
    """Nothing that stays is shown twice or left out."""
    site = Site(tmp_path)
    for number in range(10):
        site.model(f"m{number}")
    seen: list[str] = []
    query: dict[str, Any] = {"max_results": 3}
    while True:
        page = site.get("registered-models/search", **query).json
        seen += [each["name"] for each in page["registered_models"]]
        if "next_page_token" not in page:
            break
        query["page_token"] = page["next_page_token"]
        if len(seen) == 3:
            site.model("a")
            site.ask("DELETE", "registered-models/delete", {"name": "m0"})
            site.ask("DELETE", "registered-models/delete", {"name": "m2"})
    assert seen == [f"m{number}" for number in range(10)]


@pytest.mark.parametrize(
    "query",
    [
        {"max_results": "0"},
        {"max_results": "1001"},
        {"max_results": "x"},
        {"page_token": "x"},
        {"page_token": "W10="},
        {"page_token": "W3t9XQ=="},
        {"order_by": ["size"]},
        {"order_by": ["name sideways"]},
        {"order_by": [""]},
        {"filter": "size > 3"},
    ],
)
def test_search_refuses_what_it_cannot_do(query: dict[str, Any], tmp_path: Path) -> None:
    """With 400, never with an empty list."""
    refused = Site(tmp_path).get("registered-models/search", **query)
    assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE")


def test_latest_versions_are_by_stage(tmp_path: Path) -> None:
    """GET and POST; all stages, or those that are named in any case."""
    site = Site(tmp_path)
    site.model("iris", versions=4)
    for version, stage in (("1", "Production"), ("3", "staging")):
        site.post("model-versions/transition-stage", name="iris", version=version, stage=stage)
    found = site.post("registered-models/get-latest-versions", name="iris").json["model_versions"]
    assert {(each["current_stage"], each["version"]) for each in found} == {("None", "4"), ("Production", "1"), ("Staging", "3")}
    one = site.get("registered-models/get-latest-versions", name="iris", stages=["production", "Archived"]).json["model_versions"]
    assert [each["version"] for each in one] == ["1"]
    shown = site.get("registered-models/get", name="iris").json["registered_model"]["latest_versions"]
    assert {each["version"] for each in shown} == {"4", "1", "3"}
