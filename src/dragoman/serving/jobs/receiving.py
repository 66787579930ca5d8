"""One upload of code while it comes: the client's form is taken apart, hashed and written in threads. Called by code.py.

The form is that of floyd-cli (section 8 of its protocol): thousands of parts `code`, each a file, then `json`, what is said of them.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import orjson

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.multipart import Form, Part
from dragoman.serving.jobs.files import Files
from dragoman.serving.jobs.trees import CodeLimits, File, Tree, code_path
from dragoman.serving.settings import quoted


class Receiving:
    """What has come of one upload. Everything blocks; one call at a time. `close` in any case: it removes what was not kept."""

    def __init__(self, files: Files, boundary: str, limits: CodeLimits) -> None:
        self._files = files
        self._limits = limits
        self._form = Form(boundary)
        self._folder: Path | None = None
        self.tree = Tree()
        self.found: dict[str, Path] = {}
        """Digest -> where the content waits to be kept."""
        self.size = 0
        self._json: bytearray | None = None
        self._open: _Open | None = None

    def feed(self, data: bytes) -> None:
        """The next bytes of the body. Raises INVALID_INPUT, TOO_LARGE (what="body"), OSError."""
        for item in self._form.feed(data):
            if isinstance(item, Part):
                self._end()
                self._begin(item)
            elif self._open is None:
                self._take_json(item)
            else:
                self.size += len(item)
                if self.size > self._limits.max_bytes:
                    raise too_large(self._limits)
                self._open.write(item)

    def finish(self) -> dict[str, Any]:
        """After the last byte: what the client says of its files. Raises INVALID_INPUT when the form is not whole."""
        if not self._form.complete:
            raise invalid(f"the upload broke off after {len(self.tree.files)} files", "body")
        self._end()
        if self._json is None:
            raise invalid("the upload has no part 'json', which says what the code is", "body")
        try:
            said = orjson.loads(self._json)
        except orjson.JSONDecodeError as error:
            raise invalid(f"the part 'json' of the upload is not JSON: {error}", "body") from None
        if not isinstance(said, dict):
            raise invalid(f"the part 'json' of the upload must be an object, not {type(said).__name__}", "body")
        return said

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self, part: Part) -> None:
        if part.name == "json" and part.filename is None:
            if self._json is not None:
                raise invalid("the upload has the part 'json' twice", "body")
            self._json = bytearray()
        elif part.name == "code" and part.filename is not None:
            path = code_path(part.filename)
            self.tree.claim(path, self._limits)
            if self._folder is None:
                self._folder = self._files.coming()
            self._open = _Open(path, self._folder / str(len(self.tree.files)))
        else:
            raise invalid(f"the upload has a part {quoted(part.name)}; expected are files named 'code', and 'json'", "body")

    def _take_json(self, piece: bytes) -> None:
        assert self._json is not None, "content comes behind a part"
        self._json += piece
        if len(self._json) > self._limits.max_json:
            raise ServingError(
                Kind.TOO_LARGE, f"the part 'json' of the upload is larger than the limit of {self._limits.max_json} bytes", what="body"
            )

    def _end(self) -> None:
        """The file that was being written is whole."""
        if self._open is None:
            return
        done, self._open = self._open, None
        path, file = done.finish()
        self.tree.files[done.path] = file
        if file.sha256 in self.found:
            path.unlink()
        else:
            self.found[file.sha256] = path


class _Open:
    """A file that is being written."""

    def __init__(self, path: str, place: Path) -> None:
        self.path = path
        self._place = place
        self._digest = hashlib.sha256()
        self._size = 0
        self._begins = b""
        self._file = os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")

    def write(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._size += len(piece)
        if len(self._begins) < 2:
            self._begins += piece[:2]
        self._file.write(piece)

    def finish(self) -> tuple[Path, File]:
        """A script that says by `#!` what runs it may be started: the client does not say which files could be."""
        self._file.close()
        return self._place, File(self._digest.hexdigest(), self._size, self._begins[:2] == b"#!")

    def close(self) -> None:
        self._file.close()


def too_large(limits: CodeLimits) -> ServingError:
    return ServingError(
        Kind.TOO_LARGE, f"the code is larger than the limit of {limits.max_bytes} bytes; upload data as a data set", what="body"
    )
