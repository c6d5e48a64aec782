"""Reading a reply's yes or no, or the letter of its choice."""

from __future__ import annotations

import re

from fractionate.scoring.final import read_final
from fractionate.scoring.reply import LATEX_TEXT, last_line
from fractionate.scoring.statements import Statement
from fractionate.types import Answer

_HEDGES = (
    r"(?:(?:(?:most|very|quite|almost|highly|pretty|more)[ ])?(?:definitely|certainly|clearly|probably|likely|simply|"
    r"surely|undoubtedly|presumably|possibly|obviously|absolutely|technically|generally|apparently|perhaps|"
    r"maybe)[ ,)*_\"'“]+"
    r"|(?:to be|be)[ ]+"
    r"|(?:that|an?(?:[ ](?:clear|definite|resounding|qualified|likely))?)[ ]+"
    r"(?=[\W_]*(?:yes|no)(?:[\W_]*$|[\W_]*?[,.;:!]))"
    r"|(?:i(?:[ ]would|['’]d)?[ ](?:say|think|believe|guess)|in all likelihood)[ ,:]+){0,4}+"
)
"""Words that soften or strengthen a yes or no before it is said."""
_NO_NOUN = (
    r"(?![*_\"'”’]*[ ]{1,3}(?!(?:i|it|he|she|they|we|you|this|that|these|those|the|there|here|because|since|as|but|not|"
    r"a|an|his|her|its|their|my|our|your|in|if|so|for|neither|sorry|than)\b)[a-z])"
)
"""No noun follows: the "no" of "no evidence" answers nothing."""
_YES_OR_NO = re.compile(
    rf"[\W_]*+{_HEDGES}(?:"
    r"(?P<yes>yes|true|(?:y|yeah|yep|correct)(?=[\W_]*+$))|"
    rf"(?:no{_NO_NOUN}|false|(?:n|nope|incorrect)(?=[\W_]*+$)))(?![^\W_])"
    r"(?!\s+(?:or|of|one|more|longer|such|other|doubt|and\s+no)\b|/\w)",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"[\W_]*+(?:most[ ])?(?:probably|likely|certainly|definitely|clearly|surely) not(?=[\W_]*+$|[,;:!])", re.I
)
_THEREFORE = re.compile(r"^\s*(?:so|therefore|thus|hence|in conclusion)\b[,:]?\s*", re.IGNORECASE)
_AFTER_A_CLAUSE = re.compile(r"^[^,\n]{0,80},\s(?=(?:yes|no)(?:[,.!*]|$))", re.IGNORECASE)
_COPULA = re.compile(
    r"^(?:it|this|that|the answer)\s(?:is|would be|must be)\s(?=[^.,;:!]{2,40}[\W_]{0,9}$)", re.IGNORECASE
)
_NEXT_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_SAID_ALONE = re.compile(rf"[\W_]*+{_HEDGES}(?:yes|no|true|false)[\W_]*+$", re.IGNORECASE)


def yes_no(text: str) -> str | None:
    """Read "yes" or "no" ("True.", "**No**, because …", "most likely no") at the beginning of a text, else None."""
    plain = LATEX_TEXT.sub(r"\1", text)
    said = _YES_OR_NO.match(plain)
    if said is None:
        return "no" if _NOT.match(plain) else None
    return "yes" if said["yes"] else "no"


def extract_yes_no(output: str) -> Answer | None:
    """Read a reply's final "yes" or "no": where it is named, or where a reply without statement begins or ends."""
    return _one_span(read_final(output, read_yes_no, _unnamed_yes_no, _concluded_yes_no))


def read_yes_no(statement: Statement) -> str | None:
    """Read the "yes" or "no" that a statement gives."""
    return yes_no(statement.value)


def _unnamed_yes_no(part: str) -> str | None:
    first = part.strip().partition("\n")[0]
    return yes_no(first) or _concluded_yes_no(part)


def _concluded_yes_no(part: str) -> str | None:
    """Read a last sentence that is or begins with a yes or no: "So yes.", "Based on this, no", "It is likely no."."""
    sentence = _NEXT_SENTENCE.split(last_line(part))[-1]
    conclusion = _AFTER_A_CLAUSE.sub("", _THEREFORE.sub("", sentence))
    stated = _COPULA.sub("", conclusion)
    if stated != conclusion:
        return yes_no(stated) if _SAID_ALONE.match(stated) else None
    return yes_no(conclusion)


_LETTER = r"(?:\(([A-Ha-h])\)|\[([A-Ha-h])\]|([A-H])(?![\w'’]))"
_CHOICE = re.compile(
    r"[\s*_`\"'“”$:\\]*+(?:(?:(?:most[ ])?likely|probably|clearly|definitely|therefore|thus|hence|then),?[ ])"
    r"{0,2}+(?:(?:[Tt]he[ ]{1,2})?(?:correct[ ]{1,2})?(?:[Oo]ption|[Cc]hoice|[Ll]etter)[ ]{0,2}:?[ ]{0,2})?[*_`\"']*+"
    r"(?:\(([A-Ha-h])\)|\[([A-Ha-h])\]|([A-H])(?![\w'’])(?![ ]{1,2}[a-z])|([a-h])(?=[\s*_`\"'.]*+$|\)))"
)
_NAMED = re.compile(
    rf"\b(?:[Oo]ption|[Cc]hoice|[Cc]hoose|[Ss]elect|[Pp]ick)(?:[ ]is)?:?[ ]{{0,2}}[*]{{0,3}}{_LETTER}"
    r"|(?:^|(?<=[.!?;,][ ]))(?:[Ss]o|[Tt]herefore|[Tt]hus|[Hh]ence)[:,]?[ ][*]{0,3}"
    rf"{_LETTER}[*]{{0,3}}(?=[\s.!*]*+$|[ ]is[ ]|[:,)])"
    rf"|(?<!\w){_LETTER}[*]{{0,3}}\)?(?=[*]{{0,2}}[ ]is[ ](?:the[ ])?(?:correct|right|best)\b)"
)
_BRACKETED = re.compile(
    r"\b(?:is|are|be|equals|to|with)(?:[ ](?:therefore|thus|hence|then))?[:,]?[ ]{1,2}[*]{0,3}[(\[]([A-Ha-h])[)\]]"
    r"|[ ][(\[]([A-Ha-h])[)\]](?=[\s.!*]*+$)"
)
"""A letter in brackets where a sentence has its result: "the price is (d) Rs. 750", "the price is Rs. 750 (d)."."""
_ANY_BRACKETED = re.compile(r"[(\[]([A-Ha-h])[)\]]")
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|n['’]t|\bnor|\bneither|\beliminat\w{1,4}|\bexclud\w{1,4}|\breject\w{0,3}|\bdiscard\w{0,3}|"
    r"\brul\w{1,3}[ ]out|\brather than|\binstead of|"
    r"\b(?:could|might|may)(?: be)?)(?:[ ](?:be|is|the|either|answer|choose|pick|select)){0,2}[ ]?$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[)\]*]{0,3}[ ](?:(?:is|are|was|would be|cannot be|can['’]t be|must be)[ ](?:not|wrong|false|incorrect|out)\b"
    r"|(?:is|was)n['’]t\b|can(?:not|['’]t| not)\b|does(?: not|n['’]t)\b)",
    re.IGNORECASE,
)
_IN_LATEX = re.compile(r"\\(?:text|boxed|mathrm|textbf)\s?\{([^{}]{0,200})\}")


def choice(text: str) -> str | None:
    """Read a choice's letter at the beginning of a text: "B", "(b)", "B) 12", "option C"; None when there is none."""
    match = _CHOICE.match(_IN_LATEX.sub(r"\1", text))
    return _letter(match) if match else None


def extract_choice(output: str) -> Answer | None:
    """Read a reply's final choice as a capital letter: where it is named, or where the reply begins or ends."""
    return _one_span(read_final(output, read_choice, _unnamed_choice, _concluded_choice))


def read_choice(statement: Statement) -> str | None:
    """Read the letter of the choice that a statement gives."""
    return choice(statement.value)


def _unnamed_choice(part: str) -> str | None:
    return choice(part.strip().partition("\n")[0]) or _concluded_choice(part)


def _concluded_choice(part: str) -> str | None:
    """Read the one letter that a last line settles on: "So I take option C.", "the price is (d) Rs. 750"."""
    line = last_line(part)
    letters = {_letter(match) for match in _NAMED.finditer(line) if not _is_denied(line, match)}
    if not letters and len(set(_ANY_BRACKETED.findall(line))) == 1:
        letters = {_letter(match) for match in _BRACKETED.finditer(line) if not _is_denied(line, match)}
    return letters.pop() if len(letters) == 1 else None


def _is_denied(line: str, match: re.Match[str]) -> bool:
    before = _DENIED_BEFORE.search(line, max(0, match.start() - 40), match.start())
    return bool(before or _DENIED_AFTER.match(line, match.end()))


def _letter(match: re.Match[str]) -> str:
    letter: str = next(filter(None, match.groups()))
    return letter.upper()


def _one_span(value: str | None) -> Answer | None:
    return None if value is None else (value,)
