"""Files by path or URL, for model code: `DataItem`. What lies elsewhere is read by urllib (http, https), else by fsspec where it is installed."""

import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import IO, Any

_TIMEOUT_S = 60.0


def is_url(text: str) -> bool:
    return "://" in text and not text.startswith("file://")


class DataItem:
    """One file or folder. Nothing is read before it is asked for."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        self.key = key or url.rpartition("/")[2]
        self._local = "" if is_url(url) else url.removeprefix("file://")

    @property
    def artifact_url(self) -> str:
        return self.url

    @property
    def kind(self) -> str:
        return "file" if self._local else self.url.partition("://")[0]

    @property
    def suffix(self) -> str:
        return Path(self.key).suffix

    def open(self, mode: str = "rb") -> IO[Any]:
        if self._local:
            return Path(self._local).open(mode)  # the caller closes it
        if self.kind in ("http", "https"):
            opened: IO[Any] = urllib.request.urlopen(self.url, timeout=_TIMEOUT_S)  # noqa: S310 # the scheme has been looked at
            return opened
        try:
            import fsspec
        except ImportError as error:
            raise RuntimeError(f"'{self.url}' takes fsspec and its driver for {self.kind}://, which are not installed") from error
        other: IO[Any] = fsspec.open(self.url, mode).open()
        return other

    def get(self, size: int | None = None, offset: int = 0, encoding: str | None = None) -> Any:
        """The content, or a part of it: bytes, or text in an encoding."""
        with self.open() as file:
            file.read(offset)
            content = file.read(-1 if size is None else size)
        return content.decode(encoding) if encoding else content

    def download(self, target_path: str) -> None:
        with self.open() as file, Path(target_path).open("wb") as target:
            shutil.copyfileobj(file, target)

    def local(self) -> str:
        """A path on this machine; what lies elsewhere is copied, once."""
        if not self._local:
            target = Path(tempfile.mkdtemp(prefix="dragoman-data-"), self.key or "data")
            self.download(str(target))
            self._local = str(target)
        return self._local

    def listdir(self) -> list[str]:
        if not self._local:
            raise RuntimeError(f"the folder '{self.url}' is elsewhere and cannot be listed")
        return sorted(each.name for each in Path(self._local).iterdir())

    ls = listdir

    def as_df(self, columns: list[str] | None = None, df_module: Any = None, format: str = "", **more: Any) -> Any:  # noqa: A002 # the original's name
        """The content as a pandas DataFrame: CSV, JSON (one object per line or a list) or Parquet."""
        if df_module is None:
            import pandas

            df_module = pandas
        kind = format or self.suffix.lstrip(".")
        if kind in ("parquet", "pq"):
            return df_module.read_parquet(self.local(), columns=columns, **more)
        if kind == "json":
            return df_module.read_json(self.local(), **more)
        return df_module.read_csv(self.local(), usecols=columns, **more)

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.local()


def get_dataitem(url: str, *_more: Any, **_named: Any) -> DataItem:
    return DataItem(url)


def get_object(url: str, *_more: Any, **_named: Any) -> Any:
    return DataItem(url).get()
