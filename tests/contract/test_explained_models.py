"""Explanations of real models of every runtime that holds tabular ones: they add up, whatever the form of inputs and outputs."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.bodies import requested
from dragoman.core.model import InferRequest, ModelSpec
from dragoman.core.tensors import Rows
from dragoman.engines import Engines
from dragoman.serving.explain.explained import explained
from tests.models import build, learned

POINTS = [[5.1, 3.5, 1.4, 0.2], [6.3, 2.9, 5.6, 1.8]]
BACKGROUND = "sl,sw,pl,pw\n" + "".join(f"{','.join(map(str, row))}\n" for row in learned.flowers()[0][::15].tolist())
PYTHON = """
class Model:
    def predict(self, sl: float, sw: float, pl: float, pw: float) -> float:
        return sl + 2 * sw * pl - pw
"""

FILES = {
    "model.onnx": ("onnx", "probabilities", 3),
    "classifier.skops": ("sklearn", "predict_proba", 3),
    "xgboost.ubj": ("xgboost", "", 3),
    "lightgbm.txt": ("lightgbm", "", 3),
    "model.py": ("python", "output", 0),
}
"""File -> its runtime, the output that is explained ("": however it is called) and how many numbers it has (0: one)."""


def write(folder: Path, file: str) -> Path:
    """The model, with a table of background data next to it."""
    path = folder / file
    (folder / "background.csv").write_text(BACKGROUND)
    match file:
        case "model.onnx":
            build.iris(path)
        case "classifier.skops":
            path.write_bytes(learned.skops_of(learned.classifier()))
        case "xgboost.ubj":
            path.write_bytes(learned.xgboost_model())
        case "lightgbm.txt":
            path.write_bytes(learned.lightgbm_model())
        case _:
            path.write_text(PYTHON)
    return path


@pytest.mark.parametrize("file", FILES)
def test_shares_add_up(file: str, tmp_path: Path) -> None:
    """The base and the shares of all features make the prediction, for each data point, and classes each for itself."""
    runtime, output, classes = FILES[file]
    path = write(tmp_path, file)

    async def scenario() -> list[Any]:
        engines = Engines()
        spec = ModelSpec("m", runtime=runtime, artifact=str(path), explainer={"method": "auto", "rows": 8})
        servable = await explained(spec, await engines.open(spec))
        try:
            signature = servable.signatures[""]
            answers: list[Any] = []
            for each in POINTS if runtime == "python" else [POINTS]:  # the gateway gives models of rows one at a time
                inputs = requested(each, signature, "m")
                response = await servable.infer(InferRequest(inputs, "explain"))
                assert isinstance(response.outputs, Rows)
                answers += response.outputs.items
            return answers
        finally:
            await servable.close()
            await engines.close()

    answers = asyncio.run(scenario())
    assert len(answers) == len(POINTS)
    for answer in answers:
        assert len(answer["features"]) == 4
        assert answer["output"] == output or not output
        values = np.array(answer["values"])
        assert values.shape == ((4, classes) if classes else (4,))
        np.testing.assert_allclose(values.sum(axis=0) + answer["base_values"], answer["prediction"], atol=1e-9)
        assert np.abs(values).max() > 0.01
    if runtime == "python":
        np.testing.assert_allclose([a["prediction"] for a in answers], [5.1 + 2 * 3.5 * 1.4 - 0.2, 6.3 + 2 * 2.9 * 5.6 - 1.8])
    elif output:
        assert [int(np.argmax(a["prediction"])) for a in answers] == [0, 2]
