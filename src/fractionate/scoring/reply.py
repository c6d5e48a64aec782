"""The visible part of a reply, cut into parts and sentences; and one span of text out of its wrapping."""

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

LONGEST_LOOP = 4000
"""Characters at the end of a text in which a loop is looked for."""

FEWEST_IN_LOOP = 5
"""Sentences that make a loop."""

_SENTENCE = re.compile(r"[^\n]+?(?:[.!?](?=\s|$)|(?=\n)|$)")
_FIGURES = re.compile(r"\d[\d.,]*\b")
_NUMBERED = re.compile(r"[ \t>*_#-]{0,8}\(?(?:[a-z]{1,11}[ ]?)?\d{1,3}[.:)]", re.IGNORECASE)
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


def loop_start(text: str) -> int | None:
    """Return where a loop that runs away begins: sentences that differ in their figures alone, up to the text's end.

    None where there is none. Numbered lines are a list, and sentences that are the same figure for figure repeat one
    answer; both are no such loop. The last sentence may be broken off.
    """
    floor = max(0, len(text.rstrip()) - LONGEST_LOOP)
    found = [match for match in _SENTENCE.finditer(text, floor) if match[0].strip()]
    shapes = [_FIGURES.sub("0", match[0].strip()) for match in found]
    last = len(found) - 2 if len(found) > 1 and shapes[-1] != shapes[-2] else len(found) - 1
    first = last
    while first > 0 and shapes[first - 1] == shapes[last]:
        first -= 1
    repeated = [match[0].strip() for match in found[first : last + 1]]
    if len(repeated) < FEWEST_IN_LOOP or len(set(repeated)) == 1 or _NUMBERED.match(repeated[0]):
        return None
    # What stands before the broken-off end must be one and the same sentence, begun again.
    tail = _FIGURES.sub("0", found[-1][0].strip()) if last < len(found) - 1 else ""
    return found[first].start() if shapes[last].startswith(tail) else None


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
    r"(?:\b(?P<title>Mr|Mrs|Ms|Dr|Prof|Gen|Col|Lt|Sgt|Capt|Maj|Cmdr|Adm|Sen|Rep|Gov|Pres|Rev|Hon|vs|approx|e\.g"
    r"|i\.e|cf|"
    r"ca|Rs|Fig|Vol)"
    r"|\b(?P<number>Nos?)"
    # Abbreviations and initials that a sentence may well end in; the last is an initial by itself ("Malcolm X").
    r"|\b(?:St|Mt|Ft|Sr|Jr|etc|Inc|Ltd|Co|Corp|Cos|Bros|Assn|Dept|Univ|Ave|Blvd|Rd|Mfg|Intl|Jan|Feb|Mar|Apr|Aug|Sept?|"
    r"Oct|Nov|Dec)|\.[A-Za-z]|(?P<initial>(?:^[ ]{0,3}|\b[A-Z][\w’'-]{0,15}\.?[ ])[A-Z]))[.。]$"
)
"""The abbreviation that a text ends in, with its full stop."""
_NUMBER_NEXT = re.compile(r"[ ]{1,2}\#?\d")
_OPENS_SENTENCE = re.compile(
    r"[\"'”’)*_]{0,4}\s{1,3}[\"'“‘(*_]{0,3}(?:The|It|He|She|They|We|You|This|That|These|Those|There|Here|So"
    r"|Therefore|Thus|"
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
