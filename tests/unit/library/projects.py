"""Small projects to build, for the tests of the model store."""

from pathlib import Path

TEXT = """
from tungstenkit import BaseIO, Field, Option, define_model
import helper

class In(BaseIO):
    text: str = Field(description="What to say")
    loud: bool = Option(False)

class Out(BaseIO):
    said: str

@define_model(input=In, output=Out, {declared})
class Echo:
    {body}
    def predict(self, inputs):
        return [Out(said=helper.say(each.text)) for each in inputs]
"""


def project(folder: Path, declared: str = "batch_size=4", body: str = "pass") -> Path:
    """A Tungsten project of two modules, with files that nobody wants in a model."""
    put(folder / "tungsten_model.py", TEXT.format(declared=declared, body=body))
    put(folder / "helper.py", "def say(text): return text.upper()\n")
    put(folder / "weights" / "w.bin", "weights")
    put(folder / ".git" / "config", "secret")
    put(folder / "__pycache__" / "helper.pyc", "x")
    return folder


def put(path: Path, content: str | bytes) -> Path:
    """A file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
