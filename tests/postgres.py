"""PostgreSQL for tests: one server of our own for each test process, on a free port of the loopback, and a database for each test.

It is started by the first test that needs it and ended when the tests are over, by its process id; should they be killed, the kernel ends it.
Processes that a test starts find it by an environment variable.
"""

import contextlib
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.daemons import Daemon
from tests.ports import free_port

_VARIABLE = "DRAGOMAN_TESTS_POSTGRES"
_PREFIX = "dragoman-pg-"
USER, PASSWORD = "dragoman", "se:cr@t/?#"
QUOTED = "se%3Acr%40t%2F%3F%23"
"""The password as it is written in URLs."""
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
}


class Server(Daemon):
    """A PostgreSQL server in a folder of its own."""

    def __init__(self) -> None:
        self._user = pwd.getpwuid(os.getuid())
        if self._user.pw_uid == 0:  # PostgreSQL refuses to run as root
            self._user = next(user for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody"))
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        (self._folder / "tests.pid").write_text(str(os.getpid()))
        os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        # Texts are ordered by the rules of a language, as they are on most machines: no test may count on the order of their bytes.
        locale = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
        initdb = [_program("initdb"), "-D", str(self._data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "-N", *locale]
        made = subprocess.run(initdb, capture_output=True, text=True, cwd="/", **self._as_user())
        assert made.returncode == 0, made.stderr
        self.port = free_port()
        options = [f"-c{name}={value}" for name, value in {**_SETTINGS, "unix_socket_directories": self._folder}.items()]
        super().__init__(
            "PostgreSQL", [_program("postgres"), "-D", str(self._data), "-p", str(self.port), *options], self._folder / "log", self._connects,
            crash=signal.SIGQUIT, options={"cwd": "/", **self._as_user()},
        )  # fmt: skip
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{QUOTED}@127.0.0.1:{self.port}"

    def _connects(self) -> bool:
        try:
            psycopg.connect(f"{self.url}/postgres", connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT breaks off what runs and ends in order, SIGQUIT is like a crash."""
        super().stop(how)

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _as_user(self) -> dict[str, Any]:
        if os.getuid() != 0:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


_servers: list[Server] = []


def server() -> Server:
    """This process's own; started if that is due."""
    if not _servers:
        _servers.append(Server())
        os.environ[_VARIABLE] = _servers[0].url
    return _servers[0]


def end() -> None:
    """Called when the tests are over."""
    while _servers:
        _servers.pop().remove()
        os.environ.pop(_VARIABLE, None)


def _url() -> str:
    return os.environ.get(_VARIABLE) or server().url


def database_of(place: Path) -> str:
    """The URL of the database that belongs to this place, in whatever process asks; made empty if there is none."""
    name = _name(place)
    if not has_database(place):
        with administrator() as connection, contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            connection.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
    return f"{_url()}/{name}"


def has_database(place: Path) -> bool:
    with administrator() as connection:
        return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_name(place)]).fetchone() is not None


def _name(place: Path) -> str:
    return "t_" + hashlib.sha256(str(place).encode()).hexdigest()[:24]


def administrator(database: str = "postgres") -> "psycopg.Connection[Any]":
    """A connection in which each statement is a transaction."""
    return psycopg.connect(f"{_url()}/{database}", autocommit=True, connect_timeout=10)


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def clients(url: str) -> int:
    """How many connections this database has, those of its own vacuum aside. One that has just been closed may be among them."""
    with administrator() as connection:
        counted = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
        return int(connection.execute(counted, [name_of(url)]).fetchall()[0][0])


def terminate(url: str) -> None:
    """End every connection to this database, as an administrator would."""
    with administrator() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name_of(url)])


def _sweep() -> None:
    """Remove what tests that were killed have left."""
    for mark in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/tests.pid"):
        with contextlib.suppress(OSError, ValueError):
            try:
                os.kill(int(mark.read_text()), 0)
            except ProcessLookupError:
                shutil.rmtree(mark.parent, ignore_errors=True)


@cache
def _program(name: str) -> str:
    """Debian keeps the server's programs beside its versions, where no PATH leads."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = shutil.which(name) or (str(beside[-1]) if beside else None)
    assert found is not None, f"these tests need PostgreSQL's '{name}': apt-get install postgresql (scripts/system_packages.sh does it)"
    return found
