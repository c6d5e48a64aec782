"""The check that no test question was learnt from: a train/test leak makes every figure of a student worthless."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from fractionate.files import utf8
from fractionate.types import Problem

_SPACE = re.compile(r"\s+")
_CURLY = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2212": "-"})
_AT_THE_ENDS = " \t\n.,:;!?\"'"


def find_overlap(train: Iterable[Problem], test: Iterable[Problem]) -> list[str]:
    """Return the ids of the test problems whose question is among the training ones, in the order of the test set.

    Case, spacing, quotation marks, Unicode forms and punctuation at the ends do not tell two questions or contexts
    apart; signs and figures inside do ("3 + 4" is not "3 - 4"). The same question on another context is another
    problem, and so are the same words after other turns of a chat; where either side has neither context nor turns the
    question decides. Holds digests of 16 bytes only, so a million training rows fit in memory.
    """
    with_context: set[bytes] = set()
    without_context: set[bytes] = set()
    questions: set[bytes] = set()
    for problem in train:
        question = _digest(problem.question)
        questions.add(question)
        if problem.background:
            with_context.add(_digest(problem.question, problem.background))
        else:
            without_context.add(question)
    return [problem.id for problem in test if _is_known(problem, questions, with_context, without_context)]


def _is_known(problem: Problem, questions: set[bytes], with_context: set[bytes], without_context: set[bytes]) -> bool:
    question = _digest(problem.question)
    if question not in questions:
        return False
    if not problem.background or question in without_context:
        return True
    return _digest(problem.question, problem.background) in with_context


def _digest(*texts: str) -> bytes:
    return hashlib.blake2b(utf8("\0".join(map(folded, texts))), digest_size=16).digest()


def folded(text: str) -> str:
    """Return the text folded; a text of punctuation alone stands for itself."""
    folded = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).translate(_CURLY).casefold()).strip()
    return folded.strip(_AT_THE_ENDS) or folded
