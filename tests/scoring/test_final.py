"""A free-text answer is read from the reply's statement, whole and clean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.scoring.final import extract_final
from fractionate.scoring.reply import clean_span, is_preamble, parts, sentences, visible

CASES = [
    ("The answer is: Paris", "Paris"),
    ("The answer is Paris.", "Paris"),
    ("Final answer: Paris\n", "Paris"),
    ("So the final answer is: Paris.", "Paris"),
    ("It is in France.\n\\boxed{Paris}", "Paris"),
    ("It is in France.\n\\boxed{New {York}}", "New {York}"),
    ("It is in France.\n#### Paris", "Paris"),
    ('The answer is "Paris".', "Paris"),
    ("The answer is **Paris**.", "Paris"),
    ("The answer is 'Paris'!", "Paris'!"),
    ("**Answer:** Paris", "Paris"),
    ("Final answer:\n\nParis", "Paris"),
    ("The answer is J. K. Rowling. She wrote it.", "J. K. Rowling"),
    ("The answer is Mr. Obama. He won.", "Mr. Obama"),
    ("The answer is George W. Bush. He won.", "George W. Bush"),
    ("The answer is vitamin C. It helps.", "vitamin C"),
    ("The answer is 5.5 km.", "5.5 km"),
    ("The answer is Washington D.C.", "Washington D.C."),
    ("Paris", "Paris"),
    ("Paris.\n", "Paris"),
    ("  Paris  ", "Paris"),
    ("(Paris)", "Paris"),
    ("It was Łódź, naïve café 東京", "It was Łódź, naïve café 東京"),
    ("The answer is: 東京。", "東京"),
    ("Paris\n\nQuestion: Where is Rome?\nAnswer: Italy", "Paris"),
    ("The answer is Paris.\n\nProblem: Where is Rome?\nThe answer is Italy.", "Paris"),
    ("The answer is Paris. The answer is Rome.", "Rome"),
    ("The answer is Paris. Actually, that is wrong. The answer is Rome.", "Rome"),
    ("The answer is Paris. Wait. The answer is Rome. Sorry, the answer is Oslo.", "Oslo"),
    ("The answer is Paris.\nFinal answer: Rome", "Rome"),
    ("Final answer: Rome\nThe answer is Paris.", "Rome"),
    ("A1: The answer is Paris.\nA2: The answer is Rome.", "Rome"),
    ("The answer to the first question is Paris. So the answer is Rome.", "Rome"),
    ("The answer to the question is Rome.", "Rome"),
    ("Final Answer: Where is it?\nThe answer is Rome.", "Rome"),
    ("<think>Hm, the answer is Oslo</think>\nThe answer is Rome.", "Rome"),
    ("Hm, the answer is Oslo</think>\nThe answer is Rome.", "Rome"),
    ("Rome<|endoftext|>Oslo", "Rome"),
    ("<|im_start|>Rome", "<|im_start|>Rome"),
    ("</think>Rome", "Rome"),
    ("A1: The answer is Paris.\nA2: The answer is Oslo.\nA3: The answer is Rome.", "Rome"),
    ("The answer is Paris. Wait.\nA1: The answer is Rome.", "Paris"),
    ("The answer is Paris. The answer is Rome. Sorry!", "Rome"),
    ("If the answer is Oslo, fine. The answer is Rome.", "Rome"),
    ("A: Paris\nFinal answer: Rome", "Rome"),
    ("The answer is Paris.\n### Answer\nRome", "Rome"),
    ("The answer is Paris.\n#### Rome", "Rome"),
    ("The answer is:\nRome", "Rome"),
    ("The answer is: \nRome", "Rome"),
    ("x " * 300 + "\nThe answer is:\nRome", "Rome"),
    ("The answer is:" + "\n" * 500 + "Rome", None),
    ("It is \\boxed{Rome", "Rome"),
    ("I think.\nFirst:\nA1: the answer is Paris.\nThe answer is Rome.", "Rome"),
    ("Hm.\n**Q1: Where?** \nThe answer is Paris.\nThe answer is Rome.", "Rome"),
    ("The answer is \\text{Paris}.", "Paris"),
    ("Final answer: $\\boxed{Paris}$", "Paris"),
    ("Final Answer: **Where is it?**\nThe answer is Rome.", "Rome"),
    ("#### " + "word " * 12, ("word " * 12).strip()),
    ("The answer is ---.\nThe answer is Rome.", "Rome"),
    (("word " * 12).strip(), ("word " * 12).strip()),
    ("Here you go:", None),
    ("", None),
    ("   \n", None),
    ("...", None),
    ("The answer is:", None),
    ("The answer is what?", None),
    ("<think>The answer is Rome.", None),
    ("Where is it?", None),
    ("First I look it up.\nThen I think about it.", None),
    ("One line that goes on for so long that nobody would take it to be an answer by itself at all", None),
    ("#### " + "word " * 13, None),
    ("To find the answer: look it up\nThen think.", None),
    ("<answer>Paris</answer>", "Paris"),
    ("It is in France.\n<answer>\nParis.\n</answer>", "Paris"),
    ("Write <answer></answer>.\nThe answer is Rome.", "Rome"),
    ('{"answer": "Paris"}', "Paris"),
    ('{"reasoning": "Is it Rome?", "answer": "Paris \\u2014 France", "sure": true}', "Paris — France"),
    ('{"answer": ["Paris", "Rome", 5, null]}', "Paris; Rome; 5"),
    ('{"answer": "Oslo", "final_answer": "Rome"}', "Rome"),
    ('{"answer": true}', "true"),
    ("{'answer': 'Rome'}", "Rome"),
    ('{"answer": 1903 or so}', "1903 or so}"),
    ("**Answer**: Let me see. It is big.\nThe answer is Rome.", "Rome"),
    ("The answer is **Paris**, because it is the capital.", "Paris"),
    ("The answer is Paris, which is in France.", "Paris"),
    ("The answer is because of the rain.", "because of the rain"),
    ("The answer is X\nIt follows.", "X"),
    ("The answer is Malcolm X\nIt follows.", "Malcolm X"),
    ("The answers are:\n- Rams\n- **Bears**\nThat is all.", "Rams; Bears"),
    ("Final answer:\n\n1. Rams\n2) Bears", "Rams; Bears"),
    ("The answer is:\n1. Rams", "Rams"),
    ("The answer is what?\n" * 99 + "The answer is Rome.", "Rome"),
    ("The answer is what?\n" * 100 + "The answer is Rome.", None),
    ("\\boxed{---}\n" * 99 + "\\boxed{Rome}", "Rome"),
    ("\\boxed{---}\n" * 100 + "\\boxed{Rome}", None),
    ("x" * 400, "x" * 400),
    ("x" * 401, None),
    ("The answer is Oslo. Let me check. The answer is Rome. The answer is Bern.", "Bern"),
    ("Final answer: Oslo\nA1: oops, the answer is Rome.", "Oslo"),
    ("Q1: Where?\nQ2: When?\nThe answer is Paris.\nThe answer is Rome.", "Rome"),
    ("Q1: Where.\nThe answer is Paris.\nThe answer is Rome.", "Rome"),
]


@pytest.mark.parametrize(("output", "answer"), CASES)
def test_the_final_answer_is_read(output: str, answer: str | None) -> None:
    assert extract_final(output) == (None if answer is None else (answer,))


def test_a_sub_answer_beyond_the_reach_of_its_line_is_a_plain_answer() -> None:
    oslo = "The answer is Oslo.\n"
    assert extract_final(oslo + "A1: " + "x " * 1500 + "the answer is Rome.") == ("Rome",)
    assert extract_final(oslo + "A1:" + "x" * 1993 + " the answer is Rome.") == ("Oslo",)
    assert extract_final(oslo + "A1:" + "x" * 1994 + " the answer is Rome.") == ("Rome",)
    assert extract_final("So:\n" + oslo + "A1: " + "x " * 1500 + "the answer is Rome.") == ("Rome",)
    assert extract_final(oslo + "A1: " + "x " * 50 + "the answer is Rome.") == ("Oslo",)


def test_a_reply_is_cut_where_a_new_problem_opens() -> None:
    assert list(parts("a\nProblem: b\n**Question:** c\nQ1: d\nExample 2: e")) == [
        "a\n",
        "Problem: b\n",
        "**Question:** c\nQ1: d\n",
        "Example 2: e",
    ]
    assert list(parts("\n\nQuestion: x")) == ["Question: x"]
    assert list(parts("  ")) == []


def test_a_preamble_restates_or_announces() -> None:
    assert is_preamble("Problem: Ann has 7.")
    assert is_preamble("\nProblem: Ann")
    assert is_preamble("**Here it is:**")
    assert not is_preamble("It is 7.")


def test_thoughts_and_what_follows_the_end_are_not_visible() -> None:
    assert visible("a<think>b<think>c") == "a"
    assert visible("a</think>b</think>c") == "c"
    assert visible("a</s>b") == "a"
    assert visible(" <eos>b") == " <eos>b"


def test_sentences_end_at_full_stops_but_not_inside_names_and_decimals() -> None:
    assert sentences("Mr. Fox has 3.5 pounds. He left! Why?\nSo.") == [
        "Mr. Fox has 3.5 pounds.",
        "He left!",
        "Why?",
        "So.",
    ]
    assert sentences('He said "no." Then J. R. came.') == ['He said "no."', "Then J. R. came."]


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ('"a"', "a"),
        ("**a**,", "a"),
        ("[a]", "a"),
        ("()", "()"),
        ("$$a$$", "a"),
        ("a.", "a"),
        ("a b.", "a b"),
        ("{a}", "a"),
        ("$a$", "a"),
        ("$5", "$5"),
        ("Malcolm X", "Malcolm X"),
        ("((a.)),", "a"),
        ("", ""),
    ],
)
def test_a_span_loses_its_wrapping(text: str, span: str) -> None:
    assert clean_span(text) == span


@given(st.text(max_size=300))
def test_any_text_is_survived_and_no_answer_is_empty(output: str) -> None:
    answer = extract_final(output)
    assert answer is None or (len(answer) == 1 and any(character.isalnum() for character in answer[0]))


@given(st.from_regex(r"[A-Z][a-z]{1,10}( [A-Z][a-z]{1,10}){0,2}", fullmatch=True))
def test_a_named_answer_comes_back_however_it_is_dressed(name: str) -> None:
    for dressed in (
        f"The answer is: {name}",
        f"Final answer: **{name}**.",
        f'#### "{name}"',
        f"{name}\n",
        f"\\boxed{{{name}}}",
    ):
        assert extract_final(dressed) == (name,)


@pytest.mark.parametrize(
    "piece",
    ["the answer is a", "\\boxed{", "Problem: ", '"', "**", "“a”.", "\n", "a. ", "</s>", "wait the answer is b "],
)
def test_a_huge_reply_is_read_in_linear_time(piece: str) -> None:
    extract_final(piece * (1_000_000 // len(piece)))
