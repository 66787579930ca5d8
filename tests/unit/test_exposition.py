"""Prometheus' text format: whatever is written, an independent parser reads the same back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dragoman.server.exposition import Exposition, summed

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e"), max_size=30)


def parsed(page: Exposition) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample name -> labels -> value."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(page.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


@given(TEXT, TEXT)
def test_any_label_comes_back(model: str, version: str) -> None:
    """Quotes, backslashes, new lines and the like in labels are what they were."""
    page = Exposition()
    page.family("m", "gauge", "About it.")
    page.sample(1, {"model": model, "version": version})
    assert parsed(page) == {"m": {(("model", model), ("version", version)): 1.0}}


@given(st.floats(allow_nan=False) | st.integers(-(2**53), 2**53))
def test_any_number_comes_back(value: float) -> None:
    """Integers and floats, infinite ones too, keep their value."""
    page = Exposition()
    page.family("m", "gauge", "About it.")
    page.sample(value, {})
    assert parsed(page) == {"m": {(): float(value)}}


def test_a_family_is_described_once_and_before_its_samples() -> None:
    """HELP and TYPE come first, and the text of HELP may have several lines."""
    page = Exposition()
    page.family("a_total", "counter", "First line.\nSecond \\ line.")
    page.sample(1, {"x": "1"})
    page.sample(2, {"x": "2"})
    assert page.text() == (b'# HELP a_total First line.\\nSecond \\\\ line.\n# TYPE a_total counter\na_total{x="1"} 1\na_total{x="2"} 2\n')
    (family,) = text_string_to_metric_families(page.text().decode())
    assert (family.type, family.documentation) == ("counter", "First line.\nSecond \\ line.")


def test_a_family_cannot_be_written_twice() -> None:
    """Two families of one name would make the page invalid: that is a mistake in the program."""
    page = Exposition()
    page.family("m", "gauge", "About it.")
    with pytest.raises(ValueError, match="m is written twice"):
        page.family("m", "gauge", "Again.")


def test_a_histogram_has_its_buckets_sum_and_count() -> None:
    """Buckets are cumulative and end with +Inf, which equals the count."""
    page = Exposition()
    page.family("h", "histogram", "About it.")
    page.histogram(["0.1", "1"], [2, 5], 7, 3.5, {"model": "m"})
    page.histogram(["0.1", "1"], [0, 0], 0, 0.0, {})
    found = parsed(page)
    assert found["h_bucket"] == {
        (("le", "0.1"), ("model", "m")): 2, (("le", "1"), ("model", "m")): 5, (("le", "+Inf"), ("model", "m")): 7,
        (("le", "0.1"),): 0, (("le", "1"),): 0, (("le", "+Inf"),): 0,
    }  # fmt: skip
    assert found["h_sum"] == {(("model", "m"),): 3.5, (): 0}
    assert found["h_count"] == {(("model", "m"),): 7, (): 0}


def test_a_name_that_is_no_text_does_not_break_the_page() -> None:
    """File names may hold bytes that are no UTF-8; the page still is."""
    page = Exposition()
    page.family("m", "gauge", "About it.")
    page.sample(1, {"model": "\udcff"})
    assert page.text().decode().endswith('m{model="?"} 1\n')


@given(st.lists(st.lists(st.integers(0, 1000), min_size=5, max_size=5), min_size=1, max_size=4))
def test_bins_of_several_rows_are_summed(rows: list[list[int]]) -> None:
    """At each place: everything in bins up to it, of all rows."""
    cumulative, everything = summed(rows, [0, 2, 3])
    assert cumulative == [sum(sum(row[: place + 1]) for row in rows) for place in (0, 2, 3)]
    assert everything == sum(map(sum, rows))


def test_infinity_is_written_as_prometheus_reads_it() -> None:
    """Positive infinity has a sign in text or not; the value is the same."""
    page = Exposition()
    page.family("m", "gauge", "About it.")
    page.sample(math.inf, {})
    assert parsed(page)["m"][()] == math.inf
