"""What command lines of other servers come to, for the tests of this folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dragoman.cli.foreign import FOREIGN
from dragoman.core.errors import Kind, ServingError
from dragoman.server.settings import Settings


def settings_of(name: str, *arguments: str) -> Settings:
    return FOREIGN[name].settings(arguments)[0]


def warnings_of(name: str, *arguments: str) -> list[str]:
    return FOREIGN[name].settings(arguments)[1]


def refused(name: str, *arguments: str) -> str:
    with pytest.raises(ServingError) as error:
        FOREIGN[name].settings(arguments)
    assert error.value.kind is Kind.INVALID_INPUT
    return error.value.message


@contextmanager
def variables(monkeypatch: pytest.MonkeyPatch, data: Path, **values: str) -> Iterator[None]:
    """The environment with these variables and a user's data directory of its own."""
    with monkeypatch.context() as patched:
        patched.setenv("XDG_DATA_HOME", str(data))
        for key, value in values.items():
            patched.setenv(key, value)
        yield
