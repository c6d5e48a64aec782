"""`fractionate export RUN_DIR [STUDENT] --out DIR`: a student taken elsewhere, checked, with its model card."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fractionate.errors import UsageError

if TYPE_CHECKING:
    from fractionate.export.write import Wanted

_KINDS = ("safetensors", "gguf", "adapter")
_TYPES = ("f16", "f32", "q8_0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Write a trained student for other programs: merged into its base as a Hugging Face folder (safetensors, for\n"
        "vLLM and transformers), as GGUF with a Modelfile (llama.cpp, Ollama), or as its adapter for vLLM.\n"
        "The export is loaded back and asked 50 of the run's questions. All replies have to equal those of the\n"
        "measured student (ties are counted separately; for q8_0 nine in ten), else nothing is written and the exit\n"
        "code is 1. The export has a model card with the run's figures. Prints a command that serves it, and one\n"
        "request in the form of its training."
    )
    parser.epilog = (
        "example:\n  fractionate export runs/mine D-R --out exports/d-r\n"
        "  fractionate export runs/mine D-R --out exports/d-r-gguf --format gguf --type q8_0 --type f16\n"
        "  fractionate export runs/mine E-A --out exports/e-a --format adapter --push me/e-a --private"
    )
    parser.add_argument("folder", metavar="RUN_DIR", type=Path, help="the run's folder")
    parser.add_argument(
        "student", metavar="STUDENT", nargs="?", default="", help="the student (default: the run's only one)"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to write")
    parser.add_argument("--format", choices=_KINDS, default="safetensors", help="what to write (default: %(default)s)")
    parser.add_argument(
        "--type",
        choices=_TYPES,
        action="append",
        default=[],
        help="how GGUF stores the weights (default: f16); repeatable, the Modelfile takes the first",
    )
    parser.add_argument("--name", metavar="NAME", default="", help="name of the export (default: the name of DIR)")
    parser.add_argument("--license", metavar="ID", default="", help="the license to state, where the base's is unknown")
    parser.add_argument("--prompts", metavar="N", type=int, default=50, help="questions to check on (default: 50)")
    parser.add_argument(
        "--alike",
        metavar="SHARE",
        type=float,
        help="share of replies that have to equal the student's (default: 1; for q8_0 0.9)",
    )
    parser.add_argument("--no-check", action="store_true", help="do not check; the card says so")
    parser.add_argument("--push", metavar="ORG/NAME", default="", help="upload the export to the hub (token: HF_TOKEN)")
    parser.add_argument("--private", action="store_true", help="make the hub's repository private")
    parser.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def run(arguments: argparse.Namespace) -> int:
    """Write the export, and push it where that is asked."""
    from fractionate.export.card import request_line, serve_line
    from fractionate.export.student import open_student
    from fractionate.export.write import check_can_push, export_student, push
    from fractionate.models.local.weights import require_local
    from fractionate.run.progress import Progress

    wanted = _wanted(arguments)
    require_local()
    student = open_student(arguments.folder, arguments.student)
    if arguments.push:
        check_can_push(arguments.push)
        if wanted.kind == "adapter" and not student.base_is_public:
            raise UsageError(f"{student.base} is on this machine alone: push --format safetensors, not the adapter")
    written = export_student(student, arguments.out, wanted, Progress(quiet=arguments.quiet).stage)
    lines = {
        "serve": serve_line(student, wanted.kind, written.folder, wanted.name),
        "ask": request_line(wanted.kind, wanted.name, written.example, student.max_tokens),
    }
    told = {
        "student": student.name,
        "folder": str(written.folder),
        "format": wanted.kind,
        "files": list(written.files),
        "parity": [one.as_dict() for one in written.parity],
        "checked": wanted.check,
        **lines,
    }
    if not arguments.json:
        checked = [one.sentence() for one in written.parity] or ["checked: asked as in training"]
        print("\n".join(checked if wanted.check else ["not checked (--no-check)"]))
        print(f"\nserve:\n  {lines['serve']}\n\nask (one user message: {student.form}):\n  {lines['ask']}\n")
        print(f"export of {student.name}: {written.folder}")
    if arguments.push:
        told["pushed"] = push(written.folder, arguments.push, private=arguments.private)
        if not arguments.json:
            print(f"pushed: {told['pushed']}")
    if arguments.json:
        print(json.dumps(told, ensure_ascii=False))
    return 0


def _wanted(arguments: argparse.Namespace) -> Wanted:
    from fractionate.export.write import Wanted

    if arguments.type and arguments.format != "gguf":
        raise UsageError("--type is how GGUF stores weights: add --format gguf")
    if arguments.private and not arguments.push:
        raise UsageError("--private is for a repository on the hub: add --push ORG/NAME")
    if arguments.prompts < 1:
        raise UsageError("--prompts must be at least 1 (--no-check checks nothing)")
    if arguments.alike is not None and not 0 <= arguments.alike <= 1:
        raise UsageError(f"--alike is a share from 0 to 1, not {arguments.alike:g}")
    name = arguments.name or arguments.out.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"{name!r} cannot be a model's name everywhere: give --name of letters, digits, '-', '_', '.'")
    return Wanted(
        kind=arguments.format,
        types=tuple(dict.fromkeys(arguments.type)) or ("f16",),
        name=name,
        check=not arguments.no_check,
        prompts=arguments.prompts,
        alike=arguments.alike,
        license=arguments.license,
    )
