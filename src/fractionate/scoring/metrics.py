"""How answers are scored: DROP's exact match and F1, and the simpler scores for text, numbers, yes/no and choices.

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

from fractionate.scoring.choices import choice, yes_no
from fractionate.scoring.number_answers import number_of
from fractionate.scoring.reply import clean_span
from fractionate.types import Answer, Score

ZERO, ONE = Score(0.0, 0.0), Score(1.0, 1.0)

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
    tokens = [token for token in _TOKEN_ENDS.split(span) if token]
    normal = {token: _normalize_token(token) for token in set(tokens)}
    return " ".join(filter(None, map(normal.__getitem__, tokens)))


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


def score_number(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    """Score 1 when the prediction is exactly one of the numbers, else 0; F1 is the same figure.

    Compared as exact fractions: `3.75` is not 3, `1,234.00` is 1234. An answer that is no number is compared as text.
    """
    if prediction is None or len(prediction) != 1:
        return Score(0.0, 0.0)
    right = any(len(answer) == 1 and _same(prediction[0], answer[0]) for answer in answers)
    return Score(float(right), float(right))


def _same(predicted: str, gold: str) -> bool:
    wanted = number_of(gold)
    if wanted is None:
        return _same_text(predicted, gold)
    return number_of(predicted) == wanted


def score_numbers(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    """Score several numbers, in any order: exact match where all agree, and F1 over the numbers that do.

    The best alternative counts; None scores 0.
    """
    return max((_numbers_score(prediction, answer) for answer in answers), default=ZERO) if prediction else ZERO


def _numbers_score(prediction: Answer, answer: Answer) -> Score:
    predicted, gold = Counter(map(_number_or_text, prediction)), Counter(map(_number_or_text, answer))
    shared = (predicted & gold).total()
    return Score(float(predicted == gold), 2 * shared / (predicted.total() + gold.total()))


def _number_or_text(span: str) -> object:
    number = number_of(span)
    return clean_span(span).casefold() if number is None else number


def scored_where_same(same: Callable[[str, str], bool]) -> Callable[[Answer | None, Sequence[Answer]], Score]:
    """Return a scorer that gives 1 where `same` holds between the prediction and a gold answer, else 0.

    A gold answer that `same` cannot read counts where the prediction is the same text.
    """

    def score(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
        if prediction is None or len(prediction) != 1:
            return ZERO
        right = any(
            len(answer) == 1 and (same(prediction[0], answer[0]) or _same_text(prediction[0], answer[0]))
            for answer in answers
        )
        return Score(float(right), float(right))

    return score


def _same_text(predicted: str, gold: str) -> bool:
    return bool(gold.strip()) and clean_span(predicted).casefold() == clean_span(gold).casefold()


def score_yes_no(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    """Score 1 when prediction and answer say the same of yes and no ("true" is "yes"), else 0. None scores 0."""
    return _score_same(prediction, answers, yes_no)


def score_choice(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    """Score 1 when prediction and answer name the same letter, else 0. None scores 0."""
    return _score_same(prediction, answers, choice)


def _score_same(prediction: Answer | None, answers: Sequence[Answer], read: Callable[[str], str | None]) -> Score:
    if prediction is None or len(prediction) != 1:
        return ZERO
    said = read(prediction[0])
    right = said is not None and any(len(answer) == 1 and read(answer[0]) == said for answer in answers)
    return Score(float(right), float(right))
