"""What is the address of a store, and what is shown of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.store.addresses import exists, shown, sqlite_path, store_url


def test_the_usual_one_lies_in_the_data_directory(tmp_path: Path) -> None:
    """And is there only when somebody has made it."""
    url = store_url(tmp_path)
    assert sqlite_path(url) == tmp_path / "dragoman.db"
    assert not exists(url)
    (tmp_path / "dragoman.db").touch()
    assert exists(url)
    assert shown(url) == url


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://u:pw@host:5432/db", "postgresql://u@host:5432/db"),
        ("postgresql+psycopg://u:p%40w@host:5432/db", "postgresql://u@host:5432/db"),
        ("postgresql://u:p:w@host/db?sslmode=require", "postgresql://u@host/db"),
        ("postgresql://u@host/db?password=pw", "postgresql://u@host/db"),
        ("postgresql://:pw@/db", "postgresql:///db"),
        ("postgresql://u:pw@[::1]:5432/db", "postgresql://u@[::1]:5432/db"),
        ("postgresql://u:pw@one:1,two:2/db", "postgresql://u@one:1,two:2/db"),
        ("postgresql://u:pw@%2Fvar%2Frun/db", "postgresql://u@%2Fvar%2Frun/db"),
    ],
)
def test_postgresql(url: str, seen: str) -> None:
    """Every form that its own tools take; there is always something to ask, and its password and options are not shown."""
    assert sqlite_path(url) is None
    assert exists(url)
    assert shown(url) == seen


@pytest.mark.parametrize(
    "url",
    [
        "", "dragoman.db", "/srv/dragoman.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a\0b", "mysql://u:pw@host/db",
        "postgres:pw", "postgresql://u:p/w@host/db", "postgresql://u:p@w@host/db", "postgresql://u:p#w@host/db", "postgresql://u:p?w@host/db",
        "postgresql://u:pw@host:port/db", "postgresql://u:pw@[::1/db", "postgresql+asyncpg://u:pw@host/db", "postgresql://u:p w@host/db",
    ],
)  # fmt: skip
def test_what_is_no_store(url: str) -> None:
    """It is refused with what is expected, and whatever part of it may be a password is not repeated."""
    with pytest.raises(ServingError) as caught:
        sqlite_path(url)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "is no store: expected" in caught.value.message
    assert not any(part in caught.value.message for part in ("pw@", "p/w", "w@host", "p#w", "p?w", "p w"))


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_a_password_is_never_shown(rest: str) -> None:
    """Whatever it consists of, and whether the address is well written or not."""
    secret = f"Secr{rest}et"
    assert "Secr" not in shown(f"postgresql://user:{secret}@host:5432/db")
    assert "Secr" not in shown(f"postgresql://user@host:5432/db?password={secret}")
