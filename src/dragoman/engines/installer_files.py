"""What of the machine an installer must be able to reach when it runs confined: its settings, certificates, and indexes that are folders.

Called by environment.py. Which files these are is documented by pip and uv; that they may name an index with its password is the operator's
choice, as the code of a package that is built may read them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_NAMED = re.compile(r"(?:PIP_CONFIG_FILE|UV_CONFIG_FILE|PIP_CERT|SSL_CERT_(?:FILE|DIR)|SSL_CLIENT_CERT|(?:REQUESTS|CURL)_CA_BUNDLE)")
_INDEXES = re.compile(r"(?:PIP|UV)_(?:FIND_LINKS|(?:EXTRA_|DEFAULT_)?INDEX(?:_URL)?)")
_LINE = re.compile(r"\s*(?:find-links|(?:extra-|default-)?index(?:-url)?|url|proxy)\s*[=:]\s*(.*)|\s+(\S.*)")
_FOLDER = re.compile(r"(?:^|(?<=[\s,'\"\[]))(?:file://)?(/[^\s,'\"\]]+)")
_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}
_LOCAL = re.compile(r"(?:^|//|@|\s)(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?=[:/\s]|$)", re.IGNORECASE)
_LARGEST = 1 << 16


@dataclass(frozen=True, slots=True)
class Needs:
    """What the operator's settings for installers lead to."""

    readable: tuple[Path, ...]
    """Files and folders that are there, each once."""
    local: bool
    """Whether an index or a proxy is a program on this machine, which is out of reach in a network of one's own."""


def needs_of(environ: Mapping[str, str]) -> Needs:
    """By these variables and the settings files that there are. Blocks."""
    settings = [path for path in _settings(environ) if path.is_file()]
    named = [Path(value) for name, value in environ.items() if _NAMED.fullmatch(name) and value.startswith("/")]
    texts = [value for name, value in environ.items() if _INDEXES.fullmatch(name)]
    for path in settings:
        texts += _indexes(path)
    folders = [Path(folder) for text in texts for folder in _FOLDER.findall(text)]
    # The pages of an index link to files beside it.
    folders += [folder.parent for folder in folders if folder.name == "simple" and folder.parent != Path("/")]
    found = (*settings, *(path for path in named if path.exists() and path != Path("/dev/null")), *(f for f in folders if f.is_dir()))
    texts += [value for name, value in environ.items() if name.lower() in _PROXIES]
    return Needs(tuple(dict.fromkeys(found)), any(_LOCAL.search(text) for text in texts))


def _settings(environ: Mapping[str, str]) -> Iterator[Path]:
    home = environ.get("HOME", "")
    configured = environ.get("XDG_CONFIG_HOME", "") or f"{home}/.config"
    yield from (Path("/etc/pip.conf"), Path("/etc/xdg/pip/pip.conf"), Path("/etc/uv/uv.toml"), Path("/etc/xdg/uv/uv.toml"))
    if home.startswith("/"):
        yield Path(home) / ".pip" / "pip.conf"
    if configured.startswith("/"):
        yield from (Path(configured) / "pip" / "pip.conf", Path(configured) / "uv" / "uv.toml")
    yield from (Path(value) for name in ("PIP_CONFIG_FILE", "UV_CONFIG_FILE") if (value := environ.get(name, "")).startswith("/"))


def _indexes(settings: Path) -> Iterator[str]:
    """The values of a settings file that may name folders or this machine; a value may go on in lines that are indented."""
    try:
        with settings.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(_LARGEST).splitlines()
    except OSError:
        return
    inside = False
    for line in lines:
        match = _LINE.fullmatch(line)
        inside = match is not None and (match[1] is not None or inside)
        if match is not None and inside:
            yield match[1] if match[1] is not None else match[2]
