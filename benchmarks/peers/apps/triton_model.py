"""model.py of Triton's Python backend: the ONNX file beside it in onnxruntime, the requests of one call joined into one run."""

import os
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        arrays = [triton.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        if len(arrays) == 1:
            shares = [self._session.run(self._outputs, {self._input: arrays[0]})]
        else:
            results = self._session.run(self._outputs, {self._input: np.concatenate(arrays)})
            ends = np.cumsum([len(array) for array in arrays])
            shares = [[result[end - len(array) : end] for result in results] for array, end in zip(arrays, ends, strict=True)]
        return [
            triton.InferenceResponse([triton.Tensor(name, array) for name, array in zip(self._outputs, share, strict=True)])
            for share in shares
        ]
