"""Extracts an amount of money, a quantity with its unit, or several numbers, where a reply gives them as its answer.

Which figure of a reply counts is what `number_answers` says; here its currency or unit is read beside it. Amounts are
written "42.5 USD", quantities "90 minute". Units compare by what they measure (180 minutes are 3 hours), unknown ones
("apples") by name; where one side gives no unit or currency, the numbers decide.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from typing import NamedTuple

from fractionate.scoring.final import read_final
from fractionate.scoring.number_answers import (
    ENUMERATED,
    PARENTHESES,
    format_number,
    number_of,
    read_statement,
    read_unstated_number,
)
from fractionate.scoring.numbers import LED_NUMBER, NUMBER, SPELT, plain_text, value, value_of
from fractionate.scoring.reply import LONGEST_CONCLUSION, sentences, visible
from fractionate.scoring.statements import Statement, restates_task
from fractionate.types import Answer

MOST_VALUES = 20
"""Numbers that an answer of several may have."""

_CURRENCIES = (
    ("AUD", r"A\$|AU\$|\bAUD\b|\baustralian dollars?\b"),
    ("CAD", r"C\$|CA\$|\bCAD\b|\bcanadian dollars?\b"),
    ("HKD", r"HK\$|\bHKD\b"),
    ("EUR", r"€|\bEUR\b|\beuros?\b"),
    ("GBP", r"£|\bGBP\b|\bpounds?\b|\bpence\b|\bquid\b|\d[ ]?p\b"),
    ("JPY", r"¥|\bJPY\b|\byen\b"),
    ("CNY", r"\bCNY\b|\bRMB\b|\byuan\b"),
    ("INR", r"₹|\bRs\b|\bINR\b|\brupees?\b"),
    ("CHF", r"\bCHF\b|\bfrancs?\b"),
    ("USD", r"(?<![A-Z])(?:US[ ]?)?\\?\$|\bUSD\b|\bdollars?\b|\bbucks?\b|\bcents?\b|¢"),
)
_CURRENCY_OF = [(code, re.compile(pattern, re.IGNORECASE)) for code, pattern in _CURRENCIES]
_IN_CENTS = re.compile(r"(?:\d|[a-z])[ ]?(?:cents?\b|¢|pence\b|p\b)", re.IGNORECASE)
_IN_WHOLES = re.compile(r"[$€£]|\b(?:dollars?|euros?|pounds?)\b", re.IGNORECASE)
_WITH_CENTS = re.compile(
    r"(\d+)[ ](dollars?|euros?|pounds?),?[ ](?:and[ ])?(\d{1,2})[ ](?:cents?|pence|p)\b", re.IGNORECASE
)

# What is measured, the unit's name, its size in the base unit, and further spellings.
_TABLE: tuple[tuple[str, str, str | int, str], ...] = (
    ("time", "second", 1, "s sec secs"),
    ("time", "minute", 60, "min mins"),
    ("time", "hour", 3600, "h hr hrs"),
    ("time", "day", 86400, ""),
    ("time", "week", 604800, "wk wks"),
    ("month", "month", 1, ""),
    ("month", "year", 12, "yr yrs"),
    ("month", "decade", 120, ""),
    ("length", "millimetre", "0.001", "mm millimeter millimeters"),
    ("length", "centimetre", "0.01", "cm centimeter centimeters"),
    ("length", "metre", 1, "m meter meters"),
    ("length", "kilometre", 1000, "km kms kilometer kilometers"),
    ("length", "inch", "0.0254", "in inches"),
    ("length", "foot", "0.3048", "ft feet"),
    ("length", "yard", "0.9144", "yd yds"),
    ("length", "mile", "1609.344", "mi"),
    ("mass", "milligram", "0.001", "mg"),
    ("mass", "gram", 1, "g gm"),
    ("mass", "kilogram", 1000, "kg kgs kilo kilos"),
    ("mass", "tonne", 1000000, "ton tons t"),
    ("mass", "ounce", "28.349523125", "oz"),
    ("mass", "pound", "453.59237", "lb lbs"),
    ("volume", "millilitre", "0.001", "ml milliliter milliliters"),
    ("volume", "litre", 1, "l liter liters"),
    ("volume", "gallon", "3.785411784", "gal"),
    ("volume", "quart", "0.946352946", "qt"),
    ("volume", "pint", "0.473176473", "pt"),
    ("volume", "cup", "0.2365882365", ""),
    ("share", "percent", 1, "%"),
    ("fahrenheit", "fahrenheit", 1, "°f f"),
    ("celsius", "celsius", 1, "°c c"),
    ("degree", "degree", 1, "°"),
)
_UNITS = {
    spelling: (name, Fraction(size), measure)
    for measure, name, size, spellings in _TABLE
    for spelling in (name, f"{name}s", *spellings.split())
}
"""By each spelling of a unit: its name, its size, and what it measures."""

_UNIT_AFTER = re.compile(
    r"[ ]{0,2}(?P<unit>(?:(?:sq|cu)_)?(?:[°%][a-z]?|[a-z]{1,20}))"
    r"(?:[ ]?/[ ]?(?P<per>[a-z]{1,12})|[ ](?:per|an?)[ ](?P<every>[a-z]{2,12}))?(?![\w/])",
    re.IGNORECASE,
)
_SMALLER = re.compile(r",?[ ](?:and[ ])?(?P<amount>\d+(?:\.\d+)?)[ ]?(?P<unit>[a-z]{1,12})(?![\w/])", re.IGNORECASE)
_RAISED = re.compile(r"\b([a-z]{1,12})[ ]?(?:\^[ ]?\{?([23])\}?|([²³]))", re.IGNORECASE)
_SQUARE = re.compile(r"\b(sq|cu)(?:uare|\.|bic)?[ ](?=[a-z])", re.IGNORECASE)
_HALF_A = re.compile(r"\bhalf[ ](?:an?|of an?)[ ](?=[a-z])", re.IGNORECASE)
_LATEX_WORDS = re.compile(r"\\(?:text|mathrm)\{([^{}]{0,60})\}")
_NO_UNIT = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "for",
        "from",
        "had",
        "has",
        "have",
        "if",
        "in",
        "is",
        "it",
        "left",
        "more",
        "of",
        "on",
        "or",
        "per",
        "so",
        "than",
        "that",
        "the",
        "then",
        "there",
        "times",
        "to",
        "was",
        "were",
        "when",
        "which",
        "who",
        "will",
        "with",
    ]
)
_SPEEDS = {"mph": "mile/hour", "kph": "kilometre/hour", "kmh": "kilometre/hour"}
_OPEN = re.compile(r"\b(?:or|between|not|n['’]t|unknown|cannot|can['’]t|neither|either)\b", re.IGNORECASE)
_JOINS = re.compile(r"[,;]|\b(?:and|but|while)\b|&", re.IGNORECASE)
_SUM = re.compile(r"\d[ ]?[-+*×÷][ ]?[$]?\d|\d[ ]/[ ]\d")


class Quantity(NamedTuple):
    """A number with its unit ("metre/second", "metre^2") or currency; "" where it has none."""

    amount: Fraction
    unit: str

    def __str__(self) -> str:
        return f"{format_number(self.amount)} {self.unit}".rstrip()


def money_of(text: str) -> Quantity | None:
    """Return the amount of money that an answer is ("$42.50", "75 cents", "42.5 USD"); None for anything else."""
    number = number_of(_in_wholes(text))
    return None if number is None else _priced(text, number)


def quantity_of(text: str) -> Quantity | None:
    """Return the quantity that an answer is ("3 hours", "1 hour 30 minutes", "90 minute"); None for anything else."""
    prepared = _prepared(text)
    compound = _compound(prepared)
    if compound is not None:
        return compound
    number = number_of(prepared)
    return None if number is None else _measured(prepared, number)


def is_measured(text: str) -> bool:
    """Tell whether an answer is a number with a unit that is known ("3 hours", not "3 apples")."""
    quantity = quantity_of(text)
    return quantity is not None and quantity.unit.partition("/")[0].partition("^")[0] in _UNITS


def same_money(predicted: str, gold: str) -> bool:
    """Tell whether two amounts are the same, in the same currency where both give one."""
    one, other = money_of(predicted), money_of(gold)
    if one is None or other is None or one.amount != other.amount:
        return False
    return not one.unit or not other.unit or one.unit == other.unit


def same_quantity(predicted: str, gold: str) -> bool:
    """Tell whether two quantities are the same, in units of the same measure where both give one."""
    one, other = quantity_of(predicted), quantity_of(gold)
    if one is None or other is None:
        return False
    return one.amount == other.amount if not one.unit or not other.unit else _in_base(one) == _in_base(other)


def extract_money(output: str) -> Answer | None:
    """Read the amount of money that a reply gives as its answer, as "42.5 USD"; None where it gives none."""
    return _written(read_final(output, read_money, _unstated_money, _unstated_money))


def read_money(statement: Statement) -> Quantity | None:
    """Read the amount of money that a statement gives."""
    number = read_statement(replace(statement, value=_in_wholes(statement.value)))
    return None if number is None else _priced(sentences(statement.value)[0], number)


def _unstated_money(part: str) -> Quantity | None:
    number = read_unstated_number(_in_wholes(part))
    return None if number is None else _priced(sentences(part[-LONGEST_CONCLUSION:])[-1], number)


def extract_quantity(output: str) -> Answer | None:
    """Read the quantity that a reply gives as its answer, as "90 minute"; None where it gives none."""
    return _written(read_final(output, read_quantity, _unstated_quantity, _unstated_quantity))


def read_quantity(statement: Statement) -> Quantity | None:
    """Read the quantity that a statement gives."""
    prepared = replace(statement, value=_prepared(statement.value))
    compound = _compound(prepared.value)
    if compound is not None:
        return compound
    number = read_statement(prepared)
    return None if number is None else _measured(sentences(prepared.value)[0], number)


def _unstated_quantity(part: str) -> Quantity | None:
    prepared = _prepared(part)
    compound = _compound(prepared)
    if compound is not None:
        return compound
    number = read_unstated_number(prepared)
    return None if number is None else _measured(sentences(prepared[-LONGEST_CONCLUSION:])[-1], number)


def extract_numbers(output: str) -> Answer | None:
    """Read the one or several numbers that a reply gives as its answer, written exactly; None where it gives none."""
    found = read_final(output, read_numbers, _unstated_numbers, _unstated_numbers)
    enumerated = tuple(islice(ENUMERATED.finditer(visible(output)), MOST_VALUES))
    listed = [number for match in enumerated if (number := number_of(match[1])) is not None]
    # "The first answer is 4. The second answer is 9.": the last one found stands for all of them.
    if found is not None and len(listed) > 1 and found == (format_number(listed[-1]),):
        return tuple(map(format_number, listed))
    return found


def read_numbers(statement: Statement) -> Answer | None:
    """Read the one or several numbers that a statement gives."""
    number = read_statement(statement)
    if number is not None:
        return (format_number(number),)
    stated = sentences(statement.value)
    return _several(stated[0]) if stated and not restates_task(statement.value) else None


def _unstated_numbers(part: str) -> Answer | None:
    number = read_unstated_number(part)
    if number is not None:
        return (format_number(number),)
    stated = sentences(part.strip()[-LONGEST_CONCLUSION:])
    return _several(stated[-1]) if stated else None


def _several(sentence: str) -> Answer | None:
    """Read the numbers of a sentence that lists them: "12 boys and 15 girls", "x = 3 and y = 8", "4, 6"."""
    plain = PARENTHESES.sub(" ", plain_text(sentence))
    if sentence.endswith("?") or _OPEN.search(plain) or _SUM.search(plain):
        return None
    found = list(islice(NUMBER.finditer(plain), MOST_VALUES + 1))
    if not found:
        spelt = [match for piece in _JOINS.split(plain) for match in [SPELT.search(piece)] if match]
        words = [number for match in spelt if (number := value_of(match)) is not None]
        return tuple(map(format_number, words)) if 1 < len(words) <= MOST_VALUES else None
    apart = all(_JOINS.search(plain, one.end(), other.start()) for one, other in pairwise(found))
    values = [value(number) for number in found]
    if not apart or not 1 < len(values) <= MOST_VALUES:
        return None
    return tuple(format_number(number) for number in values if number is not None)


def _written(quantity: Quantity | None) -> Answer | None:
    return None if quantity is None else (str(quantity),)


def _in_wholes(text: str) -> str:
    """Return a text with "7 pounds and 25 pence" written "7.25 pounds"."""
    return _WITH_CENTS.sub(lambda match: f"{match[1]}.{int(match[3]):02} {match[2]}", text)


def _priced(sentence: str, number: Fraction) -> Quantity:
    """Return a number as an amount in the one currency that its sentence mentions; cents become whole units."""
    codes, rest = [], sentence
    for code, pattern in _CURRENCY_OF:
        rest, times = pattern.subn(" ", rest)
        codes += [code] * bool(times)
    cents = _IN_CENTS.search(sentence) and not _IN_WHOLES.search(sentence)
    return Quantity(number / 100 if cents else number, codes[0] if len(codes) == 1 else "")


def _prepared(text: str) -> str:
    """Return a text whose squared and cubed units are words ("sq_cm"), without LaTeX, "half an hour" in figures."""
    text = _LATEX_WORDS.sub(r" \1", text)
    text = _RAISED.sub(lambda match: f"{'sq' if (match[2] or match[3]) in '2²' else 'cu'}_{match[1]}", text)
    return _HALF_A.sub("0.5 ", _SQUARE.sub(lambda match: f"{match[1].lower()}_", text))


def _compound(text: str) -> Quantity | None:
    """Read a quantity in two units that begins a text: "1 hour 30 minutes" is 90 minutes."""
    plain = plain_text(text)
    number = LED_NUMBER.match(plain)
    unit = number and _UNIT_AFTER.match(plain, number.end())
    smaller = unit and _SMALLER.match(plain, unit.end())
    if not number or not unit or not smaller:
        return None
    large, small = _UNITS.get(unit["unit"].lower()), _UNITS.get(smaller["unit"].lower())
    amount = value(number)
    if amount is None or large is None or small is None or large[2] != small[2] or large[1] <= small[1]:
        return None
    return Quantity(amount * large[1] / small[1] + Fraction(smaller["amount"]), small[0])


def _measured(sentence: str, number: Fraction) -> Quantity:
    """Return a number with the unit that follows it in its sentence."""
    plain = plain_text(sentence)
    matches = [match for match in NUMBER.finditer(plain) if value(match) == number]
    matches += [match for match in SPELT.finditer(plain) if value_of(match) == number]
    units = [unit for match in matches if (unit := _unit_name(plain, match.end()))]
    return Quantity(number, units[-1] if units else "")


def _unit_name(plain: str, start: int) -> str:
    """Return the name of the unit that stands at `start`, "" where none does."""
    unit = _UNIT_AFTER.match(plain, start)
    if unit is None:
        return ""
    written = unit["unit"].lower()
    if written in _SPEEDS:
        return _SPEEDS[written]
    name = _name(written)
    per = unit["per"] or unit["every"]
    return f"{name}/{_name(per.lower())}" if name and per and _name(per.lower()) else name


def _name(written: str) -> str:
    power = {"sq_": "^2", "cu_": "^3"}.get(written[:3], "")
    word = written[3:] if power else written
    if word in _UNITS:
        return _UNITS[word][0] + power
    if word in _NO_UNIT or len(word) < 2:
        return ""
    singular = f"{word[:-3]}y" if word.endswith("ies") else word[:-2] if re.search(r"(?:ch|sh|x|ss)es$", word) else word
    return (singular[:-1] if re.search(r"[^s]s$", singular) else singular) + power


def _in_base(quantity: Quantity) -> tuple[Fraction, str]:
    """Return a quantity in the base unit of what it measures, and the name of that measure."""
    above, _, below = quantity.unit.partition("/")
    size, measure = _size(above)
    if below:
        other, under = _size(below)
        return quantity.amount * size / other, f"{measure}/{under}"
    return quantity.amount * size, measure


def _size(unit: str) -> tuple[Fraction, str]:
    name, _, power = unit.partition("^")
    _, size, measure = _UNITS.get(name, (name, Fraction(1), name))
    return size ** int(power or 1), f"{measure}^{power}" if power else measure
