"""What requests to Gradient's API hold: bodies, queries, and which deployments a list shall have. Called by the other modules of this folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from dragoman.core.errors import invalid
from dragoman.dialects import Request
from dragoman.dialects.documents import json_object, shown
from dragoman.serving.gradient.logs import MOST_ROWS
from dragoman.serving.gradient.records import Record, State

LARGEST = 1 << 20
"""Bytes of a body, also when it is inflated: what is told here is a few names and texts."""
_LONGEST_QUERY = 16 << 10
_STATES = tuple(state.value for state in State)
_COMPARED = ("name", "modelId", "projectId", "deploymentType", "apiType", "clusterId")
"""Fields by which a list may be narrowed, beside id, state and tags."""


async def json_body(request: Request) -> dict[str, Any]:
    """The object that a body is, {} for an empty one. Raises INVALID_INPUT, TOO_LARGE."""
    return await json_object(request, LARGEST)


def query(request: Request) -> dict[str, list[str]]:
    """The parameters behind the question mark, with all their values. Raises INVALID_INPUT."""
    if len(request.query) > _LONGEST_QUERY:
        raise invalid(f"the query is longer than {_LONGEST_QUERY} bytes", "query")
    try:
        return parse_qs(request.query.decode(), errors="strict")
    except ValueError:
        raise invalid("the query is not UTF-8", "query") from None


def first(asked: Mapping[str, list[str]], name: str) -> str:
    """The first value of a parameter, "" without one."""
    return asked.get(name, [""])[0]


def window(asked: Mapping[str, list[str]]) -> tuple[int, int]:
    """How many lines of a log to leave out, and how many to show. Raises INVALID_INPUT."""
    return _number(asked, "line", 0), _number(asked, "limit", MOST_ROWS)


def _number(asked: Mapping[str, list[str]], name: str, usual: int) -> int:
    text = first(asked, name)
    if not text:
        return usual
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise invalid(f"{name} is {shown(text)}, expected a whole number", name)
    return int(text)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a list of deployments is narrowed to. Empty means any; of `tags` one is enough."""

    fields: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    state: str = ""
    tags: tuple[str, ...] = ()

    @classmethod
    def of_query(cls, asked: Mapping[str, list[str]]) -> "Filter":
        fields = {name: asked[name][0] for name in _COMPARED if name in asked}
        return cls(fields, first(asked, "id"), _state(first(asked, "state")), tuple(asked.get("tag", ())))

    @classmethod
    def of_body(cls, body: Mapping[str, Any]) -> "Filter":
        """As the original's client writes it: {"filter": {"where": {"and": [{field: value, ...}, ...]}}, "tagFilter": [...]}.

        Raises INVALID_INPUT for other conditions: they would be wished in vain.
        """
        asked: dict[str, str] = {}
        for condition in _conditions(body.get("filter")):
            for name, value in condition.items():
                if name not in (*_COMPARED, "id", "state") or not isinstance(value, str):
                    raise invalid(
                        f"the filter has {shown(name)}: {shown(value)}, expected texts of id, state, {', '.join(_COMPARED)}", "filter"
                    )
                asked[name] = value
        tags = body.get("tagFilter") or []
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise invalid(f"tagFilter is {shown(tags)}, expected a list of texts", "tagFilter")
        return cls(asked, asked.pop("id", ""), _state(asked.pop("state", "")), tuple(tags))

    def record(self, record: Record) -> bool:
        """Whether a deployment is among them, in whatever state it is."""
        if self.id not in ("", record.id) or (self.tags and not set(self.tags) & set(record.tags)):
            return False
        return all(record.get(name) == value for name, value in self.fields.items())


def _conditions(given: object) -> list[Mapping[str, Any]]:
    if given is None:
        return []
    where = given.get("where") if isinstance(given, dict) else given
    conditions = where.get("and", [where]) if isinstance(where, dict) else where if where is not None else []
    if not isinstance(conditions, list) or not all(isinstance(each, dict) for each in conditions):
        raise invalid(f'the filter is {shown(given)}, expected {{"where": {{"and": [{{field: text}}]}}}}', "filter")
    return conditions


def _state(text: str) -> str:
    found = next((state for state in _STATES if state.lower() == text.lower()), "")
    if text and not found:
        raise invalid(f"state is {shown(text)}, expected one of {', '.join(_STATES)}", "state")
    return found
