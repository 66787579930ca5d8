"""A model file that does what a model should not: what a run does is the Python source in its prompt, so that each test brings its own."""

from pathlib import Path

WILD = """
import ctypes, fcntl, gc, os, resource, signal, socket, subprocess, sys, threading, time
from pathlib import Path
from typing import Dict, List

from tungstenkit import BaseIO, Binary, Field, Option, define_model


class Input(BaseIO):
    prompt: str = Field(description="Python that the run executes; what it leaves in `result` is the answer")
    tail: str = Option("")


class Output(BaseIO):
    text: str
    pid: int
    batch: int


class Shown(BaseIO):
    text: str


@define_model(input=Input, output=Output, demo_output=Shown, batch_size=4)
class Wild:
    def setup(self):
        here = Path("setup.py.txt")
        if here.exists():
            exec(here.read_text(), globals())

    def predict(self, inputs: List[Input]):
        outputs = []
        for each in inputs:
            space = globals() | {"inputs": inputs, "given": each, "result": "", "model": self}
            exec(each.prompt, space)
            if "whole" in space:
                return space["whole"]
            outputs.append(Output(text=str(space["result"]), pid=os.getpid(), batch=len(inputs)))
        return outputs

    def predict_demo(self, inputs: List[Input]):
        outputs = self.predict(inputs)
        return outputs, [{"text": each.text} for each in outputs]
"""


def write_wild(folder: Path, setup: str = "") -> Path:
    """The model in a folder of its own; `setup` is what its setup executes."""
    folder.mkdir(parents=True)
    (folder / "tungsten_model.py").write_text(WILD, "utf-8")
    if setup:
        (folder / "setup.py.txt").write_text(setup, "utf-8")
    return folder
