"""The record's SQLite file: schema, loading, transactions, the meaning of errors. Called by `shell.record`.

One table holds all of `core.memory.Memory` as (kind, key, JSON value), another the event history. JSON is
checked against the dataclasses on the way in, so a record that another hand edited is refused, not believed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vcrecon.core.installs import Ticket
from vcrecon.core.memory import Attempts, Claim, Consent, Fence, Intent, LastState, Memory, Rescue
from vcrecon.errors import HostError, Refused, Transient

# "vcre" in ASCII: SQLite's header field for "whose file is this".
APPLICATION_ID = 0x76637265
# Entry i takes a record from version i to i + 1. Never edit one that was released; add another.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE memory (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
                         PRIMARY KEY (kind, key)) WITHOUT ROWID;
    CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, subject TEXT NOT NULL,
                         reason TEXT NOT NULL, message TEXT NOT NULL, facts TEXT NOT NULL);
    CREATE INDEX events_by_subject ON events (subject, id);
    """,
    # What a container showed was not told from when it answered.
    "INSERT INTO memory SELECT 'shown', key, value FROM memory WHERE kind = 'seen';",
)
SITE = "site"
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@dataclass(frozen=True, slots=True)
class Kind:
    """One attribute of Memory: the type of its values, and whether a write must survive a power cut."""

    adapter: TypeAdapter[Any]
    durable: bool


def _kind(of: Any, *, durable: bool) -> Kind:
    return Kind(TypeAdapter(of), durable)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "claims": _kind(Claim, durable=True),
        "consents": _kind(Consent, durable=True),
        "attempts": _kind(Attempts, durable=False),
        "intents": _kind(Intent, durable=True),
        "fences": _kind(Fence, durable=True),
        "states": _kind(LastState, durable=False),
        # A person's word, and rare: worth the fsync.
        "paused": _kind(float, durable=True),
        "rescues": _kind(Rescue, durable=True),
        "tickets": _kind(Ticket, durable=True),
        "answered": _kind(str, durable=False),
        "seen": _kind(float, durable=False),
        "shown": _kind(float, durable=False),
        "unshown": _kind(float, durable=True),
        # The attributes of Memory that are single values; the key is the attribute's name.
        SITE: _kind(str | bool, durable=True),
    }
)


@dataclass(frozen=True, slots=True)
class Put:
    """A value to keep under `kind` and `key`; None removes it."""

    kind: str
    key: str | tuple[str, str]
    value: object | None

    @property
    def stored_key(self) -> str:
        return self.key if isinstance(self.key, str) else "/".join(self.key)

    def is_news_to(self, memory: Memory) -> bool:
        if self.kind == SITE:
            return bool(getattr(memory, self.stored_key) != self.value)
        return bool(getattr(memory, self.kind).get(self.key) != self.value)

    def apply(self, memory: Memory) -> None:
        if self.kind == SITE:
            setattr(memory, self.stored_key, self.value)
        elif self.value is None:
            getattr(memory, self.kind).pop(self.key, None)
        else:
            getattr(memory, self.kind)[self.key] = self.value


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history. `id` grows by one an event; `at_s` is Unix seconds; `reason` is one word."""

    id: int
    at_s: float
    subject: str
    reason: str
    message: str
    facts: Mapping[str, object] = field(default_factory=dict)


class Store:
    """An open record file. Raises Refused when it is not usable, Transient when one write failed."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._synchronous = ""

    @classmethod
    def open(cls, path: Path, *, size_bytes_max: int, migrations: Sequence[str] = MIGRATIONS) -> tuple[Store, bool]:
        """Open for writing and bring the schema up to date. Also returns whether the record is new."""
        with _explained(path, "cannot open the record"):
            store = cls(sqlite3.connect(path, isolation_level=None, timeout=1.0), path)
            try:
                version = store._check(len(migrations))
                store._connection.execute("PRAGMA journal_mode = WAL")
                store._connection.execute("PRAGMA journal_size_limit = 16777216")
                page_bytes = store._connection.execute("PRAGMA page_size").fetchone()[0]
                store._connection.execute(f"PRAGMA max_page_count = {max(1, size_bytes_max // page_bytes)}")
                for step in range(version, len(migrations)):
                    store._migrate(migrations[step], step + 1)
            except BaseException:
                store.close()
                raise
        return store, version == 0

    @classmethod
    def open_read_only(cls, path: Path) -> Store:
        """Open beside a running controller, without its lock."""
        with _explained(path, "cannot read the record"):
            store = cls(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0), path)
            try:
                if store._check(len(MIGRATIONS)) < len(MIGRATIONS):
                    raise Refused(f"{path}: the record is from an older vcrecon; start `vcrecon run` once")
            except BaseException:
                store.close()
                raise
        return store

    def _check(self, known: int) -> int:
        """The schema version of the file. Raises Refused when the file is damaged, foreign or too new."""
        # First of all, since it is the first read of the file: garbage fails here with NOTADB.
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        owner = self._connection.execute("PRAGMA application_id").fetchone()[0]
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner != APPLICATION_ID and (version or tables):
            raise Refused(f"{self._path}: this is some other program's database; name another directory with --state")
        if version > known:
            raise Refused(
                f"{self._path}: the record has version {version}, this vcrecon knows up to {known}: "
                "a newer vcrecon wrote it; run that one, or move record.sqlite* away to start afresh"
            )
        findings = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if findings != "ok":
            raise _damaged(self._path, findings)
        return version

    def _migrate(self, script: str, version: int) -> None:
        pragmas = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};"
        try:
            self._connection.executescript(f"BEGIN IMMEDIATE; {script} {pragmas} COMMIT;")
        except sqlite3.Error:
            self._roll_back()
            raise

    def load(self) -> Memory:
        """All of the memory. Raises Refused when an entry is not what this version writes."""
        memory = Memory()
        with _explained(self._path, "cannot read the record"):
            rows = self._connection.execute("SELECT kind, key, value FROM memory").fetchall()
        for kind, key, value in rows:
            try:
                decoded = KINDS[kind].adapter.validate_json(value)
                if kind == SITE and key not in {"confirmed_digest", "held_digest", "claims_complete"}:
                    raise KeyError(key)
                Put(kind, tuple(key.split("/", 1)) if kind == "consents" else key, decoded).apply(memory)
            except (KeyError, ValidationError) as error:
                raise _damaged(self._path, f"entry {kind} {key} is not valid") from error
        return memory

    def commit(self, puts: Sequence[Put], events: Sequence[Event], *, event_limit: int) -> None:
        """Write all of it in one transaction. Raises Transient or Refused, and then nothing changed."""
        durable = any(KINDS[put.kind].durable for put in puts)
        with _explained(self._path, "cannot write the record", in_use=True):
            self._set_synchronous("FULL" if durable else "NORMAL")
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                for put in puts:
                    self._write(put)
                if events:
                    self._connection.executemany(
                        "INSERT INTO events (at_s, subject, reason, message, facts) VALUES (?, ?, ?, ?, ?)",
                        [_as_row(event) for event in events],
                    )
                    self._connection.execute(
                        "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (event_limit,)
                    )
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _write(self, put: Put) -> None:
        where = (put.kind, put.stored_key)
        if put.value is None:
            self._connection.execute("DELETE FROM memory WHERE kind = ? AND key = ?", where)
        else:
            value = KINDS[put.kind].adapter.dump_json(put.value).decode()
            self._connection.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", (*where, value))

    def _set_synchronous(self, level: str) -> None:
        if level != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {level}")
            self._synchronous = level

    def _roll_back(self) -> None:
        # SQLite has already rolled back by itself after most errors; a second error would hide the first.
        with suppress(sqlite3.Error):
            self._connection.rollback()

    def events(self, subject: str | None, after_id: int | None, limit: int) -> list[Event]:
        """See `RecordReader.events`."""
        where = "(:subject IS NULL OR subject = :subject) AND id > :after_id"
        order = "DESC" if after_id is None else "ASC"
        query = f"SELECT id, at_s, subject, reason, message, facts FROM events WHERE {where} ORDER BY id {order}"  # noqa: S608
        with _explained(self._path, "cannot read the history"):
            rows = self._connection.execute(
                query + " LIMIT :limit", {"subject": subject, "after_id": after_id or 0, "limit": limit}
            ).fetchall()
        if after_id is None:
            rows.reverse()
        return [
            Event(number, at_s, name, reason, message, json.loads(facts))
            for number, at_s, name, reason, message, facts in rows
        ]

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()


def _as_row(event: Event) -> tuple[object, ...]:
    facts = json.dumps(dict(event.facts), default=str, ensure_ascii=False)
    return (event.at_s, event.subject, event.reason, event.message, facts)


def _damaged(path: Path, finding: str) -> Refused:
    return Refused(
        f"{path}: the record is damaged ({finding}); move {path.name}* away and start again: no guest is "
        "restarted and no host reinstalled for it, only the history, pauses and consents are lost"
    )


@contextmanager
def _explained(path: Path, what: str, *, in_use: bool = False) -> Iterator[None]:
    """Turn SQLite's errors into ours: Refused, or Transient once the record is `in_use` and may recover."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            raise _damaged(path, str(error)) from error
        raise _unavailable(path, f"{what}: {error}", in_use=in_use) from error


def _unavailable(path: Path, what: str, *, in_use: bool) -> HostError | Refused:
    advice = f"check the free space, owner and mode of {path.parent}"
    if in_use:
        return Transient(f"{path}: {what}; nothing was changed; {advice}", delay_s=5.0, kind="record")
    return Refused(f"{path}: {what}; {advice}, or name another directory with --state")
