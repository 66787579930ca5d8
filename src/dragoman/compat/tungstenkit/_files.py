"""Image, Video, Audio, Binary: a file as a value of a field. It is a URI, or content that becomes one when somebody looks.

Made by model files and by `_bridge`; `content_of` is how the bridge reads what a model answered.
"""

import copy
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase, TextIOBase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias, get_args
from urllib.parse import unquote, urlsplit

from . import _scratch
from ._errors import INVALID, Fault, Loc, ValidationError, fault
from ._uris import checked, data_uri, download, media_type_of, parse_data_uri, path_of, scheme_of, suffix_of

if TYPE_CHECKING:
    import PIL.Image

Mode: TypeAlias = Literal["RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "1", "L", "P", "I", "F"]
Values: TypeAlias = dict[str, Any]
"""Inside of the class `dict` is a method."""
ROOT = "__root__"


@dataclass(frozen=True, slots=True)
class Content:
    data: bytes
    media_type: str
    name: str = ""


class File:
    """What the four have in common. Equal when the URIs are."""

    __slots__ = ("_content", "_place", "_scratch", "_uri")
    kind: ClassVar[str] = ""
    _content: Content | None
    _uri: str
    _place: Path | None
    _scratch: _scratch.Scratch | None

    def __init__(self, /, **data: Any) -> None:
        if ROOT not in data:
            raise ValidationError([{"loc": (ROOT,), "msg": "field required", "type": "value_error.missing"}], type(self))
        try:
            self._set(uri=checked(data[ROOT]))
        except ValueError as error:
            raise ValidationError([{"loc": (ROOT,), "msg": str(error), "type": "value_error"}], type(self)) from None

    def _set(self, *, uri: str = "", content: Content | None = None) -> None:
        self._uri, self._content, self._place, self._scratch = uri, content, None, None

    # --- making ---

    @classmethod
    def from_path(cls, path: str | Path) -> Self:
        """A local file, which need not exist yet."""
        if not isinstance(path, str | Path):
            raise TypeError(f"{cls.__name__}.from_path takes a str or a Path, not {type(path).__name__}")
        return cls(__root__=Path(path).resolve().as_uri())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        if not isinstance(data, bytes):
            raise TypeError(f"{cls.__name__}.from_bytes takes bytes, not {type(data).__name__}")
        return cls._of(Content(data, "application/octet-stream"))

    @classmethod
    def from_buffer(cls, buffer: BufferedIOBase | TextIOBase) -> Self:
        """The file behind an open one, or what is left to read of a buffer in memory."""
        if not isinstance(buffer, BufferedIOBase | TextIOBase):
            raise TypeError(f"{cls.__name__}.from_buffer takes a buffer or an open file, not {type(buffer).__name__}")
        name = getattr(buffer, "name", None)
        if isinstance(name, str | Path) and Path(name).is_file():
            return cls.from_path(name)
        data = buffer.read()
        return cls.from_bytes(data.encode() if isinstance(data, str) else bytes(data))

    @classmethod
    def from_url(cls, url: str) -> Self:
        """A data, file, http or https URI. Nothing is fetched before somebody needs the content."""
        if not isinstance(url, str):
            raise TypeError(f"{cls.__name__}.from_url takes a str, not {type(url).__name__}")
        if not scheme_of(url):
            raise ValueError(f"{cls.__name__}.from_url takes a URL with a scheme such as https:, not a path")
        return cls(__root__=url)

    @classmethod
    def _of(cls, content: Content) -> Self:
        made = cls.__new__(cls)
        made._set(content=content)
        return made

    @classmethod
    def parse_obj(cls, obj: Any) -> Self:
        return cls(**obj) if isinstance(obj, dict) and obj.keys() == {ROOT} else cls(__root__=obj)

    @classmethod
    def _take(cls, value: Any, loc: Loc, faults: list[Fault]) -> Any:
        if isinstance(value, File):
            return cls._like(value) if not isinstance(value, cls) else copy.copy(value)
        try:
            return cls.parse_obj(value)
        except ValidationError as error:
            for found in error.errors():
                fault(faults, (*loc, *found["loc"]), found["type"], found["msg"])
            return INVALID

    @classmethod
    def _like(cls, other: "File") -> Self:
        made = cls.__new__(cls)
        made._uri, made._content, made._place, made._scratch = other._uri, other._content, other._place, other._scratch
        return made

    # --- reading ---

    @property
    def __root__(self) -> str:
        """The URI: of the local file once there is one, else the one that was given, else the content itself."""
        local = self._local()
        if local is not None:
            return local.as_uri()
        if self._content is not None:
            return data_uri(self._content.data, self._content.media_type)
        return self._uri

    @property
    def path(self) -> Path:
        """A local file with this content. It is written or fetched when first asked for, into a private folder, and may be moved or deleted."""
        if scheme_of(self._uri) == "file":
            return path_of(self._uri)
        local = self._local()
        if local is None:
            local = self._place = self._written()
        return local

    def _local(self) -> Path | None:
        """The file that `path` has made, unless it was removed with its batch."""
        return None if self._scratch is None or self._scratch.cleared else self._place

    def _written(self) -> Path:
        self._scratch = _scratch.current()
        if self._content is None and scheme_of(self._uri) != "data":
            name = PurePosixPath(unquote(urlsplit(self._uri).path))
            place = self._scratch.place(name.stem, name.suffix)
            with place.open("wb") as into:
                media_type = download(self._uri, into)
            return place if name.suffix else place.rename(place.with_name(place.name + suffix_of(media_type)))
        content = self._content or Content(*parse_data_uri(self._uri))
        named = PurePosixPath(content.name)
        place = self._scratch.place(named.stem, named.suffix or suffix_of(content.media_type))
        place.write_bytes(content.data)
        return place

    def dict(self, **_options: Any) -> Values:
        return {ROOT: self.__root__}

    def json(self, **_options: Any) -> str:
        return json.dumps(self.__root__)

    def copy(self, **_options: Any) -> Self:
        return copy.copy(self)

    @classmethod
    def schema(cls, *_arguments: Any, **_options: Any) -> Values:
        return cls._schema()

    @classmethod
    def _schema(cls) -> Values:
        return {"type": "string", "format": "uri"}

    def __copy__(self) -> Self:
        return self._like(self)

    def __deepcopy__(self, _memo: object) -> Self:
        return self._like(self)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return type(self).parse_obj, (self.__root__,)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield ROOT, self.__root__

    def __eq__(self, other: object) -> bool:
        return self.dict() == (other.dict() if isinstance(other, File) else other)

    __hash__ = None  # type: ignore[assignment] # equal by what it points at, which changes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(__root__={_shortened(self.__root__)!r})"

    def __str__(self) -> str:
        return f"__root__={_shortened(self.__root__)!r}"


def _shortened(uri: str) -> str:
    """A photo in a log line helps nobody."""
    return uri if len(uri) <= 120 else uri[:100] + "..."


def content_of(file: File) -> Content:
    """The content of a file now. Raises OSError, ValueError or DownloadError."""
    if file._local() is None and scheme_of(file._uri) != "file":
        if file._content is not None:
            return file._content
        if scheme_of(file._uri) == "data":
            return Content(*parse_data_uri(file._uri))
    path = file.path
    data = path.read_bytes()
    return Content(data, media_type_of(path.name, data), path.name)


def of_content(cls: type[File], content: Content) -> File:
    """A file that has its content with it."""
    return cls._of(content)


class Image(File):
    __slots__ = ()
    kind = "image"

    @staticmethod
    def from_pil_image(pil_image: "PIL.Image.Image") -> "Image":
        """In the format that the picture was opened in; PNG when it is new or was changed."""
        import PIL.Image

        if not isinstance(pil_image, PIL.Image.Image):
            raise TypeError(f"Image.from_pil_image takes a PIL image, not {type(pil_image).__name__}")
        opened = pil_image.format if pil_image.format in PIL.Image.SAVE and pil_image.format in PIL.Image.MIME else None
        buffer = io.BytesIO()
        pil_image.save(buffer, format=opened or "PNG")
        return Image._of(Content(buffer.getvalue(), PIL.Image.MIME[opened] if opened else "image/png"))

    def to_pil_image(self, mode: Mode = "RGB") -> "PIL.Image.Image":
        """Decoded and converted. Raises ValueError for another mode, PIL's errors for what is no picture, too large or not convertible."""
        import PIL.Image

        if mode not in get_args(Mode):
            raise ValueError(f"unknown image mode {mode!r}; one of {', '.join(get_args(Mode))}")
        limit = PIL.Image.MAX_IMAGE_PIXELS
        try:
            with PIL.Image.open(io.BytesIO(content_of(self).data)) as picture:
                # PIL warns at its limit and refuses at twice that; here the limit is a limit.
                if limit is not None and picture.width * picture.height > limit:
                    raise PIL.Image.DecompressionBombError(f"the image has {picture.width} x {picture.height} pixels; the limit is {limit}")
                return picture.convert(mode)
        except PIL.Image.DecompressionBombWarning as warning:  # where warnings are errors
            raise PIL.Image.DecompressionBombError(str(warning)) from None


class Video(File):
    __slots__ = ()
    kind = "video"


class Audio(File):
    __slots__ = ()
    kind = "audio"


class Binary(File):
    __slots__ = ()
    kind = "binary"
