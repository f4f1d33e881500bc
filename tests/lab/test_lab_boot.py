"""From a blank disk to vlan-ready on real firmware: two blank machines, one with two disks, and their accidents.

Told in order, each test going on where the one before ended. `spare1` becomes c05 and `spare2` c06; what is proved is
read from their disks, their consoles, their own tools, and the installer's log.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lab_site import LabSite, Status

from vcrecon.lab import boot_files, lab, spare
from vcrecon.lab.layout import SparePlan

pytestmark = [
    *(pytest.mark.root, pytest.mark.slow, pytest.mark.lab, pytest.mark.bare_metal),
    pytest.mark.timeout(3600),
]

NAMES = {"spare1": "c05", "spare2": "c06"}
UEFI = "c07"
GUEST = "newcomer"
INSTALL_S = 900.0
"""Two installs at once take under three minutes when nothing else runs on two cores; other tests' guests do."""
SHORT_DEADLINE = "2m"
"""Long enough for a reboot into the installer; should it not be, the machine gets a second ticket when it calls."""
LOCAL_BOOT = "booting the local disk"
_UNSEEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\s")


@pytest.fixture(scope="module")
def metal(site: LabSite) -> Iterator[LabSite]:
    """The lab with what machines are installed from. Afterwards the spec is as before, and the spares are off."""
    plan = lab.read_plan(site.files)
    assert {entry.name for entry in plan.spares} >= NAMES.keys(), "make the lab with: vcrecon lab up --bare-metal"
    assert boot_files.SYSTEM in site.spec.systems, "make the lab with: vcrecon lab up --bare-metal"
    before = {path: path.read_text() for path in site.files.specs.glob("*.yaml")}
    system = boot_files.system_file(site.files.boot)
    kept = system.with_suffix(".kept")
    if kept.exists():  # these tests were cut off once
        _put_back(kept, system)
    os.link(system, kept)
    try:
        yield site
    finally:
        _put_back(kept, system)
        for path, text in before.items():
            fresh = path.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(path)
        for entry in plan.spares:
            site.vcrecon("lab", "break", "power-off", entry.name, check=False)
    site.converged("the spec without the spare machines")


def _put_back(kept: Path, system: Path) -> None:
    kept.replace(system)
    # Two names of one file: to rename one into the other does nothing.
    kept.unlink(missing_ok=True)


class UefiInstall(NamedTuple):
    """Which spare machine was switched on, and when (time.time())."""

    machine: str
    began_s: float


# --- what one asks again and again ---------------------------------------------------------------------------


def _spare(site: LabSite, name: str) -> SparePlan:
    return lab.read_plan(site.files).spare(name)


def _uefi_spare(site: LabSite) -> SparePlan:
    return next(entry for entry in lab.read_plan(site.files).spares if entry.firmware == "uefi")


def _break(site: LabSite, what: str, name: str) -> None:
    site.vcrecon("lab", "break", what, name)


def _container(status: Status, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next((c for c in status["containers"] if c["name"] == name), {})
    return found


def _install(status: Status, name: str) -> dict[str, Any]:
    """How far the install of a container is; empty when there is none."""
    return _container(status, name).get("install") or {}


def _is_ready(status: Status, name: str) -> bool:
    found = _container(status, name)
    return bool(found) and found["reachable"] and found["state"] == "vlan-ready" and not _install(status, name)


def _reasons(status: Status, name: str) -> set[str]:
    return {block["reason"] for block in _container(status, name).get("blocked", ())}


def _events(site: LabSite, container: str, since_s: float) -> list[dict[str, Any]]:
    found = json.loads(site.ask("events", container, "--json", "--limit", "1000"))["events"]
    return [event for event in found if event["at_s"] >= since_s]


def _failed_with(site: LabSite, container: str, error: str, since_s: float) -> bool:
    return any(event["facts"].get("error") == error for event in _events(site, container, since_s))


def _log(site: LabSite, container: str) -> str:
    """What the installers of this container said, as the master kept it."""
    assert site.state is not None
    path = site.state / "installs" / f"{container}.log"
    return path.read_text(errors="replace") if path.exists() else ""


def _console(site: LabSite, name: str) -> str:
    """What a spare machine said on its serial console since it was switched on, without blanks and cursor moves: the
    firmware breaks lines where the screen ends."""
    path = site.files.serial(name)
    return _UNSEEN.sub("", path.read_text(errors="replace")) if path.exists() else ""


def _was_sent_home(site: LabSite, name: str) -> bool:
    return _UNSEEN.sub("", LOCAL_BOOT) in _console(site, name)


def _note_steps(site: LabSite, container: str, since_s: float) -> None:
    """Put what each step of the last install took into the report at the end."""
    event = [e for e in _events(site, container, since_s) if e["reason"] == "installed"][-1]
    for step, seconds in event["facts"]["steps"].items():
        site.timings.append((f"install {container}: {step}", seconds))
    site.timings.append((f"install {container}: from ticket to the installer's end", event["facts"]["seconds"]))


def _adopt(site: LabSite, name: str, container: str) -> None:
    """A stranger becomes a container, by the command a person uses."""
    entry = _spare(site, name)
    about = ("--name", container, "--address", entry.address, "--system", boot_files.SYSTEM)
    site.ask("adopt", entry.provisioning_mac, *about, "--yes")
    found = site.spec.containers[container]
    assert (found.mac, found.address, found.system) == (entry.provisioning_mac, entry.address, boot_files.SYSTEM)


def _set_deadline(site: LabSite, text: str | None) -> None:
    """Set how long an install may take, or put the default back; in force when this returns."""

    def change(document: Any) -> None:
        document["provisioning"].pop("install_deadline", None)
        if text is not None:
            document["provisioning"]["install_deadline"] = text

    site.edit("site.yaml", change)
    digest = site.spec.digest
    site.until("the new deadline counts", lambda s: s["spec"]["digest"] == digest, 120)


def _host_key(site: LabSite, container: str) -> str:
    """The host key that vcrecon trusts for a container which it installed."""
    assert site.state is not None
    lines = (site.state / "known_hosts").read_text().splitlines()
    words = next(line.split() for line in lines if not line.startswith("#") and f"/{container}/" in line)
    return words[2]


# --- the story -----------------------------------------------------------------------------------------------


def test_unknown_machines_are_shown_and_told_to_boot_their_own_disk(metal: LabSite) -> None:
    with metal.timed("power-on to strangers in status: two blank machines"):
        for name in NAMES:
            _break(metal, "power-on", name)
        macs = {_spare(metal, name).provisioning_mac for name in NAMES}
        status = metal.until("both are strangers", lambda s: macs <= {m["mac"] for m in s["strangers"]}, 300)
    assert {m["serial"] for m in status["strangers"] if m["mac"] in macs} == set(NAMES)
    assert status["boot"]["problem"] is None
    metal.until("both read the answer", lambda _: all(_was_sent_home(metal, name) for name in NAMES), 120)
    for name in NAMES:
        for disk in spare.disks(_spare(metal, name), metal.files):
            assert disk.stat().st_blocks == 0, f"{disk} was written to"
    metal.converged("a stranger is nobody's trouble")


def test_adopted_machines_are_installed_side_by_side(metal: LabSite) -> None:
    began_s = time.time()
    for name, container in NAMES.items():
        _adopt(metal, name, container)
    with metal.timed("adopt to vlan-ready: two machines at once, one of them a mirror"):
        ready = dict.fromkeys(NAMES.values(), 0.0)

        def both(status: Status) -> bool:
            for container in ready:
                if not ready[container] and _is_ready(status, container):
                    ready[container] = time.time() - began_s
            return all(ready.values())

        metal.until("both are vlan-ready", both, INSTALL_S)
    for container, seconds in ready.items():
        metal.timings.append((f"adopt {container} to vlan-ready", seconds))
        _note_steps(metal, container, began_s)
        assert "SHA-256 proved" in _log(metal, container)


def test_an_installed_machine_is_who_the_spec_says(metal: LabSite) -> None:
    system = metal.spec.systems[boot_files.SYSTEM]
    script = "hostname; cat /etc/vcrecon/release /etc/ssh/ssh_host_ed25519_key.pub; ip -br -4 addr show eth0"
    for name, container in NAMES.items():
        said = metal.on(name, script)
        assert said.splitlines()[0] == container
        assert f"system={system.root.sha256}" in said
        assert _host_key(metal, container) in said, "the key that was made for this install"
        assert f" {_spare(metal, name).address}/24" in said
    assert metal.on("spare2", "cat /proc/mdstat").count("[UU]") == 2, "/boot and the volume group are mirrored"
    assert "active" not in metal.on("spare1", "cat /proc/mdstat 2>/dev/null || true")


def test_nothing_secret_is_in_the_installers_log_or_on_the_console(metal: LabSite) -> None:
    for name, container in NAMES.items():
        said = _log(metal, container) + _console(metal, name)
        assert "PRIVATEKEY" not in said.replace(" ", "")
        assert "Bearer" not in said


def test_a_guest_runs_on_a_machine_that_was_blank(metal: LabSite) -> None:
    def add(document: Any) -> None:
        interface = {"network": "outside", "address": "10.200.0.60"}
        document["guests"].append({"name": GUEST, "template": "small", "interfaces": [interface]})

    metal.edit("clusters.yaml", add)
    metal.edit("deployment.yaml", lambda document: document["deployment"].setdefault("c05", []).append(GUEST))
    with metal.timed("a guest on c05, from its line in the spec to its answer"):
        metal.converged(f"{GUEST} runs on c05")
    assert metal.on(GUEST, "hostname; echo thesis > /root/work; sync").strip() == GUEST


def test_a_container_with_work_on_it_is_not_reinstalled_without_naming_it(metal: LabSite) -> None:
    said = metal.ask("reinstall", "c05", "--yes", check=False)
    assert GUEST in said
    assert "evacuate c05" in said
    assert metal.on(GUEST, "cat /root/work").strip() == "thesis"


@pytest.fixture(scope="module")
def uefi(metal: LabSite) -> UefiInstall:
    """A machine with UEFI, adopted and switched on, to be installed beside the tests that follow."""
    entry = _uefi_spare(metal)
    # Its firmware does not start over when it finds nothing to boot, so it is known before it is switched on.
    _adopt(metal, entry.name, UEFI)
    _break(metal, "power-on", entry.name)
    return UefiInstall(entry.name, time.time())


@pytest.mark.by_hand
@pytest.mark.usefixtures("uefi")
def test_a_mirror_boots_with_its_first_disk_gone(metal: LabSite) -> None:
    _break(metal, "power-off", "spare2")
    _break(metal, "pull-disk", "spare2")
    metal.until("c06 is missed", lambda s: not _container(s, "c06")["reachable"], 300)
    with metal.timed("c06 boots from one disk of its mirror, to vlan-ready"):
        _break(metal, "power-on", "spare2")
        metal.until("c06 is back", lambda s: _is_ready(s, "c06"), INSTALL_S)
    assert metal.on("spare2", "ls -d /sys/block/vd*").split() == ["/sys/block/vda"]
    assert metal.on("spare2", "cat /proc/mdstat").count("_") >= 2, "half of both mirrors is missing"


@pytest.mark.by_hand
def test_an_installed_machine_that_boots_from_the_network_unasked_is_sent_to_its_disk(metal: LabSite) -> None:
    """Now with both disks again, the first of them older than the second."""
    key, began_s = _host_key(metal, "c06"), time.time()
    _break(metal, "power-off", "spare2")
    _break(metal, "push-disk", "spare2")
    _break(metal, "boot-network", "spare2")
    metal.until("c06 is missed", lambda s: not _container(s, "c06")["reachable"], 300)
    with metal.timed("c06 boots by way of the network, to vlan-ready"):
        _break(metal, "power-on", "spare2")
        metal.until("c06 is back", lambda s: _is_ready(s, "c06"), INSTALL_S)
    assert _was_sent_home(metal, "spare2")
    assert not [event for event in _events(metal, "c06", began_s) if event["reason"] == "installed"]
    assert key in metal.on("spare2", "cat /etc/ssh/ssh_host_ed25519_key.pub")


def test_a_reinstall_needs_a_word(metal: LabSite) -> None:
    metal.on("spare2", "echo mine > /root/old; sync")
    said = metal.ask("reinstall", "c06", check=False)
    assert "--yes" in said, said
    assert metal.on("spare2", "cat /root/old").strip() == "mine"
    assert not _install(metal.status(), "c06")


@pytest.mark.by_hand
def test_a_machine_with_uefi_is_installed(metal: LabSite, uefi: UefiInstall) -> None:
    metal.until(f"{UEFI} is vlan-ready", lambda s: _is_ready(s, UEFI), INSTALL_S)
    metal.timings.append(("UEFI: power-on to vlan-ready, at most", time.time() - uefi.began_s))
    _note_steps(metal, UEFI, uefi.began_s)
    assert metal.on(uefi.machine, "test -d /sys/firmware/efi && echo uefi").strip() == "uefi"


@pytest.mark.by_hand
def test_a_machine_that_never_calls_back_is_stuck_after_its_deadline(metal: LabSite) -> None:
    """It freezes once it holds its job. The image is damaged as well, for the next test."""
    _damage(metal)
    _set_deadline(metal, SHORT_DEADLINE)
    began_s = time.time()
    metal.ask("reinstall", "c06", "--yes")
    metal.until("its installer is at work", _is_at_work, 600)
    _break(metal, "freeze", "spare2")
    with metal.timed(f"a frozen installer, to install-stuck (deadline {SHORT_DEADLINE})"):
        metal.until("its time is over", lambda _: _failed_with(metal, "c06", "install-stuck", began_s), 300)
    _set_deadline(metal, None)
    # A machine that booted from the network just before gets a second ticket, which must have run out as well.
    metal.until("c06 is stuck", lambda s: "install-stuck" in _reasons(s, "c06") and not _install(s, "c06"), 300)


def _is_at_work(status: Status) -> bool:
    """The installer claimed its job."""
    return _install(status, "c06").get("step", "queued") not in ("queued", "waits for the machine")


def _damage(site: LabSite) -> None:
    """Another file in the place of the system image: the same, but for one byte in its middle."""
    system = boot_files.system_file(site.files.boot)
    bad = system.with_suffix(".bad")
    shutil.copyfile(system, bad)
    with bad.open("r+b") as stream:
        stream.seek(bad.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 0xFF]))
    bad.replace(system)


@pytest.mark.by_hand
def test_a_damaged_image_is_never_booted(metal: LabSite) -> None:
    """After the reset the machine asks again, and by a person's word it is still to be reinstalled."""
    began_s = time.time()
    with metal.timed("reset to the refusal of a damaged image"):
        _break(metal, "reset", "spare2")
        metal.until("corrupt", lambda _: _failed_with(metal, "c06", "corrupt", began_s), INSTALL_S)
    system = boot_files.system_file(metal.files.boot)
    with system.open("rb") as stream:
        served = hashlib.file_digest(stream, "sha256").hexdigest()
    assert served in _log(metal, "c06"), "the log names the digest that was found"
    assert not _container(metal.status(), "c06")["reachable"]


@pytest.mark.by_hand
def test_another_master_takes_over_and_no_container_and_no_guest_notices(metal: LabSite) -> None:
    """The first one is lost in the middle of its work. All that comes after this is done by the second."""
    archive, second = metal.log.parent / "export.tar.gz", metal.log.parent / "second"
    metal.vcrecon("master", "export", str(archive), "--specs", str(metal.files.specs), "--state", str(metal.state))
    before = _lives(metal)
    assert GUEST in before["c05"]
    began_s = time.time()
    with metal.timed("from the loss of the first master until the second sees all well and serves boots"):
        metal.kill()
        metal.vcrecon("master", "promote", str(archive), "--state", str(second))
        metal.start(record=second.name)
        metal.until("the second looks after the site", lambda s: _is_well(s, before) and not s["boot"]["problem"], 300)
    assert _lives(metal) == before
    events = json.loads(metal.ask("events", "--json", "--limit", "1000"))["events"]
    done = {event["reason"] for event in events if event["at_s"] >= began_s}
    assert done.isdisjoint({"start-guest", "stop-guest", "create-volume", "install", "installed", "set-up-network"})
    # What was asked of the first has to be asked again; then the next test installs the machine.
    assert not _install(metal.status(), "c06")
    metal.ask("reinstall", "c06", "--yes")


def _is_well(status: Status, containers: Iterable[str]) -> bool:
    guests = all(guest["state"] == "running" for guest in status["guests"])
    return guests and all(_is_ready(status, name) and not _reasons(status, name) for name in containers)


_LIVES = {
    "kvm": "for n in $(virsh -q list --name); do echo $n $(virsh domuuid $n) $(virsh domid $n); done",
    "xen": "xl list -v | awk 'NR > 1 { print $1, $7, $2 }'",
}


def _lives(site: LabSite) -> dict[str, str]:
    """Of each container but c06: the id of its boot, and each domain with its UUID and its number since that boot."""
    machines = {container: name for name, container in NAMES.items()} | {UEFI: _uefi_spare(site).name}
    found = {}
    for name, entry in site.spec.containers.items():
        if name == "c06":
            continue
        script = f"cat /proc/sys/kernel/random/boot_id; {_LIVES[entry.hypervisor]}"
        found[name] = site.on(machines.get(name, name), script)
    return found


@pytest.mark.by_hand
def test_a_download_that_is_cut_in_the_middle_goes_on_from_there(metal: LabSite) -> None:
    """The master itself is stopped and started: the ticket, the token and the half download outlive it."""
    system = boot_files.system_file(metal.files.boot)
    fresh = system.with_suffix(".new")
    os.link(system.with_suffix(".kept"), fresh)
    fresh.replace(system)
    old_key, began_s = _host_key(metal, "c06"), time.time()
    with metal.timed("reinstall of c06, its master restarted in mid-download, to vlan-ready"):
        _break(metal, "reset", "spare2")
        metal.until("it is in the middle of the download", _half_way, INSTALL_S)
        metal.restart()
        metal.until("c06 is vlan-ready", lambda s: _is_ready(s, "c06"), INSTALL_S)
    _note_steps(metal, "c06", began_s)
    log = _log(metal, "c06")
    cuts = [int(line.split(" cut at ")[1].split()[0]) for line in log.splitlines() if " cut at " in line]
    assert any(0 < offset < system.stat().st_size for offset in cuts), "it was cut, and not at either end"
    assert "SHA-256 proved" in log
    assert _host_key(metal, "c06") != old_key, "a new system has a new host key, and vcrecon takes it"
    assert metal.on("spare2", "ls /root/old", check=False) == "", "what was on the disks is gone"
    assert metal.on("spare2", "cat /proc/mdstat").count("[UU]") == 2


def _half_way(status: Status) -> bool:
    install = _install(status, "c06")
    total = install.get("bytes_total") or 0
    return total > 0 and 0.1 * total < install["bytes_done"] < 0.9 * total


def test_the_guest_leaves_before_its_container_does(metal: LabSite) -> None:
    """The last step: the module's fixture takes the containers out of the spec and switches them off."""
    metal.edit("deployment.yaml", lambda document: document["deployment"]["c05"].remove(GUEST))
    metal.edit(
        "clusters.yaml",
        lambda document: document.update(guests=[g for g in document["guests"] if g["name"] != GUEST]),
    )
    metal.converged("the guest is gone from c05")
    assert GUEST not in metal.on("spare1", "virsh -q list --name").split()
