"""Demonstrations from recorded traffic: which answers show reasoning, what other answers teach, and exclusions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fractionate import datasets
from fractionate.cli import main
from fractionate.datasets.traffic import learnable, read_exchanges
from fractionate.errors import UsageError
from fractionate.rows import Row
from fractionate.students.demonstrate import Demonstration, demonstration_of

TEACHER = {"name": "teacher", "kind": "teacher", "model": "echo:"}
STUDENT = {"name": "D-R", "kind": "student", "model": "local:base"}
STEPS = {
    "subquestions": ["What is a?", "What is b?"],
    "status": "ok",
    "raw": "1. What is a?\n2. What is b?",
    "dropped": 0,
}


def reply(**changes: Any) -> dict[str, Any]:
    made = {
        "output": "1. one\n2. two\nThe answer is: 3",
        "answer": ["3"],
        "decomposition": STEPS,
        "sub_answers": [],
        "finish_reason": "stop",
        "cut_off": [],
        "degraded": False,
    }
    return made | changes


def answered(id: str, question: str = "", replies: Sequence[Any] = (), **changes: Any) -> dict[str, Any]:
    row = {
        "id": id,
        "time": 1.0,
        "question": question or f"What is {id}?",
        "context": "",
        "dataset": "jsonl",
        "scorer": "",
        "pair": "fractionate/static:teacher+teacher",
        "strategy": "static",
        "decomposer": TEACHER,
        "solver": TEACHER,
        "replies": list(replies) or [reply()],
        "usage": {"solver": {"calls": 1, "input_tokens": 5}},
        "usd": {"total": None},
        "latency_s": 0.5,
        "deviations": [],
    }
    return row | changes


def right(id: str) -> dict[str, Any]:
    return {"feedback": id, "time": 2.0, "right": True}


def given(id: str, *answers: str, is_right: bool = False) -> dict[str, Any]:
    return {"feedback": id, "time": 2.0, "right": is_right, "answers": [[answer] for answer in answers]}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "traffic.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shown(folder: Path, row: dict[str, Any], mark: dict[str, Any] | None = None) -> Demonstration | None:
    (exchange,) = read_exchanges(written(folder, row, mark or right("a")))
    return demonstration_of(exchange, datasets.get("jsonl"))


def test_a_right_answer_is_a_screened_demonstration(tmp_path: Path) -> None:
    found = shown(tmp_path, answered("a"))
    assert found is not None
    assert (found.problem_id, found.correct, found.prediction) == ("a", True, ("3",))
    assert found.decomposition.subquestions == ("What is a?", "What is b?")
    assert found.output == "1. one\n2. two\nThe answer is: 3"
    assert (found.answered_by, found.by_students) == ("fractionate/static:teacher+teacher", ())
    (problem,) = datasets.load(f"traffic:{tmp_path / 'traffic.jsonl'}")
    assert (problem.answers, problem.kind, problem.dataset) == ((("3",),), "right", "jsonl")
    row = found.as_row(problem)
    assert Demonstration.from_row(Row(json.loads(json.dumps(row)), "here")) == found


def test_steps_answered_one_by_one_are_written_as_a_demonstration_has_them(tmp_path: Path) -> None:
    by_steps = answered(
        "a", replies=[reply(output="The answer is: 3", sub_answers=["one", "two"])], strategy="stepwise"
    )
    found = shown(tmp_path, by_steps)
    assert found is not None
    assert found.output == "1. one\n2. two\nThe answer is: 3"


@pytest.mark.parametrize(
    ("changes", "of_reply"),
    [
        ({"strategy": "single"}, {"decomposition": None}),
        ({"strategy": "dynamic"}, {}),  # its questions hold what was found out on the way
        ({"strategy": "of a plug-in that is not here"}, {}),
        ({"deviations": ["decomposer"]}, {"degraded": True, "decomposition": None}),
        ({}, {"degraded": True}),
        ({}, {"decomposition": STEPS | {"subquestions": [], "status": "unparsed"}}),
        ({"deviations": ["stop"]}, {}),
        ({"deviations": ["response_format"]}, {}),
        ({"deviations": ["max_tokens"]}, {}),
    ],
)
def test_other_right_answers_teach_no_decomposition_but_their_question_is_asked(
    tmp_path: Path, changes: dict[str, Any], of_reply: dict[str, Any]
) -> None:
    assert shown(tmp_path, answered("a", replies=[reply(**of_reply)], **changes)) is None
    (problem,) = datasets.load(f"traffic:{tmp_path / 'traffic.jsonl'}")
    assert problem.answers == (("3",),)


def test_sampling_does_not_make_a_right_answer_another_one(tmp_path: Path) -> None:
    assert shown(tmp_path, answered("a", deviations=["pair", "temperature", "seed"]))


def test_with_the_right_answer_given_the_recorded_one_is_judged_by_it(tmp_path: Path) -> None:
    assert shown(tmp_path, answered("a"), given("a", "4")) is None
    assert shown(tmp_path, answered("a"), given("a", "three", "3", is_right=True))
    second = shown(tmp_path, answered("a", replies=[reply(answer=["2"]), reply(output="so: 3")]), given("a", "3"))
    assert second is not None
    assert second.output == "so: 3", "of several answers the one that is right"


def test_a_students_own_words_are_known_as_such(tmp_path: Path) -> None:
    found = shown(tmp_path, answered("a", decomposer=STUDENT, replies=[reply(cut_off=["solver"])]))
    assert found is not None
    assert (found.by_students, found.cut_off) == (("decomposer",), ("solver",))


def test_what_teaches_nothing_is_counted_by_why(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        answered("a"),
        right("a"),
        answered("b", "what is  A?"),
        right("b"),
        answered("c"),
        answered("d"),
        {"feedback": "d", "time": 2.0, "right": False},
        answered("e", deviations=["history"]),
        right("e"),
        answered("f", replies=[reply(answer=None)]),
        right("f"),
        answered("g"),
        given("g", "4"),
        right("of another file"),
    )
    kept, left_out = learnable(read_exchanges(path))
    assert [one.id for one in kept] == ["a", "g"]
    assert left_out == {
        "asked before": 1,
        "without feedback": 1,
        "wrong by feedback that gave no right answer": 1,
        "asked within a conversation or under a system message": 1,
        "right by feedback, but without a parsed answer": 1,
    }
    assert [problem.id for problem in datasets.load(f"traffic:{path}?corrected")] == ["g"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "Mine?", "answer": "yes"}', "traffic.jsonl:2: no line of a record of traffic"),
        ('{"id": "x", "question": "?"', "traffic.jsonl:2: malformed JSON"),
        ("[1]", "traffic.jsonl:2"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = written(tmp_path, answered("a"))
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(UsageError, match=said):
        read_exchanges(path)


def config(folder: Path, test: str, train: str = "traffic:traffic.jsonl") -> str:
    rows = [{"question": f"Which is test {n}?", "answer": str(n)} for n in range(3)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.toml").write_text(
        f'data = {{train = "{train}", test = "{test}"}}\n'
        'models = {teacher = "echo:1", solvers = ["teacher"], decomposers = ["none", "teacher"]}\n'
        'run.variants = ["D-R", "E-A"]\n'
    )
    return str(folder / "run.toml")


def test_screen_takes_them_and_says_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, answered("a", decomposer=STUDENT), right("a"), answered("b"), given("b", "4"), answered("c"))
    options = [config(tmp_path, "jsonl:test.jsonl"), "--out", str(tmp_path / "run"), "--quiet"]
    pytest.importorskip("trl")
    assert main(["demonstrate", *options]) == 0
    assert main(["screen", *options]) == 0
    kept = [json.loads(line) for line in (tmp_path / "run" / "screened.jsonl").read_text().splitlines()]
    assert [(row["id"], row["answered_by"], row["by_students"]) for row in kept] == [
        ("a", "fractionate/static:teacher+teacher", ["decomposer"]),
        ("b", "", []),
    ]
    notes = json.dumps(json.loads((tmp_path / "run" / "notes.json").read_text()))
    learnt = "of 3 answered requests 2 are learnt from (1 right, 1 with the right answer given)"
    assert f"{learnt}; 1 without feedback" in notes
    assert "1 answers are demonstrations as they were recorded; the teacher demonstrates the other 1" in notes
    assert "Self-training: 1 of these 1 demonstrations were decomposed by a student." in notes


def test_test_questions_that_users_asked_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As with any other training data: the same question stops the run, one that is nearly the same is noted."""
    pytest.importorskip("trl")
    written(tmp_path, answered("a", "which is test 1"), right("a"))
    options = [config(tmp_path, "jsonl:test.jsonl"), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["demonstrate", *options]) == 2
    assert "1 of 3 test questions of jsonl:test.jsonl are training questions" in capsys.readouterr().err

    long = "Of all the things that were ever counted here and anywhere else by anybody, which is test"
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": f"{long} 1?", "answer": "1"}) + "\n")
    written(tmp_path, answered("a", f"{long} 2?"), right("a"))
    assert main(["demonstrate", *options]) == 0
    notes = (tmp_path / "run" / "notes.json").read_text()
    assert "1 of 1 test questions of jsonl:test.jsonl nearly repeat a training question" in notes


def test_traffic_is_no_test_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, answered("a"), right("a"))
    path = config(tmp_path, "traffic:traffic.jsonl", train="jsonl:test.jsonl")
    assert main(["run", path, "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert "it would flatter that pair" in capsys.readouterr().err
