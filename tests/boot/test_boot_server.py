"""The boot server on loopback, where every address of 127.0.0.0/8 can be a machine: who is believed, and how far."""

from __future__ import annotations

import asyncio
import io
import logging
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from boot_site import MAC, SYSTEM, a_boot_spec, a_container, a_ticket
from http_site import MACHINE, MASTER, OTHER, SECRET, STRANGER_MAC, Site, running

from vcrecon.boot.install_log import LOG_FILE_BYTES_MAX, InstallLogs
from vcrecon.boot.job import JobSecrets, install_token
from vcrecon.boot.server import BootServer, Listen
from vcrecon.core.mastery import UNCLEAR, Quiet
from vcrecon.errors import Refused


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(tmp_path) as found:
        yield found


@pytest.fixture
async def claimed(site: Site) -> Site:
    """A site whose machine has claimed its install."""
    site.desk.open(a_ticket())
    assert (await site.claims()).status == 200
    return site


# --- booting -----------------------------------------------------------------------------------------------


async def test_a_machine_nobody_asked_to_install_is_sent_to_its_disk(site: Site) -> None:
    answer = await site.boots()
    assert answer.status == 200
    assert "echo vcrecon: c1: no install is asked for: booting the local disk" in answer.text


async def test_a_ticket_gives_the_installer_and_its_token(site: Site) -> None:
    site.desk.open(a_ticket())
    answer = await site.boots()
    assert f"vcrecon.token={install_token(SECRET, a_ticket())} vcrecon.mac={MAC} console=tty0" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


async def test_the_installer_s_kernel_gets_the_words_of_the_spec_after_the_consoles(site: Site) -> None:
    site.desk.adopt(
        a_boot_spec(network="127.0.0.0/8", address=MASTER, port=8067, images=site.images, kernel_args="no_timer_check")
    )
    site.desk.open(a_ticket())
    assert f"vcrecon.mac={MAC} console=tty0 console=ttyS0,115200 no_timer_check ||" in (await site.boots()).text


async def test_a_machine_in_the_queue_waits_with_its_message(site: Site) -> None:
    site.desk.hold({"c1": "3 before you"}.get)
    assert "echo vcrecon: 3 before you\n" in (await site.boots()).text


async def test_a_stranger_is_sent_to_its_disk_and_told_of_once(site: Site) -> None:
    site.neighbours.macs[MACHINE] = STRANGER_MAC
    texts = [(await site.boots(STRANGER_MAC)).text for _ in range(3)]
    assert all("booting the local disk" in text for text in texts)
    assert site.reasons == [("site", "stranger")]
    assert f"vcrecon adopt {STRANGER_MAC}" in site.events[0][2]
    assert site.desk.netboots[STRANGER_MAC].address == MACHINE


@pytest.mark.parametrize("really", [STRANGER_MAC, None], ids=["another MAC", "no neighbour"])
async def test_a_machine_that_lies_about_its_mac_gets_no_token(site: Site, really: str | None) -> None:
    site.desk.open(a_ticket())
    site.neighbours.macs = {} if really is None else {MACHINE: really}
    answer = await site.boots()
    assert "token" not in answer.text
    assert "sanboot" in answer.text
    assert site.reasons == [("container/c1", "mac-mismatch")]
    assert MAC not in site.desk.netboots


async def test_a_second_machine_with_the_same_mac_is_told_of(site: Site) -> None:
    site.desk.open(a_ticket())
    texts = [(await site.ask("GET", f"/boot.ipxe?mac={MAC}&uuid={uuid}")).text for uuid in ("aa-1", "aa-2")]
    assert ["token" in text for text in texts] == [True, False]
    assert site.reasons == [("container/c1", "mac-twice")]


async def test_without_a_mac_everybody_gets_the_script_that_asks_with_one(site: Site) -> None:
    assert (
        "chain --replace http://127.0.0.1:8067/boot.ipxe?mac=${netX/mac}" in (await site.ask("GET", "/boot.ipxe")).text
    )


@pytest.mark.parametrize("query", ["mac=x", "mac=", "uuid=1", "mac=52:54:00:aa:00:01&mac=52:54:00:aa:00:02", "%ff=%00"])
async def test_a_garbled_boot_request_is_refused_and_told_of(site: Site, query: str) -> None:
    assert (await site.ask("GET", f"/boot.ipxe?{query}")).status == 400
    assert site.reasons == [("site", "boot-garbage")]


async def test_until_the_controller_has_a_spec_machines_are_asked_for_patience(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        site.desk.spec = None
        answers = [await site.boots(), await site.claims(), await site.calls("ended", "error=")]
    assert [answer.status for answer in answers] == [503, 503, 503]


async def test_nobody_from_outside_the_provisioning_network_is_served(site: Site) -> None:
    site.desk.adopt(a_boot_spec(network="127.1.0.0/16", address=MASTER, images=site.images))
    answers = [await site.boots(), await site.ask("GET", "/images/base.tar.zst"), await site.claims()]
    assert [answer.status for answer in answers] == [403, 403, 403]
    assert site.reasons == [("site", "boot-outsider")]


# --- claims ------------------------------------------------------------------------------------------------


async def test_a_claim_is_answered_with_the_job(site: Site) -> None:
    site.desk.open(a_ticket())
    answer = await site.claims()
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        assert tar.getnames()[0] == "job.env"
        assert tar.getnames()[-1] == ".complete"
    assert site.desk.tickets["c1"].state == "claimed"


async def test_a_claim_is_refused_in_words_while_another_master_holds_the_site(site: Site) -> None:
    site.desk.open(a_ticket())
    site.desk.quiet = UNCLEAR
    assert (await site.claims()).status == 503, "the installer asks again"
    site.desk.quiet = Quiet("other-master", "held by m2")
    answer = await site.claims()
    assert (answer.status, answer.text) == (403, "held by m2\n")
    site.desk.quiet = None
    assert (await site.claims()).status == 200


async def test_a_token_is_spent_once(claimed: Site) -> None:
    assert (await claimed.claims()).status == 409
    assert claimed.reasons == [("container/c1", "token-spent")]


async def test_two_claims_at_once_give_one_job(site: Site) -> None:
    site.desk.open(a_ticket())
    answers = await asyncio.gather(*(site.claims() for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + 7 * [409]


@pytest.mark.parametrize(
    ("token", "address"),
    [("ab" * 32, MACHINE), ("garbage", MACHINE), ("", MACHINE), (install_token(SECRET, a_ticket()), OTHER)],
    ids=["wrong", "garbage", "none", "from another address"],
)
async def test_a_claim_that_is_not_the_tickets_gets_nothing(site: Site, token: str, address: str) -> None:
    site.desk.open(a_ticket())
    answer = await site.ask("POST", "/install/claim", token=token, address=address)
    assert (answer.status, answer.text) == (403, "no valid token\n")
    assert [reason for _, reason in site.reasons] == ["token-refused"]
    assert site.desk.tickets["c1"].state == "open"


async def test_a_claim_from_another_mac_gets_nothing(site: Site) -> None:
    site.desk.open(a_ticket())
    site.neighbours.macs[MACHINE] = STRANGER_MAC
    assert (await site.claims()).status == 403
    assert site.reasons == [("container/c1", "token-refused")]


@pytest.mark.parametrize("over", ["expired", "closed"])
async def test_a_token_that_is_over_gets_nothing(site: Site, over: str) -> None:
    site.desk.open(a_ticket())
    if over == "closed":
        site.desk.close("c1")
    else:
        site.now_s = a_ticket().expires_at_s
    assert (await site.claims()).status == 403


async def test_a_claim_that_cannot_be_recorded_is_asked_to_come_again(tmp_path: Path) -> None:
    async with running(tmp_path, record_fails=True) as site:
        site.desk.open(a_ticket())
        answer = await site.claims()
        assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
        site.record_fails = False
        assert (await site.claims()).status == 200


async def test_a_job_that_cannot_be_made_does_not_spend_the_token(tmp_path: Path) -> None:
    async with running(tmp_path, password_fails=True) as site:
        site.desk.open(a_ticket())
        assert (await site.claims()).status == 503
        site.password_fails = False
        assert (await site.claims()).status == 200


async def test_tokens_of_another_site_are_worth_nothing(site: Site) -> None:
    site.desk.open(a_ticket())
    assert (await site.claims(install_token(b"other", a_ticket()))).status == 403


# --- an installer's calls ----------------------------------------------------------------------------------


async def test_a_report_is_noted(claimed: Site) -> None:
    assert (await claimed.calls("report", "step=download&percent=40&bytes_done=4&bytes_total=10")).status == 204
    assert claimed.desk.progress["c1"].percent == 40


async def test_the_last_word_ends_the_install(claimed: Site) -> None:
    assert (await claimed.calls("ended", "error=no-disk&message=none")).status == 204
    ended = await claimed.desk.ended("c1")
    assert (ended.error, ended.message, ended.nonce) == ("no-disk", "none", "nonce-1")


async def test_the_last_word_may_be_said_twice_when_its_answer_was_lost(claimed: Site) -> None:
    assert [(await claimed.calls("ended", "error=")).status for _ in range(2)] == [204, 204]


@pytest.mark.parametrize("over", ["closed", "expired", "ended"])
async def test_an_installer_whose_ticket_is_over_is_told_to_stop(claimed: Site, over: str) -> None:
    if over == "closed":
        claimed.desk.close("c1")
    elif over == "expired":
        claimed.now_s = a_ticket().expires_at_s
    else:
        await claimed.calls("ended", "error=no-disk")
    assert (await claimed.calls("report", "step=disks")).status == 410


@pytest.mark.parametrize("what", ["report", "log", "ended"])
async def test_an_unclaimed_ticket_takes_no_calls(site: Site, what: str) -> None:
    site.desk.open(a_ticket())
    assert (await site.calls(what, "step=disks&error=")).status == 403


@pytest.mark.parametrize("what", ["report", "log", "ended"])
async def test_nobody_else_speaks_for_an_install(claimed: Site, what: str) -> None:
    claimed.neighbours.macs[OTHER] = MAC
    assert (await claimed.calls(what, "step=done&error=", address=OTHER)).status == 403
    assert (await claimed.calls(what, "step=done&error=", token="cd" * 32)).status == 403
    assert not claimed.desk.has_ended(a_ticket())


@pytest.mark.parametrize("what", ["report", "ended"])
@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"step=<script>", b"a" * 2000], ids=["empty", "bytes", "tag", "as"])
async def test_garbage_is_refused_and_told_of_without_a_traceback(
    claimed: Site, what: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await claimed.calls(what, body)).status == 400
    assert claimed.reasons == [("site", "boot-garbage")]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(("what", "size"), [("report", 9 << 10), ("ended", 9 << 10), ("log", 65 << 10)])
async def test_a_body_that_is_too_large_is_refused(claimed: Site, what: str, size: int) -> None:
    assert (await claimed.calls(what, b"x" * size)).status == 413


async def test_a_body_of_unknown_length_that_is_too_large_is_refused(claimed: Site) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 8192

    assert (await claimed.calls("log", endless())).status == 413  # type: ignore[arg-type]


async def test_bytes_that_are_not_http_are_survived_in_silence(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for garbage in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\nX: \0\r\n\r\n", b"A" * 20_000):
        reader, writer = await asyncio.open_connection(MASTER, site.server.port)
        writer.write(garbage + b"\r\n\r\n")
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 20)
        writer.close()
    assert (await site.boots()).status == 200
    assert not [record.getMessage() for record in caplog.records if record.exc_info]
    assert site.reasons == [("site", "boot-garbage")]


# --- logs --------------------------------------------------------------------------------------------------


async def test_the_log_is_private_and_printable(claimed: Site) -> None:
    assert (await claimed.calls("log", b"disks: sda\n\x1b[31msdb\x00\n")).status == 204
    lines = claimed.log.read_text().splitlines()
    assert lines[1:] == ["disks: sda", "[31msdb"]
    assert stat.S_IMODE(claimed.log.stat().st_mode) == 0o600


async def test_the_log_of_the_install_before_is_kept(claimed: Site) -> None:
    await claimed.calls("log", "first\n")
    claimed.desk.open(a_ticket(nonce="nonce-2"))
    await claimed.claims(install_token(SECRET, a_ticket(nonce="nonce-2")))
    assert "first" in claimed.log.with_suffix(".log.1").read_text()
    assert "nonce-2" in claimed.log.read_text()


async def test_a_log_ends_at_its_limit_and_says_so_once(claimed: Site) -> None:
    with claimed.log.open("ab") as stream:
        stream.truncate(LOG_FILE_BYTES_MAX - 10)
    for _ in range(3):
        assert (await claimed.calls("log", "y" * 1000)).status == 204
    assert claimed.log.read_text().count("the log is full") == 1
    assert claimed.log.stat().st_size < LOG_FILE_BYTES_MAX + 100


async def test_a_log_that_cannot_be_written_is_asked_for_again(claimed: Site) -> None:
    claimed.log.unlink()
    claimed.log.mkdir()
    assert (await claimed.calls("log", "x")).status == 503


# --- files -------------------------------------------------------------------------------------------------


async def test_images_are_served_whole_and_in_ranges(site: Site) -> None:
    whole = await site.ask("GET", "/images/base.tar.zst")
    part = await site.ask("GET", "/images/base.tar.zst", headers={"Range": "bytes=10000-"})
    assert (whole.status, len(whole.body), whole.headers["Content-Type"]) == (200, 10240, "application/octet-stream")
    assert (part.status, part.body, part.headers["Content-Range"]) == (
        206,
        whole.body[10000:],
        "bytes 10000-10239/10240",
    )


async def test_a_range_beyond_the_end_is_refused(site: Site) -> None:
    assert (await site.ask("GET", "/images/base.tar.zst", headers={"Range": "bytes=10240-"})).status == 416


async def test_the_installers_kernel_is_served_and_nothing_else_of_its_directory(site: Site) -> None:
    assert (await site.ask("GET", "/installer/vmlinuz")).body == b"kernel"
    assert (await site.ask("GET", "/installer/notes")).status == 404
    assert (await site.ask("GET", "/installer/initrd")).status == 404


@pytest.mark.parametrize(
    "path",
    ["/images/", "/images", "/images/installer", "/images/.key", "/images/../outside", "/images/%2e%2e/outside",
     "/images/..%2foutside", "/images/%2fetc/passwd", "/images//etc/passwd", "/images/base.tar.zst%00",
     "/installer/../.key", "/", "/etc/passwd"],
)  # fmt: skip
async def test_nothing_else_can_be_read(site: Site, path: str) -> None:
    answer = await site.ask("GET", path)
    assert answer.status == 404
    assert b"secret" not in answer.body


# --- who asks, behind a proxy ------------------------------------------------------------------------------


async def test_behind_a_proxy_the_machine_is_whom_the_proxy_names(tmp_path: Path) -> None:
    async with running(tmp_path, behind_proxy=True) as site:
        site.desk.open(a_ticket())
        token = install_token(SECRET, a_ticket())
        wrong = await site.claims(token, address=MASTER, headers={"X-Real-IP": OTHER})
        right = await site.claims(token, address=MASTER, headers={"X-Real-IP": MACHINE})
        assert (wrong.status, right.status) == (403, 200)


async def test_without_a_proxy_nobody_names_another_address(site: Site) -> None:
    site.desk.open(a_ticket())
    assert (await site.claims(address=OTHER, headers={"X-Real-IP": MACHINE})).status == 403


async def test_an_address_that_is_taken_is_said_clearly(site: Site) -> None:
    port = site.server.port
    second = BootServer(
        site.desk,
        Listen(MASTER, port),
        site_secret=SECRET,
        secrets_of=lambda spec: JobSecrets(SECRET, ()),
        neighbours=site.neighbours,
        logs=InstallLogs(site.state),
        on_event=lambda *told: None,
    )
    with pytest.raises(Refused, match=rf"cannot serve boots on 127.0.0.1:{port}"):
        await second.start()


async def test_no_secret_is_in_what_is_served_without_a_token(site: Site) -> None:
    """S10: what a neighbour without a token can get holds neither host key nor password hash nor token."""
    site.neighbours.macs[OTHER] = STRANGER_MAC
    site.desk.open(a_ticket())
    asked: list[Callable[[], Any]] = [
        lambda: site.boots(STRANGER_MAC, address=OTHER),
        lambda: site.boots(MAC, address=OTHER),
        lambda: site.ask("GET", "/boot.ipxe", address=OTHER),
        lambda: site.claims("00" * 32, address=OTHER),
        lambda: site.calls("report", "step=disks", address=OTHER, token="00" * 32),
    ]
    got = b"".join([(await one()).body for one in asked])
    for secret in (
        b"$6$",
        b"PRIVATE KEY",
        b"ssh-ed25519",
        install_token(SECRET, a_ticket()).encode(),
        b"vcrecon.token",
    ):
        assert secret not in got


def test_the_spec_of_these_tests_has_what_a_job_needs() -> None:
    assert a_container().system == SYSTEM.name
