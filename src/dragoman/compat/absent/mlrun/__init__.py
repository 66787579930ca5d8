"""What serving code of MLRun imports, for model files that run without MLRun: classes, errors, a logger, model folders, data items.

An installed `mlrun` is found first and used instead. What belongs to MLRun's platform (projects, functions, pipelines, its database) is not
here: asking for it says that the original package is needed.
"""

from typing import Any

from . import artifacts, datastore, errors, serving, utils
from .artifacts import get_model
from .datastore import DataItem, get_dataitem, get_object
from .errors import MLRunInvalidArgumentError
from .execution import MLClientCtx, get_or_create_ctx, get_secret_or_env
from .utils import logger

__all__ = [
    "DataItem",
    "MLClientCtx",
    "MLRunInvalidArgumentError",
    "artifacts",
    "datastore",
    "errors",
    "get_dataitem",
    "get_model",
    "get_object",
    "get_or_create_ctx",
    "get_secret_or_env",
    "logger",
    "serving",
    "utils",
]


def __getattr__(name: str) -> Any:
    raise AttributeError(f"mlrun.{name} is not among what this server offers to models: install mlrun beside the server to use it")
