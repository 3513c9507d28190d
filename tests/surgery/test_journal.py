"""The journal: answers are recorded once and replayed, and each operation has entries of its own."""

from __future__ import annotations

import pytest

from surgeon.surgery.journal import Journal


def test_an_answer_is_computed_on_the_first_run_and_recorded():
    journal = Journal()
    assert journal.recall("shape", lambda: (2, 3)) == [2, 3]
    assert list(journal.answers.values()) == [[2, 3]]
    assert not journal.replays


def test_a_replay_returns_the_recorded_answer_without_computing_it():
    first = Journal()
    first.recall("shape", lambda: [2, 3])
    replay = Journal(recorded=first.answers)
    assert replay.replays
    assert replay.recall("shape", lambda: pytest.fail("computed again")) == [2, 3]
    assert replay.answers == first.answers


def test_the_entries_of_one_operation_end_where_the_next_begins():
    journal = Journal()
    journal.begin("truncate")
    journal.note("cut")
    journal.changed.append("layer4")
    journal.retrained.append("fc")
    journal.begin("freeze")
    assert (journal.notes, journal.changed, journal.retrained) == ([], [], [])
    assert (journal.operation, journal.finished) == ("freeze", {"truncate"})
