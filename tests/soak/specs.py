"""The spec files of a soak: a classroom of any size, kept as documents and written as an editor would.

JSON is YAML, so the files are written with `json`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

FILES = ("site", "images", "containers", "clusters", "deployment")
IMAGES = ("debian-12", "debian-13")
SECRETS = Path(__file__).parents[2] / "specs" / "small" / "secrets"
NODES = 4
XEN_EVERY = 10
GUESTS_ON_ONE_MAX = 14
OUTSIDE = 900
OUTSIDE_BASE = IPv4Address("10.200.0.0")
FIRST_VLAN = 1001


class SpecFiles:
    """The documents that a person has in mind, and the directory where they lie.

    `containers` maps names to the port of the container's SSH server; `images` is what images.yaml says of each.
    """

    def __init__(self, directory: Path, containers: Mapping[str, int], images: Mapping[str, Any], guests: int) -> None:
        self.directory = directory
        singles = max(2, guests // 50)
        clusters = (guests - singles) // (NODES + 1)
        self.placement: dict[str, str] = {}
        self.singles: dict[str, dict[str, Any]] = {}
        self.vlans: dict[str, int] = {}
        self._named = 0
        self._site = _site()
        self._images = {"images": {name: {**parts, "disk": "2GiB"} for name, parts in images.items()}}
        self._containers = {
            "defaults": {
                "memory": "14GiB", "cores": 4, "disk": "200GiB",
                "trunk": "eno1", "volume_group": "vg0", "pool": "guests",
            },
            "containers": [
                {"name": name, "address": "127.0.0.1", "port": port, "hypervisor": hypervisor_of(number)}
                for number, (name, port) in enumerate(containers.items())
            ],
        }  # fmt: skip
        self._clusters = [_cluster(number) for number in range(clusters)]
        self.on: dict[str, list[str]] = {name: [] for name in containers}
        members = ["head", *(f"n{n}" for n in range(1, NODES + 1))]
        for number, cluster in enumerate(self._clusters):
            for member in members:
                self._place(f"{cluster['name']}-{member}", FIRST_VLAN + number)
        for _ in range(guests - len(self.placement)):
            self.add(self.new_name(), self.emptiest())

    def _place(self, guest: str, vlan: int) -> None:
        self.vlans[guest] = vlan
        self.move(guest, self.emptiest())

    def emptiest(self) -> str:
        return min(self.on, key=lambda container: len(self.on[container]))

    def roomy(self, rng: random.Random) -> str:
        """A container that can take one more guest: the emptier of two at random."""
        return min(rng.sample(sorted(self.on), 2), key=lambda container: len(self.on[container]))

    def new_name(self) -> str:
        """A guest of its own that never was."""
        self._named += 1
        return f"x{self._named}"

    # --- edits: of the documents; `write` makes them true --------------------------------------------------

    def move(self, guest: str, container: str) -> None:
        before = self.placement.get(guest)
        if before is not None:
            self.on[before].remove(guest)
        self.placement[guest] = container
        self.on[container].append(guest)

    def add(self, guest: str, container: str, image: str = IMAGES[0]) -> None:
        """A guest of its own on the outside network; its address follows from its name."""
        address = _outside(len(self._clusters) + int(guest.removeprefix("x")))
        interfaces = [{"network": "outside", "address": address}]
        self.singles[guest] = {"name": guest, "template": "node", "interfaces": interfaces, "image": image}
        self.vlans[guest] = OUTSIDE
        self.move(guest, container)

    def remove(self, guest: str) -> None:
        del self.singles[guest]
        self.on[self.placement.pop(guest)].remove(guest)

    def text(self, name: str) -> str:
        documents = {
            "site": self._site,
            "images": self._images,
            "containers": self._containers,
            "clusters": {
                "templates": {
                    "head": {"memory": "1GiB", "cores": 2, "disk": "8GiB"},
                    "node": {"memory": "512MiB", "cores": 1, "disk": "4GiB"},
                },
                "clusters": self._clusters,
                "guests": list(self.singles.values()),
            },
            "deployment": {"deployment": self.on},
        }
        return json.dumps(documents[name], indent=1) + "\n"

    def write(self, *names: str) -> None:
        for name in names or FILES:
            self.put(name, self.text(name))

    def put(self, name: str, text: str) -> None:
        """Whatever an accident leaves of a file, by a rename as editors do."""
        path = self.directory / f"{name}.yaml"
        new = path.with_name(f".{name}.new")
        new.write_text(text)
        new.replace(path)

    def write_all(self, known_hosts: str = "") -> None:
        """The five files and what lies beside them. The client's key is the site's business."""
        secrets = self.directory / "secrets"
        secrets.mkdir(parents=True, exist_ok=True)
        for path in SECRETS.glob("*.hash"):
            (secrets / path.name).write_text(path.read_text())
        (self.directory / "known_hosts").write_text(known_hosts)
        self.write()


def container_names(count: int) -> list[str]:
    return [f"c{number:03}" for number in range(1, count + 1)]


def hypervisor_of(number: int) -> str:
    """Of the container with this number, from 0: some run Xen."""
    return "xen" if number % XEN_EVERY == XEN_EVERY - 1 else "kvm"


def _outside(number: int) -> str:
    """The address of a host with this number, below 4,095, on the outside network."""
    return str(OUTSIDE_BASE + number)


def _cluster(number: int) -> dict[str, Any]:
    return {
        "name": f"k{number + 1}",
        "vlan": FIRST_VLAN + number,
        "subnet": f"10.{1 + number // 250}.{number % 250}.0/24",
        "head": {"template": "head", "networks": {"outside": _outside(1 + number)}},
        "nodes": {"count": NODES, "template": "node"},
    }


def _site() -> dict[str, Any]:
    return {
        "site": "soak",
        "session": "running",
        "provisioning": {"network": "127.0.0.0/24"},
        "ssh": {"user": "root", "key": "client_key", "known_hosts": "known_hosts"},
        "services": {"mirror": {"address": "10.255.0.1", "port": 80, "to": "10.64.0.1:8081"}},
        "networks": {
            "outside": {
                "vlan": OUTSIDE,
                "subnet": f"{OUTSIDE_BASE}/20",
                "gateway": _outside(4094),
                "allow": [{"to": "192.0.2.0/24", "tcp": [22, 80, 443], "udp": [53, 123]}],
            }
        },
        "policies": {"on_poweroff": "restart", "stop_grace": "60s", "boot_deadline": "5m", "storage": "thin"},
        "defaults": {"image": IMAGES[0], "root_password": "secrets/root.hash"},
    }
