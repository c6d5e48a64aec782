"""`fractionate init [DIR]`: a config to start from, with a handful of questions that it runs on."""

from __future__ import annotations

import argparse
from pathlib import Path

CONFIG = """\
# A run of fractionate. `fractionate run fractionate.toml` takes it from questions to a verdict.
# This config runs on the embedded data set with a small local model: no key, no hub.
# For your own: name a JSONL, CSV or Parquet file with a question and an answer per row in [data], and your models.

[data]
train = "atlas#train@0-79"         # or "jsonl:train.jsonl"; students learn from these questions
test = ["atlas#test@0-39"]         # or "jsonl:test.jsonl"; pairs are measured on these questions
# columns = { question = "prompt", answers = "label" }

[models]
teacher = "local:HuggingFaceTB/SmolLM2-135M-Instruct"   # decomposes and, to screen, solves; e.g. "openai:gpt-4o-mini"
solvers = ["local:HuggingFaceTB/SmolLM2-135M-Instruct"]
decomposers = ["none", "teacher", "student", "D-T"]     # also "D-R", "gold" or any model name
student = "local:HuggingFaceTB/SmolLM2-135M-Instruct"

[models.options."local:HuggingFaceTB/SmolLM2-135M-Instruct"]
max_tokens = 96

[run]
# "single", "single-cot" and the untrained "student" are the verdict's controls: a distilled pair has to beat them.
strategies = ["single", "single-cot", "static"]
variants = ["D-T"]                 # students to train; [] trains none
samples = 2                        # teacher samples per question, to pass the screen
seed = 0

# [budget]
# usd = 5.0                        # the cap is never passed

# [limits]
# concurrency = 64

# Without a price a cost is unknown and the verdict undecided. A local model is charged by its machine's hours.
[prices."local:HuggingFaceTB/SmolLM2-135M-Instruct"]
per_hour = 0.05                    # dollars per machine hour; 0 if it is free

# [prices."openai:gpt-4o-mini"]
# input_per_million = 0.15
# output_per_million = 0.60
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = "Write fractionate.toml, a commented config to start from. Never overwrites one."
    parser.epilog = "example:\n  fractionate init my-run && fractionate run my-run/fractionate.toml"
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path, default=Path(), help="folder (default: here)")


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    from fractionate.errors import UsageError
    from fractionate.files import write_text
    from fractionate.run.folder import RunFolder

    path = arguments.directory / "fractionate.toml"
    if path.exists():
        raise UsageError(f"{path} exists: name another folder, or delete the file first")
    RunFolder(arguments.directory).create()
    write_text(CONFIG, path)
    print(f"wrote {path}; next: fractionate run {path}")
    return 0
