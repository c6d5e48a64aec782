"""atlas: every problem is answerable from its passage alone, and train and test have nothing in common."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter, defaultdict
from importlib import resources
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fractionate import datasets
from fractionate.datasets import atlas
from fractionate.datasets.atlas.facts import SPLITS, countries, countries_of
from fractionate.datasets.atlas.kinds import KINDS, MARGIN
from fractionate.datasets.atlas.passage import (
    MEASURES,
    STYLES,
    TRAITS,
    Facts,
    figure,
    read_figure,
    read_passage,
    write_city,
    write_country,
)
from fractionate.datasets.atlas.program import CONTESTS, UNKNOWN, Step, execute, explain, fill, read_step
from fractionate.errors import UsageError
from fractionate.types import Problem

EVERY = {split: list(atlas.generate(split)) for split in SPLITS}
PROBLEMS = [problem for split in SPLITS for problem in EVERY[split]]
splits = st.sampled_from(SPLITS)


def names_of(facts: Facts) -> set[str]:
    return {*facts.country, *facts.country.values(), *facts.capital, *facts.capital.values()}


# ---------------------------------------------------------------------- the set as a whole


def test_there_are_enough_problems_each_with_its_own_id_and_words():
    assert len(EVERY["train"]) >= 2000
    assert len(EVERY["test"]) >= 1000
    assert len({problem.id for problem in PROBLEMS}) == len(PROBLEMS)
    assert len({problem.question for problem in PROBLEMS}) == len(PROBLEMS)
    for split in SPLITS:
        assert [problem.index for problem in EVERY[split]] == list(range(len(EVERY[split])))


def test_no_country_capital_or_city_is_in_both_splits():
    entities = {split: frozenset().union(*(country.entities() for country in countries_of(split))) for split in SPLITS}
    assert not entities["train"] & entities["test"]
    for split in SPLITS:
        named = set().union(*(names_of(read_passage(problem.context)) for problem in EVERY[split]))
        assert named <= entities[split]
        other = entities["test" if split == "train" else "train"]
        pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(other))) + r")\b")
        assert not [
            p.id for p in EVERY[split] if pattern.search(f"{p.context} {p.question} {' '.join(p.subquestions)}")
        ]


def test_no_passage_is_in_both_splits():
    assert not {p.context for p in EVERY["train"]} & {p.context for p in EVERY["test"]}


def test_eight_problems_share_a_passage_and_are_one_of_each_kind():
    for split in SPLITS:
        for start in range(0, len(EVERY[split]), 8):
            group = EVERY[split][start : start + 8]
            assert len({problem.context for problem in group}) == 1
            assert {problem.kind for problem in group} == set(atlas.kinds())
        assert len({problem.context for problem in EVERY[split]}) == len(EVERY[split]) // 8


def test_each_kind_is_asked_in_at_least_four_ways():
    names = sorted((n for country in countries() for n in country.entities()), key=len, reverse=True)
    words = [*names, *{c.currency for c in countries()}, *sorted({c.continent for c in countries()}, reverse=True)]
    masked = re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")\b")
    ways: dict[str, set[str]] = defaultdict(set)
    for problem in PROBLEMS:
        ways[problem.kind].add(re.sub(r"_(?:, _)* (?:and|or) _", "_", masked.sub("_", problem.question)))
    assert len(ways) == len(KINDS) == 8
    assert min(map(len, ways.values())) >= 4, {kind: len(seen) for kind, seen in ways.items()}


def test_no_count_and_no_continent_is_the_usual_answer():
    for kind in ("counting", "counting-bridge"):
        counts = Counter(p.answers[0][0] for p in PROBLEMS if p.kind == kind)
        assert set(counts) == {"1", "2", "3"}
        assert max(counts.values()) < 0.65 * counts.total()


def test_the_problems_are_the_same_on_every_machine():
    # The digest is older than the fields `group` and `history`, which atlas leaves empty.
    text = repr(list(islice(atlas.generate("train"), 400))).replace(", group=''", "").replace(", history=()", "")
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN


GOLDEN = "e5b63a90d67a2ee2899cff4c2d5cfeb5a691c01f59294889da2575f10d82e1e0"
"""Stands for the very questions that published figures were measured on: a change is a new data set."""


# ---------------------------------------------------------------------- each problem


def test_carrying_out_the_gold_decomposition_over_the_passage_gives_the_answer():
    for problem in PROBLEMS:
        steps = atlas.sub_answers(problem)
        assert len(steps) == len(problem.subquestions)
        assert (steps[-1],) == problem.answers[0], problem
        assert not {UNKNOWN, "none"} & set(steps)


def test_gold_has_two_or_three_hops_and_each_step_is_used():
    for problem in PROBLEMS:
        assert 2 <= len(problem.subquestions) <= 3
        text = " ".join(problem.subquestions)
        for position in range(1, len(problem.subquestions)):
            assert f"#{position}" in text
        assert "#" not in problem.subquestions[0]


def test_answers_are_short_and_alternatives_differ():
    for problem in PROBLEMS:
        assert len(set(problem.answers)) == len(problem.answers)
        assert all(len(spans) == 1 and 1 <= len(spans[0].split()) <= 2 for spans in problem.answers)


def test_the_question_never_holds_its_answer():
    for problem in PROBLEMS:
        for (span,) in problem.answers:
            assert not re.search(rf"\b{re.escape(span)}\b", problem.question, re.IGNORECASE), problem


def test_no_contest_is_close():
    for problem in PROBLEMS:
        facts = read_passage(problem.context)
        answers = execute(problem.subquestions, facts)
        for position, subquestion in enumerate(problem.subquestions):
            step = read_step(fill(subquestion, answers[:position]))
            if step.relation in CONTESTS:
                figures = facts.measure(step.relation.split()[1])
                best = figures[answers[position]]
                others = [figures[name] for name in step.subjects if name != answers[position]]
                assert all(max(best, other) >= MARGIN * min(best, other) for other in others), problem


def test_passages_are_short_plain_and_of_real_facts():
    truth = {country.name: country for country in countries()}
    for passage in {problem.context for problem in PROBLEMS}:
        assert len(passage.split()) <= 110
        assert len(passage) <= 620
        assert passage.isascii()
        facts = read_passage(passage)
        for name, capital in facts.capital.items():
            country = truth[name]
            assert capital == country.capital
            assert facts.currency.get(name, country.currency) == country.currency
            assert facts.continent.get(name, country.continent) == country.continent
            for measure, figures in (("people", facts.people), ("area", facts.area)):
                if name in figures:
                    assert figures[name] == pytest.approx(getattr(country, measure), rel=0.05)
        for city, country_name in facts.country.items():
            real = next(each for each in truth[country_name].cities if each.name == city)
            assert facts.people[city] == pytest.approx(real.people, rel=0.05)


# ---------------------------------------------------------------------- slices, seeds, references


@settings(max_examples=20, deadline=None)
@given(splits, st.integers(0, 200), st.integers(0, 40))
def test_any_slice_is_the_same_rows_every_time(split, start, length):
    sliced = datasets.load(f"atlas#{split}@{start}-{start + length}")
    assert sliced == EVERY[split][start : start + length + 1]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_other_seeds_draw_other_questions_of_the_same_entities(seed, other):
    drawn = {
        "train": list(islice(atlas.generate("train", seed), 24)),
        "test": list(islice(atlas.generate("test", other), 24)),
    }
    assert [p.question for p in drawn["train"]] != [p.question for p in EVERY["train"][:24]]
    named = {
        split: set().union(*(names_of(read_passage(p.context)) for p in drawn[split] + EVERY[split][:200]))
        for split in SPLITS
    }
    assert not named["train"] & named["test"]
    assert not {p.id for p in drawn["train"]} & {p.id for p in EVERY["train"]}
    assert all((atlas.sub_answers(p)[-1],) == p.answers[0] for split in SPLITS for p in drawn[split])


def test_the_split_is_test_unless_named():
    assert datasets.load("atlas@0-9") == EVERY["test"][:10]
    assert datasets.load("atlas#train-0@0-0") == EVERY["train"][:1]
    assert datasets.load("atlas#train-7@0-0")[0].split == "train-7"


@pytest.mark.parametrize("text", ["atlas#dev", "atlas#train-", "atlas#train-x", "atlas#test-1-2", "atlas#Train"])
def test_an_unknown_split_is_refused(text):
    with pytest.raises(UsageError, match="atlas#train or atlas#test"):
        datasets.load(text)


def test_a_path_is_refused():
    with pytest.raises(UsageError, match="takes no path"):
        datasets.load("atlas:somewhere#train")


def test_answers_are_read_and_scored():
    dataset = datasets.get("atlas")
    assert dataset.extract("1. Lyon is in France.\nThe answer is: Euro") == ("Euro",)
    assert dataset.score(("the Euro",), (("Euro",),)) == (1.0, 1.0)
    assert dataset.score(("two",), atlas.alternatives("2")) == (1.0, 1.0)
    assert dataset.score(("3",), atlas.alternatives("2")) == (0.0, 0.0)
    assert dataset.score(None, (("Euro",),)) == (0.0, 0.0)


# ---------------------------------------------------------------------- passages and programs


@given(st.sampled_from(countries()), st.sampled_from(TRAITS), st.sampled_from(MEASURES), st.integers(0, STYLES - 1))
def test_what_a_passage_says_is_read_back(country, trait, measure, style):
    cities = [write_city(city, style) for city in country.cities]
    sentences = [write_country(country, trait, measure, style), *cities]
    random.Random(style).shuffle(sentences)
    facts = read_passage(" ".join(sentences))
    assert facts.capital == {country.name: country.capital}
    assert getattr(facts, trait) == {country.name: getattr(country, trait)}
    assert facts.country == {city.name: country.name for city in country.cities}
    shown = figure(getattr(country, measure))
    assert facts.figures[measure, country.name] == shown
    assert facts.measure(measure)[country.name] == read_figure(shown)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (10_400, "10 thousand"),
        (999_499, "999 thousand"),
        (999_500, "1.0 million"),
        (5_849_999, "5.8 million"),
        (9_949_999, "9.9 million"),
        (9_950_000, "10 million"),
        (1_411_778_724, "1412 million"),
    ],
)
def test_figures_are_rounded(number, text):
    assert figure(number) == text
    assert read_figure(text) == pytest.approx(number, rel=0.05)


def test_a_sentence_of_no_known_form_is_refused():
    with pytest.raises(ValueError, match="no sentence form"):
        read_passage("Lyon is nice.")


NAMES = st.sampled_from(["Lyon", "New Zealand", "#1", "#2", "Peru"])


@given(
    st.sampled_from(["country", "capital", "currency", "continent", "people", "area", "capital-of"]),
    NAMES,
)
def test_a_lookup_is_read_as_it_was_written(relation, name):
    step = Step(relation, (name,))
    assert read_step(str(step)) == step


@given(st.sampled_from(sorted(CONTESTS)), st.lists(NAMES, min_size=2, max_size=4, unique=True))
def test_a_contest_is_read_as_it_was_written(relation, names):
    step = Step(relation, tuple(names))
    assert read_step(str(step)) == step


@given(st.sampled_from(["in", "using"]), st.lists(NAMES, min_size=2, max_size=4, unique=True), NAMES)
def test_a_selection_is_read_as_it_was_written(relation, names, where):
    step = Step(relation, tuple(names), where)
    assert read_step(str(step)) == step


FACTS = read_passage(
    "Lyon is in France and has 521 thousand people. Nice is in France and has 343 thousand people. "
    "Piura is in Peru and has 630 thousand people. "
    "The capital of France is Paris and its currency is the Euro. France has 67 million people. "
    "The capital of Peru is Lima and its currency is the Sol. Peru has 9.5 million people."
)


@pytest.mark.parametrize(
    ("subquestions", "answers"),
    [
        (("Which country is Lyon in?", "What is the capital of #1?"), ("France", "Paris")),
        (("Which country is Lima in?",), ("Peru",)),
        (("Which has fewer people, France or Peru?", "What is the currency of #1?"), ("Peru", "Sol")),
        (("Which has the most people, Lyon, Nice or Piura?", "Which country is #1 in?"), ("Piura", "Peru")),
        (("Which of Lyon, Nice and Piura are in France?", "How many places are these: #1?"), ("Lyon, Nice", "2")),
        (("Which of Lyon and Nice are in Peru?", "How many places are these: #1?"), ("none", "0")),
        (("Which of France and Peru use the Sol?",), ("Peru",)),
        (("How many people does Peru have?",), ("9.5 million",)),
        (("What is the capital of Spain?", "Which country has the capital #1?"), (UNKNOWN, UNKNOWN)),
        (("What is the continent like?", "How many places are these: #1?"), (UNKNOWN, UNKNOWN)),
        (("What is the capital of #2?", "Which country is Lyon in?"), (UNKNOWN, "France")),
        (("Which has more people, Lyon or Spain?",), (UNKNOWN,)),
        (("Which of Lyon and Spain are in France?",), (UNKNOWN,)),
    ],
)
def test_a_decomposition_is_carried_out_step_by_step(subquestions, answers):
    assert execute(subquestions, FACTS) == answers


@pytest.mark.parametrize(
    ("subquestion", "sentence"),
    [
        ("Which country is Lyon in?", "Lyon is in France."),
        ("Which country has the capital Lima?", "Lima is the capital of Peru."),
        ("Which has more people, France or Peru?", "France has 67 million and Peru has 9.5 million, so it is France."),
        ("Which of Lyon, Nice and Piura are in France?", "Lyon and Nice are in France."),
        ("Which of Lyon and Nice are in Peru?", "None of them is in Peru."),
        ("Which of France and Peru use the Sol?", "Peru uses the Sol."),
        ("What is the capital of Spain?", "The passage does not say."),
    ],
)
def test_a_solver_writes_a_sentence_for_each(subquestion, sentence):
    (answer,) = execute([subquestion], FACTS)
    assert explain(subquestion, [], answer, FACTS) == sentence


def test_problems_are_problems():
    assert all(isinstance(problem, Problem) and problem.dataset == "atlas" for problem in PROBLEMS)


def test_the_snapshots_description_counts_it_right_and_names_its_source():
    readme = resources.files("fractionate.datasets.atlas").joinpath("snapshot/README.md").read_text(encoding="utf-8")
    cities = sum(len(country.cities) for country in countries())
    assert re.search(rf"\b{len(countries())} countries .* and {cities} of their cities", readme)
    assert "GeoNames" in readme
    assert "creativecommons.org/licenses/by/4.0" in readme
    assert "GeoNames" in datasets.get("atlas").licence
