"""Log set-up: lines for people on a terminal, JSON for machines; secrets blotted out of both.

`configure` is called once by `cli`; every module then logs with `structlog.get_logger()`. Lines of asyncssh,
aiohttp and other libraries that use `logging` take the same road. `redact` also cleans the record's events.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

LogFormat = Literal["auto", "console", "json"]
REDACTED = "[redacted]"
_DEPTH_MAX = 8

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)|secret|token|credential|authori[sz]ation|cookie|private_?key|(site|boot|api|hmac)_?key",
    re.IGNORECASE,
)
# Says where a secret is, not what it is.
_POINTER_KEY = re.compile(r"_(ref|reference|file|path|name|count|bytes|s)$", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    # crypt(3) hashes, as in a shadow file: $6$salt$hash, $y$params$salt$hash, …
    r"|\$(?:1|2[abxy]?|5|6|7|y|gy)\$[./0-9A-Za-z$,=]{16,}",
    re.DOTALL,
)
# Too talkative at INFO: one line for each connection, channel or request.
_QUIET_LIBRARIES = ("asyncssh", "aiohttp.access", "asyncio", "watchfiles", "transitions")
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}


def redact_text(text: str) -> str:
    """The text without private keys and password hashes."""
    return _SECRET_TEXT.sub(REDACTED, text)


def redact(values: Mapping[str, object]) -> dict[str, object]:
    """A copy without the values of keys that sound like secrets, at any depth (S10)."""
    return {str(key): _clean(str(key), value, 0) for key, value in values.items()}


def _clean(key: str, value: object, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if _SECRET_KEY.search(key) and not _POINTER_KEY.search(key):
        return REDACTED
    if depth >= _DEPTH_MAX:
        return "…"
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes):
        return redact_text(value.decode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return {str(name): _clean(str(name), item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean("", item, depth + 1) for item in value]
    if isinstance(value, int | float):
        return value
    # Anything else reaches the log through repr(): better here, where it is cleaned, than in the renderer.
    return redact_text(str(value) if isinstance(value, BaseException | os.PathLike) else repr(value))


def configure(
    *,
    log_format: LogFormat = "auto",
    level: str = "info",
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send all logging to `stream` (standard error by default). May be called again, say with a new level.

    `auto` writes for people when the stream is a terminal, else one JSON object a line. Under systemd each
    line starts with its priority (`<4>`), which the journal takes off again. Raises ValueError on an
    unknown level.
    """
    stream = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"unknown log level {level!r}; one of debug, info, warning, error, critical")
    console = log_format == "console" or (log_format == "auto" and stream.isatty())
    to_journal = _is_journal(stream, environ)

    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared_processors(),
            processors=_final_processors(console, to_journal, stream, environ),
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Cached loggers would keep the first configuration for ever.
        cache_logger_on_first_use=False,
    )


def _shared_processors() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _final_processors(
    console: bool, to_journal: bool, stream: TextIO, environ: Mapping[str, str]
) -> list[structlog.typing.Processor]:
    # The traceback becomes text before the redaction, so that it is cleaned too; it never shows locals.
    chain: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _redact_event,
    ]
    if console:
        colors = stream.isatty() and "NO_COLOR" not in environ
        chain += [_drop_logger_name, structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0)]
    else:
        chain += [
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(default=str),
        ]
    return [_WithPriority(chain)] if to_journal else chain


class _WithPriority:
    """Runs the other processors and puts sd-daemon(3)'s priority in front of each line they make."""

    def __init__(self, chain: list[structlog.typing.Processor]) -> None:
        self._chain = chain

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        prefix = f"<{_PRIORITY.get(str(event.get('level')), 6)}>"
        result: Any = event
        for processor in self._chain:
            result = processor(logger, method, result)
        return "\n".join(prefix + line for line in str(result).splitlines())


def _redact_event(logger: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return redact(event)


def _drop_logger_name(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # Module names help whoever searches JSON lines; a person at a terminal wants the sentence.
    event.pop("logger", None)
    return event


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream goes to the journal: systemd says so in JOURNAL_STREAM (systemd.exec(5))."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
