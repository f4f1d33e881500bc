"""Hooks under the real sh, timeout and tar: in order, in their place, with their facts, and never for ever."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import a_guest, a_spec

from vcrecon.errors import HostError
from vcrecon.host import hooks
from vcrecon.host.names import RUN_DIR
from vcrecon.host.steps import REFUSED, failure
from vcrecon.spec.hooks import read_hooks
from vcrecon.spec.model import Spec

TUTORIAL = Path(__file__).parents[2] / "specs" / "tutorial"
SITES_OWN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Bench:
    """A tree to work on, and hooks for guest `b-n1` of a cluster of three."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tree = directory / "tree"
        (self.tree / "etc").mkdir(parents=True)
        self.run_dir = directory / "run"

    def spec(self, role: str = "node", deadline_s: float = 5.0) -> Spec:
        names = ["a-head", "a-n1", "b-n1"]
        found, errors, warnings = read_hooks(self.directory, "hooks")
        assert (errors, warnings) == ((), ())
        guests = {
            "a-head": a_guest("a-head", 1, role="head", cores=4),
            "b-n1": a_guest("b-n1", 3, role=role, hooks=found),
        }
        spec = a_spec({"c1": names}, guests=guests)
        return replace(spec, site=replace(spec.site, hook_deadline_s=deadline_s))

    def hook(self, name: str, script: str) -> None:
        (self.directory / "hooks").mkdir(exist_ok=True)
        path = self.directory / "hooks" / name
        path.write_text(script)
        path.chmod(0o755)

    def run(
        self, *, rest: bytes = b"", kill_after_s: float = 5.0, **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        """What `contextualize` runs: the hooks are unpacked, the next command reads its own input, they run."""
        spec = self.spec(**options)  # type: ignore[arg-type]
        own = hooks.prepare(spec, spec.guests["b-n1"])
        assert own is not None
        own = replace(own, kill_after_s=kill_after_s)
        lines = ["set -eu", *own.unpack(), f"cat > {self.directory}/rest", *own.run(str(self.tree))]
        script = "\n".join(lines).replace(RUN_DIR, str(self.run_dir))
        return subprocess.run(
            ["sh", "-c", script], input=own.archive + rest, capture_output=True, check=False, timeout=30
        )

    def error(self, **options: object) -> HostError:
        result = self.run(**options)
        assert result.returncode == REFUSED
        return failure("contextualize of guest/b-n1", "c1", result.returncode, result.stderr)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_hooks_run_in_order_in_the_tree_and_leave_the_rest_of_the_input(bench: Bench) -> None:
    bench.hook("20-second", "#!/bin/sh\ncat one two > three\n")
    bench.hook("10-first", "pwd > one; echo two > two; cat > stdin; umask > mask\n")
    assert bench.run(rest=b"the context").returncode == 0
    assert (bench.tree / "three").read_text() == f"{bench.tree}\ntwo\n"
    assert (bench.tree / "stdin").read_text() == "", "a hook has no input"
    assert (bench.tree / "mask").read_text() == "0022\n"
    assert (bench.directory / "rest").read_bytes() == b"the context"


def test_a_hook_has_its_own_interpreter_and_only_its_own_environment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SESSION", "x")
    bench.hook(
        "10-python", "#!/usr/bin/env python3\nimport json, os, sys\njson.dump(dict(os.environ), open('env', 'w'))\n"
    )
    assert bench.run().returncode == 0
    environment = json.loads((bench.tree / "env").read_text())
    assert environment.pop("PATH") == SITES_OWN_PATH
    assert {name: value for name, value in environment.items() if name.startswith("VCRECON")} == {
        "VCRECON_ROOT": str(bench.tree),
        "VCRECON_FACTS": f"{bench.run_dir}/hooks/b-n1/facts.json",
        "VCRECON_NODES": f"{bench.run_dir}/hooks/b-n1/nodes",
        "VCRECON_GUEST": "b-n1",
        "VCRECON_ROLE": "node",
        "VCRECON_CLUSTER": "a",
        "VCRECON_HOOK": "hooks/10-python",
    }
    assert "SECRET_OF_THE_SESSION" not in environment


def test_the_facts_say_who_the_guest_is_and_nothing_of_its_place(bench: Bench) -> None:
    bench.hook("10-copy", 'cp "$VCRECON_FACTS" facts; cp "$VCRECON_NODES" nodes\n')
    assert bench.run().returncode == 0
    assert (bench.tree / "nodes").read_text() == (
        "a-head 10.1.1.11 head 4 1024\na-n1 10.1.1.12 node 1 1024\nb-n1 10.1.1.13 node 1 1024\n"
    )
    facts = json.loads((bench.tree / "facts").read_text())
    assert facts["interfaces"] == [
        {"mac": "52:54:00:00:01:03", "vlan": 101, "network": "a-private", "address": "10.1.1.13/24", "gateway": None}
    ]
    assert facts["cluster"] == {"name": "a", "head": "a-head", "vlan": 101, "subnet": "10.1.1.0/24"}
    assert facts["nodes"][0] == {
        "name": "a-head", "address": "10.1.1.11", "role": "head", "cores": 4, "memory_bytes": 1024**3,
    }  # fmt: skip
    assert facts["services"] == [{"name": "mirror", "address": "192.0.2.1", "port": 80}]
    assert "c1" not in json.dumps(facts).replace("192.0.2.1", "")


def test_the_hooks_are_readable_by_root_alone(bench: Bench) -> None:
    bench.hook("10-look", 'stat -c %a "${VCRECON_FACTS%/*}" > mode\n')
    assert bench.run().returncode == 0
    assert (bench.tree / "mode").read_text() == "700\n"


def test_the_first_hook_that_fails_is_named_with_its_last_words(bench: Bench) -> None:
    bench.hook("10-bad", "echo out; echo first >&2; printf '%s\\n' 'cannot find \\n \"it\" $HOME' '' >&2; exit 7\n")
    bench.hook("20-never", "touch never\n")
    error = bench.error()
    assert error.kind == "hook-failed"
    assert str(error) == (
        'c1: hook hooks/10-bad of b-n1: exit status 7: cannot find \\n "it" $HOME; '
        "mend it in the spec directory: it is tried again when it is saved"
    )
    assert not (bench.tree / "never").exists()


def test_a_hook_that_hangs_is_ended_even_when_it_is_deaf_to_that(bench: Bench) -> None:
    bench.hook("10-hangs", "sleep 20\n")
    assert "hook hooks/10-hangs of b-n1: still ran after 0.2 s: it said nothing" in str(bench.error(deadline_s=0.2))
    bench.hook("10-hangs", "trap '' TERM; echo deaf >&2; while :; do sleep 0.1; done\n")
    assert "was killed" in str(bench.error(deadline_s=0.2, kill_after_s=0.2))


def test_what_a_hook_leaves_behind_does_not_hold_the_step(bench: Bench) -> None:
    bench.hook("10-daemon", "sleep 5 &\necho $! > pid\n")
    try:
        assert bench.run(deadline_s=0.2, kill_after_s=0.2).returncode == 0
    finally:
        subprocess.run(["kill", (bench.tree / "pid").read_text().strip()], check=False)


def test_a_hook_may_say_more_than_is_kept_of_it(bench: Bench) -> None:
    bench.hook("10-chatty", "seq 200000 >&2; printf 'last %0500d' 1 >&2; exit 1\n")
    assert "exit status 1: last 000" in str(bench.error())


@pytest.mark.parametrize("role", ["head", "node"])
def test_the_hooks_of_the_tutorial_run_twice_with_the_same_result(bench: Bench, role: str) -> None:
    for path in (TUTORIAL / "hooks" / "cluster").iterdir():
        bench.hook(path.name, path.read_text())
    (bench.tree / "etc" / "fstab").write_text("/dev/vda / xfs defaults 0 1\n")
    runs = []
    for _ in range(2):
        assert bench.run(role=role).returncode == 0
        runs.append({path.name: path.read_text() for path in bench.tree.rglob("*") if path.is_file()})
    assert runs[0] == runs[1]
    assert runs[0]["openmpi-default-hostfile"] == "a-head slots=4\na-n1 slots=1\nb-n1 slots=1\n"
    if role == "node":
        assert runs[0]["fstab"].startswith("/dev/vda / xfs defaults 0 1\n10.1.1.11:/home /home nfs ")


def test_the_documented_python_hook_runs(bench: Bench) -> None:
    text = (TUTORIAL.parents[1] / "docs" / "hooks.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    bench.hook("10-motd", script)
    assert bench.run().returncode == 0
    assert (bench.tree / "etc" / "motd").read_text() == "This is b-n1 of cluster a.\n"


def test_the_hooks_of_the_tutorial_write_through_no_symbolic_link(bench: Bench) -> None:
    for path in (TUTORIAL / "hooks" / "cluster").iterdir():
        bench.hook(path.name, path.read_text())
    outside = bench.directory / "of-the-container"
    outside.write_text("its own\n")
    (bench.tree / "etc" / "fstab").symlink_to(outside)
    assert bench.run().returncode == 0
    assert outside.read_text() == "its own\n"
