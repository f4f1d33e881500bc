"""What every test gets: tests marked `root` are skipped without root, and never in silence.

In CI as root nothing excuses such a skip, so there it fails the run; elsewhere it is listed at the end.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping

import pytest
import structlog

pytest_plugins = ["pytester"]

_SKIPPED = pytest.StashKey[list[str]]()


def root_skips_fail(environ: Mapping[str, str], user_id: int) -> bool:
    """Whether a skipped `root` test is a failure here."""
    return user_id == 0 and environ.get("CI", "").lower() not in {"", "0", "false"}


@pytest.fixture
def program() -> Callable[[str], str]:
    """`program("promtool")` is its path; without it the test is skipped, or fails in CI as root."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None and root_skips_fail(os.environ, os.geteuid()):
            pytest.fail(f"{name} is not installed: add its package to TEST_PACKAGES in the Makefile")
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return find


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that runs a command sets logging up, on a stream that ends with the test: put the old set-up back."""
    root = logging.getLogger()
    handlers, level, before = list(root.handlers), root.level, structlog.get_config()
    yield
    # pytest itself adds and removes handlers of its own around a test: leave these alone.
    for handler in [h for h in root.handlers if h not in handlers and type(h) is logging.StreamHandler]:
        root.removeHandler(handler)
    for handler in [h for h in handlers if h not in root.handlers]:
        root.addHandler(handler)
    root.setLevel(level)
    structlog.configure(**before)


def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores Ctrl-C on behalf of what it runs in the background, and children would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[_SKIPPED] = []
    # Reports carry no config, and under xdist only the first process sees the reports of all workers.
    config.pluginmanager.register(_RootSkips(config), "vcrecon-root-skips")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")


class _RootSkips:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._skipped = config.stash[_SKIPPED]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and "root" in report.keywords and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._skipped.append(f"{report.nodeid}: {reason}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        # A whole module that is skipped leaves no trace of its marks: count it when its text has the mark.
        if report.skipped and report.nodeid.endswith(".py"):
            path = self._config.rootpath / report.nodeid
            if "pytest.mark.root" in path.read_text(encoding="utf-8"):
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
                self._skipped.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        is_worker = hasattr(self._config, "workerinput")
        if self._skipped and not is_worker and root_skips_fail(os.environ, os.geteuid()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._skipped:
            return
        fatal = root_skips_fail(os.environ, os.geteuid())
        terminalreporter.section(
            "tests of real machines were SKIPPED" + (", which fails a CI run as root" if fatal else ""),
            red=fatal,
            yellow=not fatal,
        )
        for line in sorted(set(self._skipped)):
            terminalreporter.line(line)
