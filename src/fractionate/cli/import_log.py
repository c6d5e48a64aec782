"""`fractionate import FILE --out NEW`: rewrite a log as recorded rows that say what they answer."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractionate.models.importing import Pattern

HELP = "rewrite a log as recorded rows, splitting replies that hold subquestions and answers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Rewrite a log (JSONL, JSON, CSV, TSV or Parquet) as rows that recorded:NEW replays, each with the strategy\n"
        "that it answers. With --pattern, a reply that holds subquestions, their answers and a final answer is split.\n"
        "Replies that cannot be split are kept whole and counted: their questions fall back to single stage.\n\n"
        "patterns: ltm ('Q1. …', the answer on the next line, 'Final Answer: …'), qa ('Q1: … A1: …', 'The answer is\n"
        "…'), self-ask ('Follow up: … Intermediate answer: …', 'So the final answer is …')."
    )
    parser.epilog = (
        "examples:\n"
        "  fractionate import least-to-most.jsonl --pattern ltm --out recorded.jsonl\n"
        "  fractionate import cot.jsonl --strategy single-cot --out recorded/cot.jsonl\n"
        "  fractionate import log.csv --question 'Step \\d+:' --final 'Result:' --output-field reply \\\n"
        "    --out recorded.jsonl"
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the log")
    parser.add_argument("--out", metavar="NEW.jsonl", type=Path, required=True, help="write the recorded rows here")
    parser.add_argument("--pattern", metavar="NAME", help="how replies are split: ltm, qa or self-ask (default: not)")
    parser.add_argument("--question", metavar="REGEX", help="the marker before a subquestion, at the start of a line")
    parser.add_argument("--answer", metavar="REGEX", help="the marker before its answer (default: the next line)")
    parser.add_argument("--final", metavar="REGEX", help="the marker before the final answer")
    parser.add_argument(
        "--strategy",
        metavar="NAME,…",
        help="what the rows answer: a row is written for each (default: static,stepwise with a pattern)",
    )
    parser.add_argument("--output-field", metavar="NAME", default="", help="the reply's field (default: output, …)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Rewrite the log and print what was made of it."""
    import json

    from fractionate import strategies
    from fractionate.errors import UsageError
    from fractionate.files import refuse_input
    from fractionate.models.importing import import_log

    pattern = _pattern(args)
    names = [name.strip() for name in (args.strategy or ("static,stepwise" if pattern else "")).split(",")]
    if names == [""]:
        raise UsageError("say which strategy the replies answer (--strategy single-cot), or how to split (--pattern)")
    for name in names:
        if pattern is not None and strategies.get(name).stages != "two-stage":
            raise UsageError(f"--strategy {name} has no subquestions: leave --pattern out, or name static or stepwise")
        strategies.get(name)
    refuse_input(args.out, args.file)
    made = import_log(args.file, args.out, pattern=pattern, strategies=names, output_field=args.output_field)
    whole = sum(made.whole.values())
    if args.json:
        print(json.dumps({"rows": made.rows, "split": made.split, "whole": dict(made.whole)}))
        return 0
    print(f"{made.rows} rows as {', '.join(names)}: {args.out}")
    if pattern is not None:
        print(f"split        {made.split}")
        print(f"kept whole   {whole}")
    for reason, count in made.whole.most_common():
        print(f"  {count} with {reason}, first at {made.examples[reason]}")
    return 0


def _pattern(args: argparse.Namespace) -> Pattern | None:
    """Return the pattern that the arguments name or write, None where replies stay whole."""
    from dataclasses import replace

    from fractionate.errors import UsageError
    from fractionate.models.importing import PATTERNS, Pattern

    given = {name: value for name in ("question", "answer", "final") if (value := getattr(args, name)) is not None}
    for name, value in given.items():
        try:
            re.compile(value)
        except (re.error, RecursionError) as error:
            raise UsageError(f"--{name} {value!r} is no regular expression: {error}") from None
    if args.pattern is not None:
        if args.pattern not in PATTERNS:
            raise UsageError(f"unknown pattern {args.pattern!r}: use {', '.join(PATTERNS)}")
        return replace(PATTERNS[args.pattern], **given)
    if not given:
        return None
    if not {"question", "final"} <= set(given):
        raise UsageError("a pattern of your own needs --question and --final")
    return Pattern(**given)
