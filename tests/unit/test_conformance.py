"""docs/conformance.md is complete and well formed. That its tests ran and passed is checked at the end of `make test`."""

import ast
from pathlib import Path

from tests.conformance import rows

ROOT = Path(__file__).parents[2]
ROWS = rows((ROOT / "docs" / "conformance.md").read_text("utf-8"))
EXPECTED = {
    *(f"F{i}" for i in range(1, 29)),
    *(f"T{i}" for i in range(1, 38)),
    *(f"S{i}" for i in range(1, 13)),
    *(f"R{i}" for i in range(1, 15)),
    *(f"M{i}" for i in range(1, 33)),
    *(f"G{i}" for i in range(1, 21)),
    *(f"O{i}" for i in range(1, 33)),
}


def test_every_requirement_has_one_row() -> None:
    """No row of any sheet is missing, none stands twice."""
    ids = [row.id for row in ROWS]
    assert set(ids) == EXPECTED
    assert len(ids) == len(EXPECTED)


def test_every_status_is_proved_or_explained() -> None:
    """yes and differs name tests, no says why."""
    for row in ROWS:
        assert row.status in ("yes", "differs", "no"), row
        if row.status == "no":
            assert len(row.proof) > 10, row
        else:
            assert row.tests, row


def test_the_named_tests_exist() -> None:
    """Each is a function (or a method) of the file that is named."""
    known: dict[str, set[str]] = {}
    for row in ROWS:
        for test in row.tests:
            path, *names = test.split("::")
            if path not in known:
                tree = ast.parse((ROOT / path).read_text("utf-8"))
                known[path] = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
            assert set(names) <= known[path], test
