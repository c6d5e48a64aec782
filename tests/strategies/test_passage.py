"""Every call about a question on a passage contains the passage once; the paper's code omitted it from one prompt."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fractionate.calls.drive import Stepper
from fractionate.config import ModelOptions
from fractionate.models.echo import EchoModel
from fractionate.strategies import built_in
from fractionate.strategies.base import Sampler, Settings, Task
from fractionate.strategies.decompose import decompose
from fractionate.types import Completion, Decomposition, Message, Problem, Request

PASSAGE = "Ann has 16 eggs and eats 7 of them."
PROBLEM = Problem("p", "How many eggs are left?", (("9",),), context=PASSAGE)
GIVEN = Decomposition(("How many has she?", "How many does she eat?"), "ok", "1. …")
STYLES = ("instruct", "student")


def asked(style: str, strategy: str, problem: Problem = PROBLEM) -> Iterator[Request]:
    """Yield the requests of a strategy whose every reply is one more follow-up question."""
    sampler = Sampler(EchoModel("echo:", ModelOptions.model_validate({"style": style})))
    stepper = Stepper(built_in()[strategy].coroutine(Task(problem, "span", sampler, sampler, GIVEN, Settings())))
    calls, number = stepper.send(None), 0
    while calls is not None:
        yield from (call.request for call in calls)
        number += 1
        calls = stepper.send([Completion(f"{number}. What is number {number}?")] * len(calls))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("strategy", built_in())
def test_every_strategy_shows_the_passage_in_every_call(strategy: str, style: str) -> None:
    requests = list(asked(style, strategy))
    assert len(requests) >= {"stepwise": 3, "dynamic": 3}.get(strategy, 1)
    for request in requests:
        assert "\n".join(message.content for message in request.messages).count(PASSAGE) == 1


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("strategy", built_in())
def test_every_strategy_shows_the_question_in_every_call(strategy: str, style: str) -> None:
    """A question may hold the facts itself: who answers a subquestion of it without it can only guess."""
    for request in asked(style, strategy):
        assert "\n".join(message.content for message in request.messages).count(PROBLEM.question) == 1


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("strategy", built_in())
def test_every_strategy_asks_within_the_chat(strategy: str, style: str) -> None:
    """The earlier turns keep their roles; the chat's system text stands below the strategy's own, in one message."""
    turns = (("user", "Ann had 20."), ("assistant", "Noted."))
    chat = replace(PROBLEM, history=(("system", "Be brief."), *turns))
    for alone, within in zip(asked(style, strategy), asked(style, strategy, chat), strict=True):
        own = [message.content for message in alone.messages if message.role == "system"]
        assert within.messages == (
            Message("system", "\n\n".join([*own, "Be brief."])),
            *(Message(*turn) for turn in turns),
            alone.messages[-1],
        )


@pytest.mark.parametrize("strategy", built_in())
def test_an_answer_from_a_passage_is_asked_for_in_few_words_or_as_the_number_alone(strategy: str) -> None:
    last = list(asked("instruct", strategy))[-1]
    said = "\n".join(message.content for message in last.messages)
    assert "at most five words" in said
    assert "only the number" in said


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seen", [True, False])
def test_a_decomposer_sees_the_passage_where_the_run_says_so(style: str, seen: bool) -> None:
    sampler = Sampler(EchoModel("echo:", ModelOptions.model_validate({"style": style})))
    (call,) = next(decompose(PROBLEM, sampler, Settings(decomposer_context=seen)))
    said = "\n".join(message.content for message in call.request.messages)
    assert said.count(PASSAGE) == seen
    assert PROBLEM.question in said
