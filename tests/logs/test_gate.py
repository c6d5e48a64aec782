"""`fractionate compare` as a gate: requirements, their files, looks that share an error, and a judge of pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from fractionate.analysis.comparison import compare_systems
from fractionate.analysis.systems import Answered, System
from fractionate.cli import main
from servers.judge_server import JudgeServer
from servers.threaded import in_thread


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with in_thread(JudgeServer()) as made:
        yield made


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """new.jsonl is right in all but 2 of 200, old.jsonl in all but 1, bad.jsonl in half."""
    monkeypatch.chdir(tmp_path)
    for name, wrong in (("new", 2), ("old", 1), ("bad", 100)):
        write_log(tmp_path / f"{name}.jsonl", wrong)
    return tmp_path


def write_log(path: Path, wrong: int, questions: int = 200) -> None:
    path.write_text("".join(json.dumps({"id": n, "correct": n >= wrong}) + "\n" for n in range(questions)))


def gate(*arguments: str) -> int:
    return main(["compare", "new.jsonl", "old.jsonl", *arguments])


def test_exit_codes(logs: Path) -> None:
    assert gate("--require", "not-worse", "--margin", "5") == 0
    assert gate("--require", "better") == 3
    assert main(["compare", "bad.jsonl", "old.jsonl", "--require", "not-worse", "--margin", "5"]) == 3
    assert gate("--require", "not-worse") == 2, "a margin is missing"
    assert gate("--thresholds", "nowhere.toml") == 2


def test_thresholds_of_a_file(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (logs / "gate.toml").write_text('[gate]\nrequire = "not-worse"\nmargin = 5\noutcome = 90\nquestions = 150\n')
    assert gate("--thresholds", "gate.toml") == 0
    (logs / "gate.toml").write_text('require = "not-worse"\nmargin = 5\noutcome = 99.5\nquestions = 500\nusd = 1\n')
    capsys.readouterr()
    assert gate("--thresholds", "gate.toml", "--json") == 3
    checks = json.loads(capsys.readouterr().out)["checks"]
    passed = {one["name"]: one["passed"] for one in checks}
    assert passed == {"not-worse": True, "questions": False, "outcome": False, "usd": False}
    assert gate("--thresholds", "gate.toml", "--margin", "0.1") == 3, "what is given on the command line wins"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("margn = 2", "did you mean 'margin'"),
        ('margin = "2"', "margin cannot be '2'"),
        ("margin = [", "cannot be read"),
        ('require = "good"', "require must be not-worse or better"),
        ("looks = 0", "looks must be a number of looks"),
    ],
)
def test_a_wrong_file_is_one_line(logs: Path, capsys: pytest.CaptureFixture[str], content: str, said: str) -> None:
    (logs / "gate.toml").write_text(content)
    assert gate("--thresholds", "gate.toml") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_markdown_and_junit(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require = ("--require", "not-worse", "--margin", "5")
    assert gate(*require, "--markdown", "-", "--junit", "gate.xml") == 0
    printed = capsys.readouterr().out
    assert "### ✅ Shown" in printed
    assert "| new against old |" in printed
    assert "Systems over 200 questions" in printed
    suite = ElementTree.parse(logs / "gate.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    assert gate("--require", "better", "--markdown", "out.md", "--junit", "gate.xml") == 3
    assert "### ❌ Not shown" in (logs / "out.md").read_text()
    suite = ElementTree.parse(logs / "gate.xml").getroot()[0]
    assert suite.get("failures") == "1"
    assert "not shown to be better" in str(suite[0][0].get("message"))


def test_a_budget_of_looks_is_shared_and_ends(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def look(wrong: int) -> float:
        write_log(logs / "new.jsonl", wrong)
        capsys.readouterr()
        assert gate("--looks", "2", "--key", "main", "--json") == 0
        return float(json.loads(capsys.readouterr().out)["confidence"])

    assert look(2) == pytest.approx(0.975)
    assert look(2) == pytest.approx(0.975), "the same comparison again is no new look"
    assert look(3) == pytest.approx(0.975)
    write_log(logs / "new.jsonl", 4)
    assert gate("--looks", "2", "--key", "main") == 1
    assert "the budget of 2 looks at 'main'" in capsys.readouterr().err
    assert gate("--looks", "2", "--key", "another") == 0


def test_any_time_intervals_hold_at_every_look_as_questions_are_added(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    confidences = []
    for questions in (100, 150, 200):
        write_log(logs / "new.jsonl", 2, questions)
        capsys.readouterr()
        assert gate("--looks", "any", "--json") == 0
        confidences.append(json.loads(capsys.readouterr().out)["confidence"])
    assert all(one > 0.95 for one in confidences)
    write_log(logs / "new.jsonl", 50)
    assert gate("--looks", "any", "--json") == 0
    assert json.loads(capsys.readouterr().out)["confidence"] > max(confidences), "another system gets what is left"


def test_comparing_is_light(logs: Path) -> None:
    """A light install compares: nothing but numpy, scipy, pydantic and markupsafe is imported."""
    code = (
        "import sys\nfrom fractionate.cli import main\nassert main(['compare', 'new.jsonl', 'old.jsonl']) == 0\n"
        "sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300)
    heavy = {
        "torch", "transformers", "aiohttp", "jinja2", "ray", "pandas", "pyarrow", "sympy", "math_verify", "jsonschema",
        "datasets", "trl", "peft", "duckdb",
    }  # fmt: skip
    assert not heavy & set(done.stderr.split())


def write_outputs(path: Path, right: set[int], count: int = 60) -> None:
    rows = [
        {
            "id": n,
            "question": f"Which number is it, {n}?",
            "output": f"It is n{n}." if n in right else f"No idea about {n}.",
            "answers": [f"n{n}."],
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def judged(server: JudgeServer, *more: str) -> list[str]:
    return ["--scorer", "judge", "--set", f"judge.model={server.name}", *more]


def test_a_judge_scores_logs_and_is_asked_once(
    tmp_path: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_outputs(tmp_path / "new.jsonl", set(range(30)))
    write_outputs(tmp_path / "old.jsonl", set(range(20)))
    assert gate(*judged(server), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"]) == (0.5, 20 / 60)
    assert any("its opinion" in note for note in found["notes"])
    assert server.judged == 70, "an output that both gave is judged once"
    assert main(["score", "new.jsonl", *judged(server), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["judge"]["labels"] == 0
    assert server.judged == 70
    assert main(["score", "new.jsonl", *judged(server, "--set", "budget.usd=1", "--set", "judge.version=v2")]) == 2
    assert "no price" in capsys.readouterr().err


def test_labels_correct_a_comparison(
    tmp_path: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    server.lenient = {"No idea about 5"}  # so also about 50 to 59
    write_outputs(tmp_path / "new.jsonl", set(range(30)))
    write_outputs(tmp_path / "old.jsonl", set(range(20)))
    labels = []
    for name in ("new", "old"):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        labels += [
            {"id": row["id"], "output": row["output"], "label": row["answers"][0] in row["output"]} for row in rows[::2]
        ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    assert main(["score", "new.jsonl", *judged(server, "--set", "judge.labels=labels.jsonl"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["exact_match"] == pytest.approx(40 / 60)
    assert summary["judge"]["corrected"] == pytest.approx(0.5, abs=0.05)
    assert gate(*judged(server, "--set", "judge.labels=labels.jsonl"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test"] == "prediction-powered"
    assert [one["labels"] for one in found["systems"]] == [30, 30]
    assert found["difference"] == pytest.approx(1 / 6, abs=0.05)
    (tmp_path / "labels.jsonl").write_text('{"id": 1, "label": true}\n')
    assert gate(*judged(server, "--set", "judge.labels=labels.jsonl")) == 2


def test_a_judge_of_pairs_is_asked_in_both_orders(
    tmp_path: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_outputs(tmp_path / "new.jsonl", set(range(30)), 40)
    write_outputs(tmp_path / "old.jsonl", set(range(10)), 40)
    preference = judged(server, "--set", "judge.scale=preference")
    assert gate(*preference, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"]) == (0.75, 0.25), "20 of 40 are won, the others are the same output"
    assert server.judged == 40
    server.prefers_first = True
    assert gate(*preference, "--set", "judge.version=v2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"]) == (0.5, 0.5), "a preference for the first place is none"
    assert main(["score", "new.jsonl", *preference]) == 2


def test_corrected_intervals_cover_where_the_judge_is_biased_by_10_points() -> None:
    """Of 200 draws: 300 questions, 100 labelled; the judge passes wrong answers of `new` 10 points too often."""
    draw = np.random.default_rng(7)
    truth, covered, naive = 0.05, 0, 0
    for _ in range(200):
        systems: list[System] = []
        labelled = draw.permutation(300)[:100]
        for name, rate, pass_wrong in (("new", 0.6, 0.25), ("old", 0.55, 0.0)):
            right = draw.random(300) < rate
            verdict = np.where(right, draw.random(300) < 0.95, draw.random(300) < pass_wrong)
            label: dict[int, Any] = {int(n): float(right[n]) for n in labelled}
            answers = [Answered(str(n), float(verdict[n]), label=label.get(n, float("nan"))) for n in range(300)]
            systems.append(System(name, tuple(answers), judge="a judge"))
        pair = compare_systems(systems).pairs[0]
        assert pair.test == "prediction-powered"
        covered += pair.ci_low <= truth <= pair.ci_high
        plain = [System(one.name, one.answers) for one in systems]
        wrong = compare_systems(plain).pairs[0]
        naive += wrong.ci_low <= truth <= wrong.ci_high
    assert covered >= 182, "nominal 95 % of 200 is 190; 182 is two standard errors and a half below"
    assert naive < 160, "the judge's own interval does not hold"
