"""Files on their way, and how much of them is done: what breaks, what is hostile, what a terminal shows."""

import io
import os
import pty
import sys
import tarfile
import threading
from argparse import Namespace
from pathlib import Path

import pytest

from dragoman.cli.client import NoServerError
from dragoman.cli.jobs_api import Api, refused, somebody
from dragoman.cli.jobs_ignore import Found, code_files
from dragoman.cli.jobs_progress import progress, size
from dragoman.cli.jobs_transfer import fetch_file, fetch_folder, pack, send_code, send_data
from dragoman.core.errors import Kind, ServingError
from tests.fakes_floyd_server import State, version
from tests.ports import free_port


def api_at(url: str) -> Api:
    return Api(Namespace(url=url, key="k"))


@pytest.fixture
def api(server: State) -> Api:
    return api_at(os.environ["DRAGOMAN_URL"])


# --- sending ---


def test_a_file_that_becomes_shorter(place: Path, api: Api, server: State) -> None:
    """What was announced cannot be sent; the command says which file it was, and nothing is taken for whole."""
    (place / "big").write_bytes(bytes(100))
    (found,) = code_files(place)
    with pytest.raises(ServingError, match="'big' has become shorter"):
        send_code(api, [Found(found.path, found.name, 200)], b"{}")
    assert not server.code


def test_a_file_that_becomes_longer(place: Path, api: Api, server: State) -> None:
    """As much is sent as was announced."""
    (place / "log").write_bytes(b"one, two")
    (found,) = code_files(place)
    send_code(api, [Found(found.path, found.name, 3)], b"{}")
    assert server.code["code1"]["./log"] == b"one"


def test_a_file_that_is_gone(place: Path, api: Api) -> None:
    """It is an error of this machine, in a sentence."""
    with pytest.raises(ServingError, match="No such file"):
        send_code(api, [Found(place / "gone", "gone", 3)], b"{}")


def test_a_server_that_says_no_id(place: Path, api: Api, server: State) -> None:
    """Some other server's answer."""
    server.refuse["POST /api/v1/modules/"] = (200, {"hello": "world"})
    with pytest.raises(ServingError, match="is it a Dragoman server"):
        send_code(api, [], b"{}")


def test_many_files(place: Path, api: Api, server: State) -> None:
    """Thousands, without as many open at once."""
    for number in range(3000):
        (place / str(number)).write_text(str(number))
    send_code(api, code_files(place), b"{}")
    assert server.code["code1"] == {f"./{number}": str(number).encode() for number in range(3000)}


def test_packing(place: Path, tmp_path: Path) -> None:
    """Everything but what is to stay; links as links, modes as they are."""
    (place / "sub").mkdir()
    (place / "sub/run.sh").write_text("x")
    (place / "sub/run.sh").chmod(0o755)
    (place / "same").symlink_to("sub/run.sh")
    (place / ".floyddata").touch()
    assert pack(place, tmp_path / "a.tar.gz", (".floyddata",)) == 4
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert {member.name: (member.issym(), member.mode & 0o100) for member in tar if not member.isdir()} == {
            "./sub/run.sh": (False, 0o100), "./same": (True, 0o100),
        }  # fmt: skip


def test_packing_onto_nothing(place: Path) -> None:
    """A folder that is not there is named."""
    with pytest.raises(ServingError, match=r"cannot be packed: '.*nowhere"):
        pack(place, place / "nowhere/a.tar.gz")


def test_a_server_that_takes_no_more(place: Path, api: Api, server: State) -> None:
    """An offset that does not move ends the upload: it would never end itself."""
    server.data["ann/datasets/pics/1"] = version()
    server.uploads["u1"], server.lengths["u1"] = bytearray(), 50
    (place / "a").write_bytes(bytes(50))
    address = f"{api.url}/api/v1/upload/u1"
    server.refuse["PATCH /api/v1/upload/u1"] = (200, {})
    with pytest.raises(ServingError, match="is it a Dragoman server"):
        send_data(api, "data1", place / "a", address)
    server.refuse["PATCH /api/v1/upload/u1"] = (423, {"message": "busy"})
    with pytest.raises(ServingError, match="busy"):
        send_data(api, "data1", place / "a", address)


# --- fetching ---


def archive(*members: tarfile.TarInfo) -> dict[str, bytes]:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return {"": content.getvalue()}


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    return made


def test_what_an_archive_may_hold(place: Path, api: Api, server: State) -> None:
    """Files and folders; links and devices are left out; who may run a file still may, nobody else gets more."""
    server.files["res"] = archive(
        member("a/b", mode=0o4777), member("a/c"), member("empty", tarfile.DIRTYPE), member("link", tarfile.SYMTYPE, link="/etc/passwd"),
        member("device", tarfile.CHRTYPE),
    )  # fmt: skip
    assert fetch_folder(api, "/resources/res/?content=true", place) == 2
    assert sorted(each.name for each in place.iterdir()) == ["a", "empty"]
    assert (place / "a/b").stat().st_mode & 0o7777 == 0o755
    assert (place / "a/c").stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up"])
def test_archives_that_lead_out(place: Path, api: Api, server: State, name: str) -> None:
    """Refused as a whole."""
    server.files["res"] = archive(member("fine"), member(name))
    with pytest.raises(ServingError, match="the archive"):
        fetch_folder(api, "/resources/res/?content=true", place)
    assert not list(place.iterdir())


def test_a_link_that_lies_here_leads_nowhere_out(place: Path, api: Api, server: State, tmp_path: Path) -> None:
    """Files below a link that was here before are not written where it leads."""
    (place / "out").symlink_to(tmp_path)
    server.files["res"] = archive(member("out/x"))
    with pytest.raises(ServingError, match="leads out"):
        fetch_folder(api, "/resources/res/?content=true", place, replace=True)
    assert not (tmp_path / "x").exists()


def test_what_is_no_archive(place: Path, api: Api, server: State) -> None:
    """It is said."""
    server.files["res"] = {"": b"<html>"}
    with pytest.raises(ServingError, match="no archive"):
        fetch_folder(api, "/resources/res/?content=true", place)


def test_a_file_is_there_as_a_whole_or_not_at_all(place: Path, api: Api, server: State) -> None:
    """Nothing is left of a failure, and nothing is written over."""
    server.files["res"] = {"x": b"x"}
    with pytest.raises(ServingError):
        fetch_file(api, "/resources/res/y?content=true", place / "y")
    assert not list(place.iterdir())
    fetch_file(api, "/resources/res/x?content=true", place / "x")
    with pytest.raises(ServingError, match="not written over"):
        fetch_file(api, "/resources/res/x?content=true", place / "x")
    assert [each.name for each in place.iterdir()] == ["x"]


# --- asking ---


def test_no_server(place: Path) -> None:
    """Streams say it as other questions do."""
    api = api_at(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NoServerError, match="is `dragoman serve` running"):
        api.ask("GET", "/env")
    with pytest.raises(NoServerError), api.stream("GET", "/env"):
        pass


@pytest.mark.parametrize("url", ["ftp://host", "host:1", "http://"])
def test_no_address(place: Path, url: str) -> None:
    """Refused before anything is asked."""
    with pytest.raises(ServingError, match="--url") as caught, api_at(url).stream("GET", "/env"):
        pass
    assert caught.value.kind is Kind.INVALID_INPUT


def test_an_address_with_a_path(server: State) -> None:
    """A server behind a prefix is asked below it; a slash at the end changes nothing."""
    for ending in ("", "/"):
        with pytest.raises(ServingError), api_at(f"{os.environ['DRAGOMAN_URL']}/below{ending}").stream("GET", "/env"):
            pass
        assert server.asked[-1].path == "/below/api/v1/env"


@pytest.mark.parametrize(
    ("status", "answer", "kind", "text"),
    [
        (400, {"message": "no"}, Kind.INVALID_INPUT, "answers 400: no"),
        (404, {"error": {"message": "none"}}, Kind.NOT_FOUND, "none"),
        (409, {"error": "busy"}, Kind.CONFLICT, "busy"),
        (413, "<html>", Kind.TOO_LARGE, "<html>"),
        (401, {"message": "who"}, Kind.UNAUTHENTICATED, "dragoman login"),
        (502, None, Kind.UNAVAILABLE, "502"),
        (500, {"message": "x" * 5000}, Kind.UNAVAILABLE, "x" * 2000),
    ],
)
def test_refusals(status: int, answer: object, kind: Kind, text: str) -> None:
    """Each as a kind of its own, in the server's words, whatever form those have."""
    error = refused(status, answer)
    assert (error.kind, error.status) == (kind, status)
    assert text in error.message
    assert len(error.message) < 2200


def test_a_user_without_a_good_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's name on this machine is made one that a project can have."""
    for given, name in (("dom\\ann", "dom-ann"), ("ann.lee", "ann-lee"), ("é", "me")):
        monkeypatch.setenv("LOGNAME", given)
        assert somebody() == name


# --- showing ---


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB"), (9 << 40, "9.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    """For people."""
    assert size(count) == text


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows, says how much of what, and ends with its last state on a line of its own."""
    controller, terminal = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(controller, 1000):
                shown.append(piece)
        except OSError:  # the other end is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    with open(terminal, "w", encoding="utf-8") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", file)
        with progress("Uploading", 2048, 512) as bar:
            for _ in range(3):
                bar.add(512)
        with progress("Downloading") as unknown:
            unknown.add(700)
    reader.join(10)
    os.close(controller)
    text = b"".join(shown).decode()
    assert "Uploading [========" in text
    assert f"[{'=' * 32}] 2.0 KiB of 2.0 KiB\r\n" in text
    assert text.endswith("] 700 B\r\n")


def test_no_bar_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """A log file is spared it."""
    with progress("Uploading", 10) as bar:
        bar.add(10)
    assert capsys.readouterr().err == ""
