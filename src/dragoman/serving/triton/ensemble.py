"""ensemble_scheduling of a model configuration: checks that its steps can run, and puts them in an order in which they can.

Called by translate.py. Whether the members exist and fit is known only when they are loaded; that is not looked at here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.core.errors import invalid
from dragoman.core.model import Step
from dragoman.serving.settings import quoted

_MOST_STEPS = 1000


def steps_in_order(message: Any, inputs: frozenset[str], outputs: frozenset[str], source: str) -> tuple[Step, ...]:
    """The steps, each after those that write what it reads.

    Raises INVALID_INPUT when a step is incomplete, a tensor is written twice or never, read but never written, or never read, when steps
    wait for each other in a circle, or when the ensemble calls itself.
    """
    count = len(message.ensemble_scheduling.step)
    if not 1 <= count <= _MOST_STEPS:
        raise invalid(f"{source}: ensemble_scheduling has {count} steps, expected 1 to {_MOST_STEPS}")
    steps = [_step(step, index, message.name, source) for index, step in enumerate(message.ensemble_scheduling.step)]
    writer = _writers(steps, inputs, source)
    for name in sorted(outputs):
        if name not in writer and name not in inputs:
            raise invalid(f"{source}: output {quoted(name)} of the ensemble is not written by any step")
    _check_reads(steps, writer, inputs, outputs, source)
    return _ordered(steps, inputs, source)


def _step(step: Any, index: int, ensemble: str, source: str) -> Step:
    where = f"{source}: ensemble_scheduling.step[{index}]"
    if not step.model_name:
        raise invalid(f"{where}: expected model_name")
    if step.model_name == ensemble:
        raise invalid(f"{where}: the ensemble calls itself")
    for field in ("input_map", "output_map"):
        names = getattr(step, field)
        if not names:
            raise invalid(f"{where}: expected {field}")
        if not all(names) or not all(names.values()):
            raise invalid(f"{where}: {field}: expected a name on both sides of each entry")
    if step.model_version < -1:
        raise invalid(f"{where}: model_version is {step.model_version}, expected -1 for the newest, or a version")
    # 0 is what a step without model_version has, and no version has that number.
    version = str(step.model_version) if step.model_version > 0 else ""
    return Step(step.model_name, version, dict(sorted(step.input_map.items())), dict(sorted(step.output_map.items())))


def _writers(steps: Sequence[Step], inputs: frozenset[str], source: str) -> dict[str, int]:
    """Tensor -> the step that writes it."""
    writer: dict[str, int] = {}
    for index, step in enumerate(steps):
        for name in step.outputs.values():
            if name in inputs:
                raise invalid(f"{source}: ensemble_scheduling.step[{index}] writes {quoted(name)}, which is an input of the ensemble")
            if name in writer:
                raise invalid(f"{source}: ensemble_scheduling.step[{index}] writes {quoted(name)}, which step[{writer[name]}] writes too")
            writer[name] = index
    return writer


def _check_reads(steps: Sequence[Step], writer: Mapping[str, int], inputs: frozenset[str], outputs: frozenset[str], source: str) -> None:
    read = {name for step in steps for name in step.inputs.values()}
    for index, step in enumerate(steps):
        for own, name in step.inputs.items():
            if name not in writer and name not in inputs:
                raise invalid(
                    f"{source}: ensemble_scheduling.step[{index}]: input {quoted(own)} reads {quoted(name)}, "
                    "which is neither an input of the ensemble nor written by a step"
                )
    for name in sorted(inputs):
        if name not in read:
            raise invalid(f"{source}: input {quoted(name)} of the ensemble is not read by any step")
    for name in writer:
        if name not in read and name not in outputs:
            raise invalid(f"{source}: the tensor {quoted(name)} is written, but neither read by a step nor an output of the ensemble")


def _ordered(steps: Sequence[Step], inputs: frozenset[str], source: str) -> tuple[Step, ...]:
    present, order, waiting = set(inputs), list[Step](), list(enumerate(steps))
    while waiting:
        ready = [(index, step) for index, step in waiting if present.issuperset(step.inputs.values())]
        if not ready:
            circle = ", ".join(f"step[{index}] ({step.model})" for index, step in waiting[:10])
            raise invalid(f"{source}: ensemble_scheduling: steps wait for each other's outputs in a circle: {circle}")
        order += [step for _, step in ready]
        present.update(name for _, step in ready for name in step.outputs.values())
        waiting = [(index, step) for index, step in waiting if not any(index == done for done, _ in ready)]
    return tuple(order)
