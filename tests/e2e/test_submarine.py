"""Submarine's API of the real command over real sockets, with requests and curl. The S and R numbers are those of docs/conformance.md."""

import json
import socket
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.running import Running, serving
from tests.models import build, learned, mlflow_folders

KEYS = ["status", "code", "success", "message", "result", "attributes"]
ROW = [5.0, 3.4, 1.5, 0.2]
V2_BODY = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": ROW}]}


def models(root: Path) -> Path:
    """What may be registered: models of three formats, one that cannot be loaded, one that may not be, and a secret beside the root."""
    build.iris(root / "iris" / "model.onnx")
    learned.write(root / "trees" / "model.ubj", learned.xgboost_model())
    learned.write(root / "flowers" / "model.skops", learned.skops_of(learned.classifier()))
    mlflow_folders.flowers(root / "mlflow")
    learned.write(root / "bad" / "model.onnx", b"no model")
    learned.write(root / "pickled" / "model.joblib", b"\x80\x04N.")
    build.iris(root.parent / "secret" / "model.onnx")
    (root / "link").symlink_to(root.parent)
    return root


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("submarine")
    with serving(folder, "--model-root", str(models(folder / "models")), "--workers", str(request.param)) as running:
        yield running


def ask(server: Running, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and envelope, which is checked to be one. `body` is JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    answer = requests.request(method, f"{server.url}/api/v1{path}", data=data, headers=given, timeout=60)
    return answer.status_code, envelope(answer.status_code, answer.headers, answer.text)


def envelope(status: int, headers: Mapping[str, str], text: str) -> dict[str, Any]:
    assert headers["Content-Type"] == "application/json; charset=utf-8", text
    found: dict[str, Any] = json.loads(text)
    assert list(found) == KEYS
    assert (found["code"], found["success"], found["attributes"]) == (status, status == 200, {})
    assert status == 200 or (found["result"] is None and found["message"])
    return found


def done(server: Running, method: str, path: str, body: Any = None) -> Any:
    """The result of a call that must succeed."""
    status, found = ask(server, method, path, body)
    assert status == 200, found
    return found["result"]


def registered(server: Running, name: str, folder: str, versions: int = 1) -> str:
    """The name of a model that is registered, with that many versions of one folder."""
    status, _ = ask(server, "POST", "/registered-model", {"name": name})
    assert status == 200
    for _ in range(versions):
        done(server, "POST", f"/model-version?baseDir={folder}", {"name": name, "userId": "", "experimentId": "e"})
    return name


def serve(server: Running, name: str, version: Any = 1) -> str:
    url = done(server, "POST", "/serve", {"modelName": name, "modelVersion": version})["url"]
    assert isinstance(url, str)
    return url


def stop(server: Running, name: str, version: Any = 1) -> None:
    assert done(server, "DELETE", "/serve", {"modelName": name, "modelVersion": version}) is None


def posted(url: str, body: Any) -> requests.Response:
    return requests.post(url, json=body, timeout=60)


def test_the_documented_example_runs_verbatim(server: Running) -> None:
    """S1, S5 to S8, S10, S11, R5: curl with the example's own text, trailing commas and all, to a version that was registered before."""
    name = registered(server, "example", "iris")
    body = '\n{\n  "modelName": "example", \n  "modelVersion":1,\n}\n'
    url = f"{server.url}/api/v1/serve"
    results = []
    for method in ("POST", "DELETE"):
        command = ["curl", "-s", "-X", method, "-H", "Content-Type: application/json", "-d", body, url]
        results.append(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    prefix = '{"status":"OK","code":200,"success":true,"message":'
    assert results == [
        f'{prefix}"Create a serve instance","result":{{"url":"{server.url}/serve/{name}-1/invocations"}},"attributes":{{}}}}',
        f'{prefix}"Delete the model serve instance","result":null,"attributes":{{}}}}',
    ]


def test_every_protocol_answers_below_the_url(server: Running) -> None:
    """R3: the url as it is, and V2, TensorFlow Serving, Tungsten and Seldon beside it; on every connection, so in every worker."""
    name = registered(server, "doors", "iris")
    url = serve(server, name)
    prefix = url.removesuffix("/invocations")
    for _ in range(8):
        assert posted(url, {"inputs": [ROW]}).json()["predictions"]["label"] == [[0]]
        assert posted(f"{prefix}/v2/models/{name}/infer", V2_BODY).json()["outputs"][0]["data"] == [0]
        assert posted(f"{prefix}/v1/models/{name}:predict", {"instances": [ROW]}).json()["predictions"][0]["label"] == [0]
        assert posted(f"{prefix}/predict", [{"X": ROW}]).json()["outputs"][0]["label"] == [0]
        assert posted(f"{prefix}/api/v1.0/predictions", {"data": {"ndarray": [ROW]}}).status_code == 200
        assert posted(f"{server.url}/{name}/1/api/v1.0/predictions", {"data": {"ndarray": [ROW]}}).status_code == 200
        assert posted(f"{server.url}/{name}/1/v2/models/{name}/infer", V2_BODY).status_code == 200
        assert posted(f"{server.url}/seldon/team/{name}/1/api/v0.1/predictions", {"data": {"ndarray": [ROW]}}).status_code == 200
    for path, body in (
        ("invocations", [1]),
        (f"v2/models/{name}/infer", {"inputs": 5}),
        ("api/v1.0/predictions", {"data": None}),
        ("predict", 7),
    ):
        answer = posted(f"{prefix}/{path}", body)
        assert 400 <= answer.status_code < 500, answer.text
        assert isinstance(answer.json(), dict)
    stop(server, name)


@pytest.mark.parametrize(("folder", "row"), [("iris", ROW), ("trees", None), ("flowers", ROW)])
def test_create_serves_and_delete_stops(server: Running, folder: str, row: Any) -> None:
    """S9: a prediction before, between and after, whatever the model's format; and again."""
    name = registered(server, f"life-{folder}", folder)
    url = f"{server.url}/serve/{name}-1"
    signature = f"{url}/v2/models/{name}"
    for _ in range(2):
        assert requests.get(signature, timeout=60).status_code >= 400
        assert serve(server, name) == f"{url}/invocations"
        (tensor,) = requests.get(signature, timeout=60).json()["inputs"]
        values = row or [0.0] * tensor["shape"][-1]
        asked = {"inputs": [{"name": tensor["name"], "shape": [1, len(values)], "datatype": tensor["datatype"], "data": values}]}
        assert posted(f"{signature}/infer", asked).status_code == 200
        stop(server, name)
        assert posted(f"{signature}/infer", asked).status_code >= 400


def test_versions_are_served_side_by_side(server: Running) -> None:
    """R4: each at its own url; one is removed, the others stay. The states can be listed."""
    name = registered(server, "several", "iris", versions=3)
    urls = [serve(server, name, version) for version in (1, "2")]
    assert [posted(url, {"inputs": [ROW]}).status_code for url in urls] == [200, 200]
    listed = {each["modelVersion"]: each for each in done(server, "GET", f"/serve/{name}")}
    assert {version: each["state"] for version, each in listed.items()} == {1: "ready", 2: "ready"}
    assert [listed[1]["url"], listed[2]["url"]] == urls
    assert done(server, "GET", f"/serve/{name}/2") == listed[2]
    assert ask(server, "GET", f"/serve/{name}/3")[0] == 404
    stop(server, name, 1)
    stop(server, name, 1)
    assert posted(urls[0], {"inputs": [ROW]}).status_code >= 400
    assert posted(urls[1], {"inputs": [ROW]}).status_code == 200
    stop(server, name, 2)


def test_a_number_and_its_text_are_one_version(server: Running) -> None:
    """S2; and fields that say something about files change nothing (R8, S12)."""
    name = registered(server, "spelled", "iris")
    urls = {serve(server, name, spelling) for spelling in (1, "1", "01")}
    body = {"modelName": name, "modelVersion": 1, "id": 9, "modelId": "x", "modelType": "tensorflow", "modelURI": "/etc", "more": {}}
    urls.add(done(server, "POST", "/serve", body)["url"])
    assert len(urls) == 1
    stop(server, name)


def test_the_url_names_the_host_of_the_client(server: Running) -> None:
    """R3: whichever name it used; a Host that is no address never gets into a url."""
    name = registered(server, "hosts", "iris")
    body = {"modelName": name, "modelVersion": 1}
    assert ask(server, "POST", "/serve", body, Host="localhost:5")[1]["result"]["url"] == f"http://localhost:5/serve/{name}-1/invocations"
    status, found = ask(server, "POST", "/serve", body, Host='x"><script>')
    assert (status, found["status"]) == (403, "FORBIDDEN")
    stop(server, name)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"modelVersion": 1}, 400, "modelName is missing"),
        ({"modelName": "refused"}, 400, "modelVersion is missing"),
        ({"modelName": "refused", "modelVersion": 9}, 404, "9"),
        ({"modelName": "nobody", "modelVersion": 1}, 404, "nobody"),
        ({"modelName": "refused", "modelVersion": 1.0}, 400, "modelVersion is 1.0"),
        ({"modelName": "refused", "modelVersion": [1]}, 400, "modelVersion is a list"),
        ({"modelName": "../../x", "modelVersion": 1}, 404, "x"),
        (b"", 400, "empty"),
        (b"null", 400, "null"),
        (b"[]", 400, "list"),
        (b'{"a"', 400, "line 1"),
        (b'{"modelName": "\xff"}', 400, "JSON"),
        (b"[" * 100_000, 400, "JSON"),
        (b'{"modelVersion": ' + b"9" * 5000 + b"}", 400, "JSON"),
        (b" " * (2 << 20), 413, "limit"),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_what_is_refused(server: Running, method: str, body: Any, status: int, words: str) -> None:
    """S3, S4, R1, R2, R6, R13: an envelope with the reason."""
    if ask(server, "GET", "/registered-model/refused")[0] == 404:
        registered(server, "refused", "iris")
    found = ask(server, method, "/serve", body)
    assert (found[0], words in found[1]["message"]) == (status, True), found


def test_what_http_refuses_is_an_envelope_too(server: Running) -> None:
    """R1: a body that announces more than the server takes is refused before it is sent; unknown paths, methods and types."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(b"POST /api/v1/serve HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        head, _, body = raw.recv(1 << 16).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert list(json.loads(body)) == KEYS
    assert json.loads(body)["code"] == 413
    for method, path, status in (
        ("GET", "/serve/a/b/c", 404),
        ("PUT", "/serve", 405),
        ("GET", "/model-version", 405),
        ("POST", "/model-version/a/1", 405),
        ("GET", "/registered-model/x/y/z", 404),
    ):
        assert ask(server, method, path)[0] == status
    assert ask(server, "POST", "/serve", b"<a/>", Content_Type="text/xml")[0] == 415


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /api/v1/serve HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1", 400),
        (b"POST /api/v1/serve HTTP/1.1", 400),
        (b"NONSENSE /api/v1/model-version HTTP/1.1\r\nHost: localhost", 400),
        (b"GET /api/v1/registered-model/\xff HTTP/1.1\r\nHost: localhost", 400),
        (b"GET /api/v1/registered-model?" + b"a=b&" * 20_000 + b" HTTP/1.1\r\nHost: localhost", 414),
        (b"GET /api/v1/serve HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 100_000, 431),
    ],
)
def test_what_is_no_request_is_answered_with_an_envelope(server: Running, head: bytes, status: int) -> None:
    """R1: also where the head is malformed or too long, as far as it says where it was sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(head + b"\r\n\r\n")
        answer, _, body = raw.makefile("rb").read().partition(b"\r\n\r\n")
    assert int(answer.split()[1]) == status
    assert b"content-type: application/json; charset=utf-8" in answer
    found = json.loads(body)
    assert (list(found), found["code"], found["success"], found["result"]) == (KEYS, status, False, None)


def test_a_prefix_is_of_one_version_only(server: Running) -> None:
    """R3: what names another version or model below it is 404 in every protocol's words, although that is served, too."""
    name = registered(server, "pinned", "iris", versions=2)
    prefix = serve(server, name, 1).removesuffix("/invocations")
    serve(server, name, 2)
    for path in (
        f"v2/models/{name}/versions/2/infer",
        "v2/models/other/infer",
        f"v2/repository/models/{name}/unload",
        f"v1/models/{name}/versions/2:predict",
        f"v1/models/{name}/labels/Production:predict",
        "api/v1/serve",
        "metrics",
    ):
        answer = posted(f"{prefix}/{path}", {})
        assert answer.status_code == 404, (path, answer.text)
        assert isinstance(answer.json(), dict)
    assert posted(f"{prefix}/v1/models/{name}/versions/1:predict", {"instances": [ROW]}).status_code == 200
    for version in (1, 2):
        stop(server, name, version)


def test_the_path_of_the_first_release(server: Running) -> None:
    """Submarine 0.6.0: the same under its path, where DELETE has no body, and the answer names the path of the predictor."""
    name = registered(server, "early", "iris")
    made = done(server, "POST", "/experiment/serve", {"modelName": name, "modelVersion": "1", "namespace": "default"})
    assert made == {"url": f"/serve/{name}-1"}
    assert posted(f"{server.url}{made['url']}/invocations", {"inputs": [ROW]}).status_code == 200
    assert done(server, "DELETE", f"/experiment/serve?modelName={name}&modelVersion=1&namespace=default") == made
    assert posted(f"{server.url}{made['url']}/invocations", {"inputs": [ROW]}).status_code == 404


def test_all_who_ask_for_what_cannot_be_loaded_hear_it(server: Running) -> None:
    """R4, R13: none of many simultaneous creates says that a version is served which is not."""
    name = registered(server, "hopeless", "bad")
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: ask(server, "POST", "/serve", {"modelName": name, "modelVersion": 1}), range(16)))
    assert {status for status, _ in answers} == {409}
    assert {found["message"] for _, found in answers} == {answers[0][1]["message"]}
    assert done(server, "GET", f"/model-version/{name}/1")["currentStage"] == "None"


def test_a_model_that_cannot_be_loaded_is_a_conflict(server: Running) -> None:
    """R4: the answer says that it is not served, and why; what was served of it goes on. Pickles are refused with the formats that are safe."""
    name = registered(server, "worse", "iris")
    url = serve(server, name)
    done(server, "POST", "/model-version?baseDir=bad", {"name": name, "userId": "", "experimentId": ""})
    status, found = ask(server, "POST", "/serve", {"modelName": name, "modelVersion": 2})
    assert (status, found["status"]) == (409, "CONFLICT")
    assert "model.onnx" in found["message"]
    assert posted(url, {"inputs": [ROW]}).status_code == 200
    assert {each["modelVersion"]: each["state"] for each in done(server, "GET", f"/serve/{name}")} == {1: "ready", 2: "failed"}
    assert done(server, "GET", f"/model-version/{name}/2")["currentStage"] == "None"
    pickled = registered(server, "pickled", "pickled")
    status, found = ask(server, "POST", "/serve", {"modelName": pickled, "modelVersion": 1})
    assert status == 409
    assert "--trust-pickle" in found["message"]
    assert "skops" in found["message"]
    stop(server, name)


def test_names_are_checked_where_they_are_registered(server: Running) -> None:
    """R7: whatever a url could not carry is a 400; a name that is taken is a 409."""
    for name in ("a/b", "a\\b", "a:b", "..", "a..b", "a\n", "\x00", "", " ", "x" * 257, 5, None):
        assert ask(server, "POST", "/registered-model", {"name": name})[0] == 400, name
    assert ask(server, "POST", "/registered-model", b'{"name": "\\ud800"}')[0] == 400
    registered(server, "taken", "iris", versions=0)
    assert ask(server, "POST", "/registered-model", {"name": "taken"})[0] == 409


def test_names_with_escapes(server: Running) -> None:
    """A name that needs escapes is served at a url that can be used as it is."""
    name = registered(server, "café-o 50%", "iris")
    url = serve(server, name)
    assert url.endswith("/serve/caf%C3%A9-o%2050%25-1/invocations")
    assert posted(url, {"inputs": [ROW]}).status_code == 200
    stop(server, name)


def test_stages_follow_what_is_served(server: Running) -> None:
    """R9: Production when it is served, None when it is not; what people say between is kept."""
    name = registered(server, "staged", "iris")
    where = f"/model-version/{name}/1"
    serve(server, name)
    assert done(server, "GET", where)["currentStage"] == "Production"
    stop(server, name)
    assert done(server, "GET", where)["currentStage"] == "None"
    done(server, "PATCH", "/model-version", {"name": name, "version": 1, "currentStage": "Developing"})
    assert done(server, "GET", where)["currentStage"] == "Developing"


@pytest.mark.parametrize("source", ["../secret", "/etc", "file:///etc/passwd", "link/secret", "nowhere", "iris/../../secret"])
def test_sources_outside_of_every_root_are_refused(server: Running, source: str) -> None:
    """R11: by path, by link, by URI; and a folder without a model."""
    if ask(server, "GET", "/registered-model/sources")[0] == 404:
        registered(server, "sources", "iris", versions=0)
    body = {"name": "sources", "userId": "", "experimentId": ""}
    assert ask(server, "POST", f"/model-version?baseDir={source}", body)[0] == 400
    assert done(server, "GET", "/model-version/sources") == []


def test_what_is_not_there_and_what_is_served(server: Running) -> None:
    """R12, R2: 404 for unknown models and versions; 406 for removing what is served."""
    for method, path in (
        ("GET", "/registered-model/no"),
        ("DELETE", "/registered-model/no"),
        ("GET", "/model-version/no/1"),
        ("DELETE", "/model-version/no/1"),
    ):
        assert ask(server, method, path)[0] == 404
    assert ask(server, "PATCH", "/registered-model/no", {"description": "x"})[0] == 404
    assert ask(server, "PATCH", "/model-version", {"name": "no", "version": 1})[0] == 404
    name = registered(server, "kept", "iris")
    serve(server, name)
    for path in (f"/registered-model/{name}", f"/model-version/{name}/1"):
        assert ask(server, "DELETE", path)[1]["status"] == "NOT_ACCEPTABLE"
    stop(server, name)
    done(server, "DELETE", f"/registered-model/{name}")
    assert ask(server, "GET", f"/registered-model/{name}")[0] == 404


def test_one_registry_behind_both_faces(server: Running) -> None:
    """R10, R9, R11: what an MLflow client registered is listed, served and staged here, and the reverse; a stage is kept as it was given."""

    def mlflow(method: str, path: str, body: Any = None, **query: str) -> Any:
        url = f"{server.url}/api/2.0/mlflow/{path}"
        answer = requests.request(method, url, params=query, timeout=60, **({} if body is None else {"json": body}))
        assert answer.status_code == 200, answer.text
        return answer.json()

    name = "theirs"
    mlflow("POST", "registered-models/create", {"name": name, "tags": [{"key": "team", "value": "a"}, {"key": "plain", "value": ""}]})
    mlflow("POST", "model-versions/create", {"name": name, "source": "mlflow"})
    assert done(server, "GET", f"/registered-model/{name}")["tags"] == ["plain", "team=a"]
    assert done(server, "GET", f"/model-version/{name}/1")["modelType"] == "sklearn"
    for stage in ("Staging", "Archived"):
        mlflow("POST", "model-versions/transition-stage", {"name": name, "version": "1", "stage": stage})
        assert done(server, "GET", f"/model-version/{name}/1")["currentStage"] == stage
    url = serve(server, name)
    rows = {"dataframe_records": [dict.fromkeys(mlflow_folders.FLOWER, 1.0)]}
    assert len(posted(url, rows).json()["predictions"]) == 1
    assert mlflow("GET", "model-versions/get", name=name, version="1")["model_version"]["current_stage"] == "Production"
    stop(server, name)
    assert mlflow("GET", "model-versions/get", name=name, version="1")["model_version"]["current_stage"] == "None"
    ours = registered(server, "ours", "iris")
    done(server, "PATCH", "/model-version", {"name": ours, "version": 1, "currentStage": "Developing"})
    found = mlflow("GET", "registered-models/get", name=ours)["registered_model"]
    assert found["name"] == ours
    assert mlflow("GET", "model-versions/get", name=ours, version="1")["model_version"]["current_stage"] == "Developing"


def test_simultaneous_creates_and_deletes(server: Running) -> None:
    """R13: of one version from several clients none fails; creates alone have one url, and load it once per worker."""
    name = registered(server, "crowded", "iris")
    with ThreadPoolExecutor(8) as clients:
        urls = list(clients.map(lambda _: serve(server, name), range(16)))
        assert len(set(urls)) == 1
        loads = [
            line
            for line in server.lines
            if f"model '{name}' version 1 is ready" in line or f"model \\'{name}\\' version 1 is ready" in line
        ]
        assert len(loads) <= 2
        list(clients.map(lambda i: serve(server, name) if i % 2 else stop(server, name), range(16)))
    serve(server, name)
    assert posted(urls[0], {"inputs": [ROW]}).status_code == 200
    stop(server, name)


def test_the_port_of_the_documented_example(tmp_path: Path) -> None:
    """S11: the port is the operator's, so 32080 works as any other; here it is one that is free, for this test is not alone on its machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(tmp_path, "--port", str(port), "--model-root", str(models(tmp_path / "models"))) as running:
        assert running.port == port
        assert done(running, "GET", "/serve/ping") == "Pong"
        assert done(running, "GET", "/serve") == []


def test_everything_is_served_again_after_a_restart(tmp_path: Path) -> None:
    """What was created is there when the server comes back, what was deleted is not; R3: the public address takes the place of the Host."""
    root = models(tmp_path / "models")
    with serving(tmp_path, "--model-root", str(root), "--public-url", "https://models.example.org/ml/") as first:
        name = registered(first, "lasting", "iris", versions=2)
        assert serve(first, name) == f"https://models.example.org/ml/serve/{name}-1/invocations"
        serve(first, name, 2)
        stop(first, name, 2)
    with serving(tmp_path, "--model-root", str(root)) as second:
        assert serve(second, name) == f"{second.url}/serve/{name}-1/invocations"
        assert [each["modelVersion"] for each in done(second, "GET", "/serve")] == [1]
        assert posted(f"{second.url}/serve/{name}-1/invocations", {"inputs": [ROW]}).status_code == 200
