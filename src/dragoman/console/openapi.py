"""The OpenAPI document of this server: our own API, and for each served model its inference routes with its real names and shapes."""

from typing import Any
from urllib.parse import quote

from dragoman.core.samples import schema, v2_inputs
from dragoman.dialects import Services
from dragoman.serving.gateway import Entry

_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_FAILURES = {
    "default": {"description": "what went wrong", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
}


def document(services: Services) -> dict[str, Any]:
    """OpenAPI 3.1, made from what is served now."""
    paths: dict[str, Any] = {
        "/dragoman/v1/status": _get("status", "The server and every model version that it knows.", "Status"),
        "/dragoman/v1/models": _get("models", "Every model version that the server knows.", "Models"),
        "/dragoman/v1/models/{name}": {
            **_get("model", "One model: versions, labels, signatures and an example input.", "Model"),
            "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
        },
        "/dragoman/v1/openapi.json": _get("openapi", "This document.", "Any"),
    }
    for entry in services.gateway.entries():
        paths.update(_inference(entry))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": services.info.name,
            "version": services.info.version,
            "description": "One model server, every client's protocol.",
        },
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _get(operation: str, summary: str, answer: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}}
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "responses": {"200": {"description": summary, "content": content}, **_FAILURES},
        }
    }


def _inference(entry: Entry) -> dict[str, Any]:
    """The inference routes of one version, each with its request body."""
    signature = entry.signatures[""]
    name, where = entry.name, f"{quote(entry.name, safe='')}/versions/{quote(entry.version, safe='')}"
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string", "enum": [s.name for s in signature.inputs]} if signature.inputs else {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string"},
            "data": {},
            "parameters": {"type": "object"},
        },
    }
    v2_body: dict[str, Any] = {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array", "items": tensor}}}
    example = v2_inputs(signature)
    v2_content: dict[str, Any] = {"schema": v2_body, **({"example": {"inputs": example}} if example else {})}
    row = schema(signature.inputs, batch=signature.batch)
    tfs_body = {"type": "object", "properties": {"instances": {"type": "array", "items": {"anyOf": [row, {}]}}, "inputs": {}}}
    summary = f"Call model '{name}' version {entry.version}"
    routes = {f"/v2/models/{where}/infer": _post(f"{summary} (Open Inference Protocol).", v2_content)}
    if entry.version.isdigit():  # TensorFlow Serving knows no other versions
        routes[f"/v1/models/{where}:predict"] = _post(f"{summary} (TensorFlow Serving).", {"schema": tfs_body})
    return routes


def _post(summary: str, content: dict[str, Any]) -> dict[str, Any]:
    answer = {"200": {"description": "the outputs", "content": {"application/json": {"schema": {"type": "object"}}}}, **_FAILURES}
    return {"post": {"summary": summary, "requestBody": {"required": True, "content": {"application/json": content}}, "responses": answer}}


_VERSION = {
    "type": "object",
    "required": ["name", "version", "state", "reason", "platform", "since"],
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "state": {"type": "string", "enum": ["loading", "ready", "failed", "draining", "gone"]},
        "reason": {"type": "string"},
        "platform": {"type": "string"},
        "since": {"type": "number", "description": "seconds since the epoch"},
        "runtime": {"type": "string"},
        "max_batch_size": {"type": "integer"},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}
_SCHEMAS: dict[str, Any] = {
    "Error": _ERROR,
    "Any": {},
    "Version": _VERSION,
    "Models": {"type": "object", "required": ["models"], "properties": {"models": {"type": "array", "items": _VERSION}}},
    "Status": {
        "type": "object",
        "required": ["name", "version", "ready", "draining", "models"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "ready": {"type": "boolean"},
            "draining": {"type": "boolean"},
            "models": {"type": "array", "items": _VERSION},
        },
    },
    "Model": {
        "type": "object",
        "required": ["name", "versions", "labels"],
        "properties": {
            "name": {"type": "string"},
            "versions": {"type": "array", "items": _VERSION},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "signatures": {"type": "object"},
        },
    },
}
