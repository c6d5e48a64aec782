"""Training on a real local Ray: one student by two processes, several concurrently; stops, kills, other disks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="the 'train' extra is not installed")
pytest.importorskip("ray", reason="the 'ray' extra is not installed")

import psutil
import ray

from fractionate.cluster.connect import connect, disconnect
from fractionate.cluster.machines import SharedCheck
from fractionate.cluster.training import (
    Coordinator,
    Outcome,
    TrainingJob,
    _train,
    train_over_workers,
    train_side_by_side,
)
from fractionate.config import TrainConfig, parse_config
from fractionate.errors import FractionateError, UsageError
from fractionate.files import unpack
from fractionate.run.forecast import training_lines
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import (
    demonstrate_stage,
    read_demonstrations,
    read_screened,
    screen_stage,
    train_stage,
)
from fractionate.run.training import train_students
from fractionate.students.checkpoints import TrainingDivergedError
from fractionate.students.train import train_student
from fractionate.types import Example, Message
from tests_tiny import build_tiny_model

QUICK = TrainConfig(batch_size=4, lora_rank=2, learning_rate=5e-3)


@pytest.fixture(scope="module")
def _ray_here() -> Iterator[None]:
    """A Ray of this machine, with as many threads to a training as the tests here have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        assert connect("ray")
        try:
            yield
        finally:
            disconnect()


def examples(count: int = 12, length: int = 4) -> list[Example]:
    """Examples of unequal length, so that two workers have unequal numbers of targets."""
    return [
        Example((Message("user", f"How old is {'x' * length}{at}?"),), f"When was {at} born? {'y' * (at * 7 % 30)}")
        for at in range(count)
    ]


def adapter(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def trainers() -> list[Any]:
    """Return the processes that train one student together, of the Ray that this process started."""
    return [one for one in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(one.cmdline())]


@pytest.mark.usefixtures("_ray_here")
def test_two_workers_train_the_student_of_one_through_a_stop_and_a_kill(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same loss in every step as one process has with the same batches, to 1e-4, whatever happens on the way.

    Of 177 examples in batches of 8 the last batch has one, and one worker nothing to read. The training is stopped, and
    gone on from, in the first of two passes of 23 steps, and killed after that.
    """
    model = build_tiny_model(tmp_path_factory.mktemp("models") / "slow", width=64)
    settings = QUICK.model_copy(update={"batch_size": 8, "epochs": 2.0})
    alone: dict[int, float] = {}
    one = train_student(
        str(model), examples(177, 200), tmp_path / "one", settings, 3, lambda at, _, loss: alone.update({at: loss})
    )
    together: dict[int, float] = {}
    steps: list[int] = []
    said: list[str] = []

    def train(stop_at: int = 0, kill_at: int = 0) -> None:
        acted: list[int] = []

        def on_step(at: int, of: int, loss: float) -> None:
            steps.append(at)
            together[at] = loss
            if acted or at < (stop_at or kill_at):
                return
            acted.append(at)
            if stop_at:
                raise KeyboardInterrupt
            trainers()[0].kill()

        two = settings.model_copy(update={"workers": 2})
        train_over_workers(str(model), examples(177, 200), tmp_path / "two", two, 3, on_step, say=said.append)

    with pytest.raises(KeyboardInterrupt):
        train(stop_at=21)
    assert not (tmp_path / "two").exists()
    kept = max(int(path.parent.name.rpartition("-")[2]) for path in tmp_path.glob("two.partial/*/seal.json"))
    assert kept >= 20
    assert not said
    steps.clear()
    train(kill_at=kept + 1)
    assert steps[0] == kept + 1, "from the checkpoint, not from the beginning"
    again = [after for before, after in pairwise(steps) if after <= before]
    assert len(again) == 1, "and once more after the kill"
    assert again[0] in (21, 41), "from the last checkpoint"
    assert steps[-1] == 46
    assert [line.split(" after ")[0].strip() for line in said] == ["a process was lost"]
    assert together == pytest.approx(alone, rel=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"], "nothing else is left"
    report = json.loads((tmp_path / "two/training.json").read_text())
    assert report["settings"] == one.settings | {"workers": 2}
    assert (report["steps"], report["loss_last"]) == (46, pytest.approx(one.loss_last, rel=1e-4))


def test_what_is_wrong_is_said_before_anything_is_started(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no examples"):
        train_over_workers(str(tiny_model), [], tmp_path / "s", QUICK.model_copy(update={"workers": 2}))
    with pytest.raises(UsageError, match=r"train.workers = 2, and 1 trains: train_over_workers starts them"):
        train_student(str(tiny_model), examples(), tmp_path / "s", QUICK.model_copy(update={"workers": 2}))
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- side by side


@pytest.mark.usefixtures("_ray_here")
def test_students_side_by_side_are_those_of_one_process(tiny_model: Path, tmp_path: Path) -> None:
    """To the byte. One that fails leaves the others as they are."""
    rates = {"good": 5e-3, "bad": 1e30}
    settings = {name: QUICK.model_copy(update={"learning_rate": rate, "epochs": 3.0}) for name, rate in rates.items()}
    jobs = [TrainingJob(str(tiny_model), examples(), tmp_path / "s" / name, one, 5) for name, one in settings.items()]
    steps: dict[str, list[int]] = {}
    ends: dict[str, Outcome] = {}
    train_side_by_side(
        jobs,
        lambda job, at, of, loss: steps.setdefault(job.out.name, []).append(at),
        lambda job, outcome: ends.update({job.out.name: outcome}),
    )
    assert isinstance(ends.pop("bad"), TrainingDivergedError)
    alone = train_student(str(tiny_model), examples(), tmp_path / "good", settings["good"], 5)
    assert adapter(tmp_path / "s/good") == adapter(tmp_path / "good")
    assert steps["good"] == list(range(1, 10))
    assert [end.loss_last for end in ends.values()] == [alone.loss_last]
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["bad.partial", "good"]


@pytest.mark.usefixtures("_ray_here")
def test_a_student_comes_back_from_a_machine_with_a_disk_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    """It does not find the token that lies beside the student's place, so it writes nothing there."""
    job = TrainingJob(str(tiny_model), examples(), tmp_path / "s", QUICK, 5)
    coordinator = ray.remote(Coordinator).options(num_cpus=0).remote()
    shared = SharedCheck(tmp_path / ".s.shared", "a token that nobody wrote", tmp_path)
    ending = ray.get(ray.remote(_train).remote(job, shared, 1, coordinator, 0))
    assert ending.error is None
    assert not list(tmp_path.iterdir())
    unpack(ending.student, tmp_path / "s")
    train_student(str(tiny_model), examples(), tmp_path / "here", QUICK, 5)
    assert adapter(tmp_path / "s") == adapter(tmp_path / "here")
    assert json.loads((tmp_path / "s/training.json").read_text())["steps"] == 3


def run_of(folder: Path, model: Path, out: str, progress: Any = None, **train: object) -> Run:
    for name, first, count in (("train", 0, 12), ("dev", 50, 5), ("test", 100, 3)):
        rows = [{"question": f"What is number {first + n}?", "answer": f"it {n}"} for n in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table: dict[str, Any] = {
        "data": {"train": "jsonl:train.jsonl", "dev": "jsonl:dev.jsonl", "test": "jsonl:test.jsonl"},
        "models": {"teacher": "echo:0.8", "solvers": ["echo:0.5"], "student": f"local:{model}"},
        "run": {"variants": ["D-R", "E-A"], "strategies": ["static"]},
        "train": {"batch_size": 4, "lora_rank": 2, "search": {"learning_rate": [0.02, 1e15]}, **train},
    }
    return Run(parse_config(table), folder / out, folder, progress or Progress(quiet=True))


class Lines(Progress):
    """Progress that is kept."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def stage(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.usefixtures("_ray_here")
def test_a_run_trains_its_candidates_side_by_side_and_keeps_them(tiny_model: Path, tmp_path: Path) -> None:
    """The students of a run on a cluster are those of a run without one; the second time nothing is trained."""
    lines = Lines()
    for out, on, progress in (("alone", "", None), ("cluster", "ray", lines)):
        with run_of(tmp_path, tiny_model, out, progress) as run:
            demonstrate_stage(run)
            screen_stage(run)
            train_students(run, read_demonstrations(run), read_screened(run), on)
    for name in ("D-R", "E-A"):
        alone, cluster = (tmp_path / out / "students" / name for out in ("alone", "cluster"))
        assert adapter(alone) == adapter(cluster)
        assert (alone / "inputs.sha256").read_text() == (cluster / "inputs.sha256").read_text()
        assert (alone / "examples.jsonl").read_text() == (cluster / "examples.jsonl").read_text()
    kept = [
        sorted(path.relative_to(tmp_path / out) for path in (tmp_path / out / "search").rglob("*"))
        for out in ("alone", "cluster")
    ]
    assert kept[0] == kept[1], "records of what was tried, and nothing half done"
    assert "train: 4 trainings on ray" in lines.lines
    assert any(line.startswith("  E-A (rate-0.02-rank-2-epochs-1.0): loss") for line in lines.lines)
    assert any(line.startswith("  D-R (rate-1") and "training diverged" in line for line in lines.lines)
    assert not any("kept" in line for line in lines.lines if line.startswith(("train", "try"))), (
        "they were just trained"
    )
    lines.lines.clear()
    with run_of(tmp_path, tiny_model, "cluster", lines) as run:
        train_students(run, read_demonstrations(run), read_screened(run), "ray")
    assert not any("trainings on" in line for line in lines.lines)
    assert sum("kept, already trained" in line for line in lines.lines) == 2


def test_a_forecast_says_what_each_process_takes(tiny_model: Path, tmp_path: Path) -> None:
    with run_of(tmp_path, tiny_model, "run", workers=2) as run:
        lines = training_lines(run)
    assert len(lines) == 2
    assert all("GiB of memory in each of 2 processes;" in line for line in lines)


def test_workers_need_ray(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the teacher is asked."""
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    with (
        run_of(tmp_path, tiny_model, "run", workers=2) as run,
        pytest.raises(
            FractionateError, match=r"train.workers = 2 needs the package 'ray': pip install 'fractionate\[ray"
        ),
    ):
        train_stage(run)
