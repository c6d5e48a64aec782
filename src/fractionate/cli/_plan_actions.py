"""The actions of `fractionate plan`. Imported when an action is called, because all of them need NumPy."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fractionate.analysis.matrix import matrices
from fractionate.analysis.rule import Rule, question_points
from fractionate.analysis.verdict import candidates_of
from fractionate.api import read_report
from fractionate.errors import UsageError
from fractionate.files import write_text
from fractionate.planning import answers, plots
from fractionate.planning.checks import positive
from fractionate.planning.choice import best_size
from fractionate.planning.coefficients import CoefficientSet, load_coefficients
from fractionate.planning.fit import Fit, fit_distillation, fit_supervised
from fractionate.planning.flops import Architecture
from fractionate.planning.power import Design, discordance, sampling_noise
from fractionate.planning.protocol import Options
from fractionate.planning.recipes import Setting, Teacher
from fractionate.planning.runs import SUPERVISED, DistillationRuns, SupervisedRuns, read_runs
from fractionate.planning.scenarios import SCENARIOS
from fractionate.report.facts import Facts
from fractionate.report.line_charts import HEIGHT, WIDTH, break_even_chart, curve_chart, standalone
from fractionate.report.render import section_text
from fractionate.report.run_cost import saved_after
from fractionate.report.sections import break_even as break_even_section
from fractionate.report.sections import curve as curve_section
from fractionate.run.attempts import read_measured
from fractionate.run.folder import RunFolder
from fractionate.run.progress import Progress
from fractionate.statistics import bonferroni_confidence
from fractionate.types import Cell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def power(args: argparse.Namespace) -> None:
    """Print how many questions a comparison needs."""
    if (args.discordance is None) == (args.accuracy is None):
        raise UsageError("plan power needs --discordance, or --accuracy (and --correlation) in its place")
    differ = args.discordance if args.accuracy is None else discordance(args.accuracy, args.correlation)
    for name, points in (("margin", args.margin), ("difference", args.difference)):
        if doubt := question_points(points, name):
            print(f"fractionate: --{name} {points:g}: {doubt}", file=sys.stderr)
    if not 0 < args.margin < 100:
        raise UsageError(f"--margin must lie between 0 and 100 percentage points, such as 2, not {args.margin:g}")
    if args.candidates < 1:
        raise UsageError(f"--candidates is a number of configurations of 1 or more, not {args.candidates:g}")
    # The level of a first verdict over the planned questions: some of the error is kept for further looks.
    rule = Rule(confidence=args.confidence, looks=args.looks if args.looks == "any" else "", sealed=args.looks == "one")
    level = bonferroni_confidence(rule.confidence_at("", 1), args.candidates)
    design = Design(differ, args.margin / 100, args.difference / 100, level)
    if args.noise is not None and args.repeats:
        raise UsageError("plan power takes --noise or --repeats, not both")
    noise = _noise_of(args.repeats) if args.repeats else args.noise
    answer = answers.power_for(design, args.power, args.cluster_size, args.cluster_correlation, noise)
    answer = {**answer, "margin": args.margin, "difference": args.difference, "candidates": args.candidates}
    _print(args, answer, answers.power_lines)


def _noise_of(folder: Path) -> float:
    """Return the share of sampling noise in a run's differences: the mean over its distilled configurations."""
    found = []
    for matrix in matrices(read_measured(RunFolder(folder))):
        reference = matrix.undistilled(matrix.judged_strategy(Rule()), Rule())
        if reference is None or reference.columns.repeats < 2:
            continue
        b = _samples(reference)
        found += [sampling_noise(_samples(cell), b) for _, cell in candidates_of(matrix, reference)]
    if not found:
        raise UsageError(f"{folder} answers each question once: set run.repeats, and a temperature above 0")
    return sum(found) / len(found)


def _samples(cell: Cell) -> NDArray[np.float64]:
    """Return the outcomes of a cell by question and repeat."""
    return cell.columns.outputs.column(cell.metric).reshape(-1, cell.columns.repeats)


def law(args: argparse.Namespace) -> None:
    """Print the loss that one student reaches."""
    coefficients = load_coefficients(args.coefficients)
    teacher_loss = _teacher_loss(args, coefficients)
    if args.plot:
        _ = coefficients.distilled
    answer = answers.law(args.student_params, args.student_tokens, teacher_loss, coefficients)
    if args.plot:
        figure = plots.capacity_gap(args.student_params, args.student_tokens, teacher_loss, coefficients)
        plots.save(figure, args.plot, "The capacity gap")
    _print(args, answer, answers.law_lines)


def recipe(args: argparse.Namespace) -> None:
    """Print the recipe for a budget, by scenario."""
    settings = _settings(args)
    found = [answers.recipe_for(setting, args.loss) for setting in settings]
    if args.plot:
        budgets = [answer["compute"] for answer in found]
        drawn = [replace(setting, compute=budget) for setting, budget in zip(settings, budgets, strict=True)]
        plots.save(plots.recipes(drawn), args.plot, "Compute-optimal distillation")
    if args.json:
        print(json.dumps({"recipes": found} if args.scenario == "all" else found[0]))
    else:
        print("\n".join(answers.recipe_lines(found)))


def fit(args: argparse.Namespace) -> None:
    """Fit a law to runs, print it, and write it to --out."""
    if args.resamples < 0:
        raise UsageError(f"--resamples must be 0 or more, not {args.resamples}")
    progress = Progress(quiet=args.quiet)
    options = Options(args.resamples, args.whole_grid, args.seed, say=progress.step)
    runs = read_runs(args.file, args.law)
    if isinstance(runs, SupervisedRuns):
        if args.supervised is not None:
            raise UsageError(f"{args.file} holds supervised runs already: leave out --supervised")
        found = fit_supervised(runs, options, _state(args, args.file))
    else:
        found = fit_distillation(runs, _inner_law(args, options), options, _state(args, args.file))
    if args.out:
        found.write(args.out)
        print(f"written: {args.out}", file=sys.stderr)
    if args.plot:
        teachers = runs.teacher_loss if isinstance(runs, DistillationRuns) else None
        plots.save(plots.fit(found, runs.loss, teachers), args.plot, f"The {found.law} law and the runs")
    _print(args, found.as_dict(), answers.fit_lines)


def break_even(args: argparse.Namespace) -> None:
    """Print when each proven pair of a run has paid back, and its saving after some numbers of questions."""
    results = _results(args.folder, "break_even")
    found = results["break_even"]
    if found is None:
        raise UsageError(f"nothing was distilled in {args.folder}, so there is no bill to pay back: train a student")
    for questions in args.questions:
        number = int(positive("questions", questions))
        for pair in found["pairs"] if found["usd"] is not None else ():
            pair["saved"].append(saved_after(pair, found["usd"], number))
    if args.plot:
        _save_charts(_break_even_charts(found, Facts(results)), args.plot)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
    elif section := break_even_section.section(Facts(results)):
        print(section_text(section))


def curve(args: argparse.Namespace) -> None:
    """Print the predicted outcome and cost of more demonstrations, or of a larger student."""
    results = _results(args.folder, "curve")
    found = results["curve"]
    if not found:
        raise UsageError(
            f"no student in {args.folder} learnt from less than all of its demonstrations, so there is no curve: "
            "run it again with fractionate run CONFIG --curve"
        )
    fitted = [one for one in found if not one["refused"]]
    if not fitted:
        raise UsageError(found[0]["refused"])
    if args.plot:
        _save_charts(
            [
                (
                    f"{one['student']} with {one['partner']}, {one['strategy']} ({one['test_set']})",
                    curve_chart(one, WIDTH, HEIGHT, f"curve{number}"),
                )
                for number, one in enumerate(fitted)
            ],
            args.plot,
        )
    if args.json:
        print(json.dumps({"curves": found}, ensure_ascii=False))
    elif section := curve_section.section(Facts(results)):
        print(section_text(section))


def _break_even_charts(found: Mapping[str, Any], facts: Facts) -> list[tuple[str, Markup]]:
    if found["usd"] is None:
        raise UsageError("the bill is unknown, so --plot has nothing to draw: leave it out to see the missing price")
    paying = [pair for pair in found["pairs"] if pair["questions"]]
    if not paying:
        raise UsageError("no pair is proven to pay back, so --plot has nothing to draw: leave it out")
    return [
        (
            f"{pair['dataset']}: {pair['strategy']}, {facts.pair(pair)}",
            break_even_chart(pair, found["usd"], WIDTH, HEIGHT, f"pair{number}"),
        )
        for number, pair in enumerate(paying)
    ]


def _save_charts(charts: Sequence[tuple[str, Markup]], path: Path) -> None:
    write_text(standalone(charts), path)


def _results(folder: Path, entry: str) -> dict[str, Any]:
    """Return a run's results. Raises UsageError where they cannot be read, or are of a version without the entry."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: give a run's folder, such as runs/NAME")
    results = dict(read_report(folder).results)
    if entry not in results:
        raise UsageError(f"{folder / 'results.json'} is of an earlier version: run fractionate report {folder} first")
    return results


ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "power": power,
    "curve": curve,
    "break-even": break_even,
    "law": law,
    "recipe": recipe,
    "fit": fit,
}


def _teacher_loss(args: argparse.Namespace, coefficients: CoefficientSet) -> float | None:
    given: float | None = args.teacher_loss
    if given is not None or (args.teacher_params is None and args.teacher_tokens is None):
        return given
    if args.teacher_params is None or args.teacher_tokens is None:
        raise UsageError("a teacher is given by --teacher-loss, or by --teacher-params and --teacher-tokens together")
    params = positive("teacher-params", args.teacher_params)
    return float(coefficients.supervised.loss(params, positive("teacher-tokens", args.teacher_tokens)))


def _settings(args: argparse.Namespace) -> list[Setting]:
    """Return a setting for each scenario that was asked for."""
    if args.compute is not None and args.loss is not None:
        raise UsageError("--compute and --loss exclude each other: the loss is reached with the least compute")
    if args.compute is None and args.loss is None and args.student_tokens is None:
        raise UsageError("a recipe needs a limit: give --compute, --loss or --student-tokens")
    best = args.student_params == "best"
    if best and args.compute is None:
        raise UsageError("the best size needs a budget: give --compute")
    base = Setting(
        student_params=1e9 if best else _size(args.student_params),
        compute=math.inf if args.compute is None else float(positive("compute", args.compute)),
        students=args.students,
        teacher=_given_teacher(args),
        student_tokens=math.inf
        if args.student_tokens is None
        else float(positive("student-tokens", args.student_tokens)),
        lifetime_tokens=args.lifetime_tokens,
        architecture=Architecture(
            float(positive("context", args.context)), float(positive("vocabulary", args.vocabulary))
        ),
        coefficients=load_coefficients(args.coefficients),
    )
    names = tuple(SCENARIOS) if args.scenario == "all" else (args.scenario,)
    settings = [replace(base, scenario=SCENARIOS[name]) for name in names]
    return [replace(one, student_params=best_size(one)[0]) for one in settings] if best else settings


def _size(text: str) -> float:
    try:
        return float(positive("student-params", float(text.replace("_", ""))))
    except ValueError:
        raise UsageError(f"--student-params {text!r} is neither a number (write 1.8e9) nor 'best'") from None


def _given_teacher(args: argparse.Namespace) -> Teacher | None:
    if args.teacher_params is not None:
        return Teacher(args.teacher_params, args.teacher_tokens, args.teacher_loss)
    if args.teacher_loss is not None or args.teacher_tokens is not None:
        raise UsageError("a given teacher needs --teacher-params too")
    return None


def _inner_law(args: argparse.Namespace, options: Options) -> Fit | CoefficientSet:
    """Return the supervised law that a distillation law is fitted over."""
    if args.supervised is None:
        return load_coefficients(args.coefficients)
    runs = read_runs(args.supervised, SUPERVISED)
    assert isinstance(runs, SupervisedRuns)
    return fit_supervised(runs, options, _state(args, args.supervised))


def _state(args: argparse.Namespace, file: Path) -> Path | None:
    if args.state == "none":
        return None
    return Path(
        f"{args.state or args.file}{'' if args.state else '.fit-state'}{'' if file == args.file else '-supervised'}"
    )


def _print(
    args: argparse.Namespace, answer: Mapping[str, Any], lines: Callable[[Mapping[str, Any]], list[str]]
) -> None:
    print(json.dumps(answer) if args.json else "\n".join(lines(answer)))
