"""Data references: grammar, errors, and the rows that they load."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate import datasets
from fractionate.datasets.base import Dataset
from fractionate.datasets.reference import resolve
from fractionate.errors import UsageError


@pytest.mark.parametrize(
    ("text", "name", "path", "split", "start", "end"),
    [
        ("gsm8k", "gsm8k", "", "", None, None),
        ("gsm8k#test@0-659", "gsm8k", "", "test", 0, 659),
        ("gsm8k:openai/gsm8k#train", "gsm8k", "openai/gsm8k", "train", None, None),
        ("jsonl:train.jsonl", "jsonl", "train.jsonl", "", None, None),
        ("jsonl:a b/my#file@2.jsonl#dev@3-3", "jsonl", "a b/my#file@2.jsonl", "dev", 3, 3),
        ("jsonl:C:\\data\\x.csv", "jsonl", "C:\\data\\x.csv", "", None, None),
        ("atlas#test-3@8-15", "atlas", "", "test-3", 8, 15),
        ("train.jsonl", "jsonl", "train.jsonl", "", None, None),
        ("some/where/data.CSV@0-9", "jsonl", "some/where/data.CSV", "", 0, 9),
        ("C:\\data\\x.parquet#dev", "jsonl", "C:\\data\\x.parquet", "dev", None, None),
        ("atlas.jsonl", "jsonl", "atlas.jsonl", "", None, None),
    ],
)
def test_a_reference_is_read_by_the_grammar(text, name, path, split, start, end):
    reference = datasets.parse_reference(text)
    assert (reference.name, reference.path, reference.split) == (name, path, split)
    assert (reference.start, reference.end) == (start, end)
    assert reference.text == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gsm8", "'gsm8k'"),
        ("Atlas#test", "'atlas'"),
        ("nothing-like-it", "Known data sets: gsm8k"),
        ("", "unknown data set"),
        ("atlas@5", "@START-END"),
        ("atlas@-5", "@START-END"),
        ("atlas@", "@START-END"),
        ("atlas@9-3", "@3-9"),
        ("atlas@0-9/0", "every 0th row"),
        ("atlas@0-9/", "@START-END/STEP"),
        ("atlas@0-9/2/2", "@START-END/STEP"),
        ("atlas@0-99999999999999999999999", "@START-END"),
        ("atlas#", "no split"),
        ("jsonl:", "no path"),
    ],
)
def test_a_wrong_reference_is_one_line_that_names_the_mend(text, named):
    with pytest.raises(UsageError) as caught:
        datasets.parse_reference(text)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


NAMES = st.sampled_from(datasets.names())
PATHS = st.from_regex(r"[A-Za-z0-9_./ -]{0,20}[A-Za-z0-9_]", fullmatch=True)
SPLITS = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
ROWS = st.integers(min_value=0, max_value=10**9)


@given(NAMES, st.none() | PATHS, st.none() | SPLITS, st.none() | st.tuples(ROWS, ROWS))
def test_what_the_grammar_writes_is_read_back(name, path, split, rows):
    start, end = sorted(rows) if rows else (None, None)
    text = name + (f":{path}" if path else "") + (f"#{split}" if split else "") + (f"@{start}-{end}" if rows else "")
    reference = datasets.parse_reference(text)
    assert (reference.name, reference.path, reference.split) == (name, path or "", split or "")
    assert (reference.start, reference.end) == (start, end)


def test_columns_are_carried_and_unknown_ones_refused():
    assert datasets.parse_reference("a.csv", {"question": "prompt"}).columns == {"question": "prompt"}
    with pytest.raises(UsageError, match="not 'qestion'"):
        datasets.parse_reference("a.csv", {"qestion": "prompt"})


def test_a_relative_path_is_looked_for_in_the_base_and_a_hub_id_left_alone(tmp_path):
    def path(text: str, base: Path | None) -> str:
        return resolve(datasets.parse_reference(text), base).path

    assert path("jsonl:a.jsonl", tmp_path) == str(tmp_path / "a.jsonl")
    assert path("jsonl:a.jsonl", None) == "a.jsonl"
    assert path(f"jsonl:{tmp_path}/b.jsonl", Path("/elsewhere")) == f"{tmp_path}/b.jsonl"
    assert path("gsm8k:openai/gsm8k", tmp_path) == "openai/gsm8k"
    (tmp_path / "openai" / "gsm8k").mkdir(parents=True)
    assert path("gsm8k:openai/gsm8k", tmp_path) == str(tmp_path / "openai/gsm8k")


def test_loading_takes_the_slice_with_both_ends(tmp_path):
    rows = "".join(f'{{"question": "q{n}", "answer": {n}}}\n' for n in range(10))
    (tmp_path / "data.jsonl").write_text(rows, encoding="utf-8")
    problems = datasets.load("data.jsonl@2-4", base=tmp_path)
    assert [problem.question for problem in problems] == ["q2", "q3", "q4"]
    assert [problem.index for problem in problems] == [2, 3, 4]
    assert len(datasets.load("data.jsonl@8-99", base=tmp_path)) == 2
    with pytest.raises(UsageError, match="holds no problems"):
        datasets.load("data.jsonl@10-12", base=tmp_path)


def test_a_step_takes_every_so_many_rows_from_the_start_on(tmp_path):
    rows = "".join(f'{{"question": "q{n}", "answer": {n}}}\n' for n in range(10))
    (tmp_path / "data.jsonl").write_text(rows, encoding="utf-8")
    assert [one.index for one in datasets.load("data.jsonl@1-8/3", base=tmp_path)] == [1, 4, 7]
    assert [one.index for one in datasets.load("data.jsonl@2-9/1", base=tmp_path)] == list(range(2, 10))
    assert datasets.parse_reference("data.jsonl").step == 1


def test_one_question_per_passage_of_atlas():
    problems = datasets.load("atlas#test@0-1279/8")
    assert len({problem.context for problem in problems}) == len(problems) == 160


def test_nothing_past_the_slice_is_read(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"question": "q", "answer": 1}\nnot JSON\n', encoding="utf-8")
    assert len(datasets.load("data.jsonl@0-0", base=tmp_path)) == 1
    with pytest.raises(UsageError, match=r"data\.jsonl:2:"):
        datasets.load("data.jsonl", base=tmp_path)


def test_problems_come_one_by_one(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"question": "q", "answer": 1}\nnot JSON\n', encoding="utf-8")
    first = list(islice(datasets.iter_problems("data.jsonl", base=tmp_path), 1))
    assert first[0].question == "q"


@pytest.mark.parametrize("name", ["atlas", "jsonl"])
def test_a_data_set_is_got_by_name(name):
    dataset = datasets.get(name)
    assert isinstance(dataset, Dataset)
    assert dataset.name == name


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'strategyqa'"):
        datasets.get("strategy-qa")


def test_looking_at_the_table_imports_no_data_set():
    code = "import sys, fractionate.datasets; print([m for m in sys.modules if m.startswith('fractionate.datasets.')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['fractionate.datasets.base', 'fractionate.datasets.reference']"


def test_kinds_are_those_of_the_rows_of_the_slice() -> None:
    reference = datasets.parse_reference("atlas#train-3?bridge,counting-bridge@8-23")
    assert (reference.split, reference.kinds, reference.start, reference.end) == (
        "train-3", ("bridge", "counting-bridge"), 8, 23,
    )  # fmt: skip
    problems = datasets.load("atlas#train-3?bridge,counting-bridge@8-23")
    assert sorted(problem.kind for problem in problems) == ["bridge", "bridge", "counting-bridge", "counting-bridge"]
    assert all(8 <= problem.index <= 23 for problem in problems)


def test_a_kind_that_no_row_is_of_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="no question of kind 'brigde'; its kinds are bridge, comparison"):
        datasets.load("atlas#test?brigde@0-7")


def test_a_question_mark_in_a_file_name_is_part_of_the_name() -> None:
    reference = datasets.parse_reference("jsonl:what?.jsonl#all@0-4")
    assert (reference.path, reference.kinds) == ("what?.jsonl", ())
