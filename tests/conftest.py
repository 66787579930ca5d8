"""What every test shares: how properties are tried, and the check that docs/conformance.md is true of this very run (`--conformance`)."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import postgres
from tests.conformance import Row, rows

# A machine with other things to do is no bug: properties are about values, and pytest's own time-out ends what hangs.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Container images often forbid it, and then each of the thousands of processes that tests start compiles all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_ROWS = pytest.StashKey[list[Row]]()
_OUTCOMES = pytest.StashKey[dict[str, set[str]]]()
DOCUMENT = Path(__file__).parents[1] / "docs" / "conformance.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance", action="store_true", help="fail unless every test that docs/conformance.md names ran and passed")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--conformance") and not hasattr(config, "workerinput"):
        config.stash[_ROWS] = rows(DOCUMENT.read_text("utf-8"))
        config.stash[_OUTCOMES] = {}
        config.pluginmanager.register(_Watch(config), "conformance")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of dear tests come first, however they were shuffled, so that several processes end at one time."""
    places = {place: rank for rank, place in enumerate(("e2e", "contract"))}
    items.sort(key=lambda item: places.get(item.nodeid.split("/")[1], len(places)))


def pytest_collection_finish() -> None:
    """What is imported and collected by now stays for good: each full collection of garbage would go through all of it."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    postgres.end()
    if brokers := sys.modules.get("tests.brokers"):  # imported by the tests that need one: its clients take a moment
        brokers.end()


class _Watch:
    """Collects what became of each test and compares it with the document at the end. With several processes it sits in the main one."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._problems: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            name = report.nodeid.split("[")[0]
            self._config.stash[_OUTCOMES].setdefault(name, set()).add(report.outcome)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        outcomes = self._config.stash[_OUTCOMES]
        for row in self._config.stash[_ROWS]:
            for test in row.tests:
                if outcomes.get(test) != {"passed"}:
                    what = ", ".join(sorted(outcomes.get(test, {"did not run"})))
                    self._problems.append(f"{row.id} says '{row.status}' by {test}, which {what}")
        if self._problems and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        proved = sum(1 for row in self._config.stash[_ROWS] if row.tests)
        terminalreporter.section("conformance")
        terminalreporter.write_line(f"{proved} requirements are proved by tests of this run; {len(self._problems)} claims are not true")
        for problem in self._problems:
            terminalreporter.write_line(problem, red=True)
