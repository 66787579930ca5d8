"""The documents are complete: settings, commands, protocols, runtimes, error kinds, fields of configuration files; and their links lead somewhere.

That what they show works is tested by tests/e2e/test_docs.py.
"""

import argparse
import importlib.util
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dragoman.cli import parser, tungsten
from dragoman.core.artifacts import SUFFIXES
from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import ModelSpec
from dragoman.core.plugins import BUILT_IN, find
from dragoman.dialects import USUAL_STATUS
from dragoman.dialects.mlflow.scoring_errors import ANSWERS as SCORING
from dragoman.dialects.seldon.errors import ANSWERS as SELDON
from dragoman.dialects.tfserving.messages import ANSWERS
from dragoman.dialects.tungsten.errors import STATUS as TUNGSTEN_STATUS
from dragoman.dialects.tungsten.reading import LONGEST_WAIT_S
from dragoman.dialects.v2.answers import STATUS
from dragoman.proto.messages import new
from dragoman.server.configuration import flag_of
from dragoman.server.settings import Settings
from dragoman.serving.files import FileLimits
from dragoman.serving.mlserver import read_settings
from dragoman.serving.predictions.views import MOST_LOG
from dragoman.serving.words import RESERVED
from dragoman.streams import Surroundings
from dragoman.streams.addresses import parse_stream

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *(page for page in (ROOT / "examples").rglob("README.md") if "models" not in page.parts),
    *(ROOT / "docs").rglob("*.md"),
]
DIALECT_PAGES = {
    "v2": "open-inference-protocol.md",
    "tfserving": "tfserving.md",
    "tungsten": "tungsten.md",
    "mlflow_registry": "mlflow.md",
    "scoring": "mlflow.md",
    "seldon": "seldon.md",
    "submarine": "submarine.md",
    "gradient": "gradient.md",
    "floydhub": "floydhub.md",
    "floydhub_endpoint": "floydhub.md",
    "console": "../python.md",
}
RUNTIME_PAGES = {
    "onnx": "onnx.md",
    "sklearn": "estimators.md",
    "xgboost": "estimators.md",
    "lightgbm": "estimators.md",
    "torch": "torch.md",
    "litert": "litert.md",
    "savedmodel": "savedmodel.md",
    "python": "python.md",
    "mlflow": "mlflow.md",
}
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`\n]+`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def settings_page() -> ModuleType:
    """scripts/settings_page.py, which is no package."""
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "scripts" / "settings_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    """docs/settings.md is what `python scripts/settings_page.py` makes of it."""
    script = settings_page()
    assert script.page(text("settings.md")) == text("settings.md"), "run `python scripts/settings_page.py`"
    for spec in fields(Settings)[1:]:
        assert f"`{flag_of(spec.name)}" in text("settings.md") or f", `{flag_of(spec.name)}" in text("settings.md"), spec.name


def test_the_tables_of_the_commands_for_jobs_are_those_of_the_code() -> None:
    """docs/jobs.md is what `python scripts/settings_page.py` makes of it."""
    assert settings_page().jobs(text("jobs.md")) == text("jobs.md"), "run `python scripts/settings_page.py`"


def test_the_tables_of_other_servers_flags_are_those_of_the_code() -> None:
    """docs/migrating.md is what `python scripts/settings_page.py` makes of it."""
    assert settings_page().migrating(text("migrating.md")) == text("migrating.md"), "run `python scripts/settings_page.py`"


def test_a_page_without_a_place_for_a_table_is_an_error() -> None:
    """The script does not leave a table out in silence."""
    with pytest.raises(SystemExit, match="settings"):
        settings_page().page("# nothing")


@pytest.mark.parametrize("dialect", BUILT_IN["dialects"])
def test_every_dialect_has_a_page(dialect: str) -> None:
    """And the index of the documents leads to it."""
    page = (ROOT / "docs" / "dialects" / DIALECT_PAGES[dialect]).resolve()
    assert page.exists()
    assert str(page.relative_to(ROOT / "docs")) in text("README.md")


@pytest.mark.parametrize("runtime", BUILT_IN["runtimes"])
def test_every_runtime_has_a_page(runtime: str) -> None:
    """And the index of the documents and the page about repositories lead to it."""
    for page in ("README.md", "repositories.md"):
        assert f"(runtimes/{RUNTIME_PAGES[runtime]})" in text(page)


def test_every_kind_of_error_is_explained_with_its_statuses() -> None:
    """One row per kind, with the status of each protocol as its table has it."""
    rows = {m[1]: m[2] for m in re.finditer(r"^\| `(\w+)` \|[^|]*\|(.*)\|$", text("errors.md"), re.MULTILINE)}
    assert set(rows) == {kind.value for kind in Kind}
    for kind in Kind:
        shown = [int(cell) for cell in rows[kind.value].split("|")]
        assert shown == [STATUS[kind], ANSWERS[kind][1], TUNGSTEN_STATUS[kind], USUAL_STATUS[kind]], kind
        assert SCORING[kind][1] == SELDON[kind][1] == USUAL_STATUS[kind], kind
        for page, words in (("mlflow.md", SCORING), ("seldon.md", SELDON)):
            assert f"`{words[kind][0]}`" in text(f"dialects/{page}"), kind


def test_every_format_and_layout_is_named() -> None:
    """Suffixes, MLServer's implementations, names that are routes, states."""
    page = text("repositories.md")
    with pytest.raises(ServingError) as refusal:
        read_settings('{"implementation": "none.Such"}', ROOT)
    implementations = re.findall(r"mlserver_\w+\.\w+", refusal.value.message)
    assert len(implementations) >= 3
    for word in (*SUFFIXES, *implementations, *RESERVED, *BUILT_IN["runtimes"]):
        assert f"`{word}`" in page, word
    for state in State:
        assert f"`{state.value}`" in text("settings.md"), state
        assert f"`{state.value}`" in text("python.md"), state


def test_every_field_of_a_triton_configuration_is_in_the_table() -> None:
    """Every field of the schema, and of the parts of it that have an effect."""
    page = text("repositories.md")
    table = page[page.index("| Field | Effect |") : page.index("### Ensembles")]
    message: Any = new("inference.ModelConfig")
    names = {field.name for field in message.DESCRIPTOR.fields}
    for part in ("input", "output", "dynamic_batching", "instance_group"):
        names |= {field.name for field in message.DESCRIPTOR.fields_by_name[part].message_type.fields}
    for name in names:
        assert re.search(rf"\b{name}\b", table), name


def test_every_command_of_tungsten_is_in_the_table() -> None:
    """Tungsten's own words: each command has its row."""
    page = text("dialects/tungsten.md")
    table = page[page.index("| Command | Arguments") : page.index("### In a container")]
    (commands,) = (a for a in tungsten.parser()._actions if isinstance(a, argparse._SubParsersAction))  # there is no other way
    for name in commands.choices:
        assert f"`{name}`" in table, name


def test_every_option_of_gradient_is_on_its_page() -> None:
    """Gradient's own words: each command of `deployments`, and each of their options."""
    page = text("dialects/gradient.md")
    commands = {name: command for name, command in settings_page().subcommands(parser()) if name.startswith("deployments ")}
    assert len(commands) > 10
    for name, command in commands.items():
        assert f"`{name.split()[-1]}`" in page or f"`{name.removeprefix('deployments ')}`" in page, name
        for action in command._actions:
            for option in action.option_strings:
                assert option in ("-h", "--help") or f"`{option}" in page, f"{name} {option}"


@pytest.mark.parametrize("url", ["kafka://h/t?none=1", "mqtt://h/t?none=1", "kinesis://s?none=1"])
def test_every_option_of_a_stream_is_in_the_table(url: str) -> None:
    """As the refusal of one that does not exist lists them; each in the first column of a row."""
    address = parse_stream(url)
    with pytest.raises(ServingError, match="they have") as caught:
        find("connectors", address.kind)(address, Surroundings("tests"))
    table = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", (ROOT / "docs/streams.md").read_text("utf-8"), re.MULTILINE)
    documented = {name for cell in table for name in re.findall(r"\w+", cell)}
    assert set(caught.value.message.partition("they have ")[2].split(", ")) <= documented


def test_the_numbers_of_tungsten_are_those_of_the_code() -> None:
    """The defaults that users of the original count on, and the bounds that it did not have."""
    page = text("dialects/tungsten.md")
    table = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|", page[page.index("## Numbers") : page.index("## What differs")], re.MULTILINE))
    usual = Settings()
    assert usual.port == (3000,)
    assert usual.prediction_timeout == 7200
    assert usual.result_expiration == 3600
    for what, number in {
        "inputs of one call": f"{usual.max_inputs:,}",
        "bytes of one file": f"{usual.max_file >> 20} MB",
        "bytes of a whole request, and of all files that it brings or names": f"{usual.max_body >> 20} MB",
        "pixels of one picture that comes in": f"{FileLimits().max_pixels:,}",
        "predictions of one model that wait": f"{usual.max_predictions:,} per worker",
        "seconds for one batch": f"{usual.prediction_timeout:,.0f}, as in the original",
        "seconds of `setup`": f"{usual.setup_timeout:,.0f}, as in the original",
        "seconds that a result is kept": f"{usual.result_expiration:,.0f}, as in the original",
        "seconds that a prediction waits for a model that is gone": f"{usual.model_wait:g}",
        "seconds of `?wait=`": f"at most {LONGEST_WAIT_S:g}",
        "text of logs": f"the last {MOST_LOG >> 10} Ki characters",
        "seconds for a cancelled `predict` to return": f"{ModelSpec('m').interrupt_grace_s:g}",
    }.items():
        assert table[what] == number, what


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in _HEADING.findall(page.read_text("utf-8"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file or folder of this repository, and a heading of it."""
    for link in _LINK.findall(_CODE.sub("", page.read_text("utf-8"))):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_extras_that_are_named_exist() -> None:
    """`pip install 'dragoman[...]'` in any document names extras of pyproject.toml."""
    known = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    for page in PAGES:
        for found in re.findall(r"dragoman\[([\w,]+)\]", page.read_text("utf-8")):
            assert set(found.split(",")) <= known, (page, found)
