"""The decomposing stage (paper §2): one call that turns a question into subquestions, and how its output is read.

The output is read tolerantly and without losing a comma or a line. Small decomposers number, bullet, prefix (`Q1:`,
even `Q1: Q1:`), run everything into one line, greet before and chat after. Markers decide first which text is kept,
question marks second. An output that cannot be read is "unparsed", which a cell counts. (The divide-or-conquer
reference code drops lines without `?` and strips commas.)

Reading takes time linear in the length of the output.
"""

from __future__ import annotations

import re

from fractionate.scoring.reply import visible
from fractionate.strategies.base import DECOMPOSE_TOKENS, CallCoroutine, Sampler, Settings, ask
from fractionate.strategies.prompting import decompose_messages
from fractionate.strategies.structured import as_text
from fractionate.types import Completion, Decomposition, Origin, Problem

LONGEST_OUTPUT = 50_000
"""Characters of an output in which subquestions are looked for, the first ones; numbered lines after them are counted
as dropped."""

MOST_REFERENCES = 10
"""References of one subquestion that are filled in, the first ones."""

_LABEL = r"(?:sub[- ]?questions?|questions?|step|follow[- ]?up(?: question)?|sq|q)"
_MARKER = re.compile(
    rf"""\s*+(?:[*_]{{2}})?(?:
        {_LABEL}\s*+\#?\s*+\d++\s*+[.:)\]\-–]++    # Q1:  Subquestion 2.  Step 3)
      | {_LABEL}(?<!s)\s*+:                        # Subquestion:  (the plural is a heading)
      | \(?\d{{1,2}}[.:)\]]+(?!\d)                 # 1.  2)  (3)
      | [-*•–—](?=\s)                              # bullets
    )(?:[*_]{{2}})?\s*+""",
    re.VERBOSE | re.IGNORECASE,
)
_MARKERS = re.compile(rf"(?:{_MARKER.pattern})*+", re.VERBOSE | re.IGNORECASE)
_MARKED_LINE = re.compile(rf"^(?=\S){_MARKER.pattern}", re.VERBOSE | re.IGNORECASE | re.MULTILINE)
_NONE = re.compile(r"^\W*+(?:answer\s*+:\s*+)?no decomposition\b", re.IGNORECASE)
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_ENDED = ("?", ".", "!", ":", '?"', "?)", "?*", "?”")
_FIRST_INLINE = re.compile(rf"\W*+(?:({_LABEL})\s*+\#?\s*+)?1\s*+[.:)\]]", re.IGNORECASE)
# Bare numbers also occur inside a question ("is 3 + 2. 5"), so they only cut after the end of a sentence.
_NUMBERED_INLINE = re.compile(r"(?<=[?.!;]\s)\(?(\d{1,4})\s*+[.:)\]]+(?!\d)")
_LABELLED_INLINE = re.compile(rf"(?<=\s)\(?{_LABEL}\s*+\#?\s*+(\d{{1,4}})\s*+[.:)\]]+(?!\d)", re.IGNORECASE)
_NEXT_QUESTION = re.compile(r"(?<=\?)\s+(?=[A-Z#])")


def decompose(
    problem: Problem, decomposer: Sampler, settings: Settings
) -> CallCoroutine[tuple[Decomposition, Completion]]:
    """Ask the decomposer and read its subquestions, capped."""
    messages = decompose_messages(
        problem,
        decomposer.model.style,
        cap=settings.cap,
        shots=settings.shots,
        with_context=settings.decomposer_context,
        instructions=decomposer.instructions,
    )
    origin = Origin(problem, decomposer=decomposer.model.name, prompt="decompose")
    (completion,) = yield [ask(decomposer, "decomposer", messages, origin, settings, DECOMPOSE_TOKENS)]
    return parse_decomposition(as_text(completion.text), settings.cap), completion


def parse_decomposition(output: str, cap: int | None = None) -> Decomposition:
    """Read the subquestions of a decomposer's raw output, the first `cap` of them (None keeps all)."""
    text = visible(_THINKING.sub("", output)).strip()
    if _NONE.match(text):
        return Decomposition((), "none", output)
    pieces = [piece for line in text[:LONGEST_OUTPUT].splitlines() for piece in _split_inline(line.strip())]
    marked = [bool(piece and _MARKER.match(piece)) for piece in pieces]
    items = _marked_items(pieces, marked) if any(marked) else _unmarked_items(pieces)
    if not items:
        return Decomposition((), "unparsed", output)
    kept = items if cap is None else items[:cap]
    dropped = len(items) - len(kept) + sum(1 for _ in _MARKED_LINE.finditer(text, LONGEST_OUTPUT))
    return Decomposition(tuple(kept), "ok", output, dropped)


def _strip_markers(text: str) -> str:
    """Take off every leading marker (`Q1: Q1: …`, `- 1. …`) and bold marks around the whole."""
    leading = _MARKERS.match(text)
    text = text[leading.end() if leading else 0 :].strip()
    for mark in ("**", "__"):
        if text.startswith(mark) and text.endswith(mark) and len(text) > 4:
            text = text[2:-2]
        text = text.removesuffix(mark) if text.count(mark) == 1 else text
    return text.strip()


def _split_inline(line: str) -> list[str]:
    """Cut a line that holds several numbered items (`1. a? 2. b?`) before each next number in sequence."""
    first = _FIRST_INLINE.match(line) if line else None
    if first is None:
        return [line]
    pieces: list[str] = []
    start = 0
    for match in (_LABELLED_INLINE if first[1] else _NUMBERED_INLINE).finditer(line, first.end()):
        if int(match[1]) == len(pieces) + 2:
            pieces.append(line[start : match.start()].strip())
            start = match.start()
    return [*pieces, line[start:].strip()]


def _marked_items(pieces: list[str], marked: list[bool]) -> list[str]:
    """Each marked line starts an item; a following line continues it, is a question of its own, or is chatter."""
    last_marked = max(position for position, is_marked in enumerate(marked) if is_marked)
    items: list[list[str]] = []
    after_blank = False
    for position, (piece, is_marked) in enumerate(zip(pieces, marked, strict=True)):
        if not piece:
            after_blank = True
            continue
        if is_marked:
            items.append([_strip_markers(piece)])
        elif items and not after_blank and not items[-1][-1].endswith(_ENDED):
            items[-1].append(piece)
        elif items and piece.endswith("?") and position < last_marked:
            items.append([piece])
        after_blank = False
    return [item for item in (" ".join(lines).strip() for lines in items) if item]


def _unmarked_items(pieces: list[str]) -> list[str]:
    """Without markers the question marks decide: all lines up to the last question, headings left out."""
    questions = [
        position for position, piece in enumerate(pieces) if piece.endswith(("?", *_ENDED[5:])) or "? " in piece
    ]
    if not questions:
        return []
    lines = [piece for piece in pieces[: questions[-1] + 1] if piece and not piece.endswith(":")]
    return [part.strip() for line in lines for part in _NEXT_QUESTION.split(line) if part.strip()]


def fill_references(subquestion: str, answers: list[str]) -> str:
    """Put earlier answers in for `#1`, `#2` …; a reference to an answer that is not there stays as it is."""

    def answer(match: re.Match[str]) -> str:
        position = int(match.group(1))
        return answers[position - 1] if 1 <= position <= len(answers) and answers[position - 1] else match.group(0)

    return re.sub(r"#(\d{1,2})\b", answer, subquestion, count=MOST_REFERENCES)
