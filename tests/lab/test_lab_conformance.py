"""The simulation is honest: the same commands and situations on the lab's containers and on simulated ones.

VCRECON_TEST_WRITE=1 keeps the real answers for `tests/conformance`, which holds the simulation to them without a lab.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conformance.__main__ import main
from lab_site import LabSite

from vcrecon.lab import layout

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.lab, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(("container", "hypervisor"), [("c02", "kvm"), ("c03", "xen")])
def test_a_real_container_and_the_simulated_one_answer_alike(
    site: LabSite, container: str, hypervisor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where, files = site.spec.containers[container], site.files
    keep = ROOT / "tests/conformance/captured" if os.environ.get("VCRECON_TEST_WRITE") else tmp_path
    # Some cases take the container's rules and bridges away: nobody else may be at work on it.
    site.stop()
    try:
        with site.timed(f"conformance of the {hypervisor} container"):
            status = main(
                [
                    *("--real", f"root@{where.address}:{where.port}"),
                    *("--key", str(files.key), "--known-hosts", str(files.known_hosts)),
                    *("--serve", layout.THIS_MACHINE, "--hypervisor", hypervisor, "--trunk", where.trunk),
                    *("--group", where.volume_group, "--pool", where.pool, "--what", f"a {hypervisor} container"),
                    *("--out", str(keep / f"{hypervisor}.md"), "--capture", str(keep / f"{hypervisor}.json")),
                ]
            )
    finally:
        site.start()
    assert status == 0, capsys.readouterr().out
    site.converged()
