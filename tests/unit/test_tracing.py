"""Traces of requests: which are taken, what they say, and files that are whole after every write."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.model import Timings
from dragoman.serving import trace_files, tracing
from dragoman.serving.live_settings import LiveSettings
from dragoman.serving.trace_files import append, number
from dragoman.serving.trace_settings import TraceSettings
from dragoman.serving.tracing import Tracer

NAMES = ["REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END", "REQUEST_END"]


class Site:
    """A tracer, its settings and its folder."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.folder = root / "data" / "traces"
        self.settings = TraceSettings()
        self.tracer = Tracer(self.settings, self.folder)
        self.settings.update({"trace_level": "TIMESTAMPS", "trace_rate": "1", **settings})

    def ask(self, times: int = 1, model: str = "m") -> int:
        """Answer some requests; returns how many were traced."""
        return sum(self.tracer.sample(model, "1", "", 0, 10, Timings()) for _ in range(times))

    def flush(self, *, everything: bool = False) -> None:
        self.tracer.write(self.tracer.take(everything=everything))

    def traces(self, name: str = "trace.json") -> list[dict[str, Any]]:
        return json.loads((self.folder / name).read_text())  # type: ignore[no-any-return]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []


def test_nothing_is_traced_unless_asked(tmp_path: Path) -> None:
    """At start the tracer is inactive, and makes no folder."""
    tracer = Tracer(TraceSettings(), tmp_path / "traces")
    assert not tracer.active
    assert not tracer.sample("m", "1", "", 0, 1, Timings())
    tracer.write(tracer.take(everything=True))
    assert not list(tmp_path.iterdir())


def test_what_a_trace_says(tmp_path: Path) -> None:
    """Model, version, request id, and the moments in order: stages laid end to end from the start."""
    site = Site(tmp_path)
    assert site.tracer.sample("iris", "3", "abc", 1_000, 2_000, Timings(100, 20, 300, 40))
    site.flush()
    (trace,) = site.traces()
    assert {k: v for k, v in trace.items() if k != "timestamps"} == {
        "id": 1, "model_name": "iris", "model_version": 3, "request_id": "abc",
    }  # fmt: skip
    assert [t["name"] for t in trace["timestamps"]] == NAMES
    assert [t["ns"] for t in trace["timestamps"]] == [1_000, 1_000, 1_100, 1_120, 1_420, 1_460, 2_000]


def test_a_version_that_is_no_number_stays_text(tmp_path: Path) -> None:
    """And a request without an id has no field for it."""
    site = Site(tmp_path)
    site.tracer.sample("m", "v1", "", 0, 1, Timings())
    site.flush()
    (trace,) = site.traces()
    assert trace["model_version"] == "v1"
    assert "request_id" not in trace


def test_moments_never_go_back(tmp_path: Path) -> None:
    """Clocks that were read in another order do not make a trace that ends before its model did."""
    site = Site(tmp_path)
    site.tracer.sample("m", "1", "", 100, 150, Timings(10, 10, 50, 10))
    site.flush()
    moments = [t["ns"] for t in site.traces()[0]["timestamps"]]
    assert moments == sorted(moments)


@pytest.mark.parametrize(("rate", "expected"), [("1", 12), ("4", 3), ("5", 2), ("13", 0)])
def test_every_so_many_are_traced(tmp_path: Path, rate: str, expected: int) -> None:
    """The rate-th request is the first."""
    assert Site(tmp_path, trace_rate=rate).ask(12) == expected


def test_the_count_ends_it(tmp_path: Path) -> None:
    """After the last one the tracer costs nothing again, and a new count starts it again."""
    site = Site(tmp_path, trace_count="3")
    assert site.ask(10) == 3
    assert not site.tracer.active
    site.settings.update({"trace_count": "1"})
    assert site.ask(10) == 1


def test_only_the_model_that_was_asked_for(tmp_path: Path) -> None:
    """A model's own settings make the tracer look, and leave other models alone."""
    site = Site(tmp_path, trace_level="OFF")
    assert not site.tracer.active
    site.settings.update({"trace_level": "TIMESTAMPS"}, "traced")
    assert site.tracer.active
    assert (site.ask(3, "traced"), site.ask(3, "other")) == (3, 0)


def test_models_are_counted_apart(tmp_path: Path) -> None:
    """Requests of a model with settings of its own do not bring the turn of others nearer."""
    site = Site(tmp_path, trace_rate="2")
    site.settings.update({"trace_rate": "3"}, "own")
    assert (site.ask(1), site.ask(2, "own"), site.ask(1), site.ask(1, "own")) == (0, 0, 1, 1)


def test_a_change_of_one_scope_keeps_the_counting_of_others(tmp_path: Path) -> None:
    """What has been counted towards the next trace is not lost."""
    site = Site(tmp_path, trace_rate="3")
    site.ask(2)
    site.settings.update({"trace_rate": "9"}, "own")
    assert site.ask(1) == 1


def test_a_file_grows_and_stays_a_list(tmp_path: Path) -> None:
    """Each flush adds, none overwrites, and ids go up."""
    site = Site(tmp_path)
    for total in (2, 4, 6):
        site.ask(2)
        site.flush()
        assert [t["id"] for t in site.traces()] == list(range(1, total + 1))
    assert site.files() == ["trace.json"]


def test_numbered_files_have_their_portions(tmp_path: Path) -> None:
    """Full portions are written, the rest waits for more or for the end."""
    site = Site(tmp_path, log_frequency="3")
    site.ask(7)
    site.flush()
    assert {name: len(site.traces(name)) for name in site.files()} == {"trace.json.0": 3, "trace.json.1": 3}
    site.flush(everything=True)
    assert {name: len(site.traces(name)) for name in site.files()} == {"trace.json.0": 3, "trace.json.1": 3, "trace.json.2": 1}


def test_a_change_of_settings_writes_what_waits(tmp_path: Path) -> None:
    """Traces that were taken for one file do not wait for a portion that will never be full; taking traces is no such change."""
    site = Site(tmp_path, log_frequency="3", trace_count="100")
    site.flush()
    site.ask(2)
    site.flush()
    assert site.files() == []
    site.settings.update({"trace_file": "other.json", "log_frequency": "0"})
    site.ask(1)
    site.flush()
    assert site.files() == ["other.json", "trace.json.0"]
    assert len(site.traces("trace.json.0")) == 2


def test_what_waits_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Traces that nobody writes do not fill the memory; how many were dropped is said once."""
    site = Site(tmp_path)
    assert site.ask(tracing.MOST_WAITING + 5) == tracing.MOST_WAITING
    assert len(site.tracer.take()[0][2]) == tracing.MOST_WAITING
    assert "5 traces were dropped" in caplog.text
    assert site.ask(1) == 1


def test_the_folder_is_for_the_server_alone(tmp_path: Path) -> None:
    """Requests of others are in there."""
    site = Site(tmp_path)
    site.ask()
    site.flush()
    assert site.folder.stat().st_mode & 0o777 == 0o700
    assert (site.folder / "trace.json").stat().st_mode & 0o777 == 0o600


def test_a_link_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A name that leads out of the folder is an error in the log, and the file there stays as it was."""
    site = Site(tmp_path)
    site.folder.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (site.folder / "trace.json").symlink_to(outside)
    site.ask()
    site.flush()
    assert outside.read_text() == "mine"
    assert "could not be written to trace.json" in caplog.text


@pytest.mark.parametrize("content", [b"x", b"[", b"[]", b"some text\n", b'[\n{"id": 1}'])
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """Only what ends as a list of traces is added to."""
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    with pytest.raises(OSError, match="does not end"):
        append(path, [{"id": 1}])
    assert path.read_bytes() == content


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """Something that is not a plain file is refused, and does not block."""
    os.mkfifo(tmp_path / "trace.json")
    with pytest.raises(OSError, match="plain file"):
        append(tmp_path / "trace.json", [{"id": 1}])


def test_a_file_has_an_end(tmp_path: Path) -> None:
    """Tracing does not fill a disk: what would go beyond the limit is refused, what is there stays."""
    path = tmp_path / "trace.json"
    append(path, [{"id": 1}])
    tail = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(trace_files.MOST_BYTES - 10)
        file.seek(-len(b"\n]\n"), os.SEEK_END)
        file.write(b"\n]\n")
    with pytest.raises(OSError, match="256 MiB"):
        append(path, [{"id": 2}])
    assert path.read_bytes()[: len(tail) - 3] == tail[:-3]


def test_numbered_files_have_an_end(tmp_path: Path) -> None:
    """After a thousand no more are made, and none is overwritten."""
    for index in range(trace_files.MOST_FILES):
        (tmp_path / f"t.{index}").touch()
    with pytest.raises(OSError, match="1000 files"):
        number(tmp_path / "t", [{"id": 1}])
    (tmp_path / "t.500").unlink()
    number(tmp_path / "t", [{"id": 1}])
    assert json.loads((tmp_path / "t.500").read_text()) == [{"id": 1}]


def write_many(path: Path, worker: int) -> None:
    for index in range(30):
        append(path, [{"worker": worker, "index": index}, {"worker": worker, "index": index}])


def test_workers_write_the_same_file(tmp_path: Path) -> None:
    """Three processes at once: everything is there, in a list, and each one's in its order."""
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "trace.json"
    processes = [context.Process(target=write_many, args=(path, worker)) for worker in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    traces = json.loads(path.read_text())
    assert len(traces) == 180
    for worker in range(3):
        assert [t["index"] for t in traces if t["worker"] == worker] == [i for i in range(30) for _ in range(2)]


def test_ids_differ_between_workers(tmp_path: Path) -> None:
    """Two workers that share a file never share an id."""
    ids = set()
    for worker in (1, 2):
        settings = TraceSettings(LiveSettings(tmp_path))
        tracer = Tracer(settings, tmp_path / "traces", worker)
        settings.update({"trace_level": "TIMESTAMPS", "trace_rate": "1"})
        for _ in range(5):
            tracer.sample("m", "1", "", 0, 1, Timings())
        tracer.write(tracer.take())
    ids = {trace["id"] for trace in json.loads((tmp_path / "traces" / "trace.json").read_text())}
    assert len(ids) == 10
    assert max(ids) < 2**53
