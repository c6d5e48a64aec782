"""How answers are scored: DROP's exact match and F1, and the simpler scores for text, yes/no and choices.

DROP's score follows the official evaluator (https://github.com/allenai/allennlp-reading-comprehension, `drop_eval.py`)
in every turn, the odd ones too, so that figures compare with published ones:

- A span is split at single spaces and hyphens; each token is lowercased, loses ASCII punctuation unless it reads as a
  number, becomes a canonical decimal if it now does ("1,000" and "1000.0" are one), and loses "a", "an", "the". `°`
  stays.
- Tokens of a span form a *set*: repeated words count once.
- Exact match: the same set of spans, and as many of them.
- F1: predicted and gold spans are paired one to one so that the sum of token F1 is highest; a pair counts only where
  the gold span has no number or they share one. The sum is divided by the larger number of spans and rounded to two
  decimals.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from fractionate.datasets.text import LATEX_TEXT, Claim, read_bare, read_final, read_span
from fractionate.types import Answer, Score

ZERO = Score(0.0, 0.0)

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_TOKEN_ENDS = re.compile("[ -]")


def _is_number(token: str) -> bool:
    """Tell whether Python reads the token as a float, which is what the official evaluator calls a number."""
    try:
        float(token)
    except ValueError:
        return False
    return True


def _normalize_token(token: str) -> str:
    token = token.lower()
    if not _is_number(token):
        token = token.translate(_NO_PUNCTUATION)
    if _is_number(token):
        token = str(float(token))
    return " ".join(_ARTICLES.sub(" ", token).split())


def normalize_span(span: str) -> str:
    """Return a span in DROP's normal form: lower case, no punctuation, no articles, numbers as decimals."""
    return " ".join(filter(None, map(_normalize_token, _TOKEN_ENDS.split(span))))


def _token_f1(predicted: set[str], gold: set[str]) -> float:
    """Return the F1 of two token sets. An empty set has full precision (or recall), as officially."""
    shared = len(predicted & gold)
    precision = shared / len(predicted) if predicted else 1.0
    recall = shared / len(gold) if gold else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _numbers_agree(predicted: set[str], gold: set[str]) -> bool:
    wanted = {token for token in gold if _is_number(token)}
    return not wanted or bool(wanted & predicted)


def _pair_f1(predicted: set[str], gold: set[str]) -> float:
    return _token_f1(predicted, gold) if _numbers_agree(predicted, gold) else 0.0


def _mean_of_best_pairing(scores: list[list[float]]) -> float:
    """Return the mean score of the best one-to-one pairing of rows (gold) and columns (predicted); unpaired ones are 0.

    Summed as the official evaluator sums, so that the mean is the same to the last bit before it is rounded.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    table = np.array(scores)
    rows, columns = linear_sum_assignment(table, maximize=True)
    best = np.zeros(max(table.shape))
    best[rows] = table[rows, columns]
    return float(np.mean(best))


def drop_score_one(prediction: Answer, answer: Answer) -> Score:
    """Score a prediction against one gold answer (both are tuples of spans) as the official DROP evaluator does."""
    predicted = [normalize_span(span) for span in prediction]
    gold = [normalize_span(span) for span in answer]
    exact = set(predicted) == set(gold) and len(predicted) == len(gold)
    if not predicted or not gold:
        return Score(float(exact), float(exact))
    scores = [[_pair_f1(set(span.split()), set(wanted.split())) for span in predicted] for wanted in gold]
    return Score(float(exact), round(100 * _mean_of_best_pairing(scores)) / 100)


def drop_score(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    """Return DROP's (exact match, F1) against the best of several annotators' answers, both 0 to 1; None scores 0.

    The best exact match and the best F1 are taken each by itself. An alternative whose first span is blank is no answer
    and is left out where there are others.
    """
    if prediction is None or not answers:
        return ZERO
    given = [answer for answer in answers if answer and answer[0].strip()] or answers
    scores = [drop_score_one(prediction, answer) for answer in given]
    return Score(max(score.exact_match for score in scores), max(score.f1 for score in scores))


def _text_score_one(prediction: Answer, answer: Answer) -> Score:
    predicted, gold = sorted(map(normalize_span, prediction)), sorted(map(normalize_span, answer))
    if predicted == gold:
        return Score(1.0, 1.0)
    predicted_tokens, gold_tokens = Counter(" ".join(predicted).split()), Counter(" ".join(gold).split())
    shared = (predicted_tokens & gold_tokens).total()
    return Score(0.0, 2 * shared / (predicted_tokens.total() + gold_tokens.total()))


def text_score(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    """Score free text: exact match after normalising, and F1 over the tokens, each as often as it stands.

    Normalised as DROP's spans are, so that case, punctuation and articles do not matter and numbers compare as numbers.
    The best alternative counts. None, and a prediction without any word, score 0.
    """
    if prediction is None or not any(map(normalize_span, prediction)):
        return ZERO
    return max((_text_score_one(prediction, answer) for answer in answers), default=ZERO)


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


def score_yes_no(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    """Score 1 when prediction and answer say the same of yes and no ("true" is "yes"), else 0. None scores 0."""
    return _score_same(prediction, answers, yes_no)


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


def score_choice(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    """Score 1 when prediction and answer name the same letter, else 0. None scores 0."""
    return _score_same(prediction, answers, choice)


def _one_span(value: str | None) -> Answer | None:
    return None if value is None else (value,)


def _score_same(prediction: Answer | None, answers: Sequence[Answer], read: Callable[[str], str | None]) -> Score:
    if prediction is None or len(prediction) != 1:
        return ZERO
    said = read(prediction[0])
    right = said is not None and any(len(answer) == 1 and read(answer[0]) == said for answer in answers)
    return Score(float(right), float(right))


_LISTED = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+(\S[^\n]*)$")


def extract_spans(output: str) -> Answer | None:
    """Read a final answer that may have several spans: one, several split at ";", or a bulleted list.

    Commas and "and" do not split, for names hold both ("Copenhagen, Denmark").
    """
    return read_final(output, _read_spans, _read_unnamed_spans)


def _read_spans(claim: Claim) -> Answer | None:
    return _split_spans(read_span(claim))


def _read_unnamed_spans(part: str) -> Answer | None:
    listed = [_LISTED.match(line) for line in part.strip().splitlines()]
    if len(listed) > 1 and all(listed):
        spans = [read_bare(match[1]) for match in listed if match]
        return tuple(span[0] for span in spans if span) or None
    return _split_spans(read_bare(part))


def _split_spans(answer: Answer | None) -> Answer | None:
    if answer is None or ";" not in answer[0]:
        return answer
    return tuple(span.strip() for span in answer[0].split(";") if span.strip()) or None
