"""The benchmarks' requests: what is sent is what the protocol says, and a wrong answer is noticed."""

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest

from benchmarks import traffic
from benchmarks.models import Models, predictor
from benchmarks.processes import BenchmarkError
from benchmarks.traffic import Predict, Shot
from dragoman import TestClient


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path)


@pytest.mark.parametrize("build", [traffic.iris_v2, traffic.image_v2_binary, traffic.image_v2_json, traffic.image_tfserving])
def test_dragoman_answers_what_the_model_computes(models: Models, build: Callable[[Predict], list[Shot]]) -> None:
    """Every request that is used as a load is answered right."""
    path = models.iris if build is traffic.iris_v2 else models.image_mean
    with TestClient(str(path)) as client:
        for shot in build(predictor(path)):
            answer = client.post(shot.path, body=shot.body, headers=shot.headers)
            assert answer.status == 200, answer.body
            shot.check(answer.headers, answer.body)


def test_wrong_numbers_are_noticed(models: Models) -> None:
    """Other numbers, too few and too many."""
    (shot, *_) = traffic.iris_rows(models.predict_iris)
    label, *probabilities = shot.expected
    shot.check({}, orjson.dumps({"label": label, "probabilities": probabilities}))
    for wrong in ([0.5, 0.25, 0.25], probabilities[:2], [*probabilities, 0.0]):
        with pytest.raises(BenchmarkError, match="expected"):
            shot.check({}, orjson.dumps({"label": label, "probabilities": wrong}))


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"[]", b"7", b'{"error": "no"}', b'{"outputs": [{"name": "label"}]}', b'{"outputs": [{"data": ["x"]}]}']
)
def test_what_is_no_answer_is_an_error_that_shows_it(models: Models, body: bytes) -> None:
    """A status of 200 alone means nothing."""
    (shot, *_) = traffic.iris_v2(models.predict_iris)
    with pytest.raises(BenchmarkError, match="/v2/models/iris/infer answered"):
        shot.check({}, body)


def test_an_echo_must_be_as_long_as_the_request(models: Models) -> None:
    """The same path, headers and body; only the length of the answer counts."""
    (shot, *_) = traffic.iris_v2(models.predict_iris)
    (echo, *_) = traffic.echoed([shot])
    assert (echo.path, echo.body) == (shot.path, shot.body)
    echo.check({}, b"x" * len(shot.body))
    with pytest.raises(BenchmarkError):
        echo.check({}, b"")


def test_the_image_is_the_same_in_every_form(models: Models) -> None:
    """Binary, base64, one list and nested lists hold the same numbers."""
    pixels = traffic.image()
    (raw,), (text,) = traffic.image_raw(models.predict_image), traffic.image_base64(models.predict_image)
    (binary,), (flat,) = traffic.image_v2_binary(models.predict_image), traffic.image_v2_json(models.predict_image)
    (nested,) = traffic.image_tfserving(models.predict_image)
    assert raw.body == pixels.tobytes() == base64.b64decode(orjson.loads(text.body)["image"])
    head = int(binary.headers["Inference-Header-Content-Length"])
    assert binary.body[head:] == raw.body
    assert np.array_equal(np.array(orjson.loads(flat.body)["inputs"][0]["data"], "f4"), pixels.ravel())
    assert np.array_equal(np.array(orjson.loads(nested.body)["instances"], "f4"), pixels)
