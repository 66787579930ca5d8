"""Who calls, what of others they may see, and the calls that a client logs in with. Called by every module of this folder."""

from dataclasses import dataclass

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import ACCOUNT, Answer, Request
from dragoman.dialects.documents import json_object
from dragoman.dialects.floydhub.answers import success
from dragoman.serving.jobs.accounts import Accounts, claimed

_LARGEST = 64 << 10
_HEADERS = (b"authorization", b"x-api-key")
_SCHEMES = ("bearer", "apikey")


@dataclass(frozen=True, slots=True)
class User:
    name: str
    """ "" where nobody said who they are, and nobody had to."""
    everything: bool
    """Whether they see what belongs to others, too."""

    def sees(self, owner: str) -> bool:
        return self.everything or self.name == owner

    def makes(self, owner: str) -> bool:
        """Whether their first look at something of this owner makes it (requirement F3).

        Where nobody checks who they are they may also go by the name that their client has written down.
        """
        return bool(self.name) and self.sees(owner)

    def full(self, name: str) -> str:
        """The client leaves out whose it is, but not the slash, when it asks for data that was named without a user: /datasets/X/N."""
        return self.name + name if name.startswith("/") else name

    def named(self) -> str:
        """The name. Raises UNAUTHENTICATED where there is none."""
        if not self.name:
            raise ServingError(Kind.UNAUTHENTICATED, "log in first: send 'Authorization: apikey KEY', or 'Bearer TOKEN'")
        return self.name


class People:
    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def who(self, request: Request) -> User:
        """Whose request this is: the guard has looked at its credentials, where any count.

        With accounts people see what is theirs; an API key of the server, and whoever calls a server that has none, sees everything.
        """
        if request.caller:
            return User(request.caller, not request.scope.get(ACCOUNT) and request.caller not in self._accounts.names())
        return User(_claim(request), everything=True)

    async def me(self, request: Request) -> Answer:
        name = self.who(request).named()
        return success({"uid": name, "username": name, "email": f"{name}@localhost", "type": None})

    async def login(self, request: Request) -> Answer:
        body = await json_object(request, _LARGEST)
        name, password = body.get("username"), body.get("password")
        if not isinstance(name, str) or not isinstance(password, str):
            raise ServingError(Kind.INVALID_INPUT, "expected the texts username and password", what="body")
        return success({"access_token": await self._accounts.login(name, password)})


def _claim(request: Request) -> str:
    """Who the credentials say the caller is, where nobody checks them; "" without any."""
    for header in _HEADERS:
        value = (request.header(header) or b"").decode("latin-1").strip()
        if header == b"authorization":
            scheme, _, value = value.partition(" ")
            if scheme.lower() not in _SCHEMES:
                continue
        if value.strip():
            return claimed(value.strip())
    return ""
