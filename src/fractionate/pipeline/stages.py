"""The stages, each a function of a run: what it reads, what it does, what it leaves in the run's folder.

Every stage may be run again: calls come from the store, students that are trained already are kept, files are written
whole. That is why a run that was cut off anywhere is resumed by the same command.
"""

from __future__ import annotations

from typing import Any

from fractionate.distill.demonstrate import Demonstration, demonstrate, flatten
from fractionate.distill.examples import needs_solutions
from fractionate.distill.screen import Screening, screen
from fractionate.engine.budget import BudgetReached
from fractionate.engine.drive import run_all
from fractionate.errors import UsageError
from fractionate.evaluate.matrix import run_matrix
from fractionate.models.recorded import RecordedModel
from fractionate.models.tokens import reference_counter
from fractionate.pipeline.attempts import attempt_rows
from fractionate.pipeline.event_loop import in_loop
from fractionate.pipeline.folder import read_own, write_rows
from fractionate.pipeline.reporting import write_report
from fractionate.pipeline.roster import models_asked
from fractionate.pipeline.run import Run
from fractionate.pipeline.training import check_trainer, train_students
from fractionate.types import Cell


def run_everything(run: Run) -> dict[str, Any]:
    """Demonstrate, screen, train, evaluate and report. Returns the results (the content of results.json)."""
    run.notes.clear()
    check_before_spending(run)
    check_budget(run)
    if run.students:
        demonstrate_stage(run)
        screen_stage(run)
        train_stage(run)
    evaluate_stage(run)
    return report_stage(run)


def check_before_spending(run: Run) -> None:
    """Open every model and read all data, so that a missing key, extra or file is said before a call is paid for."""
    _ = run.tests
    if run.students:
        _ = run.train
        check_trainer()
    players = models_asked(run.config, run.pairs)
    if run.students:
        players |= {"teacher"} | ({run.config.models.screen_solver} - {""})
    for name in sorted(players):
        run.asker(name)


def check_budget(run: Run) -> None:
    """Refuse what will not fit the budget, and try the trainer, before the first call that costs money."""
    from fractionate.pipeline.forecast import forecast_run, training_examples

    players = models_asked(run.config, run.pairs)
    if not any(run.asker(name).model.paid for name in players | ({"teacher"} if run.students else set())):
        return
    plan = forecast_run(run)
    if not any(entry.stage.paid and entry.stage.calls for entry in plan.stages):
        return
    plan.check(run.config.budget)
    run.progress.stage(plan.lines()[-1].replace("all  ", "forecast: ").strip())
    if run.students:
        from fractionate.distill.train import dry_run

        run.progress.stage("trying two training steps before anything is paid for")
        first = run.students[0]
        needs = dry_run(run.student(first).base, training_examples(run, first)[:16], run.config.train)
        run.progress.stage(
            f"  training works: {needs['tokens_per_second']:.0f} tokens/s, {needs['peak_rss_mb']:.0f} MB"
        )


def demonstrate_stage(run: Run) -> list[Demonstration]:
    """Let the teacher decompose (and, where a variant needs it, solve) the training questions."""
    run.notes.begin("demonstrate")
    config = run.config
    problems = list(run.train.values())
    teacher = run.asker("teacher")
    solve = needs_solutions(run.variants or ["D-R"])
    solver = run.asker(config.models.screen_solver or "teacher") if solve else None
    samples = _samples(run)
    chances = f", up to {samples} chances each" if solver else ""
    run.progress.stage(f"demonstrate: {config.models.teacher} on {len(problems)} questions{chances}")
    programs = (
        demonstrate(problem, dataset, teacher, solver, run.settings(dataset), samples)
        for problem in problems
        for dataset in (run.dataset(problem.dataset),)
    )
    demonstrations = flatten(in_loop(run, lambda: run_all(programs, run.engine)))
    write_rows(run.folder.demonstrations, (one.as_row(run.train[one.problem_id]) for one in demonstrations))
    unparsed = sum(one.decomposition.status == "unparsed" for one in demonstrations)
    if unparsed:
        run.notes.add(
            f"{unparsed} of {len(demonstrations)} teacher decompositions could not be read; none is learnt from."
        )
    run.notes.save()
    return demonstrations


def screen_stage(run: Run) -> Screening | None:
    """Keep the demonstrations whose solution reached the gold answer."""
    run.notes.begin("screen")
    demonstrations = read_demonstrations(run)
    if not any(one.solved for one in demonstrations):
        run.progress.stage("screen: the teacher solved nothing (no variant needs it), so nothing is screened")
        return None
    screening = screen(demonstrations, _samples(run))
    kept = {(one.problem_id, one.sample) for one in screening.kept}
    rows = (one.as_row(run.train[one.problem_id]) for one in demonstrations if (one.problem_id, one.sample) in kept)
    write_rows(run.folder.screened, rows)
    run.notes.add(f"Screening by the answer {screening.summary()}.")
    run.notes.save()
    run.progress.stage(f"screen: {screening.summary()}")
    return screening


def train_stage(run: Run) -> None:
    """Train the students that are not trained yet on exactly these examples with exactly these settings."""
    if not run.students:
        run.progress.stage("train: run.variants is empty, so no student is trained")
        return
    check_trainer()
    run.notes.begin("train")
    train_students(run, read_demonstrations(run))
    run.notes.save()


def evaluate_stage(run: Run) -> list[Cell]:
    """Measure every pair on every test set."""
    run.notes.begin("evaluate")
    if not run.pairs:
        raise UsageError("no pair to measure: models.decomposers, models.solvers and run.strategies leave no cell")
    cells: list[Cell] = []
    try:
        in_loop(run, lambda: _evaluate(run, cells))
    except BudgetReached:
        if cells:
            planned = len(run.pairs) * len(run.tests)
            run.notes.add(
                f"Partial: the budget was reached after {len(cells)} of {planned} cells; the same run resumes."
            )
            _keep(run, cells)
            report_stage(run)
            run.progress.stage(f"partial report of {len(cells)} of {planned} cells: {run.folder.html}")
        raise
    _keep(run, cells)
    return cells


def _keep(run: Run, cells: list[Cell]) -> None:
    write_rows(run.folder.attempts, attempt_rows(cells))
    run.notes.save()


def report_stage(run: Run) -> dict[str, Any]:
    """Write results.json, report.md and report.html from what was measured."""
    return write_report(run.folder, run.config, run.name)


def read_demonstrations(run: Run) -> list[Demonstration]:
    """Read demonstrations.jsonl. Raises UsageError where it is missing or of other training data."""
    demonstrations = [Demonstration.from_row(row) for row in read_own(run.folder.demonstrations, "demonstrate")]
    strangers = [one.problem_id for one in demonstrations if one.problem_id not in run.train]
    if strangers:
        raise UsageError(
            f"{run.folder.demonstrations} holds {strangers[0]}, which data.train does not: "
            "run fractionate demonstrate again"
        )
    return demonstrations


async def _evaluate(run: Run, cells: list[Cell]) -> None:
    for test in run.tests:
        async for cell in run_matrix(test, run.pairs, run.asker, run.engine, run.progress.stage):
            cells.append(cell)
            value = sum(cell.values()) / len(cell.attempts)
            run.progress.stage(f"  {cell.metric} {value:.3f} of {len(cell.attempts)}")
            _note_counted(run, cell)


def _note_counted(run: Run, cell: Cell) -> None:
    if any(one.decomposer_usage.counted or one.solver_usage.counted for one in cell.attempts):
        recorded = any(isinstance(model, RecordedModel) for model in run.models)
        how = f"with {reference_counter()[1]}" if recorded else "at four bytes a token"
        run.notes.add(f"Tokens of replies that came without usage were counted here {how} (counted_tokens).")


def _samples(run: Run) -> int:
    """Return the chances a question gets: those asked for, or as many as the teacher's recording holds."""
    wanted = run.config.run.samples
    teacher = run.asker("teacher").model
    if not isinstance(teacher, RecordedModel):
        return wanted
    recorded = min((teacher.samples(problem) for problem in run.train.values()), default=wanted)
    if 0 < recorded < wanted:
        run.notes.add(
            f"The teacher's recording holds {recorded} sample(s) a question: each has {recorded} of {wanted} chances."
        )
        return recorded
    return wanted
