"""What a person's commands run on a container, by the real sh: where, with what, and what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from worlds import ASite, a_spec

from vcrecon.host import rescue
from vcrecon.host.steps import IN_USE, LOCKED, UNSAFE, failure
from vcrecon.host.storage import tell_users

HASH_LINE = b"root:$y$canary\n"


class Container:
    """A directory that stands for a container's /run, and whether the disk of `alice` is mounted there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = root / "vcrecon/rescue/alice"
        self.tree.mkdir(parents=True)
        (root / "lock").mkdir()
        (root / "bin").mkdir()
        self.is_mounted(True)

    def is_mounted(self, yes: bool) -> None:
        program = self.root / "bin/mountpoint"
        program.write_text(f"#!/bin/sh\nexit {0 if yes else 32}\n")
        program.chmod(0o755)

    def run(self, script: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        here = script.replace("/run/", f"{self.root}/")
        path = f"{self.root}/bin:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "-c", here], input=stdin, capture_output=True, env={"PATH": path, "SHELL": "/bin/sh"}, check=False
        )


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


SCRIPTS = [rescue.shell("alice"), rescue.shell_without_terminal("alice"), rescue.command("alice", "pwd")]


@pytest.mark.parametrize("script", [*SCRIPTS, rescue.recipe("alice")], ids=["shell", "piped", "command", "recipe"])
def test_nothing_runs_where_the_disk_is_not_mounted(container: Container, script: str) -> None:
    container.is_mounted(False)
    result = container.run(script, rescue.parcel(b"pwd\n", {}, HASH_LINE))
    assert (result.returncode, result.stdout) == (UNSAFE, b"")
    assert b"is not mounted" in result.stderr
    assert b"vcrecon rescue alice" in result.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=["shell", "piped", "command"])
def test_a_persons_commands_run_in_the_mounted_tree(container: Container, script: str) -> None:
    result = container.run(script, b"pwd\n")
    assert result.stdout.decode().strip() == str(container.tree)


def test_a_command_is_taken_as_it_was_typed(container: Container) -> None:
    result = container.run(rescue.command("alice", 'echo "it\'s $((1+1))"; exit 9'))
    assert (result.stdout, result.returncode) == (b"it's 2\n", 9)


def test_a_recipe_finds_the_tree_the_facts_and_the_password(container: Container) -> None:
    script = b'pwd; echo "$VCRECON_ROOT"; cat; umask; cat "$VCRECON_FACTS"\n'
    result = container.run(rescue.recipe("alice"), rescue.parcel(script, {"name": "alice"}, HASH_LINE))
    assert (result.returncode, result.stderr) == (0, b"")
    tree, root, password, mask, *facts = result.stdout.decode().splitlines()
    assert (tree, root, password, mask) == (str(container.tree), str(container.tree), "root:$y$canary", "0022")
    assert json.loads("".join(facts)) == {"name": "alice"}


@pytest.mark.parametrize("status", [0, 7])
def test_a_recipe_gives_its_status_and_leaves_nothing_behind(container: Container, status: int) -> None:
    result = container.run(rescue.recipe("alice"), rescue.parcel(b"exit %d\n" % status, {}, HASH_LINE))
    assert result.returncode == status
    assert [path.name for path in (container.root / "vcrecon").iterdir()] == ["rescue"]


def test_two_recipes_do_not_work_on_one_disk_at_once(container: Container) -> None:
    holder = subprocess.Popen(
        ["flock", container.root / "lock/vcrecon.alice", "sh", "-c", "echo held; read line"], stdin=-1, stdout=-1
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    result = container.run(rescue.recipe("alice"), rescue.parcel(b"true\n", {}, HASH_LINE))
    holder.communicate(b"\n")
    assert result.returncode == LOCKED


def test_no_script_and_no_fact_holds_the_password() -> None:
    site = ASite(a_spec({"c1": ["alice"]}))
    facts = rescue.facts(site.spec.guests["alice"], site.wanted)
    assert "hash" not in json.dumps(facts)
    assert "canary" not in rescue.recipe("alice")
    assert facts["interfaces"][0]["address"] == "10.1.1.11/24"
    assert facts["hosts"] == [{"address": "10.1.1.11", "name": "alice"}]


class TestBusy:
    @pytest.fixture
    def worker(self, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Somebody whose shell is in the tree."""
        (tmp_path / "alice/etc").mkdir(parents=True)
        process = subprocess.Popen(
            ["sh", "-c", "echo ready; read line"], cwd=tmp_path / "alice/etc", stdin=-1, stdout=-1
        )
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.communicate(b"\n")

    def test_who_keeps_a_mount_busy_is_named(self, tmp_path: Path, worker: subprocess.Popen[bytes]) -> None:
        script = "set -eu\n" + "\n".join(tell_users(str(tmp_path / "alice")))
        result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        assert result.returncode == IN_USE
        assert result.stderr == (
            f"{tmp_path}/alice is in use: a shell is still open there, leave it (sh ({worker.pid}))\n"
        )

    def test_a_neighbour_of_the_same_beginning_is_not_blamed(
        self, tmp_path: Path, worker: subprocess.Popen[bytes]
    ) -> None:
        script = "set -eu\n" + "\n".join(tell_users(str(tmp_path / "ali")))
        result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        assert "by no process that shows" in result.stderr

    def test_it_is_tried_again_soon(self) -> None:
        error = failure("release of guest/alice", "c1", IN_USE, b"umount: busy\n/run/x is in use: leave it\n")
        assert (error.kind, str(error)) == ("in-use", "release of guest/alice on c1: /run/x is in use: leave it")
