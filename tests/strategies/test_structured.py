"""Structured replies are parsed like plain ones; other JSON is left alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.scoring.final import extract_final
from fractionate.strategies.decompose import parse_decomposition
from fractionate.strategies.structured import as_text, response_format


@pytest.mark.parametrize(
    "reply",
    [
        '{"subquestions": ["Who, then?", "What is #1?"]}',
        '```json\n{"subquestions": ["Who, then?", "What is #1?"]}\n```',
        '["Who, then?", "What is #1?"]',
        '{"questions": [{"question": "Who, then?"}, {"question": "What is #1?"}]}',
        "1. Who, then?\n2. What is #1?",
    ],
)
def test_subquestions_are_read_from_json_and_from_text(reply: str) -> None:
    assert parse_decomposition(as_text(reply)).subquestions == ("Who, then?", "What is #1?")


def test_an_empty_list_means_no_decomposition() -> None:
    assert parse_decomposition(as_text('{"subquestions": []}')).status == "none"


def test_an_answer_is_read_with_its_steps() -> None:
    text = as_text('{"sub_answers": ["France", "Paris"], "answer": "Paris"}')
    assert text == "1. France\n2. Paris\nThe answer is: Paris"
    assert extract_final(as_text('{"answer": 42}')) == ("42",)


@given(st.text(max_size=200))
def test_other_replies_stay_as_they_are_or_are_json(reply: str) -> None:
    if as_text(reply) != reply:
        json.loads(reply.strip().removeprefix("```json").removeprefix("```").removesuffix("```"))


@pytest.mark.parametrize(
    "reply", ["[" * 100_000, '{"answer":' * 100_000, '{"subquestions": [' + "[" * 100_000, "1" * 5000]
)
def test_json_too_deep_or_too_long_to_be_read_is_left_alone(reply: str) -> None:
    assert as_text(reply) == reply


def test_a_fence_is_taken_off_whatever_blanks_stand_in_it() -> None:
    assert as_text('\n ```json \n\n{"answer": 42}\n\n``` \n') == "The answer is: 42"
    assert as_text('```\n{"answer": 42}```') == "The answer is: 42"
    assert (
        as_text("```json" + " " * 100_000 + "x" + " " * 100_000 + "``")
        == "```json" + " " * 100_000 + "x" + " " * 100_000 + "``"
    )
    assert as_text("```") == "```"


def test_the_format_is_the_one_servers_take() -> None:
    for role in ("decomposer", "solver"):
        wanted = json.loads(response_format(role))  # type: ignore[arg-type]
        assert wanted["type"] == "json_schema"
        assert wanted["json_schema"]["schema"]["required"]
