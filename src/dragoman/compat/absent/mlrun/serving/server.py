"""What model code gets as `self.context`, and what it may answer with: a Response with a status of its own."""

import os
from typing import Any

from ..execution import secret_of
from ..utils import Logger, logger


class Response:
    """An answer that is sent as it is: no envelope around it."""

    def __init__(self, headers: Any = None, body: Any = None, content_type: str | None = None, status_code: int = 200) -> None:
        self.headers = headers or {}
        self.body = body
        self.content_type = content_type or "text/plain"
        self.status_code = status_code


class GraphContext:
    """`parameters` are those of the function in MLRun's words: the options of the server here."""

    Response = Response

    def __init__(self, parameters: dict[str, Any] | None = None, **_more: Any) -> None:
        self.parameters = dict(parameters or {})
        self.logger: Logger = logger
        self.worker_id = 0
        self.project = os.environ.get("MLRUN_DEFAULT_PROJECT", "default")
        self.verbose = False
        self.is_mock = True
        self.root: Any = None
        self.stream: Any = None
        self.server: Any = None
        self.current_function: Any = None

    def get_param(self, key: str, default: Any = None) -> Any:
        return self.parameters.get(key, default)

    def get_secret(self, key: str) -> str | None:
        return secret_of(key)

    def push_error(self, event: Any, message: str, source: Any = None, **facts: Any) -> None:
        self.logger.error(f"{source}: {message}" if source else message, **facts)
