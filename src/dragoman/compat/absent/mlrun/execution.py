"""The context of a run, for model code that calls `mlrun.get_or_create_ctx`: parameters, secrets and a logger; results stay in memory."""

import os
from typing import Any

from .utils import Logger, logger

_SECRETS = "MLRUN_K8S_SECRET__"
"""How MLRun spells secrets among environment variables."""


def secret_of(key: str, default: str | None = None) -> str | None:
    """A secret from the environment of the process, by its own name or by MLRun's."""
    return os.environ.get(f"{_SECRETS}{key}", os.environ.get(key, default))


def get_secret_or_env(key: str, secret_provider: Any = None, default: str | None = None, prefix: str | None = None) -> Any:
    """A secret from a dict or a function that the caller has, else from the environment."""
    name = f"{prefix}_{key}" if prefix else key
    given = secret_provider(name) if callable(secret_provider) else (secret_provider or {}).get(name)
    return given if given is not None else secret_of(name, default)


class MLClientCtx:
    """One run, known to this process only."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.project = os.environ.get("MLRUN_DEFAULT_PROJECT", "default")
        self.parameters: dict[str, Any] = {}
        self.results: dict[str, Any] = {}
        self.labels: dict[str, Any] = {}
        self.logger: Logger = logger

    def get_param(self, key: str, default: Any = None) -> Any:
        return self.parameters.get(key, default)

    def get_secret(self, key: str) -> str | None:
        return secret_of(key)

    def set_label(self, key: str, value: Any, replace: bool = True) -> None:  # as the original calls it
        if replace or key not in self.labels:
            self.labels[key] = value

    def log_result(self, key: str, value: Any, *_more: Any, **_named: Any) -> None:
        self.results[key] = value

    def log_results(self, results: dict[str, Any], *_more: Any, **_named: Any) -> None:
        self.results.update(results)

    def commit(self, *_more: Any, **_named: Any) -> None:
        """Nothing is written anywhere."""


def get_or_create_ctx(name: str = "", *_more: Any, **_named: Any) -> MLClientCtx:
    return MLClientCtx(name)
