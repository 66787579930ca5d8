"""What the command line asks of every section."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    seconds: int
    """Of each load."""
    pairs: int
    """Turns of each comparison."""
    peers: tuple[str, ...]
    requests: int
    """Of the run that looks for growing memory."""
    loads: int
    """Loads and unloads of the large model."""
    starts: int
    """Starts of the command of which the median counts."""
