"""Whatever comes to FloydHub's API is answered in JSON, and never with a 5xx."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes_floydhub import ALICE, FORM, Hub, hub

PATHS = (
    "user/login",
    "projects/alice/x",
    "modules/",
    "modules/M",
    "modules/M/upload_v2_credentials",
    "modules/?module_type=data&family_id=F",
    "experiments/run_module/",
    "experiments/restart/J",
    "experiments/cancel/J",
    "experiments/J",
    "experiments/?family_id=F",
    "taskinstances/J",
    "datasets/F",
    "datasets/alice/x",
    "resources/R",
    "resources/R/state",
    "resources/R/a/b?content=true",
    "resources/R?content=true&download=true",
    "download/artifacts/code/J?is_dir=true&path=P",
    "download/artifacts/files/J?is_dir=true&path=P",
    "download/artifacts/data/R?is_dir=yes&path=P",
    "upload/",
    "upload/U",
)
ODD = ("..", "%2e%2e", "%00", "%ff", "a%2Fb", "%0d%0a", "x" * 3000, ".output", "log.", "code.", "x.home", "-", "%F0%9F%90%8D", "'", "%25")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    *(
        "module_id",
        "family_id",
        "data_ids",
        "description",
        "env",
        "instance_type",
        "max_runtime",
        "yaml_config",
        "task",
        "cli_default",
        "command",
    ),
    *("mode", "name", "module_type", "source", "username", "password", "concurrency", "idle_timeout", "network"),
)


async def check(at: Hub, method: str, path: str, **more: Any) -> None:
    answer = await at(method, path, **more)
    assert answer.status < 500, (method, path, more, answer.body[:300])
    if answer.status >= 400:
        assert isinstance(answer.json["message"], str)


@pytest.mark.parametrize("odd", ODD)
def test_odd_names(odd: str, tmp_path: Path) -> None:
    """In every place of every path."""

    async def test(at: Hub) -> None:
        for path in PATHS:
            for place in re.finditer(r"\b([MJRFUP]|alice|x)\b", path):
                for method in ("GET", "POST", "DELETE", "PATCH"):
                    await check(at, method, path[: place.start()] + odd + path[place.end() :])

    hub(tmp_path, test)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":1e999}', b'{"\\ud800":1}'])
def test_bodies_that_are_none(body: bytes, tmp_path: Path) -> None:
    """To whatever takes one, said to be JSON or a form or nothing."""

    async def test(at: Hub) -> None:
        job = (await at.run()).json
        for path in PATHS:
            for kind in ("application/json", FORM, ""):
                await check(at, "POST", path.replace("J", job["id"]), body=body, headers={**ALICE, "content-type": kind})

    hub(tmp_path, test)


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8))
def test_fields_of_any_type(said: dict[str, Any]) -> None:
    """In all that takes an object."""

    async def test(at: Hub) -> None:
        job = (await at.run()).json
        module = (await at("GET", f"taskinstances/{job['id']}")).json["module_id"]
        family = (await at("GET", "datasets/alice/d")).json["id"]
        content = json.dumps(said).encode("utf-8", "surrogatepass")
        places = ("user/login", "modules/", "experiments/run_module/", f"experiments/restart/{job['id']}", f"datasets/{family}")
        for path in places:
            await check(at, "POST", path, body=content)
        await check(at, "POST", "experiments/run_module/", body=json.dumps({**said, "module_id": module}).encode("utf-8", "surrogatepass"))
        assert (
            await at.upload({"app.py": b""}, **{key: value for key, value in said.items() if key not in ("project", "headers")})
        ).status < 500

    with tempfile.TemporaryDirectory() as folder:
        hub(Path(folder), test)
