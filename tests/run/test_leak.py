"""Bamboogle has 125 questions and no training set: a run that trains on them cannot measure on them unnoticed."""

import csv
import json
from pathlib import Path

import pytest

from commands import Done, fractionate

PEOPLE = ("the first postmaster of Oulu", "the founder of Brno's zoo", "the architect of Tartu's town hall")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    with (tmp_path / "bamboogle.csv").open("w", newline="") as file:
        rows = [
            {"Question": f"Who was the mother of {person}?", "Answer": f"Anna {n}"} for n, person in enumerate(PEOPLE)
        ]
        writer = csv.DictWriter(file, ["Question", "Answer"])
        writer.writeheader()
        writer.writerows(rows)
    path = tmp_path / "run.toml"
    path.write_text(
        '[data]\ntrain = "bamboogle:bamboogle.csv"\ntest = "bamboogle:bamboogle.csv"\n'
        '[models]\nteacher = "echo:1"\nsolvers = ["echo:1"]\n[run]\nvariants = []\n'
    )
    return path


def run(config: Path, *settings: str) -> Done:
    changes = [word for setting in settings for word in ("--set", setting)]
    return fractionate("run", config.name, "--out", "out", *changes, cwd=config.parent)


@pytest.mark.parametrize("variants", [[], ["D-R", "E-A"]], ids=["nothing trained", "students trained"])
def test_training_and_measuring_on_the_same_rows_is_refused(config: Path, variants: list[str]) -> None:
    done = run(config, f"run.variants={json.dumps(variants)}")
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.strip().splitlines() if not line.startswith("["))
    assert "3 of 3 test questions of bamboogle:bamboogle.csv are training questions" in line
    assert "take them out, or add 'bamboogle:bamboogle.csv' to data.allow_overlap" in line
    assert not (config.parent / "out/results.json").exists()


def test_one_leaked_question_of_many_is_enough(config: Path) -> None:
    questions = [f"Who was the father of {person}?" for person in PEOPLE] + [f"WHO was the mother of  {PEOPLE[1]} ?"]
    (config.parent / "other.csv").write_text("Question,Answer\n" + "".join(f"{text},Jan\n" for text in questions))
    done = run(config, "data.train=bamboogle:other.csv")
    assert done.returncode == 2
    assert "1 of 3 test questions" in done.stderr
    assert "first: bamboogle/bamboogle/1" in done.stderr


def test_disjoint_rows_of_the_one_set_are_no_leak(config: Path) -> None:
    done = run(config, "data.train=bamboogle:bamboogle.csv@0-1", "data.test=bamboogle:bamboogle.csv@2-2")
    assert done.returncode == 0, done.stderr


def test_a_leak_allowed_by_name_runs_and_is_in_the_report(config: Path) -> None:
    done = run(config, "data.allow_overlap=bamboogle:bamboogle.csv")
    assert done.returncode == 0, done.stderr
    out = config.parent / "out"
    (note,) = (note for note in json.loads((out / "results.json").read_text())["notes"] if "Overlap" in note)
    assert "3 of 3 test questions of bamboogle:bamboogle.csv are training questions" in note
    for page in ("report.md", "report.html"):
        assert "Overlap allowed by name: 3 of 3" in (out / page).read_text()


def test_near_repetitions_and_shared_passages_are_in_the_report(tmp_path: Path) -> None:
    passage = "The zoo of the town has 12 lions, 7 tigers and 20 apes, and it opens at nine in the morning."
    asked = "How many of the animals in the zoo of the town are lions or tigers?"
    train = [{"question": asked, "context": passage, "answer": "19"}]
    test = [
        {"question": "Well then, " + asked, "context": passage, "answer": "19"},
        {"question": "When does it open?", "context": passage.upper(), "answer": "nine"},
        {"question": "How many birds?", "context": "The lake has 3 swans and 40 ducks.", "answer": "43"},
    ]
    for name, rows in (("train", train), ("test", test)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.toml").write_text(
        '[data]\ntrain = "jsonl:train.jsonl"\ntest = "jsonl:test.jsonl"\n'
        '[models]\nteacher = "echo:1"\nsolvers = ["echo:1"]\n[run]\nvariants = []\n'
    )
    done = run(tmp_path / "run.toml")
    assert done.returncode == 0, done.stderr
    notes = json.loads((tmp_path / "out/results.json").read_text())["notes"]
    near, on_passage = (note for note in notes if "jsonl:test.jsonl" in note and "3 test questions" in note)
    assert near.startswith("1 of 3 test questions of jsonl:test.jsonl nearly repeat a training question")
    assert near.endswith("test-0 like train-0.")
    assert on_passage.startswith("2 of 3 test questions of jsonl:test.jsonl are on a passage of training questions")
    assert "nearly repeat a training question" in (tmp_path / "out/report.html").read_text()


def test_atlas_shares_neither_questions_nor_passages(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        '[data]\ntrain = "atlas#train@0-299"\ntest = "atlas#test@0-47"\n'
        '[models]\nteacher = "echo:1"\nsolvers = ["echo:1"]\n[run]\nvariants = []\n'
    )
    done = run(path)
    assert done.returncode == 0, done.stderr
    notes = json.loads((tmp_path / "out/results.json").read_text())["notes"]
    assert not [note for note in notes if "test questions of atlas" in note]
