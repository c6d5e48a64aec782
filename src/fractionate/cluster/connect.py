"""To Ray and back: a cluster of this machine's cores, or one that runs already."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from fractionate.errors import FractionateError, UsageError, missing_extra

GRAMMAR = "ray, or ray://HEAD[:PORT] for a cluster that runs already"
HEAD_PORT = 6379
"""Where `ray start --head` listens if it is told no other port."""
_REACH_S = 5.0


def check_place(place: str) -> None:
    """Raise UsageError for a place that is not written as `--on` takes it, or where Ray is not installed."""
    if place != "ray" and not (place.startswith("ray://") and place.removeprefix("ray://")):
        raise UsageError(f"--on {place}: a run goes on {GRAMMAR}")
    try:
        import ray  # noqa: F401
    except ImportError:
        raise missing_extra("ray", "ray", "a run on a cluster") from None


def connect(place: str = "ray") -> None:
    """Start Ray on this machine's cores ("ray"), or join the cluster of a head ("ray://HEAD[:PORT]").

    Raises FractionateError in one line where the head cannot be reached. Ray sends no usage statistics from here.
    """
    check_place(place)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    quiet: dict[str, Any] = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    if ray.is_initialized():
        return
    logging.getLogger("ray").setLevel(logging.ERROR)  # it would explain its tokens at every start
    if place == "ray":
        ray.init(address="local", **quiet)
        return
    head, port = _address(place)
    _reach(place, head, port)
    try:
        ray.init(address=f"{head}:{port}", **{**quiet, "include_dashboard": None})
    except Exception as error:  # what Ray says of a head that is none has many classes
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise FractionateError(f"{place} cannot be joined: {said[0][:200]}") from None


def disconnect() -> None:
    """Leave the cluster; one that was started by `connect` ends."""
    import ray

    ray.shutdown()


def _address(place: str) -> tuple[str, int]:
    head, colon, port = place.removeprefix("ray://").rstrip("/").rpartition(":")
    if not colon:
        return port, HEAD_PORT
    if not port.isdigit():
        raise UsageError(f"--on {place}: {port!r} is no port; a run goes on {GRAMMAR}")
    return head.strip("[]"), int(port)


def _reach(place: str, head: str, port: int) -> None:
    """Try the head's port first: Ray itself would try for minutes."""
    try:
        socket.create_connection((head, port), timeout=_REACH_S).close()
    except OSError as error:
        raise FractionateError(
            f"{place}: no head answers at {head}:{port} ({error.strerror or error}): start one there with "
            f"'ray start --head --port={port}', or name another"
        ) from None
