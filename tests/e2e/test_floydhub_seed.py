"""The walk-through of the seed: a style-transfer sample with Flask, unchanged, with a route for any path and with one for / (F28).

Its evaluate.py and its checkpoint are stand-ins; Flask is installed by the job's own floyd_requirements.txt.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Running
from tests.floyd import Floyd, answering, hub, project
from tests.web import web

EVALUATE = """\
def ffwd_to_img(in_path, out_path, checkpoint, device="/cpu:0"):
    with open(in_path, "rb") as source, open(checkpoint, "rb") as style, open(out_path, "wb") as target:
        target.write(bytes(a ^ b for a, b in zip(source.read(), style.read() * 65536)))
"""

APP = """\
import os

from flask import Flask, request, send_file
from werkzeug.utils import secure_filename

from evaluate import ffwd_to_img

app = Flask(__name__)


@app.route("{route}", methods=["POST"])
def style({arguments}):
    picture = request.files.get("file")
    if not picture:
        return "no file was sent", 400
    name = secure_filename(picture.filename)
    came, goes = os.path.join("./images", name), os.path.join("/output", name)
    picture.save(came)
    ffwd_to_img(came, goes, os.path.join("/input", request.form.get("checkpoint") or "style.ckpt"))
    return send_file(goes, mimetype="image/jpg")


if __name__ == "__main__":
    app.run(host="0.0.0.0")
"""


FLOYD_YML = """\
env: tensorflow-1.5
task:
  serve:
    mode: serve
    input:
      - 'alice/datasets/checkpoint/1:input'
"""
"""As the later sample has it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def shimmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with hub(tmp_path_factory.mktemp("shimmed"), "--job-isolation", "shim") as running:
        yield running


@pytest.mark.parametrize("isolation", ["server", "shimmed"])
def test_the_walk_through(isolation: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Log in, upload the checkpoint, run both programs at once, send a picture with a form, get a picture: F10, F11, F13, F17, F26, F28.

    The first is told everything by options, the second by its floyd.yml. They keep what they are sent in the folder `images` of the project.
    """
    server: Running = request.getfixturevalue(isolation)
    floyd = Floyd(server.url, tmp_path / "home").logged_in("alice")
    checkpoint = project(tmp_path / "checkpoint")
    (checkpoint / "style.ckpt").write_bytes(bytes([1, 2, 3, 4]))
    floyd(checkpoint, "data", "init", "checkpoint")
    floyd(checkpoint, "data", "upload")
    options = ("--mode", "serve", "--env", "tensorflow-0.12:py2", "--data", "alice/datasets/checkpoint/1:input")
    endpoints = {}
    for name, route, arguments, told in (("paths", "/<path:path>", "path", options), ("root", "/", "", ("--task", "serve"))):
        app = project(
            tmp_path / name,
            app_py=APP.format(route=route, arguments=arguments),
            evaluate_py=EVALUATE,
            floyd_requirements_txt="Flask\n",
            floyd_yml=FLOYD_YML,
            images__before_txt="as in the sample",
        )
        floyd(app, "init", name)
        job = floyd(app, "run", *told).job
        shown = floyd(app, "info", job).out
        assert re.search(r"Mode +serving", shown)
        endpoints[job] = re.findall(r"Url +(\S+)", shown)[0]
    picture = bytes(range(256)) * 1000
    for job, endpoint in endpoints.items():
        assert answering(endpoint).status_code in (404, 405), "a GET has no route"
        styled = web.post(endpoint, files={"file": ("me and you.jpg", picture)}, data={"checkpoint": "style.ckpt"}, timeout=60.0)
        assert (styled.status_code, styled.headers["content-type"]) == (200, "image/jpg"), styled.text
        assert styled.content == bytes(a ^ b for a, b in zip(picture, [1, 2, 3, 4] * 64000, strict=True))
        refused = web.post(endpoint, data={"checkpoint": "style.ckpt"})
        assert (refused.status_code, refused.text) == (400, "no file was sent")
        log = floyd(tmp_path / "paths", "logs", job).out
        assert "/input" in log
        assert "/output" in log
        floyd(tmp_path / "paths", "stop", job)


def test_two_versions_of_one_package(server: Running, tmp_path: Path) -> None:
    """Each job has what its own floyd_requirements.txt names (requirement F8); what cannot be installed fails the job, with the name (F25)."""
    floyd = Floyd(server.url, tmp_path / "home").logged_in("bob")
    print_it = "python -c \"from importlib.metadata import version; print('it is', version('itsdangerous'))\""
    jobs = {}
    for version in ("2.1.2", "2.2.0"):
        app = project(tmp_path / version, floyd_requirements_txt=f"itsdangerous=={version}\n")
        floyd(app, "init", "pinned")
        jobs[version] = floyd(app, "run", print_it).job
    for version, job in jobs.items():
        log = floyd(tmp_path / version, "logs", "-f", job).out
        assert f"it is {version}\n" in log
        assert "[success] Finished execution" in log
    app = project(tmp_path / "broken", floyd_requirements_txt="itsdangerous==0.0.0.1\n")
    floyd(app, "init", "broken")
    log = floyd(app, "run", "--follow", print_it).out
    assert "itsdangerous==0.0.0.1" in log
    assert "[failed] Task execution failed" in log
