"""Which fields of a model configuration have an effect here. Everything else that is set is named in a warning, never dropped in silence.

Called by serving/triton/translate.py, which adds the warnings that depend on values.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from dragoman.serving.settings import quoted

if TYPE_CHECKING:
    from google.protobuf.message import Message

Tree: TypeAlias = Mapping[str, "Tree | None"]
"""Field name -> the fields below it that have an effect, or None for all of them."""

_TENSOR: Tree = {"name": None, "data_type": None, "dims": None, "reshape": None}

SINGLE: Tree = {
    "name": None,
    "platform": None,
    "backend": None,
    "version_policy": None,
    "max_batch_size": None,
    "input": {**_TENSOR, "optional": None},
    "output": {**_TENSOR, "label_filename": None},
    "dynamic_batching": {
        "preferred_batch_size": None,
        "max_queue_delay_microseconds": None,
        "priority_levels": None,
        "default_priority_level": None,
        "default_queue_policy": None,
        "priority_queue_policy": None,
    },
    "instance_group": {"name": None, "count": None, "kind": None, "gpus": None},
    "default_model_filename": None,
    "parameters": None,
    "model_warmup": None,
}
"""Of a model that has an artifact."""

ENSEMBLE: Tree = {
    "name": None,
    "platform": None,
    "version_policy": None,
    "max_batch_size": None,
    "input": {**_TENSOR, "optional": None},
    "output": {**_TENSOR, "label_filename": None},
    "ensemble_scheduling": {"step": {"model_name": None, "model_version": None, "input_map": None, "output_map": None}},
}
"""Of a model made of other models: its members have instances, batching and warm-up of their own."""

_WHOLE: Mapping[str, str] = {
    "sequence_batching": "requests of one sequence are not kept on one instance",
    "response_cache.enable": "every request runs the model",
    "model_transaction_policy.decoupled": "each request gets one response",
    "dynamic_batching.preserve_ordering": "responses are sent when they are ready",
}
"""Fields that are named as one, whatever is set below them, with what their absence means."""


def without_effect(message: "Message", tree: Tree, source: str) -> Iterator[str]:
    """One warning for each field that is set to something and has no effect, by its path, such as `optimization.graph.level`."""
    for path in _idle(message, tree, ""):
        why = f": {_WHOLE[path]}" if path in _WHOLE else ""
        yield f"{source}: {path} has no effect here{why}"


def _idle(message: "Message", tree: Tree, prefix: str) -> Iterator[str]:
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if field.name not in tree:
            yield from _leaves(value, path)
            continue
        below = tree[field.name]
        if below is not None:
            for name, item in _items(value, path):
                yield from _idle(item, below, f"{name}.")


def _leaves(value: Any, path: str) -> Iterator[str]:
    """The set fields below a value that has no effect; the value itself when it has none."""
    for name, item in _items(value, path):
        fields = item.ListFields() if _is_message(item) and path not in _WHOLE else ()
        if not fields:
            yield name
        for field, below in fields:
            yield from _leaves(below, f"{name}.{field.name}")


def _items(value: Any, path: str) -> list[tuple[str, Any]]:
    """The messages of a list or map, each by its own path; anything else as it is."""
    if isinstance(value, str | bytes | int | float) or _is_message(value):
        return [(path, value)]
    pairs = sorted(value.items()) if hasattr(value, "items") else list(enumerate(value))
    if pairs and _is_message(pairs[0][1]):
        return [(f"{path}[{quoted(key) if isinstance(key, str) else key}]", item) for key, item in pairs]
    return [(path, value)]


def _is_message(value: Any) -> bool:
    return hasattr(value, "ListFields")
