"""Sentences, and one span of text out of its wrapping."""

from __future__ import annotations

import re
from itertools import pairwise

from fractionate.answers.reply import WRAPPERS

LONGEST_BRACED = 400
"""Characters in which a closing brace is looked for."""

MOST_LAYERS = 20
"""Layers of wrapping that are taken off a span."""

LATEX_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s?\{([^{}]{0,200})\}")
BOXED = re.compile(r"\\f?boxed[ ]{0,2}\{")

_SENTENCE_END = re.compile(r"[.!?][\"'”’)*_]{0,4}(?=\s|$)")
_LONGEST_ABBREVIATION = 24
"""Characters up to a full stop in which an abbreviation is looked for; none that is known is longer."""
_TITLE = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|Gen|Col|Lt|Sgt|Capt|Maj|Cmdr|Adm|Sen|Rep|Gov|Pres|Rev|Hon|vs|approx|e\.g|i\.e|cf|ca|Rs|"
    r"Fig|Vol)[.。]$"
)
"""Abbreviations that never end a sentence: something always follows them."""
_SHORTENED = re.compile(
    r"(?:\b(?:St|Mt|Ft|Sr|Jr|etc|Inc|Ltd|Co|Corp|Cos|Bros|Assn|Dept|Univ|Ave|Blvd|Rd|Mfg|Intl|Jan|Feb|Mar|Apr|Aug|Sept?|"
    r"Oct|Nov|Dec)|\.[A-Za-z]|"
    r"(?:^[ ]{0,3}|\b[A-Z][\w’'-]{0,15}\.?[ ])[A-Z])[.。]$"
)
"""Abbreviations and initials that a sentence may well end in."""
_INITIAL = re.compile(r"(?<![.\w])[A-Z][.。]$")
_NUMBERED = re.compile(r"\bNos?[.。]$")
_NUMBER_NEXT = re.compile(r"[ ]{1,2}\#?\d")
_OPENS_SENTENCE = re.compile(
    r"[\"'”’)*_]{0,4}\s{1,3}[\"'“‘(*_]{0,3}(?:The|It|He|She|They|We|You|This|That|These|Those|There|Here|So|Therefore|Thus|"
    r"Hence|In|On|At|But|And|However|Also|Because|Since|If|When|After|Before|As|His|Her|Its|Their|Then|Now|What|Which|"
    r"Who|Both|For|To|From|With|By|Note|Let|My|Our|Your|Not|No|Yes|A|An|I)(?![\w.’'-])"
)


def sentences(text: str) -> list[str]:
    """Split into sentences, at line ends too; abbreviations ("Mr."), initials and decimals do not end one.

    An abbreviation that may stand last ("Inc.", "p.m.", "U.S.") ends a sentence where the next word opens one ("It").
    """
    found: list[str] = []
    for line in text.splitlines():
        ends = [end.end() for end in _SENTENCE_END.finditer(line) if not _goes_on(line, end.start() + 1)]
        found += [line[start:end].strip() for start, end in pairwise([0, *ends, len(line)])]
    return [sentence for sentence in found if sentence]


def _goes_on(line: str, end: int) -> bool:
    """Tell whether the sentence goes on after the mark that ends at `end`: it is the full stop of an abbreviation."""
    start = max(0, end - _LONGEST_ABBREVIATION)
    if _TITLE.search(line, start, end):
        return True
    if _NUMBERED.search(line, start, end):
        return bool(_NUMBER_NEXT.match(line, end))
    return bool(_SHORTENED.search(line, start, end)) and not _OPENS_SENTENCE.match(line, end)


def clean_span(text: str) -> str:
    """Strip quotes, markdown emphasis, LaTeX text wrappers, brackets around the whole and a closing full stop."""
    span = LATEX_TEXT.sub(r"\1", text)
    for _ in range(MOST_LAYERS):
        inner = _unwrapped(span)
        if inner == span:
            break
        span = inner
    return span


def _unwrapped(span: str) -> str:
    """Take one layer off a span: marks around it, a closing full stop, a pair of brackets, a box."""
    span = span.strip(WRAPPERS + ",;:").removeprefix("$$").removesuffix("$$")
    if span.endswith((".", "。")) and not _keeps_stop(span):
        span = span[:-1]
    if span[:1] + span[-1:] in ("()", "[]", "{}", "$$") and len(span) > 2:
        span = span[1:-1]
    boxed = BOXED.search(span)
    return braced(span, boxed.end()) if boxed else span


def _keeps_stop(span: str) -> bool:
    """Tell whether a span's last full stop belongs to an abbreviation; that of "Malcolm X." ends the sentence."""
    start = max(0, len(span) - _LONGEST_ABBREVIATION)
    shortened = _TITLE.search(span, start) or _SHORTENED.search(span, start)
    return bool(shortened) and not _INITIAL.search(span, start)


def braced(text: str, start: int) -> str:
    """Return what stands from `start` to the brace that closes the one just before it."""
    depth = 1
    for position in range(start, min(len(text), start + LONGEST_BRACED)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return text[start : start + LONGEST_BRACED]
