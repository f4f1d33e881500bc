"""The record: `core.memory.Memory` and the event history, kept in SQLite by write-through.

Opened by `controller` (exclusively) and by `cli` for `plan` and `events` (read only). The planner reads
`record.memory`; everything changes through the methods here, first on disk and then in memory, so a failed
write leaves memory as it was. Claims, consents, intents, fences, pauses, rescues, tickets and the two site-wide
facts survive a power cut once the call returns (S1, S2, S7); the rest survives a killed process, and a power cut
may take its last moments.

Files in the state directory: `record.sqlite` (with SQLite's -wal and -shm), `record.lock`, `site.key`.
Losing them costs history, pauses and consents, and neither a restart nor a reinstall (design, section 4).

Not thread-safe: call it from the event loop's thread only. A durable call costs one fsync; `batch()` makes
one transaction, and at most one fsync, of many calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from vcrecon.core.installs import Ticket
from vcrecon.core.memory import Attempts, Claim, Consent, ConsentKind, Fence, Intent, LastState, Memory, Rescue
from vcrecon.shell import record_files
from vcrecon.shell.log import redact, redact_text
from vcrecon.shell.record_store import SITE, Event, Put, Store

__all__ = ["Event", "Record", "RecordReader", "RecordWriter"]

EVENT_LIMIT = 100_000
SIZE_BYTES_MAX = 1 << 30
_DATABASE = "record.sqlite"
_LOCK = "record.lock"
_KEY = "site.key"


class RecordWriter(ABC):
    """Everything that can be written: at once through a Record, or together through a batch.

    A call that would change nothing costs nothing. Raises Transient (kind "record") when the disk is full or
    failing, and Refused when the record turns out to be damaged; memory is then as it was.
    """

    @abstractmethod
    def _accept(self, change: Put | Event) -> None: ...

    @abstractmethod
    def _now_s(self) -> float: ...

    def put_claim(self, claim: Claim) -> None:
        self._accept(Put("claims", claim.guest, claim))

    def remove_claim(self, guest: str) -> None:
        """The numbers of its disks begin anew: what a person said of those up to one ends with it (S2)."""
        self._accept(Put("claims", guest, None))
        self.remove_consent("rebuild", guest)

    def put_consent(self, consent: Consent) -> None:
        self._accept(Put("consents", (consent.kind, consent.subject), consent))

    def remove_consent(self, kind: ConsentKind, subject: str) -> None:
        self._accept(Put("consents", (kind, subject), None))

    def put_attempts(self, subject: str, attempts: Attempts) -> None:
        """What the failed step said may hold what it was given (S10)."""
        self._accept(Put("attempts", subject, replace(attempts, message=redact_text(attempts.message))))

    def remove_attempts(self, subject: str) -> None:
        self._accept(Put("attempts", subject, None))

    def put_intent(self, intent: Intent) -> None:
        """Call before the first command of the act is sent (S7)."""
        self._accept(Put("intents", intent.subject, intent))

    def remove_intent(self, subject: str) -> None:
        self._accept(Put("intents", subject, None))

    def put_fence(self, fence: Fence) -> None:
        self._accept(Put("fences", fence.container, fence))

    def remove_fence(self, container: str) -> None:
        self._accept(Put("fences", container, None))

    def put_state(self, state: LastState) -> None:
        self._accept(Put("states", state.subject, state))

    def remove_state(self, subject: str) -> None:
        self._accept(Put("states", subject, None))

    def put_pause(self, subject: str, since_s: float) -> None:
        self._accept(Put("paused", subject, since_s))

    def remove_pause(self, subject: str) -> None:
        self._accept(Put("paused", subject, None))

    def put_rescue(self, rescue: Rescue) -> None:
        self._accept(Put("rescues", rescue.guest, rescue))

    def remove_rescue(self, guest: str) -> None:
        self._accept(Put("rescues", guest, None))

    def put_ticket(self, ticket: Ticket) -> None:
        self._accept(Put("tickets", ticket.container, ticket))

    def remove_ticket(self, container: str) -> None:
        self._accept(Put("tickets", container, None))

    def put_answered(self, guest: str, serial: str) -> None:
        """The run of the guest (`serial`) that has answered on its network."""
        self._accept(Put("answered", guest, serial))

    def remove_answered(self, guest: str) -> None:
        self._accept(Put("answered", guest, None))

    def put_seen(self, container: str, at_s: float) -> None:
        self._accept(Put("seen", container, at_s))

    def remove_seen(self, container: str) -> None:
        self._accept(Put("seen", container, None))

    def put_shown(self, container: str, at_s: float) -> None:
        """When the container first showed its disks and its guests to this record."""
        self._accept(Put("shown", container, at_s))
        self._accept(Put("unshown", container, None))

    def remove_shown(self, container: str) -> None:
        self._accept(Put("shown", container, None))

    def put_unshown(self, container: str, at_s: float) -> None:
        """A container that this record was told of, and that may hold what no claim tells of."""
        self._accept(Put("unshown", container, at_s))

    def remove_unshown(self, container: str) -> None:
        self._accept(Put("unshown", container, None))

    def set_confirmed_digest(self, digest: str | None) -> None:
        self._accept(Put(SITE, "confirmed_digest", digest))

    def set_held_digest(self, digest: str | None) -> None:
        """The spec of which a change was held back waits for a person's word from now on."""
        self._accept(Put(SITE, "held_digest", digest))

    def set_claims_complete(self, complete: bool) -> None:
        self._accept(Put(SITE, "claims_complete", complete))

    def event(self, subject: str, reason: str, message: str, **facts: object) -> None:
        """Add to the history. `reason` is one CamelCase or kebab-case word, as `kubectl` users know it.

        Secrets in `message` and `facts` are blotted out (S10). Raises ValueError without a reason.
        """
        if not reason.strip():
            raise ValueError(f"event on {subject} has no reason: {message}")
        self._accept(Event(0, self._now_s(), subject, reason, redact_text(message), redact(facts)))


class RecordReader:
    """A look at the record beside the running controller. Made by `Record.read_only`.

    Without a record, memory and history are empty: nobody has run vcrecon on this directory yet.
    """

    def __init__(self, store: Store | None, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self.memory: Memory = store.load() if store else Memory()

    def refresh(self) -> None:
        """Replace `memory` by what the controller has written since. Raises Refused."""
        if self._store:
            self.memory = self._store.load()

    def events(self, subject: str | None = None, *, after_id: int | None = None, limit: int = 1000) -> list[Event]:
        """At most `limit` events, oldest first: the newest ones, or the first ones after `after_id`.

        `subject` picks one object by its exact name ("guest/a-head"). To follow, pass the last id on.
        """
        return self._store.events(subject, after_id, limit) if self._store else []

    def secret(self) -> bytes:
        """The site's 32-byte secret, or a passing one before the first run, when no host can know any."""
        key = record_files.read_site_key(self._directory / _KEY)
        return key if key is not None else record_files.passing_key()

    def close(self) -> None:
        if self._store:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Batch(RecordWriter):
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.changes: list[Put | Event] = []

    def _accept(self, change: Put | Event) -> None:
        self.changes.append(change)

    def _now_s(self) -> float:
        return self._clock()


class Record(RecordReader, RecordWriter):
    """The open record of the one controller. Make it with `Record.open`, end it with `close`."""

    def __init__(
        self,
        store: Store,
        directory: Path,
        *,
        lock: record_files.DirectoryLock,
        secret: bytes,
        clock: Callable[[], float],
        event_limit: int,
        is_new: bool,
    ) -> None:
        super().__init__(store, directory)
        self._writable = store
        self._lock = lock
        self._secret = secret
        self._clock = clock
        self._event_limit = event_limit
        self.is_new = is_new

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        clock: Callable[[], float],
        event_limit: int = EVENT_LIMIT,
        size_bytes_max: int = SIZE_BYTES_MAX,
    ) -> Record:
        """Take the record of `directory`, making it when there is none (then `is_new` is true).

        `clock` gives Unix seconds. The history keeps the newest `event_limit` events; a write that would
        grow the database beyond `size_bytes_max` fails as a full disk does. Raises Refused when the
        directory is not writable, another controller holds it (the message has its pid), or the record is
        damaged or from a newer vcrecon.
        """
        record_files.prepare_directory(directory)
        lock = record_files.DirectoryLock(directory / _LOCK)
        store = None
        try:
            key_path = directory / _KEY
            secret = record_files.read_site_key(key_path) or record_files.make_site_key(key_path)
            record_files.make_private(directory / _DATABASE)
            store, is_new = Store.open(directory / _DATABASE, size_bytes_max=size_bytes_max)
            return cls(
                store,
                directory,
                lock=lock,
                secret=secret,
                clock=clock,
                event_limit=event_limit,
                is_new=is_new,
            )
        except BaseException:
            if store:
                store.close()
            lock.release()
            raise

    @staticmethod
    def read_only(directory: Path) -> RecordReader:
        """Look at a record without taking it, also while a controller runs. Raises Refused."""
        database = directory / _DATABASE
        if not record_files.exists(database):
            return RecordReader(None, directory)
        store = Store.open_read_only(database)
        try:
            return RecordReader(store, directory)
        except BaseException:
            store.close()
            raise

    @contextmanager
    def batch(self) -> Iterator[RecordWriter]:
        """Group writes: `with record.batch() as batch: batch.put_claim(…); batch.event(…)`.

        All of it is on disk, and in memory, when the block ends; none of it when the block raises or the
        write fails. Calls on the record itself stay immediate, so a batch never delays an intent (S7).
        """
        batch = _Batch(self._clock)
        yield batch
        self._commit(batch.changes)

    def secret(self) -> bytes:
        """The site's secret: 32 random bytes, the same for as long as `site.key` lives."""
        return self._secret

    def close(self) -> None:
        """Close the database and let the next controller in."""
        super().close()
        self._lock.release()

    def _accept(self, change: Put | Event) -> None:
        self._commit((change,))

    def _now_s(self) -> float:
        return self._clock()

    def _commit(self, changes: Sequence[Put | Event]) -> None:
        # The last word on each key counts, and only if it says something new.
        last = {(change.kind, change.key): change for change in changes if isinstance(change, Put)}
        puts = [put for put in last.values() if put.is_news_to(self.memory)]
        events = [change for change in changes if isinstance(change, Event)]
        if not puts and not events:
            return
        self._writable.commit(puts, events, event_limit=self._event_limit)
        for put in puts:
            put.apply(self.memory)
