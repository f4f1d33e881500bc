"""One lab for all tests of a run: made once, brought up by `vcrecon apply`, then kept by the service.

The tests marked `bare_metal` run apart, on a lab of one container and blank machines to install.

VCRECON_LAB_REUSE=1 takes a lab that is up already and leaves it there: for people who work on these tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_site import CLI, LabSite

from vcrecon.lab import layout
from vcrecon.lab.layout import Files
from vcrecon.spec.rewrite import rewrite

LAB_SPECS = Path(__file__).parents[2] / "specs" / "lab"
REUSE = os.environ.get("VCRECON_LAB_REUSE", "") not in {"", "0"}
NEEDED = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "apt-ftparchive", "tcpdump", "nsenter", "ssh", "dnsmasq")


def traces() -> dict[str, list[str]]:
    """What a lab leaves on this machine while it is there, by kind."""

    def lines(*command: str) -> list[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()

    links = [path.name for path in Path("/sys/class/net").iterdir()]
    return {
        "namespaces": sorted(path.name for path in Path("/run/netns").glob("vclab*")),
        "links": sorted(name for name in links if name.startswith(("vclab", "vcp", "vct", "outside"))),
        "processes": sorted(lines("pgrep", "-f", "vclab-|vcrecon[.]lab|vcrecon-lab/")),
        "loop devices": sorted(lines("losetup", "--noheadings", "--output", "NAME")),
        "directories": [str(path) for path in (layout.LAB_DIR,) if path.exists()],
    }


@pytest.fixture(scope="session")
def after_a_crash() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The traces before `lab up` was killed while it waits for its machines, and those after `lab down`."""
    if REUSE:
        pytest.skip("a lab is in use")
    before = traces()
    assert not before["directories"], "a lab is up: end it with `vcrecon lab down`, or set VCRECON_LAB_REUSE=1"
    up = subprocess.Popen([*CLI, "lab", "up"])
    deadline_s = time.monotonic() + 900
    login = ("pgrep", "-f", f"^ssh .*{Files().key}")
    while subprocess.run(login, check=False, capture_output=True).returncode and up.poll() is None:
        assert time.monotonic() < deadline_s, "the lab never tried to log in"
        time.sleep(0.05)
    up.kill()
    up.wait()
    subprocess.run([*CLI, "lab", "down"], check=True, timeout=300)
    return before, traces()


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabSite]:
    """The lab, up, with the service running on it; converged, unless blank machines are all that is tried."""
    found = LabSite(Files(), tmp_path_factory.mktemp("lab") / "service.log")
    before = traces()
    bare_metal = all(item.get_closest_marker("bare_metal") for item in request.session.items)
    if not REUSE:
        options = []
        if bare_metal:
            small = _one_container(tmp_path_factory.mktemp("specs"))
            options = ["--specs", str(small), "--bare-metal", "--uefi-spares", "1"]
        else:
            request.getfixturevalue("after_a_crash")
        with found.timed("lab up"):
            subprocess.run([*CLI, "lab", "up", *options], check=True, timeout=2400)
    try:
        if not bare_metal:
            with found.timed("apply: until every guest answers"):
                found.vcrecon("apply", str(found.files.specs), deadline_s=3000)
        found.start()
        yield found
        report = "".join(f"{seconds:7.1f} s  {what}\n" for what, seconds in found.timings)
        sys.stderr.write(f"\nthe lab's timings:\n{report}")
    finally:
        found.stop()
        if not REUSE:
            subprocess.run([*CLI, "lab", "down"], check=True, timeout=300)
            after = traces()
            assert after == before, "the lab left something behind"


def _one_container(target: Path) -> Path:
    """The lab's spec with its first container and one guest, which a spec must have."""
    shutil.copytree(LAB_SPECS, target, dirs_exist_ok=True)
    first = {"name": "c01", "address": "10.64.0.11", "hypervisor": "kvm"}
    rewrite(target / "containers.yaml", lambda document: document.update(containers=[first]))
    place = [{"network": "outside", "address": "10.200.0.10"}]
    early = {"name": "early", "template": "small", "interfaces": place}
    rewrite(target / "clusters.yaml", lambda document: document.update(clusters=[], guests=[early]))
    rewrite(target / "deployment.yaml", lambda document: document.update(deployment={"c01": ["early"]}))
    return target


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Not skipped, which would be a failure in CI: what is left to VCRECON_TEST_BOOT=all is left out."""
    if os.environ.get("VCRECON_TEST_BOOT") != "all":
        left_out = [item for item in items if item.get_closest_marker("by_hand")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def _needs_the_real_thing(request: pytest.FixtureRequest, program: Callable[[str], str]) -> None:
    """Without these a test of the lab is skipped; in CI as root it fails."""
    if request.node.get_closest_marker("lab"):
        for name in NEEDED:
            program(name)
