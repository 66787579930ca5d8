"""`dragoman accounts`: what it prints, and what it refuses."""

import io
import sys
from pathlib import Path

import pytest

from dragoman.cli import main
from dragoman.serving.jobs.accounts import Accounts


def ran(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str, said: str = ""
) -> tuple[int, str, str]:
    """Exit code, output and errors of a command whose standard input is no terminal."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    with pytest.raises(SystemExit) as ended:
        main(["accounts", *words, "--data-dir", str(folder)])
    printed = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, printed.out, printed.err


def test_a_life_of_accounts(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Made with a key that is printed once, listed, given another password, removed."""

    def accounts(*words: str, said: str = "") -> tuple[int, str, str]:
        return ran(capsys, monkeypatch, tmp_path, *words, said=said)

    assert accounts("list") == (0, "", "")
    code, key, _ = accounts("add", "alice", "--password", said="open sesame\n")
    assert code == 0
    assert Accounts(tmp_path).verify(key.strip()) == "alice"
    assert accounts("add", "bob")[0] == 0
    assert accounts("list")[1] == "alice\nbob\n"
    assert accounts("password", "bob", said="two\n") == (0, "", "")
    assert accounts("remove", "alice") == (0, "", "")
    assert accounts("list")[1] == "bob\n"


@pytest.mark.parametrize(
    ("words", "said", "says"),
    [
        (("add", "a/b"), "", "expected 1 to 64 letters"),
        (("add", "alice"), "", "already"),
        (("password", "bob"), "x\n", "no account 'bob'"),
        (("password", "alice"), "\n", "expected 1 to 512 bytes"),
        (("remove", "bob"), "", "no account 'bob'"),
    ],
)
def test_what_is_refused(
    words: tuple[str, ...], said: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error, with an exit code that says so; the accounts stay as they are."""
    Accounts(tmp_path).add("alice")
    Accounts(tmp_path).add("carol")
    code, out, err = ran(capsys, monkeypatch, tmp_path, *words, said=said)
    assert code in (1, 2)
    assert out == ""
    assert says in err
    assert Accounts(tmp_path).names() == ["alice", "carol"]
