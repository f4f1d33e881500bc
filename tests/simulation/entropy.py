"""Everything random or timed that the product takes from the machine, taken from the seed instead."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import secrets
import sys
import warnings
from collections.abc import Iterator, MutableMapping
from typing import Any

import structlog

from vcrecon.shell.log import redact


@contextlib.contextmanager
def seeded(seed: int, log: list[str]) -> Iterator[None]:
    """While it lasts `secrets` is not secret, `random` is seeded, and the log goes to `log`."""
    dice = random.Random(seed)
    kept = (secrets.token_bytes, secrets.token_hex, secrets.randbits)
    secrets.token_bytes = lambda nbytes=32: dice.randbytes(nbytes or 32)
    secrets.token_hex = lambda nbytes=16: dice.randbytes(nbytes or 16).hex()
    secrets.randbits = dice.getrandbits
    random.seed(seed)

    def keep(_: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        exc = event.pop("exc_info", None)
        if exc:
            error = sys.exc_info()[1] if exc is True else exc
            event["error"] = repr(error)
        shown = redact({key: str(value) for key, value in event.items()})  # as the service's own log does
        log.append(f"{name} {sorted(shown.items())}")
        raise structlog.DropEvent

    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        secrets.token_bytes, secrets.token_hex, secrets.randbits = kept


def bury_in_silence() -> None:
    """From now on in this process: what a killed service left half done is thrown away without a word."""
    gc.freeze()  # collecting after each schedule then looks at what that schedule made
    logging.getLogger("asyncio").disabled = True
    sys.unraisablehook = lambda unraisable: None
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def require_fixed_hashes() -> None:
    """Start this program again with PYTHONHASHSEED=0 unless it was: sets of words have an order then."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, sys.orig_argv)
