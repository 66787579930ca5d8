"""The model that is meant when a client names none, and how a model describes itself. Called by the console and by the Tungsten dialect."""

from collections.abc import Mapping
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.rows import output_schema, row_schema
from dragoman.core.tensors import Signature
from dragoman.serving.gateway import Entry, Gateway

DEMO = "@demo"
"""The signature of a rows model whose demo answers something of its own."""


def default_entry(gateway: Gateway) -> Entry:
    """The first model of the command line that can serve, else the first one there is. Costs one or two lookups.

    Raises NOT_READY while that model loads: a client that names none must not reach another one just because it loads faster. UNAVAILABLE
    with the reason when what was named cannot serve and there is nothing else, NOT_FOUND when there is nothing at all.
    """
    reason: ServingError | None = None
    for name in gateway.named:
        try:
            return gateway.find(name)
        except ServingError as error:
            if error.kind is Kind.NOT_READY or (gateway.starting and error.kind is Kind.NOT_FOUND):
                raise _loading(name) from None
            reason = reason or error
    others = gateway.entries()
    if others:
        return gateway.find(others[0].name)
    if gateway.starting:
        raise ServingError(Kind.NOT_READY, "the server is starting: its models are not known yet", what="model", retry_after_s=1.0)
    raise reason or ServingError(Kind.NOT_FOUND, "this server serves no model yet", what="model")


def _loading(name: str) -> ServingError:
    return ServingError(Kind.NOT_READY, f"model '{name}' is loading", what="model", retry_after_s=1.0)


def description(signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """The three JSON Schemas of one row, as Tungsten's `GET /` has them."""
    demo = signatures.get(DEMO)
    shown = demo.output_schema if demo is not None else None
    outputs = output_schema(signatures[""])
    return {
        "input_schema": row_schema(signatures[""]),
        "output_schema": outputs,
        "demo_output_schema": shown["properties"]["demo_output"] if shown is not None else outputs,
    }
