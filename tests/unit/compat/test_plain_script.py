"""A tungsten_model.py runs by hand, in a fresh interpreter, as its author wrote it: whichever pydantic is there, and where warnings are errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import dragoman

COMPAT = Path(dragoman.__file__).parent / "compat"

MODEL_FILE = """
import json
import random
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from PIL import ImageFilter
from tungstenkit import Audio, BaseIO, Binary, Field, Image, MaskedImage, Option, Video, define_model, exceptions

from helper import greet

LABELS = json.loads(Path("labels.json").read_text())
SAMPLERS = ["Euler a", "DDIM"]


class CommonInput(BaseIO):
    prompt: str = Field(description="What to paint", min_length=1, max_length=200)
    seed: int = Option(default=-1, ge=-1, le=4294967293, description="Random seed. Set as -1 to randomize the seed")


if len(LABELS) > 1:

    class Input(CommonInput):
        photo: Image = Field(description="Image to blur")
        sketch: Optional[MaskedImage] = None
        lora: Optional[Binary] = Option(None, description="LoRA file")
        radius: int = Option(5, description="Gaussian kernel size", ge=1, le=10)
        sampler: str = Option(SAMPLERS[0], choices=SAMPLERS)
        guidance: float = Option(default=8, ge=1, le=20)
        hires: bool = False

else:

    class Input(CommonInput):
        nothing: int = 0


class Score(BaseIO):
    label: str = Field(choices=LABELS)
    value: float


class Output(BaseIO):
    blurred: Image
    scores: List[Score]
    by_label: Dict[str, float]
    report: Binary


class DemoOutput(BaseIO):
    original: Image
    blurred: Image


@define_model(
    input=Input,
    output=Output,
    demo_output=DemoOutput,
    readme_md="README.md",
    gpu=False,
    python_packages=["pillow"],
    batch_size=8,
    include_files=["labels.json", "helper.py"],
    system_packages=["libgl1-mesa-glx"],
)
class Blur:
    @staticmethod
    def post_build():
        Path("weights.bin").write_bytes(b"weights")

    def setup(self):
        print("setup")
        self.filter = ImageFilter.GaussianBlur(radius=5)
        photo = Image.from_path("photo.png")
        self.predict([Input(prompt="warm up", photo=photo)])

    def predict(self, inputs: List[Input]) -> List[Output]:
        options = inputs[0]
        if options.seed == -1:
            options.seed = random.randint(0, 1000)
        outputs = []
        for inp in inputs:
            picture = inp.photo.to_pil_image().filter(self.filter)
            Path("report.txt").write_text(greet(inp.prompt))
            outputs.append(
                Output(
                    blurred=Image.from_pil_image(picture),
                    scores=[{"label": LABELS[0], "value": 1}, Score(label=LABELS[1], value=0.5)],
                    by_label={label: i for i, label in enumerate(LABELS)},
                    report=Binary.from_path("report.txt"),
                )
            )
            inp.photo.path
        return outputs

    def predict_demo(self, inputs: List[Input]) -> Tuple[List[Output], List[Dict]]:
        outputs = self.predict(inputs)
        return outputs, [{"original": i.photo, "blurred": o.blurred} for i, o in zip(inputs, outputs)]


if __name__ == "__main__":
    Blur.post_build()
    m = Blur()
    m.setup()
    (out,) = m.predict([Input(prompt="a cat", photo="photo.png", guidance="7.5")])
    outputs, demo = m.predict_demo([Input(prompt="a dog", photo=Image.from_path("photo.png"), sampler="DDIM")])
    try:
        Input(prompt="", photo="photo.png", sampler="other")
    except ValueError as e:
        faults = [f["type"] for f in e.errors()]
    import sys

    print(json.dumps({
        "output": {k: v if not isinstance(v, str) else v[:22] for k, v in out.dict().items()},
        "demo": sorted(demo[0]), "faults": faults, "fields": list(Input.__fields__), "schema": Input.schema()["properties"]["radius"],
        "pydantic": "pydantic" in sys.modules, "others": sorted({n.split(".")[0] for n in sys.modules} & {"dragoman", "numpy"}),
    }))
"""

NO_PYDANTIC = 'raise ImportError("there is no pydantic here")\n'
PYDANTIC_2 = 'VERSION = "2.11.7"\n\n\ndef __getattr__(name):\n    raise ImportError(f"pydantic 2 has no {name} of version 1")\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A model's folder as its author has it."""
    from tests.unit.compat.pictures import png

    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "tungsten_model.py").write_text(MODEL_FILE)
    (folder / "labels.json").write_text('["cat", "dog"]')
    (folder / "helper.py").write_text("def greet(name):\n    return f'hello {name}'\n")
    (folder / "photo.png").write_bytes(png(size=(8, 8)))
    return folder


def run(project: Path, *arguments: str, path: tuple[Path, ...] = ()) -> str:
    """What a fresh interpreter prints, started in the folder."""
    places = ":".join(str(place) for place in (*path, COMPAT))
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env={"PYTHONPATH": places}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("pydantic", "flags"),
    [(NO_PYDANTIC, ()), (PYDANTIC_2, ()), (NO_PYDANTIC, ("-W", "error", "-X", "dev")), (PYDANTIC_2, ("-O", "-W", "error"))],
    ids=["no pydantic", "pydantic 2", "warnings are errors", "without assertions"],
)
def test_a_model_file_as_a_script(project: Path, tmp_path: Path, pydantic: str, flags: tuple[str, ...]) -> None:
    """It predicts, its inputs are checked, and nobody asks for pydantic, numpy or a server."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "pydantic.py").write_text(pydantic)
    lines = run(project, *flags, "tungsten_model.py", path=(tmp_path / "site",)).splitlines()
    assert lines[0] == "setup"
    said = json.loads(lines[1])
    assert said["output"] == {
        "blurred": "data:image/png;base64,",
        "scores": [{"label": "cat", "value": 1.0}, {"label": "dog", "value": 0.5}],
        "by_label": {"cat": 0.0, "dog": 1.0},
        "report": (project / "report.txt").as_uri()[:22],
    }
    assert said["demo"] == ["blurred", "original"]
    assert said["faults"] == ["value_error.any_str.min_length", "value_error.const"]
    assert said["fields"] == ["prompt", "seed", "photo", "sketch", "lora", "radius", "sampler", "guidance", "hires"]
    assert said["schema"] == {"type": "integer", "minimum": 1, "maximum": 10, "default": 5, "description": "Gaussian kernel size"}
    assert said["pydantic"] is False
    assert said["others"] == []
    assert (project / "weights.bin").read_bytes() == b"weights"


def test_nothing_is_left_behind(project: Path, tmp_path: Path) -> None:
    """Temporary files go when the program ends, and none was ever in the project."""
    (tmp_path / "temporary").mkdir()
    script = (
        "import tempfile, tungsten_model as t; tempfile.tempdir = '../temporary'; p = t.Image.from_bytes(b'a').path; print(p.exists(), p)"
    )
    existed, path = run(project, "-c", script).split()
    assert existed == "True"
    assert not Path(path).exists()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert {p.name for p in project.iterdir()} - {"__pycache__"} == {"tungsten_model.py", "labels.json", "helper.py", "photo.png"}


def test_a_forked_child_removes_nothing(project: Path) -> None:
    """Models fork; a child that ends as programs do must leave its parent's files alone."""
    script = (
        "import os, sys, tungstenkit\n"
        "path = tungstenkit.Binary.from_bytes(b'a').path\n"
        "child = os.fork()\n"
        "if child == 0: sys.exit(0)\n"
        "print(os.waitpid(child, 0)[1], path.exists())"
    )
    assert run(project, "-c", script) == "0 True\n"


def test_other_ways_to_import(project: Path) -> None:
    """Modules that were public are found under their names."""
    script = (
        "import tungstenkit, tungstenkit.models, tungstenkit.exceptions\n"
        "from tungstenkit import *\n"
        "from tungstenkit.models import get\n"
        "from tungstenkit.exceptions import PredictionFailure\n"
        "print(tungstenkit.__version__, get.__name__, Image.__name__, __import__('tungstenkit').exceptions.PredictionFailure is PredictionFailure)"
    )
    assert run(project, "-c", script) == "0.2.20 get Image True\n"


def test_a_program_of_its_own_tests(project: Path) -> None:
    """The class can be imported from another module and inspected without being run."""
    script = (
        "import inspect, tungsten_model as t\n"
        "print(t.Blur.__tungsten_config__['batch_size'], t.Blur.__tungsten_input__ is t.Input, t.Blur.__has_post_build__, t.Blur.__module__)\n"
        "print(inspect.signature(t.Blur.predict))\n"
    )
    assert run(project, "-c", script).splitlines() == [
        "8 True True tungsten_model",
        "(self, inputs: List[tungsten_model.Input]) -> List[tungsten_model.Output]",
    ]


def test_the_model_file_of_the_documents(tmp_path: Path) -> None:
    """docs/dialects/tungsten.md begins with one that works."""
    page = (Path(__file__).parents[3] / "docs" / "dialects" / "tungsten.md").read_text("utf-8")
    (tmp_path / "tungsten_model.py").write_text(page.split("```python\n")[1].split("```")[0])
    assert run(tmp_path, "tungsten_model.py") == "HELLO HELLO\n"
