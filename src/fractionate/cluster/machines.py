"""The resources that a training requests of a cluster's machines: cores, GPUs, memory, and a folder to write to."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fractionate.errors import UsageError
from fractionate.files import packed, write_text

Machine = Mapping[str, float]
"""The resources of one machine under Ray's names: "CPU", "GPU", "memory" (bytes)."""


def machines() -> list[Machine]:
    """Return what the machines have that are in the cluster now."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def resource_request(machines: Sequence[Machine], count: int, *, together: bool) -> dict[str, float]:
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


def memory_request(machines: Sequence[Machine], wanted: int) -> int:
    """Return the bytes that a training is to be given: what it wants, but no more than the smallest machine has."""
    return int(min([float(wanted), *(one["memory"] for one in machines if one.get("memory"))]))


def threads(resources: Mapping[str, float]) -> int:
    """Return the threads of a process that has these resources: those that OMP_NUM_THREADS sets, or its cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else max(1, int(resources["CPU"]))


# ---------------------------------------------------------------- shared file systems


class SharedCheck(NamedTuple):
    """A file of the driver's with a token in it that no other file of its name has, and the driver's folder."""

    file: Path
    token: str
    folder: Path


@contextmanager
def shared_check(beside: Path) -> Iterator[SharedCheck]:
    """Lay a file beside a path while the block runs: a process that reads its token sees this very file system."""
    check = SharedCheck(beside.resolve().with_name(f".{beside.name}.shared"), uuid.uuid4().hex, Path.cwd())
    write_text(check.token, check.file)
    try:
        yield check
    finally:
        check.file.unlink(missing_ok=True)


def output_path(check: SharedCheck, path: Path) -> Path:
    """Return where this process is to write what belongs at `path`: there, if it sees the driver's file system.

    Then it also works in the driver's folder, so that relative paths mean the same. Else it is a path in a folder of
    this user's on this machine, always the same for one `path`, so that an interrupted training finds its checkpoints.
    """
    with suppress(OSError):
        if check.file.read_text(encoding="utf-8") == check.token:
            os.chdir(check.folder)
            return path
    return private_folder() / "training" / hashlib.sha256(str(path).encode()).hexdigest()[:16] / path.name


def private_folder() -> Path:
    """Return a folder in the temporary one that this user alone can enter: the same each time, if nobody is in the way.

    The temporary folder is shared: where anything of the name is there already that is no folder of this user's (a
    symlink of another's, say), a fresh one with a random name is made instead.
    """
    if not hasattr(os, "getuid"):  # Windows: each user has a temporary folder
        return Path(tempfile.gettempdir()) / "fractionate"
    folder = Path(tempfile.gettempdir()) / f"fractionate-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    return Path(tempfile.mkdtemp(prefix="fractionate-"))


def packed_from(here: Path, path: Path) -> bytes:
    """Return a folder written `here` as bytes for its `path`, and delete it; nothing if it is there already."""
    if here == path:
        return b""
    content = packed(here)
    shutil.rmtree(here.parent, ignore_errors=True)
    return content
