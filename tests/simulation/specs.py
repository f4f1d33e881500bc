"""The spec files of a schedule: drawn from its seed, kept as documents, written as a person's editor would.

JSON is YAML, so the files are written with `json`; what matters to a schedule is what they say and when.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import random
from pathlib import Path
from typing import Any

from tests.simulation.site import IMAGES_URL

from vcrecon.sim.images import boot_file, root_archive

SITE = "sim"
FIRST_PORT = 20_000
FILES = ("site", "images", "containers", "clusters", "deployment")
IMAGES = ("debian-12", "debian-13")
SINGLES = {"x1": "10.200.0.51", "x2": "10.200.0.52"}
CANARY = "$6$canarysalt$" + ("NeverToBeSeenInAnyLogOrArgumentOrRecord" * 3)[:86]
"""The root password's hash: a secret that shows up nowhere but on standard input and on the guests' disks (S10)."""
SYSTEM_SHA256 = "e" * 64


@functools.lru_cache(maxsize=8)
def artifacts(image: str) -> dict[str, dict[str, str]]:
    """What images.yaml says of an image of the simulated server."""
    files = {"root": (f"{image}.tar.zst", root_archive(image, "tar.zst"))}
    for part in ("kernel", "initrd"):
        files[part] = (f"{image}.{part}", boot_file(image, part))  # type: ignore[arg-type]
    return {
        part: {"url": f"{IMAGES_URL}/images/{name}", "sha256": hashlib.sha256(data).hexdigest()}
        for part, (name, data) in files.items()
    }


class SpecFiles:
    """The documents as a person has them in mind (`documents`), and the directory where they lie."""

    def __init__(self, directory: Path, documents: dict[str, Any]) -> None:
        self.directory = directory
        self.documents = documents

    def write_all(self) -> None:
        (self.directory / "secrets").mkdir(parents=True, exist_ok=True)
        (self.directory / "secrets" / "root.hash").write_text(CANARY + "\n")
        (self.directory / "client_key").write_text("a key of the simulation\n")
        for name in FILES:
            self.write(name)

    def text(self, name: str) -> str:
        return json.dumps(self.documents[name], indent=1) + "\n"

    def write(self, name: str, text: str | None = None) -> None:
        """At once, or what an accident leaves of it."""
        path = self.directory / f"{name}.yaml"
        path.write_text(self.text(name) if text is None else text)

    @property
    def deployment(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self.documents["deployment"]["deployment"]
        return found

    @property
    def placement(self) -> dict[str, str]:
        return {guest: container for container, guests in self.deployment.items() for guest in guests}

    @property
    def containers(self) -> list[str]:
        return [entry["name"] for entry in self.documents["containers"]["containers"]]

    def move(self, guest: str, container: str) -> None:
        for guests in self.deployment.values():
            if guest in guests:
                guests.remove(guest)
        self.deployment.setdefault(container, []).append(guest)

    def add_single(self, guest: str, container: str) -> None:
        interfaces = [{"network": "outside", "address": SINGLES[guest]}]
        self.documents["clusters"]["guests"].append({"name": guest, "template": "node", "interfaces": interfaces})
        self.move(guest, container)

    def remove_single(self, guest: str) -> None:
        found = self.documents["clusters"]
        found["guests"] = [entry for entry in found["guests"] if entry["name"] != guest]
        for guests in self.deployment.values():
            if guest in guests:
                guests.remove(guest)

    def without_the_last(self, name: str) -> dict[str, Any]:
        """deployment.yaml or clusters.yaml as it is when its end is not there yet: with a guest too few."""
        documents = self.copy()
        if name == "deployment":
            next(guests for guests in reversed(documents[name]["deployment"].values()) if guests).pop()
        elif documents[name]["guests"]:
            documents[name]["guests"].pop()
        else:
            documents[name]["clusters"][-1]["nodes"]["count"] -= 1
        return documents[name]  # type: ignore[no-any-return]

    def copy(self) -> dict[str, Any]:
        return copy.deepcopy(self.documents)


def draw(rng: random.Random) -> dict[str, Any]:
    """The documents of a site: 3 to 5 containers, one or two clusters, sometimes guests of their own."""
    count = rng.choice([3, 3, 3, 4, 5])
    names = [f"c{number:02}" for number in range(1, count + 1)]
    bare_metal = rng.random() < 0.3
    containers = [
        {
            "name": name,
            "address": "127.0.0.1",
            "port": FIRST_PORT + number,
            "hypervisor": rng.choice(["kvm", "kvm", "xen"]),
        }
        for number, name in enumerate(names)
    ]
    clusters = [
        {
            "name": letter,
            "vlan": 101 + number,
            "subnet": f"10.1.{1 + number}.0/24",
            "head": {"template": "head", "networks": {"outside": f"10.200.0.{11 + number}"}},
            "nodes": {"count": rng.choice([1, 1, 2]), "template": "node"},
        }
        for number, letter in enumerate("ab"[: rng.choice([1, 2, 2])])
    ]
    deployment: dict[str, list[str]] = {name: [] for name in names}
    documents = {
        "site": _site(rng, bare_metal=bare_metal),
        "images": {"images": {name: artifacts(name) | {"disk": "2GiB"} for name in IMAGES}},
        "containers": {
            "defaults": {
                "memory": "6GiB", "cores": 4, "disk": "200GiB",
                "trunk": "eno1", "volume_group": "vg0", "pool": "guests",
            },
            "containers": containers,
        },
        "clusters": {
            "templates": {
                "head": {"memory": "1GiB", "disk": "8GiB"},
                "node": {"memory": "512MiB", "disk": "4GiB", "storage": rng.choice(["thin", "thin", "thin", "thick"])},
            },
            "clusters": clusters,
            "guests": [],
        },
        "deployment": {"deployment": deployment},
    }  # fmt: skip
    if bare_metal:
        for entry in containers:
            entry["mac"] = f"52:54:00:00:00:{str(entry['name'])[-2:]}"
            entry["system"] = entry["hypervisor"]
        system = {"url": f"{IMAGES_URL}/images/system.tar.zst", "sha256": SYSTEM_SHA256}
        documents["images"]["systems"] = {name: {"root": dict(system), "hypervisor": name} for name in ("kvm", "xen")}
    files = SpecFiles(Path(), documents)
    for cluster in clusters:
        nodes = cluster["nodes"]
        assert isinstance(nodes, dict)
        for member in ["head", *(f"n{n}" for n in range(1, nodes["count"] + 1))]:
            files.move(f"{cluster['name']}-{member}", rng.choice(names))
    for guest in SINGLES:
        if rng.random() < 0.5:
            files.add_single(guest, rng.choice(names))
    return documents


def _site(rng: random.Random, *, bare_metal: bool) -> dict[str, Any]:
    provisioning: dict[str, Any] = {"network": "127.0.0.0/24"}
    if bare_metal:
        provisioning |= {"mode": "external", "address": "127.0.0.1", "install_deadline": "10m"}
    return {
        "site": SITE,
        "session": rng.choice(["running", "running", "running", "preparing", "preparing"]),
        "provisioning": provisioning,
        "ssh": {"user": "root", "key": "client_key", "known_hosts": "known_hosts"},
        "services": {"mirror": {"address": "10.255.0.1", "port": 80, "to": "10.64.0.1:8081"}},
        "networks": {
            "outside": {
                "vlan": 900,
                "subnet": "10.200.0.0/24",
                "gateway": "10.200.0.1",
                "allow": [{"to": "192.0.2.0/24", "tcp": [22, 80, 443], "udp": [53, 123]}],
            }
        },
        "limits": {"moves": rng.choice([1, 2, 4])},
        "policies": {
            "on_poweroff": rng.choice(["restart", "restart", "restart", "honour"]),
            "stop_grace": rng.choice(["5s", "60s"]),
            "boot_deadline": "5m",
            "storage": "thin",
        },
        "defaults": {"image": IMAGES[0], "root_password": "secrets/root.hash"},
    }
