"""Workers' own stores: a dead one's is handed in once, a living one's is left alone; and what that does to a budget."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fractionate.analysis.pricing import Pricing
from fractionate.calls.engine import Engine
from fractionate.calls.store import Hold, Store, StoredCall
from fractionate.cluster.scratch import Scratch
from fractionate.cluster.taking_in import take_in_left
from fractionate.config import BudgetConfig, PriceConfig
from fractionate.errors import FractionateError
from fractionate.types import Completion, Message, Request, Usage

pytestmark = pytest.mark.skipif(os.name != "posix", reason="workers are told dead by locks of POSIX")
REQUEST = Request((Message("user", "q"),), "solver")
PRICES = Pricing({"m": PriceConfig(input_per_million=1e6, output_per_million=1e6)})
HOLDING = """
import sys, time
from pathlib import Path
from fractionate.cluster.scratch import Scratch
scratch = Scratch(Path(sys.argv[1]))
print(scratch.new(), flush=True)
time.sleep(600)
"""


def call(key: str, run: str = "r") -> StoredCall:
    return StoredCall(key, "m", "m", run, REQUEST, Completion(f"reply {key}", "stop", Usage(1, 2, 0, 1)))


def left_by_a_dead_worker(folder: Path, *keys: str, held: Hold | None = None) -> str:
    """Let a real process die that has a store, and put into it what it committed."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    holds = ("r", {"1-a": {"solver": held}}) if held else None
    with Store(Scratch(folder).store(name)) as store:
        store.put_many([call(key) for key in keys], holds=holds)  # type: ignore[arg-type]
    scratch = Scratch(folder)
    assert scratch.living() == [name]
    assert name not in [left.worker for left in scratch.dead("r")]
    scratch.close()
    process.send_signal(signal.SIGKILL)
    process.wait()
    return name


def test_a_living_worker_is_left_alone_and_a_dead_one_hands_in_once(tmp_path: Path) -> None:
    name = left_by_a_dead_worker(tmp_path / "w", "k1", "k2")
    scratch, other = Scratch(tmp_path / "w"), Scratch(tmp_path / "w")
    (left,) = scratch.dead("r")
    assert (left.worker, len(left.rows)) == (name, 2)
    assert list(other.dead("r")) == []  # the first one has it
    scratch.remove(name)
    assert not (tmp_path / "w").exists()


def test_what_nobody_handed_in_waits_for_the_next(tmp_path: Path) -> None:
    name = left_by_a_dead_worker(tmp_path / "w", "k1")
    first = Scratch(tmp_path / "w")
    assert [left.worker for left in first.dead("r")] == [name]
    first.close()
    assert [left.worker for left in Scratch(tmp_path / "w").dead("r")] == [name]


def test_rows_of_another_run_are_none_of_ours(tmp_path: Path) -> None:
    left_by_a_dead_worker(tmp_path / "w", "k1")
    (left,) = Scratch(tmp_path / "w").dead("another")
    assert left.rows == []


def test_of_a_dead_workers_loan_only_its_calls_in_flight_stay(tmp_path: Path) -> None:
    name = left_by_a_dead_worker(tmp_path / "w", "k1", "k2", held=Hold(4.0, 4))
    with Store(tmp_path / "run.sqlite") as store:
        before = Engine(store, None, BudgetConfig(usd=100.0), PRICES, run="r")
        assert before.budget.lend(name, "solver", 50.0, 50)
        assert not before.budget.lend(name, "solver", 51.0, 1)
        before.close()
        after = Engine(store, None, BudgetConfig(usd=100.0), PRICES, run="r")
        assert after.budget.total_usd() == pytest.approx(50.0)  # all that was lent may have been spent
        (left,) = Scratch(tmp_path / "w").dead("r")
        take_in_left(after, "r", left)
        # Two calls of $3 each are known; $4 were in flight when it died and may be billed.
        assert after.budget.spent["solver"] == Hold(pytest.approx(6.0), 6)
        assert after.budget.most_to_lend("solver").usd == pytest.approx(90.0)
        after.close()
        assert store.held("r")["solver"] == Hold(pytest.approx(4.0), 4)
        assert store.get("k1") is not None
        last = Engine(store, None, BudgetConfig(usd=100.0), PRICES, run="r")
        assert last.budget.total_usd() == pytest.approx(10.0)
        last.close()


def test_a_call_that_two_workers_stored_is_one_call(tmp_path: Path) -> None:
    left_by_a_dead_worker(tmp_path / "w", "same")
    left_by_a_dead_worker(tmp_path / "w", "same", "other")
    with Store(tmp_path / "run.sqlite") as store:
        engine = Engine(store, run="r")
        for left in Scratch(tmp_path / "w").dead("r"):
            take_in_left(engine, "r", left)
        engine.close()
        assert len(store) == 2


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FractionateError, match=r"name another with cluster\.scratch"):
        Scratch(tmp_path / "file" / "w")
