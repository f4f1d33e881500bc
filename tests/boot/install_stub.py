"""A stand-in for the boot server: hands out one job and files, and writes down what the installer says.

Started by `install_bench` inside its namespace, as `python install_stub.py DIRECTORY ADDRESS PORT`. DIRECTORY has
`token`, `job.tar` and `images/`; an event a line goes to `events.jsonl`. A file `cut` holds numbers of bytes: each
answer about an image ends there, once, as if the cable had been pulled.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

CHUNK_BYTES = 1 << 16


class Stub(BaseHTTPRequestHandler):
    directory: Path
    lock = threading.Lock()
    claimed = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {(self.directory / 'token').read_text().strip()}":
            self._answer(403)
        elif self.path == "/install/claim":
            self._claim()
        elif self.path == "/install/log":
            with (self.directory / "install.log").open("ab") as log:
                log.write(body)
            self._answer(204)
        else:
            form = {key: values[0] for key, values in parse_qs(body.decode(), keep_blank_values=True).items()}
            self._note(self.path.rpartition("/")[2], **form)
            self._answer(410 if (self.directory / "closed").exists() else 204)

    def do_HEAD(self) -> None:
        self._file(head=True)

    def do_GET(self) -> None:
        self._file(head=False)

    def _claim(self) -> None:
        with self.lock:
            first, Stub.claimed = not Stub.claimed, True
        self._note("claim", first=first)
        if not first:
            self._answer(409)
            return
        job = (self.directory / "job.tar").read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(job)))
        self.end_headers()
        self.wfile.write(job)

    def _file(self, *, head: bool) -> None:
        path = self.directory / self.path.lstrip("/")
        if ".." in self.path or not path.is_file():
            self._answer(404)
            return
        size = path.stat().st_size
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0] or 0) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if not head:
            self._send(path, start, size)

    def _send(self, path: Path, start: int, size: int) -> None:
        end = self._cut(start) or size
        self._note("get", path=self.path, start=start, end=end)
        with path.open("rb") as stream:
            stream.seek(start)
            left = end - start
            while left and (chunk := stream.read(min(CHUNK_BYTES, left))):
                self.wfile.write(chunk)
                left -= len(chunk)
        if end != size:
            self.close_connection = True

    def _cut(self, start: int) -> int | None:
        """Where this answer is cut off."""
        path = self.directory / "cut"
        with self.lock:
            cuts = [int(word) for word in path.read_text().split()] if path.exists() else []
            later = [cut for cut in cuts if cut > start]
            if not later:
                return None
            path.write_text(" ".join(map(str, later[1:])))
            return later[0]

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _note(self, kind: str, **facts: object) -> None:
        line = json.dumps({"kind": kind, "at_s": time.time(), **facts})
        with self.lock, (self.directory / "events.jsonl").open("a") as events:
            events.write(line + "\n")

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


if __name__ == "__main__":
    Stub.directory = Path(sys.argv[1])
    ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), Stub).serve_forever()
