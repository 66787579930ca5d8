"""Files of jobs and data sets on their way: a project's code and packed data to the server, archives back and unpacked.

Called by the commands for jobs and data sets. Every file is read and written piece by piece.
"""

import base64
import gzip
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote

from dragoman.cli.jobs_api import Api, Json
from dragoman.cli.jobs_ignore import Found
from dragoman.cli.jobs_progress import Progress, progress, size
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.paths import confine

_PIECE = 1 << 18
_CHUNK = 5 << 20
"""Bytes of one request of a resumable upload: what an interruption costs at most."""
_TUS = {"Tus-Resumable": "1.0.0"}
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !#$&'()+,-./;=@[]^_`{}~")


def send_code(api: Api, files: Sequence[Found], about: bytes) -> str:
    """Upload a project's code, and `about` it (JSON); the id of the code. Raises INVALID_INPUT when a file changes meanwhile."""
    boundary = f"dragoman-{os.urandom(16).hex()}"
    heads = [_head(boundary, f'name="code"; {_file_name(each.name)}', "\r\nContent-Type: text/plain") for each in files]
    tail = _head(boundary, 'name="json"') + about + f"\r\n--{boundary}--\r\n".encode()
    length = sum(len(head) + each.size + 2 for head, each in zip(heads, files, strict=True)) + len(tail)

    def body(bar: Progress) -> Iterator[bytes]:
        for head, each in zip(heads, files, strict=True):
            yield head
            yield from _content(each, bar)
            yield b"\r\n"
        yield tail

    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length)}
    with progress("Syncing code", sum(each.size for each in files)) as bar, api.stream("POST", "/modules/", body(bar), headers) as reply:
        answer = _object(reply.read())
    return _text(answer, "id")


def _head(boundary: str, disposition: str, more: str = "") -> bytes:
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}{more}\r\n\r\n".encode()


def _file_name(name: str) -> str:
    """A path as a parameter: quoted where it is plain, else as RFC 2231 has it, which leaves no doubt about quotes and other alphabets."""
    path = f"./{name}"
    if _PLAIN.issuperset(path.encode()):
        return f'filename="{path}"'
    return f"filename*=utf-8''{quote(path, safe='')}"


def _content(file: Found, bar: Progress) -> Iterator[bytes]:
    """Exactly as many bytes as were announced."""
    left = file.size
    with file.path.open("rb") as source:
        while left and (piece := source.read(min(_PIECE, left))):
            left -= len(piece)
            yield piece
            bar.add(len(piece))
    if left:
        raise invalid(f"'{file.name}' has become shorter while it was uploaded; run the command again")


def pack(folder: Path, archive: Path, leave_out: Sequence[str] = ()) -> int:
    """Write a .tar.gz of everything in a folder, but names at its top that stay; how many files and folders it holds."""

    count = 0

    def chosen(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        nonlocal count
        if member.name.removeprefix("./") in leave_out:
            return None
        count += 1
        bar.add(member.size)
        return member

    whole = sum(_sizes(folder))
    try:
        with (
            progress("Compressing data", whole) as bar,
            archive.open("wb") as file,
            gzip.GzipFile("", "wb", 6, file) as packed,
            tarfile.open(fileobj=packed, mode="w|") as tar,
        ):
            tar.add(folder, arcname=".", filter=chosen)
    except OSError as error:
        where = f"'{error.filename}' " if error.filename else ""
        raise ServingError(Kind.UNAVAILABLE, f"the data cannot be packed: {where}{error.strerror or error}") from None
    return count


def _sizes(folder: Path) -> Iterator[int]:
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue


def begin_upload(api: Api, data: str, length: int) -> str:
    """Announce an upload of packed data; the address to send it to."""
    who, headers = _credentials(api, data)
    made = {**_TUS, **headers, "Upload-Length": str(length), "Upload-Metadata": f"filename {base64.b64encode(who.encode()).decode()}"}
    with api.stream("POST", "/upload/", (), {**made, "Content-Length": "0"}) as reply:
        address = reply.headers.get("Location", "")
    if not address.startswith((f"{api.url}/", "http://", "https://")):
        raise ServingError(Kind.UNAVAILABLE, f"{api.url} does not say where to upload to; is it a Dragoman server?")
    return address


def send_data(api: Api, data: str, archive: Path, address: str) -> None:
    """Send packed data, from where the server has it: after an interruption too. Raises NOT_FOUND when the server knows nothing of it any more."""
    _, headers = _credentials(api, data)
    headers |= _TUS
    with api.stream("HEAD", address, headers=headers) as reply:
        offset = _offset(reply.headers.get("Upload-Offset"))
    whole = archive.stat().st_size
    with archive.open("rb") as file, progress("Uploading", whole, offset) as bar:
        while offset < whole:
            file.seek(offset)
            length = min(_CHUNK, whole - offset)
            patch = {
                **headers,
                "Content-Type": "application/offset+octet-stream",
                "Upload-Offset": str(offset),
                "Content-Length": str(length),
            }
            with api.stream("PATCH", address, _pieces(file, length), patch) as reply:
                after = _offset(reply.headers.get("Upload-Offset"))
            if after <= offset:
                raise ServingError(Kind.UNAVAILABLE, f"{api.url} takes no more of the upload, {size(offset)} of {size(whole)} are there")
            bar.add(after - offset)
            offset = after


def _pieces(file: IO[bytes], length: int) -> Iterator[bytes]:
    while length and (piece := file.read(min(_PIECE, length))):
        length -= len(piece)
        yield piece


def _credentials(api: Api, data: str) -> tuple[str, dict[str, str]]:
    given = api.ask("POST", f"/modules/{quote(data)}/upload_v2_credentials")
    who, token = _text(given, "data_upload_id"), _text(given, "token")
    return who, {"Authorization": f"Basic {base64.b64encode(f'{who}:{token}'.encode()).decode()}"}


def _offset(text: str | None) -> int:
    if text is None or not text.isdecimal():
        raise ServingError(Kind.UNAVAILABLE, "the server does not say how much of the upload it has; is it a Dragoman server?")
    return int(text)


def fetch_file(api: Api, path: str, target: Path) -> None:
    """One file of the server's into a new file here. Nothing is left of one that did not come whole."""
    if target.exists():
        raise invalid(f"'{target}' is here already; it is not written over")
    part = Path(tempfile.mkdtemp(prefix=".dragoman-", dir=target.parent)) / "part"
    try:
        with part.open("wb") as file:
            _fetch(api, path, file)
        os.link(part, target)
    except FileExistsError:
        raise invalid(f"'{target}' is here already; it is not written over") from None
    finally:
        part.unlink(missing_ok=True)
        part.parent.rmdir()


def fetch_folder(api: Api, path: str, folder: Path, *, replace: bool = False) -> int:
    """Unpack an archive of the server's below a folder; how many files. Writes over nothing that is there, unless `replace`."""
    with tempfile.TemporaryFile() as archive:
        _fetch(api, path, archive)
        archive.seek(0)
        try:
            with tarfile.open(fileobj=archive) as tar:
                members = [(_inside(folder, member), member) for member in tar if member.isreg() or member.isdir()]
                there = [target for target, member in members if member.isreg() and target.exists()]
                if there and not replace:
                    raise invalid(
                        f"'{there[0]}' is here already, and {len(there) - 1} more; go elsewhere, or say --replace to write over them"
                    )
                return _unpacked(tar, members)
        except tarfile.TarError as error:
            raise ServingError(Kind.UNAVAILABLE, f"{api.url} sent no archive: {error}") from None


def _inside(folder: Path, member: tarfile.TarInfo) -> Path:
    name = member.name.removeprefix("./") or "."
    return folder if name == "." else confine(folder, name, "the archive")


def _unpacked(tar: tarfile.TarFile, members: Sequence[tuple[Path, tarfile.TarInfo]]) -> int:
    count = 0
    for target, member in members:
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(member)
        assert source is not None  # of regular files there is one
        with target.open("wb") as file:
            while piece := source.read(_PIECE):
                file.write(piece)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
        count += 1
    return count


def _fetch(api: Api, path: str, file: IO[bytes]) -> None:
    with api.stream("GET", path) as reply:
        exact, about = (reply.headers.get(name) or "" for name in ("Content-Length", "x-floydhub-content-length"))
        with progress("Downloading", next((int(each) for each in (exact, about) if each.isdecimal()), 0)) as bar:
            while piece := reply.read(_PIECE):
                file.write(piece)
                bar.add(len(piece))
    if exact.isdecimal() and file.tell() != int(exact):  # Python's client takes an early end for the end
        raise ServingError(Kind.UNAVAILABLE, f"the connection to {api.url} broke after {size(file.tell())} of {size(int(exact))}")


def _object(content: bytes) -> Mapping[str, object]:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}


def _text(answer: Mapping[str, object] | Json, field: str) -> str:
    value = answer.get(field)
    if not isinstance(value, str) or not value:
        raise ServingError(Kind.UNAVAILABLE, f"the server does not say the {field}; is it a Dragoman server?")
    return value
