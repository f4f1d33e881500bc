"""The conformance suite on a real container, named by VCRECON_CONFORMANCE: the arguments after `--real`.

For example `VCRECON_CONFORMANCE="root@10.0.0.11:22 --key KEY --known-hosts FILE --serve 10.0.0.1 --trunk eth1"`.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.lab.conformance.__main__ import main

WHERE = os.environ.get("VCRECON_CONFORMANCE", "")


@pytest.mark.lab
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not WHERE, reason="VCRECON_CONFORMANCE names no container")
def test_a_real_container_and_the_simulated_one_answer_alike(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--real", *shlex.split(WHERE)])
    assert status == 0, capsys.readouterr().out
