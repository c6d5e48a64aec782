"""`atlas-closed`: the questions of `atlas` without passages, over the whole fact base (80 countries, 535 cities).

Solving them takes knowledge that is nowhere in the prompt; dividing them takes none. `answer` is the base as a tool
that answers one subquestion (`tool:atlas`), `fact_sentences` is the base as documents, one fact each:

    python -m fractionate.datasets.atlas.closed facts.txt

Facts: GeoNames, CC BY 4.0 (see `snapshot/README.md`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from fractionate.datasets.atlas.facts import countries
from fractionate.datasets.atlas.passage import Facts, fact_base, figure
from fractionate.datasets.atlas.problems import DATASET as WITH_PASSAGES
from fractionate.datasets.atlas.problems import generate_closed, parse_split
from fractionate.datasets.atlas.program import UNKNOWN, answer_step, read_step
from fractionate.datasets.base import Reference
from fractionate.errors import UsageError
from fractionate.files import write_text
from fractionate.types import Problem


def answer(subquestion: str) -> str:
    """Return the base's answer to one subquestion in the words of `program`: a look-up, a comparison, a selection or a
    count; `unknown` to anything else, a question of two hops included."""
    step = read_step(subquestion)
    return UNKNOWN if step is None else answer_step(step, _base())


def fact_sentences() -> Iterator[str]:
    """Yield the facts of the base, a sentence each."""
    for country in countries():
        yield f"The capital of {country.name} is {country.capital}."
        yield f"The currency of {country.name} is the {country.currency}."
        yield f"{country.name} is in {country.continent}."
        yield f"{country.name} has {figure(country.people)} people."
        yield f"The area of {country.name} is {figure(country.area)} km2."
        for city in country.cities:
            yield f"{city.name} is in {country.name} and has {figure(city.people)} people."


@cache
def _base() -> Facts:
    return fact_base(countries())


def _load(reference: Reference) -> Iterator[Problem]:
    if reference.path:
        raise UsageError(f"atlas-closed is built in and takes no path, but {reference.text!r} names {reference.path!r}")
    return generate_closed(*parse_split(reference.split))


DATASET = replace(WITH_PASSAGES, name="atlas-closed", load=_load)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the facts as a text file of paragraphs, which a tool of kind "search" takes."""
    parser = argparse.ArgumentParser(
        prog="python -m fractionate.datasets.atlas.closed",
        description='Write the facts behind atlas as sentences, for a tool of kind "search".',
        epilog="example:\n  python -m fractionate.datasets.atlas.closed facts.txt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT.txt")
    write_text("\n\n".join(fact_sentences()) + "\n", parser.parse_args(arguments).out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
