"""Extracts the date or the time of day that a reply gives as its answer, in any common form.

A date is written back as in ISO 8601 (2021-05-01; 2021-05 and --05-01 where a part is not given), a time as "2:45 pm",
or "2:45" where its half of the day is open. `05/01/2021` is month first, as in the United States, unless it cannot be
(25/12/2020) or the data says otherwise (`day_first`); `1.5.2021` is day first.

The patterns are our own: dateutil and dateparser complete what is missing from today's date and guess at any text, so
that a reply without a date would get one that changes from day to day.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from fractionate.scoring.final import REASON, read_final
from fractionate.scoring.reply import LATEX_TEXT, LONGEST_CONCLUSION, sentences
from fractionate.scoring.statements import Statement
from fractionate.types import Answer

T = TypeVar("T")

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_DATE = re.compile(
    r"(?<![\w/.,-])(?:"
    r"(?P<y1>\d{4})[-/.](?P<m1>\d{1,2})[-/.](?P<d1>\d{1,2})(?:T[\d:.]{1,15}Z?)?"
    r"|(?P<a>\d{1,2})(?P<mark>[-/.])(?P<b>\d{1,2})(?P=mark)(?P<y2>\d{4}|\d{2})"
    rf"|(?:the[ ])?(?P<d3>{_DAY})(?:[ ]of)?[ -](?P<m3>{_MONTH})(?:,?[ -](?:of[ ])?(?P<y3>\d{{4}}))?"
    rf"|(?P<m4>{_MONTH})[ ](?:the[ ])?(?P<d4>{_DAY})(?!\d)(?:,?[ ](?P<y4>\d{{4}}))?"
    rf"|(?P<m5>{_MONTH})(?:,|[ ]of)?[ ](?P<y5>\d{{4}})"
    r")(?![\w/-])",
    re.IGNORECASE,
)
_YEAR = re.compile(r"[\W_]*(?:(?:in|the[ ]year)[ ]){0,2}(?P<year>[12]\d{3})[\W_]*$", re.IGNORECASE)
_CENTURY_ENDS = 69
"""Two-digit years from here on are of the 20th century, as in POSIX."""

_HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_HOUR = rf"(?:\d{{1,2}}|{'|'.join(_HOURS)})"
_HALF = r"(?:[ ]?(?P<half>[ap])\.?[ ]?m\b\.?|[ ](?:in[ ]the|at)[ ](?P<part>morning|afternoon|evening|night)\b)"
_TIME = re.compile(
    r"(?<![\w:.,$€£-])(?:"
    rf"(?P<h1>\d{{1,2}}):(?P<m1>\d{{2}})(?::\d{{2}})?(?!\d|:\d){_HALF.replace('?P<', '?P<x')}?"
    rf"|(?P<h2>\d{{1,2}})[.](?P<m2>\d{{2}}){_HALF.replace('?P<', '?P<y')}"
    rf"|(?P<h3>{_HOUR})[ ]o['’]?[ ]?clock\b{_HALF.replace('?P<', '?P<z')}?"
    rf"|(?P<h4>{_HOUR}){_HALF}"
    rf"|(?P<past>half[ ]past|(?:a[ ])?quarter[ ](?:past|after|to)|\d{{1,2}}(?:[ ]minutes)?[ ](?:past"
    rf"|to))[ ](?P<h5>{_HOUR})\b"
    rf"{_HALF.replace('?P<', '?P<w')}?"
    r"|(?P<named>noon|midday|midnight)\b)",
    re.IGNORECASE,
)
_WRITTEN_TIME = re.compile(r"(\d{1,2}):(\d{2})(?: ([ap])m)?")
_CONSEQUENCE = re.compile(r"[,;:][ ](?:so|therefore|thus|hence|which is|making it|and so)\b", re.IGNORECASE)
_EQUALS = re.compile(r"[=≈→]")
_ASIDE = re.compile(r"\([^()]{0,200}\)")
_OPENING = re.compile(
    r"[\s*_]*(?:(?:so|then|now),?[ ])?(?:since|because|if|as|when|after|before|given|from)\b[^\n]*?\d,[ ]",
    re.IGNORECASE,
)
_DENIES = re.compile(
    r"\b(?:not|n['’]t|cannot|unknown|between|unless|whether|if|either|neither|from)\b|\b(?:may|might|could) be\b", re.I
)
_CONCLUDES = re.compile(
    r"\b(?:is|was|be|are|on|at|by|in|until|came|to)[ ](?:the[ ])?$|^[\W_]*(?:the[ ])?$", re.IGNORECASE
)
_WEEKDAY = re.compile(r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)day,?[ ](?:the[ ])?", re.IGNORECASE)


class Date(NamedTuple):
    """A date; a part that is not given is 0."""

    year: int
    month: int
    day: int

    def __str__(self) -> str:
        if not self.month:
            return f"{self.year:04}"
        if not self.day:
            return f"{self.year:04}-{self.month:02}"
        return f"{self.year:04}-{self.month:02}-{self.day:02}" if self.year else f"--{self.month:02}-{self.day:02}"


class Time(NamedTuple):
    """A time of day: the hour (0 to 23, or 1 to 12 where the half of the day is open) and the minute."""

    hour: int
    minute: int
    known: bool

    def __str__(self) -> str:
        half = (" pm" if self.hour >= 12 else " am") if self.known else ""
        return f"{(self.hour - 1) % 12 + 1}:{self.minute:02}{half}"


def date_of(text: str, *, day_first: bool = False) -> Date | None:
    """Return the one date that an answer is ("May 1, 2021", "2021-05-01", "1999"); None for anything else."""
    written = re.fullmatch(r"\s*(?:--(\d\d)-(\d\d)|(\d{4})-(\d\d))\s*", text)
    if written:
        return _date(int(written[3] or 0), int(written[1] or written[4]), int(written[2] or 0))
    return _only(text, lambda part: find_dates(part, day_first))


def time_of(text: str) -> Time | None:
    """Return the one time of day that an answer is ("2:45 p.m.", "14:45", "noon"); None for anything else."""
    return _only(text, find_times)


def date_readers(
    *, day_first: bool = False
) -> tuple[Callable[[str], Answer | None], Callable[[Statement], Date | None]]:
    """Return the readers of dates: out of a whole reply, and out of one statement."""
    return _readers(lambda text: find_dates(text, day_first))


def time_readers() -> tuple[Callable[[str], Answer | None], Callable[[Statement], Time | None]]:
    """Return the readers of times: out of a whole reply, and out of one statement."""
    return _readers(find_times)


def same_date(predicted: str, gold: str, *, day_first: bool = False) -> bool:
    """Tell whether a prediction is the gold date. What the gold leaves out (the year of "July 4") may be given."""
    one, other = date_of(predicted, day_first=day_first), date_of(gold, day_first=day_first)
    if one is None or other is None:
        return False
    return all(given == wanted for given, wanted in zip(one, other, strict=True) if wanted)


def same_time(predicted: str, gold: str) -> bool:
    """Tell whether two times are the same; where one leaves its half of the day open, either half will do."""
    one, other = time_of(predicted), time_of(gold)
    if one is None or other is None or one.minute != other.minute:
        return False
    return one.hour == other.hour if one.known and other.known else one.hour % 12 == other.hour % 12


def _readers(
    find: Callable[[str], Iterator[tuple[T, int]]],
) -> tuple[Callable[[str], Answer | None], Callable[[Statement], T | None]]:
    def read(statement: Statement) -> T | None:
        stated = sentences(REASON.sub("", statement.value))
        return _stated(stated[0], find) if stated else None

    def read_unstated(part: str) -> T | None:
        stated = sentences(part.strip()[-LONGEST_CONCLUSION:])
        return _stated(stated[-1], find) if stated else None

    def extract(output: str) -> Answer | None:
        found = read_final(output, read, read_unstated, read_unstated)
        return None if found is None else (str(found),)

    return extract, read


def _stated(sentence: str, find: Callable[[str], Iterator[tuple[T, int]]]) -> T | None:
    """Return the one value that a sentence states: in its last clause or behind its last equals sign.

    Of several the last counts where it alone stands behind "is", "was", "on" or the like.
    """
    if sentence.endswith("?"):
        return None
    clause = _plain(sentence)
    for pattern in (_CONSEQUENCE, _EQUALS):
        for mark in reversed(list(pattern.finditer(clause))):
            if next(find(clause[mark.end() :]), None):
                clause = clause[mark.end() :]
                break
    opening = _OPENING.match(clause)
    if opening and next(find(clause[opening.end() :]), None):
        clause = clause[opening.end() :]
    found = list(find(clause))
    if not found or _DENIES.search(clause[: found[-1][1]]):
        return None
    values = {value for value, _ in found}
    if len(values) == 1:
        return values.pop()
    concluded = {value for value, start in found if _CONCLUDES.search(clause[:start])}
    return concluded.pop() if len(concluded) == 1 and concluded == {found[-1][0]} else None


def _plain(text: str) -> str:
    plain = LATEX_TEXT.sub(r" \1 ", text).replace("\\", " ").replace("*", "").replace("{", " ").replace("}", " ")
    return _WEEKDAY.sub("", _ASIDE.sub(" ", " ".join(plain.split())))


def _only(text: str, find: Callable[[str], Iterator[tuple[T, int]]]) -> T | None:
    values = {value for value, _ in find(_plain(text[:LONGEST_CONCLUSION]))}
    return values.pop() if len(values) == 1 else None


def find_dates(text: str, day_first: bool = False) -> Iterator[tuple[Date, int]]:
    """Yield the dates of a plain text and where each begins; a year alone counts where it is all there is."""
    year = _YEAR.match(text)
    if year:
        yield Date(int(year["year"]), 0, 0), year.start("year")
        return
    for match in _DATE.finditer(text):
        date = _numeric(match, day_first) if match["mark"] else _worded(match)
        if date is not None:
            yield date, match.start()


def _numeric(match: re.Match[str], day_first: bool) -> Date | None:
    first, second, year = int(match["a"]), int(match["b"]), int(match["y2"])
    if len(match["y2"]) == 2:
        year += 1900 if year >= _CENTURY_ENDS else 2000
    if day_first or match["mark"] == ".":
        return _date(year, second, first) or _date(year, first, second)
    return _date(year, first, second) or _date(year, second, first)


def _worded(match: re.Match[str]) -> Date | None:
    year = match["y1"] or match["y3"] or match["y4"] or match["y5"]
    day = match["d1"] or match["d3"] or match["d4"]
    named = match["m3"] or match["m4"] or match["m5"]
    month = _MONTHS.index(named[:3].lower()) + 1 if named else int(match["m1"])
    return _date(int(year or 0), month, int(day.rstrip("stndrhSTNDRH")) if day else 0)


def _date(year: int, month: int, day: int) -> Date | None:
    """Return a date that the calendar has, None for one that it lacks (30 February)."""
    try:
        datetime.date(year or 2000, month, day or 1)
    except ValueError:
        return None
    return Date(year, month, day)


def find_times(text: str) -> Iterator[tuple[Time, int]]:
    """Yield the times of day of a plain text and where each begins."""
    for match in _TIME.finditer(text):
        time = _time(match)
        if time is not None:
            yield time, match.start()


def _time(match: re.Match[str]) -> Time | None:
    if match["named"]:
        return Time(0 if match["named"].lower() == "midnight" else 12, 0, known=True)
    written = next(filter(None, (match[f"h{place}"] for place in range(1, 6))))
    hour = int(written) if written.isdecimal() else _HOURS.index(written.lower()) + 1
    minute = int(match["m1"] or match["m2"] or 0)
    if match["past"]:
        words = match["past"].lower()
        minute = 30 if "half" in words else 15 if "quarter" in words else int(words.split()[0])
        if words.endswith("to"):
            hour, minute = (hour - 2) % 12 + 1, 60 - minute
    half = next(filter(None, (match[name] for name in ("half", "xhalf", "yhalf", "zhalf", "whalf"))), "").lower()
    part = next(filter(None, (match[name] for name in ("part", "xpart", "ypart", "zpart", "wpart"))), "").lower()
    if part:
        half = "a" if part == "morning" or (part == "night" and hour in (12, 1, 2, 3, 4)) else "p"
    if minute > 59 or hour > (12 if half else 23):
        return None
    if half:
        return Time(hour % 12 + (12 if half == "p" else 0), minute, known=True)
    return Time(hour, minute, known=hour > 12 or hour == 0)
