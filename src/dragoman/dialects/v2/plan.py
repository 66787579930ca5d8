"""How each output of one request is to be written: JSON, binary or as top classes. A local of the codec; the core never sees it."""

from dataclasses import dataclass, field
from typing import Final

from dragoman.core.errors import invalid
from dragoman.dialects.v2.parameters import kind, tensor_parameters, text


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output: as binary data or JSON, and if `classes` is not 0, as its best that many classes."""

    binary: bool = False
    classes: int = 0


AS_JSON: Final = Wanted()
AS_BINARY: Final = Wanted(binary=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """`named` holds the outputs that the request lists, and then only these are answered; without any, all are, written as `others`."""

    named: dict[str, Wanted] = field(default_factory=dict)
    others: Wanted = AS_JSON


PLAIN: Final = Plan()
"""Everything as JSON: what most requests ask for, compared by identity."""
ALL_BINARY: Final = Plan(others=AS_BINARY)


def read_outputs(given: object, model: str) -> dict[str, Wanted]:
    """The `outputs` of a request. Raises INVALID_INPUT.

    An output that is listed without `binary_data` is JSON, whatever `binary_data_output` says: that is what Triton and KServe do.
    """
    if type(given) is not list:
        raise invalid(f"the outputs of the request to model '{model}' must be a list, not {kind(given)}")
    named: dict[str, Wanted] = {}
    for index, item in enumerate(given):
        if type(item) is not dict or type(item.get("name")) is not str:
            raise invalid(f"outputs[{index}] of the request to model '{model}' must be an object with a 'name'")
        name = item["name"]
        parameters = item.get("parameters")
        wanted = AS_JSON if parameters is None else _wanted(parameters, f"output '{name}' of the request to model '{model}'")
        if named.setdefault(name, wanted) != wanted:
            raise invalid(f"output '{name}' of the request to model '{model}' is listed twice in different ways")
    return named


def _wanted(given: object, where: str) -> Wanted:
    parameters = tensor_parameters(given, where)
    binary = parameters.get("binary_data")
    if binary is not None and type(binary) is not bool:
        raise invalid(f"parameter 'binary_data' of {where} must be true or false, not {text(binary)}")
    classes = parameters.get("classification")
    if classes is not None and (type(classes) is not int or classes < 0):
        raise invalid(f"parameter 'classification' of {where} must be a non-negative integer, not {text(classes)}")
    return Wanted(bool(binary), classes or 0)
