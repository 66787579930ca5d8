"""Keys, TLS, CORS, foreign pages, request ids and the access log of the real command. Everything on loopback."""

import base64
import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton
import trustme
from tritonclient.utils import InferenceServerException

from tests.e2e.crowd import INFER, ROW, WAIT_S, Crowd, ask, get, post, until
from tests.e2e.running import Running, run, serving
from tests.models import build

TFS = {"instances": [[5.0, 3.4, 1.5, 0.2]]}
SHOWN_KEY = re.compile(r"^  (dg_\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build.iris(tmp_path_factory.mktemp("models") / "iris.onnx"))


# --- keys ---


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, iris: str) -> Iterator[tuple[Running, dict[str, str]]]:
    """A server that asks for keys, and one key for each scope."""
    folder = tmp_path_factory.mktemp("locked")
    made = run(folder, "keys", "add", "caller", "--scope", "infer")
    assert made.returncode == 0, made.stderr
    with serving(folder, iris, "--require-key") as server:
        keys = {"infer": made.stdout.split()[-1]}
        shown = SHOWN_KEY.search(server.output)
        keys["admin"] = shown[1] if shown else run(folder, "keys", "add", "boss", "--scope", "admin").stdout.split()[-1]
        yield server, keys


def call(server: Running, path: str, tree: Any, **headers: str) -> requests.Response:
    return requests.post(server.url + path, json=tree, headers={k.replace("_", "-"): v for k, v in headers.items()}, timeout=WAIT_S)


def forms(key: str) -> list[dict[str, str]]:
    """Every way in which a key may be sent."""
    basic = base64.b64encode(f"anybody:{key}".encode()).decode()
    return [
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer {key}"},
        {"Authorization": f"apikey {key}"},
        {"Authorization": f"Basic {basic}"},
        {"X_API_Key": key},
    ]


@pytest.mark.parametrize(("path", "tree"), [("/v2/models/iris/infer", ROW), ("/v1/models/iris:predict", TFS)])
def test_inference_needs_a_key(locked: tuple[Running, dict[str, str]], path: str, tree: Any) -> None:
    """--require-key: nothing without one, a wrong one or one in the wrong place; everything with one, in whatever form it is sent."""
    server, keys = locked
    for refused in (
        {},
        {"X_API_Key": "dg_wrong"},
        {"Authorization": f"Bearer {keys['infer']}x"},
        {"Authorization": f"Digest {keys['infer']}"},
    ):
        answer = call(server, path, tree, **refused)
        assert answer.status_code == 401, refused
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "key" in answer.json()["error"]
        assert keys["infer"] not in answer.text
    assert call(server, f"{path}?key={keys['infer']}", tree).status_code == 401
    for scope in keys:
        for form in forms(keys[scope]):
            assert call(server, path, tree, **form).status_code == 200, form


def test_what_changes_the_server_needs_the_admin_scope(locked: tuple[Running, dict[str, str]]) -> None:
    """Without a key 401, with one for inference 403, with an admin key it is done."""
    server, keys = locked
    for path, tree in (("/v2/repository/models/iris/load", {}), ("/v2/logging", {"log_info": True}), ("/v2/trace/setting", {})):
        assert call(server, path, tree).status_code == 401
        assert call(server, path, tree, X_API_Key=keys["infer"]).status_code == 403
        assert call(server, path, tree, X_API_Key=keys["admin"]).status_code == 200


def test_what_is_public_stays_open(locked: tuple[Running, dict[str, str]]) -> None:
    """Health, metadata, metrics and the pages ask for no key."""
    server, _ = locked
    for path in (
        "/",
        "/v2",
        "/v2/health/ready",
        "/v2/models/iris",
        "/v1/models/iris",
        "/v1/models/iris/metadata",
        "/metrics",
        "/dragoman/v1/status",
    ):
        assert requests.get(server.url + path, timeout=WAIT_S).status_code == 200, path


def test_the_triton_client_sends_its_key(locked: tuple[Running, dict[str, str]]) -> None:
    """As a header of each call, the way its users do."""
    server, keys = locked
    tensor = triton.InferInput("X", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.array([[5.0, 3.4, 1.5, 0.2]], "f4"))
    with triton.InferenceServerClient(server.address) as client:
        with pytest.raises(InferenceServerException, match="API key"):
            client.infer("iris", [tensor])
        result = client.infer("iris", [tensor], headers={"Authorization": f"Bearer {keys['infer']}"})
    assert result.as_numpy("label").tolist() == [[0]]


def test_keys_count_and_end_while_the_server_runs(tmp_path: Path, iris: str) -> None:
    """A key that is made or revoked counts from the next request on, also under load, and no key is ever logged or kept."""
    with serving(tmp_path, iris, "--require-key", "--access-log") as server:
        key = run(tmp_path, "keys", "add", "guest", "--scope", "infer").stdout.split()[-1]
        with Crowd(server.port, post("/v2/models/iris/infer", ROW, f"X-API-Key: {key}"), 4) as crowd:
            crowd.grow(50)
            assert crowd.statuses.keys() == {200}
            assert key not in (tmp_path / "dragoman" / "keys.toml").read_text()
            (tmp_path / "dragoman" / "keys.toml").write_text("")
            refused = post("/v2/models/iris/infer", ROW, f"X-API-Key: {key}")
            assert ask(server.port, refused).status == 401
            crowd.grow(50)
        assert not crowd.errors
        assert crowd.statuses.keys() == {200, 401}
        assert key not in server.output


# --- TLS ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, trustme.CA]:
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    issued = ca.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for index, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(folder / "cert.pem", append=index > 0)
    ca.cert_pem.write_to_path(folder / "ca.pem")
    ca.issue_cert("client@example.test").private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    return folder, ca


def test_tls(tmp_path: Path, iris: str, authority: tuple[Path, trustme.CA]) -> None:
    """Clients that trust the authority are served, others refuse, and whoever speaks without TLS gets no answer and does no harm."""
    folder, _ = authority
    with serving(tmp_path, iris, "--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")) as server:
        assert server.url.startswith("https://")
        with requests.Session() as session:
            session.trust_env = False  # certificates named in the environment would come before ours
            session.verify = str(folder / "ca.pem")
            for _ in range(3):
                assert session.post(f"{server.url}/v2/models/iris/infer", json=ROW, timeout=WAIT_S).status_code == 200
            assert session.post(f"{server.url}/v1/models/iris:predict", json=TFS, timeout=WAIT_S).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{server.url}/v2", timeout=WAIT_S)
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(f"http://127.0.0.1:{server.port}/v2", timeout=WAIT_S)
        trusted = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        with triton.InferenceServerClient(f"localhost:{server.port}", ssl=True, ssl_context_factory=lambda: trusted) as client:
            assert client.is_server_ready()
            assert client.get_model_metadata("iris")["name"] == "iris"
        assert '"level": "error"' not in server.output
        assert "Traceback" not in server.output


def test_tls_with_client_certificates(tmp_path: Path, iris: str, authority: tuple[Path, trustme.CA]) -> None:
    """--tls-client-ca: only clients with a certificate of that authority get in."""
    folder, _ = authority
    flags = ("--tls-cert", "cert.pem", "--tls-key", "key.pem", "--tls-client-ca", "ca.pem")
    with serving(tmp_path, iris, *(str(folder / flag) if flag.endswith(".pem") else flag for flag in flags)) as server:
        verify, own = str(folder / "ca.pem"), str(folder / "client.pem")
        assert requests.get(f"{server.url}/v2", verify=verify, cert=own, timeout=WAIT_S).status_code == 200
        with pytest.raises((requests.exceptions.SSLError, requests.exceptions.ConnectionError)):
            requests.get(f"{server.url}/v2", verify=verify, timeout=WAIT_S)
        assert requests.get(f"{server.url}/v2", verify=verify, cert=own, timeout=WAIT_S).status_code == 200


# --- web pages ---


def preflight(server: Running, path: str) -> requests.Response:
    headers = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    return requests.options(server.url + path, headers=headers, timeout=WAIT_S)


def test_cors(tmp_path: Path, iris: str) -> None:
    """--cors: pages of other origins may call inference and read its answers and errors; what changes the server stays closed to them."""
    page = {"Origin": "https://page.example"}
    with serving(tmp_path, iris, "--cors") as server:
        for path, tree in (("/v2/models/iris/infer", ROW), ("/v1/models/iris:predict", TFS)):
            asked = preflight(server, path)
            assert asked.status_code == 200
            assert asked.headers["Access-Control-Allow-Origin"] == "*"
            assert "POST" in asked.headers["Access-Control-Allow-Methods"]
            assert "content-type" in asked.headers["Access-Control-Allow-Headers"].lower()
            answer = call(server, path, tree, **page)
            assert answer.status_code == 200
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            wrong = call(server, path, {}, **page)
            assert wrong.status_code == 400
            assert wrong.headers["Access-Control-Allow-Origin"] == "*"
        for path, status in (("/v1/models/iris", 200), ("/v1/models/iris/metadata", 200), ("/v1/models/none", 404), ("/v1/nothing", 400)):
            shown = requests.get(server.url + path, headers=page, timeout=WAIT_S)
            assert (shown.status_code, shown.headers["Access-Control-Allow-Origin"]) == (status, "*")
        assert requests.options(f"{server.url}/v1/models/iris", timeout=WAIT_S).status_code == 400
        for path in ("/v2/repository/models/iris/unload", "/v2/logging"):
            assert "Access-Control-Allow-Origin" not in preflight(server, path).headers
            refused = call(server, path, {}, **page)
            assert refused.status_code == 403
            assert "Access-Control-Allow-Origin" not in refused.headers
        assert ask(server.port, INFER).status == 200


def test_without_cors_no_page_can_read(locked: tuple[Running, dict[str, str]]) -> None:
    """The headers that would allow it are never there."""
    server, keys = locked
    assert "Access-Control-Allow-Origin" not in preflight(server, "/v2/models/iris/infer").headers
    answer = call(server, "/v2/models/iris/infer", ROW, X_API_Key=keys["infer"], Origin="https://page.example")
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_pages_cannot_change_a_local_server(tmp_path: Path, iris: str) -> None:
    """A foreign Origin or Host, or a cross-site fetch, loads and unloads nothing; inference is not looked at."""
    with serving(tmp_path, iris) as server:
        path = "/v2/repository/models/iris/unload"
        for header in ("Origin: https://page.example", "Origin: null", "Sec-Fetch-Site: cross-site"):
            assert ask(server.port, post(path, {}, header)).status == 403, header
            assert ask(server.port, post("/v2/models/iris/infer", ROW, header)).status == 200
        rebound = post(path, {}).replace(b"Host: 127.0.0.1", b"Host: rebound.example")
        assert ask(server.port, rebound).status == 403
        assert ask(server.port, INFER).status == 200
        assert (
            ask(
                server.port, post(path, {}, f"Origin: http://localhost:{server.port}").replace(b"127.0.0.1", server.address.encode())
            ).status
            == 200
        )
        until(lambda: ask(server.port, INFER).status == 503)


# --- who asked ---


def test_ids_stay_with_their_requests(tmp_path: Path, iris: str) -> None:
    """With many clients at once each answer carries its own id and trace, errors too, and the access log has one right record of each."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    with serving(tmp_path, iris, "--access-log", "--log-format", "json") as server:
        wanted: dict[str, tuple[str, int]] = {}
        for number in range(30):
            path, status = [("/v2/models/iris/infer", 200), ("/v1/models/iris:predict", 400), ("/v2/models/none/infer", 404)][number % 3]
            wanted[f"request-{number}"] = (path, status)
            headers = (f"X-Request-Id: request-{number}", f"traceparent: 00-{trace}-b7ad6b716920{number:04x}-01")
            answer = ask(server.port, post(path, ROW, *headers))
            assert answer.status == status
            assert answer.headers[b"x-request-id"] == f"request-{number}".encode()
            version, found, span, flags = answer.headers[b"traceparent"].decode().split("-")
            assert (version, found, flags) == ("00", trace, "01")
            assert span != f"b7ad6b716920{number:04x}"
        hostile = ask(server.port, get("/v2/health/live?token=secret", "X-Request-Id: a b\tc", "traceparent: 00-00-00-00"), "GET")
        assert re.fullmatch(rb"[0-9a-f]{32}", hostile.headers[b"x-request-id"])
        assert b"traceparent" not in hostile.headers
        until(lambda: sum('"dragoman.access"' in line for line in list(server.lines)) >= 31)
        records = [json.loads(line) for line in server.lines if '"dragoman.access"' in line]
        assert {r["request_id"]: (r["path"], r["status"]) for r in records if r["request_id"].startswith("request-")} == wanted
        assert {r["trace_id"] for r in records if r["request_id"].startswith("request-")} == {trace}
        assert all(r["client"] == "127.0.0.1" and r["ms"] >= 0 and r["bytes"] > 0 for r in records)
        assert "secret" not in server.output
