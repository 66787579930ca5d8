"""An MLServer runtime that calls onnxruntime, for numeric tensors."""

from typing import Any

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri
from sessions import open_session


class Onnx(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self._session = open_session(await get_model_uri(self.settings))
        self._outputs = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds: dict[str, Any] = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        arrays = self._session.run(self._outputs, feeds)
        outputs = []
        for name, array in zip(self._outputs, arrays, strict=True):
            outputs.append(NumpyCodec.encode_output(name, array))
            outputs[-1].shape = list(array.shape)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
