"""DROP's metric agrees with the official evaluator, and the simpler scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.scoring.choices import extract_choice, extract_yes_no
from fractionate.scoring.final import extract_spans
from fractionate.scoring.metrics import (
    drop_score,
    drop_score_one,
    normalize_span,
    score_choice,
    score_yes_no,
    text_score,
)
from fractionate.types import Score

VECTORS = Path(__file__).parents[2] / "../shared/data/drop/metric_vectors.json"


def test_the_official_vectors_pass() -> None:
    if not VECTORS.exists():
        pytest.skip(f"no official vectors at {VECTORS}")
    for vector in json.loads(VECTORS.read_text()):
        score = drop_score(tuple(vector["predicted"]), [tuple(vector["gold"])])
        assert score == (vector["exact_match"], vector["f1"]), vector


@pytest.mark.parametrize(
    ("predicted", "gold", "exact_match", "f1"),
    [
        # Numbers: canonical decimals, separators and currency dropped, one that differs spoils the span.
        (["1,000"], ["1000"], 1, 1),
        (["1000.0"], ["1,000"], 1, 1),
        (["$5"], ["5"], 1, 1),
        (["5%"], ["5"], 1, 1),
        ([".5"], ["0.5"], 1, 1),
        (["1e3"], ["1000"], 1, 1),
        (["-5"], ["5"], 1, 1),
        (["1,000.5"], ["10005"], 1, 1),
        (["5°"], ["5"], 0, 0),
        (["5°"], ["5°"], 1, 1),
        (["½"], ["0.5"], 0, 0),
        (["23 yards"], ["23"], 0, 0.67),
        (["yards"], ["23 yards"], 0, 0),
        (["23 yards"], ["yards"], 0, 0.67),
        (["23 25 yards"], ["23 24 yards"], 0, 0.67),
        # Words: case, punctuation, articles, hyphens, repeated words, order.
        (["THE Cat!"], ["a cat"], 1, 1),
        (["theatre"], ["atre"], 0, 0),
        (["co-op"], ["co op"], 1, 1),
        (["coop"], ["co-op"], 0, 0),
        (["cat cat dog"], ["cat dog"], 0, 1),
        (["O'Neil"], ["ONeil"], 1, 1),
        (["Łódź"], ["łódź"], 1, 1),
        (["Łódź"], ["lodz"], 0, 0),
        (["the"], ["a"], 1, 1),
        (["cat"], ["the"], 0, 0),
        (["cat\tdog"], ["cat dog"], 1, 1),
        # Empty ones.
        ([""], ["cat"], 0, 0),
        (["cat"], [""], 0, 0),
        ([""], [""], 1, 1),
        ([], ["cat"], 0, 0),
        (["cat"], [], 0, 0),
        ([], [], 1, 1),
        (["..."], [""], 1, 1),
        # Several spans: order does not matter, number of spans does, pairing is the best there is.
        (["b", "a dog"], ["dog", "b"], 1, 1),
        (["cat"], ["cat", "dog"], 0, 0.5),
        (["cat", "dog"], ["cat"], 0, 0.5),
        (["cat", "cat", "dog"], ["cat", "dog", "dog"], 1, 0.67),
        (["x y", "x"], ["x", "x y"], 1, 1),
        (["x y", "x z"], ["x", "x z"], 0, 0.83),
        (["x y z", "x"], ["x y", "x q"], 0, 0.73),
        (["1 x", "2 x"], ["2 y", "1 y"], 0, 0.5),
        (["a b c d e f g"], ["b"], 0, 0.29),
        (["p", "q", "r", "s", "t", "u", "v"], ["p"], 0, 0.14),
    ],
)
def test_a_prediction_scores_as_the_official_evaluator_scores_it(
    predicted: list[str], gold: list[str], exact_match: float, f1: float
) -> None:
    assert drop_score_one(tuple(predicted), tuple(gold)) == (exact_match, f1)


def test_of_several_annotators_the_best_counts() -> None:
    assert drop_score(("cat",), [("dog",), ("the cat",)]) == (1.0, 1.0)
    assert drop_score(("fat cat",), [("dog",), ("cat",), ("big fat cat",)]) == (0.0, 0.8)


def test_the_best_exact_match_and_the_best_f1_may_come_from_different_annotators() -> None:
    prediction = ("cat", "cat", "dog")
    assert drop_score_one(prediction, ("cat", "dog", "dog")) == (1.0, 0.67)
    assert drop_score_one(prediction, ("cat", "cat", "dog", "owl")) == (0.0, 0.75)
    assert drop_score(prediction, [("cat", "cat", "dog", "owl"), ("cat", "dog", "dog")]) == (1.0, 0.75)


def test_a_blank_alternative_is_no_answer_beside_others() -> None:
    assert drop_score(("",), [("",), ("cat",)]) == (0.0, 0.0)
    assert drop_score(("",), [("  ", "x"), ("cat",)]) == (0.0, 0.0)
    assert drop_score(("",), [(), ("cat",)]) == (0.0, 0.0)
    assert drop_score(("",), [("",)]) == (1.0, 1.0)


def test_no_prediction_scores_zero() -> None:
    for score in (drop_score, text_score, score_yes_no, score_choice):
        assert score(None, [("yes",)]) == (0.0, 0.0)
    assert drop_score(None, [("",)]) == (0.0, 0.0)
    assert drop_score(("a",), []) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("span", "normal"),
    [
        ("  The  Cat ", "cat"),
        ("78-yard", "78.0 yard"),
        ("1,000,000", "1000000.0"),
        ("a an the", ""),
        ("nan", "nan"),
        ("-", ""),
        ("Anthony", "anthony"),
        ("x.y", "xy"),
    ],
)
def test_spans_are_normalised(span: str, normal: str) -> None:
    assert normalize_span(span) == normal


words = st.text(alphabet="ab1 -.%", max_size=6)
spans = st.lists(words, min_size=1, max_size=4).map(tuple)


@given(spans)
def test_an_answer_scores_full_against_itself_in_any_order(answer: tuple[str, ...]) -> None:
    assert drop_score_one(answer, answer[::-1]) == (1.0, 1.0)
    assert drop_score(answer, [answer]) == (1.0, 1.0)


@given(spans, spans)
def test_scores_stay_in_range_and_f1_has_two_decimals(predicted: tuple[str, ...], gold: tuple[str, ...]) -> None:
    score = drop_score_one(predicted, gold)
    assert score.exact_match in (0.0, 1.0)
    assert 0.0 <= score.f1 <= 1.0
    assert score.f1 == round(score.f1, 2)


@given(spans, spans)
def test_with_no_number_in_the_gold_f1_is_the_same_both_ways(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    without = [tuple(span.replace("1", "c") for span in answer) for answer in (one, other)]
    assert drop_score_one(without[0], without[1]) == drop_score_one(without[1], without[0])


@pytest.mark.parametrize(
    ("prediction", "answer", "exact_match", "f1"),
    [
        (("The Beatles",), ("beatles!",), 1, 1),
        (("1,000",), ("1000.0",), 1, 1),
        (("George Bush",), ("George W. Bush",), 0, 0.8),
        (("cat cat",), ("cat",), 0, 2 / 3),
        (("cat",), ("dog",), 0, 0),
        (("b", "a c"), ("c", "b"), 1, 1),
        (("x", "y"), ("x", "z"), 0, 0.5),
        (("b",), ("c", "b"), 0, 2 / 3),
        (("",), ("",), 0, 0),
        (("the",), ("a",), 0, 0),
        ((), ("x",), 0, 0),
    ],
)
def test_text_scores(prediction: tuple[str, ...], answer: tuple[str, ...], exact_match: float, f1: float) -> None:
    assert text_score(prediction, [("zzz",), answer]) == pytest.approx((exact_match, f1))
    assert text_score(prediction, []) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("**No**", "no"),
        ("True", "yes"),
        ("False.", "no"),
        ("N", "no"),
        ("correct", "yes"),
        ("“Correct”", "yes"),
        ("True, because it is.", "yes"),
        ("No, because it is false.", "no"),
        ("No\n\nBecause yes is wrong.", "no"),
        ("The answer is no.", "no"),
        ("The answer is: **Yes**, they could.", "yes"),
        ("Final answer: false", "no"),
        ("Yes it could.\nThe answer is no.", "no"),
        ("It is far. It is deep. So yes.", "yes"),
        ("It is far.\nTherefore, no", "no"),
        ("It is far. Thus, the answer is no, it cannot.", "no"),
        ("<answer>yes</answer>", "yes"),
        ('{"answer": false}', "no"),
        ("\\boxed{\\text{No}}", "no"),
        ("The answer is definitely yes.", "yes"),
        ("The sky is blue. Based on this, yes, he could.", "yes"),
        ("It is far.\nBased on this, no.", "no"),
        ("_Yes_", "yes"),
        ("Y.", "yes"),
        ("Yeah", "yes"),
        ("nope!", "no"),
        ("IN CONCLUSION: it is far. THEREFORE, NO.", "no"),
        ("Yes and no.", None),
        ("Yes/No", None),
        ("It is far. Moreover, no evidence exists.", None),
        ("Correct spelling matters.", None),
        ("No one knows.", None),
        ("no more", None),
        ("The answer is unknown.", None),
        ("Yesterday.", None),
        ("", None),
        ("?", None),
    ],
)
def test_yes_and_no_are_read(output: str, said: str | None) -> None:
    answer = extract_yes_no(output)
    assert answer == (None if said is None else (said,))
    assert score_yes_no(answer, [("true",)]) == Score(float(said == "yes"), float(said == "yes"))
    assert score_yes_no(answer, [("No",)]) == Score(float(said == "no"), float(said == "no"))


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("[C]", "C"),
        ("B)", "B"),
        ("B) 12", "B"),
        ("**B**", "B"),
        ("B. 12 men", "B"),
        ("Option C", "C"),
        ("The answer is (B).", "B"),
        ("The correct answer is **A**: 21", "A"),
        ("The answer is option D.", "D"),
        ("The answer is: the correct choice E", "E"),
        ("5 + 5 = 10.\n\\boxed{E}", "E"),
        ("5 + 5 = 10.\n\\boxed{\\text{E}}", "E"),
        ("5 + 5 = 10.\nSo I take option C.", "C"),
        ("<answer>B</answer>", "B"),
        ('{"answer": "B"}', "B"),
        ("The answer is: a)", "A"),
        ("It is hot.\nThe correct option is C.", "C"),
        ("It is hot.\nSo, B is correct.", "B"),
        ("It is hot.\nI would choose **C**.", "C"),
        ("It is option A or option C.", None),
        ("It is option A and B is correct.", None),
        ("A number is 5.", None),
        ("The answer is a train.", None),
        ("The answer is 12.", None),
        ("I", None),
        ("", None),
    ],
)
def test_a_choice_is_read(output: str, letter: str | None) -> None:
    answer = extract_choice(output)
    assert answer == (None if letter is None else (letter,))
    assert score_choice(answer, [(letter or "A",)]) == Score(float(letter is not None), float(letter is not None))
    assert score_choice(answer, [("H",)]) == (0.0, 0.0)


def test_choices_and_yes_no_have_one_span() -> None:
    assert score_choice(("A", "A"), [("A",)]) == (0.0, 0.0)
    assert score_choice(("A",), [("A", "B")]) == (0.0, 0.0)
    assert score_yes_no(("maybe",), [("maybe",)]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("The answer is: Tony Romo; Shaun Hill", ("Tony Romo", "Shaun Hill")),
        ("The answer is Copenhagen, Denmark.", ("Copenhagen, Denmark",)),
        ("- Rams\n- the Bears\n", ("Rams", "the Bears")),
        ("1. Rams\n2. Bears", ("Rams", "Bears")),
        ("- Rams", ("- Rams",)),
        ("The answers are:\n- Rams\n- the Bears", ("Rams", "the Bears")),
        ('{"answer": ["Rams", "Bears"]}', ("Rams", "Bears")),
        ("<answer>Rams; Bears</answer>", ("Rams", "Bears")),
        ("5 October 1910", ("5 October 1910",)),
        ("a; ;", ("a",)),
        ("Where?", None),
        ("- ...\n- ...", None),
        ("", None),
    ],
)
def test_spans_are_read(output: str, answer: tuple[str, ...] | None) -> None:
    assert extract_spans(output) == answer
