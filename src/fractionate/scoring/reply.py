"""What of a model's reply is said to us: its thoughts, the problems that it invents and its afterwords left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, pairwise

WRAPPERS = "*_`\"'“”‘’«» \t\r\n"
"""Quotes, markdown emphasis and blanks, which may stand around anything."""

MOST_PARTS = 50
"""Parts of a reply that are looked at, the first ones; a reply with more restates problems without end."""

LONGEST_CONCLUSION = 1000
"""Characters at the end of a reply in which its last line or sentence, or a note after it, is looked for."""

_END_OF_TEXT = re.compile(r"<\|(?:im_end|endoftext|eot_id|end|im_start)\|>|</s>|<end_of_turn>|<eos>")
_NEW_PROBLEM = re.compile(
    r"^(?=[^\n])[ \t>*#_-]{0,8}(?:(?:new|next|another)[ ]{1,2})?"
    r"(?:question|passage|context|instruction|user|human|q|(?:problem|example|exercise)(?:[ ]{0,2}\#?\d{1,4})?)"
    r"[*_ ]{0,4}:",
    re.IGNORECASE | re.MULTILINE,
)
_NOTE = re.compile(
    r"(?:^[ \t]{0,4}|(?<=[.!?])[ ]{1,2})[>*_(\[]{0,4}(?:please[ ])?(?:note|n\.b\.|p\.s\.|remark|disclaimer|caveat)"
    r"[*_]{0,2}(?:[:,]|[ ]that\b)",
    re.IGNORECASE | re.MULTILINE,
)
_CONCLUDES = re.compile(
    r"(?:^[ \t*_•-]{0,6}|[.!?][ ]{1,2})(?:so|therefore|thus|hence|then|finally|in total|altogether|the answer|answer|"
    r"final answer)\b",
    re.IGNORECASE | re.MULTILINE,
)
_EXPLANATION = re.compile(
    r"\s*[*_#(\[ ]{0,6}(?:explanation|reasoning|reason|justification|because|here(?:['’]s| is) (?:how|why))\b",
    re.IGNORECASE,
)


def visible(output: str) -> str:
    """Return what a reply says: without thoughts, and up to the first end-of-text token that follows any text.

    An unclosed `<think>` leaves nothing: all that was written is reasoning.
    """
    closed = output.rfind("</think>")
    text = output[closed + len("</think>") :] if closed >= 0 else output
    opened = text.find("<think>")
    if opened >= 0:
        text = text[:opened]
    said = len(text) - len(text.lstrip())
    for token in _END_OF_TEXT.finditer(text):
        if token.start() > said:
            return text[: token.start()]
    return text


def parts(text: str) -> Iterator[str]:
    """Yield the reply cut before each heading that opens a new problem. Blank parts are left out."""
    for start, end in part_spans(text):
        yield text[start:end]


def part_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each part of a reply begins and ends."""
    headings = (heading.start() for heading in _NEW_PROBLEM.finditer(text))
    for start, end in pairwise([0, *islice(headings, MOST_PARTS), len(text)]):
        if text[start:end].strip():
            yield start, end


def is_preamble(part: str) -> bool:
    """Tell whether a part only leads up to the answer: it restates the problem, or announces what follows."""
    return bool(_NEW_PROBLEM.match(part.lstrip())) or part.rstrip(WRAPPERS).endswith(":")


def last_line(part: str) -> str:
    """Return the last line of a part that is not blank, `LONGEST_CONCLUSION` characters at most."""
    return part.rstrip()[-LONGEST_CONCLUSION:].rpartition("\n")[2]


def without_afterword(part: str) -> str:
    """Return a part without what follows its answer: a note at its end, or the explanation of a first line.

    What ends in a conclusion belongs to the reasoning and stays. So does a part that is nothing but a note.
    """
    first, _, rest = part.strip().partition("\n")
    if _EXPLANATION.match(rest) and not _CONCLUDES.search(rest) and "=" not in last_line(rest):
        return first
    end = len(part.rstrip())
    notes = [note.start() for note in _NOTE.finditer(part, max(0, end - LONGEST_CONCLUSION), end)]
    for note in notes:
        if part[:note].strip() and not _CONCLUDES.search(part, note, end):
            return part[:note]
    return part
