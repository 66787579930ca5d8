"""`dragoman init | info | logs | stop | delete | clone | output`, and the jobs of `dragoman status`.

FloydHub's commands with its words, over its protocol, against a Dragoman server. `run` and `restart` are in jobs_run.py,
data sets in data_sets.py, `login` in login.py.
"""

import argparse
import calendar
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.cli.client import NoServerError, add_output, add_server, confirmed, moment, table
from dragoman.cli.jobs_api import Api, Json, named
from dragoman.cli.jobs_files import (
    CONFIGURATIONS,
    SAMPLE,
    Project,
    add_once,
    configuration,
    login,
    needed_project,
    project,
    save_project,
)
from dragoman.cli.jobs_ignore import IGNORE, USUAL
from dragoman.cli.jobs_logs import Follower, log_of
from dragoman.cli.jobs_names import Here, job_names, split_name
from dragoman.cli.jobs_transfer import fetch_folder
from dragoman.core.errors import Kind, ServingError

STOPPABLE = ("queued", "queue_scheduled", "running")
JOB = "USER/projects/NAME/NUMBER, NAME/NUMBER, NUMBER or its id"
_COLUMNS = ("JOB NAME", "CREATED", "STATUS", "DURATION(s)", "INSTANCE", "DESCRIPTION", "METRICS")
_FINER = ("asleep", "stopping")
"""What our own server says more exactly than FloydHub's words can."""
_DETAILS = (("Environment", "env"), ("Reason", "reason"), ("Calls", "calls"), ("Waiting requests", "waiting"), ("Isolation", "isolation"))
"""What our own server says of a job beyond FloydHub's fields, where it does."""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    starting = commands.add_parser("init", help="make the current folder a project of this name, for `dragoman run`")
    starting.add_argument("name", metavar="NAME", help="NAME or USER/NAME; a project that does not exist yet is made")
    starting.set_defaults(run=_init)
    add_server(starting)
    telling = commands.add_parser("info", help="show all about a job")
    add_job(telling, optional=True)
    telling.set_defaults(run=_info)
    reading = commands.add_parser("logs", help="show what a job printed")
    add_job(reading, optional=True)
    reading.add_argument("-f", "--follow", "-t", "--tail", action="store_true", help="go on until the job has ended")
    reading.add_argument("-u", "--print-url", action="store_true", help="print the log's address instead")
    reading.set_defaults(run=_logs)
    stopping = commands.add_parser("stop", help="end a job")
    add_job(stopping, optional=True)
    stopping.set_defaults(run=_stop)
    deleting = commands.add_parser("delete", help="forget jobs that have ended, and their files")
    deleting.add_argument("jobs", metavar="JOB", nargs="+", help=JOB)
    deleting.add_argument("-y", "--yes", action="store_true", help="do not ask")
    deleting.set_defaults(run=_delete)
    cloning = commands.add_parser("clone", help="download the code that a job was started with")
    add_job(cloning)
    getting = commands.add_parser("output", help="download what a job has written to /output")
    add_job(getting, optional=True)
    getting.add_argument("-u", "--print-url", action="store_true", help="print the archive's address instead")
    for command, run in ((cloning, _clone), (getting, _output)):
        command.add_argument("-p", "--path", default="", metavar="FOLDER", help="only this folder of it")
        add_target(command)
        command.set_defaults(run=run)
    for command in (telling, reading, stopping, deleting, cloning, getting):
        if command is telling:
            add_output(command)
        add_server(command)


def add_job(command: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The argument that names a job; where it may be left out, the newest of the folder's project is meant."""
    if optional:
        command.add_argument("job", metavar="JOB", nargs="?", default="", help=f"{JOB} (default: the newest of this folder's project)")
    else:
        command.add_argument("job", metavar="JOB", help=JOB)


def add_target(command: argparse.ArgumentParser) -> None:
    """The options that say where files go."""
    command.add_argument("-d", "--directory", default=".", metavar="DIR", help="where to put the files (default: .)")
    command.add_argument("--replace", action="store_true", help="write over files that are there")


# --- where ---


def _init(options: argparse.Namespace) -> int:
    api = Api(options)
    try:
        owner, name = split_name(options.name, api.user)
        found = api.ask("GET", f"/projects/{quote(owner)}/{quote(name)}").get("id")
    except NoServerError as error:
        if named(options):
            raise
        known = login()
        owner, name = split_name(options.name, known.user if known is not None else "")
        found = ""
        print(f"{error.message}\nThe project is made on the server by the first `dragoman run`", file=sys.stderr)
    save_project(Project(name, owner, str(found or "")))
    add_once(Path(IGNORE), USUAL)
    if configuration() is None:
        add_once(CONFIGURATIONS[0], SAMPLE)
    print(f'Project "{options.name}" initialized in current directory')
    return 0


def here(api: Api) -> Here:
    """What short names of jobs are made whole with."""
    found = project()
    if found is None:
        return Here(api.user)
    return Here(api.user, found.name, found.owner)


def job_of(api: Api, text: str) -> Json:
    """A job as the server shows it."""
    return api.first("/experiments", job_names(text, here(api)))


# --- what there is ---


def job_status(options: argparse.Namespace) -> int:
    """One job, or those of this folder's project. Called by cli/status.py."""
    api = Api(options)
    if options.job:
        jobs = [job_of(api, options.job)]
    else:
        it = needed_project()
        found = api.ask("GET", f"/projects/{quote(it.owner or api.user)}/{quote(it.name)}")
        jobs = api.list(f"/experiments/?family_id={quote(str(found.get('id', '')), safe='')}")
    if options.output == "json":
        print(json.dumps(jobs, indent=2))
    else:
        table(_COLUMNS, [_row(job) for job in jobs], ruled=True)
    return 0


def _row(job: Json) -> list[str]:
    fields = [
        job.get("name"),
        created(job),
        job.get("phase") if job.get("phase") in _FINER else job.get("state"),
        _seconds(job),
        job.get("instance_type"),
        job.get("description"),
        _metrics(job),
    ]
    return [str(each if each is not None else "") for each in fields]


def created(it: Json, field: str = "created") -> str:
    """When a job or data was made, in the zone of this machine; the server writes UTC."""
    text = str(it.get(field) or "")
    try:
        return moment(calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return text


def _seconds(job: Json) -> str:
    duration = job.get("duration")
    return str(int(duration)) if isinstance(duration, int | float) else "0"


def _metrics(job: Json) -> str:
    metrics = job.get("latest_metrics")
    return ", ".join(f"{name}={metrics[name]}" for name in sorted(metrics)) if isinstance(metrics, dict) else ""


def _info(options: argparse.Namespace) -> int:
    api = Api(options)
    job = job_of(api, options.job)
    if options.output == "json":
        print(json.dumps(job, indent=2))
        return 0
    row = _row(job)
    rows = [["Job name", row[0]], ["Created", row[1]], ["Status", row[2]], ["Duration(s)", row[3]], ["Instance", row[4]]]
    rows += [["Description", row[5]], ["Metrics", row[6]]]
    rows += [[title, str(job[field])] for title, field in _DETAILS if job.get(field) not in (None, "")]
    if job.get("service_url"):
        mode = str(job.get("mode") or "")
        rows += [["Mode", "serving" if mode == "serve" else mode], ["Url", str(job["service_url"])]]
    if job.get("tensorboard_url"):
        rows.append(["TensorBoard", str(job["tensorboard_url"])])
    table(rows[0], rows[1:])
    return 0


def _logs(options: argparse.Namespace) -> int:
    api = Api(options)
    job = job_of(api, options.job)
    if options.print_url:
        print(f"{api.url}/api/v1/resources/{quote(str(job.get('log_id') or ''))}?content=true")
    elif options.follow:
        print("Launching job ...", flush=True)
        Follower(api, str(job.get("id", "")), sys.stdout).to_the_end()
    elif text := log_of(api, job).rstrip():
        print(text)
    else:
        print("Launching job now. Try after a few seconds.")
    return 0


# --- what is done to jobs ---


def _stop(options: argparse.Namespace) -> int:
    api = Api(options)
    job = job_of(api, options.job)
    state = str(job.get("state", ""))
    if state not in STOPPABLE:
        print(f"Job in {state} state cannot be stopped")
        return 1
    stop(api, str(job.get("id", "")))
    print("Experiment shutdown request submitted. Check status to confirm shutdown")
    return 0


def stop(api: Api, job: str) -> None:
    """Ask for a job's end, by its id. (A GET that stops: so the protocol has it.) What it answers says nothing."""
    with api.stream("GET", f"/experiments/cancel/{quote(job)}"):
        pass


def _delete(options: argparse.Namespace) -> int:
    api = Api(options)
    failed = False
    for text in options.jobs:
        try:
            job = job_of(api, text)
            name = str(job.get("name", ""))
            if not confirmed(f"Delete Job: {name}?", options.yes):
                print(f"Job {name}: Skipped.")
                continue
            with api.stream("DELETE", f"/experiments/{quote(str(job.get('id', '')))}"):
                print(f"Job {name} Deleted")
        except NoServerError:
            raise
        except ServingError as error:
            failed = True
            print(f"Job {text}: {error.message}", file=sys.stderr)
    return 1 if failed else 0


def _clone(options: argparse.Namespace) -> int:
    api = Api(options)
    job = job_of(api, options.job)
    if options.path:
        return fetched(
            api, f"/download/artifacts/code/{quote(str(job.get('id', '')))}?is_dir=true&path={quote(options.path, safe='')}", options
        )
    instance = api.ask("GET", f"/taskinstances/{quote(_instance(job))}")
    code = api.ask("GET", f"/modules/{quote(str(instance.get('module_id', '')))}")
    return fetched(api, archive_of(code), options)


def _instance(job: Json) -> str:
    """The id of the part of a job that has its code."""
    nodes: Any = (job.get("canvas") or {}).get("nodes", {})
    found = [node.get("taskInstanceId") for node in nodes.values() if node.get("type") == "module_node"] if isinstance(nodes, dict) else []
    if not found or not isinstance(found[0], str):
        raise ServingError(Kind.NOT_FOUND, f"the server has no code of {job.get('name', 'this job')}")
    return found[0]


def archive_of(module: Json) -> str:
    """Where the archive of code or data is."""
    return f"/resources/{quote(str(module.get('resource_id') or ''))}?content=true&download=true"


def _output(options: argparse.Namespace) -> int:
    api = Api(options)
    job = job_of(api, options.job)
    if options.path:
        identity, path = quote(str(job.get("id", ""))), quote(options.path.strip("/"), safe="")
        where = f"/download/artifacts/files/{identity}?is_dir=true&part=output&path={path}"
    else:
        where = archive_of({"resource_id": job.get("output_id")})
    if options.print_url:
        print(f"{api.url}/api/v1{where}")
        return 0
    return fetched(api, where, options)


def fetched(api: Api, path: str, options: argparse.Namespace) -> int:
    """Unpack an archive of the server's where the options say."""
    folder = Path(options.directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        count = fetch_folder(api, path, folder, replace=options.replace)
    except OSError as error:
        raise ServingError(Kind.UNAVAILABLE, f"the files cannot be written to {folder}: {error.strerror or error}") from None
    print(f"{count} file{'' if count == 1 else 's'} downloaded to {folder}")
    return 0
