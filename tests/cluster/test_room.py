"""What each of several trainings takes of a cluster, so that those run at once that can, and none waits for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.cluster.room import memory_of_one, room_of_one
from fractionate.errors import UsageError


@pytest.mark.parametrize(
    ("cores", "count", "together", "each"),
    [
        ([16], 3, False, 5),
        ([16], 1, False, 16),
        ([4, 4, 4], 2, True, 4),  # not 6: no machine has as many
        ([8, 2], 3, False, 2),  # 8 // 3 leaves the small machine idle and fits only two on the large one
        ([2], 5, False, 1),  # three wait
        ([2], 5, True, 1 / 3),  # nobody can wait
        ([1], 2, True, 0.5),
    ],
)
def test_cores_are_shared_out(cores: list[int], count: int, together: bool, each: float) -> None:
    machines = [{"CPU": float(one)} for one in cores]
    assert room_of_one(machines, count, together=together) == {"CPU": pytest.approx(each), "GPU": 0.0}


def test_gpus_are_taken_whole() -> None:
    machines = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}]
    assert room_of_one(machines, 4, together=True) == {"CPU": 4.0, "GPU": 1.0}
    assert room_of_one(machines, 9, together=False) == {"CPU": 4.0, "GPU": 1.0}, "five wait"
    assert room_of_one(machines, 2, together=False) == {"CPU": 8.0, "GPU": 1.0}
    with pytest.raises(UsageError, match=r"train.workers = 5, and the cluster has 4 GPUs: take one worker per GPU"):
        room_of_one(machines, 5, together=True)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 50), st.booleans())
def test_all_that_train_together_find_room(cores: list[int], count: int, together: bool) -> None:
    each = room_of_one([{"CPU": float(one)} for one in cores], count, together=together)["CPU"]
    room = sum(int(one / each + 1e-9) for one in cores)
    assert room >= (count if together else min(count, sum(cores)))


def test_no_training_wants_more_memory_than_there_is() -> None:
    """Ray would have it wait for ever."""
    machines = [{"memory": 8e9}, {"memory": 4e9, "CPU": 2.0}, {"CPU": 1.0}]
    assert memory_of_one(machines, 10**9) == 10**9
    assert memory_of_one(machines, 10**11) == 4 * 10**9
    assert memory_of_one([{}], 5) == 5
