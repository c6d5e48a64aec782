"""`fractionate compare A B [C ...]`: systems over the same questions, from logs that others wrote."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fractionate.cli.common import add_scoring_arguments, columns_of

if TYPE_CHECKING:
    from fractionate.config import PriceConfig
    from fractionate.logs.choices import Choices

HELP = "compare systems over the same questions, from logs that you have"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Compare systems over the same questions, from logs that you have: no model is called.\n\n"
        "A LOG is one of\n"
        "  RUN_DIR:CELL            a cell of a run, such as runs/mine:static/D-R/E-A\n"
        "  FILE.jsonl              rows with 'id' (or 'index') and 'outcome' ('correct', 'exact_match', 'score'), or\n"
        "                          outputs and right answers as 'fractionate score' takes them; CSV, Parquet, … too\n"
        "  FILE.eval, FILE.json    a log of inspect_ai\n"
        "  FILE.jsonl:PAIR         what a pair answered, kept by 'fractionate serve --record', marked by clients\n"
        "  DIR, samples_….jsonl    what lm-evaluation-harness writes with --log_samples\n"
        "and NAME=LOG calls the system NAME. Only questions that all answered count. Questions that share a 'group'\n"
        "(or 'context', 'passage') count as one independent unit, several answers to a question by their mean."
    )
    parser.epilog = (
        "examples:\n"
        "  fractionate compare small.jsonl large.jsonl --margin 2\n"
        "  fractionate compare runs/mine:static/D-R/E-A runs/mine:static/teacher/teacher --json\n"
        "  fractionate compare a.eval b.eval c.eval --scorer match --price openai/gpt-4o-mini=0.15,0.60\n"
        "  fractionate compare out/one out/two --task gsm8k --filter strict-match\n"
        "  fractionate compare traffic.jsonl:static:teacher+teacher traffic.jsonl:static:D-R+teacher\n"
        "  fractionate compare a.jsonl b.jsonl --gold gsm8k#test --output-field completion"
    )
    parser.add_argument("logs", metavar="LOG", nargs="+", help="two logs or more, each [NAME=]PATH[:CELL]")
    parser.add_argument(
        "--margin", metavar="POINTS", type=float, default=0.0, help="also test who is less than so many points worse"
    )
    parser.add_argument("--confidence", metavar="C", type=float, default=0.95, help="of intervals and tests (0.95)")
    parser.add_argument("--id-field", metavar="FIELD", default="", help="the field that questions are matched by")
    parser.add_argument("--group-field", metavar="FIELD", default="", help="the field that says what questions share")
    parser.add_argument("--outcome-field", metavar="FIELD", default="", help="the field with the outcome, 0 to 1")
    parser.add_argument(
        "--metric", metavar="NAME", default="", help="which metric: exact_match or f1, or one of lm-evaluation-harness"
    )
    parser.add_argument("--scorer", metavar="NAME", default="", help="which scorer of an inspect_ai log")
    parser.add_argument("--filter", metavar="NAME", default="", help="which filter of lm-evaluation-harness")
    parser.add_argument("--task", metavar="NAME", default="", help="which task of lm-evaluation-harness")
    parser.add_argument("--repeats", action="store_true", help="rows with one id are several answers to one question")
    parser.add_argument("--dataset", metavar="NAME", default="", help="score outputs as this data set does")
    add_scoring_arguments(parser)
    parser.add_argument(
        "--price",
        metavar="MODEL=IN,OUT",
        action="append",
        default=[],
        help="dollars per million tokens read and written, of a model as the log names it (or a system); repeatable",
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def run(args: argparse.Namespace) -> int:
    """Read the logs, compare them and print how they stand."""
    import json

    from fractionate.analysis.comparison import compare_systems
    from fractionate.errors import UsageError
    from fractionate.logs.read import read_systems

    if len(args.logs) < 2:
        raise UsageError("compare takes two logs or more: name another")
    systems = read_systems(args.logs, _choices(args), dict(map(_price, args.price)))
    standing = compare_systems(systems, args.confidence, args.margin / 100)
    if args.json:
        print(json.dumps(standing.as_dict(), ensure_ascii=False))
        return 0
    from fractionate.report.standing import standing_text

    print(standing_text(standing))
    return 0


def _choices(args: argparse.Namespace) -> Choices:
    from fractionate.datasets.scoring import Fields
    from fractionate.logs.choices import Choices

    return Choices(
        id=args.id_field,
        outcome=args.outcome_field,
        group=args.group_field,
        scorer=args.scorer,
        metric=args.metric,
        filter=args.filter,
        task=args.task,
        dataset=args.dataset,
        gold=args.gold,
        fields=Fields(args.output_field, args.answers_field, args.index_field),
        columns=columns_of(args),
        repeats=args.repeats,
    )


def _price(text: str) -> tuple[str, PriceConfig]:
    from fractionate.config import PriceConfig
    from fractionate.errors import UsageError

    model, equals, prices = text.rpartition("=")
    try:
        read, written = (float(price) for price in prices.split(","))
        if not (model and equals and 0 <= read < float("inf") and 0 <= written < float("inf")):
            raise ValueError
    except ValueError:
        raise UsageError(f"--price takes MODEL=IN,OUT (such as gpt-4o-mini=0.15,0.60), not {text!r}") from None
    return model, PriceConfig(input_per_million=read, output_per_million=written)
