"""A run with a learning curve: nested trainings, ordinary cells outside the verdict, and predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.measured import cell_of, config_of, correlated, matrix
from fractionate.analysis.pricing import Pricing
from fractionate.cli import main
from fractionate.config import load_config, parse_config
from fractionate.planning import learning_curve
from fractionate.report.curves import learning_curves
from fractionate.report.facts import Facts
from fractionate.report.results import build_results
from fractionate.report.run_cost import RunCost, Trained
from fractionate.report.section import Lines
from fractionate.report.sections import curve as curve_section
from fractionate.run.attempt_rows import read_jsonl
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import demonstrate_stage, run_everything, screen_stage, train_stage
from fractionate.students.trainer import TrainingReport
from fractionate.types import Cell, Component, Usage

STUDENTS = ["D-R", "D-R@1/4", "D-R@1/2"]


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    """A config whose teacher is always right and whose student is the tiny model."""
    pytest.importorskip("trl")
    for name, first, count in (("train", 0, 8), ("test", 100, 6)):
        rows = [{"question": f"What is number {first + n}?", "answer": f"it {n}"} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.toml").write_text(
        f"""
        data = {{train = "jsonl:train.jsonl", test = "jsonl:test.jsonl"}}
        run = {{variants = ["D-R"], strategies = ["single", "static"]}}
        train = {{batch_size = 2, lora_rank = 2}}
        curve = {{shares = ["1/2", 0.25]}}
        prices."local:{tiny_model}".input_per_million = 1.0
        prices."local:{tiny_model}".per_hour = 0.0
        [models]
        teacher = "echo:1"
        student = "local:{tiny_model}"
        options."local:{tiny_model}".max_tokens = 4
        """
    )
    return tmp_path


def learnt(run: Path, student: str) -> list[str]:
    rows = (run / "students" / student / "examples.jsonl").read_text().splitlines()
    return [json.loads(row)["problem_id"] for row in rows]


def said(cells: list[Cell]) -> list[Any]:
    return [
        (cell.strategy, cell.decomposer, cell.solver, [(a.output, a.prediction, a.score) for a in cell.attempts])
        for cell in cells
    ]


def test_a_run_trains_on_nested_shares_measures_and_reports_them(project: Path, capsys: Any) -> None:
    out = project / "run"
    assert main(["run", str(project / "run.toml"), "--out", str(out), "--quiet"]) == 0
    whole, quarter, half = (learnt(out, name) for name in ("D-R", "D-R~1~4", "D-R~1~2"))
    assert (len(quarter), len(half), len(whole)) == (2, 4, 8)
    assert set(quarter) < set(half) < set(whole)
    assert half == [one for one in whole if one in half], "in the order of the demonstrations"

    cells = {
        (cell.strategy, cell.decomposer.name, cell.solver.name): cell for cell in read_jsonl(out / "attempts.jsonl")
    }
    assert {key for key in cells if "@" in key[1]} == {("static", name, "teacher") for name in STUDENTS[1:]}
    component = cells["static", "D-R@1/4", "teacher"].decomposer
    assert (component.kind, component.variant, component.share) == ("student", "D-R", 0.25)

    results = json.loads((out / "results.json").read_text())
    assert {row["decomposer"] for row in results["verdict"]["evidence"] if "decomposer" in row} == {"D-R"}
    assert not any("@" in row[side] for row in results["comparisons"] for side in "ab")
    (curve,) = results["curve"]
    assert [(one["name"], one["amount"]) for one in curve["points"]] == [
        ("D-R@1/4", 2), ("D-R@1/2", 4), ("D-R", 8)
    ]  # fmt: skip
    assert [(one["factor"], one["amount"]) for one in curve["beyond"]] == [(2, 16)]
    assert all(one["low"] <= one["outcome"] <= one["high"] for one in curve["beyond"])
    assert [one["usd"] for one in curve["beyond"]] == [0.0], "an echo and a free machine cost nothing"
    assert {row["item"] for row in results["break_even"]["bill"]} >= {"training", "evaluation", "learning curve"}
    for name in ("report.md", "report.html"):
        text = (out / name).read_text()
        assert "Learning curve" in text
        assert "2 times as many" in text
    assert 'class="curve"' in (out / "report.html").read_text()

    capsys.readouterr()
    plot = project / "curve.svg"
    assert main(["plan", "curve", str(out), "--plot", str(plot)]) == 0
    assert "2 times as many" in capsys.readouterr().out
    assert plot.read_text().startswith("<?xml")
    assert main(["plan", "curve", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"curves": results["curve"]}


def test_a_curve_cut_off_in_training_resumes_to_the_same_run(
    project: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, cut: str = "") -> None:
        config = load_config(project / "run.toml", [f'run.store="{project / name}.sqlite"', 'run.name="same"'])
        with Run(config, project / name, project, Progress(quiet=True)) as opened:
            begun: list[str] = []

            def stage(text: str) -> None:
                begun.append(text)

            def advance(done: int, count: int) -> None:
                if cut and begun[-1].startswith(f"train {cut}:") and done == 2:
                    raise KeyboardInterrupt

            monkeypatch.setattr(opened.progress, "stage", stage)
            monkeypatch.setattr(opened.progress, "advance", advance)
            run_everything(opened)

    run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("cut", "D-R@1/2")
    assert (project / "cut/students/D-R~1~4").is_dir()
    assert not (project / "cut/students/D-R~1~2").exists()
    kept = (project / "cut/students/D-R~1~4/training.json").stat().st_mtime_ns
    run("cut")
    assert (project / "cut/students/D-R~1~4/training.json").stat().st_mtime_ns == kept, "what was trained is kept"
    for student in ("D-R", "D-R~1~4", "D-R~1~2"):
        files = [project / name / "students" / student / "adapter_model.safetensors" for name in ("whole", "cut")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert said(read_jsonl(project / "cut/attempts.jsonl")) == said(read_jsonl(project / "whole/attempts.jsonl"))
    whole, cut = (json.loads((project / name / "results.json").read_text()) for name in ("whole", "cut"))
    assert cut["curve"] == whole["curve"]
    assert cut["verdict"] == whole["verdict"]


def test_a_dry_run_forecasts_the_shares(project: Path, capsys: Any) -> None:
    config = ["run", str(project / "run.toml"), "--dry-run", "--quiet", "--out", str(project / "dry")]
    assert main(config) == 0
    lines = capsys.readouterr().out.splitlines()
    trained = {
        name: f"train {name} (decomposer): up to {count} examples"
        for name, count in zip(STUDENTS, (8, 2, 4), strict=True)
    }
    for start in trained.values():
        assert any(line.startswith(start) for line in lines), start
    assert main([*config, "--json"]) == 0
    with_curve = json.loads(capsys.readouterr().out)
    text = (project / "run.toml").read_text()
    (project / "run.toml").write_text("\n".join(line for line in text.splitlines() if "curve" not in line))
    assert main([*config, "--json"]) == 0
    without = json.loads(capsys.readouterr().out)
    calls = [sum(one["stage"]["calls"] for one in plan["stages"]) for plan in (with_curve, without)]
    assert calls[0] - calls[1] == 2 * 2 * 6, (
        "each of the two decomposes six questions, and the teacher solves along them"
    )
    assert main([*config, "--json", "--curve"]) == 0
    by_flag = json.loads(capsys.readouterr().out)
    # 1/8, 1/4 and 1/2 of eight demonstrations: three students.
    assert sum(one["stage"]["calls"] for one in by_flag["stages"]) - calls[1] == 3 * 2 * 6


def test_a_share_that_is_no_amount_of_its_own_is_left_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two demonstrations 1/8, 1/4 and 1/2 are one: only the first of them is trained."""

    def train(base: str, examples: list[Any], out: Path, *_: object, **__: object) -> TrainingReport:
        out.mkdir()
        (out / "training.json").write_text(json.dumps({"examples": len(examples), "left_out": 0, "seconds": 1.0}))
        return TrainingReport(len(examples), 0, 1, 1, 1, 1.0, 1.0, 1.0, 1.0, base, "", "", 0, {})

    monkeypatch.setattr("fractionate.students.train.train_student", train)
    config = load_config(
        project / "run.toml",
        ["data.train=jsonl:train.jsonl@0-1", "train.min_examples=1", 'curve.shares=["1/8", "1/4", "1/2"]'],
    )
    with Run(config, project / "few", project, Progress(quiet=True)) as run:
        for stage in (demonstrate_stage, screen_stage, train_stage):
            stage(run)
        assert {pair.decomposer.name for pair in run.pairs()} == {"none", "teacher", "student", "D-R", "D-R@1/8"}
        assert {one.name for one in run.left_out()} == {"D-R@1/4", "D-R@1/2"}
        assert any(
            "D-R@1/4 was not trained: 1/4 of its demonstrations are 1, as many" in one for one in run.notes.all()
        )
    assert {path.name for path in (project / "few/students").iterdir() if path.is_dir()} == {"D-R", "D-R~1~8"}


# ---------------------------------------------------------------- without training


BASE = "local:org/Tiny-1B"


def student(share: float = 1.0, name: str = "D-R", base: str = BASE) -> Component:
    shown = name if share == 1 else f"{name}@1/{round(1 / share)}"
    return Component(shown, "student", "decomposer", base, "D-R", "decomposer", ("atlas",), share)


def on_curve(n: int = 200) -> list[Cell]:
    return [
        cell_of(correlated(value, n, 50 + rank), decomposer=student(share))
        for rank, (share, value) in enumerate([(0.25, 0.35), (0.5, 0.5), (1.0, 0.6)])
    ]


def spent(hours: float | None = 2.0) -> RunCost:
    trained = {
        student(share).name: [Trained(BASE, round(400 * share), None if hours is None else hours * share, 10**9, share)]
        for share in (0.25, 0.5, 1.0)
    }
    demonstrating = {"demonstrations": {"t": Usage(1, 10**6, 0, 0)}, "screening": {"t": Usage(1, 2 * 10**6, 0, 0)}}
    return RunCost(demonstrating, trained)


def prices(**of: Any) -> Pricing:
    return Pricing(config_of(prices={"t": {"input_per_million": 3.0, "output_per_million": 1}, **of}).prices)


def test_shares_change_nothing_of_what_is_judged() -> None:
    judged = [cell for cell in matrix(40) if cell.solver.name == "teacher" and cell.decomposer.name != "D-R"]
    judged.append(on_curve(40)[-1])
    alone, with_shares = (
        build_results(cells, config_of(), [], {"name": "x"}, spent=spent())
        for cells in (judged, [*judged, *on_curve(40)[:2]])
    )
    assert len(with_shares["cells"]) == len(alone["cells"]) + 2
    for key in ("verdict", "comparisons", "generalisation", "agreement"):
        assert with_shares[key] == alone[key], key


def test_the_curve_is_that_of_the_outcomes_and_costs_are_scaled() -> None:
    cells = on_curve()
    (curve,) = learning_curves(cells, spent(), prices(**{BASE: {"per_hour": 1.5}}))
    fitted = learning_curve([100, 200, 400], [cell.values() for cell in cells])
    for told, expected in zip(curve["beyond"], fitted.beyond((2,)), strict=True):
        shown = (told["outcome"], told["low"], told["high"])
        assert shown == pytest.approx((expected.outcome, expected.low, expected.high))
    # Demonstrations took $3 and $6; the training of the whole student two hours at $1.50.
    assert [one["usd"] for one in curve["beyond"]] == pytest.approx([9 + 2 * 3.0])
    (unknown,) = learning_curves(cells, spent(hours=None), prices(**{BASE: {"per_hour": 1.5}}))
    assert [one["usd"] for one in unknown["beyond"]] == [None]
    (unpriced,) = learning_curves(cells, spent(), prices())
    assert [one["usd"] for one in unpriced["beyond"]] == [None]


def test_a_curve_that_begins_near_zero_is_refused() -> None:
    """SmolLM2 on atlas: 1.6 %, 1.6 %, 14 %, 25 %. None of the intervals held (docs/experiments/atlas-curve.md)."""
    values = [(0.25, 0.015), (0.5, 0.03), (1.0, 0.25)]
    cells = [cell_of(correlated(value, 200, 50), decomposer=student(share)) for share, value in values]
    (curve,) = learning_curves(cells, spent(), prices())
    assert curve["points"][1]["value"] < 0.05, "the test's own outcomes"
    assert curve["refused"].startswith("with 200 the outcome is near zero")
    assert curve["beyond"] == []
    facts = Facts({**build_results(cells, config_of(), [], {"name": "x"}, spent=spent()), "curve": [curve]})
    section = curve_section.section(facts)
    assert section is not None
    assert any(isinstance(block, Lines) and curve["refused"] in block.lines[0] for block in section.body)
    (begun,) = learning_curves(on_curve(), spent(), prices())
    assert begun["refused"] == begun["note"] == ""


def test_questions_of_one_passage_are_one_unit_of_the_curve() -> None:
    def grouped(cell: Cell) -> Cell:
        attempts = [
            replace(attempt, problem=replace(attempt.problem, group=f"g{place // 20}"))
            for place, attempt in enumerate(cell.attempts)
        ]
        return replace(cell, attempts=tuple(attempts))

    pricing = prices()
    (alone,) = learning_curves(on_curve(), spent(), pricing)
    (together,) = learning_curves([grouped(cell) for cell in on_curve()], spent(), pricing)
    assert alone["beyond"] != together["beyond"]


def test_students_of_several_sizes_make_a_curve_over_parameters() -> None:
    sizes = {"small": 10**8, "middle": 2 * 10**8, "large": 3 * 10**8}
    cells = [
        cell_of(correlated((0.4, 0.5, 0.54)[rank], 150, 70 + rank), decomposer=student(name=name, base=f"local:{name}"))
        for rank, name in enumerate(sizes)
    ]
    trained = {name: [Trained(f"local:{name}", 400, 1.0, parameters)] for name, parameters in sizes.items()}
    few = cell_of([0.0] * 150, decomposer=student(name="few", base="local:few"))
    trained["few"] = [Trained("local:few", 40, 1.0, 3 * 10**8)]
    (curve,) = learning_curves([*cells, few], RunCost({}, trained), prices(**{"local:large": {"per_hour": 2.0}}))
    assert curve["over"] == "parameters"
    assert [one["amount"] for one in curve["points"]] == [10**8, 2 * 10**8, 3 * 10**8]
    (following,) = curve["beyond"]
    assert (following["factor"], following["amount"]) == (1.5, 4.5e8)
    assert following["usd"] == pytest.approx(1.5 * 1.0 * 2.0)
    trained["large"] = [Trained("local:large", 400, 1.0, 6 * 10**8)]
    (far,) = learning_curves(cells, RunCost({}, trained), prices())
    assert far["beyond"] == []
    assert far["note"].startswith("The next size is 3 times the largest one. A curve predicts up to 2 times")


def test_a_curve_of_one_point_says_so() -> None:
    cells = [on_curve(20)[0]]
    (curve,) = learning_curves(cells, spent(), prices())
    assert curve["refused"].startswith("a curve of one point (100)")
    assert curve["beyond"] == []


def test_without_shares_there_is_no_curve() -> None:
    assert learning_curves([on_curve(20)[-1]], spent(), prices()) == []
    assert learning_curves(on_curve(20), None, prices()) == []


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        ("{shares = []}", "'curve.shares': a curve of one point says nothing about more"),
        ("{shares = [0.5, 1]}", "a share of the demonstrations lies between 0 and 1"),
        ('{shares = ["0/4"]}', "a share of the demonstrations lies between 0 and 1"),
        ('{shares = ["1/0"]}', "a share of the demonstrations lies between 0 and 1"),
        ('{shares = ["half"]}', 'write "1/4"'),
        ('{shares = ["-1/4"]}', 'write "1/4"'),
        ("{shares = [true]}", 'write "1/4"'),
        ('{shares = ["1/4", 0.25]}', "a share is named twice"),
        ("{share = [0.5]}", "did you mean 'curve.shares'?"),
        ('{students = ["E-A"]}', "curve.students: 'E-A' is no student that this run trains (D-R)"),
    ],
)
def test_a_bad_curve_is_refused_in_one_line(tmp_path: Path, capsys: Any, curve: str, said: str) -> None:
    (tmp_path / "run.toml").write_text(f'data.test = "atlas"\ncurve = {curve}\n[models]\nteacher = "echo:"\n')
    assert main(["run", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_curve_needs_a_student(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "run.toml").write_text('data.test = "atlas"\nrun.variants = []\n[models]\nteacher = "echo:"\n')
    assert main(["run", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out"), "--curve"]) == 2
    assert "a learning curve needs a student to train" in capsys.readouterr().err


def test_a_run_without_a_curve_says_how_to_get_one(tmp_path: Path, capsys: Any) -> None:
    rows = [{"question": f"What is {n}?", "answer": str(n)} for n in range(4)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {
        "data": {"test": "jsonl:test.jsonl"},
        "models": {"teacher": "echo:"},
        "run": {"variants": [], "strategies": ["static"]},
    }
    with Run(parse_config(table), tmp_path / "run", tmp_path, Progress(quiet=True)) as run:
        run_everything(run)
    assert main(["plan", "curve", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "no student in" in err
    assert "run CONFIG --curve" in err
    assert err.count("\n") == 1
