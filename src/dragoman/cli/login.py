"""`dragoman login | logout`: who somebody is to a server, for the commands for jobs and data sets. Kept by jobs_files.py, used by jobs_api.py."""

import argparse
import getpass
import sys

from dragoman.cli.client import add_server
from dragoman.cli.jobs_api import Api, somebody
from dragoman.cli.jobs_files import forget_login, save_login
from dragoman.core.errors import Kind, ServingError, invalid


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    entering = commands.add_parser("login", help="keep an API key, or a user name and password's token, for the commands for jobs")
    entering.add_argument("-k", "--apikey", default="", metavar="KEY", help="an API key: see dragoman keys")
    entering.add_argument("-u", "--username", default="", metavar="NAME", help="the name of an account")
    entering.add_argument("-p", "--password", default="", metavar="WORD", help="its password; asked for where it is not given")
    entering.add_argument("--token", action="store_true", help="ask for a token")
    entering.set_defaults(run=_login)
    add_server(entering)
    leaving = commands.add_parser("logout", help="forget the key")
    leaving.set_defaults(run=_logout)


def _login(options: argparse.Namespace) -> int:
    key = options.apikey or options.key
    options.key = ""
    if sum(map(bool, (key, options.username or options.password, options.token))) > 1:
        raise invalid("log in with --apikey, with --username, or with --token")
    api = Api(options)
    token = ""
    if options.username or options.password:
        name = options.username or _asked("User name", somebody())
        token = _token(api, name, options.password or _secret("Password"))
    elif options.token:
        token = _secret("Token")
    else:
        key = key or _secret("API key")
    try:
        user = api.who(f"Bearer {token}" if token else f"apikey {key}")
    except ServingError as error:
        if error.status == 401:
            raise ServingError(Kind.UNAUTHENTICATED, f"Invalid Token: {api.url} does not know it") from None
        raise
    save_login(user, api.url, key=key, token=token)
    print(f"Login Successful as {user}")
    return 0


def _token(api: Api, name: str, password: str) -> str:
    try:
        token = api.ask("POST", "/user/login", {"username": name, "password": password}).get("access_token")
    except ServingError as error:
        if error.status == 401:
            raise ServingError(Kind.UNAUTHENTICATED, "the server does not know this user name with this password") from None
        raise
    if not isinstance(token, str) or not token:
        raise ServingError(Kind.UNAVAILABLE, f"{api.url} gives no token; is it a Dragoman server?")
    return token


def _asked(question: str, default: str) -> str:
    print(f"{question} [{default}]: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() or default


def _secret(question: str) -> str:
    """Typed without being shown, or a line of standard input where that is no terminal."""
    text = (getpass.getpass(f"{question}: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not text or not text.isascii() or not text.isprintable():
        raise invalid(f"no {question.lower()} was given" if not text else f"the {question.lower()} holds characters that none has")
    return text


def _logout(_options: argparse.Namespace) -> int:
    forget_login()
    return 0
