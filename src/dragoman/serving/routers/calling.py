"""One call of one member, whatever its runtime: an event in, the body of its answer out, in the words of MLRun. Called by router.py.

A member is found by its name at each call, so that it may be loaded again, or come back, at any time. Members that take whole requests get the
event; those of tensors and rows get its inputs as they want them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dragoman.core.bodies import BY_NAME, INFER, by_name, features, plain_outputs, reply_of, reply_outputs, requested
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import EMPTY, InferRequest
from dragoman.core.tensors import Form, Rows, Signature, Tensors, TensorSpec, Value
from dragoman.serving.fanout import signature_of
from dragoman.serving.gateway import Entry, Gateway

DIALECT = "router"


@dataclass(frozen=True, slots=True)
class Member:
    """A model behind a router. `key` is how the operator calls it: its name, or name:version."""

    key: str
    name: str
    version: str = ""

    @classmethod
    def of(cls, key: str) -> "Member":
        name, _, version = key.partition(":")
        return cls(key, name, version)


def entry_of(gateway: Gateway, member: Member, router: str) -> tuple[Entry, Signature]:
    """Raises UNAVAILABLE or NOT_READY, naming both; UNSUPPORTED for a member without a default signature."""
    try:
        entry = gateway.find(member.name, member.version)
    except ServingError as error:
        raise named(error, member.key, router) from None
    signature = entry.signatures.get("")
    if signature is None:
        raise ServingError(Kind.UNSUPPORTED, f"member '{member.key}' of router '{router}' has no default signature")
    return entry, signature


def named(error: ServingError, member: str, router: str) -> ServingError:
    """An error of a member as one of its router: the model that the client named is there, it is a member that is not."""
    kind = Kind.UNAVAILABLE if error.kind is Kind.NOT_FOUND else error.kind
    text = f"member '{member}' of router '{router}': {error.message}"
    what = error.what if error.kind is Kind.UNSUPPORTED else ""
    return ServingError(kind, text, what=what, retry_after_s=error.retry_after_s, status=error.status)


def predictions_of(signature: Signature, column: str) -> TensorSpec | None:
    """The output of a model that is voted on: the one called `column`, else its first; None where it declares none."""
    return signature.output_by_name.get(column) or next(iter(signature.outputs), None)


async def ask(gateway: Gateway, member: Member, event: dict[str, Value], request: InferRequest, router: str, column: str = "") -> Value:
    """The body of a member's answer: that of its reply, or one with id, model_name and outputs.

    Of a model of tensors or rows with several outputs only the one called `column` is asked for, or its first, if there is a `column`. Raises
    ServingError, naming member and router.
    """
    entry, signature = entry_of(gateway, member, router)
    try:
        if signature.whole:
            part = _part(request, event, Rows([{**event, "body": _copied(event["body"])}]))
            reply = reply_of((await gateway.infer(entry, part)).outputs, entry.name)
            if reply.status >= 400:
                reply_outputs(reply, entry.name)  # raises what it says
            return reply.body
        outputs = await _plain(gateway, entry, signature, event, request, column)
    except ServingError as error:
        raise named(error, member.key, router) from error.__cause__
    answer = {"id": event["id"], "model_name": member.name, "outputs": outputs}
    return {**answer, "model_version": entry.version} if member.version else answer


async def _plain(
    gateway: Gateway, entry: Entry, signature: Signature, event: Mapping[str, Value], request: InferRequest, column: str
) -> Value:
    inputs = event["body"]["inputs"]
    if request.operation in BY_NAME:
        inputs = by_name(inputs, features(signature), entry.name)
    operation = "predict" if request.operation in INFER else request.operation
    name = signature_of(entry.signatures, operation)
    signature = entry.signatures[name]
    part = _part(request, event, requested(inputs, signature, entry.name))
    part.operation, part.signature = operation, name
    chosen = predictions_of(signature, column) if column else None
    if signature.form is Form.ROWS:
        rows = await gateway.infer_each(entry, part)
        if chosen is not None:
            rows = [row.get(chosen.name, row) if isinstance(row, dict) else row for row in rows]
        return plain_outputs(Rows(rows), signature, entry.name)
    if chosen is not None:
        part.outputs = (chosen.name,)
    return plain_outputs((await gateway.infer(entry, part)).outputs, signature, entry.name)


def _part(request: InferRequest, event: Mapping[str, Value], inputs: Tensors | Rows) -> InferRequest:
    given = event["body"].get("parameters")
    return InferRequest(
        inputs,
        operation=request.operation,
        parameters=given or EMPTY,
        id=request.id,
        deadline=request.deadline,
        priority=request.priority,
        caller=request.caller,
        dialect=DIALECT,
    )


def _copied(value: Value) -> Value:
    """Lists and objects anew: a member owns what it gets, and may change it."""
    if type(value) is list:
        return [_copied(item) for item in value]
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return value
