r"""Extracts the number that a reply gives as its answer, as an exact fraction (GSM8K and similar sets).

What is read: `3.75`, `1,234.00`, `$42`, `-$5`, `−7`, `(-7)`, `42%` (the figure, 42), `1e3`, `1/2`, `1 1/2`, `½`, `.5`,
`2 million`, `$80K`, `Rs. 750`, `\frac{1}{2}`, `\boxed{42}`, `**42**`, `"42"`, `18th`, `minus 5`, `$1 234`, `1 234 567`,
`50 cm^2`, `5:00`, `eighteen`, `two hundred and fifty`. What is no number stays unparsed and is not cut down to one:
`3,75`, `1.2.3`, `10:30`, `5 or 7`, `1 hour 30 minutes`, `5-7` and other sums that were not worked out, `2x + 3`.

The answer is looked for where it is *named* (see `final`). A reply that names none may still state it: its last
sentence, if whole or all there is, states one result (`stated_result`); anywhere else a number only stands in the
reasoning. Of 660 recorded chain-of-thought replies of GPT-4 230 name no answer in words, so this lower rule matters:
without it GPT-4 would score .63 instead of .94.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from fractionate.scoring.final import read_final
from fractionate.scoring.numbers import (
    LED_NUMBER,
    NUMBER,
    SPELT,
    in_words,
    is_term,
    mentions_number,
    plain_text,
    value,
    value_of,
)
from fractionate.scoring.reply import LONGEST_CONCLUSION, sentences
from fractionate.scoring.statements import Statement, restates_task
from fractionate.types import Answer

LONGEST_TEXT = 2000
"""Characters of a text that may be one number with its unit; a longer one is none."""
_SHORT = 64
"""Characters of the longest answer whose number stays in memory."""

_BULLET = re.compile(r"^[-*•][ ]{1,3}")
ENUMERATED = re.compile(
    r"\b(?:first|second|third|fourth|fifth)[ ](?:answer|value|number|part|result)s?[ ](?:is|=|:)([^.\n]{1,60})",
    re.IGNORECASE,
)
"""One of several answers: "The second answer is 9."."""
_FINAL_LABEL = re.compile(r"^[*_#> ]{0,6}(?:final )?answer[*_ ]{0,3}:", re.IGNORECASE)
_BROKEN_OFF = re.compile(r"(?:,\d{1,2}|[-+/=(,]|[ ]\*)$")
"""The end of a reply that was cut off in the middle of a number or a sum."""
_COURTESY = re.compile(
    r"^(?:please )?(?:let me know|i hope|hope this|feel free|is there anything|good luck)\b", re.IGNORECASE
)
_WHOLE_SENTENCE = re.compile(
    r"[.!][\"'”’)*_`]{0,4}$|[=≈][ ]?[^=≈]*$|\\[a-z]+(?:\{[^{}\n]{0,100}\})+[$ .]*$|"
    r"^(?:\*\*|\\[\[(])(?!\W*step)[^\n]*(?:\*\*|\\[\])])\.?$|\b(?:is|are|be|total|result|sum|solution"
    r"|answer)\b[^:\n]{0,40}:"
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


def read_statement(statement: Statement) -> Fraction | None:
    """Read the number a statement gives. None for a restated question, a refusal, or a heading that holds one.

    A label must be followed by the number itself; if it is reasoning ("A: Ann has 2 + 3 = 5 eggs. …") it is no answer.
    """
    if not mentions_number(statement.value):
        return None
    if restates_task(statement.value):
        task = sentences(statement.value)[0]
        return stated_result(task) if "=" in task else None
    if statement.alone:
        return read_number(statement.value) if "=" not in statement.value else stated_result(statement.value)
    first = stated_first(statement.value, statement.following, alone=statement.label)
    if first is not None or statement.label:
        return first
    stated = sentences(statement.value)
    return None if not stated or stated[0].endswith("?") else stated_result(stated[0])


def read_unstated_number(part: str) -> Fraction | None:
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
    if not stated or stated[-1].endswith("?") or _BROKEN_OFF.search(stated[-1]):
        return None
    if stated[-1].startswith("#### ") and len(NUMBER.findall(plain_text(stated[-1]))) > 1:
        return None  # A marked answer that is no single number.
    if ENUMERATED.search(stated[-1]):
        return None
    label = _FINAL_LABEL.match(stated[-1])
    if label and restates_task(stated[-1][label.end() :]):
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
    number = read_final(output, read_statement, read_unstated_number, _read_conclusion)
    return None if number is None else (format_number(number),)


def number_of(text: str) -> Fraction | None:
    """Return the number an answer is: the text itself, or the one it names ("… #### 18")."""
    return _number_of_short(text) if len(text) <= _SHORT else _number_of(text)


@lru_cache(1 << 14)
def _number_of_short(text: str) -> Fraction | None:
    # Every pair of a matrix is scored against the same gold answers.
    return _number_of(text)


def _number_of(text: str) -> Fraction | None:
    number = read_number(text)
    return read_final(text, read_statement, lambda part: None) if number is None else number


LEAST_IN_WORDS = 10
"""The least number in words that is taken for a result in a sentence: "two ways to see it" is none."""

_FACTOR = r"\([ ]?[-$€£]{0,2}\d[\d.,]*[ ]?\)"
PARENTHESES = re.compile(
    rf"(?<![*/×÷^·])(?<![+*/×÷^·][ ])(?!(?<=[\d+*/×÷^·-]){_FACTOR}"
    rf"|(?<=[-+*/×÷^·][ ]){_FACTOR})(?:\([^()]{{0,200}}\)|\[[^\[\]]{{0,200}}\])"
    r"(?![ ]?[-+*/×÷^·])"
)
"""An aside in parentheses, which is no factor or term of a sum."""
_OPENING_CLAUSE = re.compile(
    r"^[\s(\[]*(?:(?:so|therefore|thus|hence|then|now|and|but|finally|lastly),?[ ])?"
    r"(?:since|because|although|though|after|before|if|when|as|with|without|"
    r"at|in|for|by|during|over|on|given|from|to|out of|of|assuming|rounded|"
    r"adding|converting|dividing|multiplying)\b[^\n]*?,[ ]",
    re.IGNORECASE,
)
_CONSEQUENCE = re.compile(
    r",[ ](?:so|therefore|thus|hence|which (?:is|means|equals|gives|makes)|or|i\.e\.)\b,?", re.IGNORECASE
)
_CONTRAST = re.compile(r"[,;][ ](?:but|yet|however),?[ ]", re.IGNORECASE)
_UNABLE = r"(?:can ?not|can['’]t|could not|couldn['’]t|unable to|(?:impossible|not possible|not able|no way) to)"
_NOT_KNOWN = r"(?:unknown|unclear|undetermined|uncertain|unsure|indeterminate|unspecified)"
_NOT = r"(?:\bnot|n['’]t)"
_NO_RESULT = re.compile(
    rf"(?<!who )(?<!that )(?<!which )\b{_UNABLE}\b"
    rf"|(?:^[\s*_]*|\b(?:is|are|was|were|be|am|'m|’m|remains?|stays?|still) (?:still |also |simply )?){_NOT_KNOWN}\b"
    r"(?! (?:is|are|was|were)\b)"
    rf"|{_NOT} (?:known|clear|sure|certain|given|stated|specified|possible|enough|sufficient|provided)\b"
    r"|\b(?:is|are|seems?) impossible\b|\b(?:insufficient|not enough|no|more) (?:information|data|detail)"
    rf"|{_NOT} have (?:enough|any|sufficient) (?:information|data|detail)"
    r"|\b(?:i|we|you|one) (?:do not|don['’]t|did not|didn['’]t) know\b"
    r"|\b(?:do|does|did)(?:n['’]t| not) make sense\b"
    r"|\b(?:is|was|are|be) (?:wrong|incorrect)\b|\bdepend(?:s|ing)? (?:up)?on\b|\bwithout (?:knowing|more)\b"
    r"|\bneed(?:s|ed)? to know\b"
    rf"|\b(?:an?|some) (?:error|mistake|typo) in\b|\berror:|{_NOT}(?: be| equal)? [$€£]?\d|\bnull\b"
    r"|\b(?:am|is|are|was|'m|’m) (?:\w{1,10} )?(?:confus\w{2,4}|stuck)\b|\bgot (?:lost|stuck|confused)\b",
    re.IGNORECASE,
)
"""Words that deny the result. The same words about something else ("the unknown number is 7") do not."""
_MODAL = r"(?:will|would|can|could|should|must|shall|may|might|(?:has|have|had|needs?|needed)[ ]to)"
_WHOM = (
    r"(?:[ ](?:her|him|them|you|us|me|it|each|all|both|everyone|(?-i:[A-Z])[a-z]{1,12}|"
    r"(?:his|her|their|my|your|our|its|the)[ ][a-z]{2,12}))?"
)
_ABOUT = (
    r"(?:[ ](?:an?|about|approximately|around|roughly|exactly|only|just|still|now|back|each|up[ ]to|at[ ]least"
    r"|at[ ]most|"
    r"a[ ]total[ ]of|equal[ ]to|with))*[ ]$"
)
_STATES = re.compile(
    rf"(?:\b{_MODAL}(?:[ ](?:each|all|both|now|then|only|also|still|have|be|need[ ]to|get[ ]to))*[ ][a-z]{{2,15}}"
    rf"{_WHOM}(?:[ ](?:to|at|by))?"
    r"|\b(?:is|are|was|were|equals?|weighs?|weighed|totals?|totall?ed|amount(?:s|ed)?[ ]to|c[ao]mes?[ ]to|"
    r"adds?[ ]up[ ]to|sums?[ ]to|measures?|lasts?|arrives?[ ](?:after|in)|"
    rf"(?:costs?|takes?|took|leaves?|left|has|have|had|needs?|needed|ow(?:es?|ed)|gives?|gave|g(?:ets?|ot)"
    r"|sav(?:es?|ed)|earn(?:s|ed)?|spends?|spent|ma(?:kes?|de)|sells?|sold|buys?|bought|reads?|walk(?:s|ed)|collect(?:s|ed)"
    r"|us(?:es?|ed)|"
    rf"eats?|ate|finds?|found|r[ua]ns?|drives?|miss(?:es|ed)|contains?|holds?|receive[sd]?|pays?|paid){_WHOM})"
    r"|\ba(?:n|[ ][a-z]{1,12})?[ ](?:total|profit|sum|difference|remainder|loss|average|cost|price|amount|income|"
    r"balance|saving|discount|distance|result|product|bill|payment|salary|speed|score|increase|decrease|gain|surplus|"
    r"deficit|refund)[ ]of)"
    rf"{_ABOUT}",
    re.IGNORECASE,
)
"""Words before a figure that make it what the clause states."""
_PAYS = re.compile(rf"\b(?:charge[sd]?|gain(?:s|ed)?|los(?:es?|t)){_WHOM}{_ABOUT}", re.IGNORECASE)
"""Words before an amount of money that make it what the clause states."""
_UNDER_CLAUSE = re.compile(
    r"\b(?:to[ ](?:ensure|make sure|have|get|reach)|when|if|while|because|since|than|who|which|that|where"
    r"|until)\b[^,;]{0,80}$",
    re.I,
)
_UNDER_PHRASE = re.compile(
    r"\b(?:[a-z]{2,12}ing|to[ ][a-z]{2,12}|in|for|after|before|at|over|within|with|without|from|by|on|of|per|during"
    r"|out of|"
    r"among|between|as)\b[^,;]{0,80}$",
    re.IGNORECASE,
)
"""Words between two figures that make the later one an aside: "4 hours to dig 30 holes", "$60 selling 10 jars"."""
_ENDS_CLAUSE = re.compile(r"[,;]|\b(?:and|or|but)\b", re.IGNORECASE)
_JOINED = re.compile(r"\b(?:and|or|but)\b|&", re.IGNORECASE)
_FROM_NOW = re.compile(
    r"[ ](?:years?|months?|weeks?|days?|hours?|minutes?)[ ](?:from now|ago|later|earlier|before|after)\b"
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_PURPOSE = re.compile(
    r"(?<!amount )(?<!amounts )(?<!come )(?<!comes )(?<!up )(?<!equal )(?<!has )(?<!have )(?<!had )(?<!need )"
    r"(?<!needs )(?<!going )(?<!able )\bto[ ][a-z]{2,12}(?:[ ][a-z]{1,12}){0,4}[ ]$",
    re.IGNORECASE,
)
"""What a figure is only wanted for: "to save $80", "to get an average of 93"."""
_LONGEST_LEAD_IN = 80
_DETERMINED = re.compile(
    r"\b(?:the|these|those|all|both|other|his|her|its|their|our|my|your|half|several|few)[ ]$", re.IGNORECASE
)
_SYMBOLIC = re.compile(r"\\[dt]?frac|\\?\bsqrt\b|\\sqrt|[√π]")
_THAT = re.compile(r"[\s*_\"']*(?:is[ ])?that\b", re.IGNORECASE)
_CLAUSE_BREAK = r"(?:since|because|as|for|when|if|where|which|so|and|or|but|that|is|are)"
_SUBJECT_OF_CLAUSE = re.compile(
    rf"(?:[ ](?!{_CLAUSE_BREAK}\b)[^\s,;:().=]{{1,20}}){{1,8}}?[ ](?:will|would|can|could)[ ]", re.IGNORECASE
)
_BREAKS_EQUATION = re.compile(rf"[,;:]\s|\b{_CLAUSE_BREAK}\b", re.IGNORECASE)
_SEVERAL_UNKNOWNS = re.compile(
    r"\b[a-z]\w{0,12}[ ]?=[ ]?[-$]?\d[\d.,]*(?:,|;|,?[ ]and)[ ][a-z]\w{0,12}[ ]?=[ ]?[-$]?\d[\d.,]*[\s.!]*$",
    re.IGNORECASE,
)
_EQUALS = re.compile(r"[=≈]")


def stated_result(sentence: str) -> Fraction | None:
    """Read the one result a sentence states: behind its last equals sign, its only figure, or the one that is stated.

    Figures in parentheses and in an opening clause ("After 3 weeks, …") do not count. Of several others that one is the
    result that a verb or noun states ("7 tickets would cost $210", "a profit of $60 selling 10 jars"), where it states
    no other and the later figures are asides; else it is open which one is meant, and none is read. None too where the
    clause denies that there is a result.
    """
    plain = plain_text(sentence)
    outside = PARENTHESES.sub(" ", plain)
    clause = _clause(outside if re.search(r"\d", outside) else plain)
    if _NO_RESULT.search(clause):
        return None
    if _EQUALS.search(clause):
        return None if _SEVERAL_UNKNOWNS.search(clause) else equated(clause)
    figures = list(NUMBER.finditer(clause))
    if not figures:
        return _stated_in_words(clause)
    # "On the 5th day there are 12 frogs": a place in a row is no result beside a number.
    numbers = [figure for figure in figures if not _ORDINAL.match(clause, figure.end())] or figures
    if _SYMBOLIC.search(clause):
        return None
    if not any(is_term(clause, number) for number in numbers):
        values = {value(number) for number in numbers}
        if len(values) == 1:
            return values.pop()
    return _asserted(clause, numbers)


def _clause(plain: str) -> str:
    """Return the clause of a sentence that states its result: after its last consequence, without an opening clause."""
    for consequence in reversed(list(_CONSEQUENCE.finditer(plain))):
        if NUMBER.search(plain, consequence.end()):
            plain = plain[consequence.end() :]
            break
    contrast = _CONTRAST.search(plain)
    if contrast and not re.search(r"\d", plain[: contrast.start()]):
        plain = plain[contrast.end() :]
    opening = _OPENING_CLAUSE.match(plain)
    return plain[opening.end() :] if opening and NUMBER.search(plain, opening.end()) else plain


def _asserted(clause: str, numbers: list[re.Match[str]]) -> Fraction | None:
    """Return the one of several figures that a verb or noun states, where the figures after it are asides."""
    asides = _asides(clause, numbers)
    stated = [number for number in numbers if number not in asides and _is_stated(clause, number)]
    if len(stated) != 1 or is_term(clause, stated[0]):
        return None
    later = numbers[numbers.index(stated[0]) + 1 :]
    return value(stated[0]) if all(number in asides for number in later) else None


def _asides(clause: str, numbers: list[re.Match[str]]) -> list[re.Match[str]]:
    """Return the figures of a clause that only say how, when or of what: "4 hours to dig *30* holes"."""
    asides: list[re.Match[str]] = []
    in_clause = False  # Inside "when …" or "to ensure that …", where nothing is the result.
    for earlier, number in pairwise(numbers):
        between = clause[earlier.end() : number.start()]
        opens = _UNDER_CLAUSE.search(between) and not _JOINED.search(between)
        in_clause = bool(opens) or (in_clause and not _ENDS_CLAUSE.search(between))
        if in_clause:
            aside = True
        elif _JOINED.search(between):
            aside = earlier in asides and not _is_stated(clause, number)
        else:
            aside = bool(_UNDER_PHRASE.search(between) or _FROM_NOW.match(clause, number.end()))
            aside = aside and not _is_stated(clause, number)
        if aside:
            asides.append(number)
    return asides


def _is_stated(clause: str, number: re.Match[str]) -> bool:
    start = number.start()
    floor = max(0, start - _LONGEST_LEAD_IN)
    if _PURPOSE.search(clause, floor, start):
        return False
    return bool(_STATES.search(clause, floor, start) or (number["currency"] and _PAYS.search(clause, floor, start)))


def _stated_in_words(clause: str) -> Fraction | None:
    spelt = list(SPELT.finditer(clause))
    if len(spelt) != 1 or _DETERMINED.search(clause, max(0, spelt[0].start() - 10), spelt[0].start()):
        return None
    number = value_of(spelt[0])
    return number if number is not None and number >= LEAST_IN_WORDS else None


def equated(plain: str) -> Fraction | None:
    """Read the last side of an equation that is a number worked out: "9 * 2 = $18 a day" is 18, "18 = 9 * 2" too."""
    for side in reversed(_EQUALS.split(plain)):
        number = LED_NUMBER.match(side)
        if number and not is_term(side, number):
            return value(number)
    return None


def stated_first(text: str, following: str = "", *, alone: bool = False) -> Fraction | None:
    """Read the number that a named value begins with: "$22. She has 9 eggs left (16-3-4=9)" is 22.

    A chain of equations counts by its last side, over several sentences and lines if they are nothing but equations; if
    it must stand `alone`, nothing else may follow. A clause that begins with a figure ("7 tickets would cost $210")
    counts by what it states.
    """
    plain = plain_text(text)
    number = LED_NUMBER.match(plain)
    if number is None:
        return in_words(PARENTHESES.sub("", plain.partition(". ")[0]))
    if _THAT.match(plain) or _SUBJECT_OF_CLAUSE.match(plain, number.end()):
        result = stated_result(sentences(text)[0])
        if result is not None:
            return result
    if _is_equation(plain):
        return _last_side(text, following, alone)
    return None if is_term(plain, number) else value(number)


def _is_equation(plain: str) -> bool:
    """Tell whether a text begins with an equation: a number, then only terms and units up to the first equals sign."""
    number, equals = LED_NUMBER.match(plain), _EQUALS.search(plain)
    if number is None or equals is None or equals.start() < number.end():
        return False
    term = plain[number.end() : equals.start()]
    return not _BREAKS_EQUATION.search(term) and ". " not in term and term.count("(") <= term.count(")")


def _last_side(text: str, following: str, alone: bool) -> Fraction | None:
    """Return the last side of the equations that two texts begin with, where there is nothing else if `alone`."""
    result = None
    for sentence in sentences(f"{text}\n{following}"):
        plain = plain_text(sentence)
        if not _is_equation(plain):
            return None if alone else result
        result = equated(PARENTHESES.sub(" ", plain))
    return result
