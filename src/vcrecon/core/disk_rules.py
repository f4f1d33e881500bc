"""How a guest comes by its disk on a container: carried over, put back, or made anew; and whether there is room. Pure.

Rules of `guest_rules`, which calls them in its order, and what they share with its other rules.
"""

from __future__ import annotations

from vcrecon.core.actions import ActivateCopy, CopyDisk, CreateVolume, Discard, Restore
from vcrecon.core.case import Case
from vcrecon.core.decisions import Block, Decision, Do, Wait, backing_off
from vcrecon.core.halting import STOP_POLL_S, stop
from vcrecon.core.mastery import TAKE_OVER
from vcrecon.core.observation import Storage, Volume
from vcrecon.core.proof import Doubt
from vcrecon.core.world import Sighting, fenced
from vcrecon.spec.model import Image

SMALL_DISK_BYTES = 64 * 1024**2
"""What a thin snapshot is assumed to need at once."""

METADATA_FULL_PERCENT = 95.0


def bring_in(case: Case) -> Decision | None:
    """No live disk here, but there is one to be had: carry it over."""
    if case.volume is not None or case.here.active:
        return None
    found = _source(case)
    if found is None:
        return unfinished(case)
    source, disk = found
    clear = case.view.world.clear(source.container)
    if clear and source.live and case.consents("rebuild", disk.epoch):
        return unfinished(case) or Wait(case.subject, f"to be rebuilt: {source.container} puts its disk aside")
    stamp = (disk.epoch, disk.boots)
    if case.incoming is not None and case.incoming.copy_of == stamp and not source.active:
        return _activate(case, source, disk, case.incoming)
    if case.incoming is not None:
        return unfinished(case)
    if not clear and fenced(case.memory, source.container):
        return None  # its disk cannot be read; `create` begins anew and the old disk is kept
    if not clear:
        return Block(
            case.subject,
            "disk-out-of-reach",
            f"the disk of {case.name} is on {source.container}, which does not show it now: bring it back, or "
            f"say `vcrecon fence {source.container} --confirmed` to begin anew without that disk",
        )
    if case.view.frozen:
        return Block(case.subject, "site-frozen", case.view.frozen)
    if source.active:
        return Wait(case.subject, f"waiting for it to stop on {source.container}", STOP_POLL_S)
    if source.live and not case.holds_work(disk):
        return Wait(case.subject, f"no work on {source.container}: made anew here once its disk is gone there")
    return _copy(case, source, disk)


def _activate(case: Case, source: Sighting, disk: Volume, copy: Volume) -> Decision:
    elsewhere, reason = case.stopped_elsewhere(), f"its disk from {source.container} arrived whole"
    if isinstance(elsewhere, Doubt):
        return _in_doubt(case, elsewhere)
    touched = case.holds_work(disk)
    epoch = case.next_epoch(disk.epoch, elsewhere)
    return Do(ActivateCopy(case.container, reason, case.name, copy.name, epoch, touched, elsewhere=elsewhere))


def _in_doubt(case: Case, doubt: Doubt) -> Decision:
    """No disk comes into use here while the guest runs elsewhere: the claim would leave the copy that lives (S1)."""
    if doubt.why == "other-master":
        return Block(
            case.subject,
            "other-master",
            f"{doubt.container} is looked after by another master, which may begin {case.name} there: {TAKE_OVER}",
        )
    if doubt.why == "silent":
        return Block(
            case.subject,
            "may-live-elsewhere",
            f"{case.name} may live on {doubt.container}, which does not answer, and which another master looked after: "
            f"bring it back, or power it off and say `vcrecon fence {doubt.container} --confirmed`",
        )
    return Wait(case.subject, f"waiting for it to stop on {doubt.container}", STOP_POLL_S)


def _source(case: Case) -> tuple[Sighting, Volume] | None:
    """The guest's newest disk elsewhere: a live one first, else the one put aside when it left the spec."""
    elsewhere = list(case.view.world.elsewhere(case.name, case.container))
    live = [(s, s.volume) for s in elsewhere if s.volume is not None and s.volume.live]
    if live:
        return max(live, key=lambda found: (case.view.world.reachable(found[0].container), found[1].epoch))
    if case.consents("rebuild", case.last_epoch):
        return None
    for sighting in elsewhere:
        volume = _restorable(sighting, case.last_epoch)
        if volume is not None:
            return sighting, volume
    return None


def unfinished(case: Case) -> Decision | None:
    """What arrived here in part, or too late, is thrown away, unless it is all that is left of a student's work."""
    if case.incoming is None:
        return None
    if _only_copy(case, case.incoming):
        return Block(
            case.subject,
            "only-copy",
            f"{case.container} holds a proved copy of the disk of {case.name}, and the original is nowhere to be "
            f"seen: bring it back; to give both up and begin anew, say `vcrecon rebuild {case.name}`",
        )
    reason = "an unfinished or outdated copy"
    return Do(Discard(case.container, reason, case.name, case.incoming.name))


def _only_copy(case: Case, copy: Volume) -> bool:
    """Whether nothing but this copy shows a disk that may hold a student's work (S2)."""
    if copy.copy_of is None or case.consents("rebuild", copy.copy_of[0]):
        return False
    epoch, claim = copy.copy_of[0], case.claim
    if not (case.holds_work(copy) or (claim is not None and claim.touched)):
        return False
    places = [case.here, *case.view.world.elsewhere(case.name, case.container)]
    disks = [v for s in places for v in (s.volume, *s.quarantined) if v is not None and not v.incoming]
    return all(v.epoch < epoch for v in disks)


def _copy(case: Case, source: Sighting, disk: Volume) -> Decision:
    full = no_room(case, disk.used_bytes or disk.size_bytes, thick=bool(case.guest and case.guest.storage == "thick"))
    if full is not None:
        return full
    return Do(
        CopyDisk(
            case.container,
            f"moves here from {source.container}",
            case.name,
            source.container,
            disk.name,
            disk.size_bytes,
            disk.epoch,
            disk.boots,
            case.holds_work(disk),
            disk.image,
            disk.context,
        )
    )


def lost_disk(case: Case) -> Decision | None:
    """It had a disk that may hold work, and no container shows it: never rebuilt without consent (S2)."""
    claim = case.claim
    if case.volume is not None or claim is None or case.consents("rebuild", claim.epoch):
        return None
    if claim.container != case.container and fenced(case.memory, claim.container):
        return None
    if _restorable(case.here, case.last_epoch) is not None:
        return None
    if claim.touched:
        return Block(
            case.subject,
            "disk-lost",
            f"the disk of {case.name} on {claim.container} is gone and may have held a student's work: "
            f"look there with `lvs`; to begin anew, say `vcrecon rebuild {case.name}`",
        )
    return None


def _restorable(sighting: Sighting, last_epoch: int) -> Volume | None:
    """The disk put aside when the guest left the spec, if it is still the newest."""
    for volume in sighting.quarantined:
        if volume.quarantined == "removed" and volume.boots and volume.epoch >= last_epoch:
            return volume
    return None


def create(case: Case) -> Decision | None:
    """No disk to be had: put back the one that was kept here, or make one from the image."""
    if case.volume is not None or case.guest is None:
        return None
    if case.here.active:
        if case.consents("rebuild", case.last_epoch):
            return stop(case, "a person asked to rebuild it")
        return Block(
            case.subject,
            "no-disk",
            f"{case.name} runs on {case.container} without a disk that vcrecon knows: look there with "
            f"`lvs -o+tags`; to begin anew, say `vcrecon rebuild {case.name}`",
        )
    elsewhere = case.stopped_elsewhere()
    if isinstance(elsewhere, Doubt):
        return _in_doubt(case, elsewhere)
    back = _restorable(case.here, case.last_epoch)
    if back is not None and case.consents("rebuild", back.epoch):
        back = None
    if back is not None:
        reason = "it is in the spec again"
        touched = case.holds_work(back)
        return Do(Restore(case.container, reason, case.name, back.name, back.epoch, touched, elsewhere=elsewhere))
    image = case.view.spec.images[case.guest.image]
    thick = case.guest.storage == "thick"
    have_image = _holds(case, image, thick=thick)
    need = case.guest.disk_bytes if thick else SMALL_DISK_BYTES if have_image else image.disk_bytes
    full = no_room(case, need, thick=thick)
    if full is not None:
        return full
    if not have_image:
        return wait_for_image(case, image, f"waiting for image {image.name} on {case.container}")
    reason = f"has no disk yet; image {image.name}"
    epoch = case.next_epoch(case.last_epoch, elsewhere)
    return Do(CreateVolume(case.container, reason, case.name, epoch, elsewhere=elsewhere))


def wait_for_image(case: Case, image: Image, message: str, *, boot_only: bool = False) -> Decision:
    """Wait, or say why the image does not come."""
    failed = backing_off(case.memory, f"image/{case.container}/{image.name}", case.view.now_s)
    if failed is None:
        return Wait(case.subject, message, image=image.name, boot_only=boot_only)
    why = f"{message}: {failed.message}"
    return Block(case.subject, failed.reason, why, failed.look_again_s, image=image.name, boot_only=boot_only)


def _holds(case: Case, image: Image, *, thick: bool) -> bool:
    assert case.storage is not None
    files = boot_files(image) | ({image.root.sha256} if thick else set())
    return files <= case.observation.images and (thick or image.root.sha256 in case.storage.goldens)


def boot_files(image: Image) -> set[str]:
    """Digests of the files, beside the disk, that a guest of this image boots from."""
    return {a.sha256 for a in (image.kernel, image.initrd) if a is not None}


def no_room(case: Case, need_bytes: int, *, thick: bool) -> Block | None:
    """Refuse before anything is written (S11)."""
    storage = case.storage
    assert storage is not None  # _unknown spoke otherwise
    if not storage.group_present or not storage.pool_bytes:
        return Block(
            case.subject,
            "no-storage",
            f"{case.container} has no volume group or thin pool; see container/{case.container}",
        )
    free = free_bytes(storage, thick=thick)
    if need_bytes > free or storage.pool_metadata_percent >= METADATA_FULL_PERCENT:
        return Block(
            case.subject,
            "pool-full",
            f"{case.container} has {free // 1024**2} MiB free, {need_bytes // 1024**2} MiB are needed "
            f"(metadata {storage.pool_metadata_percent:.0f} % used): prune, extend the pool, or place it elsewhere",
        )
    return None


def free_bytes(storage: Storage, *, thick: bool) -> int:
    """Room for one more disk: thick ones lie beside the thin pool."""
    return storage.group_free_bytes if thick else storage.pool_free_bytes
