"""Base classes of routers: names to subclass, and hooks to override. The routing itself is the server's.

Hooks of every router: `parse_event`, `preprocess` and `postprocess`, each taking an event. A ParallelRun merges in `merger`, a VotingEnsemble
decides in `logic`.
"""

import json
from typing import Any


class BaseModelRouter:
    def __init__(
        self,
        context: Any = None,
        name: str | None = None,
        routes: Any = None,
        protocol: str | None = None,
        url_prefix: str | None = None,
        health_prefix: str | None = None,
        input_path: str | None = None,
        result_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.name = name
        self.context = context
        self.routes = routes if routes is not None else {}
        self.protocol = protocol or "v2"
        self.url_prefix = url_prefix or f"/{self.protocol}/models"
        self.health_prefix = health_prefix or f"/{self.protocol}/health"
        self.inputs_key = "instances" if self.protocol == "v1" else "inputs"
        self._input_path = input_path
        self._result_path = result_path
        self.kwargs = kwargs

    def get_param(self, key: str, default: Any = None) -> Any:
        if key in self.kwargs:
            return self.kwargs[key]
        return self.context.get_param(key, default) if self.context is not None else default

    def parse_event(self, event: Any) -> Any:
        """The body as an object."""
        return event.body if isinstance(event.body, dict) else json.loads(event.body)

    def preprocess(self, event: Any) -> Any:
        return event

    def postprocess(self, event: Any) -> Any:
        return event

    def post_init(self, mode: str = "sync", **_more: Any) -> None:
        """Called when all members are known."""


class ModelRouter(BaseModelRouter):
    """Passes each request to the model that it names."""


class ParallelRun(BaseModelRouter):
    """Gives each request to all members, and merges what they answer."""

    def __init__(
        self,
        context: Any = None,
        name: str | None = None,
        routes: Any = None,
        protocol: str | None = None,
        url_prefix: str | None = None,
        health_prefix: str | None = None,
        extend_event: Any = None,
        executor_type: str = "thread",
        **kwargs: Any,
    ) -> None:
        super().__init__(context, name or "ParallelRun", routes, protocol, url_prefix, health_prefix, **kwargs)
        self.extend_event = extend_event
        self.executor_type = executor_type

    def merger(self, body: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
        """The answer made of the answers of all members, by member: their keys, over those of `body`."""
        for result in results.values():
            body.update(result)
        return body


class VotingEnsemble(ParallelRun):
    """Gives each request to all members, and answers what they decide together."""

    def __init__(
        self,
        context: Any = None,
        name: str | None = None,
        routes: Any = None,
        protocol: str | None = None,
        url_prefix: str | None = None,
        health_prefix: str | None = None,
        vote_type: str | None = None,
        weights: dict[str, float] | None = None,
        executor_type: str = "thread",
        format_response_with_col_name_flag: bool = False,  # the original's order
        prediction_col_name: str = "prediction",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            context, name or "VotingEnsemble", routes, protocol, url_prefix, health_prefix, executor_type=executor_type, **kwargs
        )
        self.vote_type = vote_type
        self.weights = weights
        self.format_response_with_col_name_flag = format_response_with_col_name_flag
        self.prediction_col_name = prediction_col_name

    def logic(self, predictions: Any, weights: Any) -> list[Any]:
        """What the members decide: one value per data point, of `predictions` by data point and member."""
        points = [list(point) for point in predictions]
        if self.vote_type is None:
            self.vote_type = "classification" if all(float(each).is_integer() for point in points for each in point) else "regression"
        if self.vote_type != "classification":
            return [sum(each * weight for each, weight in zip(point, weights, strict=True)) for point in points]
        votes = []
        for point in points:
            tally: dict[int, float] = {}
            for each, weight in zip(point, weights, strict=True):
                tally[int(each)] = tally.get(int(each), 0.0) + float(weight)
            votes.append(max(sorted(tally), key=tally.__getitem__))
        return votes


class EnrichmentModelRouter(ModelRouter):
    """Needs MLRun's feature store, so that it cannot be served without MLRun."""

    def __init__(self, *_given: Any, **_named: Any) -> None:
        raise RuntimeError(f"{type(self).__name__} reads features from MLRun's feature store, which this server does not have")


class EnrichmentVotingEnsemble(VotingEnsemble):
    """Like EnrichmentModelRouter."""

    __init__ = EnrichmentModelRouter.__init__
