"""`fractionate score FILE --dataset NAME`: score recorded outputs by a data set's reader, or by your own scorer."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fractionate.cli.common import add_scoring_arguments, scoring_of

HELP = "score recorded outputs as a data set does, or by your own function"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Score recorded outputs (JSONL, JSON, CSV, TSV or Parquet) with a data set's own reader and metric, or with\n"
        "your own function.\n\n"
        "Each row has 'output' (a model's raw text; the answer is extracted) or 'prediction' (already extracted: a\n"
        "string, or a list of strings for several spans), and 'answers': a list of alternatives, each a string or a\n"
        "list of strings. With --gold the answers come from a data set: rows match its questions by the value of\n"
        "'index' or 'id', or of --index-field. A field inside another is written a.b.c.\n\n"
        "--answer FORM reads and scores answers in a form (number, numbers, money, date, span, text, …), with or\n"
        "without a data set. Where a gold answer of a number data set is a list of several numbers, the row is scored\n"
        "as that set of numbers, in any order.\n\n"
        "--scorer names a scorer, as data.scorer of a config does: a form of answer, contains, regex, json, math,\n"
        "sql, judge, a data set, a plug-in's, or FILE.py:FUNCTION: function(output, answers), plain or async, returns\n"
        "a number from 0 to 1 (or on --scale). Options follow in a table, or with --set. A judge's calls are stored,\n"
        "and paid for within [budget]. With --scale alone the output itself is the rating."
    )
    parser.epilog = (
        "examples:\n"
        "  fractionate score outputs.jsonl --dataset drop --rows scored.jsonl\n"
        "  fractionate score logs.jsonl --gold gsm8k#test --output-field completion --json\n"
        "  fractionate score logs.csv --gold jsonl:mine.csv --column answers=label --index-field id\n"
        "  fractionate score outputs.jsonl --answer numbers\n"
        "  fractionate score outputs.jsonl --scorer grade.py:grade\n"
        '  fractionate score outputs.jsonl --scorer \'{name = "regex", pattern = "Answer: (.*)"}\'\n'
        "  fractionate score outputs.jsonl --scorer judge --set judge.model=openai:gpt-4o-mini --set budget.usd=1\n"
        "  fractionate score ratings.jsonl --scale 1-5 --output-field review.rating"
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the recorded outputs")
    parser.add_argument(
        "--dataset", metavar="NAME", default="", help="the data set with the reader and metric: gsm8k, drop, …"
    )
    parser.add_argument(
        "--scorer", metavar="SCORER", default="", help="a scorer by name, or as an inline table with its options"
    )
    parser.add_argument("--rows", metavar="OUT.jsonl", type=Path, help="write every row's prediction and score here")
    add_scoring_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def judge_line(judge: Mapping[str, Any]) -> str:
    """Return what is known of a judge, in a sentence."""
    from fractionate.scoring.labels import OPINION, Measured

    if not judge["labels"]:
        return OPINION
    fields = ("labels", "agreement", "agreement_low", "agreement_high", "kappa", "bias", "corrects")
    line = Measured(*(judge[name] for name in fields)).line()
    if "corrected" in judge:
        line += f": {judge['corrected']:.4f} ({judge['ci_low']:.4f} to {judge['ci_high']:.4f}, 95 %)"
    return line


def run(args: argparse.Namespace) -> int:
    """Score the file and print its summary."""
    import json
    import os
    import sys

    from fractionate.datasets import parse_reference
    from fractionate.datasets.hub import DATA_FOLDER
    from fractionate.datasets.scoring import score_to
    from fractionate.files import refuse_input

    if args.rows is not None:
        inputs = [args.file, *([args.config] if args.config else [])]
        if args.gold:
            gold = parse_reference(args.gold)
            copies = Path(os.environ.get(DATA_FOLDER, "")) / gold.name
            inputs.append(Path(gold.path).expanduser() if gold.path else copies)
        refuse_input(args.rows, *inputs)
    scored = score_to(args.file, args.rows, scoring_of(args))
    summary = scored.summary()
    for line in scored.described():
        print(line, file=sys.stderr)
    note = summary.get("note")
    if note:
        print(f"fractionate: {note}", file=sys.stderr)
    if args.json:
        print(json.dumps(summary))
        return 0
    print(f"rows         {summary['n']}")
    if not note:  # figures of a scorer that does not fit say nothing of the model
        print(f"exact match  {summary['exact_match']:.4f}")
        print(f"F1           {summary['f1']:.4f}")
    print(f"unparsed     {summary['unextracted']:.4f}")
    if judge := summary.get("judge"):
        print(f"judge        {judge['identity']}")
        print(judge_line(judge))
    return 0
