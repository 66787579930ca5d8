"""Every block of the documents that is marked sh or python is run, against a server as the document assumes it."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.brokers import kafka
from tests.clients import python_of
from tests.e2e.running import Running, serving
from tests.e2e.test_oip_edges import flowers
from tests.e2e.workspace import READING, ROOT, example_models, populate, run
from tests.models import build, documented, learned, savedmodels

OIP = "docs/dialects/open-inference-protocol.md"
TFSERVING = "docs/dialects/tfserving.md"
SUBMARINE = "docs/dialects/submarine.md"
MLFLOW = "docs/dialects/mlflow.md"
GRADIENT = "docs/dialects/gradient.md"
PYTHON = "docs/runtimes/python.md"
TUNGSTEN = "docs/dialects/tungsten.md"
MLRUN = "docs/dialects/mlrun.md"
ROUTERS = "docs/routers.md"
STREAMS = "docs/streams.md"
_COMPAT = ROOT / "src" / "dragoman" / "compat"
PATH_OF_PROGRAMS = os.pathsep.join(map(str, (ROOT / "src", _COMPAT, _COMPAT / "absent")))
"""The pages about Tungsten and MLRun say how a program finds `tungstenkit` and `mlrun`."""
OWN_MODELS = (PYTHON, TUNGSTEN, MLRUN)
"""Pages that show the models which they speak of."""
PAGES = ["README.md", "CONTRIBUTING.md", "examples/README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/]+\.(?:py|yaml|toml))\n")
_CLIENT = re.compile(r"^(?:import|from) (mlflow|submarine)\b", re.MULTILINE)
"""What has a virtualenv of its own in the tests; MLflow's finds the server by a variable, as that page says."""
_SERVER = re.compile(r"\b(?:127\.0\.0\.1|localhost):3000\b")
_RPC = re.compile(r"\blocalhost:8001\b")
_BROKER = "localhost:9092"
"""Of Kafka."""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        for found in _BLOCK.finditer(text):
            yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


BLOCKS = list(blocks())
# The curl lines of that page are run by tests/unit/v2/test_docs.py.
RUNNABLE = [b for b in BLOCKS if b.language == "python" or (b.language == "sh" and b.page not in (OIP, SUBMARINE))]
# Each call of that page is for what the one before it has made, so it is one script.
RUNNABLE.append(Block(SUBMARINE, 1, "sh", "\n".join(b.text for b in BLOCKS if b.page == SUBMARINE and b.language == "sh")))

Start = Callable[[str], Running]


def python_models(page: str, folder: Path) -> list[str]:
    """The model files that a page shows, and what belongs to them, each named in its first line, as they are written there."""
    made = []
    for block in BLOCKS:
        named = _FILE.match(block.text)
        if block.page == page and named is not None:
            (folder / named[1]).parent.mkdir(exist_ok=True)
            (folder / named[1]).write_text(block.text)
            if named[1].endswith(".py"):
                made.append(str(folder / named[1]))
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_models(tmp_path_factory)


@pytest.fixture(scope="module")
def server_of(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Start]:
    """The server that a page assumes, started when the first of its blocks is run."""
    started: dict[str, Running] = {}

    def targets(page: str) -> list[str]:
        if page == MLRUN:
            (file,) = python_models(page, tmp_path_factory.mktemp("mlrun"))
            path = json.dumps({"model_path": str(Path(file).with_name("iris"))})
            return [f"iris={file}:Iris", f"flag:v1={file}:Flag", "--class-args", f"iris={path}", "--class-args", 'flag:v1={"level": 3}']
        if page == ROUTERS:
            place = tmp_path_factory.mktemp("routers")
            (file,) = python_models(page, place)
            net = build.iris(place / "model.onnx")
            trees = learned.write(place / "iris.skops", learned.skops_of(learned.classifier()))
            routers = ["vote=VotingEnsemble:trees,net", f"mine={file}:Careful:trees,net"]
            return [f"trees={trees}", f"net={net}", *(text for router in routers for text in ("--router", router))]
        if page == STREAMS:
            broker = kafka()
            broker.topic(name="flowers")
            broker.topic(name="predictions")
            iris = build.iris(tmp_path_factory.mktemp("streams") / "iris.onnx")
            return [f"iris={iris}", "--stream", f"kafka://{broker.address}/flowers?out=predictions&group=dragoman&model=iris"]
        if page in OWN_MODELS:
            return python_models(page, tmp_path_factory.mktemp("python"))
        if page == SUBMARINE:
            root = tmp_path_factory.mktemp("roots")
            build.iris(root / "iris" / "model.onnx")
            return ["--model-root", str(root)]
        if page == GRADIENT:
            root = tmp_path_factory.mktemp("roots")
            documented.half_plus_two(root / "half_plus_two" / "1" / "model.onnx")
            return ["--model-root", str(root)]
        if page == OIP:
            return [folder(page), "--grpc-port", "0"]
        return [folder(page), "--engine", "local"] if page == TFSERVING else [folder(page), READING]

    def folder(page: str) -> str:
        if page == TFSERVING:
            root = tmp_path_factory.mktemp("tensorflow")
            savedmodels.copy("half_plus_two", root / "half_plus_two" / "00000123")
            savedmodels.copy("classifier", root / "flowers" / "1")
            documented.beacon(root / "beacon" / "1" / "model.onnx")
            documented.mnist(root / "mnist" / "1" / "model.onnx")
            documented.picture(root / "classifier" / "1" / "model.onnx")
            return str(root)
        if page == OIP:
            root = tmp_path_factory.mktemp("inference")
            flowers(root / "iris" / "1" / "model.onnx")
            build.shout(root / "shout" / "1" / "model.onnx")
            return str(root)
        return str(models)

    with ExitStack() as stack:

        def start(page: str) -> Running:
            key = page if page in (OIP, TFSERVING, SUBMARINE, GRADIENT, ROUTERS, STREAMS, *OWN_MODELS) else ""
            if key not in started:
                started[key] = stack.enter_context(serving(tmp_path_factory.mktemp("data"), *targets(page)))
            return started[key]

        yield start


@pytest.mark.parametrize("block", [pytest.param(b, id=str(b)) for b in RUNNABLE])
def test_a_block_runs(block: Block, server_of: Start, models: Path, tmp_path: Path) -> None:
    """As it is written, apart from the port: exit code 0, no status but 2xx from curl."""
    populate(tmp_path, models)
    python_models(block.page, tmp_path)
    server = server_of(block.page)
    text = _SERVER.sub(server.address, block.text)
    if _RPC.search(text):
        text = _RPC.sub(server.grpc, text)
    if block.page == STREAMS:
        text = text.replace(_BROKER, kafka().address)
    client = _CLIENT.search(text) if block.language == "python" else None
    python = str(python_of(client[1])) if client is not None else "python"
    command = ["sh", "-eu", "-c", text] if block.language == "sh" else [python, "-c", text]
    extra = (
        {"PYTHONPATH": PATH_OF_PROGRAMS} if block.page in ("README.md", TUNGSTEN, MLRUN, ROUTERS) else {"MLFLOW_TRACKING_URI": server.url}
    )
    done = run(tmp_path, server.url, *command, extra=extra)
    assert done.returncode == 0, f"{block}:\n{text}\n{done.stdout}\n{done.stderr}"


def test_every_block_says_what_it_is() -> None:
    """A block without a language would be neither run nor known not to be."""
    assert len(RUNNABLE) > 20
    for block in BLOCKS:
        assert block.language in ("sh", "python", "text", "json", "toml", "yaml"), str(block)
