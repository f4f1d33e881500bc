"""The program as a whole: help, version, exit codes, pipes, interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_site import Type
from typer.testing import CliRunner

import vcrecon as package
from vcrecon.cli.app import app

COMMANDS = ["run", "apply", "plan", "check", "status", "events", "cordon", "uncordon", "evacuate", "place"]
COMMANDS += ["pause", "resume", "rebuild", "prune", "fence", "confirm", "schema", "diagram", "demo"]
COMMANDS += ["dashboards"]


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "vcrecon", *arguments], stderr=subprocess.PIPE, text=True, **options
    )


class TestHelp:
    def test_every_command_is_listed(self, vcrecon: Type) -> None:
        listed = vcrecon("--help").out.partition("Commands:")[2].split("\n")
        assert {line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "} >= set(COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_an_example(self, vcrecon: Type, command: str) -> None:
        result = vcrecon(command, "--help")
        assert result.code == 0
        assert f"Example: vcrecon {command}" in result.out

    def test_nothing_typed_shows_the_help(self, vcrecon: Type) -> None:
        result = vcrecon()
        assert "Commands:" in result.out + result.err

    def test_version_is_the_packages(self, vcrecon: Type) -> None:
        assert vcrecon("--version").out == f"vcrecon {package.__version__}\n"

    def test_shells_can_complete(self) -> None:
        environment = {
            **os.environ,
            "_VCRECON_COMPLETE": "complete_bash",
            "COMP_WORDS": "vcrecon ev",
            "COMP_CWORD": "1",
        }
        result = CliRunner().invoke(app, [], prog_name="vcrecon", env=environment)
        assert result.stdout.split() == ["events", "evacuate"]


class TestExitCodes:
    def test_wrong_usage_is_2(self, vcrecon: Type) -> None:
        result = vcrecon("cordon")
        assert (result.code, result.out) == (2, "")
        assert "CONTAINER" in result.err

    @pytest.mark.parametrize("listen", ["9620", "::1:9620", "host:port", "host:70000"])
    def test_a_bad_listen_address_is_wrong_usage(self, vcrecon: Type, tmp_path: Path, listen: str) -> None:
        result = vcrecon("run", tmp_path, "--listen", listen)
        assert result.code == 2
        assert f"--listen {listen}" in result.err

    @pytest.mark.parametrize("command", ["run", "apply", "plan", "check"])
    def test_a_missing_spec_is_1_and_no_traceback(self, vcrecon: Type, tmp_path: Path, command: str) -> None:
        result = vcrecon(command, tmp_path / "none")
        assert (result.code, result.out) == (1, "")
        assert result.err.splitlines()[-1] == "error: the spec is not usable: 1 error"

    def test_a_bad_setting_is_1(self, specs: Path, tmp_path: Path) -> None:
        environment = {**os.environ, "VCRECON_POLL_S": "soon"}
        with start("plan", str(specs), "--state", str(tmp_path), env=environment) as process:
            _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (
            1,
            "error: VCRECON_POLL_S='soon' is not a number; unset it or correct it\n",
        )

    def test_ctrl_c_is_130_and_quiet(self, state: Path) -> None:
        with start("status", "--watch", "--state", str(state)) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("lab: converged")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (130, "", "")

    @pytest.mark.parametrize("command", [("schema",), ("diagram",), ("status", "--state", "{state}")])
    def test_a_reader_that_left_is_no_traceback(self, state: Path, command: tuple[str, ...]) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        try:
            words = [word.format(state=state) for word in command]
            with start(*words, stdout=writer) as process:
                _, err = process.communicate(timeout=30)
        finally:
            os.close(writer)
        assert (process.returncode, err) == (1, "")


class TestDescriptions:
    def test_schema_is_json_about_the_five_files(self, vcrecon: Type) -> None:
        document = json.loads(vcrecon("schema").out)
        assert "deployment.yaml" in document["properties"]

    def test_diagram_draws_both_lifecycles(self, vcrecon: Type) -> None:
        assert vcrecon("diagram").out.count("```mermaid") == 2


def test_check_starts_without_the_service() -> None:
    """The quick commands must not pay for SSH, HTTP and SQLite."""
    code = (
        "import sys; from vcrecon.cli.app import app; import vcrecon.spec.load; "
        "print([m for m in ('asyncssh', 'aiohttp', 'sqlite3', 'transitions') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
