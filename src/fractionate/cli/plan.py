"""`fractionate plan`: what distilling will bring and cost, before paying for it."""

from __future__ import annotations

import argparse
from pathlib import Path

from fractionate.errors import UsageError
from fractionate.planning.scenarios import SCENARIOS

HELP = "plan before paying: sample sizes, learning curves, break-even, the distillation scaling law"

# The names of the coefficient sets stand here as text, so that --help loads no NumPy; a test compares them with
# fractionate.planning.SETS.
_SETS = "paper-corrected, paper-printed, chinchilla, chinchilla-refit"
_ACTIONS = {
    "power": (
        "how many questions a comparison needs",
        "How many questions show a distilled part to be no worse than what it replaces, by the paired test that\n"
        "reports use, if both are equally good. Give the share of questions on which they differ\n"
        "(--discordance), or their accuracy and the correlation of their right answers (--accuracy, --correlation).\n"
        "Shares are between 0 and 1.",
        "examples:\n  fractionate plan power --margin 2 --discordance 0.15\n"
        "  fractionate plan power --margin 5 --accuracy 0.7 --correlation 0.5 --cluster-size 8 \\\n"
        "    --cluster-correlation 0.1\n"
        "  fractionate plan power --margin 2 --discordance 0.1 --repeats runs/mine",
    ),
    "curve": (
        "what more demonstrations, or a larger student, would bring",
        "What twice the demonstrations, or the next size of student, would bring in outcome and cost: from a\n"
        "run whose students were trained on shares of the demonstrations too (run --curve), or on several bases.",
        "examples:\n  fractionate plan curve runs/mine\n"
        "  fractionate run fractionate.toml --curve && fractionate plan curve runs/mine --plot curve.svg",
    ),
    "break-even": (
        "after how many questions a run's distilled pairs have paid back",
        "A run's one-off cost (demonstrations, all samples, screening, training, evaluation) against what each proven\n"
        "pair saves per 1,000 questions: after how many questions it is paid back, and the savings by then.\n"
        "Prices are those of the run's last report: change them with 'fractionate report RUN_DIR --set'.",
        "examples:\n  fractionate plan break-even runs/mine\n"
        "  fractionate plan break-even runs/mine --questions 250000 --plot break-even.svg",
    ),
    "law": (
        "the loss of one student, by the distillation scaling law",
        "The loss of a student that is pretrained on a teacher's logits (arXiv 2502.08606). It says nothing about\n"
        "fine-tuning on a teacher's texts or about outcomes on questions. Sizes are in non-embedding parameters,\n"
        "losses in nats per token.",
        "examples:\n  fractionate plan law --student-params 1.8e9 --student-tokens 3.9e10 --teacher-loss 2.2\n"
        "  fractionate plan law --student-params 1e9 --student-tokens 2e10 --plot capacity-gap.svg",
    ),
    "recipe": (
        "the best teacher and token counts for a budget",
        "The compute-optimal recipe for a student that is pretrained on a teacher's logits: the teacher's size and\n"
        "tokens and the student's, for each scenario of the teacher's cost, beside supervised training of the same\n"
        "student. Give --compute, or a --loss to reach, or only --student-tokens, the available data.",
        "examples:\n  fractionate plan recipe --student-params 1e9 --compute 1e21\n"
        "  fractionate plan recipe --student-params 3e8 --loss 2.5 --scenario both --students 20\n"
        "  fractionate plan recipe --student-params best --compute 1e22 --lifetime-tokens 1e13 --plot recipe.svg",
    ),
    "fit": (
        "fit the law to your own training runs",
        "Fit a law to runs of your own (JSONL, JSON, CSV, TSV or Parquet): n_s, d_s, l_t, l_s per row (the student's\n"
        "parameters and tokens, the teacher's loss, the student's loss), or n, d, l of supervised runs. Ctrl-C keeps\n"
        "finished work; the same command resumes.",
        "examples:\n  fractionate plan fit runs.csv --supervised baselines.csv --out my-law.json\n"
        "  fractionate plan recipe --student-params 1e9 --compute 1e21 --coefficients my-law.json",
    ),
}


_OF_RUNS = ("curve", "break-even")
"""Actions that read a run's results.json."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "What distilling will bring and cost, before paying for it. 'power' is about a comparison on questions;\n"
        "'curve' and 'break-even' are about a measured run; 'law', 'recipe' and 'fit' are about pretraining\n"
        "students on a teacher's logits."
    )
    parser.epilog = "\n".join(["examples:", *(epilog.split("\n")[1] for _, _, epilog in _ACTIONS.values())])
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    added: dict[str, argparse.ArgumentParser] = {}
    for name, (purpose, description, epilog) in _ACTIONS.items():
        added[name] = actions.add_parser(
            name,
            help=purpose,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    _power_arguments(added["power"])
    _run_arguments(added["curve"])
    _run_arguments(added["break-even"]).add_argument(
        "--questions", metavar="N", type=_number, action="append", default=[], help="also after N questions; repeatable"
    )
    _law_arguments(added["law"])
    _recipe_arguments(added["recipe"])
    _fit_arguments(added["fit"])
    for name, action in added.items():
        action.add_argument("--json", action="store_true", help="print as JSON")
        if name in _OF_RUNS:
            action.add_argument("--plot", metavar="FILE.svg", type=Path, help="write the report's drawing")
        elif name != "power":
            action.add_argument(
                "--plot", metavar="FILE", type=Path, help="write a drawing: .svg or .png (extra 'plots')"
            )


def _power_arguments(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add(
        "--margin",
        metavar="PP",
        type=_number,
        required=True,
        help="the non-inferiority margin, in percentage points, such as 2",
    )
    add("--discordance", metavar="SHARE", type=_number, help="share of questions that only one of the two gets right")
    add("--accuracy", metavar="SHARE", type=_number, help="accuracy of both, in place of --discordance")
    add("--correlation", metavar="R", type=_number, default=0.0, help="correlation of right answers over questions (0)")
    add(
        "--difference",
        metavar="PP",
        type=_number,
        default=0.0,
        help="true advantage of the candidate, in percentage points (0)",
    )
    add("--power", metavar="SHARE", type=_number, default=0.8, help="probability of showing non-inferiority (0.8)")
    add("--confidence", metavar="SHARE", type=_number, default=0.95, help="confidence of the two-sided interval (0.95)")
    add("--candidates", metavar="N", type=int, default=1, help="configurations that share the verdict's error (1)")
    add(
        "--looks",
        choices=("", "any", "one"),
        default="",
        help="looks at the test set: as the verdict keeps error for (default), any number, or one (sealed, compare)",
    )
    add("--cluster-size", metavar="N", type=_number, default=1.0, help="questions that share a passage (1)")
    add(
        "--cluster-correlation",
        metavar="R",
        type=_number,
        default=0.0,
        help="correlation of differences within a passage (0)",
    )
    add("--noise", metavar="SHARE", type=_number, help="share of the differences' variance that is sampling noise")
    add("--repeats", metavar="RUN_DIR", type=Path, help="a run with run.repeats, which shows that share")


def _run_arguments(action: argparse.ArgumentParser) -> argparse.ArgumentParser:
    action.add_argument("folder", metavar="RUN_DIR", type=Path, help="the folder of a run that was reported")
    return action


def _law_arguments(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add("--student-params", metavar="N", type=_number, required=True, help="the student's non-embedding parameters")
    add("--student-tokens", metavar="D", type=_number, required=True, help="tokens that the student sees")
    add("--teacher-loss", metavar="L", type=_number, help="the teacher's loss; without it, only the supervised loss")
    add("--teacher-params", metavar="N", type=_number, help="with --teacher-tokens, in place of the teacher's loss")
    add("--teacher-tokens", metavar="D", type=_number, help="tokens that the teacher was trained on")
    _coefficients_argument(action)


def _recipe_arguments(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add("--student-params", metavar="N", required=True, help="the student's non-embedding parameters, or 'best'")
    add("--compute", metavar="FLOPS", type=_number, help="the budget in floating-point operations")
    add("--loss", metavar="L", type=_number, help="a loss to reach with as little compute as possible")
    add("--student-tokens", metavar="D", type=_number, help="the most tokens that the student may see")
    add("--scenario", choices=[*SCENARIOS, "all"], default="all", help="which costs of the teacher count (all)")
    add("--students", metavar="N", type=_number, default=1.0, help="students that share the teacher's pretraining (1)")
    add("--teacher-params", metavar="N", type=_number, help="size of an existing teacher")
    add("--teacher-loss", metavar="L", type=_number, help="loss of that teacher")
    add("--teacher-tokens", metavar="D", type=_number, help="or the tokens of its training")
    add("--lifetime-tokens", metavar="D", type=_number, default=0.0, help="tokens to serve, within the budget (0)")
    add("--context", metavar="N", type=_number, default=4096.0, help="context length, for the FLOPs (4096)")
    add("--vocabulary", metavar="N", type=_number, default=32768.0, help="vocabulary size, for the FLOPs (32768)")
    _coefficients_argument(action)


def _fit_arguments(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add("file", metavar="FILE", type=Path, help="the runs: .jsonl, .json, .csv, .tsv or .parquet")
    add("--law", choices=["distillation", "supervised"], help="the law (default: by the columns)")
    add(
        "--supervised",
        metavar="FILE",
        type=Path,
        help="supervised runs (n, d, l): the supervised law is fitted to them first",
    )
    _coefficients_argument(action, "the supervised law, where --supervised is not given")
    add("--out", metavar="FILE.json", type=Path, help="write the fitted law here, for --coefficients")
    add("--resamples", metavar="N", type=int, default=4096, help="resamples of the runs for the intervals (4096)")
    add("--whole-grid", action="store_true", help="follow every start of the grid to its end")
    add("--seed", metavar="N", type=int, default=0, help="seed of resamples and held-out parts (0)")
    add("--state", metavar="FILE", help="file of finished parts, kept until the end (FILE.fit-state), or 'none'")
    add("--quiet", action="store_true", help="no progress on standard error")


def _coefficients_argument(action: argparse.ArgumentParser, purpose: str = "the law") -> None:
    action.add_argument(
        "--coefficients",
        metavar="NAME",
        default=_SETS.split(",")[0],
        help=f"{purpose}: {_SETS}, or a file from 'plan fit --out'",
    )


def run(args: argparse.Namespace) -> int:
    """Answer what was asked, on standard output."""
    from fractionate.cli import _plan_actions

    if getattr(args, "plot", None) is not None:
        _check_plot(args.plot, args.action)
    _refuse_inputs(args)
    _plan_actions.ACTIONS[args.action](args)
    return 0


def _check_plot(path: Path, action: str) -> None:
    """Raise UsageError where a drawing cannot be written to that file: before the work, not after it."""
    if action not in _OF_RUNS:
        from fractionate.planning import plots

        plots.check_path(path)
    elif path.suffix.lower() != ".svg":
        raise UsageError(f"this drawing is written as .svg, not as {path.suffix or path.name}: change --plot")


def _refuse_inputs(args: argparse.Namespace) -> None:
    """Raise UsageError if a file that is to be written is one that is read."""
    from fractionate.files import refuse_input

    given = vars(args)
    read = [Path(given[name]) for name in ("file", "supervised", "coefficients") if given.get(name) is not None]
    for name in ("out", "plot"):
        if given.get(name) is not None:
            refuse_input(given[name], *read)


def _number(text: str) -> float:
    """Return a number such as 1.8e9. Raises ArgumentTypeError, which argparse words."""
    try:
        return float(text.replace("_", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number (write 1.8e9)") from None
