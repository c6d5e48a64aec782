r"""Reading a number as an exact fraction, and finding the number a reply gives as its answer (GSM8K and its like).

What is read: `3.75`, `1,234.00`, `$42`, `-$5`, `−7`, `42%` (the figure, 42), `1e3`, `1/2`, `1 1/2`, `½`, `.5`, `2
million`, `$80K`, `\frac{1}{2}`, `\boxed{42}`, `**42**`, `"42"`, `18th`, `minus 5`, `$1 234`, `eighteen`. What is no
number stays unread rather than being cut down to one: `3,75`, `1.2.3`, `10:30`, `5 or 7`, `1 hour 30 minutes`, `5-7`
and other sums that were not worked out.

The answer is looked for where it is *named* (see `text`). A reply that names none may still state it: its last
sentence, if whole or all there is, states one result. A result is what follows the last equals sign ("In total, it
takes 2 + 1 = 3 bolts."), or the sentence's only figure ("Josh made a profit of $65,000."). A last sentence with several
figures leaves it open which one is meant and is not read; anywhere else a number only stands in the reasoning. Of 660
recorded chain-of-thought replies of GPT-4 230 name no answer in words, so this lower rule matters: without it GPT-4
would score .63 instead of .94.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction

from fractionate.answers.final import LABEL, LATEX_TEXT, Claim, braced, read_final, sentences
from fractionate.types import Answer

LONGEST_NUMBER = 100
"""Characters a number may have; a longer run is a model repeating itself."""

LONGEST_CONCLUSION = 1000
"""Characters at the end of a reply in which its last sentence is looked for."""

_PLAIN = r"(?:(?:\d{1,3}(?:,\d{2,3}){0,8},\d{3}|\d+)(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    r"(?<![\w.,])(?<!\d[:/^])(?P<sign>[-+]?)(?P<currency>[$€£¥₹]?)[ ]?(?P<inner>[-+]?)"
    r"(?:(?P<whole>\d+)(?:[ ]{1,2}|[ ]and[ ])(?P<over>\d+)/(?P<under>\d+)|"
    rf"(?P<top>{_PLAIN})[ ]?/[ ]?(?P<bottom>\d+)|(?P<plain>{_PLAIN})(?:e(?P<exponent>[-+]?\d{{1,3}}))?)"
    r"(?!\d|[.,:/^_]\d|[²³])"
    r"(?:[ ]?(?P<scale>hundred|thousand|million|billion|trillion)\b)?",
    re.IGNORECASE,
)
_SCALE = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_UNITS = r"(?:[ ]?[^\W\d][\w'’./-]{0,20}|[ ]?[%$€£°]){0,4}"
_LARGE_UNIT = r"(?:years?|months?|weeks?|days?|hours?|hrs?|h|minutes?|mins?|feet|foot|ft|pounds?|lbs?|dollars?)"
_SMALL_UNIT = r"(?:months?|weeks?|days?|hours?|minutes?|mins?|m|seconds?|secs?|inch(?:es)?|ounces?|oz|cents?)"
# What shows that a number is only the first term of something: a sum, a range, a choice, digits apart, mixed units.
_GOES_ON = re.compile(
    rf"{_UNITS}[)\]]?[ ]?(?:[-+*/×÷^·]|\*\*|\bx\b|\btimes\b|\bplus\b|\b(?:divided|multiplied)[ ]by\b)"
    r"[ ]?[(\[]?[-$€£ ]{0,3}[\d(]"
    r"|[ ](?:\d|(?:or|to)[ ][$€£]?\d[\d,]*(?!\d|[%/]|\.\d))"
    rf"|[ ]?{_LARGE_UNIT},?[ ](?:and[ ])?\d+[ ]?{_SMALL_UNIT}\b",
    re.IGNORECASE,
)
_LEAD = (
    r"(?:->|[\s*_`\"'“”‘’:=(\[>~≈→⇒∴➡✅\ufe0f]|(?:is|are|was|it|that|about|approximately|around|roughly|exactly|only|just|"
    r"therefore|thus|hence|so|then|now|still|a total of|equal to|answer|[a-z](?=[ ]?=))\b)*+"
)
"""Words and marks that may stand before a number ("is about **")."""
_LED_NUMBER = re.compile(_LEAD + _NUMBER.pattern, re.IGNORECASE)
_ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TENS = ["ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_TEENS = ["eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_SPELT = {
    "zero": 0,
    **dict(zip(_ONES, range(1, 10), strict=True)),
    **dict(zip(_TEENS, range(11, 20), strict=True)),
    **dict(zip(_TENS, range(10, 100, 10), strict=True)),
}
_LED_WORD = re.compile(
    rf"{_LEAD}(?:(?P<tens>{'|'.join(_TENS[1:])})(?:[- ](?P<ones>{'|'.join(_ONES)}))?|(?P<small>{'|'.join(_SPELT)}))"
    r"(?:[ ](?P<scale>hundred|thousand|million))?(?![\w-]|[ ](?:of|thirds|fourths|quarters|fifths)\b)"
    r"(?:[ ][^\W\d]{1,20}){0,2}[\s.!*_\"”)]*",
    re.IGNORECASE,
)
_PARENTHESES = re.compile(r"(?:\([^()]{0,200}\)|\[[^\[\]]{0,200}\])(?![ ]?[-+*/×÷^·])")
_OPENING_CLAUSE = re.compile(
    r"^[\s(\[]*(?:(?:so|therefore|thus|hence|then|now|and|but|finally|lastly),?[ ])?"
    r"(?:since|because|after|before|if|when|as|with|without|"
    r"at|in|for|by|during|over|on|given|from|to|out of|of|assuming|rounded|"
    r"adding|converting|dividing|multiplying)\b[^\n]*?,[ ]",
    re.IGNORECASE,
)
_CONSEQUENCE = re.compile(
    r",[ ](?:so|therefore|thus|hence|which (?:is|means|equals|gives|makes)|or|i\.e\.)\b,?", re.IGNORECASE
)
_NO_RESULT = re.compile(
    r"\b(?:can ?not|can['’]t|could not|couldn['’]t|unable|impossible|"
    r"not possible|not enough|insufficient|unknown|unclear|not clear|not sure|unsure|uncertain|undetermined|"
    r"(?:do|does|did)(?:n['’]t| not) (?:know|make sense)|depends?|error|without (?:knowing|more)|"
    r"need(?:s|ed)? to know|(?:not|\w+n['’]t)(?: be| equal)? [$€£]?\d+|null|confus\w+|got lost|stuck)\b",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^[-*•][ ]{1,3}")
_COURTESY = re.compile(
    r"^(?:please )?(?:let me know|i hope|hope this|feel free|is there anything|good luck)\b", re.IGNORECASE
)
_WHOLE_SENTENCE = re.compile(
    r"[.!][\"'”’)*_`]{0,4}$|[=≈][ ]?[^=≈]*$|\\[a-z]+(?:\{[^{}\n]{0,100}\})+[$ .]*$|"
    r"^(?:\*\*|\\[\[(])(?!\W*step)[^\n]*(?:\*\*|\\[\])])\.?$|\b(?:is|are|be|total|result|sum|solution|answer)\b[^:\n]{0,40}:"
    r"[ *_]{0,4}[$€£]?\d[\d,.]*(?:[ ][^\W\d]{1,20}){0,3}[*_ ]{0,4}$",
    re.IGNORECASE,
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s?(?:\{\s*(-?[\d.,]+)\s*\}\s?\{\s*([\d.,]+)\s*\}|(\d)(\d))")
_LATEX_SPACE = re.compile(r"\\[,;:!> ]|\\(?:left|right|displaystyle|quad|big)\b|\\[()\[\]]|~")
_ALIKE = str.maketrans(
    dict.fromkeys("−‐‑–﹣－", "-") | {"⁄": "/", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "＝": "="}
)
_WRITTEN_OTHERWISE = [
    # A calculator's note; groups of three digits; "minus 5"; "18 dollars and 50 cents"; "80k"; "$2.5M".
    (re.compile(r"<<[^<>\n]{0,400}>>"), ""),
    (re.compile(r"(?<=\d)(?:[\u00a0\u202f\u2009'’]|\\[,;:! ]|\{,\}|,\\!|\\!,)(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<=[$€£]\d)(\d?\d?)[ ](\d{3})(?:[ ](\d{3}))?(?![\d,])"), r"\1\2\3"),
    (re.compile(r"\b(?:minus|negative)[ ](?=[$€£]?\d)", re.IGNORECASE), "-"),
    (re.compile(r"(?<=\d)[ ]dollars?,?[ ]and[ ](\d\d)[ ]cents\b", re.IGNORECASE), r".\1"),
    (re.compile(r"(?<=\d)k\b", re.IGNORECASE), "e3"),
    (re.compile(r"([$€£]\d{1,9}(?:\.\d{1,9})?)m\b", re.IGNORECASE), r"\1e6"),
]
_LATEX_SIGNS = {
    "\\times": "×",
    "\\cdot": "·",
    "\\div": "÷",
    "\\approx": "≈",
    "\\$": "$",
    "\\%": "%",
    "\\#": "#",
}


def plain_text(text: str) -> str:
    """Return the text with LaTeX, typographic signs, vulgar fractions and calculator notes in plain characters."""
    for pattern, written in _WRITTEN_OTHERWISE:
        text = pattern.sub(written, text)
    text = text.translate(_ALIKE)
    if "\\" in text or "{" in text:
        boxed = text.rfind("boxed{")
        if boxed >= 0:
            text = braced(text, boxed + len("boxed{"))
        for command, sign in _LATEX_SIGNS.items():
            text = text.replace(command, sign)
        text = LATEX_TEXT.sub(r" \1", text)
        text = _LATEX_FRACTION.sub(lambda match: f" {match[1] or match[3]}/{match[2] or match[4]}", text)
        text = _LATEX_SPACE.sub(" ", text)
    return "".join(map(_plain_character, text))


def _plain_character(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.category(character) == "No" and "⁄" in (spelt := unicodedata.normalize("NFKC", character)):
        return " " + spelt.replace("⁄", "/")
    return character


def _value(match: re.Match[str]) -> Fraction | None:
    """Return the exact value of one match of the number pattern. None for a zero denominator or an endless number."""
    if match.end() - match.start("sign") > LONGEST_NUMBER:
        return None
    if match["whole"]:
        number, denominator = Fraction(match["over"]), int(match["under"])
    elif match["top"]:
        number, denominator = Fraction(match["top"].replace(",", "")), int(match["bottom"])
    else:
        number, denominator = Fraction(match["plain"].replace(",", "")), 1
    if denominator == 0:
        return None
    number = Fraction(match["whole"] or 0) + number / denominator
    number *= Fraction(10) ** int(match["exponent"] or 0) * _scale(match)
    return -number if "-" in (match["sign"], match["inner"]) else number


def _scale(match: re.Match[str]) -> int:
    return _SCALE[match["scale"].lower()] if match["scale"] else 1


def read_number(text: str) -> Fraction | None:
    """Read a text that is one number, alone or with its unit ("$5", "42 apples", "is: 5,"). None for anything else."""
    plain = plain_text(text)
    number = _LED_NUMBER.match(plain)
    if number is None:
        return _spelt(plain)
    rest = plain[number.end() :]
    if _GOES_ON.match(rest) or len(rest.split()) > 5 or re.search(r"\d", rest):
        return None
    return _value(number)


def _spelt(plain: str) -> Fraction | None:
    """Read a text that is one number in words: "eighteen", "twenty-one apples", "three hundred"."""
    match = _LED_WORD.fullmatch(plain)
    if match is None:
        return None
    words = filter(None, match.group("tens", "ones", "small"))
    return Fraction(sum(_SPELT[word.lower()] for word in words) * _scale(match))


def _stated_first(plain: str) -> Fraction | None:
    """Read the number that a named value begins with: "$22. She has 9 eggs left (16-3-4=9)" is 22."""
    number = _LED_NUMBER.match(plain)
    if number is None or _GOES_ON.match(plain, number.end()):
        return _spelt(plain.partition(". ")[0])
    return _value(number)


def stated_result(sentence: str) -> Fraction | None:
    """Read the one result a sentence states: behind its last equals sign, or its only figure.

    Figures in parentheses and in an opening clause ("After 3 weeks, …") do not count; several others leave it open
    which one is the result, and none is read.
    """
    plain = plain_text(sentence)
    outside = _PARENTHESES.sub(" ", plain)
    plain = outside if re.search(r"\d", outside) else plain
    for consequence in reversed(list(_CONSEQUENCE.finditer(plain))):
        if _NUMBER.search(plain, consequence.end()):
            plain = plain[consequence.end() :]
            break
    if re.search(r"[=≈]", plain):
        return _equated(plain)
    opening = _OPENING_CLAUSE.match(plain)
    if opening and _NUMBER.search(plain, opening.end()):
        plain = plain[opening.end() :]
    numbers = list(_NUMBER.finditer(plain))
    if any(_GOES_ON.match(plain, number.end()) for number in numbers):
        return None
    values = {_value(number) for number in numbers}
    return values.pop() if len(values) == 1 else None


def _equated(plain: str) -> Fraction | None:
    """Read the last side of an equation that is a number worked out: "9 * 2 = $18 a day" is 18, "18 = 9 * 2" too."""
    for side in reversed(re.split(r"[=≈]", plain)):
        number = _LED_NUMBER.match(side)
        if number and not _GOES_ON.match(side, number.end()):
            return _value(number)
    return None


def _read_claim(claim: Claim) -> Fraction | None:
    """Read the number a naming gives. None for a restated question, a refusal, or a heading that holds one.

    A label must be followed by the number itself; if it is reasoning ("A: Ann has 2 + 3 = 5 eggs. …") it is no answer.
    """
    if claim.alone:
        return read_number(claim.value) if "=" not in claim.value else stated_result(claim.value)
    first = _stated_first(plain_text(claim.value))
    if first is not None or claim.rank == LABEL:
        return first
    stated = sentences(claim.value)
    if not stated or stated[0].endswith("?") or _NO_RESULT.search(stated[0]):
        return None
    return stated_result(stated[0])


def _read_unnamed(part: str) -> Fraction | None:
    """Read a reply that names no answer: one bare number on its first line, or the result its last sentence states."""
    first_line = _BULLET.sub("", part.strip().partition("\n")[0])
    bare = read_number(first_line[:LONGEST_CONCLUSION])
    if bare is not None and ("\n" not in part.strip() or not re.search(r"[^\W\d]", first_line)):
        return bare
    stated = sentences(part.rstrip()[-LONGEST_CONCLUSION:])
    while stated and _COURTESY.match(stated[-1]):
        stated.pop()
    if not stated or _NO_RESULT.search(stated[-1]):
        return None
    if part.strip() != stated[-1] and not _WHOLE_SENTENCE.search(stated[-1]):
        return None
    return stated_result(stated[-1])


def format_number(number: Fraction) -> str:
    """Write a number exactly: `1234`, `3.75`, `-7`; as `1/3` where no decimal is exact."""
    scaled, places = number, 0
    while scaled.denominator % 2 == 0 or scaled.denominator % 5 == 0:
        scaled *= 10
        places += 1
    return f"{Decimal(f'{scaled.numerator}e-{places}'):f}" if scaled.denominator == 1 else str(number)


def extract_number(output: str) -> Answer | None:
    """Read the final number out of a model's reply, written exactly; None when the reply states none."""
    number = read_final(output, _read_claim, _read_unnamed)
    return None if number is None else (format_number(number),)


def number_of(text: str) -> Fraction | None:
    """Return the number an answer is: the text itself, or the one it names ("… #### 18")."""
    number = read_number(text)
    return read_final(text, _read_claim, lambda part: None) if number is None else number
