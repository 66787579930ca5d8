"""Which fields an input and an output class may have, said when a model is defined and not when it is asked."""

import re
from collections.abc import Iterator

from ._base import BaseIO
from ._fields import ModelField
from ._files import File
from ._kinds import Anything, Flag, Items, Kind, Maybe, Member, Number, Own, Table, Text
from ._masked import MaskedImage

INPUTS = "int, float, str, bool, enums of these, Image, Video, Audio, Binary, MaskedImage, and Optional of one of these with a default"
OUTPUTS = (
    "int, float, str, bool, enums of these, Image, Video, Audio, Binary, BaseIO classes, List[T], and Dict[K, T] with K str, int or bool"
)
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])")


def check_input(cls: object) -> None:
    """Raises TypeError naming every field that no input may have."""
    declared = _io_class(cls, "input")
    wrong = [f"{declared.__name__}.{field.name}: {_named(field)}" for field in declared.__fields__.values() if not _is_input(field)]
    if wrong:
        raise TypeError(f"unsupported input types: {'; '.join(wrong)}. Supported: {INPUTS}")


def check_output(cls: object, role: str = "output") -> None:
    """Raises TypeError naming every place where an output of this class cannot be what it declares."""
    declared = _io_class(cls, role)
    wrong = list(_faults_of_output(declared, declared.__name__, ()))
    if wrong:
        raise TypeError(f"unsupported {role} types: {'; '.join(wrong)}. Supported: {OUTPUTS}")


def describe_fields(cls: type[BaseIO]) -> None:
    """Give each field without a description one that is made of its name."""
    for field in cls.__fields__.values():
        if not field.field_info.description:
            field.field_info.description = " ".join(_WORD.sub("_", field.name).lower().split("_")).title()


def _io_class(cls: object, role: str) -> type[BaseIO]:
    if not (isinstance(cls, type) and issubclass(cls, BaseIO)):
        raise TypeError(f"{role} must be a class that inherits from tungstenkit.BaseIO, not {cls!r}")
    for field in cls.__fields__.values():
        if field.kind is None:
            raise TypeError(f"{cls.__name__}.{field.name}: {field.annotation!r} is not defined")
    return cls


def _named(field: ModelField) -> str:
    return field.annotation.__name__ if isinstance(field.annotation, type) else str(field.annotation)


def _is_input(field: ModelField) -> bool:
    kind = field.kind.inner if isinstance(field.kind, Maybe) else field.kind
    if isinstance(kind, Own):
        return issubclass(kind.type, File | MaskedImage)
    return _is_plain(kind)


def _is_plain(kind: Kind | None) -> bool:
    if isinstance(kind, Member):
        return issubclass(kind.type, int | float | str)
    return isinstance(kind, Number | Text | Flag)


def _faults_of_output(cls: type[BaseIO], place: str, above: tuple[type, ...]) -> Iterator[str]:
    if cls in above:
        yield f"{place}: {cls.__name__} contains itself"
        return
    for field in cls.__fields__.values():
        where = f"{place}.{field.name}"
        if isinstance(field.kind, Maybe):
            yield f"{where}: {_named(field)} (an output is never optional)"
        elif not field.required:
            yield f"{where}: an output has no default"
        elif field.kind is None:
            yield f"{where}: {field.annotation!r} is not defined"
        else:
            yield from _faults_of_kind(field.kind, where, _named(field), (*above, cls))


def _faults_of_kind(kind: Kind, place: str, name: str, above: tuple[type, ...]) -> Iterator[str]:
    if isinstance(kind, Items):
        yield from _faults_of_kind(kind.item, f"{place}.<item>", name, above)
    elif isinstance(kind, Table):
        if not (isinstance(kind.key, Flag | Text) or (isinstance(kind.key, Number) and kind.key.type is int)):
            yield f"{place}: {name} (keys are str, int or bool)"
        yield from _faults_of_kind(kind.value, f"{place}.<value>", name, above)
    elif isinstance(kind, Own):
        if issubclass(kind.type, BaseIO):
            yield from _faults_of_output(kind.type, place, above)
    elif isinstance(kind, Maybe | Anything) or not _is_plain(kind):
        yield f"{place}: {name}"
