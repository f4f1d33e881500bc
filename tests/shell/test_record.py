"""The record keeps what it is told, survives what it must, and refuses what it cannot trust."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vcrecon.core.memory import Attempts, Claim, Consent, Fence, Intent, LastState, Memory
from vcrecon.errors import Refused, Transient
from vcrecon.shell.record import Record, RecordWriter

CLAIM = Claim("a-head", "c01", 3, touched=True)
OpenRecord = Callable[..., Record]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def open_record(state: Path) -> Iterator[OpenRecord]:
    opened: list[Record] = []

    def make(**options: Any) -> Record:
        opened.append(Record.open(state, clock=lambda: 1000.0, **options))
        return opened[-1]

    yield make
    for record in opened:
        record.close()


def fill(writer: RecordWriter) -> None:
    writer.put_claim(CLAIM)
    writer.put_consent(Consent("rebuild", "guest/a/b", 3, 990.0))
    writer.put_attempts("container/c01", Attempts(2, 1010.0, "transient", "no answer"))
    writer.put_intent(Intent("guest/a-head", "start", 999.0))
    writer.put_fence(Fence("c02", 998.0, "operator"))
    writer.put_state(LastState("guest/a-head", "running", 997.0))
    writer.put_pause("guest/a-n1", 996.0)
    writer.put_answered("a-head", "17")
    writer.put_seen("c01", 995.5)
    writer.put_shown("c01", 994.5)
    writer.set_confirmed_digest("d1g35t")
    writer.set_held_digest("0ther")
    writer.set_claims_complete(False)


FULL = Memory(
    claims={"a-head": CLAIM},
    consents={("rebuild", "guest/a/b"): Consent("rebuild", "guest/a/b", 3, 990.0)},
    attempts={"container/c01": Attempts(2, 1010.0, "transient", "no answer")},
    intents={"guest/a-head": Intent("guest/a-head", "start", 999.0)},
    fences={"c02": Fence("c02", 998.0, "operator")},
    states={"guest/a-head": LastState("guest/a-head", "running", 997.0)},
    paused={"guest/a-n1": 996.0},
    answered={"a-head": "17"},
    seen={"c01": 995.5},
    shown={"c01": 994.5},
    confirmed_digest="d1g35t",
    held_digest="0ther",
    claims_complete=False,
)


def clear(writer: RecordWriter) -> None:
    writer.remove_claim("a-head")
    writer.remove_consent("rebuild", "guest/a/b")
    writer.remove_attempts("container/c01")
    writer.remove_intent("guest/a-head")
    writer.remove_fence("c02")
    writer.remove_state("guest/a-head")
    writer.remove_pause("guest/a-n1")
    writer.remove_answered("a-head")
    writer.remove_seen("c01")
    writer.remove_shown("c01")
    writer.set_confirmed_digest(None)
    writer.set_held_digest(None)
    writer.set_claims_complete(True)


class TestMemory:
    def test_everything_put_is_there_after_reopening(self, open_record: OpenRecord) -> None:
        first = open_record()
        fill(first)
        assert first.memory == FULL
        first.close()
        assert open_record().memory == FULL

    def test_everything_removed_is_gone_after_reopening(self, open_record: OpenRecord) -> None:
        first = open_record()
        fill(first)
        clear(first)
        assert first.memory == Memory()
        first.close()
        assert open_record().memory == Memory()

    def test_record_is_new_only_once(self, open_record: OpenRecord) -> None:
        first = open_record()
        assert first.is_new
        first.close()
        assert not open_record().is_new

    def test_what_was_written_survives_a_killed_process(self, state: Path, open_record: OpenRecord) -> None:
        script = (
            "import os, signal, sys; from pathlib import Path\n"
            "from vcrecon.core.memory import Claim\nfrom vcrecon.shell.record import Record\n"
            "record = Record.open(Path(sys.argv[1]), clock=lambda: 1.0)\n"
            "record.put_claim(Claim('a-head', 'c01', 3, True)); record.put_seen('c01', 5.0)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        killed = subprocess.run([sys.executable, "-c", script, state], check=False)
        assert killed.returncode == -9
        memory = open_record().memory
        assert (memory.claims, memory.seen) == ({"a-head": CLAIM}, {"c01": 5.0})


class TestBatch:
    def test_batch_changes_memory_and_disk_when_it_ends(self, open_record: OpenRecord) -> None:
        record = open_record()
        with record.batch() as batch:
            fill(batch)
            batch.event("guest/a-head", "Started", "started on c01")
            assert record.memory == Memory()
        assert record.memory == FULL
        record.close()
        assert open_record().memory == FULL

    def test_batch_that_raises_changes_nothing(self, open_record: OpenRecord) -> None:
        record = open_record()

        def fill_and_fail() -> None:
            with record.batch() as batch:
                fill(batch)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fill_and_fail()
        assert record.memory == Memory()
        record.close()
        assert open_record().memory == Memory()

    def test_last_word_of_a_batch_wins(self, open_record: OpenRecord) -> None:
        record = open_record()
        record.put_pause("site", 1.0)
        with record.batch() as batch:
            batch.remove_pause("site")
            batch.put_pause("site", 2.0)
        assert record.memory.paused == {"site": 2.0}

    def test_direct_call_within_a_batch_does_not_wait_for_it(self, open_record: OpenRecord) -> None:
        record = open_record()
        with record.batch() as batch:
            batch.put_seen("c01", 1.0)
            record.put_intent(Intent("guest/a-head", "start", 999.0))
            assert "guest/a-head" in record.memory.intents


class TestEvents:
    def test_event_has_time_reason_and_facts(self, open_record: OpenRecord) -> None:
        record = open_record()
        record.event("guest/a-head", "Started", "started on c01", took_s=1.5)
        (event,) = record.events()
        assert (event.at_s, event.subject, event.reason) == (1000.0, "guest/a-head", "Started")
        assert (event.message, event.facts) == ("started on c01", {"took_s": 1.5})

    def test_event_without_a_reason_is_a_mistake(self, open_record: OpenRecord) -> None:
        with pytest.raises(ValueError, match="no reason"):
            open_record().event("guest/a-head", " ", "something happened")

    def test_events_are_the_newest_ones_in_order_of_time(self, open_record: OpenRecord) -> None:
        record = open_record()
        for number in range(5):
            record.event("site", "Tick", str(number))
        assert [event.message for event in record.events(limit=2)] == ["3", "4"]

    def test_following_goes_on_after_the_last_id(self, open_record: OpenRecord) -> None:
        record = open_record()
        for number in range(5):
            record.event("site", "Tick", str(number))
        first = record.events(after_id=0, limit=2)
        then = record.events(after_id=first[-1].id, limit=2)
        assert [event.message for event in (*first, *then)] == ["0", "1", "2", "3"]

    def test_events_of_one_subject_leave_out_the_others(self, open_record: OpenRecord) -> None:
        record = open_record()
        record.event("guest/a", "Started", "a")
        record.event("guest/ab", "Started", "ab")
        assert [event.message for event in record.events("guest/a")] == ["a"]

    def test_history_keeps_the_newest_and_never_reuses_an_id(self, open_record: OpenRecord) -> None:
        record = open_record(event_limit=3)
        for number in range(10):
            record.event("site", "Tick", str(number))
        assert [(event.id, event.message) for event in record.events()] == [(8, "7"), (9, "8"), (10, "9")]

    def test_secrets_in_facts_and_message_never_reach_the_disk(self, open_record: OpenRecord, state: Path) -> None:
        record = open_record()
        record.event("guest/a", "Context", "hash $6$saltsalt$abcdefghijklmnop", token="hunter2", password="x1y2z3")
        record.close()
        everything = b"".join(path.read_bytes() for path in state.iterdir())
        assert not [secret for secret in (b"hunter2", b"x1y2z3", b"abcdefghijklmnop") if secret in everything]

    def test_secrets_in_what_a_failed_step_said_reach_neither_disk_nor_memory(
        self, open_record: OpenRecord, state: Path
    ) -> None:
        record = open_record()
        said = "a hook printed root:$6$saltsalt$abcdefghijklmnop"
        record.put_attempts("guest/a", Attempts(1, 1010.0, "hook-failed", said))
        assert "a hook printed root:" in record.memory.attempts["guest/a"].message
        assert "abcdefghijklmnop" not in record.memory.attempts["guest/a"].message
        record.close()
        assert not [path for path in state.iterdir() if b"abcdefghijklmnop" in path.read_bytes()]


class TestFailedWrites:
    def test_full_disk_is_transient_and_leaves_memory_as_it_was(self, open_record: OpenRecord) -> None:
        record = open_record(size_bytes_max=64 * 1024)
        before = Claim("a-head", "c01", 1, touched=False)
        record.put_claim(before)
        with pytest.raises(Transient, match="full") as caught:
            record.put_claim(Claim("a-head", "c" * 200_000, 2, touched=False))
        assert caught.value.kind == "record"
        assert record.memory.claims == {"a-head": before}
        record.put_seen("c01", 5.0)
        record.close()
        assert open_record().memory.claims == {"a-head": before}

    def test_full_disk_in_a_batch_leaves_all_of_it_undone(self, open_record: OpenRecord) -> None:
        record = open_record(size_bytes_max=64 * 1024)

        def write_too_much() -> None:
            with record.batch() as batch:
                batch.put_seen("c01", 5.0)
                batch.event("site", "Tick", "x" * 200_000)

        with pytest.raises(Transient, match="full"):
            write_too_much()
        assert record.memory == Memory()
        assert record.events() == []

    def test_writer_that_holds_the_database_is_transient(self, open_record: OpenRecord, state: Path) -> None:
        record = open_record()
        other = sqlite3.connect(state / "record.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Transient, match="locked"):
            record.put_seen("c01", 5.0)
        other.close()
        assert record.memory.seen == {}


class TestRefusals:
    def test_second_controller_is_refused_with_the_first_ones_pid(self, open_record: OpenRecord) -> None:
        open_record()
        with pytest.raises(Refused, match=rf"pid {os.getpid()}\b"):
            open_record()

    def test_next_controller_gets_the_lock_after_close(self, open_record: OpenRecord) -> None:
        open_record().close()
        assert open_record().memory == Memory()

    @pytest.mark.parametrize("garbage", [b"no database at all, " * 500, b"SQLite format 3\0" + b"\xff" * 9000])
    def test_garbage_is_refused_and_left_alone(self, open_record: OpenRecord, state: Path, garbage: bytes) -> None:
        open_record().close()
        (state / "record.sqlite").write_bytes(garbage)
        with pytest.raises(Refused, match=r"damaged.*move record\.sqlite\* away"):
            open_record()
        assert (state / "record.sqlite").read_bytes() == garbage

    def test_torn_file_is_refused_at_every_page(self, open_record: OpenRecord, state: Path) -> None:
        record = open_record()
        for number in range(200):
            record.event("site", "Tick", "x" * 100 + str(number))
        record.close()
        database = state / "record.sqlite"
        whole = database.read_bytes()
        for size in range(4096, len(whole), 4096):
            database.write_bytes(whole[: size - 100])
            with pytest.raises(Refused, match="damaged"):
                open_record()

    def test_refusal_frees_the_lock(self, open_record: OpenRecord, state: Path) -> None:
        open_record().close()
        whole = (state / "record.sqlite").read_bytes()
        (state / "record.sqlite").write_bytes(b"garbage" * 1000)
        with pytest.raises(Refused):
            open_record()
        (state / "record.sqlite").write_bytes(whole)
        assert open_record().memory == Memory()

    @pytest.mark.parametrize(
        ("statement", "message"),
        [
            ("PRAGMA user_version = 99", "newer vcrecon"),
            ("PRAGMA application_id = 7", "other program"),
            ("INSERT INTO memory VALUES ('claims', 'x', '{}')", "damaged.*claims x"),
            ("INSERT INTO memory VALUES ('site', 'claims', '\"x\"')", "damaged.*site claims"),
            ("INSERT INTO memory VALUES ('wishes', 'x', '1')", "damaged.*wishes x"),
        ],
    )
    def test_record_that_vcrecon_did_not_write_is_refused(
        self, open_record: OpenRecord, state: Path, statement: str, message: str
    ) -> None:
        open_record().close()
        with sqlite3.connect(state / "record.sqlite") as database:
            database.execute(statement)
        with pytest.raises(Refused, match=message):
            open_record()

    def test_state_directory_that_is_a_file_is_refused(self, open_record: OpenRecord, state: Path) -> None:
        state.write_text("")
        with pytest.raises(Refused, match="--state"):
            open_record()

    def test_directory_others_can_write_to_is_refused(self, open_record: OpenRecord, state: Path) -> None:
        state.mkdir()
        state.chmod(0o777)
        with pytest.raises(Refused, match="chmod 0700"):
            open_record()

    @pytest.mark.parametrize("directory", ["/proc", "/proc/vcrecon/state"])
    def test_unwritable_directory_is_refused(self, directory: str) -> None:
        """Nobody, not even root, can make a file in /proc."""
        with pytest.raises(Refused, match=r"cannot (open|make).*--state"):
            Record.open(Path(directory), clock=lambda: 1.0)


class TestReadOnly:
    def test_reader_sees_what_the_controller_wrote(self, open_record: OpenRecord, state: Path) -> None:
        record = open_record()
        fill(record)
        with Record.read_only(state) as reader:
            assert reader.memory == FULL
            record.event("site", "Tick", "later")
            record.remove_pause("guest/a-n1")
            reader.refresh()
            assert reader.memory.paused == {}
            assert [event.message for event in reader.events()] == ["later"]
            assert reader.secret() == record.secret()

    def test_reader_works_without_a_controller(self, open_record: OpenRecord, state: Path) -> None:
        record = open_record()
        fill(record)
        record.close()
        with Record.read_only(state) as reader:
            assert reader.memory == FULL

    def test_reader_of_nothing_sees_nothing_and_makes_nothing(self, state: Path) -> None:
        with Record.read_only(state) as reader:
            assert (reader.memory, reader.events()) == (Memory(), [])
            assert len(reader.secret()) == 32
        assert not state.exists()

    def test_reader_refuses_garbage(self, state: Path) -> None:
        state.mkdir()
        (state / "record.sqlite").write_bytes(b"garbage" * 1000)
        with pytest.raises(Refused, match="damaged"):
            Record.read_only(state)


class TestSecrets:
    def test_site_secret_is_random_and_stays(self, open_record: OpenRecord, tmp_path: Path) -> None:
        first = open_record()
        secret = first.secret()
        first.close()
        assert open_record().secret() == secret
        with Record.open(tmp_path / "other", clock=lambda: 1.0) as other:
            assert (len(secret), other.secret() == secret) == (32, False)

    @pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
    def test_damaged_site_key_is_refused(self, open_record: OpenRecord, state: Path, content: bytes) -> None:
        open_record().close()
        (state / "site.key").write_bytes(content)
        with pytest.raises(Refused, match="site key is damaged"):
            open_record()

    def test_site_key_others_may_read_is_refused(self, open_record: OpenRecord, state: Path) -> None:
        open_record().close()
        (state / "site.key").chmod(0o644)
        with pytest.raises(Refused, match="chmod 0600"):
            open_record()

    def test_files_are_private_whatever_the_umask(self, open_record: OpenRecord, state: Path) -> None:
        before = os.umask(0)
        try:
            record = open_record()
            fill(record)
        finally:
            os.umask(before)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (state, *state.iterdir())}
        assert modes.pop("state") == 0o700
        assert {"record.sqlite", "record.sqlite-wal", "record.lock", "site.key"} <= modes.keys()
        assert set(modes.values()) == {0o600}
