"""The memory of the counters: what is written is read back, and nothing that a crash can leave behind is believed or breaks a reader."""

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.serving import counters as c
from dragoman.serving.counters import Key, Segment, Vitals, images

SIZES = st.integers(0, 1 << 40)
NAMES = st.text(st.characters(codec=None), max_size=40)


def keys(directory: Path) -> list[Key]:
    """Every key that a reader finds, in order."""
    return [key for image in images(directory) for key, _ in image.slots]


def the_file(directory: Path) -> Path:
    (path,) = directory.glob("*.counters")
    return path


def test_what_is_written_is_read_by_others(tmp_path: Path) -> None:
    """A word written into a slot is in the next image, under the slot's key."""
    segment = Segment(tmp_path, 3, 0)
    at = segment.add(("iris", "1", "v2"))
    segment.words[at + c.FAIL_NS] = 42
    (image,) = images(tmp_path)
    assert (image.worker, image.index) == (3, 0)
    ((key, words),) = image.slots
    assert key == ("iris", "1", "v2")
    assert words[c.FAIL_NS] == 42
    assert not np.delete(words[c.FAIL_NS :], 0).any()


def test_an_image_stays_as_it_was(tmp_path: Path) -> None:
    """An image is a copy: later writes do not change it."""
    segment = Segment(tmp_path, 0, 0)
    at = segment.add(("m", "1", ""))
    (image,) = images(tmp_path)
    segment.words[at + c.FAIL_NS] = 1
    assert image.slots[0][1][c.FAIL_NS] == 0


def test_private_memory_is_read_like_a_file(tmp_path: Path) -> None:
    """Without a directory there is no file, and the same image."""
    segment = Segment(None, 1, 0)
    segment.add(("m", "1", "v2"))
    image = segment.image()
    assert image is not None
    assert [key for key, _ in image.slots] == [("m", "1", "v2")]
    assert not list(tmp_path.iterdir())


def test_the_beat_tells_when_and_how_a_worker_was() -> None:
    """What `beat` is given is in the image."""
    segment = Segment(None, 1, 0)
    segment.beat(77, Vitals(1000, 2000))
    image = segment.image()
    assert image is not None
    assert (image.seen_ns, image.vitals) == (77, Vitals(1000, 2000))


def test_the_files_of_other_segments_are_never_overwritten(tmp_path: Path) -> None:
    """Two segments of one number, as after a mistake in numbering, are two files, and both count."""
    first, second = Segment(tmp_path, 1, 0), Segment(tmp_path, 1, 0)
    first.add(("a", "1", ""))
    second.add(("b", "1", ""))
    assert sorted(keys(tmp_path)) == [("a", "1", ""), ("b", "1", "")]


def test_a_segment_is_full_after_its_slots(tmp_path: Path) -> None:
    """It holds exactly as many slots as it says, and all are read."""
    segment = Segment(tmp_path, 0, 0)
    added = 0
    while not segment.full:
        segment.add((f"m{added}", "1", ""))
        added += 1
    assert added == c.SLOTS
    assert len(keys(tmp_path)) == c.SLOTS


def test_other_users_cannot_read_the_counters(tmp_path: Path) -> None:
    """Files belong to the server alone."""
    Segment(tmp_path, 0, 0)
    assert the_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_the_blocks_of_a_file_are_reserved(tmp_path: Path) -> None:
    """The file has no holes, so that a disk that fills up later cannot kill a worker."""
    Segment(tmp_path, 0, 0)
    found = the_file(tmp_path).stat()
    assert found.st_blocks * 512 >= found.st_size


@pytest.mark.parametrize("size", [0, 1, 8, 100, 4095, 4096, 4100, 4096 + 8191, 4096 + 8192 + 7])
def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path, size: int) -> None:
    """Whole slots that are left count; the rest is left out without an error."""
    segment = Segment(tmp_path, 0, 0)
    for i in range(3):
        segment.add((f"m{i}", "1", ""))
    # A copy, because shrinking the file under its mapping is what only a writer would notice.
    cut = tmp_path / "elsewhere"
    cut.mkdir()
    (cut / "worker-0-0.counters").write_bytes(the_file(tmp_path).read_bytes()[:size])
    assert len(keys(cut)) == max(0, (size - 4096) // 8192)


@pytest.mark.parametrize("damage", [b"DRGMTR\x00\x02", b"not ours", b"\x00" * 8])
def test_a_file_of_another_kind_is_left_out(tmp_path: Path, damage: bytes) -> None:
    """Only files that begin as this version writes them are read."""
    Segment(tmp_path, 0, 0).add(("m", "1", ""))
    with the_file(tmp_path).open("r+b") as file:
        file.write(damage)
    assert keys(tmp_path) == []


def test_a_slot_whose_key_is_half_written_is_skipped(tmp_path: Path) -> None:
    """A key that does not have its checksum hides its own slot and no other."""
    segment = Segment(tmp_path, 0, 0)
    for name in ("a", "b", "c"):
        at = segment.add((name, "1", ""))
        if name == "b":
            segment.words[at + 1] += 1
    assert [key[0] for key in keys(tmp_path)] == ["a", "c"]


def test_a_slot_that_is_announced_and_empty_is_skipped(tmp_path: Path) -> None:
    """A header that was written before its slot does no harm."""
    segment = Segment(tmp_path, 0, 0)
    segment.add(("a", "1", ""))
    segment.words[2] = c.SLOTS
    assert keys(tmp_path) == [("a", "1", "")]


@given(st.binary(max_size=200), st.integers(0, 5000))
def test_no_damage_breaks_a_reader(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    """Any bytes anywhere in head and first slot: the reader returns, with keys of three texts."""
    directory = tmp_path_factory.mktemp("counters")
    Segment(directory, 0, 0).add(("model", "1", "v2"))
    with the_file(directory).open("r+b") as file:
        file.seek(at)
        file.write(noise)
    assert all(len(key) == 3 for key in keys(directory))


def test_a_file_that_cannot_be_opened_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The other files are read, and the log says which one was not."""
    Segment(tmp_path, 1, 0).add(("a", "1", ""))
    (tmp_path / "worker-0-0.counters").mkdir()
    with caplog.at_level(logging.WARNING):
        assert keys(tmp_path) == [("a", "1", "")]
    assert "worker-0-0.counters" in caplog.text


def test_a_missing_directory_has_no_counters(tmp_path: Path) -> None:
    """Reading after the server's directory is gone gives nothing."""
    assert keys(tmp_path / "gone") == []


@given(NAMES, NAMES, st.sampled_from(["", "v2", "tfserving"]))
def test_every_name_comes_back(model: str, version: str, dialect: str) -> None:
    """Names may hold any characters, also the half ones that stand for bytes of file names."""
    segment = Segment(None, 0, 0)
    segment.add((model, version, dialect))
    image = segment.image()
    assert image is not None
    assert [key for key, _ in image.slots] == [(model, version, dialect)]


@pytest.mark.parametrize("character", ["x", "\N{SNOWMAN}", "\N{GRINNING FACE}", '"'])
def test_a_name_that_is_too_long_is_cut(character: str) -> None:
    """The key always fits its place and begins as the name does."""
    segment = Segment(None, 0, 0)
    at = segment.add((character * 5000, "1", "v2"))
    image = segment.image()
    assert image is not None
    ((key, words),) = image.slots
    assert key[0]
    assert set(key[0]) == {character}
    assert key[1:] == ("1", "v2")
    assert not words[c.FAIL_NS :].any()
    assert segment.words[at] > 0


@given(SIZES)
def test_a_batch_size_has_one_place(size: int) -> None:
    """The place exists, and is named by a size that is not smaller, but for sizes beyond all."""
    index = c.place(size)
    assert 0 <= index < c.SIZES
    assert c.size_at(index) >= min(size, c.size_at(c.SIZES - 1))


@given(SIZES, SIZES)
def test_places_are_in_order_of_size(one: int, other: int) -> None:
    """A larger batch is never counted below a smaller one."""
    assert (c.place(one) <= c.place(other)) or one > other


def test_sizes_up_to_64_are_counted_one_by_one() -> None:
    """Each has a place of its own with its own name; then come powers of two."""
    assert [c.size_at(c.place(size)) for size in range(65)] == list(range(65))
    assert [c.size_at(c.place(size)) for size in (65, 128, 129, 1000, 1024)] == [128, 128, 256, 1024, 1024]


def test_the_bounds_hold_both_sets() -> None:
    """Ours and TensorFlow Serving's bounds are all there, in order, once each: so both histograms are exact."""
    assert set(c.ROUND_NS) | set(c.TFSERVING_NS) == set(c.BOUNDS_NS)
    assert list(c.BOUNDS_NS) == sorted(set(c.BOUNDS_NS))
    assert (c.ROUND_NS[0], c.ROUND_NS[-1]) == (10_000, 60 * 10**9)
    assert len(c.TFSERVING_NS) == 33
    for n, bound in enumerate(c.TFSERVING_NS):
        assert bound <= 10_000 * 1.8**n * (1 + 1e-12) < bound + 1.001 + bound * 1e-9
