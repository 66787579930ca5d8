"""From a configuration file to the specs of a model's versions: what Triton's config.pbtxt and MLServer's model-settings.json mean on disk.

Called by repository.py, which knows where the models lie; the files are read by triton/ and mlserver.py.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dragoman.core.artifacts import detect
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import choose
from dragoman.core.model import ModelSpec
from dragoman.core.tensors import Signature
from dragoman.serving import layouts
from dragoman.serving.mlflow_models import is_mlflow
from dragoman.serving.mlserver import MLFLOW, read_settings
from dragoman.serving.paths import read_bounded
from dragoman.serving.settings import LARGEST_FILE, Device, ModelSettings, quoted
from dragoman.serving.triton import config_from_json, config_json, read_config, translate

Versions = dict[str, ModelSpec]

_OPERATORS = frozenset({"trust_pickle"})
"""Arguments that only the command line gives: a file that came with a model, or with a request, must not declare that model trusted."""


def triton_model(folder: Path, base: ModelSpec, override: str = "") -> Versions:
    """The specs of a Triton model folder, by its version policy. `override` is a configuration in JSON that stands for the file."""
    if override:
        config = config_from_json(override, base.name)
    else:
        path = folder / layouts.TRITON_CONFIG
        config = read_config(read_bounded(path, LARGEST_FILE, str(path)), folder.name)
    settings = translate(config, folder)
    common = replace(_applied(base, settings), config=config_json(config.message))
    if settings.steps:
        return {"1": complete(replace(common, runtime=""), None)}
    folders = layouts.version_folders(folder, leading_zeros=False)
    chosen = _chosen(folders, settings)
    specs: Versions = {}
    for version in chosen:
        conventional = settings.filename if (folders[version] / settings.filename).exists() else ""
        artifact = layouts.one_artifact(folders[version], common.config.get("default_model_filename") or conventional)
        specs[version] = complete(replace(common, version=version, named_version=True), artifact)
    return specs


def mlserver_model(folder: Path, base: ModelSpec, logged: Callable[[ModelSpec, Path], ModelSpec]) -> tuple[str, Versions]:
    """The name and the one spec of a folder with model-settings.json. `logged` makes the spec of an MLflow folder over another."""
    path = folder / layouts.MLSERVER_SETTINGS
    settings = read_settings(read_bounded(path, LARGEST_FILE, str(path)), folder)
    version, named = settings.version or base.version, bool(settings.version) or base.named_version
    spec = replace(_applied(base, settings), name=settings.name, version=version, named_version=named)
    if spec.signature is not None:
        # MLServer shows what is declared and never checks it, so it need not be true; what the model itself says is.
        ignored = f"{settings.source}: inputs and outputs have no effect here: they are read from the model"
        spec = replace(spec, signature=None, warnings=(*spec.warnings, ignored))
    artifact = settings.artifact if settings.artifact is not None else layouts.one_artifact(folder)
    if settings.runtime == MLFLOW:
        if not is_mlflow(artifact):
            raise invalid(f"{settings.source}: parameters.uri: expected the folder of an MLflow model, with its MLmodel", "model")
        return settings.name, {spec.version: logged(spec, artifact)}
    if artifact.is_dir():
        artifact = layouts.one_artifact(artifact)
    return settings.name, {spec.version: complete(spec, artifact)}


def complete(spec: ModelSpec, artifact: Path | None) -> ModelSpec:
    """Fill in the artifact, its runtime and the revision that the state of its files gives."""
    if artifact is None:
        return spec.with_revision("")
    runtime = spec.runtime or detect(artifact)
    if not runtime:
        raise ServingError(Kind.UNSUPPORTED, f"no runtime knows the file {artifact.name}")
    # A model may have more files than the one that is opened, such as weights beside it; a lone file in somebody's folder has not.
    folder = artifact.parent.name.lstrip("0") or "0"
    state = layouts.state_of(artifact.parent if folder == spec.version else artifact)
    return replace(spec, artifact=str(artifact), runtime=runtime).with_revision(state)


def _applied(base: ModelSpec, settings: ModelSettings) -> ModelSpec:
    """The base spec with everything that the configuration says."""
    signature = None
    if settings.inputs or settings.outputs:
        signature = Signature(inputs=settings.inputs, outputs=settings.outputs, batch=settings.max_batch_size > 0)
    kept = {name: value for name, value in settings.arguments.items() if name.lower() not in _OPERATORS}
    refused = [
        f"{settings.source}: the parameter {quoted(name)} has no effect here: only --{name.lower().replace('_', '-')} of the server says that"
        for name in settings.arguments
        if name not in kept
    ]
    arguments: dict[str, Any] = {**base.arguments, **kept}
    gpus = [g for g in settings.instances if g.device is Device.GPU]
    if gpus:
        arguments["device"] = f"cuda:{gpus[0].gpus[0]}" if gpus[0].gpus else "cuda"
    batch = base.batch
    if settings.batch is not None:
        bounds = [bound for bound in (settings.batch.max_queue, base.batch.max_queue) if bound]  # 0 is none
        batch = replace(settings.batch, max_queue=min(bounds, default=0))
    return replace(
        base,
        runtime=settings.runtime,
        platform=settings.platform,
        batch=batch,
        instances=settings.instance_count if settings.instances else base.instances,
        arguments=arguments,
        signature=signature,
        input_reshapes=settings.input_reshapes,
        output_reshapes=settings.output_reshapes,
        steps=settings.steps,
        warmup=settings.warmup,
        warnings=(*settings.warnings, *refused),
    )


def _chosen(folders: dict[str, Path], settings: ModelSettings) -> list[str]:
    """The versions that the policy serves. Raises INVALID_INPUT when there is none, or not one that it names."""
    if not folders:
        raise invalid(f"{settings.source}: the model has no version folder (1, 2, ...)")
    chosen = choose(settings.version_policy, folders)
    if not chosen:
        named = ", ".join(settings.version_policy.versions)
        raise invalid(f"{settings.source}: version_policy names {named}, for which there is no folder")
    return chosen
