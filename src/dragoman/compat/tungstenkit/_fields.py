"""Field() and Option(), and the fields that a BaseIO class has: found in its annotations and class body when the class is made."""

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, ClassVar, Final, ForwardRef, get_args, get_origin

from ._errors import INVALID, Fault, Loc, fault, listed
from ._kinds import Anything, Items, Kind, Limits, Maybe, Own, Table, Unlimited, kind_of, take


class _Undefined(Enum):
    UNDEFINED = 0

    def __repr__(self) -> str:
        return "..."


UNDEFINED: Final = _Undefined.UNDEFINED


class FieldInfo:
    """What Field() and Option() return: everything about a field but its type."""

    __slots__ = ("choices", "default", "description", "ge", "le", "max_length", "min_length")

    def __init__(
        self, default: Any = UNDEFINED, *, choices: Sequence[Any] | None = None, description: str | None = None, **limits: Any
    ) -> None:
        self.default = default
        self.description = description
        self.choices = None if choices is None else list(choices)
        self.ge: float | None = limits.get("ge")
        self.le: float | None = limits.get("le")
        self.min_length: int | None = limits.get("min_length")
        self.max_length: int | None = limits.get("max_length")

    @property
    def limits(self) -> Limits:
        given = {"ge": self.ge, "le": self.le, "min_length": self.min_length, "max_length": self.max_length}
        return {name: limit for name, limit in given.items() if limit is not None}

    @property
    def extra(self) -> dict[str, Any]:
        return {} if self.choices is None else {"choices": self.choices}


def Field(  # noqa: N802 # Tungstenkit's name
    *,
    description: str | None = None,
    choices: Sequence[str | int] | None = None,
    ge: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
) -> Any:
    """A required field with a description or with limits. `choices` are the only values it takes."""
    return FieldInfo(description=description, choices=choices, ge=ge, le=le, min_length=min_length, max_length=max_length)


def Option(  # noqa: N802 # Tungstenkit's name
    default: Any,
    *,
    description: str | None = None,
    choices: Sequence[str | int] | None = None,
    ge: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
) -> Any:
    """An optional field. Inputs whose options are equal are predicted together. The default need not be one of the choices."""
    return FieldInfo(default, description=description, choices=choices, ge=ge, le=le, min_length=min_length, max_length=max_length)


_UNCHANGING = (int, float, str, bool, bytes, Enum, type(None))


class ModelField:
    """One field of a BaseIO class. `kind` is None while its annotation names a class that does not exist yet."""

    __slots__ = ("annotation", "choices", "field_info", "kind", "name", "owner", "required")

    def __init__(self, owner: str, name: str, annotation: Any, info: FieldInfo) -> None:
        self.owner = owner
        self.name = name
        self.annotation = annotation
        self.field_info = info
        self.required = info.default is UNDEFINED
        self.kind: Kind | None = None
        self.choices: list[Any] | None = None

    def settle(self, resolve: Callable[[str], Any]) -> None:
        """Work out the kind. Raises NameError when a name is not there yet, ValueError for a limit that cannot hold."""
        try:
            kind = kind_of(self.annotation, resolve, self.field_info.limits)
        except Unlimited as error:
            raise ValueError(f"{self.owner}.{self.name}: {error} cannot limit values of type {self.annotation}") from None
        if isinstance(kind, Maybe):
            self.required = False
        elif not self.required and self.default is None and not isinstance(kind, Anything):
            kind = Maybe(kind)
        self.kind = kind
        if self.field_info.choices is not None:
            self.choices = [self._as_chosen(choice) for choice in self.field_info.choices]

    def _as_chosen(self, choice: Any) -> Any:
        """A choice as a value of this field would look: 1 for "1" on an int field."""
        taken = take(_leaf(self.kind), choice, (), [])
        return choice if taken is INVALID else taken

    def copied(self) -> "ModelField":
        """For a subclass, which may get descriptions of its own."""
        other = copy.copy(self)
        other.field_info = copy.copy(self.field_info)
        return other

    @property
    def default(self) -> Any:
        return None if self.field_info.default is UNDEFINED else self.field_info.default

    def get_default(self) -> Any:
        """The default, which the caller may change."""
        return self.default if isinstance(self.default, _UNCHANGING) else copy.deepcopy(self.default)

    @property
    def alias(self) -> str:
        return self.name

    @property
    def allow_none(self) -> bool:
        return isinstance(self.kind, Maybe | Anything)

    @property
    def type_(self) -> Any:
        """The innermost type, in Optional, List and Dict."""
        return _python_type(_leaf(self.kind))

    @property
    def outer_type_(self) -> Any:
        return self.annotation

    def take(self, value: object, loc: Loc, faults: list[Fault]) -> Any:
        """Coerce a value for this field; choices are held too."""
        assert self.kind is not None
        taken = take(self.kind, value, loc, faults)
        if self.choices is None or taken is INVALID or taken is None or taken == self.default:
            return taken
        items = taken if isinstance(taken, list) else taken.values() if isinstance(taken, dict) else (taken,)
        for item in items:
            if item not in self.choices:
                words = f"unexpected value; permitted: {listed(self.choices)}"
                return fault(faults, loc, "value_error.const", words, given=item, permitted=list(self.choices))
        return taken

    def __repr__(self) -> str:
        return f"ModelField(name={self.name!r}, type={self.annotation!r}, required={self.required})"


def _leaf(kind: Kind | None) -> Kind:
    while isinstance(kind, Maybe | Items | Table):
        kind = kind.value if isinstance(kind, Table) else kind.item if isinstance(kind, Items) else kind.inner
    assert kind is not None
    return kind


def _python_type(kind: Kind) -> Any:
    if isinstance(kind, Anything):
        return kind.annotation
    named = getattr(kind, "type", None)
    return named if named is not None else str if kind.schema().get("type") == "string" else bool


def declared(cls: type, taken: frozenset[str]) -> Iterator[ModelField]:
    """The fields that this class itself declares, which are taken out of its body. Names in `taken` are those of methods.

    Raises NameError for a field with such a name, TypeError for a pydantic validator, which nothing here would call.
    """
    body = dict(vars(cls))
    annotations = inspect.get_annotations(cls)
    for name, value in body.items():
        if type(value).__name__ == "PydanticDescriptorProxy" or hasattr(getattr(value, "__func__", None), "__validator_config__"):
            raise TypeError(f"{cls.__name__}.{name} is a validator of pydantic, which has no part in this class; check values in `predict`")
    guessed = {name: _guess(value) for name, value in body.items() if name not in annotations and _is_value(name, value)}
    for name, annotation in {**annotations, **guessed}.items():
        if name.startswith("_") or _is_class_variable(annotation):
            continue
        if name in taken:
            raise NameError(f"{cls.__name__}.{name} would hide the method of that name; use another name for the field")
        value = body.get(name, UNDEFINED)
        info = copy.copy(value) if isinstance(value, FieldInfo) else _annotated(annotation, value)
        if name in body:
            delattr(cls, name)
        yield ModelField(cls.__name__, name, annotation, info)


def _annotated(annotation: Any, default: Any) -> FieldInfo:
    """The FieldInfo of `Annotated[int, Field(ge=1)]`, or an empty one, with the default of the class body."""
    found = [a for a in get_args(annotation) if isinstance(a, FieldInfo)] if get_origin(annotation) is Annotated else []
    info = copy.copy(found[0]) if found else FieldInfo()
    info.default = default
    return info


def _is_value(name: str, value: object) -> bool:
    if name.startswith("_"):
        return False
    return isinstance(value, int | float | str | bool | FieldInfo) or (hasattr(value, "_take") and not isinstance(value, type))


def _guess(value: Any) -> Any:
    default = value.default if isinstance(value, FieldInfo) else value
    return Any if default is UNDEFINED else type(default)


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str | ForwardRef):
        text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
        return text.split("[")[0].split(".")[-1].strip() == "ClassVar"
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def resolver(cls: type, nearby: Mapping[str, Any]) -> Callable[[str], Any]:
    """Evaluates a text of an annotation as the class's module would, with `nearby` names, the class and what is in its body on top."""

    def resolve(text: str) -> Any:
        module = sys.modules.get(cls.__module__)
        names = {**vars(cls), cls.__name__: cls, **nearby}
        return eval(text, dict(vars(module)) if module else {}, names)  # noqa: S307 # an annotation: the model file's own code

    return resolve


def own_type(kind: Kind | None) -> Any:
    """The BaseIO or file class of a kind, in Optional or not; else None."""
    inner = kind.inner if isinstance(kind, Maybe) else kind
    return inner.type if isinstance(inner, Own) else None
