"""FloydHub's API: versions, environments, who is let in, and what a server that runs no jobs says (requirements F1, F2, F5)."""

from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access
from dragoman.dialects.floydhub.answers import STATUS, refusal
from dragoman.server.keys import KeyRing
from dragoman.server.settings import Settings
from tests.fakes_floydhub import Hub, hub


@pytest.mark.parametrize("kind", Kind)
def test_every_error_is_an_object_with_a_message(kind: Kind) -> None:
    """The client crashes on a 400, 403 or 429 that is anything else."""
    answer = refusal(ServingError(kind, "a surrogate \ud800"))
    assert answer.status == STATUS[kind]
    assert isinstance(answer.body, bytes)
    assert b'"message":"a surrogate ' in answer.body


class TestPublic:
    def test_the_version_that_asks_is_the_latest(self, tmp_path: Path) -> None:
        """No client is stopped or told to upgrade; what is no version is not repeated."""

        async def test(at: Hub) -> None:
            for sent, latest in (("0.11.17", "0.11.17"), ("0.10.28", "0.10.28"), ("<script>", "0.11.17"), ("", "0.11.17")):
                answer = await at("GET", "cli_version", headers={"x-floydhub-cli-version": sent})
                assert answer.json["latest_version"] == latest
                assert answer.json["min_version"] < latest

        hub(tmp_path, test)

    def test_environments_for_each_kind_of_machine(self, tmp_path: Path) -> None:
        """`default` is among them: the client looks it up, too."""

        async def test(at: Hub) -> None:
            said = (await at("GET", "env", headers={})).json
            assert said.keys() == {"cpu", "gpu", "gpu2"}
            assert all({"default", "tensorflow-0.12:py2", "keras", "pytorch-1.5"} <= said[kind].keys() for kind in said)
            assert all(isinstance(image, str) for image in said["cpu"].values())

        hub(tmp_path, test)

    def test_two_slashes_are_one(self, tmp_path: Path) -> None:
        """A host with a slash at its end."""

        async def test(at: Hub) -> None:
            assert (await at("GET", "//api/v1/user/")).json["username"] == "alice"
            assert (await at("GET", "//api/v1/user/nothing")).status == 404
            assert (await at("GET", "//api/v1/projects//x")).status == 404

        hub(tmp_path, test)

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "modules/x/y/z", 404),
            ("PUT", "projects", 405),
            ("GET", "upload", 405),
            ("POST", "cli_version", 405),
            ("GET", "user/x", 404),
        ],
    )
    def test_paths_and_methods_that_there_are_not(self, method: str, path: str, status: int, tmp_path: Path) -> None:
        """In JSON, with the methods that there are."""

        async def test(at: Hub) -> None:
            answer = await at(method, path)
            assert (answer.status, bool(answer.message)) == (status, True)
            assert ("allow" in answer.headers) == (status == 405)

        hub(tmp_path, test)

    def test_a_server_without_jobs_says_so(self, tmp_path: Path) -> None:
        """Everything that is about jobs is forbidden; the rest answers."""

        async def test(at: Hub) -> None:
            for method, path in (("GET", "projects"), ("POST", "modules/"), ("GET", "resources/x"), ("POST", "upload/")):
                answer = await at(method, path)
                assert (answer.status, "--jobs on" in answer.message) == (403, True)
            assert (await at("GET", "cli_version")).status == 200

        hub(tmp_path, test, runs_jobs=False)


class TestWho:
    @pytest.mark.parametrize(
        ("headers", "name"),
        [
            ({"authorization": "apikey alice"}, "alice"),
            ({"authorization": "APIKEY bob"}, "bob"),
            ({"authorization": "Bearer bob"}, "bob"),
            ({"x-api-key": "carol"}, "carol"),
            ({"authorization": "apikey 3f/x+="}, "user"),
        ],
    )
    def test_credentials_name_the_user(self, headers: dict[str, str], name: str, tmp_path: Path) -> None:
        """Where there are no accounts."""

        async def test(at: Hub) -> None:
            said = (await at("GET", "user/", headers=headers)).json
            assert said == {"uid": name, "username": name, "email": f"{name}@localhost", "type": None}

        hub(tmp_path, test)

    @pytest.mark.parametrize("headers", [{}, {"authorization": "apikey "}, {"authorization": "Basic YTpi"}, {"x-api-key": " "}])
    def test_nobody(self, headers: dict[str, str], tmp_path: Path) -> None:
        """Empty credentials are refused (requirement F2)."""

        async def test(at: Hub) -> None:
            assert (await at("GET", "user/", headers=headers)).status == 401

        hub(tmp_path, test)

    def test_a_login_gives_a_token_that_names_its_user(self, tmp_path: Path) -> None:
        """Without accounts for any password, with accounts for the right one."""

        async def test(at: Hub) -> None:
            bodies: list[Any] = [{"username": "bob"}, {"username": 1, "password": "x"}, []]
            for body in bodies:
                assert (await at("POST", "user/login", body, headers={})).status == 400
            assert (await at("POST", "user/login", body=b"{", headers={})).status == 400
            token = (await at("POST", "user/login", {"username": "bob", "password": "x"}, headers={})).json["access_token"]
            assert (await at("GET", "user/", headers={"authorization": f"Bearer {token}"})).json["username"] == "bob"
            at.accounts.add("bob", "right")
            assert (await at("GET", "user/", headers={"authorization": f"Bearer {token}"})).status == 401
            assert (await at("POST", "user/login", {"username": "bob", "password": "x"}, headers={})).status == 401
            token = (await at("POST", "user/login", {"username": "bob", "password": "right"}, headers={})).json["access_token"]
            assert (await at("GET", "user/", headers={"authorization": f"Bearer {token}"})).json["username"] == "bob"

        hub(tmp_path, test)

    def test_other_sites_cannot_use_a_browser(self, tmp_path: Path) -> None:
        """A GET stops jobs in this protocol: a picture on somebody's page must not."""

        async def test(at: Hub) -> None:
            job = (await at.run()).json
            for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}, {"host": "evil.example"}):
                assert (await at("GET", f"experiments/cancel/{job['id']}", headers=headers)).status == 403
            assert not (await at("GET", f"experiments/{job['id']}")).json["stopping"]

        hub(tmp_path, test)


class TestKeys:
    def test_where_keys_count_one_is_needed(self, tmp_path: Path) -> None:
        """Its name is the user's; a key for inference alone is not enough, one for jobs is."""

        async def test(at: Hub) -> None:
            ring = KeyRing(tmp_path / "keys.toml")
            keys = {access: ring.create(access.value, [access]) for access in (Access.INFER, Access.JOBS, Access.ADMIN)}
            assert (await at("GET", "user/")).status == 401
            assert (await at("GET", "user/", headers={})).status == 401
            statuses = {
                access: (await at("GET", "projects", headers={"authorization": f"apikey {key}"})).status for access, key in keys.items()
            }
            assert statuses == {Access.INFER: 403, Access.JOBS: 200, Access.ADMIN: 200}
            said = await at("GET", "user/", headers={"authorization": f"apikey {keys[Access.JOBS]}"})
            assert said.json["username"] == "jobs"

        hub(tmp_path, test, settings=Settings(host="0.0.0.0", data_dir=str(tmp_path)))  # nothing listens

    def test_accounts_count_on_loopback_too(self, tmp_path: Path) -> None:
        """With the first one; whoever runs jobs does not change the server."""

        async def test(at: Hub) -> None:
            assert (await at("GET", "projects")).status == 200
            key = at.accounts.add("alice")
            assert (await at("GET", "projects")).status == 401
            assert (await at("GET", "projects", headers={})).status == 401
            assert (await at("GET", "projects", headers={"authorization": f"apikey {key}"})).status == 200

        hub(tmp_path, test)

    def test_an_administrators_key_sees_everything(self, tmp_path: Path) -> None:
        """Accounts see what is theirs."""

        async def test(at: Hub) -> None:
            await at.run()
            admin = KeyRing(tmp_path / "keys.toml").create("root", [Access.ADMIN])
            keys = {name: {"authorization": f"apikey {at.accounts.add(name)}"} for name in ("alice", "bob")} | {
                "root": {"authorization": f"apikey {admin}"}
            }
            counts = {name: len((await at("GET", "experiments/", headers=key)).json) for name, key in keys.items()}
            assert counts == {"alice": 1, "bob": 0, "root": 1}
            assert (await at("GET", "projects/alice/x", headers=keys["root"])).status == 200

        hub(tmp_path, test, settings=Settings(data_dir=str(tmp_path)))
