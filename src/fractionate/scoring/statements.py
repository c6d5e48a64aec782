"""Finds where a reply states an answer: in words, by a label, or by a mark such as `\\boxed{…}`, and ranks them.

Every pattern here is bounded or possessive, so that reading takes time linear in the length of the reply.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from fractionate.scoring.reply import BOXED, WRAPPERS, braced, clean_span

FINAL, LAST_STEP, PLAIN, LABEL, SUB_ANSWER, CUE = range(6)
"""The ranks of a statement, best first; `final` says what each is."""

LONGEST_VALUE = 400
"""Characters after a statement in which its value is looked for."""

MOST_STATEMENTS = 100
"""Statements of each kind that are looked at, the first ones; a reply with more repeats itself."""

MOST_ITEMS = 500
"""Numbered lines that are looked at, the first ones."""

LONGEST_LINE = 2000
"""Characters of a numbered line that belong to it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One place where a reply names an answer.

    `value` is the rest of the line and `following` what comes after it; `alone` says that the value must be nothing but
    the answer, `label` that it must begin with it (reasoning may follow a label as well).
    """

    rank: int
    start: int
    end: int
    value: str
    alone: bool = False
    label: bool = False
    following: str = ""


@dataclass(frozen=True, slots=True)
class _Item:
    """A numbered, lettered or bulleted line: where it begins and ends, and its number (0 for a bullet)."""

    start: int
    end: int
    number: int


_BRACKET = r"(?:\((?P<bracket>(?:[^()\n]++|\([^()\n]*+\))*+)\)|\[[^\[\]\n]*+\])"
_WORDED = re.compile(
    r"(?:(?P<final>\bfinal(?:ly)?,?[ ]{1,2}(?:[a-z]{1,12}[ ]{1,2})?)?\b"
    r"|(?P<partial>\b(?:(?:intermediate|partial|interim|preliminary|provisional|second|third|fourth|fifth|next|sub)"
    r"[- ]{1,2}|sub)))answers?\b[*_]{0,3}"
    r"(?:(?(partial)[ ]{1,2}\#?\d{1,3}\b|(?!))"
    r"|[ ]{1,2}(?:to|for|of)[ ]{1,2}(?P<asked>\#\d{1,3}\b|(?:[\w'’-]{1,20}[ ]{1,2}){0,4}"
    r"(?:question|problem|q|subquestion|part|step)s?"
    r"(?:[ ]{0,2}\#?(?:\d{1,3}|one|two|three|four|five|[a-e])\b)?)|[ ]{1,2}here|,[ ]{1,2}(?:then|therefore|thus"
    r"|hence),?"
    rf"|[ ]{{1,2}}{_BRACKET}[*_]{{0,3}}|[ ]{{1,2}}in[ ]{{1,2}}[a-z]{{1,20}})?"
    r"[ ]{0,2}(?:(?P<link>\bis\b|\bare\b|\bwas\b|\bequals\b|\bcomes to\b|[:=→])"
    r"|(?P<modal>\b(?:(?:would|will|should|must)[ ]be|(?:seems|appears|has|turns[ ]out)[ ]to[ ]be)\b))",
    re.IGNORECASE,
)
_HEADED = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]{1,3}(?:final[ ])?answer[*_ ]{0,4}$", re.IGNORECASE | re.MULTILINE)
_LABELLED = re.compile(
    r"^[ \t*]{0,3}(?:A(?:ns\.?)?[ ]?[*]{0,2}:|[Aa]ns\.[ ]|(?:[Ff]inal[ ])?[Aa]nswer[*]{0,2}[ ]{1,2}[-–—][ ])",
    re.MULTILINE,
)
_HASHES = re.compile(r"^[ \t]{0,3}####[ \t]{0,3}(?=\S)", re.MULTILINE)
_TAGGED = re.compile(r"[<\[](?:final[ _-]?)?answer[>\]]", re.IGNORECASE)
_CLOSING_TAG = re.compile(r"[<\[]/")
_KEYED = re.compile(r"[\"'](?P<final>final[ _]?)?answers?[\"'][ ]{0,3}:[ ]{0,3}", re.IGNORECASE)
_JSON = json.JSONDecoder(parse_float=str, parse_int=str)
# A blank in these patterns is never a line end: what the line before ends in ("… is 12 years old") says nothing here.
_NOT_ASSERTED = re.compile(
    r"(?:\b(?:if|whether|unless|suppose|assuming|until)[ ]{1,2}(?:that[ ]{1,2})?"
    r"|\bto[ ](?:find|get|reach|compute|calculate|determine|give|check)[ ])(?:the|an?|our|your"
    r"|my)?[ ]?(?:\w{1,12}[ ])?$"
    # Answers that the problem is about: "each correct answer is 4 points", "right minus wrong answers is 12".
    r"|\b(?:first|second|third|fourth|fifth|previous|earlier|initial|original|old|wrong|incorrect|false|mean"
    r"|average|median|his|her|their|each|every|"
    r"any|per|minus|plus|all|an?)[ ](?:(?:correct|right|wrong|incorrect)[ ])?$|\b(?-i:[A-Z])[a-z]{1,12}['’]s[ ]$",
    re.IGNORECASE,
)
_LONGEST_LEAD_IN = 40
"""Characters before a statement in which "if the …" is looked for; none that is known is longer."""
_RESTATES = re.compile(
    r"[*_ ]{0,4}(?:please[ ])?(?:(?:find|calculate|compute|determine|work out|figure out|evaluate|estimate|count"
    r"|identify|"
    r"solve)\b|(?:given|if)\b[^.?!\n]{1,200}\b(?:find|calculate|compute|determine|how[ ](?:many|much)|what)\b"
    r"|how[ ](?:many|much|long|far|old|often|tall|big)\b|what(?:[ ](?:is|are|was|were|will|would)|['’]s)\b)",
    re.IGNORECASE,
)
"""A task that is restated where its answer is announced: "Final answer: Find the price in the year 2010."."""
_ORDINAL = r"(?:first|second|third|fourth|fifth|next|previous)"
_ONE_OF_SEVERAL = re.compile(rf"\d|\b(?:sub-?questions?|{_ORDINAL}|part|step)\b", re.IGNORECASE)
_FOR_ONE = re.compile(
    rf"\b(?:for|in|to|of|on)[ ](?:the[ ])?(?:(?:sub-?question|question|part|step)[ ]{{0,2}}\#?\d{{1,3}}"
    rf"|{_ORDINAL}[ ](?:sub-?)?(?:question|part|step))"
    rf"[^.?!\n]{{0,40}}$|(?:^|[.!?\n][ ]{{0,2}}){_ORDINAL}(?:ly)?,[ ](?:the[ ])?$",
    re.IGNORECASE,
)
_LONGEST_FOR_ONE = 80
"""Characters before a statement in which "for subquestion 2, the …" is looked for."""
_PROMISE = re.compile(
    r"(?:that[ ])?(?:(?:found|obtained|given|stated|calculated|computed|determined|derived|reached|hidden|based|"
    r"located|mentioned|provided|twice|double|triple|half|clear|obvious|simple|straightforward|easy|as follows|"
    r"(?:more|less|fewer|greater|larger|smaller|higher|lower|bigger) than|between)\b"
    r"|the[ ](?:number|sum|total|difference|product|quotient|amount|ratio|average|result|one|same|name|value)[ ]"
    r"(?:of|that|who|which|as|in|we|you)\b"
    r"|an?[ ](?:[a-z]{1,12}[ ])?(?:number|integer|fraction|multiple)\b"
    r"|in[ ]the[ ](?:passage|text|context|paragraph|article|question|problem|first|second|last|next)\b)",
    re.IGNORECASE,
)
"""Words after "the answer is" that speak of the answer without giving it."""
_SUPPOSED = re.compile(r"[^.!?\n]{1,80}?\b(?:if|unless|had)\b", re.IGNORECASE)
_ITEM = re.compile(
    r"^(?=[^\n])(?![ \t]{0,3}####[ \t]{0,3}[-$(]?\d)[ \t>*_#-]{0,8}?(?:"
    r"(?:[aq]|ans|answer|question|sub-?question|sub-?answer|follow-?up|step|part)[ ]{0,2}\#?(?P<labelled>\d{1,3})\b"
    r"|\#(?P<hashed>\d{1,3})\b|\(?(?P<numbered>\d{1,3})(?=[.):]{1,2}[*_]{0,2}(?:\s|$))"
    r"|\(?(?P<lettered>[a-h]|[ivx]{1,4})(?=[.)]{1,2}[*_]{0,2}(?:\s|$))|[-*•](?=[ \t]))",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBERED_QUESTION = re.compile(
    r"^[ \t>*_#-]{0,8}(?:q|question|sub-?[ ]?question|sub-?problem)[ ]{0,2}\#?(\d{1,3})\b", re.IGNORECASE | re.MULTILINE
)
_NUMBERED_ANSWER = re.compile(
    r"^[ \t>*_#-]{0,8}(?:a|ans|answer|sub-?[ ]?answer)[ ]{0,2}\#?(\d{1,3})[*_]{0,3}[ ]?[.:)][*_]{0,3}(?=\s)",
    re.IGNORECASE | re.MULTILINE,
)
_ROMAN = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x"]
_ASKS = re.compile(r"\?[\"'”’*_` ]{0,4}$")
_QUESTION_BEFORE = re.compile(
    r"\?[\"'”’)*_]{0,4}\s{1,3}[*_]{0,2}(?:(?:so|therefore|thus)\b,?[ ])?(?:the[ ])?[*_]{0,2}$", re.IGNORECASE
)
_BULLET = re.compile(r"[ \t]{0,3}(?:[-*•]|\d{1,2}[.)])[ \t]{1,3}")
_LIST_BELOW = re.compile(
    r"[*_: \t]{0,8}\n\s{0,4}?((?:[ \t]{0,3}[-*•][ \t]{1,3}\S[^\n]*(?:\n|$)){1,20}"
    r"|[ \t]{0,3}1[.)][ \t]{1,3}\S[^\n]*(?:\n[ \t]{0,3}\d{1,2}[.)][ \t]{1,3}\S[^\n]*){0,20})"
)
_VALUE_ENDS = re.compile(r"\s*(?:[}\]]|,(?!\d)|$)")


def statements(part: str) -> list[Statement]:
    """Return the places where the text names an answer, in order of position."""
    found = [*islice(_worded_statements(part), MOST_STATEMENTS), *islice(_marked_statements(part), MOST_STATEMENTS)]
    found.sort(key=lambda statement: statement.start)
    ranked = _ranked(_without_asked(part, found), list(islice(_items(part), MOST_ITEMS)))
    last = _answer_to_last_subquestion(part)
    return sorted([*ranked, last], key=lambda statement: statement.start) if last else ranked


def _answer_to_last_subquestion(part: str) -> Statement | None:
    """Return the answer to the last numbered subquestion ("Answer 2: …" after "Subquestion 2: …"), if both are there.

    Answers to earlier ones are steps. So are all, where the last subquestion has no answer.
    """
    questions = list(islice(_NUMBERED_QUESTION.finditer(part), MOST_ITEMS))
    if not questions:
        return None
    answers = list(islice(_NUMBERED_ANSWER.finditer(part, questions[-1].end()), MOST_ITEMS))
    if not answers or any(int(answer[1]) != int(questions[-1][1]) for answer in answers):
        return None
    answered = answers[-1]
    value, following = _value(part, answered.end())
    return Statement(SUB_ANSWER, answered.start(), answered.end(), value, following=following)


def restates_task(value: str) -> bool:
    """Tell whether a value restates the task ("Find the price in the year 2010") instead of giving its answer."""
    return bool(_RESTATES.match(value))


def _worded_statements(part: str) -> Iterator[Statement]:
    for match in _WORDED.finditer(part):
        if _NOT_ASSERTED.search(part, max(0, match.start() - _LONGEST_LEAD_IN), match.start()):
            continue
        value, following = _value(part, match.end())
        label = False
        if _PROMISE.match(value) or (match["modal"] and _SUPPOSED.match(value)) or _RESTATES.match(value):
            rank = CUE
        elif _is_partial(match) or _FOR_ONE.search(part, max(0, match.start() - _LONGEST_FOR_ONE), match.start()):
            rank = SUB_ANSWER
        elif match["final"]:
            rank = FINAL
        else:
            rank = PLAIN if match["link"] and match["link"].isalpha() else LABEL
            label = match["modal"] is None and rank == LABEL
        yield Statement(rank, match.start(), match.end(), value, label=label, following=following)
    for match in _LABELLED.finditer(part):
        value, following = _value(part, match.end())
        if _RESTATES.match(value):
            continue
        yield Statement(LABEL, match.start(), match.end(), value, label=True, following=following)


def _is_partial(match: re.Match[str]) -> bool:
    """Tell whether a statement says itself that it is a sub-answer's: "Intermediate answer", "answer to #2"."""
    if match["partial"] or (match["bracket"] or "").strip().isdecimal():
        return True
    return bool(match["asked"] and _ONE_OF_SEVERAL.search(match["asked"]))


def _marked_statements(part: str) -> Iterator[Statement]:
    for match in _HEADED.finditer(part):
        value, following = _value(part, match.end())
        yield Statement(FINAL, match.start(), match.end(), value, following=following)
    for match in _HASHES.finditer(part):
        if not _ITEM.match(part, match.start()):
            yield Statement(FINAL, match.start(), match.end(), _line(part, match.end()), alone=True)
    for match in BOXED.finditer(part):
        yield Statement(FINAL, match.start(), match.end(), braced(part, match.end()), alone=True)
    for match in _TAGGED.finditer(part):
        yield Statement(FINAL, match.start(), match.end(), _tagged_value(part, match.end()))
    for match in _KEYED.finditer(part):
        rank = FINAL if match["final"] else PLAIN
        yield Statement(rank, match.start(), match.end(), _keyed_value(part, match.end()))


def _items(part: str) -> Iterator[_Item]:
    for match in _ITEM.finditer(part):
        end = _end_of_line(part, match.end())
        if _ASKS.search(part, max(match.end(), end - 5), end) and part.startswith("\n", end):
            end = _end_of_line(part, end + 1)
        yield _Item(match.start(), end, _number(match))


def _number(item: re.Match[str]) -> int:
    """Return the number of an item; a letter or Roman numeral counts by its place, a bullet as 0."""
    letter = (item["lettered"] or "").lower()
    if letter in _ROMAN:
        return _ROMAN.index(letter) + 1
    return int(item["labelled"] or item["hashed"] or item["numbered"] or ord(letter or "`") - ord("`"))


def _end_of_line(part: str, start: int) -> int:
    limit = min(len(part), start + LONGEST_LINE)
    end = part.find("\n", start, limit)
    return end if end >= 0 else limit


def _without_asked(part: str, found: list[Statement]) -> list[Statement]:
    """Rank statements that follow a question as sub-answers, where several do and the last one does not."""
    asked = [
        bool(_QUESTION_BEFORE.search(part, max(0, statement.start - _LONGEST_LEAD_IN), statement.start))
        for statement in found
    ]
    if sum(asked) < 2 or asked[-1]:
        return found
    return [
        replace(statement, rank=SUB_ANSWER) if is_asked and statement.rank != CUE else statement
        for statement, is_asked in zip(found, asked, strict=True)
    ]


def _ranked(found: list[Statement], items: list[_Item]) -> list[Statement]:
    """Rank the statements inside numbered lines as sub-answers.

    A final statement keeps a rank above plain ones where the last numbered line alone holds final statements ("Step 3:
    The final answer is 26.").
    """
    if not found or not items:
        return found
    holders = _holders(found, items)
    pairs = list(zip(found, holders, strict=True))
    with_final = {held for statement, held in pairs if statement.rank == FINAL and held is not None}
    ranked = []
    for statement, held in pairs:
        if held is None or statement.rank == CUE:
            ranked.append(statement)
        elif statement.rank == FINAL and with_final == {len(items) - 1}:
            ranked.append(replace(statement, rank=LAST_STEP))
        else:
            ranked.append(replace(statement, rank=SUB_ANSWER))
    return ranked


def _holders(found: list[Statement], items: list[_Item]) -> list[int | None]:
    """Return for each statement the item that it belongs to, None for one outside.

    An item is its line, and the next one where it asks. One whose line names no answer reaches to the next item; the
    last one, where those before it have statements, to its first statement that another follows.
    """
    starts = [item.start for item in items]
    before = [bisect_right(starts, statement.start) - 1 for statement in found]
    inside = {
        place
        for statement, place in zip(found, before, strict=True)
        if place >= 0 and statement.start < items[place].end
    }
    holders: list[int | None] = []
    for position, (statement, place) in enumerate(zip(found, before, strict=True)):
        if place < 0:
            holders.append(None)
        elif statement.start < items[place].end:
            holders.append(place)
        elif place in inside:
            holders.append(None)
        elif place + 1 < len(items):
            holders.append(place if _leads_to(items[place], items[place + 1]) else None)
        else:
            parallel = place > 0 and _leads_to(items[place - 1], items[place]) and place - 1 in holders
            first, another = place not in holders, position + 1 < len(found)
            holders.append(place if parallel and first and another and statement.rank != FINAL else None)
    return holders


def _leads_to(item: _Item, later: _Item) -> bool:
    return item.number > 0 and later.number - item.number in (0, 1)


def _value(part: str, start: int) -> tuple[str, str]:
    """Return the value named at `start` and what follows it.

    The value is the rest of the line, or the next line or list where the rest is blank.
    """
    window = part[start : start + LONGEST_VALUE]
    listed = _LIST_BELOW.match(window)
    if listed:
        return "; ".join(clean_span(_BULLET.sub("", line)) for line in listed[1].splitlines()), ""
    value, _, following = window.lstrip(WRAPPERS + ":").partition("\n")
    return value, following


def _tagged_value(part: str, start: int) -> str:
    """Return the last line inside a tag, which reasoning may precede; an unclosed tag names what follows it."""
    window = part[start : start + LONGEST_VALUE]
    closing = _CLOSING_TAG.search(window)
    return window[: closing.start()].strip().rpartition("\n")[2] if closing else _value(part, start)[0]


def _keyed_value(part: str, start: int) -> str:
    """Return the JSON value at `start` as text; a list is joined as spans are. What is no JSON is read as a line.

    Quotes may be single, as Python writes a dict.
    """
    window = part[start : start + LONGEST_VALUE]
    for written in (window, window.replace("'", '"')):
        try:
            value, end = _JSON.raw_decode(written)
        except (ValueError, RecursionError):
            continue
        if _VALUE_ENDS.match(written, end):
            spans = value if isinstance(value, list) else [value]
            return "; ".join(span if isinstance(span, str) else json.dumps(span) for span in spans if span is not None)
    return _value(part, start)[0]


def _line(part: str, start: int) -> str:
    """Return the text from `start` to the end of its line, `LONGEST_VALUE` characters at most."""
    return part[start : start + LONGEST_VALUE].partition("\n")[0]
