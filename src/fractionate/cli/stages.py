"""`fractionate demonstrate|screen|train|evaluate CONFIG`: one stage alone."""

from __future__ import annotations

import argparse
import json

from fractionate.cli.common import add_config_arguments, add_place_argument, exit_code, open_run

_WHAT = {
    "demonstrate": "Let the teacher decompose and solve the training questions; writes demonstrations.jsonl.",
    "screen": "Keep the demonstrations whose solution reaches the gold answer; writes screened.jsonl.",
    "train": "Train the students named in run.variants from demonstrations.jsonl; writes students/NAME.",
    "evaluate": "Measure every decomposer × solver pair; writes attempts.sqlite ('fractionate report' reads it).",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the stage that the parser is for."""
    stage = parser.get_default("command")
    parser.description = _WHAT[stage]
    parser.epilog = f"example:\n  fractionate {stage} fractionate.toml --out runs/mine"
    add_config_arguments(parser)
    if stage != "screen":
        add_place_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the stage."""
    from fractionate.run import stages

    with open_run(arguments) as opened:
        if arguments.command in ("demonstrate", "evaluate"):
            stages.check_before_spending(opened)
        getattr(stages, f"{arguments.command}_stage")(opened)
        opened.progress.stage(opened.closing_line())
        if arguments.json:
            written = {
                "stage": arguments.command,
                "folder": str(opened.folder.path),
                "calls": opened.engine.counters.sent,
            }
            print(json.dumps(written))
        else:
            print(f"{arguments.command}: done, in {opened.folder.path}")
        return exit_code({"warnings": opened.notes.warnings()})
