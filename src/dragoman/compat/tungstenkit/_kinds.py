"""What a field may hold, worked out once from its annotation: how a value is coerced (pydantic 1's lax rules) and how a schema shows it.

A kind's `take` returns the coerced value, or writes a fault and returns INVALID; None is settled before, by `take`, the function. Classes
that are kinds of their own (BaseIO and the files) offer `_take` and `_schema`.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from types import GeneratorType, NoneType, UnionType
from typing import Annotated, Any, ForwardRef, Protocol, TypeAlias, Union, get_args, get_origin

from ._errors import INVALID, Fault, Loc, fault, listed, none_is_not_allowed

Schema: TypeAlias = dict[str, Any]
Limits: TypeAlias = Mapping[str, float | int]
"""ge, le, min_length, max_length: those that were given."""


class Kind(Protocol):
    def take(self, value: Any, loc: Loc, faults: list[Fault]) -> Any: ...
    def schema(self) -> Schema: ...


def take(kind: Kind, value: object, loc: Loc, faults: list[Fault]) -> Any:
    """Coerce one value; None goes only where it may."""
    if value is None and not isinstance(kind, Maybe | Anything):
        return none_is_not_allowed(faults, loc)
    return kind.take(value, loc, faults)


@dataclass(frozen=True, slots=True)
class Number:
    type: type[int] | type[float]
    ge: float | None = None
    le: float | None = None

    def take(self, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        name = "integer" if self.type is int else "float"
        try:
            number = self.type(value)
        except (TypeError, ValueError, OverflowError):
            return fault(faults, loc, f"type_error.{name}", f"value is not a valid {name}")
        # Written so that NaN is outside of any limit.
        if self.ge is not None and not number >= self.ge:
            words = f"ensure this value is greater than or equal to {self.ge}"
            return fault(faults, loc, "value_error.number.not_ge", words, limit_value=self.ge)
        if self.le is not None and not number <= self.le:
            words = f"ensure this value is less than or equal to {self.le}"
            return fault(faults, loc, "value_error.number.not_le", words, limit_value=self.le)
        return number

    def schema(self) -> Schema:
        limits = {"minimum": self.ge, "maximum": self.le}
        return {"type": "integer" if self.type is int else "number", **{k: v for k, v in limits.items() if v is not None}}


@dataclass(frozen=True, slots=True)
class Text:
    min_length: int | None = None
    max_length: int | None = None

    def take(self, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        text = self._text(value)
        if text is None:
            return fault(faults, loc, "type_error.str", "str type expected")
        if self.min_length is not None and len(text) < self.min_length:
            words = f"ensure this value has at least {self.min_length} characters"
            return fault(faults, loc, "value_error.any_str.min_length", words, limit_value=self.min_length)
        if self.max_length is not None and len(text) > self.max_length:
            words = f"ensure this value has at most {self.max_length} characters"
            return fault(faults, loc, "value_error.any_str.max_length", words, limit_value=self.max_length)
        return text

    def _text(self, value: Any) -> str | None:
        if isinstance(value, str):
            return str(value.value if isinstance(value, Enum) else value)
        if isinstance(value, int | float | Decimal):
            return str(value)
        if isinstance(value, bytes | bytearray):
            try:
                return value.decode()
            except UnicodeDecodeError:
                return None
        return None

    def schema(self) -> Schema:
        limits = {"minLength": self.min_length, "maxLength": self.max_length}
        return {"type": "string", **{k: v for k, v in limits.items() if v is not None}}


_TRUE = frozenset((1, "1", "on", "t", "true", "y", "yes"))
_FALSE = frozenset((0, "0", "off", "f", "false", "n", "no"))


@dataclass(frozen=True, slots=True)
class Flag:
    def take(self, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        try:
            word = value.decode() if isinstance(value, bytes) else value
            word = word.lower() if isinstance(word, str) else word
            if word in _TRUE:
                return True
            if word in _FALSE:
                return False
        except (TypeError, UnicodeDecodeError):  # unhashable, or no text
            pass
        return fault(faults, loc, "type_error.bool", "value could not be parsed to a boolean")

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Member:
    """An Enum. Values become members, as a model file compares them with `Mode.fast`."""

    type: type[Enum]

    def take(self, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        for candidate in (value, _whole(value)) if issubclass(self.type, int) else (value,):
            try:
                return self.type(candidate)
            except (ValueError, TypeError):
                continue
        values = [member.value for member in self.type]
        words = f"value is not a valid enumeration member; permitted: {listed(values)}"
        return fault(faults, loc, "type_error.enum", words, enum_values=list(self.type))

    def schema(self) -> Schema:
        names = ((str, "string"), (int, "integer"), (float, "number"))
        named = next(({"type": name} for base, name in names if issubclass(self.type, base)), {})
        return {**named, "enum": [member.value for member in self.type]}


def _whole(value: Any) -> Any:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return value


@dataclass(frozen=True, slots=True)
class Own:
    """A BaseIO class or a kind of file: it knows itself."""

    type: Any

    def take(self, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        return self.type._take(value, loc, faults)

    def schema(self) -> Schema:
        schema: Schema = self.type._schema()
        return schema


@dataclass(frozen=True, slots=True)
class Items:
    item: Kind

    def take(self, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        if not isinstance(value, list | tuple | set | frozenset | deque | GeneratorType):
            return fault(faults, loc, "type_error.list", "value is not a valid list")
        before = len(faults)
        taken = [take(self.item, item, (*loc, index), faults) for index, item in enumerate(value)]
        return taken if len(faults) == before else INVALID

    def schema(self) -> Schema:
        return {"type": "array", "items": self.item.schema()}


@dataclass(frozen=True, slots=True)
class Table:
    key: Kind
    value: Kind

    def take(self, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        try:
            pairs = dict(value)
        except (TypeError, ValueError):
            return fault(faults, loc, "type_error.dict", "value is not a valid dict")
        before = len(faults)
        taken: dict[Any, Any] = {}
        for key, item in pairs.items():
            name = take(self.key, key, (*loc, "__key__"), faults)
            held = take(self.value, item, (*loc, key if isinstance(key, int | str) else repr(key)), faults)
            if name is not INVALID and held is not INVALID:
                taken[name] = held
        return taken if len(faults) == before else INVALID

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": self.value.schema()}


@dataclass(frozen=True, slots=True)
class Maybe:
    inner: Kind

    def take(self, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        return None if value is None else self.inner.take(value, loc, faults)

    def schema(self) -> Schema:
        return self.inner.schema()


@dataclass(frozen=True, slots=True)
class Anything:
    """An annotation that no model can be defined with, but that a class may have. Instances of a plain class are checked."""

    annotation: Any

    def take(self, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        if isinstance(self.annotation, type) and self.annotation is not Any and not isinstance(value, self.annotation):
            return fault(faults, loc, "type_error", f"instance of {self.annotation.__name__} expected")
        return value

    def schema(self) -> Schema:
        return {}


class Unlimited(ValueError):  # noqa: N818 # the field's own error says more
    """Limits were given that this kind does not have; the text lists them."""


def kind_of(annotation: Any, resolve: Callable[[str], Any], limits: Limits) -> Kind:
    """The kind that an annotation means. `resolve` evaluates annotations that are texts and may raise NameError.

    Limits go down to the numbers and texts inside of Optional, List and Dict. Raises Unlimited when there is nothing to limit.
    """
    kind, used = _kind_of(annotation, resolve, limits)
    if unused := [name for name in limits if name not in used]:
        raise Unlimited(", ".join(unused))
    return kind


def _kind_of(annotation: Any, resolve: Callable[[str], Any], limits: Limits) -> tuple[Kind, set[str]]:
    while isinstance(annotation, str | ForwardRef):
        annotation = resolve(annotation if isinstance(annotation, str) else annotation.__forward_arg__)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind_of(arguments[0], resolve, limits)
    if origin in (Union, UnionType):
        others = [a for a in arguments if a is not NoneType]
        if len(others) == 1 and len(others) < len(arguments):
            inner, used = _kind_of(others[0], resolve, limits)
            return Maybe(inner), used
        return Anything(annotation), set()
    if origin is list and arguments:
        inner, used = _kind_of(arguments[0], resolve, limits)
        return Items(inner), used
    if origin is dict and len(arguments) == 2:
        key, _ = _kind_of(arguments[0], resolve, {})
        inner, used = _kind_of(arguments[1], resolve, limits)
        return Table(key, inner), used
    if isinstance(annotation, type):
        return _kind_of_class(annotation, limits)
    return Anything(annotation), set()


def _kind_of_class(annotation: type, limits: Limits) -> tuple[Kind, set[str]]:
    if hasattr(annotation, "_take"):
        return Own(annotation), set()
    if issubclass(annotation, Enum):
        return Member(annotation), set()
    if issubclass(annotation, bool):
        return Flag(), set()
    if issubclass(annotation, int | float):
        base = int if issubclass(annotation, int) else float
        return Number(base, limits.get("ge"), limits.get("le")), {"ge", "le"}
    if issubclass(annotation, str):
        shortest, longest = limits.get("min_length"), limits.get("max_length")
        return Text(_length(shortest), _length(longest)), {"min_length", "max_length"}
    return Anything(annotation), set()


def _length(limit: float | None) -> int | None:
    return None if limit is None else math.floor(limit)
