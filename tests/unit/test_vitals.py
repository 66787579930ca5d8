"""Memory and processor time: read where Linux keeps them, left out where they cannot be known."""

from pathlib import Path

import pytest

from dragoman.server.vitals import Memory, Processor, of_machine, of_process

MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\nHugePages_Total:       0\n"


def stat(proc: Path, *ticks: int) -> None:
    """user nice system idle iowait irq softirq steal guest"""
    (proc / "stat").write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3 4\n")


def test_this_process_is_something() -> None:
    """It uses processor time, and on Linux memory."""
    vitals = of_process()
    assert vitals.cpu_ns > 0
    assert vitals.memory_bytes > 1 << 20 or not Path("/proc/self/statm").exists()


@pytest.mark.parametrize("content", [None, "", "x y z", "5"])
def test_memory_that_cannot_be_known_is_zero(tmp_path: Path, content: str | None) -> None:
    """No file, or none of that form."""
    (tmp_path / "self").mkdir()
    if content is not None:
        (tmp_path / "self" / "statm").write_text(content)
    assert of_process(tmp_path).memory_bytes == 0


def test_memory_of_the_machine(tmp_path: Path) -> None:
    """What is used is what programs could not get."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    assert of_machine(tmp_path) == Memory(1000 * 1024, 600 * 1024)


@pytest.mark.parametrize("content", [None, "", "MemTotal: 5 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n", "MemTotal:\nMemAvailable:\n"])
def test_a_machine_that_does_not_say(tmp_path: Path, content: str | None) -> None:
    """Is left out."""
    if content is not None:
        (tmp_path / "meminfo").write_text(content)
    assert of_machine(tmp_path) is None


def test_utilization_is_of_the_time_between_two_looks(tmp_path: Path) -> None:
    """Idle and waiting for disks is not busy; a guest's time is in its host's already."""
    stat(tmp_path, 100, 0, 0, 900, 0, 0, 0, 0, 50)
    processor = Processor(tmp_path)
    assert processor.utilization is None
    stat(tmp_path, 120, 0, 5, 970, 5, 0, 0, 0, 999)
    processor.look()
    assert processor.utilization == pytest.approx(0.25)
    stat(tmp_path, 220, 0, 5, 970, 5, 0, 0, 0, 999)
    processor.look()
    assert processor.utilization == 1.0


def test_a_few_ticks_say_nothing(tmp_path: Path) -> None:
    """Looks that follow each other too soon are put together."""
    stat(tmp_path, 0, 0, 0, 0, 0, 0, 0, 0)
    processor = Processor(tmp_path)
    stat(tmp_path, 10, 0, 0, 0, 0, 0, 0, 0)
    processor.look()
    assert processor.utilization is None
    stat(tmp_path, 10, 0, 0, 90, 0, 0, 0, 0)
    processor.look()
    assert processor.utilization == pytest.approx(0.1)


@pytest.mark.parametrize("content", [None, "", "cpu 1 2", "cpu a b c d e f g h"])
def test_a_processor_that_does_not_say(tmp_path: Path, content: str | None) -> None:
    """Has no utilization, also when it said before."""
    stat(tmp_path, 0, 0, 0, 0, 0, 0, 0, 0)
    processor = Processor(tmp_path)
    stat(tmp_path, 100, 0, 0, 0, 0, 0, 0, 0)
    processor.look()
    assert processor.utilization == 1.0
    (tmp_path / "stat").unlink()
    if content is not None:
        (tmp_path / "stat").write_text(content)
    processor.look()
    assert processor.utilization is None
    processor.look()
    assert processor.utilization is None
