"""Where workers are begun, on a real cluster of two machines that are both this computer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.ray_runs import two_machines
from fractionate.cluster.connect import connect, disconnect
from fractionate.cluster.hiring import OnRay, Place
from fractionate.cluster.placed import Machines
from fractionate.cluster.worker import Setup
from fractionate.config import BudgetConfig, LimitsConfig

ray = pytest.importorskip("ray", reason="the 'ray' extra is not installed")
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@pytest.fixture(scope="module")
def _two() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, two_machines() as machines:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        connect(machines.place)
        yield
        disconnect()


def node_of(actor: Any) -> str:
    there = actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
    return str(ray.get(there))


@pytest.mark.usefixtures("_two")
def test_workers_are_where_they_were_wanted(tmp_path: Path) -> None:
    hiring = OnRay()
    places = hiring.places(6, 100)
    assert len({place.node for place in places}) == 2
    setup = Setup("r", LimitsConfig(), BudgetConfig(), None, tmp_path, tmp_path / "workers")
    actors = [hiring.begin(place, setup) for place in places]
    assert [node_of(actor) for actor in actors] == [place.node for place in places]
    for actor in actors:
        hiring.dismiss(actor)


@pytest.mark.usefixtures("_two")
def test_every_machine_has_a_process_for_local_weights(tmp_path: Path) -> None:
    machines = Machines(lambda: None, tmp_path, same_machine=True)
    assert machines.count == 2
    assert {node_of(actor) for actor in machines._actors} == {place.node for place in OnRay().places(2, 2)}
    machines.end()


@pytest.mark.usefixtures("_two")
def test_a_place_that_is_gone_is_an_error_of_the_worker(tmp_path: Path) -> None:
    setup = Setup("r", LimitsConfig(), BudgetConfig(), None, tmp_path, tmp_path / "workers")
    actor = OnRay().begin(Place("0" * 56, "gone"), setup)
    with pytest.raises(ray.exceptions.ActorUnschedulableError):
        ray.get(actor.hello.remote(), timeout=60)
