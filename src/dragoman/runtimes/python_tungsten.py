"""Tungstenkit models: the decorated class of a module, run through the bridge that our `tungstenkit` package offers. Called by python.py."""

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.tensors import BOOL, BYTES, FP64, INT64, Datatype, Form, JsonSchema, Rows, Signature, TensorSpec, Value
from dragoman.runtimes.python_parts import batches, closed, guarded, rows_of

MARK = "__tungsten_config__"
"""The attribute of every decorated class."""


class Description(Protocol):
    """What a model class declares."""

    input_schema: JsonSchema
    output_schema: JsonSchema
    demo_output_schema: JsonSchema | None
    options: tuple[str, ...]
    input_files: Mapping[str, str]
    output_files: Mapping[str, str]
    demo_output_files: Mapping[str, str]
    batch_size: int


class Bridge(Protocol):
    """`tungstenkit._bridge`, which this process finds on its import path."""

    def find_model(self, module: ModuleType, class_name: str = "") -> type: ...
    def describe(self, model_class: type) -> Description: ...
    def to_inputs(self, model_class: type, rows: list[dict[str, Value]]) -> list[Any]: ...
    def to_rows(self, model_class: type, outputs: Any, expected: int, demo: bool) -> list[dict[str, Value]]: ...
    def discard(self, inputs: Sequence[Any]) -> None: ...


def is_tungsten(module: ModuleType) -> bool:
    """Whether a module has a class that `define_model` has decorated."""
    return any(isinstance(each, type) and MARK in vars(each) for each in vars(module).values())


def load_tungsten(spec: ModelSpec, module: ModuleType, wanted: str, size: int | None) -> Model:
    """Make the model's object and run its `setup`."""
    bridge: Any = importlib.import_module("tungstenkit._bridge")
    return TungstenModel(spec.name, bridge, bridge.find_model(module, wanted), size)


class TungstenModel:
    """A Model of rows with the operations predict and demo."""

    platform = "tungsten"
    concurrent = False
    operations = frozenset({"predict", "demo"})
    streams = False

    def __init__(self, name: str, bridge: Bridge, model_class: type, size: int | None) -> None:
        described = bridge.describe(model_class)
        self._name = name
        self._bridge = bridge
        self._class = model_class
        self._options = tuple(described.options)
        self.batch_size = size or max(1, described.batch_size)
        """How many inputs a batch may have: what its author says, unless an argument said otherwise."""
        self.signatures: Mapping[str, Signature] = {"": _signature(described), "@demo": _demo_signature(described)}
        instance: Any = model_class()
        instance.setup()
        self._instance: Any = instance

    def predict(self, call: Call) -> Rows:
        demo = call.operation == "demo"
        made: list[Value] = []
        for batch in batches(rows_of(call, self._name), self._options, self.batch_size):
            made += self._batch(batch, demo)
        return Rows(made)

    def close(self) -> None:
        self._instance = None

    def _batch(self, rows: list[dict[str, Value]], demo: bool) -> list[dict[str, Value]]:
        instance = self._instance
        if instance is None:
            raise closed(self._name)
        inputs = self._bridge.to_inputs(self._class, rows)
        try:
            outputs = guarded(instance.predict_demo if demo else instance.predict, inputs)
            return guarded(self._bridge.to_rows, self._class, outputs, len(rows), demo)
        finally:
            self._bridge.discard(inputs)


# --- what it declares, as signatures ---


_DATATYPES: Mapping[str, Datatype] = {"integer": INT64, "number": FP64, "boolean": BOOL}


def _signature(described: Description) -> Signature:
    return Signature(
        Form.ROWS,
        _tensors(described.input_schema, described.options),
        _tensors(described.output_schema, ()),
        batch=True,
        options=tuple(described.options),
        input_schema=described.input_schema,
        output_schema=described.output_schema,
        input_files=dict(described.input_files),
        output_files=dict(described.output_files),
    )


def _demo_signature(described: Description) -> Signature:
    demo = described.demo_output_schema or described.output_schema
    demo_files = described.demo_output_files if described.demo_output_schema else described.output_files
    schema = {"type": "object", "properties": {"output": described.output_schema, "demo_output": demo}, "required": ["output"]}
    return Signature(
        Form.ROWS,
        _tensors(described.input_schema, described.options),
        _tensors(schema, ()),
        batch=True,
        options=tuple(described.options),
        input_schema=described.input_schema,
        output_schema=schema,
        input_files=dict(described.input_files),
        output_files={
            **{f"output.{place}": kind for place, kind in described.output_files.items()},
            **{f"demo_output.{place}": kind for place, kind in demo_files.items()},
        },
    )


def _tensors(schema: JsonSchema, options: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Each field as a tensor with one element per row; what has parts of its own is JSON in BYTES."""
    return tuple(
        TensorSpec(name, _DATATYPES.get(field.get("type", ""), BYTES), (-1,), name in options)
        for name, field in schema.get("properties", {}).items()
    )
