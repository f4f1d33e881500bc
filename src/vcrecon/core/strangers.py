"""Virtual machines and volumes that have a guest's name and are not ours. Pure; used by `core.guest_rules`.

Nothing is done under a name that is taken before a person decides (S5): hypervisor and LVM know things by name.
"""

from __future__ import annotations

from vcrecon.core.case import Case
from vcrecon.core.decisions import Block
from vcrecon.core.observation import Seen, Storage
from vcrecon.core.wanted import guest_volume


def name_taken(case: Case) -> Block | None:
    """The rule: somebody else's machine or volume has the guest's name here, so nothing is done (S5)."""
    if not (case.wanted_here or case.here.active or case.here.volume is not None):
        return None
    taken = taken_on(case, case.container, case.observation)
    if taken is None:
        return None
    reason, message = taken
    return Block(case.subject, reason, message)


def taken_on(case: Case, container: str, seen: Seen) -> tuple[str, str] | None:
    """Why the guest's name is not free on a container: a reason and a message, or None."""
    if case.name in seen.strangers:
        rename = f"`xl rename {case.name} NEW-NAME`"
        if case.view.spec.containers[container].hypervisor == "kvm":
            rename = f"stop it and `virsh domrename {case.name} NEW-NAME`"  # libvirt renames nothing that runs
        return "name-taken", (
            f"{container} has a virtual machine {case.name} that is not vcrecon's, or another site's: left alone; "
            f"{rename} there, or rename the guest in clusters.yaml"
        )
    volume = guest_volume(case.name)
    if isinstance(seen.storage, Storage) and volume in seen.storage.strangers:
        group = case.view.spec.containers[container].volume_group
        claim = case.claim
        if claim is not None and claim.container == container and claim.touched:
            return "volume-taken", (
                f"{container}: the volume {group}/{volume} has lost vcrecon's tags and may hold a student's work: left "
                f"alone; keep it with `lvrename {group} {volume} NEW-NAME` there, then `vcrecon rebuild {case.name}`"
            )
        return "volume-taken", (
            f"{container} has a volume {group}/{volume} without vcrecon's tags, or with another site's: left alone; "
            f"look at it with `lvs -o+tags`, then `lvrename {group} {volume} NEW-NAME` there"
        )
    return None
