"""FloydHub's API: projects, code, jobs: what they are told, what they answer, and what is refused (requirements F3 to F7, F20 to F27)."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_floydhub import ALICE, FORM, Hub, code_form, hub

BOB = {"authorization": "apikey bob"}


class TestProjects:
    def test_made_by_the_first_look_of_their_owner(self, tmp_path: Path) -> None:
        """With every key that the client wants; where nobody is told apart, under whatever name the client goes by, but not without any."""

        async def test(at: Hub) -> None:
            assert (await at("GET", "projects/alice/x", headers={})).status == 404
            made = (await at("GET", "projects/alice/x", headers=BOB)).json
            assert {"name": "x", "description": "", "public": False, "latest_experiment_name": None}.items() <= made.items()
            assert (await at("GET", "projects/alice/x")).json == made
            assert (await at("GET", "projects")).json == {"projects": [made]}
            assert (await at("GET", f"projects/id/{made['id']}")).json == made, "floyd-cli 0.10.28 asks so before it runs anything"
            assert (await at("GET", "projects/id/none", headers={})).status == 404
            assert (await at("GET", "projects/alice/a%20b")).status == 400
            job = (await at.run()).json
            assert (await at("GET", "projects/alice/x")).json["latest_experiment_name"] == job["name"] == "alice/projects/x/1"

        hub(tmp_path, test)


class TestCode:
    def test_it_is_kept_and_shown(self, tmp_path: Path) -> None:
        """As the client reads it: texts where it wants texts."""

        async def test(at: Hub) -> None:
            answer = await at.upload({"app.py": b"pass", "a/empty": b""}, mode="serve", cli_default={"env": "default"})
            module = answer.json["id"]
            shown = (await at("GET", f"modules/{module}")).json
            assert shown["mode"] == "serving"
            assert all(isinstance(shown[key], str) for key in ("name", "description", "command", "env", "resource_id", "module_type"))
            listing = (await at("GET", f"resources/{shown['resource_id']}/?content=true")).json
            assert listing == {
                "files": [{"name": "a", "type": "directory", "size": 0}, {"name": "app.py", "type": "file", "size": 4}],
                "skipped_files": 0,
                "total_files": 2,
            }
            assert (await at("GET", f"resources/{shown['resource_id']}/app.py?content=true")).body == b"pass"
            assert (await at("GET", f"resources/{shown['resource_id']}/state")).json == "valid"
            assert (await at("GET", f"resources/{shown['resource_id']}")).json["state"] == "valid"

        hub(tmp_path, test)

    @pytest.mark.parametrize(
        ("said", "status", "says"),
        [
            ({"mode": "dance"}, 400, "expected job, serve or jupyter"),
            ({"mode": 1}, 400, "mode"),
            ({"env": "tensorflow-9"}, 400, "tensorflow-0.12:py2"),
            ({"yaml_config": "a: ["}, 400, "floyd.yml"),
            ({"yaml_config": 5}, 400, "yaml_config"),
            ({"task": "none"}, 400, "the tasks are: none"),
            ({"family_id": "nothing"}, 400, "Project not found, ID"),
            ({"family_id": None, "name": "bob/x"}, 400, "Project not found, ID"),
            ({"family_id": None, "name": "x"}, 400, "USER/PROJECT"),
            ({"cli_default": []}, 200, ""),
            ({"cli_default": [1]}, 400, "cli_default"),
            ({"instance_type": "x1"}, 400, "instance_type"),
        ],
    )
    def test_what_is_said_of_it_is_looked_at_before_it_is_kept(self, said: dict[str, Any], status: int, says: str, tmp_path: Path) -> None:
        """A 400 with a message, in time for the client's own words."""

        async def test(at: Hub) -> None:
            answer = await at.upload({"app.py": b"pass"}, **said)
            assert answer.status == status, answer.body
            assert says in answer.body.decode()
            if status == 400:
                assert says in answer.message
                assert not [path for path in (tmp_path / "jobs" / "files").rglob("*") if path.is_file() and path.read_bytes() == b"pass"]

        hub(tmp_path, test)

    def test_uploads_that_are_none(self, tmp_path: Path) -> None:
        """Neither forms without what is said of them, nor nameless ones, nor from nobody."""

        async def test(at: Hub) -> None:
            typed = {**ALICE, "content-type": FORM}
            for body in (b"", b"no form", code_form({"a": b"x"}, {})[:-10], code_form({"../a": b"x"}, {}), code_form({"a": b"x"}, [])):
                answer = await at("POST", "modules/", body=body, headers=typed)
                assert (answer.status, bool(answer.message)) == (400, True)
            for bad in ("multipart/form-data", "multipart/mixed; boundary=", "text/plain"):
                assert (await at("POST", "modules/", body=b"x", headers={**ALICE, "content-type": bad})).status == 400
            assert (await at("POST", "modules/", body=code_form({"a": b"x"}, {}), headers={"content-type": FORM})).status == 401

        hub(tmp_path, test)


class TestRun:
    def test_a_job_as_the_client_wants_it(self, tmp_path: Path) -> None:
        """Every key is there from the start, the address of the endpoint too."""

        async def test(at: Hub) -> None:
            job = (await at.run(description="the first", env="keras", max_runtime=60, instance_type="g1")).json
            assert re.fullmatch(r"http://127\.0\.0\.1:3000/expose/[\w-]{16,}", job["service_url"])
            assert job["created"] == "2018-03-09T12:00:00"
            assert (job["name"], job["state"], job["duration"], job["mode"]) == ("alice/projects/x/1", "queued", 0, "serve")
            assert (job["description"], job["env"], job["instance_type"], job["timeout_seconds"]) == ("the first", "keras", "g1", 60)
            assert isinstance(job["log_id"], str)
            assert job["instance_log_id"]
            (node,) = job["canvas"]["nodes"].values()
            assert node["type"] == "module_node"
            task = (await at("GET", f"taskinstances/{node['taskInstanceId']}")).json
            assert task["mode"] == "serving"
            assert task["log_id"] == job["log_id"]
            assert isinstance(task["output_ids"], dict)
            assert (await at("GET", f"modules/{task['module_id']}")).json["resource_id"]
            for name in (job["id"], job["name"], "alice/x/1", "alice/projects/x"):
                assert (await at("GET", f"experiments/{name}")).json == job

        hub(tmp_path, test)

    def test_words_of_the_client_without_options(self, tmp_path: Path) -> None:
        """Nulls mean not given; the mode is the module's, or floyd.yml's, or the client's default."""

        async def test(at: Hub) -> None:
            nothing: dict[str, Any] = dict.fromkeys(("description", "env", "instance_type", "max_runtime", "yaml_config", "task"))
            job = (await at.run(mode=None, full_command="floyd run ls", data_ids=[], **{**nothing, "yaml_config": "command: ls\n"})).json
            assert (job["mode"], job["command"], job["service_url"], job["instance_type"]) == ("command", "ls", None, "c1")
            assert job["timeout_seconds"] == 604800
            assert "no command" not in (await at.run(mode=None, **nothing)).message
            web = await at.run(mode=None, **{**nothing, "yaml_config": "task: {web: {mode: serve}}", "task": "web"})
            assert web.json["mode"] == "serve"

        hub(tmp_path, test)

    def test_words_of_older_clients(self, tmp_path: Path) -> None:
        """`serving`, and no defaults at all; the body says nothing of its type."""

        async def test(at: Hub) -> None:
            module = (await at.upload({"app.py": b""}, mode="serving")).json["id"]
            body = {"name": "alice/x", "description": "", "module_id": module, "full_command": "floyd run", "data_ids": [], "env": "keras"}
            job = (await at("POST", "experiments/run_module/", {**body, "instance_type": "c1"})).json
            assert (job["mode"], job["env"]) == ("serve", "keras")

        hub(tmp_path, test)

    @pytest.mark.parametrize(
        ("said", "status", "says"),
        [
            ({"module_id": "nothing"}, 404, "nothing"),
            ({"module_id": None}, 400, "module_id"),
            ({"family_id": "other"}, 400, "family_id"),
            ({"max_runtime": 0}, 400, "max_runtime"),
            ({"max_runtime": "soon"}, 400, "max_runtime"),
            ({"data_ids": "x"}, 400, "data_ids"),
            ({"data_ids": [1]}, 400, "data"),
            ({"data_ids": ["nothing:input"]}, 400, "nothing"),
            ({"data_ids": ["bob/datasets/x/1:input"]}, 400, "bob/datasets/x/1"),
            ({"env": "tensorflow-9"}, 400, "pytorch-1.0"),
            ({"command": "ls"}, 400, "command"),
            ({"concurrency": 0}, 400, "concurrency"),
            ({"concurrency": True}, 400, "concurrency"),
            ({"idle_timeout": -1}, 400, "idle"),
            ({"idle_timeout": "x"}, 400, "idle_timeout"),
            ({"network": 1}, 400, "network"),
            ({"yaml_config": "x" * (1 << 20) + "x"}, 400, "mebibyte"),
        ],
    )
    def test_what_is_refused(self, said: dict[str, Any], status: int, says: str, tmp_path: Path) -> None:
        """With the field and what was expected; no job is made, and no number used up."""

        async def test(at: Hub) -> None:
            answer = await at.run(**said)
            assert (answer.status, says in answer.message) == (status, True), answer.body
            assert (await at("GET", "experiments/")).json == []
            assert (await at.run()).json["name"].endswith("/1")

        hub(tmp_path, test)

    def test_what_clients_of_ours_ask_for(self, tmp_path: Path) -> None:
        """Requests at the same time, sleep, no network."""

        async def test(at: Hub) -> None:
            made = (await at.run(concurrency=4, idle_timeout=60, network=False)).json
            job = await at.jobs.job(made["id"])
            assert (job.limits.concurrency, job.limits.idle_s, job.network) == (4, 60, False)

        hub(tmp_path, test)

    def test_mistakes_in_floyd_yml_are_in_the_log(self, tmp_path: Path) -> None:
        """What means nothing is left out, and said."""

        async def test(at: Hub) -> None:
            job = (await at.run(yaml_config="enviroment: keras")).json
            log = await at("GET", f"resources/{job['log_id']}?content=true")
            assert log.headers["content-type"] == "text/plain; charset=utf-8"
            assert "'enviroment'" in log.body.decode()

        hub(tmp_path, test)


class TestLife:
    def test_stopped_once(self, tmp_path: Path) -> None:
        """At once; a second time is a conflict (requirement F22)."""

        async def test(at: Hub) -> None:
            job = (await at.run()).json
            assert (await at("GET", f"experiments/cancel/{job['id']}")).json["stopping"]
            assert (await at("GET", f"experiments/cancel/{job['id']}")).status == 409
            original = await at("GET", f"experiments/cancel/{job['id']}", headers={**ALICE, "x-floydhub-cli-version": "0.11.17"})
            assert (original.status, "being stopped already" in original.message) == (400, True), "it shows messages of a 400 only"
            assert (await at("GET", "experiments/cancel/nothing")).status == 404
            assert (await at("DELETE", f"experiments/{job['id']}")).status == 409

        hub(tmp_path, test)

    def test_started_again(self, tmp_path: Path) -> None:
        """The same but for what is said; a new number and address (requirement F26)."""

        async def test(at: Hub) -> None:
            first = (await at.run(description="one", env="keras", max_runtime=60)).json
            second = (await at("POST", f"experiments/restart/{first['id']}", {"instance_type": "c1"})).json
            assert second["name"].endswith("/2")
            assert second["service_url"] != first["service_url"]
            same = ("description", "env", "mode", "timeout_seconds", "instance_type")
            assert {key: second[key] for key in same} == {key: first[key] for key in same}
            changes = {"env": "pytorch-1.0", "description": "three", "instance_type": "g1"}
            third = (await at("POST", f"experiments/restart/{first['name']}", changes)).json
            assert {key: third[key] for key in changes} == changes
            assert [job["name"][-1] for job in (await at("GET", f"experiments/?family_id={await family(at)}")).json] == ["3", "2", "1"]
            old = (await at("POST", f"experiments/restart/{first['id']}", {"message": "by floyd-cli 0.10"})).json
            assert old["description"] == "by floyd-cli 0.10"
            for body, says in (({"env": "none"}, "none"), ({"command": "ls"}, "command"), ({"data_ids": ["x:y"]}, "x")):
                answer = await at("POST", f"experiments/restart/{first['id']}", body)
                assert (answer.status, says in answer.message) == (400, True)

        hub(tmp_path, test)

    def test_lists_are_of_one_project(self, tmp_path: Path) -> None:
        """Newest first (requirement F21)."""

        async def test(at: Hub) -> None:
            await at.run()
            await at.run(project="y")
            names = [job["name"] for job in (await at("GET", f"experiments/?family_id={await family(at)}")).json]
            assert names == ["alice/projects/x/1"]
            assert len((await at("GET", "experiments/")).json) == 2
            assert (await at("GET", "experiments/?family_id=nothing")).status == 404

        hub(tmp_path, test)

    def test_a_public_address_is_in_the_endpoint(self, tmp_path: Path) -> None:
        """What the client asked for is, unless the server has an address that all use."""

        async def test(at: Hub) -> None:
            await at.run()
            (job,) = (await at("GET", "experiments/", headers={**ALICE, "host": "localhost:80"})).json
            assert job["service_url"].startswith("http://localhost:80/expose/")

        hub(tmp_path, test)


async def family(at: Hub) -> str:
    found = (await at("GET", "projects/alice/x")).json["id"]
    assert isinstance(found, str)
    return found
