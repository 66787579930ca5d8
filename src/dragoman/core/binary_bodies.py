"""Bodies that are one file: what an image or other binary content means for each form of model (MLRun requirements M15 and M16). Pure.

Called by dialects for bodies that are no JSON; each decides by `is_binary` and its own rules which these are.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from dragoman.core.errors import ServingError, invalid
from dragoman.core.rows import row_schema
from dragoman.core.tensors import BYTES, Array, Blob, Form, Rows, Signature, Tensor, Tensors

_MEDIA = ("image/", "audio/", "video/")
_BINARY = re.compile(r"(?:image|audio|video)/[^\s;/]+\Z|application/(?:octet-stream|pdf)\Z")


def media_type_of(content_type: bytes | str | None) -> str:
    """A Content-Type in lower case without parameters; "" for none."""
    text = content_type.decode("latin-1") if isinstance(content_type, bytes) else content_type or ""
    return text.partition(";")[0].strip().lower()


def is_binary(content_type: bytes | str | None) -> bool:
    """Whether a body of this type is a file itself: images, audio, video, PDF and whatever says only that it is bytes."""
    return _BINARY.match(media_type_of(content_type)) is not None


def file_inputs(data: bytes, content_type: bytes | str | None, signature: Signature, model: str) -> Tensors | Rows:
    """One data point that is a file, in the form that the model takes. Raises INVALID_INPUT for a model that takes no single file.

    Models of whole requests get it as a Blob in their list of data points (`points` of core.bodies.whole_request, or `inputs` of an event's
    body): pictures, sound and video, and what says only that it is bytes where their schema has one text or where no type is given at all;
    anything else is JSON that went wrong (M16). Models of rows get it in their one field of files, where all others may be left out; models
    of tensors in their one input of BYTES.
    """
    blob = Blob(data, media_type_of(content_type) or "application/octet-stream")
    if signature.whole:
        if content_type is not None and not blob.media_type.startswith(_MEDIA) and [spec.datatype for spec in signature.inputs] != [BYTES]:
            raise invalid(
                f"the body for model '{model}' is no JSON object, and one of type {blob.media_type} is not taken as a file:"
                " only image/*, audio/* and video/* are",
                "body",
            )
        return Rows([blob])
    if signature.form is Form.ROWS:
        return Rows([_row(blob, signature, model)])
    return Tensors([_tensor(blob, signature, model)])


def _row(blob: Blob, signature: Signature, model: str) -> dict[str, Any]:
    schema = row_schema(signature)
    needed = set(schema.get("required", ()))
    fields = {place.removesuffix(".$item"): place.endswith(".$item") for place in signature.input_files}
    fields = {name: several for name, several in fields.items() if "." not in name}
    candidates = [name for name in fields if needed <= {name}]
    if len(candidates) != 1 and len(needed) == 1:
        candidates = [name for name in candidates if name in needed]
    if len(candidates) != 1:
        raise _refused(blob, signature, model, schema.get("properties", {}))
    (name,) = candidates
    return {name: [blob] if fields[name] else blob}


def _tensor(blob: Blob, signature: Signature, model: str) -> Tensor:
    needed = [spec for spec in signature.inputs if not spec.optional]
    candidates = needed or list(signature.inputs)
    spec = candidates[0] if len(candidates) == 1 else None
    shape = spec.shape if spec is not None and spec.shape is not None else (-1,)
    if spec is None or spec.datatype is not BYTES or any(size not in (-1, 1) for size in shape):
        raise _refused(blob, signature, model, {each.name: {} for each in signature.inputs})
    array: Array = np.empty((1,) * len(shape), object)
    array.fill(blob.data)
    return Tensor(spec.name, BYTES, array)


def _refused(blob: Blob, signature: Signature, model: str, fields: Mapping[str, Any]) -> ServingError:
    wanted = {spec.name: spec.datatype.name for spec in signature.inputs if spec.datatype is not None}
    inputs = ", ".join(f"'{name}'" + (f" ({wanted[name]})" if name in wanted else "") for name in list(fields)[:10]) or "none that it names"
    return invalid(
        f"model '{model}' does not take one file, so a body of type {blob.media_type} cannot be its input; its inputs are {inputs}"
    )
