"""`fractionate init`: what is read off a user's file, and a config that a dry run takes without a key."""

from __future__ import annotations

import json
import random
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fractionate import datasets
from fractionate.cli import main
from fractionate.config import load_config
from fractionate.datasets.sniff import divide, find_layout, read_table

TEACHER = "openai:gpt-4o-mini"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def sums(n: int) -> list[tuple[str, int]]:
    """Questions with their answers, all of them different."""
    random_numbers = random.Random(n)
    drawn = [(random_numbers.randint(2, 40_000), random_numbers.randint(2, 90_000)) for _ in range(n)]
    return [(f"Müller buys {a} apples and {b} pears, how many?", a + b) for a, b in drawn]


def table_of(config: Path = Path("fractionate.toml")) -> dict[str, Any]:
    return tomllib.loads(config.read_text(encoding="utf-8"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_a_table_is_read_whatever_its_delimiter_and_encoding(delimiter: str, encoding: str) -> None:
    lines = [delimiter.join(("Prompt", "Expected answer", "Topic"))]
    lines += [delimiter.join((f'"{question}"', str(answer), f"t{answer % 7}")) for question, answer in sums(40)]
    Path("my.csv").write_bytes("\r\n".join(lines).encode(encoding))
    table = read_table(Path("my.csv"))
    layout = find_layout(table)
    assert (table.delimiter, len(table.rows)) == (delimiter, 40)
    assert table.rows[0]["Prompt"] == sums(40)[0][0]
    assert (layout.columns, layout.answer) == ({"question": "Prompt", "answers": "Expected answer"}, "number")


def test_a_config_for_a_file_of_ones_own_runs_dry_without_a_key_and_says_what_it_can_show(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = ["question;label", *(f'"{question}";{answer}' for question, answer in sums(120))]
    Path("my.csv").write_text("\n".join(lines), encoding="cp1252")
    assert main(["init", "--data", "my.csv", "--teacher", TEACHER]) == 0
    said = capsys.readouterr().out
    assert "semicolons, Windows-1252; question = question, answers = label; answers are numbers" in said
    assert "60 training questions, 60 test questions" in said
    assert "with 60 questions of test.jsonl a loss of less than" in said, "the forecast comes with it"
    config = load_config(Path("fractionate.toml"))
    assert (config.models.teacher, config.data.answer, config.run.variants) == (TEACHER, "number", ["D-R", "E-A"])
    train, test = (datasets.load(reference) for reference in (*config.data.train, *config.data.test))
    assert not {one.question for one in train} & {one.question for one in test}
    assert main(["run", "fractionate.toml", "--dry-run"]) == 0
    assert "verdict: with 60 questions" in capsys.readouterr().out


def test_a_file_of_half_a_dozen_questions_is_said_to_train_nothing_and_show_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = "".join(f"{question.replace(',', '')},{answer}\n" for question, answer in sums(6))
    Path("my.csv").write_text(f"question,answer\n{rows}", encoding="utf-8")
    assert main(["init", "--data", "my.csv", "--teacher", TEACHER]) == 0
    said = capsys.readouterr().out
    assert "3 training questions, 3 test questions\nnote: a student takes 4 training questions or more" in said
    assert "verdict: 3 questions of test.jsonl are too few to exclude any loss" in said
    longer = ["--set", 'data.test="jsonl:test.jsonl@0-99"']
    assert main(["run", "fractionate.toml", "--dry-run", *longer]) == 0
    assert "note: jsonl:test.jsonl@0-99 names 100 questions, and there are 3" in capsys.readouterr().out


def test_chats_are_told_apart_by_their_earlier_turns(capsys: pytest.CaptureFixture[str]) -> None:
    def turns(n: int) -> list[dict[str, str]]:
        said = (
            ("user", f"Ann has {n} pens."),
            ("assistant", "Noted."),
            ("user", "Twice that?"),
            ("assistant", f"{2 * n}"),
        )
        return [{"role": role, "content": text} for role, text in said]

    Path("chats.jsonl").write_text("".join(json.dumps({"messages": turns(n)}) + "\n" for n in range(40)))
    assert main(["init", "--data", "chats.jsonl", "--teacher", TEACHER]) == 0
    assert "20 training questions, 20 test questions" in capsys.readouterr().out
    first, *_ = datasets.load("jsonl:test.jsonl")
    assert (first.question, first.history[1]) == ("Twice that?", ("assistant", "Noted."))
    assert main(["run", "fractionate.toml", "--dry-run"]) == 0, "the same words in another chat are no leak"


def test_two_files_that_are_read_as_they_are_are_named_in_place(here: Path) -> None:
    (here / "data").mkdir()
    for name, n in (("train", 30), ("test", 20)):
        rows = ({"prompt": question, "gold": answer} for question, answer in sums(n))
        (here / "data" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert main(["init", "mine", "--data", "data/train.jsonl", "--test", "data/test.jsonl", "--teacher", TEACHER]) == 0
    data = table_of(here / "mine" / "fractionate.toml")["data"]
    assert (data["train"], data["test"]) == ("jsonl:../data/train.jsonl", "jsonl:../data/test.jsonl")
    assert data["columns"] == {"question": "prompt", "answers": "gold"}
    assert sorted(file.name for file in (here / "mine").glob("*.jsonl")) == []
    assert main(["run", "mine/fractionate.toml", "--dry-run"]) == 0


def test_columns_are_found_by_their_cells_where_their_names_say_nothing() -> None:
    Path("my.csv").write_text("Frage,Lösung\n" + "".join(f'"{q[:-1]}?",{a}\n' for q, a in sums(9)), encoding="utf-8")
    assert find_layout(read_table(Path("my.csv"))).columns == {"question": "Frage", "answers": "Lösung"}


def test_what_cannot_be_told_is_asked_for_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.csv").write_text("x,y,z\n1,2,3\n", encoding="utf-8")
    assert main(["init", "--data", "my.csv", "--teacher", TEACHER]) == 2
    assert "which column holds the question cannot be told (it has x, y, z): add --column" in capsys.readouterr().err
    assert not Path("fractionate.toml").exists()
    named = ["--column", "question=x", "--column", "answers=z"]
    rows = "".join(f"Who is number {number}?,b,name {number}\n" for number in range(20))
    Path("my.csv").write_text(f"x,y,z\n{rows}", encoding="utf-8")
    assert main(["init", "--data", "my.csv", "--teacher", TEACHER, *named]) == 0
    assert datasets.load("jsonl:train.jsonl")[0].answers[0][0].startswith("name ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "absent.csv", "--teacher", TEACHER], "absent.csv cannot be read"),
        (["--data", "my.csv"], "--teacher is missing"),
        (["--data", "my.csv", "--teacher", "gpt-4o"], "unknown model 'gpt-4o' (did you mean 'openai:gpt-4o'?)"),
        (["--test", "my.csv"], "--test, --teacher and --column go with --data"),
        (["--example", "--data", "my.csv", "--teacher", TEACHER], "leave one out"),
        (["--data", "my.csv", "--teacher", TEACHER, "--column", "answers=nothing"], "no column 'nothing'"),
    ],
)
def test_bad_usage_is_one_line_with_the_fix(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my.csv").write_text("question,answer\nHow many?,2\n", encoding="utf-8")
    assert main(["init", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_what_belongs_together_stays_on_one_side_and_the_division_is_always_the_same() -> None:
    rows = [{"question": f"q{n}", "answers": "a", "group": f"g{n // 5}"} for n in range(200)]
    train, test = divide(rows)
    assert (len(train), len(test)) == (100, 100)
    assert not {row["group"] for row in train} & {row["group"] for row in test}
    assert divide(rows) == (train, test)
    again = divide(
        [{"question": "the same  Question", "answers": "1"}, {"question": "The same question", "answers": "1"}]
    )
    assert sorted(map(len, again)) == [0, 2]


def test_the_example_is_read_and_its_teacher_is_recorded() -> None:
    assert main(["init", "--example", "try"]) == 0
    config = load_config(Path("try/fractionate.toml"))
    assert config.models.teacher == "recorded:teacher.jsonl"
    rows = [json.loads(line) for line in Path("try/teacher.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) > 192
    assert main(["run", "try/fractionate.toml", "--dry-run"]) == 0
