"""Runs a snippet of cases.py and says what came of it in plain JSON. Used by the recorder under the original and by the test under ours."""

import enum
import json
import struct
import sys
import typing
import zlib
from pathlib import Path
from typing import Any


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PHOTO = b"".join(  # two pixels side by side, red and blue
    (
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0)),
        _chunk(b"IDAT", zlib.compress(b"\0\xff\0\0\0\0\xff")),
        _chunk(b"IEND", b""),
    )
)


def furnish(folder: Path) -> None:
    """Put in the files that the snippets use."""
    (folder / "photo.png").write_bytes(PHOTO)
    (folder / "notes.txt").write_text("words\n")
    (folder / "noise.bin").write_bytes(bytes(range(256)))


def plain(value: Any) -> Any:
    """A value of `.dict()` as JSON can hold it: enum members by name, other types beside their value."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, dict):
        return {(k if isinstance(k, str) else repr(k)): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, (int, float)):
        return {"type": type(value).__name__, "is": repr(value)}
    return repr(value)


def globals_of_main(**names: Any) -> None:
    """Give classes of a snippet a place where pickle finds them."""
    for name, value in names.items():
        value.__module__, value.__qualname__ = "__main__", name
        setattr(sys.modules["__main__"], name, value)


def _limited(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_otherwise))


def _otherwise(value: Any) -> Any:
    try:  # the original's schemas hold lazy references, some of which lead nowhere
        return dict(value) if hasattr(value, "keys") else repr(value)
    except Exception:
        return "UNRESOLVABLE"


def play(source: str, kit: Any, folder: Path) -> Any:
    """`{"result": ...}`, `{"errors": [...], "text": ...}` of a ValidationError, or `{"raises": [class names]}` of another exception."""
    names: dict[str, Any] = {name: getattr(kit, name) for name in kit.__all__}
    names |= {name: getattr(typing, name) for name in ("Any", "Dict", "List", "Literal", "Optional", "Tuple", "Union")}
    names |= {"tungstenkit": kit, "folder": folder, "plain": plain, "globals_of_main": globals_of_main, "__name__": "golden_case"}
    sys.modules["golden_case"] = module = type(sys)("golden_case")  # string annotations are looked up in a class's module
    module.__dict__.update(names)
    try:
        exec(compile(source, "case", "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        if hasattr(error, "errors"):
            return {"errors": _limited(error.errors()), "text": str(error).replace(str(folder), "FOLDER")}
        # ours may be more special than the original's
        base = next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")
        return {"raises": base, "so far": _limited(module.__dict__["result"])} if "result" in module.__dict__ else {"raises": base}
    finally:
        del sys.modules["golden_case"]
    return {"result": _limited(module.__dict__.get("result"))}
