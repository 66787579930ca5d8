"""What a project imports, read from its lines: modules, the project's own, what is only tried, Python 2, and files that mean harm."""

import os
import socket
from pathlib import Path

import pytest

from dragoman.serving.jobs.imports import Imports, bytes_of, imports_of, package_of


def imported(home: Path, text: str, name: str = "app.py") -> Imports:
    (home / name).write_text(text)
    return imports_of(home, [name])


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("import flask", ("flask",)),
        ("from flask import Flask, request\n", ("flask",)),
        ("import numpy as np, PIL.Image\r\nimport os, sys, json\r\n", ("PIL", "numpy")),
        ("import scipy.misc; print(1)", ("scipy",)),
        ("def load():\n    import torch\n    from a.b import c\n", ("a", "torch")),
        ("from . import x\nfrom .y import z\nfrom __future__ import division\n", ()),
        ("# import flask\nimportant = 1\nx = 'import flask'\nfrom here to there\n", ()),
        ("try:\n    import ujson\n    import a1\nexcept ImportError:\n    import simplejson\nimport flask\n", ("flask",)),
        ("try :  # maybe\n  import cupy\nfinally:\n  pass\n", ()),
        ("if True:\n    try:\n        import x1\n    except (A, B) as e:\n        pass\n    import x2\n", ("x2",)),
        ("\ufeffimport flask", ("flask",)),
        ("import ,\nimport .\nimport   \nfrom import\n", ()),
        ("import urllib2, StringIO\n", ()),
    ],
)
def test_modules(tmp_path: Path, text: str, modules: tuple[str, ...]) -> None:
    """Those of nobody's standard library, each once, wherever they stand; what may be missing does not count."""
    assert imported(tmp_path, text).modules == modules


def test_the_projects_own_modules_are_followed(tmp_path: Path) -> None:
    """Files and packages; others of the folder are not looked at, and circles end."""
    (tmp_path / "style").mkdir()
    (tmp_path / "style" / "__init__.py").write_text("import scipy\n")
    (tmp_path / "style" / "deep.py").write_text("import tensorflow, app\n")
    (tmp_path / "evaluate.py").write_text("import style.deep\nimport app\n")
    (tmp_path / "train.py").write_text("import torch\n")
    (tmp_path / "assets").mkdir()
    assert imported(tmp_path, "import evaluate, flask, assets\n").modules == ("flask", "scipy", "tensorflow")


@pytest.mark.parametrize(
    "line", ["print 'x'", '    print "a", b', "print x", "except IOError, e:", "    except os.error, err :", "exec 'x = 1'"]
)
def test_python_2(tmp_path: Path, line: str) -> None:
    """The first line that only Python 2 can read."""
    assert imported(tmp_path, f"import os\n\n{line}\n{line}\n").old == "app.py, line 3"


@pytest.mark.parametrize(
    "line", ["print('x')", "print", "print (x)", "except IOError as e:", "except (A, B):", "exec('x')", "printer = 1", "print = log"]
)
def test_python_3(tmp_path: Path, line: str) -> None:
    """Is not taken for Python 2."""
    assert imported(tmp_path, f"{line}\n").old == ""


def test_files_that_mean_harm(tmp_path: Path) -> None:
    """Links, pipes, sockets, folders and huge files are not read; lines without an end cost nothing."""
    outside = tmp_path / "outside.py"
    outside.write_text("import secret_name\n")
    home = tmp_path / "home"
    (home / "folder.py").mkdir(parents=True)
    (home / "link.py").symlink_to(outside)
    (home / "there").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(home / "pipe.py")
    (home / "large.py").write_bytes(b"import a\n" + b"#" * (1 << 20))
    (home / "long.py").write_text("import b\nexcept " + ": #" * 100_000 + "\nimport " + "x, " * 100_000 + "\n")
    (home / "nested.py").write_text("(" * 200_000 + "\nimport c\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "socket.py"))
        names = ["missing.py", "folder.py", "link.py", "there/outside.py", "pipe.py", "socket.py", "large.py", "long.py", "nested.py"]
        (home / "app.py").write_text("import there.outside, link\n")
        found = imports_of(home, ["app.py", *(n for n in names if n != "there/outside.py")])
    assert found.modules == ("b", "c", "there")
    assert bytes_of(home / "link.py") == b""


def test_there_is_an_end_to_it(tmp_path: Path) -> None:
    """Of a project with thousands of modules some are looked at."""
    for number in range(300):
        (tmp_path / f"m{number}.py").write_text(f"import m{number + 1}, package{number:03}\n")
    assert 100 < len(imports_of(tmp_path, ["m0.py"]).modules) <= 200


def test_packages() -> None:
    """What to install for a module, which is not always called the same."""
    assert [package_of(m) for m in ("PIL", "cv2", "werkzeug", "yaml", "bs4", "some_thing", "flask")] == [
        *("pillow", "opencv-python-headless", "flask", "pyyaml", "beautifulsoup4", "some-thing", "flask")
    ]
