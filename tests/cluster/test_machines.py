"""Resource requests of concurrent trainings, and machines with and without a shared file system."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.cluster.machines import (
    memory_request,
    output_path,
    packed_from,
    private_folder,
    resource_request,
    shared_check,
)
from fractionate.errors import UsageError
from fractionate.files import unpack


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
    assert resource_request(machines, count, together=together) == {"CPU": pytest.approx(each), "GPU": 0.0}


def test_gpus_are_taken_whole() -> None:
    machines = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}]
    assert resource_request(machines, 4, together=True) == {"CPU": 4.0, "GPU": 1.0}
    assert resource_request(machines, 9, together=False) == {"CPU": 4.0, "GPU": 1.0}, "five wait"
    assert resource_request(machines, 2, together=False) == {"CPU": 8.0, "GPU": 1.0}
    with pytest.raises(UsageError, match=r"train.workers = 5, and the cluster has 4 GPUs: take one worker per GPU"):
        resource_request(machines, 5, together=True)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 50), st.booleans())
def test_all_that_train_together_find_room(cores: list[int], count: int, together: bool) -> None:
    each = resource_request([{"CPU": float(one)} for one in cores], count, together=together)["CPU"]
    room = sum(int(one / each + 1e-9) for one in cores)
    assert room >= (count if together else min(count, sum(cores)))


def test_no_training_wants_more_memory_than_there_is() -> None:
    """Ray would have it wait for ever."""
    machines = [{"memory": 8e9}, {"memory": 4e9, "CPU": 2.0}, {"CPU": 1.0}]
    assert memory_request(machines, 10**9) == 10**9
    assert memory_request(machines, 10**11) == 4 * 10**9
    assert memory_request([{}], 5) == 5


def test_a_process_that_sees_the_token_writes_to_the_very_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "own"))
    place = tmp_path / "run" / "s"
    monkeypatch.chdir(tmp_path)
    with shared_check(place) as shared:
        monkeypatch.chdir("/")
        assert output_path(shared, place) == place
        assert Path.cwd() == tmp_path, "relative paths mean what they mean to the driver"
        assert packed_from(place, place) == b""
        elsewhere = output_path(shared._replace(token="another"), place)
        assert elsewhere.is_relative_to(tmp_path / "own")
        assert elsewhere.name == "s"
        assert elsewhere == output_path(shared._replace(token="a third"), place), "found again at another try"
        assert elsewhere != output_path(shared._replace(token="another"), tmp_path / "other" / "s")
    assert not list(place.parent.iterdir())
    elsewhere.mkdir(parents=True)
    (elsewhere / "weights").write_bytes(b"some")
    unpack(packed_from(elsewhere, place), place)
    assert (place / "weights").read_bytes() == b"some"
    assert not elsewhere.parent.exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have owners")
@pytest.mark.parametrize("in_the_way", ["nothing", "a symlink", "a folder that others may enter", "a file"])
def test_a_private_folder_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_the_way: str) -> None:
    """The temporary folder is shared: a name that can be predicted may be another's."""
    shared = tmp_path / "tmp"
    (tmp_path / "victim").mkdir(mode=0o700)
    shared.mkdir()
    name = shared / f"fractionate-{os.getuid()}"
    if in_the_way == "a symlink":
        name.symlink_to(tmp_path / "victim")
    elif in_the_way == "a file":
        name.touch()
    elif in_the_way != "nothing":
        name.mkdir()
        name.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    found = private_folder()
    assert found.stat().st_mode & 0o777 == 0o700
    assert not found.is_symlink()
    assert (found == name) is (in_the_way == "nothing")
    assert not list((tmp_path / "victim").iterdir())
