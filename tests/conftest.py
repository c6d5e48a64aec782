"""Fixtures that several folders of tests share."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from fractionate.calls.store import Store
from tests_tiny import build_tiny_model

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets what it starts in the background ignore Ctrl-C, and so would all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    "cluster/test_ray_training.py",
    "protocols/test_protocols_walk.py",
    "cluster/test_ray_runs.py",
    "test_interrupt.py",
    "students/test_train.py",
    "students/test_dev.py",
    "models/test_local_smollm2.py",
    "export/test_export_smollm2.py",
    "run/test_search.py",
    "students/test_group.py",
    "attacks/test_attack_kills.py",
    "test_packaging.py",
    "protocols/test_protocols_with_other_models.py",
    "test_notebook.py",
    "serve/test_traffic_walk.py",
    "scoring/test_linear.py",
    "students/test_precision.py",
    "attacks/test_attack_memory.py",
    "serve/test_serve_command.py",
)
"""Files that take long, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files, so that processes which share the files out end at about the same time."""
    here = Path(__file__).parent
    rank = {here / name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


class _Frozen:
    """Takes what lives to the end out of every later garbage collection.

    Libraries and thousands of collected tests are a million objects, and each training and each model that is closed
    collects garbage: walking through all of them took 40 % of the time of the tests that train.
    """

    modules = 0

    @classmethod
    def renew(cls) -> None:
        if len(sys.modules) > cls.modules + 50:
            cls.modules = len(sys.modules)
            gc.collect()  # what is garbage by now would be kept for ever
            gc.freeze()


def pytest_collection() -> None:
    gc.disable()  # all that is collected stays


def pytest_collection_finish() -> None:
    gc.enable()
    _Frozen.renew()


def pytest_runtest_logfinish() -> None:
    _Frozen.renew()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "calls.sqlite") as opened:
        yield opened


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model: fast, and its greedy text depends on every token it reads."""
    pytest.importorskip("torch", reason="the 'local' extra is not installed")
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Give a tiny model one thread: its steps are too small to share out, and another would only take a core and wait.

    Its fixtures too: what is trained on one thread need not be the bytes of what is trained on two.
    """
    if "tiny_model" not in getattr(item, "fixturenames", ()) or find_spec("torch") is None:
        return (yield)
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return (yield)
    finally:
        torch.set_num_threads(threads)
