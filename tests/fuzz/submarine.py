"""Valid requests of Submarine's API; those that change something are followed by one that takes the change back.

The model `fz` is registered before and never removed: its versions are served and stopped by several connections at a time. Whatever else is
registered has a name that comes once.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.cases import Case, Headers
from tests.fuzz.wire import Answer
from tests.models import build

ROOT = "/api/v1"
KEYS = ["status", "code", "success", "message", "result", "attributes"]
_VERSIONS = 3
_JSON: Headers = [(b"content-type", b"application/json")]
_REFUSED: tuple[tuple[str, str, Any, int], ...] = (
    ("GET", "/serve/fz/9", None, 404),
    ("GET", "/serve/nobody", None, 404),
    ("GET", "/model-version/nobody/1", None, 404),
    ("PUT", "/serve", {}, 405),
    ("GET", "/serve/a/b/c", None, 404),
    ("POST", "/serve", {"modelName": "fz"}, 400),
    ("POST", "/serve", {"modelName": "fz", "modelVersion": 1.5}, 400),
    ("POST", "/serve", {"modelName": "fz", "modelVersion": True}, 400),
    ("POST", "/serve", {"modelName": "nobody", "modelVersion": 1}, 404),
    ("DELETE", "/serve", [], 400),
    ("POST", "/registered-model", {"name": "fz"}, 409),
    ("POST", "/registered-model", {"name": "a/b"}, 400),
    ("POST", "/model-version?baseDir=/etc", {"name": "fz", "userId": "", "experimentId": ""}, 400),
    ("POST", "/model-version/tag?name=fz&version=x&tag=y", None, 400),
    ("DELETE", "/registered-model/nobody", None, 404),
)


def write(folder: Path) -> Path:
    """The model root of the registry; returned for --model-root."""
    build.identity(folder / "fz" / "model.onnx", "FP32")
    return folder


def prepare() -> list[Case]:
    """What is to be sent once, before everything else."""
    version = {"name": "fz", "userId": "", "experimentId": ""}
    return [
        Case("POST", f"{ROOT}/registered-model".encode(), {"name": "fz"}, headers=_JSON),
        *(Case("POST", f"{ROOT}/model-version?baseDir=fz".encode(), version, headers=_JSON) for _ in range(_VERSIONS)),
    ]


def valid(rng: Random) -> Case:
    """Any request that must be answered rightly."""
    return rng.choices((_look, _serve, _register, _describe, _refuse), (3, 2, 2, 1, 2))[0](rng)


def _look(rng: Random) -> Case:
    path = rng.choice(("/serve", "/serve/", "/serve/fz", "/serve/ping", "/registered-model", "/registered-model/ping", "/model-version/fz"))
    method = "HEAD" if rng.random() < 0.1 else "GET"
    return Case(method, f"{ROOT}{path}".encode(), check=None if method == "HEAD" else _is(200), what=f"look at {path}")


def _serve(rng: Random) -> Case:
    """A version, in every spelling; then it is stopped, whoever else wants it meanwhile."""
    version = rng.randint(1, _VERSIONS)
    case = Case("POST", f"{ROOT}/serve".encode(), what="serve")
    asked: dict[str, Any] = {"modelName": "fz", "modelVersion": rng.choice((version, str(version), f"0{version}"))}
    if rng.random() < 0.3:
        asked |= {"id": 7, "modelType": "tensorflow", "modelURI": "file:///etc", "unknown": [{}]}
    _body(case, asked, rng)
    stop = Case("DELETE", case.target, raw=case.raw, tree=case.tree, headers=case.headers, check=_is(200), what="stop")

    def check(answer: Answer) -> None:
        assert answer.status == 200
        url = json.loads(answer.body)["result"]["url"]
        assert url == f"http://127.0.0.1/serve/fz-{version}/invocations", url
        case.undo = stop

    case.check = check
    return case


def _register(rng: Random) -> Case:
    """A model of a new name; then it is removed."""
    name = f"{rng.choice(('m', 'a b', 'é-', '50%', 'x' * 100))}{rng.getrandbits(60):x}"
    case = Case("POST", f"{ROOT}/registered-model".encode(), what="register")
    _body(case, {"name": name, "description": rng.choice((None, "", "words é€ ,}")), "tags": rng.choice((None, [], ["a", "b,]"]))}, rng)

    def check(answer: Answer) -> None:
        assert answer.status == 200
        assert json.loads(answer.body)["result"]["name"] == name
        path = "".join(f"%{byte:02X}" for byte in name.encode())
        case.undo = Case("DELETE", f"{ROOT}/registered-model/{path}".encode(), check=_is(200), what="remove")

    case.check = check
    return case


def _describe(rng: Random) -> Case:
    """What is said of a version, or a tag of it."""
    version = rng.randint(1, _VERSIONS)
    if rng.random() < 0.5:
        method = rng.choice(("POST", "DELETE"))
        target = f"{ROOT}/model-version/tag?name=fz&version={version}&tag={rng.choice(('x', 'a%20b', '%C3%A9'))}"
        return Case(method, target.encode(), check=_is(200), what="tag")
    case = Case("PATCH", f"{ROOT}/model-version".encode(), check=_is(200), what="describe")
    _body(case, {"name": "fz", "version": version, "dataset": rng.choice(("", "d" * 200)), "currentStage": "Developing"}, rng)
    return case


def _refuse(rng: Random) -> Case:
    method, path, tree, status = rng.choice(_REFUSED)
    return Case(method, f"{ROOT}{path}".encode(), tree, headers=list(_JSON), check=_is(status), what=f"{method} {path}")


def _body(case: Case, document: dict[str, Any], rng: Random) -> None:
    """JSON, with or without a type, a trailing comma, a mark in front; or YAML."""
    case.tree = document
    match rng.randrange(6):
        case 0:
            case.headers = [(b"content-type", b"application/x-www-form-urlencoded")]
        case 1:
            case.raw = b"\xef\xbb\xbf" + json.dumps(document)[:-1].encode() + b",\n}\n"
        case 2:
            case.raw, case.headers = json.dumps(document, indent=1).encode(), [(b"content-type", b"application/yaml")]
        case _:
            case.headers = list(_JSON)


def _is(status: int) -> Callable[[Answer], None]:
    def check(answer: Answer) -> None:
        assert answer.status == status, answer.status

    return check
