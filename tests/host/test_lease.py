"""The lease on a container: the script, run by a real shell and by the simulated one, and the parser."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vcrecon.core.mastery import Master
from vcrecon.core.observation import Lease
from vcrecon.host.lease import LEASE_FILE, parse_lease, release, show_and_renew
from vcrecon.sim.machine import Machine
from vcrecon.sim.programs import Programs
from vcrecon.sim.shell import run_script
from vcrecon.sim.streams import BytesReader, BytesWriter
from vcrecon.sim.tools import TOOLS

ME = Master("abc", 3, "m1:/var/lib/vcrecon/lab", lease_s=90)
YOU = Master("def", 3, "m2:/var/lib/vcrecon/lab", lease_s=90)


class Host:
    """One that runs scripts, with a lease file that can be read and written from outside."""

    def __init__(self, run: Callable[[str], tuple[int, str]], read: Callable[[], str], write: Callable[[str], None]):
        self.run, self.read, self.write = run, read, write

    def look(self, master: Master) -> Lease:
        status, printed = self.run(show_and_renew(master))
        assert status == 0, printed
        return parse_lease(printed, master)

    def uptime_s(self) -> int:
        return int(self.run("cat /proc/uptime")[1].split(".")[0])

    def renewed(self, master: Master, ago_s: int) -> None:
        """`master` was here so long ago, by the host's own clock."""
        self.write(f"{master.name} {master.generation} {self.uptime_s() - ago_s} {master.title}\n")


def real(tmp_path: Path) -> Host:
    run_dir = tmp_path / "run"
    file = run_dir / "master"

    def run(script: str) -> tuple[int, str]:
        script = script.replace("/run/vcrecon", str(run_dir))
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def write(text: str) -> None:
        run_dir.mkdir(exist_ok=True)
        file.write_text(text)

    return Host(run, lambda: file.read_text() if file.exists() else "", write)


def simulated(tmp_path: Path) -> Host:
    # Not fresh from its boot: a lease may then be older than the host.
    machine = Machine("c01", hypervisor="kvm", memory_bytes=1 << 30, cores=1, disk_bytes=1 << 30)
    machine.started_at -= 10_000
    programs = Programs(TOOLS)

    def run(script: str) -> tuple[int, str]:
        out, err = BytesWriter(), BytesWriter()
        status = asyncio.run(run_script(machine, script, BytesReader(), out, err, programs))
        return status, (out.data + err.data).decode()

    def write(text: str) -> None:
        if not machine.files.exists("/run/vcrecon"):
            machine.files.mkdir("/run/vcrecon")
        machine.files.write(LEASE_FILE, text.encode())

    def read() -> str:
        return machine.files.read(LEASE_FILE).decode() if machine.files.exists(LEASE_FILE) else ""

    return Host(run, read, write)


@pytest.fixture(params=[real, simulated], ids=["real shell", "simulated"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    made: Host = request.param(tmp_path)
    return made


def test_a_free_container_belongs_to_whoever_looks_first(host: Host) -> None:
    lease = host.look(ME)
    assert (lease.master, lease.generation, lease.title, lease.ours) == ("abc", 3, ME.title, True)
    assert 0 <= lease.age_s < 60
    assert host.read().startswith("abc 3 ")


def test_what_lay_there_before_is_shown_also_when_it_is_void_or_given_up(host: Host) -> None:
    """A new record learns from it that the site was in use."""

    def found(master: Master) -> tuple[bool, bool] | None:
        lease = host.look(master).found
        return None if lease is None else (lease.ours, lease.age_s >= 5000)

    assert found(ME) is None
    assert found(ME) == (True, False)
    assert found(YOU) == (False, False)
    host.renewed(YOU, 5000)
    assert found(ME) == (False, True)
    host.run(release(ME))
    assert found(ME) == (True, False)
    host.run(release(ME))
    assert found(YOU) == (False, False)


def test_another_master_of_the_same_generation_is_left_in_place(host: Host) -> None:
    host.renewed(ME, 5)
    before = host.read()
    lease = host.look(YOU)
    assert (lease.master, lease.title, lease.ours) == ("abc", ME.title, False)
    assert 5 <= lease.age_s < 65
    assert host.read() == before


def test_a_lease_that_was_not_renewed_in_time_is_void(host: Host) -> None:
    host.renewed(ME, 90)
    assert host.look(YOU).ours


def test_a_higher_generation_takes_over_at_once(host: Host) -> None:
    host.renewed(ME, 0)
    assert host.look(replace(YOU, generation=4)).ours
    assert not host.look(ME).ours


def test_a_lower_generation_comes_back_once_the_higher_one_is_gone(host: Host) -> None:
    host.renewed(replace(YOU, generation=4), 100)
    assert host.look(ME).ours


def test_a_young_lease_of_ours_is_not_written_again(host: Host) -> None:
    host.renewed(ME, 10)
    before = host.read()
    assert host.look(ME).ours
    assert host.read() == before


def test_a_lease_of_ours_is_renewed_after_a_third_of_its_time(host: Host) -> None:
    host.renewed(ME, 30)
    lease = host.look(ME)
    assert lease.ours
    assert lease.age_s < 30


def test_a_master_that_was_promoted_writes_its_new_generation_at_once(host: Host) -> None:
    host.renewed(ME, 0)
    assert host.look(replace(ME, generation=1_800_000_000)).generation == 1_800_000_000


def test_a_lease_from_the_future_is_void(host: Host) -> None:
    host.renewed(YOU, -500)
    assert host.look(ME).ours


@pytest.mark.parametrize(
    "junk",
    ["", "\n", "x", "x y z", "def 3", "def three 1 t", "def 3 1.5 t", "def 03 1 t", "$(id) `id` ; *\n", "-n 1 1"],
)
def test_junk_in_its_place_counts_as_none(junk: str, host: Host) -> None:
    host.write(junk)
    assert host.look(ME).ours
    assert host.look(ME).master == "abc"


def test_a_strange_title_cannot_leave_its_place(host: Host) -> None:
    host.look(replace(ME, title="a b'\"$(touch /tmp/x)\n;*é"))
    assert host.look(YOU).title == "a_b_touch_/tmp/x_"


def test_a_directory_in_the_way_leaves_the_lease_unclear(host: Host) -> None:
    host.run("mkdir -p /run/vcrecon/master")
    assert host.run(show_and_renew(ME))[0] != 0


def test_a_lease_of_ours_is_given_up(host: Host) -> None:
    host.look(ME)
    for _ in range(2):
        assert host.run(release(ME)) == (0, "")
        assert host.read().startswith("- 3 ")
    assert host.look(YOU).ours


def test_a_master_of_a_lower_generation_waits_where_a_higher_one_may_be_starting_anew(host: Host) -> None:
    host.look(ME)
    host.run(release(ME))
    below = replace(YOU, generation=2)
    lease = host.look(below)
    assert (lease.ours, lease.generation, lease.title) == (False, 3, ME.title)
    assert host.look(ME).ours
    host.write(f"- 3 {host.uptime_s() - 90} {ME.title}\n")
    assert host.look(below).ours


@pytest.mark.parametrize("other", [YOU, replace(ME, generation=4), replace(ME, generation=2)])
def test_a_lease_that_is_not_ours_is_not_given_up(other: Master, host: Host) -> None:
    host.renewed(other, 5)
    before = host.read()
    assert host.run(release(ME)) == (0, "")
    assert host.read() == before


def test_there_may_be_nothing_to_give_up(host: Host) -> None:
    assert host.run(release(ME)) == (0, "")


def test_what_is_no_lease_is_left_as_it_is(host: Host) -> None:
    host.write("x y z\n")
    assert host.run(release(ME)) == (0, "")
    assert host.read() == "x y z\n"


@pytest.mark.parametrize(
    "text",
    ["", "abc", "abc 3 5", "abc x 5 t", "abc 3 x t", "abc  3 5 t", "abc 3 5 t\nx", "abc 3 5 t\n 5 t", "a" * 5000],
)
def test_another_answer_is_no_lease(text: str) -> None:
    with pytest.raises(ValueError, match="the lease is"):
        parse_lease(text, ME)


def test_what_a_host_says_of_a_master_is_fit_to_print() -> None:
    assert parse_lease("def 3 5 \x1b[31mred", ME).title == "?[31mred"
