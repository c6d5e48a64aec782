"""A judge as the scorer of a run: its calls are stored, forecast, paid for, and corrected by labels of people."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fractionate.cli import main
from servers.judge_server import JudgeServer
from servers.threaded import in_thread

WORDS = ("red", "blue", "green", "black", "white")


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with in_thread(JudgeServer()) as made:
        yield made


def write_run(folder: Path, server: JudgeServer, *, questions: int = 10, more: str = "") -> Path:
    """A run whose solver answers with the question's last word: right in every second question."""
    rows = [
        {
            "id": f"q{n}",
            "question": f"In case {n}, which is it: {WORDS[n % 5]}{n}?",
            "answers": [f"{WORDS[n % 5]}{n}" if n % 2 == 0 else "another thing"],
        }
        for n in range(questions)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = folder / "fractionate.toml"
    config.write_text(
        f"""
[data]
test = "jsonl:test.jsonl"
scorer = "judge"
[judge]
model = "{server.name}"
[models]
teacher = "{server.name}"
solvers = ["teacher"]
decomposers = ["none"]
[run]
strategies = ["single"]
variants = []
out = "{folder / "run"}"
{more}
"""
    )
    return config


def cells_of(folder: Path) -> list[dict[str, Any]]:
    results: dict[str, Any] = json.loads((folder / "run/results.json").read_text())
    return list(results["cells"])


def test_with_a_rubric_questions_need_no_known_answer(
    tmp_path: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_run(tmp_path, server)
    rows = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    for row in rows[3:]:
        del row["answers"]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["run", str(config), "--quiet"]) == 2
    assert "no column answers" in capsys.readouterr().err
    assert main(["run", str(config), "--quiet", "--set", "judge.rubric=It names a colour."]) == 0
    (cell,) = cells_of(tmp_path)
    assert cell["n"] == 10


def test_a_judge_scores_a_run_through_its_store(tmp_path: Path, server: JudgeServer) -> None:
    config = write_run(tmp_path, server)
    assert main(["run", str(config), "--quiet"]) == 0
    (cell,) = cells_of(tmp_path)
    assert (cell["value"], cell["n"], cell["unextracted"]) == (0.5, 10, 0)
    assert cell["judge"]["identity"].startswith(f"{server.name}, yes-no, prompt ")
    assert "gold" not in cell
    assert server.judged == 10
    with sqlite3.connect(tmp_path / "calls.sqlite") as store:
        assert dict(store.execute("SELECT role, count(*) FROM calls GROUP BY role")) == {"judge": 10, "solver": 10}
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert any("its opinion" in note for note in results["notes"])
    assert main(["run", str(config), "--quiet"]) == 0
    assert server.judged == 10, "no judgement is paid for twice"


def test_another_rubric_is_another_judge(tmp_path: Path, server: JudgeServer) -> None:
    config = write_run(tmp_path, server)
    assert main(["run", str(config), "--quiet"]) == 0
    first = cells_of(tmp_path)[0]["judge"]["identity"]
    (tmp_path / "rubric.txt").write_text("Only the colour counts.\n")
    assert main(["run", str(config), "--quiet", "--set", "judge.rubric=file:rubric.txt"]) == 0
    assert cells_of(tmp_path)[0]["judge"]["identity"] != first
    assert server.judged == 20
    assert "Only the colour counts." in server.bodies[-1]["messages"][0]["content"]


def test_a_dry_run_counts_the_judge_and_needs_no_call(
    tmp_path: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_run(tmp_path, server)
    assert main(["run", str(config), "--dry-run", "--json"]) == 0
    stages = [one["stage"] for one in json.loads(capsys.readouterr().out)["stages"]]
    assert {(one["role"], one["calls"]) for one in stages} == {("solver", 10), ("judge", 10)}
    assert server.judged == 0


def test_a_budget_stops_the_judge(tmp_path: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]) -> None:
    prices = f'[prices."{server.name}"]\ninput_per_million = 1.0\noutput_per_million = 1.0\n[budget]\nusd = 1e-6'
    config = write_run(tmp_path, server, more=prices)
    assert main(["run", str(config), "--quiet"]) == 1
    assert "passes budget.usd" in capsys.readouterr().err
    assert server.judged == 0


def test_an_output_without_a_verdict_counts_as_unparsed(tmp_path: Path, server: JudgeServer) -> None:
    server.mute = {"red0"}
    config = write_run(tmp_path, server)
    assert main(["run", str(config), "--quiet"]) == 0
    (cell,) = cells_of(tmp_path)
    assert (cell["value"], cell["unextracted"]) == (0.4, 1)
    rows = [json.loads(line) for line in (tmp_path / "run/attempts.jsonl").read_text().splitlines()]
    assert rows[0]["failures"] == ["judge: no verdict could be read"]
    assert server.judged == 11, "it is asked twice"


def test_grades_are_shares_of_the_scale(tmp_path: Path, server: JudgeServer) -> None:
    config = write_run(tmp_path, server)
    assert main(["run", str(config), "--quiet", "--set", "judge.scale=1-5"]) == 0
    assert cells_of(tmp_path)[0]["value"] == pytest.approx((1.0 + 0.25) / 2)


def test_labels_correct_a_lenient_judge(
    tmp_path: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.lenient = {"black", "white"}  # two words of five pass whatever the known answer is
    config = write_run(tmp_path, server, questions=100)
    assert main(["run", str(config), "--quiet"]) == 0
    assert cells_of(tmp_path)[0]["value"] == pytest.approx(0.7)
    asked: list[str] = []

    def person(prompt: str) -> str:
        asked.append(capsys.readouterr().out)
        shown = asked[-1]
        known = shown.rpartition("Known answers: ")[2].partition("\n")[0]
        return "y" if known in shown.rpartition("Output:")[2] else "n"

    monkeypatch.setattr("builtins.input", person)
    assert main(["label", str(tmp_path / "run"), "--count", "30"]) == 0
    assert main(["label", str(tmp_path / "run"), "--count", "30"]) == 0
    said = capsys.readouterr().out
    assert len(set(asked)) == 60, "the second call goes on where the first one ended"
    assert not any("Verdict" in text for text in asked), "the judge's verdict is not shown"
    assert "the judge agrees with 60 labels" in said
    assert main(["report", str(tmp_path / "run")]) == 0
    (cell,) = cells_of(tmp_path)
    assert cell["judge"]["judged_value"] == pytest.approx(0.7)
    assert cell["gold"]["n"] == 60
    assert cell["value"] == pytest.approx(0.5, abs=0.1)
    assert cell["ci_low"] < 0.5 < cell["ci_high"]
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["judge"]["labels"] == 60
    assert 0.6 < results["judge"]["agreement"] < 1.0
    assert results["judge"]["bias"] > 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "q0", "output": "x", "label": "maybe"}, "'label' must be true or false"),
        ({"label": True}, "neither 'id' nor 'output'"),
        ({"id": "q0", "output": "x"}, "no field 'label'"),
        ({"id": "elsewhere", "output": "x", "label": 1}, "none of its 1 labels is about an output of this run"),
    ],
)
def test_labels_that_cannot_be_used_are_one_line(
    tmp_path: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str], row: dict[str, Any], said: str
) -> None:
    config = write_run(tmp_path, server, questions=4)
    assert main(["run", str(config), "--quiet"]) == 0
    (tmp_path / "run/labels.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["report", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_a_judge_without_a_model_is_one_line(
    tmp_path: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_run(tmp_path, server)
    assert main(["run", str(config), "--dry-run", "--set", "judge.model="]) == 2
    assert "needs a model: set judge.model" in capsys.readouterr().err


def test_an_async_function_scores_a_run_and_its_scores_are_stored(tmp_path: Path, server: JudgeServer) -> None:
    config = write_run(tmp_path, server)
    (tmp_path / "grade.py").write_text(
        "import asyncio\n"
        "async def grade(output, answers):\n    await asyncio.sleep(0)\n    return answers[0] in output\n"
    )
    assert main(["run", str(config), "--quiet", "--set", "data.scorer=grade.py:grade"]) == 0
    (cell,) = cells_of(tmp_path)
    assert cell["value"] == 0.5
    assert "judge" not in cell
    with sqlite3.connect(tmp_path / "calls.sqlite") as store:
        assert store.execute("SELECT count(*) FROM calls WHERE role = 'judge'").fetchone() == (10,)


def test_each_data_set_has_a_scorer_of_its_own(tmp_path: Path, server: JudgeServer) -> None:
    config = write_run(tmp_path, server)
    (tmp_path / "more.jsonl").write_text(json.dumps({"id": "m", "question": "Which is it: up?", "answers": ["up"]}))
    scorers = 'data.scorers={"jsonl:more.jsonl" = "contains"}'
    tests = 'data.test=["jsonl:test.jsonl", "jsonl:more.jsonl"]'
    assert main(["run", str(config), "--quiet", "--set", tests, "--set", scorers]) == 0
    assert [(cell["value"], "judge" in cell) for cell in cells_of(tmp_path)] == [(0.5, True), (1.0, False)]
    assert main(["run", str(config), "--quiet", "--set", 'data.scorers={"nowhere" = "contains"}']) == 2


def test_known_answers_that_a_scorer_cannot_read_are_said_before_paying(
    tmp_path: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_run(tmp_path, server)
    assert main(["run", str(config), "--dry-run", "--set", "data.scorer=number"]) == 0
    assert "the scorer reads nothing in 10 of 10 known answers" in capsys.readouterr().err
    rows = [
        {"id": n, "question": f"Why {n}?", "answers": [f"Because case {n} " + "has reasons that take many words " * 3]}
        for n in range(8)
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["run", str(config), "--dry-run", "--set", "data.scorer=text"]) == 0
    assert 'data.scorer = "judge"' in capsys.readouterr().err
    assert main(["run", str(config), "--dry-run"]) == 0
    assert "known answers" not in capsys.readouterr().err
    assert server.judged == 0
