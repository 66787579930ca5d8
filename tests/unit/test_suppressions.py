"""What is switched off says why: every suppressed check has its reason beside it, every skipped test too, and nothing is left to do later."""

import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

_SUPPRESSION = re.compile(r"#\s*(?:noqa|type:\s*ignore)\b(?P<rest>.*)")
_REASONED = re.compile(r"(?:\[[a-z-]+(?:,\s*[a-z-]+)*\]|:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)\s+#\s*\S.{6,}")
_SKIP = re.compile(r"(?:pytest|mark)\.(?:skip|skipif|xfail|importorskip)\b")


def comments(path: Path) -> list[tuple[int, str]]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def test_suppressions_name_their_rule_and_their_reason() -> None:
    """`# noqa: RULE # reason`, `# type: ignore[code] # reason`; and no comment puts work off."""
    for path in SOURCES:
        for line, text in comments(path):
            found = _SUPPRESSION.search(text)
            assert found is None or _REASONED.match(found["rest"]), f"{path.name}:{line}: {text}"
            assert not re.search(r"\b(TODO|FIXME|XXX)\b", text), f"{path.name}:{line}: {text}"


def test_skipped_tests_give_their_reason() -> None:
    """In the mark itself, so that the report of a run shows it."""
    for path in TESTS:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if _SKIP.search(line) and path != Path(__file__):
                assert re.search(r"reason=\"\w[^\"]{10,}\"", line), f"{path.name}:{number}: {line.strip()}"
