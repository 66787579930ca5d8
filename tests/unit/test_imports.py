"""Who may import whom, read from the source of every module, and what an import really loads, seen from a fresh process."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import dragoman

ROOT = Path(dragoman.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

MAY_IMPORT = {
    "core": {"core"},
    "proto": {"core", "proto"},
    "runtimes": {"core", "proto", "runtimes"},
    "hosting": {"core", "hosting"},
    "store": {"core", "store"},
    "engines": {"core", "hosting", "engines"},
    "conversion": {"core", "runtimes", "engines", "conversion"},
    "serving": {"core", "proto", "hosting", "engines", "store", "serving"},
    "dialects": {"core", "proto", "serving", "dialects"},
    "streams": {"core", "serving", "store", "streams"},
    "console": {"core", "serving", "console"},
    "compat": {"core", "compat"},
}
"""Folder -> folders. Runtimes, dialects and engines are named in core/plugins.py and imported when they are asked for. server, cli and the
package itself may import everything."""

ALSO = {
    "console": {
        "dragoman.dialects",
        *(f"dragoman.dialects.{shared}" for shared in ("addresses", "documents", "refusals")),
        "dragoman.store",
    },
    "compat": {"dragoman"},
    "dialects": {"dragoman.store"},
}
"""Single modules on top: the console is a dialect, so it takes the seam's types and what dialects share, but nothing of any protocol.
Compat's stand-ins are for programs too, which load a stored model through the package itself. Dialects show records of the registry, and take
their types."""

RELATIVE = {"compat"}
"""Folders whose modules import their neighbours relatively: a stand-in is known under the name that model files import, `tungstenkit`, and
under ours. Everywhere else a module's full name says where it is."""

THIRD_PARTY = {
    "core": {"numpy"},
    "proto": {"numpy"},
    "runtimes": {"numpy"},
    "hosting": {"numpy"},
    "engines": set(),
    "conversion": {"numpy"},
    "store": {"sqlalchemy", "alembic"},
    "compat": set(),
    "serving": {"numpy", "orjson"},
    "dialects": {"numpy", "orjson", "simdjson", "httptools"},
    "streams": {"orjson"},
    "console": {"numpy", "orjson"},
    "server": {"orjson", "httptools", "uvloop"},
    "cli": set(),
    "": {"orjson"},
}
"""What a folder may import when its modules are imported."""

LATE = {
    **{
        f"conversion/{module}.py": dict.fromkeys(packages, "lives in the virtualenv that the conversion is done in")
        for module, packages in {"graphs": ("tensorflow", "tf2onnx", "onnx"), "program": ("tensorflow", "tf2onnx")}.items()
    },
    "__init__.py": {"dragoman": "models run in processes that import this package too and must see only standard library and numpy"},
    "cli/jobs_run.py": {"dragoman.cli.jobs_embedded": "a whole server, which a running one makes needless"},
    "cli/predict.py": {"dragoman.embed": "the same", "dragoman.server.configuration": "the same"},
    "hosting/jobs/__main__.py": {"dragoman.hosting.jobs.inside": "what lies above its folder is made empty first"},
    "hosting/jobs/wsgi.py": {"werkzeug": "where the job has it", "uvicorn": "the same"},
    "hosting/jobs/shim/sitecustomize.py": {
        "socket": "every Python process of a job runs this, and most with a shim for files alone need none",
        "_socket": "the same",
    },
    "hosting/host.py": {"ctypes": "to ask Linux for a signal; not every Python has it, and none needs it elsewhere"},
    "serving/fetch.py": {
        "dragoman.serving.fetch_http": "an HTTP client takes longer to import than the rest, and most servers never fetch",
        "dragoman.serving.fetch_objects": "buckets, which most servers never read",
    },
    "serving/fetch_http.py": {"httpx": "imported by fetch.py when the first URL is fetched", "httpcore": "the same"},
    "serving/library/remotes.py": {
        "obstore": "an extra, for models in buckets",
        "fsspec": "an extra, for other places",
        "v3iofs": "the same",
    },
    "serving/explain/explained.py": {"shap": "an extra; seconds to import", "numba": "comes with it"},
    "serving/records/parquet.py": {"pyarrow": "an extra; 0.2 s to import"},
    "serving/yaml_text.py": {"yaml": "for MLflow's folders and for requests in YAML, which are rare"},
    "proto/messages.py": {"google": "protobuf is for gRPC, and for Triton's and TensorFlow's files"},
    "runtimes/litert.py": {"ai_edge_litert": "an extra"},
    "server/worker.py": {"dragoman.server.grpc_listener": "gRPC takes 0.1 s to import, and most servers do not speak it"},
    "server/grpc.py": {"grpc": "imported by worker.py when a gRPC port is given"},
    "runtimes/onnx.py": {"onnxruntime": "an extra; a second to import"},
    "runtimes/savedmodel.py": {"tensorflow": "an extra; seconds to import"},
    "runtimes/savedmodel_files.py": {"tensorflow": "the same", "google": "comes with it"},
    "runtimes/savedmodel_signatures.py": {"tensorflow": "the same"},
    "runtimes/savedmodel_warmup.py": {"tensorflow": "the same", "google": "comes with it"},
    "runtimes/estimators.py": {"sklearn": "an extra; a second to import"},
    "runtimes/estimator_files.py": {"sklearn": "an extra; a second to import", "skops": "an extra", "joblib": "an extra"},
    "runtimes/mlflow_frames.py": {"pandas": "an extra; half a second to import"},
    "runtimes/mlflow_function.py": {"mlflow": "lives in the model's own environment"},
    "runtimes/trusted.py": {"sklearn": "an extra; a second to import", "scipy": "comes with it"},
    "runtimes/boosters.py": {"xgboost": "an extra", "lightgbm": "an extra"},
    "runtimes/torch.py": {"torch": "an extra; seconds to import"},
    "runtimes/torch_archive.py": {"torch": "an extra; seconds to import"},
    "server/jobs.py": {
        "dragoman.server.jobs_running": "what starts jobs takes milliseconds to import, and most servers never have one",
        "dragoman.serving.jobs.runner": "the same",
    },
    "store/sql.py": {
        "dragoman.store.sqlstore": "SQLAlchemy takes 0.15 s to import, and many servers open no store",
        "dragoman.store.sqlite": "the same",
        "dragoman.store.postgres": "its driver is an extra",
    },
    "store/postgres.py": {"psycopg": "an extra; imported by sql.py when a store in PostgreSQL is opened"},
    "store/listening.py": {"psycopg": "the same"},
    "store/upgrades.py": {"alembic": "0.1 s to import, for the rare start that migrates"},
    "compat/absent/mlrun/artifacts/model.py": {"yaml": "for model folders with a model_spec.yaml; a model's own environment may lack it"},
    "compat/absent/mlrun/datastore/__init__.py": {
        "fsspec": "an extra, for files in other places",
        "pandas": "only models that read tables of files have it",
    },
    "streams/kafka.py": {"aiokafka": "an extra"},
    "streams/kafka_client.py": {"aiokafka": "an extra"},
    "streams/mqtt.py": {"aiomqtt": "an extra", "dragoman.streams.mqtt_session": "the same"},
    "streams/mqtt_session.py": {"aiomqtt": "imported by mqtt.py when a stream over MQTT is opened", "paho": "comes with it"},
    "streams/kinesis.py": {"aiobotocore": "an extra; a second to import", "dragoman.streams.kinesis_client": "the same"},
    "streams/kinesis_client.py": {
        "aiobotocore": "imported by kinesis.py when a stream over Kinesis is opened",
        "botocore": "comes with it",
    },
    "compat/tungstenkit/_files.py": {"PIL": "only models that make pictures of files have it"},
    "compat/tungstenkit/models.py": {"dragoman": "the whole server, for programs; a model's own process imports this module as well"},
}
"""Module -> what it imports inside of functions (or, for one module, is itself imported late for), and why."""

FRAMEWORKS = (
    "shap",
    "numba",
    "onnxruntime",
    "sklearn",
    "scipy",
    "skops",
    "joblib",
    "xgboost",
    "lightgbm",
    "torch",
    "google.protobuf",
    "pandas",
    "tensorflow",
    "aiokafka",
)
DATABASES = ("sqlalchemy", "alembic")
CLIENTS = ("httpx", "httpcore", "tritonclient", "requests", "grpc")


@dataclass(frozen=True)
class Import:
    module: str
    name: str
    """Of `from module import name`; empty for `import module`."""
    line: int
    inside: bool
    """Of a function."""
    typing_only: bool

    @property
    def target(self) -> str:
        """The module that is meant: `from dragoman import embed` means dragoman.embed."""
        below = f"{self.module}.{self.name}"
        path = ROOT.joinpath(*below.split(".")[1:])
        return below if self.name and (path.is_dir() or path.with_suffix(".py").is_file()) else self.module


@cache
def imports(path: Path) -> tuple[Import, ...]:
    absolute = ("dragoman", *path.parent.relative_to(ROOT).parts)
    folder = absolute[1] if len(absolute) > 1 else ""

    def walk(node: ast.AST, inside: bool, typing_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, "", child.lineno, inside, typing_only)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0 or folder in RELATIVE, f"{path}:{child.lineno} imports relatively"
                module = (
                    ".".join((*absolute[: len(absolute) - child.level + 1], *filter(None, (child.module,))))
                    if child.level
                    else child.module
                )
                assert module
                for alias in child.names:
                    yield Import(module, alias.name, child.lineno, inside, typing_only)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from walk(child, inside or function, typing_only or typing)

    return tuple(walk(ast.parse(path.read_text("utf-8")), inside=False, typing_only=False))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def folder_of(module: str) -> str:
    """The folder of a module of ours: "core" of dragoman.core.tensors, "" of dragoman itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / parts[1]).is_dir() else ""


def test_folders_import_only_what_they_may() -> None:
    """The table above, for imports anywhere in a module."""
    for path in MODULES:
        folder = named(path).split("/")[0] if path.parent != ROOT else ""
        allowed = MAY_IMPORT.get(folder)
        for found in imports(path):
            if found.module.split(".")[0] != "dragoman" or allowed is None or found.target in ALSO.get(folder, ()):
                continue
            if found.target == "dragoman" and found.name == "__version__":
                continue
            assert folder_of(found.target) in allowed, f"{named(path)}:{found.line} imports {found.target}"


def test_third_parties_are_few() -> None:
    """At import only what the folder needs; frameworks, inside of functions, where the list above says why."""
    for path in MODULES:
        folder = named(path).split("/")[0] if path.parent != ROOT else ""
        for found in imports(path):
            top = found.module.split(".")[0]
            if top == "dragoman" or top in sys.stdlib_module_names or found.typing_only or found.inside:
                continue
            assert top in THIRD_PARTY[folder] | set(LATE.get(named(path), ())), f"{named(path)}:{found.line} imports {top}"


def test_imports_inside_functions_have_a_reason() -> None:
    """Whatever is imported late is in the list above, each with its reason."""
    for path in MODULES:
        for found in imports(path):
            if found.inside:
                reasons = LATE.get(named(path), {})
                assert found.module in reasons or found.module.split(".")[0] in reasons, (
                    f"{named(path)}:{found.line} imports {found.module}"
                )


def test_the_list_of_late_imports_is_true() -> None:
    """No module or package stays in it that is gone."""
    for name, reasons in LATE.items():
        found = {i.module for i in imports(ROOT / name)} | {i.module.split(".")[0] for i in imports(ROOT / name)}
        assert reasons.keys() <= found, name


def test_protocols_do_not_know_each_other() -> None:
    """Two dialects share what lies beside them, and nothing else."""
    protocols = {p.name for p in (ROOT / "dialects").iterdir() if (p / "__init__.py").is_file()} - {"json"}
    assert {"v2", "tfserving", "mlflow", "seldon"} <= protocols
    for own in protocols:
        for path in (ROOT / "dialects" / own).rglob("*.py"):
            for found in imports(path):
                others = {f"dragoman.dialects.{other}" for other in protocols - {own}}
                assert not any(found.target == other or found.target.startswith(other + ".") for other in others), named(path)


def test_only_the_seams_import_by_name() -> None:
    """Runtimes, dialects and engines are found by core/plugins.py, user code by its runtime, commands by cli; nothing else is."""
    users = [named(path) for path in MODULES if "import_module" in path.read_text("utf-8") or "__import__" in path.read_text("utf-8")]
    assert users == [
        "cli/__init__.py",
        "core/plugins.py",
        "runtimes/mlflow_function.py",
        "runtimes/python.py",
        "runtimes/python_examine.py",
        "runtimes/python_mlrun.py",
        "runtimes/python_tungsten.py",
        "serving/fetch.py",
    ]


def test_modules_are_short_and_say_what_they_are_for() -> None:
    """Under 400 lines, with a docstring."""
    for path in MODULES:
        text = path.read_text("utf-8")
        assert len(text.splitlines()) < 400
        assert ast.get_docstring(ast.parse(text))


# --- what is really loaded ---


def loaded_by(*modules: str, below: Path = ROOT.parent) -> set[str]:
    """The modules from outside the standard library that a fresh process has after importing these, beyond what it began with."""
    script = (
        "import sys, json; before = set(sys.modules)\n"
        + "\n".join(f"import {m}" for m in modules)
        + "\nfound = {n for n, m in sys.modules.items() if n not in before and getattr(getattr(m, '__spec__', None), 'origin', None)}"
        + "\nprint(json.dumps(sorted(n for n in found if n.split('.')[0] not in sys.stdlib_module_names)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(below)}, capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(run.stdout))


def modules_of(*folders: str) -> list[str]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [".".join(("dragoman", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__") for path in paths]


def test_a_models_own_process_needs_numpy_and_nothing_else() -> None:
    """core, hosting, engines and every runtime are importable in an environment that has numpy only."""
    found = loaded_by(*modules_of("core", "hosting", "engines", "runtimes", "compat"))
    assert {name.split(".")[0] for name in found} == {"dragoman", "numpy"}
    folders = {"", "core", "proto", "hosting", "engines", "runtimes", "compat"}
    assert {folder_of(name) for name in found if name.startswith("dragoman")} == folders


def test_a_model_file_loads_the_standard_library_and_nothing_else() -> None:
    """`import tungstenkit` and `import mlrun`, as model files say it, need no package at all, not even this one."""
    assert {name.split(".")[0] for name in loaded_by("tungstenkit", below=ROOT / "compat")} == {"tungstenkit"}
    assert {name.split(".")[0] for name in loaded_by("mlrun", below=ROOT / "compat" / "absent")} == {"mlrun"}


def test_the_command_loads_no_framework() -> None:
    """Start-up time belongs to what is served: no model format, no protobuf, no HTTP client, no database before a store is opened."""
    found = loaded_by("dragoman.server.worker", "dragoman.store.sql", *modules_of("cli", "dialects", "console"))
    assert not {name for name in (*FRAMEWORKS, *CLIENTS, *DATABASES) if name in found}


def test_a_store_that_is_up_to_date_needs_no_alembic() -> None:
    """Only migrating does."""
    assert "alembic" not in loaded_by("dragoman.store.sqlstore")


def test_the_package_itself_is_light() -> None:
    """`import dragoman` in a model's process brings no server with it."""
    found = loaded_by("dragoman")
    assert {name.split(".")[0] for name in found} == {"dragoman", "numpy"}
    assert {folder_of(name) for name in found if name.startswith("dragoman")} == {"", "core"}
