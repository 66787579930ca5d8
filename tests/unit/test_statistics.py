"""The statistics extension: its JSON form, over counters of any number of dialects and workers."""

from pathlib import Path

import pytest

from dragoman.core.errors import Kind
from dragoman.core.model import Timings
from dragoman.dialects.v2.statistics import model_statistics
from dragoman.serving.meters import Meters

NOTHING = {"count": 0, "ns": 0}


def test_a_model_without_requests() -> None:
    """Every field is there, with zeros, and no batch sizes."""
    meters = Meters()
    meters.touch("iris", "3")
    assert model_statistics(meters.totals()) == {
        "model_stats": [
            {
                "name": "iris",
                "version": "3",
                "last_inference": 0,
                "inference_count": 0,
                "execution_count": 0,
                "inference_stats": dict.fromkeys(
                    ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"), NOTHING
                ),
                "response_stats": {},
                "batch_stats": [],
                "memory_usage": [],
            }
        ]
    }


def test_batching_shows(tmp_path: Path) -> None:
    """Two requests of two dialects in one run of five rows: O21's proof that batching works, also when another worker ran it."""
    other, asked = Meters(tmp_path, 1), Meters(tmp_path, 2)
    other.open("m", "1", "v2").succeeded(0, 1_000, Timings(100, 10, 500, 20, batch_size=5, leader=True, rows=2))
    other.open("m", "1", "tfserving").succeeded(0, 2_000, Timings(300, 10, 500, 20, batch_size=5, leader=False, rows=3))
    asked.open("m", "1", "v2").succeeded(0, 50, Timings(0, 0, 40, 0))
    asked.open("m", "1", "v2").failed(Kind.INVALID_INPUT, 7)
    (row,) = model_statistics(asked.totals())["model_stats"]
    assert (row["inference_count"], row["execution_count"]) == (6, 2)
    assert row["inference_stats"] == {
        "success": {"count": 3, "ns": 3_050},
        "fail": {"count": 1, "ns": 7},
        "queue": {"count": 3, "ns": 400},
        "compute_input": {"count": 3, "ns": 20},
        "compute_infer": {"count": 3, "ns": 1_040},
        "compute_output": {"count": 3, "ns": 40},
        "cache_hit": NOTHING,
        "cache_miss": NOTHING,
    }
    assert row["batch_stats"] == [
        {
            "batch_size": 1,
            "compute_input": {"count": 1, "ns": 0},
            "compute_infer": {"count": 1, "ns": 40},
            "compute_output": {"count": 1, "ns": 0},
        },
        {
            "batch_size": 5,
            "compute_input": {"count": 1, "ns": 10},
            "compute_infer": {"count": 1, "ns": 500},
            "compute_output": {"count": 1, "ns": 20},
        },
    ]
    assert row["last_inference"] > 0


@pytest.mark.parametrize(("size", "shown"), [(64, 64), (65, 128), (1_000_000, 524_288)])
def test_large_batches_share_rows(size: int, shown: int) -> None:
    """Above 64 sizes are shown by the power of two that bounds them, the largest with everything above it."""
    meters = Meters()
    meters.open("m", "1", "v2").succeeded(0, 1, Timings(batch_size=size, rows=size))
    (row,) = model_statistics(meters.totals())["model_stats"]
    assert [batch["batch_size"] for batch in row["batch_stats"]] == [shown]
    assert row["inference_count"] == size
