"""Models are fetched once, completely or not at all, and are usable when the place they came from is away."""

import asyncio
import hashlib
import io
import json
import logging
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.artifacts import Artifacts, RegistryAddress, is_remote, name_of
from dragoman.serving.fetch import FetchPolicy
from tests.unit.artifacts.shelf import Shelf, shelf
from tests.unit.library.bucket import bucket

LOOPBACK = FetchPolicy.parse(["127.0.0.0/8"], max_bytes=50_000_000, timeout_s=20)
LARGE = bytes(range(256)) * 4000


@pytest.fixture
def web() -> Iterator[Shelf]:
    with shelf() as found:
        yield found


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "fetched", LOOPBACK, pauses_s=(0, 0))


def fetch(artifacts: Artifacts, uri: str) -> Path:
    return asyncio.run(artifacts.fetch(uri))


def refused(artifacts: Artifacts, uri: str) -> ServingError:
    with pytest.raises(ServingError) as caught:
        fetch(artifacts, uri)
    return caught.value


class TestNames:
    @pytest.mark.parametrize(
        ("text", "remote"),
        [
            ("s3://bucket/iris", True),
            ("gs://bucket/x", True),
            ("https://example.com/iris.onnx", True),
            ("models:/iris/3", True),
            ("models:/iris@champion", True),
            ("iris.onnx", False),
            ("/srv/models:/x", False),
            ("models/iris", False),
            ("file:///srv/iris", False),
            ("iris:latest", False),
        ],
    )
    def test_what_is_fetched(self, text: str, remote: bool) -> None:
        """URIs of other places are told from paths and names."""
        assert is_remote(text) == remote

    @pytest.mark.parametrize(
        ("uri", "name"),
        [
            ("s3://bucket/models/iris/", "iris"),
            ("https://user:secret@example.com/a/iris.onnx?token=x", "iris"),
            ("https://example.com/iris.tar.gz#sha256=" + "0" * 64, "iris"),
            ("models:/iris/3", "iris"),
            ("models:/iris@champion", "iris"),
            ("gs://bucket", "bucket"),
        ],
    )
    def test_the_usual_name(self, uri: str, name: str) -> None:
        """The last part of the path, or the name in the registry."""
        assert name_of(uri) == name


class TestWeb:
    def test_once(self, artifacts: Artifacts, web: Shelf) -> None:
        """The second time only news is asked for; other content is fetched anew, beside the first."""
        web.files["/iris.onnx"] = LARGE
        first = fetch(artifacts, f"{web.url}/iris.onnx")
        assert (first.name, first.read_bytes()) == ("iris.onnx", LARGE)
        assert fetch(artifacts, f"{web.url}/iris.onnx") == first
        assert len(web.seen) == 2
        web.files["/iris.onnx"] = b"other"
        assert fetch(artifacts, f"{web.url}/iris.onnx").read_bytes() == b"other"
        assert first.read_bytes() == LARGE

    def test_equal_content_is_one_folder(self, artifacts: Artifacts, web: Shelf) -> None:
        """Two addresses of the same file share it."""
        web.files |= {"/a/iris.onnx": LARGE, "/b/iris.onnx": LARGE}
        assert fetch(artifacts, f"{web.url}/a/iris.onnx") == fetch(artifacts, f"{web.url}/b/iris.onnx")

    def test_a_download_that_breaks_off_is_continued(self, artifacts: Artifacts, web: Shelf) -> None:
        """Only what is missing is asked for again, as often as it goes on."""
        web.files["/iris.onnx"] = LARGE
        web.breaks["/iris.onnx"] = [300_000, 200_000]
        assert fetch(artifacts, f"{web.url}/iris.onnx").read_bytes() == LARGE
        assert [asked for _, asked in web.seen] == ["", "bytes=300000-", "bytes=500000-"]

    def test_a_file_that_changes_meanwhile_begins_again(self, artifacts: Artifacts, web: Shelf) -> None:
        """Pieces of two files are never put together."""
        web.files["/iris.onnx"] = LARGE
        web.breaks["/iris.onnx"] = [300_000, *[0] * 20]
        assert refused(artifacts, f"{web.url}/iris.onnx").kind is Kind.UNAVAILABLE
        web.breaks.clear()
        web.files["/iris.onnx"] = LARGE[::-1]
        assert fetch(artifacts, f"{web.url}/iris.onnx").read_bytes() == LARGE[::-1]

    def test_a_new_process_goes_on(self, artifacts: Artifacts, web: Shelf) -> None:
        """What an earlier attempt left is used by the next start."""
        web.files["/iris.onnx"] = LARGE
        web.breaks["/iris.onnx"] = [400_000, *[0] * 20]
        refused(artifacts, f"{web.url}/iris.onnx")
        web.breaks.clear()
        web.seen.clear()
        again = Artifacts(artifacts.root, LOOPBACK)
        assert fetch(again, f"{web.url}/iris.onnx").read_bytes() == LARGE
        assert [asked for _, asked in web.seen] == ["bytes=400000-"]

    def test_without_a_validator_it_begins_again(self, artifacts: Artifacts, web: Shelf) -> None:
        """A server that does not say what its file is gets no question about a part of it."""
        web.tagged = False
        web.files["/iris.onnx"] = LARGE
        web.breaks["/iris.onnx"] = [400_000]
        assert refused(artifacts, f"{web.url}/iris.onnx").kind is Kind.UNAVAILABLE
        assert fetch(artifacts, f"{web.url}/iris.onnx").read_bytes() == LARGE
        assert {asked for _, asked in web.seen} == {""}

    def test_usable_when_the_place_is_away(self, artifacts: Artifacts, web: Shelf, caplog: pytest.LogCaptureFixture) -> None:
        """What is here is served, and the log says since when it is here."""
        web.files["/iris.onnx"] = LARGE
        path = fetch(artifacts, f"{web.url}/iris.onnx")
        web.down = True
        with caplog.at_level(logging.WARNING, "dragoman.models"):
            assert fetch(artifacts, f"{web.url}/iris.onnx") == path
        assert "was fetched on" in caplog.text

    def test_a_checksum(self, artifacts: Artifacts, web: Shelf) -> None:
        """Content that is not as announced is refused and not kept; what is, is never asked for again."""
        web.files["/iris.onnx"] = LARGE
        wrong = refused(artifacts, f"{web.url}/iris.onnx#sha256={'0' * 64}")
        assert (wrong.kind, "checksum" in wrong.message) == (Kind.INVALID_INPUT, True)
        right = f"{web.url}/iris.onnx#sha256={hashlib.sha256(LARGE).hexdigest()}"
        path = fetch(artifacts, right)
        web.seen.clear()
        assert fetch(artifacts, right) == path
        assert web.seen == []

    def test_what_was_damaged_here_is_fetched_again(self, artifacts: Artifacts, web: Shelf) -> None:
        """A file of the cache that has another size does not count."""
        web.files["/iris.onnx"] = LARGE
        path = fetch(artifacts, f"{web.url}/iris.onnx")
        path.write_bytes(b"half")
        assert fetch(artifacts, f"{web.url}/iris.onnx").read_bytes() == LARGE

    def test_what_is_not_there(self, artifacts: Artifacts, web: Shelf) -> None:
        """404 is the caller's mistake, and nothing is kept."""
        assert refused(artifacts, f"{web.url}/none.onnx").kind is Kind.INVALID_INPUT

    def test_the_guard(self, tmp_path: Path, web: Shelf) -> None:
        """A policy that opens nothing private is obeyed."""
        guarded = Artifacts(tmp_path, FetchPolicy.parse([]))
        assert refused(guarded, f"{web.url}/iris.onnx").kind is Kind.FORBIDDEN

    def test_progress(self, tmp_path: Path, web: Shelf) -> None:
        """It is told how far it has come, without passwords."""
        told: list[tuple[str, int, int]] = []
        web.files["/iris.onnx"] = LARGE
        noisy = Artifacts(tmp_path, LOOPBACK, progress=lambda *words: told.append(words))
        fetch(noisy, web.url.replace("//", "//me:secret@") + "/iris.onnx")
        assert told[-1] == (f"{web.url}/iris.onnx", len(LARGE), len(LARGE))
        assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)

    def test_two_at_once_fetch_once(self, artifacts: Artifacts, web: Shelf) -> None:
        """The second waits for the first and finds its result."""
        web.files["/iris.onnx"] = LARGE

        async def both() -> list[Path]:
            return await asyncio.gather(*(artifacts.fetch(f"{web.url}/iris.onnx") for _ in range(5)))

        assert len(set(asyncio.run(both()))) == 1
        assert sum(1 for header in web.headers if "If-None-Match" not in header) == 1


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class TestArchives:
    @pytest.mark.parametrize(("kind", "suffix"), [("zip", ".zip"), ("tar", ".tar.gz"), ("tar", ".tgz")])
    def test_a_folder_in_an_archive(self, artifacts: Artifacts, web: Shelf, kind: str, suffix: str) -> None:
        """It is unpacked; one folder around everything is left out."""
        web.files[f"/iris{suffix}"] = packed(kind, {"iris-1.0/MLmodel": b"flavors: {}", "iris-1.0/data/model.skops": b"x"})
        folder = fetch(artifacts, f"{web.url}/iris{suffix}")
        assert folder.name == "iris"
        assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == ["MLmodel", "data/model.skops"]
        assert fetch(artifacts, f"{web.url}/iris{suffix}") == folder

    @pytest.mark.parametrize("kind", ["zip", "tar"])
    @pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
    def test_paths_that_lead_out(self, artifacts: Artifacts, web: Shelf, kind: str, name: str) -> None:
        """Nothing is written outside of the model's folder."""
        web.files["/x.zip" if kind == "zip" else "/x.tgz"] = packed(kind, {"model.onnx": b"x", name: b"evil"})
        error = refused(artifacts, f"{web.url}/x.{'zip' if kind == 'zip' else 'tgz'}")
        assert error.kind is Kind.INVALID_INPUT
        assert not list(artifacts.root.parent.rglob("evil"))

    def test_links(self, artifacts: Artifacts, web: Shelf) -> None:
        """A link is no file."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            link = tarfile.TarInfo("model.onnx")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        web.files["/x.tgz"] = buffer.getvalue()
        assert "no file" in refused(artifacts, f"{web.url}/x.tgz").message

    @pytest.mark.parametrize("content", [b"", b"no archive", packed("zip", {})])
    def test_what_is_no_archive(self, artifacts: Artifacts, web: Shelf, content: bytes) -> None:
        """It is told, whatever the reader of archives trips over."""
        web.files["/x.zip"] = content
        assert refused(artifacts, f"{web.url}/x.zip").kind is Kind.INVALID_INPUT


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict[str, bytes], list[tuple[str, str]]]]:
    """A bucket called `models`, found by the usual variables."""
    reads: list[tuple[str, str]] = []
    with bucket(reads) as (url, objects):
        for name, value in {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield objects, reads


class TestBuckets:
    def test_a_folder(self, artifacts: Artifacts, store: tuple[dict[str, bytes], list[tuple[str, str]]]) -> None:
        """Everything below a prefix, and only that; unchanged it is not read again, changed it is."""
        objects, reads = store
        objects |= {"iris/MLmodel": b"flavors", "iris/data/model.onnx": LARGE, "iris2/other": b"no"}
        folder = fetch(artifacts, "s3://models/iris")
        assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == ["MLmodel", "data/model.onnx"]
        assert (folder / "data" / "model.onnx").read_bytes() == LARGE
        reads.clear()
        assert fetch(artifacts, "s3://models/iris") == folder
        assert reads == []
        objects["iris/MLmodel"] = b"others!"
        assert (fetch(artifacts, "s3://models/iris") / "MLmodel").read_bytes() == b"others!"

    def test_one_object(self, artifacts: Artifacts, store: tuple[dict[str, bytes], list[tuple[str, str]]]) -> None:
        """A key that is an object is that file."""
        store[0]["a/iris.onnx"] = LARGE
        path = fetch(artifacts, "s3://models/a/iris.onnx")
        assert (path.name, path.read_bytes()) == ("iris.onnx", LARGE)

    def test_the_rest_of_an_object(self, artifacts: Artifacts, store: tuple[dict[str, bytes], list[tuple[str, str]]]) -> None:
        """After a download that was given up only what is missing is read."""
        objects, reads = store
        objects["iris/a.onnx"] = LARGE * 3
        stop = threading.Event()

        def progress(uri: str, done: int, whole: int) -> None:
            if done and not stop.is_set():
                stop.set()
                raise ServingError(Kind.UNAVAILABLE, "the line broke")

        broken = Artifacts(artifacts.root, LOOPBACK, progress=progress)
        assert refused(broken, "s3://models/iris").kind is Kind.UNAVAILABLE
        reads.clear()
        assert (fetch(artifacts, "s3://models/iris") / "a.onnx").read_bytes() == LARGE * 3
        (read,) = reads
        assert read[0] == "iris/a.onnx"
        assert read[1].startswith("bytes=")

    def test_what_is_gone_since_an_attempt_that_failed(
        self, artifacts: Artifacts, store: tuple[dict[str, bytes], list[tuple[str, str]]]
    ) -> None:
        """It is no part of the model, though it was brought."""
        objects, _ = store
        objects.update({"iris/a.onnx": LARGE, "iris/b.onnx": LARGE})

        def progress(uri: str, done: int, whole: int) -> None:
            if done > len(LARGE):
                raise ServingError(Kind.UNAVAILABLE, "the line broke")

        refused(Artifacts(artifacts.root, LOOPBACK, progress=progress), "s3://models/iris")
        del objects["iris/a.onnx"]
        assert [path.name for path in fetch(artifacts, "s3://models/iris").iterdir()] == ["b.onnx"]

    def test_nothing_there(self, artifacts: Artifacts, store: tuple[dict[str, bytes], list[tuple[str, str]]]) -> None:
        """An empty prefix is no model."""
        assert refused(artifacts, "s3://models/none").kind is Kind.NOT_FOUND

    def test_a_checksum_is_that_of_one_file(self, artifacts: Artifacts, store: tuple[dict[str, bytes], list[tuple[str, str]]]) -> None:
        """A folder has none."""
        store[0].update({"iris/a.onnx": b"a", "iris/b.onnx": b"b"})
        error = refused(artifacts, f"s3://models/iris#sha256={'0' * 64}")
        assert (error.kind, "several files" in error.message) == (Kind.INVALID_INPUT, True)

    def test_keys_that_lead_out(self, artifacts: Artifacts, store: tuple[dict[str, bytes], list[tuple[str, str]]]) -> None:
        """A key with '..' never becomes a path outside."""
        store[0]["iris/../../evil"] = b"evil"
        assert refused(artifacts, "s3://models/iris").kind in (Kind.INVALID_INPUT, Kind.NOT_FOUND, Kind.UNAVAILABLE)
        assert not list(artifacts.root.parent.rglob("evil"))


def test_a_cache_that_cannot_be_written(tmp_path: Path, web: Shelf) -> None:
    """The reason is told, and is no crash."""
    web.files["/a.onnx"] = b"x"
    (tmp_path / "file").write_bytes(b"")
    error = refused(Artifacts(tmp_path / "file" / "cache", LOOPBACK), f"{web.url}/a.onnx")
    assert (error.kind, "cannot be kept here: File exists" in error.message) == (Kind.UNAVAILABLE, True)


def registry(web: Shelf) -> None:
    """An MLflow registry with `iris` 3, which is `champion` and in Production, and its two files."""

    def put(path: str, value: object) -> None:
        web.files[path] = json.dumps(value).encode()

    api = "/api/2.0/mlflow"
    put(f"{api}/registered-models/alias?name=iris&alias=champion", {"model_version": {"name": "iris", "version": "3"}})
    put(f"{api}/registered-models/get-latest-versions?name=iris&stages=Production", {"model_versions": [{"version": "3"}]})
    put(f"{api}/registered-models/get-latest-versions?name=iris&stages=Staging", {})
    put(f"{api}/registered-models/get-latest-versions?name=iris", {"model_versions": [{"version": "2"}, {"version": "3"}]})
    put(f"{api}/model-versions/get-download-uri?name=iris&version=3", {"artifact_uri": "mlflow-artifacts:/1/models/m-1/artifacts"})
    files = f"{api.replace('mlflow', 'mlflow-artifacts')}/artifacts"
    put(
        f"{files}?path=1%2Fmodels%2Fm-1%2Fartifacts",
        {"files": [{"path": "MLmodel", "is_dir": False, "file_size": 7}, {"path": "data", "is_dir": True}]},
    )
    put(f"{files}?path=1%2Fmodels%2Fm-1%2Fartifacts%2Fdata", {"files": [{"path": "model.skops", "is_dir": False, "file_size": 5}]})
    web.files[f"{files}/1/models/m-1/artifacts/MLmodel"] = b"flavors"
    web.files[f"{files}/1/models/m-1/artifacts/data/model.skops"] = b"skops"


class TestRegistries:
    @pytest.mark.parametrize("uri", ["models:/iris/3", "models:/iris@champion", "models:/iris/Production", "models:/iris/latest"])
    def test_by_every_name(self, tmp_path: Path, web: Shelf, uri: str) -> None:
        """A version by number, alias, stage or as the latest: its files, with the key that the registry asks for."""
        registry(web)
        found = Artifacts(tmp_path, LOOPBACK, RegistryAddress(web.url, "secret"))
        folder = fetch(found, uri)
        assert folder.name == "iris"
        assert (folder / "MLmodel").read_bytes() == b"flavors"
        assert (folder / "data" / "model.skops").read_bytes() == b"skops"
        assert {header["Authorization"] for header in web.headers} == {"Bearer secret"}

    def test_a_number_never_changes(self, tmp_path: Path, web: Shelf) -> None:
        """A version that is here is used without a question."""
        registry(web)
        found = Artifacts(tmp_path, LOOPBACK, RegistryAddress(web.url))
        folder = fetch(found, "models:/iris/3")
        web.seen.clear()
        assert fetch(found, "models:/iris/3") == folder
        assert web.seen == []

    def test_an_alias_while_the_registry_is_away(self, tmp_path: Path, web: Shelf) -> None:
        """The version that it pointed at last is used."""
        registry(web)
        found = Artifacts(tmp_path, LOOPBACK, RegistryAddress(web.url))
        folder = fetch(found, "models:/iris@champion")
        web.down = True
        assert fetch(found, "models:/iris@champion") == folder

    def test_an_alias_that_moves_while_a_download_is_broken(self, tmp_path: Path, web: Shelf) -> None:
        """Files of two versions are never mixed, though they have the same names and sizes."""
        registry(web)
        api, files = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
        found = Artifacts(tmp_path, LOOPBACK, RegistryAddress(web.url))
        skops = web.files.pop(f"{files}/1/models/m-1/artifacts/data/model.skops")
        refused(found, "models:/iris@champion")
        moved = {"model_version": {"name": "iris", "version": "4"}}
        web.files[f"{api}/registered-models/alias?name=iris&alias=champion"] = json.dumps(moved).encode()
        place = {"artifact_uri": "mlflow-artifacts:/2"}
        web.files[f"{api}/model-versions/get-download-uri?name=iris&version=4"] = json.dumps(place).encode()
        listed = {"files": [{"path": "MLmodel", "file_size": 7}, {"path": "model.skops", "file_size": 5}]}
        web.files[f"{files}?path=2"] = json.dumps(listed).encode()
        web.files |= {f"{files}/2/MLmodel": b"FLAVORS", f"{files}/2/model.skops": skops}
        folder = fetch(found, "models:/iris@champion")
        assert (folder / "MLmodel").read_bytes() == b"FLAVORS"
        assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["MLmodel", "model.skops"]

    def test_a_registry_that_asks_for_a_key(self, tmp_path: Path, web: Shelf) -> None:
        """The message says where the key belongs, and does not show the one that was wrong."""
        registry(web)
        web.locked = True
        without = refused(Artifacts(tmp_path, LOOPBACK, RegistryAddress(web.url)), "models:/iris/3")
        assert (without.kind, "set MLFLOW_TRACKING_TOKEN" in without.message) == (Kind.INVALID_INPUT, True)
        wrong = refused(Artifacts(tmp_path, LOOPBACK, RegistryAddress(web.url, "wrong-one")), "models:/iris/3")
        assert "does not take the one in MLFLOW_TRACKING_TOKEN" in wrong.message
        assert "wrong-one" not in wrong.message

    def test_what_is_not_there(self, tmp_path: Path, web: Shelf) -> None:
        """An empty stage, and a URI that is none, are told apart."""
        registry(web)
        found = Artifacts(tmp_path, LOOPBACK, RegistryAddress(web.url))
        assert refused(found, "models:/iris/Staging").kind is Kind.NOT_FOUND
        assert refused(found, "models:/iris/3/4").kind is Kind.INVALID_INPUT
        assert "--mlflow-registry" in refused(Artifacts(tmp_path, LOOPBACK), "models:/rose/1").message

    def test_files_on_this_machine(self, tmp_path: Path, web: Shelf) -> None:
        """A path that the registry names is used only if it may be."""
        web.files["/api/2.0/mlflow/model-versions/get-download-uri?name=iris&version=1"] = json.dumps(
            {"artifact_uri": "file:///srv/models/iris"}
        ).encode()

        def local(path: Path) -> Path:
            raise ServingError(Kind.FORBIDDEN, f"{path} is closed")

        open_here = Artifacts(tmp_path / "a", LOOPBACK, RegistryAddress(web.url))
        assert fetch(open_here, "models:/iris/1") == Path("/srv/models/iris")
        closed = Artifacts(tmp_path / "b", LOOPBACK, RegistryAddress(web.url), local=local)
        assert refused(closed, "models:/iris/1").kind is Kind.FORBIDDEN

    @pytest.mark.parametrize(
        ("path", "answer"),
        [
            ("model-versions/get-download-uri?name=iris&version=3", []),
            ("model-versions/get-download-uri?name=iris&version=3", {"artifact_uri": ["s3://x"]}),
            ("registered-models/get-latest-versions?name=iris&stages=Production", {"model_versions": {"version": "3"}}),
            ("registered-models/get-latest-versions?name=iris&stages=Production", {"model_versions": ["3", {"version": None}]}),
            ("-artifacts/artifacts?path=1%2Fmodels%2Fm-1%2Fartifacts", {"files": "MLmodel"}),
            ("-artifacts/artifacts?path=1%2Fmodels%2Fm-1%2Fartifacts", {"files": [7]}),
            ("-artifacts/artifacts?path=1%2Fmodels%2Fm-1%2Fartifacts", {"files": [{"path": "a", "file_size": "many"}]}),
            ("-artifacts/artifacts?path=1%2Fmodels%2Fm-1%2Fartifacts", {"files": [{"path": "a", "file_size": -1}]}),
        ],
    )
    def test_answers_that_are_none(self, tmp_path: Path, web: Shelf, path: str, answer: object) -> None:
        """What no MLflow server would say is an error that names the registry, whatever it looks like."""
        registry(web)
        web.files[f"/api/2.0/mlflow{path}" if path.startswith("-") else f"/api/2.0/mlflow/{path}"] = json.dumps(answer).encode()
        error = refused(Artifacts(tmp_path, LOOPBACK, RegistryAddress(web.url)), "models:/iris/Production")
        assert error.kind is Kind.UNAVAILABLE
        assert "does not answer as an MLflow registry does" in error.message

    def test_a_registry_that_leads_in_circles(self, tmp_path: Path, web: Shelf) -> None:
        """A version that is another version is followed, and not for ever."""
        where = "/api/2.0/mlflow/model-versions/get-download-uri?name={}&version=1"
        registry(web)
        web.files[where.format("copy")] = b'{"artifact_uri": "models:/iris/3"}'
        web.files[where.format("loop")] = b'{"artifact_uri": "models:/loop/1"}'
        found = Artifacts(tmp_path, LOOPBACK, RegistryAddress(web.url))
        assert (fetch(found, "models:/copy/1") / "MLmodel").read_bytes() == b"flavors"
        assert "from model to model" in refused(found, "models:/loop/1").message

    def test_names_that_lead_out(self, tmp_path: Path, web: Shelf) -> None:
        """Neither what a registry calls a file nor what a model is called becomes a path outside; what was fetched before stays."""
        registry(web)
        found = Artifacts(tmp_path, LOOPBACK, RegistryAddress(web.url))
        kept = fetch(found, "models:/iris/3")
        where = "/api/2.0/mlflow/model-versions/get-download-uri?name=..&version=1"
        web.files[where] = b'{"artifact_uri": "mlflow-artifacts:/2"}'
        listed = {"files": [{"path": "a", "file_size": 1}, {"path": "b", "file_size": 1}]}
        web.files["/api/2.0/mlflow-artifacts/artifacts?path=2"] = json.dumps(listed).encode()
        web.files |= {f"/api/2.0/mlflow-artifacts/artifacts/2/{name}": name.encode() for name in "ab"}
        folder = fetch(found, "models:/../1")
        assert (folder.name, (folder / "a").read_bytes()) == ("model", b"a")
        assert (kept / "MLmodel").is_file()
        listed["files"][0]["path"] = ".."
        web.files["/api/2.0/mlflow-artifacts/artifacts?path=2"] = json.dumps(listed).encode()
        web.files[where.replace("=1", "=2")] = web.files[where]
        assert refused(found, "models:/../2").kind is Kind.INVALID_INPUT
