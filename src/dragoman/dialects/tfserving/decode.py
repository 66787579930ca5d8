"""The body of a :predict request to tensors, in row form ("instances") and in column form ("inputs").

The good path builds one array per input from all rows at once. Only when that fails is the first faulty row looked at by itself, to tell its
sender what TensorFlow Serving would: it reads rows one by one and stops at the first fault. Called by rest.py.
"""

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from dragoman.core.checks import fits
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.tensors import Datatype, Signature, Tensor, TensorSpec
from dragoman.dialects.json import Fault, JsonSyntaxError, NumberList, NumbersError, guess, is_list, loads
from dragoman.dialects.tfserving import messages
from dragoman.dialects.tfserving.messages import is_b64
from dragoman.dialects.tfserving.values import offender, tensor_of

_GRAPHS = "tensorflow_savedmodel"
"""What a model is called that is a TensorFlow graph."""
_KEYS = frozenset({"signature_name", "instances", "inputs", "context", "examples"})
"""What this protocol looks for in a document."""
UNNAMED = "input"
"""What a plain value is called when the model does not say what its inputs are."""


@dataclass(slots=True)
class Asked:
    """The tensors of a request, and what the answer must remember of it."""

    tensors: list[Tensor]
    rows: bool
    widened: frozenset[int]
    """Declared ranks of the inputs that got a last dimension of 1 (see `widen`)."""


def document(body: bytes) -> dict[str, Any]:
    """The body as a JSON object, in which the first of equal keys counts. Raises INVALID_INPUT for anything else."""
    if not body:
        raise messages.empty_document()
    try:
        read = _tree(body)
    except JsonSyntaxError as error:
        raise messages.not_json(error) from None
    if type(read) is not dict:
        raise messages.document_error(body, "Is not object")
    tree: dict[str, Any] = read
    texts = [value for value in tree.values() if type(value) is str]
    # Nothing but numbers stands behind the last quote of the documents whose length would make this dear.
    if body.count(b'"', 0, body.rfind(b'"') + 1) > 2 * (len(tree) + len(texts)):
        for key in _KEYS & tree.keys():
            value = tree[key]
            if body.count(b'"%b"' % key.encode()) > 1 + texts.count(key) + (type(value) is dict and key in value):
                body, tree = _without_repeated(body, key)
    return tree


def _tree(body: bytes) -> Any:
    return loads(body, nonfinite=True, ignore_rest=True)


def _without_repeated(body: bytes, key: str) -> tuple[bytes, dict[str, Any]]:
    """A document and its tree without the later ones of equal keys: our parser lets the last one win, TensorFlow Serving's the first.

    What stands in quotes like the key is a key or a text, at any depth. Each gets a name of its own, which shows where it is.
    """
    pieces = body.split(b'"%b"' % key.encode())
    marker = os.urandom(6).hex()
    names = [f"{marker}{index}" for index in range(len(pieces) - 1)]
    top = _tree(_joined(pieces, names)).keys() & set(names)
    kept = min(top, key=names.index, default="")
    body = _joined(pieces, [name if name in top and name != kept else key for name in names])
    return body, {name: value for name, value in _tree(body).items() if name not in top}


def _joined(pieces: Sequence[bytes], names: Sequence[str]) -> bytes:
    return pieces[0] + b"".join([b'"%b"%b' % (name.encode(), piece) for name, piece in zip(names, pieces[1:], strict=True)])


def signature_name(tree: Mapping[str, Any], body: bytes) -> str:
    """The signature that a document asks for; "" for the default."""
    name = tree.get("signature_name", "")
    if type(name) is not str:
        raise messages.document_error(body, "not formatted correctly. 'signature_name' key must be a string value.")
    return name


def form(tree: Mapping[str, Any], body: bytes) -> bool:
    """Whether a document is in row form, "instances", and not in column form, "inputs". Raises INVALID_INPUT for none, both or no rows."""
    rows = "instances" in tree
    if rows == ("inputs" in tree):
        if not rows:
            raise invalid("Missing 'inputs' or 'instances' key", "body")
        raise messages.document_error(body, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if rows:
        instances = tree["instances"]
        if not is_list(instances):
            raise messages.document_error(body, "Expecting 'instances' to be an list/array")
        if not instances:
            raise messages.document_error(body, "No values in 'instances' array")
    return rows


def asked(tree: Mapping[str, Any], body: bytes, signature: Signature, platform: str = "") -> Asked:
    """The tensors that a document carries for a signature of a model that `platform` runs.

    Raises INVALID_INPUT, or UNSUPPORTED for a datatype that JSON cannot carry.
    """
    rows = form(tree, body)
    tensors = _rows(tree["instances"], signature) if rows else _columns(tree["inputs"], signature)
    if not tensors:
        raise messages.document_error(body, "names no input")
    return Asked(tensors, rows, widen(tensors, signature, platform))


def widen(tensors: list[Tensor], signature: Signature, platform: str) -> frozenset[int]:
    """Give every input that lacks only a last dimension of 1 that dimension; returns the declared ranks of those.

    A TensorFlow graph takes [3] where its signature says [-1, 1], and the protocol's best known example relies on it: such a graph is fed
    what came. Other runtimes insist on the rank, so the dimension is added here, and taken from the outputs again by encode.narrow.
    """
    ranks: frozenset[int] = frozenset()
    if platform == _GRAPHS:
        return ranks
    declared = signature.input_by_name
    for tensor in tensors:
        spec = declared.get(tensor.name)
        if spec is None or not spec.shape or spec.shape[-1] != 1:
            continue
        shape = tensor.array.shape
        if fits(shape, spec.shape[:-1]):
            tensor.array = tensor.array.reshape(*shape, 1)
            ranks |= {len(spec.shape)}
    return ranks


# --- column form ---


def _columns(inputs: Any, signature: Signature) -> list[Tensor]:
    if not _is_object(inputs):
        spec = _only_input(signature, "inputs is a plain value/list, but expecting an object")
        return [_column(spec.name, inputs, spec.datatype)]
    tensors = []
    for spec in signature.inputs or _undeclared(inputs):
        if spec.name in inputs:
            tensors.append(_column(spec.name, inputs[spec.name], spec.datatype))
        elif not spec.optional:
            raise invalid(f"Missing named input: {spec.name} in 'inputs' object.")
    return tensors


def _column(name: str, value: object, datatype: Datatype | None) -> Tensor:
    datatype = datatype or guess(value)
    try:
        return Tensor(name, datatype, tensor_of(value, datatype))
    except NumbersError as error:
        text = messages.value_fault(error, offender(value, error.path))
        raise ServingError(Kind.UNSUPPORTED if error.fault is Fault.DATATYPE else Kind.INVALID_INPUT, text) from None


# --- row form ---


def _rows(rows: Any, signature: Signature) -> list[Tensor]:
    if type(rows) is list and _is_object(rows[0]):
        return _object_rows(rows, signature)
    spec = _only_input(signature, "instances is a plain list, but expecting list of objects")
    return [_plain_rows(rows, spec)]


def _plain_rows(rows: Any, spec: TensorSpec) -> Tensor:
    """One input, and each row is its value."""
    good = rows
    if type(rows) is list and dict in set(map(type, rows)):
        stop = next((index for index, row in enumerate(rows) if _is_object(row)), None)
        good = rows[:stop]
    datatype = spec.datatype or guess(good)
    try:
        array = tensor_of(good, datatype)
    except NumbersError as error:
        _refuse_plain_row(rows, error)
    if len(good) != len(rows):
        raise invalid(f"Expecting value/list but got object at item {len(good)} of input list")
    return Tensor(spec.name, datatype, array)


def _refuse_plain_row(rows: Any, error: NumbersError) -> NoReturn:
    plain = rows.tolist() if type(rows) is NumberList else rows
    index = error.path[0] if error.path else 0
    text, canonical = _row_fault(plain[index], plain[0], error)
    raise messages.in_row(index, "", text, canonical) from None


def _object_rows(rows: list[Any], signature: Signature) -> list[Tensor]:
    """Each row is an object with exactly the signature's inputs; optional ones may be absent from every row."""
    declared = signature.inputs or _undeclared(rows[0])
    specs = [spec for spec in declared if not spec.optional or spec.name in rows[0]]
    expected = {spec.name for spec in specs}
    bad = next((index for index, row in enumerate(rows) if not _is_object(row) or row.keys() != expected), len(rows))
    tensors: list[Tensor] = []
    faults: dict[int, dict[str, NumbersError]] = {}
    good = rows[:bad]
    for spec in specs if good else ():
        values = [row[spec.name] for row in good]
        datatype = spec.datatype or guess(values)
        try:
            tensors.append(Tensor(spec.name, datatype, tensor_of(values, datatype)))
        except NumbersError as error:
            faults.setdefault(error.path[0] if error.path else 0, {})[spec.name] = error
    if faults:
        index = min(faults)
        _refuse_object_row(rows, index, faults[index])
    if bad < len(rows):
        _refuse_keys(rows, bad, {spec.name for spec in declared}, expected)
    return tensors


def _refuse_object_row(rows: list[Any], index: int, faults: Mapping[str, NumbersError]) -> NoReturn:
    """Several inputs of one row may be at fault: the first in the row's own order is told."""
    row = rows[index]
    name = next(key for key in row if key in faults)
    text, canonical = _row_fault(row[name], rows[0][name], faults[name])
    raise messages.in_row(index, name, text, canonical) from None


def _refuse_keys(rows: list[Any], index: int, known: Container[str], expected: Iterable[str]) -> NoReturn:
    """Row `index` is no object, or has other keys than it should."""
    row = rows[index]
    if not _is_object(row):
        raise invalid(f"Expecting object but got list at item {index} of input list")
    unknown = next((name for name in row if name not in known), None)
    if unknown is not None:
        raise messages.in_row(index, unknown, f"JSON object: does not have named input: {messages.cut(unknown)}")
    raise messages.row_keys(index, row, expected)


def _row_fault(value: object, first: object, error: NumbersError) -> tuple[str, str]:
    """Why one row's value is refused, and the canonical name of that: for itself, or because its shape is not that of the first row."""
    try:
        shape = tensor_of(value, error.datatype).shape
        want = tensor_of(first, error.datatype).shape
    except NumbersError as own:
        text = messages.value_fault(own, offender(value, own.path))
        return text, "UNIMPLEMENTED" if own.fault is Fault.DATATYPE else "INVALID_ARGUMENT"
    return (str(error) if shape == want else messages.other_shape(want, shape)), "INVALID_ARGUMENT"


# --- both ---


def _is_object(value: object) -> bool:
    """Whether a value names inputs; an object that stands for binary data does not."""
    return type(value) is dict and not is_b64(value)


def _undeclared(named: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """Inputs of a model that declares none: as the request names them."""
    return tuple(TensorSpec(name, None, None) for name in named)


def _only_input(signature: Signature, complaint: str) -> TensorSpec:
    inputs = signature.inputs
    if len(inputs) > 1:
        raise invalid(f"{complaint} as multiple input tensors required as per tensorinfo_map")
    return inputs[0] if inputs else TensorSpec(UNNAMED, None, None)
