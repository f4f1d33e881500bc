"""What people do to the lab: mend a guest's disk, sit at its console, make mistakes in specs and on hosts."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pty
import select
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from lab_site import CLI, LabSite

from vcrecon.lab import layout

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.lab, pytest.mark.timeout(3600)]


# --- rescue --------------------------------------------------------------------------------------------------


def test_a_held_guest_is_left_alone_until_it_is_released(site: LabSite) -> None:
    guest = "b-n1"
    container = site.container_of(guest)
    site.on(guest, "echo thesis > /root/work; sync")
    said = site.ask("rescue", guest, "--run", "cat root/work; echo mended > root/mended")
    assert "thesis" in said
    before = site.on(container, f"lvs --noheadings -o lv_tags vg0/vcg-{guest}")
    assert "vc.held" in before
    # A controller that begins anew, without a record, knows it from the disk's own tag.
    site.stop()
    site.start(record="begun-anew")
    status = site.converged()
    assert next(g for g in status["guests"] if g["name"] == guest)["state"] == "held"
    site.stop()
    site.start()
    assert site.on(container, f"lvs --noheadings -o lv_tags vg0/vcg-{guest}") == before
    assert guest not in site.on(container, "virsh -q list --name").split()
    site.ask("release", guest)
    site.until("it boots", lambda s: not s["converged"], 120)
    site.converged()
    assert site.on(guest, "cat /root/mended").strip() == "mended"


# --- console -------------------------------------------------------------------------------------------------


class Terminal:
    """A person at a terminal: types, and sees."""

    def __init__(self, *command: str) -> None:
        self._own, theirs = pty.openpty()
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._own, text.encode())

    def sees(self, text: str, deadline_s: float = 120.0, nudge: str = "") -> None:
        ends_s, nudged_s = time.monotonic() + deadline_s, time.monotonic()
        while text not in self.shown:
            assert time.monotonic() < ends_s, f"never saw {text!r}, only: {self.shown!r}"
            if nudge and time.monotonic() - nudged_s > 10:
                # What is typed before a getty listens is lost, as on any serial line.
                self.type(nudge)
                nudged_s = time.monotonic()
            if select.select([self._own], [], [], 1.0)[0]:
                with contextlib.suppress(OSError):
                    self.shown += os.read(self._own, 65536).decode(errors="replace")
        self.shown = self.shown.partition(text)[2]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._own)


@pytest.mark.parametrize("guest", ["a-n1", "a-n2"], ids=["KVM", "Xen"])
def test_the_console_is_a_terminal_and_leaves_cleanly(site: LabSite, guest: str) -> None:
    terminal = Terminal(*CLI, "console", guest, "--state", str(site.state))
    try:
        terminal.type("\r")
        terminal.sees(f"{guest} login:", nudge="\r")
        terminal.type("root\r")
        terminal.sees("Password:")
        terminal.type("vcrecon-demo\r")
        terminal.sees(f"root@{guest}")
        terminal.type("echo $((6*7)) on $(hostname)\r")
        terminal.sees(f"42 on {guest}")
        terminal.type("exit\r")
        terminal.sees("login:")
        terminal.type("\x1d")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()


# --- mistakes ------------------------------------------------------------------------------------------------


def _blocks(status: dict[str, Any]) -> dict[str, set[str]]:
    """Object to the reasons that block it."""
    found = {g["name"]: {b["reason"] for b in g["blocked"]} for g in status["guests"]}
    return found | {c["name"]: {b["reason"] for b in c["blocked"]} for c in status["containers"]}


def _tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


EDITED = ("images.yaml", "clusters.yaml", "deployment.yaml")

ODD = {
    "odd-volume": ("c01", "volume-taken"),
    "odd-domain": ("c01", "name-taken"),
    "odd-xen": ("c03", "name-taken"),
    "odd-junk": ("c01", "image-not-a-tree"),
    "odd-init": ("c02", "image-no-init"),
    "odd-digest": ("c02", "corrupt"),
    "odd-hook": ("c02", "hook-failed"),
    "odd-slow": ("c03", "hook-failed"),
}
"""A guest that cannot be made, where it is placed, and the reason that it must show."""


@pytest.fixture
def odd_site(site: LabSite) -> Iterator[LabSite]:
    """Eight guests, each with something wrong; gone again afterwards."""
    images, specs = site.files.www / "images", site.files.specs
    before = {name: (specs / name).read_text() for name in EDITED}
    content = {
        "odd-junk": b"this is no archive\n" * 600,
        "odd-init": _tar(etc__hostname=b"nobody\n", usr__share__nothing=b"-"),
        "odd-digest": b"something else",
    }
    for name, data in content.items():
        (images / name).write_bytes(data)

    def add_images(document: Any) -> None:
        good = document["images"]["debian-12"]
        for name, data in content.items():
            sha256 = hashlib.sha256(b"what was meant" if name == "odd-digest" else data).hexdigest()
            url = f"http://{layout.IMAGES}:{layout.IMAGES_PORT}/{name}"
            document["images"][name] = {**good, "root": {"url": url, "sha256": sha256}}

    def add_guests(document: Any) -> None:
        for number, name in enumerate(ODD):
            document["guests"].append(
                {
                    "name": name,
                    "template": "small",
                    "memory": "64MiB",
                    "image": name if name in content else "debian-12",
                    "interfaces": [{"network": "outside", "address": f"10.200.0.{50 + number}"}],
                    "hooks": [f"hooks/{name}"] if name in ("odd-hook", "odd-slow") else [],
                }
            )

    def place(document: Any) -> None:
        for name, (container, _) in ODD.items():
            document["deployment"][container].append(name)

    for name, text in (("odd-hook", "echo no such course >&2\nexit 3\n"), ("odd-slow", "sleep 600\n")):
        (specs / "hooks" / name).write_text(f"#!/bin/sh\n{text}")
        (specs / "hooks" / name).chmod(0o755)
    with contextlib.ExitStack() as undo:
        for container, make, remove in _STRANGERS:
            undo.callback(site.on, container, remove, check=False)
            site.on(container, make)
        site.edit("images.yaml", add_images)
        site.edit("clusters.yaml", add_guests)
        site.edit("deployment.yaml", place)
        yield site
        for name, text in before.items():
            (specs / name).write_text(text)
        for name in ("odd-hook", "odd-slow"):
            (specs / "hooks" / name).unlink()
        site.ask("confirm", check=False)
    site.converged()


_DOMAIN = "<domain type='kvm'><name>odd-domain</name><memory>65536</memory><os><type>hvm</type></os></domain>"
_STRANGERS = (
    ("c01", "lvcreate -qq -y -L 16M -n vcg-odd-volume vg0", "lvremove -qq -y vg0/vcg-odd-volume"),
    ("c01", f"virsh -q define /dev/stdin <<'EOF'\n{_DOMAIN}\nEOF", "virsh -q undefine odd-domain"),
    (
        "c03",
        'printf \'name="odd-xen"\\nmemory=128\\nkernel="/vmlinuz"\\ntype="pv"\\n\' > /root/odd.cfg'
        " && xl create -p -q /root/odd.cfg",
        "xl destroy odd-xen",
    ),
)
"""What is on a container and not ours: where, how it is made, how it is removed."""


def test_each_mistake_stops_its_own_guest_with_what_to_do(odd_site: LabSite) -> None:
    site, wanted = odd_site, {name: reason for name, (_, reason) in ODD.items()}

    def all_show(status: dict[str, Any]) -> bool:
        found = _blocks(status)
        return all(reason in found[name] for name, reason in wanted.items())

    status = site.until("every mistake shows", all_show)
    running = {g["name"] for g in status["guests"] if g["state"] == "running"}
    assert running >= {"a-head", "a-n1", "a-n2", "b-head", "b-n1", "b-n2", "teacher"}, "the others go on"
    metrics = urllib.request.urlopen(status["metrics_url"], timeout=10).read().decode()
    for name, reason in wanted.items():
        assert reason in site.ask("events", f"guest/{name}")
        assert f'vcrecon_blocked{{object="guest/{name}",reason="{reason}"}} 1.0' in metrics
    assert "vcg-odd-volume" in site.on("c01", "lvs --noheadings -o lv_name"), "a stranger's volume is left alone"
    assert "odd-domain" in site.on("c01", "virsh -q list --all --name")
    assert "odd-xen" in site.on("c03", "xl list")


_LACKS = {
    "c01": ("no-nftables", "mv /usr/sbin/nft /usr/sbin/nft.gone", "mv /usr/sbin/nft.gone /usr/sbin/nft"),
    "c02": ("no-lvm", "mv /usr/sbin/lvm /usr/sbin/lvm.gone", "mv /usr/sbin/lvm.gone /usr/sbin/lvm"),
    "c04": ("wrong-hypervisor", "sed -i s/xen/kvm/ /etc/vcrecon/release", "sed -i s/kvm/xen/ /etc/vcrecon/release"),
}
"""What each container is made to lack: the reason that it must show, the harm, and how it is mended."""


def test_a_container_that_lacks_something_says_so(site: LabSite) -> None:
    running = {name: site.on(name, "virsh -q list --name") for name in ("c01", "c02")}
    for name, (_, harm, _) in _LACKS.items():
        site.on(name, harm)

    def all_say_so(status: dict[str, Any]) -> bool:
        found = _blocks(status)
        return all(reason in found[name] for name, (reason, _, _) in _LACKS.items())

    try:
        status = site.until("each container says what it lacks", all_say_so, 300)
        lacking = {name for name in site.spec.containers if _blocks(status)[name]}
        assert lacking == set(_LACKS), "and the others lack nothing"
    finally:
        for name, (_, _, mend) in _LACKS.items():
            site.on(name, mend)
    site.converged()
    assert {name: site.on(name, "virsh -q list --name") for name in running} == running, "guests ran all the time"


def test_a_full_system_disk_stops_the_image_and_nothing_else(site: LabSite) -> None:
    image = site.files.www / "images" / "big"
    image.write_bytes(os.urandom(32 * 1024**2))
    url = f"http://{layout.IMAGES}:{layout.IMAGES_PORT}/big"
    sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
    before = {
        name: (site.files.specs / name).read_text() for name in ("images.yaml", "clusters.yaml", "deployment.yaml")
    }

    def add_image(document: Any) -> None:
        document["images"]["big"] = {**document["images"]["debian-12"], "root": {"url": url, "sha256": sha256}}

    def add_guest(document: Any) -> None:
        place = [{"network": "outside", "address": "10.200.0.60"}]
        document["guests"].append({"name": "late", "template": "small", "image": "big", "interfaces": place})

    site.on(
        "c03",
        "fallocate -l $(($(stat -f -c '%f * %S' /) - 64 * 1024 * 1024)) /root/filler"
        " && ! dd if=/dev/zero of=/root/filler2 bs=64k status=none",
    )
    try:
        site.edit("images.yaml", add_image)
        site.edit("clusters.yaml", add_guest)
        site.edit("deployment.yaml", lambda document: document["deployment"]["c03"].append("late"))

        def stopped_but_ready(status: dict[str, Any]) -> bool:
            states = {container["name"]: container["state"] for container in status["containers"]}
            # The new guest's firewall rules make it `installed` for a moment.
            return "no-space" in _blocks(status).get("late", ()) and states["c03"] == "vlan-ready"

        site.until("no-space shows, and the container stays ready", stopped_but_ready, 300)
    finally:
        site.on("c03", "rm -f /root/filler /root/filler2")
        for name, text in before.items():
            (site.files.specs / name).write_text(text)
    site.converged()
