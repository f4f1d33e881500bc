"""The project's frame: lock file, packaged files, and the promise that no test is skipped in silence."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]) for requirement in requirements}


@pytest.mark.generated
def test_lock_file_pins_every_direct_dependency() -> None:
    wanted = names_of(PROJECT["project"]["dependencies"]) | names_of(PROJECT["dependency-groups"]["dev"])
    pinned = {canonical(line.split("==")[0]) for line in LOCK.splitlines() if "==" in line}
    assert wanted - pinned == set(), "run `make lock`"


@pytest.mark.generated
def test_lock_file_has_hashes_and_no_addresses() -> None:
    packages = [line for line in LOCK.splitlines() if line and not line.startswith((" ", "#"))]
    assert packages
    assert all(re.fullmatch(r"[a-z0-9.-]+==[^ ]+( ; .+)? \\", line) for line in packages)
    assert not re.search(r"https?://|file:|--index|--find-links|--extra", LOCK)


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports test files by their bare name, so two of one name collide."""
    counted = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in counted.items() if count > 1] == []


def test_no_module_has_grown_past_its_limit() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / "src").rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 650
    }
    assert long == {}


def test_systemd_accepts_the_unit(program: Callable[[str], str]) -> None:
    unit = ROOT / "src/vcrecon/data/vcrecon.service"
    result = subprocess.run([program("systemd-analyze"), "verify", unit], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


class TestRootSkips:
    @pytest.fixture(autouse=True)
    def _suite(self, pytester: pytest.Pytester) -> None:
        conftest = (ROOT / "tests/conftest.py").read_text(encoding="utf-8")
        pytester.makeconftest(conftest.replace('pytest_plugins = ["pytester"]', ""))
        pytester.makeini("[pytest]\nmarkers = root: needs root\n")

    SKIPPED = "import pytest\n@pytest.mark.root\ndef test_x(): pytest.skip('no sshd')\ndef test_y(): pass\n"

    @pytest.mark.root
    @pytest.mark.parametrize("workers", ["0", "1"])
    def test_skip_of_a_root_test_fails_in_ci(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: str
    ) -> None:
        monkeypatch.setenv("CI", "true")
        pytester.makepyfile(self.SKIPPED)
        result = pytester.runpytest_subprocess("-n", workers, "-p", "xdist")
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["*SKIPPED, which fails*", "*::test_x: Skipped: no sshd*"])

    def test_skip_of_a_root_test_is_only_listed_elsewhere(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CI", raising=False)
        pytester.makepyfile(self.SKIPPED)
        result = pytester.runpytest_subprocess()
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(["*real machines were SKIPPED*", "*::test_x: Skipped: no sshd*"])

    def test_skip_of_another_test_is_no_failure(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CI", "true")
        pytester.makepyfile("import pytest\ndef test_x(): pytest.skip('later')\n")
        result = pytester.runpytest_subprocess()
        assert result.ret == pytest.ExitCode.OK
        result.stdout.no_fnmatch_line("*SKIPPED*fails*")
