"""Each data set reads its public forms, and refuses a bad row with file, line and reason."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fractionate.datasets import get, load
from fractionate.datasets.drop import grouped
from fractionate.errors import UsageError

SHARED = Path(__file__).parents[2] / "../shared/data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"no recorded data at {SHARED}")


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRACTIONATE_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


GSM8K = {"question": "Ann has 2 + 2?", "answer": "2 + 2 = <<2+2=4>>4\n#### 1,004"}
SOCRATIC = {"question": "Ann has 2 + 2?", "answer": "How many? ** It is 2 ** 2\nAnd now? ** 4\n#### 4"}
DATE = {"day": "5", "month": "May", "year": "1910"}
DROP = {
    "p1": {
        "passage": "They met.",
        "qa_pairs": [
            {"question": "When?", "query_id": "q1", "answer": {"number": "", "spans": [], "date": DATE}},
            {
                "question": "Who?",
                "query_id": "q2",
                "answer": {"number": "", "date": {}, "spans": ["Rams", "Bears "]},
                "validated_answers": [{"number": "3"}, {"spans": ["Rams", "Bears"]}, {"number": ""}],
            },
            {"question": "None?", "query_id": "q3", "answer": {"number": "", "spans": [""], "date": {"year": ""}}},
            {"question": "How many?", "answer": {"number": 0, "spans": ["x"]}, "validated_answers": None},
        ],
    }
}


def test_gsm8k_reads_gold_and_socratic_subquestions(tmp_path: Path) -> None:
    plain, socratic = load(f"gsm8k:{write(tmp_path / 'test.jsonl', GSM8K, SOCRATIC)}")
    assert (plain.answers, plain.subquestions) == ((("1004",),), ())
    assert (socratic.answers, socratic.subquestions) == ((("4",),), ("How many?", "And now?"))
    assert (plain.id, socratic.id) == ("gsm8k/test/0", "gsm8k/test/1")
    assert (plain.dataset, plain.split, socratic.index) == ("gsm8k", "test", 1)


def test_a_folder_and_the_data_folder_hold_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    write(folder / "train.jsonl", GSM8K)
    write(folder / "test.jsonl", SOCRATIC)
    assert load(f"gsm8k:{folder}#train")[0].split == "train"
    assert load(f"gsm8k:{folder}")[0].answers == (("4",),)
    monkeypatch.setenv("FRACTIONATE_DATA", str(tmp_path))
    assert load("gsm8k#train")[0].answers == (("1004",),)
    assert load("gsm8k")[0].answers == (("4",),)
    with pytest.raises(UsageError, match=r"gsm8k has no dev\.jsonl"):
        load(f"gsm8k:{folder}#dev")


def test_dev_and_validation_are_one_split(tmp_path: Path) -> None:
    write(tmp_path / "validation.jsonl", {"context": "Passage: P\nQuestion: Q\nAnswer:", "ref_text": "1"})
    assert load(f"drop:{tmp_path}#dev")[0].answers == (("1",),)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("gsm8k#test", r"openai/gsm8k could not be read from the hub.*gsm8k:PATH.*FRACTIONATE_DATA"),
        ("gsm8k:someone/else#test", r"someone/else could not be read from the hub"),
        ("gsm8k#nope", r"gsm8k has no split 'nope': it has train, test"),
    ],
)
def test_without_a_copy_and_a_connection_the_mend_is_named(reference: str, said: str, tmp_path: Path) -> None:
    # In a process of its own: the hub's client reads whether it is offline when it is imported.
    code = f"from fractionate.datasets import load; load({reference!r})"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    environment.pop("FRACTIONATE_DATA", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert re.search(said, done.stderr.strip().splitlines()[-1])


def test_drop_reads_the_official_form(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(DROP))
    when, who, how_many = load(f"drop:{path}")
    assert (when.id, when.answers, when.kind, when.context) == ("q1", (("5 May 1910",),), "date", "They met.")
    assert (who.answers, who.kind) == ((("Rams", "Bears"), ("3",)), "span")
    assert (how_many.id, how_many.answers, how_many.index) == ("drop/dev/2", (("x",),), 2)


def test_drop_reads_the_flat_form(tmp_path: Path) -> None:
    row = {"context": "Passage: A\nQuestion: odd\nQuestion: What?\nAnswer:", "ref_text": " 1|1.0| |2"}
    (problem,) = load(f"drop:{write(tmp_path / 'dev.jsonl', row)}")
    assert (problem.context, problem.question) == ("A\nQuestion: odd", "What?")
    assert problem.answers == (("1",), ("1.0",), ("2",))


def test_drop_reads_the_hubs_form(tmp_path: Path) -> None:
    row = {
        "query_id": "q",
        "passage": "P",
        "question": "Q",
        "answers_spans": {"spans": ["a", "b", "a", "b"], "types": ["span"] * 4},
    }
    assert load(f"drop:{write(tmp_path / 'dev.jsonl', row)}")[0].answers == (("a", "b"),)
    row["answers_spans"] = {"spans": ["a", "b"], "types": ["span", "span"]}
    assert load(f"drop:{write(tmp_path / 'train.jsonl', row)}")[0].answers == (("a", "b"),)
    assert load(f"drop:{write(tmp_path / 'dev.jsonl', row)}")[0].answers == (("a",), ("b",))


def test_spans_of_one_list_are_grouped_by_their_repeats() -> None:
    assert grouped(["a", "a", "a"], may_have_several=True) == (("a",),)
    assert grouped(["a", "b", "a"], may_have_several=True) == (("a",), ("b",))
    assert grouped(["1", "2", "1", "2"], may_have_several=False) == (("1",), ("2",))


def test_the_smaller_sets_read_their_official_rows(tmp_path: Path) -> None:
    svamp = {"ID": "c1", "Body": "Ann has 5", "Question": "How many?", "Answer": 145.0, "Type": "Addition"}
    (problem,) = load(f"svamp:{write(tmp_path / 'svamp.jsonl', svamp)}")
    assert (problem.question, problem.answers, problem.kind) == ("Ann has 5. How many?", (("145",),), "Addition")
    rows = [{"sQuestion": " Ann? ", "lSolutions": [20.0]}, {"question": "Bob?", "final_ans": "1,000"}]
    first, second = load(f"multiarith:{write(tmp_path / 'multi.jsonl', *rows)}")
    assert (first.question, first.answers, second.answers) == ("Ann?", (("20",),), (("1000",),))
    aqua = {"question": "How far?", "options": ["A)21", "B)21.5", "(C) x"], "correct": "b"}
    (problem,) = load(f"aqua:{write(tmp_path / 'aqua.jsonl', aqua)}")
    assert (problem.question, problem.answers) == ("How far?\nA) 21\nB) 21.5\nC) x", (("B",),))
    (tmp_path / "bamboogle.csv").write_text('Question,Answer\n"Who, then?",Ann\n')
    (problem,) = load(f"bamboogle:{tmp_path / 'bamboogle.csv'}")
    assert (problem.question, problem.answers) == ("Who, then?", (("Ann",),))
    (tmp_path / "dev.json").write_text(
        json.dumps([{"question": "Is it?", "answer": False, "decomposition": ["Who?", "Is #1?"]}])
    )
    (problem,) = load(f"strategyqa:{tmp_path / 'dev.json'}")
    assert (problem.answers, problem.subquestions) == ((("no",),), ("Who?", "Is #1?"))


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("gsm8k", {"question": "Q", "answer": "no number"}, "'answer' must end in '#### NUMBER', not 'no number'"),
        ("gsm8k", {"answer": "#### 1"}, r"no 'question' \(the row has answer\)"),
        ("gsm8k", {"question": ["Q"], "answer": "#### 1"}, r"'question' must be text, not \['Q'\]"),
        ("gsm8k", {"question": "  ", "answer": "#### 1"}, "'question' must be text"),
        ("svamp", {"Question": "Q", "Answer": "x"}, "'Answer' has no number: 'x'"),
        ("multiarith", {"question": "Q"}, "no 'answer'"),
        (
            "aqua",
            {"question": "Q", "options": ["A)1"], "correct": "B"},
            "'correct' is 'B', which is none of the options A",
        ),
        ("aqua", {"question": "Q", "options": ["1"], "correct": "A"}, "an option must begin with its letter"),
        ("aqua", {"question": "Q", "options": "A)1", "correct": "A"}, "'options' must be a list of strings"),
        ("bamboogle", {"Question": "Q"}, "no 'answer'"),
        ("strategyqa", {"question": "Q", "answer": "perhaps"}, "'answer' must be true or false, not 'perhaps'"),
        ("strategyqa", {"question": "Q", "answer": 3}, "'answer' must be true or false, not 3"),
        ("drop", {"question": "Q"}, "is of no form of DROP"),
        ("drop", {"context": "Q", "ref_text": "1"}, "'context' must read"),
        ("drop", {"context": "Passage: P\nQuestion: Q", "ref_text": "|"}, "'ref_text' holds no answer"),
        ("drop", {"passage": "P", "qa_pairs": "x"}, "'qa_pairs' must be a list"),
        ("drop", {"query_id": "q", "passage": "P", "question": "Q", "answers_spans": {"spans": []}}, "holds no span"),
        ("drop", {"query_id": "q", "passage": "P", "question": "Q", "answers_spans": "a"}, "holds no span"),
    ],
)
def test_a_bad_row_is_refused_with_file_line_and_reason(tmp_path: Path, name: str, row: Any, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + json.dumps(row) + "\n")
    with pytest.raises(UsageError, match=rf"rows\.jsonl:2: .*{reason}"):
        load(f"{name}:{path}")


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("a.jsonl", "{", r"a\.jsonl:1: "),
        ("a.jsonl", "[1]", r"a\.jsonl:1: "),
        ("a.json", "{\n", r"a\.json:2: malformed JSON"),
        ("a.json", "3", "holds a list of objects, or objects by id, not a number"),
        ("a.json", "[3]", "a row is an object with named fields"),
        ("a.txt", "x", "a.txt"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, file: str, text: str, reason: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=reason):
        load(f"gsm8k:{tmp_path / file}")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no data file at .*gone\.jsonl"):
        load(f"gsm8k:{tmp_path / 'gone.jsonl'}")


@pytest.mark.parametrize(
    ("name", "form", "metric", "cap"),
    [
        ("gsm8k", "number", "exact_match", 3),
        ("svamp", "number", "exact_match", 3),
        ("multiarith", "number", "exact_match", 3),
        ("drop", "span", "f1", 3),
        ("bamboogle", "text", "exact_match", 2),
        ("strategyqa", "yes-no", "exact_match", 3),
        ("aqua", "choice", "exact_match", 3),
    ],
)
def test_each_set_has_its_standard_metric_and_cap(name: str, form: str, metric: str, cap: int) -> None:
    dataset = get(name)
    assert (dataset.name, dataset.answer_form, dataset.metric, dataset.default_cap) == (name, form, metric, cap)
    assert dataset.source.startswith("https://")


@needs_shared
def test_the_recorded_sets_load_whole() -> None:
    assert len(load(f"gsm8k:{SHARED / 'gsm8k'}#train")) == 7473
    test, socratic = load(f"gsm8k:{SHARED / 'gsm8k'}"), load(f"gsm8k:{SHARED / 'gsm8k/test_socratic.jsonl'}")
    assert len(test) == len(socratic) == 1319
    assert [problem.answers for problem in test] == [problem.answers for problem in socratic]
    assert all(problem.subquestions for problem in socratic)
    assert len(load(f"strategyqa:{SHARED / 'strategyqa/dev.json'}")) == 229
    drop = load(f"drop:{SHARED / 'drop/dev_subset.jsonl'}")
    assert len(drop) == 964
    assert len({problem.id for problem in drop}) == 964
    assert all("Question:" not in problem.context and problem.question for problem in drop)


@needs_shared
def test_every_gold_answer_scores_full_when_a_model_gives_it() -> None:
    for reference in (
        f"gsm8k:{SHARED / 'gsm8k'}",
        f"drop:{SHARED / 'drop/dev_subset.jsonl'}",
        f"strategyqa:{SHARED / 'strategyqa/dev.json'}",
    ):
        dataset = get(reference.partition(":")[0])
        wrong = [
            problem.id
            for problem in load(reference)
            if dataset.score(dataset.extract(f"The answer is: {problem.answers[0][0]}"), problem.answers) != (1.0, 1.0)
        ]
        assert len(wrong) <= 5, wrong
