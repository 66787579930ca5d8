"""Writes Prometheus' text format, version 0.0.4. Knows its grammar and nothing of what is measured. Called by server/metrics.py."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

MEDIA_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Exposition:
    """Families in the order of `family` calls; samples go to the family that was named last."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._name = ""
        self._names: set[str] = set()

    def family(self, name: str, kind: str, about: str) -> None:
        """Begin a family; each name once. `kind` is counter, gauge or histogram."""
        if name in self._names:
            raise ValueError(f"the metric {name} is written twice")
        self._names.add(name)
        self._name = name
        text = about.replace("\\", r"\\").replace("\n", r"\n")
        self._lines.append(f"# HELP {name} {text}")
        self._lines.append(f"# TYPE {name} {kind}")

    def sample(self, value: float, labels: Mapping[str, str]) -> None:
        self._lines.append(f"{self._name}{_labels(labels)} {_number(value)}")

    def histogram(self, bounds: Sequence[str], cumulative: Iterable[int], everything: int, total: float, labels: Mapping[str, str]) -> None:
        """One histogram: how many are at or below each bound, how many there are, and their sum."""
        inside = _labels(labels)[1:-1]
        start = f'{self._name}_bucket{{{inside}{"," if inside else ""}le="'
        self._lines += [f'{start}{bound}"}} {count}' for bound, count in zip(bounds, cumulative, strict=True)]
        self._lines.append(f'{start}+Inf"}} {everything}')
        self._lines.append(f"{self._name}_sum{_labels(labels)} {_number(total)}")
        self._lines.append(f"{self._name}_count{_labels(labels)} {everything}")

    def text(self) -> bytes:
        self._lines.append("")
        # Names from file systems may hold bytes that are no text.
        return "\n".join(self._lines).encode("utf-8", "replace")


def summed(bins: Iterable[Sequence[int]], places: Sequence[int]) -> tuple[list[int], int]:
    """Several rows of bins added up: the count up to and including each place, and the count of all."""
    running = list(accumulate(sum(column) for column in zip(*bins, strict=True)))
    return [running[place] for place in places], running[-1]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)
