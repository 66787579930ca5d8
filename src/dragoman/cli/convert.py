"""`dragoman convert`: a TensorFlow SavedModel becomes a folder of ONNX graphs, with the same signatures, that is served without TensorFlow."""

import argparse
import asyncio
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from dragoman.conversion import Order, Report, environment, to_onnx
from dragoman.core.artifacts import is_saved_model
from dragoman.core.errors import invalid
from dragoman.core.lifecycle import version_order
from dragoman.engines.environment import FOLDER, Environments
from dragoman.server.configuration import read
from dragoman.serving.layouts import version_folders
from dragoman.serving.paths import read_bounded

_LARGEST_SAMPLE = 64 << 20
_VERSION = re.compile(r"\d+(?:\.\d+){0,2}(?:\.\*|(?:rc|a|b)\d+)?", re.ASCII)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    convert = commands.add_parser("convert", help="convert a TensorFlow SavedModel to ONNX, which is served without TensorFlow")
    convert.add_argument(
        "saved_model", metavar="SAVED_MODEL", help="a folder with saved_model.pb, or one with versions of it: the highest is taken"
    )
    convert.add_argument("--to", choices=("onnx",), default="onnx", help="the format (default: onnx)")
    convert.add_argument(
        "--output", metavar="DIR", help="where the version folder is written: DIR/VERSION (default: NAME-onnx in this folder)"
    )
    convert.add_argument(
        "--signature",
        action="append",
        default=[],
        metavar="NAME",
        help="convert this signature or fail; repeatable (default: all that can be)",
    )
    convert.add_argument("--tags", default="serve", metavar="TAG,...", help="which of the graphs in the SavedModel (default: serve)")
    convert.add_argument("--opset", type=int, default=18, metavar="N", help="ONNX operator set, 13 to 18 (default: 18)")
    convert.add_argument(
        "--sample", metavar="FILE", help='inputs for the comparison with TensorFlow, JSON: {"inputs": {...}, "signature_name": "..."}'
    )
    convert.add_argument(
        "--tolerance", type=float, default=1e-3, metavar="X", help="the largest difference, relative to the largest output (default: 0.001)"
    )
    convert.add_argument("--tensorflow", default="", metavar="VERSION", help="the TensorFlow to convert with, for example 2.18.*")
    convert.add_argument(
        "--python", default="", metavar="VERSION", help="its Python version (default: this one, if TensorFlow is built for it)"
    )
    convert.add_argument("--data-dir", metavar="DIR", help="the server's data directory, where the virtualenv is kept")
    convert.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> int:
    source, name, version = _source(Path(options.saved_model))
    if not 13 <= options.opset <= 18:
        raise invalid(f"--opset is {options.opset}, expected 13 to 18")
    if not 0 <= options.tolerance < math.inf:
        raise invalid(f"--tolerance is {options.tolerance:g}, expected 0 or more")
    if options.tensorflow and _VERSION.fullmatch(options.tensorflow) is None:
        raise invalid(f"--tensorflow is {options.tensorflow[:50]!r}, expected a version such as 2.18.1 or 2.18.*")
    tags = tuple(tag.strip() for tag in options.tags.split(",") if tag.strip())
    samples = _samples(Path(options.sample)) if options.sample else {}
    order = Order(name, str(source), tags, tuple(options.signature), options.opset, options.tolerance, samples)
    target = (Path(options.output) if options.output else Path(f"{name}-onnx")).absolute() / version
    environments = Environments(read({"data_dir": options.data_dir}).data_path / FOLDER)
    report = asyncio.run(to_onnx(order, target, environment(options.python, options.tensorflow), environments, _say))
    _print(report, target)
    return 0


def _source(path: Path) -> tuple[Path, str, str]:
    """The SavedModel's folder, the model's name, and its version."""
    path = path.absolute()
    folder = path
    if path.is_dir() and not is_saved_model(path):
        versions = version_folders(path)
        if versions:
            folder = versions[max(versions, key=version_order)]
    if not is_saved_model(folder):
        raise invalid(f"there is no SavedModel in {path}: expected a folder with saved_model.pb, or with versions of one")
    if folder.name.isascii() and folder.name.isdecimal():
        return folder.resolve(), folder.parent.name or "model", str(int(folder.name))
    return folder.resolve(), folder.name, "1"


def _samples(path: Path) -> dict[str, Any]:
    """Inputs by signature, of a request as TensorFlow Serving's predict takes it in columns."""
    try:
        sample = json.loads(read_bounded(path, _LARGEST_SAMPLE, "--sample"))
    except (ValueError, RecursionError):
        raise invalid(f"--sample: {path.name} is not JSON") from None
    if not isinstance(sample, dict) or not isinstance(sample.get("inputs"), dict):
        raise invalid(
            f'--sample: {path.name}: expected {{"inputs": {{name: value}}}}, with "signature_name" where it is not serving_default'
        )
    name = sample.get("signature_name") or "serving_default"
    if not isinstance(name, str):
        raise invalid(f"--sample: {path.name}: 'signature_name' is no text")
    return {name: sample["inputs"]}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(report: Report, target: Path) -> None:
    print("converted with " + ", ".join(f"{package} {version}" for package, version in report.versions.items()))
    for name, found in report.signatures.items():
        largest = f"{found['absolute']:.3g} ({found['relative']:.3g} of the largest output, {found['samples']:.0f} samples)"
        print(f"signature '{name}': largest difference from TensorFlow {largest}")
    for name, reason in report.left_out.items():
        print(f"signature '{name}' is left out: {reason}")
    print(f"written to {target}; now: dragoman serve {target.parent}")
