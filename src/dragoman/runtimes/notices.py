"""Warnings that frameworks issue while a model loads go to the log, with the model's name. Called by the runtimes whose frameworks warn."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("dragoman.runtimes")

_lock = threading.Lock()
"""Python's warning filters belong to the whole process, so only one load at a time may have its own."""


@contextmanager
def logged(model: str, *, ignore: type[Warning] | None = None) -> Iterator[None]:
    """Log every warning of the block once; those of the kind `ignore` not at all."""
    with _lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            texts = [f"{w.category.__name__}: {w.message}" for w in caught if ignore is None or not issubclass(w.category, ignore)]
            for text in dict.fromkeys(texts):
                log.warning("while model '%s' was loaded: %s", model, " ".join(text.split())[:500])
