"""What the commands for jobs keep in files, as FloydHub's client does, so that both can be used in one folder.

~/.floydconfig says who is logged in, .floydexpt which project a folder is, .floyddata which data set, floyd.yml how it is run.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.core.disk import write_whole
from dragoman.core.errors import Kind, ServingError, invalid

PROJECT = Path(".floydexpt")
DATA = Path(".floyddata")
CONFIGURATIONS = (Path("floyd.yml"), Path("floyd.yaml"))

SAMPLE = """\
# How `dragoman run` and `floyd run` run this project. Options of the command line come before what is written here.
#
#env: tensorflow-1.8
#machine: cpu
#mode: serve
#command: python train.py
#description: first try
#max_runtime: 3600
#input:
#  - source: me/datasets/pictures/1
#    destination: input
#  - me/datasets/more/2:more
#
# Several ways to run it, one of which is chosen with --task NAME:
#
#task:
#  train:
#    machine: gpu
#    command: python train.py
#  serve:
#    mode: serve
"""


@dataclass(frozen=True, slots=True)
class Login:
    """Who is logged in. `authorization` is a header's value; `server` "" for a login of FloydHub's own client, which does not write it."""

    user: str
    authorization: str
    server: str


def _config() -> Path:
    return Path.home() / ".floydconfig"


def login() -> Login | None:
    """Who is logged in, if anybody."""
    content = _read(_config())
    if content is None:
        return None
    key, token = str(content.get("apikey") or ""), str(content.get("token") or "")
    if not key and not token:
        return None
    authorization = f"apikey {key}" if key else f"Bearer {token}"
    if not authorization.isascii() or not authorization.isprintable():
        raise invalid(f"{_config()} holds no key that can be sent; log in again: dragoman login")
    return Login(str(content.get("username") or ""), authorization, str(content.get("server") or ""))


def save_login(user: str, server: str, *, key: str = "", token: str = "") -> None:
    """Readable for this user alone."""
    _write(_config(), {"username": user, **({"apikey": key} if key else {"token": token}), "server": server})


def forget_login() -> None:
    with contextlib.suppress(FileNotFoundError):
        _config().unlink()


@dataclass(frozen=True, slots=True)
class Project:
    """What this folder is: a project or a data set. `id` "" while no server has been asked."""

    name: str
    owner: str = ""
    id: str = ""


def project() -> Project | None:
    """The project of this folder, if it is one."""
    return _named(_read(PROJECT), PROJECT)


def needed_project() -> Project:
    found = project()
    if found is None:
        raise invalid(f"there is no {PROJECT} here: run `dragoman init NAME` first, in the folder of the project")
    return found


def save_project(it: Project) -> None:
    _write(PROJECT, {"name": it.name, "namespace": it.owner, "family_id": it.id})


def data_set() -> Project | None:
    """The data set of this folder, if it is one."""
    return _named(_read(DATA), DATA)


def needed_data_set() -> Project:
    found = data_set()
    if found is None:
        raise invalid(f"there is no {DATA} here: run `dragoman data init NAME` first, in the folder of the data")
    return found


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was begun: the version it makes, the archive that is sent, where to, and what is unpacked of it."""

    data: str = ""
    name: str = ""
    archive: str = ""
    address: str = ""
    resource: str = ""

    @property
    def begun(self) -> bool:
        return bool(self.data and (self.resource or (self.address and Path(self.archive).is_file())))


def upload() -> Upload:
    """What .floyddata says of one."""
    content = _read(DATA) or {}
    fields = ("data_id", "data_name", "tarball_path", "data_endpoint", "resource_id")
    return Upload(*(str(content.get(field) or "") for field in fields))


def save_data_set(it: Project, begun: Upload = Upload()) -> None:
    content: dict[str, Any] = {"name": it.name, "namespace": it.owner, "family_id": it.id}
    content |= {"data_id": begun.data or None, "data_name": begun.name or None, "tarball_path": begun.archive or None}
    _write(DATA, {**content, "data_endpoint": begun.address or None, "resource_id": begun.resource or None})


def configuration() -> str | None:
    """The text of floyd.yml, which the server reads; the last one of its two names where both are there, as FloydHub's client does."""
    text = None
    for path in CONFIGURATIONS:
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise invalid(f"{path} cannot be read: {error}") from None
    return text


def add_once(path: Path, text: str) -> None:
    """Write a file that is not there."""
    with contextlib.suppress(FileExistsError), _told(path), path.open("x", encoding="utf-8") as file:
        file.write(text)


def _named(content: Mapping[str, Any] | None, path: Path) -> Project | None:
    if content is None:
        return None
    name = content.get("name")
    if not isinstance(name, str) or not name:
        raise invalid(f"{path} names nothing; run `dragoman {'data ' if path == DATA else ''}init NAME` again")
    return Project(name, str(content.get("namespace") or ""), str(content.get("family_id") or ""))


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise invalid(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise invalid(f"{path} is damaged: expected a JSON object")
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """An interrupted command leaves what was there."""
    with _told(path):
        write_whole(path, json.dumps(content), mode=0o600 if path == _config() else 0o644)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise ServingError(Kind.UNAVAILABLE, f"{path} cannot be written: {error.strerror}") from None
