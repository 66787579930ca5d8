"""Warnings of a load go to the log."""

import threading
import warnings

import pytest

from dragoman.runtimes import notices


def test_warnings_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each different warning becomes one line with the model's name and the warning's kind."""
    with notices.logged("m"):
        for _ in range(3):
            warnings.warn("written by\nan older version", UserWarning, stacklevel=1)
        warnings.warn("other", FutureWarning, stacklevel=1)
    texts = [record.getMessage() for record in caplog.records]
    assert texts == [
        "while model 'm' was loaded: UserWarning: written by an older version",
        "while model 'm' was loaded: FutureWarning: other",
    ]


def test_one_kind_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """What does not concern operators is not logged."""
    with notices.logged("m", ignore=DeprecationWarning):
        warnings.warn("going away", DeprecationWarning, stacklevel=1)
    assert caplog.records == []


def test_a_load_that_fails_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    """The warnings before a failure often explain it."""

    def fail() -> None:
        with notices.logged("m"):
            warnings.warn("strange file", UserWarning, stacklevel=1)
            raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        fail()
    assert "strange file" in caplog.text


def test_filters_are_as_before(caplog: pytest.LogCaptureFixture) -> None:
    """Loads of several threads leave the process's filters alone, and each logs its own warnings."""
    before = list(warnings.filters)
    barrier = threading.Barrier(4)

    def work(name: str) -> None:
        barrier.wait(timeout=10)
        for _ in range(20):
            with notices.logged(name):
                warnings.warn(f"from {name}", UserWarning, stacklevel=1)

    threads = [threading.Thread(target=work, args=(f"m{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 80
    assert all(text.count(text.split("'")[1]) == 2 for text in texts)
