"""The start-up shim: several programs listen on port 5000 of one network at once, and each has /output and /input of its own. Real programs."""

import json
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.jobs_inside import HTTP, command, inside, oldest_python

each_python = pytest.mark.parametrize("python", sorted({sys.executable, oldest_python()}))


def told(folder: Path, code: str, **orders: Any) -> Any:
    """What a program prints, as JSON."""
    end = command(folder, dedent(code), **{"port": 0, **orders})
    assert (end["how"], end["code"]) == ("exit", 0), (folder / "log").read_text()
    return json.loads((folder / "log").read_text())


@each_python
def test_two_programs_on_one_port(tmp_path: Path, python: str) -> None:
    """Neither knows of it (F10)."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    code = HTTP + dedent("""
        def get(self):
            self.answer(200, f"{os.path.basename(os.path.dirname(os.getcwd()))} {self.connection.getsockname()[1]}".encode())
        App.do_GET = get
    """)
    with inside(folders[0], code + "serve()", python=python) as one, inside(folders[1], code + "serve()", python=python) as two:
        for job, name in ((one, b"one"), (two, b"two")):
            job.ready()
            assert job.permit().get().endswith(b"\r\n\r\n" + name + b" 5000")


@each_python
@pytest.mark.parametrize(
    ("family", "bound", "reached"),
    [
        ("AF_INET", "0.0.0.0", "127.0.0.1"),
        ("AF_INET", "", "localhost"),
        ("AF_INET", "127.0.0.1", "127.0.0.1"),
        ("AF_INET", "192.0.2.1", "127.0.0.2"),
        ("AF_INET6", "::", "::1"),
    ],
)
def test_a_program_sees_port_5000(tmp_path: Path, python: str, family: str, bound: str, reached: str) -> None:
    """Both ends of its own connections say so; it listens on the loopback only, whatever it has asked for."""
    found = told(
        tmp_path,
        f"""
        import json, os, socket
        server = socket.socket(socket.{family}); server.bind(({bound!r}, 5000)); server.listen()
        client = socket.create_connection(({reached!r}, 5000)); there, peer = server.accept()
        other = socket.socket(socket.{family}); again = other.connect_ex(({reached!r}, 5000))
        names = [s.getsockname()[1] for s in (server, there)] + [client.getpeername()[1], other.getpeername()[1]]
        print(json.dumps([names, again, server.getsockname()[0], client.getsockname()[1] == peer[1]]))
        """,
        python=python,
    )
    assert found == [[5000] * 4, 0, "::1" if family == "AF_INET6" else "127.0.0.1", True]


def test_other_ports_and_sockets_are_left_alone(tmp_path: Path) -> None:
    """Also port 5000 of other machines, and addresses that are none."""
    found = told(
        tmp_path,
        """
        import json, os, socket, asyncio
        server = socket.create_server(("127.0.0.1", 0)); port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port))
        unix = socket.socket(socket.AF_UNIX); unix.bind("s"); unix.listen()
        socket.socket(socket.AF_UNIX).connect("s")
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.connect(("192.0.2.1", 5000))
        wrong = []
        for address in ("127.0.0.1", ("127.0.0.1",), (5000, 5000), ("127.0.0.1", "5000"), None):
            try: socket.socket().bind(address)
            except (TypeError, OSError) as error: wrong.append(type(error).__name__)
        print(json.dumps([port != 5000, unix.getsockname(), udp.getpeername(), wrong]))
        """,
    )
    assert found == [True, "s", ["192.0.2.1", 5000], ["TypeError"] * 5]


def test_asyncio_is_moved_too(tmp_path: Path) -> None:
    """And its processes, which inherit the shim."""
    code = """
    import asyncio, os
    async def answer(reader, writer):
        line = await reader.readline()
        writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + line.split()[1]); await writer.drain(); writer.close()
    async def main():
        async with await asyncio.start_server(answer, "0.0.0.0", 5000) as server:
            await server.serve_forever()
    asyncio.run(main())
    """
    wrapper = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {dedent(code)!r}])"
    with inside(tmp_path, wrapper) as job:
        job.ready()
        assert job.permit().get("/async").endswith(b"/async")


# --- paths ---

EVERYTHING = """
import glob, io, json, os, pathlib, shutil, tempfile
found = {}
def seen(name, value): found[name] = value
open("/output/a", "w").write("A")
io.open(b"/output/b", "wb").write(b"B")
pathlib.Path("/output/c").write_text("C")
with os.fdopen(os.open("/output/d", os.O_CREAT | os.O_WRONLY), "w") as file: file.write("D")
seen("listed", sorted(os.listdir("/output")))
seen("listed bytes", sorted(n.decode() for n in os.listdir(b"/output/")))
seen("scanned", sorted(e.name for e in os.scandir(pathlib.Path("/output"))))
seen("globbed", [sorted(glob.glob("/output/*")), sorted(map(str, pathlib.Path("/output").glob("?")))])
os.makedirs("/output/x/y", exist_ok=True); os.mkdir("/output/x/z")
os.rename("/output/a", "/output/x/a"); os.replace("/output/b", "x"); shutil.move("x", "/output/x/y/b")
with os.scandir(b"/output/x") as entries:
    seen("entries", sorted([e.path.decode(), e.is_dir(), os.fspath(e) == e.path, e.stat().st_size > 0, repr(e)[:9]] for e in entries))
seen("plain", [type(next(os.scandir("/"))).__name__, next(os.scandir()).path[:2]])
seen("walked", sorted((top, sorted(files)) for top, folders, files in os.walk("/output")))
seen("exists", [os.path.exists(p) for p in ("/output/a", "/output/x/a", "/output", "/outputs", "/output/../output/x/./a", "//output/x")])
seen("kinds", [os.path.isdir("/output/x"), os.path.isfile("/output/x/a"), pathlib.Path("/output/x/y/b").is_file(), os.access("/output", os.W_OK)])
seen("size", [os.path.getsize("/output/x/a"), os.stat("/output/x/y/b").st_size, pathlib.Path("/output/c").stat().st_size])
os.symlink("/output/c", "/output/link"); seen("linked", os.path.islink("/output/link"))
shutil.copytree("/output/x", "/output/copy"); shutil.rmtree("/output/copy"); os.remove("/output/d"); os.unlink("/output/link")
seen("left", sorted(os.listdir("/output")))
seen("input", [open("/input/data.txt").read(), open("/floyd/input/input/data.txt").read(), os.path.exists("/input/none")])
with tempfile.NamedTemporaryFile(dir="/output") as file: seen("temporary", len(os.listdir("/output")))
os.chdir("/output/x"); seen("inside", sorted(os.listdir(".")))
seen("home", os.path.isfile("/floyd/home/app.txt"))
try: open("/output/none/none")
except FileNotFoundError: seen("missing", True)
print(json.dumps(found))
"""


@each_python
def test_paths_are_mapped(tmp_path: Path, python: str) -> None:
    """Through all the ways that Python's own libraries open, list, move and look at files (F17, F19)."""
    for name in ("output", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "data.txt").write_text("data")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "app.txt").touch()
    data = str(tmp_path / "data")
    paths = {"/output": str(tmp_path / "output"), "/floyd/home": str(tmp_path / "home"), "/input": data, "/floyd/input/input": data}
    found = told(tmp_path, EVERYTHING, python=python, paths=paths)
    assert found.pop("listed") == found.pop("listed bytes") == found.pop("scanned") == ["a", "b", "c", "d"]
    assert found.pop("globbed") == [[f"/output/{n}" for n in "abcd"]] * 2
    assert found.pop("walked") == [["/output", ["c", "d"]], ["/output/x", ["a"]], ["/output/x/y", ["b"]], ["/output/x/z", []]]
    assert found.pop("entries") == [[f"/output/x/{n}", n != "a", True, True, "<DirEntry"] for n in "ayz"]
    assert found.pop("plain") == ["DirEntry", "./"]
    assert found.pop("exists") == [False, True, True, False, True, True]
    assert found == {
        "kinds": [True] * 4,
        "size": [1, 1, 1],
        "linked": True,
        "left": ["c", "x"],
        "input": ["data", "data", False],
        "temporary": 3,
        "inside": ["a", "y", "z"] if found["inside"] == ["a", "y", "z"] else found["inside"],
        "home": True,
        "missing": True,
    }
    assert sorted(found["inside"]) == ["a", "y", "z"]
    assert (tmp_path / "output" / "x" / "y" / "b").read_text() == "B"
    assert (tmp_path / "output" / "c").read_text() == "C"


@each_python
def test_data_is_read_only(tmp_path: Path, python: str) -> None:
    """As it is where it is mounted: several jobs read one copy. What is a job's own is not."""
    for name in ("data", "output"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "a").write_text("data")
    found = told(
        tmp_path,
        """
        import errno, json, os, pathlib, shutil
        def tried(function, *arguments, **named):
            try: function(*arguments, **named)
            except OSError as error: return errno.errorcode[error.errno]
            return "done"
        changes = [(open, "/input/new", "w"), (open, "/input/a", "r+"), (os.open, "/input/a", os.O_WRONLY), (os.mkdir, "/input/x"),
                   (os.remove, b"/input/a"), (os.rename, "/input/a", "/output/a"), (os.rename, "/output/a", "/input/b"),
                   (os.symlink, "/output", "/input/link"), (os.makedirs, "/input/x/y"), (pathlib.Path("/input/new").write_text, ""),
                   (os.utime, "/input/a"), (shutil.move, "/input/a", "/output/a")]
        reads = [(open, "/input/a"), (os.open, "/input/a", os.O_RDONLY), (os.stat, "/input/a"), (shutil.copy, "/input/a", "/output/a"),
                 (os.replace, "/output/a", "/output/b"), (open, "/output/c", "x"), (os.symlink, "/input/a", "/output/link")]
        named = [tried(open, file="/input/new", mode="a"), tried(os.open, path="/input/a", flags=os.O_RDWR),
                 tried(os.link, src="/output/c", dst="/input/c")]
        os.makedirs("/input", exist_ok=True)
        print(json.dumps([sorted({tried(*each) for each in changes}), named, [tried(*each) for each in reads]]))
        """,
        python=python,
        paths={"/input": str(tmp_path / "data"), "/output": str(tmp_path / "output")},
    )
    assert found == [["EROFS"], ["EROFS"] * 3, ["done"] * 7]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a"]
    assert (tmp_path / "data" / "a").read_text() == "data"


@each_python
def test_folders_at_the_top(tmp_path: Path, python: str) -> None:
    """Those that the machine does not have are a job's own; those that it has are what they are."""
    (tmp_path / "top").mkdir()
    found = told(
        tmp_path,
        """
        import json, os
        os.makedirs("/eval/pictures")
        with open("/eval/pictures/one", "w") as file: file.write("1")
        os.chdir("/eval")
        print(json.dumps([os.listdir("/eval"), os.path.getsize("/eval/pictures/one"), os.path.exists("/none/of"), "usr" in os.listdir("/"),
                          os.path.isdir("/proc/self"), os.path.exists("/etc/passwd"), os.path.exists("/output/kept")]))
        """,
        python=python,
        paths={"/": str(tmp_path / "top"), "/output": str(tmp_path)},
    )
    assert found == [["pictures"], 1, False, True, True, True, False]
    assert (tmp_path / "top" / "eval" / "pictures" / "one").read_text() == "1"


def test_nothing_is_changed_without_need(tmp_path: Path) -> None:
    """A job with its own network and files runs Python as it is."""
    code = "import json, os; print(json.dumps([type(open).__name__, type(os.stat).__name__, os.environ.get('PYTHONPATH')]))"
    assert told(tmp_path, code, port=5000) == ["builtin_function_or_method", "builtin_function_or_method", None]


@each_python
def test_another_sitecustomize_is_run(tmp_path: Path, python: str) -> None:
    """One on the program's own path, as if the shim were not there; it is found under its name."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import os\nwas = os.path.exists('/output')\nname = __name__\n")
    found = told(
        tmp_path,
        "import json, sitecustomize, sys; print(json.dumps([sitecustomize.was, sitecustomize.name, [p for p in sys.path if 'shim' in p]]))",
        python=python,
        environ={"PYTHONPATH": str(folder)},
        paths={"/output": str(tmp_path)},
    )
    assert found == [True, "sitecustomize", []]
