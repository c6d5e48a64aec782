r"""Parses numbers as exact fractions: in figures, in words, in LaTeX, with currencies, units and grouped digits.

`plain_text` rewrites the many notations in one and leaves words alone; `NUMBER` matches one number of such a text,
`value` returns its exact value, and `is_term` tells whether it is only one term of a sum, a range or an expression.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from fractionate.scoring.reply import LATEX_TEXT, braced

_ALIKE = str.maketrans(
    dict.fromkeys("−‐‑–﹣－", "-") | {"⁄": "/", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "＝": "="}
)
_CURRENCY = r"(?:dollars?|euros?|pounds|rupees?|usd|eur|[$€£₹])"
_GROUPED = [
    # A calculator's note; groups of three digits; "1 234 567", "12 345" (not "step 2 345", nor "1 234 5"), "$1 234".
    (re.compile(r"<<[^<>\n]{0,400}>>"), ""),
    (re.compile(r"(?<=\d)(?:[\u00a0\u202f\u2009'’]|\\[,;:! ]|\{,\}|,\\!|\\!,)(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<![\d.,/])(?<!\d[ ])(\d{1,3})[ ](\d{3})[ ](\d{3})(?:[ ](\d{3}))?(?![ ]?\d|[/:,]\d)"), r"\1\2\3\4"),
    (
        re.compile(
            r"(?<![\w.,/:#-])(?<!\d[ ])(?<!answer[ ])(?<!question[ ])(?<!problem[ ])(?<!step[ ])(?<!part[ ])"
            r"([1-9]\d{0,2})[ ](\d{3})(?![ ]?\d|[/:,]\d|[ ]?[-+*/×÷=x^]|\w)",
            re.IGNORECASE,
        ),
        r"\1\2",
    ),
    (re.compile(r"(?<=[$€£]\d)(\d?\d?)[ ](\d{3})(?:[ ](\d{3}))?(?![\d,])"), r"\1\2\3"),
]
_WORDED = [
    # "minus 5"; "18 dollars and 50 cents"; "80k"; "$2.5M"; "Rs. 750"; "5:00 PM".
    (re.compile(r"\b(?:minus|negative)[ ](?=[$€£]?\d)", re.IGNORECASE), "-"),
    (re.compile(r"(?<=\d)[ ]dollars?,?[ ]and[ ](\d\d)[ ]cents\b", re.IGNORECASE), r".\1"),
    (re.compile(r"(?<=\d)k\b", re.IGNORECASE), "e3"),
    (re.compile(r"([$€£]\d{1,9}(?:\.\d{1,9})?)m\b", re.IGNORECASE), r"\1e6"),
    (re.compile(r"(?:\b(?:Rs\.?|INR|USD|EUR|GBP|CAD|AUD|US(?=\$)|A(?=\$)|C(?=\$)|HK(?=\$))[ ]?\$?)[ ]?(?=-?\d)"), "$"),
    (re.compile(r"(?<![\d:.,])(\d{1,2}):00(?![\d:])"), r"\1"),
]
_LATEX_SIGNS = {
    "\\times": "×",
    "\\cdot": "·",
    "\\div": "÷",
    "\\approx": "≈",
    "\\pi": "π",
    "\\$": "$",
    "\\%": "%",
    "\\#": "#",
}
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s?(?:\{\s*(-?[\d.,]+)\s*\}\s?\{\s*([\d.,]+)\s*\}|(\d)(\d))")
_LATEX_SPACE = re.compile(r"\\[,;:!> ]|\\(?:left|right|displaystyle|quad|big)\b|\\[()\[\]]|~")
_UNIT_POWER = re.compile(
    r"(?<=[\d /·.(])((?:mm|cm|dm|km|m|in|inch(?:es)?|ft|foot|feet|yd|yards?|mi|miles?|units?|s|sec|seconds?|"
    r"met(?:er|re)s?|centimet(?:er|re)s?|kilomet(?:er|re)s?))[ ]?(?:\^[ ]?\{?-?[1-4]\}?|[²³])(?!\w)",
    re.IGNORECASE,
)
_FIGURE = r"([$€£]?(?:\d[\d.,]{0,40}\d|\d))"
_NEGATIVE = re.compile(
    rf"(?<![\w)\]])(?<![\d)\]][ ])(?:(?:\$[ ]?)?\([ ]?-[ ]?{_FIGURE}[ ]?\)|-[ ]?\([ ]?{_FIGURE}[ ]?\))"
)
"""A negative number in parentheses, or a minus sign before them: "(-5)", "$(-5)", "-(5)"."""


def plain_text(text: str) -> str:
    """Return the text with LaTeX, typographic signs, vulgar fractions and calculator notes in plain characters."""
    for pattern, written in _GROUPED:
        text = pattern.sub(written, text)
    text = text.translate(_ALIKE)
    for pattern, written in _WORDED:
        text = pattern.sub(written, text)
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    text = _UNIT_POWER.sub(r"\1", text)
    text = _NEGATIVE.sub(lambda match: f"-{match[1] or match[2]}", text)
    return text if text.isascii() else "".join(map(_plain_character, text))


def _without_latex(text: str) -> str:
    boxed = text.rfind("boxed{")
    if boxed >= 0:
        text = braced(text, boxed + len("boxed{"))
    for command, sign in _LATEX_SIGNS.items():
        text = text.replace(command, sign)
    text = LATEX_TEXT.sub(r" \1", text)
    text = _LATEX_FRACTION.sub(lambda match: f" {match[1] or match[3]}/{match[2] or match[4]}", text)
    return _LATEX_SPACE.sub(" ", text)


def _plain_character(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.category(character) == "No" and "⁄" in (spelt := unicodedata.normalize("NFKC", character)):
        return " " + spelt.replace("⁄", "/")
    return character


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

# Possessive, and a mark is part of a word only before a letter: else one long word has thousands of ways to be four.
_UNITS = r"(?:[ ]?[^\W\d](?:[\w'’]|[./-](?=[^\W\d])){0,20}+|[ ]?[%$€£°]){0,4}"
_LARGE_UNIT = r"(?:years?|months?|weeks?|days?|hours?|hrs?|h|minutes?|mins?|feet|foot|ft|pounds?|lbs?|dollars?)"
_SMALL_UNIT = r"(?:months?|weeks?|days?|hours?|minutes?|mins?|m|seconds?|secs?|inch(?:es)?|ounces?|oz|cents?)"
_FEW_WORDS = r"(?:[ ](?!(?:and|or|are|is|was|were|will|would|have|has|remain)\b)[a-z]{1,15}){0,3}"
_NO_QUANTITY = (
    r"(?:which|that|this|these|those|he|she|it|they|we|you|so|and|but|not|the|as|because|since|exactly|only|just"
    r"|correct|"
    r"done|yes|total|note|in|for|per|if|when|more|less|about|good|great|thanks?|hope|over|too|also|each|easy)\b"
)
"""Words after a dash that go on with the sentence: "18 - which is right"."""
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
    # Several numbers: "5, 7 and 9", "5 apples and 7 pears", "6 or maybe 7"; not "18 and 3 are left".
    rf"|(?:{_FEW_WORDS}(?:[ ]\([^()]{{0,60}}\))?(?:[,;][ ]|,?[ ](?:and|&)[ ]|[ ]or[ ](?=maybe|perhaps|possibly))"
    r"(?:maybe[ ]|perhaps[ ]|possibly[ ]|[a-z]\w{0,12}[ ]?=[ ]?)?"
    rf"[$€£]?\d[\d.,/]*)+{_FEW_WORDS}(?:[ ]\([^()]{{0,60}}\))?[\s.!*)}}\]]*$"
    # Mixed units.
    rf"|[ ]?{_LARGE_UNIT},?[ ]?(?:and[ ])?\d+[ ]?{_SMALL_UNIT}\b"
    # A symbol: "2x", "3π", "2^n", "3 + x", "3*n".
    r"|[ ]?\^|[ ]?(?:[πθ√]|\\?sqrt\b|\\pi\b)|(?-i:(?:[axyznuvw]|[abcxyzn]{2,3})(?![\w'’])|[ ][xyzn](?![\w'’]))"
    r"|[ ]?(?:[-+*×÷·][ ]?\(?\d{0,6}(?-i:[b-hj-z])|/[ ]?(?-i:[xyzn]))(?![\w'’]|\.\w)"
    # A quantity that is only named: "40 + tax", "12 * weeks", "54 - spent".
    rf"|[ ][*+×÷·][ ]\(?[a-z]{{2,20}}\b|[ ]?[×÷·][ ]?\(?[a-z]{{2,20}}\b"
    rf"|[ ]-[ ]{{1,2}}(?!{_NO_QUANTITY})\(?[a-z_]{{3,20}}\)?(?:[ ][a-z]{{2,12}})?[\s.!*$)}}]*$",
    re.IGNORECASE,
)
_TERM_BEFORE = re.compile(
    r"(?:(?<![\w'’.])\d{0,4}(?-i:[b-hj-z])(?:\^\d)?[ ]?[-+*/×÷·^]|[)\]][ ]?[*/×÷·^]|[a-z][/^]|[√π][ ]?[-+*/×÷·^]?|"
    r"\\?sqrt[ ]?[({]|\^\{?|\blog_?\{?)[ ]?[$(]{0,2}$"
    r"|\b(?:twice|double|triple|half|(?:more|less|fewer|greater|larger|smaller|higher|lower|bigger)[ ]than|between|"
    r"below|above)[ ](?:of[ ])?(?:the[ ])?$"
    # "price / 4", "total - 54".
    r"|[a-z]\w{1,20}[)]?[ ][+*×÷/·][ ]?[$(]?$|(?:^|\b(?:is|are|be|equals)[ ]"
    r"|=[ ])(?:the[ ])?(?-i:[a-z])\w{2,20}[ ]-[ ]?[$(]?$",
    re.IGNORECASE,
)
_LONGEST_TERM = 40
"""Characters before a number in which a symbol or "more than the" is looked for."""
_SHARE_OF = re.compile(r"[ ]of[ ](?:the[ ])?[$€£]?\d")
_DUST = re.compile(r"(?=\d*\.\d{7})(\d*\.\d*?)(?:0{6,}|9{6,})\d{0,3}")


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

    Its digits must fill a float, at least seven of them behind the point, and hold six zeros or nines in a row up to
    the last three: no fraction whose denominator is at most a million is written so.
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
