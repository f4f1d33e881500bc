"""curl 7.88 on a simulated host: downloads through the machine's `fetch`, with the real exit codes."""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Sequence

from vcrecon.sim.process import Process, Tool
from vcrecon.sim.tools._common import Failure, full, given, last, options, tool

TOOLS: dict[str, Tool] = {}
CURL_HINT = "curl: try 'curl --help' or 'curl --manual' for more information"
CURL_LONG = [
    "fail",
    "silent",
    "show-error",
    "location",
    "output=",
    "continue-at=",
    "retry=",
    "retry-delay=",
    "retry-connrefused",
    "connect-timeout=",
    "max-time=",
    "speed-limit=",
    "speed-time=",
    "create-dirs",
    "no-progress-meter",
    "retry-all-errors",
    "retry-max-time=",
    "proto=",
    "fail-with-body",
    "remove-on-error",
    "noproxy=",
    "header=",
    "write-out=",
    "limit-rate=",
    "globoff",
    "tlsv1.2",
    "http1.1",
]


class CurlError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"curl: ({status}) {message}")
        self.status = status


@tool(TOOLS, "curl", status=23)
async def curl(process: Process, args: Sequence[str]) -> int:
    try:
        found, rest = options("curl", args, "fsSLo:C:y:Y:m:gH:w:", CURL_LONG, status=2)
    except Failure as failure:
        bad = failure.message.split("\n")[0].rsplit("'", 2)[-2]
        bad = bad if bad.startswith("--") else f"-{bad}"
        raise Failure(
            f"curl: option {bad}: is unknown\n{CURL_HINT}",
            2,
        ) from None
    if not rest:
        raise Failure(f"curl: no URL specified!\n{CURL_HINT}", 2)
    retries = int(last(found, "--retry") or 0)
    max_time = last(found, "-m", "--max-time")
    show = not given(found, "-s", "--silent") or given(found, "-S", "--show-error")
    attempt = 0
    while True:
        try:
            await process.machine.work("fetch")
            limit = float(max_time) if max_time and float(max_time) > 0 else None
            try:
                async with asyncio.timeout(limit):
                    return await _transfer(process, found, rest[0])
            except TimeoutError:
                shown = f"{limit * 1000:.0f}" if limit else "300000"
                raise CurlError(28, f"Operation timed out after {shown} milliseconds with 0 bytes received") from None
        except CurlError as error:
            transient = (
                error.status == 28
                or " 5" in str(error)
                or " 429" in str(error)
                or (error.status in (7, 18) and given(found, "--retry-connrefused", "--retry-all-errors"))
            )
            if attempt < retries and transient:
                attempt += 1
                await process.machine.timing.sleep(float(last(found, "--retry-delay") or 1))
                continue
            return await process.fail(str(error), error.status) if show else error.status


async def _transfer(process: Process, found: dict[str, list[str]], url: str) -> int:
    if "[" in url:
        raise CurlError(3, f"bad range specification in URL position {url.index('[') + 2}:\n{url}")
    match = re.fullmatch(r"(\w+)://([^/:]+)(?::(\d+))?(/.*)?", url)
    if match is None:
        raise CurlError(3, "URL using bad/illegal format or missing URL")
    if match[1] not in ("http", "https"):
        raise CurlError(1, f'Protocol "{match[1]}" not supported or disabled in libcurl')
    host, port = match[2], match[3] or ("443" if match[1] == "https" else "80")
    files = process.machine.files
    out = last(found, "-o", "--output")
    place = full(process, out) if out is not None and out != "-" else None
    offset = 0
    resume = last(found, "-C", "--continue-at")
    if resume is not None:
        size = len(files.read(place)) if place is not None and files.exists(place) else 0
        offset = size if resume == "-" else int(resume)
    try:
        status, body = await process.machine.fetch(url, offset)
    except LookupError:
        raise CurlError(6, f"Could not resolve host: {host}") from None
    except ConnectionRefusedError:
        raise CurlError(7, f"Failed to connect to {host} port {port} after 0 ms: Couldn't connect to server") from None
    if status >= 400 and given(found, "-f", "--fail"):
        raise CurlError(22, f"The requested URL returned error: {status}")
    if offset and status == 200:
        raise CurlError(33, "HTTP server doesn't seem to support byte ranges. Cannot resume.")
    received = 0
    try:
        if place is not None and not offset:
            if given(found, "--create-dirs"):
                files.mkdir(posixpath.dirname(place), parents=True)
            files.write(place, b"")
        async for chunk in body:
            received += len(chunk)
            if place is not None:
                files.write(place, chunk, append=True)
            else:
                await process.stdout.write(chunk)
    except ConnectionError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CurlError(18, "transfer closed with outstanding read data remaining") from None
    except TimeoutError:
        raise
    except OSError:
        raise CurlError(23, "Failure writing output to destination") from None
    return 0
