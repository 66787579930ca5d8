"""MLflow's artifact API over HTTP: files come, are listed, go out again, and stay inside of their folder."""

from pathlib import Path

import pytest

from tests.unit.dialects.mlflow.site import FILES, Site


def listed(site: Site, path: str = "") -> list[tuple[str, int]]:
    """Names and sizes in a folder; -1 for folders."""
    found = site.ask("GET", FILES, query={"path": path} if path else {})
    assert found.status == 200, found
    return [(each["path"], -1 if each["is_dir"] else each["file_size"]) for each in found.json["files"]]


def test_a_file_comes_in_pieces_and_goes_out_whole(tmp_path: Path) -> None:
    """With its size, as something that no browser runs."""
    site = Site(tmp_path)
    assert site.ask("PUT", f"{FILES}/0/run/a.bin", raw=[b"one ", b"", b"two ", b"three"]).json == {}
    found = site.ask("GET", f"{FILES}/0/run/a.bin")
    assert (found.status, found.body) == (200, b"one two three")
    assert found.headers[b"content-length"] == b"13"
    assert found.headers[b"content-type"] == b"application/octet-stream"
    assert found.headers[b"x-content-type-options"] == b"nosniff"
    assert found.headers[b"content-disposition"].startswith(b"attachment")


@pytest.mark.parametrize("name", ["a b.txt", "größe.bin", "100%.txt", "x" * 255, "..a", "a..", "-", "a\u2028b", "predict", "infer", "'\""])
def test_files_have_any_name_that_a_file_can_have(name: str, tmp_path: Path) -> None:
    """It comes back under it, and is listed with it."""
    site = Site(tmp_path)
    path = f"{FILES}/folder/{name.replace('%', '%25')}"
    assert site.ask("PUT", path, raw=b"x").status == 200
    assert site.ask("GET", path).body == b"x"
    assert listed(site, "folder") == [(name, 1)]


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    """Not nothing."""
    site = Site(tmp_path)
    site.ask("PUT", f"{FILES}/empty", raw=b"")
    found = site.ask("GET", f"{FILES}/empty")
    assert (found.status, found.body, found.headers[b"content-length"]) == (200, b"", b"0")


def test_folders_are_listed(tmp_path: Path) -> None:
    """Names are relative to the folder; a file, and what is not there, have none in them."""
    site = Site(tmp_path)
    assert listed(site) == []
    for path in ("b/c/d.txt", "b/a.txt", "e.txt"):
        site.ask("PUT", f"{FILES}/{path}", raw=b"123")
    assert listed(site) == [("b", -1), ("e.txt", 3)]
    assert listed(site, "b") == [("a.txt", 3), ("c", -1)]
    assert listed(site, "b/c/") == [("d.txt", 3)]
    assert listed(site, "b/a.txt") == []
    assert listed(site, "nothing/there") == []


def test_a_file_takes_the_place_of_another(tmp_path: Path) -> None:
    """But not that of a folder, and no folder that of a file."""
    site = Site(tmp_path)
    for content in (b"old", b"new"):
        assert site.ask("PUT", f"{FILES}/a/b", raw=content).status == 200
    assert site.ask("GET", f"{FILES}/a/b").body == b"new"
    for path in ("a", "a/b/c"):
        refused = site.ask("PUT", f"{FILES}/{path}", raw=b"x")
        assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE")
    assert listed(site, "a") == [("b", 3)]


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    """A folder is no file either; deleting it is no error, as in the original."""
    site = Site(tmp_path)
    site.ask("PUT", f"{FILES}/a/b", raw=b"x")
    for path in ("nothing", "a", "a/b/c"):
        found = site.ask("GET", f"{FILES}/{path}")
        assert (found.status, found.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    for path in ("nothing", "a/b/c", "a/b", "a"):
        assert site.ask("DELETE", f"{FILES}/{path}").json == {}
    assert listed(site) == []


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "a/%2e%2e/%2e%2e/x",
        "..%2fx",
        "a%2Fb",
        "%2fetc%2fpasswd",
        "a%5Cb",
        "a%00b",
        "a%0ab",
        "%ff",
        ".incoming/x",
        "x" * 256,
        "/".join(["x" * 200] * 20),
        "link/x",
        "link",
        "%7f",
    ],
)
def test_no_path_leads_out(path: str, tmp_path: Path) -> None:
    """Up, through links, hidden slashes, and names that no file has: 400, and nothing is read, written or removed."""
    site = Site(tmp_path)
    site.ask("PUT", f"{FILES}/a/b", raw=b"x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("secret")
    (site.artifacts.root / "link").symlink_to(tmp_path / "outside")
    for method in ("GET", "PUT", "DELETE"):
        refused = site.ask(method, f"{FILES}/{path}", raw=b"bad" if method == "PUT" else b"")
        assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE"), method
    assert (tmp_path / "outside" / "x").read_text() == "secret"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "models", "outside"]
    assert listed(site) == [("a", -1)]


@pytest.mark.parametrize("path", ["..", "/etc", "a/../..", "a\x00", "x" * 3000, ".incoming"])
def test_no_listing_leads_out(path: str, tmp_path: Path) -> None:
    """As with paths of files."""
    refused = Site(tmp_path).ask("GET", FILES, query={"path": path})
    assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE")


def test_the_whole_tree_cannot_be_removed(tmp_path: Path) -> None:
    """Nor replaced."""
    site = Site(tmp_path)
    site.ask("PUT", f"{FILES}/a", raw=b"x")
    for method in ("DELETE", "PUT"):
        for path in (FILES, f"{FILES}/", f"{FILES}//"):
            assert site.ask(method, path).status == 405
    assert site.ask("DELETE", f"{FILES}/.").status == 400
    assert listed(site) == [("a", 1)]


def test_an_upload_over_the_limit_leaves_nothing(tmp_path: Path) -> None:
    """413, and what was there before stays."""
    site = Site(tmp_path, max_body=100)
    site.ask("PUT", f"{FILES}/a", raw=b"old")
    refused = site.ask("PUT", f"{FILES}/a", raw=[b"x" * 60, b"x" * 60])
    assert (refused.status, refused.code) == (413, "RESOURCE_LIMIT_EXCEEDED")
    assert site.ask("GET", f"{FILES}/a").body == b"old"
    assert list((site.artifacts.root / ".incoming").iterdir()) == []


def test_files_of_a_version_do_not_change(tmp_path: Path) -> None:
    """Neither they nor a folder that holds them, until the version is deleted; what lies beside them does."""
    site = Site(tmp_path)
    for name in ("m/model.onnx", "other/model.onnx"):
        site.ask("PUT", f"{FILES}/{name}", raw=b"x")
    site.model("iris", versions=1, source="mlflow-artifacts:/m")
    for method, path in (("PUT", "m/model.onnx"), ("DELETE", "m/model.onnx"), ("DELETE", "m")):
        refused = site.ask(method, f"{FILES}/{path}", raw=b"y" if method == "PUT" else b"")
        assert (refused.status, refused.code) == (409, "RESOURCE_CONFLICT"), path
    assert site.ask("GET", f"{FILES}/m/model.onnx").body == b"x"
    assert site.ask("PUT", f"{FILES}/other/model.onnx", raw=b"y").status == 200
    site.ask("DELETE", "model-versions/delete", {"name": "iris", "version": "1"})
    assert site.ask("DELETE", f"{FILES}/m").status == 200
