"""TensorFlow Serving's gRPC services over toy models, for their tests."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dragoman.core import tensors as t
from dragoman.core.lifecycle import State
from dragoman.core.tensors import Tensor, Tensors, TensorSpec
from dragoman.dialects.tfserving.grpc import PredictionService
from dragoman.dialects.tfserving.grpc_model import ModelService
from dragoman.serving.meters import Meters
from tests.fakes_rpc import Rpc
from tests.fakes_tfs import Client, Toy, beacon, half_plus, signature
from tests.services import services
from tests.tensor_protos import proto

PREDICTION = {
    "Predict": ("PredictRequest", "PredictResponse"),
    "Classify": ("ClassificationRequest", "ClassificationResponse"),
    "Regress": ("RegressionRequest", "RegressionResponse"),
    "MultiInference": ("MultiInferenceRequest", "MultiInferenceResponse"),
    "GetModelMetadata": ("GetModelMetadataRequest", "GetModelMetadataResponse"),
}
MODEL = {"GetModelStatus": ("GetModelStatusRequest", "GetModelStatusResponse")}
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def of_examples() -> Toy:
    """Stands for a SavedModel that parses Examples: scores by how long each is, and the lengths themselves."""

    def run(inputs: Tensors, name: str) -> list[Tensor]:
        (given,) = inputs.items
        lengths = np.array([[len(each)] for each in given.array], "f4")
        if name == "":
            return [Tensor("scores", t.FP32, lengths / 2)]
        return [Tensor("outputs", t.FP32, lengths)]

    given = TensorSpec("inputs", t.BYTES, (-1,))
    classify = signature([given], [TensorSpec("scores", t.FP32, (-1, -1))], CLASSIFY)
    regress = signature([given], [TensorSpec("outputs", t.FP32, (-1, 1))], REGRESS)
    return Toy({"": classify, "longer": regress}, run)


class Fake:
    """Both services over toy models, and what stands behind them."""

    def __init__(self, models: Mapping[str, Any], *, labels: Mapping[str, Mapping[str, str]] | None = None, **fields: Any) -> None:
        self.behind = Client(models, labels=labels)
        given = services(self.behind.gateway, Meters(), **fields)
        self.predictions = Rpc(PredictionService(given), "tensorflow.serving", PREDICTION)
        self.models = Rpc(ModelService(given), "tensorflow.serving", MODEL)

    def predict(self, name: str, inputs: Mapping[str, Any], output_filter: list[str] | None = None, **spec: Any) -> Any:
        return self.predictions.send("Predict", model_spec={"name": name, **spec}, inputs=inputs, output_filter=output_filter or [])


def floats(*values: float, shape: tuple[int, ...] | None = None) -> Any:
    return proto(t.FP32, (len(values),) if shape is None else shape, float_val=list(values))


def spec_of(answer: Any) -> tuple[str, int, str]:
    return answer.model_spec.name, answer.model_spec.version.value, answer.model_spec.signature_name


def several() -> Fake:
    """Two versions and a label of half, one that failed and one that is gone, and models of other kinds."""
    models = {"half": half_plus(2), "half/7": half_plus(3), "beacon": beacon(), "examples/3": of_examples(), "odd/v2": half_plus(2)}
    served = Fake(models, labels={"half": {"stable": "1"}})
    served.behind.tell("half", "9", State.FAILED, "its file is broken")
    served.behind.tell("gone", "4", State.GONE)
    return served
