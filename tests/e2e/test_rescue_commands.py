"""`vcrecon rescue`, `release`, `fix` and `console` as a person types them, beside a service that may be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from processes import QUICK_ENVIRONMENT, ServiceProcess, site_and_service, vcrecon
from running import guest, until
from terminals import at_a_terminal

from vcrecon.sim.control import SiteClient

# Each starts a dozen interpreters, which takes its time on a busy machine.
pytestmark = pytest.mark.timeout(300)
RELEASED = "a-n2 is released: it boots again where the spec wants it\n"


@contextlib.asynccontextmanager
async def a_class(tmp_path: Path) -> AsyncIterator[tuple[SiteClient, ServiceProcess, tuple[str, str]]]:
    """A site where everything runs, its service, and how a command names it."""
    async with site_and_service(tmp_path, speed=0.02) as (site, service):
        await service.start()
        await service.converged()
        yield site, service, ("--state", str(service.state))


async def boots(site: SiteClient, name: str) -> int:
    return int((await site.world())["guests"][name]["boots"])


async def runs_again(service: ServiceProcess, name: str) -> None:
    await service.until(f"{name} runs", lambda s: guest(s, name)["state"] == "running" and s["converged"])


async def test_a_rescue_shows_the_disk_survives_a_killed_service_and_ends_with_a_release(tmp_path: Path) -> None:
    async with a_class(tmp_path) as (site, service, which):
        await site.write_guest_file("a-n2", "root/thesis.txt", "three weeks of work\n")
        status, said = await vcrecon("rescue", "a-n2", *which, "--run", "cat root/thesis.txt && echo yes >srv/mended")
        assert status == 0, said
        assert "three weeks of work" in said
        assert "a-n2 is still held: `vcrecon release a-n2` boots it again" in said
        before = await site.world()
        await service.kill()
        await service.start()
        await service.until("it is held", lambda s: guest(s, "a-n2")["state"] == "held" and s["converged"])
        after = await site.world()
        assert after["guests"] == before["guests"]
        assert after["hosts"]["c02"]["volumes"] == before["hosts"]["c02"]["volumes"]
        status, said = await vcrecon("status", *which)
        assert "held for rescue" in said
        assert "vcrecon release a-n2" in said
        status, said = await vcrecon("release", "a-n2", *which)
        assert (status, said.endswith(RELEASED)) == (0, True), said  # on a busy machine it tells what it waits for
        await runs_again(service, "a-n2")
        assert await site.read_guest_file("a-n2", "srv/mended") == "yes\n"
        assert await boots(site, "a-n2") == 2


async def test_a_command_in_a_rescue_gives_its_own_status_and_input(tmp_path: Path) -> None:
    async with a_class(tmp_path) as (_, service, which):
        assert (await vcrecon("rescue", "a-n2", *which, "--run", "echo oops >&2; exit 3"))[0] == 3
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vcrecon", "rescue", "a-n2", *which, "--run", "cat >srv/list",
            stdin=asyncio.subprocess.PIPE, stdout=-1, stderr=-1, env={**os.environ, **QUICK_ENVIRONMENT},
        )  # fmt: skip
        await process.communicate(b"one\ntwo\n")
        assert process.returncode == 0
        assert "one\ntwo\n" in (await vcrecon("rescue", "a-n2", *which, "--run", "cat srv/list"))[1]
        assert (await vcrecon("release", "a-n2", *which))[0] == 0
        await runs_again(service, "a-n2")


async def test_a_rescue_shell_is_a_terminal_and_keeps_the_guest_until_it_is_left(tmp_path: Path) -> None:
    async with a_class(tmp_path) as (site, service, which):
        async with at_a_terminal("rescue", "a-n2", *which) as person:
            before = person.modes()
            await person.sees("mounted at /run/vcrecon/rescue/a-n2 on c02")
            await person.sees("# ")
            person.type("pwd; stty size\r")
            await person.sees("/run/vcrecon/rescue/a-n2\r\n33 111\r\n")
            person.resize(80, 25)

            async def is_resized() -> bool:
                person.type("stty size\r")  # asked again: keys may overtake the news of the new size
                await person.sees("stty size\r\n")
                await until("it answers", lambda: "\r\n" in person.shown)
                return person.shown.startswith("25 80\r\n")

            await until("the shell has the new size", is_resized)
            status, said = await vcrecon("release", "a-n2", *which)
            assert status == 1
            assert "/run/vcrecon/rescue/a-n2 is in use: a shell is still open there, leave it (sh (" in said
            assert await boots(site, "a-n2") == 1
            person.type("exit 7\r")
            await person.sees("a-n2 is still held")
            assert await person.ends() == 7
            assert person.modes() == before
        await runs_again(service, "a-n2")  # the wish to release it was kept, and is granted now
        assert await boots(site, "a-n2") == 2


async def test_restore_shadow_mends_the_accident_of_the_paper_and_boots_the_guest(tmp_path: Path) -> None:
    async with a_class(tmp_path) as (site, service, which):
        passwd = await site.read_guest_file("a-n2", "etc/passwd")
        await site.write_guest_file("a-n2", "etc/shadow", passwd)
        status, said = await vcrecon("fix", "a-n2", "restore-shadow", *which)
        assert status == 0, said
        assert "made etc/shadow anew for: root daemon sshd nobody" in said
        await runs_again(service, "a-n2")
        shadow = await site.read_guest_file("a-n2", "etc/shadow")
        given = (service.specs / "secrets" / "root.hash").read_text().strip()
        assert shadow.startswith(f"root:{given}:")
        assert [line.split(":")[1] for line in shadow.splitlines()[1:]] == ["*", "*", "*"]
        world, commands = await site.world(), await site.commands("c02")
        assert [tag for tag in world["hosts"]["c02"]["volumes"]["vg0/vcg-a-n2"]["tags"] if tag == "vc.held"] == []
        assert given not in "".join([*commands["log"], *commands["scripts"]]), "S10"


async def test_a_recipe_that_fails_leaves_the_guest_held_and_nothing_on_the_container(tmp_path: Path) -> None:
    async with a_class(tmp_path) as (_, service, which):
        (service.specs / "recipes").mkdir()
        recipe = '#!/bin/sh\n# Fails.\ncat "$VCRECON_FACTS"\ncd "$VCRECON_ROOT" && pwd\nexit 4\n'
        (service.specs / "recipes" / "fails").write_text(recipe)
        assert "fails" in (await vcrecon("fix", "--list", *which))[1]
        status, said = await vcrecon("fix", "a-n2", "fails", *which)
        assert status == 4
        assert '"name": "a-n2"' in said
        assert "\n/run/vcrecon/rescue/a-n2\n" in said
        assert "a-n2 stays held. Look at it with `vcrecon rescue a-n2`" in said
        await service.until("it is held", lambda s: guest(s, "a-n2")["held"] is not None)
        status, said = await vcrecon("rescue", "a-n2", *which, "--run", "ls /run/vcrecon")
        assert "fix." not in said
        assert (await vcrecon("release", "a-n2", *which))[0] == 0
        await runs_again(service, "a-n2")


@pytest.mark.parametrize(("name", "device"), [("a-n1", "ttyS0"), ("b-head", "hvc0")], ids=["kvm", "xen"])
async def test_a_console_is_a_terminal_on_the_guest_and_leaves_by_its_key(
    tmp_path: Path, name: str, device: str
) -> None:
    async with a_class(tmp_path) as (_, service, which):
        name = await _on(service, device, name)
        async with at_a_terminal("console", name, *which) as person:
            before = person.modes()
            await person.sees("leave with Ctrl-]")
            if device == "ttyS0":
                await person.sees("Escape character is ^]")
            await until("what is typed goes there", lambda: person.modes() != before)
            person.type("\r")
            await person.sees(f"Debian GNU/Linux 12 {name} {device}\r\n\r\n{name} login: ")
            person.type("root\r")
            await person.sees("Password: ")
            assert person.modes() != before
            person.type("\x1d")
            await person.sees(f"Left the console of {name}")
            assert await person.ends() == 0
            assert person.modes() == before


async def _on(service: ServiceProcess, device: str, name: str) -> str:
    """A guest on a container whose hypervisor has that console."""
    status = await service.status()
    assert status is not None
    wanted = "xen" if device == "hvc0" else "kvm"
    containers = {c["name"] for c in status["containers"] if c["hypervisor"] == wanted}
    names = [g["name"] for g in status["guests"] if g["container"] in containers]
    return name if name in names else str(names[0])


async def test_a_console_gives_the_terminal_back_when_it_is_ended_or_loses_its_connection(tmp_path: Path) -> None:
    async with a_class(tmp_path) as (site, _, which):
        for number, ending in (
            (128 + signal.SIGTERM, lambda p: p.process.send_signal(signal.SIGTERM)),
            (1, lambda p: asyncio.ensure_future(site.reboot("c01"))),
        ):
            async with at_a_terminal("console", "a-head", *which) as person:
                before = person.modes()
                await person.sees("Escape character")
                await until("the terminal is raw", lambda: person.modes() != before)  # noqa: B023
                ending(person)
                assert await person.ends() == number, person.shown
                assert person.modes() == before
        assert "the connection was lost" in person.shown


async def test_a_console_takes_what_a_pipe_types_and_leaves_at_its_end(tmp_path: Path) -> None:
    async with a_class(tmp_path) as (_, _, which):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vcrecon", "console", "a-head", *which,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, **QUICK_ENVIRONMENT},
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(b"\r"), 30)
        assert b"a-head login: " in out
        assert process.returncode == 0


async def test_a_guest_that_is_held_has_no_console(tmp_path: Path) -> None:
    async with a_class(tmp_path) as (_, service, which):
        assert (await vcrecon("rescue", "a-n2", *which, "--run", "true"))[0] == 0
        status, said = await vcrecon("console", "a-n2", *which)
        assert status == 1
        assert "a-n2 does not run (held" in said
        assert (await vcrecon("release", "a-n2", *which))[0] == 0
        await runs_again(service, "a-n2")
