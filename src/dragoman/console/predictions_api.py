"""The part of the OpenAPI document that describes Tungsten's routes, with the schemas of each served model. Called by openapi.py."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from dragoman.core.rows import output_schema, row_schema
from dragoman.core.samples import row_example
from dragoman.core.tensors import Signature
from dragoman.serving.gateway import Entry

Json = dict[str, Any]

_STATUS: Json = {"enum": ["pending", "running", "success", "failed"]}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_ID: Json = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "32 hexadecimal digits"}
_NAME: Json = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_MODEL: Json = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "description": "NAME or NAME:TAG"}
_WAIT: Json = {
    "name": "wait",
    "in": "query",
    "schema": {"type": "number", "minimum": 0, "maximum": 60},
    "description": "answer when the prediction has ended, but no later than after so many seconds",
}
_VERBOSE: Json = {
    "name": "verbose",
    "in": "query",
    "schema": {"enum": [0, 1]},
    "description": "1: with id, model, version, operation, error_kind, logs and times",
}
_WEBHOOK: Json = {
    "name": "webhook",
    "in": "query",
    "schema": {"type": "string", "format": "uri"},
    "description": "a URL to which the result is sent; also as the header X-Webhook-Url",
}

SCHEMAS: Json = {
    "Detail": {"type": "object", "required": ["detail"], "properties": {"error_kind": {"type": "string"}}},
    "Prediction": {
        "type": "object",
        "required": ["outputs", "status", "error_message"],
        "properties": {"outputs": {"type": ["array", "null"]}, "status": _STATUS, "error_message": _TEXT_OR_NULL},
    },
    "Demo": {
        "type": "object",
        "required": ["outputs", "demo_outputs", "logs", "status", "error_message"],
        "properties": {
            "outputs": {"type": ["array", "null"]},
            "demo_outputs": {"type": ["array", "null"]},
            "logs": _TEXT_OR_NULL,
            "status": _STATUS,
            "error_message": _TEXT_OR_NULL,
        },
    },
    "DemoRun": {
        "type": "object",
        "required": ["id", "status", "input", "output", "demo_output", "logs", "failure_reason"],
        "properties": {"id": {"type": "string"}, "status": _STATUS, "logs": {"type": "string"}, "failure_reason": {"type": "null"}},
    },
    "DemoMetadata": {
        "type": "object",
        "required": [
            "name",
            "avatar_url",
            "readme",
            "input_schema",
            "output_schema",
            "demo_output_schema",
            "input_filetypes",
            "output_filetypes",
            "demo_output_filetypes",
        ],
    },
    "Description": {
        "type": "object",
        "required": ["input_schema", "output_schema", "demo_output_schema"],
        "properties": {each: {"type": "object"} for each in ("input_schema", "output_schema", "demo_output_schema")},
    },
    "Upload": {"type": "object", "required": ["serving_url"], "properties": {"serving_url": {"type": "string", "format": "uri"}}},
}
_FAILURES: Json = {
    "default": {"description": "what went wrong", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Detail"}}}}
}


def shared_paths() -> Json:
    """The routes that are the same for every model: by id, and files."""
    paths: Json = {}
    for prefix, parameters in (("", []), ("/models/{model}", [_MODEL])):
        paths |= _by_id(f"{prefix}/predictions/{{id}}", [*parameters, _ID], "Prediction")
        paths |= _by_id(f"{prefix}/demo/{{id}}", [*parameters, _ID], "Demo")
    run = "/demo/predictions/{id}"
    paths[run] = {"get": _operation("A run of the demo.", _ref("DemoRun")), "parameters": [_ID]}
    paths[f"{run}/cancel"] = {"post": _operation("Cancel a run of the demo.", {"type": "null"}), "parameters": [_ID]}
    for folder in ("", "/demo"):
        form = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
        put = _operation("Keep a file for a while; its URL stands for it in inputs.", _ref("Upload"))
        put["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
        paths[f"{folder}/files"] = {"post": put}
        content: Json = {"*/*": {"schema": {}}}
        answers = {"200": {"description": "the file", "content": content}, **_FAILURES}
        get = {"summary": "A file that was uploaded, or that a demo made.", "responses": answers, "tags": ["Tungsten"]}
        paths[f"{folder}/files/{{name}}"] = {"get": get, "parameters": [_NAME]}
    return paths


def model_paths(entry: Entry, *, at_root: bool) -> Json:
    """The routes of one version below /models/NAME:VERSION, and at the root for the default model."""
    where = f"/models/{quote(entry.name, safe='')}:{quote(entry.version, safe='')}"
    paths = _calls(entry, where, f"model '{entry.name}' version {entry.version}")
    paths[where] = {"get": _operation(f"The schemas of model '{entry.name}' version {entry.version}.", _ref("Description"))}
    if at_root:
        paths |= _calls(entry, "", f"the default model, '{entry.name}'")
        request = _content(input_schema(entry.signatures[""]), row_example(entry.signatures[""]))
        paths["/demo/metadata"] = {"get": _operation("Name, schemas and kinds of files.", _ref("DemoMetadata"))}
        create = _operation(f"Run the demo of '{entry.name}' on one input.", _ref("DemoRun"))
        paths["/demo/predictions"] = {"post": {**create, "requestBody": {"required": True, "content": request}}}
    return paths


def input_schema(signature: Signature) -> Json:
    """One input row. What the original calls choices is what JSON Schema calls enum."""
    return _with_enums(row_schema(signature))


def _calls(entry: Entry, where: str, what: str) -> Json:
    signature = entry.signatures[""]
    row, sample = input_schema(signature), row_example(signature)
    body = {"required": True, "content": _content({"type": "array", "minItems": 1, "items": row}, None if sample is None else [sample])}
    created = {"type": "object", "required": ["prediction_id"], "properties": {"prediction_id": {"type": "string"}}}
    shown = {"type": "object", "required": ["demo_id"], "properties": {"demo_id": {"type": "string"}}}
    outputs = _nullable(output_schema(signature))
    result = {
        "type": "object",
        "required": ["outputs", "status", "error_message"],
        "properties": {
            "outputs": {"anyOf": [{"type": "array", "items": outputs}, {"type": "null"}]},
            "status": _STATUS,
            "error_message": _TEXT_OR_NULL,
        },
    }
    submit = {**_operation(f"Start a prediction of {what}.", created), "requestBody": body, "parameters": [_WEBHOOK]}
    return {
        f"{where}/predictions": {"post": submit},
        f"{where}/predict": {"post": {**_operation(f"Predict with {what} and wait for the outputs.", result), "requestBody": body}},
        f"{where}/demo": {"post": {**_operation(f"Start a demo of {what}.", shown), "requestBody": body}},
    }


def _by_id(path: str, parameters: list[Json], schema: str) -> Json:
    show = {**_operation("Status and outputs.", _ref(schema)), "parameters": [_WAIT, _VERBOSE]}
    ended = {"200": {"description": "cancelled, or it had ended before"}, **_FAILURES}
    cancel = {"summary": "Cancel; repeating it changes nothing.", "responses": ended, "tags": ["Tungsten"]}
    stream = {"200": {"description": "server-sent events", "content": {"text/event-stream": {}}}, **_FAILURES}
    events = {"summary": "Changes of status and log lines, until it has ended.", "responses": stream, "tags": ["Tungsten"]}
    return {
        path: {"get": show, "parameters": parameters},
        f"{path}/cancel": {"post": cancel, "get": cancel, "parameters": parameters},
        f"{path}/events": {"get": events, "parameters": parameters},
    }


def _operation(summary: str, schema: Json) -> Json:
    answers = {"200": {"description": summary, "content": {"application/json": {"schema": schema}}}, **_FAILURES}
    return {"summary": summary, "responses": answers, "tags": ["Tungsten"]}


def _content(schema: Json, sample: Any) -> Json:
    return {"application/json": {"schema": schema, **({} if sample is None else {"example": sample})}}


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _with_enums(schema: Mapping[str, Any]) -> Json:
    """The schema with `enum` beside each `choices`."""
    made = dict(schema)
    if "choices" in made:
        made["enum"] = made["choices"]
    if isinstance(made.get("properties"), Mapping):
        made["properties"] = {name: _with_enums(each) for name, each in made["properties"].items()}
    return made


def _nullable(schema: Any) -> Any:
    """The schema of an output as it is written: a number that is not finite becomes null."""
    if isinstance(schema, list):
        return [_nullable(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {key: _nullable(each) for key, each in schema.items()}
    if made.get("type") == "number":
        made["type"] = ["number", "null"]
    return made
