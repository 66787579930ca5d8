"""Files written in one step, so that no reader ever sees half of one. Blocks; called wherever a file is replaced that somebody may be reading."""

import contextlib
import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes | str, *, mode: int = 0o600, flush: bool = False, changed_ns: int | None = None) -> None:
    """Write a file, or leave what was there as it is. Text is written as UTF-8. Raises OSError.

    With `flush` the content is on the disk when it gets its name: after a failure of the machine, too, the file is whole.
    `changed_ns`: the time of change that it gets.
    """
    data = content.encode() if isinstance(content, str) else content
    draft = path.with_name(f".{secrets.token_hex(8)}.new")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        if changed_ns is not None:
            os.utime(draft, ns=(changed_ns, changed_ns))
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
