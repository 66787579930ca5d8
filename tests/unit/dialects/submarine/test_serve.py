"""The serve API over deployments that only remember: bodies, answers, urls. That models really load is for the end-to-end tests."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_submarine import HOST, Client, submarine

URL = f"http://{HOST}/serve/iris-1/invocations"


def over(place: Path, test: Callable[[Client], Awaitable[None]], **fields: Any) -> None:
    async def run() -> None:
        async with submarine(place, **fields) as client:
            await test(client)

    asyncio.run(run())


def test_create_and_delete_to_the_byte(tmp_path: Path) -> None:
    """The answers of S5 and S8; nothing else in them."""

    async def test(client: Client) -> None:
        await client.register()
        made = await client.serve()
        assert made.text == (
            b'{"status":"OK","code":200,"success":true,"message":"Create a serve instance","result":{"url":"%b"},"attributes":{}}'
            % URL.encode()
        )
        assert client.deployments.serving("iris", "1")
        deleted = await client.serve(method="DELETE")
        assert deleted.text == (
            b'{"status":"OK","code":200,"success":true,"message":"Delete the model serve instance","result":null,"attributes":{}}'
        )
        assert not client.deployments.serving("iris", "1")

    over(tmp_path, test)


def test_the_path_of_the_first_release(tmp_path: Path) -> None:
    """Submarine 0.6.0: texts, a namespace, no message, and a url that is a path; DELETE says it all in the query."""

    async def test(client: Client) -> None:
        await client.register()
        path = "/api/v1/experiment/serve"
        made = await client.ask("POST", path, {"modelName": "iris", "modelVersion": "1", "namespace": "default"})
        assert made.text == b'{"status":"OK","code":200,"success":true,"message":null,"result":{"url":"/serve/iris-1"},"attributes":{}}'
        assert client.deployments.serving("iris", "1")
        gone = await client.ask("DELETE", f"{path}?modelName=iris&modelVersion=1&namespace=default")
        assert gone.text == made.text
        assert not client.deployments.serving("iris", "1")
        for query in ("", "?modelName=iris", "?modelVersion=1", "?modelName=iris&modelVersion=x", "?modelName=%FF&modelVersion=1"):
            assert (await client.ask("DELETE", path + query)).status == 400
        assert (await client.ask("DELETE", f"{path}?modelName=rose&modelVersion=1")).status == 404

    over(tmp_path, test)


def test_a_version_as_number_or_text(tmp_path: Path) -> None:
    """Means the same (S2): one url, one load."""

    async def test(client: Client) -> None:
        await client.register()
        assert {(await client.serve(version=v)).result["url"] for v in (1, "1", "01")} == {URL}
        assert client.deployments.loads == 1

    over(tmp_path, test)


def test_what_the_client_says_of_files_is_ignored(tmp_path: Path) -> None:
    """And so is every other field that the server does not know (R8, S12)."""

    async def test(client: Client) -> None:
        await client.register()
        body = {
            "modelName": "iris",
            "modelVersion": 1,
            "id": {"a": [1]},
            "modelId": "x",
            "modelType": "tensorflow",
            "modelURI": "file:///etc",
            "new": None,
        }
        assert (await client.ask("POST", "/api/v1/serve", body)).result == {"url": URL}

    over(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"modelVersion": 1}, 400, "modelName is missing"),
        ({"modelName": "iris"}, 400, "modelVersion is missing"),
        ({"modelName": None, "modelVersion": 1}, 400, "modelName is null"),
        ({"modelName": "", "modelVersion": 1}, 400, "modelName is empty"),
        ({"modelName": 5, "modelVersion": 1}, 400, "modelName is 5"),
        ({"modelName": "a\x00b", "modelVersion": 1}, 400, "modelName has"),
        ({"modelName": "iris", "modelVersion": 1.5}, 400, "modelVersion is 1.5"),
        ({"modelName": "iris", "modelVersion": 2**31}, 400, "modelVersion is 2147483648"),
        ({"modelName": "iris", "modelVersion": 2}, 404, "iris"),
        ({"modelName": "other", "modelVersion": 1}, 404, "other"),
        ({"modelName": "../iris", "modelVersion": 1}, 404, "iris"),
        ({"modelName": "broken", "modelVersion": 1}, 409, "failed to load: it is spoilt"),
        (b"", 400, "empty"),
        (b"null", 400, "null"),
        (b"[]", 400, "a list"),
        (b"{", 400, "JSON"),
        (b"\xff", 400, "JSON"),
        (b"[" * 100_000, 400, "JSON"),
        (b" " * 1_100_000, 413, "larger than the limit"),
    ],
    ids=lambda value: repr(value)[:60],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_what_is_refused(tmp_path: Path, body: Any, status: int, words: str, method: str) -> None:
    """As an envelope that says why (R1, R2, R6, R13); deleting what cannot load is no error."""

    async def test(client: Client) -> None:
        await client.register()
        await client.register("broken")
        reply = await client.ask(method, "/api/v1/serve", body)
        if status == 409 and method == "DELETE":
            assert reply.result is None
            return
        assert reply.status == status
        assert words in reply.message

    over(tmp_path, test)


def test_the_documented_example_runs_verbatim(tmp_path: Path) -> None:
    """With its trailing comma, as JSON, as what curl says without a type, and as YAML (S10, R5)."""

    async def test(client: Client) -> None:
        await client.register()
        body = b'\n{\n  "modelName": "iris", \n  "modelVersion": 1,\n}\n'
        for kind in ("application/json", "application/x-www-form-urlencoded", "application/yaml"):
            assert (await client.ask("POST", "/api/v1/serve", body, content_type=kind)).result == {"url": URL}
            assert (await client.ask("DELETE", "/api/v1/serve", body, content_type=kind)).result is None
        reply = await client.ask("POST", "/api/v1/serve", body, content_type="text/plain")
        assert (reply.status, reply.envelope["status"]) == (415, "UNSUPPORTED_MEDIA_TYPE")

    over(tmp_path, test)


def test_stages(tmp_path: Path) -> None:
    """Create says Production, delete says None, whatever it was (R9)."""

    async def test(client: Client) -> None:
        await client.register()
        where = "/api/v1/model-version/iris/1"
        await client.ask("PATCH", "/api/v1/model-version", {"name": "iris", "version": 1, "currentStage": "Developing"})
        assert (await client.ask("GET", where)).result["currentStage"] == "Developing"
        await client.serve()
        assert (await client.ask("GET", where)).result["currentStage"] == "Production"
        await client.serve(method="DELETE")
        assert (await client.ask("GET", where)).result["currentStage"] == "None"

    over(tmp_path, test)


def test_creating_twice_and_deleting_twice(tmp_path: Path) -> None:
    """Is answered as once (R4); and created again after a delete."""

    async def test(client: Client) -> None:
        await client.register()
        for _ in range(2):
            assert (await client.serve()).result == (await client.serve()).result == {"url": URL}
            for _ in range(2):
                assert (await client.serve(method="DELETE")).result is None

    over(tmp_path, test)


def test_simultaneous_creates_are_answered_alike(tmp_path: Path) -> None:
    """R13: none fails, all have the same url."""

    async def test(client: Client) -> None:
        await client.register()
        replies = await asyncio.gather(*(client.serve() for _ in range(20)))
        assert {reply.result["url"] for reply in replies} == {URL}

    over(tmp_path, test)


def test_versions_side_by_side_are_listed(tmp_path: Path) -> None:
    """With their states and their own urls; deleting one leaves the others (R4)."""

    async def test(client: Client) -> None:
        await client.register(versions=3)
        await client.register("other")
        for version in (1, 2):
            await client.serve(version=version)
        await client.serve("other")
        client.deployments.fail("iris", "2", "its process died")
        listed = (await client.ask("GET", "/api/v1/serve")).result
        assert [(each["modelName"], each["modelVersion"], each["state"]) for each in listed] == [
            ("iris", 1, "ready"),
            ("iris", 2, "failed"),
            ("other", 1, "ready"),
        ]
        assert listed[0] == {
            "modelName": "iris",
            "modelVersion": 1,
            "state": "ready",
            "reason": None,
            "currentStage": "Production",
            "url": URL,
        }
        assert (listed[1]["reason"], listed[1]["url"]) == ("its process died", None)
        assert (await client.ask("GET", "/api/v1/serve/iris")).result == listed[:2]
        assert (await client.ask("GET", "/api/v1/serve/iris/1")).result == listed[0]
        assert (await client.ask("GET", "/api/v1/serve/iris/01/")).result == listed[0]
        assert "not served" in (await client.ask("GET", "/api/v1/serve/iris/3")).message
        for path in ("iris/3", "iris/4", "iris/x", "iris/" + "9" * 300, "nobody", "nobody/1"):
            assert (await client.ask("GET", f"/api/v1/serve/{path}")).status == 404
        await client.serve(version=1, method="DELETE")
        assert [each["modelVersion"] for each in (await client.ask("GET", "/api/v1/serve/iris")).result] == [2]

    over(tmp_path, test)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost:32080", "http://localhost:32080"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("models.example", "http://models.example"),
        ("models.example/evil", "http://10.1.2.3:8080"),
        ("a@b", "http://10.1.2.3:8080"),
        ("x:port", "http://10.1.2.3:8080"),
        ("x:123456", "http://10.1.2.3:8080"),
        ('"><script>', "http://10.1.2.3:8080"),
        ("é", "http://10.1.2.3:8080"),
        ("{submarine ip}", "http://10.1.2.3:8080"),
        ("", "http://10.1.2.3:8080"),
    ],
)
def test_the_url_is_where_the_client_came_to(tmp_path: Path, host: str, url: str) -> None:
    """From its Host where that is one, else the address of the server (R3); what proxies claim is not believed."""

    async def test(client: Client) -> None:
        await client.register()
        client.headers = {"host": host} if host else {}
        reply = await client.ask(
            "POST", "/api/v1/serve", {"modelName": "iris", "modelVersion": 1}, x_forwarded_host="evil.example", x_forwarded_proto="ftp"
        )
        assert reply.result["url"] == f"{url}/serve/iris-1/invocations"

    over(tmp_path, test)


def test_a_public_address_takes_the_place_of_the_host(tmp_path: Path) -> None:
    """R3: and a name is escaped, so that the url can be used as it is."""

    async def test(client: Client) -> None:
        await client.register("café-o lait")
        url = (await client.serve("café-o lait")).result["url"]
        assert url == "https://models.example.org/ml/serve/caf%C3%A9-o%20lait-1/invocations"

    over(tmp_path, test, public_url="https://models.example.org/ml")
