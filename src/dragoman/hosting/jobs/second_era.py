"""Whether a program that ended at once is a second-era one: a file that defines a WSGI object `app` and leaves serving it to the platform.

Looks at the text only, since a program may do anything when it is imported. wsgi.py then serves it.
"""

from __future__ import annotations

import ast
import os
from typing import Iterator

_LARGEST = 4 << 20
NAME = "app"


def defines_app(path: str) -> bool:
    """Whether its module has a global `app`, other than below `if __name__ == "__main__"`. False for what cannot be read or is no Python."""
    try:
        if os.stat(path).st_size > _LARGEST:
            return False
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
        return any(NAME in _bound(statement) for statement in _global(tree))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def serving(python: str, file: str) -> list[str]:
    """The command that serves the `app` of a file."""
    return [python, os.path.join(os.path.dirname(os.path.abspath(__file__)), "wsgi.py"), file]


def _global(node: ast.AST) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _asks_for_main(child.test):
            for other in child.orelse:
                yield other
                yield from _global(other)
            continue
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)):
            yield from _global(child)


def _asks_for_main(test: ast.expr) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(test)) and any(
        isinstance(n, ast.Constant) and n.value == "__main__" for n in ast.walk(test)
    )


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name for alias in statement.names}
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    elif isinstance(statement, (ast.With, ast.AsyncWith)):
        targets = [item.optional_vars for item in statement.items if item.optional_vars is not None]
    return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
