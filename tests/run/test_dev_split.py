"""The dev split of a run: held out whole, disjoint from training and tests, and used for choices."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from fractionate.config import parse_config
from fractionate.errors import UsageError
from fractionate.run.data import dev_overlaps, hold_out
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import check_before_spending, demonstrate_stage
from fractionate.types import Problem


def problems(count: int, per_passage: int = 1) -> dict[str, Problem]:
    return {
        f"q{at}": Problem(
            f"q{at}", f"Question {at}?", (("a",),), context=f"Passage {at // per_passage}." * (per_passage > 1)
        )
        for at in range(count)
    }


@pytest.mark.parametrize(("count", "per_passage", "share"), [(100, 1, 0.1), (100, 5, 0.2), (97, 7, 0.3), (12, 6, 0.1)])
def test_a_share_is_held_out_in_whole_passages(count: int, per_passage: int, share: float) -> None:
    of = problems(count, per_passage)
    dev = hold_out(of, share, seed=0)
    inside, outside = ({of[key].cluster for key in keys} for keys in (dev, of.keys() - dev.keys()))
    assert not inside & outside
    assert outside
    assert abs(len(dev) - share * count) <= max(per_passage / 2, per_passage - share * count)


def test_the_split_is_drawn_by_the_seed() -> None:
    of = problems(60)
    assert hold_out(of, 0.2, 1) == hold_out(of, 0.2, 1) != hold_out(of, 0.2, 2)
    taken = Counter(key for seed in range(300) for key in hold_out(of, 0.2, seed))
    assert min(taken.values()) > 30, "each of 60 questions is held out about 60 times of 300"
    assert max(taken.values()) < 95


def test_one_large_passage_is_not_held_out_for_a_small_share() -> None:
    of = problems(100)
    of = {
        key: problem if at < 20 else Problem(key, problem.question, problem.answers, context="Long.")
        for at, (key, problem) in enumerate(of.items())
    }
    for seed in range(20):
        assert len(hold_out(of, 0.1, seed)) == 10


def test_a_question_asked_twice_is_on_one_side() -> None:
    of = {**problems(40), **{f"again{at}": Problem(f"again{at}", f" question {at} ", (("a",),)) for at in range(20)}}
    for seed in range(10):
        dev = hold_out(of, 0.2, seed)
        assert dev
        train = {key: problem for key, problem in of.items() if key not in dev}
        assert list(dev_overlaps(train, dev)) == []


@pytest.mark.parametrize("of", [problems(1), problems(9, per_passage=9)])
def test_what_cannot_be_split_is_refused(of: dict[str, Problem]) -> None:
    with pytest.raises(UsageError, match=r"holds out none.*data\.dev"):
        hold_out(of, 0.5, 0)


# ---------------------------------------------------------------- in a run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, first in (("train", 0), ("dev", 50), ("test", 100)):
        rows = [{"question": f"What is number {first + n}?", "answer": f"it {n}"} for n in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def open_run(folder: Path, data: dict[str, object], **sections: object) -> Run:
    table = {
        "data": {"train": "jsonl:train.jsonl", "test": "jsonl:test.jsonl", **data},
        "models": {"teacher": "echo:0.8", "solvers": ["echo:0.5"], "decomposers": ["none", "teacher"]},
        "run": {"variants": ["D-R"], "strategies": ["static"]},
        **sections,
    }
    return Run(parse_config(table), folder / "run", folder, Progress(quiet=True))


def test_the_teacher_demonstrates_the_dev_split_too_and_the_forecast_counts_it(folder: Path) -> None:
    from fractionate.run.forecast import forecast_run

    with open_run(folder, {"dev": "jsonl:dev.jsonl@0-4"}, run={"variants": ["D-T"], "strategies": ["static"]}) as run:
        check_before_spending(run)
        planned = next(entry.stage.calls for entry in forecast_run(run).stages if entry.stage.name == "demonstrate")
        asked = {one.problem_id for one in demonstrate_stage(run)}
        assert planned == run.engine.counters.sent == 25
        assert asked == {*run.data.train, *run.data.dev}
        assert len(run.data.dev) == 5
        (student,) = run.names.students
        assert not run.data.train_of(student).keys() & run.data.dev_of(student).keys()


def test_a_share_asks_the_teacher_nothing_more(folder: Path) -> None:
    with open_run(folder, {}) as run:
        demonstrate_stage(run)
        before = (folder / "run/demonstrations.jsonl").read_text()
    with open_run(folder, {"dev_share": 0.25}) as run:
        demonstrate_stage(run)
        assert run.engine.counters.sent == 0
        assert (folder / "run/demonstrations.jsonl").read_text() == before
        assert (len(run.data.train), len(run.data.dev)) == (15, 5)


def test_a_student_of_its_own_data_is_judged_by_what_is_held_out_of_it(folder: Path) -> None:
    students = {"first": {"variant": "D-R", "train": "jsonl:train.jsonl@0-9"}}
    with open_run(folder, {"dev_share": 0.5}, students=students) as run:
        first = next(one for one in run.names.students if one.name == "first")
        learnt, judged = run.data.train_of(first), run.data.dev_of(first)
        assert len(learnt) + len(judged) == 10
        assert judged.keys() < run.data.dev.keys()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"dev": "jsonl:train.jsonl@17-19"}, "3 of 3 questions of the dev split are training questions"),
        ({"dev": "jsonl:copy.jsonl"}, "2 of 2 questions of the dev split are training questions"),
        ({"dev": "jsonl:test.jsonl@0-1"}, r"2 of 20 test questions of jsonl:test.jsonl are questions of the dev split"),
        ({"dev": "jsonl:elsewhere/train.jsonl"}, "both have a question train-0"),
        ({"dev": "jsonl:nowhere.jsonl"}, "nowhere.jsonl"),
    ],
)
def test_a_dev_split_that_is_learnt_from_or_tested_on_is_refused(
    folder: Path, data: dict[str, object], says: str
) -> None:
    copied = [{"question": f"what is  number {n}", "answer": f"it {n}"} for n in (3, 4)]
    (folder / "copy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in copied))
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/train.jsonl").write_text('{"question": "Who?", "answer": "you"}\n')
    with open_run(folder, data) as run, pytest.raises(UsageError, match=says):
        check_before_spending(run)


def test_dev_questions_on_a_passage_of_training_are_said(folder: Path) -> None:
    for name, numbers in (("train", range(6)), ("dev", range(6, 10))):
        rows = [{"question": f"Town {n}?", "answer": "x", "context": f"A passage on {n % 8}."} for n in numbers]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_run(folder, {"dev": "jsonl:dev.jsonl"}) as run:
        check_before_spending(run)
        assert any("2 of 4 questions of the dev split share a passage" in note for note in run.notes.all())


@pytest.mark.parametrize(
    ("data", "train", "says"),
    [
        ({"dev": "jsonl:dev.jsonl", "dev_share": 0.1}, {}, "keep one of them"),
        ({}, {"search": {"epochs": [1, 2]}}, "nothing to choose by"),
        ({"dev_share": 0.1}, {"method": "full", "search": {"lora_rank": [4, 8]}}, "trains every weight"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    folder: Path, data: dict[str, object], train: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        open_run(folder, data, train=train)


def test_candidates_are_every_combination_once_in_the_order_of_the_lists() -> None:
    search = {"learning_rate": [2e-3, 1e-3, 2e-3], "epochs": [1, 3]}
    train = parse_config({"data": {"test": "atlas"}, "train": {"lora_rank": 4, "search": search}}).train
    assert [(one.learning_rate, one.lora_rank, one.epochs) for one in train.candidates()] == [
        (2e-3, 4, 1), (2e-3, 4, 3), (1e-3, 4, 1), (1e-3, 4, 3),
    ]  # fmt: skip
