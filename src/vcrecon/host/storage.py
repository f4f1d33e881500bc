"""Disks on a container: images, golden volumes, guest volumes, copies. Scripts only; called by `host.scripts`.

Every script may be cut off anywhere and run again (S7): what is complete is said by the last command, a
change of LVM tags, which LVM commits at once or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vcrecon.host.context import END
from vcrecon.host.hooks import Hooks
from vcrecon.host.names import (
    IMAGE_DIR,
    MARK,
    RUN_DIR,
    device,
    golden_volume,
    guest_volume,
    mount_point,
    quarantined_volume,
    rescue_point,
    site_tag,
)
from vcrecon.host.steps import CORRUPT, IN_USE, UNSAFE, quote, refuse
from vcrecon.spec.model import Artifact, Container, Image

INITS = ("sbin/init", "usr/sbin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd", "init", "bin/init")
_INIT = re.compile(r"(?:^|\s)init=/([\w./-]+)", re.ASCII)
_PATIENCE = "--connect-timeout 10 --speed-limit 1 --speed-time 60"
TAR = "tar -x --numeric-owner --xattrs --acls"


@dataclass(frozen=True, slots=True)
class Disks:
    """Where the volumes of one container are, and whose mark they carry."""

    group: str
    pool: str
    site: str

    @classmethod
    def of(cls, container: Container, site: str) -> Disks:
        return cls(container.volume_group, container.pool, site)

    def path(self, volume: str) -> str:
        return quote(f"{self.group}/{volume}")

    def marks(self, *tags: str) -> str:
        return " ".join(f"--addtag {tag}" for tag in (MARK, site_tag(self.site), *tags))

    def _remove_if_there(self, volume: str) -> list[str]:
        """Only what carries our mark (S5)."""
        mount = mount_point(volume)
        words = (
            f"the volume {self.group}/{volume} there is not vcrecon's, or another site's: "
            f"`lvrename {self.group} {volume} NEW-NAME` there"
        )
        return [
            f"if mountpoint -q {mount}; then umount {mount}; fi",
            f"if lvs {self.path(volume)} >/dev/null 2>&1; then",
            f"  if ! lvs --noheadings -o lv_tags {self.path(volume)} | grep -q -w -F -e {site_tag(self.site)}; then",
            f"    {refuse('volume-taken', words)}",
            "  fi",
            f"  lvremove -y {self.path(volume)} >/dev/null",
            "fi",
        ]

    def _unpack(self, volume: str, archive: str, image: Image) -> list[str]:
        """Make a file system on a new volume, unpack an archive into it, and look whether a guest can boot from it."""
        block, mount = device(self.group, volume), mount_point(volume)
        return [
            f"mkfs.xfs -q -f {block}",
            f"mkdir -p {mount}",
            f"mount -t xfs -o nouuid {block} {mount}",
            # A full disk must not leave it mounted until the next try, which may be minutes away.
            *_at_the_end(f"umount {mount}"),
            f"words=$({TAR} -C {mount} -f {archive} 2>&1) || {{",
            *(f"  {line}" for line in _not_unpacked(image)),
            "}",
            *_check_tree(mount, image),
            "trap - EXIT",
            f"umount {mount}",
        ]

    def fetch(self, image: Image, *, golden: bool) -> list[str]:
        """Download what the image consists of, prove each SHA-256, and unpack the root into a golden volume.

        Without `golden` (thick guests only) the verified archive itself is kept.
        """
        lines = self.fetch_boot_files(image)
        if not golden:
            return lines + _download(image, image.root)
        volume, archive = golden_volume(image.root.sha256), f"{IMAGE_DIR}/{image.root.sha256}"
        done = f"vc.golden={image.root.sha256}"
        build = [
            *_download(image, image.root),
            *self._remove_if_there(volume),
            f"lvcreate -y --thin -V {image.disk_bytes}b -n {volume} {self.marks('vc.building')} "
            f"{self.path(self.pool)} >/dev/null",
            *self._unpack(volume, archive, image),
            f"lvchange --addtag {done} --deltag vc.building {self.path(volume)} >/dev/null",
        ]
        return [
            *lines,
            f"if ! lvs --noheadings -o lv_tags {self.path(volume)} 2>/dev/null | grep -q {done}; then",
            *(f"  {line}" for line in build),
            "fi",
        ]

    def fetch_boot_files(self, image: Image) -> list[str]:
        """Download the kernel and initrd of an image, and prove each SHA-256."""
        lines = [f"mkdir -p {IMAGE_DIR}"]
        for artifact in (image.kernel, image.initrd):
            if artifact is not None:
                lines += _download(image, artifact)
        return lines

    def create_thin(self, guest: str, image: Image, epoch: int, size_bytes: int) -> list[str]:
        """A snapshot of the golden volume, as large as the guest's disk should be."""
        volume = guest_volume(guest)
        tags = self.marks("vc.building", f"vc.guest={guest}", f"vc.epoch={epoch}", "vc.boots=0")
        lines = [
            *self._remove_if_there_unless_complete(volume),
            f"lvcreate -y -kn -s -n {volume} {tags} {self.path(golden_volume(image.root.sha256))} >/dev/null",
        ]
        if size_bytes > image.disk_bytes:
            lines.append(f"lvextend -L {size_bytes}b {self.path(volume)} >/dev/null")
        return [*lines, self._complete(volume, image)]

    def create_thick(self, guest: str, image: Image, epoch: int, size_bytes: int) -> list[str]:
        """A volume of its own, with the image unpacked into it."""
        volume = guest_volume(guest)
        tags = self.marks("vc.building", f"vc.guest={guest}", f"vc.epoch={epoch}", "vc.boots=0")
        return [
            *self._remove_if_there_unless_complete(volume),
            f"lvcreate -y -Wy -L {size_bytes}b -n {volume} {tags} {quote(self.group)} >/dev/null",
            *self._unpack(volume, f"{IMAGE_DIR}/{image.root.sha256}", image),
            self._complete(volume, image),
        ]

    def _complete(self, volume: str, image: Image) -> str:
        return f"lvchange --addtag vc.image={image.root.sha256} --deltag vc.building {self.path(volume)} >/dev/null"

    def _remove_if_there_unless_complete(self, volume: str) -> list[str]:
        """Only our own unfinished attempt may be in the way of a new disk."""
        return [
            f"if lvs {self.path(volume)} >/dev/null 2>&1; then",
            f"  if ! lvs --noheadings -o lv_tags {self.path(volume)} | grep -q -e vc.building -e vc.incoming; then",
            f"    echo '{volume} is already there and complete' >&2",
            f"    exit {UNSAFE}",
            "  fi",
            f"  lvremove -y {self.path(volume)} >/dev/null",
            "fi",
        ]

    def contextualize(
        self, volume: str, context: str, old: str, directories: Sequence[str], hooks: Hooks | None = None
    ) -> list[str]:
        """Write the context: the first line of standard input is `root:HASH`, then come the hooks, if any, as
        their own archive, and the rest is a tar archive whose last entry is END.

        A guest's own root may have turned a directory into a symbolic link that leads out of the mounted
        tree, onto this container: refuse then, and never run anything from the tree. Hooks cannot be guarded so:
        they see only trees that were never booted (`guest_rules._outdated`).
        """
        finish, clean = _with_hooks(hooks, mount_point(volume))
        block, mount = device(self.group, volume), mount_point(volume)
        checks = " ".join(f"{mount}/{directory}" for directory in directories)
        lines = [
            f"lvchange -ay -K {self.path(volume)}",
            f"mkdir -p {mount}",
            f"if mountpoint -q {mount}; then umount {mount}; fi",
            f"mount -t xfs -o nouuid {block} {mount}",
            *_at_the_end(f"{clean}umount {mount}"),
            f"for path in {checks}; do",
            '  if [ -L "$path" ]; then',
            '    echo "$path is a symbolic link: not written" >&2',
            f"    exit {UNSAFE}",
            "  fi",
            "done",
            f"xfs_growfs {mount} >/dev/null",
            "IFS= read -r password",
            f"printf '%s\\n' \"$password\" | chpasswd -e -R {mount}",
            *(hooks.unpack() if hooks else ()),
            f"rm -f {mount}/{END}",
            f"{TAR} -C {mount} -f -",
            f"rm {mount}/{END} 2>/dev/null || {{ echo 'the context was cut off on its way' >&2; exit 1; }}",
            *finish,
            "sync",
            "trap - EXIT",
            *([clean.rstrip("; ")] if clean else []),
            *_unmount(mount, hooks),
        ]
        removed = f"--deltag vc.context={old} " if old and old != context else ""
        return [
            *lines,
            f"lvchange {removed}--addtag vc.context={context} {self.path(volume)} >/dev/null",
        ]

    def require_not_held(self, guest: str, volume: str) -> list[str]:
        """Go no further while a person works on the disk: the host's own tags have the last word (S2)."""
        return self._refuse("if ", volume, "vc.held", f"the disk of {guest} is in rescue: not started")

    def mark_start(self, guest: str, volume: str, boots: int, *, touched: bool) -> list[str]:
        """Say on the disk that it is about to be booted; before the guest can write to it."""
        mount, rescue = mount_point(volume), rescue_point(guest)
        tags = f"--deltag vc.boots={boots - 1} --addtag vc.boots={boots}" + (" --addtag vc.touched" if touched else "")
        words = (
            f"the disk of {guest} is mounted at $mounted, by somebody's hand; two must not write to it: "
            "`umount $mounted` there"
        )
        return [
            f"if mountpoint -q {mount}; then umount {mount}; fi",
            # Still there when somebody removed the mark of a rescue by hand: two must never write to one disk.
            f"if mountpoint -q {rescue}; then umount {rescue}; fi",
            f"lvchange -ay -K {self.path(volume)}",
            # Xen refuses such a disk by itself, KVM does not.
            f"mounted=$(findmnt -f -r -n -o TARGET -S {device(self.group, volume)} || true)",
            f'if [ "$mounted" ]; then {refuse("disk-mounted", words)}; fi',
            f"lvchange {tags} {self.path(volume)} >/dev/null",
        ]

    def hold(self, guest: str, volume: str, boots: int) -> list[str]:
        """Mark the disk as in a person's hands, then mount it for that person alone.

        The mark comes first, since it keeps all other steps away; a mount without it would not be safe. Nothing
        on the disk may act on this container: no set-user-ID programs, no devices, no programs at all.
        """
        block, mount, rescue = device(self.group, volume), mount_point(volume), rescue_point(guest)
        return [
            f"if mountpoint -q {mount}; then umount {mount}; fi",
            f"lvchange --deltag vc.boots={boots - 1} --addtag vc.boots={boots} --addtag vc.held"
            f" {self.path(volume)} >/dev/null",
            f"lvchange -ay -K {self.path(volume)}",
            f"mkdir -p -m 0700 {RUN_DIR}/rescue {rescue}",
            f"chmod 0700 {RUN_DIR}/rescue",
            f"if ! mountpoint -q {rescue}; then",
            f"  mount -t xfs -o nosuid,nodev,noexec,nouuid {block} {rescue}",
            "fi",
        ]

    def release(self, guest: str, volume: str, off: Sequence[str]) -> list[str]:
        """Unmount a held disk; only then take the mark away. `off` are lines that end it while the guest runs."""
        rescue = rescue_point(guest)
        return [
            f"if mountpoint -q {rescue}; then",
            *(f"  {line}" for line in off),
            "  sync",
            f"  if ! umount {rescue}; then",
            *(f"    {line}" for line in tell_users(rescue)),
            "  fi",
            "fi",
            f"if [ -d {rescue} ]; then rmdir {rescue}; fi",
            f"lvchange --deltag vc.held {self.path(volume)} >/dev/null",
        ]

    def mark_touched(self, volume: str) -> list[str]:
        return [f"lvchange --addtag vc.touched {self.path(volume)} >/dev/null"]

    def quarantine(self, guest: str, volume: str, epoch: int, why: str) -> list[str]:
        """Put a disk aside under another name. The tag is the last step."""
        aside = quarantined_volume(guest, epoch)
        lines = [f"if mountpoint -q {mount_point(volume)}; then umount {mount_point(volume)}; fi"]
        if volume != aside:
            lines.append(f"lvrename {quote(self.group)} {volume} {aside} >/dev/null")
        return [*lines, f"lvchange --addtag vc.quarantined={why} {self.path(aside)} >/dev/null"]

    def restore(self, guest: str, volume: str, *, touched: bool) -> list[str]:
        """Take a disk back that was put aside when its guest left the spec."""
        live = guest_volume(guest)
        lines = []
        if volume != live:
            lines.append(f"lvrename {quote(self.group)} {volume} {live} >/dev/null")
        tags = "--deltag vc.quarantined=removed" + (" --addtag vc.touched" if touched else "")
        return [*lines, f"lvchange {tags} {self.path(live)} >/dev/null"]

    def discard(self, volume: str) -> list[str]:
        """Remove a disk without student work; the host's own tags have the last word (S2)."""
        return self._remove_guarded(volume, "if ", "vc.touched", "holds a student's work")

    def prune(self, volume: str) -> list[str]:
        """Remove a disk that was put aside."""
        return self._remove_guarded(volume, "if ! ", "vc.quarantined=", "is not quarantined")

    def _remove_guarded(self, volume: str, test: str, tag: str, why: str) -> list[str]:
        return [
            f"if ! lvs {self.path(volume)} >/dev/null 2>&1; then exit 0; fi",
            *self._refuse(test, volume, tag, f"{volume} {why}: not removed"),
            f"if mountpoint -q {mount_point(volume)}; then umount {mount_point(volume)}; fi",
            f"lvremove -y {self.path(volume)} >/dev/null",
        ]

    def _refuse(self, test: str, volume: str, tag: str, message: str) -> list[str]:
        return [
            f"{test}lvs --noheadings -o lv_tags {self.path(volume)} | grep -q {tag}; then",
            f"  echo {quote(message)} >&2",
            f"  exit {UNSAFE}",
            "fi",
        ]

    # --- moving a disk to another container ---------------------------------------------------------------

    def receive(self, guest: str, size_bytes: int, *, thick: bool) -> list[str]:
        """Make the volume that a copy is written into."""
        volume = guest_volume(guest)
        tags = self.marks("vc.incoming", f"vc.guest={guest}")
        make = (
            f"lvcreate -y -Wy -L {size_bytes}b -n {volume} {tags} {quote(self.group)} >/dev/null"
            if thick
            else f"lvcreate -y --thin -V {size_bytes}b -n {volume} {tags} {self.path(self.pool)} >/dev/null"
        )
        return [*self._remove_if_there_unless_complete(volume), make]

    def send(self, volume: str) -> list[str]:
        """Write the disk to standard output, compressed."""
        block = device(self.group, volume)
        return [f"lvchange -ay -K {self.path(volume)}", f"dd if={block} bs=4M status=none | zstd -q -1 -c"]

    def write(self, guest: str, *, thick: bool) -> list[str]:
        """Write standard input into the incoming volume. Holes stay holes in a thin one, which reads as zeros."""
        block = device(self.group, guest_volume(guest))
        # Without its volume the copy would go into a file in memory, under the very name that LVM needs.
        conversion = "fsync,nocreat" if thick else "sparse,fsync,nocreat"
        return [
            # A host that hung may start this step long after its connection was given up, beside a disk in use.
            f"tags=$(lvs --noheadings -o lv_tags {self.path(guest_volume(guest))})",
            "if ! echo $tags | grep -q -w vc.incoming || echo $tags | grep -q vc.copy=; then",
            f"  echo '{guest_volume(guest)} does not wait for a copy' >&2",
            f"  exit {UNSAFE}",
            "fi",
            f"zstd -q -d -c | dd of={block} bs=4M iflag=fullblock conv={conversion} status=none",
        ]

    def digest(self, volume: str) -> list[str]:
        """Print the SHA-256 of the whole disk."""
        return [f"sha256sum {device(self.group, volume)} | cut -d ' ' -f 1"]

    def prove(self, guest: str, sha256: str, tags: Sequence[str]) -> list[str]:
        """Read the incoming copy back, compare, and only then say of what it is a copy."""
        volume = guest_volume(guest)
        block = device(self.group, volume)
        added = " ".join(f"--addtag {tag}" for tag in tags)
        return [
            f"sum=$(sha256sum {block} | cut -d ' ' -f 1)",
            f'if [ "$sum" != {sha256} ]; then',
            "  echo 'the copied disk differs from the original' >&2",
            f"  exit {CORRUPT}",
            "fi",
            f"lvchange {added} {self.path(volume)} >/dev/null",
        ]

    def activate(self, volume: str, epoch: int, copy_of: str, *, touched: bool) -> list[str]:
        """Turn a proved copy into the live disk."""
        tags = f"--deltag vc.incoming --deltag vc.copy={copy_of} --addtag vc.epoch={epoch}" + (
            " --addtag vc.touched" if touched else ""
        )
        return [f"lvchange {tags} {self.path(volume)} >/dev/null"]


def _with_hooks(hooks: Hooks | None, mount: str) -> tuple[list[str], str]:
    """The lines that run the hooks, and what takes them away again, also after a failure."""
    return (hooks.run(mount), f"rm -rf {hooks.directory}; ") if hooks else ([], "")


def _unmount(mount: str, hooks: Hooks | None) -> list[str]:
    if hooks is None:
        return [f"umount {mount}"]
    words = (
        f"a hook of {hooks.guest.name} left a process at work on its file system: `fuser -vm {mount}` there shows it; "
        "let the hook wait for what it starts"
    )
    return [f"umount {mount} || {{ {refuse('hook-failed', words)}; }}"]


def _at_the_end(command: str) -> list[str]:
    """Run it however the script ends from here on, until `trap - EXIT`.

    When the master is gone nobody hears what went wrong: SIGPIPE would end the shell there, without its EXIT trap.
    """
    return [f"trap '{command}' EXIT", "trap 'exit 1' PIPE"]


def _not_unpacked(image: Image) -> list[str]:
    """Say which of the ways to be wrong an archive has whose digest was right."""
    whose = f"image {image.name} ({image.root.url})"
    space = (
        f"{whose} does not unpack: No space left on device; raise its 'disk' in images.yaml (now "
        f"{image.disk_bytes >> 20} MiB), or look for room in the pool with `lvs` there"
    )
    tree = (
        f"{whose} is no tar archive, or a damaged one, though its SHA-256 is right: make it with "
        "'tar -C ROOT -c .', and give its new SHA-256 in images.yaml"
    )
    return [
        "printf '%s\\n' \"$words\" >&2",
        "case $words in",
        f"  *'No space left'*) {refuse('no-space', space)} ;;",
        "  *'Cannot exec'*) ;;",
        f"  *'not look like a tar'* | *'Child returned'* | *'Unexpected EOF'*) {refuse('image-not-a-tree', tree)} ;;",
        "esac",
        "exit 1",
    ]


def _check_tree(mount: str, image: Image) -> list[str]:
    """Refuse an image that no guest can boot from, before anything calls it complete."""
    whose = f"image {image.name} ({image.root.url})"
    given = _INIT.search(image.cmdline)
    inits = (given[1],) if given else INITS
    # A link counts: it may be absolute, and mean a file of the tree only once that is the root.
    found = " || ".join(f"[ {test} {mount}/{path} ]" for path in inits for test in ("-e", "-L"))
    tree = (
        f"{whose} is no file system tree: it has neither etc nor usr at its top; make it with 'tar -C ROOT -c .', "
        "without a directory around it, and correct images.yaml"
    )
    init = (
        f"{whose} has no init ({', '.join(inits)}): install one in it (Debian: systemd-sysv), or say init= in the "
        "'cmdline' of images.yaml"
    )
    return [
        f"if [ ! -d {mount}/etc ] && [ ! -d {mount}/usr ]; then {refuse('image-not-a-tree', tree)}; fi",
        f"if ! {{ {found}; }}; then {refuse('image-no-init', init)}; fi",
    ]


def tell_users(path: str) -> list[str]:
    """Say which processes keep a mount busy, without a package that a minimal Debian lacks; then give up."""
    return [
        "users=",
        "for process in /proc/[0-9]*; do",
        f"  if ls -l \"$process/cwd\" \"$process/fd\" 2>/dev/null | grep -q -e '-> {path}$' -e '-> {path}/'; then",
        '    users="$users${users:+, }$(cat "$process/comm" || true) (${process#/proc/})"',
        "  fi",
        "done",
        f'echo "{path} is in use: a shell is still open there, leave it (${{users:-by no process that shows}})" >&2',
        f"exit {IN_USE}",
    ]


def _download(image: Image, artifact: Artifact) -> list[str]:
    """Fetch one file by its SHA-256, going on where an earlier try was cut off.

    A transfer that stands still is given up: the step holds a lock, and a server that hangs keeps its connections.
    """
    wrong = (
        f"image {image.name}: {artifact.url}: its SHA-256 is not what images.yaml says; compare with `sha256sum` where "
        "the file was made, and correct the file or images.yaml"
    )
    file, part = f"{IMAGE_DIR}/{artifact.sha256}", f"{IMAGE_DIR}/{artifact.sha256}.part"
    check = f"echo '{artifact.sha256}  {part}' | sha256sum -c --status -"
    return [
        f"if [ ! -e {file} ]; then",
        f"  if [ ! -e {part} ] || ! {check}; then",
        f"    curl -fsSL --retry 3 {_PATIENCE} -C - -o {part} {quote(artifact.url)} ||",
        f"      curl -fsSL {_PATIENCE} -o {part} {quote(artifact.url)}",
        "  fi",
        f"  if ! {check}; then",
        f"    rm -f {part}",
        f"    echo {quote(wrong)} >&2",
        f"    exit {CORRUPT}",
        "  fi",
        f"  mv {part} {file}",
        "fi",
    ]
