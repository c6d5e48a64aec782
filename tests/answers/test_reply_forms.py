"""Forms in which models state their answers, class by class, and beside each what only looks like a statement."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fractionate.answers.choices import extract_choice, extract_yes_no
from fractionate.answers.final import extract_final
from fractionate.answers.numbers import extract_number
from fractionate.answers.spans import extract_spans
from fractionate.types import Answer

NUMBERS: dict[str, list[tuple[str, str | None]]] = {
    "a last statement wins over sub-answers": [
        ("1. The answer is 12.\n2. The answer is 14.\nThe answer is: 14", "14"),
        ("1. The answer is 12.\n2. The answer is 14.\nThe answer is: 26", "26"),
        ("1) The answer is 12.\n2) The answer is 14.\n\nAnswer: 26", "26"),
        ("(1) The answer is 12.\n(2) The answer is 14.\nSo the answer is 26.", "26"),
        ("**1.** The answer is 12.\n**2.** The answer is 14.\n**The answer is: 26**", "26"),
        ("#1: The answer is 12.\n#2: The answer is 14.\nThe answer is: 26", "26"),
        ("- The answer is 12.\n- The answer is 14.\nThe answer is: 26", "26"),
        ("1.\nThe answer is 12.\n2.\nThe answer is 14.\nThe answer is: 26", "26"),
        ("### Step 1\nShe has 16. The answer is 12.\n### Step 2\nThe answer is 14.\n\nThe answer is: 26", "26"),
        ("Answer 1: 12\nAnswer 2: 14\nAnswer: 26", "26"),
        ("Answer 1: 12\nAnswer 2: 14\nThe answer is: 26", "26"),
        ("Answer #1: The answer is 12.\nAnswer #2: The answer is 14.\nAnswer: 26", "26"),
        ("A1: 12\nA2: 14\nA: 26", "26"),
        ("A1: The final answer is 12.\nA2: The final answer is 14.\nThe answer is: 26", "26"),
        ("A1: Final answer: 12\nA2: Final answer: 14\nFinal answer: 26", "26"),
        ("Intermediate answer: 12\nIntermediate answer: 14\nAnswer: 26", "26"),
        ("The intermediate answer is 12.\nThe answer is: 26", "26"),
        ("Intermediate answer 1: 12\nIntermediate answer 2: 14\nThe answer is: 26", "26"),
        ("Sub-answer: 12\nSub-answer: 14\nAnswer: 26", "26"),
        ("Partial answer: 12\nAnswer: 26", "26"),
        ("For subquestion 1, the answer is 12. For subquestion 2, the answer is 14.\nThe answer is: 26", "26"),
        ("The answer to #1 is 12. The answer to #2 is 14. The answer is: 26", "26"),
        ("1. \\boxed{12}\n2. \\boxed{14}\n\nThe answer is: \\boxed{26}", "26"),
        ("1. \\boxed{12}\n2. \\boxed{14}\n\nThe answer is: 26", "26"),
        (
            "1. How many are left?\nShe has 16 - 3 = 13.\nThe answer is 13.\n\n"
            "2. What does she make?\nShe sells them all.\nThe answer is 26.\n\nThe answer is: 52",
            "52",
        ),
        # Without a last statement the last naming counts, but no bare line of a list; a statement before a list stands.
        ("1. The answer is 12.\n2. The answer is 14.", "14"),
        ("Answer 1: 12\nAnswer 2: 14", None),
        ("A1: 12 eggs\nA2: 14 eggs\nA3: 1", None),
        ("A1: 12 eggs\nA2: She sells 13 * 2 = 26 dollars.", "26"),
        ("The answer is 26.\n1. The answer to the first is 12.\n2. The answer is 14.", "26"),
        ("1. She has 16 eggs.\n2. She eats 3.\n3. The final answer is 13.\n\nThe answer is 5", "13"),
        ("The answer is 26. The answer is 14.", "26"),
        ("1. 12\n2. 14\n3. Done", None),
    ],
    "number words": [
        ("The answer is two hundred fifty.", "250"),
        ("The answer is two hundred and fifty dollars.", "250"),
        ("one thousand two hundred and five", "1205"),
        ("twelve hundred", "1200"),
        ("a hundred", "100"),
        ("The answer is three hundred thousand.", "300000"),
        ("The answer is two million three hundred thousand and one.", "2300001"),
        ("two hundred fifty-five eggs", "255"),
        ("one hundred and one thousand", "101000"),
        ("minus twelve", "-12"),
        ("The answer is three and a half hours.", "3.5"),
        ("The answer is two and three quarters.", "2.75"),
        ("The answer is two hundred fifty (250).", "250"),
        ("She eats some. So she has two hundred fifty dollars left.", "250"),
        ("She eats some. So there are eighteen eggs left.", "18"),
        ("The answer is five to six.", None),
        ("The answer is five times three.", None),
        ("The answer is five hundred to six hundred.", None),
        ("The answer is one two three.", None),
        ("The answer is two thirds.", None),
        ("The answer is fifty hundred thousand hundred.", None),
        ("The answer is one million million.", None),
        ("hundred", None),
        ("It is far. There are two ways to see it.", None),
        ("It is far. Of the eighteen eggs and the twelve hens none are left.", None),
    ],
    "a chain of equations": [
        ("The answer is 5 + 7 = 12 + 3 = 15", "15"),
        ("The answer is 20% of 50 = 10.", "10"),
        ("The answer is 1/2 of 30 = 15 eggs.", "15"),
        ("The answer is 18 eggs = 18 * $2 = $36", "36"),
        ("The answer is 3 x $12 = $36 - $6 = $30.", "30"),
        ("The answer is 3*4=12, 12*2=24", "24"),
        ("The answer is 16 - 3 = 13. 13 * 2 = 26.", "26"),
        ("The answer is 16 - 3 = 13 eggs. 13 * $2 = $26 a day. I hope 5 helps.", "26"),
        ("The answer is:\n16 - 3 = 13\n13 * 2 = 26", "26"),
        ("Final answer: 2 hours = 120 minutes", "120"),
        ("The answer is 10 dozen = 120", "120"),
        ("The answer is 18 = 9 * 2", "18"),
        ("The answer is 22, since 9*2 = 18.", "22"),
        ("The answer is 22 because 9*2 = 18.", "22"),
        ("The answer is 22 (11 + 11 = 22, and 9*2 = 18).", "22"),
        ("The answer is 22. 9*2 = 18.", "22"),
        ("The answer is 20% of 50.", None),
        ("The answer is 5 more than 10.", None),
    ],
    "a cue inside the reasoning": [
        ("The answer is twice 5. 5 * 2 = 10. The answer is 10.", "10"),
        ("The answer is the number of eggs, 16, minus those she eats.\n16 - 3 = 13.\nThe answer is 13.", "13"),
        ("The answer must be more than 10. 3 * 4 = 12. So the answer is 12.", "12"),
        ("The answer is an even number below 20.\nSo it is 14.\nThe answer is 14.", "14"),
        ("The answer would be 20 if she had kept all. She gave 5 away, so the answer is 15.", "15"),
        ("The final answer will be twice 5. That is 10. The answer is 10.", "10"),
        ("To get the answer: add 3 and 4.\n3 + 4 = 7.\nThe answer is 7.", "7"),
        ("We write the final answer in \\boxed{}.\n3 + 4 = 7\n\\boxed{7}", "7"),
        ("The answer is found by adding 3 to 4. 3 + 4 = 7. The answer is 7.", "7"),
        ("The answer is 5 minutes. They wait for the bus. The answer is 7 for others.", "5"),
        ("The answer is twice 5.", None),
        ("The answer is half of 10.", None),
        ("The answer is an even number below 20.", None),
        ("The answer is more than 10.", None),
    ],
    "not known, but of something else": [
        ("The unknown number is 7.", "7"),
        ("The answer is the unknown number, 7.", "7"),
        ("She has 16. She can't carry more than 5 at once, so she makes 4 trips.", "4"),
        ("He cannot buy half a ticket, so he buys 12 tickets.", "12"),
        ("James does not know how to swim, so he pays $20.", "20"),
        ("The total error is 3 grams.", "3"),
        ("The number of impossible questions is 6.", "6"),
        ("Since the price of the others is unknown, she has 5 pens.", "5"),
        ("The amount that was unknown is 7.", "7"),
        ("The answer is 4, since the others are unknown.", "4"),
        ("The answer cannot be determined from 3 facts.", None),
        ("It is impossible to say how many of the 3 are left.", None),
        ("We do not know how many of the 5 are red.", None),
        ("The total is unknown, since 3 are missing.", None),
        ("I can't answer this without knowing the other 3.", None),
        ("The answer depends on the other 3.", None),
        ("Since the price is unknown, we cannot compute the total of the 3 pens.", None),
        ("There is an error in the problem with the 3 eggs.", None),
        ("It is not known how many of the 3 are left.", None),
        ("So he cannot reach an average of 93.", None),
        ("The number of children who cannot swim is 5.", "5"),
        ("The answer is not known for the 3.", None),
    ],
    "a statement in a clause": [
        ("It is dear. So 7 tickets at $30 each would cost $210.", "210"),
        ("Selling 10 shirts for $12 each gives him a profit of $60.", "60"),
        ("Over the 5 days she will have read 150 pages.", "150"),
        ("That means the 4 friends will each pay $12.", "12"),
        ("Ann and her 2 sisters have a total of 36 crayons.", "36"),
        ("The number of eggs in 3 baskets is 36.", "36"),
        ("The price of 3 shirts and 2 hats is about $75.50.", "75.5"),
        ("So 3 of them and 4 of those make a total of 7 birds.", "7"),
        ("He works 8 hours and earns $60.", "60"),
        ("So she needs a score of at least 487 on the last of 6 tests to get an average of 93.", None),
        ("So 7 tickets at $30 each amount to exactly $210.", "210"),
        ("With 3 friends she has to pay $12.", "12"),
        ("Final answer: he will need to work for 2 weeks to save $80. The answer is 2.", "2"),
        ("The answer is that 7 tickets at $30 each would cost $210.", "210"),
        ("Final answer: 7 tickets at $30 each would cost $210.", "210"),
        ("Since 3 * 4 = 12, he has 2 left.", "2"),
        ("Final answer: $210 for 7 tickets at $30 each.", "210"),
        ("The answer is 5 because the total is 8.", "5"),
        ("So, 5 cars drove through in the first 15 minutes.", None),
        ("He has 5 left and she has 6 left.", None),
        ("He pays $5 and she pays $6.", None),
        ("The total of 3 is 5 and the total of 4 is 6.", None),
        ("She will have 5 or 6.", None),
        ("The price of 3 shirts is 5 more than 7.", None),
        ("There are 5 cats in the 3 houses.", None),
    ],
    "a bracket after the naming": [
        ("Final answer (in dollars, rounded to the nearest cent, and with the tax of the state added): 18", "18"),
        ("**Final answer (rounded to 2 decimal places):** 18.25", "18.25"),
        ("Final answer (in dollars (USD), rounded): 18", "18"),
        ("Final answer [in dollars]: 18", "18"),
        ("The answer (to 1 decimal place) is 18.5.", "18.5"),
    ],
    "units with powers": [
        ("The answer is 50 cm^2.", "50"),
        ("The answer is 50 cm².", "50"),
        ("50 m^3", "50"),
        ("\\boxed{50 \\text{ cm}^2}", "50"),
        ("\\boxed{50\\text{ m}^{3}}", "50"),
        ("The answer is 50 square feet (ft^2).", "50"),
        ("The answer is 9.8 m/s^2.", "9.8"),
        ("So the area of the floor is 50 ft².", "50"),
        ("The answer is 5².", None),
        ("The answer is 10^3.", None),
    ],
    "times": [
        ("The answer is 5:00 PM.", "5"),
        ("5:00", "5"),
        ("The answer is 10:30.", None),
        ("The answer is 1h30m.", None),
        ("The answer is 1h 30m.", None),
        ("It ends at 10:30 am, so it takes 2 hours.", "2"),
        ("The answer is 3 times.", "3"),
        ("The answer is 5 times 3 = 15.", "15"),
    ],
    "space-grouped digits": [
        ("The answer is 1 234 567.", "1234567"),
        ("The answer is 118 000.", "118000"),
        ("The answer is 12 050 eggs.", "12050"),
        ("The answer is 12 345 dollars.", "12345"),
        ("The answer is 12 345 €.", "12345"),
        ("The answer is 12 345.", None),
        ("The answer is 1 8.", None),
        ("The answer is 1234 567.", None),
    ],
    "parenthesised negatives": [
        ("The answer is (-5).", "-5"),
        ("The answer is -(5).", "-5"),
        ("The answer is $(-5).", "-5"),
        ("The answer is (-$5.50).", "-5.5"),
        ("The answer is 3 - 8 = (-5).", "-5"),
        ("In 3 hours the temperature is (-5) degrees.", "-5"),
        ("The temperature is (−5).", "-5"),
        ("The answer is 8 -(5).", None),
        ("The answer is 3(-5).", None),
        ("The answer is 3(5).", None),
    ],
    "a symbolic expression is no number": [
        ("The answer is 2x.", None),
        ("The answer is 2x + 3.", None),
        ("The answer is x + 5.", None),
        ("The answer is 3 + x.", None),
        ("The answer is 3*n.", None),
        ("The answer is 2^n.", None),
        ("The answer is x/2.", None),
        ("The answer is 3π.", None),
        ("The answer is $3\\pi$.", None),
        ("The answer is 2√3.", None),
        ("The answer is \\sqrt{2}.", None),
        ("The answer is sqrt(2).", None),
        ("\\boxed{\\frac{x}{2}}", None),
        ("\\boxed{2n}", None),
        ("So it is y = 3x + 2.", None),
        ("The answer is √16 = 4.", "4"),
        ("The answer is x = 5.", "5"),
        ("The answer is 60 km/h.", "60"),
        ("The answer is 18 - I am sure.", "18"),
        ("The answer is 5 m.", "5"),
    ],
    "a note after the answer": [
        ("18 dollars\n\nNote: this assumes 7 days a week.", "18"),
        ("It is far. So she makes $18 per day.\n\nNote that 3 eggs are eaten.", "18"),
        ("So she makes $18 per day. Note that she eats 3. She also bakes with 4.", "18"),
        ("18\n\n(Note: I assumed 5 working days.)", "18"),
        ("So she makes $18 per day.\n\n**Note:** the other 4 are baked.\nShe eats 3.", "18"),
        ("18 dollars\n\nExplanation: she sells 9 of the 16 eggs.", "18"),
        ("19 dollars\n\nExplanation:\n- She sells 9 eggs.\n- That makes 9 * 2 = 18 dollars.", "18"),
        ("19 dollars\n\nExplanation: she sells 9 of the 16 eggs. So she makes 9 * 2 = 18 dollars.", "18"),
        ("Note that 3 are eaten. So 13 are left.", "13"),
        ("Note: 3 are eaten.", "3"),
    ],
    "float dust": [
        ("The answer is 5.000000000000002", "5"),
        ("The answer is 0.30000000000000004.", "0.3"),
        ("The answer is $2.9999999999999996", "3"),
        ("#### 1234.5600000000001", "1234.56"),
        ("The answer is -0.09999999999999998", "-0.1"),
        ("The answer is 3.141592653589793", "3.141592653589793"),
        ("The answer is 0.000001", "0.000001"),
        ("The answer is 1.0000001", "1.0000001"),
    ],
    "currencies and abbreviations": [
        ("The answer is Rs. 750.", "750"),
        ("The answer is Rs 750.", "750"),
        ("The answer is USD 1,250.", "1250"),
        ("The answer is US$ 12.", "12"),
        ("It is dear. So the price is Rs. 750.", "750"),
        ("The answer is approx. 12.", "12"),
        ("It is far. So Acme Inc. sold 12 cars.", "12"),
    ],
}

TEXTS: dict[str, list[tuple[str, str | None]]] = {
    "a last statement wins over sub-answers": [
        ("1. The answer is France.\n2. The answer is Oslo.\nThe answer is: Paris", "Paris"),
        ("Answer 1: France\nAnswer 2: Oslo\nAnswer: Paris", "Paris"),
        ("Intermediate answer: France\nIntermediate answer: Oslo\nAnswer: Paris", "Paris"),
        ("A1: France\nA2: Oslo\nThe answer is: Paris", "Paris"),
        ("A1: France\nA2: Paris", None),
        ("1. The answer is France.\n2. The answer is Paris.", "Paris"),
    ],
    "a cue inside the reasoning": [
        ("The answer is in the passage. The Rams won it. The answer is the Rams.", "the Rams"),
        ("The answer is found in the text. So the answer is Rome.", "Rome"),
        ("The answer is in the last line.\nThe answer is in Rome.", "in Rome"),
        ("The answer would be Oslo if it were Norway. The answer is Rome.", "Rome"),
        ("The answer is in Paris. The answer is in Rome.", "in Paris"),
    ],
    "abbreviations before a full stop": [
        ("The answer is Apple Inc. It was founded in 1976.", "Apple Inc."),
        ("The answer is Apple Inc.", "Apple Inc."),
        ("The answer is Warner Bros. Pictures.", "Warner Bros. Pictures"),
        ("The answer is Martin Luther King Jr. He spoke there.", "Martin Luther King Jr."),
        ("The answer is Washington D.C. It is the capital.", "Washington D.C."),
        ("The answer is the U.S. The war had ended.", "the U.S."),
        ("The answer is the U.S. Army. The war had ended.", "the U.S. Army"),
        ("The answer is Mt. Everest. It is high.", "Mt. Everest"),
        ("The answer is Ft. Worth, in Texas.", "Ft. Worth, in Texas"),
        ("The answer is Acme Ltd. and Foo Corp. of Ohio.", "Acme Ltd. and Foo Corp. of Ohio"),
        ("The answer is Sen. Obama.", "Sen. Obama"),
        ("The answer is No. 5.", "No. 5"),
        ("The answer is No. He could not.", "No"),
        ("The answer is Jan. 5, 1990.", "Jan. 5, 1990"),
        ("The answer is at 5 p.m. The train left.", "at 5 p.m."),
        ("The answer is Malcolm X. He spoke there.", "Malcolm X"),
    ],
    "a note after the answer": [
        ("Paris\n\nNote: I took France for the country.", "Paris"),
        ("Paris\n\nNote that this is the capital of France.", "Paris"),
        ("The answer is Paris (note: I took France).", "Paris"),
        ("The answer is Paris - note that this is in France.", "Paris"),
        ("Paris\n\nExplanation: it is the capital of France.", "Paris"),
        ("The answer is Paris (France).", "Paris (France)"),
        ("Please note this.\nThen think.", None),
    ],
    "a bracket after the naming": [
        ("Final answer (with no more than five words, as the passage has it, and no full stop): Paris", "Paris"),
    ],
}

CHOICES: dict[str, list[tuple[str, str | None]]] = {
    "a letter inside a sentence": [
        ("It is dear. So the price is (d) Rs. 750.", "D"),
        ("So the price is (d) Rs. 750", "D"),
        ("The price is Rs. 750, which is option (d).", "D"),
        ("Therefore, the price is Rs. 750 (d).", "D"),
        ("Hence, (d) is correct.", "D"),
        ("The train is 150 m long.\nTherefore, (b).", "B"),
        ("It is 12.\nSo D.", "D"),
        ("It is 12.\nThis corresponds to (B).", "B"),
        ("The answer is the fourth one, (d).", "D"),
        ("1. The answer is (a).\n2. The answer is (b).\nThe answer is: (c)", "C"),
        ("It is hot.\nOption A is incorrect.", None),
        ("It is hot.\nSo we can rule out option A.", None),
        ("It is hot.\nIt is not (a).", None),
        ("It is (a) big and (b) small.", None),
        ("It is hot.\n(d) is not right.", None),
        ("The answer is a train.", None),
        ("It is in section (z).", None),
    ],
}

YES_NO: dict[str, list[tuple[str, str | None]]] = {
    "hedges": [
        ("The answer is most likely No.", "no"),
        ("The answer is most likely no, since it is far.", "no"),
        ("It is far. So the answer is almost certainly yes.", "yes"),
        ("The answer is probably a yes.", "yes"),
        ("The answer is likely to be no.", "no"),
        ("The answer is: Most likely, yes.", "yes"),
        ("It is far.\nSo it is most likely no.", "no"),
        ("I would say no.", "no"),
        ("Probably not.", "no"),
        ("The answer is most likely not.", "no"),
        ("1. The answer is yes.\n2. The answer is yes.\nThe answer is: no", "no"),
        ("The answer is most likely unknown.", None),
        ("It is likely that no one knows.", None),
        ("So it is no good.", None),
        ("The answer is probably not known.", None),
        ("It is far. I would not say.", None),
    ],
}


def _cases(classes: dict[str, list[tuple[str, str | None]]]) -> list[object]:
    return [
        pytest.param(output, answer, id=f"{name}-{place}")
        for name, cases in classes.items()
        for place, (output, answer) in enumerate(cases)
    ]


def _check(extract: Callable[[str], Answer | None], output: str, answer: str | None) -> None:
    assert extract(output) == (None if answer is None else (answer,))


@pytest.mark.parametrize(("output", "answer"), _cases(NUMBERS))
def test_numbers_are_read_in_every_form(output: str, answer: str | None) -> None:
    _check(extract_number, output, answer)


@pytest.mark.parametrize(("output", "answer"), _cases(TEXTS))
def test_texts_are_read_in_every_form(output: str, answer: str | None) -> None:
    _check(extract_final, output, answer)
    _check(extract_spans, output, answer)


@pytest.mark.parametrize(("output", "answer"), _cases(CHOICES))
def test_choices_are_read_in_every_form(output: str, answer: str | None) -> None:
    _check(extract_choice, output, answer)


@pytest.mark.parametrize(("output", "answer"), _cases(YES_NO))
def test_yes_and_no_are_read_in_every_form(output: str, answer: str | None) -> None:
    _check(extract_yes_no, output, answer)
