"""ModelServer: predictions on a running server, by programs. Files go as data URIs and come back as paths.

`predicted` is the whole of one call without the transport, so that a model in this process (models.py) has the same rules.
"""

import asyncio
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from io import BufferedIOBase, RawIOBase, TextIOBase
from pathlib import Path
from typing import Any, TypeAlias
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from ._base import BaseIO
from ._files import Binary, File, content_of
from ._uris import data_uri, download, media_type_of, parse_data_uri, scheme_of, suffix_of
from .exceptions import InvalidURL, ModelClientError, PredictionFailure

StrPath: TypeAlias = str | os.PathLike[str]
Inputs: TypeAlias = dict[str, Any] | BaseIO | list[Any]
"""One input, or a list of several."""
Outputs: TypeAlias = Any
"""A dict for a dict, a list for a list."""


@dataclass(frozen=True, slots=True)
class Line:
    """A way to a server. `call` takes method, path and JSON payload and gives status and body."""

    name: str
    """For messages."""
    url: str
    call: Callable[[str, str, Any], tuple[int, bytes]]

    def ask(self, method: str, path: str, payload: Any = None) -> Any:
        """The document of a good answer. Raises ModelClientError for any other."""
        status, body = self.call(method, path, payload)
        if not 200 <= status < 300:
            raise self._refused(path, status, body, f"the {self.name} refused")
        try:
            return json.loads(body) if body else None
        except ValueError:
            raise self._refused(path, status, body[:1000], f"the {self.name} answered what is not JSON") from None

    def _refused(self, path: str, status: int, body: bytes, words: str) -> ModelClientError:
        reason = {known.value: known.phrase for known in HTTPStatus}.get(status, "")
        return ModelClientError(self.url + path, status, reason, body.decode(errors="replace"), words)


ANSWER_TIMEOUT_S = 60.0
"""For everything but /predict, which answers when the model has run."""


class ModelServer:
    """A model behind a URL: `ModelServer("http://localhost:3000")`, or with a path for one of several models."""

    def __init__(self, base_url: str, *, headers: Mapping[str, str] | None = None) -> None:
        """`headers` go with every request, such as an Authorization. Raises InvalidURL unless the URL is http or https."""
        if urlsplit(base_url).scheme not in ("http", "https"):
            raise InvalidURL(f"a model server's URL begins with http:// or https://, not {urlsplit(base_url).scheme or 'nothing'}")
        self.base_url = base_url.rstrip("/")
        self._headers = dict(headers or {})
        self._line = Line(f"model server at {self.base_url}", self.base_url, self._call)

    def __repr__(self) -> str:
        return f"ModelServer({self.base_url!r})"

    def predict(self, inputs: Inputs, output_file_dir: StrPath | None = None) -> Outputs:
        """Wait for the outputs: a dict for a dict, a list for a list.

        A value of a file field is a path, a URL, bytes, a buffer, an open file or a tungstenkit file. Output files are saved in
        `output_file_dir` (the working directory unless given) and returned as Path. Raises PredictionFailure when the model fails,
        ModelClientError when the server refuses or does not answer.
        """
        return predicted(self._line, inputs, output_file_dir)

    def submit(self, inputs: Inputs) -> str:
        """Start a prediction and return its id."""
        sent = _sent(inputs, self._line.ask("GET", "")["input_schema"])
        return str(self._line.ask("POST", "/predictions", sent)["prediction_id"])

    def poll(self, prediction_id: str) -> dict[str, Any]:
        """The prediction as it is now: status pending, running, success or failed; outputs; error_message. Files are still data URIs."""
        found: dict[str, Any] = self._line.ask("GET", f"/predictions/{quote(prediction_id, safe='')}")
        return found

    def cancel(self, prediction_id: str) -> None:
        """Stop it if it has not ended; otherwise nothing happens."""
        self._line.ask("POST", f"/predictions/{quote(prediction_id, safe='')}/cancel")

    def wait(
        self, prediction_id: str, output_file_dir: StrPath | None = None, *, timeout_s: float | None = None, interval_s: float = 0.2
    ) -> list[Any]:
        """Wait for the outputs of `submit`, always a list. Raises TimeoutError after `timeout_s`; the prediction goes on."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            outputs = self._outputs(self.poll(prediction_id), output_file_dir)
            if outputs is not None:
                return outputs
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"prediction {prediction_id} has not ended after {timeout_s} s")
            time.sleep(interval_s)

    async def predict_async(self, inputs: Inputs, output_file_dir: StrPath | None = None, *, interval_s: float = 0.2) -> Outputs:
        """`predict` without holding a connection or the event loop. Cancelling the await cancels the prediction."""
        prediction_id = await asyncio.to_thread(self.submit, inputs)
        try:
            while True:
                state = await asyncio.to_thread(self.poll, prediction_id)
                outputs = await asyncio.to_thread(self._outputs, state, output_file_dir)
                if outputs is not None:
                    return outputs if isinstance(inputs, list) else outputs[0]
                await asyncio.sleep(interval_s)
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.to_thread(self.cancel, prediction_id))
            raise

    def _outputs(self, state: Mapping[str, Any], output_file_dir: StrPath | None) -> list[Any] | None:
        """The outputs of a prediction that has ended well, None while it runs."""
        if state["status"] in ("pending", "running"):
            return None
        return _received(state, self._line.ask("GET", "")["output_schema"], output_file_dir)

    def _call(self, method: str, path: str, payload: Any) -> tuple[int, bytes]:
        url = self.base_url + path
        body = None if payload is None else json.dumps(payload).encode()
        request = Request(url, data=body, method=method, headers={"Content-Type": "application/json", **self._headers})  # noqa: S310 # see below
        try:
            timeout_s = None if path == "/predict" else ANSWER_TIMEOUT_S
            with urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 # the scheme was looked at when the object was made
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, HTTPException) as error:
            raise ModelClientError(
                url, 0, f"no answer: {getattr(error, 'reason', error)}", "", f"cannot reach the {self._line.name}"
            ) from error


def predicted(line: Line, inputs: Inputs, output_file_dir: StrPath | None) -> Outputs:
    """One prediction from inputs to outputs. Raises as ModelServer.predict."""
    metadata = line.ask("GET", "")
    state = line.ask("POST", "/predict", _sent(inputs, metadata["input_schema"]))
    outputs = _received(state, metadata["output_schema"], output_file_dir)
    return outputs if isinstance(inputs, list) else outputs[0]


# --- inputs ---


def _rows(inputs: Any) -> list[dict[str, Any]]:
    if not isinstance(inputs, list | dict | BaseIO):
        raise TypeError(f"inputs are a dict or a list of dicts, not {type(inputs).__name__}")
    rows: list[dict[str, Any]] = []
    for row in inputs if isinstance(inputs, list) else [inputs]:
        found = dict(row) if isinstance(row, dict | BaseIO) else None
        if found is None or not all(isinstance(key, str) for key in found):
            raise ValueError(f"an input is a dict by field name, not {type(row).__name__}")
        rows.append(found)
    return rows


def _sent(inputs: Inputs, schema: Mapping[str, Any]) -> list[Any]:
    """The rows as JSON. Raises TypeError or ValueError for what is no input."""
    return [_outgoing(row, schema) for row in _rows(inputs)]


def _outgoing(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value with its files as data URIs, where the schema says that there are files."""
    if schema.get("format") == "uri":
        return None if value is None else _as_uri(value)
    if isinstance(value, BaseIO):
        value = dict(value)
    if isinstance(value, dict):
        return {key: _outgoing(item, schema.get("properties", {}).get(key, {})) for key, item in value.items()}
    return value


def _as_uri(value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = Binary.from_path(os.fspath(value))
    elif isinstance(value, str):
        value = Binary.parse_obj(value)
    elif isinstance(value, bytes | bytearray | memoryview):
        value = Binary.from_bytes(bytes(value))
    elif isinstance(value, RawIOBase):
        value = Binary.from_bytes(value.read() or b"")
    elif isinstance(value, BufferedIOBase | TextIOBase):
        value = Binary.from_buffer(value)
    if not isinstance(value, File):
        raise TypeError(f"a file is given as a path, a URL, bytes or an open file, not as {type(value).__name__}")
    uri = value.__root__
    if scheme_of(uri) != "file":
        return uri
    content = content_of(value)
    return data_uri(content.data, media_type_of(content.name, content.data))


# --- outputs ---


def _received(state: Mapping[str, Any], schema: Mapping[str, Any], output_file_dir: StrPath | None) -> list[Any]:
    """The outputs of a prediction that has ended, their files saved. Raises PredictionFailure."""
    if state["status"] == "failed":
        raise PredictionFailure(state.get("error_message") or "the server gives no reason")
    folder = Path(output_file_dir) if output_file_dir is not None else None
    return [_incoming(output, schema, "output", folder) for output in state["outputs"] or []]


def _incoming(value: Any, schema: Mapping[str, Any], name: str, folder: Path | None) -> Any:
    """A value with its files saved. An http URL is left as it is unless the caller named a folder."""
    if isinstance(value, str) and schema.get("format") == "uri":
        return _saved(value, name, folder)
    if isinstance(value, list):
        return [_incoming(item, schema.get("items", {}), name, folder) for item in value]
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", {})
        return {key: _incoming(item, known.get(key, other or {}), key, folder) for key, item in value.items()}
    return value


def _saved(uri: str, name: str, folder: Path | None) -> Path | str:
    scheme = scheme_of(uri)
    if scheme == "data":
        data, media_type = parse_data_uri(uri)
        path = _new(name, suffix_of(media_type), folder)
        path.write_bytes(data)
        return path
    if scheme in ("http", "https") and folder is not None:
        path = _new(name, Path(urlsplit(uri).path).suffix, folder)
        with path.open("wb") as into:
            download(uri, into)
        return path
    return uri


def _new(name: str, suffix: str, folder: Path | None) -> Path:
    """A path that nothing has yet. The name is the server's word, so only its harmless characters are used."""
    stem = "".join(c for c in name if c.isalnum() or c in "-_")[:40] or "output"
    ending = suffix if suffix[1:].isalnum() and len(suffix) < 16 else ""
    place = folder or Path()
    place.mkdir(parents=True, exist_ok=True)
    return place.resolve() / f"{stem}-{uuid.uuid4().hex[:8]}{ending}"
