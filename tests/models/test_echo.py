"""The echo model is deterministic, and its figures say nothing about real models."""

import asyncio

import pytest

from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models.echo import EchoModel
from fractionate.types import Message, Origin, Problem, Request


def ask(name: str, number: int) -> str:
    problem = Problem(f"p{number}", f"What is {number}?", (("gold",),))
    request = Request((Message("user", problem.question),), "solver", origin=Origin(problem))
    return asyncio.run(EchoModel(name, ModelOptions()).complete(request)).text


def test_the_same_request_gets_the_same_reply() -> None:
    assert [ask("echo:0.5", n) for n in range(20)] == [ask("echo:0.5", n) for n in range(20)]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_reference_answers_is_as_named(share: float) -> None:
    right = sum("gold" in ask(f"echo:{share}", number) for number in range(500)) / 500
    assert abs(right - share) < 0.08


@pytest.mark.parametrize("name", ["echo:2", "echo:x", "echo:-1"])
def test_other_shares_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="share of right answers"):
        EchoModel(name, ModelOptions())
