"""What all processes of a job use together, and whether that is too much."""

from __future__ import annotations

from dragoman.hosting.jobs import Limits, processes

_LOOK_S = 0.5
_CLOSE_S = 0.1
"""When most of the memory is used."""
_CLOSE = 0.75


class Usage:
    """As of the last look."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.memory = 0
        self.processes = 0
        self.again_s = _CLOSE_S
        """When to look again: often at first, since a program grows most when it starts."""

    def look(self) -> tuple[str, str]:
        """How the job must end, and why; two empty texts when it need not."""
        limits = self._limits
        found = processes.most()
        self.processes, self.memory = len(found), processes.resident(found)
        self.again_s = _CLOSE_S if limits.memory and self.memory > _CLOSE * limits.memory else _LOOK_S
        if limits.processes and self.processes > limits.processes:
            return "processes", f"it had {self.processes} processes at once, {limits.processes} are allowed"
        if limits.memory and self.memory > limits.memory:
            used = processes.proportional(found)  # forked processes share much of it
            if used > limits.memory:
                return "memory", f"it used {_size(used)} of memory, {_size(limits.memory)} are allowed"
        return "", ""


def _size(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
