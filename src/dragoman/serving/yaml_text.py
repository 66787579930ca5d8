"""A YAML document that is an object, read within bounds: from files of models and from request bodies. Blocking, short.

Aliases, anchors and tags are refused: they are how small documents grow large ones, and nothing that is read here needs them.
"""

from collections.abc import Mapping
from typing import Any

from dragoman.core.errors import ServingError, invalid

_DEEPEST = 40
_MOST_NODES = 50_000


def mapping(content: bytes, source: str) -> Mapping[str, Any]:
    """The document. Raises INVALID_INPUT, whose message begins with `source` and names the line."""
    import yaml

    # the C reader, where it is there, is ten times faster on documents of thousands of lines
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = nodes = 0
    try:
        text = content.decode()
        for event in yaml.parse(text, Loader=loader):
            nodes += 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise invalid(f"{source}: aliases, anchors and tags are not read, line {event.start_mark.line + 1} has one")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > _DEEPEST or nodes > _MOST_NODES:
                raise invalid(f"{source}: nested deeper than {_DEEPEST} levels, or more than {_MOST_NODES} values")
        document = yaml.load(text, Loader=loader)  # noqa: S506 # a safe loader either way
    except ServingError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: bytes that are no text, dates and numbers that are none
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place is not None else ""
        raise invalid(f"{source}: this is no YAML{where}") from None
    if not isinstance(document, Mapping):
        raise invalid(f"{source}: expected an object at the top, not {_kind(document)}")
    return document


def _kind(value: object) -> str:
    kinds = {type(None): "nothing", bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return kinds.get(type(value), "something else")
