"""`fractionate import`: logs whose replies hold subquestions and answers become recorded rows."""

import json
from pathlib import Path

import pytest

from fractionate.cli import main
from fractionate.models.importing import PATTERNS, Pattern, Split, split_reply

DATA = Path(__file__).parents[3] / "shared" / "data"


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


LTM = (
    "Q1. Who is Ann's son?\nBob is.\nHe is her only son.\n\nQ2. How old is he?\n9.\n"
    "Final Answer: How old is he?\nBob is 9."
)


@pytest.mark.parametrize(
    ("name", "reply", "split"),
    [
        (
            "ltm",
            LTM,
            Split(("Who is Ann's son?", "How old is he?"), ("Bob is.\nHe is her only son.", "9."), "Bob is 9."),
        ),
        ("ltm", "Q1. a?\nx\nFinal answer: 9", Split(("a?",), ("x",), "Final answer: 9")),
        ("ltm", "Q1. a?\nx\nFinal answer: 9\nQ1. Another problem?\n7", Split(("a?",), ("x",), "Final answer: 9")),
        ("qa", "Q1: a?\nA1: x\nQ2: b?\nA2: y\nThe answer is 9.", Split(("a?", "b?"), ("x", "y"), "The answer is 9.")),
        (
            "qa",
            "**Subquestion 1:** a\nb?\n**Answer 1:** x\nFinal answer: 9",
            Split(("a b?",), ("x",), "Final answer: 9"),
        ),
        (
            "self-ask",
            "Are follow ups needed here: Yes.\nFollow up: a?\nIntermediate answer: x\nSo the final answer is: 9",
            Split(("a?",), ("x",), "So the final answer is: 9"),
        ),
    ],
)
def test_a_reply_is_split_by_its_markers(name: str, reply: str, split: Split) -> None:
    assert split_reply(reply, PATTERNS[name]) == split


@pytest.mark.parametrize(
    ("name", "reply", "reason"),
    [
        ("ltm", "The answer is 9.", "no subquestion"),
        ("ltm", "Q1. a?\nx", "no final answer"),
        ("ltm", "Q1. a?\nQ2. b?\ny\nFinal answer: 9", "a subquestion without an answer"),
        ("qa", "Q1: a?\nThe answer is 9", "a subquestion without an answer"),
        ("qa", "Q1: a?\nA1: x\nA2: y\nThe answer is 9", "an answer without a subquestion"),
        ("qa", "", "no subquestion"),
    ],
)
def test_a_reply_without_a_part_says_which(name: str, reply: str, reason: str) -> None:
    assert split_reply(reply, PATTERNS[name]) == reason


def test_a_log_becomes_rows_that_a_run_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = [
        {"question": "How old is Ann's son?", "reply": LTM, "usage": {"output_tokens": 40}},
        {"question": "How many eggs of 7?", "reply": "It is 7."},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    out = tmp_path / "new" / "recorded.jsonl"
    arguments = ["import", str(tmp_path / "log.jsonl"), "--pattern", "ltm", "--output-field", "reply"]
    assert main([*arguments, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 2, "split": 1, "whole": {"no subquestion": 1}}
    rows = rows_of(out)
    assert [row["strategy"] for row in rows] == ["static", "stepwise"] * 2
    assert rows[0]["output"] == "1. Bob is.\nHe is her only son.\n2. 9.\nBob is 9."
    assert rows[2] == {
        "question": "How many eggs of 7?",
        "strategy": "static",
        "decomposition": None,
        "output": "It is 7.",
    }
    questions = [{"question": log[0]["question"], "answer": "9"}, {"question": log[1]["question"], "answer": "7"}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    (tmp_path / "run.toml").write_text(
        'data = {test = "jsonl:test.jsonl", scorer = "gsm8k"}\n'
        'models = {teacher = "recorded:new/recorded.jsonl", solvers = ["teacher"], decomposers = ["teacher"]}\n'
        'run = {strategies = ["static", "stepwise"], variants = []}\n'
    )
    assert main(["evaluate", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    attempts = rows_of(tmp_path / "out" / "attempts.jsonl")
    assert [row["exact_match"] for row in attempts] == [1, 1, 1, 1]
    assert [row["fell_back"] for row in attempts] == [False, True, False, True]


def test_replies_kept_whole_get_their_strategy(tmp_path: Path) -> None:
    (tmp_path / "cot.csv").write_text("index,completion\n0,So 9\n1,So 7\n")
    out = tmp_path / "cot.jsonl"
    assert main(["import", str(tmp_path / "cot.csv"), "--strategy", "single-cot", "--out", str(out)]) == 0
    assert rows_of(out)[1] == {"index": "1", "strategy": "single-cot", "output": "So 7"}


def test_markers_of_one_s_own(tmp_path: Path) -> None:
    pattern = Pattern(r"Step \d+ -", "Result =")
    assert split_reply("Step 1 - a?\nx\nResult = 9", pattern) == Split(("a?",), ("x",), "Result = 9")
    (tmp_path / "log.jsonl").write_text(json.dumps({"id": "a", "output": "Step 1 - a?\nx\nResult = 9"}) + "\n")
    out = tmp_path / "out.jsonl"
    own = ["--question", r"Step \d+ -", "--final", "Result =", "--strategy", "stepwise"]
    assert main(["import", str(tmp_path / "log.jsonl"), *own, "--out", str(out)]) == 0
    assert rows_of(out)[0]["steps"] == ["x"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say which strategy"),
        (["--pattern", "lmt"], "unknown pattern 'lmt': use ltm"),
        (["--question", "("], "no regular expression"),
        (["--question", "Q"], "needs --question and --final"),
        (["--pattern", "qa"], "no reply of"),
        (["--pattern", "ltm", "--strategy", "single"], "has no subquestions"),
        (["--strategy", "sngle"], "unknown strategy 'sngle'"),
        (["--strategy", "single", "--output-field", "reply"], "no 'reply'"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    (tmp_path / "log.jsonl").write_text(json.dumps({"id": "a", "output": "It is 9."}) + "\n")
    out = tmp_path / "out.jsonl"
    assert main(["import", str(tmp_path / "log.jsonl"), "--out", str(out), *options]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(not DATA.is_dir(), reason="the recorded data is not here")
@pytest.mark.parametrize(
    ("name", "rows", "split"),
    [
        ("gsm8k_faithful_cot/gpt4_ltm.jsonl", 660, 645),
        ("gsm8k_faithful_cot/gpt-3.5-turbo_ltm.jsonl", 660, 649),
        ("gsm8k_faithful_cot/text003_ltm.jsonl", 660, 656),
        ("strategyqa_gpt4_ltm/gpt4_ltm.jsonl", 2290, 2290),
    ],
)
def test_recorded_least_to_most_replies_are_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, rows: int, split: int
) -> None:
    out = str(tmp_path / "out.jsonl")
    assert main(["import", str(DATA / name), "--pattern", "ltm", "--out", out, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["split"]) == (rows, split)
