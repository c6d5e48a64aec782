"""A reply is cut before the statement that its reader takes: the rest is the reasoning that a student learns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.scoring.final import read_final, split_final
from fractionate.scoring.forms import READERS, statement_reader
from fractionate.scoring.reply import visible
from fractionate.scoring.statements import statements
from fractionate.types import AnswerForm


@pytest.mark.parametrize(
    ("output", "reasoning"),
    [
        ("1. France\n2. Paris\nThe answer is: Paris", "1. France\n2. Paris"),
        ("A1: So 4.\n\nFinal answer: 18\n\nProblem: another\nFinal answer: 7", "A1: So 4."),
        ("The answer is: 4", ""),
        ("no statement at all", "no statement at all"),
        ("a\n#### 12", "a"),
        # Sub-answers stay.
        ("Answer: France\nWait, no.\nAnswer: Paris", "Answer: France\nWait, no."),
        ("Answer 1: France\nAnswer 2: Oslo\nAnswer: Paris", "Answer 1: France\nAnswer 2: Oslo"),
        ("1. Answer: France\n2. Answer: Oslo\n\nThe answer is: Paris", "1. Answer: France\n2. Answer: Oslo"),
        ("Intermediate answer: France\nSo the final answer is: Paris", "Intermediate answer: France"),
        ("1. The answer is France.\n2. The answer is Paris.", "1. The answer is France.\n2. The answer is Paris."),
        # The statement goes with its lead-in, and takes no reasoning with it.
        ("It is big. So the final answer is Paris.", "It is big."),
        ("Since it is big, the answer is Paris.", "Since it is big"),
        ("It is big.\n\n**Final answer:** Paris\n\nI hope this helps.", "It is big."),
        ("It is big.\n> **The correct answer is: Paris**", "It is big."),
        ("It is big.\n<answer>Paris</answer>", "It is big."),
        ("16 - 3 = 13. Therefore, the total is $\\boxed{13}$.", "16 - 3 = 13."),
        ("So 16 - 3 = $\\boxed{13}$.", "So 16 - 3 ="),
        ("It is big, and we conclude that the answer is Paris.", "It is big"),
        # Neither thoughts nor other problems are reasoning to learn.
        ("<think>Is it Oslo? The answer is Oslo.</think>It is big.\nThe answer is: Paris", "It is big."),
        ("It is big\n\nQuestion: Where is Rome?\nThe answer is Italy.", "It is big"),
        ("Problem: where?\nIt is big.\nThe answer is Paris.", "Problem: where?\nIt is big."),
        ("", ""),
    ],
)
def test_a_reply_is_cut_before_its_final_statement(output: str, reasoning: str) -> None:
    assert split_final(output)[0] == reasoning


@pytest.mark.parametrize(
    ("output", "statement"),
    [
        ("It is big. So the final answer is Paris.\nI hope so.", "So the final answer is Paris.\nI hope so."),
        ("It is big.\nThe answer is: Paris\n\nProblem: another", "The answer is: Paris"),
        ("1. The answer is France.\n2. The answer is Paris.", ""),
        ("nothing", ""),
        ("x " * 100 + "the answer is Paris", "the answer is Paris"),
        ("big\nthe answer is Paris", "the answer is Paris"),
    ],
)
def test_the_statement_is_what_follows_the_cut(output: str, statement: str) -> None:
    assert split_final(output)[1] == statement


@pytest.mark.parametrize(
    ("form", "output", "reasoning"),
    [
        ("number", "The answer is found so: 3 + 4 = 7.\nThe answer is: 7", "The answer is found so: 3 + 4 = 7."),
        ("number", "Final answer: see below\n3 + 4\nThe answer is 7.", "Final answer: see below\n3 + 4"),
        ("text", "Final answer: see below\n3 + 4\nThe answer is 7.", ""),
        ("yes-no", "The answer is long.\nThe answer is: no", "The answer is long."),
        ("choice", "The answer is long.\nThe answer is: (b)", "The answer is long."),
        ("span", "- Rams\n- Bears\nThe answers are: Rams; Bears", "- Rams\n- Bears"),
    ],
)
def test_the_cut_is_where_the_reader_of_the_form_reads(form: AnswerForm, output: str, reasoning: str) -> None:
    assert split_final(output, statement_reader(form))[0] == reasoning


_LINES = st.sampled_from(
    [
        "The answer is: 12", "Answer: Paris", "1. The answer is 7.", "2. Answer: no", "A1: (b)", "She has 3 + 4 = 7.",
        "Final answer: 26", "Wait, that is wrong.", "Problem: another", "#### 5", "\\boxed{9}", "",
        "Intermediate answer: 8",
        "It is yes, so the answer is yes.", "<answer>(c)</answer>", "Step 3: The final answer is 4.",
    ]
)  # fmt: skip


@pytest.mark.parametrize("form", READERS)
@given(lines=st.lists(_LINES, max_size=8))
def test_the_statement_begins_with_the_answer_and_nothing_is_lost(form: AnswerForm, lines: list[str]) -> None:
    output = "\n".join(lines)
    read = statement_reader(form)
    reasoning, statement = split_final(output, read)
    said = visible(output)
    assert said.startswith(reasoning)
    assert statement in said
    if statement:
        stated = [value for statement in statements(statement) if (value := read(statement)) is not None]
        assert stated[0] == read_final(output, read, lambda part: None)
