"""LVM, file systems and byte streams of the simulated hosts."""

# ruff: noqa: ASYNC221 - the real tools run for milliseconds
from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile

import pytest
import zstandard
from toolbox import machine, ok, run


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.mtime = len(text), 0o640, 7, 1000
            out.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


async def golden(host, files=None):
    await ok(host, "lvcreate -y --thin -V 2147483648b -n golden --addtag vcrecon.image=abc vg0/vcpool")
    await ok(host, "mkfs.xfs -q -f /dev/vg0/golden")
    await ok(host, "mkdir -p /mnt/g")
    await ok(host, "mount -o nouuid /dev/vg0/golden /mnt/g")
    await ok(
        host,
        "tar -x --zstd -C /mnt/g --numeric-owner",
        zstandard.compress(archive(files or {"etc/hostname": "img"})),
    )
    await ok(host, "umount /mnt/g")


async def test_a_thin_volume_shows_in_the_report_with_its_tags_and_extent_rounding():
    host = machine()
    await ok(host, "lvcreate -y --thin -V 1000000512b -n a --addtag x=1 --addtag b vg0/vcpool")
    fields = "lv_name,lv_size,lv_tags,pool_lv,lv_attr"
    text = await ok(host, f"lvs --reportformat json --units b --nosuffix -o {fields} vg0/a")
    row = json.loads(text)["report"][0]["lv"][0]
    assert row == {
        "lv_name": "a",
        "lv_size": "1002438656",
        "lv_tags": "b,x=1",
        "pool_lv": "vcpool",
        "lv_attr": "Vwi-a-tz--",
    }


async def test_fullreport_groups_by_volume_group_and_all_values_are_strings():
    host = machine()
    await golden(host)
    report = json.loads(await ok(host, "lvm fullreport --reportformat json --units b"))["report"]
    assert [list(group) for group in report] == [["vg", "pv", "lv", "pvseg", "seg"]]
    assert all(isinstance(v, str) for rows in report[0].values() for row in rows for v in row.values())
    assert {row["lv_name"] for row in report[0]["lv"]} == {"vcpool", "golden"}
    assert report[0]["vg"][0]["vg_extent_size"] == "4194304B"


async def test_a_snapshot_shares_until_written_and_keeps_its_origins_files():
    host = machine()
    await golden(host, {"etc/big": "x" * 5_000_000})
    pool = host.lvm.groups["vg0"].volumes["vcpool"]
    before = pool.group.pool_used_bytes("vcpool")
    await ok(host, "lvcreate -y -kn -s -n g1 --addtag t vg0/golden")
    assert pool.group.pool_used_bytes("vcpool") == before
    await ok(host, "mount -o nouuid /dev/vg0/g1 /mnt/g")
    assert host.files.read("/mnt/g/etc/big") == b"x" * 5_000_000
    host.files.write("/mnt/g/etc/own", b"y" * 1_000_000)
    assert before + 1_000_000 <= pool.group.pool_used_bytes("vcpool") <= before + 1_010_000
    await ok(host, "umount /mnt/g")
    await ok(host, "mount -o nouuid /dev/vg0/golden /mnt/g")
    assert not host.files.exists("/mnt/g/etc/own")


async def test_a_snapshot_without_kn_stays_inactive():
    host = machine()
    await golden(host)
    await ok(host, "lvcreate -y -s -n g1 vg0/golden")
    assert not host.files.exists("/dev/vg0/g1")
    await ok(host, "lvchange -ay vg0/g1")
    assert not host.files.exists("/dev/vg0/g1")
    await ok(host, "lvchange -ay -K vg0/g1")
    assert host.files.is_block_device("/dev/vg0/g1")


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("lvcreate -y --thin -V 4194304b -n golden vg0/vcpool", 5, "already exists in volume group"),
        ("lvcreate -y --thin -V 4194304b -n a nope/vcpool", 5, 'Volume group "nope" not found'),
        ("lvcreate -y --thin -V 1b -n a vg0/vcpool", 3, "Size is not a multiple of 512. Try using 0 or 512."),
        (
            "lvcreate -y --thin -V 512b -n a --addtag 'a b' vg0/vcpool",
            3,
            "Invalid argument for --addtag: a b",
        ),
        ("lvcreate -y -Wy -Zy -L 109951162777600b -n a vg0", 5, "insufficient free space"),
        ("lvcreate --frob", 3, "lvcreate: unrecognized option '--frob'"),
        ("lvremove -y vg0/nope", 5, 'Failed to find logical volume "vg0/nope"'),
        ("lvremove vg0/golden", 5, "Do you really want to remove"),
        ("lvrename vg0 nope b", 5, "not found in volume group"),
        ("lvrename vg0 golden vcpool", 5, "already exists"),
        ("lvchange --addtag x", 3, "Please give logical volume path"),
        ("lvextend -L 4194304b vg0/golden", 5, "not larger than existing size"),
        ("lvs -o frob", 5, "Unrecognised field: frob"),
        ("lvs nope", 5, "Cannot process volume group nope"),
        ("lvm frob", 2, "No such command.  Try 'lvm help'."),
    ],
)
async def test_lvm_refuses_in_its_own_words(command, status, words):
    host = machine()
    await golden(host)
    outcome = await run(host, command)
    assert outcome.status == status
    assert words in outcome.err


async def test_a_mounted_volume_cannot_be_removed_formatted_or_overwritten():
    host = machine()
    await golden(host)
    await ok(host, "mount /dev/vg0/golden /mnt/g")
    outcome = await run(host, "lvremove -y vg0/golden")
    assert (outcome.status, outcome.err) == (5, "  Logical volume vg0/golden contains a filesystem in use.\n")
    assert (await run(host, "mkfs.xfs -q -f /dev/vg0/golden")).status == 1
    assert "busy" in (await run(host, "dd of=/dev/vg0/golden status=none", b"x")).err


async def test_thick_volumes_rename_extend_and_pools():
    host = machine(make_pool=False)
    await ok(host, "lvcreate -y --type thin-pool -l 90%FREE -n vcpool vg0")
    await ok(host, "lvcreate -y -Wy -Zy -L 1073741824b -n t --addtag q vg0")
    await ok(host, "lvrename vg0 t u")
    await ok(host, "lvextend -L 2147483648b vg0/u")
    await ok(host, "lvchange --deltag q --addtag r vg0/u")
    volume = host.lvm.find("vg0/u")
    assert (volume.size_bytes, volume.tags) == (2 << 30, {"r"})
    assert "now active" in await ok(host, "vgchange -ay vg0")
    await ok(host, "lvremove -y vg0/u")
    assert json.loads(await ok(host, "vgs --reportformat json -o vg_name,lv_count"))["report"][0]["vg"] == [
        {"vg_name": "vg0", "lv_count": "1"}
    ]


async def test_a_full_pool_refuses_writes_and_after_the_first_also_new_volumes():
    host = machine()
    await golden(host)
    await ok(host, "mount /dev/vg0/golden /mnt/g")
    host.fill_pool(100.0, 0.0)
    await ok(host, "lvcreate -y --thin -V 4194304b -n y vg0/vcpool")
    outcome = await run(host, "dd of=/mnt/g/new status=none", b"x" * 5000)
    assert outcome.status == 1
    assert "No space left on device" in outcome.err
    assert (await run(host, "lvcreate -y --thin -V 4194304b -n z vg0/vcpool")).status == 5


async def test_two_copies_of_one_file_system_mount_together_only_with_nouuid():
    host = machine()
    await golden(host)
    await ok(host, "lvcreate -y -kn -s -n g1 vg0/golden")
    await ok(host, "mount /dev/vg0/golden /mnt/g")
    await ok(host, "mkdir /mnt/h")
    outcome = await run(host, "mount /dev/vg0/g1 /mnt/h")
    assert outcome.status == 32
    assert "wrong fs type, bad option, bad superblock" in outcome.err
    await ok(host, "mount -o nouuid /dev/vg0/g1 /mnt/h")


async def test_dd_carries_a_volume_to_another_machine_and_both_devices_have_one_digest():
    one, two = machine(), machine()
    await golden(one)
    await ok(two, "lvcreate -y --thin -V 2147483648b -n copy vg0/vcpool")
    stream = (await run(one, "dd if=/dev/vg0/golden bs=1M status=none")).raw
    packed = (await run(one, "zstd -1 -T0 -q -c", stream)).raw
    plain = (await run(two, "zstd -q -d -c", packed)).raw
    await ok(two, "dd of=/dev/vg0/copy bs=4M iflag=fullblock conv=sparse,fsync status=none", plain)
    first = (await ok(one, "sha256sum /dev/vg0/golden")).split()[0]
    assert first == (await ok(two, "sha256sum /dev/vg0/copy")).split()[0]
    await ok(two, "mkdir /mnt/c")
    await ok(two, "mount /dev/vg0/copy /mnt/c")
    assert two.files.read("/mnt/c/etc/hostname") == b"img"


async def test_a_volume_written_in_part_has_a_signature_but_does_not_mount():
    one, two = machine(), machine()
    await golden(one)
    await ok(two, "lvcreate -y --thin -V 2147483648b -n copy vg0/vcpool")
    stream = (await run(one, "dd if=/dev/vg0/golden bs=1M status=none")).raw
    await ok(two, "dd of=/dev/vg0/copy status=none", stream[:-3])
    assert await ok(two, "blkid -o value -s TYPE /dev/vg0/copy") == "xfs\n"
    await ok(two, "mkdir /mnt/c")
    outcome = await run(two, "mount /dev/vg0/copy /mnt/c")
    assert (outcome.status, "Structure needs cleaning" in outcome.err) == (32, True)


async def test_mount_tools_tell_what_is_mounted():
    host = machine()
    await golden(host)
    assert (await run(host, "mountpoint -q /mnt/g")).status == 32
    await ok(host, "mount -t xfs -o nouuid /dev/vg0/golden /mnt/g")
    assert (await run(host, "mountpoint -q /mnt/g")).status == 0
    found = json.loads(await ok(host, "findmnt -J /mnt/g"))["filesystems"]
    assert found[0]["source"] == "/dev/mapper/vg0-golden"
    assert (await run(host, "findmnt /nope")).status == 1
    assert int((await ok(host, "df -B1 --output=avail /mnt/g")).split()[1]) > 1_900_000_000
    await ok(host, "lvextend -L 4294967296b vg0/golden")
    await ok(host, "xfs_growfs /mnt/g")
    assert int((await ok(host, "df -B1 --output=avail /mnt/g")).split()[1]) > 3_900_000_000
    await ok(host, "umount /mnt/g")
    assert (await run(host, "umount /mnt/g")).err == "umount: /mnt/g: not mounted.\n"
    assert "new UUID" in await ok(host, "xfs_admin -U generate /dev/vg0/golden")
    assert (await run(host, "xfs_repair -n /dev/vg0/golden")).status == 0
    assert (await run(host, "blkid -o value -s TYPE /dev/vg0/nope")).status == 2


async def test_tar_restores_owners_and_modes_and_writes_what_the_real_tar_reads(tmp_path):
    host = machine()
    host.files.mkdir("/srv/t")
    await ok(host, "tar -x -f - -C /srv/t --numeric-owner --same-owner -p", archive({"a/b": "hello", "c": "no"}))
    assert await ok(host, "stat -c '%a %u %s' /srv/t/a/b") == "640 7 5\n"
    data = (await run(host, "tar -c --zstd --exclude c -C /srv/t a c")).raw
    (tmp_path / "x.tar.zst").write_bytes(data)
    listing = subprocess.run(["tar", "-tf", tmp_path / "x.tar.zst"], capture_output=True, text=True, check=True)
    assert listing.stdout == "a/\na/b\n"


@pytest.mark.parametrize("data", [b"garbage", zstandard.compress(archive({"a": "b"}))[:-4]])
async def test_tar_fails_on_rubbish_and_on_a_cut_archive(data):
    host = machine()
    outcome = await run(host, "tar -x -C /srv", data)
    assert outcome.status == 2


async def test_gzip_and_zstd_undo_themselves_and_refuse_rubbish():
    host = machine()
    for program, undo in (("gzip -1 -c", "gzip -d -c"), ("zstd -1 -q -c", "zstd -dc")):
        packed = (await run(host, program, b"hello" * 99)).raw
        assert (await run(host, undo, packed)).raw == b"hello" * 99
        assert (await run(host, undo, packed[:-3])).status == 1
        assert (await run(host, undo, b"rubbish")).status == 1


def server(body: bytes, status: int = 200, cut: bool = False):
    async def fetch(url: str, offset: int):
        if "refused" in url:
            raise ConnectionRefusedError
        if "nowhere" in url:
            raise LookupError

        async def chunks():
            yield body[offset:]
            if cut:
                raise ConnectionResetError

        return (206 if offset and status == 200 else status), chunks()

    return fetch


@pytest.mark.parametrize(
    ("url", "settings", "status"),
    [
        ("http://refused:1/x", {}, 7),
        ("http://nowhere/x", {}, 6),
        ("http://h/x", {"status": 404}, 22),
        ("http://h/x", {"cut": True}, 18),
        ("nonsense", {}, 3),
        ("http://h/x", {}, 0),
    ],
)
async def test_curl_ends_with_the_real_exit_codes(url, settings, status):
    host = machine(fetch=server(b"data", **settings))
    outcome = await run(host, f"curl -fsSL --retry 1 --connect-timeout 5 --max-time 60 -o /var/tmp/x {url}")
    assert outcome.status == status
    assert outcome.err.startswith(f"curl: ({status})") == bool(status)


async def test_curl_resumes_where_the_file_ends_and_the_digest_is_checked():
    host = machine(fetch=server(b"0123456789"))
    host.files.write("/var/tmp/x", b"0123")
    await ok(host, "curl -fsS -C - -o /var/tmp/x http://h/x")
    digest = hashlib.sha256(b"0123456789").hexdigest()
    assert await ok(host, "sha256sum -c", f"{digest}  /var/tmp/x\n") == "/var/tmp/x: OK\n"
    host.files.write("/var/tmp/x", b"bad")
    outcome = await run(host, "sha256sum -c --quiet", f"{digest}  /var/tmp/x\n")
    assert (outcome.status, outcome.out) == (1, "/var/tmp/x: FAILED\n")
    assert "1 computed checksum did NOT match" in outcome.err


async def test_the_audit_hears_of_a_booted_volume_being_formatted_extracted_to_or_removed():
    host = machine()
    await golden(host)
    heard = []
    host.on_volume_event(lambda event: heard.append(event.kind))
    await ok(host, "mkfs.xfs -q -f /dev/vg0/golden")
    assert heard == []
    host.lvm.find("vg0/golden").ever_booted = True
    await ok(host, "mount /dev/vg0/golden /mnt/g")
    await ok(host, "tar -x -C /mnt/g", archive({"a": "b"}))
    await ok(host, "umount /mnt/g")
    await ok(host, "mkfs.xfs -q -f /dev/vg0/golden")
    await ok(host, "dd of=/dev/vg0/golden status=none", b"x")
    await ok(host, "lvremove -y vg0/golden")
    assert {"tar", "mkfs", "device-write", "remove"} <= set(heard)


async def test_what_can_be_removed_is_removed_when_another_is_missing():
    host = machine()
    await ok(host, "lvcreate -y -Wy -L 8m -n a vg0")
    outcome = await run(host, "lvremove -y vg0/gone vg0/a")
    assert (outcome.status, outcome.err) == (5, '  Failed to find logical volume "vg0/gone"\n')
    assert outcome.out == '  Logical volume "a" successfully removed.\n'
