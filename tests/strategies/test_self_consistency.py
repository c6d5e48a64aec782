"""Self-consistency: the majority of sampled chains of thought, at the cost of all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fractionate import strategies
from fractionate.config import ModelOptions, RunConfig
from fractionate.datasets import get
from fractionate.models.echo import EchoModel
from fractionate.strategies.base import Sampler, Settings, Task
from fractionate.strategies.self_consistency import majority
from fractionate.types import Completion, Problem, Request, Usage

PROBLEM = Problem("p", "How many eggs are left?", (("9",),))


def voted(replies: list[str], temperature: float = 0.0, **task: Any) -> tuple[Any, list[Request]]:
    solver = Sampler(EchoModel("echo:", ModelOptions()), temperature)
    settings = Settings(votes=len(replies), **task.pop("settings", {}))
    whole = Task(PROBLEM, "number", solver, settings=settings, **task)
    program = strategies.get("self-consistency").coroutine(whole)
    calls: Any = next(program)
    with pytest.raises(StopIteration) as stop:
        program.send([Completion(reply, usage=Usage(1, 10, 0, 5)) for reply in replies])
    return stop.value.value, [call.request for call in calls]


def test_the_answer_with_most_votes_wins_and_every_vote_is_paid_for() -> None:
    replies = ["The answer is: 7", "16 - 7 = 9\nThe answer is: 9", "I do not know.", "The answer is: 9.0"]
    solution, asked = voted(replies)
    assert solution.output == replies[1]
    assert len(solution.calls) == 4
    assert all("step by step" in request.messages[0].content for request in asked)
    assert [request.sample for request in asked] == [0, 1, 2, 3]
    assert {request.temperature for request in asked} == {0.7}


def test_a_model_s_own_temperature_and_the_repeat_are_kept() -> None:
    _, asked = voted(["9"] * 3, temperature=0.3, settings={"sample": 2})
    assert {request.temperature for request in asked} == {0.3}
    assert [request.sample for request in asked] == [6, 7, 8]


def test_without_an_answer_that_can_be_read_the_first_vote_is_the_output() -> None:
    assert voted(["I do not know.", "Nor do I, sadly."])[0].output == "I do not know."


def test_answers_are_the_same_where_the_data_set_scores_them_so() -> None:
    replies = ["The answer is: Rome", "The answer is: the Paris.", "The answer is: paris"]
    assert voted(replies, dataset=get("bamboogle"))[0].output == replies[1]
    upper = replace(get("bamboogle"), extract=lambda output: (output.partition(": ")[2].upper(),))
    assert voted(replies, dataset=upper)[0].output == replies[1]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([None, ("1",), ("2",), ("3",)]), max_size=12))
def test_the_winner_has_most_votes_and_of_several_the_one_first_reached(answers: list[Any]) -> None:
    place = majority(answers, lambda answer, known: answer == known)
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        assert place is None
        return
    assert place is not None
    most = max(votes.values())
    expected = next(answer for answer in answers if answer is not None and votes[answer] == most)
    assert (answers[place], place) == (expected, answers.index(expected))


def test_every_strategy_is_named_where_users_look(capsys: pytest.CaptureFixture[str]) -> None:
    from fractionate.cli import main

    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    described = RunConfig.model_fields["strategies"].description or ""
    for name in strategies.built_in():
        assert name in said
        assert name in described
