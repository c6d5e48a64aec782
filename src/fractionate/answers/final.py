"""Where a model names its final answer, in free text. The readers of numbers, choices and spans all stand on this.

A reply is read in four steps:

1. Thoughts (`<think>` blocks) and everything after an end-of-text token are left out.
2. The reply is cut where it rambles on into a new problem ("Problem: …", "Question: …"); what follows is no answer to
   ours.
3. In what remains the answer is looked for where the model *names* it. A final naming ("Final answer: …", "#### …",
   `\\boxed{…}`, `<answer>…</answer>`) outranks a plain one ("The answer is …", `"answer": …` in JSON), that a label
   ("Answer: …", which reasoning may follow), and that one inside a numbered sub-answer ("A2: … the answer is 7"). Of
   one rank the first counts, for a model that has answered often goes on to other things; of sub-answers the last, for
   they lead up to the question. A later naming takes over only when the model says in between that it looks again
   ("Wait, …", "Correction: …", "Let me check …").
4. A reply without any naming can be an answer given bare: one short line.

Every pattern here is bounded, so that reading takes time linear in the length of the reply.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TypeVar

from fractionate.types import Answer

T = TypeVar("T")

FINAL, PLAIN, LABEL, SUB_ANSWER = 0, 1, 2, 3
"""The ranks of a naming, best first."""

LONGEST_VALUE = 400
"""Characters after a naming in which its value is looked for."""

MOST_CLAIMS = 100
"""Namings of each kind that are looked at, the first ones; a reply with more repeats itself."""

LONGEST_LINE = 2000
"""Characters of a numbered sub-answer's line that belong to it."""

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
    r"(?:[ ]{0,2}\#?\d{1,3})?)|[ ]{1,2}here|,[ ]{1,2}(?:then|therefore|thus|hence),?"
    r"|[ ]{1,2}\([^()\d\n]{1,40}\)[*_]{0,3}|[ ]{1,2}in[ ]{1,2}[a-z]{1,20})?"
    r"[ ]{0,2}(?P<link>\bis\b|\bare\b|\bwas\b|\bequals\b|\bcomes to\b|\b(?:would|will|should|must)[ ]be\b|[:=→])",
    re.IGNORECASE,
)
_HEADED = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]{1,3}(?:final[ ])?answer[*_ ]{0,4}$", re.IGNORECASE | re.MULTILINE)
_LABELLED = re.compile(
    r"^[ \t*]{0,3}(?:A(?:ns\.?)?[ ]?[*]{0,2}:|(?:[Ff]inal[ ])?[Aa]nswer[*]{0,2}[ ]{1,2}[-–—][ ])", re.MULTILINE
)
_HASHES = re.compile(r"^[ \t]{0,3}####[ \t]{0,3}(?=\S)", re.MULTILINE)
_BOXED = re.compile(r"\\f?boxed[ ]{0,2}\{")
_TAGGED = re.compile(r"[<\[](?:final[ _-]?)?answer[>\]]", re.IGNORECASE)
_CLOSING_TAG = re.compile(r"[<\[]/")
_KEYED = re.compile(r"[\"'](?P<final>final[ _]?)?answers?[\"'][ ]{0,3}:[ ]{0,3}", re.IGNORECASE)
_NOWHERE = (sys.maxsize, sys.maxsize)
_JSON = json.JSONDecoder(parse_float=str, parse_int=str)
_NOT_ASSERTED = re.compile(
    r"(?:\b(?:if|whether|unless|suppose|assuming|until)\s{1,2}(?:that\s{1,2})?"
    r"|\bto\s(?:find|get|reach|compute|calculate|determine|give|check)\s)(?:the|an?|our|your|my)?\s?(?:\w{1,12}\s)?$"
    r"|\b(?:first|previous|earlier|initial|original|old)\s$",
    re.IGNORECASE,
)
_ONE_OF_SEVERAL = re.compile(
    r"\d|\b(?:sub-?questions?|first|second|third|fourth|fifth|next|previous|part|step)\b", re.IGNORECASE
)
# A numbered line, and with it the next one where it ends in a question. It looks ahead, so that two may overlap.
_SUB_ANSWER = re.compile(
    r"^(?=([ \t>*_-]{0,6}(?:[aq]|answer|question|sub-?question|sub-?answer|step|part)[ ]{0,2}\#?\d{1,3}\b"
    rf"(?:[^\n]{{0,{LONGEST_LINE}}}\?[\"'”’*_` ]{{0,4}}\n)?[^\n]{{0,{LONGEST_LINE}}}))",
    re.IGNORECASE | re.MULTILINE,
)
_CORRECTION = re.compile(
    r"\b(?:wait|actually|correction|correcting|corrected|mistake|mistaken|sorry|apolog\w{2,6}|hold on|scratch that|"
    r"on (?:second thought|reflection)|i was wrong|that(?:'s|’s| is| was) (?:wrong|incorrect|not right)|revised|"
    r"let(?:['’]s| me| us) (?:re\w{2,12}|(?:double[- ]?)?check|verify)|h+m+|oops|my bad|an? error)\b",
    re.IGNORECASE,
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Sr|Jr|Prof|Gen|Col|Lt|No|vs|etc|approx|e\.g|i\.e)|\.[A-Za-z]|"
    r"(?:^[ ]{0,3}|\b[A-Z][\w’'-]{0,15}\.?[ ])[A-Z])[.。]$"
)
_LONGEST_ABBREVIATION = 24
"""Characters up to a full stop in which an abbreviation is looked for; none that is known is longer."""
_LONGEST_LEAD_IN = 40
"""Characters before a naming in which "if the …" is looked for; none that is known is longer."""
_BULLET = re.compile(r"[ \t]{0,3}(?:[-*•]|\d{1,2}[.)])[ \t]{1,3}")
_LIST_BELOW = re.compile(
    r"[*_: \t]{0,8}\n\s{0,4}?((?:[ \t]{0,3}[-*•][ \t]{1,3}\S[^\n]*(?:\n|$)){1,20}"
    r"|[ \t]{0,3}1[.)][ \t]{1,3}\S[^\n]*(?:\n[ \t]{0,3}\d{1,2}[.)][ \t]{1,3}\S[^\n]*){0,20})"
)
_VALUE_ENDS = re.compile(r"\s*(?:[}\]]|,(?!\d)|$)")
LATEX_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s?\{([^{}]{0,200})\}")
_REASON = re.compile(r"(?<=[\w*\"'”’)]),[ ](?:because|since|as|which)[ ].*")
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
    headings = (heading.start() for heading in _NEW_PROBLEM.finditer(text))
    for start, end in pairwise([0, *headings, len(text)]):
        if text[start:end].strip():
            yield text[start:end]


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
    ranked = [place for place, (claim, _) in enumerate(readings) if claim.rank == rank]
    chosen = ranked[-1] if rank == SUB_ANSWER else ranked[0]
    claim, value = readings[chosen]
    scanned = claim.end
    for claim, corrected in readings[chosen + 1 :]:
        if claim.rank < SUB_ANSWER:
            if _CORRECTION.search(part, scanned, claim.start):
                value = corrected
            scanned = claim.end
    return value


def claims(part: str) -> list[Claim]:
    """Return the places where the text names an answer, in order of position."""
    found = [*islice(_spoken_claims(part), MOST_CLAIMS), *islice(_marked_claims(part), MOST_CLAIMS)]
    return sorted(found, key=lambda claim: claim.start)


def _spoken_claims(part: str) -> Iterator[Claim]:
    sub_answers = (found.span(1) for found in _SUB_ANSWER.finditer(part))
    begin, end = next(sub_answers, _NOWHERE)
    for match in _NAMING.finditer(part):
        if _NOT_ASSERTED.search(part, max(0, match.start() - _LONGEST_LEAD_IN), match.start()):
            continue
        while end <= match.start():
            begin, end = next(sub_answers, _NOWHERE)
        if match["asked"] and _ONE_OF_SEVERAL.search(match["asked"]):
            rank = SUB_ANSWER
        elif match["final"]:
            rank = FINAL
        elif begin <= match.start():
            rank = SUB_ANSWER
        else:
            rank = PLAIN if match["link"].isalpha() else LABEL
        yield Claim(rank, match.start(), match.end(), _value(part, match.end()))
    for match in _LABELLED.finditer(part):
        yield Claim(LABEL, match.start(), match.end(), _value(part, match.end()))


def _marked_claims(part: str) -> Iterator[Claim]:
    for match in _HEADED.finditer(part):
        yield Claim(FINAL, match.start(), match.end(), _value(part, match.end()))
    for match in _HASHES.finditer(part):
        yield Claim(FINAL, match.start(), match.end(), _line(part, match.end()), alone=True)
    for match in _BOXED.finditer(part):
        yield Claim(FINAL, match.start(), match.end(), braced(part, match.end()), alone=True)
    for match in _TAGGED.finditer(part):
        yield Claim(FINAL, match.start(), match.end(), _tagged_value(part, match.end()))
    for match in _KEYED.finditer(part):
        rank = FINAL if match["final"] else PLAIN
        yield Claim(rank, match.start(), match.end(), _keyed_value(part, match.end()))


def _value(part: str, start: int) -> str:
    """Return the value named at `start`: the rest of the line, or the next line or list where the rest is blank."""
    window = part[start : start + LONGEST_VALUE]
    listed = _LIST_BELOW.match(window)
    if listed:
        return "; ".join(clean_span(_BULLET.sub("", line)) for line in listed[1].splitlines())
    return _line(window.lstrip(_WRAPPERS + ":"), 0)


def _tagged_value(part: str, start: int) -> str:
    """Return the last line inside a tag, which reasoning may precede; an unclosed tag names what follows it."""
    window = part[start : start + LONGEST_VALUE]
    closing = _CLOSING_TAG.search(window)
    return window[: closing.start()].strip().rpartition("\n")[2] if closing else _value(part, start)


def _keyed_value(part: str, start: int) -> str:
    """Return the JSON value at `start` as text; a list is joined as spans are. What is no JSON is read as a line.

    Quotes may be single, as Python writes a dict.
    """
    window = part[start : start + LONGEST_VALUE]
    for written in (window, window.replace("'", '"')):
        try:
            value, end = _JSON.raw_decode(written)
        except ValueError:
            continue
        if _VALUE_ENDS.match(written, end):
            spans = value if isinstance(value, list) else [value]
            return "; ".join(span if isinstance(span, str) else json.dumps(span) for span in spans if span is not None)
    return _value(part, start)


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


def sentences(text: str) -> list[str]:
    """Split into sentences, at line ends too; abbreviations ("Mr."), initials and decimals do not end one."""
    found: list[str] = []
    for line in text.splitlines():
        ends = [end.end() for end in _SENTENCE_END.finditer(line) if not _abbreviates(line, end.start() + 1)]
        found += [line[start:end].strip() for start, end in pairwise([0, *ends, len(line)])]
    return [sentence for sentence in found if sentence]


def _abbreviates(text: str, end: int) -> bool:
    """Tell whether the mark that ends at `end` is the full stop of an abbreviation or initial."""
    return bool(_ABBREVIATION.search(text, max(0, end - _LONGEST_ABBREVIATION), end))


def clean_span(text: str) -> str:
    """Strip quotes, markdown emphasis, LaTeX text wrappers, brackets around the whole and a closing full stop."""
    span = LATEX_TEXT.sub(r"\1", text)
    while (inner := _unwrapped(span)) != span:
        span = inner
    return span


def _unwrapped(span: str) -> str:
    """Take one layer off a span: marks around it, a closing full stop, a pair of brackets, a box."""
    span = span.strip(_WRAPPERS + ",;:").removeprefix("$$").removesuffix("$$")
    if span.endswith((".", "。")) and not _abbreviates(span, len(span)):
        span = span[:-1]
    if span[:1] + span[-1:] in ("()", "[]", "{}", "$$") and len(span) > 2:
        span = span[1:-1]
    boxed = _BOXED.search(span)
    return braced(span, boxed.end()) if boxed else span


def read_span(claim: Claim) -> Answer | None:
    """Read a claim's value as one span of text: its first sentence, cleaned. None for a question or nothing."""
    stated = sentences(_REASON.sub("", claim.value))
    if not stated or stated[0].rstrip(_WRAPPERS).endswith("?"):
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
    span = clean_span(line)
    return (span,) if any(character.isalnum() for character in span) else None


def extract_final(output: str) -> Answer | None:
    """Read the final answer out of a model's free-text reply, as one span; None when none is named.

    Reads "The answer is: …", "Final answer: …", "So the final answer is …", `\\boxed{…}`, "#### …" and an answer given
    bare; the module's docstring says which counts when there are several.
    """
    return read_final(output, read_span, read_bare)
