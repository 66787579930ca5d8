"""define_model: checks a model class and its input and output, and writes down what was declared. Model files decorate with it."""

import inspect
import weakref
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, Unpack, overload

from ._base import BaseIO
from ._checks import check_input, check_output, describe_fields

C = TypeVar("C", bound=type)
_defined: "weakref.WeakSet[type]" = weakref.WeakSet()


class _Declared(TypedDict, total=False):
    """What may be declared besides input and output; define_model has the defaults."""

    demo_output: type[BaseIO] | None
    gpu: bool
    python_packages: list[str] | None
    python_version: str | None
    system_packages: list[str] | None
    cuda_version: str | None
    cudnn_version: str | None
    force_install_system_cuda: bool
    readme_md: str | None
    batch_size: int
    gpu_mem_gb: float
    mem_gb: float
    include_files: list[str] | None
    exclude_files: list[str] | None
    dockerfile_commands: list[str] | None
    base_image: str | None


@overload
def define_model(
    maybe_cls: None = None, *, input: type[BaseIO], output: type[BaseIO], **declared: Unpack[_Declared]
) -> Callable[[C], C]: ...
@overload
def define_model(maybe_cls: C, *, input: type[BaseIO], output: type[BaseIO], **declared: Unpack[_Declared]) -> C: ...
def define_model(
    maybe_cls: Any = None,
    *,
    input: type[BaseIO],  # noqa: A002 # Tungstenkit's name
    output: type[BaseIO],
    demo_output: type[BaseIO] | None = None,
    gpu: bool = False,
    python_packages: list[str] | None = None,
    python_version: str | None = None,
    system_packages: list[str] | None = None,
    cuda_version: str | None = None,
    cudnn_version: str | None = None,
    force_install_system_cuda: bool = False,
    readme_md: str | None = None,
    batch_size: int = 1,
    gpu_mem_gb: float = 16.0,
    mem_gb: float = 8.0,
    include_files: list[str] | None = None,
    exclude_files: list[str] | None = None,
    dockerfile_commands: list[str] | None = None,
    base_image: str | None = None,
) -> Any:
    """Make a class a Tungsten model. The class itself is returned, so it can be used by hand as before.

    `input` and `output` are BaseIO classes; `demo_output` is one that goes with a method `predict_demo`. `batch_size` bounds what `predict` is
    given at once. `python_packages`, `python_version`, `readme_md`, `include_files` and `exclude_files` matter when the model is built or gets
    a virtualenv of its own; the rest describes a container image and is kept for who builds one.

    Raises TypeError for a method that is missing or takes other parameters than Tungstenkit's, and for fields of a type that inputs or
    outputs cannot have; ValueError for `predict_demo` without `demo_output`.
    """
    config = {name: value for name, value in locals().items() if name not in ("maybe_cls", "input", "output", "demo_output")}

    def define(cls: type) -> type:
        _check_methods(cls, demo_output)
        check_input(input)
        check_output(output)
        check_output(demo_output or output, "demo_output")
        describe_fields(input)
        attributes = {
            "__tungsten_config__": config,
            "__tungsten_input__": input,
            "__tungsten_output__": output,
            "__tungsten_demo_output__": demo_output or output,
            "__has_post_build__": hasattr(cls, "post_build"),
        }
        for name, value in attributes.items():
            setattr(cls, name, value)
        for name, method in _DEFAULTS.items():
            if not hasattr(cls, name):
                setattr(cls, name, method)
        _defined.add(cls)
        return cls

    return define if maybe_cls is None else define(maybe_cls)


def defined_in(module: str) -> list[type]:
    """The classes that were decorated in a module and are still alive, for one that keeps its class where nobody sees it."""
    return [cls for cls in _defined if cls.__module__ == module]


def _setup(self: Any) -> None:
    """Nothing to prepare."""


def _post_build() -> None:
    """Nothing to do after building."""


def _predict_demo(self: Any, inputs: list[Any]) -> tuple[Any, Any]:
    """The outputs, which are the demo's as well."""
    outputs = self.predict(inputs)
    return outputs, outputs


_DEFAULTS: dict[str, Any] = {"setup": _setup, "post_build": staticmethod(_post_build), "predict_demo": _predict_demo}
for _name, _method in (("setup", _setup), ("post_build", _post_build), ("predict_demo", _predict_demo)):
    _method.__name__ = _name


def _check_methods(cls: type, demo_output: type[BaseIO] | None) -> None:
    if not isinstance(cls, type):
        raise TypeError(f"define_model decorates a class, not {cls!r}")
    if not hasattr(cls, "predict"):
        raise TypeError(f"{cls.__qualname__} has no method 'predict'")
    if demo_output is not None and not hasattr(cls, "predict_demo"):
        raise TypeError(f"{cls.__qualname__} has a demo_output but no method 'predict_demo'")
    if demo_output is None and hasattr(cls, "predict_demo"):
        raise ValueError(f"{cls.__qualname__} has a method 'predict_demo', so define_model needs demo_output")
    _check_parameters(cls, "predict", ("self", "inputs"))
    if hasattr(cls, "setup"):
        _check_parameters(cls, "setup", ("self",))
    if hasattr(cls, "predict_demo"):
        _check_parameters(cls, "predict_demo", ("self", "inputs"))


def _check_parameters(cls: type, name: str, wanted: tuple[str, ...]) -> None:
    method = getattr(cls, name)
    if not callable(method):
        raise TypeError(f"{cls.__qualname__}.{name} is not a method")
    found = inspect.getfullargspec(method).args
    if len(found) != len(wanted):
        raise TypeError(f"{cls.__qualname__}.{name} must have the parameters ({', '.join(wanted)}), not ({', '.join(found)})")
    if inspect.iscoroutinefunction(method):
        raise TypeError(f"{cls.__qualname__}.{name} is async; Tungsten models are called from a thread and must not be")
