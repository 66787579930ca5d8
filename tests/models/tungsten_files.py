"""Model files as Tungstenkit's users write them, for end-to-end tests. What a run does is said in its prompt, so that tests steer it."""

from pathlib import Path

TALKER = """
import json
import os
import sys
import time
from pathlib import Path
from typing import Dict, List, Optional

import tungstenkit
from tungstenkit import BaseIO, Field, Option, define_model

from neighbour import GREETING  # a module beside this one

Path("imported.txt").write_text(os.getcwd())


class Input(BaseIO):
    prompt: str = Field(description="What to say", min_length=1, max_length=400)
    times: int = Option(1, ge=1, le=5)
    style: str = Option("plain", choices=["plain", "loud"], description="How to say it")
    note: Optional[str] = None


class Part(BaseIO):
    words: int


class Output(BaseIO):
    text: str
    batch: int
    pid: int
    number: float
    parts: List[Part]
    counts: Dict[str, int]


class DemoOutput(BaseIO):
    shown: str


@define_model(input=Input, output=Output, demo_output=DemoOutput, batch_size=4, gpu=False, mem_gb=1.0, readme_md="README.md",
              system_packages=["ffmpeg"], include_files=["*"], python_version=None)
class Talker:
    def setup(self):
        print("setup of the talker")
        self.runs = 0

    def predict(self, inputs: List[Input]) -> List[Output]:
        self.runs += 1
        with open("runs.jsonl", "a") as log:
            log.write(json.dumps([[i.prompt, i.times, i.style] for i in inputs]) + "\\n")
        assert len({(i.times, i.style, i.note) for i in inputs}) == 1, "options differ in one batch"
        outputs = []
        for each in inputs:
            for command in each.prompt.split(";"):
                word, _, rest = command.strip().partition(" ")
                if word == "wait":
                    while not Path(rest).exists():
                        time.sleep(0.01)
                elif word == "sleep":
                    time.sleep(float(rest))
                elif word == "boom":
                    raise ValueError(f"boom happened to {rest}")
                elif word == "leave":
                    sys.exit(3)
                elif word == "die":
                    os._exit(9)
                elif word == "dieonce":
                    if not Path(rest).exists():
                        Path(rest).write_text("x")
                        os._exit(9)
                elif word == "say":
                    print(rest, flush=True)
                elif word == "few":
                    return []
                elif word == "wrong":
                    return [{"nonsense": 1} for _ in inputs]
                elif word == "nothing":
                    return None
            text = " ".join([each.prompt] * each.times)
            number = {"nan": float("nan"), "inf": float("inf")}.get(each.prompt, 0.5)
            outputs.append(
                Output(
                    text=text.upper() if each.style == "loud" else text,
                    batch=len(inputs),
                    pid=os.getpid(),
                    number=number,
                    parts=[Part(words=len(text.split()))],
                    counts={GREETING: len(text)},
                )
            )
        return outputs

    def predict_demo(self, inputs: List[Input]):
        print("demo begins", flush=True)
        outputs = self.predict(inputs)
        print("demo ends", file=sys.stderr, flush=True)
        return outputs, [{"shown": f"<{o.text}>"} for o in outputs]


if __name__ == "__main__":
    model = Talker()
    model.setup()
    print(model.predict([Input(prompt="by hand")])[0].text)
"""

PICTURES = """
from typing import Dict, List

from tungstenkit import BaseIO, Binary, Image, Option, define_model


class Input(BaseIO):
    picture: Image
    degrees: int = Option(90)


class Inner(BaseIO):
    pic: Image


class Output(BaseIO):
    turned: Image
    text: Binary
    files: List[Binary]
    named: Dict[str, Image]
    inner: Inner
    size: List[int]


@define_model(input=Input, output=Output, batch_size=4)
class Pictures:
    def predict(self, inputs):
        outputs = []
        for each in inputs:
            image = each.picture.to_pil_image()
            each.picture.path.unlink()
            with open("output.txt", "w") as file:  # the same name every time
                file.write(f"{image.size[0]}x{image.size[1]}")
            text = Binary.from_path("output.txt")
            turned = image.rotate(each.degrees, expand=True)
            outputs.append(
                Output(
                    turned=Image.from_pil_image(turned),
                    text=text,
                    files=[Binary.from_bytes(b"one"), Binary.from_bytes(b"two")],
                    named={"small": Image.from_pil_image(turned.resize((1, 1)))},
                    inner=Inner(pic=Image.from_pil_image(turned)),
                    size=list(turned.size),
                )
            )
        return outputs
"""

BROKEN_SETUP = """
from tungstenkit import BaseIO, define_model


class Input(BaseIO):
    x: int


class Output(BaseIO):
    y: int


@define_model(input=Input, output=Output)
class Broken:
    def setup(self):
        raise RuntimeError("the weights are missing")

    def predict(self, inputs):
        return [Output(y=i.x) for i in inputs]
"""

NUMBERS = """
from tungstenkit import BaseIO, Option, define_model


class Input(BaseIO):
    a: float
    b: int = Option(2)


class Output(BaseIO):
    total: float
    label: str


@define_model(input=Input, output=Output, batch_size=16)
class Adder:
    def predict(self, inputs):
        return [Output(total=i.a + i.b, label="big" if i.a + i.b > 10 else "small") for i in inputs]
"""


def write_talker(folder: Path) -> Path:
    """The talker, its neighbour module and its readme in a fresh folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tungsten_model.py").write_text(TALKER)
    (folder / "neighbour.py").write_text('GREETING = "hello"\n')
    (folder / "README.md").write_text("# Talker\n\nSays what it is told.\n")
    return folder


def write_model(folder: Path, text: str) -> Path:
    """One model file in a fresh folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tungsten_model.py").write_text(text)
    return folder
