"""Calls of each strategy, in order, and their solutions, without an engine."""

from typing import Any

import pytest

from fractionate import strategies
from fractionate.calls.drive import Call, run_with
from fractionate.config import ModelOptions
from fractionate.datasets import get
from fractionate.models.echo import EchoModel
from fractionate.strategies.base import Sampler, Settings, Task
from fractionate.strategies.decompose import decompose
from fractionate.students.demonstrate import demonstrate
from fractionate.types import Completion, Decomposition, Problem, Request

PROBLEM = Problem("p", "How many eggs are left?", (("9",),), context="Ann has 16 eggs.")
SUBQUESTIONS = ("How many eggs has Ann?", "What is #1 minus 7?")


def sampler(**options: object) -> Sampler:
    model = EchoModel("echo:", ModelOptions.model_validate({"style": options.pop("style", "instruct")}))
    return Sampler(model, **options)  # type: ignore[arg-type]


def drive(strategy: str, replies: list[str], decomposition: Decomposition | None = None, **task: Any) -> Any:
    solver, decomposer = task.pop("solver", sampler()), task.pop("decomposer", sampler())
    whole = Task(PROBLEM, "number", solver, decomposer, decomposition, **task)
    asked: list[Request] = []
    left = iter(replies)

    def reply(call: Call) -> Completion:
        asked.append(call.request)
        return Completion(next(left))

    solution = run_with(strategies.get(strategy).coroutine(whole), reply)
    assert len(asked) == len(replies), "a reply was not asked for"
    return solution, asked


def said(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


GIVEN = Decomposition(SUBQUESTIONS, "ok", "1. …")


def test_single_is_one_call_for_the_answer_alone() -> None:
    solution, (request,) = drive("single", ["The answer is: 9"])
    assert solution.output == "The answer is: 9"
    assert request.role == "solver"
    assert "without an explanation" in said(request)
    assert request.messages[-1].content.startswith("Context: Ann has 16 eggs.")


def test_single_cot_asks_for_steps() -> None:
    _, (request,) = drive("single-cot", ["…The answer is: 9"])
    assert "step by step" in said(request)
    assert request.max_tokens > 64


def test_static_is_one_call_over_all_subquestions() -> None:
    solution, (request,) = drive("static", ["1. 16\n2. 9\nThe answer is: 9"], GIVEN)
    assert "1. How many eggs has Ann?\n2. What is #1 minus 7?" in said(request)
    assert not solution.fell_back
    assert request.origin.decomposition == "1. …"  # type: ignore[union-attr]


@pytest.mark.parametrize("strategy", ["static", "stepwise"])
@pytest.mark.parametrize("status", ["none", "unparsed"])
def test_without_subquestions_it_falls_back_to_single_stage(strategy: str, status: str) -> None:
    solution, (request,) = drive(strategy, ["The answer is: 9"], Decomposition((), status, "…"))  # type: ignore[arg-type]
    assert solution.fell_back
    assert "Subquestions" not in said(request)


def test_stepwise_fills_earlier_answers_in() -> None:
    solution, asked = drive("stepwise", ["The answer is: 16", "9 eggs\nmore talk", "The answer is: 9"], GIVEN)
    assert len(asked) == 3
    assert "What is 16 minus 7?" in said(asked[1])
    assert "1. How many eggs has Ann? 16" in said(asked[1])
    assert "2. What is 16 minus 7?" in said(asked[2])
    assert solution.sub_answers[0] == "16"
    assert solution.output == "The answer is: 9"


def test_dynamic_asks_answers_and_stops_at_the_final_answer() -> None:
    replies = ["Follow-up: How many eggs has Ann?", "16", "So the final answer is: 9"]
    solution, asked = drive("dynamic", replies)
    assert [request.role for request in asked] == ["decomposer", "solver", "decomposer"]
    assert "1. How many eggs has Ann? 16" in said(asked[2])
    assert solution.output.endswith("9")
    assert solution.decomposition.subquestions == ("How many eggs has Ann?",)


def test_dynamic_is_bounded_by_the_cap_and_lets_the_solver_end() -> None:
    replies = ["Follow-up: A?", "a", "Follow-up: B?", "b", "The answer is: 9"]
    solution, asked = drive("dynamic", replies, settings=Settings(cap=2))
    assert asked[-1].role == "solver"
    assert solution.output == "The answer is: 9"


def test_dynamic_stops_when_it_repeats_itself() -> None:
    replies = ["Follow-up: A?", "a", "Follow-up: A?", "The answer is: 9"]
    assert drive("dynamic", replies)[0].output == "The answer is: 9"


def test_samples_are_numbered_and_further_chances_warm() -> None:
    _, (second,) = drive("single", ["9"], settings=Settings(sample=1))
    assert (second.temperature, second.sample) == (0.0, 1)
    coroutine = demonstrate(PROBLEM, get("gsm8k"), sampler(), sampler(temperature=0.2), Settings(), 2)
    asked = [*next(coroutine)]
    for reply in ("1. A?", "The answer is: 8", "1. A?"):
        asked += coroutine.send([Completion(reply)])
    assert [(call.request.sample, call.request.temperature) for call in asked] == [
        (0, 0.0), (0, 0.2), (1, 0.7), (1, 0.7),
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [20, 8192])
@pytest.mark.parametrize(
    ("strategy", "replies"),
    [
        ("single", ["9"]),
        ("single-cot", ["9"]),
        ("static", ["9"]),
        ("stepwise", ["16", "9", "9"]),
        ("dynamic", ["Follow-up: A?", "a", "Follow-up: A?", "9"]),
    ],
)
def test_a_model_s_own_token_limit_lowers_and_raises_that_of_every_prompt(
    strategy: str, replies: list[str], limit: int
) -> None:
    asker = sampler(max_tokens=limit)
    _, asked = drive(strategy, replies, GIVEN, solver=asker, decomposer=asker)
    assert {request.max_tokens for request in asked} == {limit}
    _, own = drive(strategy, replies, GIVEN)
    assert all(20 < request.max_tokens < 8192 for request in own)


@pytest.mark.parametrize("limit", [20, 8192])
def test_a_model_s_own_token_limit_lowers_and_raises_that_of_decomposing(limit: int) -> None:
    (call,) = next(decompose(PROBLEM, sampler(max_tokens=limit), Settings()))
    assert call.request.max_tokens == limit


def test_students_are_asked_in_the_short_form() -> None:
    (call,) = next(decompose(PROBLEM, sampler(style="student"), Settings(decomposer_context=False)))
    (message,) = call.request.messages
    assert message.content == "How many eggs are left?"


def test_the_instruction_states_cap_and_example() -> None:
    for cap, shots in ((3, 0), (None, 1)):
        (call,) = next(decompose(PROBLEM, sampler(), Settings(cap=cap, shots=shots)))
        text = said(call.request)
        assert ("at most 3" in text) == (cap == 3)
        assert ("worked example" in text) == (shots == 1)


def test_structured_models_are_asked_for_json_and_read_from_it() -> None:
    asked: list[Call] = []

    def reply(call: Call) -> Completion:
        asked.append(call)
        return Completion('{"subquestions": ["A?", "B?"]}')

    decomposition, _ = run_with(decompose(PROBLEM, sampler(structured=True), Settings()), reply)
    assert "subquestions" in (asked[0].request.response_format or "")
    assert decomposition.subquestions == ("A?", "B?")


def test_a_chance_notes_whose_reply_was_cut_off() -> None:
    replies = iter(
        [
            Completion("1. How many eggs has Ann?\n2. What is", finish_reason="length"),
            Completion("1. 16\n2. 16 - 7", finish_reason="length"),
            Completion("1. How many eggs has Ann?"),
            Completion("The answer is: 9"),
        ]
    )
    samples = run_with(
        demonstrate(PROBLEM, get("gsm8k"), sampler(), sampler(), Settings(), 2), lambda call: next(replies)
    )
    assert [sample.cut_off for sample in samples] == [("decomposer", "solver"), ()]
