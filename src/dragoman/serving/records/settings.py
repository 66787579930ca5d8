"""Whether and where requests are recorded: said at start, changed while the server runs (`/api/tracking` of the console), common to all workers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.live_settings import LiveSettings, Section, shown
from dragoman.serving.records.places import Place, parse

MOST = 1_000_000
_NAMES = ("on", "url", "sample", "batch")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What holds now. `trusted`: the operator said where to at the start, so that no allow-list is asked."""

    place: Place | None = None
    sample: int = 1
    batch: int = 1
    trusted: bool = True


class RecordSettings:
    """`url`, `sample` and `batch` are those of the start. Files that a client names lie below `folder`; None: no client can name any.

    `check` raises for a place that cannot be had, without looking whether it answers.
    """

    def __init__(
        self,
        live: LiveSettings | None = None,
        url: str = "",
        sample: int = 1,
        batch: int = 1,
        folder: Path | None = None,
        check: Callable[[Place], None] = Place.check_installed,
    ) -> None:
        self._start: Mapping[str, Any] = {"on": bool(url), "url": url, "sample": sample, "batch": batch}
        self._check = check
        if url:
            check(parse(url))
        self._folder = folder
        self._values = dict(self._start)
        self._wanted = Wanted()
        self._told: list[Callable[[], None]] = []
        self._live = live or LiveSettings()
        self._live.join("records", self._apply)

    def on_change(self, told: Callable[[], None]) -> None:
        """Call `told` now and after every change, by this worker or another."""
        self._told.append(told)
        told()

    def wanted(self) -> Wanted:
        """What is to be done; no place: nothing is recorded."""
        return self._wanted

    def read(self) -> dict[str, Any]:
        """As clients see it: the URL without its password."""
        self._live.refresh()
        url = self._values["url"]
        return {**self._values, "url": parse(url).shown if url else ""}

    def update(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Change the given ones, in every worker, and return all; null takes one back to what it was at start.

        Raises INVALID_INPUT, FORBIDDEN or UNSUPPORTED and changes nothing when one cannot be had.
        """
        checked = {name: self._start[name] if value is None else self._checked(name, value) for name, value in values.items()}

        def change(before: Section) -> Section:
            after = {**self._start, **before, **checked}
            if after["on"] and not after["url"]:
                raise invalid("tracking cannot be on without a place for the records: give 'url'", "url")
            return after

        self._live.update("records", change)
        return self.read()

    def _checked(self, name: str, value: Any) -> Any:
        if name == "on":
            if not isinstance(value, bool):
                raise _wrong(name, value, "true or false")
        elif name in ("sample", "batch"):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
                raise _wrong(name, value, f"a whole number from 1 to {MOST}")
        elif name == "url":
            if not isinstance(value, str):
                raise _wrong(name, value, "text")
            if value and value != self._start["url"]:
                return self._admitted(value)
        else:
            raise invalid(f"there is no tracking setting '{name[:100]}'; there are {', '.join(_NAMES)}", "tracking")
        return value

    def _admitted(self, url: str) -> str:
        """The address that a client means: the plain name of a file is one in the server's own folder."""
        if self._start["url"] and url == parse(self._start["url"]).shown:
            return str(self._start["url"])
        name = url.partition("?")[0]
        if self._folder is not None and name and not {"/", ":", "\\", "%"} & set(name):
            url = self._folder.absolute().as_uri() + "/" + url
        elif parse(url).kind in ("jsonl", "parquet"):
            text = "while the server runs, records are written to files in its own folder only: give a plain name such as records.jsonl"
            raise ServingError(Kind.FORBIDDEN, text, what="url")
        self._check(parse(url))
        return url

    def _apply(self, section: Section) -> None:
        values = self._values = {**self._start, **section}
        place = parse(values["url"]) if values["on"] and values["url"] else None
        self._wanted = Wanted(place, values["sample"], values["batch"], values["url"] == self._start["url"])
        for told in self._told:
            told()


def _wrong(name: str, value: Any, expected: str) -> ServingError:
    return invalid(f"the tracking setting '{name}' must be {expected}, not {shown(value)}", "tracking")
