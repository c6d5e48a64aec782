"""results.json has the contract's fields, the same cells give the same bytes, and an unknown cost stays null."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import TEACHER, cell_of, config_of, matrix

from fractionate.analysis.comparisons import published_rows
from fractionate.config import PublishedFigure
from fractionate.errors import FractionateError, UsageError
from fractionate.report.results import build_results, to_json, write_json
from fractionate.statistics import wilson
from fractionate.types import Decomposition, Usage

CELL = {
    "dataset", "split", "strategy", "decomposer", "solver", "metric", "n", "value", "ci_low", "ci_high", "unextracted",
    "usage", "usd", "latency_p50_s", "latency_p95_s",
}  # fmt: skip
COMPARISON = {"a", "b", "difference", "ci_low", "ci_high", "p_value", "p_adjusted", "test"}
TOKENS = {"calls", "input_tokens", "cached_input_tokens", "output_tokens"}


def results_of(cells, **sections):
    return build_results(cells, config_of(**sections), ["a note"], {"name": "demo", "seed": 0})


def test_every_field_of_the_contract_is_there():
    results = results_of(matrix(40))
    assert results["schema"] == 1
    assert results["run"] == {"name": "demo", "seed": 0}
    assert len(results["cells"]) == 8
    for cell in results["cells"]:
        assert set(cell) >= CELL
        assert set(cell["usage"]) == {"decomposer", "solver"}
        assert all(set(usage) >= TOKENS for usage in cell["usage"].values())
        assert set(cell["usd"]) == {"decomposer", "solver", "total"}
    assert all(set(row) >= COMPARISON for row in results["comparisons"])
    assert results["verdict"]["distill"] in {"decomposer", "solver", "both", "neither", "undecided"}
    assert {"because", "evidence"} <= set(results["verdict"])
    assert "a note" in results["notes"]


def test_comparisons_name_cells_of_the_file():
    results = results_of(matrix(40) + matrix(40, dataset="other"))
    names = [cell["name"] for cell in results["cells"]]
    assert len(set(names)) == len(names)
    assert {row[side] for row in results["comparisons"] for side in "ab"} <= set(names)


def test_a_cell_counts_what_its_attempts_hold():
    cell = cell_of([1, 1, 0, 0, 1])
    odd = [
        replace(attempt, prediction=None, fell_back=True, failures=("length", "refusal"), decomposition=unparsed)
        for attempt, unparsed in zip(cell.attempts[2:4], [Decomposition((), "unparsed")] * 2, strict=True)
    ]
    cell = replace(cell, attempts=(*cell.attempts[:2], *odd, cell.attempts[4]))
    (found,) = results_of([cell])["cells"]
    assert (found["n"], found["value"], found["correct"]) == (5, 0.6, 3)
    assert (found["ci_low"], found["ci_high"]) == wilson(3, 5)
    assert (found["unextracted"], found["fell_back"], found["unparsed"], found["failures"]) == (2, 2, 2, 4)
    assert found["usage"]["solver"]["calls"] == 5
    assert found["usage"]["solver"]["input_tokens"] == sum(a.solver_usage.input_tokens for a in cell.attempts)
    assert found["latency_p50_s"] == pytest.approx(0.7)


def test_dollars_are_by_role_and_per_correct_answer():
    (found,) = results_of([cell_of([1, 0, 1, 1])])["cells"]
    tokens = found["usage"]["decomposer"]
    assert found["usd"]["decomposer"] == pytest.approx(
        tokens["input_tokens"] * 0.15e-6 + tokens["output_tokens"] * 0.60e-6
    )
    assert found["usd"]["total"] == pytest.approx(found["usd"]["decomposer"] + found["usd"]["solver"])
    assert found["usd_per_correct"] == pytest.approx(found["usd"]["total"] / 3)


def test_an_unknown_price_is_null_in_its_role_and_the_total_alone():
    results = results_of([cell_of([1, 0], decomposer="recorded:rows.jsonl")])
    usd = results["cells"][0]["usd"]
    assert usd["decomposer"] is None
    assert usd["total"] is None
    assert usd["solver"] > 0
    assert results["cells"][0]["usd_per_correct"] is None
    known = {price["model"]: price["known"] for price in results["prices"]}
    assert known == {"recorded:rows.jsonl": False, "openai:gpt-4o-mini": True}


def test_nothing_correct_has_no_cost_per_correct_answer():
    assert results_of([cell_of([0, 0])])["cells"][0]["usd_per_correct"] is None


def test_counted_tokens_and_unread_answers_are_said_in_the_notes():
    cell = cell_of([0, 1])
    attempts = tuple(replace(attempt, solver_usage=Usage(1, 5, 0, 5, counted=1)) for attempt in cell.attempts)
    notes = " ".join(results_of([replace(cell, attempts=attempts)])["notes"])
    assert "2 calls reported no usage" in notes
    assert "1 outputs held no answer" in notes


@given(st.integers(0, 3), st.sampled_from(["exact_match", "f1"]))
@settings(max_examples=8, deadline=None)
def test_any_number_of_questions_makes_valid_json(n, metric):
    results = json.loads(to_json(results_of(matrix(n, metric=metric))))
    for cell in results["cells"]:
        if n == 0:
            assert cell["value"] is cell["ci_low"] is cell["latency_p50_s"] is None
        else:
            assert 0 <= cell["ci_low"] <= cell["value"] <= cell["ci_high"] <= 1


def test_the_same_cells_give_the_same_bytes_in_another_process():
    script = (
        "from measured import matrix, config_of; from fractionate.report.results import *;"
        "print(to_json(build_results(matrix(50, metric='f1'), config_of(), [], {})), end='')"
    )
    measured = os.path.dirname(sys.modules["measured"].__file__ or "")
    found = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([measured, *sys.path]), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    here = to_json(build_results(matrix(50, metric="f1"), config_of(), [], {})).encode()
    assert found == [here, here]


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run" / "results.json"
    write_json({"schema": 1}, path)
    before = path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FractionateError, match=r"results\.json cannot be written: No space left"):
        write_json({"schema": 2}, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]


def test_not_a_number_is_refused_rather_than_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"value": float("nan")})


def test_published_figures_lie_beside_the_cells_of_their_pair():
    published = [
        {"decomposer": "teacher", "solver": "teacher", "value": 65.13, "source": "table 1"},
        {"decomposer": "none", "solver": "teacher", "value": 0.2032},
        {"decomposer": "D-R", "solver": "elsewhere", "value": 60},
    ]
    results = results_of(matrix(40), published=published)
    pair, single, absent = results["published"]
    measured = {cell["name"]: cell["value"] for cell in results["cells"]}
    assert (pair["cell"], pair["published"], pair["source"]) == (
        "atlas/static/teacher/teacher",
        pytest.approx(0.6513),
        "table 1",
    )
    assert pair["difference"] == pytest.approx(measured[pair["cell"]] - 0.6513)
    assert single["cell"] == "atlas/single/none/teacher"
    assert (absent["measured"], absent["difference"]) == (None, None)


def test_published_figures_find_their_cell_by_model_name_strategy_and_dataset():
    cells = results_of([*matrix(20), cell_of([1] * 20, "stepwise"), cell_of([1] * 20, dataset="other")])["cells"]
    row = {"decomposer": TEACHER, "solver": TEACHER, "value": 0.5}

    def found(**changes):
        return published_rows([PublishedFigure.model_validate({**row, **changes})], cells)

    assert len(found()) == 3
    assert len(found(dataset="other")) == 1
    assert [one["strategy"] for one in found(strategy="stepwise")] == ["stepwise"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"decomposer": "teacher", "value": 1}, "'published.0.solver' is missing"),
        ({"decomposer": "teacher", "solver": "teacher", "value": 101}, "'published.0.value'"),
        ({"decomposer": "teacher", "solver": "teacher", "value": True}, "'published.0.value'"),
        (
            {"decomposer": "teacher", "solver": "teacher", "value": 1, "sorce": "x"},
            "unknown key 'published.0.sorce': did you mean 'published.0.source'?",
        ),
    ],
)
def test_a_published_row_that_cannot_be_read_is_refused_with_the_config(row, said):
    with pytest.raises(UsageError) as caught:
        config_of(published=[row])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
