"""Keep TensorFlow's greetings out of the log: what it prints while it is imported, whatever it is told. Called by the SavedModel runtime."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_GREETINGS = (b"absl::InitializeLog()", b"oneDNN custom operations", b"optimized to use available CPU", b"rebuild TensorFlow")
_lock = threading.Lock()
"""The error stream belongs to the whole process."""


@contextmanager
def quiet() -> Iterator[None]:
    """What is written to the process's error stream meanwhile comes at the end, without the greetings. Does nothing once TensorFlow is there."""
    with _lock:
        if "tensorflow" in sys.modules:
            yield
            return
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only: it warns of every request that a graph refuses
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            with tempfile.TemporaryFile() as file:
                os.dup2(file.fileno(), 2)
                try:
                    yield
                finally:
                    sys.stderr.flush()
                    os.dup2(kept, 2)
                    file.seek(0)
                    for line in file:
                        if not any(greeting in line for greeting in _GREETINGS):
                            os.write(2, line)
        finally:
            os.close(kept)
        # Python parts of TensorFlow warn about each other: nothing that the operator could change.
        sys.modules["tensorflow"].get_logger().setLevel("ERROR")
