"""Forms in which models state texts, choices, yes and no, with lookalikes that state nothing."""

from __future__ import annotations

import pytest
from reply_cases import Classes, cases

from fractionate.scoring.choices import extract_choice, extract_yes_no
from fractionate.scoring.final import extract_final, extract_spans
from fractionate.types import Answer

TEXTS: Classes = {
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
        ("The answer is in Paris. The answer is in Rome.", "in Rome"),
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
        ("Paris, because it is the capital.", "Paris"),
        ("Please note this.\nThen think.", None),
    ],
    "a bracket after the statement": [
        ("Final answer (with no more than five words, as the passage has it, and no full stop): Paris", "Paris"),
    ],
}

CHOICES: Classes = {
    "a letter inside a sentence": [
        ("It is dear. So the price is (d) Rs. 750.", "D"),
        ("So the price is (d) Rs. 750", "D"),
        ("The price is Rs. 750, which is option (d).", "D"),
        ("Therefore, the price is Rs. 750 (d).", "D"),
        ("Hence, (d) is correct.", "D"),
        ("The train is 150 m long.\nTherefore, (b).", "B"),
        ("It is 12.\nSo D.", "D"),
        ("The correct option is therefore (c) 12 km.", "C"),
        ("The right answer is therefore B.", "B"),
        ("The answer is most likely (b).", "B"),
        ("The best choice is not B but C.", None),
        ("The answer is neither A nor B.", None),
        ("It is 12.\nThis corresponds to (B).", "B"),
        ("The answer is the fourth one, (d).", "D"),
        ("1. The answer is (a).\n2. The answer is (b).\nThe answer is: (c)", "C"),
        ("1. The answer is (a).\n2. The answer is (b).\nSo (c).", "C"),
        ("B) 12 men\nThey are few.", "B"),
        ("It is hot.\nOption A is incorrect.", None),
        ("It is hot.\nSo we can rule out option A.", None),
        ("It is hot.\nIt is not (a).", None),
        ("It is (a) big and (b) small.", None),
        ("It could be (b).\nI do not know.", None),
        ("It could be (b).", None),
        ("It is hot.\n(d) is not right.", None),
        ("The answer is a train.", None),
        ("It is in section (z).", None),
    ],
}

YES_NO: Classes = {
    "hedges": [
        ("The answer is most likely No.", "no"),
        ("The answer is most likely no, since it is far.", "no"),
        ("It is far. So the answer is almost certainly yes.", "yes"),
        ("The answer is probably a yes.", "yes"),
        ("The answer is likely to be no.", "no"),
        ("The answer seems to be no.", "no"),
        ("The answer is more likely no than yes.", "no"),
        ('So the final answer is likely "No".', "no"),
        ("Therefore, the answer is (most likely) no.", "no"),
        ("Perhaps yes.", "yes"),
        ("The answer is unclear: yes or no.", None),
        ("The answer is a true story.", None),
        ("No evidence was found.\nYes.", "yes"),
        ("**No** because it is far.", "no"),
        ("No it could not.", "no"),
        ("The answer is that no evidence exists.", None),
        ("The answer is that no, he could not.", "no"),
        ("The answer is a definite no.", "no"),
        ("The answer is: Most likely, yes.", "yes"),
        ("It is far.\nSo it is most likely no.", "no"),
        ("I would say no.", "no"),
        ("Probably not.", "no"),
        ("The answer is most likely not.", "no"),
        ("1. The answer is yes.\n2. The answer is yes.\nThe answer is: no", "no"),
        ("1. The answer is yes.\n2. The answer is yes.\nSo no.", "no"),
        ("No, he could not.\nIt is far.\nIt is deep.", "no"),
        ("The answer is most likely unknown.", None),
        ("It is likely that no one knows.", None),
        ("So it is no good.", None),
        ("The answer is probably not known.", None),
        ("It is far. I would not say.", None),
    ],
}


def _one_span(answer: str | None) -> Answer | None:
    return None if answer is None else (answer,)


@pytest.mark.parametrize(("output", "answer"), cases(TEXTS))
def test_texts_are_read_in_every_form(output: str, answer: str | None) -> None:
    assert extract_final(output) == _one_span(answer)
    assert extract_spans(output) == _one_span(answer)


@pytest.mark.parametrize(("output", "answer"), cases(CHOICES))
def test_choices_are_read_in_every_form(output: str, answer: str | None) -> None:
    assert extract_choice(output) == _one_span(answer)


@pytest.mark.parametrize(("output", "answer"), cases(YES_NO))
def test_yes_and_no_are_read_in_every_form(output: str, answer: str | None) -> None:
    assert extract_yes_no(output) == _one_span(answer)
