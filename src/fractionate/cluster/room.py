"""What of a cluster each of several trainings is to have: a GPU, cores, memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fractionate.errors import UsageError

Machine = Mapping[str, float]
"""What a machine of a cluster has, as Ray names it: "CPU", "GPU", "memory" (bytes)."""


def machines() -> list[Machine]:
    """Return what the machines have that are in the cluster now."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def room_of_one(machines: Sequence[Machine], count: int, *, together: bool) -> dict[str, float]:
    """Return the "CPU" and "GPU" of each of `count` trainings: a GPU where there are any, and as many cores as leave
    room for all of them at once.

    Trainings that wait for one another take one core at least. Processes that train `together` cannot wait: they take
    part of a core where there are too few. Raises UsageError where there are too few GPUs for these.
    """
    gpus = int(sum(one.get("GPU", 0) for one in machines))
    if together and 0 < gpus < count:
        raise UsageError(f"train.workers = {count}, and the cluster has {gpus} GPUs: take one worker per GPU at most")
    at_once = min(count, gpus) if gpus else count
    cores = [(int(one.get("CPU", 0)), int(one.get("GPU", 0)) if gpus else count) for one in machines]

    def fits(each: int) -> bool:
        return sum(min(here // each, most) for here, most in cores) >= at_once

    most = max((here for here, _ in cores), default=0)
    whole = next((each for each in range(most, 0, -1) if fits(each)), 0)
    part = 1 / math.ceil(count / max(1, sum(here for here, _ in cores))) if together else 1.0
    return {"CPU": float(whole) if whole else part, "GPU": 1.0 if gpus else 0.0}


def memory_of_one(machines: Sequence[Machine], wanted: int) -> int:
    """Return the bytes that a training is to be given: what it wants, but no more than the smallest machine has."""
    return int(min([float(wanted), *(one["memory"] for one in machines if one.get("memory"))]))
