"""Numbers are read exactly, and only from the statement of the answer."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fractionate.scoring.metrics import score_number
from fractionate.scoring.number_answers import extract_number, format_number, read_number, stated_result

WRITTEN = [
    ("42", "42"),
    ("42\n", "42"),
    ("42.", "42"),
    ("42,", "42"),
    ("42%", "42"),
    ("42 %", "42"),
    ('"42"', "42"),
    ("'42'", "42"),
    ("“42”", "42"),
    ("**42**", "42"),
    ("*42*", "42"),
    ("`42`", "42"),
    ("(42)", "42"),
    ("~42", "42"),
    ("= 42", "42"),
    ("is:5", "5"),
    ("+5", "5"),
    ("-7", "-7"),
    ("−7", "-7"),
    ("–7", "-7"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("$ 5", "5"),
    ("$1,234.00", "1234"),
    ("1,234,567", "1234567"),
    ("1,00,000", "100000"),
    ("1\u202f234", "1234"),
    ("€3", "3"),
    ("350$", "350"),
    ("5 dollars", "5"),
    ("$18 per day", "18"),
    ("3.75", "3.75"),
    ("29.00", "29"),
    ("0.10", "0.1"),
    (".5", "0.5"),
    ("1e3", "1000"),
    ("1.5e-3", "0.0015"),
    ("1/2", "0.5"),
    ("-1/2", "-0.5"),
    ("2/3", "2/3"),
    ("1,000/4", "250"),
    ("1{,}234", "1234"),
    ("boxed{42}", "42"),
    (r"\boxed{\text{42}}", "42"),
    (r"1\frac{1}{2}", "1.5"),
    ("9" * 100, "9" * 100),
    ("1 1/2", "1.5"),
    ("½", "0.5"),
    ("1½", "1.5"),
    ("５", "5"),
    ("2 million", "2000000"),
    ("1.5 thousand dollars", "1500"),
    ("18th", "18"),
    (r"\boxed{42}", "42"),
    (r"\boxed{42\text{ apples}}", "42"),
    (r"$\frac{1}{2}$", "0.5"),
    (r"$1\frac{1}{2}$", "1.5"),
    (r"-\frac34", "-0.75"),
    (r"\$1{,}234", "1234"),
    (r"42\%", "42"),
    (r"\(42\)", "42"),
    ("100000000000000000000000000001", "100000000000000000000000000001"),
    (r"\boxed{\boxed{42}}", "42"),
    (r"\boxed{12\,345}", "12345"),
    (r"12,\!345", "12345"),
    ("1'234", "1234"),
    ("$118 000", "118000"),
    ("£1 234 567", "1234567"),
    ("minus 5 degrees", "-5"),
    ("Negative $5", "-5"),
    ("2 and 1/2 hours", "2.5"),
    ("18 dollars and 50 cents", "18.5"),
    ("$2.5M", "2500000"),
    ("$80K", "80000"),
    ("80k", "80000"),
    ("3 Hundred", "300"),
    ("0.125", "0.125"),
    ("-0.002", "-0.002"),
    ("five", "5"),
    ("zero", "0"),
    ("Eighteen dollars.", "18"),
    ("twenty-one eggs a", "21"),
    ("forty two", "42"),
    ("ninety", "90"),
    ("ten", "10"),
    ("three hundred", "300"),
    ("→ 18", "18"),
    ("∴ **18**", "18"),
    ("-> 18", "18"),
]

NO_NUMBER = [
    "", "\n", "3,75", "12,34", "1.2.3", "10:30", "5-7", "12+7", "12 x 7", "12 X 7", "3/4/2024", "1/0", "2**3", "10^3",
    "x2", "9" * 200, "9" * 101, "5²", "1_234", "12 34", "1 8", "5 or 7", "5 to 7", "16 minus 3", "16 -3", "(16) - 3",
    "3 plus 4", "8 divided by 2", "1 hour and 30 minutes", "5 feet 7 inches", "5-7-9", "one of them",
    "five eggs were left over", "forty-twofold", "twentyone",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), WRITTEN)
def test_a_bare_number_is_read_in_every_notation(text: str, value: str) -> None:
    assert extract_number(text) == (value,)
    assert read_number(text) == Fraction(value)


@pytest.mark.parametrize(("text", "value"), WRITTEN)
def test_a_named_number_is_read_in_every_notation(text: str, value: str) -> None:
    stated = text.strip()
    assert extract_number(f"I think so because 17 > 3.\nThe answer is: {stated}") == (value,)
    assert extract_number(f"First there are 99.\nFinal answer: {stated}\n") == (value,)


@pytest.mark.parametrize("text", NO_NUMBER)
def test_what_is_no_number_is_not_cut_down_to_one(text: str) -> None:
    assert read_number(text) is None
    assert extract_number(text) is None
    assert extract_number(f"The answer is {text}") is None


NAMED = [
    ("The answer is 42 apples.", "42"),
    ("**Final Answer:** 42", "42"),
    ("### Final Answer\n\n42", "42"),
    ("### Answer: 42", "42"),
    ("**Answer**: 42", "42"),
    ("Answer = 42", "42"),
    ("Ans: 42", "42"),
    ("A: 42", "42"),
    ("The answer is:\n\n$42", "42"),
    ("So the final answer is: 42.", "42"),
    ("Thus, the correct answer is 42 hours.", "42"),
    ("The answer, then, is 42.", "42"),
    ("The answer would be 42.", "42"),
    ("The answer is around 42.", "42"),
    ("The answer is 42 (6*7).", "42"),
    ("The final answer is $\\frac{3}{4}$.", "0.75"),
    ("The answer is $\\boxed{\\$1{,}234}$.", "1234"),
    ("16 - 3 = 13. 13 - 4 = 9.\n#### 9", "9"),
    ("#### Step 1: compute 5\nfoo\n#### Step 2: 7\nThe answer is 9.", "9"),
    ("Final answer: 12+7=19", "19"),
    ("The answer is 5 apples + 4 pears = 9 fruits", "9"),
    ("Final answer: 18 = 9 * 2", "18"),
    ("The answer is $22. Janet has 9 eggs left (16-3-4=9). She makes $18 (9 x $2 = $18).", "22"),
    ("Final Answer: How many 5s?\nShe makes 9 x $2 = $18. The answer is $18.", "18"),
    ("The answer is 16 -3", None),
    ("<answer>18</answer>", "18"),
    ("16 - 3 = 13.\n<answer>\n16 - 3 = 13\n$26 per day\n</answer>\nI hope 5 helps.", "26"),
    ("The answer is 9.\n<final_answer> 18 </final_answer>", "18"),
    ("[ANSWER] 18 [/ANSWER]", "18"),
    ("16 - 3 = 13.\n<answer>18", "18"),
    ("<answer>\n18", "18"),
    ("Put it in <answer></answer>: 5 or 6.\nThe answer is 18.", "18"),
    ('{"answer": 18}', "18"),
    ('{"reasoning": "16 - 3 = 13", "answer": 18.50, "confidence": 0.9}', "18.5"),
    ('```json\n{\n  "steps": ["16-3=13"],\n  "answer": "18 eggs"\n}\n```', "18"),
    ('{"steps": [{"answer": 13}], "final_answer": "$18"}', "18"),
    ('{"answer": 13, "final answer": "$18"}', "18"),
    ('{"answer": null, "confidence": 0.9}', None),
    ('{"answer": 3,750, "confidence": 1}', "3750"),
    ('{"answer": 16 - 3}', None),
    ("{'answer': '18', 'confidence': 0.9}", "18"),
    ('{"answer": ["18"]}', "18"),
    ("A: Janet has 16 - 3 = 13 eggs.\nShe makes 13 * 2 = 26.\nThe answer is 26.", "26"),
    ("Answer: Janet has 16 - 3 = 13 eggs. So she makes 13 * 2 = 26 dollars.", "26"),
    ("Answer: 18\n\nThe rest of the answer is 5.", "5"),
    ("Answer: 18\nWait, that is wrong.\nAnswer: 20", "20"),
    ("A: 18\nWait, that is wrong.\nA: 20", "20"),
    ("### Answer\n18\nWait, that is wrong.\n### Answer\n20", "20"),
    ("#### 18\nOops!\n#### 20", "20"),
    ("#### 18\n#### 20", "20"),
    ("<answer>18</answer> Wait, that is wrong. <answer>20</answer>", "20"),
    ('{"answer": 18}\nWait, that is wrong.\n{"answer": 20}', "20"),
    ("The answer is 18.\nLet me double-check: the price is 2.5.\nSo the correct answer is 20.", "20"),
    ("The answer is 18.\nSo the correct answer is 20.", "20"),
    ("Final answer (in dollars): 18", "18"),
    ("Answer in dollars: 18", "18"),
    ("The answer (5) is wrong. So 18 are left.", "18"),
    ("Answer - 18", "18"),
    ("**Final Answer** — 18 eggs", "18"),
    ("The answer is:\n- 18", "18"),
    ("The answer is:\n\n1. 18 hens\n2. 5 eggs", None),
    ("The answer is:\n1. 18", "18"),
    ("The answer is:\n18. That is all", "18"),
    ("The answer is eighteen.\nShe has 5 left.", "18"),
    ("The answer is eighteen. She has 5 left.", "18"),
    ("The answer is one of 5 or 7.", None),
    ("The answer is two thirds.", None),
    ("The answer is 0.2 or 20%.", "0.2"),
    ("So the answer would not be 18.", None),
    ("The answer isn't 18.", None),
    ("My first answer was 18, but the answer is 20.", "20"),
    ("#### 9 * 2 = 18\nThat is all.", "18"),
    ("So it is " + "very " * 30 + "nice that 5 are left.", "5"),
    ("#### Step 2: add the eggs\nThe answer is 9.", "9"),
    ("The final answer is $\\$18$.", "18"),
    ("The final answer is 18. I hope it is correct.", "18"),
    ("The answer is 60 miles/hour.", "60"),
    ("The answer is 120 minutes or 2 hours.", "120"),
    ("She eats 3.\nSo 5 are left." + "\n" * 1200, "5"),
    ("She eats 3. So 5 are left." + " Good." * 200, None),
    ("The answer is that she has 7 left.", "7"),
    ("The answer is 42</s> and 7", "42"),
    ("42<|im_end|>\nThe answer is 3", "42"),
    ("<think>5, no, the answer is 7</think>The answer is 6", "6"),
    ("<think>The answer is 5", None),
    ("The answer is not 5.", None),
    ("The answer is unknown.", None),
    ("The answer cannot be determined without knowing the other 3.", None),
    ("If the answer is 5 then she is right, which is not clear.", None),
    ("The answer is 5.\nWait, I made a mistake. The answer is 6.", "6"),
    ("The answer is 5. The answer is 6.", "6"),
    ("The answer is 5 for now.\nFinal answer: 6", "6"),
    ("The answer to question 1 is 5. The answer to question 2 is 6. Final answer: 11", "11"),
    ("A1: The answer is 3.\nA2: The answer is 7.", "7"),
    ("Q1: How many?\nThe answer is 3.\nQ2: How many now?\nThe answer is 7.", "7"),
    ("A1: The answer is 3.\nThe answer is 8.\nA2: The answer is 7.", "8"),
    ("Final answer: 18\n\nProblem: Ann has 7.\n\nA1: 7\n\nFinal answer: 7", "18"),
    ("The answer is 18.\n\nQ: What next?\nActually, sorry. The answer is 7.", "18"),
    ("Question: Ann has 7.\nShe eats 3.\nSolution: 7 - 3 = 4. The answer is 4.", "4"),
    ("Let me restate it:\nProblem: Ann has 7 and eats 3.\nThe answer is 4.", "4"),
    ("It cannot be solved.\n\nProblem: Ann has 7.\nFinal answer: 7", None),
    ("18\n\nExplanation: 9*2=18, not 20.", "18"),
    ("18\n\nThat is all.", "18"),
    ("18 apples\nwere eaten", None),
    ("- 42", "42"),
    ("\\boxed{3 apples and 4 pears}", None),
    ("\\boxed{x = 5}", "5"),
    ("The answer is 22, since 9*2 = 18.", "22"),
    ("The answer is that she has 7 left. I like 9.", "7"),
    ("So 5 are left." + "\n" * 1200, "5"),
]  # fmt: skip


@pytest.mark.parametrize(("output", "value"), NAMED)
def test_the_answer_is_read_where_it_is_named(output: str, value: str | None) -> None:
    assert extract_number(output) == (None if value is None else (value,))


STATED = [
    ("She has 16 eggs and eats 3. In total, it takes 2 + 1 = 3 bolts.", "3"),
    ("It is $80,000 + $50,000 = $130,000. Josh made a profit of $65,000.", "65000"),
    ("Since he drove 180 miles, he is still 180 - 135 = 45 miles away.", "45"),
    ("After 36 months, a bag costs $92.", "92"),
    ("Therefore, the loser got 20 votes (80 - 60).", "20"),
    ("The cost is $2.00 / 8 = $0.25, which is equal to 25 cents.", "25"),
    ("Since 3*4=12, he has 12 left.", "12"),
    ("So she makes $18 per day. Let me know if you need more help!", "18"),
    ("(19 + 13 = 32 fish)", "32"),
    ("A7: Mr. Cruz has 3 pets. 2 + 2 = <<2+2=4>>4 in all.", "4"),
    ("Together they have 15 + 6 = 21", "21"),
    ("16 - 3 = 13\n13 * 2 = 26\n\nTotal: $26", "26"),
    ("It is far.\n**Total cost: 26 dollars**", "26"),
    ("(After 3 weeks, she has 5 left.)", "5"),
    ("We compute 16 - 3 = 13.\n\n**$18**", "18"),
    ("We compute 16 - 3 = 13. So the total is:\n\n\\[ 18 \\]", "18"),
    ("We compute 16 - 3 = 13.\n**Step 2**", None),
    ("We compute 16 - 3 = 13.\nSo the final amount would be: $18", "18"),
    ("Josh made $70,000 in profit", "70000"),
    ("The loser got (80 - 60)20 votes.", "20"),
    ("He got (80 + 60) 20 of the $18,", None),
    ("It is 90 minutes = 1 hour and 30 minutes.", "90"),
    ("It lasts 1 hour and 30 minutes.", None),
    # A sentence with several figures leaves open which one is meant, and a broken-off one is no conclusion.
    ("So, 5 cars drove through in the first 15 minutes.", None),
    ("I multiplied 6 by 7 to get 42 but got lost in the steps.", None),
    ("She has 16 eggs. So it takes Tom 1 hour", None),
    ("She has 16 eggs and eats 3. Then I do not know.", None),
    ("She has 16 eggs. How many are left?", None),
    ("We need 3. There is not enough information about the 4 pens.", None),
    ("There are 16 eggs.\nShe is happy.", None),
    ("She sold 1580+875+4", None),
    ("So the result is x = y.", None),
]


@pytest.mark.parametrize(("output", "value"), STATED)
def test_an_unnamed_answer_is_read_only_as_the_one_result_of_the_last_sentence(output: str, value: str | None) -> None:
    assert extract_number(output) == (None if value is None else (value,))


@pytest.mark.parametrize(
    ("prediction", "gold", "right"),
    [
        ("3.75", "3", False),
        ("eighteen", "18", True),
        ("no numb", "no number", False),
        ("3", "3.75", False),
        ("1,234.00", "1234", True),
        ("$1,234", "#### 1,234", True),
        ("42%", "42", True),
        ("-7", "7", False),
        ("−7", "-7", True),
        ("0.5", "1/2", True),
        ("0.3333", "1/3", False),
        ("29.00", "29", True),
        ("42 or 43", "42", False),
        ("She has 42 and 43", "42", False),
        ("", "42", False),
        ("none", "None", True),
        ("none", "0", False),
        ("42 a b c d e", "42", True),
        ("42 a b c d e f", "42", False),
        ("", "", False),
    ],
)
def test_numbers_compare_exactly(prediction: str, gold: str, right: bool) -> None:
    score = score_number((prediction,), [("999",), (gold,)])
    assert score == (float(right), float(right))


def test_no_prediction_and_several_spans_score_zero() -> None:
    assert score_number(None, [("1",)]) == (0.0, 0.0)
    assert score_number(("1", "1"), [("1",)]) == (0.0, 0.0)
    assert score_number(("1",), [("1", "1")]) == (0.0, 0.0)
    assert score_number(("1",), []) == (0.0, 0.0)


def test_a_stated_result_needs_one_figure() -> None:
    assert stated_result("He has 5 left and she has 5 left.") == 5
    assert stated_result("He has 5 left and she has 6 left.") is None
    assert stated_result("He has 5 + 6 left.") is None
    assert stated_result("He has 5 + 5 left.") is None
    assert stated_result("He has 3 pens, so he is glad.") == 3
    assert stated_result("After 3 weeks, it ends.") == 3
    assert stated_result("It is 2 + 3 = about 5 men.") == 5
    assert stated_result("It is 7 = 5 - 2.") == 7
    assert stated_result("7 = 5 - 2.") == 7
    assert stated_result("nothing") is None


@example(Fraction(244140624999999, 10**6))
@example(Fraction(999999999999999999, 10**6))
@given(st.fractions(min_value=-(10**12), max_value=10**12, max_denominator=10**6))
def test_writing_and_reading_a_number_gives_it_back(number: Fraction) -> None:
    assert read_number(format_number(number)) == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_grouping_currency_and_units_do_not_change_a_number(number: Decimal) -> None:
    plain = extract_number(f"The answer is {number}.")
    assert plain is not None
    assert Fraction(plain[0]) == Fraction(number)
    sign, figure = ("-" if number < 0 else ""), f"{abs(number):,}"
    assert extract_number(f"The answer is {sign}${figure} a day.") == plain
    assert extract_number(f"**{sign}{figure}**") == plain


@given(st.text(max_size=300))
def test_any_text_is_survived_and_what_is_read_scores_against_itself(output: str) -> None:
    answer = extract_number(output)
    if answer is not None:
        assert score_number(answer, [answer]) == (1.0, 1.0)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_number_of_the_reasoning_is_never_the_answer(thought: int, named: int) -> None:
    output = f"First we get {thought} + 1 = {thought + 1}.\nThe answer is {named}.\n\nProblem: Ann.\nAnswer: {thought}"
    assert extract_number(output) == (str(named),)


@pytest.mark.parametrize(
    "piece", ["the answer is ", "\\boxed{", "#### 5\n", ".", "3", "1,234,", "(", "=1", "a. ", "\n", "<think>"]
)
def test_a_huge_reply_is_read_in_linear_time(piece: str) -> None:
    # Quadratic reading would take hours here, so that the test's own limit of patience decides, not a clock.
    extract_number(piece * (1_000_000 // len(piece)))
