"""The stages, each a function of a run: what it reads, what it does, what it leaves in the run's folder.

Every stage may be run again: calls come from the store, students that are trained already are kept, files are written
whole. That is why a run that was cut off anywhere is resumed by the same command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from fractionate.calls.budget import BudgetReached
from fractionate.calls.stages import carry_out
from fractionate.errors import UsageError
from fractionate.run.attempts import AttemptWriter, CellWriter
from fractionate.run.cells import Pair
from fractionate.run.data import traffic_notes
from fractionate.run.event_loop import in_loop
from fractionate.run.folder import read_own, write_rows
from fractionate.run.promise import promise_lines
from fractionate.run.recordings import check_recordings, missing_decompositions
from fractionate.run.reporting import write_report
from fractionate.run.run import Run
from fractionate.run.sharded import ShardedCells
from fractionate.run.spending import measure_speed
from fractionate.run.training import check_trainer, screens, train_students
from fractionate.run.work import (
    check_repeats,
    demonstrating,
    evaluating,
    recorded_samples,
    repeated_decompositions,
    samples_per_question,
)
from fractionate.students.demonstrate import Demonstration
from fractionate.students.examples import Screening, needs_screening, screen
from fractionate.tools.base import ToolModel
from fractionate.types import ROLES, Cell, Component


def run_everything(run: Run, *, start_anyway: bool = False) -> dict[str, Any]:
    """Demonstrate, screen, train, evaluate and report. Returns the results (the content of results.json).

    With `start_anyway` a run begins whose forecast passes a cap; it stops at the cap.
    """
    run.notes.clear()
    check_before_spending(run)
    run.begin()
    for line in promise_lines(run):
        run.progress.stage(line)
    check_budget(run, start_anyway=start_anyway)
    if run.names.students:
        demonstrate_stage(run)
        screen_stage(run)
        train_stage(run)
    evaluate_stage(run)
    return report_stage(run)


def check_before_spending(run: Run) -> None:
    """Open every model and read all data, so that a missing key, extra or file is said before a call is paid for."""
    if run.on:
        from fractionate.cluster.connect import check_address

        check_address(run.on)
    _ = run.data.tests
    if run.names.students:
        _ = run.data.demonstrated
        check_trainer(run)
    for note in run.data.overlaps():
        run.notes.add(note)
    for component in models_asked(run):
        run.models.sampler(component)
    for note in changed_tools(run):
        run.notes.add(note)
        run.progress.stage(note)
    check_repeats(run)
    check_recordings(run)
    for note in (*run.data.answer_notes(), *run.data.scorer_notes()):
        run.progress.stage(note)
    run.tests()  # opens the judge


def changed_tools(run: Run) -> Iterator[str]:
    """Yield a sentence for every tool whose files or settings have changed since calls of it were stored."""
    for model in run.models.opened if run.stored else ():
        if isinstance(model, ToolModel) and run.stored is not None:
            count = run.stored.of_other_identities(model.name, model.identity)
            if count:
                yield f"{model.name} has changed since {count:,} of its calls were stored: they are made again."


def models_asked(run: Run) -> list[Component]:
    """Return the components that a model of the user's answers for: no students, nor "none" and "gold"."""
    asked = [component for pair in run.pairs() for component in (pair.decomposer, pair.solver)]
    if run.names.students:
        asked += [run.names.teacher, run.names.screen_solver]
    return [one for one in dict.fromkeys(asked) if one.kind not in ("none", "gold", "student")]


def check_budget(run: Run, *, start_anyway: bool = False) -> None:
    """Refuse what will not fit the budget, and try the trainer, before the first call that costs money."""
    from fractionate.run.forecast import forecast_run, training_examples

    asked = [run.models.sampler(component).model for component in models_asked(run)]
    asked += [test.grader.model for test in run.tests() if test.grader]
    if not any(model.paid for model in asked):
        return
    plan = forecast_run(run)
    if not any(entry.stage.paid and entry.stage.calls for entry in plan.stages):
        return
    if not start_anyway:
        plan.check(run.config.budget, run.engine.budget)
    run.progress.stage(plan.lines()[-1].replace("all  ", "forecast: ").strip())
    if run.names.students:
        from fractionate.students.train import dry_run

        run.progress.stage("trying two training steps before anything is paid for")
        first = run.names.students[0]
        largest = max(run.config.train.candidates(), key=lambda settings: settings.lora_rank)
        needs = dry_run(first.base, training_examples(run, first)[:16], largest)
        run.progress.stage(
            f"  training works: {needs['tokens_per_second']:.0f} tokens/s, {needs['peak_rss_mb']:.0f} MB"
        )


def demonstrate_stage(run: Run) -> list[Demonstration]:
    """Let the teacher decompose (and, where a variant needs it, solve) the training questions and the dev split's."""
    run.begin()
    run.notes.begin("demonstrate")
    wanted, recorded = run.config.run.samples, recorded_samples(run)
    if recorded and recorded == samples_per_question(run) and needs_screening(run.names.variants) and recorded < wanted:
        run.notes.add(
            f"The teacher's recording holds {recorded} sample(s) per question: {recorded} of {wanted} are used."
        )

    async def demonstrate() -> list[Demonstration]:
        progress, runner = run.progress, run.workers.runner()
        made = await carry_out(demonstrating(run), run.engine, progress.stage, runner, progress.advance)
        _note_fields_left_out(run)
        return made

    demonstrations = in_loop(run, demonstrate)
    problems = run.data.demonstrated
    for note in traffic_notes(run.data.traffic, problems, run.data.recorded):
        run.notes.add(note)
    write_rows(run.folder.demonstrations, (one.as_row(problems[one.problem_id]) for one in demonstrations))
    by_teacher = [one for one in demonstrations if not one.answered_by]
    unparsed = sum(one.decomposition.status == "unparsed" for one in by_teacher)
    if unparsed:
        run.notes.add(f"{unparsed} of {len(by_teacher)} teacher decompositions could not be read; none is learnt from.")
    run.notes.save()
    return demonstrations


def screen_stage(run: Run) -> Screening | None:
    """Keep the demonstrations whose solution reached the gold answer."""
    run.begin()
    run.notes.begin("screen")
    demonstrations = read_demonstrations(run)
    if not any(one.solved for one in demonstrations):
        run.folder.screened.unlink(missing_ok=True)
        run.progress.stage("screen: the teacher solved nothing (no variant needs it), so nothing is screened")
        return None
    screening = screen(demonstrations, samples_per_question(run))
    problems = run.data.demonstrated
    write_rows(run.folder.screened, (one.as_row(problems[one.problem_id]) for one in screening.kept))
    run.notes.add(f"Screening by the answer {screening.summary()}.")
    run.notes.save()
    run.progress.stage(f"screen: {screening.summary()}")
    return screening


def train_stage(run: Run) -> None:
    """Train the students that are not trained yet on exactly these examples with exactly these settings."""
    if not run.names.students:
        run.progress.stage("train: run.variants is empty, so no student is trained")
        return
    check_trainer(run)
    run.begin()
    run.notes.begin("train")
    screened = read_screened(run) if any(screens(student) for student in run.names.students) else []
    run.workers.free_weights()
    train_students(run, read_demonstrations(run), screened, run.workers.on)
    run.notes.save()


def evaluate_stage(run: Run) -> list[Cell]:
    """Measure every pair on every test set."""
    run.begin()
    run.notes.begin("evaluate")
    for note in run.data.answer_notes():
        run.notes.add(note)
    pairs = run.pairs()
    for component in run.left_out():
        run.notes.add(f"{component.name} is named in the matrix but was not trained: its cells are left out.")
    if not pairs:
        raise UsageError("no pair to measure: models.decomposers, models.solvers and run.strategies leave no cell")
    for note in (*repeated_decompositions(run), *missing_decompositions(run)):
        run.notes.add(note)
    attempts = AttemptWriter(run.folder)
    done = Counter[str]()
    try:
        in_loop(run, lambda: _evaluate(run, attempts, done))
        cells = _finish(run, attempts)
    except BudgetReached:
        if count := done["cells"]:
            planned = len(pairs) * len(run.data.tests)
            run.notes.add(f"Partial: the budget was reached after {count} of {planned} cells; the same run resumes.")
            _finish(run, attempts)
            run.notes.save()
            report_stage(run)
            run.progress.stage(f"partial report of {count} of {planned} cells: {run.folder.html}")
        raise
    finally:
        attempts.close()
    run.notes.save()
    measure_speed(run)
    return cells


def report_stage(run: Run) -> dict[str, Any]:
    """Write results.json, report.md and report.html from what was measured."""
    return write_report(run.folder, run.config, run.name)


def read_demonstrations(run: Run) -> list[Demonstration]:
    """Read demonstrations.jsonl. Raises UsageError where it is missing or of other training data."""
    return _read(run, "demonstrate")


def read_screened(run: Run) -> list[Demonstration]:
    """Read screened.jsonl: what students learn from that are trained on screened demonstrations. Raises as above."""
    return _read(run, "screen")


def _read(run: Run, stage: str) -> list[Demonstration]:
    path = {"demonstrate": run.folder.demonstrations, "screen": run.folder.screened}[stage]
    demonstrations = [Demonstration.from_row(row) for row in read_own(path, stage)]
    strangers = [one.problem_id for one in demonstrations if one.problem_id not in run.data.demonstrated]
    if strangers:
        raise UsageError(
            f"{path} holds {strangers[0]}, which the training data does not: run fractionate {stage} again"
        )
    return demonstrations


async def _evaluate(run: Run, attempts: AttemptWriter, done: Counter[str]) -> None:
    writers: dict[Pair, CellWriter] = {}
    cells = evaluating(run, run.models.sampler, lambda test, pair: writers[pair])
    sharded = ShardedCells(run, attempts) if run.workers.on else None
    for test in run.tests():
        writers.update((pair, attempts.cell(test, pair)) for pair in run.pairs())
        keys = {pair: writer.key for pair, writer in writers.items()}
        answered = await sharded.answer(test, keys) if sharded else ()
        for pair, writer in writers.items():
            stage = next(cells)
            if pair not in answered:
                progress, runner = run.progress, run.workers.runner()
                await carry_out(stage, run.engine, progress.stage, runner, progress.advance)
            _note_cell(run, writer.cell())
            done["cells"] += 1


def _finish(run: Run, attempts: AttemptWriter) -> list[Cell]:
    """Keep the attempts, and the form of answer that was inferred for them: the run is served without its data."""
    cells = attempts.finish(run.config.run.rows_at_most)
    run.folder.record_answer_form(run.data.inferred_form if run.data.infers_form else "")
    return cells


def _note_cell(run: Run, cell: Cell) -> None:
    value = sum(cell.values()) / len(cell.columns)
    times = f" × {run.config.run.repeats}" if run.config.run.repeats > 1 else ""
    pair = f"{cell.strategy}, {cell.decomposer.name} → {cell.solver.name}" if run.workers.on else ""
    run.progress.stage(f"  {pair}{': ' * bool(pair)}{cell.metric} {value:.3f} of {len(cell.columns)}{times}")
    _note_what_is_odd(run, cell)


def _note_fields_left_out(run: Run) -> None:
    """Note the fields that servers rejected as unsupported: replies without them are sampled in another way."""
    for model in run.models.opened:
        for field in sorted(model.left_out | run.workers.left_out.get(model.identity, frozenset())):
            run.notes.add(f"{model.name} does not support {field}: its requests were sent without that field.")


def _note_what_is_odd(run: Run, cell: Cell) -> None:
    _note_fields_left_out(run)
    if any(cell.columns.column(f"{role}_counted").any() for role in ROLES):
        replaying = [model.counts_tokens_with for model in run.models.opened if model.replays]
        how = replaying[0] if replaying else "at four bytes per token"
        run.notes.add(f"Tokens of replies that came without usage were counted here {how} (counted_tokens).")
    failed = cell.columns.outputs.column("lost")
    if failed.all():
        pair = f"{cell.strategy}, {cell.decomposer.name} → {cell.solver.name}"
        run.notes.warn(
            f"{cell.reference}: {pair}: every one of {len(failed)} questions failed, the first with: "
            f"{cell.outputs_at(0)[0].failures[0]}"
        )
