"""`dragoman data ...` against a server that answers as FloydHub's did."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.fakes_floyd_server import State, tarred, version
from tests.unit.jobs_cli.conftest import Run


@pytest.fixture
def pics(place: Path, server: State, command: Run) -> Path:
    """A folder that is the data set ann/pics, with two files."""
    assert command("data", "init", "pics").out.startswith('Data source "pics" initialized in current directory')
    (place / "a.bin").write_bytes(os.urandom(70_000))
    (place / "sub").mkdir()
    (place / "sub/é.txt").write_text("é")
    return place


def unfinished(folder: Path) -> dict[str, object]:
    return {
        key: value
        for key, value in json.loads((folder / ".floyddata").read_text()).items()
        if key.endswith(("_id", "path", "endpoint")) and value
    }


def test_upload(pics: Path, server: State, command: Run) -> None:
    """Packed, sent and unpacked; the name of the version last; nothing is left of it here (requirement F18)."""
    ran = command("data", "upload", "-m", "first")
    assert ran.code == 0, ran
    assert "Compressing data..." in ran.lines
    assert ran.lines[-3:] == ["NAME", "-------------------", "ann/datasets/pics/1"]
    with tarfile.open(fileobj=io.BytesIO(bytes(server.uploads["u1"]))) as tar:
        assert sorted(member.name for member in tar) == [".", "./a.bin", "./sub", "./sub/é.txt"]
    (made,) = (each for each in server.sent("POST", "/api/v1/modules/") if each.headers["content-type"] == "application/json")
    body = made.json()
    assert (body["name"], body["description"], body["data_type"], body["resumable"]) == ("ann/pics", "first", "gzip", True)
    (begun,) = server.sent("POST", "/api/v1/upload/")
    assert begun.headers["tus-resumable"] == "1.0.0"
    assert begun.headers["upload-metadata"] == "filename dXAtZGF0YTE="
    assert begun.headers["authorization"] == "Basic dXAtZGF0YTE6c2VjcmV0"
    assert unfinished(pics) == {"family_id": "datasets-ann-pics"}


def test_an_upload_that_breaks_off(pics: Path, server: State, command: Run) -> None:
    """It goes on with what the server has not; nothing is packed or announced anew."""
    (pics / "big.bin").write_bytes(os.urandom(12 << 20))
    server.drop_after = 2
    ran = command("data", "upload")
    assert ran.code == 1
    assert "dragoman data upload --resume" in ran.err
    assert Path(str(unfinished(pics)["tarball_path"])).is_file()
    before = len(server.uploads["u1"])
    assert before == 10 << 20
    ran = command("data", "upload", "--resume")
    assert ran.code == 0, ran
    assert len(server.sent("POST", "/api/v1/upload/")) == 1
    assert int(server.sent("PATCH", ".*")[2].headers["upload-offset"]) == before
    with tarfile.open(fileobj=io.BytesIO(bytes(server.uploads["u1"]))) as tar:
        assert "./a.bin" in tar.getnames()
    assert unfinished(pics) == {"family_id": "datasets-ann-pics"}


def test_an_upload_begun_anew(pics: Path, server: State, command: Run) -> None:
    """Who does not want to resume begins again, and the archive of before is gone."""
    server.drop_after = 1
    assert command("data", "upload").code == 1
    archive = Path(str(unfinished(pics)["tarball_path"]))
    ran = command("data", "upload", stdin="n\n")
    assert ran.code == 0, ran
    assert not archive.parent.exists()
    assert len(server.sent("POST", "/api/v1/upload/")) == 2


def test_an_upload_the_server_has_forgotten(pics: Path, server: State, command: Run) -> None:
    """It is said, and the next one begins anew without a question."""
    server.drop_after = 1
    assert command("data", "upload").code == 1
    server.uploads.clear()
    ran = command("data", "upload", "-r")
    assert ran.code == 1
    assert "forgotten" in ran.err
    assert command("data", "upload").code == 0
    assert command("data", "upload", "-r").code == 2


def test_data_that_cannot_be_unpacked(pics: Path, server: State, command: Run) -> None:
    """The server's reason, and no waiting for ever."""
    server.unpacked = "invalid"
    ran = command("data", "upload")
    assert ran.code == 2
    assert "it holds a device" in ran.err
    assert unfinished(pics) == {"family_id": "datasets-ann-pics"}


def test_a_refused_upload_leaves_nothing(pics: Path, server: State, command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The archive is removed with the attempt."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    server.refuse["POST /api/v1/upload/"] = (413, {"message": "at most 5 bytes"})
    ran = command("data", "upload")
    assert (ran.code, "at most 5 bytes" in ran.err) == (1, True)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_folder_that_is_no_data_set(place: Path, server: State, command: Run) -> None:
    """The sentence says what to do."""
    for words in (("upload",), ("status",), ("add", "x/1/output")):
        ran = command("data", *words)
        assert ran.code == 2
        assert "dragoman data init NAME" in ran.err


def test_status(pics: Path, server: State, command: Run) -> None:
    """Versions in a table of FloydHub's columns, all or one; the reason of one that is no good."""
    server.data["ann/datasets/pics/2"] = version(
        "ann/datasets/pics/2", data={"state": "invalid", "size": "0", "reason": "it holds a device"}
    )
    server.data["ann/datasets/pics/1"] = version()
    ran = command("data", "status")
    assert ran.lines[0].split() == ["DATA", "NAME", "CREATED", "STATUS", "DISK", "USAGE"]
    assert [line.split()[0] for line in ran.lines[2:]] == ["ann/datasets/pics/2", "ann/datasets/pics/1"]
    assert "it holds a device" in ran.err
    one = command("data", "status", "1").lines[2].split()
    assert (one[0], one[3:]) == ("ann/datasets/pics/1", ["valid", "3", "kB"])
    assert json.loads(command("data", "status", "--output", "json").out)[1]["id"] == "data1"
    assert command("data", "status", "7").code == 1


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        ("shop/2/output", "ann/projects/shop/2/output"),
        ("bob/projects/shop/2/files", "bob/projects/shop/2/files"),
        ("/srv/some data", "file:///srv/some%20data"),
        ("file:///srv/data", "file:///srv/data"),
        ("pictures", "pictures"),
    ],
)
def test_add(pics: Path, server: State, command: Run, source: str, sent: str) -> None:
    """What a job left, under its full name; a folder of the server's machine as an address, or by its name in a --data-root."""
    ran = command("data", "add", source)
    assert ran.code == 0, ran
    assert "ann/datasets/pics/9" in ran.out
    assert server.sent("POST", "/api/v1/datasets/datasets-ann-pics")[0].json() == {"source": sent}


def test_add_a_folder_here(pics: Path, server: State, command: Run) -> None:
    """A path that is relative is one of this machine."""
    assert command("data", "add", "./sub").code == 0
    assert server.sent("POST", "/api/v1/datasets/.*")[0].json() == {"source": f"file://{pics}/sub"}


def test_clone(pics: Path, server: State, command: Run) -> None:
    """A version, what a job left, and one folder of them."""
    server.data["ann/datasets/pics/1"] = version()
    server.data["ann/projects/shop/2/output"] = version("ann/projects/shop/2/output", id="job2", resource_id="res-out")
    server.files |= {"res1": {"x": b"x"}, "res-out": {"y": b"y"}, "data:data1:sub": {"z": b"z"}, "files:job2:sub": {"w": b"w"}}
    for words in (("1",), ("shop/2/output",), ("1", "-p", "sub"), ("shop/2/output", "-p", "sub")):
        assert command("data", "clone", *words).code == 0, words
    assert [(pics / name).read_text() for name in "xyzw"] == ["x", "y", "z", "w"]
    assert tarred(server.files["res1"])  # what was sent is an archive
    assert command("data", "output", "1").out == f"{os.environ['DRAGOMAN_URL']}/api/v1/resources/res1?content=true&download=true\n"


def test_files_of_a_version(pics: Path, server: State, command: Run) -> None:
    """Listed with their folders; one is downloaded, and writes over nothing."""
    server.data["ann/datasets/pics/1"] = version()
    server.files["res1"] = {"b.txt": b"b", "sub/c d.txt": b"c", "sub/more/é.txt": b"e"}
    assert command("data", "listfiles", "pics/1").lines == ["b.txt", "sub/", "sub/c d.txt", "sub/more/", "sub/more/é.txt"]
    assert command("data", "getfile", "pics/1", "sub/c d.txt").code == 0
    assert (pics / "c d.txt").read_text() == "c"
    ran = command("data", "getfile", "pics/1", "sub/c d.txt")
    assert (ran.code, "is here already" in ran.err) == (2, True)
    assert command("data", "getfile", "pics/1", "none").code == 1
    assert not [each for each in pics.iterdir() if each.name.startswith(".dragoman")]
    assert not (pics / "none").exists()


def test_delete(pics: Path, server: State, command: Run) -> None:
    """Versions, after a question; what a job left is none."""
    server.data["ann/datasets/pics/1"] = version()
    server.data["ann/projects/shop/2/output"] = version("ann/projects/shop/2/output", id="job2")
    assert "Skipped" in command("data", "delete", "1", stdin="no\n").out
    ran = command("data", "delete", "-y", "shop/2/output", "1")
    assert ran.code == 1
    assert "is no data set" in ran.err
    assert "Data ann/datasets/pics/1: Deleted" in ran.lines
    assert list(server.data) == ["ann/projects/shop/2/output"]
