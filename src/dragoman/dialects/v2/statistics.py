"""The statistics extension: what the counters say, in its JSON form. Called by the dialect's admin endpoints.

Counts of different dialects are one here: the extension knows models and versions only.
"""

from collections.abc import Iterable
from typing import Any

from dragoman.serving.totals import Total


def model_statistics(totals: Iterable[Total]) -> dict[str, Any]:
    """The whole answer, one row per total; they are per version (dialect "")."""
    return {"model_stats": [_row(total) for total in totals]}


def _row(total: Total) -> dict[str, Any]:
    answered = total.success
    return {
        "name": total.model,
        "version": total.version,
        "last_inference": total.last_ms,
        "inference_count": total.inferences,
        "execution_count": total.executions,
        "inference_stats": {
            "success": _duration(answered, total.success_ns),
            "fail": _duration(sum(total.failures.values()), total.failed_ns),
            "queue": _duration(answered, total.queue_ns),
            "compute_input": _duration(answered, total.input_ns),
            "compute_infer": _duration(answered, total.infer_ns),
            "compute_output": _duration(answered, total.output_ns),
            # there is no response cache
            "cache_hit": _duration(0, 0),
            "cache_miss": _duration(0, 0),
        },
        # responses are counted by index for models that stream several; none does yet
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": runs.size,
                "compute_input": _duration(runs.count, runs.input_ns),
                "compute_infer": _duration(runs.count, runs.infer_ns),
                "compute_output": _duration(runs.count, runs.output_ns),
            }
            for runs in total.runs
        ],
        "memory_usage": [],
    }


def _duration(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}
