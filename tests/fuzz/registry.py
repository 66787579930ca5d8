"""Valid requests of MLflow's registry, artifacts and runs, each with a check; many lead to a second one, about what came of it."""

import json
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

from tests.fuzz.cases import Case
from tests.fuzz.wire import Answer

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
KEPT = "fuzz-kept"
"""The model that is always there, with two versions and an alias. Nothing here removes it."""
_SOURCE = "mlflow-artifacts:/fuzz-kept"
_TEXTS = ("", "x", "a b", "é€", "\u2028", "null", '"', "\\", "%_", "'", "\U0001f600", "x" * 4000)
_FILTERS = (
    "name = '{}'",
    "name LIKE 'fuzz-k%'",
    "name ILIKE 'FUZZ-K%' AND name != 'x'",
    "name IN ('{}', 'other')",
    "name = '{}' and tag.`mlflow.prompt.is_prompt` != 'true'",
    'name = "{}"',
)
_ODD_FILTERS = (
    "name",
    "name = 5",
    "name = 'x",
    "a.b.c = 'x'",
    "name LIKE '" + "%a" * 500 + "'",
    "(" * 2000,
    "OR",
    "\x00",
    "name = 'x' " * 99,
)
_SOURCES = (
    "/etc",
    "../..",
    "file:///etc/passwd",
    "odd://x/y",
    "runs:/x",
    "models:/nothing/1",
    "models:/m-" + "0" * 32,
    "nothing",
    "%2e%2e",
    "",
)


def prepare() -> list[Case]:
    """What the requests of this module are about."""
    return [
        Case("PUT", f"{FILES}/{KEPT}/model.onnx".encode(), raw=b"no real model"),
        _post("registered-models/create", {"name": KEPT}),
        *(_post("model-versions/create", {"name": KEPT, "source": _SOURCE}) for _ in range(2)),
        _post("registered-models/alias", {"name": KEPT, "alias": "champion", "version": "1"}),
    ]


def _post(path: str, tree: Any, check: Callable[[Answer], None] | None = None, method: str = "POST") -> Case:
    headers = [(b"content-type", b"application/json")]
    return Case(method, f"{API}/{path}".encode(), tree, headers=headers, check=check, what=f"{method} {path}")


def _get(path: str, query: Any, check: Callable[[Answer], None] | None = None) -> Case:
    return Case("GET", f"{API}/{path}?{urlencode(query, doseq=True)}".encode(), check=check, what=f"GET {path}")


def _is(status: int, code: str) -> Callable[[Answer], None]:
    def check(answer: Answer) -> None:
        assert (answer.status, json.loads(answer.body)["error_code"]) == (status, code)

    return check


def _fine(answer: Answer) -> None:
    assert answer.status == 200


def _has(*path: str) -> Callable[[Answer], None]:
    """A 200 in whose document these keys lead to something."""

    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        found = json.loads(answer.body)
        for key in path:
            found = found[key]

    return check


def _then(case: Case, next_: Case) -> Case:
    """The case, with another one after it if it was answered as it should be: what was spoilt made nothing."""
    check = case.check or _fine

    def checked(answer: Answer) -> None:
        check(answer)
        case.undo = next_

    case.check = checked
    return case


def _word(rng: Random) -> str:
    return f"{rng.getrandbits(64):016x}"


def _model(rng: Random) -> Case:
    """A new model; then it is read, changed or removed."""
    name = f"{rng.choice(('m', 'm-', 'é ', 'M_'))}{_word(rng)}"
    tags = [{"key": f"k{n}", "value": rng.choice(_TEXTS)} for n in range(rng.randrange(3))]
    case = _post(
        "registered-models/create", {"name": name, "description": rng.choice(_TEXTS), "tags": tags}, _has("registered_model", "name")
    )
    return _then(
        case,
        rng.choice(
            (
                _get("registered-models/get", {"name": name}, _has("registered_model", "creation_timestamp")),
                _post("registered-models/update", {"name": name, "description": "new"}, _has("registered_model", "description"), "PATCH"),
                _post("registered-models/rename", {"name": name, "new_name": f"{name}-2"}, _fine),
                _post("registered-models/delete", {"name": name}, _fine, "DELETE"),
                _post("registered-models/delete-tag", {"name": name, "key": "k0"}, _fine, "DELETE"),
                _post("registered-models/create", {"name": name}, _is(400, "RESOURCE_ALREADY_EXISTS")),
                _post("model-versions/create", {"name": name, "source": _SOURCE}, _has("model_version", "version")),
            )
        ),
    )


def _version(rng: Random) -> Case:
    version = rng.choice(("1", "2", 1, "01"))
    return rng.choice(
        (
            _get("model-versions/get", {"name": KEPT, "version": version}, _has("model_version", "source")),
            _get("model-versions/get-download-uri", {"name": KEPT, "version": version}, _has("artifact_uri")),
            _post("model-versions/set-tag", {"name": KEPT, "version": version, "key": "k", "value": rng.choice(_TEXTS)}, _fine),
            _post("model-versions/update", {"name": KEPT, "version": version, "description": rng.choice(_TEXTS)}, _fine, "PATCH"),
            _post(
                "model-versions/transition-stage",
                {
                    "name": KEPT,
                    "version": version,
                    "stage": rng.choice(("Production", "staging")),
                    "archive_existing_versions": rng.random() < 0.5,
                },
                _has("model_version", "current_stage"),
            ),
            _post("registered-models/alias", {"name": KEPT, "alias": f"a{_word(rng)}", "version": str(version)}, _fine),
            _post("registered-models/get-latest-versions", {"name": KEPT}, _has("model_versions")),
            _get("registered-models/get-latest-versions", {"name": KEPT, "stages": ["None", "Production"]}, _fine),
        )
    )


def _search(rng: Random) -> Case:
    kind = rng.choice(("registered-models", "model-versions"))
    query = {
        "filter": rng.choice(_FILTERS).format(KEPT),
        "max_results": rng.choice((1, 2, "100")),
        "order_by": rng.choice(([], ["name"], ["last_updated_timestamp DESC", "name ASC"])),
    }
    key = kind.replace("-", "_")

    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        found = json.loads(answer.body)
        assert {each["name"] for each in found[key]} == {KEPT}, found
        if "next_page_token" in found:
            case.undo = _get(f"{kind}/search", {**query, "page_token": found["next_page_token"]}, _has(key))

    case = _get(f"{kind}/search", query, check)
    return case


def _run(rng: Random) -> Case:
    """A new run; then something is written to it."""
    case = _post(
        "runs/create", {"experiment_id": "0", "run_name": rng.choice(_TEXTS[:6]), "start_time": rng.choice((0, 5, "7")), "tags": []}
    )
    after = Random(rng.random())

    def check(answer: Answer) -> None:
        run = {"run_id": json.loads(answer.body)["run"]["info"]["run_id"]}
        metric = {"key": "m", "value": after.choice((1, -0.5, "NaN", "Infinity")), "timestamp": "5", "step": after.randrange(5)}
        case.undo = after.choice(
            (
                _get("runs/get", run, _has("run", "data")),
                _post("runs/log-metric", {**run, **metric}, _fine),
                _post("runs/log-batch", {**run, "metrics": [metric, metric], "params": [{"key": "p", "value": "x"}]}, _fine),
                _post("runs/set-tag", {**run, "key": "k", "value": after.choice(_TEXTS)}, _fine),
                _post("runs/update", {**run, "status": "FINISHED", "end_time": 9}, _has("run_info", "end_time")),
                _post("runs/outputs", {**run, "models": [{"model_id": "m-1", "step": 0}]}, _fine),
                _post("runs/log-inputs", {**run, "datasets": [{"dataset": {"name": "d"}, "tags": []}]}, _fine),
                _post("runs/delete", run, _fine),
                _post("runs/search", {"experiment_ids": ["0"], "max_results": 3, "order_by": ["metrics.m DESC"]}, _has("runs")),
            )
        )

    case.check = check
    return case


def _logged(rng: Random) -> Case:
    case = _post("logged-models", {"experiment_id": "0", "name": rng.choice(_TEXTS[:6]), "params": [{"key": "p", "value": "1"}]})
    after = Random(rng.random())

    def check(answer: Answer) -> None:
        path = f"logged-models/{json.loads(answer.body)['model']['info']['model_id']}"
        case.undo = after.choice(
            (
                _get(path, {}, _has("model", "data", "params")),
                _post(path, {"status": "LOGGED_MODEL_READY"}, _has("model", "info", "status"), "PATCH"),
                _post(f"{path}/tags", {"tags": [{"key": "k", "value": "v"}]}, _fine, "PATCH"),
                _post(f"{path}/tags/k", None, _fine, "DELETE"),
                _post("logged-models/search", {"experiment_ids": ["0"], "max_results": 2}, _has("models")),
            )
        )

    case.check = check
    return case


def _experiment(rng: Random) -> Case:
    if rng.random() < 0.8:  # there can be only so many of them
        return rng.choice(
            (
                _get("experiments/get", {"experiment_id": "0"}, _has("experiment", "name")),
                _get("experiments/get-by-name", {"experiment_name": "Default"}, _has("experiment", "experiment_id")),
                _post("experiments/search", {"max_results": 3, "view_type": "ALL"}, _has("experiments")),
            )
        )
    name = _word(rng)
    case = _post("experiments/create", {"name": name}, _has("experiment_id"))
    return _then(case, _get("experiments/get-by-name", {"experiment_name": name}, _has("experiment", "artifact_location")))


def _file(rng: Random) -> Case:
    """An upload; then it is fetched, listed or removed."""
    content = rng.randbytes(rng.choice((0, 1, 100, 5_000, 200_000)))
    folder, name = _word(rng), rng.choice(("a.bin", "a b", "é€", "%41", "x" * 200, "..a", "predict"))
    path = f"{FILES}/{folder}/{quote(name)}".encode()
    case = Case("PUT", path, raw=content, check=_fine, what="upload an artifact")

    def fetched(answer: Answer) -> None:
        assert answer.status == 200, answer.status
        assert answer.body == content

    def listed(answer: Answer) -> None:
        assert json.loads(answer.body)["files"] == [{"path": name, "is_dir": False, "file_size": len(content)}]

    return _then(
        case,
        rng.choice(
            (
                Case("GET", path, check=fetched, what="fetch an artifact"),
                Case("GET", f"{FILES}?path={folder}".encode(), check=listed, what="list artifacts"),
                Case("DELETE", path, check=_fine, what="remove an artifact"),
            )
        ),
    )


def _wrong(rng: Random) -> Case:
    """What is refused, and how."""
    none, bad = _is(404, "RESOURCE_DOES_NOT_EXIST"), _is(400, "INVALID_PARAMETER_VALUE")
    return rng.choice(
        (
            _get("registered-models/get", {"name": "nothing"}, none),
            _get("registered-models/get", {}, bad),
            _get("model-versions/get", {"name": KEPT, "version": "999999"}, none),
            _get("model-versions/get", {"name": KEPT, "version": rng.choice(("x", "0", "-1", "1.5", "9" * 99))}, bad),
            _get("registered-models/search", {"filter": rng.choice(_ODD_FILTERS)}, None),
            _get("registered-models/search", {"page_token": rng.choice(("x", "W10=", "e30=", "=" * 99))}, bad),
            _get("registered-models/search", {"max_results": rng.choice((0, -1, 10**9, "x", "nan"))}, bad),
            _post("registered-models/create", {"name": rng.choice(("a/b", "a:b", "..", " ", "\u0000", "x" * 300, 5, None, [], {}))}, bad),
            _post("model-versions/create", {"name": KEPT, "source": rng.choice(_SOURCES)}, _refused),
            _post("model-versions/transition-stage", {"name": KEPT, "version": "1", "stage": "best"}, bad),
            _get("runs/get", {"run_id": "nothing"}, none),
            _get("logged-models/m-nothing", {}, none),
            _get("traces", {}, _is(404, "ENDPOINT_NOT_FOUND")),
            Case("GET", f"{FILES}/{_word(rng)}/nothing".encode(), check=none, what="fetch nothing"),
            Case(rng.choice(("GET", "PUT", "DELETE")), f"{FILES}/..%2f..%2fx".encode(), raw=b"", check=bad, what="a path that leads out"),
            Case("DELETE", f"{FILES}/{KEPT}".encode(), check=_is(409, "RESOURCE_CONFLICT"), what="remove files of a version"),
        )
    )


def _refused(answer: Answer) -> None:
    assert answer.status in (400, 404), answer.status


_KINDS: tuple[tuple[Callable[[Random], Case], int], ...] = (
    (_model, 4),
    (_version, 5),
    (_search, 4),
    (_run, 4),
    (_logged, 2),
    (_experiment, 2),
    (_file, 4),
    (_wrong, 3),
)


def valid(rng: Random) -> Case:
    """Any request that must be answered rightly."""
    (make,) = rng.choices([make for make, _ in _KINDS], [weight for _, weight in _KINDS])
    return make(rng)
