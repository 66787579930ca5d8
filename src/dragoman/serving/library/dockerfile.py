"""A Dockerfile and its context for a stored model, so that `docker run -p 3000:3000 IMAGE` serves it. Needs no docker. For `dragoman build`.

The image has the packages in its own Python, so no virtualenv is made when it starts; words behind the image's name are options of
`dragoman serve`.
"""

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman import __version__
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.library.library import Stored
from dragoman.serving.library.packing import File
from dragoman.serving.library.specs import PYTHON, write_record
from dragoman.serving.python_models import REQUIREMENTS, packages_of, python_of
from dragoman.serving.settings import quoted

LARGE = 100 << 20
"""Files of at least this size get a layer of their own: a change of the code does not send them again."""
USUAL_PYTHON = "3.11"
_CUDA = {
    "11.7": "11.7.1-cudnn8", "11.8": "11.8.0-cudnn8", "12.0": "12.0.1-cudnn8", "12.1": "12.1.1-cudnn8", "12.2": "12.2.2-cudnn8",
    "12.3": "12.3.2-cudnn9", "12.4": "12.4.1-cudnn", "12.5": "12.5.1-cudnn", "12.6": "12.6.3-cudnn",
}  # fmt: skip
_USUAL_CUDA = "12.4"
_FRAMEWORK_EXTRAS = {
    "onnx": "onnx",
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "torch": "torch",
    "triton": "onnx",
    "savedmodel": "tensorflow",
    "tensorflow": "tensorflow",
    "litert": "litert",
}
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(?::[a-z0-9-]+)?(?:=[A-Za-z0-9.+:~-]+)?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")


def write_context(stored: Stored, folder: Path) -> list[str]:
    """Make the folder with Dockerfile, model/ and large/; returns notes. Raises INVALID_INPUT for declarations that cannot be written."""
    stored.check()
    text, notes = dockerfile(stored)
    large = _large(stored)
    numbers = {file.path: str(index) for index, file in enumerate(large)}
    try:
        folder.mkdir(parents=True)
        (folder / "model").mkdir()
        for file in stored.files:
            target = folder / "large" / numbers[file.path] if file.path in numbers else folder / "model" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(stored.folder / file.path, target)
        write_record(folder / "model", stored.version.kind, stored.version.spec)
        (folder / "Dockerfile").write_text(text, "utf-8")
    except OSError as error:
        raise ServingError(Kind.UNAVAILABLE, f"{folder} cannot be written: {error.strerror}") from error
    return notes


def dockerfile(stored: Stored) -> tuple[str, list[str]]:
    """The text, and what there is to say about it."""
    config: Mapping[str, Any] = stored.version.spec.get("declared", {})
    lines, packages_notes = _packages(config)
    python, python_note = python_of(config.get("python_version"))
    python = python or _own_or_usual(config)
    custom = config.get("base_image")
    base = _base(config, custom, python)
    notes = [note for note in (*packages_notes, python_note) if note]
    if custom:
        notes.append(f"base_image is {custom}: it must have Python 3.11 or later; no packages are installed into it but dragoman")
    system = [] if custom else _system(config)
    text = [f"# {stored.name}, {stored.version.digest[:12]}", f"FROM {base}", "ENV PYTHONUNBUFFERED=1 DRAGOMAN_ENVIRONMENTS=never"]
    if config.get("gpu") and not custom:
        text += _own_python(python, system)
    elif system:
        text.append(_apt(system))
    if lines and not custom:
        text.append(f"RUN pip install --no-cache-dir {' '.join(shlex.quote(line) for line in lines)}")
    if stored.version.kind == PYTHON and any(file.path == REQUIREMENTS for file in stored.files):
        text += [f"COPY model/{REQUIREMENTS} /tmp/{REQUIREMENTS}", f"RUN pip install --no-cache-dir -r /tmp/{REQUIREMENTS}"]
    extra = _FRAMEWORK_EXTRAS.get(stored.version.kind, "")
    text.append(f"ARG DRAGOMAN=dragoman{f'[{extra}]' if extra else ''}=={__version__}")
    text.append('RUN pip install --no-cache-dir "$DRAGOMAN"')
    text.append(
        f"RUN {'' if custom else 'useradd --no-create-home --uid 10001 model && '}mkdir -p /data /model && chown 10001 /data /model"
    )
    text += [f"COPY --chown=10001 {json.dumps([f'large/{i}', _target(f)])}" for i, f in enumerate(_large(stored))]
    text += ["COPY --chown=10001 model/ /model/", "WORKDIR /model"]
    text += _commands(config)
    serve = ["dragoman", "serve", f"{stored.served_name}=/model", "--host", "0.0.0.0", "--port", "3000"]  # noqa: S104 # inside of a container
    text += [
        "USER 10001",
        "ENV HOME=/data DRAGOMAN_DATA_DIR=/data",
        "EXPOSE 3000",
        "HEALTHCHECK --start-period=10m CMD dragoman status --server --url http://127.0.0.1:3000",
        f"ENTRYPOINT {json.dumps(serve)}",
        "",
    ]
    return "\n".join(text), notes


def _base(config: Mapping[str, Any], custom: object, python: str) -> str:
    if custom:
        if not isinstance(custom, str) or not _IMAGE.fullmatch(custom):
            raise invalid(f"base_image is {quoted(str(custom))}, expected the name of an image")
        return custom
    if not config.get("gpu"):
        return f"python:{python}-slim"
    wanted = str(config.get("cuda_version") or _USUAL_CUDA)
    tag = _CUDA.get(".".join(wanted.split(".")[:2]))
    if tag is None:
        raise invalid(f"cuda_version is {quoted(wanted)}; there are images for {', '.join(_CUDA)}")
    return f"nvidia/cuda:{tag}-runtime-ubuntu22.04"


def _own_python(python: str, system: list[str]) -> list[str]:
    """CUDA images bring no Python that is new enough."""
    return [
        _apt(["python3-pip", *system]),
        f"RUN pip install --no-cache-dir uv && uv python install --install-dir /opt/python {python} && uv venv --seed --python {python} /opt/venv",
        "ENV PATH=/opt/venv/bin:$PATH UV_PYTHON_INSTALL_DIR=/opt/python",
    ]


def _apt(packages: list[str]) -> str:
    listed = " ".join(shlex.quote(package) for package in packages)
    return f"RUN apt-get update && apt-get install -y --no-install-recommends {listed} && rm -rf /var/lib/apt/lists/*"


def _packages(config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    lines, notes = packages_of(config)
    wrong = next((line for line in lines if not line.strip() or line.lstrip().startswith("-") or re.search(r"[\x00-\x1f\x7f]", line)), None)
    if wrong is not None:
        raise invalid(f"python_packages holds {quoted(wrong)}, which is no requirement")
    return lines, notes


def _system(config: Mapping[str, Any]) -> list[str]:
    listed = config.get("system_packages") or []
    if not isinstance(listed, list | tuple):
        raise invalid("system_packages is not a list")
    for package in listed:
        if not isinstance(package, str) or not _PACKAGE.fullmatch(package):
            raise invalid(f"system_packages holds {quoted(str(package))}, which is no package of apt")
    return list(listed)


def _commands(config: Mapping[str, Any]) -> list[str]:
    """The author's own instructions, as they are: they run where the image is built."""
    listed = config.get("dockerfile_commands") or []
    if not isinstance(listed, list | tuple) or not all(isinstance(line, str) for line in listed):
        raise invalid("dockerfile_commands is not a list of texts")
    return list(listed)


def _own_or_usual(config: Mapping[str, Any]) -> str:
    """The version that is asked for when it is one that can be; else the usual one."""
    wanted = str(config.get("python_version") or "")
    major, _, rest = wanted.partition(".")
    minor = rest.split(".")[0]
    return f"3.{minor}" if major == "3" and minor.isdigit() and int(minor) >= 11 else USUAL_PYTHON


def _large(stored: Stored) -> list[File]:
    return sorted((file for file in stored.files if file.size >= LARGE), key=lambda f: f.path)


def _target(file: File) -> str:
    """A path in an instruction, where "$" begins a variable."""
    return "/model/" + file.path.replace("\\", "\\\\").replace("$", "\\$")
