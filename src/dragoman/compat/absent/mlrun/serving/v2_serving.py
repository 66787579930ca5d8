"""V2ModelServer: the class that model files subclass. Its hooks do nothing by themselves; whoever serves the model calls them in order."""

from typing import Any

from ..artifacts import get_model


class V2ModelServer:
    """Subclasses write `load` and `predict`, and whatever other hook they like.

    `model` is a ready object: then `load` is not called. Class arguments that have no name here are found by `get_param`.
    """

    def __init__(
        self,
        context: Any = None,
        name: str | None = None,
        model_path: str | None = None,
        model: Any = None,
        protocol: str | None = None,
        input_path: str | None = None,
        result_path: str | None = None,
        shard_by_endpoint: bool | None = None,  # the original's order
        **kwargs: Any,
    ) -> None:
        self.name, _, self.version = (name or "").partition(":")
        self.context = context
        self.model_path = model_path
        self.protocol = protocol or "v2"
        self.model: Any = model
        self.ready = model is not None
        self.error: Any = ""
        self.model_spec: Any = None
        self.metrics: dict[str, Any] = {}
        self.labels: dict[str, Any] = {}
        self.shard_by_endpoint = shard_by_endpoint
        self._input_path = input_path
        self._result_path = result_path
        self._params: dict[str, Any] = kwargs
        self._kwargs = kwargs

    # --- for use by subclasses ---

    def get_param(self, key: str, default: Any = None) -> Any:
        """A class argument, else a parameter of the model that `get_model` has read, else one of the server."""
        if key in self._params:
            return self._params[key]
        return self.context.get_param(key, default) if self.context is not None else default

    def set_metric(self, name: str, value: Any) -> None:
        """Say a number about this request, for its tracking record."""
        self.metrics[name] = value

    def get_model(self, suffix: str = "") -> tuple[str | None, dict[str, Any]]:
        """The model's file on this machine, and its extra data by name; `model_spec` is set where there is one.

        Without a model_path there is neither.
        """
        if not self.model_path:
            return None, {}
        file, self.model_spec, extra = get_model(self.model_path, suffix)
        if self.model_spec is not None:
            self._params.update(self.model_spec.parameters or {})
        return file, extra

    # --- to be overridden ---

    def load(self) -> None:
        """Make the model ready; called once, before the first request."""
        if not self.ready and self.model is None:
            raise ValueError("the class has no load method and was given no model object")

    def preprocess(self, request: dict[str, Any], operation: str) -> dict[str, Any]:
        return request

    def validate(self, request: dict[str, Any], operation: str) -> dict[str, Any]:
        if self.protocol == "v2":
            if "inputs" not in request:
                raise ValueError('the request has no "inputs"')
            if not isinstance(request["inputs"], list):
                raise ValueError('"inputs" must be a list')
        return request

    def predict(self, request: dict[str, Any]) -> Any:
        raise NotImplementedError("the class has no predict")

    def explain(self, request: dict[str, Any]) -> Any:
        raise NotImplementedError("the class has no explain")

    def postprocess(self, request: dict[str, Any]) -> Any:
        """Change the finished answer."""
        return request

    def logged_results(self, request: dict[str, Any], response: dict[str, Any], op: str) -> tuple[Any, Any]:
        """Other inputs and outputs for the tracking record; (None, None) leaves those of the request and its answer."""
        return None, None

    def post_init(self, mode: str = "sync", **_more: Any) -> None:
        """Load the model if it is not ready. `mode` has no meaning: whoever serves the model decides when that is."""
        if not self.ready:
            self.load()
            self.ready = True
