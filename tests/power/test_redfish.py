"""Power by Redfish against a service that misbehaves in each of the ways that real ones do."""

from __future__ import annotations

import socket
import ssl
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_redfish import PASSWORD, SYSTEM, USER, FakeBmc, make_certificate

from vcrecon.errors import HostError, Permanent, Transient, Unreachable
from vcrecon.power import Patience, PowerSwitch, power_switch
from vcrecon.spec.model import Power

SwitchOf = Callable[..., PowerSwitch]


@pytest.fixture
def switch_of(certificate: tuple[Path, Path], credentials: Path, patience: Patience) -> SwitchOf:
    def make(bmc: FakeBmc, *, path: str = "", ca: Path = certificate[0], **less: float) -> PowerSwitch:
        power = Power("redfish", bmc.url + path, credentials, ca)
        switch = power_switch(power, "c01", patience=replace(patience, **less))
        assert switch is not None
        return switch

    return make


def write_login(path: Path, password: str) -> None:
    path.write_text(f"{USER}:{password}\n", encoding="utf-8")


async def failure(bmc: FakeBmc, tls: ssl.SSLContext, switch_of: SwitchOf, act: str, **less: float) -> HostError:
    async with bmc.serving(tls):
        with pytest.raises(HostError) as caught:
            await getattr(switch_of(bmc, **less), act)()
    return caught.value


def test_a_machine_that_is_switched_by_hand_has_no_switch() -> None:
    assert power_switch(Power("manual"), "c01") is None


@pytest.mark.parametrize(
    ("shown", "state"),
    [("On", "on"), ("Off", "off"), ("PoweringOff", "unknown"), ("Broken", "unknown"), (None, "unknown")],
)
async def test_only_a_clear_word_counts_as_on_or_off(
    shown: str | None, state: str, tls: ssl.SSLContext, switch_of: SwitchOf
) -> None:
    async with FakeBmc(power=shown).serving(tls) as bmc:
        assert await switch_of(bmc).state() == state


async def test_off_returns_only_once_the_state_says_off(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    async with FakeBmc(looks_until_effect=3).serving(tls) as bmc:
        await switch_of(bmc).off()
        assert bmc.power == "Off"
    assert bmc.orders == [("reset", "ForceOff")]


async def test_a_machine_that_is_off_is_not_switched_off_again(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    async with FakeBmc(power="Off").serving(tls) as bmc:
        await switch_of(bmc).off()
    assert bmc.orders == []


async def test_a_machine_in_an_unclear_state_is_told_to_go_off(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    async with FakeBmc(power=None).serving(tls) as bmc:
        await switch_of(bmc).off()
    assert bmc.orders == [("reset", "ForceOff")]


async def test_off_for_a_moment_during_a_restart_is_no_proof(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    bmc = FakeBmc(ignores_reset=True, flickers=["On", "Off", "On", "Off", "On"])
    error = await failure(bmc, tls, switch_of, "off", effect_s=1.0)
    assert error.kind == "power-no-effect"


async def test_an_order_that_is_acknowledged_and_ignored_is_an_error(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    error = await failure(FakeBmc(ignores_reset=True), tls, switch_of, "off", effect_s=0.1)
    assert isinstance(error, Transient)
    assert error.kind == "power-no-effect"
    assert "still says 'on'" in str(error)


async def test_a_cycle_goes_through_off(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    async with FakeBmc().serving(tls) as bmc:
        await switch_of(bmc).cycle()
        assert bmc.power == "On"
    assert bmc.orders == [("reset", "ForceOff"), ("reset", "On")]


async def test_a_look_that_fails_while_waiting_is_repeated(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    async with FakeBmc(fails_after_order=2).serving(tls) as bmc:
        await switch_of(bmc).off()
        assert (bmc.power, bmc.failing_looks) == ("Off", 0)


async def test_a_netboot_is_asked_for_once(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    async with FakeBmc().serving(tls) as bmc:
        await switch_of(bmc).netboot_once()
    assert bmc.orders == [("boot", {"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once"})]


async def test_a_netboot_that_shows_only_in_the_pending_settings_counts(
    tls: ssl.SSLContext, switch_of: SwitchOf
) -> None:
    async with FakeBmc(keeps_boot_pending=True).serving(tls) as bmc:
        await switch_of(bmc).netboot_once()
        assert bmc.boot_target == "Pxe"


async def test_a_netboot_that_does_not_show_afterwards_is_an_error(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    error = await failure(FakeBmc(ignores_boot=True), tls, switch_of, "netboot_once")
    assert error.kind == "power-no-effect"


async def test_a_wrong_password_is_told_and_not_shown(
    tls: ssl.SSLContext, switch_of: SwitchOf, credentials: Path
) -> None:
    write_login(credentials, f"not-{PASSWORD}")
    error = await failure(FakeBmc(), tls, switch_of, "state")
    assert isinstance(error, Permanent)
    assert error.kind == "power-credentials"
    assert str(credentials) in str(error)
    assert PASSWORD not in "".join(traceback.format_exception(error))


async def test_a_corrected_password_counts_at_once(tls: ssl.SSLContext, switch_of: SwitchOf, credentials: Path) -> None:
    write_login(credentials, "wrong")
    async with FakeBmc().serving(tls) as bmc:
        switch = switch_of(bmc)
        with pytest.raises(Permanent):
            await switch.state()
        write_login(credentials, PASSWORD)
        assert await switch.state() == "on"


async def test_a_service_with_another_certificate_gets_no_password(
    tls: ssl.SSLContext, switch_of: SwitchOf, tmp_path: Path
) -> None:
    other, _ = make_certificate(tmp_path)
    async with FakeBmc().serving(tls) as bmc:
        with pytest.raises(Permanent) as caught:
            await switch_of(bmc, ca=other).state()
    assert caught.value.kind == "power-certificate"
    assert "power.ca" in str(caught.value)


async def test_a_certificate_for_another_address_is_not_trusted(switch_of: SwitchOf, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "192.0.2.7")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with FakeBmc().serving(context) as bmc:
        with pytest.raises(Permanent) as caught:
            await switch_of(bmc, ca=certificate).state()
    assert caught.value.kind == "power-certificate"


async def test_the_systems_own_certificates_do_not_trust_a_self_made_one(
    tls: ssl.SSLContext, credentials: Path, patience: Patience
) -> None:
    async with FakeBmc().serving(tls) as bmc:
        switch = power_switch(Power("redfish", bmc.url, credentials), "c01", patience=patience)
        assert switch is not None
        with pytest.raises(Permanent) as caught:
            await switch.state()
    assert caught.value.kind == "power-certificate"


async def test_a_missing_certificate_file_is_named(tls: ssl.SSLContext, switch_of: SwitchOf, tmp_path: Path) -> None:
    async with FakeBmc().serving(tls) as bmc:
        with pytest.raises(Permanent, match=r"nowhere\.pem"):
            await switch_of(bmc, ca=tmp_path / "nowhere.pem").state()


async def test_no_answer_is_never_a_state(switch_of: SwitchOf) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        bmc = FakeBmc(url=f"https://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(Unreachable) as caught:
            await switch_of(bmc).off()
    assert caught.value.kind == "power-unreachable"


async def test_a_service_that_hangs_is_given_up(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    error = await failure(FakeBmc(hangs=True), tls, switch_of, "state", answer_s=0.3)
    assert isinstance(error, Unreachable)
    assert error.kind == "power-unreachable"


@pytest.mark.parametrize("body", ["<html>Login</html>", "[]", "7", "{", ""])
async def test_what_is_not_redfish_is_a_fault_and_no_state(body: str, tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    error = await failure(FakeBmc(body=body), tls, switch_of, "state")
    assert error.kind == "power-faulty"


@pytest.mark.parametrize("status", [500, 503, 409, 429])
async def test_a_service_that_is_busy_may_be_asked_again(status: int, tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    error = await failure(FakeBmc(failing_looks=9, failing_status=status), tls, switch_of, "state")
    assert isinstance(error, Transient)
    assert error.kind == "power-faulty"


async def test_a_refusal_is_told_in_one_line(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    error = await failure(FakeBmc(refuses_reset=400), tls, switch_of, "off")
    assert isinstance(error, Permanent)
    assert error.kind == "power-refused"
    assert "the lid is open" in str(error)


async def test_one_order_is_sent_once_even_when_it_fails(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    bmc = FakeBmc(refuses_reset=500)
    await failure(bmc, tls, switch_of, "off")
    assert bmc.orders == [("reset", "ForceOff")]


async def test_of_several_systems_one_must_be_named(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    async with FakeBmc(systems=("1", "2")).serving(tls) as bmc:
        with pytest.raises(Permanent) as caught:
            await switch_of(bmc).state()
        assert await switch_of(bmc, path=SYSTEM).state() == "on"
        assert await switch_of(bmc, path=SYSTEM + "/").state() == "on"
    assert caught.value.kind == "power-address"


async def test_a_system_that_is_not_there_is_a_wrong_address(tls: ssl.SSLContext, switch_of: SwitchOf) -> None:
    async with FakeBmc().serving(tls) as bmc:
        with pytest.raises(Permanent) as caught:
            await switch_of(bmc, path="/redfish/v1/Systems/none").state()
    assert caught.value.kind == "power-address"


@pytest.mark.parametrize(
    "address", ["", "bmc", "http://192.0.2.1", "https://me:secret@192.0.2.1", "ftp://x", "https://[::1", "https://"]
)
async def test_an_address_that_would_not_keep_the_password_safe_is_refused(address: str, credentials: Path) -> None:
    switch = power_switch(Power("redfish", address, credentials), "c01")
    assert switch is not None
    with pytest.raises(Permanent) as caught:
        await switch.state()
    assert caught.value.kind == "power-address"
    assert "secret" not in str(caught.value)
