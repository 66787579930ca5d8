"""The file of results: Markdown, of which each run replaces its own part."""

from pathlib import Path

from benchmarks.__main__ import command
from benchmarks.results import Section, Table, Target, circumstances, markdown, write


def test_section_as_markdown() -> None:
    """Heading, parts in order, then the targets with a word each."""
    section = Section(
        "x",
        "x: a title",
        [Table(("a", "b"), [["1", "2|3"]]), "A remark."],
        [Target("fast", "9", True), Target("small", "9", False), Target("alive", "not measured", None)],
    )
    text = markdown(section)
    assert text.startswith("## x: a title\n\n| a | b |\n| --- | --- |\n| 1 | 2\\|3 |\n\nA remark.\n\n| target |")
    assert "| fast | 9 | met |" in text
    assert "| small | 9 | **short** |" in text
    assert "| alive | not measured | - |" in text


def test_each_section_replaces_its_own_part_only(tmp_path: Path) -> None:
    """Sections are measured on their own; the others and what people wrote around them stay."""
    path = tmp_path / "RESULTS.md"
    write(path, "iris", "iris 1")
    write(path, "slow", "slow 1")
    path.write_text(path.read_text() + "\nA note by hand.\n")
    write(path, "iris", "iris 2")
    write(path, "slow", "slow 2")
    text = path.read_text()
    assert text.startswith("# Results\n")
    assert "iris 1" not in text
    assert "slow 1" not in text
    assert text.index("iris 2") < text.index("slow 2") < text.index("A note by hand.")
    assert text.count("<!-- begin iris -->") == text.count("<!-- end iris -->") == 1


def test_writing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    """No blank lines pile up."""
    path = tmp_path / "RESULTS.md"
    write(path, "iris", "same")
    before = path.read_text()
    write(path, "iris", "same")
    assert path.read_text() == before


def test_circumstances_name_machine_versions_and_command() -> None:
    """Enough to measure the same again; a busy machine shows."""
    text = circumstances("python -m benchmarks iris", 1.5)
    assert "cores" in text
    assert "onnxruntime" in text
    assert "load before 1.50" in text
    assert text.endswith("`python -m benchmarks iris`")


def test_the_command_is_shown_without_the_place_of_its_output() -> None:
    """Where somebody keeps files is nobody's business."""
    assert command(["iris", "--output", "a/b.md", "--seconds", "5"]) == "python -m benchmarks iris --seconds 5"
    assert command(["--output=a/b.md", "--pairs", "2"]) == "python -m benchmarks --pairs 2"
