"""`fractionate testbed allpairs|pentomino generate|survey|train|ceilings`: tasks whose truth is known exactly."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HELP = "All-Pairs and Knowledge Matters: dividing and solving where the truth is exact"
_TASKS = {
    "allpairs": "All-Pairs (arXiv 1807.00126): is every class of symbol there an even number of times?",
    "pentomino": "Knowledge Matters (arXiv 1301.4083): are all three pentominoes of one class?",
}
_ACTIONS = {
    "generate": "write images, labels and hints",
    "survey": "write one picture of many samples",
    "train": "train a model; the same command goes on where it was cut off",
    "ceilings": "print what accuracy is possible with how much knowledge",
}
_SLOW = 2e-4
"""At 1e-3 classes merge in block-types and take millions of samples to come apart."""
_MODELS = {
    "allpairs": ("type-net", "resnet-18", "resnet-34"),
    "pentomino": ("block-types", "conv-types", "two-tier", "mlp"),
}
_EXAMPLES = {
    ("allpairs", "generate"): "--pairs 4 --types 4 --count 1000 --seed 0 --out allpairs-4-4",
    ("allpairs", "survey"): "--pairs 4 --types 18 --out survey.png",
    ("allpairs", "train"): "--pairs 2 --types 2 --samples 100000 --out runs/allpairs-2-2",
    ("allpairs", "ceilings"): "--pairs 4 --types 4",
    ("pentomino", "generate"): "--count 1000 --seed 0 --out pentomino",
    ("pentomino", "survey"): "--out survey.png",
    ("pentomino", "train"): "--out runs/pentomino",
    ("pentomino", "ceilings"): "",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Two tasks of finding a relation over parts. The parts (divide) and the relation (solve) can be taught\n"
        "separately, and the value of each is known exactly. See docs/guide/testbeds.md."
    )
    parser.epilog = "\n".join(
        ["examples:", *(f"  fractionate testbed {t} {a} {e}".rstrip() for (t, a), e in _EXAMPLES.items())]
    )
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for task, about in _TASKS.items():
        actions = tasks.add_parser(task, help=about, description=about).add_subparsers(
            dest="action", metavar="ACTION", required=True
        )
        for action, purpose in _ACTIONS.items():
            example = f"example:\n  fractionate testbed {task} {action} {_EXAMPLES[task, action]}".rstrip()
            one = actions.add_parser(
                action,
                help=purpose,
                description=purpose,
                epilog=example,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            _add_options(one, task, action)


def _add_options(parser: argparse.ArgumentParser, task: str, action: str) -> None:
    if task == "allpairs":
        parser.add_argument("--pairs", type=int, default=4, metavar="K", help="pairs of symbols in an image (4)")
        parser.add_argument("--types", type=int, default=4, metavar="M", help="classes of symbols, 2 to 18 (4)")
        if action != "ceilings":
            parser.add_argument("--side", type=int, metavar="PX", help="the image's side (76 up to 5 pairs, else 96)")
    if action != "ceilings":
        parser.add_argument("--seed", type=int, default=0, help="the seed of the samples (0)")
    if action in ("generate", "survey"):
        parser.add_argument(
            "--split", default="train", metavar="NAME", help="name of the split; each has its own samples (train)"
        )
        parser.add_argument("--start", type=int, default=0, metavar="N", help="the first sample's number (0)")
    if action == "generate":
        parser.add_argument("--count", type=int, default=1000, metavar="N", help="samples (1000)")
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
        parser.add_argument(
            "--format", choices=("png", "webdataset", "parquet"), default="png", help="PNG + CSV, tar or Parquet shards"
        )
        parser.add_argument("--shard-size", type=int, default=10_000, metavar="N", help="samples per shard (10000)")
        parser.add_argument("--no-hints", action="store_true", help="write images and labels only")
        parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1); samples stay the same")
    if action == "survey":
        parser.add_argument("--count", type=int, default=12, metavar="N", help="samples (12)")
        parser.add_argument("--symbols", action="store_true", help="a row per class of symbol or sprite, drawn alone")
        parser.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the picture")
    if action == "train":
        _add_training_options(parser, task)
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    if action in ("generate", "train"):
        parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def _add_training_options(parser: argparse.ArgumentParser, task: str) -> None:
    models = _MODELS[task]
    parser.add_argument("--model", choices=models, default=models[0], help=f"({models[0]})")
    parser.add_argument(
        "--model-option", action="append", default=[], metavar="KEY=VALUE", help="such as width=32; repeatable"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--samples", type=int, default=1_000_000, metavar="N", help="samples to train on (1000000)")
    parser.add_argument(
        "--train-size", type=int, default=0, metavar="N", help="size of a fixed set, reshuffled; 0: endless (0)"
    )
    parser.add_argument("--batch", type=int, default=400 if task == "allpairs" else 128, help="(%(default)s)")
    slow = f", {_SLOW:g} for block-types" if "block-types" in models else ""
    parser.add_argument("--lr", type=float, help=f"Adam's learning rate (0.001{slow})")
    parser.add_argument(
        "--decay",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="last share of the run, in which the rate falls to zero (0)",
    )
    if task == "pentomino":
        parser.add_argument(
            "--teach", choices=("none", "divide", "solve", "both"), default="none", help="what hints teach (none)"
        )
    parser.add_argument("--init-seed", type=int, default=0, metavar="SEED", help="of weights and shuffling (0)")
    parser.add_argument("--validate-every", type=int, default=50_000, metavar="N", help="in samples (50000)")
    parser.add_argument("--validation", type=int, default=5_000, metavar="N", help="validation images (5000)")
    parser.add_argument("--test", type=int, default=20_000, metavar="N", help="test images, used once (20000)")
    parser.add_argument(
        "--statistics",
        type=int,
        default=2_000,
        metavar="N",
        help="images to measure batch norm on before each validation; 0: running averages (2000)",
    )
    parser.add_argument(
        "--stop-at", type=float, metavar="ACC", help="stop at this validation accuracy, reached twice in a row"
    )
    parser.add_argument(
        "--stop-after", type=float, metavar="SECONDS", help="stop after this time, over all parts of the run"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu); the generator runs there too")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="(float32)")
    parser.add_argument("--channels-last", action="store_true", help="convolutions' fast layout on GPUs")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads; 0 leaves torch's choice (0)")


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    return {"generate": _generate, "survey": _survey, "train": _train, "ceilings": _ceilings}[args.action](args)


def _generate(args: argparse.Namespace) -> int:
    from fractionate.testbeds.writing import write_samples

    summary = write_samples(
        _source(args),
        args.out,
        args.start,
        args.count,
        form=args.format,
        shard_size=args.shard_size,
        hints=not args.no_hints,
        workers=args.workers,
        say=_speaker(args),
    )
    if args.json:
        print(json.dumps(summary))
    else:
        print(f"{summary['count']:,} samples ({summary['share_true']:.1%} true) in {args.out}: {summary['files'][0]} …")
    return 0


def _survey(args: argparse.Namespace) -> int:
    from fractionate.testbeds.pictures import sample_sheet, symbol_sheet

    sheet = symbol_sheet if args.symbols else sample_sheet
    sheet(_source(args), args.out, args.start, args.count)
    print(json.dumps({"file": str(args.out)}) if args.json else f"written: {args.out}")
    return 0


def _train(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from fractionate.testbeds.pictures import plot_run
    from fractionate.testbeds.tasks import AllPairsTask, PentominoTask, TrainSettings
    from fractionate.testbeds.training import train

    allpairs = args.task == "allpairs"
    settings = TrainSettings(
        model=args.model,
        model_options=dict(_option(text) for text in args.model_option),
        samples=args.samples,
        train_size=args.train_size,
        batch=args.batch,
        learning_rate=args.lr if args.lr is not None else _SLOW if args.model == "block-types" else 1e-3,
        decay=args.decay,
        teach="none" if allpairs else args.teach,
        seed=args.init_seed,
        validate_every=args.validate_every,
        validation=args.validation,
        test=args.test,
        statistics=args.statistics,
        stop_at=args.stop_at,
        stop_after_s=args.stop_after,
        device=args.device,
        precision=args.precision,
        channels_last=args.channels_last,
        compile=args.compile,
        threads=args.threads,
    )
    task = AllPairsTask(args.pairs, args.types, args.seed, args.side) if allpairs else PentominoTask(args.seed)
    result = train(task, settings, args.out, _speaker(args))
    plot = plot_run(args.out, task.ceilings())
    if args.json:
        print(json.dumps(asdict(result)))
        return 0
    interval = f"95 % interval {result.ci_low:.4f}–{result.ci_high:.4f}, n = {result.n:,}"
    print(
        f"test accuracy {result.accuracy:.4f} ({interval}) after {result.samples:,} samples in {result.seconds:.0f} s\n"
        f"{result.stage}\n"
        f"{args.out / 'curve.csv'}{f', {plot}' if plot else ''}"
    )
    return 0


def _ceilings(args: argparse.Namespace) -> int:
    from fractionate.testbeds.ceilings import allpairs_ceilings, pentomino_ceilings

    found = allpairs_ceilings(args.pairs, args.types) if args.task == "allpairs" else pentomino_ceilings()
    if args.json:
        print(json.dumps({name: float(value) for name, value in found.items()}))
        return 0
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:<{width}}  {float(value):.3f}  {value}")
    return 0


def _source(args: argparse.Namespace) -> Any:
    from fractionate.testbeds.allpairs.generator import AllPairs
    from fractionate.testbeds.pentomino.generator import Pentomino

    if args.task == "allpairs":
        return AllPairs(args.pairs, args.types, args.seed, args.split, args.side)
    return Pentomino(args.seed, args.split)


def _option(text: str) -> tuple[str, int | float | str]:
    from fractionate.errors import UsageError

    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--model-option needs KEY=VALUE, not {text!r}")
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def _speaker(args: argparse.Namespace) -> Any:
    import sys

    if args.quiet:
        return lambda line: None
    return lambda line: print(line, file=sys.stderr, flush=True)
