"""How this process and this machine are: memory and processor time, read from where Linux keeps them. Called by server/telemetry.py.

Elsewhere only what the standard library knows is reported; what is unknown is left out, never made up.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from dragoman.serving.meters import Vitals

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_ENOUGH_TICKS = 50
"""Half a second of one processor, on machines that count hundredths."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the whole machine. `used_bytes` is what programs could not get at once."""

    total_bytes: int
    used_bytes: int


def of_process(proc: Path = Path("/proc")) -> Vitals:
    """Resident memory and processor time of this process."""
    try:
        memory = int((proc / "self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        memory = 0
    return Vitals(memory, time.process_time_ns())


def of_machine(proc: Path = Path("/proc")) -> Memory | None:
    """None where it cannot be known."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if rest.split()}
        return Memory(sizes["MemTotal"], sizes["MemTotal"] - sizes["MemAvailable"])
    except (OSError, ValueError, KeyError):
        return None


class Processor:
    """How busy all processors of the machine are, from one look to the next."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._path = proc / "stat"
        self._last = self._look()
        self.utilization: float | None = None
        """0 to 1, over the time between two looks. None: not known, or not yet."""

    def look(self) -> None:
        """Look again. Too soon after the last time, nothing changes: a few ticks say nothing."""
        now, before = self._look(), self._last
        if now is None or before is None:
            self._last, self.utilization = now, None
            return
        idle, passed = now[0] - before[0], now[1] - before[1]
        if passed >= _ENOUGH_TICKS:
            self._last = now
            self.utilization = min(1.0, max(0.0, 1 - idle / passed))

    def _look(self) -> tuple[int, int] | None:
        """(ticks idle, ticks in all) since the machine started."""
        try:
            with self._path.open() as file:
                ticks = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return None
        return (sum(ticks[3:5]), sum(ticks)) if len(ticks) >= 5 else None
