"""Break-even in every report: the bill, when a passing pair has repaid it, and unknown values."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from analysis.measured import TEACHER, cell_of, config_of, correlated
from fractionate.cli import main
from fractionate.report.facts import Facts
from fractionate.report.line_charts import break_even_chart
from fractionate.report.section import Table
from fractionate.report.sections import break_even
from fractionate.run.attempt_rows import attempt_lines
from fractionate.run.folder import RunFolder, write_rows
from fractionate.types import Cell, Component, Usage

LOCAL = "local:org/Tiny-1B"
PRICES = {
    TEACHER: {"input_per_million": 10.0, "output_per_million": 40.0},
    LOCAL: {"per_hour": 1.8},
}
RATES = {"input_per_s": [2000.0, 2000.0], "output_per_s": [500.0, 500.0], "device": "cpu", "cores": 2, "batch_size": 4}


def cells(n: int = 400, student: float = 0.8) -> list[Cell]:
    """An undistilled pair, D-R in the teacher's place as good (or worse), and the baselines that controls ask for."""
    right, weak = correlated(0.8, n, 1, noise=0.0), correlated(0.2, n, 2)
    return [
        cell_of(weak, "single", "none"),
        cell_of(weak, "single-cot", "none"),
        cell_of(right),
        cell_of(correlated(student, n, 1, noise=0.0), decomposer="D-R"),
        cell_of(weak, decomposer="student"),
    ]


def chance(number: int, sample: int, solved: bool = True) -> dict[str, Any]:
    row: dict[str, Any] = {"id": f"t-{number}", "sample": sample, "status": "ok", "subquestions": ["a?"]}
    row |= {"decomposition": "1. a?", "dropped": 0, "output": "x", "prediction": None, "exact_match": 0.0, "f1": 0.0}
    usage = (asdict(Usage(1, 100, 0, 50)), asdict(Usage(1, 200, 0, 80)))
    return row | {"solved": solved, "decomposer_usage": usage[0], "solver_usage": usage[1]}


def write_run(path: Path, measured: list[Cell], **config: Any) -> Path:
    folder = RunFolder(path)
    table = {"prices": PRICES, "run": {"variants": ["D-R"]}, **config}
    folder.student("D-R").mkdir(parents=True)
    write_rows(folder.attempt_lines, attempt_lines(measured))
    write_rows(folder.demonstrations, [chance(n, 0) for n in range(30)] + [chance(n, 1) for n in range(10)])
    folder.config.write_text(json.dumps(config_of(**table).model_dump(mode="json")))
    folder.throughput.write_text(json.dumps({LOCAL: RATES}))
    training = {"examples": 25, "seconds": 5400.0, "parameters": 10**9}
    (folder.student("D-R") / "training.json").write_text(json.dumps(training))
    return path


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["plan", "break-even", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_bill_and_what_it_is_paid_back_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", cells())
    assert main(["report", str(run), "--quiet"]) == 0
    capsys.readouterr()
    found = planned(capsys, run, "--questions", 250_000)
    bill = {row["item"]: row["usd"] for row in found["bill"]}
    asked, written = 10e-6, 40e-6
    assert bill["demonstrations"] == pytest.approx(30 * (100 * asked + 50 * written))
    assert bill["screening"] == pytest.approx(30 * (200 * asked + 80 * written))
    assert bill["further chances"] == pytest.approx(10 * (300 * asked + 130 * written))
    assert bill["training"] == pytest.approx(1.5 * 1.8)
    # Tokens of question i wobble by i % 7. Solvers: 5 cells; decomposers: the teacher's cell and two of the local base.
    wobble = sum(i % 7 for i in range(400))
    solving = 5 * ((400 * 300 + wobble) * asked + (400 * 120 + wobble) * written)
    teacher = (400 * 200 + wobble) * asked + (400 * 60 + wobble) * written
    machine = 1.8 / 3600 / 2 * ((400 * 200 + wobble) / 2000 + (400 * 60 + wobble) / 500)
    assert bill["evaluation"] == pytest.approx(solving + teacher + 2 * machine)
    assert found["usd"] == pytest.approx(sum(bill.values()))
    (pair,) = found["pairs"]
    assert (pair["decomposer"], pair["solver"], found["configurations"]) == ("D-R", "teacher", 1)
    rate = (teacher - machine) / 400
    assert pair["saving_per_1000"] == pytest.approx(1000 * rate)
    assert pair["questions"] == pytest.approx(found["usd"] / rate, abs=1)
    assert pair["questions_low"] <= pair["questions"] <= pair["questions_high"]
    assert [each["questions"] for each in pair["saved"]] == [10**4, 10**6, 10**8, 250_000]
    for each in pair["saved"]:
        assert each["usd"] == pytest.approx(rate * each["questions"] - found["usd"])
        assert each["low"] <= each["usd"] <= each["high"]


def test_every_report_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", cells())
    assert main(["report", str(run), "--quiet"]) == 0
    for name in ("report.md", "report.html"):
        text = (run / name).read_text()
        for words in ("Break-even", "further chances", "paid back after", "100,000,000"):
            assert words in text, (name, words)
    capsys.readouterr()
    assert main(["plan", "break-even", str(run), "--plot", str(tmp_path / "b.svg")]) == 0
    out = capsys.readouterr().out
    assert "static, D-R → teacher" in out
    assert "never" not in out
    assert (tmp_path / "b.svg").read_text().startswith("<?xml")
    section = break_even.section(Facts(json.loads((run / "results.json").read_text())))
    assert section is not None
    tables = [block for block in section.body if isinstance(block, Table)]
    assert len(tables) == len(section.body) - 1, "all but the drawing are tables"
    for table in tables:
        assert all(set(row) <= {column.key for column in table.columns} for row in table.rows)


def test_the_drawing_begins_at_the_bill_and_crosses_nothing_saved_where_it_is_paid_back(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", cells())
    assert main(["report", str(run), "--quiet"]) == 0
    found = json.loads((run / "results.json").read_text())["break_even"]
    svg = ElementTree.fromstring(break_even_chart(found["pairs"][0], found["usd"], 860, 300, "k"))
    dot = svg.find("circle")
    line = next(path for path in svg.iter("path") if path.get("class") is None)
    zero = next(one for one in svg.iter("line") if one.get("class") == "limit")
    assert dot is not None
    (x1, y1), (x2, y2) = ([float(n) for n in place.split(",")] for place in str(line.get("d"))[1:].split("L"))
    across, down = float(str(dot.get("cx"))), float(str(dot.get("cy")))
    assert y1 + (y2 - y1) * (across - x1) / (x2 - x1) == pytest.approx(down, abs=0.3)
    assert down == pytest.approx(float(str(zero.get("y1"))), abs=0.1)
    # A linear axis: the bill and what is saved at the end are as far from nothing as their dollars say.
    end = found["pairs"][0]["questions"] * 2.5
    saved = found["pairs"][0]["saving_per_1000"] * end / 1000 - found["usd"]
    assert (down - y2) / (y1 - down) == pytest.approx(saved / found["usd"], rel=0.02)


def test_no_drawing_of_what_is_never_paid_back(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", cells())
    assert main(["report", str(run), "--quiet"]) == 0
    results = json.loads((run / "results.json").read_text())
    results["break_even"]["pairs"][0] |= {"questions": None, "questions_low": None, "questions_high": None}
    section = break_even.section(Facts(results))
    assert section is not None
    assert all(isinstance(block, Table) for block in section.body)


def test_two_decomposers_of_one_set_share_their_decompositions(tmp_path: Path, capsys: Any) -> None:
    """The teacher's subquestions are asked for once, however many solvers and strategies answer along them."""
    once = write_run(tmp_path / "once", cells(60))
    more = write_run(tmp_path / "more", [*cells(60), cell_of([1.0] * 60, "stepwise")])
    own = write_run(tmp_path / "own", [*cells(60), cell_of([1.0] * 60, "dynamic")])
    evaluation = {}
    for run in (once, more, own):
        assert main(["report", str(run), "--quiet"]) == 0
        evaluation[run.name] = next(
            row["usd"]
            for row in json.loads((run / "results.json").read_text())["break_even"]["bill"]
            if row["item"] == "evaluation"
        )
    wobble = sum(i % 7 for i in range(60))
    solving = (60 * 300 + wobble) * 10e-6 + (60 * 120 + wobble) * 40e-6
    decomposing = (60 * 200 + wobble) * 10e-6 + (60 * 60 + wobble) * 40e-6
    assert evaluation["more"] - evaluation["once"] == pytest.approx(solving)
    assert evaluation["own"] - evaluation["once"] == pytest.approx(solving + decomposing)


def test_what_has_no_price_is_unknown_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_token = {TEACHER: PRICES[TEACHER], LOCAL: {"input_per_million": 0.01, "output_per_million": 0.01}}
    run = write_run(tmp_path / "run", cells(), prices=by_token)
    assert main(["report", str(run), "--quiet"]) == 0
    capsys.readouterr()
    found = planned(capsys, run)
    assert found["usd"] is None
    assert {row["item"] for row in found["bill"] if row["usd"] is None} == {"training"}
    (pair,) = found["pairs"]
    assert pair["saving_per_1000"] > 0
    assert pair["questions"] is None
    assert pair["saved"] == []
    assert main(["plan", "break-even", str(run)]) == 0
    out = capsys.readouterr().out
    assert "give prices" in out
    assert "unknown (the bill is unknown)" in out
    assert main(["plan", "break-even", str(run), "--plot", str(tmp_path / "b.svg")]) == 2
    assert "the bill is unknown" in capsys.readouterr().err


def test_demonstrations_of_an_earlier_version_are_no_free_ones(tmp_path: Path, capsys: Any) -> None:
    run = write_run(tmp_path / "run", cells(40))
    rows = [json.loads(line) for line in (run / "demonstrations.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in row.items() if not key.endswith("_usage")} for row in rows]
    write_rows(run / "demonstrations.jsonl", kept)
    assert main(["report", str(run), "--quiet"]) == 0
    capsys.readouterr()
    (row,) = [row for row in planned(capsys, run)["bill"] if row["item"] == "demonstrations"]
    assert row["usd"] is None
    assert "run fractionate demonstrate again" in row["unknown"]


def test_a_student_from_elsewhere_has_an_unknown_bill(tmp_path: Path, capsys: Any) -> None:
    student = "openai:theirs"
    models = {"teacher": TEACHER, "decomposers": ["none", "teacher", student], "distilled": [student]}
    measured = cells(40)
    theirs = measured[3]
    elsewhere = Component(student, "distilled", "decomposer", student, trained_for="decomposer")
    measured[3] = replace(theirs, decomposer=elsewhere)
    run = write_run(tmp_path / "run", measured, models=models, run={"variants": []})
    assert main(["report", str(run), "--quiet"]) == 0
    capsys.readouterr()
    items = {row["item"]: row["unknown"] for row in planned(capsys, run)["bill"]}
    assert "trained elsewhere" in items["training"]
    assert "demonstrations" not in items


def test_a_worse_student_pays_nothing_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", cells(student=0.3))
    assert main(["report", str(run), "--quiet"]) == 0
    capsys.readouterr()
    assert planned(capsys, run)["pairs"] == []
    assert main(["plan", "break-even", str(run)]) == 0
    assert "not proven to be no worse and cheaper" in capsys.readouterr().out


def test_runs_that_are_pooled_have_one_bill_together(tmp_path: Path, capsys: Any) -> None:
    runs = [write_run(tmp_path / name, cells(60)) for name in ("one", "two")]
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "both"), "--quiet"]) == 0
    assert main(["report", str(runs[0]), "--quiet"]) == 0
    capsys.readouterr()
    alone, both = planned(capsys, runs[0]), planned(capsys, tmp_path / "both")
    assert both["usd"] == pytest.approx(2 * alone["usd"])
    assert both["training_hours"] == 3.0


@pytest.mark.parametrize(
    ("made", "arguments", "said"),
    [
        ("nothing", [], "is no folder"),
        ("folder", [], "run fractionate report first"),
        ("old", [], "is of an earlier version"),
        ("undistilled", [], "nothing was distilled"),
        ("run", ["--questions", "-5"], "questions must be a number above 0, not -5"),
        ("run", ["--plot", "b.pdf"], "written as .svg"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: str, arguments: list[str], said: str
) -> None:
    run = tmp_path / "run"
    if made == "folder":
        run.mkdir()
    elif made != "nothing":
        write_run(run, cells(20)[:3] if made == "undistilled" else cells(20))
        assert main(["report", str(run), "--quiet"]) == 0
    if made == "old":
        results = json.loads((run / "results.json").read_text())
        del results["break_even"]
        (run / "results.json").write_text(json.dumps(results))
    capsys.readouterr()
    assert main(["plan", "break-even", str(run), *arguments]) == 2
    out = capsys.readouterr()
    assert said in out.err
    assert out.err.count("\n") == 1
