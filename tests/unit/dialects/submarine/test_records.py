"""Registered models, their versions and tags, over the real catalog."""

import re
from pathlib import Path
from typing import Any

import pytest

from dragoman.store import RegisteredModel, StoredVersion
from tests.fakes_submarine import Client
from tests.unit.dialects.submarine.test_serve import over

MODELS = "/api/v1/registered-model"
VERSIONS = "/api/v1/model-version"
MODEL_KEYS = ["modelId", "name", "creationTime", "lastUpdatedTime", "description", "tags"]
VERSION_KEYS = [
    "modelVersionId",
    "name",
    "version",
    "id",
    "userId",
    "experimentId",
    "modelType",
    "currentStage",
    "creationTime",
    "lastUpdatedTime",
    "dataset",
    "description",
    "tags",
]
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def new(name: str = "iris", **fields: Any) -> dict[str, Any]:
    return {"name": name, "userId": "u", "experimentId": "e", **fields}


def test_a_models_life(tmp_path: Path) -> None:
    """Created, listed, found, renamed, described, removed; each with its message."""

    async def test(client: Client) -> None:
        made = await client.ask("POST", MODELS, {"name": "iris", "description": "flowers", "tags": ["a", "b"]})
        assert made.message == "Create a registered model instance"
        got = await client.ask("GET", f"{MODELS}/iris")
        assert got.message == "Get the registered model instance"
        assert list(got.result) == MODEL_KEYS
        assert got.result == made.result
        assert (got.result["name"], got.result["description"], got.result["tags"]) == ("iris", "flowers", ["a", "b"])
        assert isinstance(got.result["modelId"], int)
        assert TIME.fullmatch(got.result["creationTime"])
        assert TIME.fullmatch(got.result["lastUpdatedTime"])
        listed = await client.ask("GET", MODELS)
        assert listed.message == "List all registered model instances"
        assert listed.result == [got.result]
        changed = await client.ask("PATCH", f"{MODELS}/iris", {"name": "lily", "description": "others"})
        assert changed.message == "Update the registered model instance"
        assert (await client.ask("GET", f"{MODELS}/iris")).status == 404
        assert (await client.ask("GET", f"{MODELS}/lily")).result["description"] == "others"
        assert (await client.ask("PATCH", f"{MODELS}/lily", {"name": "lily"})).result["description"] == "others"
        assert (await client.ask("PATCH", f"{MODELS}/lily", {"description": "more"})).result["name"] == "lily"
        removed = await client.ask("DELETE", f"{MODELS}/lily")
        assert (removed.message, removed.result) == ("Delete the registered model instance", None)
        assert (await client.ask("GET", MODELS)).result == []

    over(tmp_path, test)


def test_what_people_say_of_models_is_null_when_they_say_nothing(tmp_path: Path) -> None:
    """Nulls are written, tags are a list."""

    async def test(client: Client) -> None:
        result = (await client.ask("POST", MODELS, {"name": "iris"})).result
        assert (result["description"], result["tags"]) == (None, [])

    over(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": "taken"}, 409, "taken"),
        ({}, 400, "name is missing"),
        ({"name": ""}, 400, "name is empty"),
        ({"name": "  "}, 400, "name"),
        ({"name": 3}, 400, "name is 3"),
        ({"name": "a/b"}, 400, "name"),
        ({"name": "a\\b"}, 400, "name"),
        ({"name": "a:b"}, 400, "name"),
        ({"name": "a..b"}, 400, "name"),
        ({"name": ".."}, 400, "name"),
        ({"name": "a\nb"}, 400, "name"),
        ({"name": "a\x00b"}, 400, "name"),
        ({"name": "x" * 257}, 400, "name has 257"),
        ({"name": "predictions"}, 400, "route"),
        ({"name": "a", "description": 5}, 400, "description is 5"),
        ({"name": "a", "tags": "x"}, 400, "tags is 'x'"),
        ({"name": "a", "tags": [None]}, 400, "tags[0] is null"),
    ],
)
def test_models_that_are_refused(tmp_path: Path, body: Any, status: int, words: str) -> None:
    """Names that no url could carry, and one that is taken (R7)."""

    async def test(client: Client) -> None:
        await client.ask("POST", MODELS, {"name": "taken"})
        reply = await client.ask("POST", MODELS, body)
        assert (reply.status, words in reply.message) == (status, True), reply.text
        assert [each["name"] for each in (await client.ask("GET", MODELS)).result] == ["taken"]

    over(tmp_path, test)


def test_a_versions_life(tmp_path: Path) -> None:
    """Registered from a folder below a model root, numbered by the registry, found, changed, removed."""

    async def test(client: Client) -> None:
        await client.register(versions=0)
        body = new(description="first", tags=["x"], dataset="flowers.csv", version=77, id="mine", modelType="tensorflow")
        made = await client.ask("POST", f"{VERSIONS}?baseDir=iris", body)
        assert made.message == "Create a model version instance"
        second = (await client.ask("POST", f"{VERSIONS}?baseDir={client.folder}/iris", new())).result
        got = await client.ask("GET", f"{VERSIONS}/iris/1")
        assert got.message == "Get the model version instance"
        assert list(got.result) == VERSION_KEYS
        assert got.result == made.result
        shown = {key: got.result[key] for key in VERSION_KEYS if "Id" not in key and "Time" not in key and key != "id"}
        assert shown == {
            "name": "iris",
            "version": 1,
            "modelType": "onnx",
            "currentStage": "None",
            "dataset": "flowers.csv",
            "description": "first",
            "tags": ["x"],
        }
        assert (got.result["userId"], got.result["experimentId"]) == ("u", "e")
        assert re.fullmatch("[0-9a-f]{32}", got.result["id"])
        assert got.result["id"] != second["id"]
        assert (second["version"], second["dataset"], second["description"], second["tags"]) == (2, None, None, [])
        listed = await client.ask("GET", f"{VERSIONS}/iris")
        assert listed.message == "List all model version instances"
        assert {each["version"] for each in listed.result} == {1, 2}
        change = {"name": "iris", "version": "2", "currentStage": "Developing", "dataset": "d", "description": "n"}
        changed = await client.ask("PATCH", VERSIONS, change)
        assert changed.message == "Update the model version instance"
        found = (await client.ask("GET", f"{VERSIONS}/iris/2")).result
        assert (found["currentStage"], found["dataset"], found["description"], found["userId"]) == ("Developing", "d", "n", "u")
        removed = await client.ask("DELETE", f"{VERSIONS}/iris/2")
        assert (removed.message, removed.result) == ("Delete the model version instance", None)
        assert [each["version"] for each in (await client.ask("GET", f"{VERSIONS}/iris")).result] == [1]

    over(tmp_path, test)


def test_the_type_and_id_of_a_submarine_model(tmp_path: Path) -> None:
    """Come from its description.json, not from the request (R11)."""

    async def test(client: Client) -> None:
        await client.register("flow", versions=0)
        folder = client.folder / "written"
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "saved_model.pb").write_bytes(b"x")
        (folder / "description.json").write_text('{"id": "0123456789abcdef0123456789abcdef", "model_type": "tensorflow"}')
        result = (await client.ask("POST", f"{VERSIONS}?baseDir=written", new("flow", modelType="pytorch", id="x"))).result
        assert (result["modelType"], result["id"]) == ("tensorflow", "0123456789abcdef0123456789abcdef")

    over(tmp_path, test)


@pytest.mark.parametrize(
    ("query", "body", "status", "words"),
    [
        ("", new(), 400, "baseDir"),
        ("?baseDir=", new(), 400, "baseDir"),
        ("?baseDir=iris", {}, 400, "name is missing"),
        ("?baseDir=iris", {"name": "iris", "experimentId": ""}, 400, "userId is missing"),
        ("?baseDir=iris", {"name": "iris", "userId": "", "experimentId": None}, 400, "experimentId is null"),
        ("?baseDir=iris", new("nobody"), 404, "nobody"),
        ("?baseDir=nowhere", new(), 400, "nowhere"),
        ("?baseDir=../../../etc", new(), 400, "--model-root"),
        ("?baseDir=/etc/passwd", new(), 400, "--model-root"),
        ("?baseDir=file:///etc", new(), 400, "--model-root"),
        ("?baseDir=iris%00", new(), 400, "source"),
        ("?baseDir=s3://bucket/model", new(), 400, "s3://bucket/model"),
        ("?baseDir=%FF", new(), 400, "UTF-8"),
        ("?baseDir=empty", new(), 400, "empty"),
        ("?baseDir=iris", new(tags={"a": 1}), 400, "tags"),
        ("?baseDir=iris", new(dataset=[]), 400, "dataset"),
    ],
)
def test_versions_that_are_refused(tmp_path: Path, query: str, body: Any, status: int, words: str) -> None:
    """Sources outside of every root, without a model, or that cannot be fetched; fields that are missing (R11)."""

    async def test(client: Client) -> None:
        await client.register()
        (client.folder / "empty").mkdir()
        reply = await client.ask("POST", VERSIONS + query, body)
        assert (reply.status, words in reply.message) == (status, True), reply.text

    over(tmp_path, test)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    """GET, PATCH, DELETE and tags of unknown models and versions (R12)."""

    async def test(client: Client) -> None:
        await client.register()
        for method, path, body in (
            ("GET", f"{MODELS}/nobody", None),
            ("PATCH", f"{MODELS}/nobody", {"name": "nobody", "description": "x"}),
            ("DELETE", f"{MODELS}/nobody", None),
            ("GET", f"{MODELS}/%00", None),
            ("GET", f"{MODELS}/%FF", None),
            ("GET", f"{MODELS}/{'x' * 3000}", None),
            ("GET", f"{VERSIONS}/nobody", None),
            ("GET", f"{VERSIONS}/nobody/1", None),
            ("GET", f"{VERSIONS}/iris/2", None),
            ("GET", f"{VERSIONS}/iris/one", None),
            ("GET", f"{VERSIONS}/iris/1.0", None),
            ("DELETE", f"{VERSIONS}/iris/2", None),
            ("DELETE", f"{VERSIONS}/iris/99999999999", None),
            ("DELETE", f"{VERSIONS}/nobody/1", None),
            ("PATCH", VERSIONS, {"name": "iris", "version": 2, "description": "x"}),
            ("PATCH", VERSIONS, {"name": "nobody", "version": 1, "description": "x"}),
            ("POST", f"{MODELS}/tag?name=nobody&tag=x", None),
            ("DELETE", f"{MODELS}/tag?name=nobody&tag=x", None),
            ("POST", f"{VERSIONS}/tag?name=iris&version=2&tag=x", None),
            ("DELETE", f"{VERSIONS}/tag?name=nobody&version=1&tag=x", None),
        ):
            reply = await client.ask(method, path, body)
            assert (reply.status, reply.envelope["status"]) == (404, "NOT_FOUND"), (method, path, reply.text)

    over(tmp_path, test)


def test_what_is_served_is_not_removed(tmp_path: Path) -> None:
    """406 for its model and for the version, until it is stopped (R2)."""

    async def test(client: Client) -> None:
        await client.register(versions=2)
        await client.serve()
        for path in (f"{MODELS}/iris", f"{VERSIONS}/iris/1"):
            reply = await client.ask("DELETE", path)
            assert (reply.status, reply.envelope["status"]) == (406, "NOT_ACCEPTABLE")
            assert "serve" in reply.message
        assert (await client.ask("DELETE", f"{VERSIONS}/iris/2")).status == 200
        await client.serve(method="DELETE")
        assert (await client.ask("DELETE", f"{MODELS}/iris")).status == 200

    over(tmp_path, test)


def test_tags(tmp_path: Path) -> None:
    """Added and removed by query; of one version only; MLflow's tags are shown with their values, and removed as they are shown."""

    async def test(client: Client) -> None:
        await client.register(versions=2)
        where = f"{MODELS}/tag?name=iris&tag=a%20b"
        added = await client.ask("POST", where, b"", content_type="application/json")
        assert (added.message, added.result) == ("Create a registered model tag instance", None)
        await client.catalog.tag_model("iris", "owner", "anna")
        assert set((await client.ask("GET", f"{MODELS}/iris")).result["tags"]) == {"a b", "owner=anna"}
        removed = await client.ask("DELETE", where)
        assert (removed.message, removed.result) == ("Delete a registered model tag instance", None)
        assert (await client.ask("DELETE", f"{MODELS}/tag?name=iris&tag=owner=anna")).status == 200
        assert (await client.ask("GET", f"{MODELS}/iris")).result["tags"] == []
        for version in (1, 2):
            added = await client.ask("POST", f"{VERSIONS}/tag?name=iris&version={version}&tag=x")
            assert (added.message, added.result) == ("Create a model version tag instance", None)
        removed = await client.ask("DELETE", f"{VERSIONS}/tag?name=iris&version=1&tag=x")
        assert (removed.message, removed.result) == ("Delete a model version tag instance", None)
        assert [(await client.ask("GET", f"{VERSIONS}/iris/{v}")).result["tags"] for v in (1, 2)] == [[], ["x"]]

    over(tmp_path, test)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"{MODELS}/tag", "name is missing"),
        (f"{MODELS}/tag?name=iris", "tag is null"),
        (f"{MODELS}/tag?name=iris&tag=", "tag is ''"),
        (f"{MODELS}/tag?name=iris&tag={'x' * 3000}", "tag"),
        (f"{VERSIONS}/tag?name=iris&tag=x", "version is missing"),
        (f"{VERSIONS}/tag?name=iris&tag=x&version=one", "version is 'one'"),
        (f"{VERSIONS}/tag?name=iris&tag=x&version=1.0", "version is '1.0'"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_tags_that_are_refused(tmp_path: Path, path: str, words: str, method: str) -> None:
    """400 with the parameter that is wrong, where the original answered 200."""

    async def test(client: Client) -> None:
        await client.register()
        reply = await client.ask(method, path)
        assert (reply.status, words in reply.message) == (400, True), reply.text

    over(tmp_path, test)


def test_what_others_registered_is_here_too(tmp_path: Path) -> None:
    """R10: one registry; what MLflow's clients write is shown in Submarine's form, stages as they were given."""

    async def test(client: Client) -> None:
        await client.catalog.create_model("lily", tags={"team": "flowers", "plain": ""})
        await client.register("rose")
        await client.catalog.change_version("rose", "1", stage="Staging")
        assert (await client.ask("GET", f"{MODELS}/lily")).result["tags"] == ["plain", "team=flowers"]
        assert (await client.ask("GET", f"{VERSIONS}/rose/1")).result["currentStage"] == "Staging"
        assert isinstance(await client.catalog.model("rose"), RegisteredModel)
        assert isinstance(await client.catalog.version("rose", "1"), StoredVersion)

    over(tmp_path, test)
