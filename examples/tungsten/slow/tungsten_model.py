"""A model that takes its time and tells how far it is: for trying asynchronous predictions, logs, cancelling and the demo."""

import time

from tungstenkit import BaseIO, Field, Option, define_model


class Input(BaseIO):
    dish: str = Field(description="What to cook", min_length=1, max_length=80)
    steps: int = Option(5, ge=1, le=1000, description="In how many steps")
    seconds: float = Option(1.0, ge=0, le=60, description="How long a step takes")


class Output(BaseIO):
    result: str
    seconds: float


class DemoOutput(BaseIO):
    recipe: str


@define_model(input=Input, output=Output, demo_output=DemoOutput, batch_size=1)
class Slow:
    def setup(self) -> None:
        print("heating the oven")

    def predict(self, inputs: list[Input]) -> list[Output]:
        return [self.cook(each) for each in inputs]

    def predict_demo(self, inputs: list[Input]) -> tuple[list[Output], list[dict[str, str]]]:
        recipes = [{"recipe": "\n".join(f"{n}. stir the {each.dish}" for n in range(1, each.steps + 1))} for each in inputs]
        return self.predict(inputs), recipes

    def cook(self, order: Input) -> Output:
        started = time.monotonic()
        for step in range(1, order.steps + 1):
            time.sleep(order.seconds)
            print(f"step {step} of {order.steps}: the {order.dish} is {100 * step // order.steps} % done")
        return Output(result=f"{order.dish} is served", seconds=round(time.monotonic() - started, 3))
