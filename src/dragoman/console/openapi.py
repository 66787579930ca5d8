"""The OpenAPI document of this server: our own API, and for each served model the routes of every dialect with its real names and shapes."""

from typing import Any
from urllib.parse import quote

from dragoman.console import bodies, predictions_api
from dragoman.core.errors import ServingError
from dragoman.core.samples import instances, v2_inputs
from dragoman.dialects import Services
from dragoman.serving.gateway import Entry
from dragoman.serving.root_model import default_entry

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
        "/v2/health": _get("health", "The server itself, whatever its models do (MLRun).", "Any"),
        "/v2/models/": _get("served", "The names of all models that answer (MLRun).", "Any"),
        "/dragoman/v1/openapi.json": _get("openapi", "This document, also at /openapi.json.", "Any"),
    }
    try:
        default = default_entry(services.gateway)
    except ServingError:
        default = None
    for entry in services.gateway.entries():
        paths.update(_inference(entry))
    for entry in services.gateway.entries():
        paths.update(predictions_api.model_paths(entry, at_root=entry is default))
    paths.update(predictions_api.shared_paths())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": services.info.name,
            "version": services.info.version,
            "description": "One model server, every client's protocol.",
        },
        "paths": paths,
        "components": {"schemas": {**_SCHEMAS, **predictions_api.SCHEMAS}},
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
    summary = f"Call model '{name}' version {entry.version}"
    example = v2_inputs(signature)
    v2_schema = {"anyOf": [bodies.v2_request(signature), bodies.mlrun_request()]}
    v2_content = {"schema": v2_schema, **({"example": {"inputs": example}} if example else {})}
    v2_answers = {"application/json": {"schema": {"anyOf": [bodies.v2_answer(), bodies.mlrun_answer()]}}, "application/octet-stream": {}}
    routes = {f"/v2/models/{where}/infer": _post(f"{summary} (Open Inference Protocol, or MLRun's plain lists).", v2_content, v2_answers)}
    if signature.whole:
        for operation in sorted(entry.servable.operations - {"infer"}):
            answers = {"application/json": {"schema": bodies.mlrun_answer(operation)}}
            text = f"{summary}: {operation} (MLRun)."
            routes[f"/v2/models/{where}/{quote(operation, safe='')}"] = _post(text, {"schema": bodies.mlrun_request(operation)}, answers)
    tfs_request = bodies.tfs_request(signature)
    if tfs_request is not None and entry.version.isdigit():  # TensorFlow Serving knows no other versions
        rows = instances(signature)
        tfs_content = {"schema": tfs_request, **({"example": {"instances": rows}} if rows else {})}
        tfs_answers = {"application/json": {"schema": bodies.tfs_answer()}}
        routes[f"/v1/models/{where}:predict"] = _post(f"{summary} (TensorFlow Serving).", tfs_content, tfs_answers)
        for verb, result in (("classify", bodies.LABELS), ("regress", {})):
            results = {"application/json": {"schema": bodies.tfs_results(result)}}
            text = f"Let model '{name}' version {entry.version} {verb} examples (TensorFlow Serving)."
            routes[f"/v1/models/{where}:{verb}"] = _post(text, {"schema": bodies.tfs_examples()}, results)
    return routes


def _post(summary: str, request: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": request}},
            "responses": {"200": {"description": "the outputs", "content": answers}, **_FAILURES},
        }
    }


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
