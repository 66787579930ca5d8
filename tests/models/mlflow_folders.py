"""MLflow model folders as MLflow 3 writes them, made without it: the `MLmodel` file by hand, around artifacts that others have built."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.models import learned

PYTHON = "3.11.7"


def columns(**types: str) -> list[dict[str, Any]]:
    """A column signature: columns(sl="double"). A "?" behind the type makes a column optional."""
    return [{"type": kind.rstrip("?"), "name": name, "required": not kind.endswith("?")} for name, kind in types.items()]


def tensor(dtype: str, *shape: int, name: str = "") -> dict[str, Any]:
    """One tensor of a signature."""
    return {"type": "tensor", **({"name": name} if name else {}), "tensor-spec": {"dtype": dtype, "shape": list(shape)}}


def signature(
    inputs: Sequence[Mapping[str, Any]] | None = None,
    outputs: Sequence[Mapping[str, Any]] | None = None,
    params: Sequence[Mapping[str, object]] | None = None,
) -> dict[str, Any]:
    """The signature of an `MLmodel` file, in which each side is JSON in a text."""
    sides = {"inputs": inputs, "outputs": outputs, "params": params}
    return {side: None if fields is None else json.dumps(list(fields)) for side, fields in sides.items()}


def document(
    flavors: Mapping[str, Any], *, predict_fn: str = "predict", loader: str = "", described: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """What an `MLmodel` file holds. Without a loader_module it is that of the first flavor."""
    function = {
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "loader_module": loader or f"mlflow.{next(iter(flavors), 'pyfunc.model')}",
        "predict_fn": predict_fn,
        "python_version": PYTHON,
    }
    made = {
        "flavors": {"python_function": function, **flavors},
        "mlflow_version": "3.17.2",
        "model_uuid": "8c1dcf3fde6b45c1ba6c0b03d689b645",
    }
    return made | ({"signature": dict(described)} if described is not None else {}) | more


def write(folder: Path, made: Mapping[str, Any], files: Mapping[str, bytes] | None = None, requirements: str = "") -> Path:
    """The folder with its `MLmodel`, requirements.txt and files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text(yaml.safe_dump(dict(made)))
    if requirements:
        (folder / "requirements.txt").write_text(requirements)
    for name, content in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


# --- whole models ---

FLOWER = ("sepal_length", "sepal_width", "petal_length", "petal_width")
"""The columns of the flowers of learned.py."""


def sklearn(folder: Path, estimator: Any, described: Mapping[str, Any] | None = None, *, form: str = "skops", **more: Any) -> Path:
    """An estimator, as mlflow.sklearn.save_model leaves it; `form` is its serialization_format."""
    file, data = ("model.skops", learned.skops_of(estimator)) if form == "skops" else ("model.pkl", learned.pickle_of(estimator))
    flavors = {"sklearn": {"code": None, "pickled_model": file, "serialization_format": form, "sklearn_version": "1.9.1"}}
    return write(folder, document(flavors, described=described, **more), {file: data})


def flowers(folder: Path, *, form: str = "skops", **more: Any) -> Path:
    """The classifier of flowers with a column for each of its features."""
    described = signature(columns(**dict.fromkeys(FLOWER, "double")), [tensor("int64", -1)])
    return sklearn(folder, learned.classifier(), described, form=form, **more)


LOADER = '''
import pandas


class Doubling:
    """What a loader_module of one's own may answer with: anything that has a predict."""

    def predict(self, table, params=None):
        if isinstance(table, pandas.DataFrame) and "fail" in table:
            raise RuntimeError("told to")
        times = (params or {}).get("times", 2)
        return pandas.DataFrame({"twice": table["x"] * times, "text": [f"{value:g}" for value in table["x"]]})


def _load_pyfunc(path):
    return Doubling()
'''


def own_code(folder: Path, loader: str = LOADER, described: Mapping[str, Any] | None = None, requirements: str = "") -> Path:
    """A python_function whose loader is its own code, so that it needs no MLflow: column x in, columns twice and text out."""
    made = document({}, loader="loader_of_mine", described=described or doubling())
    made["flavors"]["python_function"] |= {"code": "code"}
    return write(folder, made, {"code/loader_of_mine.py": loader.encode()}, requirements)


def doubling() -> dict[str, Any]:
    """The signature of the model above."""
    return signature(
        columns(x="double", note="string?"),
        columns(twice="double", text="string"),
        [{"name": "times", "type": "long", "default": 2, "shape": None}],
    )
