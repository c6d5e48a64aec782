"""The real facts behind `atlas`: countries and cities from GeoNames (CC BY 4.0), parted into train and test.

The snapshot and what was left out of it are described in `snapshot/README.md`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

Split = Literal["train", "test"]
SPLITS: tuple[Split, Split] = ("train", "test")


@dataclass(frozen=True, slots=True)
class City:
    """A city that is not a capital. `people` is its population as the source has it."""

    name: str
    country: str
    people: int


@dataclass(frozen=True, slots=True)
class Country:
    """A country. `people` is its population, `area` its area in km²."""

    code: str
    name: str
    capital: str
    currency: str
    continent: str
    people: int
    area: int
    cities: tuple[City, ...]

    def entities(self) -> frozenset[str]:
        """Return the names of the country, its capital and its cities."""
        return frozenset({self.name, self.capital, *(city.name for city in self.cities)})


@cache
def countries() -> tuple[Country, ...]:
    """Return every country of the snapshot, by code."""
    text = resources.files("fractionate.datasets.atlas").joinpath("snapshot/atlas.json").read_text(encoding="utf-8")
    return tuple(
        Country(
            code=row["code"],
            name=row["name"],
            capital=row["capital"],
            currency=row["currency"],
            continent=row["continent"],
            people=row["population"],
            area=row["area"],
            cities=tuple(City(name, row["name"], people) for name, people in row["cities"]),
        )
        for row in json.loads(text)
    )


@cache
def countries_of(split: Split) -> tuple[Country, ...]:
    """Return the countries of one split. No country, capital or city is in both."""
    return tuple(country for country in countries() if split_of(country.code) == split)


def split_of(code: str) -> Split:
    """Return the split of a country code: about two fifths are test, by a hash that no later snapshot changes."""
    digest = hashlib.sha256(f"atlas/{code}".encode()).digest()
    return "test" if digest[0] % 5 < 2 else "train"
