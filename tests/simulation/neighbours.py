"""Two specs of one site, A and B, drawn from dice: B is a neighbour of A, some edits away, or a stranger to it.

Both have their containers among those that the site has. For `transitions`.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.simulation.specs import IMAGES, SINGLES, SpecFiles, draw

from vcrecon.errors import SpecError
from vcrecon.spec.load import load

Documents = dict[str, Any]
Edit = Callable[[random.Random, SpecFiles], None]
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDlvHWzhVvMyWQ2rNEJRdoBy8ILnDpc8BpQzcSgjSkwY"
_STRANGER = 0.3
_BESIDE_THE_POOL = 0.1
"""Of the disk that a container's entry says, what its host surely has for thick disks (`vcrecon.sim.site`)."""


def pair(rng: random.Random, everything: Documents, scratch: Path) -> tuple[Documents, Documents]:
    """A and B, for a site whose containers are those of `everything`."""
    first = _valid(rng, lambda: _some_containers(rng, _edited(rng, everything, rng.randint(0, 2))), scratch)
    if rng.random() < _STRANGER:
        second = _valid(rng, lambda: _some_containers(rng, _edited(rng, _stranger(rng, everything), 2)), scratch)
    else:
        second = _valid(rng, lambda: _edited(rng, first, rng.randint(1, 4), everything), scratch)
    return first, second


def is_valid(documents: Documents, scratch: Path) -> bool:
    """Whether it is a spec, and its guests have room: `check` knows nothing of what a container has beside its pool."""
    files = SpecFiles(scratch, documents)
    files.write_all()
    (scratch / "known_hosts").write_text("")
    try:
        spec = load(scratch).spec
    except SpecError:
        return False
    return all(
        sum(guest.disk_bytes for guest in spec.guests_on(name) if guest.storage == "thick")
        <= container.disk_bytes * _BESIDE_THE_POOL
        for name, container in spec.containers.items()
    )


def _valid(rng: random.Random, make: Callable[[], Documents], scratch: Path) -> Documents:
    """The first that is a spec: dice also make guests that fit nowhere, and addresses that are taken."""
    while True:
        documents = make()
        if is_valid(documents, scratch):
            return documents


def _stranger(rng: random.Random, everything: Documents) -> Documents:
    """Drawn anew, on the same machines."""
    drawn = draw(rng)
    drawn["containers"] = copy.deepcopy(everything["containers"])
    drawn["images"] = copy.deepcopy(everything["images"])
    drawn["site"]["provisioning"] = copy.deepcopy(everything["site"]["provisioning"])
    names = [entry["name"] for entry in drawn["containers"]["containers"]]
    files = SpecFiles(Path(), drawn)
    for guest, container in files.placement.items():
        files.move(guest, container if container in names else rng.choice(names))
    for name in set(files.deployment) - set(names):
        del files.deployment[name]
    return drawn


def _some_containers(rng: random.Random, documents: Documents) -> Documents:
    """Often all of them; sometimes one less."""
    if rng.random() < 0.4:
        remove_container(rng, SpecFiles(Path(), documents))
    return documents


def _edited(rng: random.Random, documents: Documents, edits: int, everything: Documents | None = None) -> Documents:
    found = copy.deepcopy(documents)
    files = SpecFiles(Path(), found)
    choices: list[Edit] = [*EDITS, move, move]
    if everything is not None:
        choices += [remove_container, lambda rng, files: _add_container(rng, files, everything)]
    for _ in range(edits):
        rng.choice(choices)(rng, files)
    return found


# --- edits ---------------------------------------------------------------------------------------------------------


def move(rng: random.Random, files: SpecFiles) -> None:
    """One, some or all guests have another place."""
    chance = rng.choice([0.2, 0.5, 1.0])
    for guest in sorted(files.placement):
        if rng.random() < chance:
            files.move(guest, rng.choice(files.containers))


def remove_container(rng: random.Random, files: SpecFiles) -> None:
    names = files.containers
    if len(names) < 2:
        return
    gone = rng.choice(names)
    listed = files.documents["containers"]
    listed["containers"] = [entry for entry in listed["containers"] if entry["name"] != gone]
    for guest in files.deployment.pop(gone, []):
        files.move(guest, rng.choice(files.containers))


def _add_container(rng: random.Random, files: SpecFiles, everything: Documents) -> None:
    known = {entry["name"]: entry for entry in everything["containers"]["containers"]}
    missing = sorted(known.keys() - set(files.containers))
    if missing:
        new = rng.choice(missing)
        files.documents["containers"]["containers"].append(dict(known[new]))
        files.deployment.setdefault(new, [])


def _singles(rng: random.Random, files: SpecFiles) -> None:
    """A guest of its own comes or goes."""
    guest = rng.choice(sorted(SINGLES))
    if guest in files.placement:
        files.remove_single(guest)
    else:
        files.add_single(guest, rng.choice(files.containers))


def _count(rng: random.Random, files: SpecFiles) -> None:
    """A cluster has more nodes, or fewer."""
    cluster = rng.choice(files.documents["clusters"]["clusters"])
    before, after = cluster["nodes"]["count"], rng.choice([1, 2, 3])
    cluster["nodes"]["count"] = after
    for number in range(before + 1, after + 1):
        files.move(f"{cluster['name']}-n{number}", rng.choice(files.containers))
    for number in range(after + 1, before + 1):
        _forget(files, f"{cluster['name']}-n{number}")


def _cluster(rng: random.Random, files: SpecFiles) -> None:
    """A cluster comes, or the last one goes."""
    clusters = files.documents["clusters"]["clusters"]
    if len(clusters) > 1:
        gone = clusters.pop()["name"]
        for guest in [guest for guest in files.placement if guest.startswith(f"{gone}-")]:
            _forget(files, guest)
        return
    letter = next(name for name in "abc" if name != clusters[0]["name"])
    head = {"template": "head", "networks": {"outside": "10.200.0.21"}}
    nodes = {"count": 1, "template": "node"}
    clusters.append({"name": letter, "vlan": 111, "subnet": "10.1.11.0/24", "head": head, "nodes": nodes})
    for member in ("head", "n1"):
        files.move(f"{letter}-{member}", rng.choice(files.containers))


def _forget(files: SpecFiles, guest: str) -> None:
    for guests in files.deployment.values():
        if guest in guests:
            guests.remove(guest)


def _network(rng: random.Random, files: SpecFiles) -> None:
    """Another VLAN, subnet or outside address of a cluster; another VLAN for the outside; other rules."""
    cluster = rng.choice(files.documents["clusters"]["clusters"])
    site = files.documents["site"]
    what = rng.randrange(6)
    if what == 0:
        cluster["vlan"] = rng.choice([101, 102, 103, 104])
    elif what == 1:
        cluster["subnet"] = f"10.1.{rng.randint(1, 9)}.0/24"
    elif what == 2:
        cluster["head"]["networks"]["outside"] = f"10.200.0.{rng.randint(11, 19)}"
    elif what == 3:
        site["networks"]["outside"]["vlan"] = rng.choice([900, 901])
    elif what == 4:
        site["networks"]["outside"]["allow"] = rng.choice([[], [{"to": "198.51.100.0/24", "tcp": [443]}]])
    else:
        site["services"]["mirror"]["to"] = f"10.64.0.{rng.randint(1, 3)}:8081"


def _guests(rng: random.Random, files: SpecFiles) -> None:
    """What the guests of a template are made of."""
    template = files.documents["clusters"]["templates"][rng.choice(["head", "node"])]
    key, values = rng.choice(
        [
            ("memory", ["512MiB", "768MiB", "1GiB"]),
            ("cores", [1, 2]),
            ("disk", ["4GiB", "6GiB", "8GiB"]),
            ("storage", ["thin", "thick"]),
            ("image", list(IMAGES)),
            ("authorized_keys", [[], [f"{_KEY} teacher"]]),
        ]
    )
    template[key] = rng.choice(values)  # type: ignore[arg-type]


def _image(rng: random.Random, files: SpecFiles) -> None:
    files.documents["site"]["defaults"]["image"] = rng.choice(IMAGES)


def _session(rng: random.Random, files: SpecFiles) -> None:
    files.documents["site"]["session"] = rng.choice(["running", "preparing"])


def _policies(rng: random.Random, files: SpecFiles) -> None:
    policies = files.documents["site"]["policies"]
    policies["on_poweroff"] = rng.choice(["restart", "honour"])
    policies["stop_grace"] = rng.choice(["5s", "60s"])


EDITS: tuple[Edit, ...] = (
    _singles,
    _count,
    _cluster,
    _network,
    _network,
    _guests,
    _guests,
    _image,
    _session,
    _policies,
)
