"""The history is read by somebody who was not there: each entry says what happened, and whose doing it was."""

from __future__ import annotations

from pathlib import Path

from harness import playground


async def test_a_guest_that_died_went_down_by_itself(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before, boots = play.last_event_id(), play.boots("a-n2")
        await play.site.kill_guest("a-n2")
        event = await play.happened("guest/a-n2", "jump", after_id=before)
        assert event["message"].startswith("running → stopped: it went down by itself")
        await play.restarted("a-n2", boots)


async def test_a_guest_that_is_stopped_to_move_did_not(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.last_event_id()
        play.files.move("a-n2", "c01")
        play.reload()
        await play.runs_on("a-n2", "c01")
        await play.converged()
        messages = [event["message"] for event in play.events("guest/a-n2", after_id=before)]
        assert any("running → stopped: it moves" in message for message in messages)
        assert [message for message in messages if "by itself" in message] == []


async def test_a_container_that_answers_again_says_so(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.last_event_id()
        await play.site.refuse_key("c02")
        await play.happened("container/c02", "permission-denied", after_id=before)
        await play.site.refuse_key("c02", False)
        event = await play.happened("container/c02", "answers-again", after_id=before)
        # While it refuses, a look may also find the connection lost: what counts is that the end is told.
        assert event["message"].startswith("c02 answers; it was ")
