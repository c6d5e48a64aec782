"""Each set reads the hub's own layout: repository, configuration, split and columns, through the hub's own client.

The repositories are laid out on disk as the hub keeps them, so that a column or split misnamed here is found without a
connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fractionate.datasets import load
from fractionate.types import Problem

Table = Sequence[Mapping[str, Any]]

GSM8K = {"question": "Ann has 2 + 2?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
SOCRATIC = {"question": "Ann has 2 + 2?", "answer": "How many? ** 2 + 2 = <<2+2=4>>4\n#### 4"}
DROP = {
    "section_id": "nfl_1",
    "query_id": "q-1",
    "passage": "The Rams and the Bears met.",
    "question": "Who met?",
    "answers_spans": {"spans": ["Rams", "Bears", "Rams", "Bears"], "types": ["span"] * 4},
}
SVAMP = {
    "ID": "chal-1",
    "Body": "Each pack costs 76 dollars",
    "Question": "How much for 2?",
    "Equation": "( 76.0 * 2.0 )",
    "Answer": "152.0",
    "Type": "Multiplication",
    "question_concat": "Each pack costs 76 dollars. How much for 2?",
}
STRATEGYQA = {
    "qid": "872",
    "term": "The Police",
    "description": "English rock band",
    "question": "Could they perform arrests?",
    "answer": False,
    "facts": "They were musicians.",
}
AQUA = {"question": "How far?", "options": ["A)21", "B)21.5"], "rationale": "Because.\nB", "correct": "B"}


def as_parquet(path: Path, rows: Table, **features: Any) -> None:
    """Write rows as the hub stores them; `features` types columns that are not the type that their values have."""
    from datasets import Dataset

    path.parent.mkdir(parents=True, exist_ok=True)
    table = Dataset.from_list(list(rows))
    for name, feature in features.items():
        table = table.cast_column(name, feature)
    table.to_parquet(str(path))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose OWNER/NAME the hub's client reads in place of the hub's repository of that name."""
    import datasets

    real = datasets.load_dataset

    def from_shelf(hub_id: str, config: str | None, split: str) -> Any:
        assert (tmp_path / hub_id).is_dir(), f"{hub_id} is no repository of the hub's that is laid out here"
        return real(str(tmp_path / hub_id), config, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.delenv("FRACTIONATE_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", from_shelf)
    return tmp_path


def only(reference: str) -> Problem:
    (problem,) = load(reference)
    return problem


def with_configurations(folder: Path, *names: str) -> None:
    """Write the card that makes folders of a repository its configurations, and their files its splits."""
    lines = ["---", "configs:"]
    for name in names:
        lines += [f"- config_name: {name}", "  data_files:"]
        for path in sorted((folder / name).iterdir()):
            lines += [f"  - split: {path.name.partition('-')[0]}", f"    path: {name}/{path.name}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def test_gsm8k_has_two_configurations(shelf: Path) -> None:
    folder = shelf / "openai/gsm8k"
    for split in ("train", "test"):
        as_parquet(folder / f"main/{split}-00000-of-00001.parquet", [GSM8K])
        as_parquet(folder / f"socratic/{split}-00000-of-00001.parquet", [SOCRATIC])
    with_configurations(folder, "main", "socratic")
    assert (only("gsm8k").id, only("gsm8k").answers, only("gsm8k").subquestions) == ("gsm8k/test/0", (("4",),), ())
    assert only("gsm8k#train").split == "train"
    assert only("gsm8k#test_socratic").subquestions == ("How many?",)
    assert only("gsm8k#train_socratic").id == "gsm8k/train_socratic/0"


def test_drop_groups_the_annotators_of_its_validation_split(shelf: Path) -> None:
    from datasets import Sequence as Listed
    from datasets import Value

    spans = Listed({"spans": Value("string"), "types": Value("string")})
    for split in ("train", "validation"):
        as_parquet(shelf / f"ucinlp/drop/data/{split}-00000-of-00001.parquet", [DROP], answers_spans=spans)
    found = only("drop")
    assert (found.id, found.split, found.context) == ("q-1", "dev", "The Rams and the Bears met.")
    assert found.answers == (("Rams", "Bears"),)
    assert only("drop#train").answers == (("Rams", "Bears", "Rams", "Bears"),)


def test_bamboogle_has_a_test_split_alone(shelf: Path) -> None:
    rows = [{"Question": "Who, then?", "Answer": "Ann"}]
    as_parquet(shelf / "chiayewken/bamboogle/data/test-00000-of-00001.parquet", rows)
    assert (only("bamboogle").question, only("bamboogle").answers) == ("Who, then?", (("Ann",),))


def test_svamp_reads_its_columns(shelf: Path) -> None:
    for split in ("train", "test"):
        as_parquet(shelf / f"ChilleD/SVAMP/data/{split}-00000-of-00001.parquet", [SVAMP])
    found = only("svamp#train")
    assert found.question == "Each pack costs 76 dollars. How much for 2?"
    assert (found.answers, found.kind) == ((("152",),), "Multiplication")


def test_multiarith_reads_its_columns(shelf: Path) -> None:
    folder = shelf / "ChilleD/MultiArith"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}.json").write_text(json.dumps([{"question": " How many? ", "final_ans": "48"}]))
    assert (only("multiarith").question, only("multiarith").answers) == ("How many?", (("48",),))
    assert only("multiarith#train").split == "train"


def test_strategyqa_reads_true_and_false(shelf: Path) -> None:
    for split in ("train", "test"):
        as_parquet(shelf / f"ChilleD/StrategyQA/data/{split}-00000-of-00001.parquet", [STRATEGYQA])
    assert (only("strategyqa").answers, only("strategyqa").subquestions) == ((("no",),), ())


def test_another_copy_of_strategyqa_has_decompositions(shelf: Path) -> None:
    folder = shelf / "tasksource/strategy-qa"
    folder.mkdir(parents=True)
    row = {**STRATEGYQA, "facts": ["They were musicians."], "decomposition": ["Who?", "Could #1?"]}
    (folder / "strategyQA_train.json").write_text(json.dumps([row]))
    assert only("strategyqa:tasksource/strategy-qa#train").subquestions == ("Who?", "Could #1?")


def test_aqua_reads_the_raw_configuration(shelf: Path) -> None:
    folder = shelf / "deepmind/aqua_rat"
    for split in ("train", "validation", "test"):
        as_parquet(folder / f"raw/{split}-00000-of-00001.parquet", [AQUA])
        tokenized = {**AQUA, "question": "How far ?"}
        as_parquet(folder / f"tokenized/{split}-00000-of-00001.parquet", [tokenized])
    with_configurations(folder, "raw", "tokenized")
    assert (only("aqua").question, only("aqua").answers) == ("How far?\nA) 21\nB) 21.5", (("B",),))
    assert only("aqua#dev").split == "dev"
