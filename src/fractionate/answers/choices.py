"""Reading a reply's yes or no, or the letter of its choice."""

from __future__ import annotations

import re

from fractionate.answers.final import LATEX_TEXT, read_final
from fractionate.types import Answer

_YES_OR_NO = re.compile(
    r"[\W_]*+(?:(?:definitely|certainly|clearly|probably|likely|simply)[ ,]+)?(?:"
    r"(?P<yes>yes|true|(?:y|yeah|yep|correct)(?=[\W_]*$))|(?:no|false|(?:n|nope|incorrect)(?=[\W_]*$)))(?![^\W_])"
    r"(?!\s+(?:or|of|one|more|longer|such|other|doubt|and\s+no)\b|/\w)",
    re.IGNORECASE,
)
_THEREFORE = re.compile(r"^\s*(?:so|therefore|thus|hence|in conclusion)\b[,:]?\s*", re.IGNORECASE)
_AFTER_A_CLAUSE = re.compile(r"^[^,\n]{0,80},\s(?=(?:yes|no)(?:[,.!*]|$))", re.IGNORECASE)


def yes_no(text: str) -> str | None:
    """Read "yes" or "no" ("True.", "**No**, because …") at the beginning of a text; None when neither is there."""
    said = _YES_OR_NO.match(LATEX_TEXT.sub(r"\1", text))
    if said is None:
        return None
    return "yes" if said["yes"] else "no"


def extract_yes_no(output: str) -> Answer | None:
    """Read a reply's final "yes" or "no": where it is named, or where a reply without naming begins or ends."""
    return _one_span(read_final(output, lambda claim: yes_no(claim.value), _unnamed_yes_no))


def _unnamed_yes_no(part: str) -> str | None:
    lines = [line for line in part.strip().splitlines() if line.strip()]
    last_sentence = re.split(r"(?<=[.!?])\s+", lines[-1])[-1]
    conclusion = _AFTER_A_CLAUSE.sub("", _THEREFORE.sub("", last_sentence))
    return yes_no(lines[0]) or yes_no(conclusion)


_CHOICE = re.compile(
    r"[\s*_`\"'“”$:\\]*(?:(?:[Tt]he[ ]{1,2})?(?:correct[ ]{1,2})?"
    r"(?:[Oo]ption|[Cc]hoice|[Ll]etter)[ ]{0,2}:?[ ]{0,2})?[*_`\"']*"
    r"(?:\(([A-Ha-h])\)|\[([A-Ha-h])\]|([A-H])(?![\w'’])(?![ ]{1,2}[a-z])|([a-h])(?=[\s*_`\"'.]*$|\)))"
)
_LAST_CHOICE = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|[Cc]hoose|[Ss]elect|[Pp]ick)(?:[ ]is)?:?[ ]{0,2}[*(]{0,3}([A-H])(?![\w'’])"
    r"|(?<!\w)([A-H])\)?[*]{0,2}[ ]is[ ](?:the[ ])?(?:correct|right|best)\b"
)
_IN_LATEX = re.compile(r"\\(?:text|boxed|mathrm|textbf)\s?\{([^{}]{0,200})\}")


def choice(text: str) -> str | None:
    """Read a choice's letter at the beginning of a text: "B", "(b)", "B) 12", "option C"; None when there is none."""
    match = _CHOICE.match(_IN_LATEX.sub(r"\1", text))
    return next(filter(None, match.groups())).upper() if match else None


def extract_choice(output: str) -> Answer | None:
    """Read a reply's final choice as a capital letter: where it is named, or where the reply begins."""
    return _one_span(read_final(output, lambda claim: choice(claim.value), _unnamed_choice))


def _unnamed_choice(part: str) -> str | None:
    lines = part.strip().splitlines()
    last = {named or judged for named, judged in _LAST_CHOICE.findall(lines[-1])}
    return choice(lines[0]) or (last.pop() if len(last) == 1 else None)


def _one_span(value: str | None) -> Answer | None:
    return None if value is None else (value,)
