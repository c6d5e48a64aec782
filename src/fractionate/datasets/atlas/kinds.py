"""The eight kinds of `atlas` questions: how each is asked, in which words, and the steps that answer it.

A builder draws one question of its kind from a `Scene` (the facts of one passage and what they make askable) with the
passage's random generator. It returns None where the passage has no such question: no pair far enough apart, say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from fractionate.datasets.atlas.passage import Facts, Measure, Trait
from fractionate.datasets.atlas.program import Step, answer_step, enumerate_names

MARGIN = 1.2
"""A comparison's winner is ahead of the next by at least this factor, in the figures as the passage states them."""

HEADS = {
    "capital": (
        "What is the capital of {x}?",
        "Which city is the capital of {x}?",
        "Name the capital of {x}.",
        "Tell me the capital of {x}.",
        "What is the name of the capital of {x}?",
    ),
    "currency": (
        "What is the currency of {x}?",
        "Which currency does {x} use?",
        "Name the currency of {x}.",
        "With which currency do people pay in {x}?",
        "Tell me the currency of {x}.",
    ),
    "continent": (
        "Which continent is {x} in?",
        "On which continent is {x}?",
        "Name the continent of {x}.",
        "To which continent does {x} belong?",
        "Tell me the continent of {x}.",
    ),
}
HOME = (
    "the country that {a} is in",
    "the country where {a} lies",
    "the country to which {a} belongs",
    "the country that {a} is part of",
    "the country in which {a} is found",
)
GOVERNED = (
    "the country whose capital is {a}",
    "the country with {a} as its capital",
    "the country that has {a} for a capital",
    "the country that is governed from {a}",
    "the country of which {a} is the capital",
)
AHEAD = {
    "most people": ("more people", "the most people"),
    "fewest people": ("fewer people", "the fewest people"),
    "largest area": ("the larger area", "the largest area"),
    "smallest area": ("the smaller area", "the smallest area"),
}
COMPARISON = (
    "Which has {more}: the country of {a} or the country of {b}?",
    "{a} and {b} are in two countries. Which of the two has {more}?",
    "Of the countries that {a} and {b} are in, which one has {more}?",
    "Take the country of {a} and the country of {b}. Which has {more}?",
    "Is it the country where {a} lies or the country where {b} lies that has {more}?",
)
WINNER = (
    "whichever of {a} and {b} has {more}",
    "the country with {more}, {a} or {b}",
    "the one of {a} and {b} that has {more}",
    "{a} or {b}, whichever has {more}",
    "that country of {a} and {b} which has {more}",
)
SUPERLATIVE = (
    "Which country is the city with {most} in: {a}?",
    "In which country is the city that has {most}, {a}?",
    "Of {a}, one has {most}. Which country is it in?",
    "Take the city with {most} out of {a}. Which country is it in?",
    "{a}: which country does the one with {most} belong to?",
)
SUPERLATIVE_HOME = (
    "the country of the city with {most}, {a}",
    "the country where the city with {most} lies, {a}",
    "the country that has the city with {most} out of {a}",
    "the country to which the city with {most} belongs, {a}",
    "the country of whichever has {most}, {a}",
)
COUNTING = (
    "How many of {a} {are}?",
    "Out of {a}, how many {are}?",
    "Take {a}. How many of these {are}?",
    "Count those of {a} that {are}.",
    "What number of {a} {are}?",
    "Among {a}, how many {are}?",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What one passage is about, and its facts."""

    countries: tuple[str, ...]
    cities: tuple[str, ...]
    trait: Trait
    measure: Measure
    facts: Facts

    def contest(self, rng: random.Random) -> tuple[str, str]:
        """Draw how countries are compared and how cities are: two relations of `program.CONTESTS`."""
        country = ("most people", "fewest people") if self.measure == "people" else ("largest area", "smallest area")
        return rng.choice(country), rng.choice(("most people", "fewest people"))


@dataclass(frozen=True, slots=True)
class Draft:
    """A question and the steps that answer it."""

    question: str
    steps: tuple[Step, ...]


Builder = Callable[[Scene, random.Random], Draft | None]


def bridge(scene: Scene, rng: random.Random) -> Draft | None:
    """City → its country → capital or trait."""
    city, relation = rng.choice(scene.cities), rng.choice(("capital", scene.trait))
    question = _ask(rng, relation, rng.choice(HOME).format(a=city))
    return Draft(question, (Step("country", (city,)), Step(relation, ("#1",))))


def inverse_bridge(scene: Scene, rng: random.Random) -> Draft | None:
    """Capital → its country → trait."""
    capital = scene.facts.capital[rng.choice(scene.countries)]
    question = _ask(rng, scene.trait, rng.choice(GOVERNED).format(a=capital))
    return Draft(question, (Step("capital-of", (capital,)), Step(scene.trait, ("#1",))))


def comparison(scene: Scene, rng: random.Random) -> Draft | None:
    """Two cities → their countries → the one ahead."""
    contest, _ = scene.contest(rng)
    home = scene.facts.country
    pairs = [pair for pair in _pairs(scene.cities) if _decided(contest, [home[city] for city in pair], scene.facts)]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    question = rng.choice(COMPARISON).format(a=a, b=b, more=AHEAD[contest][0])
    return Draft(question, (Step("country", (a,)), Step("country", (b,)), Step(contest, ("#1", "#2"))))


def comparison_bridge(scene: Scene, rng: random.Random) -> Draft | None:
    """Two countries → the one ahead → capital or trait."""
    contest, _ = scene.contest(rng)
    pairs = [pair for pair in _pairs(scene.countries) if _decided(contest, pair, scene.facts)]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    relation = rng.choice(("capital", scene.trait))
    question = _ask(rng, relation, rng.choice(WINNER).format(a=a, b=b, more=AHEAD[contest][0]))
    return Draft(question, (Step(contest, (a, b)), Step(relation, ("#1",))))


def superlative(scene: Scene, rng: random.Random) -> Draft | None:
    """Several cities → the one ahead of all → its country."""
    drawn = _draw_contest_of_cities(scene, rng)
    if drawn is None:
        return None
    contest, cities = drawn
    question = rng.choice(SUPERLATIVE).format(a=enumerate_names(cities, "or"), most=AHEAD[contest][1])
    return Draft(question, (Step(contest, cities), Step("country", ("#1",))))


def superlative_bridge(scene: Scene, rng: random.Random) -> Draft | None:
    """Several cities → the one ahead of all → its country → capital or trait."""
    drawn = _draw_contest_of_cities(scene, rng)
    if drawn is None:
        return None
    contest, cities = drawn
    relation = rng.choice(("capital", scene.trait))
    home = rng.choice(SUPERLATIVE_HOME).format(a=enumerate_names(cities, "or"), most=AHEAD[contest][1])
    return Draft(_ask(rng, relation, home), (Step(contest, cities), Step("country", ("#1",)), Step(relation, ("#2",))))


def counting(scene: Scene, rng: random.Random) -> Draft | None:
    """Several cities or countries → those in one place or using one currency → how many they are."""
    about_countries = rng.random() < 0.5
    trait_relation = "using" if scene.trait == "currency" else "in"
    relation = trait_relation if about_countries else "in"
    selection = _draw_selection(relation, scene.countries if about_countries else scene.cities, scene.facts, rng)
    does = f"use the {selection.where}" if relation == "using" else f"are in {selection.where}"
    return Draft(_count(rng, selection, does), (selection, Step("count", ("#1",))))


def counting_bridge(scene: Scene, rng: random.Random) -> Draft | None:
    """A capital or a city → its country → those of several cities that are in it → how many they are."""
    selection = _draw_selection("in", scene.cities, scene.facts, rng)
    neighbours = [
        city for city in scene.cities if scene.facts.country[city] == selection.where and city not in selection.subjects
    ]
    if neighbours and rng.random() < 0.5:
        clue = rng.choice(neighbours)
        first, place = Step("country", (clue,)), rng.choice(HOME).format(a=clue)
    else:
        clue = scene.facts.capital[selection.where]
        first, place = Step("capital-of", (clue,)), rng.choice(GOVERNED).format(a=clue)
    steps = (first, Step("in", selection.subjects, "#1"), Step("count", ("#2",)))
    return Draft(_count(rng, selection, f"are in {place}"), steps)


KINDS: dict[str, Builder] = {
    "bridge": bridge,
    "inverse-bridge": inverse_bridge,
    "comparison": comparison,
    "comparison-bridge": comparison_bridge,
    "superlative": superlative,
    "superlative-bridge": superlative_bridge,
    "counting": counting,
    "counting-bridge": counting_bridge,
}


def _ask(rng: random.Random, relation: str, described: str) -> str:
    return rng.choice(HEADS[relation]).format(x=described)


def _count(rng: random.Random, selection: Step, does: str) -> str:
    return rng.choice(COUNTING).format(a=enumerate_names(selection.subjects, "and"), are=does)


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return [pair for a, b in combinations(names, 2) for pair in ((a, b), (b, a))]


def _decided(contest: str, names: Sequence[str], facts: Facts) -> bool:
    """Whether one of the names is ahead of every other by the margin."""
    extreme, measure = contest.split()
    figures = sorted((facts.measure(measure)[name] for name in names), reverse=extreme in ("most", "largest"))
    larger, smaller = max(figures[:2]), min(figures[:2])
    return larger >= MARGIN * smaller


def _draw_contest_of_cities(scene: Scene, rng: random.Random) -> tuple[str, tuple[str, ...]] | None:
    _, contest = scene.contest(rng)
    home = scene.facts.country
    triples = [
        triple
        for triple in combinations(scene.cities, 3)
        if _decided(contest, triple, scene.facts) and len({home[city] for city in triple}) > 1
    ]
    if not triples:
        return None
    triple = rng.choice(triples)
    return contest, tuple(rng.sample(triple, len(triple)))


def _draw_selection(relation: str, names: Sequence[str], facts: Facts, rng: random.Random) -> Step:
    """Draw a selection that selects something, the number selected first so that no count is the usual one."""
    table = facts.currency if relation == "using" else facts.country | facts.continent
    by_count: dict[int, list[Step]] = {}
    for size in range(3, len(names) + 1):
        for group in combinations(names, size):
            for where in sorted({table[name] for name in group}):
                step = Step(relation, group, where)
                by_count.setdefault(len(answer_step(step, facts).split(", ")), []).append(step)
    drawn = rng.choice(by_count[rng.choice(sorted(by_count))])
    return Step(relation, tuple(rng.sample(drawn.subjects, len(drawn.subjects))), drawn.where)
