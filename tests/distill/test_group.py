"""What several processes that train one student do as one: shares of batches, and checkpoints on one disk or two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the 'local' extra is not installed")

from fractionate.distill.checkpoints import Checkpoints, CheckpointsOfAll
from fractionate.distill.group import ALONE, Group, Shares
from fractionate.errors import FractionateError
from fractionate.files import packed, unpack


@given(st.lists(st.integers(), max_size=40), st.integers(1, 9))
def test_the_shares_of_a_batch_are_the_batch(batch: list[int], size: int) -> None:
    shares = [Group(rank, size).share_of(batch) for rank in range(size)]
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
    shares = Shares(Backwards(), 4, ALONE)
    shares.batch_sampler.set_epoch(1)
    assert list(shares) == [[110, 109, 108, 107], [106, 105, 104, 103], [102, 101, 100]]
    assert len(shares) == 3


def made(folder: Path, step: int) -> Path:
    """Write what the trainer would."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(bytes(range(200)) * step)
    return checkpoint


def as_one_of_two(rank: int, meeting: str, root: str, disks: list[str]) -> None:
    """Save a checkpoint, go on from it, set it aside and clear up, as one of two processes; note what came out."""
    import torch

    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    group = Group.here()
    partial = Path(disks[rank]) / "s.partial"
    checkpoints = CheckpointsOfAll(partial, "plan", group)
    nothing = checkpoints.last()
    group.wait()
    if group.first:
        made(partial, 3)
    else:
        (partial / "checkpoint-3").mkdir(exist_ok=True, parents=True)
        (partial / "checkpoint-3" / "rng_state_1.pth").write_text("of the other")
    group.wait()
    checkpoints.seal(partial / "checkpoint-3", [2.5, 1.5])
    group.wait()
    last = checkpoints.last()
    assert last is not None
    found = {
        "group": [group.rank, group.size, *group.sum(rank + 1, 0.5)],
        "told": group.told(f"rank {rank}"),
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
    Path(root, f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("disks", [("one", "one"), ("one", "other")])
def test_two_processes_go_on_from_one_checkpoint(tmp_path: Path, disks: tuple[str, str]) -> None:
    """Which the first one chooses; what the other one's disk lacks it is handed."""
    import torch.multiprocessing

    places = [str(tmp_path / disk) for disk in disks]
    torch.multiprocessing.spawn(as_one_of_two, (str(tmp_path / "meeting"), str(tmp_path), places), nprocs=2)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == {
            "group": [rank, 2, 3.0, 1.0],
            "told": "rank 0",
            "nothing": True,
            "last": f"{places[rank]}/s.partial/checkpoint-3",
            "weights": True,
            "losses": [2.5, 1.5],
            "aside": True,
            "cleared": True,
        }


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
