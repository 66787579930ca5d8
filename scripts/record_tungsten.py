"""Run the snippets of tests/golden/tungsten/cases.py under the original Tungstenkit and write down what they did.

The original is not installed beside this project. Make an environment for it and call this script with its interpreter:

    python3.11 -m venv original
    original/bin/pip install tungstenkit==0.2.20 pydantic==1.10.12 fastapi==0.101.1 starlette==0.27.0 uvicorn==0.22.0
    original/bin/python scripts/record_tungsten.py
"""

import importlib.util
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "tungsten"


def load(name: str) -> object:
    """A module of the golden folder, without the test package around it."""
    spec = importlib.util.spec_from_file_location(name, GOLDEN / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    sys.path.insert(0, str(GOLDEN))
    warnings.simplefilter("ignore")
    import tungstenkit

    cases, player = load("cases"), load("player")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the original leaves its temporary files in the working directory
        place = Path(folder).resolve()
        player.furnish(place)
        recorded = {name: player.play(source, tungstenkit, place) for name, source in cases.CASES.items()}
    text = json.dumps({"tungstenkit": tungstenkit.__version__, "cases": recorded}, indent=1, ensure_ascii=False, sort_keys=True)
    (GOLDEN / "recorded.json").write_text(text + "\n", "utf-8")
    print(f"{len(recorded)} cases recorded")


main()
