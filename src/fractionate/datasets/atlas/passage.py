"""The passages of `atlas`: facts written as plain sentences, and read back from them.

Writer and reader share the sentence forms below, so that every sentence a passage can hold can be read. What a passage
says, figures rounded, is all that its questions are about: `Facts` holds nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Literal

from fractionate.datasets.atlas.facts import City, Country

Trait = Literal["currency", "continent"]
"""What a passage says of its countries besides the capital."""
Measure = Literal["people", "area"]
"""What a passage measures its countries by. Cities are always measured by people."""
TRAITS: tuple[Trait, Trait] = ("currency", "continent")
MEASURES: tuple[Measure, Measure] = ("people", "area")
STYLES = 3

CITY_FORMS = (
    "{city} is in {country} and has {people} people.",
    "{city}, a city of {people} people, is in {country}.",
    "{city} in {country} has {people} people.",
)
_MEASURED = {"people": "has {people} people", "area": "covers {area} km2"}
_LONG_TRAIT = {"currency": "its currency is the {currency}", "continent": "it is in {continent}"}
_SHORT_TRAIT = {"currency": "uses the {currency}", "continent": "is in {continent}"}

_NAME = r"[A-Z][a-z]+(?: [A-Z][a-z]+)?"
_CONTINENTS = r"Africa|Asia|Europe|North America|Oceania|South America"
_FIGURE = r"\d[\d.]* (?:thousand|million)"
_FIELDS = {"city": _NAME, "country": _NAME, "capital": _NAME, "currency": _NAME, "continent": _CONTINENTS}


@dataclass
class Facts:
    """What a passage says, by name. Figures stand as written (`figures`) and as numbers (`people`, `area` in km²)."""

    country: dict[str, str] = field(default_factory=dict)
    """The country a city is in."""
    capital: dict[str, str] = field(default_factory=dict)
    currency: dict[str, str] = field(default_factory=dict)
    continent: dict[str, str] = field(default_factory=dict)
    people: dict[str, float] = field(default_factory=dict)
    area: dict[str, float] = field(default_factory=dict)
    figures: dict[tuple[str, str], str] = field(default_factory=dict)

    def measure(self, measure: str) -> dict[str, float]:
        """Return the figures of one measure, by name."""
        return self.people if measure == "people" else self.area


def fact_base(countries: Iterable[Country]) -> Facts:
    """Return all that is known of countries and their cities. Figures compare as the source has them, unrounded."""
    facts = Facts()
    for country in countries:
        facts.capital[country.name] = country.capital
        facts.currency[country.name] = country.currency
        facts.continent[country.name] = country.continent
        facts.area[country.name] = country.area
        facts.figures["area", country.name] = figure(country.area)
        places: tuple[Country | City, ...] = (country, *country.cities)
        for place in places:
            facts.people[place.name] = place.people
            facts.figures["people", place.name] = figure(place.people)
        facts.country |= {city.name: country.name for city in country.cities}
    return facts


def country_forms(trait: Trait, measure: Measure) -> tuple[tuple[str, ...], ...]:
    """Return, for each style, the sentences that describe a country."""
    has, long, short = _MEASURED[measure], _LONG_TRAIT[trait], _SHORT_TRAIT[trait]
    return (
        ("The capital of {country} is {capital} and " + long + ".", "{country} " + has + "."),
        ("{capital} is the capital of {country}.", "{country} " + short + " and " + has + "."),
        ("{country} " + has + ", its capital is {capital} and " + long + ".",),
    )


def write_country(country: Country, trait: Trait, measure: Measure, style: int) -> str:
    """Return the one or two sentences on a country."""
    facts = {
        "country": country.name,
        "capital": country.capital,
        "currency": country.currency,
        "continent": country.continent,
        "people": figure(country.people),
        "area": figure(country.area),
    }
    return " ".join(form.format_map(facts) for form in country_forms(trait, measure)[style])


def write_city(city: City, style: int) -> str:
    """Return the sentence on a city."""
    return CITY_FORMS[style].format(city=city.name, country=city.country, people=figure(city.people))


def figure(number: int) -> str:
    """Return a population or an area as passages state it, rounded: "521 thousand", "5.8 million", "67 million"."""
    if number < 999_500:
        return f"{number / 1e3:.0f} thousand"
    return f"{number / 1e6:.1f} million" if number < 9_950_000 else f"{number / 1e6:.0f} million"


def read_figure(text: str) -> float:
    """Return the number a passage's figure stands for."""
    number, unit = text.split(" ")
    return float(number) * {"thousand": 1e3, "million": 1e6}[unit]


def read_passage(passage: str) -> Facts:
    """Read the facts back out of a passage. Raises ValueError for a sentence that no form explains."""
    facts = Facts()
    for sentence in re.split(r"(?<=\.) (?=[A-Z])", passage):
        _note(facts, _match(sentence))
    return facts


def _match(sentence: str) -> dict[str, str]:
    for pattern in _patterns():
        if match := pattern.fullmatch(sentence):
            return match.groupdict()
    raise ValueError(f"no sentence form explains {sentence!r}")


def _note(facts: Facts, said: dict[str, str]) -> None:
    subject = said.get("city") or said["country"]
    if "city" in said:
        facts.country[said["city"]] = said["country"]
    for relation in ("capital", "currency", "continent"):
        if relation in said:
            getattr(facts, relation)[said["country"]] = said[relation]
    for measure in MEASURES:
        if measure in said:
            facts.figures[measure, subject] = said[measure]
            facts.measure(measure)[subject] = read_figure(said[measure])


@cache
def _patterns() -> Sequence[re.Pattern[str]]:
    country_sentences = [
        sentence
        for trait, measure in product(TRAITS, MEASURES)
        for style in country_forms(trait, measure)
        for sentence in style
    ]
    # Countries first: "Norway is in Europe and has …" would also pass for a city of a country named Europe.
    return [_pattern(form) for form in dict.fromkeys([*country_sentences, *CITY_FORMS])]


def _pattern(form: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", form)
    source = "".join(
        f"(?P<{part}>{_FIELDS.get(part, _FIGURE)})" if position % 2 else re.escape(part)
        for position, part in enumerate(parts)
    )
    return re.compile(source)
