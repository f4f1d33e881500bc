"""What machines send: values with limits, or garbage."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcrecon.boot import calls
from vcrecon.boot.calls import Call, Garbage
from vcrecon.boot.neighbours import KernelNeighbours, parse
from vcrecon.boot.static import found_file
from vcrecon.core.installs import Ended, Netboot, Progress

CALL = Call("10.9.0.11", 100.0)
ARP = """IP address       HW type     Flags       HW address            Mask     Device
10.9.0.11        0x1         0x2         52:54:00:AA:00:01     *        vcbs0
10.9.0.12        0x1         0x0         00:00:00:00:00:00     *        vcbs0
10.9.0.13        0x1         0x6         52:54:00:aa:00:03     *        vcbs0
10.9.0.14        0x1         0x2         52:54:00:aa:00:04     *        other0
"""


@pytest.mark.parametrize("text", ["52:54:00:AA:00:01", "52-54-00-aa-00-01"])
def test_macs_have_one_form(text: str) -> None:
    assert calls.mac(text) == "52:54:00:aa:00:01"


@pytest.mark.parametrize(
    "text", ["", "52:54:00:aa:00", "52:54:00:aa:00:01\n", "zz:54:00:aa:00:01", "ff:ff:ff:ff:ff:ff"]
)
def test_what_is_no_mac_is_garbage(text: str) -> None:
    with pytest.raises(Garbage):
        calls.mac(text)


def test_a_boot_request_tells_of_the_machine() -> None:
    query = (("mac", "52:54:00:aa:00:01"), ("uuid", "u-1"), ("serial", "S\x1b 1"), ("platform", "efi"))
    assert calls.netboot(query, CALL) == Netboot("52:54:00:aa:00:01", 100.0, "10.9.0.11", "efi", "u-1", "S 1")


@pytest.mark.parametrize(
    "query",
    [
        (),
        (("uuid", "x"),),
        (("mac", "52:54:00:aa:00:01"), ("mac", "52:54:00:aa:00:02")),
        (("mac", "52:54:00:aa:00:01"), ("exec", "x")),
    ],
)
def test_an_odd_boot_request_is_garbage(query: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Garbage):
        calls.netboot(query, CALL)


def test_a_report_is_progress() -> None:
    body = b"step=download&percent=41.5&bytes_done=415&bytes_total=1000&message=12%20MB%2Fs"
    assert calls.progress(body, "c1", CALL) == Progress("c1", "download", 100.0, 100.0, 41.5, 415, 1000, "12 MB/s")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"step=coffee",
        b"step=disks&percent=101",
        b"step=disks&percent=-1",
        b"step=disks&percent=nan",
        b"step=disks&percent=1e3",
        b"step=disks&bytes_done=99999999999999999999",
        b"step=disks&step=raid",
        b"step=disks&colour=red",
        b"step=disks&message=%ff",
        b"&".join(b"message=x" for _ in range(50)),
    ],
)
def test_an_odd_report_is_garbage(body: bytes) -> None:
    with pytest.raises(Garbage):
        calls.progress(body, "c1", CALL)


def test_messages_are_one_short_printable_line() -> None:
    body = b"step=disks&message=a%0Ab%1B%5B2J%00" + b"x" * 2000
    message = calls.progress(body, "c1", CALL).message
    assert message.startswith("a b[2Jxxx")
    assert len(message) == calls.MESSAGE_MAX


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (b"error=&message=", "", ""),
        (b"error=no-disk&message=none+found", "no-disk", "none found"),
        (b"error=Meltdown&message=hot", "step-failed", "Meltdown: hot"),
    ],
)
def test_a_last_word_has_a_known_error(body: bytes, error: str, message: str) -> None:
    assert calls.ended(body, "c1", "n", CALL) == Ended("c1", "n", 100.0, error, message)


def test_a_last_word_without_an_error_field_is_garbage_and_no_success() -> None:
    with pytest.raises(Garbage):
        calls.ended(b"message=done", "c1", "n", CALL)


def test_a_log_keeps_lines_and_loses_what_a_terminal_would_obey() -> None:
    assert calls.log_lines("a\tb\n\x1b[31mred\x07\x00\r\n\xe4\xff".encode()) == "a\tb\n[31mred\n\xe4\xff"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer xyz", "Basic " + "ab" * 32, "Bearer " + "AB" * 32])
def test_what_cannot_be_a_token_is_none(header: str) -> None:
    assert calls.token(header) is None


def test_the_neighbour_table_counts_only_what_is_known_on_the_interface() -> None:
    assert parse(ARP, "vcbs0") == {"10.9.0.11": "52:54:00:aa:00:01", "10.9.0.13": "52:54:00:aa:00:03"}


def test_the_neighbour_table_is_read_anew_and_may_be_missing(tmp_path: Path) -> None:
    table = tmp_path / "arp"
    neighbours = KernelNeighbours("vcbs0", table)
    before = neighbours.mac_of("10.9.0.11")
    table.write_text(ARP)
    assert (before, neighbours.mac_of("10.9.0.11")) == (None, "52:54:00:aa:00:01")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "base.tar.zst").write_text("image")
    (root / ".secret").write_text("hidden")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("hidden")
    (tmp_path / "outside").write_text("outside")
    (root / "link").symlink_to("../outside")
    (root / "good-link").symlink_to("deep/base.tar.zst")
    return root


@pytest.mark.parametrize("path", ["deep/base.tar.zst", "good-link"])
def test_files_below_the_images_are_found(images: Path, path: str) -> None:
    assert found_file(images, path.split("/")) == images / "deep" / "base.tar.zst"


@pytest.mark.parametrize(
    "path",
    ["", "deep", "../outside", "deep/../../outside", ".secret", ".git/config", "link", "/etc/passwd",
     "deep//base.tar.zst", "base.tar.zst\0", "a/" * 20],
)  # fmt: skip
def test_nothing_else_is_found(images: Path, path: str) -> None:
    assert found_file(images, path.split("/")) is None
