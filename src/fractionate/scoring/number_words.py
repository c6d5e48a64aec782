"""Numbers written in words: "eighteen", "two hundred and fifty", "three and a half"."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TENS = ["ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_TEENS = ["eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_SMALL = {
    "zero": 0,
    **dict(zip(_ONES, range(1, 10), strict=True)),
    **dict(zip(_TEENS, range(11, 20), strict=True)),
    **dict(zip(_TENS, range(10, 100, 10), strict=True)),
}
_GROUPS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourths": 4, "fifth": 5, "fifths": 5}

_WORD = rf"(?:{'|'.join(sorted([*_SMALL, *_GROUPS, 'hundred'], key=len, reverse=True))})"
_FRACTION = rf"[ ](?P<part>{'|'.join(_PARTS)})\b"
SPELT = re.compile(
    rf"(?<![\w-])(?:(?P<minus>minus|negative)[ ])?(?P<words>(?:an?[ ](?=hundred|thousand|million|billion))?"
    rf"{_WORD}(?:(?:[- ]|,[ ]|[ ]and[ ](?!\w{{1,5}}{_FRACTION.replace('?P<part>', '?:')})){_WORD}){{0,20}})(?![\w-])"
    rf"(?:[ ]and[ ](?P<parts>a|one|two|three|four){_FRACTION})?",
    re.IGNORECASE,
)
"""One number in words, or a run of words that may be none (`value_of` tells)."""
_SEPARATORS = re.compile(r"[-, ]+")


def value_of(match: re.Match[str]) -> Fraction | None:
    """Return the value of one match of `SPELT`; None for words that make no number ("one two", "million million")."""
    words = ["one" if word in ("a", "an") else word for word in _SEPARATORS.split(match["words"].lower())]
    whole = _whole([word for word in words if word != "and"])
    if whole is None:
        return None
    value = Fraction(whole)
    if match["part"]:
        value += Fraction(_SMALL.get(match["parts"].lower(), 1), _PARTS[match["part"].lower()])
    return -value if match["minus"] else value


def _whole(words: list[str]) -> int | None:
    """Return the number that the words name: groups in falling order, each below a thousand ("twelve hundred" too)."""
    total, last_scale = 0, 10**15
    group: int | None = None
    for word in words:
        if word in _GROUPS:
            if group is None or _GROUPS[word] >= last_scale:
                return None
            last_scale = _GROUPS[word]
            total, group = total + group * last_scale, None
        elif word == "hundred":
            if not group or group >= 100:
                return None
            group *= 100
        elif group is None:
            group = _SMALL[word]
        elif 0 < _SMALL[word] < (100 if group % 100 == 0 else 10 if group % 10 == 0 and group % 100 >= 20 else 0):
            group += _SMALL[word]
        else:
            return None
    return total + (group or 0)
