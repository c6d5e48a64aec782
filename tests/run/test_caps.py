"""The most output tokens of a question, as the config and the strategy bound its calls."""

from __future__ import annotations

import pytest

from fractionate.analysis.matrix import key_of
from fractionate.config import parse_config
from fractionate.run.caps import output_caps
from fractionate.types import Cell, Component


def caps(strategy, decomposer="teacher", solver="teacher", stages="two-stage", **sections):
    table = {"data": {"test": "gsm8k"}, "models": {"teacher": "openai:t"}}
    config = parse_config({**table, **sections})
    components = {
        "teacher": Component("teacher", "teacher", "decomposer", "openai:t"),
        "none": Component("none", "none", "decomposer"),
        "D-R": Component("D-R", "student", "decomposer", "local:org/s", "D-R", "decomposer"),
        "recorded": Component("recorded:x", "model", "solver", "recorded:x"),
    }
    cell = Cell("gsm8k", "test", strategy, stages, components[decomposer], components[solver], "exact_match", ())
    return output_caps(config, [cell])[key_of(cell)]


@pytest.mark.parametrize(
    ("strategy", "stages", "decomposer", "expected"),
    [
        ("single", "single", "none", {"solver": 64}),
        ("single-cot", "single", "none", {"solver": 512}),
        ("static", "two-stage", "teacher", {"decomposer": 256, "solver": 512}),
        ("self-consistency", "single", "none", {"solver": 5 * 512}),
    ],
)
def test_each_strategy_bounds_its_calls(strategy, stages, decomposer, expected):
    assert caps(strategy, decomposer, stages=stages) == expected


def test_several_calls_count_as_often_as_subquestions_may_be():
    assert caps("stepwise", run={"cap": 4}) == {"decomposer": 256, "solver": 4 * 96 + 64}
    assert caps("stepwise", run={"cap": "none"}) == {}, "nothing bounds the number of calls"
    assert caps("dynamic", stages="dynamic", run={"cap": 2}) == {"decomposer": 512, "solver": 2 * 96 + 64}


def test_a_models_own_limit_replaces_the_strategys():
    options = {"openai:t": {"max_tokens": 1000}, "D-R": {"max_tokens": 80}}
    models = {"teacher": "openai:t", "options": options}
    assert caps("static", models=models) == {"decomposer": 1000, "solver": 1000}
    assert caps("static", "D-R", models=models) == {"decomposer": 80, "solver": 1000}


def test_recorded_replies_and_unknown_strategies_have_no_cap():
    assert caps("static", solver="recorded") == {"decomposer": 256}
    assert caps("of-a-plug-in-that-is-gone") == {}
