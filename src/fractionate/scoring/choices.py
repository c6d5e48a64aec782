"""Reading a reply's yes or no, or the letter of its choice."""

from __future__ import annotations

import re

from fractionate.scoring.final import read_final
from fractionate.scoring.reply import LATEX_TEXT, LONGEST_CONCLUSION, WRAPPERS, last_line, sentences
from fractionate.scoring.statements import PLAIN, Statement
from fractionate.types import Answer

_ADVERB = (
    r"(?:very|most|quite|rather|almost|pretty|more|still|perhaps|maybe|indeed|in[ ](?:fact|general|theory|principle"
    r"|practice|"
    r"short|all likelihood)|of[ ]course|(?!(?:un)?likely|partial|part(?:ly)\b|hardly|barely|scarcely"
    r"|only\b)[a-z]{2,15}ly)"
)
"""A word of degree, or any adverb in -ly but those that turn or halve the answer ("hardly", "partially")."""
_HEDGES = (
    rf"(?:(?:{_ADVERB}|likely)[ ,)*_\"'“]+"
    r"|(?:to be|be)[ ]+"
    r"|(?:that|an?(?:[ ](?:clear|definite|resounding|qualified|likely))?)[ ]+"
    r"(?=[\W_]*(?:yes|no)(?:[\W_]*$|[\W_]*?[,.;:!]))"
    r"|(?:i(?:[ ]would|['’]d)?[ ](?:say|think|believe|guess))[ ,:]+){0,4}+"
)
"""Words that soften or strengthen a yes or no before it is stated."""
_NO_NOUN = (
    r"(?![*_\"'”’]*[ ]{1,3}(?!(?:i|it|he|she|they|we|you|this|that|these|those|the|there|here|because|since|as|but|not|"
    r"a|an|his|her|its|their|my|our|your|in|if|so|for|neither|sorry|than)\b)[a-z])"
)
"""No noun follows: the "no" of "no evidence" answers nothing."""
_YES_OR_NO = re.compile(
    rf"[\W_]*+{_HEDGES}(?:"
    r"(?P<yes>yes|true|(?:y|yeah|yep|correct)(?=[\W_]*+$))|"
    rf"(?:no{_NO_NOUN}|false|(?:n|nope|incorrect)(?=[\W_]*+$)))(?![^\W_])"
    r"(?!\s+(?:or|of|one|more|longer|such|other|doubt|and\s+no)\b|/\w)"
    # "yes if", "no, unless", "yes, but only if": what is so on a condition is open.
    r"(?![*_\"'”’]*[,;]?[ ](?:but[ ])?(?:only[ ])?(?:if|unless|provided|assuming|depending|as long as|so long as)\b)",
    re.IGNORECASE,
)
_NOT = re.compile(rf"[\W_]*+(?:{_ADVERB}[ ]|likely[ ]){{0,3}}not(?=[\W_]*+$|[,;:!])", re.I)
_UNSURE = (
    rf"[\W_]*+(?:that[ ])?(?:(?:it|that|this)(?:[ ](?:is|was|seems|appears|would be)|['’]s)[ ])?(?:{_ADVERB}[ ]){{0,3}}"
)
_UNLIKELY = re.compile(
    rf"{_UNSURE}(?:possible,?[ ](?:but|though"
    rf"|yet)[ ](?:{_ADVERB}[ ]){{0,3}})?"
    rf"(?:not[ ](?:{_ADVERB}[ ]){{0,2}}likely|unlikely|improbable|implausible|doubtful)\b",
    re.IGNORECASE,
)
_LIKELY = re.compile(rf"{_UNSURE}likely(?=[\W_]*+$|[,.;:!])", re.IGNORECASE)
_THEREFORE = re.compile(r"^\s*(?:so|therefore|thus|hence|in conclusion)\b[,:]?\s*", re.IGNORECASE)
_AFTER_A_CLAUSE = re.compile(r"^[^,\n]{0,80},\s(?:so\s)?(?=(?:yes|no)(?:[,.!*]|$))", re.IGNORECASE)
_COPULA = re.compile(
    r"^(?:it|this|that|the answer)\s(?:is|would be|must be)\s(?=[^.,;:!]{2,40}[\W_]{0,9}$)", re.IGNORECASE
)
MOST_SENTENCES = 4
"""Sentences of a reply that states its answer nowhere in particular and may hold a "No." in its middle."""
_SAID_ALONE = re.compile(rf"[\W_]*+{_HEDGES}(?:yes|no|true|false)[\W_]*+$", re.IGNORECASE)


def yes_no(text: str) -> str | None:
    """Read "yes" or "no" ("True.", "**No**, because …", "highly unlikely") at the beginning of a text, else None."""
    plain = LATEX_TEXT.sub(r"\1", text)
    stated = _YES_OR_NO.match(plain)
    if stated is not None:
        return "yes" if stated["yes"] else "no"
    if _NOT.match(plain) or _UNLIKELY.match(plain):
        return "no"
    return "yes" if _LIKELY.match(plain) else None


def extract_yes_no(output: str) -> Answer | None:
    """Read a reply's final "yes" or "no": where it is stated, or where a reply without statement begins or ends."""
    return _one_span(read_final(output, read_yes_no, _unstated_yes_no, _concluded_yes_no))


def read_yes_no(statement: Statement) -> str | None:
    """Read the "yes" or "no" that a statement gives, after the question where it restates that first."""
    stated = yes_no(statement.value)
    if stated is not None or "?" not in statement.value:
        return stated
    restated = sentences(f"{statement.value}\n{statement.following}")
    if len(restated) > 1 and restated[0].rstrip(WRAPPERS).endswith("?"):
        return _sentence_yes_no(restated[1])
    return None


def _unstated_yes_no(part: str) -> str | None:
    first = part.strip().partition("\n")[0]
    return yes_no(first) or _concluded_yes_no(part) or _yes_no_amid(part)


def _yes_no_amid(part: str) -> str | None:
    """Read the one yes or no that stands for itself amid a few sentences: "Would it? No. It would freeze."."""
    if len(part) > LONGEST_CONCLUSION:
        return None
    found = sentences(part)
    if len(found) > MOST_SENTENCES:
        return None
    readings = {stated for sentence in found if (stated := _sentence_yes_no(sentence)) is not None}
    return readings.pop() if len(readings) == 1 else None


def _concluded_yes_no(part: str) -> str | None:
    """Read a last sentence that is or begins with a yes or no: "So yes.", "Based on this, no", "It is likely no."."""
    found = sentences(last_line(part))
    return _sentence_yes_no(found[-1]) if found else None


def _sentence_yes_no(sentence: str) -> str | None:
    conclusion = _AFTER_A_CLAUSE.sub("", _THEREFORE.sub("", sentence))
    stated = _COPULA.sub("", conclusion)
    if stated != conclusion:
        return yes_no(stated) if _SAID_ALONE.match(stated) else yes_no(conclusion)
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
    r"\b(?:is|are|be|was|were|equals|to|with|in|by|of)(?:[ ](?:therefore|thus|hence"
    r"|then))?[:,]?[ ]{1,2}[*]{0,3}[(\[]([A-Ha-h])[)\]]"
    r"|[ ][(\[]([A-Ha-h])[)\]](?=[\s.!*]*+$)"
)
"""A letter in brackets where a sentence has its result: "the price is (d) Rs. 750", "the price is Rs. 750 (d)."."""
_ANY_BRACKETED = re.compile(r"[(\[]([A-Ha-h])[)\]]")
_SUPPOSES = re.compile(r"[\W_]*(?:if|unless|suppose|assuming)\b", re.IGNORECASE)
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|n['’]t|\bnor|\bneither|\beliminat\w{1,4}|\bexclud\w{1,4}|\breject\w{0,3}|\bdiscard\w{0,3}|"
    r"\brul\w{1,3}[ ]out|\brather than|\binstead of|"
    r"\b(?:could|might|may)(?: be)?)(?:[ ](?:be|is|the|either|answer|choose|pick|select)){0,2}[ ]?$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[)\]*]{0,3}[ ](?:(?:is|are|was|would be|cannot be|can['’]t be|must be)[ ](?:not|too|wrong|false|incorrect|out)\b"
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
    return _one_span(read_final(output, read_choice, _unstated_choice, _concluded_choice))


def read_choice(statement: Statement) -> str | None:
    """Read the letter that a statement gives: first, or inside its sentence ("the price was (b) $50,000")."""
    letter = choice(statement.value)
    if letter is not None or statement.rank == PLAIN:
        return letter
    for sentence in sentences(f"{statement.value}\n{statement.following}")[:2]:
        if not sentence.endswith("?"):
            letter = _one_letter(sentence, _ANY_BRACKETED) if not _SUPPOSES.match(sentence) else None
            return letter or _concluded_choice(sentence)
    return None


def _unstated_choice(part: str) -> str | None:
    first = part.strip().partition("\n")[0]
    match = _CHOICE.match(first)
    return (None if match and _DENIED_AFTER.match(first, match.end()) else choice(first)) or _concluded_choice(part)


def _concluded_choice(part: str) -> str | None:
    """Read the one letter that a last line settles on: "So I take option C.", "the price is (d) Rs. 750"."""
    line = last_line(part)
    if _SUPPOSES.match(line):
        return None
    letters = {_letter(match) for match in _NAMED.finditer(line) if not _is_denied(line, match)}
    if letters:
        return letters.pop() if len(letters) == 1 else None
    return _one_letter(line, _BRACKETED)


def _one_letter(line: str, pattern: re.Pattern[str]) -> str | None:
    """Return the letter in brackets that a pattern finds, where the line has no other one and does not deny it."""
    if len(set(_ANY_BRACKETED.findall(line))) != 1:
        return None
    letters = {_letter(match) for match in pattern.finditer(line) if not _is_denied(line, match)}
    return letters.pop() if len(letters) == 1 else None


def _is_denied(line: str, match: re.Match[str]) -> bool:
    before = _DENIED_BEFORE.search(line, max(0, match.start() - 40), match.start())
    return bool(before or _DENIED_AFTER.match(line, match.end()))


def _letter(match: re.Match[str]) -> str:
    letter: str = next(filter(None, match.groups()))
    return letter.upper()


def _one_span(value: str | None) -> Answer | None:
    return None if value is None else (value,)
