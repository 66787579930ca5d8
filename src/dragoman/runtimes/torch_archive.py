"""What a PyTorch file is, and whether opening it would run foreign code. Called by the PyTorch runtime before PyTorch sees the file.

An exported program (.pt2) is a graph in JSON and plain numbers, but PyTorch's reader also unpickles, evaluates expressions and resolves
functions by name, whatever the file says. So only files that need none of the dangerous ways pass. TorchScript is a language of its own.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

from dragoman.core.artifacts import TRUST
from dragoman.core.errors import Kind, ServingError, invalid

_LONGEST_EXPRESSION = 10_000
_LARGEST_JSON = 512 << 20
_CONTROL_FLOW = frozenset(
    {
        "cond",
        "map_impl",
        "while_loop",
        "scan",
        "associative_scan",
        "wrap_with_set_grad_enabled",
        "wrap_with_autocast",
        "auto_functionalized_v2",
    }
)
_OPERATORS = "abs add and_ eq floordiv ge getitem gt invert le lshift lt mod mul ne neg not_ or_ pos pow rshift sub truediv xor"
_FILE_OPERATORS = frozenset({"aten::from_file", "aten::save", "aten::load"})
_PURE = re.compile(r"math\.[a-z][a-z0-9]*|torch\._?sym_[a-z_]+")
_SCRIPT_FILES = re.compile(rb"\b(?:torch|ops\.aten)\.(?:from_file|save|load)\b")
_EXPRESSIONS = (
    "Symbol Integer Rational Float Add Mul Pow Mod Max Min Abs And Or Not Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan LessThan "
    "StrictGreaterThan GreaterThan Piecewise ExprCondPair floor ceiling sqrt exp log FloorDiv ModularIndexing Where PythonMod CleanDiv "
    "CeilDiv CeilToInt FloorToInt TruncToInt RoundToInt RoundDecimal TruncToFloat ToFloat IntTrueDiv FloatTrueDiv FloatPow PowByNatural "
    "LShift RShift Identity IsNonOverlappingAndDenseIndicator BitwiseFn_bitwise_and BitwiseFn_bitwise_or oo int_oo true false nan"
)
_EXPRESSION_NODES = (
    ast.Expression,
    ast.Call,
    ast.Name,
    ast.Load,
    ast.keyword,
    ast.Constant,
    ast.UnaryOp,
    ast.BinOp,
    ast.Compare,
    ast.BoolOp,
)
_EXPRESSION_SIGNS = (ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
_WORD = re.compile(r"[A-Za-z_]\w{0,63}|[-+]?[\d.]{1,64}(e[-+]?\d{1,4})?")


class Format(Enum):
    EXPORT = "export"
    SCRIPT = "script"


def examine(path: Path, model: str, *, trusted: bool) -> Format:
    """The format of a file. Raises ServingError for anything that is no exported program or TorchScript, or, unless `trusted`, is not safe."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(*PurePosixPath(info.filename).parts[1:]).as_posix() for info in archive.infolist()]
            kind = _kind(archive, names, path, model)
            if not trusted:
                if len(set(archive.namelist())) != len(names):
                    raise _Unsafe("it holds two members of one name")
                (_examine_export if kind is Format.EXPORT else _examine_script)(archive)
            return kind
    except _Unsafe as error:
        raise ServingError(
            Kind.UNSUPPORTED,
            f"the file '{path.name}' of model '{model}' could run foreign code when it is opened: {error}; {TRUST}",
            what="model",
        ) from None
    # NotImplementedError is what zipfile raises for a compression or a version that it does not know.
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, NotImplementedError) as error:
        with path.open("rb") as file:
            head = file.read(2)
        if head[:1] == b"\x80":
            raise _pickled(path, model) from None
        raise invalid(f"the file '{path.name}' of model '{model}' is damaged or is no PyTorch archive: {error}", what="model") from error


class _Unsafe(Exception):  # noqa: N818 # no error: it carries a finding to the caller
    """The file asks for something that could run foreign code."""


def _kind(archive: zipfile.ZipFile, names: list[str], path: Path, model: str) -> Format:
    if any(name.startswith("data/aotinductor/") for name in names):
        raise ServingError(
            Kind.UNSUPPORTED,
            f"the file '{path.name}' of model '{model}' is a package of compiled machine code (AOTInductor), which cannot be served: save the "
            "exported program itself with torch.export.save",
            what="model",
        )
    if "archive_format" in names or "serialized_exported_program.json" in archive.namelist():
        return Format.EXPORT
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return Format.SCRIPT
    if "data.pkl" in names:
        raise _pickled(path, model)
    raise ValueError("it holds neither an exported program nor TorchScript")


def _pickled(path: Path, model: str) -> ServingError:
    return ServingError(
        Kind.UNSUPPORTED,
        f"the file '{path.name}' of model '{model}' was written by torch.save: it holds weights or a pickled object, not a program that can be "
        "run without its source code; use torch.export.save, or torch.jit.save",
        what="model",
    )


def _examine_script(archive: zipfile.ZipFile) -> None:
    """TorchScript computes with tensors and cannot leave its interpreter, but some operators open files."""
    for name in archive.namelist():
        if "/code/" in name and name.endswith(".py") and (match := _SCRIPT_FILES.search(_read(archive, name))):
            raise _Unsafe(f"its code calls {match[0].decode()}, which opens files")


def _examine_export(archive: zipfile.ZipFile) -> None:
    for name in archive.namelist():
        inner = name.partition("/")[2]
        if name.endswith(".pt"):
            _examine_tensors(name, _read(archive, name))
        elif inner.startswith("models/") or name == "serialized_exported_program.json":
            _examine_program(json.loads(_read(archive, name)))
        elif inner.startswith(("data/weights/", "data/constants/")) and name.endswith(".json"):
            for payload in json.loads(_read(archive, name))["config"].values():
                path_name = str(payload.get("path_name"))
                if payload.get("use_pickle") or not path_name.startswith(("weight_", "tensor_")):
                    raise _Unsafe(f"'{path_name[:100]}' in it is a pickle")


def _examine_tensors(name: str, data: bytes) -> None:
    import torch

    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # whatever is wrong with it, PyTorch would try again with a full unpickler
        raise _Unsafe(f"'{name[-100:]}' in it is a pickle of more than tensors") from error


def _examine_program(program: Any) -> None:
    for key, value in _strings(program):
        if key in ("target", "as_operator"):
            _examine_target(value)
        elif key == "expr_str":
            _examine_expression(value)
        elif key in ("in_spec", "out_spec") and ("__enum__" in value or "default_factory" in value):
            raise _Unsafe("its arguments are objects of other modules")


def _strings(root: Any) -> Iterator[tuple[str, str]]:
    """Every text of a JSON document with the key under which it stands."""
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        key, value = stack.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, dict):
            stack += value.items()
        elif isinstance(value, list):
            stack += [(key, item) for item in value]


def _examine_target(target: str) -> None:
    import torch

    root, _, rest = target.partition(".")
    if (root == "_operator" and rest in _OPERATORS.split()) or _PURE.fullmatch(target):
        return
    parts = target.split(".")
    if parts[:2] == ["torch", "ops"] and len(parts) == 4 and parts[2] == "higher_order" and parts[3] in _CONTROL_FLOW:
        return
    if parts[:2] == ["torch", "ops"] and len(parts) == 5:
        found: Any = torch.ops
        for part in parts[2:]:
            found = getattr(found, part, None)
        if isinstance(found, torch._ops.OpOverload) and found._schema.name not in _FILE_OPERATORS:  # noqa: SLF001 # no public name
            return
    raise _Unsafe(f"it calls '{target[:100]}', which is no known operator")


def _examine_expression(text: str) -> None:
    """Expressions of dimensions go to sympify, which evaluates Python."""
    names = _EXPRESSIONS.split()
    try:
        if len(text) > _LONGEST_EXPRESSION:
            raise ValueError("too long")
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, MemoryError):
        raise _Unsafe(f"it evaluates '{text[:100]}'") from None
    for node in nodes:
        allowed = isinstance(node, _EXPRESSION_NODES + _EXPRESSION_SIGNS)
        if isinstance(node, ast.Name):
            allowed = node.id in names or re.fullmatch(r"[a-z]+\d+", node.id) is not None
        elif isinstance(node, ast.Call):
            allowed = isinstance(node.func, ast.Name) and node.func.id in names
        elif isinstance(node, ast.Constant):
            allowed = isinstance(node.value, int | float) or (isinstance(node.value, str) and _WORD.fullmatch(node.value) is not None)
        if not allowed:
            raise _Unsafe(f"it evaluates '{text[:100]}'")


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST_JSON:
        raise ValueError(f"'{name[-100:]}' is too large")
    return archive.read(name)
