"""Finds the final answer of a reply in free text. The readers of numbers, choices, dates and spans build on it.

A reply is read in four steps:

1. Thoughts (`<think>` blocks) and everything after an end-of-text token are left out.
2. The reply is cut where it goes on to a new problem ("Problem: …", "Question: …").
3. The answer is taken from the reply's statements, by rank: a final statement ("Final answer: …", "#### …",
   `\\boxed{…}`, `<answer>…</answer>`), a plain one ("The answer is …", `"answer": …` in JSON), a label ("Answer: …",
   which reasoning may follow), a guarded one ("the answer would be …"), a sub-answer (a numbered or bulleted line,
   "A2: …", "Intermediate answer: …"), a cue without an answer ("The answer is found by …"). The highest rank counts,
   and within a rank the last statement. A statement of a lower rank counts only where the model says in between that
   it looks again ("Wait, …", "Correction: …", "Let me check …").
4. A reply without a statement may be a bare answer: one short line. Where only sub-answers are stated, a result in the
   last sentence after them outranks them.

Reading takes time linear in the length of the reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fractionate.scoring.reply import (
    WRAPPERS,
    clean_span,
    is_preamble,
    loop_start,
    part_spans,
    sentences,
    visible,
    without_afterword,
)
from fractionate.scoring.statements import LONGEST_VALUE, SUB_ANSWER, Statement, statements
from fractionate.types import Answer

T = TypeVar("T")

LONGEST_BARE_WORDS = 12
"""A one-line reply of at most so many words is itself the answer."""

_CORRECTION = re.compile(
    r"\b(?:wait(?=[ ]?[,.!…—–-])|actually|correction|correcting|corrected|mistake|mistaken|sorry|apolog\w{2,6}|hold on|"
    r"scratch that|on (?:second thought|reflection)|i was wrong|that(?:'s|’s| is| was) (?:wrong|incorrect|not right)|"
    r"revised|let(?:['’]s| me| us) (?:re\w{2,12}|(?:double[- ]?)?check|verify)|h+m+|oops|my bad|an? error)\b",
    re.IGNORECASE,
)
REASON = re.compile(
    r"(?<=[\w*\"'”’)]),[ ](?:because|since|as|which)[ ].*"
    r"|[ ]{1,2}(?:[(\[*_]{1,3}|[-–—;][ ])(?:please[ ])?note(?:[:,]|[ ]that\b).*",
    re.IGNORECASE,
)
_LEADS_IN = re.compile(
    r"[\s>*_#(\[{\"'“$-]*+(?:(?:so|thus|therefore|hence|then|and|finally|in conclusion)\b[, ]*)?"
    r"(?:(?:we|i)[ ](?:can[ ])?(?:get|say|conclude|see|find)[ ](?:that[ ])?)?"
    r"(?:(?:the|our|my|your|its|an?)\b[ ]{0,2})?[*_$]{0,3}(?:[a-z]{1,12}[ ]{1,2})?[*_$<\[(\"']{0,3}$",
    re.IGNORECASE,
)
_INTRODUCES = re.compile(
    r"(?:^|(?<=[.!?\n])[ ]{0,2})[^.!?\n\d]{0,50}(?:\b(?:is|are|be|get|have|equals)|:)[ ]{0,2}[*_$(]{0,4}$"
)
_LONGEST_LEAD_IN = 60
"""Characters before a statement that may belong to its statement ("So we can conclude that the correct …")."""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The final answer that a reply names: its value, and where in the visible text its statement begins."""

    value: T
    start: int
    rank: int
    end: int


def read_final(
    output: str,
    read: Callable[[Statement], T | None],
    read_unstated: Callable[[str], T | None],
    read_conclusion: Callable[[str], T | None] | None = None,
) -> T | None:
    """Return what `read` makes of the stated final answer, or `read_unstated` of a reply that states none.

    `read` returns None for a value that is no answer of its kind (a question restated after "Final answer:", words
    without a number), and the next statement is tried. `read_conclusion` reads the text after the last sub-answer.
    """
    text = visible(output)
    found, start, end = _find(text, read)
    if found is None:
        whole = end and loop_start(text[start:end]) is None
        return read_unstated(without_afterword(text[start:end])) if whole else None
    if found.rank >= SUB_ANSWER and read_conclusion:
        after = text[found.end : end].partition("\n")[2]
        concluded = read_conclusion(without_afterword(after)) if after.strip() else None
        if concluded is not None:
            return concluded
    return found.value


def _find(text: str, read: Callable[[Statement], T | None]) -> tuple[Found[T] | None, int, int]:
    """Return the statement that is the final answer, and where the part that was read to the end begins and ends."""
    for start, end in part_spans(text):
        part = text[start:end]
        loop = loop_start(part)
        found = statements(part if loop is None else part[:loop])
        best = _best(part, [(statement, value) for statement in found if (value := read(statement)) is not None])
        if best is not None:
            statement, value = best
            return Found(value, start + statement.start, statement.rank, start + statement.end), start, end
        if not is_preamble(part):
            return None, start, end
    return None, 0, 0


def _best(part: str, readings: list[tuple[Statement, T]]) -> tuple[Statement, T] | None:
    """Choose among the statements of one part: by rank, then the last of that rank, then corrections."""
    if not readings:
        return None
    rank = min(statement.rank for statement, _ in readings)
    chosen = max(place for place, (statement, _) in enumerate(readings) if statement.rank == rank)
    best = readings[chosen]
    scanned = best[0].end
    for reading in readings[chosen + 1 :]:
        if reading[0].rank < SUB_ANSWER:
            if _CORRECTION.search(part, scanned, reading[0].start):
                best = reading
            scanned = reading[0].end
    return best


def split_final(output: str, read: Callable[[Statement], object | None] | None = None) -> tuple[str, str]:
    """Cut a reply before its final answer: (reasoning, statement). Either may be empty.

    The cut is before the statement that `read_final` takes, of the values that `read` can read (`statement_reader`
    gives the one of an answer's form; by default any text is read), so that sub-answers stay in the reasoning. Thoughts
    and new problems that the reply rambles on into are in neither. A reply with sub-answers alone is all reasoning.
    """
    text = visible(output)
    found, _, end = _find(text, read or read_span)
    if found is None or found.rank >= SUB_ANSWER:
        return text[: end or len(text)].rstrip(), ""
    start = _lead_in(text, found.start)
    return text[:start].rstrip().rstrip(",;"), text[start:end].strip()


def _lead_in(text: str, statement: int) -> int:
    """Return where the lead-in of the statement at `statement` begins ("So the correct"); there, if it has none."""
    floor = max(text.rfind("\n", 0, statement) + 1, statement - _LONGEST_LEAD_IN)
    starts = [place for place in range(floor, statement) if place == floor or not text[place - 1].isalnum()]
    start = next((place for place in starts if _LEADS_IN.match(text, place, statement)), statement)
    introduction = _INTRODUCES.search(text, floor, statement)
    return min(start, introduction.start()) if introduction else start


_KNOWS_NONE = re.compile(
    r"(?:(?:the|my) (?:final )?answer is:? )?(?:sorry,? )?"
    r"I (?:(?:do not|don['’]t) know|(?:can ?not|can['’]t) (?:say|tell|answer|determine|find)"
    r"|am (?:not sure|unable|unsure)|have no (?:idea|information))\b",
    re.IGNORECASE,
)


def read_span(statement: Statement) -> Answer | None:
    """Read a statement's value as one span of text: its first sentence, cleaned. None for a question or nothing."""
    stated = sentences(REASON.sub("", statement.value))
    if not stated or stated[0].rstrip(WRAPPERS).endswith("?"):
        return None
    if statement.alone and len(stated[0].split()) > LONGEST_BARE_WORDS:
        return None
    return _one_answer(stated[0])


def read_bare(part: str) -> Answer | None:
    """Read a reply that is nothing but a short answer on one line."""
    line = part.strip()
    if "\n" in line or len(line) > LONGEST_VALUE or len(line.split()) > LONGEST_BARE_WORDS or line.endswith("?"):
        return None
    return _one_answer(REASON.sub("", line))


def _one_answer(text: str) -> Answer | None:
    """Return a text as an answer, None where it holds no letter or digit, or says that the model knows none."""
    span = clean_span(text)
    return None if _KNOWS_NONE.match(span) or not any(map(str.isalnum, span)) else (span,)


def extract_final(output: str) -> Answer | None:
    """Read the final answer out of a model's free-text reply, as one span; None when none is named.

    Reads "The answer is: …", "Final answer: …", "So the final answer is …", `\\boxed{…}`, "#### …" and an answer given
    bare; the module's docstring says which counts when there are several.
    """
    return read_final(output, read_span, read_bare)


MOST_SPANS = 100
"""Lines of a list that may be an answer's spans; a longer list is none."""

_LISTED = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+(\S[^\n]*)$")


def extract_spans(output: str) -> Answer | None:
    """Read a final answer that may have several spans: one, several split at ";", or a bulleted list.

    Commas and "and" do not split, for names hold both ("Copenhagen, Denmark").
    """
    return read_final(output, read_spans, _read_unstated_spans)


def read_spans(statement: Statement) -> Answer | None:
    """Read the spans that a statement gives, split at semicolons."""
    return _split_spans(read_span(statement))


def _read_unstated_spans(part: str) -> Answer | None:
    lines = part.strip().split("\n", MOST_SPANS)
    listed = [_LISTED.match(line.rstrip()) for line in lines]
    if len(listed) > 1 and all(listed):
        spans = [read_bare(match[1]) for match in listed if match]
        return tuple(span[0] for span in spans if span) or None
    return _split_spans(read_bare(part))


def _split_spans(answer: Answer | None) -> Answer | None:
    if answer is None or ";" not in answer[0]:
        return answer
    return tuple(span.strip() for span in answer[0].split(";") if span.strip()) or None
