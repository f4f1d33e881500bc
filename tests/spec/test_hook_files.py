"""Hooks in the spec: which files of a directory are hooks, and what refuses the generation."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vcrecon.errors import SpecError
from vcrecon.spec.hooks import HOOK_BYTES_MAX
from vcrecon.spec.load import Loaded, load
from vcrecon.spec.model import Hook
from vcrecon.spec.text import json_schema

SMALL = Path(__file__).parents[2] / "specs" / "small"


class Spec:
    """specs/small with hooks for its nodes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, content: str | bytes = "#!/bin/sh\ntrue\n", mode: int = 0o755) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def use(self, hooks: str, where: str = "node") -> Spec:
        """`hooks` is YAML."""
        clusters = self.directory / "clusters.yaml"
        clusters.write_text(clusters.read_text().replace(f"{where}: {{memory", f"{where}: {{hooks: {hooks}, memory"))
        return self

    def load(self) -> Loaded:
        return load(self.directory)

    def hooks(self, guest: str = "a-n1") -> list[str]:
        return [hook.name for hook in self.load().spec.guests[guest].hooks]

    def problems(self) -> str:
        with pytest.raises(SpecError) as refused:
            self.load()
        return str(refused.value)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    shutil.copytree(SMALL, tmp_path / "spec")
    return Spec(tmp_path / "spec")


def test_the_executable_scripts_of_a_directory_run_in_the_order_of_their_names(spec: Spec) -> None:
    for name in ("10-b", "9-a", "10-a", "Z", "z_9"):
        spec.write(f"hooks/{name}")
    for name in ("10-a~", ".10-a.swp", "10-a.new", "10-a.dpkg-old", "notes.md"):
        spec.write(f"hooks/{name}", "half", mode=0o644)
    spec.write("hooks/library/part")
    assert spec.use("hooks").hooks() == ["hooks/10-a", "hooks/10-b", "hooks/9-a", "hooks/Z", "hooks/z_9"]
    assert spec.load().warnings == ()


def test_a_list_takes_directories_and_scripts_in_its_own_order(spec: Spec) -> None:
    for name in ("common/10-a", "cluster/10-a", "last.sh"):
        spec.write(f"hooks/{name}")
    spec.use("[hooks/last.sh, hooks/cluster, hooks/common/]")
    assert spec.hooks() == ["hooks/last.sh", "hooks/cluster/10-a", "hooks/common/10-a"]


def test_a_template_overrides_the_defaults_also_with_no_hooks(spec: Spec) -> None:
    spec.write("hooks/10-a")
    site = spec.directory / "site.yaml"
    site.write_text(site.read_text().replace("defaults:\n", "defaults:\n  hooks: hooks\n"))
    spec.use("[]")
    assert spec.hooks("a-head") == ["hooks/10-a"]
    assert spec.hooks("a-n1") == []


@pytest.mark.parametrize(
    ("line", "interpreter"),
    [
        ("", ("/bin/sh",)),
        ("#!/usr/bin/python3\n", ("/usr/bin/python3",)),
        ("#! /usr/bin/env -S python3 -I \n", ("/usr/bin/env", "-S python3 -I")),
    ],
)
def test_the_interpreter_is_what_the_kernel_would_run(spec: Spec, line: str, interpreter: tuple[str, ...]) -> None:
    spec.write("hooks/10-a", f"{line}true\n")
    assert spec.use("hooks").load().spec.guests["a-n1"].hooks[0].interpreter == interpreter


def test_a_hooks_content_is_part_of_the_generation_and_is_never_shown(spec: Spec) -> None:
    spec.write("hooks/10-a", "echo canary-one\n")
    before = spec.use("hooks").load().spec
    assert b"canary-one" in before.guests["a-n1"].hooks[0].content
    assert "canary" not in repr(before)
    spec.write("hooks/10-a", "echo canary-two\n")
    after = spec.load().spec
    assert after.digest != before.digest
    assert after.guests["a-n1"] != before.guests["a-n1"]
    assert after.guests["a-head"] == before.guests["a-head"]


def test_guests_share_their_hooks(spec: Spec) -> None:
    spec.write("hooks/10-a")
    guests = spec.use("hooks").load().spec.guests
    assert guests["a-n1"].hooks[0] is guests["b-n2"].hooks[0]
    assert isinstance(guests["a-n1"].hooks[0], Hook)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty: is it half-written?"),
        ("#!/bin/sh\necho ha", "has no newline at its end: is it half-written?"),
        ("#!/bin/sh\r\necho\r\n", "CR LF"),
        ("#!python3\n", "names no interpreter"),
        ("#!\n", "names no interpreter"),
        (b"\x7fELF\0\n", "is not a script"),
        (b"#" * HOOK_BYTES_MAX + b"\n", "larger than 256 KiB"),
    ],
)
def test_a_hook_that_cannot_be_right_refuses_the_generation(spec: Spec, content: str | bytes, expected: str) -> None:
    spec.write("hooks/10-good")
    spec.write("hooks/20-bad", content)
    problems = spec.use("hooks").problems()
    assert "clusters.yaml:" in problems
    assert "'hooks/20-bad'" in problems
    assert expected in problems
    assert "10-good" not in problems


@pytest.mark.parametrize(
    ("hooks", "expected"),
    [
        ("nowhere", "'nowhere': no such file or directory; give a script or a directory of scripts"),
        ("/etc/hooks", "leads out of the spec directory"),
        ("~/hooks", "leads out of the spec directory"),
        ("../hooks", "leads out of the spec directory"),
        ("hooks/plain", "'hooks/plain' is not executable; `chmod +x` it"),
        ("{a: b}", "expected a list"),
    ],
)
def test_a_path_that_leads_to_no_hook_refuses_the_generation(spec: Spec, hooks: str, expected: str) -> None:
    spec.write("hooks/plain", mode=0o644)
    assert expected in spec.use(hooks).problems()


def _as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
    path.chmod(0o755)


def _as_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")


@pytest.mark.parametrize(
    ("make", "expected"), [(_as_fifo, "is not a regular file"), (_as_dangling_link, "no such file or directory")]
)
def test_what_is_no_file_refuses_the_generation_and_never_blocks(
    spec: Spec, make: Callable[[Path], None], expected: str
) -> None:
    make(spec.write("hooks/10-a"))
    assert expected in spec.use("hooks").problems()


def test_a_forgotten_chmod_and_an_empty_directory_are_warned_of(spec: Spec) -> None:
    spec.write("hooks/10-a", mode=0o644)
    (warning,) = spec.use("hooks").load().warnings
    assert "'hooks/10-a' is not executable and so is skipped" in warning.message
    (spec.directory / "hooks" / "10-a").unlink()
    (warning,) = spec.load().warnings
    assert "'hooks' holds no hook" in warning.message


@pytest.mark.parametrize("document", ["spec.md", "hooks.md"])
def test_the_documented_example_loads(spec: Spec, document: str) -> None:
    text = (SMALL.parents[1] / "docs" / document).read_text()
    (example,) = re.findall(r"```yaml\n# in clusters.yaml.*\n(templates:\n.*?)```", text, re.DOTALL)
    clusters = spec.directory / "clusters.yaml"
    clusters.write_text(re.sub(r"templates:\n(?:  .*\n)+", example, clusters.read_text(), count=1))
    for name in ("cluster/10-shared-home", "cluster/20-mpi", "common/10-motd"):
        spec.write(f"hooks/{name}")
    assert spec.hooks("a-head") == ["hooks/cluster/10-shared-home", "hooks/cluster/20-mpi"]
    assert spec.hooks("a-n1") == ["hooks/common/10-motd", "hooks/cluster/20-mpi"]


def test_the_json_schema_knows_the_field_and_the_policy() -> None:
    definitions = json_schema()["$defs"]
    for name in ("GuestFields", "HeadText", "GroupText", "GuestText"):
        assert "hooks" in definitions[name]["properties"], name
    assert "hook_deadline" in definitions["PoliciesText"]["properties"]
