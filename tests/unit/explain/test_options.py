"""`--explain NAME=METHOD[:OPTION=VALUE...]` and what it makes of a ModelSpec."""

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.explain.options import Explainer, of_spec, read_setting


def test_a_setting() -> None:
    """Becomes the explainer of each model that is named."""
    found = read_setting(["iris=auto", "m=permutation:background=/data/b.csv:rows=20:rounds=3:output=p"])
    assert found["iris"] == {"method": "auto"}
    assert of_spec(found["iris"], "x") == Explainer()
    assert of_spec(found["m"], "x") == Explainer("permutation", "/data/b.csv", "p", 20, 3)
    assert read_setting([]) == {}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("iris", "expected NAME=METHOD"),
        ("=auto", "expected NAME=METHOD"),
        ("iris=", "expected NAME=METHOD"),
        ("iris=lime", "there is no method 'lime', expected auto, exact or permutation"),
        ("iris=auto:rows", "expected OPTION=VALUE once each"),
        ("iris=auto:rows=5:rows=6", "expected OPTION=VALUE once each"),
        ("iris=auto:method=exact", "expected OPTION=VALUE once each"),
        ("iris=auto:rows=0", "rows must be a number from 1 to 1000"),
        ("iris=auto:rows=1001", "rows must be a number"),
        ("iris=auto:rows=-1", "rows must be a number"),
        ("iris=auto:rows=²", "rows must be a number"),
        ("iris=auto:rounds=x", "rounds must be a number"),
        ("iris=auto:background=", "there is no option 'background' with such a value"),
        ("iris=auto:speed=1", "there is no option 'speed'"),
    ],
)
def test_settings_that_mean_nothing(entry: str, words: str) -> None:
    """Are refused when the server starts, each with its text."""
    with pytest.raises(ServingError) as caught:
        read_setting([entry])
    assert caught.value.kind is Kind.INVALID_INPUT
    assert caught.value.message.startswith(f"{entry!r}: ")
    assert words in caught.value.message


def test_a_model_that_is_named_twice() -> None:
    """Nobody could say which holds."""
    with pytest.raises(ServingError, match="'m' is named twice"):
        read_setting(["m=auto", "m=exact"])


def test_which_method_suits() -> None:
    """Few features are gone through exactly; the work is known beforehand."""
    assert Explainer().method_for(8) == "exact"
    assert Explainer().method_for(9) == "permutation"
    assert Explainer("permutation").method_for(2) == "permutation"
    assert Explainer().masks(4) == 16
    assert Explainer("permutation", rounds=3).masks(4) == 27
