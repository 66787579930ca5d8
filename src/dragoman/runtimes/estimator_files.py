"""Open a scikit-learn estimator: a .skops file, or a pickle where pickles are trusted. Called by estimators.py and mlflow.py.

open_estimator(spec) -> the fitted estimator. Which files are opened at all is decided here.
"""

import warnings
from pathlib import Path
from typing import Any

from dragoman.core.artifacts import TRUST, locate
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import ModelSpec
from dragoman.core.plugins import missing
from dragoman.runtimes import notices, trusted
from dragoman.runtimes.hidden import hidden
from dragoman.runtimes.options import Options

_BRIDGES = tuple(f"sklearn.externals.array_api_compat.{library}" for library in ("torch", "dask", "cupy"))
"""skops walks through all of scikit-learn when it is imported, and so through these: to import PyTorch takes longer than all else together."""
METHODS = ("predict", "predict_proba", "transform")


def open_estimator(spec: ModelSpec) -> Any:
    """The fitted estimator in a file. Raises ServingError when there is none or it may not be opened, with the reason."""
    path = locate(spec.artifact, "sklearn", spec.name)
    try:
        import sklearn.base  # noqa: F401 # whether it is there; without it the error would be one of the file's
    except ImportError as error:
        raise missing("sklearn", "scikit-learn", error) from error
    with notices.logged(spec.name):
        estimator = _from_skops(path, spec) if path.suffix.lower() == ".skops" else _from_pickle(path, spec)
    if isinstance(estimator, type) or not any(callable(getattr(estimator, method, None)) for method in METHODS):
        raise invalid(
            f"'{path.name}' of model '{spec.name}' holds {type(estimator).__name__}, which has neither predict nor transform", what="model"
        )
    _require_fitted(estimator, spec.name)
    # Models are fed arrays, whatever they were fitted on; the warning would come with every request.
    warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
    return estimator


def _from_skops(path: Path, spec: ModelSpec) -> Any:
    """What is in the file when all of its types are known to be safe, or when the operator trusts it anyway."""
    model, trusts = spec.name, Options(spec).boolean("trust_pickle")
    try:
        with hidden(*_BRIDGES):
            import skops.io
    except ImportError as error:
        raise missing("sklearn", "skops", error) from error
    try:
        asked = skops.io.get_untrusted_types(file=path)
        refused = sorted(name for name in asked if name not in trusted.TRUSTED)
        if not refused or trusts:
            estimator = skops.io.load(path, trusted=sorted(asked))
            if not trusts:
                trusted.verify(estimator)
            return estimator
    except ImportError as error:
        raise _lacks(error, path, model) from error
    except Exception as error:  # a damaged file can make every line of the reader raise something
        raise invalid(
            f"the file '{path.name}' of model '{model}' is damaged or is no skops file: {line_of(error)}", what="model"
        ) from error
    more = f" and {len(refused) - 10} more" if len(refused) > 10 else ""
    raise ServingError(
        Kind.UNSUPPORTED,
        f"the file '{path.name}' of model '{model}' asks for types that are not known to be safe: {', '.join(refused[:10])}{more}; "
        f"a model with custom code can be exported to ONNX; {TRUST}",
        what="model",
    )


def _from_pickle(path: Path, spec: ModelSpec) -> Any:
    if not Options(spec).boolean("trust_pickle"):
        raise ServingError(
            Kind.UNSUPPORTED,
            f"the file '{path.name}' of model '{spec.name}' is a pickle, which runs whatever code its author put in when it is opened; "
            f"{TRUST}",
            what="model",
        )
    try:
        import joblib
    except ImportError as error:
        raise missing("sklearn", "joblib", error) from error
    try:
        return joblib.load(path)
    except ImportError as error:
        raise _lacks(error, path, spec.name) from error
    except Exception as error:  # unpickling runs foreign code, which can raise anything
        raise invalid(f"the file '{path.name}' of model '{spec.name}' cannot be unpickled: {line_of(error)}", what="model") from error


def _lacks(error: ImportError, path: Path, model: str) -> ServingError:
    return ServingError(
        Kind.UNSUPPORTED, f"the file '{path.name}' of model '{model}' needs code that is not installed here: {line_of(error)}", what="model"
    )


def line_of(error: BaseException) -> str:
    """The kind of an error and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _require_fitted(estimator: Any, model: str) -> None:
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if isinstance(estimator, BaseEstimator) and hasattr(estimator, "fit"):
        try:
            check_is_fitted(estimator)
        except NotFittedError:
            raise invalid(f"model '{model}' was saved before it was fitted", what="model") from None
