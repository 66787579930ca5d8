"""What every route of this dialect does with the rest of the server: find the model, check the rows, hand them over, look predictions up."""

import re
from typing import Any

from dragoman.core.binary_bodies import file_inputs, is_binary
from dragoman.core.bodies import named_point
from dragoman.core.errors import Kind, ServingError
from dragoman.core.rows import checked
from dragoman.core.tensors import Blob, Rows, Signature, Value
from dragoman.dialects import Request
from dragoman.dialects.tungsten import files, reading
from dragoman.dialects.tungsten.errors import of_one
from dragoman.serving.gateway import Entry, Gateway
from dragoman.serving.predictions import Predictions, View
from dragoman.serving.root_model import default_entry
from dragoman.serving.uploads import Uploads

DIALECT = "tungsten"
_ID = re.compile(r"[0-9a-f]{32}\Z")


class Calls:
    def __init__(self, gateway: Gateway, predictions: Predictions, uploads: Uploads, max_inflated: int) -> None:
        self.gateway = gateway
        self.predictions = predictions
        self.uploads = uploads
        self._max_inflated = max_inflated

    async def rows(self, request: Request, name: str, tag: str, *, single: bool = False) -> tuple[Entry, list[Any]]:
        """The model that is asked and the rows of the body, checked: a list of them, or with `single` one that is no list."""
        if is_binary(request.header(b"content-type")):
            entry = find(self.gateway, name, tag)
            body = await self._file(request, entry.signatures[""], entry.name)
        else:
            body = await reading.document(request, self._max_inflated)
            if single:
                body = [body]
        entry = find(self.gateway, name, tag)
        if entry.signatures[""].whole and isinstance(body, list):
            body = [_named(point, entry.signatures[""]) for point in body]
        if entry.signatures[""].input_files:
            body = await files.with_uploads(body, entry.signatures[""], request, self.uploaded)
            entry = find(self.gateway, name, tag)
        try:
            return entry, checked(body, entry.signatures[""], entry.name)
        except ServingError as error:
            raise of_one(error) if single else error from None

    async def _file(self, request: Request, signature: Signature, model: str) -> list[Any]:
        """The one row of a body that is a file itself; for a model that takes no single file, what the original says of other types."""
        data = await reading.content(request, self._max_inflated)
        try:
            inputs = file_inputs(data, request.header(b"content-type"), signature, model)
        except ServingError:
            inputs = None
        return inputs.items if isinstance(inputs, Rows) else await reading.document(request, self._max_inflated)

    async def submit(self, entry: Entry, rows: list[Any], operation: str, request: Request, webhook: str = "") -> str:
        """Accept a prediction; it is durable when its id is here. The default demo of a model shows its outputs, so it is a prediction."""
        if operation not in entry.servable.operations:
            operation = "predict"
        return await self.predictions.submit(entry, rows, operation=operation, webhook=webhook, caller=request.caller, dialect=DIALECT)

    async def view(self, name: str, prediction_id: str, unknown: str = "{}") -> View:
        """A prediction of this model (of any, for the root). Raises NOT_FOUND in the original's words."""
        if _ID.match(prediction_id):
            try:
                view = await self.predictions.get(prediction_id)
            except ServingError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
            else:
                if not name or view.model == name:
                    return view
        raise ServingError(Kind.NOT_FOUND, unknown.format(prediction_id[:200]), what="prediction")

    async def uploaded(self, name: str) -> Blob:
        """An uploaded file. Raises NOT_FOUND in the original's words."""
        try:
            return await self.uploads.get(name)
        except ServingError as error:
            raise files.not_found() if error.kind is Kind.NOT_FOUND else error from None


def _named(point: Value, signature: Signature) -> Value:
    """A data point of an MLRun class as a row: its features may come as a list, and its only one bare."""
    named = named_point(point, signature)
    if isinstance(named, dict) or named is None or len(signature.inputs) != 1:
        return named
    return {signature.inputs[0].name: named}


def find(gateway: Gateway, name: str, tag: str) -> Entry:
    """The entry of a name and a tag, which is a version or else a label; without a name the default model's."""
    if not name:
        return default_entry(gateway)
    if not tag:
        return gateway.find(name)
    try:
        return gateway.find(name, tag)
    except ServingError as error:
        if error.what != "version":
            raise
    try:
        return gateway.find(name, label=tag)
    except ServingError as error:
        if error.what != "label":
            raise
    known = ", ".join([*(status.version for status in gateway.statuses(name)), *gateway.labels(name)])
    raise ServingError(Kind.NOT_FOUND, f"model '{name}' has no version or label '{tag}'; it has {known}", what="version")
