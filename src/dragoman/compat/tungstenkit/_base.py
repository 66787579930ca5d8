"""BaseIO: a class whose annotations are its fields, checked when it is made and when one is assigned. Model files inherit from it.

Its methods are those of pydantic 1's BaseModel that model files use; it is no pydantic class and needs none.
"""

import copy
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias, dataclass_transform

from ._errors import INVALID, Fault, Loc, ValidationError, fault
from ._fields import ModelField, declared, resolver
from ._kinds import Schema, take

Chosen: TypeAlias = AbstractSet[str] | Mapping[str, Any] | None
Values: TypeAlias = dict[str, Any]
"""Inside of the class `dict` is a method."""


@dataclass_transform(kw_only_default=True)  # for type checkers: whatever stands behind a field makes it optional
class BaseIO:
    """Declare fields by annotation; a default makes one optional. Values are coerced, unknown keyword arguments are ignored."""

    __slots__ = ("__dict__", "__fields_set__", "__weakref__")
    __fields__: ClassVar[dict[str, ModelField]] = {}
    __fields_set__: set[str]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        fields: dict[str, ModelField] = {}
        for base in reversed(cls.__mro__[1:]):
            fields |= {name: field.copied() for name, field in vars(base).get("__fields__", {}).items()}
        frame = inspect.currentframe()
        nearby = dict(frame.f_back.f_locals) if frame and frame.f_back else {}
        own = list(declared(cls, _METHODS))
        cls.__fields__ = fields | {field.name: field for field in own}
        for name in vars(cls):  # a method or property in place of an inherited field
            if name in cls.__fields__ and name not in {field.name for field in own}:
                del cls.__fields__[name]
        for field in own:
            _settle(field, resolver(cls, nearby))

    def __init__(self, /, **data: Any) -> None:
        faults: list[Fault] = []
        values = type(self)._values(data, (), faults)
        if faults:
            raise ValidationError(faults, type(self))
        object.__setattr__(self, "__dict__", values)
        object.__setattr__(self, "__fields_set__", {name for name in data if name in self.__fields__})

    # --- coercion ---

    @classmethod
    def _values(cls, data: Mapping[str, Any], loc: Loc, faults: list[Fault]) -> Values:
        """The value of every field, coerced; what is missing or wrong is written down."""
        values: Values = {}
        for name, field in cls.__fields__.items():
            if field.kind is None:
                _settle(field, resolver(cls, {}))
            if field.kind is None:
                raise RuntimeError(f"{cls.__name__}.{name}: {field.annotation!r} is not defined; call {cls.__name__}.update_forward_refs()")
            if name in data:
                values[name] = field.take(data[name], (*loc, name), faults)
            elif field.required:
                fault(faults, (*loc, name), "value_error.missing", "field required")
            else:
                default = field.get_default()
                values[name] = None if default is None else take(field.kind, default, (*loc, name), faults)
        cls._compare(values, values.keys(), loc, faults)
        return values

    @classmethod
    def _compare(cls, values: Values, changed: AbstractSet[str], loc: Loc, faults: list[Fault]) -> None:
        """Check fields against each other, for classes of this package; a value that is INVALID or missing has its fault already."""

    @classmethod
    def _take(cls, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        if isinstance(value, cls):
            return value.copy()
        try:
            data = dict(value)
        except (TypeError, ValueError):
            return fault(faults, loc, "type_error.dict", "value is not a valid dict")
        before = len(faults)
        if cls.__init__ is BaseIO.__init__:
            values = cls._values(data, loc, faults)
            return cls.construct(data.keys() & values.keys(), **values) if len(faults) == before else INVALID
        try:
            return cls(**data)
        except ValidationError as error:
            faults += [{**found, "loc": (*loc, *found["loc"])} for found in error.errors()]
            return INVALID

    # --- making ---

    @classmethod
    def parse_obj(cls, obj: Any) -> Self:
        """From a dict or what becomes one. Raises ValidationError, also when it does not."""
        if not isinstance(obj, dict):
            try:
                obj = dict(obj)
            except (TypeError, ValueError):
                words = f"{cls.__name__} expected dict not {type(obj).__name__}"
                raise ValidationError([{"loc": ("__root__",), "msg": words, "type": "type_error"}], cls) from None
        return cls(**obj)

    @classmethod
    def parse_raw(cls, b: str | bytes, **_options: Any) -> Self:
        """From a JSON text."""
        try:
            obj = json.loads(b)
        except ValueError as error:
            where = {name: getattr(error, name) for name in ("msg", "doc", "pos", "lineno", "colno") if hasattr(error, name)}
            found = {"loc": ("__root__",), "msg": str(error), "type": "value_error.jsondecode", "ctx": where}
            raise ValidationError([found], cls) from None
        return cls.parse_obj(obj)

    @classmethod
    def parse_file(cls, path: str | Path, **_options: Any) -> Self:
        return cls.parse_raw(Path(path).read_bytes())

    @classmethod
    def validate(cls, value: Any) -> Self:
        """A copy of an instance, or a new one from a dict."""
        return value.copy() if isinstance(value, cls) else cls.parse_obj(value)

    @classmethod
    def construct(cls, _fields_set: AbstractSet[str] | None = None, **values: Any) -> Self:
        """An instance with these very values: nothing is checked, only defaults are filled in."""
        made = cls.__new__(cls)
        defaults = {name: field.get_default() for name, field in cls.__fields__.items() if name not in values and not field.required}
        ordered = {name: {**defaults, **values}[name] for name in cls.__fields__ if name in defaults or name in values}
        object.__setattr__(made, "__dict__", ordered | values)
        object.__setattr__(made, "__fields_set__", set(values) if _fields_set is None else set(_fields_set))
        return made

    @classmethod
    def update_forward_refs(cls, **localns: Any) -> None:
        """Look again for classes that annotations name as texts. Raises NameError for one that still is not there."""
        for field in cls.__fields__.values():
            if field.kind is None:
                field.settle(resolver(cls, localns))

    def copy(self, *, include: Chosen = None, exclude: Chosen = None, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy; values in `update` are taken as they are."""
        values = {n: v for n, v in self.__dict__.items() if (include is None or n in include) and (exclude is None or n not in exclude)}
        made = type(self).__new__(type(self))
        object.__setattr__(made, "__dict__", (copy.deepcopy(values) if deep else values) | dict(update or {}))
        object.__setattr__(made, "__fields_set__", (self.__fields_set__ & values.keys()) | set(update or ()))
        return made

    # --- reading ---

    def dict(
        self,
        *,
        include: Chosen = None,
        exclude: Chosen = None,
        by_alias: bool = False,
        skip_defaults: bool | None = None,
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
    ) -> Values:
        """The fields as a dict, nested objects too; a file is its URI."""
        below = {"exclude_unset": bool(exclude_unset or skip_defaults), "exclude_defaults": exclude_defaults, "exclude_none": exclude_none}
        found: Values = {}
        for name, value in self.__dict__.items():
            field = self.__fields__.get(name)
            left_out = (
                (include is not None and name not in include)
                or (exclude is not None and name in exclude and not _goes_on(exclude, name))
                or (below["exclude_unset"] and name not in self.__fields_set__)
                or (exclude_defaults and field is not None and not field.required and value == field.default)
                or (exclude_none and value is None)
            )
            if not left_out:
                found[name] = _plain(value, {"include": _goes_on(include, name), "exclude": _goes_on(exclude, name), **below})
        return found

    def json(self, *, encoder: Callable[[Any], Any] | None = None, models_as_dict: bool = True, **options: Any) -> str:
        """`dict()` as a JSON text; what `dict` and `json.dumps` take is passed on."""
        names = inspect.signature(BaseIO.dict).parameters
        shape = {name: options.pop(name) for name in list(options) if name in names}
        return json.dumps(self.dict(**shape), default=encoder or _jsonable, **options)

    @classmethod
    def schema(cls, *_arguments: Any, **_options: Any) -> Schema:
        """JSON schema of one object: no titles, no references."""
        return cls._schema()

    @classmethod
    def schema_json(cls, *, by_alias: bool = True, ref_template: str = "", **options: Any) -> str:
        return json.dumps(cls.schema(), default=_jsonable, **options)

    @classmethod
    def _schema(cls) -> Schema:
        described = {"description": inspect.cleandoc(cls.__doc__)} if cls.__doc__ and vars(cls).get("__doc__") else {}
        required = [name for name, field in cls.__fields__.items() if field.required]
        properties = {name: _shown(field) for name, field in cls.__fields__.items()}
        return {**described, "type": "object", "properties": properties, **({"required": required} if required else {})}

    # --- Python's own ---

    def __setattr__(self, name: str, value: Any) -> None:
        field = self.__fields__.get(name)
        if field is None:
            raise ValueError(f'"{type(self).__name__}" object has no field "{name}"')
        faults: list[Fault] = []
        values = {**self.__dict__, name: field.take(value, (name,), faults)}
        if not faults:
            self._compare(values, {name}, (), faults)
        if faults:
            raise ValidationError(faults, type(self))
        object.__setattr__(self, "__dict__", values)
        self.__fields_set__.add(name)

    def __eq__(self, other: object) -> bool:
        return self.dict() == (other.dict() if isinstance(other, BaseIO) else other)

    __hash__ = None  # type: ignore[assignment] # equal by value, and values change

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        yield from self.__dict__.items()

    def __getstate__(self) -> Values:
        return {"values": dict(self.__dict__), "fields_set": set(self.__fields_set__)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        object.__setattr__(self, "__dict__", dict(state["values"]))
        object.__setattr__(self, "__fields_set__", set(state["fields_set"]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self)})"

    def __str__(self) -> str:
        return " ".join(f"{name}={value!r}" for name, value in self)


_METHODS = frozenset(name for name in vars(BaseIO) if not name.startswith("_"))


def _settle(field: ModelField, resolve: Callable[[str], Any]) -> None:
    try:
        field.settle(resolve)
    except NameError:
        field.kind = None  # a later class; tried again when the first object is made, or by update_forward_refs


def _shown(field: ModelField) -> Schema:
    """A field in the schema: its kind's own, and what Field or Option said."""
    assert field.kind is not None
    shown = field.kind.schema()
    if field.field_info.description:
        shown["description"] = field.field_info.description
    if field.choices is not None:
        shown["choices"] = [_jsonable(choice) for choice in field.choices]
    if not field.required and field.default is not None:
        taken = take(field.kind, field.get_default(), (), [])
        shown["default"] = _jsonable(field.default if taken is INVALID else taken)
    return shown


def _goes_on(chosen: Chosen, name: str) -> Any:
    """What of `include` or `exclude` is meant for the inside of one field."""
    inner = chosen.get(name) if isinstance(chosen, Mapping) else None
    return inner if isinstance(inner, AbstractSet | Mapping) else None


def _plain(value: Any, options: Mapping[str, Any]) -> Any:
    if isinstance(value, BaseIO):
        return value.dict(**options)
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, {**options, "include": None, "exclude": None}) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item, {**options, "include": None, "exclude": None}) for key, item in value.items()}
    return getattr(value, "__root__", value)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, BaseIO):
        return json.loads(value.json())
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    uri = getattr(value, "__root__", None)
    if uri is None:
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return uri
