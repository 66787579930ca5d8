"""Data sets with the real floyd-cli: made, uploaded, resumed, mounted, listed, fetched, removed (FloydHub requirements F3, F17, F18)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Running
from tests.floyd import WEB, Floyd, answering, hub, project
from tests.web import web

KEY = {"Authorization": "apikey alice"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    shared = tmp_path_factory.mktemp("shared")
    (shared / "faces").mkdir()
    (shared / "faces" / "one.txt").write_text("a face")
    with hub(tmp_path_factory.mktemp("hub"), "--data-root", str(shared), "--workers", "2") as running:
        yield running


@pytest.fixture(scope="module")
def floyd(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Floyd:
    return Floyd(server.url, tmp_path_factory.mktemp("home")).logged_in("alice")


def uploaded(floyd: Floyd, folder: Path, name: str, **files: str) -> str:
    """The name of a data set's version that holds these files."""
    project(folder, **files)
    floyd(folder, "data", "init", name)
    said = floyd(folder, "data", "upload").out
    assert "Upload finished." in said
    return next(line for line in said.splitlines() if line.startswith("alice/datasets/"))


class TestData:
    def test_two_jobs_see_each_its_own(self, floyd: Floyd, tmp_path: Path) -> None:
        """Both mount theirs as `input`: read at /input and at /floyd/input/input, with either spelling of the place (F17, F18)."""
        cats = uploaded(floyd, tmp_path / "cats", "cats", cat_txt="miaow")
        dogs = uploaded(floyd, tmp_path / "dogs", "dogs", dog_txt="woof", deep__er_txt="x")
        assert (cats, dogs) == ("alice/datasets/cats/1", "alice/datasets/dogs/1")
        status = floyd(tmp_path / "cats", "data", "status").out
        assert "valid" in status
        assert cats in status
        app = project(tmp_path / "app", app_py=WEB.replace("open(os.path.join(place, name)).read()", "name"))
        floyd(app, "init", "mounting")
        jobs = [floyd(app, "run", "--mode", "serve", "--data", f"{name}:{place}") for name, place in ((cats, "input"), (dogs, "/input"))]
        assert "MOUNTING DIRECTORY" in jobs[0].out
        seen = [answering(job.endpoint).json()["data"] for job in jobs]
        assert [{place: sorted(names) for place, names in each.items()} for each in seen] == [
            {"/input": [".floyddata", "cat.txt"], "/floyd/input/input": [".floyddata", "cat.txt"]},
            {"/input": [".floyddata", "deep", "dog.txt"], "/floyd/input/input": [".floyddata", "deep", "dog.txt"]},
        ]
        assert "deep/er.txt" in floyd(tmp_path, "data", "listfiles", dogs).out
        (back := tmp_path / "back").mkdir()
        floyd(back, "data", "getfile", dogs, "deep/er.txt")
        assert (back / "er.txt").read_text() == "x"
        floyd(back, "data", "clone", cats)
        assert (back / "cat.txt").read_text() == "miaow"
        assert "mounted by a job" in web.delete(self.module(floyd, cats), headers=KEY).json()["message"]
        for job in jobs:
            floyd(app, "stop", job.job)

    def test_versions_count_and_go(self, floyd: Floyd, tmp_path: Path) -> None:
        """A name without a number means the newest, one without a user means the caller's; a version is removed for good."""
        folder = tmp_path / "numbers"
        assert uploaded(floyd, folder, "numbers", one_txt="1").endswith("/1")
        assert uploaded(floyd, folder, "numbers", two_txt="2").endswith("/2")
        assert "two.txt" in floyd(folder, "data", "listfiles", "alice/datasets/numbers").out
        assert "ERROR" not in (shown := floyd(tmp_path, "data", "listfiles", "numbers/1").out), shown
        assert "one.txt" in shown
        assert "Deleted" in floyd(folder, "data", "delete", "-y", "alice/datasets/numbers/1").out
        assert web.get(self.module(floyd, "alice/datasets/numbers/1"), headers=KEY).status_code == 404

    def test_out_of_a_job_and_out_of_a_folder(self, floyd: Floyd, tmp_path: Path) -> None:
        """`data add` makes a version of what a job left, or names a folder of the server that its operator has opened. Users may be left out."""
        app = project(tmp_path / "app", readme_txt="x")
        floyd(app, "init", "making")
        job = floyd(app, "run", "--follow", "echo made > /output/made.txt").job
        floyd(app, "data", "init", "made")
        floyd(app, "data", "add", f"{job}/output")
        assert "faces" not in floyd(app, "data", "status").out
        floyd(app, "data", "add", "faces")
        assert "one.txt" in floyd(app, "data", "listfiles", "alice/datasets/made/2").out
        done = floyd(
            app,
            "run",
            "--follow",
            "--data",
            f"{job}/output:before",
            "--data",
            "made/2:faces",
            "cat /before/made.txt /faces/one.txt",
        )
        assert "made\na face" in done.out
        assert "root" in floyd(app, "data", "add", "/etc", code=1).out

    def test_what_is_not_there(self, floyd: Floyd, tmp_path: Path) -> None:
        """The client says so, and crashes on its own bug; a place that is taken is refused by us."""
        app = project(tmp_path / "app", app_py=WEB)
        floyd(app, "init", "missing")
        assert "not found" in floyd(app, "run", "--mode", "serve", "--data", "alice/datasets/nothing/1:input", code=70).out
        uploaded(floyd, tmp_path / "some", "some", x_txt="x")
        assert "something else" in floyd(app, "run", "--mode", "serve", "--data", "alice/datasets/some/1:etc", code=1).out

    def module(self, floyd: Floyd, name: str) -> str:
        """The address of a version by its id, under which it is removed."""
        shown = web.get(f"{floyd.url}/api/v1/modules/{name}", headers=KEY)
        return f"{floyd.url}/api/v1/modules/{shown.json()['id'] if shown.status_code == 200 else name}"
