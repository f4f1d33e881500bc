"""The scripts of every action: real sh parses them, they hold no secret, and their guards work."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import (
    IMAGE,
    INITRD,
    KERNEL,
    SERVICE,
    ASite,
    a_container,
    a_guest,
    a_spec,
    arriving,
    kept_disk,
    nowhere_else,
    running,
    seen,
    students_disk,
)

from vcrecon.core.actions import (
    ACTIONS,
    Action,
    ActivateCopy,
    Contextualize,
    CopyDisk,
    CreateVolume,
    Discard,
    FetchImage,
    Hold,
    MarkTouched,
    Prune,
    Quarantine,
    Release,
    Restore,
    SetUpNetwork,
    StartGuest,
    StopGuest,
)
from vcrecon.core.wanted import Wanted
from vcrecon.errors import Permanent, Transient
from vcrecon.host import context, firewall, network, scripts
from vcrecon.host.scripts import Bench, Secrets
from vcrecon.host.steps import CORRUPT, LOCKED, REFUSED, UNSAFE, Step, failure, locked, refuse
from vcrecon.host.storage import Disks
from vcrecon.spec.model import Image

SITE_SECRET = b"canary-site-secret-0123456789abc"
PASSWORD_HASH = "$y$j9T$canary-salt$canary-hash"
WHY = "because"

EVERY_ACTION: dict[str, list[Action]] = {
    "set-up-network": [SetUpNetwork("c1", WHY, (101,), (200,))],
    "fetch-image": [FetchImage("c1", WHY, "debian")],
    "create-volume": [
        CreateVolume("c1", WHY, "alice", 3, elsewhere=nowhere_else("alice", "c1")),
        CreateVolume("c1", WHY, "thick", 1, elsewhere=nowhere_else("thick", "c1")),
    ],
    "contextualize": [Contextualize("c1", WHY, "alice", "vcg-alice")],
    "start-guest": [StartGuest("c1", WHY, "alice", "vcg-alice", 1, 2, True, elsewhere=nowhere_else("alice", "c1"))],
    "stop-guest": [StopGuest("c1", WHY, "alice", False), StopGuest("c1", WHY, "alice", True)],
    "copy-disk": [CopyDisk("c1", WHY, "alice", "c2", "vcg-alice", 4 * 1024**3, 1, 2, True, "c" * 64, "e" * 32)],
    "activate-copy": [ActivateCopy("c1", WHY, "bob", "vcg-bob", 2, True, elsewhere=nowhere_else("bob", "c1"))],
    "mark-touched": [MarkTouched("c1", WHY, "alice", "vcg-alice")],
    "quarantine": [Quarantine("c1", WHY, "alice", "vcg-alice", 1, "moved")],
    "restore": [Restore("c1", WHY, "carol", "vcq-carol-1", 1, True, elsewhere=nowhere_else("carol", "c1"))],
    "hold": [Hold("c1", WHY, "alice", "vcg-alice", 2)],
    "release": [Release("c1", WHY, "alice", "vcg-alice")],
    "discard": [Discard("c1", WHY, "alice", "vcg-alice")],
    "prune": [Prune("c1", WHY, "carol", "vcq-carol-1", 1)],
}


def a_bench(hypervisor: str) -> Bench:
    names = ["alice", "bob", "carol", "thick"]
    guests = {"thick": a_guest("thick", 4, storage="thick")}
    containers = {name: a_container(name, hypervisor=hypervisor, volume_group="v g") for name in ("c1", "c2")}
    spec = a_spec({"c1": names, "c2": []}, guests=guests, containers=containers)
    volumes = [students_disk("alice"), arriving("bob", (1, 2)), kept_disk("carol")]
    site = ASite(spec, seen("c1", volumes, [running("alice")]), seen("c2"))
    return Bench(site.wanted, site.world, site.memory, Secrets(SITE_SECRET, lambda guest: PASSWORD_HASH))


def all_steps(action: Action, bench: Bench) -> list[Step]:
    if isinstance(action, CopyDisk):
        copy = scripts.copy(action, bench)
        return [copy.prepare, copy.send, copy.write, copy.digest, copy.prove("f" * 64)]
    return list(scripts.steps(action, bench))


CASES = [
    pytest.param(action, hypervisor, id=f"{kind}-{number}-{hypervisor}")
    for kind, actions in EVERY_ACTION.items()
    for number, action in enumerate(actions)
    for hypervisor in ("kvm", "xen")
]


def test_every_action_is_covered_here() -> None:
    by_the_installer = {"install"}
    assert set(EVERY_ACTION) == {action.kind for action in ACTIONS} - by_the_installer


@pytest.mark.parametrize(("action", "hypervisor"), CASES)
def test_sh_parses_every_script_and_the_script_within(action: Action, hypervisor: str) -> None:
    for step in all_steps(action, a_bench(hypervisor)):
        subprocess.run(["sh", "-n"], input=step.script, text=True, check=True)
        # The outer script hands the inner one to `sh -c`: print it, and parse that too.
        outer = step.script.replace("flock -n", "printf '%s\\n'", 1) if step.script.startswith("flock") else ""
        words = subprocess.run(["sh", "-c", outer], capture_output=True, text=True, check=True).stdout
        inner = words.partition("-c\n")[2]
        assert inner.startswith("set -eu\n")
        subprocess.run(["sh", "-n"], input=inner, text=True, check=True)


@pytest.mark.parametrize(("action", "hypervisor"), CASES)
def test_no_script_holds_a_secret(action: Action, hypervisor: str) -> None:
    bench = a_bench(hypervisor)
    private, _ = context.host_key(SITE_SECRET, "alice")
    key_line = private.decode().splitlines()[1]
    for step in all_steps(action, bench):
        for secret in (PASSWORD_HASH, "canary", SITE_SECRET.hex(), key_line):
            assert secret not in step.script
            assert step.container in ("c1", "c2")


def test_secrets_travel_on_standard_input() -> None:
    (step,) = scripts.steps(EVERY_ACTION["contextualize"][0], a_bench("kvm"))
    assert step.stdin is not None
    assert step.stdin.startswith(f"root:{PASSWORD_HASH}\n".encode())
    assert context.host_key(SITE_SECRET, "alice")[0] in step.stdin
    assert SITE_SECRET not in step.stdin


@pytest.mark.parametrize("kind", ["contextualize", "quarantine", "discard", "copy-disk"])
@pytest.mark.parametrize("hypervisor", ["kvm", "xen"])
def test_a_disk_is_not_touched_while_its_guest_runs(kind: str, hypervisor: str) -> None:
    said = [
        s.script
        for a in EVERY_ACTION[kind]
        for s in all_steps(a, a_bench(hypervisor))
        if "alice still runs" in s.script
    ]
    assert len(said) == (2 if kind == "copy-disk" else 1)


@pytest.mark.parametrize("kind", ["contextualize", "copy-disk", "hold"])
@pytest.mark.parametrize(
    ("hypervisor", "forgets"), [("kvm", "undefine alice"), ("xen", "rm -f /run/vcrecon/xen/alice")]
)
def test_why_a_guest_went_down_is_forgotten_once_vcrecon_uses_its_disk(
    kind: str, hypervisor: str, forgets: str
) -> None:
    """Else the power-off that vcrecon asked for is honoured as the student's, also when a move is taken back."""
    (action,) = EVERY_ACTION[kind]
    if isinstance(action, CopyDisk):
        action = replace(action, container="c2", source="c1")  # where it is
    first = next(step for step in all_steps(action, a_bench(hypervisor)) if "alice still runs" in step.script)
    assert forgets in first.script


def test_a_copy_forgets_no_stranger_of_the_guests_name() -> None:
    """The source shows no domain of ours: what has the name there is somebody's (S5)."""
    (action,) = EVERY_ACTION["copy-disk"]
    assert not any("undefine" in step.script for step in all_steps(action, a_bench("kvm")))


def test_an_action_that_the_spec_overtook_is_permanent() -> None:
    with pytest.raises(Permanent, match="left the spec"):
        scripts.steps(CreateVolume("c1", WHY, "nobody", elsewhere=nowhere_else("nobody", "c1")), a_bench("kvm"))


def test_a_copy_that_is_not_proved_is_not_activated() -> None:
    with pytest.raises(Permanent, match="no proved copy"):
        scripts.steps(
            ActivateCopy("c1", WHY, "alice", "vcg-alice", 2, elsewhere=nowhere_else("alice", "c1")), a_bench("kvm")
        )


@pytest.mark.parametrize(
    ("status", "said", "error", "kind"),
    [
        (LOCKED, "", Transient, "locked"),
        (CORRUPT, "differs", Transient, "corrupt"),
        (UNSAFE, "still runs", Permanent, "unsafe"),
        (5, "insufficient free space: 3 extents", Transient, "no-space"),
        (1, "tar: write error: No space left on device", Transient, "no-space"),
        (7, "", Transient, "command-failed"),
    ],
)
def test_exit_statuses_have_their_meaning(status: int, said: str, error: type, kind: str) -> None:
    found = failure("create-volume of guest/alice", "c1", status, said.encode())
    assert (type(found), found.kind) == (error, kind)
    assert "create-volume of guest/alice on c1" in str(found)


# What the tools of Debian 12 print: iproute2 6.1, curl 7.88.1, GNU tar 1.34, dash 0.5.12, bash 5.2, libvirt 9.0.
@pytest.mark.parametrize(
    ("status", "said", "kind", "advice"),
    [
        (127, "sh: 3: nft: not found", "no-nftables", "`apt-get install nftables`"),
        (127, "sh: line 3: lvcreate: command not found", "no-lvm", "`apt-get install lvm2"),
        (127, "sh: 1: frobnicate: not found", "missing-program", "`apt-file search bin/frobnicate`"),
        (
            2,
            "tar (child): zstd: Cannot exec: No such file or directory\ntar (child): Error is not recoverable: "
            "exiting now\ntar: Child returned status 2\ntar: Error is not recoverable: exiting now",
            "missing-program",
            "`apt-get install zstd`",
        ),
        (1, 'Cannot find device "eno1"', "no-trunk", "'trunk' in containers.yaml"),
        (2, "Error: Unknown device type.", "no-vlan", "modprobe -a 8021q bridge"),
        (2, "RTNETLINK answers: Operation not supported", "no-vlan", "modprobe -a 8021q bridge"),
        (23, "curl: (23) Failure writing output to destination", "no-space", "df -h /var/lib/vcrecon"),
        (
            1,
            "error: Failed to define domain from /dev/stdin\nerror: operation failed: domain 'alice' already exists "
            "with uuid 11111111-2222-4333-8444-555555555555\n",
            "name-taken",
            "virsh domrename alice",
        ),
        (78, "noise\nimage-no-init: image x has no init", "image-no-init", "c1: image x has no init"),
    ],
)
def test_the_words_of_the_real_tools_become_a_reason_and_an_advice(
    status: int, said: str, kind: str, advice: str
) -> None:
    found = failure("set-up-network of container/c1", "c1", status, said.encode())
    assert found.kind == kind
    assert advice in str(found)


def test_a_bridge_of_our_own_that_vanished_is_not_taken_for_the_trunk() -> None:
    assert failure("set-up-network of container/c1", "c1", 1, b'Cannot find device "vcbr101"').kind == "command-failed"


# xl 4.17, as captured in the lab.
_GIVEN_UP = (
    "libxl: error: libxl_create.c:1921:domcreate_attach_devices: Domain 3:unable to add vif devices\n"
    "libxl: error: libxl_domain.c:1183:libxl__destroy_domid: Domain 3:Non-existant domain\n"
    "libxl: error: libxl_domain.c:1064:domain_destroy_cb: Domain 3:Destruction of domain failed\n"
)


@pytest.mark.parametrize(
    ("first", "cause"),
    [
        (
            "Parsing config from x.cfg\n"
            "libxl: error: libxl_exec.c:117:libxl_report_child_exitstatus: vif-bridge online [9] exited with 1\n"
            "libxl: error: libxl_device.c:1337:device_hotplug_child_death_cb: script: Could not find bridge device x\n",
            "script: Could not find bridge device x",
        ),
        (
            "libxl: error: libxl_dom.c:909:libxl__domain_firmware: xc_dom_kernel_file failed: No such file\n",
            "xc_dom_kernel_file failed: No such file",
        ),
    ],
    ids=["a script failed", "libxl itself failed"],
)
def test_the_cause_of_a_failed_xl_create_is_told_not_its_last_line(first: str, cause: str) -> None:
    found = failure("start-guest of guest/a", "c3", 3, (first + _GIVEN_UP).encode())
    assert str(found) == f"start-guest of guest/a on c3: {cause} (exit status 3)"


class Stubs:
    """A directory of stub commands, first on PATH; each call is one line of `calls`."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.log = directory / "bin", directory / "calls"
        self.directory.mkdir()
        self.log.touch()

    def add(self, name: str, body: str = "") -> None:
        file = self.directory / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{body}\n')
        file.chmod(0o755)

    def run(self, script: str, stdin: bytes = b"", stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": f"{self.directory}:/usr/sbin:/usr/bin:/sbin:/bin"}
        command = ["sh", "-c", script]
        return subprocess.run(
            command, input=stdin, env=environment, stdout=subprocess.PIPE, stderr=stderr, check=False
        )  # fmt: skip

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path)


def lines(found: list[str]) -> str:
    return "set -eu\n" + "\n".join(found)


DISKS = Disks("vg", "pool", "lab")


def rule_set() -> bytes:
    wanted = Wanted(a_spec({"c1": ["alice"]}))
    return firewall.render(wanted.firewall("c1", [wanted.spec.guests["alice"]])).encode()


class TestRealShell:
    """The pure parts run in real sh, with real tar, grep and sha256sum; LVM and mounts are stubs."""

    def contextualize(
        self, stubs: Stubs, tree: Path, cut: slice = slice(None), stderr: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the step with its standard input; `cut` is the part of the archive that arrives."""
        for name in ("lvchange", "mount", "umount", "xfs_growfs"):
            stubs.add(name)
        stubs.add("mountpoint", "exit 1")
        stubs.add("chpasswd", f"cat > {stubs.directory}/password")
        stubs.add("mkdir")
        script = lines(DISKS.contextualize("vcg-alice", "new", "old", context.DIRECTORIES))
        script = script.replace("/run/vcrecon/mnt/vcg-alice", str(tree))
        found = context.files(a_guest("alice"), [("10.1.1.11", "alice")], [SERVICE], SITE_SECRET)
        return stubs.run(script, context.password_line(PASSWORD_HASH) + context.archive(found)[cut], stderr)

    def test_one_standard_input_serves_the_password_and_then_tar(self, stubs: Stubs, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        (tree / "etc").mkdir(parents=True)
        result = self.contextualize(stubs, tree)
        assert (result.returncode, result.stderr) == (0, b"")
        assert (stubs.directory / "password").read_text() == f"root:{PASSWORD_HASH}\n"
        assert (tree / "etc/hostname").read_text() == "alice\n"
        assert (tree / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
        assert stubs.calls[-1] == "lvchange --deltag vc.context=old --addtag vc.context=new vg/vcg-alice"

    def test_an_archive_that_ends_between_two_files_is_not_taken_for_whole(self, stubs: Stubs, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        (tree / "etc").mkdir(parents=True)
        # Five directories and the first file, each with a header block of 512 bytes (POSIX ustar).
        result = self.contextualize(stubs, tree, slice(0, 512 * 7))
        assert result.returncode == 1
        assert b"the context was cut off on its way" in result.stderr
        assert (tree / "etc/hostname").exists()
        assert not [call for call in stubs.calls if "addtag" in call]

    def test_a_step_that_fails_when_nobody_listens_any_more_leaves_nothing_mounted(
        self, stubs: Stubs, tmp_path: Path
    ) -> None:
        tree = tmp_path / "tree"
        (tree / "etc").mkdir(parents=True)
        reading, writing = os.pipe()
        os.close(reading)
        try:
            self.contextualize(stubs, tree, slice(0, 512 * 7), stderr=writing)
        finally:
            os.close(writing)
        assert stubs.calls[-1] == f"umount {tree}"

    def test_no_command_line_shows_the_password(self, stubs: Stubs, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        (tree / "etc").mkdir(parents=True)
        self.contextualize(stubs, tree)
        assert not [call for call in stubs.calls if "canary" in call]

    @pytest.mark.parametrize("directory", context.DIRECTORIES)
    def test_a_symbolic_link_in_the_guest_leads_nowhere(self, stubs: Stubs, tmp_path: Path, directory: str) -> None:
        tree, outside = tmp_path / "tree", tmp_path / "outside"
        outside.mkdir()
        (tree / directory).parent.mkdir(parents=True)
        (tree / directory).symlink_to(outside)
        result = self.contextualize(stubs, tree)
        assert result.returncode == UNSAFE
        assert b"is a symbolic link: not written" in result.stderr
        assert list(outside.iterdir()) == []
        assert [c for c in stubs.calls if c.startswith("umount")] == [f"umount {tree}"]
        assert not [c for c in stubs.calls if "addtag" in c]

    def lvs(self, stubs: Stubs, tags: str) -> None:
        stubs.add("lvs", f"echo '  {tags}'")
        stubs.add("lvremove")
        stubs.add("lvcreate")
        stubs.add("lvchange")
        stubs.add("mountpoint", "exit 1")

    def test_the_host_itself_refuses_to_discard_a_touched_disk(self, stubs: Stubs) -> None:
        self.lvs(stubs, "vc.boots=1,vc.guest=alice,vc.touched,vcrecon")
        result = stubs.run(lines(DISKS.discard("vcg-alice")))
        assert result.returncode == UNSAFE
        assert b"holds a student's work" in result.stderr
        assert not [c for c in stubs.calls if c.startswith("lvremove")]

    def test_the_host_itself_refuses_to_start_a_guest_whose_disk_is_in_a_persons_hands(self, stubs: Stubs) -> None:
        self.lvs(stubs, "vc.boots=2,vc.guest=alice,vc.held,vc.touched,vcrecon")
        result = stubs.run(lines([*DISKS.require_not_held("alice", "vcg-alice"), "lvchange alice"]))
        assert result.returncode == UNSAFE
        assert b"in rescue" in result.stderr
        assert not [c for c in stubs.calls if c.startswith("lvchange")]

    def test_the_host_itself_refuses_to_prune_a_live_disk(self, stubs: Stubs) -> None:
        self.lvs(stubs, "vc.boots=1,vc.guest=alice,vcrecon")
        assert stubs.run(lines(DISKS.prune("vcg-alice"))).returncode == UNSAFE
        assert not [c for c in stubs.calls if c.startswith("lvremove")]

    def test_an_untouched_disk_is_discarded_and_a_kept_one_pruned(self, stubs: Stubs) -> None:
        self.lvs(stubs, "vc.guest=alice,vc.quarantined=moved,vcrecon")
        assert stubs.run(lines([*DISKS.discard("vcg-alice"), *DISKS.prune("vcq-alice-1")])).returncode == 0
        removed = [c for c in stubs.calls if c.startswith("lvremove")]
        assert removed == ["lvremove -y vg/vcg-alice", "lvremove -y vg/vcq-alice-1"]

    def test_a_complete_disk_is_never_replaced_by_a_new_one(self, stubs: Stubs) -> None:
        self.lvs(stubs, "vc.guest=alice,vc.image=abc,vcrecon")
        result = stubs.run(lines(DISKS.create_thin("alice", IMAGE, 2, 2**33)))
        assert result.returncode == UNSAFE
        assert b"already there and complete" in result.stderr

    def test_a_golden_volume_of_somebody_else_is_not_removed(self, stubs: Stubs) -> None:
        self.lvs(stubs, "vcrecon,vc.site=another-lab")
        stubs.add("lvrename")
        result = stubs.run(lines(DISKS._remove_if_there("vcimg-0123")))
        assert result.returncode == REFUSED
        error = failure("fetch-image", "c1", REFUSED, result.stderr)
        assert error.kind == "volume-taken"
        assert "`lvrename vg vcimg-0123 NEW-NAME`" in str(error), "said, and not done"
        assert not [c for c in stubs.calls if c.startswith(("lvremove", "lvrename"))]

    def test_what_a_refusal_says_is_never_run(self, stubs: Stubs) -> None:
        stubs.add("boom")
        name = 'value "with" `boom` $(boom)'
        result = stubs.run(f"name='{name}'; " + refuse("a-reason", 'say `boom` "now" \\ of $name'))
        assert result.stderr.decode() == f'a-reason: say `boom` "now" \\ of {name}\n'
        assert (result.returncode, stubs.calls) == (REFUSED, [])

    def unpack(self, stubs: Stubs, tmp_path: Path, archive: bytes, image: Image = IMAGE) -> subprocess.CompletedProcess:
        for name in ("mkfs.xfs", "mount", "umount"):
            stubs.add(name)
        (tmp_path / "archive").write_bytes(archive)
        (tmp_path / "tree").mkdir(exist_ok=True)
        script = lines([*DISKS._unpack("vcimg-0123", str(tmp_path / "archive"), image), "echo complete"])
        return stubs.run(script.replace("/run/vcrecon/mnt/vcimg-0123", str(tmp_path / "tree")))

    @pytest.mark.parametrize(
        ("entries", "cmdline", "kind"),
        [
            ((), "", "image-not-a-tree"),
            (("rootfs/etc/passwd", "rootfs/sbin/init"), "", "image-not-a-tree"),
            (("etc/passwd", "usr/bin/true"), "", "image-no-init"),
            (("etc/passwd", "sbin/init"), "quiet init=/opt/start", "image-no-init"),
            (("etc/passwd", "opt/start"), "quiet init=/opt/start", None),
            (("etc/passwd", "sbin/init"), "", None),
            (("etc/passwd", "usr/lib/systemd/systemd"), "", None),
            (("usr/sbin/init -> /lib/systemd/systemd",), "", None),
        ],
    )
    def test_a_tree_that_cannot_boot_is_refused(
        self, stubs: Stubs, tmp_path: Path, entries: tuple[str, ...], cmdline: str, kind: str | None
    ) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for entry in entries:
                name, _, target = entry.partition(" -> ")
                info = tarfile.TarInfo(name)
                info.type, info.linkname = (tarfile.SYMTYPE, target) if target else (tarfile.REGTYPE, "")
                tar.addfile(info)
        result = self.unpack(stubs, tmp_path, buffer.getvalue(), replace(IMAGE, cmdline=cmdline))
        if kind is None:
            assert (result.returncode, result.stdout) == (0, b"complete\n"), result.stderr
        else:
            assert result.returncode == REFUSED
            error = failure("fetch-image of image/c1/debian", "c1", REFUSED, result.stderr)
            assert (error.kind, IMAGE.root.url in str(error)) == (kind, True)
        assert [c for c in stubs.calls if c.startswith("umount")] == [f"umount {tmp_path / 'tree'}"]

    def test_an_archive_that_is_none_is_refused(self, stubs: Stubs, tmp_path: Path) -> None:
        for junk in (b"hello\n", b"", bytes(range(256)) * 40, b"\x1f\x8b\x08\x00junk"):
            result = self.unpack(stubs, tmp_path, junk)
            assert result.returncode == REFUSED, junk
            error = failure("fetch-image of image/c1/debian", "c1", REFUSED, result.stderr)
            assert error.kind == "image-not-a-tree"
            assert "is no tar archive, or a damaged one" in str(error)

    @pytest.mark.parametrize(("given_digest", "status"), [("right", 0), ("wrong", CORRUPT)])
    def test_a_copy_is_proved_by_reading_it_back(
        self, stubs: Stubs, tmp_path: Path, given_digest: str, status: int
    ) -> None:
        stubs.add("lvchange")
        block = tmp_path / "block"
        block.write_bytes(b"disk")
        right = subprocess.run(["sha256sum", block], capture_output=True, text=True, check=True).stdout.split()[0]
        digest = right if given_digest == "right" else "0" * 64
        script = lines(DISKS.prove("alice", digest, ["vc.copy=1.2"])).replace("/dev/vg/vcg-alice", str(block))
        assert stubs.run(script).returncode == status
        assert stubs.calls == (["lvchange --addtag vc.copy=1.2 vg/vcg-alice"] if status == 0 else [])

    def firewall(self, stubs: Stubs, tmp_path: Path, rules: bytes) -> subprocess.CompletedProcess[bytes]:
        """Run the step with these rules; nft keeps what it is given in `loaded`, or lists nothing."""
        for name in ("sysctl", "mkdir"):
            stubs.add(name)
        stubs.add("nft", f'if [ "$1" = -f ]; then cat >> {tmp_path}/loaded; fi')
        script = lines(network.set_up_firewall("the-digest"))
        return stubs.run(script.replace("/run/vcrecon/firewall", f"{tmp_path}/firewall"), rules)

    def test_whole_rules_are_loaded_and_remembered(self, stubs: Stubs, tmp_path: Path) -> None:
        rules = rule_set()
        result = self.firewall(stubs, tmp_path, rules)
        assert (result.returncode, result.stderr) == (0, b"")
        assert (tmp_path / "loaded").read_bytes() == rules
        assert (tmp_path / "firewall").read_text().startswith("the-digest ")

    def test_rules_that_were_cut_off_on_their_way_are_not_taken_for_whole(self, stubs: Stubs, tmp_path: Path) -> None:
        """Between two tables the beginning of a rule set is a rule set of its own, without the rest (S12)."""
        rules = rule_set()
        ends = [0, *(at for at in range(1, len(rules)) if rules[:at].endswith(b"}\n"))]
        assert len(ends) > 5
        for end in ends:
            result = self.firewall(stubs, tmp_path, rules[:end])
            assert result.returncode == 1
            assert b"cut off on their way" in result.stderr
        assert not (tmp_path / "loaded").exists()
        assert not (tmp_path / "firewall").exists()

    @pytest.mark.parametrize("tags", ["vcrecon,vc.guest=alice,vc.epoch=2", "vcrecon,vc.incoming,vc.copy=1.2"])
    def test_a_copy_that_comes_late_is_not_written_over_a_disk(self, stubs: Stubs, tags: str) -> None:
        """A server that hung may start the step of a lost connection long after another one carried the disk over."""
        stubs.add("lvs", f"echo {tags}")
        stubs.add("zstd")
        stubs.add("dd")
        result = stubs.run(lines(DISKS.write("alice", thick=False)), b"data")
        assert result.returncode == UNSAFE
        assert b"does not wait for a copy" in result.stderr
        assert [call.split()[0] for call in stubs.calls] == ["lvs"]

    def test_a_copy_is_written_into_the_volume_that_waits_for_it(self, stubs: Stubs) -> None:
        stubs.add("lvs", "echo vcrecon,vc.incoming,vc.guest=alice")
        stubs.add("zstd", "cat")
        stubs.add("dd", f"cat > {stubs.directory}/disk")
        assert stubs.run(lines(DISKS.write("alice", thick=False)), b"data").returncode == 0
        assert (stubs.directory / "disk").read_bytes() == b"data"

    def test_a_download_that_stands_still_is_given_up(self, tmp_path: Path) -> None:
        """A server that hangs keeps its connections: without a limit the step would hold its lock for ever."""
        silent = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/kernel"
        image = replace(IMAGE, kernel=replace(KERNEL, url=url), initrd=None)
        script = lines(DISKS.fetch_boot_files(image)).replace("/var/lib/vcrecon/images", str(tmp_path))
        waits = re.findall(r"--speed-time ([0-9]+)", script)
        assert waits
        assert all(10 <= int(wait) <= 120 for wait in waits)
        script = re.sub(r"--speed-time [0-9]+", "--speed-time 1", script).replace("--retry 3", "--retry 0")
        with silent:
            result = subprocess.run(["sh", "-c", script], capture_output=True, check=False, timeout=60)
        assert b"curl: (28)" in result.stderr

    def test_a_download_that_does_not_match_is_thrown_away(self, stubs: Stubs, tmp_path: Path) -> None:
        stubs.add("curl", 'while [ "$1" != -o ]; do shift; done; echo something else > "$2"')
        script = lines(DISKS.fetch(replace(IMAGE, kernel=KERNEL, initrd=INITRD), golden=False))
        result = stubs.run(script.replace("/var/lib/vcrecon/images", str(tmp_path / "images")))
        assert result.returncode == CORRUPT
        assert KERNEL.url.encode() in result.stderr
        assert list((tmp_path / "images").iterdir()) == []

    def test_a_second_step_on_the_same_object_is_refused(self, tmp_path: Path) -> None:
        script = locked("x", ["true"]).replace("/run/lock/vcrecon.x", str(tmp_path / "lock"))
        holder = subprocess.Popen(["flock", tmp_path / "lock", "sh", "-c", "echo held; read line"], stdin=-1, stdout=-1)
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        assert subprocess.run(["sh", "-c", script], check=False).returncode == LOCKED
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
        assert subprocess.run(["sh", "-c", script], check=False).returncode == 0

    def test_what_a_step_leaves_running_does_not_keep_its_lock(self, tmp_path: Path) -> None:
        """`xl create` leaves a process that watches over the domain for as long as that lives."""
        script = locked("x", ["sleep 60 >/dev/null 2>&1 & echo $!"]).replace(
            "/run/lock/vcrecon.x", str(tmp_path / "lock")
        )
        left = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
        try:
            again = locked("x", ["true"]).replace("/run/lock/vcrecon.x", str(tmp_path / "lock"))
            assert subprocess.run(["sh", "-c", again], check=False).returncode == 0
        finally:
            os.kill(int(left), signal.SIGKILL)


class TestContext:
    found = context.files(a_guest("alice"), [("10.1.1.11", "alice")], [SERVICE], SITE_SECRET)

    def members(self) -> list[tarfile.TarInfo]:
        return tarfile.open(fileobj=io.BytesIO(context.archive(self.found))).getmembers()

    def test_the_same_files_give_the_same_bytes(self) -> None:
        again = context.files(a_guest("alice"), [("10.1.1.11", "alice")], [SERVICE], SITE_SECRET)
        assert context.archive(self.found) == context.archive(again)

    def test_files_with_their_modes(self) -> None:
        assert {m.name: oct(m.mode) for m in self.members() if m.isfile()} == {
            "etc/hostname": "0o644",
            "etc/hosts": "0o644",
            "etc/ssh/ssh_host_ed25519_key": "0o600",
            "etc/ssh/ssh_host_ed25519_key.pub": "0o644",
            "root/.ssh/authorized_keys": "0o600",
            "etc/systemd/network/10-vcrecon-0.network": "0o644",
            "etc/.vcrecon-complete": "0o644",
        }
        assert {(m.uid, m.gid, m.mtime) for m in self.members()} == {(0, 0, 0)}

    def test_every_directory_written_into_is_checked_for_links_first(self) -> None:
        parents = {str(p) for m in self.members() for p in Path(m.name).parents} - {"."}
        assert parents <= set(context.DIRECTORIES)
        assert {m.name for m in self.members() if m.isdir()} <= set(context.DIRECTORIES)

    def test_hosts_name_the_cluster_and_the_services(self) -> None:
        hosts = next(f.content.decode() for f in self.found if f.path == "etc/hosts")
        assert "10.1.1.11 alice\n" in hosts
        assert "192.0.2.1 mirror\n" in hosts

    def test_each_guest_has_a_host_key_of_its_own_for_ever(self, program: Callable[[str], str], tmp_path: Path) -> None:
        private, public = context.host_key(SITE_SECRET, "alice")
        assert context.host_key(SITE_SECRET, "alice") == (private, public)
        assert context.host_key(SITE_SECRET, "bob")[1] != public
        file = tmp_path / "key"
        file.write_bytes(private)
        file.chmod(0o600)
        derived = subprocess.run(
            [program("ssh-keygen"), "-y", "-f", file], capture_output=True, text=True, check=True
        ).stdout
        assert derived.split()[:2] == public.decode().split()[:2]
