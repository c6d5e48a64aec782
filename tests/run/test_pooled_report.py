"""Several runs pooled into one report: means over runs by question, each run's values, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from measured import cell_of

from fractionate.analysis.matrix import pool_cells
from fractionate.cli import main
from fractionate.config import parse_config
from fractionate.errors import UsageError
from fractionate.report.run_cost import RunCost, Trained
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.spending import add_spending
from fractionate.run.stages import run_everything
from fractionate.types import Usage


def run_in(folder: Path, name: str, accuracy: float, rows: int = 20, **settings: object) -> Path:
    """Run one config whose solver is a recording, right on this share of the questions in this run."""
    own = folder / f"inputs-{name}"
    own.mkdir()
    asked = [{"question": f"Number {n}?", "answer": f"it {n}"} for n in range(rows)]
    (own / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    said = [{"index": n, "output": f"The answer is: {'it' if n < accuracy * rows else 'not'} {n}"} for n in range(rows)]
    (own / "solver.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    config = parse_config(
        {
            "data": {"test": "jsonl:test.jsonl"},
            "models": {"teacher": "echo:0.9", "solver": "recorded:solver.jsonl"},
            "run": {"variants": [], "strategies": ["single"], "name": name, **settings},
        }
    )
    with Run(config, folder / name, own, Progress(quiet=True)) as run:
        run_everything(run)
    return folder / name


def test_a_question_counts_with_its_mean_over_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_in(tmp_path, f"seed-{number}", accuracy) for number, accuracy in enumerate((0.2, 0.5, 0.9))]
    values = [
        {cell["name"]: cell["value"] for cell in json.loads((run / "results.json").read_text())["cells"]}
        for run in runs
    ]
    out = tmp_path / "all"
    assert main(["report", *map(str, runs), "--out", str(out), "--json"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert json.loads(capsys.readouterr().out) == results
    for cell in results["cells"]:
        of_runs = [value[cell["name"]] for value in values]
        assert cell["value"] == pytest.approx(sum(of_runs) / 3)
        assert cell["ci_low"] < cell["value"] < cell["ci_high"]
        assert results["runs"][cell["name"]] == dict(zip(("seed-0", "seed-1", "seed-2"), of_runs, strict=True))
    assert "Pooled over 3 runs" in results["notes"][0]
    assert "## Run by run" in (out / "report.md").read_text()
    assert 'id="runs"' in (out / "report.html").read_text()


def test_runs_of_other_questions_or_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, shorter = run_in(tmp_path, "a", 0.5), run_in(tmp_path, "b", 0.5, rows=19)
    assert main(["report", str(first), str(shorter), "--out", str(tmp_path / "out")]) == 2
    assert "asked other questions in" in capsys.readouterr().err
    assert main(["report", str(first), str(first), "--out", str(tmp_path / "out")]) == 2
    assert "one name" in capsys.readouterr().err
    assert main(["report", str(first), str(shorter)]) == 2
    assert "add --out DIR" in capsys.readouterr().err
    with pytest.raises(UsageError, match="asked other questions in atlas#test/static/teacher/teacher"):
        pool_cells({"one": [cell_of([1, 0])], "two": [cell_of([1, 0], first=1)]})


def test_runs_of_different_configs_are_refused_and_seeds_may_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_in(tmp_path, "a", 0.5)
    seeded, capped = run_in(tmp_path, "b", 0.6, seed=1), run_in(tmp_path, "c", 0.6, cap=3)
    assert main(["report", str(first), str(seeded), "--out", str(tmp_path / "out")]) == 0
    assert main(["report", str(first), str(capped), "--out", str(tmp_path / "out")]) == 2
    assert "a and c are runs of different configs: run.cap is 'default' and 3" in capsys.readouterr().err


def test_a_cell_of_some_runs_is_pooled_over_those() -> None:
    both, one = cell_of([1, 0]), cell_of([1, 1], solver="E-A")
    pooled, values = pool_cells({"x": [both, one], "y": [cell_of([0, 0])]})
    assert [cell.values() for cell in pooled] == [[0.5, 0.0], [1.0, 1.0]]
    assert [sorted(of_run) for of_run in values.values()] == [["x", "y"], ["x"]]


def test_what_several_runs_took_is_the_sum_of_each_model_and_item() -> None:
    one = RunCost(
        {"evaluation": {"a": Usage(1, 10, 0, 100), "b": Usage(1, 1, 0, 1)}},
        {"D-R": [Trained(8, 0.5, 100)]},
        {"screening": "lost"},
    )
    two = RunCost({"evaluation": {"a": Usage(2, 20, 0, 200)}, "demonstrations": {"a": Usage(3, 3, 0, 3)}}, {
        "D-R": [Trained(9, 0.25, 100)], "E-A": [Trained(7, 1.0, 100)]
    })  # fmt: skip
    both = add_spending([one, two])
    assert both.usage == {
        "evaluation": {"a": Usage(3, 30, 0, 300), "b": Usage(1, 1, 0, 1)},
        "demonstrations": {"a": Usage(3, 3, 0, 3)},
    }
    assert both.trained == {"D-R": [Trained(8, 0.5, 100), Trained(9, 0.25, 100)], "E-A": [Trained(7, 1.0, 100)]}
    assert both.missing == {"screening": "lost"}
    assert one.usage["evaluation"]["a"] == Usage(1, 10, 0, 100), "the runs' own stay as they are"
