"""`fractionate demo`: the main job on embedded data and an embedded model: no key, no hub, a verdict in minutes.

The default shows the paper's finding: solving needs facts that the prompt does not hold (`atlas-closed`), dividing does
not. A tool holds the facts and solves, so a student may take over the dividing and not the solving. `--open-book` puts
the facts into the prompt as a passage, and the student's own untrained base solves.
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path

from fractionate.cli.common import add_output_arguments, exit_code, print_results

MODEL = "local:HuggingFaceTB/SmolLM2-135M-Instruct"
TEACHER_FLAWS = 0.2
"""Share of the recorded teacher's demonstrations that are flawed, so that screening has something to screen."""
PER_PASSAGE = 8
"""Questions that atlas asks about each passage, or each group of facts."""


@dataclass(frozen=True)
class Size:
    """How much of the data a demo takes."""

    train: int
    test: int
    """Test questions, each of a passage (closed book: a group of facts) of its own: then all are independent."""
    max_tokens: int


@dataclass(frozen=True)
class Demo:
    """A demo: its data set, its sizes, and what its config says of models, run and training."""

    dataset: str
    full: Size
    smoke: Size
    settings: str
    draw: int = 0
    """Which draw of the data set's questions it takes. Other draws serve pilots, which set the sizes."""


CONFIG = """\
# Written by `fractionate demo`. `fractionate run {folder}/demo.toml --set KEY=VALUE` runs it with other settings.

[data]
train = "{train}"
test = "{test}"

{settings}
# Stated prices: the teacher is charged like gpt-4o-mini, this machine like a rented one with two cores.
[prices."recorded:teacher.jsonl"]
input_per_million = 0.15
output_per_million = 0.60

[prices."{model}"]
per_hour = 0.05
"""

CLOSED_BOOK = Demo(
    "atlas-closed",
    Size(train=256, test=160, max_tokens=56),
    Size(train=16, test=8, max_tokens=24),
    """\
[models]
# The teacher's outputs are recorded: reference decompositions, about {flaws:.0%} of them flawed, and their solutions.
teacher = "recorded:teacher.jsonl"
solvers = ["tool:atlas", "student", "E-A"]     # the tool: one look-up, comparison or count a subquestion
decomposers = ["none", "teacher", "student", "D-R"]   # "student", untrained, is a control
student = "{model}"

[models.options."{model}"]
max_tokens = {max_tokens}
batch_size = 32
runtime = "auto"       # OpenVINO where it was found to write the same replies, else torch

[models.options."E-A"]
max_tokens = 96        # solutions are longer than decompositions
batch_size = 32
runtime = "auto"

[run]
name = "demo"
strategies = ["single", "single-cot", "static"]
variants = ["D-R", "E-A"]
samples = 2
# What the question is about: each student in its teacher's place, its untrained base there, and one stage.
pairs = [
    ["teacher", "tool:atlas"], ["D-R", "tool:atlas"], ["student", "tool:atlas"], ["none", "tool:atlas"],
    ["teacher", "E-A"], ["teacher", "student"], ["none", "E-A"], ["none", "student"],
]

[train]
epochs = 1
learning_rate = 2e-3
batch_size = 4
share_passages = true

[verdict]
solver = "tool:atlas"      # today's solver, which a student would replace
margin = 5                 # percentage points: the 160 questions of a demo cannot show less (see the pilot)
""",
    draw=2,
)
OPEN_BOOK = Demo(
    "atlas",
    Size(train=192, test=80, max_tokens=64),
    Size(train=16, test=8, max_tokens=24),
    """\
[models]
# The teacher's outputs are recorded: reference decompositions, about {flaws:.0%} of them flawed, and their solutions.
teacher = "recorded:teacher.jsonl"
solvers = ["{model}"]
decomposers = ["none", "teacher", "student"]   # "student", untrained, is a control
student = "{model}"

[models.options."{model}"]
max_tokens = {max_tokens}
batch_size = 32

[run]
name = "demo"
strategies = ["single", "single-cot", "static"]
variants = ["D-R", "E-A"]
samples = 2
decomposer_context = false         # atlas questions are decomposed without reading their passage

[train]
epochs = 1
learning_rate = 2e-3
batch_size = 8
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Distill a decomposer and a solver from a recorded teacher into SmolLM2-135M, measure every pair, and say\n"
        "which part is worth distilling. Solving the questions (atlas-closed) takes facts, which a tool looks up.\n"
        "Everything runs on this machine, in a quarter of an hour of two cores. A second run makes no model call."
    )
    parser.epilog = "example:\n  fractionate demo --smoke --out /tmp/demo"
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("fractionate-demo"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--smoke", action="store_true", help="the same stages on few questions")
    parser.add_argument(
        "--open-book",
        action="store_true",
        help="the facts stand in the prompt, and the student's untrained base solves (13 minutes)",
    )
    add_output_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    from fractionate.config import load_config
    from fractionate.run.progress import Progress
    from fractionate.run.run import Run
    from fractionate.run.stages import run_everything

    demo = OPEN_BOOK if arguments.open_book else CLOSED_BOOK
    config = write_demo(arguments.out, demo, demo.smoke if arguments.smoke else demo.full)
    with Run(
        load_config(config), arguments.out, arguments.out.resolve(), Progress(quiet=arguments.quiet), source=config
    ) as opened:
        results = run_everything(opened)
        opened.progress.stage(opened.closing_line())
        print_results(results, arguments.out, as_json=arguments.json)
    if not arguments.json:
        print(f"\n{serving(arguments.out)}")
    return exit_code(results)


def serving(folder: Path) -> str:
    """Return the demo's last line: the command that serves its pairs, and a question to ask of the best one."""
    from fractionate.run.folder import RunFolder
    from fractionate.serve.catalog import Catalog

    catalog = Catalog(RunFolder(folder))
    question = catalog.example["question"] if catalog.example else ""
    command = shlex.join(["fractionate", "serve", str(folder)])
    return f'Ask it: {command}, then open http://127.0.0.1:8000 and send "{question}"'


def write_demo(folder: Path, demo: Demo, size: Size, *, seed: int = 0) -> Path:
    """Write a demo's config and its teacher's recording. Returns the config's path."""
    from fractionate import datasets
    from fractionate.datasets.atlas.teacher import write_recording
    from fractionate.files import write_text
    from fractionate.run.folder import RunFolder

    RunFolder(folder).create()
    draw = f"-{demo.draw}" if demo.draw else ""
    train = f"{demo.dataset}#train{draw}@0-{size.train - 1}"
    test = f"{demo.dataset}#test{draw}@0-{(size.test - 1) * PER_PASSAGE}/{PER_PASSAGE}"
    problems = [*datasets.load(train), *datasets.load(test)]
    write_recording(folder / "teacher.jsonl", problems, samples=2, flaw_rate=TEACHER_FLAWS, seed=seed)
    write_text(config_text(folder, demo, train, test, size.max_tokens), folder / "demo.toml")
    return folder / "demo.toml"


def config_text(folder: Path, demo: Demo, train: str, test: str, max_tokens: int) -> str:
    """Return the config of a demo in a folder, on these training and test questions."""
    settings = demo.settings.format(model=MODEL, flaws=TEACHER_FLAWS, max_tokens=max_tokens)
    return CONFIG.format(folder=folder, train=train, test=test, model=MODEL, settings=settings)
