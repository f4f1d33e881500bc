"""End-to-end tests: no run may print a traceback or lose an exception, whatever it was given."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The state directory on a file system of 8 MiB of its own. Needs root."""
    disk = tmp_path / "state"
    disk.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
