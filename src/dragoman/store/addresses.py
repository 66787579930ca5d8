"""The addresses of stores: which database a URL means, and how it is shown without its password. Light: settings are checked with it.

Called by sql.py, by settings and by whoever names a store in a message.
"""

import re
from pathlib import Path

from dragoman.core.errors import invalid

SQLITE = "sqlite:///"
_POSTGRES = re.compile(r"postgresql(\+psycopg)?://")
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^:@/?\#\s,\[\]]*)(?::\d{1,5})?"
_PLAIN = re.compile(
    rf"""postgresql(\+psycopg)?://
    ((?P<user>[^:@/?\#\s]*)(:[^@/?\#\s]*)?@)?   # what is special in a password is written as %XX
    (?P<where>{_HOST}(,{_HOST})*(/[^@/?\#\s]*)?)
    (\?[^\#\s]*)?\Z""",
    re.VERBOSE,
)


def store_url(data_dir: Path) -> str:
    """The URL of the store in this data directory."""
    return f"{SQLITE}{data_dir / 'dragoman.db'}"


def sqlite_path(url: str) -> Path | None:
    """The file that a URL means; None for a store that is a server of its own. Raises INVALID_INPUT for what is no store."""
    if _POSTGRES.match(url):
        if _PLAIN.match(url):
            return None
        raise invalid(
            f"'{shown(url)}' is no store: expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, in which special characters of the password"
            " are written as %XX"
        )
    path = url.removeprefix(SQLITE)
    if not url.startswith(SQLITE) or not path or path.startswith(":") or "\0" in path:
        raise invalid(f"'{shown(url)}' is no store: expected {SQLITE}PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    return Path(path)


def exists(url: str) -> bool:
    """Whether there is a database, as far as that is known without asking one: looking for something must not make it."""
    path = sqlite_path(url)
    return path is None or path.exists()


def shown(url: str) -> str:
    """The URL without password and options, for logs and people."""
    found = _PLAIN.match(url)
    if found is not None:
        user = f"{found['user']}@" if found["user"] else ""
        return f"postgresql://{user}{found['where']}"
    scheme, separator, _ = url.partition("://")
    return url if not separator or url.startswith(SQLITE) else f"{scheme}://..."
