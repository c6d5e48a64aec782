"""The grids' plans: requirements on the larger grid, and a regression test of the smaller one."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the 'testbeds' extra is not installed")

from scaling_grids import CPU, GPU, Grid, Run, texts_of
from tiny_transformer import size


def test_the_larger_grid_has_what_is_asked_of_it() -> None:
    plan = GPU.plan()
    assert len(plan) >= 150
    assert len({run.name for run in plan}) == len(plan)
    params = [size(*GPU.shapes[run.shape]) for run in plan]
    assert min(params) == pytest.approx(0.5e6, rel=0.15)
    assert max(params) == pytest.approx(60e6, rel=0.05)
    tokens = [GPU.sequences(run) * GPU.context for run in plan if run.role == "student"]
    assert max(tokens) / min(tokens) >= 100
    for name, shape in GPU.shapes.items():
        assert size(*shape) == pytest.approx(float(name[:-1]) * 1e6, rel=0.12), name


@pytest.mark.parametrize("grid", [CPU, GPU], ids=lambda grid: grid.name)
def test_students_read_no_text_of_a_teacher_and_everybody_reads_it_once(grid: Grid) -> None:
    read = list(texts_of(grid))
    assert max(end for role, _, end in read if role == "teacher") <= grid.student_text
    assert min(begin for role, begin, _ in read if role != "teacher") == grid.student_text
    assert max(end for _, _, end in read) == grid.most_sequences()


@pytest.mark.parametrize("grid", [CPU, GPU], ids=lambda grid: grid.name)
def test_teachers_come_before_their_students(grid: Grid) -> None:
    names = [run.name for run in grid.plan()]
    for run in grid.plan():
        if run.teacher:
            million = dict(grid.teachers)[run.teacher]
            assert names.index(Run("teacher", run.teacher, million).name) < names.index(run.name)


def test_the_smaller_grid_s_runs_keep_their_names() -> None:
    names = [run.name for run in CPU.plan()]
    assert len(names) == 85
    assert names[:5] == [
        "teacher-25k-0.75M-alone-0",
        "teacher-147k-1.5M-alone-0",
        "teacher-442k-2M-alone-0",
        "teacher-1.2M-2M-alone-0",
        "supervised-25k-0.125M-alone-0",
    ]
    assert names[-1] == "student-83k-0.25M-442k-3"
    assert CPU.sequences(Run("teacher", "25k", 0.75)) * CPU.context == 749_568


def test_a_run_s_operations_are_those_that_torch_counts() -> None:
    import torch
    from tiny_transformer import Transformer
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    grid, run = GPU, Run("supervised", "1.2M", 0.2)
    model = Transformer(*grid.shapes[run.shape], grid.vocabulary, grid.context)
    # Of a CPU's own kernel for attention torch counts nothing.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, grid.context, dtype=torch.long)).sum().backward()
    counted = counter.get_total_flops() * grid.sequences(run)
    assert grid.flops(run) == pytest.approx(counted, rel=0.02)
