r"""Writing the many notations of numbers in one: LaTeX, typographic signs, grouped digits, currencies, units.

`plain_text` leaves words alone; what it returns is for `numbers` to read.
"""

from __future__ import annotations

import re
import unicodedata

from fractionate.scoring.sentences import LATEX_TEXT, braced

_ALIKE = str.maketrans(
    dict.fromkeys("−‐‑–﹣－", "-") | {"⁄": "/", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "＝": "="}
)
_CURRENCY = r"(?:dollars?|euros?|pounds|rupees?|usd|eur|[$€£₹])"
_GROUPED = [
    # A calculator's note; groups of three digits; "1 234 567" and "118 000", which can be nothing else; "$1 234".
    (re.compile(r"<<[^<>\n]{0,400}>>"), ""),
    (re.compile(r"(?<=\d)(?:[\u00a0\u202f\u2009'’]|\\[,;:! ]|\{,\}|,\\!|\\!,)(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<![\d.,/])(?<!\d[ ])(\d{1,3})[ ](\d{3})[ ](\d{3})(?:[ ](\d{3}))?(?![ ]?\d|[/:,]\d)"), r"\1\2\3\4"),
    (re.compile(r"(?<![\d.,/])(?<!\d[ ])(\d{1,3})[ ](0\d{2})(?![ ]?\d|[/:,]\d)"), r"\1\2"),
    (re.compile(rf"(?<![\d.,/])(?<!\d[ ])(\d{{1,3}})[ ](\d{{3}})(?=[ ]?{_CURRENCY}(?!\w))", re.IGNORECASE), r"\1\2"),
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
