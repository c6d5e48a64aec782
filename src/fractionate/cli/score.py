"""`fractionate score FILE --dataset NAME`: score recorded outputs by a data set's reader, or by your own scorer."""

from __future__ import annotations

import argparse
from pathlib import Path

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
        "--scorer FILE.py:FUNCTION calls function(output, answers), plain or async, which returns a number from 0 to\n"
        "1 (or on --scale). With --scale alone the output itself is the rating."
    )
    parser.epilog = (
        "examples:\n"
        "  fractionate score outputs.jsonl --dataset drop --rows scored.jsonl\n"
        "  fractionate score logs.jsonl --gold gsm8k#test --output-field completion --json\n"
        "  fractionate score logs.csv --gold jsonl:mine.csv --column answers=label --index-field id\n"
        "  fractionate score outputs.jsonl --answer numbers\n"
        "  fractionate score outputs.jsonl --scorer judge.py:grade\n"
        "  fractionate score ratings.jsonl --scale 1-5 --output-field review.rating"
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the recorded outputs")
    parser.add_argument(
        "--dataset", metavar="NAME", default="", help="the data set with the reader and metric: gsm8k, drop, …"
    )
    parser.add_argument("--scorer", metavar="SCORER", default="", help="FILE.py:FUNCTION, or a scorer of a plug-in")
    parser.add_argument("--rows", metavar="OUT.jsonl", type=Path, help="write every row's prediction and score here")
    add_scoring_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


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
        inputs = [args.file]
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
    return 0
