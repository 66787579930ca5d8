"""Files as values: where their content is, where it is written, what is fetched, and what PIL makes of it."""

import copy
import io
import pickle
import stat
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import PIL.Image
import pytest

from dragoman.compat.tungstenkit import Audio, BaseIO, Binary, Image, MaskedImage, ValidationError, Video, _scratch
from dragoman.compat.tungstenkit import _uris as uris
from dragoman.compat.tungstenkit._files import Content, content_of, of_content
from dragoman.compat.tungstenkit.exceptions import DownloadError
from tests.unit.compat.pictures import jpeg, png


class Site(BaseHTTPRequestHandler):
    """A few addresses to fetch."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/elsewhere"):
            self.send_response(302)
            self.send_header(
                "Location", {"/elsewhere-ftp": "ftp://127.0.0.1/x", "/elsewhere-file": "file:///etc/hostname"}.get(path, "/photo.png")
            )
            self.end_headers()
            return
        known = {"/photo.png": ("image/png", png()), "/untold": ("image/jpeg", jpeg()), "/a%20b.txt": ("text/plain", b"words")}
        kind, body = known.get(path, ("", b""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind or "text/plain")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """Its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def batch() -> Iterator[_scratch.Scratch]:
    """A folder that is removed after the test, as after a batch."""
    scratch = _scratch.begin()
    yield scratch
    _scratch.end(scratch)


class TestPath:
    """`.path` lays the content down once, in a private folder that is no model's."""

    def test_it_is_private_and_elsewhere(self, batch: _scratch.Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is written into the working directory, and nobody else can read it."""
        monkeypatch.chdir(tmp_path)
        path = Binary.from_bytes(b"abc").path
        assert path.read_bytes() == b"abc"
        assert path.is_absolute()
        assert path.parent.parent == Path(tempfile.gettempdir())
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert list(tmp_path.iterdir()) == []

    def test_every_file_has_its_own(self, batch: _scratch.Scratch) -> None:
        """Also when all were uploaded under one name; names and suffixes are kept as far as they do no harm."""
        paths = [of_content(Binary, Content(b"", "image/png", "my photo.png")).path for _ in range(2)]
        assert paths[0] != paths[1]
        assert paths[0].name.startswith("myphoto-")
        assert paths[0].suffix == ".png"

    @pytest.mark.parametrize(
        "name", ["../../etc/passwd", "/etc/passwd", "..", "a\0b", "a/../../b.txt", "x" * 500, ".bashrc", "a.b/c", "a.p\nng"]
    )
    def test_a_hostile_name(self, batch: _scratch.Scratch, name: str) -> None:
        """Never leads out of the folder."""
        path = of_content(Binary, Content(b"abc", "application/octet-stream", name)).path
        assert path.parent == Binary.from_bytes(b"").path.parent
        assert path.read_bytes() == b"abc"
        assert len(path.name) < 120

    def test_the_model_may_change_it(self, batch: _scratch.Scratch) -> None:
        """What it wrote there is the file from then on."""
        file = Binary.from_bytes(b"abc")
        file.path.write_bytes(b"changed")
        assert content_of(file).data == b"changed"
        assert file.__root__ == file.path.as_uri()

    def test_it_goes_with_its_batch(self) -> None:
        """With everything else that is in the folder; a file that outlives its batch is written anew, from what it was made of."""
        scratch = _scratch.begin()
        kept, path = Binary.from_bytes(b"abc"), None
        path = kept.path
        (path.parent / "by the model").mkdir()
        _scratch.end(scratch)
        assert not path.parent.exists()
        assert kept.__root__ == "data:application/octet-stream;base64,YWJj"
        following = _scratch.begin()
        assert kept.path != path
        assert kept.path.read_bytes() == b"abc"
        _scratch.end(following)
        _scratch.end(following)

    def test_files_of_setup_stay(self) -> None:
        """What is laid down outside of any batch is there for all of them."""
        lasting = Binary.from_bytes(b"abc")
        path = lasting.path
        scratch = _scratch.begin()
        assert lasting.path == path
        _scratch.end(scratch)
        assert path.exists()
        path.unlink()

    def test_a_local_file_stays_where_it_is(self, tmp_path: Path) -> None:
        """It is used in place."""
        place = tmp_path / "a b%20ü.txt"
        place.write_text("words")
        for file in (Binary.from_path(place), Binary.from_path(str(place)), Binary.from_url(place.as_uri()), Binary.parse_obj(str(place))):
            assert file.path == place
            assert content_of(file) == Content(b"words", "text/plain", place.name)

    def test_a_relative_path_is_of_now(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It means the working directory at the time it was given."""
        monkeypatch.chdir(tmp_path)
        file = Video.from_path("out.mp4")
        monkeypatch.chdir("/")
        assert file.path == tmp_path / "out.mp4"


class TestContent:
    """What a file holds, and of what type it is said to be."""

    @pytest.mark.parametrize(
        ("name", "data", "media_type"),
        [
            ("a.png", b"", "image/png"),
            ("a.mp4", b"\0", "video/mp4"),
            ("a.webp", b"\0", "image/webp"),
            ("a.txt", b"\xff\0", "text/plain"),
            ("a", b"words", "text/plain"),
            ("a", "ä".encode(), "text/plain"),
            ("a", b"", "text/plain"),
            ("a", b"\xff\xfe", "application/octet-stream"),
            ("a.weights", b"a\0b", "application/octet-stream"),
        ],
    )
    def test_media_type(self, tmp_path: Path, name: str, data: bytes, media_type: str) -> None:
        """By name, else by what is in it."""
        (tmp_path / name).write_bytes(data)
        assert content_of(Binary.from_path(tmp_path / name)) == Content(data, media_type, name)

    def test_a_data_uri_keeps_its_type(self) -> None:
        """And needs no file to be read."""
        assert content_of(Audio.from_url("data:audio/wav;base64,YWJj")) == Content(b"abc", "audio/wav")
        assert content_of(Image._of(Content(b"abc", "image/png", "a.png"))) == Content(b"abc", "image/png", "a.png")

    @pytest.mark.parametrize(
        ("uri", "content"),
        [
            ("data:,a%20b", (b"a b", "text/plain")),
            ("DATA:Image/PNG;base64,YWJj", (b"abc", "image/png")),
            ("data:text/plain;charset=utf-8;BASE64,YW Jj", (b"abc", "text/plain")),
            ("data:image/png;base64,YWJj%0A", (b"abc", "image/png")),
            ("data:;base64,", (b"", "text/plain")),
        ],
    )
    def test_data_uris(self, uri: str, content: tuple[bytes, str]) -> None:
        """As RFC 2397 has them."""
        assert uris.parse_data_uri(uri) == content

    @pytest.mark.parametrize("uri", ["data:", "data:image/png", "data:;base64,Y", "data:;base64,!!!!"])
    def test_what_is_no_data_uri(self, uri: str) -> None:
        """The message has nothing of the content."""
        with pytest.raises(ValueError, match="data URI") as caught:
            content_of(Binary.from_url(uri))
        assert "!!!!" not in str(caught.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        """May be named, and is missed when it is read."""
        file = Binary.from_path(tmp_path / "nothing")
        with pytest.raises(FileNotFoundError):
            content_of(file)

    def test_buffers(self, tmp_path: Path) -> None:
        """What is left to read; the file behind an open one; never a descriptor number as a name."""
        buffer = io.BytesIO(b"abc")
        buffer.read(1)
        assert content_of(Binary.from_buffer(buffer)).data == b"bc"
        (tmp_path / "a.txt").write_text("words")
        with (tmp_path / "a.txt").open("rb") as opened:
            assert Binary.from_buffer(opened).path == tmp_path / "a.txt"
        with tempfile.TemporaryFile() as nameless:
            nameless.write(b"abc")
            nameless.seek(0)
            assert content_of(Binary.from_buffer(nameless)).data == b"abc"


class TestFetching:
    """The model's own code may give a URL; inputs have none any more."""

    def test_it_is_fetched_when_it_is_needed(self, site: str, batch: _scratch.Scratch) -> None:
        """Once; until then it is its address."""
        file = Image.from_url(f"{site}/photo.png?size=2")
        assert file.__root__ == f"{site}/photo.png?size=2"
        assert file.path.read_bytes() == png()
        assert file.path.suffix == ".png"
        assert file.path == file.path
        assert file.to_pil_image().size == (2, 2)

    def test_the_suffix_comes_from_the_answer_when_the_name_has_none(self, site: str, batch: _scratch.Scratch) -> None:
        """So that tools that go by suffix know what it is."""
        assert Image.from_url(f"{site}/untold").path.suffix == ".jpg"

    def test_names_are_unquoted(self, site: str, batch: _scratch.Scratch) -> None:
        """And content is read like that of any file."""
        assert content_of(Binary.from_url(f"{site}/a%20b.txt")).data == b"words"
        assert content_of(Binary.from_url(f"{site}/elsewhere")).data == png()

    @pytest.mark.parametrize("path", ["/nothing", "/elsewhere-ftp", "/elsewhere-file"])
    def test_what_cannot_be_fetched(self, site: str, batch: _scratch.Scratch, path: str) -> None:
        """A status other than success, and redirects to where http does not lead."""
        with pytest.raises(DownloadError, match=f"cannot fetch {site.split(':')[0]}"):
            content_of(Binary.from_url(f"{site}{path}?token=secret"))

    def test_no_server(self, batch: _scratch.Scratch) -> None:
        """The message has no password and no query."""
        with pytest.raises(DownloadError) as caught:
            content_of(Binary.from_url("http://user:secret@127.0.0.1:1/a?key=secret"))
        assert "secret" not in str(caught.value)

    def test_too_much(self, site: str) -> None:
        """The size is bounded."""

        class Endless(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def read(self, size: int = -1) -> bytes:
                return b"x" * size

        with pytest.raises(ValueError, match="more than 70000 bytes"):
            uris.copy_bounded(Endless(), io.BytesIO(), 70000)  # type: ignore[arg-type]


class TestCopies:
    """Files are values: copied into objects, compared, pickled."""

    def test_copies_are_independent(self, batch: _scratch.Scratch) -> None:
        """The path of one is not that of the other."""
        first = Binary.from_bytes(b"abc")
        for second in (copy.copy(first), copy.deepcopy(first), first.copy()):
            assert second == first
            assert second.path != first.copy().path

    def test_pickling(self) -> None:
        """By URI."""
        file = Image.from_bytes(b"abc")
        assert pickle.loads(pickle.dumps(file)) == file

    def test_from_one_kind_to_another(self) -> None:
        """A field of another kind takes the content as it is."""

        class Output(BaseIO):
            clip: Video

        output = Output.parse_obj({"clip": Image.from_bytes(b"abc")})
        assert isinstance(output.clip, Video)
        assert content_of(output.clip).data == b"abc"

    def test_equality(self) -> None:
        """Files are equal by URI, whatever their kind, and unhashable like every object here."""
        assert Image.from_bytes(b"a") == Binary.from_bytes(b"a")
        assert Image.from_bytes(b"a") != Image.from_url("data:image/png;base64,YQ==")
        assert Image.from_bytes(b"a") != "data:application/octet-stream;base64,YQ=="
        with pytest.raises(TypeError, match="unhashable"):
            hash(Image.from_bytes(b"a"))

    def test_a_long_uri_is_cut_in_a_repr(self) -> None:
        """Logs stay readable."""
        assert len(repr(Binary.from_bytes(bytes(10_000)))) < 200
        assert len(str(Binary.from_bytes(bytes(10_000)))) < 200


class TestPictures:
    """Image and PIL."""

    @pytest.mark.parametrize(("data", "media_type"), [(png(), "image/png"), (jpeg(), "image/jpeg")])
    def test_a_picture_keeps_the_format_that_it_was_opened_in(self, data: bytes, media_type: str) -> None:
        """And a changed one is a PNG."""
        opened = PIL.Image.open(io.BytesIO(data))
        assert content_of(Image.from_pil_image(opened)).media_type == media_type
        assert content_of(Image.from_pil_image(opened.rotate(90))).media_type == "image/png"

    def test_there_and_back(self) -> None:
        """Pixels are kept."""
        picture = PIL.Image.new("RGBA", (3, 2), (1, 2, 3, 4))
        back = Image.from_pil_image(picture).to_pil_image("RGBA")
        assert (back.size, back.getpixel((2, 1))) == ((3, 2), (1, 2, 3, 4))

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "YCbCr", "HSV", "1", "L", "P", "I", "F"])
    def test_modes(self, mode: str) -> None:
        """Every mode that PIL converts to."""
        assert Image.from_bytes(png()).to_pil_image(mode).mode == mode  # type: ignore[arg-type]

    def test_an_unknown_mode(self) -> None:
        """Says what there is."""
        with pytest.raises(ValueError, match="unknown image mode 'XYZ'; one of RGB, RGBA"):
            Image.from_bytes(png()).to_pil_image("XYZ")  # type: ignore[arg-type]

    @pytest.mark.parametrize("pixels", [5, 2])
    def test_too_many_pixels(self, monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
        """PIL's limit is an error at once, where PIL itself only warns up to twice as many."""
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", pixels)
        with pytest.raises(PIL.Image.DecompressionBombError):
            Image.from_bytes(png(size=(3, 2))).to_pil_image()

    def test_no_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A model may lift it."""
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
        assert Image.from_bytes(png(size=(3, 2))).to_pil_image().size == (3, 2)

    def test_what_is_no_picture(self) -> None:
        """PIL's own error."""
        with pytest.raises(PIL.UnidentifiedImageError):
            Image.from_bytes(b"words").to_pil_image()


class TestMaskedImage:
    """A picture and its mask."""

    def test_the_mask_is_black_and_white(self) -> None:
        """Whatever is not 0 is 255; colours count by their brightness."""
        mask = PIL.Image.new("L", (2, 2), 0)
        mask.putpixel((1, 1), 1)
        masked = MaskedImage(image=Image.from_bytes(png()), mask=Image.from_pil_image(mask))
        made = masked.mask.to_pil_image("L")
        assert sorted(made.getdata() if not hasattr(made, "get_flattened_data") else made.get_flattened_data()) == [0, 0, 0, 255]

    @pytest.mark.parametrize(
        ("image", "mask", "fields"),
        [
            (b"no picture", png("L"), ["image"]),
            (png(), b"no picture", ["mask"]),
            (b"", b"", ["image", "mask"]),
            (png()[:40], png("L"), ["image"]),
            (png(), png("L", (3, 3)), ["mask"]),
        ],
    )
    def test_what_cannot_be_a_masked_image(self, image: bytes, mask: bytes, fields: list[str]) -> None:
        """Each part that is wrong is a fault of its own."""
        with pytest.raises(ValidationError) as caught:
            MaskedImage(image=Image.from_bytes(image), mask=Image.from_bytes(mask))
        assert [fault["loc"][-1] for fault in caught.value.errors()] == fields

    def test_a_bomb_is_a_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not an exception of PIL's."""
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1)
        with pytest.raises(ValidationError, match="DecompressionBombError"):
            MaskedImage(image=Image.from_bytes(png()), mask=Image.from_bytes(png("L")))

    def test_the_picture_is_assigned_before_its_mask(self) -> None:
        """So only the mask is compared."""
        masked = MaskedImage(image=Image.from_bytes(png()), mask=Image.from_bytes(png("L")))
        masked.image = Image.from_bytes(png(size=(4, 4)))
        with pytest.raises(ValidationError, match="Mask size"):
            masked.mask = Image.from_bytes(png("L"))
        masked.mask = Image.from_bytes(png("L", (4, 4)))
        assert masked.mask.to_pil_image().size == (4, 4)
