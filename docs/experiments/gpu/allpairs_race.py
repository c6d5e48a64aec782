"""All-Pairs 4-4 by Type-Net to 100 %, a ResNet for the same time, then 5-5 for half an hour. See allpairs-gpu.md.

    python docs/experiments/gpu/allpairs_race.py --minutes 9
    python docs/experiments/gpu/allpairs_race.py --small --device cpu      # 1-2 in small images, a few thousand samples

The script first measures the generator, the training and the GPU separately. A repeated call continues at the last
checkpoint; results.jsonl gets a row for each part.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from pieces import ROOT, Piece, add_row, main, parser, rows, use_unpacked


def parts(arguments: argparse.Namespace) -> list[tuple[str, Any, Any]]:
    """Return (name, task, settings) of each training; the ResNet's time is unknown until Type-Net is done."""
    from fractionate.testbeds.tasks import AllPairsTask, TrainSettings

    small, on_gpu = arguments.small, arguments.device.startswith("cuda")
    typenet = TrainSettings(
        model="type-net",
        model_options={"width": 8, "types": 8} if small else {},
        samples=arguments.samples or (2_000 if small else 40_000_000),
        batch=50 if small else 400,
        learning_rate=1e-3,
        validate_every=500 if small else 250_000,
        validation=200 if small else 5_000,
        test=200 if small else 20_000,
        statistics=100 if small else 2_000,
        stop_at=0.9995,
        device=arguments.device,
        precision="bf16" if on_gpu else "float32",
        channels_last=True,
        compile=on_gpu,
        threads=0 if on_gpu else 1,
        checkpoint_s=20.0,
    )
    four = AllPairsTask(1, 2, side=44) if small else AllPairsTask(4, 4)
    five = AllPairsTask(2, 2, side=60) if small else AllPairsTask(5, 5)
    without_end = replace(typenet, samples=10**10)
    return [
        ("type-net", four, typenet),
        ("resnet-18", four, replace(without_end, model="resnet-18", model_options={})),
        ("type-net-larger", five, replace(without_end, stop_after_s=20.0 if small else 1800.0)),
    ]


def rates(task: Any, settings: Any) -> dict[str, Any]:
    """Measure the generator alone, one training step without it, and the GPU."""
    import card
    import torch

    device, batch = settings.device, settings.batch
    block = 8192 if device.startswith("cuda") else 512
    begun = [0]

    def make() -> None:
        task.batch("rates", begun[0], block, device)
        begun[0] += block

    found = {"part": "rates", "device": card.name_of(device), "product_flops": card.product_flops(device)}
    found["sheet_flops"] = card.sheet_flops(device)
    found["generated_per_s"] = block / card.seconds(device, make)
    for name in ("type-net", "resnet-18"):
        options = settings.model_options if name == settings.model else {}
        model = task.model(name, **options).to(device).to(memory_format=torch.channels_last)
        images, labels = (getattr(task.batch("rates", 0, batch, device), field) for field in ("images", "labels"))

        def step(run: Any, images: Any = images, labels: Any = labels) -> None:
            enabled = settings.precision == "bf16"
            with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=enabled):
                loss = torch.nn.functional.cross_entropy(run(images).float(), labels)
            loss.backward()

        flops = card.passes_flops(model, lambda model=model: step(model))
        run = torch.compile(model) if settings.compile else model
        per_s = batch / card.seconds(device, lambda run=run: step(run))
        found[name] = {"flops_per_sample": flops / batch, "steps_alone_per_s": per_s}
        said = card.share(per_s * flops / batch, device, found["product_flops"])
        print(
            f"{name}: {flops / batch / 1e9:.3g} GFLOP per sample, {per_s:,.0f} samples per second: {said}", flush=True
        )
    print(f"generator: {found['generated_per_s']:,.0f} samples per second on {found['device']}", flush=True)
    return found


def work(piece: Piece, arguments: argparse.Namespace) -> None:
    from fractionate.testbeds.training import train

    results = piece.out / "results.jsonl"
    piece.check()
    for name, task, given in parts(arguments):
        done = {row["part"]: row for row in rows(results)}
        if "rates" not in done:
            add_row(results, rates(task, given))
            done = {row["part"]: row for row in rows(results)}
        if name in done:
            continue
        settings = replace(given, stop_after_s=done["type-net"]["seconds"]) if name == "resnet-18" else given
        with piece.interrupt_at_deadline():
            result = train(
                task, settings, piece.out / name, lambda line, name=name: print(f"{name}: {line}", flush=True)
            )
        model = done["rates"][settings.model]
        per_s = result.samples / result.seconds if result.seconds else 0.0
        row = {
            "part": name,
            "task": result.task,
            "model": settings.model,
            "parameters": result.parameters,
            "samples": result.samples,
            "seconds": result.seconds,
            "accuracy": result.accuracy,
            "ci_low": result.ci_low,
            "ci_high": result.ci_high,
            "n": result.n,
            "stage": result.stage,
            "samples_per_s": per_s,
            "share_of_product": per_s * model["flops_per_sample"] / done["rates"]["product_flops"],
        }
        add_row(results, row)
        print(f"{name}: {result.accuracy:.4f} after {result.samples:,} samples, {per_s:,.0f} per second", flush=True)


if __name__ == "__main__":
    use_unpacked()
    sys.path.insert(0, str(ROOT / "benchmarks"))
    options = parser(__doc__, "runs/allpairs-race")
    options.add_argument("--device", default="cuda")
    options.add_argument(
        "--samples", type=int, default=0, help="maximum of Type-Net's samples on the first task (40 million)"
    )
    options.add_argument("--small", action="store_true", help="small tasks and networks: a trial of the code")
    main(work, options.parse_args())
