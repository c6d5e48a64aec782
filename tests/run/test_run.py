"""A whole run on the echo model: files, results, resuming, repeating and refusals."""

import json
import shutil
from pathlib import Path

import pytest

from fractionate.config import parse_config
from fractionate.errors import UsageError
from fractionate.models.base import SingleModel
from fractionate.models.faults import PermanentFault
from fractionate.run.attempt_rows import read_jsonl
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import (
    check_before_spending,
    demonstrate_stage,
    evaluate_stage,
    read_demonstrations,
    read_screened,
    report_stage,
    run_everything,
    screen_stage,
)
from fractionate.types import Completion, Request

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
    for name in ("run/report.md", "run/report.html", "run/attempts.jsonl", "calls.sqlite"):
        assert (folder / name).stat().st_size > 0


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
    cut = str(folder / "cut.sqlite")
    with open_run(folder, "cut", run__name="same", run__store=cut, run__strategies=["single"]) as run:
        evaluate_stage(run)
        done = run.engine.counters.sent
    with open_run(folder, "cut", run__name="same", run__store=cut) as run:
        run_everything(run)
        assert run.engine.counters.sent == calls - done
    whole, cut = (json.loads((folder / name / "results.json").read_text()) for name in ("whole", "cut"))
    assert cut == whole


def test_two_folders_of_one_config_share_every_call_but_not_a_budget(folder: Path) -> None:
    with open_run(folder, "one") as run:
        run_everything(run)
        assert run.engine.counters.sent > 0
        first = run.engine.run
    with open_run(folder, "other") as run:
        run_everything(run)
        assert run.engine.counters.sent == 0
        assert run.engine.run != first
    assert {run["run"] for run in (json.loads((folder / n / "run.json").read_text()) for n in ("one", "other"))} == {
        "one", "other",
    }  # fmt: skip
    (folder / "one").rename(folder / "moved")
    with open_run(folder, "moved") as run:
        assert run.engine.run == first, "a run keeps its name in the store when its folder is moved"


def test_a_passage_stands_in_attempts_and_in_the_report(folder: Path) -> None:
    rows = [{"question": f"Town {n}?", "answer": f"it {n}", "context": f"A passage on {n}."} for n in range(3)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_run(folder, run__strategies=["static"]) as run:
        run_everything(run)
    (cell, *_) = read_jsonl(folder / "run/attempts.jsonl")
    assert [attempt.problem.context for attempt in cell.attempts] == [row["context"] for row in rows]
    assert "A passage on 1." in (folder / "run/report.html").read_text()


def test_a_recording_with_fewer_samples_than_chances_is_forecast_as_it_is_run(folder: Path) -> None:
    from fractionate.run.forecast import forecast_run

    rows = [
        {"role": role, "question": f"What is number {n}?", "sample": 0, "output": text, "decomposition": "1. What?"}
        for n in range(30)
        for role, text in (("decomposer", "1. What?"), ("solver", "The answer is: nothing"))
    ]
    (folder / "teacher.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"models__teacher": "recorded:teacher.jsonl", "models__decomposers": ["none"], "run__samples": 3}
    with open_run(folder, run__variants=["D-R"], **changes) as run:
        planned = {entry.stage.name: entry.stage.calls for entry in forecast_run(run).stages}
        demonstrate_stage(run)
        assert run.engine.counters.sent == 60
        assert planned["demonstrate"] == 30, "of each role"
        assert any("holds 1 sample(s) per question" in note for note in run.notes.all())


def test_without_a_screen_no_chance_is_paid_for_that_nobody_learns_from(folder: Path) -> None:
    with open_run(folder, run__variants=["E-A"], run__samples=3) as run:
        assert {one.sample for one in demonstrate_stage(run)} == {0}


def test_training_learns_from_the_screened_file(folder: Path) -> None:
    from fractionate.run.training import examples_for

    with open_run(folder, run__variants=["D-R"]) as run:
        demonstrate_stage(run)
        screen_stage(run)
        lines = (folder / "run/screened.jsonl").read_text().splitlines(keepends=True)
        (folder / "run/screened.jsonl").write_text("".join(lines[:3]))
        (student,) = run.names.students
        examples, _ = examples_for(run, student, read_demonstrations(run), read_screened(run))
    assert [one.problem_id for one in examples] == [json.loads(line)["id"] for line in lines[:3]]


def test_a_student_without_an_example_is_left_out_and_the_rest_goes_on(folder: Path) -> None:
    pytest.importorskip("trl")
    with open_run(folder, models__teacher="echo:0", run__variants=["D-R"], run__strategies=["static"]) as run:
        results = run_everything(run)
    (warning,) = results["warnings"]
    assert warning.startswith("Student D-R was not trained: there is no example to learn from; 30 left out")
    assert results["cells"]
    assert "D-R" not in {cell["decomposer"] for cell in results["cells"]}


def test_a_student_of_too_few_examples_is_not_trained_and_the_run_says_so(folder: Path) -> None:
    pytest.importorskip("trl")
    changed = {"run__variants": ["D-R"], "run__strategies": ["static"], "train__min_examples": 40}
    with open_run(folder, **changed) as run:
        results = run_everything(run)
    (warning,) = results["warnings"]
    assert warning == (
        "Student D-R was not trained: 30 of the 40 examples that train.min_examples asks for can be learnt from."
    )
    assert "D-R" not in {cell["decomposer"] for cell in results["cells"]}


def test_a_cell_whose_every_question_failed_is_a_warning(folder: Path) -> None:
    class Refusing(SingleModel):
        name = identity = "refusing"

        async def complete(self, request: Request) -> Completion:
            raise PermanentFault("400", "the server rejects the request")

    (folder / "test.jsonl").write_text('{"question": "What is 1?", "answer": "1"}\n')
    with open_run(folder, run__strategies=["single"], models__solvers=["echo:0.5"]) as run:
        run.models._open["echo:0.5"] = Refusing()
        evaluate_stage(run)
        results = report_stage(run)
    assert any("every one of 1 questions failed" in warning for warning in results["warnings"])


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
        assert run.names.variants == ["D-R", "E-A", "D-T"]
        pairs = [pair for pair in run.pairs() if pair.strategy.name == "static"]
    assert {pair.decomposer.name for pair in pairs} == {"teacher", "D-T", "D-R"}
    assert {pair.solver.name for pair in pairs} == {"echo:0.5", "echo:0.6", "E-A"}


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
    from fractionate.run.forecast import forecast_run

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
        (test,) = run.data.tests
        asked = {name: test.settings_of(run.names.component(name, "decomposer")) for name in ("teacher", *ways)}
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
        first, whole = run.names.students
        assert (first.name, whole.name) == ("first", "whole")
        assert run.names.variants == ["D-T", "D-R"]
        assert [problem.index for problem in run.data.train_of(first).values()] == list(range(10))
        assert len(run.data.train_of(whole)) == len(run.data.train) == 30
        assert (first.seed, whole.seed) == (3, 7)


def test_what_a_single_student_learns_from_may_not_be_tested_on(folder: Path) -> None:
    leak = {"leaky": {"variant": "D-R", "train": "jsonl:test.jsonl@0-4"}}
    with (
        open_run(folder, students=leak) as run,
        pytest.raises(UsageError, match=r"5 of 30 test questions of jsonl:test.jsonl are training questions"),
    ):
        check_before_spending(run)
