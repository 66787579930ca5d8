"""`--explain` on a real server: MLRun's explain for an ONNX model, also in a burst with predictions, and what is answered without the setting."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.running import Running, serving
from tests.models import build
from tests.web import web

SCORE = """
import dragoman

@dragoman.batched
def predict(n: list[float], kind: list[str]) -> list[float]:
    return [10 * each + (4 if what == "b" else 0) for each, what in zip(n, kind)]
"""
POINT = [5.1, 3.5, 1.4, 0.2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two models of one file, one that is explained and one that is not; and one of Python code, in a process of its own."""
    folder = tmp_path_factory.mktemp("explained")
    model = build.iris(folder / "iris.onnx")
    table = folder / "usual.csv"
    table.write_text("sl,sw,pl,pw\n5,3.4,1.5,0.2\n6,2.8,4.3,1.3\n6.6,3,5.6,2\n")
    code = folder / "score.py"
    code.write_text(SCORE)
    (folder / "score.background.json").write_text('[{"n": 1, "kind": "a"}, {"n": 3, "kind": "b"}]')
    explained = ["--explain", f"iris=auto:background={table}", "--explain", "score=exact"]
    with serving(folder / "data", f"iris={model}", f"plain={model}", f"score={code}", *explained) as running:
        yield running


def explain(server: Running, model: str, body: Any) -> httpx.Response:
    return web.post(f"{server.url}/v2/models/{model}/explain", json=body, timeout=60)


def test_explanations(server: Running) -> None:
    """One per data point, under the id of the request, with the names of the table; they add up to what predict says."""
    answer = explain(server, "iris", {"id": "7", "inputs": [POINT, [6.3, 2.9, 5.6, 1.8]]})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert (document["id"], document["model_name"]) == ("7", "iris")
    first, second = document["outputs"]
    assert first["features"] == ["sl", "sw", "pl", "pw"]
    assert first["output"] == "probabilities"
    np.testing.assert_allclose(np.sum(first["values"], axis=0) + first["base_values"], first["prediction"], atol=1e-6)
    predicted = web.post(f"{server.url}/v2/models/iris/infer", json={"inputs": [POINT]}, timeout=60).json()["outputs"][0]
    np.testing.assert_allclose(first["prediction"], predicted["probabilities"], atol=1e-6)
    assert int(np.argmax(second["prediction"])) == 2


def test_a_model_of_rows(server: Running) -> None:
    """Numbers and texts by name or in their order, many at once; one that does not fit fails the call."""
    points = [{"n": 2 + index, "kind": "b"} for index in range(100)]
    answer = explain(server, "score", {"inputs": points})
    assert answer.status_code == 200, answer.text
    outputs = answer.json()["outputs"]
    assert [each["values"] for each in outputs] == [[10.0 * index, 2.0] for index in range(100)]
    assert {each["base_values"] for each in outputs} == {22.0}
    assert explain(server, "score", {"inputs": [2, "a"]}).json()["outputs"][0]["prediction"] == 20.0
    assert explain(server, "score", {"inputs": [{"n": 1, "kind": "a"}, {"n": "x", "kind": "a"}]}).status_code == 400


def test_one_flat_data_point(server: Running) -> None:
    """As infer takes it."""
    assert len(explain(server, "iris", {"inputs": POINT}).json()["outputs"]) == 1


@pytest.mark.parametrize("body", [{"inputs": [[1, 2]]}, {"inputs": [["a", 1, 2, 3]]}, {"inputs": []}, {"inputs": 7}, {}, []])
def test_bad_inputs(server: Running, body: Any) -> None:
    """A client error, and the server lives on."""
    answer = explain(server, "iris", body)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]
    assert explain(server, "iris", {"inputs": POINT}).status_code == 200


def test_a_model_without(server: Running) -> None:
    """501, naming the extra and the setting."""
    answer = explain(server, "plain", {"inputs": [POINT]})
    assert answer.status_code == 501
    assert "start with --explain plain=METHOD" in answer.json()["error"]
    assert "pip install 'dragoman[explain]'" in answer.json()["error"]


def test_predictions_go_on(server: Running) -> None:
    """While explanations are under way every prediction is answered, and neither mixes up the other's answers."""
    points = np.random.default_rng(0).uniform(1, 7, (30, 4)).round(3).tolist()

    def both(index: int) -> tuple[int, int, Any, Any]:
        explained = explain(server, "iris", {"id": index, "inputs": [points[index]]})
        answer = web.post(f"{server.url}/v2/models/iris/infer", json={"id": index, "inputs": [points[index]]}, timeout=60)
        assert (explained.json()["id"], answer.json()["id"]) == (index, index)
        return (
            explained.status_code,
            answer.status_code,
            explained.json()["outputs"][0]["prediction"],
            answer.json()["outputs"][0]["probabilities"],
        )

    with ThreadPoolExecutor(8) as pool:
        for first, second, prediction, probabilities in pool.map(both, range(len(points))):
            assert (first, second) == (200, 200)
            np.testing.assert_allclose(prediction, probabilities, atol=1e-5)
