"""The workers of a run and what they owe it, in virtual time: caps hold however the work falls."""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import run_virtually

from cluster.near import NearHiring, PaidServer, run_near
from fractionate.calls.budget import BudgetReached
from fractionate.calls.limits import TokenBucket
from fractionate.cluster.crew import SILENT_S
from fractionate.cluster.shares import most_workers, shares, smaller
from fractionate.cluster.worker import LEASE_S
from fractionate.config import BudgetConfig, LimitsConfig

faults = pytest.importorskip("ray.exceptions", reason="programs travel by Ray's pickle")
CALL_USD = 0.02
"""What PaidServer's call costs: 10 tokens at $1,000 a million, 5 at $2,000."""


def most_in_a_minute(times: list[float]) -> int:
    """Return the most calls that began in any 60 s."""
    times = sorted(times)
    return max((bisect_left(times, start + 60.0) - at for at, start in enumerate(times)), default=0)


@settings(max_examples=30, deadline=None)
@given(
    workers=st.integers(1, 7),
    questions=st.integers(1, 120),
    concurrency=st.integers(1, 24),
    more=st.integers(0, 2),
)
def test_every_call_is_made_once_and_never_more_at_a_time(
    workers: int, questions: int, concurrency: int, more: int
) -> None:
    server = PaidServer()
    with tempfile.TemporaryDirectory() as folder:
        limits = LimitsConfig(concurrency=concurrency)
        values, engine = run_virtually(run_near(server, workers, questions, limits, BudgetConfig(), Path(folder), more))
    assert values == [f"yes question {number} {more}" for number in range(questions)]
    assert set(server.calls.values()) == {1}
    assert server.most <= concurrency
    assert engine.counters.sent == questions * (more + 1)
    assert engine.in_flight == 0


@pytest.mark.parametrize("said", [None, faults.ActorUnavailableError])
def test_a_worker_that_is_cut_off_stops_before_another_has_its_work(
    said: type[Exception] | None, tmp_path: Path
) -> None:
    """It lives on, and reaches the server: only that it is asked for nothing tells it to make no more calls."""
    server = PaidServer(delay_s=5.0)
    hiring = NearHiring(server, 2, cut_after_s=20.5, said=said)
    limits = LimitsConfig(concurrency=8)
    values, engine = run_virtually(run_near(server, 2, 120, limits, BudgetConfig(), tmp_path, hiring=hiring))
    assert values == [f"yes question {number} 0" for number in range(120)]
    assert len(hiring.begun) == 3
    # Four calls at a time were under way when it was cut off, and began while its lease went on. Nobody can know them.
    repeated = sum(server.calls.values()) - 120
    assert 0 < repeated <= 4 * (1 + LEASE_S // 5)
    # What is under way when the lease ends is all that may come on top of the limit.
    assert server.most <= 8 + 4
    assert engine.in_flight == 0


def test_the_others_go_on_while_one_says_nothing(tmp_path: Path) -> None:
    server = PaidServer(delay_s=1.0)
    hiring = NearHiring(server, 2, cut_after_s=20.5)
    run_virtually(run_near(server, 2, 600, LimitsConfig(concurrency=8), BudgetConfig(), tmp_path, hiring=hiring))
    # Until the silent one is taken to be dead, half of the calls in flight are made; then all of them.
    silent = [moment for moment in server.served if 20.5 + LEASE_S + 2 <= moment <= 20.5 + SILENT_S]
    assert len(silent) >= 0.9 * 4 * (SILENT_S - LEASE_S - 2)


@settings(max_examples=15, deadline=None)
@given(workers=st.integers(1, 6), per_minute=st.integers(4, 300), seed=st.integers(0, 3))
def test_no_minute_sees_more_requests_than_the_limit(workers: int, per_minute: int, seed: int) -> None:
    server = PaidServer(delay_s=0.05 + 0.4 * seed)
    questions = min(240, 3 * per_minute)
    with tempfile.TemporaryDirectory() as folder:
        limits = LimitsConfig(requests_per_minute=per_minute)
        values, _ = run_virtually(run_near(server, workers, questions, limits, BudgetConfig(), Path(folder), 1))
    assert len(values) == questions
    assert most_in_a_minute(server.served) <= per_minute
    # And the limit is used: the whole takes little longer than by one process.
    assert max(server.served) <= 1.1 * 2 * questions / TokenBucket(per_minute, 0.0).per_second + 60


@settings(max_examples=40, deadline=None)
@given(
    workers=st.integers(1, 6),
    questions=st.integers(1, 100),
    calls=st.floats(0.0, 120.0),
    kind=st.sampled_from(["usd", "solver_usd", "tokens"]),
)
def test_a_budget_is_never_passed_and_is_used_up(workers: int, questions: int, calls: float, kind: str) -> None:
    server = PaidServer()
    cap: dict[str, float | int] = {kind: int(calls * 15) if kind == "tokens" else calls * CALL_USD}
    with tempfile.TemporaryDirectory() as folder:
        run = run_near(server, workers, questions, LimitsConfig(concurrency=8), BudgetConfig(**cap), Path(folder))
        # The dearest call is reserved: 20 tokens in and 20 out, at most $0.06. So much has to be left for a call.
        fits = (
            calls * 15 >= questions * 15 + 25 if kind == "tokens" else calls * CALL_USD >= questions * CALL_USD + 0.04
        )
        try:
            values, _ = run_virtually(run)
        except BudgetReached as error:
            said = str(error)
            assert f"budget.{kind} is reached" in said
            assert not fits
            # It stops once no call fits any more, not long before.
            reserve = 40 / 15 if kind == "tokens" else 3.0
            assert len(server.calls) > min(calls, questions) - reserve - 1
        else:
            assert len(values) == questions
    assert sum(server.calls.values()) <= calls + 1e-6


@given(
    st.integers(1, 2000),
    st.none() | st.floats(1.0, 1e6),
    st.none() | st.floats(100.0, 1e9),
    st.integers(1, 300),
)
def test_shares_are_the_whole(concurrency: int, requests: float | None, tokens: float | None, count: int) -> None:
    limits = LimitsConfig(concurrency=concurrency, requests_per_minute=requests, tokens_per_minute=tokens)
    parts = shares(limits, count)
    assert 1 <= len(parts) <= min(count, most_workers(limits))
    assert sum(part.concurrency for part in parts) == concurrency
    assert all(part.concurrency >= 1 for part in parts)
    if requests is not None:
        assert sum(part.requests_per_minute or 0.0 for part in parts) == pytest.approx(requests)
    if tokens is not None:
        assert sum(part.tokens_per_minute or 0.0 for part in parts) == pytest.approx(tokens)


def test_the_smaller_of_two_shares_is_within_both() -> None:
    one = LimitsConfig(concurrency=5, requests_per_minute=10.0)
    other = LimitsConfig(concurrency=7, requests_per_minute=8.0)
    assert smaller(one, other) == LimitsConfig(concurrency=5, requests_per_minute=8.0)
