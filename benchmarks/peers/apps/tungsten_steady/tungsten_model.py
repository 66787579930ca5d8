"""A model that takes 20 ms whatever the batch, in the API of Tungstenkit: what batching is worth."""

import time

from tungstenkit import BaseIO, define_model


class Input(BaseIO):
    x: float


class Output(BaseIO):
    y: float


@define_model(input=Input, output=Output, batch_size=8)
class Model:
    def predict(self, inputs: list[Input]) -> list[Output]:
        time.sleep(0.02)
        return [Output(y=i.x) for i in inputs]
