"""Flags as other servers write them."""

from typing import Any

import pytest

from dragoman.cli.foreign import FOREIGN
from dragoman.cli.foreign.flags import Flag, parse, usage
from dragoman.cli.foreign.starting import OWN
from dragoman.core.errors import Kind, ServingError

FLAGS = (
    Flag("model_name", text="its name"),
    Flag("port", int, default=8500),
    Flag("fraction", float, idle="nobody asks", default=0.0),
    Flag("batching", bool, default=False),
    Flag("old-style", bool, idle="it is new", default=True),
    Flag("repository", many=True),
    Flag("restrict", many=True, refused="ask for keys"),
    Flag("alts", bool, refused="use certificates", default=False),
)


def refused(*arguments: str) -> str:
    with pytest.raises(ServingError) as error:
        parse("prog", FLAGS, arguments)
    assert error.value.kind is Kind.INVALID_INPUT
    return error.value.message


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--port=1"], {"port": 1}),
        (["-port=1"], {"port": 1}),
        (["--port", "1"], {"port": 1}),
        (["--port", "-1"], {"port": -1}),
        (["--model-name=a=b"], {"model_name": "a=b"}),
        (["--model_name="], {"model_name": ""}),
        (["--batching"], {"batching": True}),
        (["--batching", "--port=2"], {"batching": True, "port": 2}),
        (["--batching=0"], {"batching": False}),
        (["--batching=True"], {"batching": True}),
        (["--batching", "false"], {"batching": False}),
        (["--port=1", "--port=2"], {"port": 2}),
        (["--repository=a", "--repository", "b"], {"repository": ["a", "b"]}),
        (["--alts=false"], {"alts": False}),
        ([], {}),
    ],
)
def test_the_ways_in_which_flags_are_written(arguments: list[str], values: dict[str, Any]) -> None:
    """With one dash or two, with = or the next word, bare booleans; the last one counts."""
    given = parse("prog", FLAGS, arguments)
    assert given.values == values
    assert given.words == ()
    assert ("port" in given) == ("port" in values)


def test_words_are_kept_apart() -> None:
    """What is no flag, and everything behind a double dash."""
    assert parse("prog", FLAGS, ["start", "--batching", "dir", "--", "--port=1"]).words == ("start", "dir", "--port=1")


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--prt=1", "prog has no flag --prt; did you mean --port?"),
        ("--model-nam=1", "prog has no flag --model-nam; did you mean --model_name?"),
        ("--old_stile", "prog has no flag --old_stile; did you mean --old-style?"),
        ("--zzzzzz", "prog has no flag --zzzzzz; see prog --help"),
        ("--port=x", "--port is 'x', expected a whole number"),
        ("--port=1.5", "--port is '1.5', expected a whole number"),
        ("--fraction=x", "--fraction is 'x', expected a number"),
        ("--batching=maybe", "--batching is 'maybe', expected true or false"),
        ("--port", "--port needs a value: --port=VALUE"),
        ("--restrict=infer:a=b", "--restrict is not possible here: ask for keys"),
        ("--alts", "--alts is not possible here: use certificates"),
    ],
)
def test_what_is_wrong_is_said(argument: str, text: str) -> None:
    """By the name that was written, with the flags that come near."""
    assert refused(argument) == text


def test_flags_without_effect_are_found() -> None:
    """Each once, and only when it asks for something else than what happens anyway."""
    given = parse("prog", FLAGS, ["--fraction=0.5", "--fraction=0.6", "--old-style=true", "--port=1"])
    assert given.idle == ("--fraction",)
    assert parse("prog", FLAGS, ["--old_style=false"]).idle == ("--old-style",)


def test_help_has_every_flag() -> None:
    """With its default, and what it does here."""
    text = usage("prog", "What it does.\n", FLAGS)
    assert text.startswith("usage: prog\n\nWhat it does.\n")
    assert "--port=N (default: 8500)" in text
    assert "no effect here: nobody asks" in text
    assert "not possible here: use certificates" in text
    assert all(f"--{flag.name}" in text for flag in FLAGS)


@pytest.mark.parametrize("name", FOREIGN)
def test_every_flag_of_a_server_says_what_it_does(name: str) -> None:
    """One of three: its effect, why it has none, or why it is refused; and no name stands twice."""
    flags = (*FOREIGN[name].flags, *OWN)
    for flag in flags:
        assert sum(map(bool, (flag.text, flag.idle, flag.refused))) == 1, flag.name
    assert len({flag.name.replace("-", "_") for flag in flags}) == len(flags)
