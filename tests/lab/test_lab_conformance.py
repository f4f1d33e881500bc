"""The simulation is honest: the same commands and situations on the lab's containers and on simulated ones.

A sixth of what a hypervisor answers is asked of one container of each kind; VCRECON_CONFORMANCE=all asks for all of
it, and the KVM container for disks, network and the rest of Debian too (twenty minutes more). VCRECON_TEST_WRITE=1
keeps the real answers for `tests/conformance`, which holds the simulation to them without a lab.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab_site import LabSite
from tests.lab.conformance.__main__ import main

from vcrecon.lab import layout

CAPTURED = Path(__file__).parents[1] / "conformance" / "captured"
CONTAINERS = {"kvm": "c02", "xen": "c03"}

ALL = os.environ.get("VCRECON_CONFORMANCE", "") == "all"

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.lab, pytest.mark.timeout(3600)]


def test_real_containers_and_simulated_ones_answer_alike(
    site: LabSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = CAPTURED if os.environ.get("VCRECON_TEST_WRITE") else tmp_path

    def run(hypervisor: str) -> int:
        container = site.spec.containers[CONTAINERS[hypervisor]]
        return main(
            [
                *("--real", f"root@{container.address}:{container.port}"),
                *("--key", str(site.files.key), "--known-hosts", str(site.files.known_hosts)),
                *("--serve", layout.THIS_MACHINE, "--hypervisor", hypervisor, "--trunk", container.trunk),
                *("--group", container.volume_group, "--pool", container.pool),
                # Disks and network are the same Debian on both.
                *(() if ALL and hypervisor == "kvm" else ("--hypervisor-only",)),
                *("--every", "1" if ALL else "6"),
                *("--what", f"Debian 12, {hypervisor} container of the lab"),
                *("--out", str(tmp_path / f"{hypervisor}.md"), "--capture", str(keep / f"{hypervisor}.json")),
            ]
        )

    # Some cases take the container's rules and bridges away: nobody else may be at work on it.
    site.stop()
    try:
        with site.timed("conformance of a KVM and a Xen container"), ThreadPoolExecutor() as pool:
            found = dict(zip(CONTAINERS, pool.map(run, CONTAINERS), strict=True))
    finally:
        site.start()
    assert found == dict.fromkeys(CONTAINERS, 0), capsys.readouterr().out
    site.converged()
