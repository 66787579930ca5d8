"""JSON as deep as the parser lets through, in every place of every request: refused in words, never a failure of the server."""

import json
from collections.abc import Iterator

import pytest

from dragoman import TestClient
from tests.models import build

PLACES = {
    "/v2/models/iris/infer": (
        "%s",
        '{"inputs":%s}',
        '{"inputs":[%s]}',
        '{"id":%s,"inputs":[]}',
        '{"inputs":[{"name":%s,"shape":[1],"datatype":"FP32","data":[1]}]}',
        '{"inputs":[{"name":"X","shape":%s,"datatype":"FP32","data":[1]}]}',
        '{"inputs":[{"name":"X","shape":[%s],"datatype":"FP32","data":[1]}]}',
        '{"inputs":[{"name":"X","shape":[1],"datatype":%s,"data":[1]}]}',
        '{"inputs":[{"name":"X","shape":[1,1],"datatype":"FP32","data":%s}]}',
        '{"inputs":[{"name":"X","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":%s}}]}',
        '{"inputs":[],"parameters":{"timeout":%s}}',
        '{"inputs":[],"outputs":[{"name":"label","parameters":{"classification":%s}}]}',
    ),
    "/v2/models/iris/generate": ("%s", '{"X":%s}', '{"other":%s}', '{"parameters":{"X":%s}}'),
    "/v1/models/iris:predict": (
        "%s",
        '{"instances":%s}',
        '{"instances":[1,%s]}',
        '{"instances":[{"X":%s}]}',
        '{"instances":[{"Y":%s}]}',
        '{"instances":[{"b64":%s}]}',
        '{"inputs":{"X":%s}}',
        '{"instances":[1],"signature_name":%s}',
    ),
    "/invocations": (
        "%s",
        '{"instances":%s}',
        '{"instances":[{"X":%s}]}',
        '{"inputs":%s}',
        '{"inputs":{"X":%s}}',
        '{"dataframe_split":%s}',
        '{"dataframe_split":{"columns":%s,"data":[[1,2,3,4]]}}',
        '{"dataframe_split":{"columns":[%s],"data":[[1]]}}',
        '{"dataframe_split":{"data":%s}}',
        '{"dataframe_split":{"data":[%s]}}',
        '{"dataframe_split":{"data":[[1,2,3,%s]]}}',
        '{"dataframe_records":%s}',
        '{"dataframe_records":[{"X":%s}]}',
        '{"instances":[[1,2,3,4]],"params":%s}',
    ),
    "/api/v1.0/predictions": (
        "%s",
        '{"data":%s}',
        '{"data":{"ndarray":%s}}',
        '{"data":{"ndarray":[[1,2,3,%s]]}}',
        '{"data":{"names":%s,"ndarray":[[1,2,3,4]]}}',
        '{"data":{"names":[%s],"ndarray":[[1]]}}',
        '{"data":{"tensor":%s}}',
        '{"data":{"tensor":{"shape":%s,"values":[1,2,3,4]}}}',
        '{"data":{"tensor":{"shape":[1,4],"values":%s}}}',
        '{"data":{"tensor":{"shape":[1,1],"values":[%s]}}}',
        '{"strData":%s}',
        '{"binData":%s}',
        '{"jsonData":%s}',
        '{"jsonData":{"X":%s}}',
    ),
    "/v2/repository/index": ("%s", '{"ready":%s}'),
    "/v2/repository/models/iris/load": (
        "%s",
        '{"parameters":%s}',
        '{"parameters":{"config":%s}}',
        '{"parameters":{"config":"{}","file:x":%s}}',
    ),
    "/v2/repository/models/iris/unload": ('{"parameters":[%s]}', '{"parameters":{"unload_dependents":%s}}'),
    "/v2/logging": ("%s", '{"log_info":%s}', '{"log_format":%s}'),
    "/v2/trace/setting": ("%s", '{"trace_level":%s}', '{"trace_level":[%s]}', '{"trace_rate":%s}'),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("deep")
    with TestClient(str(build.iris(folder / "iris.onnx")), data_dir=str(folder / "data")) as made:
        yield made


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("depth", [33, 500, 985, 1_000, 1_010, 1_020, 1_024, 100_000])
def test_what_is_too_deep_is_refused(client: TestClient, path: str, depth: int) -> None:
    """Lists and objects, hundreds of levels inside one another: 400 with a short text, wherever they stand."""
    for place in PLACES[path]:
        for deep in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            answer = client.post(path, body=(place % deep).encode())
            if answer.status == 200:  # a key that nobody asks for may hold anything
                assert deep[0] == "{", place
                continue
            assert answer.status == 400, (place, answer.body[:300])
            told = json.loads(answer.body)
            assert 0 < len(told.get("error") or told.get("message") or told["status"]["info"]) < 2_500
    assert client.get("/v2/models/iris/ready").status == 200
