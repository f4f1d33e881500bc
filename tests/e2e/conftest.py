"""End-to-end tests: no run may print a traceback or lose an exception, whatever it was given."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_traceback(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A traceback in what the code under test prints or logs is a failure."""
    yield
    gc.collect()  # an exception that nobody took is told when its task is collected
    printed = capsys.readouterr()
    print(printed.out, end="")  # for the report, if the test failed
    logged = [record.getMessage() for record in caplog.get_records("call") if record.exc_info]
    assert "Traceback" not in printed.out + printed.err, printed.out + printed.err
    assert not logged, logged
