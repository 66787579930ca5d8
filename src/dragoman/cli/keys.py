"""`dragoman keys`: make and list the API keys of a server. Works on the key file; a running server notices."""

import argparse
from pathlib import Path

from dragoman.dialects import Access
from dragoman.server.configuration import read
from dragoman.server.guard import key_file
from dragoman.server.keys import KeyRing


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    keys = commands.add_parser("keys", help="make and list API keys")
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make a key and print it; only its hash is stored")
    add.add_argument("name", help="who or what will use it")
    add.add_argument(
        "--scope",
        action="append",
        choices=("infer", "jobs", "admin"),
        help="what it may do (default: infer); admin includes the others, repeatable",
    )
    add.set_defaults(run=_add)
    listing = actions.add_parser("list", help="list names and scopes")
    listing.set_defaults(run=_list)
    for action in (add, listing):
        action.add_argument("--api-key-file", metavar="FILE", help="the key file (default: keys.toml in the data directory)")
        action.add_argument("--data-dir", metavar="DIR", help="the server's data directory")


def _file(options: argparse.Namespace) -> Path:
    return key_file(read({"api_key_file": options.api_key_file, "data_dir": options.data_dir}))


def _add(options: argparse.Namespace) -> int:
    path = _file(options)
    ring = KeyRing.load(path) if path.exists() else KeyRing(path)
    print(ring.create(options.name, [Access(scope) for scope in options.scope or ["infer"]]))
    return 0


def _list(options: argparse.Namespace) -> int:
    path = _file(options)
    if not path.exists():
        print(f"there are no keys: {path} does not exist")
        return 0
    for key in KeyRing.load(path).keys:
        print(f"{key.name}  {', '.join(sorted(scope.value for scope in key.scopes))}")
    return 0
