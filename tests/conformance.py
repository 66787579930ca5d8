"""Read docs/conformance.md: one table row per requirement, `| id | requirement | status | proof |`.

Status is yes, differs or no. A yes or differs names at least one test as `path::name` in backquotes; a no says why in words.
"""

import re
from dataclasses import dataclass

_ROW = re.compile(r"^\|\s*([FTSRMGO]\d+)\s*\|(.*)\|(.*)\|(.*)\|\s*$")
_TEST = re.compile(r"`(tests/[\w/.]+\.py::[\w:]+)`")


@dataclass(frozen=True)
class Row:
    id: str
    text: str
    status: str
    proof: str

    @property
    def tests(self) -> list[str]:
        return _TEST.findall(self.proof) if self.status in ("yes", "differs") else []


def rows(document: str) -> list[Row]:
    """Every requirement row of the document, in order."""
    found = []
    for line in document.splitlines():
        match = _ROW.match(line)
        if match:
            found.append(Row(match[1], match[2].strip(), match[3].strip(), match[4].strip()))
    return found
