"""`dragoman run` and `dragoman restart`: send a folder's code to a server, as a job. Where no server runs, `run` is one while the job lasts."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.cli.client import NoServerError, add_server, table
from dragoman.cli.jobs import JOB, job_of
from dragoman.cli.jobs_api import Api, Json, named
from dragoman.cli.jobs_files import Project, configuration, needed_project, save_project
from dragoman.cli.jobs_ignore import IGNORE, code_files
from dragoman.cli.jobs_logs import Follower
from dragoman.cli.jobs_names import Here, Wanted, data_names, mounts
from dragoman.cli.jobs_progress import size
from dragoman.cli.jobs_transfer import send_code
from dragoman.core.errors import Kind, ServingError, invalid

MODES = ("job", "command", "jupyter", "serve")
MACHINES = {"cpu": "c1", "gpu": "g1", "cpu2": "c2", "gpu2": "g2"}
_ARCHITECTURES = {"c1": "cpu", "c2": "cpu", "g1": "gpu", "g2": "gpu2"}
_UNKNOWN = 3
"""Exit code for an environment that does not exist, and for a command with a mode that has none: FloydHub's client has it."""

_DESCRIPTION = """\
Upload the current folder (see .floydignore) and run it as a job: app.py as a service with an endpoint (--mode serve), a CMD, or a notebook
server. Options come before what floyd.yml says. Without a server at the usual address one is started here, for as long as the job runs:
its log is followed, Ctrl-C ends both, and the exit code says how the job ended.
"""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    running = commands.add_parser(
        "run", help="run the code in this folder as a job", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    running.add_argument("words", metavar="CMD", nargs="*", help="what to run, for the shell (job mode); after -- it may have options")
    running.add_argument("--mode", choices=MODES, help="default: what floyd.yml says, else job, which is the same as command")
    running.add_argument("-r", "--max-runtime", metavar="SECONDS", type=_seconds, help="end it with `timeout` after so long")
    running.add_argument("--task", metavar="NAME", help="a task of floyd.yml")
    running.add_argument("-f", "--follow", action="store_true", help="show its log until it ends; the exit code says how that was")
    running.add_argument(
        "--concurrency", metavar="N", type=_count, help="requests that it is given at the same time (serve mode; default: 1)"
    )
    running.add_argument(
        "--idle-timeout", metavar="SECONDS", type=_seconds, help="put it to sleep after so long without a request (serve mode)"
    )
    running.add_argument("--no-network", action="store_true", help="let it reach nothing; its endpoint works")
    running.add_argument("--data-dir", metavar="DIR", help="where a server that is started here keeps things: see dragoman serve")
    running.add_argument(
        "-p",
        "--port",
        metavar="PORT",
        type=_port,
        help="where that listens, if no server is there yet (default: 3000, or any that is free)",
    )
    running.set_defaults(run=_run)
    again = commands.add_parser("restart", help="run the code of a job again, as a new job")
    again.add_argument("job", metavar="JOB", help=JOB)
    again.add_argument("words", metavar="CMD", nargs="*", help="another command")
    again.set_defaults(run=_restart, follow=False)
    for command in (running, again):
        command.add_argument("--env", metavar="NAME", action="append", default=[], help="environment, such as tensorflow-1.8")
        command.add_argument("--data", metavar="NAME:MOUNT", action="append", default=[], help="mount a version of a data set; repeatable")
        command.add_argument("-m", "--message", metavar="TEXT", help="what people should know about this job")
        for machine in MACHINES:
            if command is running or machine in ("cpu", "gpu"):
                command.add_argument(
                    f"--{machine}", dest="machine", action="store_const", const=machine, help=f"instance {MACHINES[machine]}"
                )
        command.add_argument("--open", "--no-open", "--tensorboard", "--no-tensorboard", nargs=0, action=_Taken, help=argparse.SUPPRESS)
        add_server(command)
    again.add_argument("--gpu+", "--cpu+", nargs=0, action=_Taken, help=argparse.SUPPRESS)


class _Taken(argparse.Action):
    """An option of FloydHub's client that changes nothing here."""

    def __call__(self, *_: Any) -> None:
        return


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 31_536_000:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of seconds from 1 to 31536000")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port from 1 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 to 1024")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    needed_project()
    if options.words and options.mode in ("serve", "jupyter"):
        print(f'dragoman: the command "{" ".join(options.words)}" cannot be used with --mode {options.mode}', file=sys.stderr)
        return _UNKNOWN
    wanted = mounts(options.data)
    _one_environment(options)
    elsewhere = named(options)
    if options.port and not elsewhere:
        options.url = f"http://127.0.0.1:{options.port}"
    api = Api(options)
    try:
        api.ask("GET", "/cli_version")
    except NoServerError:
        if elsewhere or (api.login is not None and api.login.server and not options.port):
            raise
        return _alone(options, wanted)
    made = _submitted(api, options, wanted)
    if made is None:
        return _UNKNOWN
    job = _shown(api, made, wanted)
    return _followed(api, job) if options.follow else _hinted(job)


def _alone(options: argparse.Namespace, wanted: list[Wanted]) -> int:
    """The same with a server of one's own."""
    from dragoman.cli.jobs_embedded import Embedded  # a whole server, which is rarely wanted here

    with Embedded(options) as server:
        options.url = server.url
        api = Api(options)
        made = _submitted(api, options, wanted)
        if made is None:
            return _UNKNOWN
        return server.until_it_ends(api, str(made.get("id", "")), lambda: _shown(api, made, wanted))


def _followed(api: Api, job: Json) -> int:
    print("\nIts log follows. Ctrl-C ends that, not the job.\n", flush=True)
    try:
        return result(Follower(api, str(job.get("id", "")), sys.stdout).to_the_end())
    except KeyboardInterrupt:
        print(f"\nThe job goes on. To end it:\n   dragoman stop {job.get('name')}", file=sys.stderr)
        raise


def result(job: Json) -> int:
    """An exit code for how a job ended."""
    return 0 if job.get("state") == "success" else 1


def _hinted(job: Json) -> int:
    print(f"\nTo view logs enter:\n   dragoman logs -f {job.get('name')}")
    return 0


# --- what is sent ---


def _one_environment(options: argparse.Namespace) -> None:
    if len(options.env) > 1:
        raise invalid(f"--env is given {len(options.env)} times ({', '.join(options.env)}), expected one environment")


def _submitted(api: Api, options: argparse.Namespace, wanted: list[Wanted]) -> Json | None:
    """What the server says of the new job; None where it has no such environment."""
    it = needed_project()
    owner = it.owner or api.user
    family = str(api.ask("GET", f"/projects/{quote(owner)}/{quote(it.name)}").get("id", ""))
    if family != it.id or not it.owner:
        save_project(Project(it.name, owner, family))
    instance = MACHINES[options.machine] if options.machine else None
    env = options.env[0] if options.env else None
    if env is not None and not _known(api, env, instance):
        return None
    data = [_mounted(api, each, owner) for each in wanted]
    files = code_files(Path())
    if not files:
        raise invalid(f"there is no file to upload here, or {IGNORE} names them all")
    print(f"Creating project run. Total upload size: {size(sum(each.size for each in files))} ({len(files)} files)")
    print("Syncing code ...", flush=True)
    default = {"description": "", "command": ""}
    if env is None:
        default["env"] = "default"
    if options.mode is None:
        default["mode"] = "command"
    if instance is None:
        default["instance_type"] = "c1"
    name, command, text = f"{owner}/{it.name}", " ".join(options.words) or None, configuration()
    shared = {
        "name": name, "description": options.message, "family_id": family, "env": env, "instance_type": instance,
        "yaml_config": text, "task": options.task, "cli_default": default,
    }  # fmt: skip
    about = {
        **shared, "description": options.message or "", "command": command, "mode": options.mode, "module_type": "code",
        "default_container": None, "outputs": [{"name": "output", "type": "dir"}], "arch": None, "resource_id": None,
        "inputs": [{"name": each.mount, "type": "dir"} for each in wanted],
    }  # fmt: skip
    code = send_code(api, files, json.dumps(about).encode())
    return api.ask("POST", "/experiments/run_module/", {
        **shared, "module_id": code, "data_ids": data, "max_runtime": options.max_runtime, "full_command": _typed(options),
        **_more(options),
    })  # fmt: skip


def _more(options: argparse.Namespace) -> Json:
    """What FloydHub's client has no words for."""
    given = {"concurrency": options.concurrency, "idle_timeout": options.idle_timeout, "network": False if options.no_network else None}
    return {name: value for name, value in given.items() if value is not None}


def _known(api: Api, env: str, instance: str | None) -> bool:
    """Whether the server has an environment; it lists them where it has not. Asked before anything is uploaded."""
    answer = api.ask("GET", "/env")
    chosen = [answer.get(_ARCHITECTURES[instance])] if instance else list(answer.values())
    names = {name for each in chosen if isinstance(each, dict) for name in each}
    if env in names:
        return True
    print(f"{env} is not in the list of supported environments:", file=sys.stderr)
    for name in sorted(names):
        print(f"  {name}", file=sys.stderr)
    return False


def _mounted(api: Api, wanted: Wanted, owner: str) -> str:
    """ID:MOUNT of a version of a data set that is there."""
    found = api.first("/modules", data_names(wanted.name, Here(owner)))
    if not isinstance(found.get("id"), str):
        raise ServingError(Kind.UNAVAILABLE, f"the server does not say which data {wanted.name} is")
    return f"{found['id']}:{wanted.mount}"


def _typed(options: argparse.Namespace) -> str:
    """The command as somebody would type it, for the records."""
    words = ["dragoman", "run"]
    if options.machine:
        words.append(f"--{options.machine}")
    for flag, values in (("--mode", [options.mode]), ("--env", options.env), ("--data", options.data), ("--task", [options.task])):
        words += [word for value in values if value for word in (flag, value)]
    if options.message:
        words += ["--message", options.message]
    return shlex.join([*words, *([" ".join(options.words)] if options.words else [])])


def _shown(api: Api, made: Json, wanted: list[Wanted]) -> Json:
    """Say what has been made, and where to find it. The job, as it is now."""
    name, identity = made.get("name"), made.get("id")
    if not isinstance(name, str) or not isinstance(identity, str):
        raise ServingError(Kind.UNAVAILABLE, f"{api.url} does not say which job it made; is it a Dragoman server?")
    print()
    table(("JOB NAME",), [[name]], ruled=True)
    print(f"\nURL to job: {api.url}/api/v1/experiments/{name}")
    if wanted:
        print()
        table(("DATANAME", "MOUNTING DIRECTORY"), [[each.name, f"/{each.mount}"] for each in wanted], ruled=True)
    job = api.ask("GET", f"/experiments/{quote(identity)}")
    if url := job.get("service_url"):
        print(f"\nURL to {'notebook' if job.get('mode') == 'jupyter' else 'service endpoint'}: {url}")
    sys.stdout.flush()
    return job


def _restart(options: argparse.Namespace) -> int:
    wanted = mounts(options.data)
    _one_environment(options)
    api = Api(options)
    job = job_of(api, options.job)
    changes: Json = {}
    if options.machine:
        changes["instance_type"] = MACHINES[options.machine]
    if options.env:
        if not _known(api, options.env[0], MACHINES[options.machine] if options.machine else None):
            return 1
        changes["env"] = options.env[0]
    if wanted:
        changes["data_ids"] = [_mounted(api, each, api.user) for each in wanted]
    if options.message:
        changes["description"] = options.message
    if options.words:
        changes["command"] = " ".join(options.words)
    print(f"Restarting job {options.job}...")
    made = api.ask("POST", f"/experiments/restart/{quote(str(job.get('id', '')))}", changes)
    return _hinted(_shown(api, made, wanted))
