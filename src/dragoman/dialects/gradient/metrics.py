"""Metrics of deployments, in the form of Gradient's charts: one point per chart, of this moment. Called by rest.py and calls.py.

What counts over time is Prometheus' business (`/metrics`); no history is kept here. Processor and memory are those of the server's workers,
which a deployment shares with others.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from dragoman.core.errors import invalid
from dragoman.serving.gradient.records import Record
from dragoman.serving.gradient.service import GradientDeployments
from dragoman.serving.meters import Meters
from dragoman.serving.settings import quoted

_USUAL = ("cpuPercentage", "memoryUsage")


class Charts:
    names = (*_USUAL, "requestCount", "requestFailures", "requestSeconds")

    def __init__(self, deployments: GradientDeployments, meters: Meters) -> None:
        self._deployments = deployments
        self._meters = meters

    async def read(self, record: Record, asked: Sequence[str]) -> dict[str, Any]:
        """Chart -> id -> points. Raises INVALID_INPUT for a chart that there is not."""
        for name in asked:
            if name not in self.names:
                raise invalid(f"there is no chart {quoted(name)}; there are {', '.join(self.names)}", "charts")
        values = await asyncio.to_thread(self._values, record.id)
        now = int(time.time())
        return {name: {record.id: [{"time_stamp": now, "value": values[name]}]} for name in asked or _USUAL}

    def _values(self, deployment: str) -> dict[str, str]:
        reading = self._meters.read()
        totals = [total for total in reading.by_version if total.model == deployment]
        now = time.time()
        busy = sum(w.vitals.cpu_ns / 1e9 / max(now - w.started_s, 1.0) for w in reading.workers)
        return {
            "cpuPercentage": f"{100 * busy:.2f}",
            "memoryUsage": str(sum(w.vitals.memory_bytes for w in reading.workers)),
            "requestCount": str(sum(t.success + sum(t.failures.values()) for t in totals)),
            "requestFailures": str(sum(sum(t.failures.values()) for t in totals)),
            "requestSeconds": f"{sum(t.success_ns for t in totals) / 1e9:.6f}",
        }
