"""One number in plain text: the pattern, its exact value, and whether it is a number at all or a term of something."""

from __future__ import annotations

import re
from fractions import Fraction

from fractionate.scoring.number_words import SPELT, value_of

LONGEST_NUMBER = 100
"""Characters a number may have; a longer run is a model repeating itself."""

FLOAT_DIGITS = 15
"""Significant digits from which a decimal may hold the dust of floating point (5.000000000000002)."""

_PLAIN = r"(?:(?:\d{1,3}(?:,\d{2,3}){0,8},\d{3}|\d+)(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(
    r"(?<![\w.,])(?<!\d[:/^])(?P<sign>[-+]?)(?P<currency>[$€£¥₹]?)[ ]?(?P<inner>[-+]?)"
    r"(?:(?P<whole>\d+)(?:[ ]{1,2}|[ ]and[ ])(?P<over>\d+)/(?P<under>\d+)|"
    rf"(?P<top>{_PLAIN})[ ]?/[ ]?(?P<bottom>\d+)|(?P<plain>{_PLAIN})(?:e(?P<exponent>[-+]?\d{{1,3}}))?)"
    r"(?!\d|[.,:/^_]\d|[²³])"
    r"(?:[ ]?(?P<scale>hundred|thousand|million|billion|trillion)\b)?",
    re.IGNORECASE,
)
_SCALE = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_LEAD = (
    r"(?:->|approx\.|[\s*_`\"'“”‘’:=(\[>~≈→⇒∴➡✅\ufe0f]|(?:is|are|was|it|that|about|approximately|around|roughly|nearly|"
    r"exactly|only|just|therefore|thus|hence|so|then|now|still|a total of|equal to|answer|[a-z](?=[ ]?=))\b)*+"
)
"""Words and marks that may stand before a number ("is about **")."""
LED_NUMBER = re.compile(_LEAD + NUMBER.pattern, re.IGNORECASE)
_LED_WORDS = re.compile(_LEAD + SPELT.pattern, re.IGNORECASE)
_NO_UNIT = r"(?:or|to|and|times|plus|minus|more|less|of|thirds?|fourths|quarters?|fifths?|halves)"
_AFTER_WORDS = re.compile(rf"(?![\w-])(?:[ ](?!{_NO_UNIT}\b)[^\W\d]{{1,20}}){{0,2}}[\s.!*_\"”)]*", re.IGNORECASE)

_UNITS = r"(?:[ ]?[^\W\d][\w'’./-]{0,20}|[ ]?[%$€£°]){0,4}"
_LARGE_UNIT = r"(?:years?|months?|weeks?|days?|hours?|hrs?|h|minutes?|mins?|feet|foot|ft|pounds?|lbs?|dollars?)"
_SMALL_UNIT = r"(?:months?|weeks?|days?|hours?|minutes?|mins?|m|seconds?|secs?|inch(?:es)?|ounces?|oz|cents?)"
_GOES_ON = re.compile(
    # A sum that was not worked out.
    rf"{_UNITS}[)\]]?[ ]?(?:[-+*/×÷^·]|\*\*|\bx\b|\btimes\b|\bplus\b|\b(?:divided|multiplied)[ ]by\b)"
    r"[ ]?[(\[]?[-$€£ ]{0,3}[\d(]"
    r"|\([ ]?[-$€£]{0,2}\d[\d.,]*[ ]?\)"
    # A range, a choice, digits apart; "20% of 50", "5 more than 10".
    r"|[ ](?:\d|(?:or|to)[ ][$€£]?\d[\d,]*(?!\d|[%/]|\.\d))"
    r"|[ ]?(?:%|percent)[ ]of[ ][$€£]?\d"
    rf"|{_UNITS}[ ](?:more|less|fewer|greater|larger|smaller|higher|lower|older|younger)[ ](?:[a-z]{{1,15}}[ ])?than[ ]"
    r"(?:[a-z'’]{1,15}[ ]){0,2}[$€£]?\d"
    # Several numbers: "5, 7 and 9", "5 apples and 7 pears".
    rf"|(?:,[ ][$€£]?\d[\d.]*|(?:[ ][a-z]{{1,15}})?,?[ ]and[ ][$€£]?\d[\d.]*)+(?:[ ][a-z]{{1,15}})?[\s.!*]*$"
    # Mixed units.
    rf"|[ ]?{_LARGE_UNIT},?[ ]?(?:and[ ])?\d+[ ]?{_SMALL_UNIT}\b"
    # A symbol: "2x", "3π", "2^n", "3 + x", "3*n".
    r"|[ ]?\^|[ ]?(?:[πθ√]|\\?sqrt\b|\\pi\b)|(?-i:(?:[axyznuvw]|[abcxyzn]{2,3})(?![\w'’])|[ ][xyzn](?![\w'’]))"
    r"|[ ]?(?:[-+*×÷·][ ]?\(?\d{0,6}(?-i:[b-hj-z])|/[ ]?(?-i:[xyzn]))(?![\w'’]|\.\w)",
    re.IGNORECASE,
)
_TERM_BEFORE = re.compile(
    r"(?:(?<![\w'’.])\d{0,4}(?-i:[b-hj-z])(?:\^\d)?[ ]?[-+*/×÷·^]|[)\]][ ]?[*/×÷·^]|[a-z][/^]|[√π][ ]?[-+*/×÷·^]?|"
    r"\\?sqrt[ ]?[({]|\^\{?|\blog_?\{?)[ ]?[$(]{0,2}$"
    r"|\b(?:twice|double|triple|half|(?:more|less|fewer|greater|larger|smaller|higher|lower|bigger)[ ]than|between|"
    r"below|above)[ ](?:of[ ])?(?:the[ ])?$",
    re.IGNORECASE,
)
_LONGEST_TERM = 28
"""Characters before a number in which a symbol or "more than the" is looked for."""
_SHARE_OF = re.compile(r"[ ]of[ ](?:the[ ])?[$€£]?\d")
_DUST = re.compile(r"(\d*\.\d*?)(?:0{6,}|9{6,})\d{0,3}")


def value(number: re.Match[str]) -> Fraction | None:
    """Return the exact value of one match of the number pattern. None for a zero denominator or an endless number."""
    if number.end() - number.start("sign") > LONGEST_NUMBER:
        return None
    if number["whole"]:
        amount, denominator = Fraction(number["over"]), int(number["under"])
    elif number["top"]:
        amount, denominator = Fraction(number["top"].replace(",", "")), int(number["bottom"])
    else:
        amount, denominator = _without_dust(number["plain"].replace(",", "")), 1
    if denominator == 0:
        return None
    amount = Fraction(number["whole"] or 0) + amount / denominator
    amount *= Fraction(10) ** int(number["exponent"] or 0)
    amount *= _SCALE[number["scale"].lower()] if number["scale"] else 1
    return -amount if "-" in (number["sign"], number["inner"]) else amount


def _without_dust(decimal: str) -> Fraction:
    """Read a decimal, one that floating point spoilt (5.000000000000002, 2.9999999999999996) as what was meant.

    Its digits must fill a float and hold six zeros or nines in a row up to the last three: no fraction whose
    denominator is below a million is written so.
    """
    dusty = _DUST.fullmatch(decimal) if len(decimal.replace(".", "").lstrip("0")) >= FLOAT_DIGITS else None
    return round(Fraction(decimal), len(dusty[1].partition(".")[2])) if dusty else Fraction(decimal)


def is_term(plain: str, number: re.Match[str]) -> bool:
    """Tell whether a number is only the first term of something, or a later one of a symbolic expression.

    Such are a sum that was not worked out, a range, a choice, digits apart, mixed units, a share of something, `2x`.
    """
    if _GOES_ON.match(plain, number.end()) or (number["top"] and _SHARE_OF.match(plain, number.end())):
        return True
    start = number.start("currency")
    return bool(_TERM_BEFORE.search(plain, max(0, start - _LONGEST_TERM), start))


def mentions_number(text: str) -> bool:
    """Tell whether a number stands anywhere in a text, in figures or in words."""
    return any(map(str.isnumeric, text)) or bool(SPELT.search(text))


def in_words(plain: str) -> Fraction | None:
    """Read a text that is one number in words, alone or with its unit: "eighteen", "two hundred fifty apples"."""
    match = _LED_WORDS.match(plain)
    return value_of(match) if match and _AFTER_WORDS.fullmatch(plain, match.end()) else None
