"""Where the cases run: a container's volume group, pool and trunk, and the small site the suite pretends it is in.

Everything the suite makes carries the site name SITE, so it may run on a container that has other guests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from tests.lab.conformance.serving import Offer

from vcrecon.core.memory import Memory
from vcrecon.core.observation import Seen, Storage, Volume
from vcrecon.core.plan import View
from vcrecon.core.proof import NotElsewhere, not_elsewhere
from vcrecon.core.wanted import Wanted
from vcrecon.core.world import World
from vcrecon.host.scripts import Bench, Secrets
from vcrecon.host.storage import Disks
from vcrecon.hypervisor import HYPERVISORS
from vcrecon.hypervisor.base import Hypervisor
from vcrecon.spec.model import (
    AllowRule,
    Artifact,
    Container,
    Guest,
    HypervisorName,
    Image,
    Interface,
    Network,
    Service,
    Site,
    Spec,
    Ssh,
)

SITE = "conform"
GUEST, OTHER, THICK = "cf-a", "cf-b", "cf-thick"
VLAN, OPEN_VLAN = 4001, 4002
MIB = 1 << 20
IMAGE_BYTES, DISK_BYTES = 512 * MIB, 768 * MIB
PASSWORD_HASH = "$6$conformance$" + "h" * 86
ABILITIES = frozenset({"device-mapper", "vlan", "bridge-conntrack", "hypervisor", "run-guests", "terminal", "xz"})
"""What a host may lack (`Place.lacks`); cases say what they need.

`device-mapper`: volumes can be active; `vlan`: 802.1Q links; `bridge-conntrack`: nft's `ct` and `obrname` in
the bridge family; `hypervisor`: libvirt or Xen answers; `run-guests`: it can start one; `terminal`: a command
can have one; `xz`: xz-utils is installed.
"""


@dataclass(frozen=True)
class Place:
    """A container as the suite needs to know it. `files` is what the image server offers, as the host reaches it."""

    hypervisor: HypervisorName
    group: str
    pool: str
    trunk: str
    files: Offer
    lacks: frozenset[str] = field(default_factory=frozenset)

    @property
    def tool(self) -> Hypervisor:
        return HYPERVISORS[self.hypervisor]

    @property
    def disks(self) -> Disks:
        return Disks(self.group, self.pool, SITE)

    @cached_property
    def container(self) -> Container:
        return Container(
            "here", "192.0.2.1", 22, self.hypervisor, 4 << 30, 2, 8 << 30, self.trunk, self.group, self.pool, "1"
        )

    def image(self, name: str) -> Image:
        """An image whose root is the file `name` of the image server, with its kernel."""
        kernel = self.artifact("kernel-xen" if self.hypervisor == "xen" else "kernel-kvm")
        return Image(name, self.artifact(name), IMAGE_BYTES, kernel, None, "root=/dev/vda rw")

    def artifact(self, name: str) -> Artifact:
        return Artifact(self.files.url(name), self.files.sha256(name))

    @cached_property
    def spec(self) -> Spec:
        """Two guests with thin disks and one with a thick one; `there` is this very host under another name."""
        image = self.image("root.tar")
        guests = {GUEST: _guest(GUEST, 1), OTHER: _guest(OTHER, 2)}
        guests[THICK] = replace(_guest(THICK, 3), storage="thick", disk_bytes=IMAGE_BYTES)
        networks = {
            "private": Network("private", VLAN, "10.241.1.0/24"),
            "open": Network(
                "open", OPEN_VLAN, "10.241.2.0/24", gateway="10.241.2.1", allow=(AllowRule("0.0.0.0/0", tcp=(80, 443)),)
            ),
        }
        site = Site(
            SITE,
            "running",
            Ssh("root", Path("key"), Path("known_hosts")),
            (Service("mirror", "192.0.2.80", 80, "192.0.2.1:8080"),),
        )
        return Spec(
            site,
            {image.name: image},
            {"here": self.container, "there": replace(self.container, name="there")},
            networks,
            {},
            guests,
            {"here": tuple(guests), "there": ()},
            frozenset(),
            "digest",
        )

    def bench(self, volumes: Iterable[Volume] = ()) -> Bench:
        """What scripts are made from, when a look showed these volumes on the container."""
        world = World()
        world.observe(Seen("here", 0.0, "boot", storage=Storage(True, volumes=tuple(volumes))))
        return Bench(
            Wanted(self.spec), world, Memory(), Secrets(b"conformance-site-secret-32-bytes", lambda g: PASSWORD_HASH)
        )


def nowhere_else(place: Place, guest: str) -> NotElsewhere:
    """The proof that an action needs which begins a copy: no other container is in the suite's site."""
    bench = place.bench()
    found = not_elsewhere(View(bench.wanted, bench.world, bench.memory, 0.0), guest, "here")
    assert isinstance(found, NotElsewhere)
    return found


def _guest(name: str, number: int) -> Guest:
    port = Interface(f"52:54:00:cf:00:{number:02x}", VLAN, "private", f"10.241.1.{10 + number}/24")
    return Guest(
        name, "single", None, "root.tar", 64 * MIB, 1, DISK_BYTES, Path("hash"), (port,), ("ssh-ed25519 AAAA student",)
    )
