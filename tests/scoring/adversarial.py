"""Adversarial texts that repeat one piece to make readers backtrack, and all readers of model text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fractionate.models.openai.wire import split_thoughts
from fractionate.scoring.choices import extract_choice, extract_yes_no
from fractionate.scoring.final import extract_final, extract_spans, split_final
from fractionate.scoring.forms import READERS as READERS_BY_FORM
from fractionate.scoring.forms import statement_reader
from fractionate.scoring.lenient import lenient_reader
from fractionate.scoring.metrics import drop_score, score_choice, score_number, score_yes_no, text_score
from fractionate.scoring.number_answers import extract_number, number_of
from fractionate.scoring.quantities import extract_money, extract_numbers, extract_quantity
from fractionate.scoring.reply import clean_span
from fractionate.strategies.decompose import fill_references, parse_decomposition
from fractionate.strategies.dynamic import _read_proposal
from fractionate.strategies.stepwise import short_answer
from fractionate.strategies.structured import as_text

READERS: Mapping[str, Callable[[str], object]] = {
    "text": extract_final,
    "numbers": extract_number,
    "spans": extract_spans,
    "choices": extract_choice,
    "yes or no": extract_yes_no,
    "several numbers": extract_numbers,
    "money": extract_money,
    "quantities": extract_quantity,
    "dates": READERS_BY_FORM["date"].extract,
    "times": READERS_BY_FORM["time"].extract,
    "lenient dates": lenient_reader("date"),
    "lenient numbers": lenient_reader("number"),
    "lenient texts": lenient_reader("text"),
    "lenient choices": lenient_reader("choice"),
    "lenient yes or no": lenient_reader("yes-no"),
    "cut before the answer": split_final,
    "cut before the number": lambda text: split_final(text, statement_reader("number")),
    "subquestions": parse_decomposition,
    "references": lambda text: fill_references(text, ["one", text]),
    "follow-ups": _read_proposal,
    "sub-answers": short_answer,
    "structured output": as_text,
    "thoughts": split_thoughts,
    "a span": clean_span,
    "a number": number_of,
    "score of spans": lambda text: drop_score((text, "Rome"), [("Paris", "5 men")]),
    "score of a text": lambda text: text_score((text,), [("Paris",)]),
    "score of a number": lambda text: score_number((text,), [("5",)]),
    "score of a date": lambda text: READERS_BY_FORM["date"].score((text,), [("5 May 2021",)]),
    "score of a quantity": lambda text: READERS_BY_FORM["quantity"].score((text,), [("5 hours",)]),
    "score of an amount": lambda text: READERS_BY_FORM["money"].score((text,), [("$5",)]),
    "score of a yes or no": lambda text: score_yes_no((text,), [("yes",)]),
    "score of a choice": lambda text: score_choice((text,), [("A",)]),
}

PIECES = (
    "\n", "\n\n \n", "\r\n", " ", "\t", "\u00a0", "a", "A ", "A. ", "a. ", ". ", ".", "?", "? ", "!", ",",
    ", so ", "; ", "*", "**", "_", "#", "#### ", "#### 5\n", "-", "- ", "- a\n", "> ", "=", "1=", "= 1 ", "(",
    "((a)", "()", "[", "[]", "{", "{}", "[[", '{"answer":', '"answer": "', '"', "'", "“a”.", "`", "```",
    "```json\n", "<", "<<", "<<1+1=", "<think>", "</think>", "<think></think>", "<|im_end|>", "</s> ",
    "<answer>", "\\", "\\boxed{", "\\boxed{5} ", "\\text{", "\\frac{1", "$", "$5 ", "%", "0", "9", "1,",
    "1,234,", "1 ", "1 234 ", "1/", "1/2 ", "1.", "1. ", "1.\n", "1. a?\n", "1. a? 2. ", "-1 ", "--", "+1",
    "1e9", "5x ", "2^", "½", "５", "two ", "hundred and ", "twenty-", "a hundred ", "and a half ",
    "the answer is ", "the answer is 5. ", "the answer is a\n", "answer ", "answer (", "answer ((a) ",
    "answer [", "answer to ", "answer to question 1 ", "if the answer is ", "final ", "final answer: a\n",
    "Answer 1: 5\n", "A1: ", "Q1: ", "Q1: Q1: a?\n", "Q1:\n", "q ", "step ", "step #", "step 1", "Step 1: a?\n",
    "intermediate answer ", "sub-answer: 5\n", "Problem: a\n", "Question: a\n", "question ",
    "wait the answer is b ", "Wait, ", "not ", "not known ", "note that ", "Note: a\n", "So ", "so it is ",
    "most likely ", "probably ", "yes ", "yes, no. ", "is (a) ", "option A ", "option ", "(a) ", "B) ",
    "May 5, ", "5/5/2021 ", "half past ", "5 hours 5 minutes ", "5 and ", "(x) ", "x = 5 and ", "- spent ", "unlikely ",
    "yes if ", "Find the ", "Would it? ", "Subquestion 1: a?\nAnswer 1: 5\n", "The next is 5. ",
    "would cost $5 ", "will each ", "a total of ", "since 1, ", "cm^2 ", "5:00 ", "10:30 ", "Rs. ", "Mr. ",
    "Inc. ", "J. ", "Follow-up: ", "follow-up ", "follow-up:\n", "No decomposition ", "no ", "#1 ", "the ",
    "a-", "é", "東京", "\U0001f600", "\x00", "\u2028", "x" * 50 + " ", "word " * 30 + "\n",
    "1. " + "x" * 3000 + "?\n",
)  # fmt: skip
"""More than a hundred pieces; a text is one of them over and over, alone or after words that name an answer."""


def texts(length: int) -> dict[str, str]:
    """Return the adversarial texts of about so many characters, by their piece and what stands before it."""
    repeated = {repr(piece): piece * (length // len(piece) + 1) for piece in PIECES}
    return {**repeated, **{f"{name} after a statement": f"The answer is {text} b" for name, text in repeated.items()}}
