"""What a job finds around it, and what it must not find: said by a program inside, with every isolation that this machine allows."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dragoman.engines.jobs.allowed import Isolation
from dragoman.engines.jobs.orders import places
from dragoman.engines.jobs.sandbox import bubble_of
from tests.jobs import RefusedError, Server, Setting, installed, job_folder, own_folder, settings

_PROGRAM = Path(__file__).parents[1] / "job_report.py"
_FORBIDDEN = (
    "/input/new.txt", "/input/file.txt", "/floyd/input/input/new.txt", "/usr/new.txt", "/etc/passwd", "/dev/new.txt", "/proc/version",
)  # fmt: skip


@dataclass(frozen=True)
class Inside:
    """A report, and what it is about."""

    setting: Setting
    folder: Path
    other: Path
    """The folder of another job."""
    port: int
    """Something of the machine listens here, on loopback."""
    said: dict[str, Any]

    def read(self, path: Path | str) -> Any:
        return self.said["read"][str(path)]

    def write(self, path: Path | str) -> Any:
        return self.said["write"][str(path)]


def reported(server: Server, setting: Setting, root: Path, name: str, look: dict[str, Any], **asked: Any) -> dict[str, Any]:
    folder = job_folder(setting, root, name, _PROGRAM.read_text())
    told = {"read": [], "write": [], "list": [], "reach": [], **look, "contained": setting.contained}
    (folder / "home" / "look.json").write_text(json.dumps(told, default=str))
    server.launch(folder, **asked)
    end = server.ask("ended", folder=folder)
    assert end["how"] == "exit", end
    assert end["code"] == 0, (folder / "log").read_text()
    report: dict[str, Any] = json.loads((folder / "output" / "report.json").read_text())
    return report


@pytest.fixture(scope="module", params=settings(), ids=lambda setting: setting.name)
def inside(request: pytest.FixtureRequest) -> Iterator[Inside]:
    """What a job reports that has two data sets and a network."""
    setting: Setting = request.param
    with own_folder(setting) as root, socket.create_server(("127.0.0.1", 0)) as listener:
        (root / "secret.key").write_text("secret")
        data, more = root / "data", root / "more"
        for folder in (data, more):
            folder.mkdir()
            (folder / "file.txt").write_text(f"of {folder.name}")
        other = job_folder(setting, root, "other", "")
        port = listener.getsockname()[1]
        folder = root / "job"
        look = {
            "read": [
                "/input/file.txt", "/floyd/input/input/file.txt", "/floyd/input/usr/file.txt", "/etc/shadow", "/etc/passwd", "/etc/resolv.conf",
                root / "secret.key", folder / "start.json", folder / "log", other / "home" / "app.py",
            ],
            "write": [
                "/output/a.txt", "/floyd/output/b.txt", "/floyd/home/c.txt", "d.txt", "/new-at-the-top.txt",
                *(_FORBIDDEN if setting.contained else ()),
            ],
            "list": ["/", "/input", "/floyd/input/input", "/output", "/home", "/root", "/tmp", "/usr/bin", "/run"],
            "reach": [("127.0.0.1", port), ("10.0.2.2", port)],
        }  # fmt: skip
        server = Server(setting, {"SECRET_OF_SERVER": "x", "DRAGOMAN_KEYS": "x", "PYTHONUSERBASE": "x", "LD_LIBRARY_PATH": "/x"})
        try:
            said = reported(server, setting, root, "job", look, mounts={"input": data, "usr": more}, environ={"GIVEN": "yes"})
            yield Inside(setting, folder, other, port, said)
        finally:
            server.close()


def test_its_code_is_where_it_works(inside: Inside) -> None:
    """Working directory and HOME are the folder of the code, which the program may write to (F9)."""
    home = "/floyd/home" if inside.setting.contained else str(inside.folder / "home")
    assert inside.said["cwd"] == home
    assert inside.said["environ"]["HOME"] == home
    assert inside.write("d.txt") == ["ok", "written"]
    assert inside.write("/floyd/home/c.txt") == ["ok", "written"]
    assert {path.name for path in (inside.folder / "home").iterdir()} >= {"app.py", "c.txt", "d.txt"}


def test_it_has_an_output_folder(inside: Inside) -> None:
    """/output and /floyd/output are the same folder, which is kept (F19)."""
    assert inside.write("/output/a.txt") == ["ok", "written"]
    assert inside.write("/floyd/output/b.txt") == ["ok", "written"]
    assert {path.name for path in (inside.folder / "output").iterdir()} == {"a.txt", "b.txt", "report.json"}


def test_data_is_under_both_names(inside: Inside) -> None:
    """A data set is at /NAME and at /floyd/input/NAME (F17)."""
    assert inside.read("/input/file.txt") == inside.read("/floyd/input/input/file.txt") == ["ok", "of data"]
    assert inside.said["list"]["/input"] == inside.said["list"]["/floyd/input/input"] == ["ok", ["file.txt"]]


def test_data_hides_nothing_of_the_system(inside: Inside) -> None:
    """A data set mounted as `usr` is below /floyd/input only: programs still run."""
    assert inside.read("/floyd/input/usr/file.txt") == ["ok", "of more"]
    assert "file.txt" not in inside.said["list"]["/usr/bin"][1]


def test_its_environment_is_its_own(inside: Inside) -> None:
    """FLOYDHUB is 1, what was given is there, and nothing that the server has in its environment (F19)."""
    environ = inside.said["environ"]
    assert environ["FLOYDHUB"] == "1"
    assert environ["GIVEN"] == "yes"
    assert environ["PORT"] == "5000"
    assert not {"SECRET_OF_SERVER", "DRAGOMAN_KEYS", "PYTHONUSERBASE", "LD_LIBRARY_PATH"} & environ.keys()
    assert {*environ} <= {
        "FLOYDHUB", "GIVEN", "PORT", "PATH", "HOME", "PWD", "_", "USER", "LOGNAME", "SHELL", "LANG", "LC_CTYPE", "TMPDIR",
        "PYTHONUNBUFFERED", "DRAGOMAN_JOB", "PYTHONPATH", "DRAGOMAN_JOB_SHIM",
    }, sorted(environ)  # fmt: skip


def test_python_is_that_of_the_job(inside: Inside) -> None:
    """`python` is found on the PATH, and is the interpreter that the start names."""
    assert inside.said["python"] == inside.said["prefix"]


def test_it_has_no_terminal(inside: Inside) -> None:
    """Nothing of the server's terminal can be written to, and no descriptor of the server's is open."""
    assert inside.said["terminal"][0] != "ok"
    assert len(inside.said["descriptors"]) <= 6


def test_nothing_of_the_machine_is_visible(inside: Inside) -> None:
    """Neither keys nor the store nor other jobs, nor even what the server keeps of this one; no home directories, no passwords."""
    if not inside.setting.contained:
        return
    for path in (
        inside.folder.parent / "secret.key",
        inside.folder / "start.json",
        inside.folder / "log",
        inside.other / "home" / "app.py",
        "/etc/shadow",
    ):
        assert inside.read(path)[0] == "FileNotFoundError", path
    users = [line.split(":")[0] for line in inside.read("/etc/passwd")[1].splitlines()]
    assert users == ["root", "floyd", "nobody"]
    top = set(inside.said["list"]["/"][1])
    assert top <= {
        "usr",
        "bin",
        "sbin",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "etc",
        "dev",
        "proc",
        "run",
        "tmp",
        "var",
        "sys",
        "floyd",
        "output",
        "input",
        "root",
        "new-at-the-top.txt",
    }
    assert inside.said["list"]["/home"][0] == "FileNotFoundError"
    assert inside.said["list"]["/tmp"] == ["ok", []]
    assert inside.said["list"]["/run"] == ["ok", ["dragoman"]]


def test_it_makes_folders_at_the_top(inside: Inside) -> None:
    """FloydHub's mnist sample keeps what it is sent in /eval. It is a job's own, and for one start."""
    assert inside.write("/new-at-the-top.txt") == ["ok", "written"]
    assert (inside.folder / "root" / "new-at-the-top.txt").read_text() == "written"
    assert not Path("/new-at-the-top.txt").exists()


def test_it_writes_nowhere_else(inside: Inside) -> None:
    """The system and the data are read-only."""
    if not inside.setting.contained:
        return
    for path in _FORBIDDEN:
        assert inside.write(path)[0] != "ok", path


def test_it_cannot_turn_the_knobs_of_the_machine(inside: Inside) -> None:
    """No file of /proc that is the machine's can be opened for writing, also when the server is root."""
    assert inside.said["knobs"] == []


def test_it_has_no_privileges(inside: Inside) -> None:
    """No capability, not even to be had; and no further user namespace, where it would have them all."""
    if not inside.setting.contained:
        return
    assert {int(each, 16) for each in inside.said["capabilities"]} == {0}
    assert inside.said["own namespace"] is False


def test_it_sees_its_own_processes_only(inside: Inside) -> None:
    """Its first process is number 1, and nobody else's are there."""
    if not inside.setting.contained:
        return
    assert 1 in inside.said["processes"]
    assert len(inside.said["processes"]) <= 3


def test_shared_memory_is_bounded(inside: Inside) -> None:
    """/dev/shm is a job's own, and not larger than what the machine can spare."""
    if inside.setting.contained:
        assert inside.said["shared memory"] <= 1 << 30


def test_loopback_is_its_own(inside: Inside) -> None:
    """With a network of its own a job does not reach what listens on the machine's loopback, by no name."""
    reached = {name: result[0] == "ok" for name, result in inside.said["reach"].items()}
    if inside.setting.kind == "whole":
        assert reached == {f"127.0.0.1:{inside.port}": False, f"10.0.2.2:{inside.port}": False}
        assert sorted(inside.said["interfaces"]) == ["lo", "tap0"]
        assert inside.read("/etc/resolv.conf") == ["ok", "nameserver 10.0.2.3\n"]
    else:
        assert reached[f"127.0.0.1:{inside.port}"]


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.name)
def test_data_beside_the_server(setting: Setting) -> None:
    """Data that is mounted under the name of the folder that the server keeps its things in is there, and the program still runs."""
    with own_folder(setting) as root:
        data = root / "data"
        (data / "deep").mkdir(parents=True)
        (data / "deep" / "file.txt").write_text("deep")
        top = _PROGRAM.parts[1]
        server = Server(setting)
        try:
            look = {"read": [*(f"{at}/deep/file.txt" for at in places(top)), _PROGRAM]}
            readable = [*installed(setting), _PROGRAM.parent]
            said = reported(server, setting, root, "beside", look, mounts={top: data}, readable=readable)
            assert [result[0] for result in said["read"].values()] == ["ok"] * (len(places(top)) + 1)
        finally:
            server.close()


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.name)
def test_without_a_network(setting: Setting) -> None:
    """A job that is to have no network has loopback alone; where that cannot be had it is not started."""
    with own_folder(setting) as root, socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(setting)
        try:
            look = {"reach": [listener.getsockname()[:2], ("192.0.2.1", 80)], "read": ["/etc/resolv.conf"]}
            if setting.alone:
                said = reported(server, setting, root, "alone", look, network=False)
                assert said["interfaces"] == ["lo"]
                assert [result[0] == "ok" for result in said["reach"].values()] == [False, False]
                assert said["read"]["/etc/resolv.conf"] == ["ok", ""]
            else:
                with pytest.raises(RefusedError, match="job 'alone' is to have no network: this machine does not allow"):
                    reported(server, setting, root, "alone", look, network=False)
                assert not (root / "alone" / "start.json").exists()
        finally:
            server.close()


@pytest.mark.parametrize("setting", [s for s in settings() if s.kind == "whole"], ids=lambda setting: setting.name)
def test_the_way_out(setting: Setting) -> None:
    """A job with a network reaches what the machine reaches, by its way out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("198.51.100.1", 9))  # sends nothing: it says which of its addresses this machine would take
            address = asking.getsockname()[0]
        except OSError:
            return  # a machine without any network
    with own_folder(setting) as root, socket.create_server((address, 0)) as listener:
        server = Server(setting)
        try:
            said = reported(server, setting, root, "out", {"reach": [listener.getsockname()[:2]]})
            assert list(said["reach"].values()) == [["ok", None]]
        finally:
            server.close()


def test_a_server_in_the_system_is_hidden(tmp_path: Path) -> None:
    """A data directory below a folder that jobs see, such as /usr/local, is covered."""
    hidden = Path("/usr/local/dragoman")
    arguments = bubble_of(Isolation("bwrap", hidden=(hidden, tmp_path)), ("true",)).arguments
    at = arguments.index(str(hidden))
    assert arguments[at - 1] == "--tmpfs"
    assert arguments.index("/usr") < at
    assert str(tmp_path) not in arguments
