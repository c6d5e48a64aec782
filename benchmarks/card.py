"""Properties of a device: its data sheet's peak, the rate of a large matrix product, and the work of a model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SHEETS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
}
"""Dense bf16 operations per second from the data sheets, by a part of the device's name; the first match counts."""


def name_of(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def sheet_flops(device: str) -> float | None:
    """Return the data sheet's dense bf16 FLOP/s; None for a device that is not in the table."""
    return next((peak for part, peak in SHEETS.items() if part in name_of(device)), None)


def wait(device: str) -> None:
    """Wait until a device has finished its queued work."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(device: str, work: Callable[[], Any], rounds: int = 3) -> float:
    """Return the wall seconds of some work: the minimum of several rounds after a warm-up."""
    best = float("inf")
    for number in range(rounds + 1):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        best = min(best, time.perf_counter() - began) if number else best
    return best


def product_flops(device: str, side: int = 0) -> float:
    """Return the FLOP/s of a square matrix product: bf16 on a GPU, float32 on a CPU."""
    import torch

    on_gpu = device.startswith("cuda")
    side = side or (8192 if on_gpu else 768)
    left, right = (
        torch.randn(side, side, device=device, dtype=torch.bfloat16 if on_gpu else torch.float32) for _ in range(2)
    )
    return 2 * side**3 / seconds(device, lambda: left @ right)


def passes_flops(model: Any, work: Callable[[], Any]) -> float:
    """Return the operations that torch counts during some work: matrix products, convolutions and attention only."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def share(flops_per_s: float, device: str, product: float) -> str:
    """Return a rate as text: shares of a large matrix product's rate and of the data sheet's peak."""
    sheet = sheet_flops(device)
    of_sheet = f", {flops_per_s / sheet:.1%} of the data sheet's" if sheet else ""
    return f"{flops_per_s / 1e12:.3g} TFLOP/s, {flops_per_s / product:.1%} of a large product's{of_sheet}"
