"""Recorded answers are found by operation, kind and subject."""

from __future__ import annotations

import pytest

from surgeon.surgery.answers import Answers


def refuse() -> None:
    raise AssertionError("there is a recorded answer")


def recorded(*steps: tuple[str, list[tuple[str, str, object]]]) -> dict[str, object]:
    """What operations leave that were given these answers."""
    answers = Answers({})
    for operation, given in steps:
        answers.begin(operation)
        for kind, subject, value in given:
            assert answers.recall(kind, subject, lambda value=value: value) == value  # type: ignore[misc]
    return answers.given


def test_an_answer_is_named_after_operation_kind_and_subject() -> None:
    given = recorded(("freeze", [("role", "head", ["fc"])]), ("truncate", [("shape", "a.b", [1, 2])]))
    assert given == {"0.freeze/role/head": ["fc"], "1.truncate/shape/a.b": [1, 2]}


def test_a_replay_is_given_what_was_recorded_in_any_order() -> None:
    again = Answers(recorded(("cut", [("role", "head", ["fc"]), ("shape", "x", [2])])))
    again.begin("cut")
    assert again.recall("shape", "x", refuse) == [2]
    assert again.recall("role", "head", refuse) == ["fc"]


def test_an_answer_that_an_edit_changed_is_recorded_beside_the_first() -> None:
    given = recorded(("cut", [("shape", "x", [2]), ("shape", "x", [2]), ("shape", "x", [3]), ("shape", "x", [2])]))
    assert given == {"0.cut/shape/x": [2], "0.cut/shape#3/x": [3], "0.cut/shape#4/x": [2]}
    again = Answers(given)
    again.begin("cut")
    assert [again.recall("shape", "x", refuse) for _ in range(4)] == [[2], [2], [3], [2]]


def test_the_same_operation_twice_has_answers_of_its_own() -> None:
    again = Answers(recorded(("cut", [("last", "", "a")]), ("cut", [("last", "", "b")])))
    again.begin("cut")
    assert again.recall("last", "", refuse) == "a"
    again.begin("cut")
    assert again.recall("last", "", refuse) == "b"


def test_a_question_that_was_not_recorded_is_answered() -> None:
    again = Answers({"0.cut/shape/x": [2]})
    again.begin("cut")
    assert again.recall("shape", "y", lambda: [4]) == [4]


@pytest.mark.parametrize(
    ("key", "kind", "subject"),
    [
        ("0: cut a.b", "cut", "a.b"),
        ("0: cut a.b shows in the lengths of lists", "cut lengths", "a.b"),
        ("0: features that come out", "features of network", ""),
        ("0: a question of a plugin's", "a question of a plugin's", ""),
    ],
)
def test_a_running_number_and_a_sentence_are_still_read(key: str, kind: str, subject: str) -> None:
    again = Answers({key: "answer"})
    again.begin("any")
    assert again.recall(kind, subject, refuse) == "answer"


def test_sentences_that_stand_twice_are_answered_in_their_order() -> None:
    again = Answers({"9: role head": "first", "10: role head": "second"})
    again.begin("any")
    assert [again.recall("role", "head", refuse) for _ in range(2)] == ["first", "second"]
