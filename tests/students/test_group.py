"""Several processes that train one student: shares of batches, and checkpoints on one disk or two."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the 'local' extra is not installed")

from fractionate.config import TrainConfig
from fractionate.errors import FractionateError
from fractionate.files import packed, unpack
from fractionate.students.checkpoints import Checkpoints, GroupCheckpoints
from fractionate.students.group import ALONE, Group, ShardedBatches
from fractionate.students.train import train_student
from fractionate.types import Example, Message


@given(st.lists(st.integers(), max_size=40), st.integers(1, 9))
def test_the_shares_of_a_batch_are_the_batch(batch: list[int], size: int) -> None:
    shares = [Group(rank, size).shard(batch) for rank in range(size)]
    assert [one for share in shares for one in share] == batch
    assert max(map(len, shares)) == -(-len(batch) // size), "nobody reads more than has to be read"


class Backwards:
    """An order of examples that depends on the pass."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 11

    def __iter__(self) -> Any:
        return iter(range(100 * self.epoch + 10, 100 * self.epoch - 1, -1))


def test_a_process_alone_takes_the_batches_of_an_order() -> None:
    shares = ShardedBatches(Backwards(), 4, ALONE)
    shares.batch_sampler.set_epoch(1)
    assert list(shares) == [[110, 109, 108, 107], [106, 105, 104, 103], [102, 101, 100]]
    assert len(shares) == 3


def made(folder: Path, step: int) -> Path:
    """Write what the trainer would."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "weights").write_bytes(bytes(range(200)) * step)
    return checkpoint


DISKS = {"shared": ("one", "one"), "apart": ("one", "other")}
"""The disks of two processes, which are folders."""


def as_one_of_two(rank: int, root: str, model: str) -> None:
    """Do the work of all tests of two processes: starting them takes longer than what they do."""
    import torch

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # accelerate asks for it, and it is not used
    torch.distributed.init_process_group("gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=2)
    for disks in DISKS:
        go_on_from_a_checkpoint(rank, Path(root, disks), disks)
    train_every_way(rank, 2, model, Path(root, "students"))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of what two processes came to."""
    import torch.multiprocessing

    pytest.importorskip("trl", reason="the 'train' extra is not installed")
    root = tmp_path_factory.mktemp("two")
    for name in (*DISKS, "students"):
        (root / name).mkdir()
    torch.multiprocessing.spawn(as_one_of_two, (str(root), str(tiny_model)), nprocs=2)
    return root


def go_on_from_a_checkpoint(rank: int, root: Path, disks: str) -> None:
    """Save a checkpoint, go on from it, set it aside and clear up, as one of two processes; note what came out."""
    group = Group.here()
    partial = root / DISKS[disks][rank] / "s.partial"
    checkpoints = GroupCheckpoints(partial, "plan", group)
    nothing = checkpoints.last()
    group.wait()
    if group.first:
        made(partial, 3)
    else:
        (partial / "checkpoint-3").mkdir(exist_ok=True, parents=True)
        (partial / "checkpoint-3" / "rng_state_1.pth").write_text("of the other")
    group.wait()
    checkpoints.mark_complete(partial / "checkpoint-3", [2.5, 1.5])
    group.wait()
    last = checkpoints.last()
    assert last is not None
    found = {
        "group": [group.rank, group.size, *group.sum(rank + 1, 0.5)],
        "told": group.broadcast(f"rank {rank}"),
        "nothing": nothing is None,
        "last": str(last),
        "weights": (last / "weights").read_bytes() == bytes(range(200)) * 3,
        "losses": checkpoints.losses(last),
    }
    group.wait()
    checkpoints.set_aside(last)
    found["aside"] = not last.exists()
    checkpoints.clear()
    group.wait()
    found["cleared"] = not partial.exists()
    (root / f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("disks", DISKS)
def test_two_processes_go_on_from_one_checkpoint(of_two: Path, disks: str) -> None:
    """Which the first one chooses; what the other one's disk lacks it is handed."""
    for rank in range(2):
        assert json.loads((of_two / disks / f"{rank}.json").read_text()) == {
            "group": [rank, 2, 3.0, 1.0],
            "told": "rank 0",
            "nothing": True,
            "last": str(of_two / disks / DISKS[disks][rank] / "s.partial/checkpoint-3"),
            "weights": True,
            "losses": [2.5, 1.5],
            "aside": True,
            "cleared": True,
        }


PASSAGE = "The river Aa rises near Alm, passes Bern and ends in the lake of Dol after 88 miles. " * 2
WAYS: dict[str, dict[str, Any]] = {
    "packed, judged on dev": {"share_passages": True, "epochs": 3.0, "dev_checks": 2},
    "every weight": {"method": "full", "gradient_checkpointing": True},
}


def questions(count: int, first: int = 0) -> list[Example]:
    """Three questions to a passage, with answers of unequal length."""
    return [
        Example((Message("user", f"{at // 3}. {PASSAGE}\nHow old is {at}?"),), f"It is {'y' * (at * 7 % 30)}.", str(at))
        for at in range(first, first + count)
    ]


def train_every_way(rank: int, size: int, model: str, root: Path) -> None:
    """Train a student in each of the ways, as one of some processes; the first notes what came out."""
    import torch

    torch.set_num_threads(1)
    noted = {}
    for way, changed in WAYS.items():
        losses: list[float] = []
        settings = TrainConfig(batch_size=4, lora_rank=2, learning_rate=5e-3, workers=size, **changed)
        report = train_student(
            model,
            questions(9),
            root / way / str(size),
            settings,
            3,
            lambda _, __, loss, losses=losses: losses.append(loss),
            dev=questions(5, 90) if "dev" in way else (),
            group=Group.here(),
        )
        noted[way] = [losses, [list(one) for one in report.dev_losses], report.best_step, report.steps]
    if rank == 0:
        (root / f"{size}.json").write_text(json.dumps(noted))


def test_two_processes_train_as_one(tiny_model: Path, of_two: Path) -> None:
    """The same losses, on dev too, in every step; of the last batch's one example only one process reads."""
    students = of_two / "students"
    train_every_way(0, 1, str(tiny_model), students)
    alone, together = (json.loads((students / f"{size}.json").read_text()) for size in (1, 2))
    for way in WAYS:
        assert together[way][0] == pytest.approx(alone[way][0], rel=1e-4), way
        assert together[way][2:] == alone[way][2:], way
        assert [step for step, _ in together[way][1]] == [step for step, _ in alone[way][1]]
        assert [loss for _, loss in together[way][1]] == pytest.approx([loss for _, loss in alone[way][1]], rel=1e-4)
        assert sorted(path.name for path in (students / way).iterdir()) == ["1", "2"], "no checkpoint is left"
    assert len(together["packed, judged on dev"][1]) > 2


def test_a_folder_is_packed_and_unpacked(tmp_path: Path) -> None:
    checkpoint = made(tmp_path / "a", 2)
    Checkpoints(tmp_path / "b", "plan")
    (tmp_path / "b/checkpoint-2").mkdir()
    (tmp_path / "b/checkpoint-2/old").touch()
    unpack(packed(checkpoint), tmp_path / "b/checkpoint-2")
    assert [path.name for path in (tmp_path / "b/checkpoint-2").iterdir()] == ["weights"]
    assert (tmp_path / "b/checkpoint-2/weights").read_bytes() == (checkpoint / "weights").read_bytes()
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["checkpoint-2", "plan.txt"]
    with pytest.raises(FractionateError, match="cannot be written"):
        unpack(b"no tar", tmp_path / "c")
    assert not (tmp_path / "c").exists()
