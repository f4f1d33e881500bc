"""The log: sentences for people, JSON for machines, priorities for the journal, secrets for nobody."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from vcrecon.shell.log import REDACTED, configure, redact, redact_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Logging is the process's, not the test's."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def json_lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_pipe_gets_one_json_object_a_line() -> None:
    stream = io.StringIO()
    configure(stream=stream, environ={})
    structlog.get_logger("vcrecon.x").info("guest started", guest="a-head", took_s=1.5)
    (line,) = json_lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "message": "guest started",
        "guest": "a-head",
        "took_s": 1.5,
        "level": "info",
        "logger": "vcrecon.x",
    }


def test_terminal_gets_a_sentence() -> None:
    stream = Terminal()
    configure(stream=stream, environ={"NO_COLOR": "1"})
    structlog.get_logger("vcrecon.x").warning("guest died", guest="a-head")
    assert "guest died" in stream.getvalue()
    assert "guest=a-head" in stream.getvalue()
    assert "{" not in stream.getvalue()


def test_json_can_be_had_on_a_terminal() -> None:
    stream = Terminal()
    configure(log_format="json", stream=stream, environ={})
    structlog.get_logger().info("x")
    assert json_lines(stream)[0]["message"] == "x"


def test_level_holds_back_what_is_below_it() -> None:
    stream = io.StringIO()
    configure(level="warning", stream=stream, environ={})
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["message"] for line in json_lines(stream)] == ["loud"]


def test_unknown_level_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="debug, info"):
        configure(level="verbose")


def test_lines_of_libraries_take_the_same_road() -> None:
    stream = io.StringIO()
    configure(stream=stream, environ={})
    logging.getLogger("aiohttp.server").error("Error handling %s", "request")
    (line,) = json_lines(stream)
    assert (line["message"], line["level"]) == ("Error handling request", "error")


def test_talkative_library_is_heard_from_warnings_up() -> None:
    stream = io.StringIO()
    configure(stream=stream, environ={})
    logging.getLogger("asyncssh").info("opening channel")
    logging.getLogger("asyncssh").warning("odd packet")
    assert [line["message"] for line in json_lines(stream)] == ["odd packet"]


def test_traceback_is_in_the_line_without_secrets_or_locals() -> None:
    stream = io.StringIO()
    configure(stream=stream, environ={})
    unlocked_with = "sesame-" + "opens"
    try:
        raise ValueError("bad hash $6$saltsalt$abcdefghijklmnop", len(unlocked_with))
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = json_lines(stream)
    assert f"bad hash {REDACTED}" in line["exception"]
    assert "sesame-opens" not in stream.getvalue()


def test_journal_gets_priorities_on_every_line(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        configure(log_format="console", stream=stream, environ=environ)
        structlog.get_logger().error("first\nsecond")
        stream.seek(0)
        assert [line[:3] for line in stream.read().splitlines()] == ["<3>", "<3>"]


def test_stream_that_is_not_the_journal_gets_no_priorities() -> None:
    stream = io.StringIO()
    configure(stream=stream, environ={"JOURNAL_STREAM": "1:2"})
    structlog.get_logger().info("x")
    assert stream.getvalue().startswith("{")


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "root_password",
        "PASSWD",
        "passphrase",
        "token",
        "install_token",
        "client_secret",
        "site_key",
        "private_key",
        "Authorization",
        "cookie",
        "credentials",
    ],
)
def test_value_of_a_secret_key_is_blotted_out_at_any_depth(key: str) -> None:
    assert redact({"outer": [{key: "hunter2"}]}) == {"outer": [{key: REDACTED}]}


@pytest.mark.parametrize("key", ["root_password_file", "password_ref", "host_key", "guest", "key", "bypass"])
def test_value_of_a_harmless_key_is_left(key: str) -> None:
    assert redact({key: "value"}) == {key: "value"}


@pytest.mark.parametrize(
    "secret",
    [
        "$6$rounds=5000$saltsalt$" + "a" * 86,
        "$y$j9T$saltsalt$" + "b" * 43,
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\ncut off",
    ],
)
def test_secret_within_a_text_is_blotted_out(secret: str) -> None:
    assert redact_text(f"before {secret}") == f"before {REDACTED}"


def test_shell_text_is_not_taken_for_a_hash() -> None:
    assert redact_text("echo $1$2 costs $5 and $HOME") == "echo $1$2 costs $5 and $HOME"


def test_structure_without_end_is_cut_off() -> None:
    endless: dict[str, object] = {}
    endless["again"] = endless
    assert "…" in str(redact(endless))
