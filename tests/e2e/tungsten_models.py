"""Model files as users of Tungstenkit write them, for the tests of its protocol. A prompt "wait NAME" runs until the file NAME is there."""

from pathlib import Path

TEXT = """
import time
from pathlib import Path
from typing import List

from tungstenkit import BaseIO, Field, Option, define_model


class Input(BaseIO):
    prompt: str = Field(description="What to say", min_length=2, max_length=60)
    seed: int = Option(7, ge=0, le=99)
    style: str = Option("plain", choices=["plain", "loud"])


class Output(BaseIO):
    text: str
    score: float
    batch: int


class Shown(BaseIO):
    page: str


@define_model(input=Input, output=Output, demo_output=Shown, batch_size=4)
class Talker:
    def predict(self, inputs: List[Input]) -> List[Output]:
        return [self.answer(each, len(inputs)) for each in inputs]

    def answer(self, given: Input, batch: int) -> Output:
        word, _, name = given.prompt.partition(" ")
        print(f"saying {given.prompt}", flush=True)
        if word == "boom":
            raise ValueError("boom happened")
        while word == "wait" and not Path(name).exists():
            time.sleep(0.005)
        score = float("nan") if word == "nan" else float("inf") if word == "inf" else 0.5
        return Output(text=given.prompt.upper() if given.style == "loud" else given.prompt, score=score, batch=batch)

    def predict_demo(self, inputs: List[Input]):
        outputs = self.predict(inputs)
        return outputs, [{"page": f"<b>{each.text}</b>"} for each in outputs]
"""

FILES = """
from typing import Dict, List

from tungstenkit import BaseIO, Binary, Field, Image, Option, define_model


class Input(BaseIO):
    image: Image
    tail: str = Option("!")


class Inner(BaseIO):
    copies: List[Binary]


class Output(BaseIO):
    image: Image
    inner: Inner
    named: Dict[str, Binary]
    size: int


@define_model(input=Input, output=Output)
class Copier:
    def predict(self, inputs: List[Input]) -> List[Output]:
        (given,) = inputs
        data = given.image.path.read_bytes()
        given.image.path.unlink()
        with open("result.png", "wb") as file:
            file.write(data + given.tail.encode())
        copy = Binary.from_bytes(data)
        return [Output(image=Image.from_path("result.png"), inner=Inner(copies=[copy, copy]), named={"a": copy}, size=len(data))]
"""


def write(folder: Path) -> Path:
    """The models `text` and `files`, each in a folder of its own below this one."""
    for name, source in (("text", TEXT), ("files", FILES)):
        (folder / name).mkdir(parents=True)
        (folder / name / "tungsten_model.py").write_text(source, "utf-8")
    return folder
