"""The verdict in three lines, for every reader: what to do, what it does to outcome and bill, what to do next."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import replace

import pytest
from measured import PRICES, cell_of, component_of, config_of, correlated
from test_verdict import GOOD, NEVER, POOR, run

from fractionate.analysis.next_step import Place
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.rule import Rule
from fractionate.analysis.verdict import decide
from fractionate.cli.common import print_results
from fractionate.datasets import OWN_ROWS
from fractionate.report.render import html, markdown
from fractionate.report.results import build_results

NEAR = {
    "reference": correlated(0.62, 60, 2),
    "decomposer": correlated(0.62, 60, 5),
    "single": NEVER[:60],
    "cot": NEVER[:60],
    "untrained": NEVER[:60],
}
"""Sixty questions: the student is about as good, and sixty cannot show it."""
UNREAD = [
    replace(
        cell,
        dataset=OWN_ROWS,
        attempts=tuple(replace(one, prediction=None, output="So the answer is yes.") for one in cell.attempts),
    )
    for cell in [cell_of([0.0] * 30), cell_of([0.0] * 30, decomposer="D-R")]
]
OUTCOMES = {
    "decomposer": (
        run(),
        "Distill the decomposer: let Tiny-1B, trained on screened demonstrations (D-R), decompose; gpt-4o-mini still "
        "solves.",
        "Right answers 66.7 % → 66.7 % (0.0 pp, ",
        "fractionate serve runs/mine",
    ),
    "solver": (
        run(decomposer=POOR, solver=GOOD),
        "Distill the solver: let Tiny-1B, trained on solutions with right answers (E-A), solve; gpt-4o-mini still "
        "decomposes.",
        "bill $0.187 → $0.0682 per 1,000 questions (−63.6 %, ",
        "fractionate serve runs/mine",
    ),
    "both": (
        run(decomposer=POOR, pair=GOOD),
        "Distill both parts: let Tiny-1B, trained on screened demonstrations (D-R), decompose and Tiny-1B, trained on "
        "solutions with right answers (E-A), solve.",
        "bill $0.187 → $0 per 1,000 questions (−100 %); 600 questions, joint 95 % intervals.",
        "fractionate serve runs/mine",
    ),
    "neither": (
        run(decomposer=POOR, untrained=NEVER),
        "Distill neither part: the nearest pair, in which Tiny-1B, trained on screened demonstrations (D-R), "
        "decomposes, loses more than the margin of 2 pp.",
        "Best distilled pair: Right answers 66.7 % → 41.7 % (−25.0 pp, ",
        "fractionate run mine.toml --curve --dry-run",
    ),
    "undecided": (
        run(**NEAR, solver=None, pair=None),
        "Undecided: the most promising pair, in which Tiny-1B, trained on screened demonstrations (D-R), decomposes, "
        "lacks questions: 60 were asked, about ",
        "60 questions, joint 95 % intervals.",
        "fractionate run mine.toml --set 'data.test=[\"atlas#test@0-",
    ),
    "nothing fits": (
        UNREAD,
        "No verdict, since the scorer of jsonl does not fit: 30 of 30 unparsed; "
        'data.answer = "yes-no" parses 30 of 30.',
        "",
        "fractionate run mine.toml --set data.answer=yes-no",
    ),
}


def results_of(cells):
    config = config_of(data={"test": "atlas#test@0-59"})
    place = Place.of(config, "runs/mine", "mine.toml")
    return build_results(cells, config, [], {"name": "mine", "seed": 0}, place=place)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_last_three_lines_of_the_terminal_say_what_to_do_what_it_saves_and_what_comes_next(
    outcome, tmp_path, capsys
):
    cells, action, effect, following = OUTCOMES[outcome]
    results = results_of(cells)
    print_results(results, tmp_path, as_json=False)
    last = capsys.readouterr().out.rstrip().split("Which part should you distill? ")[1].splitlines()
    assert last[0].startswith(action)
    assert effect in last[1]
    assert last[-1].startswith(f"Next: {following}")
    assert len(last) == (3 if effect else 2)
    assert results["verdict"]["distill"] == {"nothing fits": "undecided"}.get(outcome, outcome)
    assert (results["verdict"]["recommended"] is not None) == (outcome in ("decomposer", "solver", "both"))


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("render", [markdown, html])
def test_the_reports_open_with_the_same_lines(outcome, render):
    verdict = results_of(OUTCOMES[outcome][0])["verdict"]
    top = re.sub(r"<style>.*</style>", "", render(results_of(OUTCOMES[outcome][0])), flags=re.DOTALL)[:2500]
    for line in ("action", "effect"):
        words = [word for word in verdict[line].split() if word.isalpha()]
        assert re.search(r"\W+(?:\S+\W+)*?".join(words[:6]), top)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_sentence_has_at_most_sixty_words_and_one_confidence(outcome):
    because = results_of(OUTCOMES[outcome][0])["verdict"]["because"]
    assert len(because.split()) <= 60
    assert set(re.findall(r"[\d.]+ % interval", because)) <= {"95 % interval"}


def test_long_names_of_many_test_sets_do_not_make_it_longer():
    cells = [one for place in range(9) for one in run(decomposer=[GOOD, POOR][place % 2], dataset=f"a set no {place}")]
    assert len(results_of(cells)["verdict"]["because"].split()) <= 60


def test_the_command_that_settles_it_does_settle_it():
    """The extended sample, drawn at the measured rates, leaves nothing undecided; its range is what --set takes."""
    command = results_of(run(**NEAR, solver=None, pair=None))["verdict"]["next"]
    (setting,) = [word for word in shlex.split(command) if word.startswith("data.test=")]
    (reference,) = tomllib.loads(setting)["data"]["test"]
    asked = int(reference.rpartition("-")[2]) + 1
    assert asked > 60
    times = -(-asked // 60)
    more = {name: list(values) * times for name, values in NEAR.items()}
    config = config_of(prices=PRICES)
    verdict = decide(run(**more, solver=None, pair=None), Pricing(config.prices), Rule.of(config))
    assert verdict.distill != "undecided"


def test_a_missing_control_is_named_with_the_run_that_measures_it():
    verdict = results_of(run(untrained=None))["verdict"]
    assert "lacks a control: the untrained model in the place of D-R." in verdict["action"]
    command = shlex.split(verdict["next"])
    assert command[:4] == ["fractionate", "run", "mine.toml", "--set"]
    assert tomllib.loads(command[4])["models"]["decomposers"] == ["none", "teacher", "D-R", "student"]


def test_a_student_of_elsewhere_without_a_price_is_named_with_the_prices_to_give():
    bought = replace(component_of("recorded:rows/bc.jsonl"), kind="distilled", trained_for="decomposer")
    verdict = results_of([cell_of(GOOD), cell_of(GOOD, decomposer=bought)])["verdict"]
    assert "lacks a price for bc." in verdict["action"]
    assert "bill unknown" in verdict["effect"]
    settings = [word for word in shlex.split(verdict["next"]) if word.startswith("prices.")]
    assert settings == [
        f'prices."recorded:rows/bc.jsonl".{key}=USD' for key in ("input_per_million", "output_per_million")
    ]


def test_only_a_part_that_was_not_tried_is_asked_for():
    verdict = results_of(run(decomposer=POOR, untrained=NEVER, solver=None, pair=None))["verdict"]
    assert verdict["action"].endswith("loses more than the margin of 2 pp; no student solver was measured.")
    assert 'run.variants=["D-R", "E-A"]' in shlex.split(verdict["next"])
