"""What the demo server of the original answers, below /demo: one input and not a list, files as URLs, everything about a run in one object.

Output files have URLs that are made of the prediction's id and their place in it, so nothing is stored for them and they live as long as the
prediction. Called by rest.py.
"""

import mimetypes
import re
from collections.abc import Iterator

from dragoman.core.tensors import Blob, Value
from dragoman.dialects import Answer, Request
from dragoman.dialects.tungsten import answers, files
from dragoman.dialects.tungsten.calls import Calls, find
from dragoman.serving.predictions import View
from dragoman.serving.root_model import DEMO, description

_UNKNOWN = "No such prediction: {}"
_OF_PREDICTION = re.compile(r"run-([0-9a-f]{32})-([0-9]{1,6})(\.[a-z0-9]{1,8})?\Z")
_FOLDER = "/demo/files/"
_SUFFIXES = mimetypes.MimeTypes()
"""The built-in table only, so that names do not vary from machine to machine."""


class Demo:
    """Handlers of the demo server's routes."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def metadata(self, request: Request, name: str, tag: str) -> Answer:
        entry = find(self._calls.gateway, name, tag)
        signature, shown = entry.signatures[""], entry.signatures.get(DEMO)
        return Answer(
            body=answers.encode(
                {
                    "name": entry.name,
                    "avatar_url": None,
                    "readme": entry.spec.readme or None,
                    **description(entry.signatures),
                    "input_filetypes": dict(signature.input_files),
                    "output_filetypes": dict(signature.output_files),
                    "demo_output_filetypes": dict((shown or signature).output_files),
                }
            )
        )

    async def create(self, request: Request, name: str, tag: str) -> Answer:
        entry, rows = await self._calls.rows(request, name, tag, single=True)
        prediction_id = await self._calls.submit(entry, rows, "demo", request)
        return await self._answer(request, await self._calls.view(name, prediction_id, _UNKNOWN))

    async def show(self, request: Request, name: str, prediction_id: str) -> Answer:
        return await self._answer(request, await self._calls.view(name, prediction_id, _UNKNOWN))

    async def cancel(self, request: Request, name: str, prediction_id: str) -> Answer:
        await self._calls.view(name, prediction_id, _UNKNOWN)
        await self._calls.predictions.cancel(prediction_id)
        return Answer(body=b"null")

    async def file(self, request: Request, name: str) -> Answer:
        """An upload, or a file of a prediction."""
        found = _OF_PREDICTION.match(name)
        if found is None:
            return files.serve(await self._calls.uploaded(name))
        view = await self._calls.view("", found[1], "File not found")
        for number, blob in enumerate(_blobs([await self._calls.predictions.inputs(view.id), view.outputs])):
            if number == int(found[2]):
                return files.serve(blob)
        raise files.not_found()

    async def _answer(self, request: Request, view: View) -> Answer:
        """The object of one run. On failure the reason is the end of the logs, as the original's page shows it."""
        inputs = await self._calls.predictions.inputs(view.id)
        numbers = {id(blob): number for number, blob in enumerate(_blobs([inputs, view.outputs]))}

        def url(blob: Blob) -> str:
            suffix = _SUFFIXES.guess_extension(blob.media_type) or ""
            return files.file_url(request, _FOLDER, f"run-{view.id}-{numbers[id(blob)]}{suffix}")

        shown = answers.demo(view)
        outputs, demo_outputs, error = shown["outputs"], shown["demo_outputs"], shown["error_message"]
        body = {
            "id": view.id,
            "status": shown["status"],
            "input": inputs[0],
            "output": outputs[0] if outputs else None,
            "demo_output": demo_outputs[0] if demo_outputs else None,
            "logs": f"{view.logs}{error}" if error else view.logs,
            "failure_reason": None,
        }
        return Answer(body=await answers.encoded(body, url))


def _blobs(value: Value) -> Iterator[Blob]:
    """Every file of a value, always in the same order."""
    if isinstance(value, Blob):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _blobs(each)
    elif isinstance(value, list):
        for each in value:
            yield from _blobs(each)
