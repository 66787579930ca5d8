"""What a Python file says about its models, read without running it: the literal arguments of `@define_model(...)`, and MLRun's classes.

The server must know the batch size and the packages of a model before any process for it exists, and user code never runs in the server
itself. Called by python_models.py. What is not written as a literal is not guessed: it is named in `Declared.unknown`.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dragoman.core.authoring import USUAL_SIZE
from dragoman.core.errors import invalid
from dragoman.core.model import EMPTY
from dragoman.serving.paths import read_bounded

T = TypeVar("T")
_LARGEST_SOURCE = 4 << 20
_LARGEST_NUMBER = 1 << 53
"""Arithmetic on literals stops here: `10 ** 10 ** 10` must not be computed."""
_PACKAGE = "tungstenkit"
_DECORATOR = "define_model"
_MLRUN = "V2ModelServer"
"""The base class of MLRun's models."""
_SUMS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


@dataclass(frozen=True, slots=True)
class Declared:
    """One decorated class: its name, the arguments that are literals, and the names of those that are not ("**" for unpacked ones)."""

    name: str
    arguments: Mapping[str, Any] = EMPTY
    unknown: tuple[str, ...] = ()
    post_build: bool = False
    """Whether its own body has one."""


class _NotLiteralError(Exception):
    """The expression needs running code."""


def declarations(path: Path) -> tuple[Declared, ...]:
    """The decorated classes of a file, in order. Raises INVALID_INPUT when it cannot be read or is not Python."""
    return _learned(path, _tungsten)


def plain_batch(path: Path) -> int | None:
    """How many rows the `predict` of a plain model takes at once: what @batched says, else 1; None where only running it could tell.

    Raises INVALID_INPUT as `declarations` does.
    """
    return _learned(path, _batch)


def mlrun_classes(path: Path) -> tuple[str, ...]:
    """The classes of a file that are derived from MLRun's V2ModelServer, directly or by way of others of the file, in order.

    Raises INVALID_INPUT as `declarations` does.
    """
    return _learned(path, _mlrun)


def _learned(path: Path, learn: Callable[[ast.Module], T]) -> T:
    source = read_bounded(path, _LARGEST_SOURCE, f"the Python file {path.name}")
    try:
        return learn(ast.parse(source, path.name))
    except SyntaxError as error:
        raise invalid(f"{path.name}, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise invalid(f"{path.name} cannot be read as Python: {error}") from None


def _tungsten(tree: ast.Module) -> tuple[Declared, ...]:
    modules, functions = _names_of_the_decorator(tree)
    literals = _literals(tree)
    return tuple(_read(node, modules, functions, literals) for node in _classes(tree) if _call(node, modules, functions) is not None)


def _mlrun(tree: ast.Module) -> tuple[str, ...]:
    bases = {_MLRUN}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            theirs = (node.module or "").partition(".")[0] == "mlrun"  # MLRun has ready classes for frameworks, too
            bases |= {
                alias.asname or alias.name
                for alias in node.names
                if alias.name == _MLRUN or (theirs and alias.name.endswith(_MLRUN.removeprefix("V2")))
            }
    found: list[str] = []
    for node in _classes(tree):
        for base in node.bases:
            match base:
                case ast.Name(id=name) if name in bases:
                    found.append(node.name)
                    bases.add(node.name)
                    break
                case ast.Attribute(attr=name) if name == _MLRUN:
                    found.append(node.name)
                    bases.add(node.name)
                    break
    return tuple(found)


def _batch(tree: ast.Module) -> int | None:
    sizes: set[int | None] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name="predict", decorator_list=decorators):
                sizes |= {_batched_size(each, _literals(tree)) for each in decorators} or {1}
            case ast.Name(id="signature", ctx=ast.Store()):  # of tensors: their own rules
                sizes.add(None)
    return sizes.pop() if len(sizes) == 1 else None


def _batched_size(decorator: ast.expr, literals: Mapping[str, ast.expr]) -> int | None:
    match decorator:
        case ast.Name(id="batched") | ast.Attribute(attr="batched"):
            return USUAL_SIZE
        case ast.Call(func=ast.Name(id="batched") | ast.Attribute(attr="batched"), args=[], keywords=[]):
            return USUAL_SIZE
        case ast.Call(
            func=ast.Name(id="batched") | ast.Attribute(attr="batched"), args=[], keywords=[ast.keyword(arg="max_size", value=size)]
        ):
            try:
                value = _value(size, literals)
            except _NotLiteralError:
                return None
            return value if isinstance(value, int) and value > 0 else None
        case ast.Name(id="staticmethod" | "classmethod"):
            return 1
    return None


def _names_of_the_decorator(tree: ast.Module) -> tuple[set[str], set[str]]:
    """What the package and the decorator are called in this file."""
    modules: set[str] = set()
    functions: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == _PACKAGE}
        elif isinstance(node, ast.ImportFrom) and node.module == _PACKAGE and not node.level:
            functions |= {alias.asname or _DECORATOR for alias in node.names if alias.name in (_DECORATOR, "*")}
    return modules, functions


def _classes(node: ast.AST) -> Iterator[ast.ClassDef]:
    """The classes of a module, also those under an `if` or `try`; not those inside of functions and classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield child
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.expr):
            yield from _classes(child)


def _call(node: ast.ClassDef, modules: set[str], functions: set[str]) -> ast.Call | None:
    for decorator in node.decorator_list:
        if not isinstance(decorator, ast.Call):
            continue
        match decorator.func:
            case ast.Name(id=name) if name in functions:
                return decorator
            case ast.Attribute(value=ast.Name(id=module), attr=name) if name == _DECORATOR and module in modules:
                return decorator
    return None


def _read(node: ast.ClassDef, modules: set[str], functions: set[str], literals: Mapping[str, ast.expr]) -> Declared:
    call = _call(node, modules, functions)
    assert call is not None
    arguments: dict[str, Any] = {}
    unknown: list[str] = []
    for keyword in call.keywords:
        if keyword.arg is None:
            unknown.append("**")
        elif keyword.arg not in ("input", "output", "demo_output"):  # classes, which say nothing here
            try:
                arguments[keyword.arg] = _value(keyword.value, literals)
            except _NotLiteralError:
                unknown.append(keyword.arg)
    own = any(isinstance(each, ast.FunctionDef) and each.name == "post_build" for each in node.body)
    return Declared(node.name, arguments, tuple(unknown), own)


def _literals(tree: ast.Module) -> dict[str, ast.expr]:
    """Names of the module that are bound once and for all -> what they are bound to."""
    changed: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Global(names=names):
                changed.update(names)
            case ast.Attribute(value=ast.Name(id=name)) | ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                changed.add(name)  # a list may have been appended to
    once: dict[str, ast.expr] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                once[name] = value
    counts: dict[str, int] = {}
    for name in _stores(tree):
        counts[name] = counts.get(name, 0) + 1
    return {name: value for name, value in once.items() if counts.get(name) == 1 and name not in changed}


def _stores(node: ast.AST) -> Iterator[str]:
    """Every binding of a name in the module's own scope."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name.split(".")[0] for alias in aliases)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.Lambda():
                pass
            case _:
                yield from _stores(child)


def _value(node: ast.expr, literals: Mapping[str, ast.expr], depth: int = 0) -> Any:
    """The value of a literal expression: constants, lists, tuples, dicts, names of such, and sums of them."""
    if depth > 50:
        raise _NotLiteralError

    def inner(child: ast.expr) -> Any:
        return _value(child, literals, depth + 1)

    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name) if name in literals:
            return inner(literals[name])
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [inner(item) for item in items]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {inner(key): inner(value) for key, value in zip(keys, values, strict=True) if key is not None}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            number = inner(operand)
            if isinstance(number, int | float):
                return -number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SUMS:
            return _combined(op, inner(left), inner(right))
    raise _NotLiteralError


def _combined(op: ast.operator, left: Any, right: Any) -> Any:
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if numbers or (isinstance(op, ast.Add) and type(left) is type(right) and isinstance(left, str | list)):
        result = _SUMS[type(op)](left, right)
        if not numbers or abs(result) <= _LARGEST_NUMBER:
            return result
    raise _NotLiteralError
