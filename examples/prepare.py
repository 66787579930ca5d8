"""Make the example models: train two small ones from data sets that scikit-learn bundles, and take a neural network from its package.

    python examples/prepare.py DIRECTORY

Nothing is downloaded: everything comes from packages that are already installed.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

import skops.io
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def package_file(package: str, *parts: str) -> Path:
    """A file inside an installed package, found without importing it (its own dependencies are not installed)."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"the package {package} is not installed; run `make serve` or `make env`")
    return Path(spec.origin).parent.joinpath(*parts)


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, bunch in (("iris", load_iris()), ("digits", load_digits())):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(bunch.data, bunch.target)
        (directory / name / "1").mkdir(parents=True, exist_ok=True)
        skops.io.dump(model, directory / name / "1" / "model.skops")
        print(
            f"{name}: logistic regression, {bunch.data.shape[1]} features, accuracy on its own data {model.score(bunch.data, bunch.target):.3f}"
        )
    # basic-pitch (Spotify, Apache-2.0): 43,844 audio samples at 22,050 Hz in, probabilities of onsets, notes and contours over time out.
    (directory / "pitch" / "1").mkdir(parents=True, exist_ok=True)
    shutil.copy(package_file("basic_pitch", "saved_models", "icassp_2022", "nmp.onnx"), directory / "pitch" / "1" / "model.onnx")
    print("pitch: the neural network of basic-pitch, 2 s of audio to notes")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples/models"))
