"""What the benchmarks compute from their measurements. The measurements themselves are never asserted."""

import pytest

from benchmarks.duel import Duel, Figures, cpu_target, speed_target, table
from benchmarks.processes import BenchmarkError
from benchmarks.start import by_package
from benchmarks.wrk import read


def figures(rate: float, cpu_us: float = 10.0) -> Figures:
    """One load of which only rate and CPU matter."""
    return Figures(rate, 1.0, 2.0, cpu_us, 0)


def test_ratio_is_the_median_of_the_pairs() -> None:
    """Pairs are divided one by one, so that a slow minute hurts both sides and not the result."""
    fought = Duel("other", 16, [figures(200), figures(30), figures(90)], [figures(100), figures(10), figures(100)])
    assert fought.speed == 2.0
    assert fought.ratios(lambda f: f.rate) == [2.0, 3.0, 0.9]
    assert fought.cpu == 1.0


def test_table_shows_both_sides_and_every_pair() -> None:
    """One line per duel: medians of both, and the spread of the ratio."""
    shown = table([Duel("triton", 64, [figures(2000, 20), figures(4000, 20)], [figures(1000, 40), figures(1000, 40)])])
    assert len(shown.head) == len(shown.rows[0])
    assert shown.rows[0][:5] == ["triton", "64", "3,000", "1,000", "**3.00** (2.00, 4.00)"]
    assert shown.rows[0][-2:] == ["20 / 40", "0.50"]


@pytest.mark.parametrize(
    ("connections", "least", "met", "measured"),
    [(16, 1.5, True, "2.00x"), (64, 1.5, False, "1.00x"), (None, 1.0, True, "2.00x, 1.00x"), (None, 1.5, False, "2.00x, 1.00x")],
)
def test_speed_target_counts_the_connections_asked_for(connections: int | None, least: float, met: bool, measured: str) -> None:
    """Without a number of connections every one must reach the target."""
    duels = [
        Duel("t", 16, [figures(2)], [figures(1)]),
        Duel("t", 64, [figures(1)], [figures(1)]),
        Duel("u", 16, [figures(9)], [figures(1)]),
    ]
    target = speed_target("text", duels, "t", connections, least)
    assert (target.met, target.measured) == (met, measured)


def test_targets_without_a_measurement_are_neither_met_nor_missed() -> None:
    """A peer that could not take part leaves its target open."""
    assert speed_target("text", [], "triton", 16, 1.5).met is None
    assert cpu_target("text", [], "echo", 3.0).met is None


def test_cpu_target_is_an_upper_bound_at_every_number_of_connections() -> None:
    """The worst one counts."""
    duels = [Duel("e", n, [figures(1, cpu)], [figures(1, 10)]) for n, cpu in ((16, 20.0), (64, 35.0))]
    assert cpu_target("text", duels, "e", 3.0).met is False
    assert cpu_target("text", duels, "e", 3.5).met is True


def test_wrk_output_is_read() -> None:
    """The line that the script prints, among what wrk says itself."""
    done = read("Running 2s test\n  Thread Stats\nfigures 30000 2000000 410 1900 3 4\nTransfer/sec: 1MB\n")
    assert (done.requests, done.seconds, done.rate) == (30000, 2.0, 15000.0)
    assert (done.p50_ms, done.p99_ms, done.refused, done.broken) == (0.41, 1.9, 3, 4)


def test_wrk_without_figures_is_an_error_that_shows_what_it_said() -> None:
    """A port where nobody listens, for example."""
    with pytest.raises(BenchmarkError, match="unable to connect"):
        read("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_import_times_are_summed_by_package() -> None:
    """Own times only, so that nothing is counted twice; Python's modules are one line."""
    text = "\n".join(
        [
            "import time: self [us] | cumulative | imported package",
            "import time:       100 |        100 |   json.decoder",
            "import time:        50 |        150 | json",
            "import time:      2000 |       2000 |     numpy._core.multiarray",
            "import time:       300 |       2300 |   numpy",
            "import time:        10 |       2310 | dragoman.core.tensors",
            "listening on http://127.0.0.1:3000",
        ]
    )
    assert by_package(text) == {"Python's standard library": 150, "numpy": 2300, "dragoman": 10}
