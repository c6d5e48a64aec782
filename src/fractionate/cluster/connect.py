"""Joining a Ray cluster, and leaving it: one of this machine's cores, or one that runs already."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fractionate.errors import FractionateError, UsageError, missing_extra

GRAMMAR = "ray, or ray://HEAD[:PORT] for a cluster that runs already"
HEAD_PORT = 6379
"""The default port of `ray start --head`."""
_REACH_S = 5.0
_TOKEN = Path.home() / ".ray" / "auth_token"
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without a GPU of its own sees what the machine has
}


def check_address(address: str) -> None:
    """Raise UsageError for an address that is not written as `--on` takes it, or where Ray is not installed."""
    if address != "ray" and not (address.startswith("ray://") and address.removeprefix("ray://")):
        raise UsageError(f"--on {address}: a run goes on {GRAMMAR}")
    if importlib.util.find_spec("ray") is None:
        raise missing_extra("ray", "ray", "a run on a cluster")


def connect(address: str = "ray") -> bool:
    """Start Ray on this machine's cores ("ray"), or join the cluster of a head ("ray://HEAD[:PORT]").

    Returns True where it did: the caller then ends with `disconnect`. False where this process had joined before.
    Raises FractionateError in one line where the head cannot be reached. Ray sends no usage statistics from here.
    """
    check_address(address)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address != "ray" and ("RAY_AUTH_TOKEN" in os.environ or _TOKEN.is_file()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray takes the token of a head it starts, but of no other
    import ray

    quiet: dict[str, Any] = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,
        "configure_logging": False,
    }
    if ray.is_initialized():
        _check_same(address)
        return False
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what matters of it is said here, in a line
    _silence_worker_deaths()
    if address == "ray":
        ray.init(address="local", **quiet)
        return True
    head, port = _parse(address)
    _reach(address, head, port)
    try:
        ray.init(address=f"{head}:{port}", **{**quiet, "include_dashboard": None})
    except Exception as error:  # what Ray says of a head that is none has many classes
        raise FractionateError(f"{address} cannot be joined: {_why_not_joined(error)}") from None
    return True


def disconnect() -> None:
    """Leave the cluster; one that was started by `connect` ends."""
    import ray

    ray.shutdown()


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Be in the cluster at an address while the block runs, or in the one that this process has joined already."""
    mine = connect(address)
    try:
        yield
    finally:
        if mine:
            disconnect()


@contextmanager
def beside_driver(kind: type[Any], *given: Any) -> Iterator[Any]:
    """Have an actor on the driver's own machine while the block runs: it is lost with the driver and only with it.

    Raises FractionateError in one line where the cluster is lost meanwhile.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(kind).options(num_cpus=0, scheduling_strategy=here).remote(*given)
    try:
        yield actor
    except ray.exceptions.RayError as error:
        raise FractionateError(f"the cluster is lost ({why(error)}): run the same command again to go on") from None
    finally:
        with suppress(Exception):  # it may be lost already
            ray.kill(actor)


async def asked(reference: Any) -> Any:
    """Return what an actor answers. Raises the FractionateError that it raised."""
    from ray.exceptions import RayTaskError

    try:
        return await reference
    except RayTaskError as error:
        if isinstance(error.cause, FractionateError):
            raise error.cause from None
        raise


def why(error: BaseException) -> str:
    """Return what an error of Ray's comes to: in its many lines the last one says it, but for memory."""
    if "out of memory" in str(error):
        return "a machine ran out of memory: lower train.workers, or see the keys of [train] that take less"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


def _parse(address: str) -> tuple[str, int]:
    head, colon, port = address.removeprefix("ray://").rstrip("/").rpartition(":")
    if not colon:
        return port, HEAD_PORT
    if not port.isdigit():
        raise UsageError(f"--on {address}: {port!r} is no port; a run goes on {GRAMMAR}")
    return head.strip("[]"), int(port)


def _why_not_joined(error: BaseException) -> str:
    whole = f"{error} {error.__cause__ or ''}"
    if "AuthToken" in whole or "Authentication" in whole:
        return f"it wants another token: copy {_TOKEN} of its head here, or set RAY_AUTH_TOKEN"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0][:200]}; is it a head of Ray, and does this machine belong to its cluster ('ray start')?"


def _check_same(address: str) -> None:
    """Raise UsageError where this process has joined another cluster than is wanted."""
    import ray

    joined = ray.get_runtime_context().gcs_address
    if address != "ray" and _parse(address)[1] != int(joined.rpartition(":")[2]):
        raise UsageError(
            f"--on {address}: this process has joined {joined} already; leave that with ray.shutdown() first"
        )


def _silence_worker_deaths() -> None:
    """Keep Ray from printing a paragraph to standard output for each worker that dies: it has no setting for that."""
    import ray._private.worker as worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None


def _reach(address: str, head: str, port: int) -> None:
    """Try the head's port first: Ray itself would try for minutes."""
    try:
        socket.create_connection((head, port), timeout=_REACH_S).close()
    except OSError as error:
        raise FractionateError(
            f"{address}: no head answers at {head}:{port} ({error.strerror or error}): start one there with "
            f"'ray start --head --port={port}', or name another"
        ) from None
