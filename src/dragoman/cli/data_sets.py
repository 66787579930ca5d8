"""`dragoman data init | upload | add | status | clone | listfiles | getfile | output | delete`: data sets that jobs mount.

FloydHub's commands with its words, over its protocol. An upload that was interrupted goes on with `upload --resume`.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.cli.client import add_output, add_server, confirmed, table
from dragoman.cli.jobs import add_target, archive_of, created, fetched
from dragoman.cli.jobs_api import Api, Json
from dragoman.cli.jobs_files import DATA, Project, Upload, data_set, needed_data_set, save_data_set, upload
from dragoman.cli.jobs_names import Here, data_names, split_name
from dragoman.cli.jobs_progress import size
from dragoman.cli.jobs_transfer import begin_upload, fetch_file, pack, send_data
from dragoman.core.errors import Kind, ServingError, invalid

_NAME = "USER/datasets/NAME/NUMBER, NAME/NUMBER, USER/projects/NAME/NUMBER/output, or an id"
_COLUMNS = ("DATA NAME", "CREATED", "STATUS", "DISK USAGE")
_ARCHIVE = "data.tar.gz"
_UNPACK_S = 1800.0
_LOOK_S = 0.5


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    group = commands.add_parser("data", help="data sets for jobs: init, upload, add, status, clone, listfiles, getfile, output, delete")
    verbs = group.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    starting = verbs.add_parser("init", help="make the current folder a data set of this name")
    starting.add_argument("name", metavar="NAME", help="NAME or USER/NAME; a data set that does not exist yet is made")
    starting.set_defaults(run=_init)
    sending = verbs.add_parser("upload", help="upload the current folder as a new version of its data set")
    sending.add_argument("-m", "--message", default="", metavar="TEXT", help="what people should know about this version")
    sending.add_argument("-r", "--resume", action="store_true", help="go on with the upload that was interrupted")
    sending.set_defaults(run=_upload)
    adding = verbs.add_parser("add", help="make a version out of what a job left, or of a folder that the server may read (--data-root)")
    adding.add_argument("source", metavar="SOURCE", help="USER/projects/NAME/NUMBER/output, or a folder on the server's machine")
    adding.set_defaults(run=_add)
    showing = verbs.add_parser("status", help="show the versions of this folder's data set, or one")
    showing.add_argument("data", metavar="DATA", nargs="?", default="", help=_NAME)
    add_output(showing)
    showing.set_defaults(run=_status)
    cloning = verbs.add_parser("clone", help="download the files of a version, or what a job left")
    cloning.add_argument("data", metavar="DATA", help=_NAME)
    cloning.add_argument("-p", "--path", default="", metavar="FOLDER", help="only this folder of it")
    add_target(cloning)
    cloning.set_defaults(run=_clone)
    listing = verbs.add_parser("listfiles", help="list the files of a version")
    listing.add_argument("data", metavar="DATA", help=_NAME)
    listing.set_defaults(run=_listfiles)
    getting = verbs.add_parser("getfile", help="download one file of a version")
    getting.add_argument("data", metavar="DATA", help=_NAME)
    getting.add_argument("path", metavar="PATH", help="the file's path in it")
    getting.set_defaults(run=_getfile)
    printing = verbs.add_parser("output", help="print the address that the files of a version can be downloaded from")
    printing.add_argument("data", metavar="DATA", nargs="?", default="", help=_NAME)
    printing.add_argument("-u", "--print-url", action="store_true", help="taken; the address is all that is printed anyway")
    printing.set_defaults(run=_output)
    deleting = verbs.add_parser("delete", help="forget versions, and their files")
    deleting.add_argument("data", metavar="DATA", nargs="+", help=_NAME)
    deleting.add_argument("-y", "--yes", action="store_true", help="do not ask")
    deleting.set_defaults(run=_delete)
    for command in verbs.choices.values():
        add_server(command)


def _init(options: argparse.Namespace) -> int:
    api = Api(options)
    owner, name = split_name(options.name, api.user)
    found = api.ask("GET", f"/datasets/{quote(owner)}/{quote(name)}")
    save_data_set(Project(name, owner, str(found.get("id", ""))))
    print(f'Data source "{options.name}" initialized in current directory')
    print("\n    You can now upload your data with:\n        dragoman data upload\n")
    return 0


# --- versions ---


def _upload(options: argparse.Namespace) -> int:
    it = needed_data_set()
    api = Api(options)
    begun = upload()
    if begun.begun and not (options.resume or _wants_to_resume()):
        _forget(begun)
        begun = Upload()
    elif not begun.begun:
        if options.resume:
            raise invalid("there is no upload to resume here")
        begun = Upload()
    if not begun.data:
        it, begun = _begun(api, it, options.message)
    if not begun.resource:
        begun = _sent(api, it, begun)
    _wait_for_unpacking(api, it, begun)
    save_data_set(it)
    print()
    table(("NAME",), [[begun.name]], ruled=True)
    return 0


def _wants_to_resume() -> bool:
    return confirmed("An unfinished upload exists. Would you like to resume it?", False)


def _forget(begun: Upload) -> None:
    """The archive of an upload that is not gone on with; only one that lies where _begun puts them."""
    archive = Path(begun.archive)
    if begun.archive and archive.is_file() and archive.name == _ARCHIVE:
        shutil.rmtree(archive.parent, ignore_errors=True)


def _begun(api: Api, it: Project, message: str) -> tuple[Project, Upload]:
    """Pack this folder, and announce it; everything is written down, so that the upload can be resumed from here on."""
    owner = it.owner or api.user
    family = str(api.ask("GET", f"/datasets/{quote(owner)}/{quote(it.name)}").get("id", ""))
    it = Project(it.name, owner, family)
    folder = Path(tempfile.mkdtemp(prefix="dragoman-data-"))
    try:
        archive = folder / _ARCHIVE
        print("Compressing data...", flush=True)
        print(f"{pack(Path(), archive, (str(DATA),))} files and folders are packed")
        body = {
            "name": f"{owner}/{it.name}", "description": message, "module_type": "data", "data_type": "gzip", "version": None,
            "family_id": family, "resumable": True,
        }  # fmt: skip
        made = api.ask("POST", "/modules/", body)
        data, name = made.get("id"), made.get("name")
        if not isinstance(data, str) or not isinstance(name, str):
            raise ServingError(Kind.UNAVAILABLE, f"{api.url} does not say which version it made; is it a Dragoman server?")
        begun = Upload(data, name, str(archive), begin_upload(api, data, archive.stat().st_size))
        save_data_set(it, begun)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return it, begun


def _sent(api: Api, it: Project, begun: Upload) -> Upload:
    archive = Path(begun.archive)
    print(f"Uploading compressed data. Total upload size: {size(archive.stat().st_size)}", flush=True)
    try:
        send_data(api, begun.data, archive, begun.address)
    except ServingError as error:
        if error.status in (404, 410):
            _forget(begun)
            save_data_set(it)
            raise ServingError(
                error.kind, f"the server has forgotten this upload; begin a new one: dragoman data upload ({error.message})"
            ) from None
        raise ServingError(error.kind, f"{error.message}\nTo go on with it: dragoman data upload --resume") from None
    except KeyboardInterrupt:
        print("\nTo go on with it: dragoman data upload --resume", file=sys.stderr)
        raise
    resource = str(api.ask("GET", f"/modules/{quote(begun.data)}").get("resource_id") or "")
    _forget(begun)
    begun = Upload(begun.data, begun.name, resource=resource or begun.data)
    save_data_set(it, begun)
    print("Upload finished.")
    return begun


def _wait_for_unpacking(api: Api, it: Project, begun: Upload) -> None:
    print("Waiting for server to unpack data.", flush=True)
    until = time.monotonic() + _UNPACK_S
    while True:
        found = api.ask("GET", f"/modules/{quote(begun.data)}")
        state = _state(found)
        if state == "valid":
            return
        if state == "invalid":
            save_data_set(it)
            raise ServingError(Kind.INVALID_INPUT, f"the server cannot unpack {begun.name}: {_reason(found) or 'it does not say why'}")
        if time.monotonic() > until:
            raise ServingError(Kind.TIMEOUT, f"{begun.name} is still being unpacked; look again with: dragoman data upload --resume")
        time.sleep(_LOOK_S)


def _reason(found: Json) -> str:
    """Why a version is no good, where the server says it."""
    about: Any = found.get("data")
    return str(found.get("reason") or (about.get("reason") if isinstance(about, dict) else "") or "")


def _add(options: argparse.Namespace) -> int:
    api = Api(options)
    it = needed_data_set()
    found = api.ask("GET", f"/datasets/{quote(it.owner or api.user)}/{quote(it.name)}")
    made = api.ask("POST", f"/datasets/{quote(str(found.get('id', '')))}", {"source": _source(options.source, api)})
    _print([api.ask("GET", f"/modules/{quote(str(made.get('data_id', '')))}")])
    return 0


def _source(text: str, api: Api) -> str:
    """A folder as the server's machine knows it, or what a job left under its full name."""
    if text.startswith("file://"):
        return text
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        return f"file://{quote(os.path.abspath(os.path.expanduser(text)))}"
    if "/projects/" not in text and "/" not in text:
        return text  # a folder of the server's own list
    (full, *_) = data_names(text, Here(api.user))
    return full


# --- looking ---


def _found(api: Api, text: str) -> Json:
    it = data_set()
    here = Here(api.user, it.name, it.owner) if it is not None else Here(api.user)
    return api.first("/modules", data_names(text, here))


def _status(options: argparse.Namespace) -> int:
    api = Api(options)
    if options.data:
        found = [_found(api, options.data)]
    else:
        it = needed_data_set()
        family = api.ask("GET", f"/datasets/{quote(it.owner or api.user)}/{quote(it.name)}").get("id", "")
        found = api.list(f"/modules/?module_type=data&family_id={quote(str(family), safe='')}")
    if options.output == "json":
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 0


def _print(found: list[Json]) -> None:
    table(_COLUMNS, [[str(each.get("name", "")), created(each, "date_created"), _state(each), _usage(each)] for each in found], ruled=True)
    for each in found:
        if _state(each) == "invalid" and (reason := _reason(each)):
            print(f"{each.get('name')}: {reason}", file=sys.stderr)


def _state(found: Json) -> str:
    about: Any = found.get("data")
    return str(about.get("state", "")) if isinstance(about, dict) else ""


def _usage(found: Json) -> str:
    about: Any = found.get("data")
    return str(about.get("size", "")) if isinstance(about, dict) else ""


def _clone(options: argparse.Namespace) -> int:
    api = Api(options)
    found = _found(api, options.data)
    if options.path:
        kind = "files" if "/projects/" in str(found.get("name", "")) else "data"
        path = quote(options.path, safe="")
        return fetched(api, f"/download/artifacts/{kind}/{quote(str(found.get('id', '')))}?is_dir=true&path={path}", options)
    return fetched(api, archive_of(found), options)


def _listfiles(options: argparse.Namespace) -> int:
    api = Api(options)
    resource = quote(str(_found(api, options.data).get("resource_id") or ""))
    folders = [""]
    while folders:
        folder = folders.pop()
        answer = api.ask("GET", f"/resources/{resource}/{quote(folder)}?content=true")
        files = sorted((each for each in answer.get("files", []) if isinstance(each, dict)), key=lambda each: str(each.get("name")))
        for each in files:
            path = f"{folder}{each.get('name')}"
            if each.get("type") == "directory":
                folders.append(f"{path}/")
                path += "/"
            print(path)
        if answer.get("skipped_files"):
            print(f"{folder or './'}: {answer['skipped_files']} of {answer.get('total_files')} files are not listed", file=sys.stderr)
    return 0


def _getfile(options: argparse.Namespace) -> int:
    api = Api(options)
    resource = quote(str(_found(api, options.data).get("resource_id") or ""))
    name = Path(options.path).name
    if not name:
        raise invalid(f"'{options.path}' is no file's path")
    fetch_file(api, f"/resources/{resource}/{quote(options.path.strip('/'))}?content=true", Path(name))
    print(f"{name} is downloaded")
    return 0


def _output(options: argparse.Namespace) -> int:
    api = Api(options)
    print(f"{api.url}/api/v1{archive_of(_found(api, options.data))}")
    return 0


def _delete(options: argparse.Namespace) -> int:
    api = Api(options)
    failed = False
    for text in options.data:
        try:
            found = _found(api, text)
            name = str(found.get("name", ""))
            if "/projects/" in name:
                raise invalid(f"{name} is no data set; what a job left goes with the job: dragoman delete")
            if not confirmed(f"Delete Data: {name}?", options.yes):
                print(f"Data {name}: Skipped")
                continue
            with api.stream("DELETE", f"/modules/{quote(str(found.get('id', '')))}"):
                print(f"Data {name}: Deleted")
        except ServingError as error:
            failed = True
            print(f"Data {text}: {error.message}", file=sys.stderr)
    return 1 if failed else 0
