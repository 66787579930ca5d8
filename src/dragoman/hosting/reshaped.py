"""A model whose tensors have other shapes than its clients see: Triton's `reshape`. Wrapped around the loaded model by LocalServable."""

from collections.abc import Mapping
from dataclasses import replace

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.tensors import Rows, Shape, Signature, Tensor, Tensors, TensorSpec


def inner_spec(spec: ModelSpec) -> ModelSpec:
    """The spec that the runtime gets: declared shapes replaced by those that the model itself has."""
    if spec.signature is None or not (spec.input_reshapes or spec.output_reshapes):
        return spec
    inputs = tuple(_reshaped(s, spec.input_reshapes) for s in spec.signature.inputs)
    outputs = tuple(_reshaped(s, spec.output_reshapes) for s in spec.signature.outputs)
    return replace(spec, signature=replace(spec.signature, inputs=inputs, outputs=outputs))


def outer_model(model: Model, spec: ModelSpec) -> Model:
    """The model as clients see it; the model itself where nothing is reshaped."""
    if spec.signature is None or not (spec.input_reshapes or spec.output_reshapes):
        return model
    return _Reshaped(model, spec, spec.signature)


class _Reshaped:
    def __init__(self, model: Model, spec: ModelSpec, signature: Signature) -> None:
        inner = model.signatures[""]
        known = {s.name: s for s in (*inner.inputs, *inner.outputs)}
        self._model = model
        self._name = spec.name
        self._inputs = spec.input_reshapes
        self._declared = {s.name: s.shape for s in signature.outputs if s.name in spec.output_reshapes}
        self.signatures: Mapping[str, Signature] = {
            "": replace(
                signature,
                inputs=tuple(_typed(s, known) for s in signature.inputs),
                outputs=tuple(_typed(s, known) for s in signature.outputs),
                reads=inner.reads,
            )
        }
        self.operations = model.operations
        self.platform = model.platform
        self.concurrent = model.concurrent

    def predict(self, call: Call) -> Tensors | Rows:
        if isinstance(call.inputs, Tensors):
            call.inputs = Tensors([self._inward(t) for t in call.inputs.items])
        outputs = self._model.predict(call)
        return Tensors([self._outward(t) for t in outputs.items]) if isinstance(outputs, Tensors) else outputs

    def close(self) -> None:
        self._model.close()

    def _inward(self, tensor: Tensor) -> Tensor:
        shape = self._inputs.get(tensor.name)
        if shape is None:
            return tensor
        try:
            return Tensor(tensor.name, tensor.datatype, tensor.array.reshape(shape))
        except ValueError:
            raise invalid(
                f"input '{tensor.name}' of model '{self._name}' has shape {list(tensor.array.shape)}, which cannot become {list(shape)}"
            ) from None

    def _outward(self, tensor: Tensor) -> Tensor:
        shape = self._declared.get(tensor.name)
        if shape is None:
            return tensor
        try:
            return Tensor(tensor.name, tensor.datatype, tensor.array.reshape(shape))
        except ValueError as error:
            raise ServingError(
                Kind.MODEL_FAILED,
                f"output '{tensor.name}' of model '{self._name}' has shape {list(tensor.array.shape)}, which cannot become {list(shape)}",
            ) from error


def _reshaped(spec: TensorSpec, shapes: Mapping[str, Shape]) -> TensorSpec:
    return replace(spec, shape=shapes[spec.name]) if spec.name in shapes else spec


def _typed(spec: TensorSpec, known: Mapping[str, TensorSpec]) -> TensorSpec:
    """What the declaration leaves open, the model knows."""
    model = known.get(spec.name)
    return replace(spec, datatype=model.datatype) if model is not None and spec.datatype is None else spec
