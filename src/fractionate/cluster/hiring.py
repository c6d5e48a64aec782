"""Where workers are begun: on the machines of a Ray cluster."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from fractionate.cluster.worker import Setup, Worker
from fractionate.errors import FractionateError


class Place(NamedTuple):
    """A machine: what the cluster knows it by, and its name for a person."""

    node: str
    machine: str


class Hiring(Protocol):
    """Begins workers. What it returns for one answers `worker.METHOD.remote(…)` with something to await."""

    def places(self, count: int, most: int) -> list[Place]:
        """Return where workers go: `count` of them, or one per core for 0, but at most `most`."""

    def again(self, node: str, turn: int) -> Place:
        """Return where a worker goes that takes a dead one's place, the `turn`-th time that it is tried (from 0)."""

    def begin(self, place: Place, setup: Setup) -> Any:
        """Begin a worker."""

    def dismiss(self, actor: Any) -> None:
        """Have a worker ended that may not be there to hear of it: whatever it was asked is answered by its death."""


class OnRay:
    """Begins workers as actors of the cluster that this process has joined."""

    def places(self, count: int, most: int) -> list[Place]:
        """Return the machine of every worker, the machines in turn."""
        alive = _alive()
        cores = [node for turn in range(_most_cores(alive)) for node in alive if turn < _cores(node)] or alive
        wanted = max(1, min(count or len(cores), most))
        return [_place(cores[at % len(cores)]) for at in range(wanted)]

    def again(self, node: str, turn: int) -> Place:
        """Return the same machine, or another where it is gone, and at every second try."""
        alive = _alive()
        same = [one for one in alive if one["NodeID"] == node]
        others = [one for one in alive if one["NodeID"] != node]
        return _place(others[turn // 2 % len(others)] if others and (turn % 2 or not same) else same[0])

    def begin(self, place: Place, setup: Setup) -> Any:
        """Begin an actor there. It takes no core from Ray: what it does is wait for servers.

        And there alone: what takes no core is put anywhere by a soft affinity.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(place.node, soft=False)
        actor = ray.remote(Worker).options(num_cpus=0, max_concurrency=1000, scheduling_strategy=there)
        return actor.remote(setup)

    def dismiss(self, actor: Any) -> None:
        """Tell the cluster that the actor is dead; where its machine can be reached, it is."""
        import ray

        ray.kill(actor)


def _alive() -> list[dict[str, Any]]:
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    if not alive:
        raise FractionateError("the cluster has no machine left: run the same command again to resume")
    return alive


def _cores(node: dict[str, Any]) -> int:
    return int(node["Resources"].get("CPU", 0))


def _most_cores(nodes: list[dict[str, Any]]) -> int:
    return max(map(_cores, nodes), default=0)


def _place(node: dict[str, Any]) -> Place:
    return Place(node["NodeID"], node["NodeManagerHostname"])
