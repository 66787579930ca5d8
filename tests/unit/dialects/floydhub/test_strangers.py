"""People and pages against FloydHub's API: what one account learns of another, and what a page gets done through somebody's browser."""

from pathlib import Path

import pytest

from dragoman.dialects import ACCOUNT, CALLER, Request
from dragoman.dialects.floydhub.people import People, User
from dragoman.server.settings import Settings
from dragoman.serving.jobs.accounts import Accounts
from tests.fakes_floydhub import ALICE, Hub, hub


def test_an_account_that_is_removed_sees_no_more_than_before(tmp_path: Path) -> None:
    """Also for what is left of a request that it had begun: its name alone would be that of a key, which sees everything."""
    accounts = Accounts(tmp_path)
    for name in ("bob", "ann"):
        accounts.add(name)

    def who(scope: dict[str, object]) -> User:
        return People(accounts).who(Request({"method": "GET", "path": "/", "headers": [], **scope}, None, 0))  # type: ignore[arg-type] # no body

    assert who({CALLER: "bob", ACCOUNT: True}) == User("bob", everything=False)
    assert who({CALLER: "ci", ACCOUNT: False}) == User("ci", everything=True)
    accounts.remove("bob")
    assert who({CALLER: "bob", ACCOUNT: True}) == User("bob", everything=False)


def test_the_guard_says_who_has_an_account(tmp_path: Path) -> None:
    """One with a key of the server sees all, one with an account what is theirs."""

    async def test(at: Hub) -> None:
        key = {"authorization": f"apikey {at.accounts.add('bob')}"}
        assert (await at("GET", "projects/bob/x", headers=key)).status == 200
        assert (await at("GET", "projects/alice/x", headers=key)).status == 404

    hub(tmp_path, test)


def test_what_is_not_yours_is_not_there(tmp_path: Path) -> None:
    """In the same words, so that nobody finds out which names others have."""

    async def test(at: Hub) -> None:
        job = (await at.run()).json
        module = (await at("GET", f"taskinstances/{job['id']}")).json["module_id"]
        family = (await at("GET", "projects/alice/x")).json["id"]
        version = (await at("POST", "modules/", {"module_type": "data", "name": "alice/pets"}, headers=ALICE)).json
        if "id" not in version:
            await at("GET", "datasets/alice/pets")
            version = (await at("POST", "modules/", {"module_type": "data", "name": "alice/pets"})).json
        key = {"authorization": f"apikey {at.accounts.add('bob')}"}
        for path, there, absent in (
            ("experiments/{}", job["id"], "nothing"),
            ("experiments/{}", job["name"], "alice/projects/x/7"),
            ("experiments/?family_id={}", family, "nothing"),
            ("taskinstances/{}", job["id"], "nothing"),
            ("resources/code.{}", module, "nothing"),
            ("resources/{}/state", version["id"], "nothing"),
            ("modules/{}", version["name"], "alice/datasets/dogs/1"),
            ("resources/{}.output", job["id"], "nothing"),
        ):
            theirs = await at("GET", path.format(there), headers=key)
            none = await at("GET", path.format(absent), headers=key)
            assert (theirs.status, theirs.message.replace(there, "*")) == (none.status, none.message.replace(absent, "*"))
            assert theirs.status == 404

    hub(tmp_path, test)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_picture_on_a_page_stops_no_job(method: str, tmp_path: Path) -> None:
    """Browsers say nothing of the page where a server is neither on loopback nor reached by TLS; and the client's way to stop a job is a GET."""

    async def test(at: Hub) -> None:
        job = (await at.run()).json
        stop = f"experiments/cancel/{job['name']}"
        assert (await at(method, stop, headers={"host": "hub:3000"})).status == 403
        assert (await at("GET", f"experiments/{job['id']}")).json["state"] == "queued"
        assert (await at("GET", stop, headers={"host": "hub:3000", "x-floydhub-cli-version": "0.11.17"})).status == 200

    hub(tmp_path, test, settings=Settings(host="0.0.0.0", no_auth=True))  # that is what it is about


def test_texts_have_bounds(tmp_path: Path) -> None:
    """Every worker keeps what a job is described by."""

    async def test(at: Hub) -> None:
        assert (await at.run(description="x" * 10_000)).status == 200
        refused = await at.run(description="x" * 10_001)
        assert (refused.status, refused.message) == (400, "description has 10001 bytes, expected 10000 at most")

    hub(tmp_path, test)
