r"""Reading a number as an exact fraction, and finding the number a reply gives as its answer (GSM8K and its like).

What is read: `3.75`, `1,234.00`, `$42`, `-$5`, `−7`, `42%` (the figure, 42), `1e3`, `1/2`, `1 1/2`, `½`, `.5`, `2
million`, `\frac{1}{2}`, `\boxed{42}`, `**42**`, `"42"`, `18th`. What is no number stays unread rather than being cut
down to one: `3,75`, `1.2.3`, `10:30`, `5-7` and other sums that were not worked out.

The answer is looked for where it is *named* (see `text`). A reply that names none may still state it: its last
sentence, if whole, states one result. A result is what follows the last equals sign ("In total, it takes 2 + 1 = 3
bolts."), or the sentence's only figure ("Josh made a profit of $65,000."). A last sentence with several figures leaves
it open which one is meant and is not read; anywhere else a number only stands in the reasoning. Of 660 recorded
chain-of-thought replies of GPT-4 230 name no answer in words, so this lower rule matters: without it GPT-4 would score
.63 instead of .94.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

from fractionate.datasets.text import Claim, braced, clean_span, read_final, sentences
from fractionate.types import Answer, Score

LONGEST_NUMBER = 100
"""Characters a number may have; a longer run is a model repeating itself."""

LONGEST_CONCLUSION = 1000
"""Characters at the end of a reply in which its last sentence is looked for."""

_PLAIN = r"(?:(?:\d{1,3}(?:,\d{2,3}){0,8},\d{3}|\d+)(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    r"(?<![\w.,])(?<!\d[:/^])(?P<sign>[-+]?)(?P<currency>[$€£¥₹]?)[ ]?(?P<inner>[-+]?)"
    rf"(?:(?P<whole>\d+)[ ]{{1,2}}(?P<over>\d+)/(?P<under>\d+)|(?P<top>{_PLAIN})[ ]?/[ ]?(?P<bottom>\d+)|"
    rf"(?P<plain>{_PLAIN})(?:e(?P<exponent>[-+]?\d{{1,3}}))?)"
    r"(?!\d|[.,:/^]\d)"
    r"(?:[ ]?(?P<scale>thousand|million|billion|trillion)\b)?",
    re.IGNORECASE,
)
_SCALE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_UNITS = r"(?:[ ]?[^\W\d][\w'’./-]{0,20}|[ ]?[%$€£°]){0,4}"
_GOES_ON_AS_A_SUM = re.compile(rf"{_UNITS}[ ]?(?:[-+*/×÷^·]|\*\*|\bx\b|\btimes\b)[ ]?[(\[]?[-$€£ ]{{0,3}}[\d(]")
_LEAD = re.compile(
    r"(?:[\s*_`\"'“”‘’:=(\[>~≈]|(?:is|are|was|it|that|about|approximately|around|roughly|exactly|only|just|therefore|thus|"
    r"hence|so|then|now|still|a total of|equal to|answer|[a-z](?=[ ]?=))\b)*",
    re.IGNORECASE,
)
_PARENTHESES = re.compile(r"\([^()]{0,200}\)|\[[^\[\]]{0,200}\]")
_OPENING_CLAUSE = re.compile(
    r"^(?:(?:so|therefore|thus|hence|then|now|and|but|finally|lastly),?[ ])?"
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
    r"need(?:s|ed)? to know|not [$€£]?\d|confus\w+|got lost|stuck)\b",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^[-*•][ ]{1,3}")
_COURTESY = re.compile(
    r"^(?:please )?(?:let me know|i hope|hope this|feel free|is there anything|good luck)\b", re.IGNORECASE
)
_WHOLE_SENTENCE = re.compile(r"[.!][\"'”’)*_`]{0,4}$|[=≈][ ]?[^=≈]*$|\}[$ .]*$")
_CALCULATOR = re.compile(r"<<[^<>\n]{0,400}>>")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s?(?:\{\s*(-?[\d.,]+)\s*\}\s?\{\s*([\d.,]+)\s*\}|(\d)(\d))")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s?\{([^{}]{0,200})\}")
_LATEX_SPACE = re.compile(r"\\[,;:!> ]|\\(?:left|right|displaystyle|quad|big)\b|\\[()\[\]]|~")
_THIN_GROUPING = re.compile(r"(?<=\d)[\u00a0\u202f\u2009](?=\d{3}(?!\d))")
_ALIKE = str.maketrans(
    dict.fromkeys("−‐‑–﹣－", "-") | {"⁄": "/", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "＝": "="}
)
_LATEX_SIGNS = {
    "\\times": "×",
    "\\cdot": "·",
    "\\div": "÷",
    "\\approx": "≈",
    "\\$": "$",
    "\\%": "%",
    "{,}": ",",
    "\\#": "#",
}


def plain_text(text: str) -> str:
    """Return the text with LaTeX, typographic signs, vulgar fractions and calculator notes in plain characters."""
    text = _THIN_GROUPING.sub("", _CALCULATOR.sub("", text)).translate(_ALIKE)
    if "\\" in text or "{" in text:
        boxed = text.rfind("boxed{")
        if boxed >= 0:
            text = braced(text, boxed + len("boxed{"))
        for command, sign in _LATEX_SIGNS.items():
            text = text.replace(command, sign)
        text = _LATEX_TEXT.sub(r" \1", text)
        text = _LATEX_FRACTION.sub(lambda match: _inline(match, match[1] or match[3], match[2] or match[4]), text)
        text = _LATEX_SPACE.sub(" ", text)
    return text if text.isascii() else "".join(map(_plain_character, text))


def _inline(match: re.Match[str], top: str, bottom: str) -> str:
    """Write a LaTeX fraction as `top/bottom`, apart from a whole number before it."""
    follows_digit = match.start() > 0 and match.string[match.start() - 1].isdigit()
    return f"{' ' if follows_digit else ''}{top}/{bottom}"


def _plain_character(character: str) -> str:
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.category(character) == "No" and "⁄" in (spelt := unicodedata.normalize("NFKC", character)):
        return " " + spelt.replace("⁄", "/")
    return character


def _value(match: re.Match[str]) -> Fraction | None:
    """Return the exact value of one match of the number pattern. None for a zero denominator or an endless number."""
    if len(match[0]) > LONGEST_NUMBER:
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
    number *= Fraction(10) ** int(match["exponent"] or 0) * _SCALE.get((match["scale"] or "").lower(), 1)
    return -number if _is_negative(match) else number


def _is_negative(match: re.Match[str]) -> bool:
    """Tell a sign from a subtraction: "is -3" and "$-3", but not "16 -3"."""
    if match["inner"]:
        return match["inner"] == "-"
    before = match.string[max(0, match.start() - 4) : match.start()].rstrip()
    return match["sign"] == "-" and not before.endswith((*"0123456789)]%",))


def read_number(text: str) -> Fraction | None:
    """Read a text that is one number, alone or with its unit ("$5", "42 apples", "is: 5,"). None for anything else."""
    plain = plain_text(text)
    number = _NUMBER.match(plain, _lead(plain))
    if number is None or _GOES_ON_AS_A_SUM.match(plain, number.end()):
        return None
    rest = plain[number.end() :]
    return _value(number) if len(rest.split()) <= 5 and not re.search(r"\d", rest) else None


def _lead(plain: str) -> int:
    """Return where the words and marks end that may stand before a number ("is about **")."""
    match = _LEAD.match(plain)
    return match.end() if match else 0


def _stated_first(plain: str) -> Fraction | None:
    """Read the number that a named value begins with: "$22. She has 9 eggs left (16-3-4=9)" is 22."""
    number = _NUMBER.match(plain, _lead(plain))
    if number is None or _GOES_ON_AS_A_SUM.match(plain, number.end()):
        return None
    return _value(number)


def stated_result(sentence: str) -> Fraction | None:
    """Read the one result a sentence states: behind its last equals sign, or its only figure.

    Figures in parentheses and in an opening clause ("After 3 weeks, …") do not count; several others leave it open
    which one is the result, and none is read.
    """
    plain = plain_text(sentence)
    outside = _PARENTHESES.sub(" ", plain)
    plain = outside if re.search(r"\d", outside) else plain.strip().strip("()[]")
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
    if any(_GOES_ON_AS_A_SUM.match(plain, number.end()) for number in numbers):
        return None
    values = {_value(number) for number in numbers}
    return values.pop() if len(values) == 1 else None


def _equated(plain: str) -> Fraction | None:
    """Read the last side of an equation that is a number worked out: "9 * 2 = $18 a day" is 18, "18 = 9 * 2" too."""
    for side in reversed(re.split(r"[=≈]", plain)):
        number = _NUMBER.match(side, _lead(side))
        if number and not _GOES_ON_AS_A_SUM.match(side, number.end()):
            return _value(number)
    return None


def _read_claim(claim: Claim) -> Fraction | None:
    """Read the number a naming gives. None for a restated question, a refusal, or a heading that holds one."""
    if claim.alone:
        return read_number(claim.value) if "=" not in claim.value else stated_result(claim.value)
    first = _stated_first(plain_text(claim.value))
    if first is not None:
        return first
    stated = sentences(claim.value)
    if not stated or stated[0].endswith("?") or _NO_RESULT.search(stated[0]):
        return None
    return stated_result(stated[0])


def _read_unnamed(part: str) -> Fraction | None:
    """Read a reply that names no answer: one bare number on its first line, or the result its last sentence states."""
    first_line = _BULLET.sub("", part.strip().partition("\n")[0])
    bare = read_number(first_line) if len(first_line) <= LONGEST_CONCLUSION else None
    if bare is not None and ("\n" not in part.strip() or not re.search(r"[^\W\d]", first_line)):
        return bare
    stated = sentences(part.rstrip()[-LONGEST_CONCLUSION:])
    while stated and _COURTESY.match(stated[-1]):
        stated.pop()
    if not stated or not _WHOLE_SENTENCE.search(stated[-1]) or _NO_RESULT.search(stated[-1]):
        return None
    return stated_result(stated[-1])


def format_number(number: Fraction) -> str:
    """Write a number exactly: `1234`, `3.75`, `-7`; as `1/3` where no decimal is exact."""
    if number.denominator == 1:
        return str(number.numerator)
    denominator, places = number.denominator, 0
    for factor in (2, 5):
        power = 0
        while denominator % factor == 0:
            denominator //= factor
            power += 1
        places = max(places, power)
    if denominator != 1:
        return str(number)
    digits = str(abs(number.numerator) * 10**places // number.denominator).rjust(places + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def extract_number(output: str) -> Answer | None:
    """Read the final number out of a model's reply, written exactly; None when the reply states none."""
    number = read_final(output, _read_claim, _read_unnamed)
    return None if number is None else (format_number(number),)


def number_of(text: str) -> Fraction | None:
    """Return the number an answer is: the text itself, or the one it names ("… #### 18")."""
    number = read_number(text)
    return read_final(text, _read_claim, lambda part: None) if number is None else number


def score_number(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    """Score 1 when the prediction is exactly one of the numbers, else 0; F1 is the same figure.

    Compared as exact fractions: `3.75` is not 3, `1,234.00` is 1234. An answer that is no number is compared as text.
    """
    if prediction is None or len(prediction) != 1:
        return Score(0.0, 0.0)
    right = any(len(answer) == 1 and _same(prediction[0], answer[0]) for answer in answers)
    return Score(float(right), float(right))


def _same(predicted: str, gold: str) -> bool:
    wanted = number_of(gold)
    if wanted is None:
        return bool(gold.strip()) and clean_span(predicted).casefold() == clean_span(gold).casefold()
    return number_of(predicted) == wanted
