"""Turns a parsed model configuration into ModelSettings: checks every value, reads the label and warm-up files that it names.

The parts are in tensors.py, batching.py, samples.py and ensemble.py. Called by serving/repository. Messages described at run time have no
static types, so their fields are `Any` here.
"""

from pathlib import Path
from typing import Any

from dragoman.core import plugins
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import Policy, PolicyKind
from dragoman.core.model import Step
from dragoman.core.tensors import TensorSpec
from dragoman.serving.paths import check_relative
from dragoman.serving.settings import (
    LATEST,
    Device,
    InstanceGroup,
    ModelSettings,
    limited,
    quoted,
)
from dragoman.serving.triton.batching import batch_policy, batching_warnings
from dragoman.serving.triton.effects import ENSEMBLE, SINGLE, without_effect
from dragoman.serving.triton.ensemble import steps_in_order
from dragoman.serving.triton.samples import warmup_samples
from dragoman.serving.triton.tensors import tensors
from dragoman.serving.triton.text import TritonConfig

_ENSEMBLE = "ensemble"
_BACKENDS = {"onnxruntime": "onnx", "pytorch": "torch", "tensorflow": "savedmodel"}
_PLATFORMS = {"onnxruntime_onnx": "onnx", "pytorch_libtorch": "torch", "libtorch": "torch", "tensorflow_savedmodel": "savedmodel"}
_FILES = {"onnx": "model.onnx", "torch": "model.pt", "savedmodel": "model.savedmodel"}
"""What Triton opens in a version folder when the configuration does not say, by our runtime."""
_CODE = frozenset({"python"})
"""Runtimes that run a file as code: a configuration, which may come with a request, must not choose them."""
_DEVICES = (Device.AUTO, Device.GPU, Device.CPU, Device.MODEL)
"""By the numbers of ModelInstanceGroup.Kind."""
_MOST_INSTANCES = 256


def translate(config: TritonConfig, folder: Path) -> ModelSettings:
    """What the configuration asks for. `folder` is the model's folder, in which the files that it names must lie.

    Blocks on the disk. Raises INVALID_INPUT for values that cannot be served, UNSUPPORTED for a backend that there is no runtime for.
    """
    message: Any = config.message
    source = config.source
    if message.max_batch_size < 0:
        raise invalid(f"{source}: max_batch_size is {message.max_batch_size}, expected 0 or more")
    batched = message.max_batch_size > 0
    inputs, input_reshapes = tensors(message.input, "input", batched, folder, source)
    outputs, output_reshapes = tensors(message.output, "output", batched, folder, source)
    ensemble = _is_ensemble(message, source)
    runtime = "" if ensemble else _runtime(message, source)
    filename = message.default_model_filename or _FILES.get(runtime, "")
    if message.default_model_filename:
        check_relative(filename, f"{source}: default_model_filename")
    tree = ENSEMBLE if ensemble else SINGLE
    return ModelSettings(
        name=config.name,
        source=source,
        runtime=runtime,
        platform=message.platform,
        filename="" if ensemble else filename,
        version_policy=_versions(message, source),
        max_batch_size=message.max_batch_size,
        batch=batch_policy(message, source),
        joins=message.HasField("dynamic_batching") and batched,
        inputs=inputs,
        outputs=outputs,
        input_reshapes=input_reshapes,
        output_reshapes=output_reshapes,
        instances=() if ensemble else _instances(message, source),
        arguments={} if ensemble else {key: value.string_value for key, value in sorted(message.parameters.items())},
        warmup=() if ensemble else warmup_samples(message, folder, source),
        steps=_steps(message, inputs, outputs, source) if ensemble else (),
        sequences=message.HasField("sequence_batching"),
        response_cache=message.response_cache.enable,
        decoupled=message.model_transaction_policy.decoupled,
        warnings=limited((*config.unknown, *without_effect(message, tree, source), *batching_warnings(message, source)), source),
    )


def _is_ensemble(message: Any, source: str) -> bool:
    scheduled: bool = message.HasField("ensemble_scheduling")
    if not scheduled and message.platform == _ENSEMBLE:
        raise invalid(f"{source}: platform is '{_ENSEMBLE}', so ensemble_scheduling is expected")
    if scheduled and (message.backend or message.platform not in {"", _ENSEMBLE}):
        raise invalid(
            f"{source}: ensemble_scheduling needs the platform '{_ENSEMBLE}' and no backend, not {quoted(message.backend or message.platform)}"
        )
    return scheduled


def _runtime(message: Any, source: str) -> str:
    """The runtime's name; "" when neither backend nor platform nor file name says."""
    backend, platform = message.backend, message.platform
    if backend and backend not in _BACKENDS:
        # A runtime that somebody installed serves the backend of its name, and calls its platform what it likes.
        if backend in _CODE or backend not in plugins.names("runtimes"):
            raise _unsupported("backend", backend, source)
        return str(backend)
    if platform and platform not in _PLATFORMS:
        raise _unsupported("platform", platform, source)
    if backend and platform and _BACKENDS[backend] != _PLATFORMS[platform]:
        raise invalid(f"{source}: backend '{backend}' and platform '{platform}' do not belong together")
    if backend or platform:
        return _BACKENDS.get(backend) or _PLATFORMS[platform]
    return next((runtime for runtime, name in _FILES.items() if name == message.default_model_filename), "")


def _unsupported(field: str, value: str, source: str) -> ServingError:
    served = ", ".join([*(_BACKENDS if field == "backend" else _PLATFORMS), _ENSEMBLE])
    return ServingError(Kind.UNSUPPORTED, f"{source}: {field} {quoted(value)} cannot be served; expected one of {served}", what="model")


def _versions(message: Any, source: str) -> Policy:
    if not message.HasField("version_policy"):
        return LATEST
    policy = message.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "latest":
        return Policy(PolicyKind.LATEST, policy.latest.num_versions or 1)
    if choice != "specific":  # Triton takes a policy without a choice as "all" too
        return Policy(PolicyKind.ALL)
    versions = tuple(dict.fromkeys(str(version) for version in policy.specific.versions))
    if not versions or any(version < 1 for version in policy.specific.versions):
        raise invalid(f"{source}: version_policy.specific: expected one or more versions, each 1 or higher")
    return Policy(versions=versions)


def _instances(message: Any, source: str) -> tuple[InstanceGroup, ...]:
    groups = []
    for index, group in enumerate(message.instance_group):
        where = f"instance_group[{index}]"
        if not 0 <= group.kind < len(_DEVICES):
            raise invalid(f"{source}: {where}: kind {group.kind} is not known")
        device = _DEVICES[group.kind]
        gpus = tuple(group.gpus)
        if gpus and device not in {Device.GPU, Device.AUTO}:
            raise invalid(f"{source}: {where}: gpus are listed, but the kind is KIND_{device.name}")
        if any(gpu < 0 for gpu in gpus) or len(set(gpus)) != len(gpus):
            raise invalid(f"{source}: {where}: gpus are {list(gpus)[:20]}, expected different numbers from 0")
        if group.count < 0:
            raise invalid(f"{source}: {where}: count is {group.count}, expected 1 or more (or none, for 1)")
        groups.append(InstanceGroup(group.count or 1, device, gpus, group.name))
    total = sum(group.count * max(1, len(group.gpus)) for group in groups)
    if total > _MOST_INSTANCES:
        raise invalid(f"{source}: instance_group asks for {total} instances, at most {_MOST_INSTANCES} are allowed")
    return tuple(groups)


def _steps(message: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], source: str) -> tuple[Step, ...]:
    for kind, specs in (("input", inputs), ("output", outputs)):
        if not specs:
            raise invalid(f"{source}: an ensemble needs its {kind}s listed")
        for spec in specs:
            if spec.datatype is None or spec.shape is None:
                raise invalid(f"{source}: {kind} {quoted(spec.name)} of an ensemble needs data_type and dims")
    return steps_in_order(message, frozenset(spec.name for spec in inputs), frozenset(spec.name for spec in outputs), source)
