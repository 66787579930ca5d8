"""Text to text: says it louder. It behaves as a neural network would, which takes as long for eight texts as for one."""

import time

from tungstenkit import BaseIO, Field, Option, define_model

VOICES = {"loud": str.upper, "polite": str.capitalize, "whisper": str.lower}


class Input(BaseIO):
    text: str = Field(description="What to say", min_length=1, max_length=2000)
    voice: str = Option("loud", choices=[*VOICES], description="How to say it")
    marks: int = Option(1, ge=0, le=10, description="How many exclamation marks to add")


class Output(BaseIO):
    text: str
    batch: int
    """How many texts were said at the same time."""


@define_model(input=Input, output=Output, batch_size=8)
class Shout:
    def setup(self) -> None:
        self.seconds_per_batch = 0.05

    def predict(self, inputs: list[Input]) -> list[Output]:
        options = inputs[0]  # equal for all inputs of a batch
        say = VOICES[options.voice]
        time.sleep(self.seconds_per_batch)
        return [Output(text=say(each.text) + "!" * options.marks, batch=len(inputs)) for each in inputs]


if __name__ == "__main__":
    model = Shout()
    model.setup()
    print(model.predict([Input(text="hello"), Input(text="world")]))
