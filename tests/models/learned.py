"""Tiny models of scikit-learn, XGBoost, LightGBM and PyTorch, as bytes. Each is made once per process: use `write` to put it somewhere.

Frameworks are imported inside the functions, because most tests need none and each takes a second.
"""

import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.runtimes.hidden import hidden
from tests.models.build import IRIS_CENTRES, IRIS_CLASSES

Array = np.ndarray[Any, np.dtype[Any]]


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@contextmanager
def quiet() -> Iterator[None]:
    """Frameworks announce the end of what these models are made with; that is not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def flowers() -> tuple[Array, Array]:
    """90 flowers around the three centres and the number of their class: the same ones every time."""
    spread = np.random.default_rng(7).standard_normal((90, 4)) * 0.2
    return (np.repeat(IRIS_CENTRES, 30, axis=0) + spread).astype(np.float32), np.repeat([0, 1, 2], 30)


def skops_of(estimator: Any) -> bytes:
    with hidden("sklearn.externals.array_api_compat.torch"):  # which would import PyTorch
        import skops.io

    data: bytes = skops.io.dumps(estimator)
    return data


def pickle_of(estimator: Any) -> bytes:
    return pickle.dumps(estimator)


def joblib_of(estimator: Any) -> bytes:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return buffer.getvalue()


@cache
def classifier(*, named: bool = False) -> Any:
    """A logistic regression of flowers: classes 0 to 2, or their names."""
    from sklearn.linear_model import LogisticRegression

    x, y = flowers()
    return LogisticRegression().fit(x, np.array(IRIS_CLASSES)[y] if named else y)


@cache
def forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=5, random_state=0).fit(*flowers())


@cache
def text_classifier() -> Any:
    """Spam or not, by words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(
        ["win money now", "free money prize", "lunch at noon", "see you at lunch"] * 5, ["spam", "spam", "ham", "ham"] * 5
    )


@cache
def xgboost_model(kind: str = "multi", suffix: str = "ubj") -> bytes:
    """`kind`: multi (3 probabilities), value (one number), linear (gblinear), dart, category (a categorical column), pair (2 numbers a leaf)."""
    import xgboost

    x, y = flowers()
    data = xgboost.DMatrix(x, y)
    kinds: dict[str, dict[str, Any]] = {
        "multi": {"objective": "multi:softprob", "num_class": 3},
        "value": {"objective": "reg:squarederror"},
        "linear": {"booster": "gblinear"},
        "dart": {"booster": "dart", "rate_drop": 0.5},
        "category": {"max_cat_to_onehot": 1},
        "pair": {"multi_strategy": "multi_output_tree"},
    }
    if kind == "category":
        x = np.array(x)
        x[:, 1] = np.floor(x[:, 0] * 7) % 5
        data = xgboost.DMatrix(x, x[:, 1] % 2 + y, feature_types=["q", "c", "q", "q"], enable_categorical=True)
    if kind == "pair":
        data = xgboost.DMatrix(x, x[:, :2])
    booster = xgboost.train({**kinds[kind], "nthread": 1, "seed": 0, "verbosity": 0}, data, 4)
    return bytes(booster.save_raw(suffix))


@cache
def lightgbm_model(kind: str = "multi") -> bytes:
    """`kind`: multi (3 probabilities), value (one number), category (a categorical column), linear (linear leaves), stump (no split)."""
    import lightgbm

    x, y = flowers()
    x = np.array(x, np.float64)
    settings: dict[str, Any] = {"objective": "multiclass", "num_class": 3} if kind == "multi" else {"objective": "regression"}
    if kind == "linear":
        settings["linear_tree"] = True
    if kind == "stump":
        settings["min_data_in_leaf"] = 1000
    columns: list[int] = []
    if kind == "category":
        x[:, 1] = np.floor(x[:, 0] * 7) % 5
        columns = [1]
    data = lightgbm.Dataset(x, (x[:, 1] % 2) + y * 0.1 if kind == "category" else y, categorical_feature=columns, params={"verbose": -1})
    common = {"min_data_in_leaf": 3, "min_data_per_group": 1, "cat_smooth": 0.1, "num_threads": 1, "verbose": -1, "seed": 0}
    with quiet():
        text: str = lightgbm.train({**common, **settings}, data, 3).model_to_string()
    return text.encode()


def _exported(module: Any, args: tuple[Any, ...], shapes: Any, kwargs: dict[str, Any] | None = None) -> bytes:
    import torch

    buffer = io.BytesIO()
    with quiet():
        torch.export.save(torch.export.export(module.eval(), args, kwargs, dynamic_shapes=shapes), buffer)
    return buffer.getvalue()


@cache
def exported() -> bytes:
    """x FP32 [-1,4] -> {"label": INT64 [-1], "scores": FP32 [-1,3]}: the nearest of the three flower centres, at most 64 at once."""
    import torch

    class Nearest(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.centres = torch.nn.Parameter(torch.tensor(IRIS_CENTRES))

        def forward(self, x: Any) -> Any:
            scores = 2 * x @ self.centres.T - (self.centres**2).sum(1)
            return {"label": scores.argmax(1), "scores": scores}

    return _exported(Nearest(), (torch.zeros(2, 4),), {"x": {0: torch.export.Dim("batch", max=64)}})


@cache
def exported_identity(dtype: str) -> bytes:
    """x [-1,2] -> the same, in a torch dtype."""
    import torch

    class Same(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x.clone()

    return _exported(Same(), (torch.zeros(3, 2, dtype=getattr(torch, dtype)),), {"x": {0: torch.export.Dim("batch")}})


@cache
def exported_pair() -> bytes:
    """a FP32 [-1,2], b FP32 [-1,2] (by keyword), times a constant 3 -> (a + b, [a * 3, rows of a]): nested, and one answer is a number."""
    import torch

    class Pair(torch.nn.Module):  # type: ignore[misc]
        def forward(self, a: Any, times: int, *, b: Any) -> Any:
            return a + b, [a * times, a.shape[0]]

    batch = torch.export.Dim("batch")
    return _exported(Pair(), (torch.zeros(3, 2), 3), {"a": {0: batch}, "times": None, "b": {0: batch}}, kwargs={"b": torch.zeros(3, 2)})


def _script(source: str) -> bytes:
    import torch

    buffer = io.BytesIO()
    with quiet():
        # a class of its own each time: PyTorch keeps what it compiles, by class
        module = torch.jit.script(type("Program", (torch.nn.Module,), {})())
        module.define(source)
        torch.jit.save(module, buffer)
    return buffer.getvalue()


@cache
def scripted() -> bytes:
    """x -> (sum over axis 1, x * 2)."""
    return _script("def forward(self, x):\n    return x.sum(dim=1), x * 2\n")


@cache
def scripted_matrix() -> bytes:
    """x [-1,4] -> x times a 4x3 matrix of ones."""
    return _script("def forward(self, x):\n    return torch.mm(x, torch.ones([4, 3], dtype=x.dtype))\n")


SCRIPTS: dict[str, str] = {
    "dict": "def forward(self, x):\n    return {'twice': x * 2, 'half': x / 2}\n",
    "list": "def forward(self, x):\n    return [x, x * 2, x * 3]\n",
    "optional": "def forward(self, x, y: Optional[Tensor] = None):\n    if y is not None:\n        x = x + y\n    return x\n",
    "default": "def forward(self, x, times: int = 5):\n    return x * times\n",
    "number": "def forward(self, x, times: int):\n    return x * times\n",
    "saves": "def forward(self, x):\n    return torch.from_file('/etc/hostname', size=1)\n",
}


@cache
def script(name: str) -> bytes:
    """One of SCRIPTS."""
    return _script(SCRIPTS[name])


LEARNED: dict[str, Callable[[], bytes]] = {
    "classifier.skops": lambda: skops_of(classifier()),
    "forest.skops": lambda: skops_of(forest()),
    "text.skops": lambda: skops_of(text_classifier()),
    "classifier.joblib": lambda: joblib_of(classifier()),
    "classifier.pkl": lambda: pickle_of(classifier()),
    "booster.ubj": lambda: xgboost_model(),
    "booster.json": lambda: xgboost_model(suffix="json"),
    "booster.txt": lambda: lightgbm_model(),
    "nearest.pt2": exported,
    "program.pt": scripted,
}
"""File name -> what is in it."""
