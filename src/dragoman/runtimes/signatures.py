"""What a configuration file declares about a model, laid over what the artifact itself says. Called by every runtime's load."""

from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import ModelSpec
from dragoman.core.tensors import Shape, Signature, TensorSpec


def settle(spec: ModelSpec, own: Signature) -> Signature:
    """The signature to serve: the artifact's `own`, narrowed by the declared one.

    Declared tensors must exist with the same datatype and a compatible shape; a declared subset of the outputs hides the others. The declared
    batch flag, labels and fixed dimensions win. Raises INVALID_INPUT, naming the tensor and both sides.
    """
    declared = spec.signature
    if declared is None:
        return own
    inputs = _lay_over(spec.name, "input", declared.inputs, own.inputs)
    outputs = _lay_over(spec.name, "output", declared.outputs, own.outputs)
    given = {tensor.name for tensor in inputs}
    for tensor in own.inputs:
        if tensor.name not in given and not tensor.optional:
            raise invalid(
                f"the configuration of model '{spec.name}' does not declare the input '{tensor.name}', which the model needs", what="model"
            )
    if declared.batch:
        for kind, tensors in (("input", own.inputs), ("output", own.outputs)):
            for tensor in tensors:
                if tensor.shape is not None and tensor.shape[:1] != (-1,) and tensor.name in {t.name for t in inputs + outputs}:
                    raise invalid(
                        f"the configuration of model '{spec.name}' declares a batch axis, but the {kind} '{tensor.name}' has the shape "
                        f"{list(tensor.shape)} in the model, whose first dimension is not variable",
                        what="model",
                    )
    return Signature(
        form=own.form,
        inputs=inputs,
        outputs=outputs,
        batch=declared.batch,
        options=own.options,
        reads=declared.reads or own.reads,
        input_schema=declared.input_schema,
        output_schema=declared.output_schema,
        method=declared.method or own.method,
        any_name=own.any_name,
    )


def _lay_over(model: str, kind: str, declared: tuple[TensorSpec, ...], own: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    if not declared:
        return own
    by_name = {tensor.name: tensor for tensor in own}
    merged = []
    for wish in declared:
        fact = by_name.get(wish.name)
        if fact is None:
            names = ", ".join(f"'{t.name}'" for t in own)
            raise invalid(
                f"the configuration of model '{model}' declares the {kind} '{wish.name}', which the model lacks; its {kind}s are {names}",
                what="model",
            )
        if wish.datatype is not None and fact.datatype is not None and wish.datatype is not fact.datatype:
            raise _differs(model, kind, wish.name, f"datatype {wish.datatype}", str(fact.datatype))
        if wish.optional and not fact.optional:
            raise _differs(model, kind, wish.name, "as optional", "required")
        merged.append(
            TensorSpec(
                name=wish.name,
                datatype=fact.datatype or wish.datatype,
                shape=_narrower(model, kind, wish, fact),
                optional=fact.optional,
                labels=wish.labels or fact.labels,
                native=fact.native or wish.native,
            )
        )
    return tuple(merged)


def _narrower(model: str, kind: str, wish: TensorSpec, fact: TensorSpec) -> Shape | None:
    if wish.shape is None or fact.shape is None:
        return fact.shape if wish.shape is None else wish.shape
    if len(wish.shape) != len(fact.shape) or any(w != f and -1 not in (w, f) for w, f in zip(wish.shape, fact.shape, strict=True)):
        raise _differs(model, kind, wish.name, f"shape {list(wish.shape)}", str(list(fact.shape)))
    return tuple(f if w == -1 else w for w, f in zip(wish.shape, fact.shape, strict=True))


def _differs(model: str, kind: str, name: str, declared: str, actual: str) -> ServingError:
    return invalid(
        f"the configuration of model '{model}' declares the {kind} '{name}' {_with(declared)}, but the model has {actual}", what="model"
    )


def _with(declared: str) -> str:
    return declared if declared.startswith("as ") else f"with {declared}"
