"""dynamic_batching and max_batch_size of a model configuration as a BatchPolicy. Called by translate.py."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from dragoman.core.errors import invalid
from dragoman.core.model import BatchPolicy

_MOST_LEVELS = 1024
_LONGEST_DELAY_US = 3_600_000_000
_FOR_EVER_US = 10**15
"""Time-outs above this (thirty years) are none: timers cannot hold them, and nobody means them."""
_DELAY = 1


def batch_policy(message: Any, source: str) -> BatchPolicy | None:
    """The policy that the configuration asks for; None when it leaves that to what the artifact's shapes allow.

    Triton leaves it so when max_batch_size is 0 and inputs or outputs are not listed. Without dynamic_batching, max_batch_size only bounds
    requests; the policy then still lets them be joined, without any delay, and ModelSettings.joins says that nobody asked for it.
    """
    largest = message.max_batch_size
    if not largest:
        if message.HasField("ensemble_scheduling"):
            return BatchPolicy(max_size=1)
        return BatchPolicy(max_size=1) if message.input and message.output else None
    if not message.HasField("dynamic_batching"):
        return BatchPolicy(max_size=largest, refuse_larger=True)
    return _joined(message.dynamic_batching, largest, source)


def _joined(batching: Any, largest: int, source: str) -> BatchPolicy:
    preferred = tuple(sorted(set(batching.preferred_batch_size)))
    if preferred and not 1 <= preferred[0] <= preferred[-1] <= largest:
        raise invalid(
            f"{source}: dynamic_batching.preferred_batch_size: expected sizes from 1 to max_batch_size ({largest}), not {list(preferred)[:20]}"
        )
    if batching.max_queue_delay_microseconds > _LONGEST_DELAY_US:
        raise invalid(
            f"{source}: dynamic_batching.max_queue_delay_microseconds is {batching.max_queue_delay_microseconds}, which is more than an hour"
        )
    levels, default_level = batching.priority_levels, batching.default_priority_level
    if levels > _MOST_LEVELS:
        raise invalid(f"{source}: dynamic_batching.priority_levels is {levels}, at most {_MOST_LEVELS} are possible")
    if levels and not 1 <= default_level <= levels:
        raise invalid(f"{source}: dynamic_batching.default_priority_level is {default_level}, expected 1 to priority_levels ({levels})")
    for level in batching.priority_queue_policy:
        if levels and not 1 <= level <= levels:
            raise invalid(
                f"{source}: dynamic_batching.priority_queue_policy has the level {level}, expected 1 to priority_levels ({levels})"
            )
    default = batching.default_queue_policy
    own = batching.priority_queue_policy if levels else {}
    plain = BatchPolicy()
    return BatchPolicy(
        max_size=largest,
        refuse_larger=True,
        max_delay_s=batching.max_queue_delay_microseconds / 1e6,
        preferred=preferred,
        # Triton's bound is per level, and 0 is none; a queue here always has one.
        max_queue=plain.max_queue if levels else default.max_queue_size or plain.max_queue,
        levels=levels,
        default_level=default_level if levels else 0,
        queue_timeout_s=_seconds(default),
        timeout_delays=default.timeout_action == _DELAY,
        # What requests may do is only said where there is a policy; its default is no.
        timeout_override=default.allow_timeout_override if batching.HasField("default_queue_policy") else plain.timeout_override,
        level_max_queue=_level_bounds(own, default, levels),
        level_timeout_s={level: _seconds(policy) for level, policy in sorted(own.items())},
    )


def _level_bounds(own: Mapping[int, Any], default: Any, levels: int) -> dict[int, int]:
    bounds = {level: own.get(level, default).max_queue_size for level in range(1, levels + 1)}
    return {level: bound for level, bound in bounds.items() if bound}


def _seconds(policy: Any) -> float:
    microseconds = policy.default_timeout_microseconds
    return microseconds / 1e6 if 0 < microseconds < _FOR_EVER_US else math.inf


def batching_warnings(message: Any, source: str) -> Iterator[str]:
    """What dynamic_batching says in vain, by its values: the fields as such do have an effect."""
    if not message.HasField("dynamic_batching"):
        return
    batching = message.dynamic_batching
    if not message.max_batch_size:
        yield f"{source}: dynamic_batching has no effect here: max_batch_size is 0"
        return
    if not batching.priority_levels:
        for field in ("default_priority_level", "priority_queue_policy"):
            if getattr(batching, field):
                yield f"{source}: dynamic_batching.{field} has no effect here: priority_levels is 0"
        return
    default = batching.default_queue_policy
    for level, policy in sorted(batching.priority_queue_policy.items()):
        for field in ("timeout_action", "allow_timeout_override"):
            if getattr(policy, field) != getattr(default, field):
                yield (
                    f"{source}: dynamic_batching.priority_queue_policy[{level}].{field} has no effect here: "
                    "that of default_queue_policy is taken for every level"
                )
