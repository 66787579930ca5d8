"""Find a runtime, dialect or engine by name: the built-in table first, then entry points of installed packages. Nothing is imported before."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from dragoman.core.errors import Kind, ServingError

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "runtimes": {
        "onnx": "dragoman.runtimes.onnx:load",
        "sklearn": "dragoman.runtimes.estimators:load_sklearn",
        "xgboost": "dragoman.runtimes.boosters:load_xgboost",
        "lightgbm": "dragoman.runtimes.boosters:load_lightgbm",
        "torch": "dragoman.runtimes.torch:load",
        "python": "dragoman.runtimes.python:load",
        "mlflow": "dragoman.runtimes.mlflow:load",
        "savedmodel": "dragoman.runtimes.savedmodel:load",
        "litert": "dragoman.runtimes.litert:load",
    },
    "dialects": {
        "v2": "dragoman.dialects.v2.rest:V2",
        "tfserving": "dragoman.dialects.tfserving.rest:TFServing",
        "tungsten": "dragoman.dialects.tungsten.rest:Tungsten",
        "mlflow_registry": "dragoman.dialects.mlflow.registry:MLflowRegistry",
        "scoring": "dragoman.dialects.mlflow.scoring:MLflowScoring",
        "submarine": "dragoman.dialects.submarine.rest:Submarine",
        "seldon": "dragoman.dialects.seldon.rest:Seldon",
        "gradient": "dragoman.dialects.gradient.rest:Gradient",
        "floydhub": "dragoman.dialects.floydhub.rest:FloydHub",
        "floydhub_endpoint": "dragoman.dialects.floydhub.endpoint:Endpoint",
        "console": "dragoman.console.routes:Console",
    },
    "services": {
        "v2": "dragoman.dialects.v2.grpc:InferenceService",
        "tfserving_prediction": "dragoman.dialects.tfserving.grpc:PredictionService",
        "tfserving_model": "dragoman.dialects.tfserving.grpc_model:ModelService",
    },
    "record_sinks": {
        "kafka": "dragoman.streams.recorded:KafkaRecords",
        "parquet": "dragoman.serving.records.parquet:ParquetFiles",
    },
    "messages": {"mlrun": "dragoman.dialects.v2.mlrun_message:outcome", "root": "dragoman.dialects.v2.mlrun:Root"},
    "connectors": {
        "kafka": "dragoman.streams.kafka:KafkaConnector",
        "mqtt": "dragoman.streams.mqtt:Mqtt",
        "kinesis": "dragoman.streams.kinesis:Kinesis",
    },
    "engines": {"local": "dragoman.engines:LocalEngine", "process": "dragoman.engines.process:ProcessEngine"},
}
"""Group -> name -> "module:attribute". An installed package adds to a group with the entry point group "dragoman.<group>"."""


def names(group: str) -> list[str]:
    """Every name of a group, built-in ones first."""
    found = dict.fromkeys(BUILT_IN[group])
    found.update(dict.fromkeys(point.name for point in entry_points(group=f"dragoman.{group}")))
    return list(found)


def find(group: str, name: str) -> Any:
    """Import and return what `name` stands for. Raises UNSUPPORTED, naming what exists, when nothing does."""
    path = BUILT_IN[group].get(name)
    if path is not None:
        module, _, attribute = path.partition(":")
        return getattr(import_module(module), attribute)
    for point in entry_points(group=f"dragoman.{group}", name=name):
        return point.load()
    raise ServingError(Kind.UNSUPPORTED, f"no {group[:-1]} is called '{name}'; there are {', '.join(names(group))}")


def missing(extra: str, package: str, cause: ImportError) -> ServingError:
    """The error for a framework that is not installed: it names the extra that brings it."""
    return ServingError(
        Kind.UNSUPPORTED, f"this model needs {package}, which is not installed: pip install 'dragoman[{extra}]' ({cause.name or cause})"
    )
