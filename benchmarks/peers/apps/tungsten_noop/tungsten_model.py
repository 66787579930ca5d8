"""A model that does nothing, in the API of Tungstenkit: what the server itself costs. Served by both contenders from this very file."""

from tungstenkit import BaseIO, define_model


class Input(BaseIO):
    x: float


class Output(BaseIO):
    y: float


@define_model(input=Input, output=Output, batch_size=16)
class Model:
    def predict(self, inputs: list[Input]) -> list[Output]:
        return [Output(y=i.x) for i in inputs]
