"""The two models behind LitServe: /iris takes {"row": [...]}, /image {"image": the raw bytes in base64}."""

import base64
import os
import sys
from typing import Any

import litserve
from sessions import ImageMean, Iris


class IrisAPI(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self._model = Iris()

    def decode_request(self, request: dict[str, Any]) -> list[float]:
        return request["row"]  # type: ignore[no-any-return]

    def batch(self, inputs: list[list[float]]) -> list[list[float]]:
        return inputs

    def predict(self, x: Any) -> Any:
        """One row, or with batching a list of them."""
        return self._model(x) if self.max_batch_size > 1 else self._model([x])[0]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


class ImageAPI(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self._model = ImageMean()

    def decode_request(self, request: dict[str, Any]) -> bytes:
        return base64.b64decode(request["image"])

    def predict(self, x: bytes) -> dict[str, float]:
        return self._model(x)

    def encode_response(self, output: dict[str, float]) -> dict[str, float]:
        return output


if __name__ == "__main__":
    workers = int(os.environ["WORKERS"])
    apis = [
        IrisAPI(max_batch_size=int(os.environ.get("BATCH", "1")), batch_timeout=0.0005, api_path="/iris"),
        ImageAPI(api_path="/image"),
    ]
    server = litserve.LitServer(apis, accelerator="cpu", workers_per_device=workers, timeout=60)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=workers,
        log_level="error",
        access_log=False,
        generate_client_file=False,
    )
