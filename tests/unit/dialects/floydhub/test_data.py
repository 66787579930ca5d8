"""FloydHub's API: data sets, uploads by tus, files of jobs, downloads (requirements F3, F17, F18)."""

import asyncio
import gzip
import io
import tarfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_floydhub import Answered, Hub, basic, hub

BOB = {"authorization": "apikey bob"}
TUS = {"tus-resumable": "1.0.0"}
PIECE = {**TUS, "content-type": "application/offset+octet-stream"}


def packed(**files: bytes) -> bytes:
    """A tar.gz, as the client makes it of the current folder."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo("./" + name.replace("__", "/"))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(whole.getvalue())


def unpacked(answer: Answered) -> dict[str, bytes]:
    assert answer.status == 200
    assert answer.headers["x-floydhub-content-length"].isdigit()
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


async def announced(at: Hub, name: str = "d") -> tuple[str, dict[str, str]]:
    """A version that waits for its upload, and the upload's credentials."""
    family = (await at("GET", f"datasets/alice/{name}")).json["id"]
    said = {"name": f"alice/{name}", "module_type": "data", "data_type": "gzip", "family_id": family, "version": None, "description": "m"}
    version = (await at("POST", "modules/", {**said, "resumable": True})).json["id"]
    given = (await at("POST", f"modules/{version}/upload_v2_credentials")).json
    assert given["data_upload_id"] == version
    return version, basic(version, given["token"])


async def begun(at: Hub, length: int, name: str = "d") -> tuple[str, dict[str, str]]:
    version, who = await announced(at, name)
    metadata = f"filename {b64encode(version.encode()).decode()}"
    answer = await at("POST", "upload/", headers={**TUS, **who, "upload-length": str(length), "upload-metadata": metadata})
    assert (answer.status, answer.headers["location"]) == (201, f"http://127.0.0.1:3000/api/v1/upload/{version}")
    return version, who


async def uploaded(at: Hub, name: str = "d", **files: bytes) -> str:
    whole = packed(**files)
    version, who = await begun(at, len(whole), name)
    await at("PATCH", f"upload/{version}", body=whole, headers={**PIECE, **who, "upload-offset": "0"})
    return version if await settled(at, version) == "valid" else ""


async def settled(at: Hub, version: str) -> str:
    """Its state once it is unpacked, or cannot be."""
    async with asyncio.timeout(30):
        while (state := (await at("GET", f"modules/{version}")).json["data"]["state"]) in ("waiting", "unpacking"):
            await asyncio.sleep(0.01)
    assert isinstance(state, str)
    return state


class TestSets:
    def test_made_by_the_first_look_of_their_owner(self, tmp_path: Path) -> None:
        """As projects are."""

        async def test(at: Hub) -> None:
            assert (await at("GET", "datasets/alice/d", headers={})).status == 404
            made = (await at("GET", "datasets/alice/d", headers=BOB)).json
            assert {"name": "d", "description": "", "public": True}.items() <= made.items()
            assert (await at("GET", "datasets")).json == {"datasets": [made]}
            assert (await at("GET", f"modules/?module_type=data&family_id={made['id']}")).json == []
            assert (await at("GET", "modules/?module_type=data&family_id=nothing")).status == 404
            version = await uploaded(at, x=b"1")
            listed = (await at("GET", "modules/?module_type=data&username=alice")).json
            assert [each["id"] for each in listed] == [version], "floyd-cli 0.10.28 lists data of all sets"
            assert (await at("GET", "modules/?module_type=data&username=nobody")).json == []

        hub(tmp_path, test)

    @pytest.mark.parametrize(
        ("said", "says"),
        [
            ({"module_type": "code"}, "module_type"),
            ({"family_id": "nothing"}, "Dataset not found, ID"),
            ({"family_id": None, "name": "bob/d"}, "Dataset not found, ID"),
            ({"name": 1}, "name"),
            ({"description": 1}, "description"),
        ],
    )
    def test_what_is_refused(self, said: dict[str, Any], says: str, tmp_path: Path) -> None:
        """A 400 with a message."""

        async def test(at: Hub) -> None:
            family = (await at("GET", "datasets/alice/d")).json["id"]
            answer = await at("POST", "modules/", {"name": "alice/d", "module_type": "data", "family_id": family, **said})
            assert (answer.status, says in answer.message) == (400, True)

        hub(tmp_path, test)


class TestTus:
    def test_in_pieces(self, tmp_path: Path) -> None:
        """Each answer says how far it is; the last piece has it unpacked."""

        async def test(at: Hub) -> None:
            whole = packed(one=b"1", deep__two=b"22")
            version, who = await begun(at, len(whole))
            shown = (await at("GET", f"modules/{version}")).json
            assert (shown["name"], shown["data"]["state"], shown["resource_id"]) == ("alice/datasets/d/1", "waiting", version)
            assert (await at("GET", f"resources/{version}/state")).json == "waiting"
            for start in range(0, len(whole), 50):
                piece = whole[start : start + 50]
                head = await at("HEAD", f"upload/{version}", headers={**TUS, **who})
                assert (head.status, head.headers["upload-offset"], head.headers["upload-length"]) == (200, str(start), str(len(whole)))
                answer = await at("PATCH", f"upload/{version}", body=piece, headers={**PIECE, **who, "upload-offset": str(start)})
                assert (answer.status, answer.headers["upload-offset"]) == (204, str(start + len(piece)))
                assert answer.headers["tus-resumable"] == "1.0.0"
            assert await settled(at, version) == "valid"
            assert (await at("GET", f"resources/{version}/state")).json == "valid"
            shown = (await at("GET", "modules/alice/datasets/d")).json
            assert (shown["id"], shown["module_type"], shown["version"], shown["public"]) == (version, "DataModule", "1", True)
            assert all(isinstance(shown["data"][key], str) for key in ("state", "size"))
            assert unpacked(await at("GET", f"resources/{version}?content=true&download=true")) == {"one": b"1", "deep/two": b"22"}
            part = await at("GET", f"download/artifacts/data/{version}?is_dir=true&path=deep")
            assert list(unpacked(part).values()) == [b"22"]
            assert (await at("GET", f"resources/{version}/deep/two?content=true")).body == b"22"
            assert (await at("GET", f"resources/{version}/state?content=true")).status == 404

        hub(tmp_path, test)

    def test_what_a_server_of_tus_can_do(self, tmp_path: Path) -> None:
        """Asked without credentials or version."""

        async def test(at: Hub) -> None:
            said = await at("OPTIONS", "upload/", headers={})
            assert said.status == 204
            assert said.headers["tus-version"] == "1.0.0"
            assert "creation" in said.headers["tus-extension"]

        hub(tmp_path, test)

    @pytest.mark.parametrize(
        ("method", "headers", "status"),
        [
            ("PATCH", {"tus-resumable": "0.2.2"}, 412),
            ("PATCH", {"content-type": "text/plain"}, 415),
            ("PATCH", {"upload-offset": "5"}, 409),
            ("PATCH", {"upload-offset": "-1"}, 400),
            ("PATCH", {"upload-offset": "x"}, 400),
            ("PATCH", {"authorization": "Basic"}, 401),
            ("PATCH", {"authorization": "apikey alice"}, 401),
            ("PATCH", basic("other", "x"), 401),
            ("HEAD", {"authorization": ""}, 401),
            ("HEAD", {"tus-resumable": ""}, 412),
            ("DELETE", {"authorization": "Basic !"}, 401),
        ],
    )
    def test_what_is_refused(self, method: str, headers: dict[str, str], status: int, tmp_path: Path) -> None:
        """Nothing is written then."""

        async def test(at: Hub) -> None:
            version, who = await begun(at, 100)
            answer = await at(method, f"upload/{version}", body=b"x", headers={**PIECE, **who, "upload-offset": "0", **headers})
            assert answer.status == status, answer.body
            assert (await at("HEAD", f"upload/{version}", headers={**TUS, **who})).headers["upload-offset"] == "0"

        hub(tmp_path, test)

    def test_a_password_is_of_one_upload_and_the_newest_counts(self, tmp_path: Path) -> None:
        """Another's is refused, and one from before new ones were asked for."""

        async def test(at: Hub) -> None:
            first, who = await begun(at, 100)
            second, _ = await begun(at, 100, "e")
            assert (await at("HEAD", f"upload/{second}", headers={**TUS, **who})).status == 401
            assert (await at("POST", f"modules/{first}/upload_v2_credentials")).status == 200
            assert (await at("HEAD", f"upload/{first}", headers={**TUS, **who})).status == 401
            assert (await at("POST", "modules/nothing/upload_v2_credentials")).status == 404

        hub(tmp_path, test)

    @pytest.mark.parametrize("length", ["", "x", "-1", "1e3", "9" * 30])
    def test_lengths_that_are_none(self, length: str, tmp_path: Path) -> None:
        """Refused before anything is sent."""

        async def test(at: Hub) -> None:
            _, who = await announced(at)
            assert (await at("POST", "upload/", headers={**TUS, **who, "upload-length": length})).status == 400

        hub(tmp_path, test)

    def test_more_than_the_limit(self, tmp_path: Path) -> None:
        """A 413 with the number, before anything is sent."""

        async def test(at: Hub) -> None:
            _, who = await announced(at)
            answer = await at("POST", "upload/", headers={**TUS, **who, "upload-length": str(1 << 50)})
            assert (answer.status, str(at.data.uploads.limits.max_upload) in answer.message) == (413, True)

        hub(tmp_path, test)

    def test_given_up(self, tmp_path: Path) -> None:
        """By its owner; it is gone then, and the state says so at once instead of letting the client wait."""

        async def test(at: Hub) -> None:
            version, who = await begun(at, 100)
            assert (await at("DELETE", f"upload/{version}", headers={**TUS, **who})).status == 204
            assert (await at("HEAD", f"upload/{version}", headers={**TUS, **who})).status == 410
            state = await at("GET", f"resources/{version}/state")
            assert (state.status, "given up" in state.message) == (400, True)

        hub(tmp_path, test)

    def test_what_is_no_archive(self, tmp_path: Path) -> None:
        """The version is invalid, with the reason; it cannot be mounted."""

        async def test(at: Hub) -> None:
            version, who = await begun(at, 5)
            await at("PATCH", f"upload/{version}", body=b"never", headers={**PIECE, **who, "upload-offset": "0"})
            assert await settled(at, version) == "invalid"
            assert (await at("GET", f"resources/{version}/state")).status == 400
            answer = await at.run(data_ids=[f"{version}:input"])
            assert (answer.status, "cannot be used" in answer.message) == (400, True)

        hub(tmp_path, test)


class TestMounting:
    def test_by_id_and_by_name(self, tmp_path: Path) -> None:
        """Each in its place, with its name as people know it; a single one may leave its place out."""

        async def test(at: Hub) -> None:
            first, second = await uploaded(at, "d", x=b"1"), await uploaded(at, "e", y=b"2")
            job = (await at.run(data_ids=[f"{first}:/one", f"{second}:two"])).json
            assert [(mount["id"], mount["name"], mount["mount"]) for mount in job["data"]] == [
                (first, "alice/datasets/d/1", "one"),
                (second, "alice/datasets/e/1", "two"),
            ]
            yaml = await at.run(yaml_config="input: [{source: alice/datasets/d/1, destination: here}, 'e:there']")
            assert [mount["mount"] for mount in yaml.json["data"]] == ["here", "there"]
            assert [mount["mount"] for mount in (await at.run(data_ids=[first])).json["data"]] == ["input"]
            assert [mount["mount"] for mount in (await at.run(data_ids=[first, second])).json["data"]] == [first, second]
            again = await at("POST", f"experiments/restart/{job['id']}", {"data_ids": [f"{second}:other"]})
            assert [mount["mount"] for mount in again.json["data"]] == ["other"]

        hub(tmp_path, test)

    @pytest.mark.parametrize(("place", "says"), [("etc", "something else"), ("a/b", "one level"), ("..", "one level")])
    def test_places_that_are_none(self, place: str, says: str, tmp_path: Path) -> None:
        """Refused with the reason, never a 5xx."""

        async def test(at: Hub) -> None:
            version = await uploaded(at, x=b"1")
            answer = await at.run(data_ids=[f"{version}:{place}"])
            assert (answer.status, says in answer.message) == (400, True)
            assert (await at.run(data_ids=[f"{version}:a", f"{version}:/a"])).status == 400

        hub(tmp_path, test)

    def test_not_before_it_is_ready(self, tmp_path: Path) -> None:
        """Said as what it is."""

        async def test(at: Hub) -> None:
            version, _ = await begun(at, 100)
            answer = await at.run(data_ids=[f"{version}:input"])
            assert (answer.status, "not ready" in answer.message) == (400, True)

        hub(tmp_path, test)

    def test_removed_unless_it_is_mounted(self, tmp_path: Path) -> None:
        """By a job that has not ended."""

        async def test(at: Hub) -> None:
            version, other = await uploaded(at, x=b"1"), await uploaded(at, y=b"2")
            await at.run(data_ids=[f"{version}:input"])
            assert (await at("DELETE", f"modules/{version}")).status == 409
            assert (await at("DELETE", "modules/alice/datasets/d/2")).status == 200
            assert (await at("GET", f"modules/{other}")).status == 404

        hub(tmp_path, test)


class TestJobsFiles:
    def test_listed_fetched_and_mounted(self, tmp_path: Path) -> None:
        """Under the names that clients of all ages have for them."""

        async def test(at: Hub) -> None:
            job = (await at.run()).json
            folder = at.jobs.folder(await at.jobs.job(job["id"]))
            for part, name in (("output", "made.txt"), ("home", "app.py")):
                (folder / part).mkdir()
                (folder / part / name).write_text(part)
            for name, file in ((f"{job['name']}/output", "made.txt"), (f"{job['name']}/files", "app.py"), (job["name"], "app.py")):
                shown = (await at("GET", f"modules/{name}")).json
                assert (shown["module_type"], shown["version"], shown["data"]["state"]) == ("DataModule", None, "valid")
                listing = (await at("GET", f"resources/{shown['resource_id']}/?content=true")).json
                assert [each["name"] for each in listing["files"]] == [file]
                assert (await at.run(data_ids=[f"{shown['id']}:input"])).status == 200
            assert unpacked(await at("GET", f"download/artifacts/files/{job['id']}?is_dir=true&path=")) == {"app.py": b"home"}
            assert (await at("GET", f"download/artifacts/files/{job['id']}?is_dir=false&path=app.py")).body == b"home"
            assert (await at("GET", f"download/artifacts/files/{job['id']}?path=made.txt")).body == b"output"
            assert (await at("GET", f"download/artifacts/files/{job['id']}?path=none")).status == 404
            short = job["name"].removeprefix("alice")
            for path, status in (
                (f"experiments/{short}", 200),
                (f"modules/{short}/output", 200),
                (f"modules//{short}", 404),
                ("modules//", 404),
            ):
                assert (await at("GET", path)).status == status, path
            assert unpacked(await at("GET", f"download/artifacts/code/{job['name'].replace('/', '%2F')}?is_dir=true")) == {
                "app.py": b"pass"
            }
            for path in ("download/artifacts/x/y", f"resources/{job['id']}.output/%2e%2e/log?content=true", f"modules/{job['name']}/code"):
                assert (await at("GET", path)).status in (400, 404)
            made = await at("POST", f"datasets/{(await at('GET', 'datasets/alice/d')).json['id']}", {"source": f"{job['name']}/output"})
            assert await settled(at, made.json["data_id"]) == "valid"
            assert (await at("GET", f"resources/{made.json['data_id']}/made.txt?content=true")).body == b"output"
            made = await at("POST", f"datasets/{(await at('GET', 'datasets/alice/d')).json['id']}", {"source": f"{job['name']}/code"})
            assert await settled(at, made.json["data_id"]) == "valid"
            assert (await at("GET", f"resources/{made.json['data_id']}/app.py?content=true")).body == b"pass"

        hub(tmp_path, test)

    def test_folders_of_the_server(self, tmp_path: Path) -> None:
        """Those that its operator has opened, and no others."""
        shared = tmp_path / "shared"
        (shared / "faces").mkdir(parents=True)
        (shared / "faces" / "one").write_text("1")

        async def test(at: Hub) -> None:
            family = (await at("GET", "datasets/alice/d")).json["id"]
            version = (await at("POST", f"datasets/{family}", {"source": "faces"})).json["data_id"]
            assert (await at("GET", f"resources/{version}/one?content=true")).body == b"1"
            for source in ("/etc", "../..", "file:///etc", "", 1):
                assert (await at("POST", f"datasets/{family}", {"source": source})).status == 400
            assert (await at("POST", f"datasets/{family}", {"source": "faces"}, headers=BOB)).status == 200  # nobody is told apart here

        hub(tmp_path / "data", test, roots=[str(shared)])
