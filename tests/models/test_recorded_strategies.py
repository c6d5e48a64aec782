"""Recorded rows answer only the strategy, step and sample that they name; anything else is an error."""

import asyncio
import json
from pathlib import Path

import pytest

from fractionate.cli import main
from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models.recorded import RecordedModel
from fractionate.types import Message, Origin, Problem, Prompt, Request, Role

PROBLEM = Problem("p0", "How old is Ann's son?", (("9",),), index=0)
TWO = "1. Who is Ann's son?\n2. How old is #1?"


def opened(folder: Path, *rows: object, name: str = "log.jsonl") -> RecordedModel:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RecordedModel(f"recorded:{folder / name}", ModelOptions())


def asked(
    prompt: Prompt, strategy: str = "", *, step: int = 0, sample: int = 0, given: str = "", subquestion: str = ""
) -> Request:
    role: Role = "decomposer" if prompt in ("decompose", "follow-up") else "solver"
    origin = Origin(
        PROBLEM,
        tuple(line[3:] for line in given.splitlines()),
        decomposition=given,
        strategy=strategy or prompt,
        prompt=prompt,
        step=step,
        subquestion=subquestion,
    )
    return Request((Message("user", PROBLEM.question),), role, sample=sample, origin=origin)


def row(**values: object) -> dict[str, object]:
    return {"id": "p0", **values}


def test_single_and_chain_of_thought_are_rows_of_their_own(tmp_path: Path) -> None:
    model = opened(tmp_path, row(strategy="single", output="9"), row(strategy="single-cot", output="So 8"))
    assert model.replay(asked("single")) == "9"
    assert model.replay(asked("single-cot")) == "So 8"
    assert model.key(asked("single")) != model.key(asked("single-cot"))


def test_a_vote_is_a_recorded_chain_of_thought_unless_votes_were_recorded(tmp_path: Path) -> None:
    rows = [row(strategy="single-cot", sample=k, output=f"cot {k}") for k in range(2)]
    model = opened(tmp_path, *rows, row(strategy="self-consistency", sample=0, output="vote 0"))
    assert [model.replay(asked("single-cot", "self-consistency", sample=k)) for k in range(2)] == ["vote 0", "cot 1"]


def test_differing_rows_for_one_request_are_named(tmp_path: Path) -> None:
    model = opened(tmp_path, row(output="9"), row(output="8"), row(output="9"))
    with pytest.raises(UsageError, match=r"several outputs for p0, single, sample 0.*log\.jsonl:1 and .*log\.jsonl:2"):
        model.replay(asked("single"))
    assert opened(tmp_path, row(output="9"), row(output="9")).replay(asked("single")) == "9"


def test_files_of_a_folder_that_disagree_are_named(tmp_path: Path) -> None:
    opened(tmp_path, row(output="9"), name="a.jsonl")
    opened(tmp_path, row(output="8"), name="b.jsonl")
    model = RecordedModel(f"recorded:{tmp_path}", ModelOptions())
    with pytest.raises(UsageError, match=r"a\.jsonl:1 and .*b\.jsonl:1"):
        model.replay(asked("single"))


def test_a_row_without_a_strategy_answers_one_prompt_alone(tmp_path: Path) -> None:
    model = opened(tmp_path, row(output="9"))
    assert model.replay(asked("single")) == "9"
    assert model.replay(asked("single", "static")) == "9"  # static falls back to the very same prompt
    with pytest.raises(UsageError, match=r'for single and for single-cot: add "strategy": "single"'):
        model.replay(asked("single-cot"))


def test_a_strategy_that_was_not_recorded_names_those_that_were(tmp_path: Path) -> None:
    model = opened(tmp_path, row(strategy="single", output="9"))
    with pytest.raises(UsageError, match=r"for p0, single-cot: its rows answer single \(.*log\.jsonl:1\)"):
        model.replay(asked("single-cot"))


def test_stepwise_replays_each_step_and_then_the_answer(tmp_path: Path) -> None:
    whole = row(decomposition=TWO, steps=["Bob", {"output": "9 years", "usage": {"output_tokens": 3}}], output="A: 9")
    single_steps = [
        row(strategy="stepwise", decomposition=TWO, step=1, output="Bob"),
        row(strategy="stepwise", subquestion="How old is  Bob?", step=2, output="9 years"),
        row(strategy="stepwise", decomposition=TWO, output="A: 9"),
    ]
    for rows in ([whole], single_steps):
        model = opened(tmp_path, *rows)
        steps = [
            asked("step", "stepwise", step=1, given=TWO, subquestion="Who is Ann's son?"),
            asked("step", "stepwise", step=2, given=TWO, subquestion="How old is Bob?"),
            asked("final", "stepwise", given=TWO),
        ]
        assert [model.replay(one) for one in steps] == ["Bob", "9 years", "A: 9"]
        assert len({model.key(one) for one in steps}) == 3
        with pytest.raises(UsageError, match="static: its rows answer stepwise"):
            model.replay(asked("static", given=TWO))


def test_a_step_may_be_recorded_under_its_subquestion_with_or_without_references_filled_in(tmp_path: Path) -> None:
    steps = [
        row(strategy="stepwise", subquestion=text, step=at)
        for at, text in enumerate(("Who is Ann's son?", "How old is #1?"), 1)
    ]
    model = opened(tmp_path, *({**one, "output": f"step {one['step']}"} for one in steps))
    first = asked("step", "stepwise", step=1, given=TWO, subquestion="Who is Ann's son?")
    assert model.replay(first) == "step 1"
    assert model.replay(asked("step", "stepwise", step=2, given=TWO, subquestion="How old is Bob?")) == "step 2"
    three = TWO + "\n3. Who else?"
    with pytest.raises(UsageError, match="step 3"):
        model.replay(asked("step", "stepwise", step=3, given=three, subquestion="Who else?"))
    with pytest.raises(UsageError, match="step 1"):  # the second subquestion is no first step
        model.replay(asked("step", "stepwise", step=1, given="1. How old is #1?\n2. x", subquestion="How old is Bob?"))


def test_a_final_answer_is_never_replayed_for_a_step(tmp_path: Path) -> None:
    model = opened(tmp_path, row(decomposition=TWO, output="The answer is: 9"))
    assert model.replay(asked("static", given=TWO)) == "The answer is: 9"
    with pytest.raises(UsageError, match=r"stepwise, step 1 .*record the steps"):
        model.replay(asked("step", "stepwise", step=1, given=TWO))
    with pytest.raises(UsageError, match="for static and for stepwise"):
        model.replay(asked("final", "stepwise", given=TWO))


@pytest.mark.parametrize("steps", [["Bob", None], {"1": "Bob", "2": {"subquestion": "How old is #1?", "output": None}}])
def test_a_step_without_a_reply_is_missing_and_not_empty(tmp_path: Path, steps: object) -> None:
    model = opened(tmp_path, row(decomposition=TWO, steps=steps, output="9"))
    assert model.replay(asked("step", "stepwise", step=1, given=TWO)) == "Bob"
    with pytest.raises(UsageError, match="no solver output for p0, stepwise, step 2"):
        model.replay(asked("step", "stepwise", step=2, given=TWO))


def test_a_whole_number_is_one_id_however_it_is_written(tmp_path: Path) -> None:
    problem = Problem("7", "How old is Ann's son?", (("9",),), index=0)
    request = Request((Message("user", problem.question),), "solver", origin=Origin(problem, strategy="single"))
    model = opened(tmp_path, {"id": 7, "output": "9"}, {"id": 7.0, "output": "8"})
    with pytest.raises(UsageError, match=r"several outputs for 7.*log\.jsonl:1 and .*log\.jsonl:2"):
        model.replay(request)


def test_a_dialogue_of_follow_ups_is_replayed_turn_by_turn(tmp_path: Path) -> None:
    steps = [{"subquestion": "Who is Ann's son?", "output": "Bob"}]
    model = opened(tmp_path, row(strategy="dynamic", steps=steps, output="The answer is: 9"))
    assert model.replay(asked("follow-up", "dynamic", step=1)) == "Follow up: Who is Ann's son?"
    assert model.replay(asked("step", "dynamic", step=1, subquestion="Who is Ann's son?")) == "Bob"
    assert model.replay(asked("follow-up", "dynamic", step=2)) == "The answer is: 9"
    plain = opened(tmp_path, row(decomposition=TWO, output="9"))
    with pytest.raises(UsageError, match="dynamic, turn 1"):
        plain.replay(asked("follow-up", "dynamic", step=1))


TREE = [
    {"question": "How old is Ann's son?", "subquestions": ["Who is Ann's son?", "When was #1 born?"]},
    "How old is #1's dog?",
]


@pytest.mark.parametrize(
    "recorded",
    [
        TREE,
        json.dumps(TREE),
        "1. How old is Ann's son?\n1.1 Who is Ann's son?\n1.2. When was #1 born?\n2. How old is #1's dog?",
        ["1. How old is Ann's son?", "1.1 Who is Ann's son?", "1.2 When was #1.1 born?", "2. How old is #1's dog?"],
    ],
)
def test_a_tree_is_answered_children_first_with_references_of_its_own(tmp_path: Path, recorded: object) -> None:
    steps = {"1.1": "Bob", "1.2": "2017", "1": "9 years", "2": "3 years"}
    model = opened(tmp_path, row(decomposition=recorded, steps=steps, output="9"))
    flat = "1. Who is Ann's son?\n2. When was #1 born?\n3. How old is Ann's son?\n4. How old is #3's dog?"
    assert model.replay(asked("decompose")) == flat
    replies = [model.replay(asked("step", "stepwise", step=k, given=flat)) for k in (1, 2, 3, 4)]
    assert replies == ["Bob", "2017", "9 years", "3 years"]


def test_a_reference_with_a_dot_names_a_step_of_another_subtree(tmp_path: Path) -> None:
    text = "1. How old is Ann's son?\n1.1 Who is Ann's son?\n2. Who is #1.1's dog?"
    flat = "1. Who is Ann's son?\n2. How old is Ann's son?\n3. Who is #1's dog?"
    assert opened(tmp_path, row(decomposition=text)).replay(asked("decompose")) == flat


def test_a_decimal_number_at_the_head_of_a_line_is_no_label(tmp_path: Path) -> None:
    text = "1. What is it?\n1.5 times that is how much?"
    assert opened(tmp_path, row(decomposition=text)).replay(asked("decompose")) == text


@pytest.mark.parametrize("cell", ['["a?", "b?"]', "['a?', 'b?']", '{"subquestions": ["a?", "b?"]}'])
def test_a_list_inside_a_string_is_a_list(tmp_path: Path, cell: str) -> None:
    model = opened(tmp_path, row(decomposition=cell, output="9"))
    assert model.replay(asked("decompose")) == "1. a?\n2. b?"
    assert model.replay(asked("static", given="1. a?\n2. b?")) == "9"
    model = opened(tmp_path, row(role="decomposer", output=cell))
    assert model.replay(asked("decompose")) == "1. a?\n2. b?"


def test_a_question_without_decomposition_falls_back_but_a_missing_question_stops(tmp_path: Path) -> None:
    rows = [row(decomposition=None, output="9"), {"id": "p1", "decomposition": "1. a?", "output": "7"}]
    model = opened(tmp_path, *rows)
    assert model.replay(asked("decompose")) == ""
    assert model.samples(PROBLEM) is None
    assert model.lacks_decomposition(PROBLEM)
    assert model.replay(asked("single", "static")) == "9"
    with pytest.raises(UsageError, match="holds no decomposition at all"):
        opened(tmp_path, row(output="9")).replay(asked("decompose"))
    with pytest.raises(UsageError, match="add its row"):
        opened(tmp_path, {"id": "p1", "decomposition": "1. a?"}).replay(asked("decompose"))


def test_usage_belongs_to_the_output_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    values = {"usage": {"input_tokens": 50}, "logprobs": [-0.1, -2.5, None], "latency_s": 2}
    model = opened(tmp_path, row(decomposition=TWO, output="The answer is: 9", **values))
    solving = asyncio.run(model.complete(asked("static", given=TWO)))
    assert (solving.usage.input_tokens, solving.usage.output_tokens, solving.usage.counted) == (50, 3, 0)
    decomposing = asyncio.run(model.complete(asked("decompose")))
    assert decomposing.usage.counted == 1
    assert decomposing.usage.input_tokens != 50
    assert (solving.latency_s, decomposing.latency_s) == (2.0, 0.0)
    own = opened(tmp_path, row(decomposition=TWO, output="9", decomposition_usage={"output_tokens": 4}))
    assert asyncio.run(own.complete(asked("decompose"))).usage.output_tokens == 4


def test_passages_that_the_model_was_shown_count_as_input(tmp_path: Path) -> None:
    inputs = []
    for passages in ([], ["Ann's son Bob was born in 2017."], [{"text": "Ann's son Bob was born in 2017."}]):
        model = opened(tmp_path, row(output="9", passages=passages))
        inputs.append(asyncio.run(model.complete(asked("single"))).usage.input_tokens)
    assert inputs[0] < inputs[1] == inputs[2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"step": 0, "output": "9", "decomposition": ["a?"]}, "'step' counts from 1"),
        ({"step": 2, "output": "9", "decomposition": ["a?"]}, "step 2 is out of range: the decomposition has 1 steps"),
        ({"step": 1.5, "output": "9", "decomposition": ["a?"]}, "'step' must be a whole number from 1"),
        ({"step": True, "output": "9"}, "'step' must be a whole number from 1"),
        ({"step": 1, "output": "9"}, "step 1 of what"),
        ({"step": "1.1", "output": "9", "decomposition": "1. a?"}, "step 1.1 is a tree's"),
        ({"step": 1, "steps": ["9"], "decomposition": ["a?"]}, "not both"),
        ({"steps": ["1", "2"], "decomposition": ["a?"], "output": "9"}, "step 2 is out of range"),
        ({"steps": 3, "decomposition": ["a?"]}, "'steps' must be a list of replies"),
        ({"steps": ["1"], "decomposition": TREE}, "'steps' of a tree name their labels"),
        ({"decomposition": [3]}, "'decomposition' subquestion 1 must be text or an object, not int"),
        ({"decomposition": {"a": 1}}, "'decomposition' an object without a list of 'subquestions'"),
        ({"decomposition": "1.1 a?\n1.3 b?"}, "names 1.3, but not 1.2"),
        ({"decomposition": [{"question": "a?", "subquestions": ["b #2?", "c?"]}]}, "1.1 refers to #2, which is not"),
        ({"output": {"text": "9"}}, "'output' must be text"),
        ({"output": True}, "'output' must be text"),
        ({"strategy": ["single"], "output": "9"}, "'strategy' must be text"),
        ({"output": "9", "sample": -1}, "'sample' must be at least 0"),
        ({"output": "9", "latency_s": float("nan")}, "'latency_s' must be seconds"),
        ({"output": "9", "usage": {"input_tokens": 10**400}}, "'input_tokens' must be a whole number"),
        ({"output": "9", "usage": {"input_tokens": 2, "cached_input_tokens": 3}}, "3 cached input tokens are more"),
        ({"output": "9", "logprobs": [0.5]}, "'logprobs' must be a list of log-probabilities"),
        ({"output": "9", "passages": [3]}, "'passages' must be texts"),
    ],
)
def test_a_wrong_field_is_one_line_that_names_the_row(tmp_path: Path, values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        opened(tmp_path, row(**values))
    assert "log.jsonl:1: " in str(caught.value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_gap_in_the_samples_is_named(tmp_path: Path) -> None:
    model = opened(tmp_path, *(row(role="decomposer", sample=k, output=f"1. {k}?") for k in (0, 2)))
    with pytest.raises(UsageError, match="sample 2 and none of sample 1"):
        model.samples(PROBLEM)


def test_an_id_with_another_question_is_refused(tmp_path: Path) -> None:
    model = opened(tmp_path, row(question="Which river flows through Rome and into the sea?", output="9"))
    with pytest.raises(UsageError, match="id p0 is another question"):
        model.replay(asked("single"))


def test_rows_that_name_one_question_in_two_ways_are_all_seen(tmp_path: Path) -> None:
    model = opened(tmp_path, row(output="9"), {"index": 0, "output": "8"})
    with pytest.raises(UsageError, match="several outputs"):
        model.replay(asked("single"))


def test_line_ends_marks_and_half_an_emoji_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "p0", "output": "nine \\ud83d"}\r\n\r\n{"id": "p1", "output": "7"}\r\n')
    model = RecordedModel(f"recorded:{path}", ModelOptions())
    completion = asyncio.run(model.complete(asked("single")))
    assert completion.text == "nine ?"
    assert model.key(asked("single"))
    assert completion.usage.output_tokens > 0


CONFIG = """
[data]
test = "jsonl:test.jsonl"
[models]
teacher = "recorded:log.jsonl"
solvers = ["teacher"]
decomposers = ["none", "teacher"]
[run]
variants = []
cap = "none"
strategies = {strategies}
"""


def run(folder: Path, strategies: list[str], rows: list[dict[str, object]]) -> int:
    questions = [{"id": f"p{n}", "question": f"How many of {n}?", "answer": str(n)} for n in range(3)]
    for name, content in (("test.jsonl", questions), ("log.jsonl", rows)):
        (folder / name).write_text("".join(json.dumps(one) + "\n" for one in content))
    (folder / "run.toml").write_text(CONFIG.format(strategies=json.dumps(strategies)))
    return main(["evaluate", str(folder / "run.toml"), "--out", str(folder / "out"), "--quiet"])


def recorded_rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for n in range(3):
        given = ["What is it?", f"Is #1 {n}?"]
        rows += [
            {"id": f"p{n}", "strategy": "single", "output": "The answer is: 0"},
            {"id": f"p{n}", "strategy": "single-cot", "output": f"The answer is: {min(n, 1)}"},
            {"id": f"p{n}", "strategy": "static", "decomposition": given, "output": f"The answer is: {n}"},
            {"id": f"p{n}", "decomposition": given, "steps": ["it", "yes"], "output": "The answer is: 9"},
        ]
    return rows


def test_a_run_gives_each_strategy_its_own_figure(tmp_path: Path) -> None:
    assert run(tmp_path, ["single", "single-cot", "static", "stepwise"], recorded_rows()) == 0
    attempts = [json.loads(line) for line in (tmp_path / "out" / "attempts.jsonl").read_text().splitlines()]
    right = {name: sum(one["exact_match"] for one in attempts if one["strategy"] == name) for name in
             ("single", "single-cot", "static", "stepwise")}  # fmt: skip
    assert right == {"single": 1, "single-cot": 2, "static": 3, "stepwise": 0}


def test_a_fault_of_the_last_row_is_said_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = recorded_rows()
    assert run(tmp_path, ["single", "stepwise"], rows[:-1]) == 2
    said = capsys.readouterr().err
    assert "p2" in said
    assert "stepwise, step 1" in said
    assert not (tmp_path / "out" / "attempts.jsonl").exists()
    assert run(tmp_path, ["single"], [*rows, {"id": "p2", "strategy": "single", "output": "The answer is: 2"}]) == 2
    assert "log.jsonl:9 and" in capsys.readouterr().err


def test_a_fallback_is_counted_and_said(tmp_path: Path) -> None:
    rows = [{**one, "decomposition": None} if one["id"] == "p1" and "decomposition" in one else one
            for one in recorded_rows() if "steps" not in one]  # fmt: skip
    assert run(tmp_path, ["single", "static"], rows) == 0
    attempts = [json.loads(line) for line in (tmp_path / "out" / "attempts.jsonl").read_text().splitlines()]
    assert [one["id"] for one in attempts if one["fell_back"] and one["strategy"] == "static"] == ["p1"]
    notes = (tmp_path / "out" / "notes.json").read_text()
    assert "without a decomposition of 1 of 3 questions" in notes
