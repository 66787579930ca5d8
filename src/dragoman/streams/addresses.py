"""Addresses of streams: what `--stream URL` means, checked, and how it is shown without its secrets. Light: settings are checked with it.

    kafka://[USER[:PASSWORD]@]HOST:PORT[,HOST:PORT]/TOPIC[,TOPIC]?out=TOPIC&group=NAME
    mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC?out=TOPIC&group=NAME        (mqtts:// with TLS)
    kinesis://STREAM?out=STREAM&endpoint=URL&region=REGION

Options that every stream has are fields; the rest are the connector's, which takes them out with `option` and refuses what it does not know
with `only`. Called by settings, by streams.service and by the tracking of requests, which writes to such addresses, too.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote

from dragoman.core.errors import invalid

SCHEMES = {"kafka": "kafka", "mqtt": "mqtt", "mqtts": "mqtt", "kinesis": "kinesis"}
"""Scheme -> kind of connector."""
IN_FLIGHT = 256
"""Messages of one stream that one worker may have taken and not answered yet, unless its address says otherwise."""
_MOST_IN_FLIGHT = 100_000

_URL = re.compile(r"(?P<scheme>[a-z]+)://(?:(?P<user>[^@/?#\s]*)@)?(?P<host>[^@/?#\s]*)(?:/(?P<path>[^?#\s]*))?(?:\?(?P<query>[^#\s]*))?\Z")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?\Z")
_TRUE = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_COMMON = ("out", "errors", "group", "model", "operation", "in_flight", "order")
_ORDERS = ("key", "lane", "none")


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """One stream. `hosts` are the brokers ("host:port" or "host"), none for Kinesis; `user` and `password` are decoded."""

    kind: str
    scheme: str
    hosts: tuple[str, ...]
    source: str
    """The topics (separated by commas for Kafka), the topic filter of MQTT, or the stream of Kinesis."""
    out: str = ""
    """Where answers go; "" for nowhere: the model is run for its effects."""
    errors: str = ""
    """Where messages go that could not be answered; "" for `out`, as an object with `error`."""
    group: str = "dragoman"
    model: str = ""
    """NAME or NAME:VERSION that answers every message; "" for the `model` of each."""
    operation: str = ""
    in_flight: int = IN_FLIGHT
    order: str = "key"
    """What is answered one after the other: messages of one "key" of a lane, all of a "lane", or "none"."""
    user: str = ""
    password: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The connector's own."""

    @property
    def name(self) -> str:
        """What people see: the address without secrets or options of the connector."""
        where = ",".join(self.hosts)
        shown = [f"{name}={quote(value, safe='/:,')}" for name in _COMMON[:5] if (value := getattr(self, name)) and value != "dragoman"]
        path = quote(self.source, safe="/,+$")
        base = f"{self.scheme}://{where}/{path}" if self.hosts else f"{self.scheme}://{path}"
        return base + ("?" + "&".join(shown) if shown else "")

    def only(self, known: Collection[str]) -> None:
        """Raise INVALID_INPUT for an option that this kind of stream does not have."""
        for name in self.options:
            if name not in known:
                have = ", ".join(sorted({*_COMMON, *known}))
                raise invalid(f"the stream {self.name} has the option '{name}', which {self.kind} streams do not have; they have {have}")

    def option(self, name: str, default: str = "", choices: Collection[str] = ()) -> str:
        """A text of the connector's own. Raises INVALID_INPUT for one that is not among the choices."""
        value = self.options.get(name, default)
        if choices and value not in choices:
            raise invalid(f"'{name}' of the stream {self.name} must be one of {', '.join(choices)}, not '{value[:100]}'")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A yes or no of the connector's own. Raises INVALID_INPUT for anything else."""
        value = self.options.get(name)
        if value is None:
            return default
        if value.lower() not in _TRUE:
            raise invalid(f"'{name}' of the stream {self.name} must be true or false, not '{value[:100]}'")
        return _TRUE[value.lower()]

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """A number of the connector's own within bounds. Raises INVALID_INPUT for anything else."""
        return _number(self.options[name], name, self.name, least, most) if name in self.options else default

    def secret(self, environ: Mapping[str, str]) -> str:
        """The password: of the address, else of the variable that `password_env` names, else DRAGOMAN_KAFKA_PASSWORD and the like; "" for none.

        Raises INVALID_INPUT for a variable that was named and is not set.
        """
        if self.password:
            return self.password
        named = self.options.get("password_env", "")
        if named and named not in environ:
            raise invalid(f"the variable '{named}' with the password of the stream {self.name} is not set")
        return environ.get(named or f"DRAGOMAN_{self.kind.upper()}_PASSWORD", "")


def parse_stream(url: str) -> StreamAddress:
    """Raises INVALID_INPUT, without the password in its message."""
    found = _URL.match(url)
    scheme = url.partition("://")[0] if "://" in url else ""
    if found is None or found["scheme"] not in SCHEMES:
        hint = f" ('{scheme[:20]}' is not known)" if scheme and scheme not in SCHEMES and len(scheme) < 20 else ""
        raise invalid(
            f"a stream must be kafka://HOST:PORT/TOPIC?out=TOPIC&group=NAME, mqtt://HOST:PORT/TOPIC?out=TOPIC or"
            f" kinesis://STREAM?out=STREAM&region=REGION{hint}"
        )
    kind = SCHEMES[found["scheme"]]
    user, _, password = (unquote(part) for part in (found["user"] or "").partition(":"))
    path = unquote(found["path"] or "")
    if kind == "kinesis":
        hosts: tuple[str, ...] = ()
        source, surplus = unquote(found["host"]), path
    else:
        hosts = tuple(found["host"].split(","))
        source, surplus = path, ""
    where = f"{found['scheme']}://{found['host']}"
    if not source or surplus or not all(_HOST.match(host) for host in hosts):
        wanted = "one name, kinesis://STREAM" if kind == "kinesis" else f"a host and a topic, {found['scheme']}://HOST:PORT/TOPIC"
        raise invalid(f"the stream {where[:200]} must have {wanted}")
    options: dict[str, str] = {}
    for name, value in parse_qsl(found["query"] or "", keep_blank_values=True):
        if name in options:
            raise invalid(f"the stream {where[:200]} has the option '{name[:50]}' twice")
        options[name] = value
    common = {name: options.pop(name) for name in _COMMON[:5] if name in options}
    in_flight = IN_FLIGHT
    if "in_flight" in options:
        in_flight = int(_number(options.pop("in_flight"), "in_flight", where, 1, _MOST_IN_FLIGHT))
    order = options.pop("order", "key")
    if order not in _ORDERS:
        raise invalid(f"'order' of the stream {where[:200]} must be one of {', '.join(_ORDERS)}, not '{order[:50]}'")
    if common.get("group") == "":
        raise invalid(f"the group of the stream {where[:200]} must not be empty")
    return StreamAddress(
        kind, found["scheme"], hosts, source, in_flight=in_flight, order=order, user=user, password=password, options=options, **common
    )


def check_streams(urls: Iterable[str]) -> None:
    """Raise INVALID_INPUT for what is no address of a stream. For settings: nothing is connected to."""
    seen: set[str] = set()
    for url in urls:
        name = parse_stream(url).name
        if name in seen:
            raise invalid(f"the stream {name} is named twice")
        seen.add(name)


def _number(text: str, name: str, where: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise invalid(f"'{name}' of the stream {where[:200]} must be a number from {least:g} to {most:g}, not '{text[:50]}'")
    return value
