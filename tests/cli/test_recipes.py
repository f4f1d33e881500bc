"""The built-in recipes by the real /bin/sh on a real tree, and how a site's own stand in for them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vcrecon.cli.recipes import choose, recipes
from vcrecon.errors import Refused

HASH = "$y$j9T$salt$hash"
PASSWD = """root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
ann:x:1000:1000:Ann,,,:/home/ann:/bin/bash
"""
SHADOW = """root:$y$old:19600:0:99999:7:::
daemon:*:19600:0:99999:7:::
ann:$y$anns:19700:0:99999:7:::
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A guest's root after the accident: `cp /etc/passwd /etc/shadow`."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(f"root:x:0:\nshadow:x:{os.getgid()}:\n")
    (root / "etc/shadow").write_text(PASSWD)
    return root


Cook = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cook(tree: Path, tmp_path: Path) -> Cook:
    """Run a recipe in the tree as the container would; `chown` is not ours to do without being root."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "chown").write_text('#!/bin/sh\necho "chown $*" >>"$CHOWNS"\n')
    (programs / "chown").chmod(0o755)

    def run(name: str, given: str = f"root:{HASH}\n") -> subprocess.CompletedProcess[str]:
        script = recipes(tmp_path / "no-specs")[name].script
        return subprocess.run(
            ["/bin/sh", "-c", script],
            input=given,
            cwd=tree,
            capture_output=True,
            text=True,
            env={"PATH": f"{programs}:{os.environ['PATH']}", "CHOWNS": str(tmp_path / "chowns")},
            check=False,
        )

    return run


def test_restore_shadow_takes_the_backup_and_the_password_of_the_spec(tree: Path, cook: Cook, tmp_path: Path) -> None:
    (tree / "etc/shadow-").write_text(SHADOW)
    result = cook("restore-shadow")
    assert (result.returncode, result.stderr) == (0, "")
    lines = (tree / "etc/shadow").read_text().splitlines()
    assert re.fullmatch(r"root:\$y\$j9T\$salt\$hash:\d{5}:0:99999:7:::", lines[0])
    assert lines[1:] == SHADOW.splitlines()[1:]
    assert stat.S_IMODE((tree / "etc/shadow").stat().st_mode) == 0o640
    assert f"chown 0:{os.getgid()} " in (tmp_path / "chowns").read_text()
    assert "made etc/shadow anew for: root daemon ann" in result.stdout


def test_restore_shadow_locks_accounts_that_no_file_knows(tree: Path, cook: Cook) -> None:
    assert cook("restore-shadow").returncode == 0
    lines = (tree / "etc/shadow").read_text().splitlines()
    assert [line.split(":")[:2] for line in lines[1:]] == [["daemon", "*"], ["ann", "*"]]


def test_restore_shadow_keeps_the_broken_file_for_nobody_but_root(tree: Path, cook: Cook) -> None:
    cook("restore-shadow")
    (kept,) = (tree / "etc").glob("shadow.broken-*")
    assert kept.read_text() == PASSWD
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_restore_shadow_does_nothing_the_second_time(tree: Path, cook: Cook) -> None:
    cook("restore-shadow")
    before = (tree / "etc/shadow").read_text()
    result = cook("restore-shadow", "root:$y$another\n")
    assert (result.returncode, (tree / "etc/shadow").read_text()) == (0, before)
    assert "in order" in result.stdout
    assert sorted(path.name for path in (tree / "etc").iterdir())[-1].startswith("shadow.broken-")
    assert len(list((tree / "etc").iterdir())) == 4


def test_restore_shadow_leaves_the_entries_that_are_whole(tree: Path, cook: Cook) -> None:
    (tree / "etc/shadow").write_text(PASSWD.splitlines()[0] + "\n" + SHADOW.splitlines()[2] + "\n")
    cook("restore-shadow")
    assert SHADOW.splitlines()[2] in (tree / "etc/shadow").read_text().splitlines()


def test_restore_shadow_makes_one_that_is_missing(tree: Path, cook: Cook) -> None:
    (tree / "etc/shadow").unlink()
    assert cook("restore-shadow").returncode == 0
    assert len((tree / "etc/shadow").read_text().splitlines()) == 3


@pytest.mark.parametrize("trap", ["etc", "etc/passwd", "etc/group", "etc/shadow", "etc/shadow-"])
def test_restore_shadow_follows_no_link_out_of_the_tree(tree: Path, cook: Cook, tmp_path: Path, trap: str) -> None:
    outside = tmp_path / "outside"
    path = tree / trap
    if path.exists():
        path.rename(outside)
    elif trap == "etc/shadow-":
        outside.write_text(SHADOW)
    path.symlink_to(outside)
    before = sorted((str(p), p.read_text()) for p in [outside, *outside.rglob("*")] if p.is_file())
    result = cook("restore-shadow")
    assert result.returncode == 1
    assert f"{trap} is a symbolic link" in result.stderr
    assert sorted((str(p), p.read_text()) for p in [outside, *outside.rglob("*")] if p.is_file()) == before


@pytest.mark.parametrize(
    ("passwd", "given", "said"),
    [
        ("", f"root:{HASH}\n", "missing or empty"),
        ("ann:x:1000:1000::/:/bin/sh\n", f"root:{HASH}\n", "has no root"),
        (PASSWD, "", "no password hash"),
    ],
)
def test_restore_shadow_refuses_what_it_cannot_mend(tree: Path, cook: Cook, passwd: str, given: str, said: str) -> None:
    (tree / "etc/passwd").write_text(passwd)
    result = cook("restore-shadow", given)
    assert result.returncode == 1
    assert said in result.stderr
    assert (tree / "etc/shadow").read_text() == PASSWD


@pytest.mark.parametrize("name", recipes(Path(os.devnull)))
def test_every_built_in_recipe_says_what_it_is_for_and_parses(name: str) -> None:
    recipe = recipes(Path(os.devnull))[name]
    assert len(recipe.summary) > 20
    subprocess.run(["/bin/sh", "-n"], input=recipe.script, check=True)
    assert choose(name, {name: recipe}) is recipe


class TestASitesOwn:
    def specs(self, tmp_path: Path, name: str, text: str) -> Path:
        (tmp_path / "recipes").mkdir()
        (tmp_path / "recipes" / name).write_text(text)
        return tmp_path

    def test_one_is_found_beside_the_built_in_ones(self, tmp_path: Path) -> None:
        found = recipes(self.specs(tmp_path, "greet", "#!/bin/sh\n# Say hello.\necho hello\n"))
        assert (found["greet"].summary, found["greet"].origin) == ("Say hello.", str(tmp_path / "recipes/greet"))
        assert "restore-shadow" in found

    def test_one_of_the_same_name_stands_in_for_a_built_in_one(self, tmp_path: Path) -> None:
        found = recipes(self.specs(tmp_path, "restore-shadow", "true\n"))
        assert found["restore-shadow"].script == b"true\n"

    def test_one_for_another_interpreter_is_refused(self, tmp_path: Path) -> None:
        found = recipes(self.specs(tmp_path, "snake", "#!/usr/bin/python3\n"))
        with pytest.raises(Refused, match=r"recipes/snake:1: #!/usr/bin/python3: recipes are run by /bin/sh"):
            choose("snake", found)

    def test_a_misspelt_one_is_guessed(self, tmp_path: Path) -> None:
        with pytest.raises(Refused, match="did you mean 'restore-shadow'"):
            choose("restore-shadw", recipes(tmp_path))

    def test_editors_leftovers_are_no_recipes(self, tmp_path: Path) -> None:
        assert "greet~" not in recipes(self.specs(tmp_path, "greet~", "true\n"))
