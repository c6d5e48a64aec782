"""A whole run on the fake model: its files, its results, and that it resumes, repeats and refuses as promised."""

import json
import shutil
from pathlib import Path

import pytest

from fractionate.config import parse_config
from fractionate.errors import UsageError
from fractionate.pipeline.progress import Progress
from fractionate.pipeline.run import Run
from fractionate.pipeline.stages import (
    check_before_spending,
    demonstrate_stage,
    evaluate_stage,
    report_stage,
    run_everything,
    screen_stage,
)

CELL = {
    "dataset", "split", "strategy", "decomposer", "solver", "metric", "n", "value", "ci_low", "ci_high", "unextracted",
    "usage", "usd", "latency_p50_s", "latency_p95_s",
}  # fmt: skip
COMPARISON = {"a", "b", "difference", "ci_low", "ci_high", "p_value", "p_adjusted", "test"}
USAGE = {"calls", "input_tokens", "cached_input_tokens", "output_tokens"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, first in (("train", 0), ("test", 100)):
        rows = [{"question": f"What is number {first + n}?", "answer": f"it {n}"} for n in range(30)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def open_run(folder: Path, out: str = "run", **changes: object) -> Run:
    table: dict[str, dict[str, object]] = {
        "data": {"train": "jsonl:train.jsonl", "test": "jsonl:test.jsonl"},
        "models": {"teacher": "echo:0.8", "solvers": ["echo:0.5", "echo:0.6"], "decomposers": ["none", "teacher"]},
        "run": {"variants": [], "strategies": ["single", "single-cot", "static", "stepwise", "dynamic"]},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            table.setdefault(section, {})[name] = value
        else:
            table[section] = value  # type: ignore[assignment]
    return Run(parse_config(table), folder / out, folder, Progress(quiet=True))


def test_a_run_leaves_results_in_the_form_of_the_contract(folder: Path) -> None:
    with open_run(folder) as run:
        results = run_everything(run)
    assert json.loads((folder / "run/results.json").read_text()) == results
    assert results["schema"] == 1
    assert {(c["strategy"], c["decomposer"], c["solver"]) for c in results["cells"]} == {
        (strategy, decomposer, solver)
        for strategy, decomposer in [
            ("single", "none"), ("single-cot", "none"),
            ("static", "teacher"), ("stepwise", "teacher"), ("dynamic", "teacher"),
        ]
        for solver in ("echo:0.5", "echo:0.6")
    }  # fmt: skip
    for cell in results["cells"]:
        assert set(cell) >= CELL
        assert cell["n"] == 30
        assert cell["ci_low"] <= cell["value"] <= cell["ci_high"]
        assert set(cell["usage"]["decomposer"]) >= USAGE
        assert set(cell["usd"]) >= {"decomposer", "solver", "total"}
        decomposing = {"none": 0, "teacher": 60 if cell["strategy"] == "dynamic" else 30}[cell["decomposer"]]
        assert cell["usage"]["decomposer"]["calls"] == decomposing
    for comparison in results["comparisons"]:
        assert set(comparison) >= COMPARISON
    assert results["verdict"]["distill"] in {"decomposer", "solver", "both", "neither", "undecided"}
    for name in ("report.md", "report.html", "attempts.jsonl", "calls.sqlite"):
        assert (folder / "run" / name).stat().st_size > 0


def test_a_second_run_makes_no_call_and_the_same_results(folder: Path) -> None:
    with open_run(folder) as run:
        run_everything(run)
        assert run.engine.counters.sent > 0
    before = (folder / "run/results.json").read_bytes()
    with open_run(folder) as run:
        run_everything(run)
        assert run.engine.counters.sent == 0
    assert (folder / "run/results.json").read_bytes() == before


def test_stages_one_by_one_leave_what_a_whole_run_leaves(folder: Path) -> None:
    with open_run(folder, "whole", run__name="same") as run:
        run_everything(run)
    for stage in (check_before_spending, evaluate_stage, report_stage):
        with open_run(folder, "staged", run__name="same") as run:
            stage(run)  # type: ignore[operator]
    for name in ("results.json", "attempts.jsonl", "report.md"):
        assert (folder / "staged" / name).read_text() == (folder / "whole" / name).read_text()


def test_an_interrupted_run_resumes_to_the_same_results(folder: Path) -> None:
    with open_run(folder, "whole", run__name="same") as run:
        run_everything(run)
        calls = run.engine.counters.sent
    with open_run(folder, "cut", run__name="same", run__strategies=["single"]) as run:
        evaluate_stage(run)
        done = run.engine.counters.sent
    with open_run(folder, "cut", run__name="same") as run:
        run_everything(run)
        assert run.engine.counters.sent == calls - done
    whole, cut = (json.loads((folder / name / "results.json").read_text()) for name in ("whole", "cut"))
    assert cut == whole


def test_demonstrations_get_further_chances_only_where_they_failed(folder: Path) -> None:
    with open_run(folder, run__variants=["D-R"], run__samples=3) as run:
        demonstrations = demonstrate_stage(run)
        screening = screen_stage(run)
    assert screening is not None
    by_question: dict[str, list[bool]] = {}
    for one in demonstrations:
        by_question.setdefault(one.problem_id, []).append(one.correct)
    assert len(by_question) == 30
    for outcomes in by_question.values():
        assert not any(outcomes[:-1]), "a question that passed is asked no more"
        assert outcomes[-1] or len(outcomes) == 3
    assert screening.kept_after[-1] == sum(outcomes[-1] for outcomes in by_question.values())
    assert len((folder / "run/screened.jsonl").read_text().splitlines()) == len(screening.kept)


def test_overlap_stops_the_run_unless_allowed_by_name_and_is_reported(folder: Path) -> None:
    shutil.copy(folder / "train.jsonl", folder / "test.jsonl")
    with open_run(folder) as run, pytest.raises(UsageError, match="30 of 30 test questions"):
        run_everything(run)
    with open_run(folder, data__allow_overlap=["jsonl:test.jsonl"]) as run:
        results = run_everything(run)
    assert any("Overlap allowed by name" in note for note in results["notes"])
    assert "Overlap allowed by name" in (folder / "run/report.md").read_text()


def test_cells_of_students_that_nobody_trains_are_left_out_and_said(folder: Path) -> None:
    with open_run(folder, models__decomposers=["none", "teacher", "D-R"]) as run:
        results = run_everything(run)
    assert "D-R" not in {cell["decomposer"] for cell in results["cells"]}
    assert any("D-R" in note and "left out" in note for note in results["notes"])


def test_students_to_train_are_the_variants_and_those_the_matrix_names(folder: Path) -> None:
    with open_run(folder, run__variants=["D-R", "E-A"], models__decomposers=["none", "teacher", "D-T", "D-R"]) as run:
        assert run.variants == ["D-R", "E-A", "D-T"]
        players = {(pair.decomposer, pair.solver) for pair in run.pairs if pair.strategy == "static"}
    assert {decomposer for decomposer, _ in players} == {"teacher", "D-T", "D-R"}
    assert {solver for _, solver in players} == {"echo:0.5", "echo:0.6", "E-A"}


def test_two_test_files_are_told_apart(folder: Path) -> None:
    rows = [{"question": f"Who is number {n}?", "answer": "nobody"} for n in range(5)]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_run(folder, data__test=["jsonl:test.jsonl", "jsonl:more.jsonl"], run__strategies=["static"]) as run:
        results = run_everything(run)
    assert {(cell["split"], cell["n"]) for cell in results["cells"]} == {("test", 30), ("more", 5)}


def test_two_slices_of_one_file_are_told_apart(folder: Path) -> None:
    slices = ["jsonl:test.jsonl@0-9", "jsonl:test.jsonl@10-29"]
    with open_run(folder, data__test=slices, run__strategies=["static"]) as run:
        results = run_everything(run)
    assert sorted({cell["n"] for cell in results["cells"]}) == [10, 20]


def test_reports_are_made_again_at_other_prices_without_a_call(folder: Path) -> None:
    with open_run(folder) as run:
        run_everything(run)
    with open_run(folder, prices={"echo:0.8": {"input_per_million": 5.0, "output_per_million": 5.0}}) as run:
        results = report_stage(run)
        assert run.engine.counters.sent == 0
    assert any(cell["usd"]["decomposer"] for cell in results["cells"])


def test_the_forecast_counts_the_calls_that_a_run_makes(folder: Path) -> None:
    from fractionate.pipeline.forecast import forecast_run

    with open_run(folder) as run:
        planned = forecast_run(run)
        run_everything(run)
        assert planned.calls == run.engine.counters.sent
        assert forecast_run(run).calls == 0


def test_decomposers_asked_in_a_way_of_their_own_are_cells_of_their_own(folder: Path) -> None:
    ways = {"one": {"cap": 1}, "shown": {"shots": 1, "cap": "none"}}
    changes = {
        "decomposers": ways,
        "models__decomposers": ["teacher", *ways],
        "models__solvers": ["echo:0.5"],
        "run__strategies": ["static"],
        "run__cap": 2,
    }
    with open_run(folder, **changes) as run:
        (test,) = run.tests
        asked = {name: test.settings_of(name) for name in ("teacher", *ways)}
        results = run_everything(run)
    assert {name: (one.cap, one.shots) for name, one in asked.items()} == {
        "teacher": (2, 0), "one": (1, 0), "shown": (None, 1),
    }  # fmt: skip
    assert [cell["decomposer"] for cell in results["cells"]] == ["teacher", "one", "shown"]
    rows = [json.loads(line) for line in (folder / "run/attempts.jsonl").read_text().splitlines()]
    most = {name: max(len(row["subquestions"]) for row in rows if row["decomposer"] == name) for name in asked}
    assert most["one"] == 1
    assert most["teacher"] == 2
    compared = {(row["a"].split("/")[2], row["b"].split("/")[2]) for row in results["comparisons"]}
    assert compared >= {("one", "shown")}


def test_a_student_learns_from_its_own_part_of_the_data(folder: Path) -> None:
    students = {"first": {"variant": "D-T", "train": "jsonl:train.jsonl@0-9"}, "whole": {"variant": "D-R", "seed": 7}}
    with open_run(folder, students=students, run__seed=3) as run:
        assert run.students == ["first", "whole"]
        assert run.variants == ["D-T", "D-R"]
        assert [problem.index for problem in run.train_of("first").values()] == list(range(10))
        assert len(run.train_of("whole")) == len(run.train) == 30
        assert (run.student("first").seed, run.student("whole").seed) == (3, 7)


def test_what_a_single_student_learns_from_may_not_be_tested_on(folder: Path) -> None:
    leak = {"leaky": {"variant": "D-R", "train": "jsonl:test.jsonl@0-4"}}
    with (
        open_run(folder, students=leak) as run,
        pytest.raises(UsageError, match=r"5 of 30 test questions of jsonl:test.jsonl are training questions"),
    ):
        check_before_spending(run)
