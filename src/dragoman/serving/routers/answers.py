"""From the answers of members to the answer of their router: votes, merged objects, averaged explanations. Pure; called by router.py.

`results` are bodies of answers by member, in the order of the members. Where members failed and the router tolerates it, they are not among
`results`; router.py names them in the answer.
"""

from collections.abc import Iterable, Mapping

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Value
from dragoman.core.values import jsonable
from dragoman.serving.routers.options import Options
from dragoman.serving.routers.voting import averaged, normalised, numbers

_ENVELOPE = frozenset({"id", "model_name", "model_version", "timestamp", "outputs"})
"""What the answer of a model says of itself; a router's answer has its own."""


def outputs_of(body: Value) -> Value:
    return body["outputs"] if isinstance(body, dict) and "outputs" in body else body


def columns(results: Mapping[str, Value], column: str) -> tuple[dict[str, list[Value]], bool]:
    """The predictions of each member, one per data point, and whether the members answered a bare value each.

    Of an object, or of rows that are objects, those under `column`, or of the only key. Raises MODEL_FAILED for an object with other keys, and
    for answers of different lengths.
    """
    found: dict[str, Value] = {member: _predictions(jsonable(outputs_of(body)), column, member) for member, body in results.items()}
    bare = not any(isinstance(each, list) for each in found.values())
    made = {member: each if isinstance(each, list) else [each] for member, each in found.items()}
    if len({len(each) for each in made.values()}) > 1:
        counts = ", ".join(f"{len(each)} of '{member}'" for member, each in made.items())
        raise ServingError(Kind.MODEL_FAILED, f"the members answered different numbers of predictions: {counts}")
    return made, bare


def _predictions(outputs: Value, column: str, member: str) -> Value:
    if isinstance(outputs, dict):
        return _chosen(outputs, column, member)
    if isinstance(outputs, list):
        return [_chosen(each, column, member) if isinstance(each, dict) else each for each in outputs]
    return outputs


def _chosen(outputs: Mapping[str, Value], column: str, member: str) -> Value:
    if column in outputs:
        return outputs[column]
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    have = ", ".join(f"'{name}'" for name in outputs) or "nothing"
    raise ServingError(Kind.MODEL_FAILED, f"member '{member}' answered {have}, but no '{column}' (the argument prediction_col_name)")


def weights_of(predictions: Iterable[str], options: Options, router: str) -> dict[str, float]:
    """The weights of those that answered, their sum 1. Raises MODEL_FAILED when all of them have the weight 0."""
    weights = {member: options.weights[member] for member in predictions}
    if not any(weights.values()):
        raise ServingError(Kind.MODEL_FAILED, "only members with the weight 0 have answered")
    return normalised(weights, list(weights), router)


def explained(results: Mapping[str, Value], options: Options, router: str) -> Value:
    """The weighted mean of explanations that are numbers of one shape; any others by member."""
    outputs = {member: outputs_of(body) for member, body in results.items()}
    try:
        mean = averaged({m: numbers(each, m) for m, each in outputs.items()}, weights_of(outputs, options, router))
    except ServingError:
        return outputs
    return outputs if mean is None else mean.tolist()


def merged(results: Mapping[str, Value], options: Options, router: str) -> dict[str, Value]:
    """The fields of a ParallelRun's answer: `outputs`, and whatever members answer beside theirs.

    Outputs that are objects become one, any other stands under its member's name; with `by_member` all do. Raises MODEL_FAILED when two
    members give one key.
    """
    answer: dict[str, Value] = {}
    outputs: dict[str, Value] = {}
    givers: dict[tuple[bool, str], str] = {}

    def put(target: dict[str, Value], key: str, value: Value, member: str) -> None:
        other = givers.setdefault((target is outputs, key), member)
        if other != member:
            raise ServingError(
                Kind.MODEL_FAILED,
                f"members '{other}' and '{member}' of router '{router}' both answer '{key}': give the router the argument by_member",
            )
        target[key] = value

    for member, body in results.items():
        own = body if isinstance(body, dict) and (options.by_member is False or "outputs" in body) else {"outputs": body}
        mine = own.get("outputs")
        if "outputs" in own:
            for key, value in mine.items() if isinstance(mine, dict) and not options.by_member else [(member, mine)]:
                put(outputs, key, value, member)
        for key in own.keys() - _ENVELOPE:
            put(answer, key, own[key], member)
    return {**answer, "outputs": outputs} if outputs or not answer else answer
