"""`fractionate score FILE --dataset NAME`: score recorded outputs as a data set does."""

from __future__ import annotations

import argparse
from pathlib import Path

from fractionate.cli.common import add_scoring_arguments, columns_of

HELP = "score recorded outputs as a data set does"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Score recorded outputs (JSONL, JSON, CSV, TSV or Parquet) with a data set's own extractor and metric.\n\n"
        "Each row has 'output' (a model's raw text; the answer is extracted) or 'prediction' (already extracted: a\n"
        "string, or a list of strings for several spans), and 'answers': a list of alternatives, each a string or a\n"
        "list of strings. With --gold the answers come from a data set, by the row's 'index'."
    )
    parser.epilog = (
        "examples:\n"
        "  fractionate score outputs.jsonl --dataset drop --rows scored.jsonl\n"
        "  fractionate score logs.jsonl --dataset gsm8k --gold gsm8k#test --output-field completion --json\n"
        "  fractionate score logs.csv --dataset jsonl --gold jsonl:mine.csv --column answers=label --index-field row"
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the recorded outputs")
    parser.add_argument("--dataset", metavar="NAME", required=True, help="whose extractor and scorer: gsm8k, drop, …")
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
    from fractionate.datasets.scoring import Fields, score_file
    from fractionate.files import refuse_input

    if args.rows is not None:
        inputs = [args.file]
        if args.gold:
            gold = parse_reference(args.gold)
            copies = Path(os.environ.get(DATA_FOLDER, "")) / gold.name
            inputs.append(Path(gold.path).expanduser() if gold.path else copies)
        refuse_input(args.rows, *inputs)
    fields = Fields(args.output_field, args.answers_field, args.index_field)
    summary = score_file(args.file, args.dataset, args.rows, gold=args.gold, fields=fields, columns=columns_of(args))
    print(f"scored {fields.described(args.gold)}", file=sys.stderr)
    if args.json:
        print(json.dumps(summary))
        return 0
    print(f"rows         {summary['n']}")
    print(f"exact match  {summary['exact_match']:.4f}")
    print(f"F1           {summary['f1']:.4f}")
    print(f"unextracted  {summary['unextracted']:.4f}")
    return 0
