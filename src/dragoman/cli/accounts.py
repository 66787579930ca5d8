"""`dragoman accounts`: the people whose jobs a server runs. Works on the file of accounts; a running server notices."""

import argparse
import getpass
import sys

from dragoman.server.configuration import read
from dragoman.serving.jobs.accounts import Accounts


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    accounts = commands.add_parser("accounts", help="make, list and remove the accounts of people whose jobs a server runs")
    actions = accounts.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make an account and print its key; with the first one, jobs are for people with an account only")
    add.add_argument("name", help="the first part of the names of its projects and data sets")
    add.add_argument("--password", action="store_true", help="ask for a password too, or read it from the first line of the input")
    add.set_defaults(run=_add)
    password = actions.add_parser("password", help="give an account a new password, which ends the logins that were made with the old one")
    password.add_argument("name", help="whose")
    password.set_defaults(run=_password)
    remove = actions.add_parser("remove", help="remove an account; its projects, data sets and jobs stay")
    remove.add_argument("name", help="whose")
    remove.set_defaults(run=_remove)
    listing = actions.add_parser("list", help="list the names")
    listing.set_defaults(run=_list)
    for action in (add, password, remove, listing):
        action.add_argument("--data-dir", metavar="DIR", help="the server's data directory")


def _accounts(options: argparse.Namespace) -> Accounts:
    return Accounts(read({"data_dir": options.data_dir}).data_path)


def _add(options: argparse.Namespace) -> int:
    print(_accounts(options).add(options.name, _asked() if options.password else ""))
    return 0


def _password(options: argparse.Namespace) -> int:
    _accounts(options).change_password(options.name, _asked())
    return 0


def _remove(options: argparse.Namespace) -> int:
    _accounts(options).remove(options.name)
    return 0


def _list(options: argparse.Namespace) -> int:
    for name in _accounts(options).names():
        print(name)
    return 0


def _asked() -> str:
    """A password from the terminal, which does not show it, or from whatever the input is."""
    return getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
