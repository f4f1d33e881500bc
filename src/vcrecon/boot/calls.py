"""What machines send, from text to values, with limits on everything. Pure; called by `boot.server`.

Whatever does not parse raises Garbage: the sender gets 400, a person gets an event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from vcrecon.core.installs import Ended, Netboot, Progress

STEPS = (
    "disks",
    "partition",
    "raid",
    "lvm",
    "filesystems",
    "download",
    "unpack",
    "boot-loader",
    "context",
    "done",
)
ERRORS = (
    "disk-not-blank",
    "no-disk",
    "disk-too-small",
    "disk-failing",
    "disk-no-match",
    "no-mirror",
    "download-failed",
    "corrupt",
    "no-space",
    "image-not-a-tree",
    "image-no-kernel",
    "boot-loader-failed",
    "step-failed",
)
FORM_BYTES_MAX = 8 << 10
LOG_BYTES_MAX = 64 << 10
MESSAGE_MAX = 500
_FIELDS_MAX = 12
_VALUE_MAX = 100
_BYTES_MAX = 1 << 60
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_TOKEN = re.compile(r"Bearer ([0-9a-f]{64})")
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]")
_NOT_PRINTABLE_LINES = re.compile(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]")


class Garbage(Exception):
    """What was sent is not what an installer or iPXE of ours sends. The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Call:
    """Who sent something, and when (Unix seconds)."""

    address: str
    at_s: float


def mac(text: str) -> str:
    """A MAC address in lower case with colons."""
    found = text.lower().replace("-", ":")
    if not _MAC.fullmatch(found) or found in ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"):
        raise Garbage("mac is no MAC address")
    return found


def token(header: str) -> str | None:
    """The token of an Authorization header, or None when it has none that could be ours."""
    found = _TOKEN.fullmatch(header)
    return found[1] if found else None


def netboot(query: Sequence[tuple[str, str]], call: Call) -> Netboot:
    """What a machine says of itself when it asks what to boot."""
    fields = _fields(query, ("mac", "uuid", "serial", "platform"))
    if "mac" not in fields:
        raise Garbage("no mac")
    about = {key: printable(value, _VALUE_MAX) for key, value in fields.items() if key != "mac"}
    return Netboot(mac(fields["mac"]), call.at_s, call.address, **about)


def progress(body: bytes, container: str, call: Call) -> Progress:
    """What a report says. `began_at_s` is that of this report."""
    fields = _form(body, ("step", "percent", "bytes_done", "bytes_total", "message"))
    step = fields.get("step", "")
    if step not in STEPS:
        raise Garbage("step is none of " + ", ".join(STEPS))
    return Progress(
        container,
        step,
        call.at_s,
        call.at_s,
        percent=_number(fields, "percent", 100),
        bytes_done=int(_number(fields, "bytes_done", _BYTES_MAX)),
        bytes_total=int(_number(fields, "bytes_total", _BYTES_MAX)),
        message=printable(fields.get("message", ""), MESSAGE_MAX),
    )


def ended(body: bytes, container: str, nonce: str, call: Call) -> Ended:
    """An installer's last word. An error that we do not know is kept in the message of a "step-failed"."""
    fields = _form(body, ("error", "message"))
    if "error" not in fields:
        raise Garbage("no error; an empty one says that the machine is installed")
    error, message = fields["error"], printable(fields.get("message", ""), MESSAGE_MAX)
    if error and error not in ERRORS:
        error, message = "step-failed", printable(f"{error}: {message}", MESSAGE_MAX)
    return Ended(container, nonce, call.at_s, error, message)


def log_lines(body: bytes) -> str:
    """A piece of an installer's log: lines of printable characters, whatever was sent."""
    return _NOT_PRINTABLE_LINES.sub("", body.decode("utf-8", "replace"))


def printable(text: str, most: int) -> str:
    """The text as one line of at most `most` printable characters."""
    return _NOT_PRINTABLE.sub("", " ".join(text.split()))[:most]


def _form(body: bytes, known: Sequence[str]) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_FIELDS_MAX,
        )
    except ValueError:
        raise Garbage("the body is no form") from None
    return _fields(pairs, known)


def _fields(pairs: Sequence[tuple[str, str]], known: Sequence[str]) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    for key, value in pairs:
        if key not in known:
            raise Garbage(f"unknown field {printable(key, 40)!r}")
        if key in fields:
            raise Garbage(f"{key} is given twice")
        fields[key] = value
    return fields


def _number(fields: Mapping[str, str], key: str, most: float) -> float:
    text = fields.get(key) or "0"
    if not re.fullmatch(r"[0-9]{1,19}(\.[0-9]{1,9})?", text) or float(text) > most:
        raise Garbage(f"{key} is no number from 0 to {most}")
    return float(text)
