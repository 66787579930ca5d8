"""Does a request fit a signature? Called by the gateway for every request, so the good path is a few comparisons per tensor.

The order of checks is the order of the messages that users need: names, datatypes, ranks, dimensions, batch.
"""

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import InferRequest
from dragoman.core.tensors import Shape, Signature, Tensors, TensorSpec


def check(request: InferRequest, signature: Signature, model: str, max_size: int = 0) -> None:
    """Raise INVALID_INPUT unless the tensors of `request` are those that `signature` declares, and the wanted outputs exist.

    With `request.strict` false shapes are not looked at. `max_size` > 0 refuses a request of more rows (Triton's max_batch_size) and,
    because such a model needs at least one row, an empty one.
    """
    inputs = request.inputs
    if isinstance(inputs, Tensors) and signature.inputs:
        declared = signature.input_by_name
        first = -1
        for tensor in inputs.items:
            spec = declared.get(tensor.name)
            if spec is None:
                raise invalid(f"model '{model}' has no input '{tensor.name}'; its inputs are {_names(signature.inputs)}")
            if tensor.datatype is not spec.datatype and spec.datatype is not None:
                raise invalid(f"input '{tensor.name}' of model '{model}' has datatype {tensor.datatype}, expected {spec.datatype}")
            if request.strict:
                shape = tensor.array.shape
                if spec.shape is not None and not fits(shape, spec.shape):
                    raise invalid(
                        f"input '{tensor.name}' of model '{model}' has shape {list(shape)}, expected {_shape(spec.shape)}"
                        + (" (-1 is any size, the first is the batch)" if signature.batch else "")
                    )
                if signature.batch:
                    if first == -1:
                        first = shape[0] if shape else 0
                    elif shape and shape[0] != first:
                        raise invalid(
                            f"inputs of model '{model}' disagree on the batch size: '{tensor.name}' has {shape[0]}, "
                            f"'{inputs.items[0].name}' has {first}"
                        )
        if len(inputs.items) != len(signature.inputs):
            _missing(inputs, signature, model)
        if max_size and signature.batch and not 0 < first <= max_size and request.strict:
            raise invalid(
                f"batch size {first} for model '{model}' is above its max_batch_size {max_size}"
                if first > 0
                else f"model '{model}' needs a batch of at least 1"
            )
    if request.outputs and signature.outputs:
        for name in request.outputs:
            if name not in signature.output_by_name:
                raise ServingError(
                    Kind.INVALID_INPUT,
                    f"model '{model}' has no output '{name}'; its outputs are {_names(signature.outputs)}",
                    what="output",
                )


def fits(shape: Shape, declared: Shape) -> bool:
    """Whether a shape is one that `declared` (with -1 for any) allows."""
    if len(shape) != len(declared):
        return False
    for got, want in zip(shape, declared):  # noqa: B905, SIM110 # a plain loop over equal lengths takes half the time of all()
        if want != got and want != -1:
            return False
    return True


def _missing(inputs: Tensors, signature: Signature, model: str) -> None:
    given = {t.name for t in inputs.items}
    missing = [s for s in signature.inputs if s.name not in given and not s.optional]
    if missing:
        raise invalid(f"model '{model}' needs the input{'s' if len(missing) > 1 else ''} {_names(tuple(missing))}, which the request lacks")


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"'{s.name}'" for s in specs)


def _shape(shape: Shape) -> str:
    return f"[{', '.join(str(d) for d in shape)}]"
