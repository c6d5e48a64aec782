"""To Ray and back: a cluster of this machine's cores, or one that runs already."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from pathlib import Path
from typing import Any

from fractionate.errors import FractionateError, UsageError, missing_extra

GRAMMAR = "ray, or ray://HEAD[:PORT] for a cluster that runs already"
HEAD_PORT = 6379
"""Where `ray start --head` listens if it is told no other port."""
_REACH_S = 5.0
_TOKEN = Path.home() / ".ray" / "auth_token"
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without a GPU of its own sees what the machine has
}


def check_place(place: str) -> None:
    """Raise UsageError for a place that is not written as `--on` takes it, or where Ray is not installed."""
    if place != "ray" and not (place.startswith("ray://") and place.removeprefix("ray://")):
        raise UsageError(f"--on {place}: a run goes on {GRAMMAR}")
    if importlib.util.find_spec("ray") is None:
        raise missing_extra("ray", "ray", "a run on a cluster")


def connect(place: str = "ray") -> bool:
    """Start Ray on this machine's cores ("ray"), or join the cluster of a head ("ray://HEAD[:PORT]").

    Returns whether it did: False where this process had joined one already. Whoever joined leaves with `disconnect`.
    Raises FractionateError in one line where the head cannot be reached. Ray sends no usage statistics from here.
    """
    check_place(place)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if place != "ray" and ("RAY_AUTH_TOKEN" in os.environ or _TOKEN.is_file()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray takes the token of a head it starts, but of no other
    import ray

    quiet: dict[str, Any] = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,
        "configure_logging": False,
    }
    if ray.is_initialized():
        _check_same(place)
        return False
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what matters of it is said here, in a line
    if place == "ray":
        ray.init(address="local", **quiet)
        return True
    head, port = _address(place)
    _reach(place, head, port)
    try:
        ray.init(address=f"{head}:{port}", **{**quiet, "include_dashboard": None})
    except Exception as error:  # what Ray says of a head that is none has many classes
        raise FractionateError(f"{place} cannot be joined: {_why(error)}") from None
    return True


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


def _why(error: BaseException) -> str:
    whole = f"{error} {error.__cause__ or ''}"
    if "AuthToken" in whole or "Authentication" in whole:
        return f"it wants another token: copy {_TOKEN} of its head here, or set RAY_AUTH_TOKEN"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0][:200]}; is it a head of Ray, and does this machine belong to its cluster ('ray start')?"


def _check_same(place: str) -> None:
    """Raise UsageError where this process has joined another cluster than is wanted."""
    import ray

    joined = ray.get_runtime_context().gcs_address
    if place != "ray" and _address(place)[1] != int(joined.rpartition(":")[2]):
        raise UsageError(
            f"--on {place}: this process has joined {joined} already; leave that with ray.shutdown() first"
        )


def _reach(place: str, head: str, port: int) -> None:
    """Try the head's port first: Ray itself would try for minutes."""
    try:
        socket.create_connection((head, port), timeout=_REACH_S).close()
    except OSError as error:
        raise FractionateError(
            f"{place}: no head answers at {head}:{port} ({error.strerror or error}): start one there with "
            f"'ray start --head --port={port}', or name another"
        ) from None
