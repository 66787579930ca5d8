"""The page at `/docs`: the OpenAPI document for people. Plain HTML without scripts; every text is escaped. Called by routes.py."""

import json
import shlex
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
pre { overflow-x: auto; padding: .8rem; background: #8882; border-radius: .4rem; font-size: .85rem }
details { border-bottom: 1px solid #8885; padding: .4rem 0 } summary { cursor: pointer }
code { font-size: .95rem } .method { display: inline-block; min-width: 3.5rem; font-weight: 700 }
h2 { margin-top: 2rem; font-size: 1.2rem } h3 { font-size: .95rem; margin: .6rem 0 .2rem }
"""
_METHODS = ("get", "post", "put", "patch", "delete")
_OTHERS = "Server and inference protocols"


def docs_page(document: dict[str, Any], base: str) -> str:
    """The whole page. `base` is the address that the browser used."""
    groups: dict[str, list[str]] = {}
    for path, method, operation, parameters in _operations(document):
        group = (operation.get("tags") or [_OTHERS])[0]
        groups.setdefault(group, []).append(_entry(path, method, operation, parameters, base))
    sections = "".join(f"<h2>{escape(group)}</h2>{''.join(entries)}" for group, entries in groups.items())
    info, schemas = document["info"], document["components"]["schemas"]
    named = "".join(f"<details><summary><code>{escape(name)}</code></summary>{_json(each)}</details>" for name, each in schemas.items())
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"<p>{escape(info.get('description', ''))} <a href='/openapi.json'>OpenAPI document</a> · <a href='/'>start page</a></p>"
        f"<main>{sections}<h2>Schemas</h2>{named}</main></body></html>"
    )


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], list[dict[str, Any]]]]:
    """Path, method, operation and all of its parameters, in the order of the document."""
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method], [*item.get("parameters", ()), *item[method].get("parameters", ())]


def _entry(path: str, method: str, operation: dict[str, Any], parameters: list[dict[str, Any]], base: str) -> str:
    parts = [
        f"<summary><span class='method'>{method.upper()}</span> <code>{escape(path)}</code> {escape(operation.get('summary', ''))}</summary>"
    ]
    parts.append(f"<pre>{escape(_curl(path, method, operation, base))}</pre>")
    if parameters:
        parts.append(f"<h3>Parameters</h3><ul>{''.join(map(_parameter, parameters))}</ul>")
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h3>Body: {escape(media_type)}</h3>{_json(content.get('schema', {}))}")
    for status, answer in operation.get("responses", {}).items():
        parts.append(f"<h3>{escape(status)}: {escape(answer['description'])}</h3>")
        parts += [f"<p>{escape(kind)}</p>{_json(each['schema'])}" for kind, each in answer.get("content", {}).items() if each.get("schema")]
    return f"<details>{''.join(parts)}</details>"


def _parameter(parameter: dict[str, Any]) -> str:
    where = f"{parameter['in']}, required" if parameter.get("required") else parameter["in"]
    return f"<li><code>{escape(parameter['name'])}</code> ({escape(where)}) {escape(parameter.get('description', ''))}</li>"


def _curl(path: str, method: str, operation: dict[str, Any], base: str) -> str:
    """A request to copy; what stands in braces in a path is for the reader to fill in."""
    words = ["curl"] if method == "get" else ["curl", "-X", method.upper()]
    words.append(shlex.quote(base + path))
    content = operation.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        words += ["-F", "file=@FILE"]
    elif "application/json" in content:
        example = content["application/json"].get("example")
        words += ["-H", "'Content-Type: application/json'", "-d", shlex.quote(json.dumps(example)) if example is not None else "@FILE"]
    return " ".join(words)


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1))}</pre>"
