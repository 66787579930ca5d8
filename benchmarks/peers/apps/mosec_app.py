"""The two models behind Mosec: /iris takes {"row": [...]}, /image the image as raw bytes."""

import os
from typing import Any

from mosec import Runtime, Server, Worker
from sessions import ImageMean, Iris


class IrisWorker(Worker):
    def __init__(self) -> None:
        self._model = Iris()

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self._model([request["row"] for request in data])


class ImageWorker(Worker):
    def __init__(self) -> None:
        self._model = ImageMean()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> dict[str, float]:
        return self._model(data)


if __name__ == "__main__":
    workers = int(os.environ["WORKERS"])
    server = Server()
    server.register_runtime(
        {
            "/iris": [Runtime(IrisWorker, num=workers, max_batch_size=32, max_wait_time=1)],
            "/image": [Runtime(ImageWorker, num=workers)],
        }
    )
    server.run()
