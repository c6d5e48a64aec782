"""Sentences, and one span of text out of its wrapping."""

from __future__ import annotations

import re
from itertools import pairwise

from fractionate.scoring.reply import WRAPPERS

LONGEST_BRACED = 400
"""Characters in which a closing brace is looked for."""

MOST_LAYERS = 20
"""Layers of wrapping that are taken off a span."""

LATEX_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s?\{([^{}]{0,200})\}")
BOXED = re.compile(r"\\f?boxed[ ]{0,2}\{")

_BRACE = re.compile(r"[{}]")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)*_]{0,4}(?=\s|$)")
_LONGEST_ABBREVIATION = 24
"""Characters up to a full stop in which an abbreviation is looked for; none that is known is longer."""
_SHORTENED = re.compile(
    # Titles and the like, which something always follows.
    r"(?:\b(?P<title>Mr|Mrs|Ms|Dr|Prof|Gen|Col|Lt|Sgt|Capt|Maj|Cmdr|Adm|Sen|Rep|Gov|Pres|Rev|Hon|vs|approx|e\.g|i\.e|cf|"
    r"ca|Rs|Fig|Vol)"
    r"|\b(?P<number>Nos?)"
    # Abbreviations and initials that a sentence may well end in; the last is an initial by itself ("Malcolm X").
    r"|\b(?:St|Mt|Ft|Sr|Jr|etc|Inc|Ltd|Co|Corp|Cos|Bros|Assn|Dept|Univ|Ave|Blvd|Rd|Mfg|Intl|Jan|Feb|Mar|Apr|Aug|Sept?|"
    r"Oct|Nov|Dec)|\.[A-Za-z]|(?P<initial>(?:^[ ]{0,3}|\b[A-Z][\w’'-]{0,15}\.?[ ])[A-Z]))[.。]$"
)
"""The abbreviation that a text ends in, with its full stop."""
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
    shortened = _abbreviation(line, end)
    if shortened is None or shortened["title"]:
        return shortened is not None
    if shortened["number"]:
        return bool(_NUMBER_NEXT.match(line, end))
    return not _OPENS_SENTENCE.match(line, end)


def _abbreviation(text: str, end: int) -> re.Match[str] | None:
    """Return the abbreviation or initial whose full stop ends at `end`, None where there is none."""
    if text[end - 1] not in ".。":
        return None
    return _SHORTENED.search(text, max(0, end - _LONGEST_ABBREVIATION), end)


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
    shortened = _abbreviation(span, len(span))
    return shortened is not None and not shortened["number"] and not shortened["initial"]


def braced(text: str, start: int) -> str:
    """Return what stands from `start` to the brace that closes the one just before it."""
    depth, end = 1, min(len(text), start + LONGEST_BRACED)
    for brace in _BRACE.finditer(text, start, end):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : brace.start()]
    return text[start:end]
