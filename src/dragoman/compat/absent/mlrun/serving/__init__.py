"""Base classes of models and routers, as `from mlrun.serving import ...` finds them."""

from .routers import EnrichmentModelRouter, EnrichmentVotingEnsemble, ModelRouter, ParallelRun, VotingEnsemble
from .server import GraphContext, Response
from .v2_serving import V2ModelServer

__all__ = [
    "EnrichmentModelRouter",
    "EnrichmentVotingEnsemble",
    "GraphContext",
    "ModelRouter",
    "ParallelRun",
    "Response",
    "V2ModelServer",
    "VotingEnsemble",
]
