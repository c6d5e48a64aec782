"""Every config in protocols/ parses, forecasts and runs: cells, students, published figures, tests."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from protocol_world import ATLAS, PROTOCOLS, World, read_protocol

from fractionate import strategies
from fractionate.config import DECOMPOSER_VARIANTS, STUDENTS, load_config
from fractionate.datasets import load, parse_reference
from fractionate.run.names import Names

NAMES = [path.stem for path in PROTOCOLS]
every = pytest.mark.parametrize("name", NAMES)
PUBLISHED = {
    "main-table": 26, "across-datasets": 14, "across-solvers": 18, "static-vs-dynamic": 6, "direct-targets": 12,
    "caps": 4, "screening-gain": 8, "roles-swapped": 5, "universal-decomposer": 7,
}  # fmt: skip


def students(name: str) -> dict[str, str]:
    """Return the variants of a protocol's students by name, read from the file and nothing else."""
    table = read_protocol(name)
    run = table["run"]
    trained = {variant: variant for variant in run["variants"]}
    return trained | {own: given["variant"] for own, given in table.get("students", {}).items()}


def planned(name: str) -> set[tuple[str, str, str]]:
    """Return the cells (strategy, decomposer, solver) that a protocol's file asks for on each test set."""
    table = read_protocol(name)
    models, run = table["models"], table["run"]
    pairs = run.get("pairs") or product(models.get("decomposers", []), models.get("solvers", []))
    return {
        (strategy, decomposer, solver)
        for decomposer, solver in pairs
        for strategy in run["strategies"]
        if (strategies.get(strategy).stages == "single") == (decomposer == "none")
    }


def test_the_tables_of_the_paper_have_a_protocol_each() -> None:
    assert set(NAMES) >= {
        "main-table", "across-datasets", "across-solvers", "static-vs-dynamic", "direct-targets", "caps",
        "screening-gain", "shots", "roles-swapped", "universal-decomposer", "generalisation-kinds",
    }  # fmt: skip


@every
def test_it_parses_names_nothing_unknown_and_says_what_it_is_and_how_to_run_it(name: str) -> None:
    (path,) = (path for path in PROTOCOLS if path.stem == name)
    Names(load_config(path))
    comment = path.read_text(encoding="utf-8").split("\n\n", 1)[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    assert f"fractionate run protocols/{name}.toml" in comment


@every
def test_the_forecast_needs_no_more_than_teacher_and_solver_and_sends_nothing(
    name: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sum(world.server.asked.values())
    empty = ["--store", str(tmp_path / "calls.sqlite")]
    code, out = world.run(name, f"dry-{name}", "--dry-run", "--json", *empty)
    assert code == 0
    plan = json.loads(capsys.readouterr().out)
    stages = {entry["stage"]["name"] for entry in plan["stages"]}
    assert stages == ({"demonstrate", "evaluate"} if students(name) else {"evaluate"})
    assert all(entry["stage"]["calls"] > 0 for entry in plan["stages"])
    assert sum(world.server.asked.values()) == before
    assert not (out / "results.json").exists()


@pytest.mark.parametrize("name", ["main-table", "caps", "across-datasets"])
def test_the_forecast_counts_a_solver_call_for_every_cell_and_question(
    name: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = ["--store", str(tmp_path / "calls.sqlite")]  # the world's own holds replies already, which are not foreseen
    assert world.run(name, f"forecast-{name}", "--dry-run", "--json", *empty)[0] == 0
    stages = [entry["stage"] for entry in json.loads(capsys.readouterr().out)["stages"]]
    questions = sum({"gsm8k": 5, "drop": 3, "bamboogle": 4}[one.partition("#")[0]] for one in measured_on(name))
    foreseen = sum(one["calls"] for one in stages if (one["name"], one["role"]) == ("evaluate", "solver"))
    asked_alike = {  # students are asked in the form that they learnt, with or without steps: the same call
        (strategy, decomposer, solver)
        for strategy, decomposer, solver in planned(name)
        if strategy == "single-cot" and solver in students(name)
    }
    assert foreseen == len(planned(name) - asked_alike) * questions


def measured_on(name: str) -> list[str]:
    """Return the references of a protocol's test sets."""
    return load_config(next(path for path in PROTOCOLS if path.stem == name)).data.test


@every
def test_every_planned_cell_is_measured_on_every_test_set(name: str, world: World) -> None:
    cells = world.results(name)["cells"]
    sets = {cell["test_set"] for cell in cells}
    assert len(sets) == len(measured_on(name))
    for test_set in sets:
        own = [cell for cell in cells if cell["test_set"] == test_set]
        assert sorted((c["strategy"], c["decomposer"], c["solver"]) for c in own) == sorted(planned(name))
        (n,) = {cell["n"] for cell in own}
        assert n == expected_n(own[0])
    assert all(not cell["failures"] or "student" in cell["name"] or uses_student(cell, name) for cell in cells)


def uses_student(cell: dict[str, Any], name: str) -> bool:
    """Return whether a tiny model speaks in a cell: its replies are cut at six tokens, which counts as a failure."""
    trained = students(name)
    return any(cell[role] in trained for role in ("decomposer", "solver")) or "local:" in (
        cell["decomposer_model"] + cell["solver_model"]
    )


def expected_n(cell: dict[str, Any]) -> int:
    """Return how many questions the world has for a test set: one a kind of atlas, of which half may be asked."""
    return {"gsm8k": 5, "drop": 3, "bamboogle": 4}.get(cell["dataset"]) or (4 if "?" in cell["split"] else 8)


@every
def test_the_published_figures_lie_beside_the_measured_ones(name: str, world: World) -> None:
    rows = world.results(name)["published"]
    assert len(rows) == PUBLISHED.get(name, 0)
    given = read_protocol(name).get("published", [])
    cells = {cell["name"]: cell for cell in world.results(name)["cells"]}
    for row, written in zip(rows, given, strict=True):
        assert row["cell"] in cells, f"no cell for the published figure of {written}"
        assert row["measured"] == cells[row["cell"]]["value"]
        assert row["published"] == pytest.approx(written["value"] / 100)
        assert row["source"].startswith("arXiv 2402.15000, Table ")
        assert cells[row["cell"]]["dataset"] == written["dataset"]


@every
def test_no_figure_of_a_student_trained_on_its_test_questions_is_published(name: str) -> None:
    trained = set(students(name)) | set(STUDENTS)
    for row in read_protocol(name).get("published", []):
        assert row["dataset"] != "bamboogle" or not {row["decomposer"], row["solver"]} & trained


@every
def test_the_rows_of_the_table_are_tested_against_each_other(name: str, world: World) -> None:
    results = world.results(name)
    strategy_of = {cell["name"]: cell for cell in results["cells"]}
    compared = {frozenset((one["a"], one["b"])) for one in results["comparisons"]}
    for one in results["comparisons"]:
        assert 0 <= one["p_value"] <= one["p_adjusted"] <= 1
        assert one["n"] == strategy_of[one["a"]]["n"]
    two_stage = [cell for cell in results["cells"] if cell["stages"] != "single"]
    for a, b in product(two_stage, two_stage):
        same = [key for key in ("test_set", "solver", "strategy", "decomposer") if a[key] == b[key]]
        if same in (["test_set", "solver", "strategy"], ["test_set", "solver", "decomposer"]):
            assert frozenset((a["name"], b["name"])) in compared, f"{a['name']} is not tested against {b['name']}"


@every
def test_every_student_is_trained_and_says_from_how_many_examples(name: str, world: World) -> None:
    notes = "\n".join(world.results(name)["notes"])
    for student, variant in students(name).items():
        folder = world.folder / "runs" / name / "students" / student
        examples = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
        assert examples
        role = "decomposer" if variant in DECOMPOSER_VARIANTS else "solver"
        called = role if student == variant else f"{variant}, {role}"
        assert f"Student {student} ({called}) learnt from {len(examples)} examples" in notes
        assert json.loads((folder / "training.json").read_text(encoding="utf-8"))
    if not students(name):
        assert not (world.folder / "runs" / name / "students").exists()


@every
def test_the_reports_show_the_table(name: str, world: World) -> None:
    results = world.results(name)
    page = (world.folder / "runs" / name / "report.md").read_text(encoding="utf-8")
    assert (world.folder / "runs" / name / "report.html").stat().st_size > 10_000
    if results["published"]:
        assert all(row["source"] in page for row in results["published"])
    if results["generalisation"]:
        assert "## Generalisation" in page


def learnt(world: World, protocol: str, student: str) -> list[str]:
    """Return the ids of the questions that a student was trained on."""
    path: Path = world.folder / "runs" / protocol / "students" / student / "examples.jsonl"
    return [json.loads(line)["problem_id"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_universal_decomposer_learns_from_the_mixture_and_the_others_from_their_own(world: World) -> None:
    world.results("universal-decomposer")
    sources = {
        student: {
            "gsm8k" if one.startswith("gsm8k/") else "drop" for one in learnt(world, "universal-decomposer", student)
        }
        for student in students("universal-decomposer")
    }
    assert sources == {"universal": {"gsm8k", "drop"}, "D-R-gsm8k": {"gsm8k"}, "D-R-drop": {"drop"}}
    universal = sorted(learnt(world, "universal-decomposer", "universal"))
    parts = [one for own in ("D-R-gsm8k", "D-R-drop") for one in learnt(world, "universal-decomposer", own)]
    assert universal == sorted(parts)
    rows = world.results("universal-decomposer")["generalisation"]
    assert {row["test_set"] for row in rows} == {"gsm8k", "drop", "bamboogle"}
    seen = {(row["test_set"], row["student"]): row["seen"] for row in rows}
    assert seen["gsm8k", "universal"] == seen["drop", "universal"] == "yes"
    assert seen["gsm8k", "D-R-drop"] == seen["bamboogle", "universal"] == "no"


def test_across_datasets_a_student_meets_the_other_set_and_its_rival_from_that_set(world: World) -> None:
    for student in students("across-datasets"):
        own = "gsm8k" if student.endswith("gsm8k") else "drop"
        assert all(one.startswith("gsm8k/") == (own == "gsm8k") for one in learnt(world, "across-datasets", student))
    rows = world.results("across-datasets")["generalisation"]
    strangers = {(row["test_set"], row["student"], row["against"]) for row in rows if row["seen"] == "no"}
    assert strangers >= {
        ("drop", "D-R-gsm8k", "teacher"), ("drop", "D-R-gsm8k", "D-R-drop"), ("drop", "E-A-gsm8k", "E-A-drop"),
        ("gsm8k", "D-R-drop", "teacher"), ("gsm8k", "D-R-drop", "D-R-gsm8k"), ("gsm8k", "E-A-drop", "E-A-gsm8k"),
    }  # fmt: skip


def test_kinds_held_out_are_in_no_training_example(world: World) -> None:
    kinds = {problem.id: problem.kind for problem in load(parse_reference(f"atlas#train{ATLAS}"))}
    held_out = {"inverse-bridge", "comparison", "superlative-bridge", "counting"}
    world.results("generalisation-kinds")
    for student in students("generalisation-kinds"):
        taught = {kinds[one] for one in learnt(world, "generalisation-kinds", student)}
        assert bool(taught & held_out) == student.endswith("-all"), student
    rows = world.results("generalisation-kinds")["generalisation"]
    unseen = {row["student"] for row in rows if row["seen"] == "no"}
    assert unseen == {"D-R-some", "E-A-some"}


def test_caps_and_worked_examples_are_what_the_decomposer_is_told(world: World) -> None:
    world.results("caps")
    told = {body["messages"][0]["content"] for body in world.server.bodies}
    for cap in (2, 3, 4):
        assert any(f"at most {cap} of them" in text for text in told)
    attempts = world.folder / "runs/caps/attempts.jsonl"
    lengths: dict[str, set[int]] = {}
    for line in attempts.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        lengths.setdefault(row["decomposer"], set()).add(len(row["subquestions"] or ()))
    assert lengths == {"none": {0}, "no-cap": {6}, "cap-4": {4}, "cap-3": {3}, "cap-2": {2}}


def test_static_is_two_calls_a_question_and_its_tokens_are_told(world: World) -> None:
    for cell in two_stage_cells(world, "static"):
        assert [cell["usage"][role]["calls"] for role in ("decomposer", "solver")] == [cell["n"], cell["n"]]
        assert all(cell["usage"][role]["input_tokens"] > 0 for role in ("decomposer", "solver"))


def test_dynamic_is_charged_for_its_own_calls_alone(world: World) -> None:
    """The world's teacher asks one follow-up, then states the answer: two of its calls and one of the solver's."""
    for cell in two_stage_cells(world, "dynamic"):
        assert [cell["usage"][role]["calls"] for role in ("decomposer", "solver")] == [2 * cell["n"], cell["n"]]


def two_stage_cells(world: World, strategy: str) -> list[dict[str, Any]]:
    cells = [cell for cell in world.results("static-vs-dynamic")["cells"] if cell["strategy"] == strategy]
    assert {cell["test_set"] for cell in cells} == {"gsm8k", "bamboogle"}
    return cells
