r"""Reading a number as an exact fraction, and finding the number a reply gives as its answer (GSM8K and its like).

What is read: `3.75`, `1,234.00`, `$42`, `-$5`, `−7`, `(-7)`, `42%` (the figure, 42), `1e3`, `1/2`, `1 1/2`, `½`, `.5`,
`2 million`, `$80K`, `Rs. 750`, `\frac{1}{2}`, `\boxed{42}`, `**42**`, `"42"`, `18th`, `minus 5`, `$1 234`, `1 234 567`,
`50 cm^2`, `5:00`, `eighteen`, `two hundred and fifty`. What is no number stays unread and is not cut down to one:
`3,75`, `1.2.3`, `10:30`, `5 or 7`, `1 hour 30 minutes`, `5-7` and other sums that were not worked out, `2x + 3`.

The answer is looked for where it is *named* (see `final`). A reply that names none may still state it: its last
sentence, if whole or all there is, states one result (see `results`); anywhere else a number only stands in the
reasoning. Of 660 recorded chain-of-thought replies of GPT-4 230 name no answer in words, so this lower rule matters:
without it GPT-4 would score .63 instead of .94.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from fractionate.scoring.claims import Claim
from fractionate.scoring.figures import LED_NUMBER, in_words, is_term, mentions_number, value
from fractionate.scoring.final import read_final
from fractionate.scoring.number_text import plain_text
from fractionate.scoring.reply import LONGEST_CONCLUSION
from fractionate.scoring.results import stated_first, stated_result
from fractionate.scoring.sentences import sentences
from fractionate.types import Answer

LONGEST_TEXT = 2000
"""Characters of a text that may be one number with its unit; a longer one is none."""

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


def read_number(text: str) -> Fraction | None:
    """Read a text that is one number, alone or with its unit ("$5", "42 apples", "is: 5,"). None for anything else."""
    if len(text) > LONGEST_TEXT:
        return None
    plain = plain_text(text)
    number = LED_NUMBER.match(plain)
    if number is None:
        return in_words(plain)
    rest = plain[number.end() :]
    if is_term(plain, number) or len(rest.split()) > 5 or re.search(r"\d", rest):
        return None
    return value(number)


def read_claim(claim: Claim) -> Fraction | None:
    """Read the number a naming gives. None for a restated question, a refusal, or a heading that holds one.

    A label must be followed by the number itself; if it is reasoning ("A: Ann has 2 + 3 = 5 eggs. …") it is no answer.
    """
    if not mentions_number(claim.value):
        return None
    if claim.alone:
        return read_number(claim.value) if "=" not in claim.value else stated_result(claim.value)
    first = stated_first(claim.value, claim.following, alone=claim.label)
    if first is not None or claim.label:
        return first
    stated = sentences(claim.value)
    return None if not stated or stated[0].endswith("?") else stated_result(stated[0])


def _read_unnamed(part: str) -> Fraction | None:
    """Read a reply that names no answer: one bare number on its first line, or the result its last sentence states."""
    first_line = _BULLET.sub("", part.strip().partition("\n")[0])
    bare = read_number(first_line[:LONGEST_CONCLUSION])
    if bare is not None and ("\n" not in part.strip() or not re.search(r"[^\W\d]", first_line)):
        return bare
    return _read_conclusion(part)


def _read_conclusion(part: str) -> Fraction | None:
    """Read the result that a text's last sentence states, if it is whole or all there is."""
    stated = sentences(part.rstrip()[-LONGEST_CONCLUSION:])
    while stated and _COURTESY.match(stated[-1]):
        stated.pop()
    if not stated or stated[-1].endswith("?"):
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
    number = read_final(output, read_claim, _read_unnamed, _read_conclusion)
    return None if number is None else (format_number(number),)


def number_of(text: str) -> Fraction | None:
    """Return the number an answer is: the text itself, or the one it names ("… #### 18")."""
    number = read_number(text)
    return read_final(text, read_claim, lambda part: None) if number is None else number
