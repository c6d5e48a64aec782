"""The report recovers the law from synthetic losses and prints every table of the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the 'testbeds' extra is not installed")

import scaling_law
from scaling_grids import GPU
from tiny_transformer import size

from fractionate.planning.coefficients import named
from fractionate.planning.protocol import Options

# A third of the larger grid's students and three of its teachers: the fits take most of the time.
GRID = replace(GPU, teachers=GPU.teachers[1:], students=(*GPU.students[::3], ("2.7M", 2.0)))


def made_rows() -> dict[str, dict[str, Any]]:
    """Losses by the corrected law of the paper, with noise of 0.1 %, for every run."""
    law, noise = named("paper-corrected"), np.random.default_rng(0)
    rows: dict[str, dict[str, Any]] = {}
    told: dict[str, float] = {}
    for run in GRID.plan():
        params, tokens = float(size(*GRID.shapes[run.shape])), float(GRID.sequences(run) * GRID.context)
        loss = float(law.supervised.loss(params, tokens))
        if run.teacher:
            loss = float(law.distilled.loss(params, tokens, told[run.teacher], loss))
        loss *= 1 + 0.001 * noise.standard_normal()
        if run.role == "teacher":
            told[run.shape] = loss
        row = {"name": run.name, "role": run.role, "shape": run.shape, "million": run.million, "teacher": run.teacher}
        rows[run.name] = {**row, "seed": run.seed, "params": params, "tokens": tokens, "loss": loss}
    return rows


def test_the_larger_grid_s_report_is_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_law, "Options", lambda resamples: Options(resamples=0))
    scaling_law.report(made_rows(), GRID)
    told = capsys.readouterr().out
    for shape, million in GRID.students:
        assert told.count(f"| {shape} | {million:g}M |") == 2
    assert f"supervised: {len(GRID.students) + 3} runs" in told
    assert f"distillation: {3 * len(GRID.students)} runs" in told
    assert "4 seeds" in told
