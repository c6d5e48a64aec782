"""Where a model names its final answer, in free text. The readers of numbers, choices and spans all stand on this.

A reply is read in four steps:

1. Thoughts (`<think>` blocks) and everything after an end-of-text token are left out.
2. The reply is cut where it rambles on into a new problem ("Problem: …", "Question: …"); what follows is no answer to
   ours.
3. In what remains the answer is looked for where the model *names* it. A final naming ("Final answer: …", "#### …",
   `\\boxed{…}`) outranks a plain one ("The answer is …", "Answer: …"), and that outranks one inside a numbered
   sub-answer ("A2: … the answer is 7"). Of one rank the first counts, for a model that has answered often goes on to
   other things; of sub-answers the last, for they lead up to the question. A later naming takes over only when the
   model says in between that it corrects itself ("Wait, …", "Correction: …").
4. A reply without any naming can be an answer given bare: one short line.

Every pattern here is bounded, so that reading takes time linear in the length of the reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from fractionate.types import Answer

T = TypeVar("T")

FINAL, PLAIN, SUB_ANSWER = 0, 1, 2
"""The ranks of a naming, best first."""

LONGEST_VALUE = 400
"""Characters after a naming in which its value is looked for."""

MOST_CLAIMS = 100
"""Namings of each kind that are looked at, the first ones; a reply with more repeats itself."""

LONGEST_LINE = 2000
"""Characters before a naming in which the start of its line is looked for."""

LONGEST_BARE_WORDS = 12
"""A one-line reply of at most so many words is itself the answer."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One place where a reply names an answer: `value` is the rest of the line, `alone` that it must be the answer."""

    rank: int
    start: int
    end: int
    value: str
    alone: bool = False


_END_OF_TEXT = re.compile(r"<\|(?:im_end|endoftext|eot_id|end|im_start)\|>|</s>|<end_of_turn>|<eos>")
_NEW_PROBLEM = re.compile(
    r"^[ \t>*#_-]{0,8}(?:(?:new|next|another)[ ]{1,2})?"
    r"(?:question|passage|context|instruction|user|human|q|(?:problem|example|exercise)(?:[ ]{0,2}\#?\d{1,4})?)"
    r"[*_ ]{0,4}:",
    re.IGNORECASE | re.MULTILINE,
)
_NAMING = re.compile(
    r"(?P<final>\bfinal(?:ly)?,?[ ]{1,2}(?:[a-z]{1,12}[ ]{1,2})?)?\banswers?\b[*_]{0,3}"
    r"(?:[ ]{1,2}(?:to|for|of)[ ]{1,2}(?P<asked>(?:[\w'’-]{1,20}[ ]{1,2}){0,4}"
    r"(?:question|problem|q|subquestion|part|step)s?"
    r"(?:[ ]{0,2}\#?\d{1,3})?)|[ ]{1,2}here|,[ ]{1,2}(?:then|therefore|thus|hence),?)?"
    r"[ ]{0,2}(?P<link>\bis\b|\bare\b|\bwas\b|\bequals\b|\bcomes to\b|\b(?:would|will|should|must)[ ]be\b|[:=→])",
    re.IGNORECASE,
)
_HEADED = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]{1,3}(?:final[ ])?answer[*_ ]{0,4}$", re.IGNORECASE | re.MULTILINE)
_LABELLED = re.compile(r"^[ \t*]{0,3}A(?:ns\.?)?[ ]?[*]{0,2}:", re.MULTILINE)
_HASHES = re.compile(r"^[ \t]{0,3}####[ \t]{0,3}(?=\S)", re.MULTILINE)
_BOXED = re.compile(r"\\f?boxed[ ]{0,2}\{")
_NOT_ASSERTED = re.compile(
    r"(?:\b(?:if|whether|unless|suppose|assuming|until)\s{1,2}(?:that\s{1,2})?"
    r"|\bto\s(?:find|get|reach|compute|calculate|determine|give|check)\s)(?:the|an?|our|your|my)?\s?(?:\w{1,12}\s)?$",
    re.IGNORECASE,
)
_ONE_OF_SEVERAL = re.compile(
    r"\d|\b(?:sub-?questions?|first|second|third|fourth|fifth|next|previous|part|step)\b", re.IGNORECASE
)
_SUB_LABEL = re.compile(
    r"^[ \t>*_-]{0,6}(?:[aq]|answer|question|sub-?question|sub-?answer|step|part)[ ]{0,2}\#?\d{1,3}\b",
    re.IGNORECASE | re.MULTILINE,
)
_CORRECTION = re.compile(
    r"\b(?:wait|actually|correction|correcting|corrected|mistake|mistaken|sorry|apolog\w{2,6}|hold on|scratch that|"
    r"on second thought|i was wrong|that(?:'s|’s| is| was) (?:wrong|incorrect|not right)|let me re\w{2,12}|revised)\b",
    re.IGNORECASE,
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Sr|Jr|Prof|Gen|Col|Lt|No|vs|etc|approx|e\.g|i\.e)|\.[A-Za-z]|"
    r"(?:^[ ]{0,3}|\b[A-Z][\w’'-]{0,15}\.?[ ])[A-Z])$"
)
_SENTENCE_END = re.compile(r"[.!?][\"'”’)*_]{0,4}(?=\s|$)")
_WRAPPERS = "*_`\"'“”‘’«» \t\r\n"


def visible(output: str) -> str:
    """Return what a reply says: without thoughts, and up to the first end-of-text token that follows any text.

    An unclosed `<think>` leaves nothing: all that was written is reasoning.
    """
    closed = output.rfind("</think>")
    text = output[closed + len("</think>") :] if closed >= 0 else output
    opened = text.find("<think>")
    if opened >= 0:
        text = text[:opened]
    for token in _END_OF_TEXT.finditer(text):
        if text[: token.start()].strip():
            return text[: token.start()]
    return text


def parts(text: str) -> Iterator[str]:
    """Yield the reply cut before each heading that opens a new problem. Blank parts are left out."""
    start = 0
    for heading in _NEW_PROBLEM.finditer(text):
        if heading.start() > start:
            if text[start : heading.start()].strip():
                yield text[start : heading.start()]
            start = heading.start()
    if text[start:].strip():
        yield text[start:]


def is_preamble(part: str) -> bool:
    """Tell whether a part only leads up to the answer: it restates the problem, or announces what follows."""
    return bool(_NEW_PROBLEM.match(part.lstrip())) or part.rstrip(_WRAPPERS).endswith(":")


def read_final(
    output: str,
    read: Callable[[Claim], T | None],
    read_unnamed: Callable[[str], T | None],
) -> T | None:
    """Return what `read` makes of the named final answer, or `read_unnamed` of a reply that names none.

    `read` returns None for a value that is no answer of its kind (a question restated after "Final answer:", a naming
    without a number), and the next naming is tried.
    """
    for part in parts(visible(output)):
        named = _best(part, [(claim, value) for claim in claims(part) if (value := read(claim)) is not None])
        if named is not None:
            return named
        if not is_preamble(part):
            return read_unnamed(part)
    return None


def _best(part: str, readings: list[tuple[Claim, T]]) -> T | None:
    """Choose among the namings of one part: by rank, then the first (of sub-answers the last), then corrections."""
    if not readings:
        return None
    rank = min(claim.rank for claim, _ in readings)
    ranked = [reading for reading in readings if reading[0].rank == rank]
    chosen, value = ranked[-1] if rank == SUB_ANSWER else ranked[0]
    scanned = chosen.end
    for claim, corrected in readings:
        if claim.start >= scanned and claim.rank <= PLAIN:
            if _CORRECTION.search(part, scanned, claim.start):
                value = corrected
            scanned = claim.end
    return value


def claims(part: str) -> list[Claim]:
    """Return the places where the text names an answer, in order of position."""
    found = [*islice(_spoken_claims(part), MOST_CLAIMS), *islice(_marked_claims(part), MOST_CLAIMS)]
    return sorted(found, key=lambda claim: claim.start)


def _spoken_claims(part: str) -> Iterator[Claim]:
    for match in _NAMING.finditer(part):
        if _NOT_ASSERTED.search(part, max(0, match.start() - 40), match.start()):
            continue
        if match["asked"] and _ONE_OF_SEVERAL.search(match["asked"]):
            yield _claim(part, SUB_ANSWER, match.start(), match.end())
        elif match["final"]:
            yield _claim(part, FINAL, match.start(), match.end())
        else:
            rank = SUB_ANSWER if _inside_sub_answer(part, match.start()) else PLAIN
            yield _claim(part, rank, match.start(), match.end())
    for match in _LABELLED.finditer(part):
        yield _claim(part, PLAIN, match.start(), match.end())


def _marked_claims(part: str) -> Iterator[Claim]:
    for match in _HEADED.finditer(part):
        yield _claim(part, FINAL, match.start(), match.end())
    for match in _HASHES.finditer(part):
        yield Claim(FINAL, match.start(), match.end(), _line(part, match.end()), alone=True)
    for match in _BOXED.finditer(part):
        yield Claim(FINAL, match.start(), match.end(), braced(part, match.end()), alone=True)


def _claim(part: str, rank: int, start: int, end: int) -> Claim:
    """Return the claim whose value stands on the rest of the line, or on the next line where the rest is blank."""
    value = _line(part, end)
    if not value.strip(_WRAPPERS + ":"):
        following = end
        while following < len(part) and (part[following] in _WRAPPERS or part[following] == ":"):
            following += 1
        value = _line(part, following) if following - end <= LONGEST_VALUE else ""
    return Claim(rank, start, end, value)


def _line(part: str, start: int) -> str:
    """Return the text from `start` to the end of its line, `LONGEST_VALUE` characters at most."""
    return part[start : start + LONGEST_VALUE].partition("\n")[0]


def braced(text: str, start: int) -> str:
    """Return what stands from `start` to the brace that closes the one just before it."""
    depth = 1
    for position in range(start, min(len(text), start + LONGEST_VALUE)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return text[start : start + LONGEST_VALUE]


def _inside_sub_answer(part: str, position: int) -> bool:
    """Tell whether the line of `position` is a numbered sub-answer, or the line above a numbered question."""
    reach = max(0, position - LONGEST_LINE)
    begin = part.rfind("\n", reach, position) + 1
    if begin == 0 and reach > 0:
        return False
    if _SUB_LABEL.match(part, begin, position):
        return True
    above = part[max(0, begin - 600) : max(0, begin - 1)].rpartition("\n")[2]
    return above.rstrip(_WRAPPERS).endswith("?") and bool(_SUB_LABEL.match(above))


def sentences(text: str) -> list[str]:
    """Split into sentences, at line ends too; abbreviations ("Mr."), initials and decimals do not end one."""
    found: list[str] = []
    for line in text.splitlines():
        start = 0
        for end in _SENTENCE_END.finditer(line):
            if line[end.start()] == "." and _ABBREVIATION.search(line, max(0, end.start() - 24), end.start()):
                continue
            found.append(line[start : end.end()].strip())
            start = end.end()
        found.append(line[start:].strip())
    return [sentence for sentence in found if sentence]


def clean_span(text: str) -> str:
    """Strip quotes, markdown emphasis, LaTeX text wrappers, brackets around the whole and a closing full stop."""
    span = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s?\{([^{}]{0,200})\}", r"\1", text)
    before = None
    while span != before:
        before = span
        span = span.strip(_WRAPPERS + ",;:").removeprefix("$$").removesuffix("$$")
        if span.endswith((".", "。")) and not _ABBREVIATION.search(span[:-1][-24:]):
            span = span[:-1]
        if span[:1] + span[-1:] in ("()", "[]", "{}", "$$") and len(span) > 2:
            span = span[1:-1]
        boxed = _BOXED.search(span)
        if boxed:
            span = braced(span, boxed.end())
    return span


def read_span(claim: Claim) -> Answer | None:
    """Read a claim's value as one span of text: its first sentence, cleaned. None for a question or nothing."""
    stated = sentences(claim.value)
    if not stated or stated[0].rstrip(_WRAPPERS).endswith("?"):
        return None
    if claim.alone and len(stated[0].split()) > LONGEST_BARE_WORDS:
        return None
    span = clean_span(stated[0])
    return (span,) if any(character.isalnum() for character in span) else None


def read_bare(part: str) -> Answer | None:
    """Read a reply that is nothing but a short answer on one line."""
    line = part.strip()
    if "\n" in line or len(line) > LONGEST_VALUE or len(line.split()) > LONGEST_BARE_WORDS or line.endswith(("?", ":")):
        return None
    span = clean_span(line)
    return (span,) if any(character.isalnum() for character in span) else None


def extract_final(output: str) -> Answer | None:
    """Read the final answer out of a model's free-text reply, as one span; None when none is named.

    Reads "The answer is: …", "Final answer: …", "So the final answer is …", `\\boxed{…}`, "#### …" and an answer given
    bare; the module's docstring says which counts when there are several.
    """
    return read_final(output, read_span, read_bare)
