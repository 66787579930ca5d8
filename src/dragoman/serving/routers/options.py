"""What an operator, or a router class of a user, says of a router: its kind, and the arguments that upstream's classes take, checked.

Called by router.py and configured.py. Arguments are named as MLRun names them (sheet section 9); `tolerate` and `by_member` are our own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dragoman.core.errors import invalid
from dragoman.serving.routers.voting import VOTE_TYPES, normalised

VOTING = "VotingEnsemble"
PARALLEL = "ParallelRun"
ROUTER = "ModelRouter"
KINDS = (VOTING, PARALLEL, ROUTER)
PLATFORMS: Mapping[str, str] = {VOTING: "mlrun_voting_ensemble", PARALLEL: "mlrun_parallel_run", ROUTER: "mlrun_model_router"}
EXECUTORS = ("thread", "process", "array")

_COMMON = frozenset({"executor_type", "tolerate", "version"})
TAKES: Mapping[str, frozenset[str]] = {
    VOTING: frozenset({"vote_type", "weights", "format_response_with_col_name_flag", "prediction_col_name", *_COMMON}),
    PARALLEL: frozenset({"extend_event", "by_member", *_COMMON}),
    ROUTER: frozenset({"version"}),
}
"""The arguments of each kind."""


@dataclass(frozen=True, slots=True)
class Options:
    weights: Mapping[str, float]
    """By member; their sum is 1."""
    vote_type: str = ""
    """"" leaves it to the first answer."""
    serial: bool = False
    """One member after the other (executor_type "array"); the other types run them side by side, wherever their engines have them."""
    by_name: bool = False
    """Whether an answer is {"prediction": [...]} and not the list alone."""
    column: str = "prediction"
    extend_event: bool = False
    by_member: bool = False
    tolerate: bool = False
    version: str = field(default="")
    """What answers say as model_version; "" for nothing."""


def options(kind: str, arguments: Mapping[str, Any], members: Sequence[str], router: str, *, strict: bool = True) -> Options:
    """The checked arguments of a router. Raises INVALID_INPUT, naming router and argument; with `strict` also for one that does not exist."""
    unknown = sorted(set(arguments) - TAKES[kind]) if strict else []
    if unknown:
        raise invalid(f"router '{router}' has no argument '{unknown[0]}'; a {kind} takes {', '.join(sorted(TAKES[kind]))}")

    def given(name: str, usual: Any, kinds: type | tuple[type, ...], expected: str) -> Any:
        value = arguments.get(name)
        if value is None:
            return usual
        if not isinstance(value, kinds):
            raise invalid(f"the argument '{name}' of router '{router}' is {value!r}, expected {expected}")
        return value

    def one_of(name: str, choices: Sequence[str]) -> str:
        value: str = given(name, "", str, f"one of {', '.join(choices)}")
        if value and value not in choices:
            raise invalid(f"the argument '{name}' of router '{router}' is {value!r}, expected one of {', '.join(choices)}")
        return value

    return Options(
        weights=normalised(arguments.get("weights"), members, router),
        vote_type=one_of("vote_type", VOTE_TYPES),
        serial=one_of("executor_type", EXECUTORS) == "array",
        by_name=given("format_response_with_col_name_flag", False, bool, "true or false"),
        column=given("prediction_col_name", "", str, "a text") or "prediction",
        extend_event=given("extend_event", False, bool, "true or false"),
        by_member=given("by_member", False, bool, "true or false"),
        tolerate=given("tolerate", False, bool, "true or false"),
        version=given("version", "v1" if kind == VOTING else "", str, "a text"),
    )
