"""Which naming is the final answer, in free text. The readers of numbers, choices and spans all stand on this.

A reply is read in four steps:

1. Thoughts (`<think>` blocks) and everything after an end-of-text token are left out.
2. The reply is cut where it rambles on into a new problem ("Problem: …", "Question: …"); what follows is no answer to
   ours.
3. In what remains the answer is looked for where the model *names* it. A final naming ("Final answer: …", "#### …",
   `\\boxed{…}`, `<answer>…</answer>`) outranks a plain one ("The answer is …", `"answer": …` in JSON), that a label
   ("Answer: …", which reasoning may follow) or a guarded one ("the answer would be …"), and that a sub-answer: a naming
   in a numbered or bulleted line ("2. … the answer is 7", "A2: …"), or one that says so ("Intermediate answer: …",
   "the answer to subquestion 2 is …"). Least counts a cue that promises an answer without giving it ("The answer is
   found by …"). Of one rank the first counts, for a model that has answered often goes on to other things; of
   sub-answers the last, for they lead up to the question. A later naming takes over only when the model says in
   between that it looks again ("Wait, …", "Correction: …", "Let me check …").
4. A reply without any naming can be an answer given bare: one short line. Where only sub-answers are named, a result
   that the last sentence states after them counts more.

Reading takes time linear in the length of the reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fractionate.scoring.claims import LONGEST_VALUE, SUB_ANSWER, Claim, claims
from fractionate.scoring.reply import WRAPPERS, is_preamble, part_spans, visible, without_afterword
from fractionate.scoring.sentences import clean_span, sentences
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
_REASON = re.compile(
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
"""Characters before a naming that may belong to its statement ("So we can conclude that the correct …")."""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The final answer that a reply names: its value, and where in the visible text its naming begins."""

    value: T
    start: int
    rank: int
    end: int


def read_final(
    output: str,
    read: Callable[[Claim], T | None],
    read_unnamed: Callable[[str], T | None],
    read_conclusion: Callable[[str], T | None] | None = None,
) -> T | None:
    """Return what `read` makes of the named final answer, or `read_unnamed` of a reply that names none.

    `read` returns None for a value that is no answer of its kind (a question restated after "Final answer:", a naming
    without a number), and the next naming is tried. `read_conclusion` reads what follows the last of mere sub-answers.
    """
    text = visible(output)
    found, start, end = _find(text, read)
    if found is None:
        return read_unnamed(without_afterword(text[start:end])) if end else None
    if found.rank >= SUB_ANSWER and read_conclusion:
        after = text[found.end : end].partition("\n")[2]
        concluded = read_conclusion(without_afterword(after)) if after.strip() else None
        if concluded is not None:
            return concluded
    return found.value


def _find(text: str, read: Callable[[Claim], T | None]) -> tuple[Found[T] | None, int, int]:
    """Return the naming that is the final answer, and where the part that was read to the end begins and ends."""
    for start, end in part_spans(text):
        part = text[start:end]
        named = _best(part, [(claim, value) for claim in claims(part) if (value := read(claim)) is not None])
        if named is not None:
            claim, value = named
            return Found(value, start + claim.start, claim.rank, start + claim.end), start, end
        if not is_preamble(part):
            return None, start, end
    return None, 0, 0


def _best(part: str, readings: list[tuple[Claim, T]]) -> tuple[Claim, T] | None:
    """Choose among the namings of one part: by rank, then the first (of sub-answers the last), then corrections."""
    if not readings:
        return None
    rank = min(claim.rank for claim, _ in readings)
    ranked = [place for place, (claim, _) in enumerate(readings) if claim.rank == rank]
    chosen = ranked[-1] if rank == SUB_ANSWER else ranked[0]
    best = readings[chosen]
    scanned = best[0].end
    for reading in readings[chosen + 1 :]:
        if reading[0].rank < SUB_ANSWER:
            if _CORRECTION.search(part, scanned, reading[0].start):
                best = reading
            scanned = reading[0].end
    return best


def split_final(output: str, read: Callable[[Claim], object | None] | None = None) -> tuple[str, str]:
    """Cut a reply before its final answer: (reasoning, statement). Either may be empty.

    The cut is before the naming that `read_final` takes, of the values that `read` can read (`claim_reader` gives the
    one of an answer's form; by default any text is read), so that sub-answers stay in the reasoning. Thoughts, and new
    problems that the reply rambles on into, are in neither. A reply that names only sub-answers is all reasoning.
    """
    text = visible(output)
    found, _, end = _find(text, read or read_span)
    if found is None or found.rank >= SUB_ANSWER:
        return text[: end or len(text)].rstrip(), ""
    start = _statement(text, found.start)
    return text[:start].rstrip().rstrip(",;"), text[start:end].strip()


def _statement(text: str, naming: int) -> int:
    """Return where the statement begins whose naming begins at `naming`: with its "So the correct", if there is one."""
    floor = max(text.rfind("\n", 0, naming) + 1, naming - _LONGEST_LEAD_IN)
    starts = [place for place in range(floor, naming) if place == floor or not text[place - 1].isalnum()]
    start = next((place for place in starts if _LEADS_IN.match(text, place, naming)), naming)
    introduction = _INTRODUCES.search(text, floor, naming)
    return min(start, introduction.start()) if introduction else start


def read_span(claim: Claim) -> Answer | None:
    """Read a claim's value as one span of text: its first sentence, cleaned. None for a question or nothing."""
    stated = sentences(_REASON.sub("", claim.value))
    if not stated or stated[0].rstrip(WRAPPERS).endswith("?"):
        return None
    if claim.alone and len(stated[0].split()) > LONGEST_BARE_WORDS:
        return None
    span = clean_span(stated[0])
    return (span,) if any(character.isalnum() for character in span) else None


def read_bare(part: str) -> Answer | None:
    """Read a reply that is nothing but a short answer on one line."""
    line = part.strip()
    if "\n" in line or len(line) > LONGEST_VALUE or len(line.split()) > LONGEST_BARE_WORDS or line.endswith("?"):
        return None
    span = clean_span(_REASON.sub("", line))
    return (span,) if any(character.isalnum() for character in span) else None


def extract_final(output: str) -> Answer | None:
    """Read the final answer out of a model's free-text reply, as one span; None when none is named.

    Reads "The answer is: …", "Final answer: …", "So the final answer is …", `\\boxed{…}`, "#### …" and an answer given
    bare; the module's docstring says which counts when there are several.
    """
    return read_final(output, read_span, read_bare)
