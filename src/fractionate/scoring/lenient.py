"""Lenient readers: the last number, name, letter or yes/no of a reply that states no answer in a form that is parsed.

An untuned model may know the answer and word it in a way that the strict readers leave unparsed on purpose. Scoring
under both readings splits a gain of training into a formatting gain (the rise of the strict score beyond that of the
lenient one) and a content gain (the rise of the lenient score). A lenient reader guesses: where the reasoning breaks
off, the last number is an intermediate result. So the lenient score stands beside the strict one, never in its place.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from fractionate.scoring.dates import find_dates, find_times
from fractionate.scoring.forms import READERS
from fractionate.scoring.number_answers import format_number
from fractionate.scoring.numbers import NUMBER, SPELT, plain_text, value, value_of
from fractionate.scoring.reply import LATEX_TEXT, clean_span, is_preamble, part_spans, visible
from fractionate.types import Answer, AnswerForm

LONGEST_LOOK = 5_000
"""Characters at the end of a reply in which something like an answer is looked for."""

_LIST_MARKER = re.compile(r"^[ \t>*_#-]{0,8}\(?\d{1,2}[.):]{1,2}(?=\s)", re.MULTILINE)
_WORD = re.compile(r"\S+")
_STARTERS = frozenset(
    re.findall(
        r"\S+",
        """
        a about after all also although an and another answer are as at based because before both but by can correct
        could did do does each either even every finally first for from given had has have he hence her here his how
        however i i'm if in instead is it it's its last later let let's many may maybe might more most my next no
        not note now of ok okay on once one only option or other our over overall part perhaps please possibly
        probably question second she should since so some sorry step still sure than that that's the their then
        there therefore these they third this those though thus to total two under unfortunately until was we well
        were what when where whether which while who whose why will with without would yes yet you your
        """,
    )
)
"""Words that are no names though they begin with a capital letter."""
_CONNECTORS = frozenset(re.findall(r"\S+", "of the de la le du van von der den da di del al bin and & y"))
_LETTERS = re.compile(
    r"[(\[]([A-Ha-h])[)\]]|(?<![\w'’./-])([B-H])(?![\w'’/-])|(?<![\w'’./-])(A)(?=[).:,*]|\s*+$|[ ](?:is|was)\b)"
    r"|\b(?:option|choice|answer|letter|choose|pick|select)(?: is)?:? \(?([A-Ha-h])(?![\w'’])",
)
_SAID = re.compile(
    r"\b(?:(?P<denied>(?:not|n['’]t)[ ](?:true|correct))|(?P<yes>yes|yeah|yep|true)"
    r"|(?P<no>nope|false|no(?=[^\w\s]|\s*+$)))\b",
    re.IGNORECASE,
)


def lenient_reader(form: AnswerForm) -> Callable[[str], Answer | None]:
    """Return a reader of what outputs of a form may have meant; None only where nothing of the kind is mentioned.

    It gives the stated answer where there is one; else the last number, the last named entity (a capitalised phrase; a
    number where that stands later), the last choice letter, or the last yes or no. As for the strict readers, a new
    problem that the reply rambles on into does not count; thoughts do where there is nothing else.
    """
    extract, last = READERS[form].extract, _LAST[form]

    def read(output: str) -> Answer | None:
        stated = extract(output)
        if stated is not None:
            return stated
        meant = last(_said(output)[-LONGEST_LOOK:])
        return None if meant is None else (meant,)

    return read


def _said(output: str) -> str:
    """Return the part of a reply that is about our problem; of thoughts that never ended, all of them."""
    text = visible(output)
    if not text.strip():
        text = output.replace("<think>", " ").replace("</think>", " ")
    spans = [text[start:end] for start, end in part_spans(text)]
    return next((part for part in spans if not is_preamble(part)), spans[0] if spans else "")


def last_number(text: str) -> str | None:
    """Return the last number that a text mentions, written exactly; list numbering does not count."""
    found = _last_figure(plain_text(_LIST_MARKER.sub(" ", text)))
    return None if found is None else found[1]


def _last_figure(plain: str) -> tuple[int, str] | None:
    """Return the last number of a plain text and where it stands: in figures, else in words."""
    for pattern, amount in ((NUMBER, value), (SPELT, value_of)):
        for match in reversed(list(pattern.finditer(plain))):
            found = amount(match)
            if found is not None:
                return match.start(), format_number(found)
    return None


def last_entity(text: str) -> str | None:
    """Return the last named entity that a text mentions, or its last number where that stands later.

    A named entity is a run of capitalised words ("Bank of England"). A single one that only opens a sentence is taken
    where there is no other.
    """
    text = _LIST_MARKER.sub(" ", LATEX_TEXT.sub(r"\1", text))
    name, opening = None, None
    for start, phrase, opens in _capitalised(text):
        if opens and " " not in phrase:
            opening = (start, phrase)
        else:
            name = (start, phrase)
    figure = _last_figure(text)
    candidates = [found for found in (name, figure) if found is not None]
    found = max(candidates, default=opening)
    return None if found is None else clean_span(found[1])


def _capitalised(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield each run of capitalised words: where it begins, its words, and whether it opens a sentence."""
    run: list[str] = []
    linking: list[str] = []
    begins, opens, sentence_opens = 0, False, True
    for line in text.splitlines(keepends=True):
        sentence_opens = True
        for match in _WORD.finditer(line):
            word = match[0].strip("*_`\"'“”‘’«»()[]{},;:!?$\\")
            bare = word.rstrip(".")
            named = bare[:1].isupper() and bare.casefold().replace("’", "'") not in _STARTERS
            if named:
                if not run:
                    begins, opens = match.start(), sentence_opens
                run += [*linking, word if _initial(word) else bare]
                linking = []
            elif run and bare in _CONNECTORS:
                linking.append(bare)
            breaks = match[0].rstrip("*_\"'”’")[-1:] in ",;:.!?)" and not _initial(word)
            if run and (breaks or not (named or linking)):
                yield begins, " ".join(run), opens
                run, linking = [], []
            sentence_opens = match[0].rstrip("*_\"'”’)")[-1:] in ".!?:" and not _initial(word)
        if run:
            yield begins, " ".join(run), opens
            run, linking = [], []


def _initial(word: str) -> bool:
    """Tell whether a word is an initial or a short title, whose full stop ends nothing ("J.", "Dr.")."""
    return word.endswith(".") and len(word) <= 3


def last_choice(text: str) -> str | None:
    """Return the last choice letter that a text mentions, as a capital; an article "A" is none."""
    last = None
    for match in _LETTERS.finditer(text):
        last = match
    return None if last is None else next(filter(None, last.groups())).upper()


def last_yes_no(text: str) -> str | None:
    """Return the last "yes" or "no" that a text says ("true" and "false" too); the "no" of "no one" is none."""
    last = None
    for match in _SAID.finditer(text):
        last = match
    return None if last is None else "yes" if last["yes"] else "no"


def last_date(text: str, *, day_first: bool = False) -> str | None:
    """Return the last date that a text mentions."""
    return _last_of(find_dates(text, day_first))


def last_time(text: str) -> str | None:
    """Return the last time of day that a text mentions."""
    return _last_of(find_times(text))


def _last_of(found: Iterator[tuple[object, int]]) -> str | None:
    last = deque(found, maxlen=1)
    return str(last[0][0]) if last else None


_LAST: dict[AnswerForm, Callable[[str], str | None]] = {
    "number": last_number,
    "numbers": last_number,
    "money": last_number,
    "quantity": last_number,
    "date": last_date,
    "date-day-first": partial(last_date, day_first=True),
    "time": last_time,
    "yes-no": last_yes_no,
    "choice": last_choice,
    "span": last_entity,
    "text": last_entity,
    "free": last_entity,
}
