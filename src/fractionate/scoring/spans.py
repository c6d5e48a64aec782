"""Reading a final answer that may have several spans (DROP's)."""

from __future__ import annotations

import re

from fractionate.scoring.claims import Claim
from fractionate.scoring.final import read_bare, read_final, read_span
from fractionate.types import Answer

MOST_SPANS = 100
"""Lines of a list that may be an answer's spans; a longer list is none."""

_LISTED = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+(\S[^\n]*)$")


def extract_spans(output: str) -> Answer | None:
    """Read a final answer that may have several spans: one, several split at ";", or a bulleted list.

    Commas and "and" do not split, for names hold both ("Copenhagen, Denmark").
    """
    return read_final(output, read_spans, _read_unnamed_spans)


def read_spans(claim: Claim) -> Answer | None:
    """Read the spans that a naming gives, split at semicolons."""
    return _split_spans(read_span(claim))


def _read_unnamed_spans(part: str) -> Answer | None:
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
