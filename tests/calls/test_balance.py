"""Choice of a server for a call: properties of the rule for any servers, loads and prompts."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fractionate.calls.dispatch import SPREAD, Load, choose, order, prefix_key, takers
from fractionate.calls.endpoint import FAILURES, FIRST_OUT_S, LONGEST_OUT_S, CircuitBreaker
from fractionate.types import Message

NAMES = st.lists(st.text("abcdef:/.0", min_size=1, max_size=12), min_size=1, max_size=8, unique=True)
LOADS = st.lists(st.builds(Load, st.integers(0, 80), st.booleans(), st.floats(1, 64)), min_size=1, max_size=8)


@given(LOADS, st.permutations(range(8)))
def test_a_call_goes_to_a_server_with_room_and_waits_only_where_there_is_none(
    loads: list[Load], everyone: list[int]
) -> None:
    chosen = choose([at for at in everyone if at < len(loads)], takers(loads))
    assert (chosen is None) == (not any(load.room for load in loads))
    assert chosen is None or loads[chosen].room


@given(LOADS)
def test_no_server_gets_more_than_its_share_while_another_with_room_has_less(loads: list[Load]) -> None:
    calls, takes = sum(load.in_flight for load in loads) + 1, sum(load.takes for load in loads)

    def full(at: int) -> float:
        return loads[at].in_flight / loads[at].takes / (calls / takes)

    chosen = takers(loads)
    others = [at for at, load in enumerate(loads) if load.room and at not in chosen]
    assert all(full(at) >= 0.999 * SPREAD for at in others)
    for at in chosen:
        assert full(at) <= 1.001 * SPREAD or all(full(at) <= full(other) for other in others)


@given(NAMES, st.text())
def test_the_order_is_of_the_servers_not_of_how_they_are_listed(names: list[str], start: str) -> None:
    ranked = [names[at] for at in order(start, names)]
    assert sorted(ranked) == sorted(names)
    backwards = names[::-1]
    assert [backwards[at] for at in order(start, backwards)] == ranked


@given(NAMES, st.text(), st.data())
def test_a_server_less_leaves_the_order_of_the_others(names: list[str], start: str, data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(names))
    rest = [name for name in names if name != gone]
    assert [rest[at] for at in order(start, rest)] == [names[at] for at in order(start, names) if names[at] != gone]


@given(st.permutations(range(4)), st.lists(st.integers(0, 40), min_size=4, max_size=4), st.integers(0, 3))
def test_what_others_have_to_do_moves_no_call_off_its_own_server(
    preferred: list[int], in_flight: list[int], other: int
) -> None:
    idle = takers([Load(0, True, 64)] * 4)
    assert choose(preferred, idle) == preferred[0]
    loads = [Load(calls, True, 64) for calls in in_flight]
    if choose(preferred, takers(loads)) == preferred[0] != other:
        loads[other] = Load(in_flight[other] + 10, True, 64)
        assert choose(preferred, takers(loads)) == preferred[0]


def test_beginnings_are_spread_evenly() -> None:
    names = [f"http://{letter}/v1#m" for letter in "abcd"]
    first = Counter(order(f"passage {number}", names)[0] for number in range(4000))
    assert all(900 < first[at] < 1100 for at in range(4))


def test_what_shares_a_passage_begins_alike() -> None:
    def asked(user: str, system: str = "") -> str:
        return prefix_key([*([Message("system", system)] if system else []), Message("user", user)])

    passage = "Context: The dispatcher is long.\nIt has bends.\n\n"
    assert asked(f"{passage}Question: How long?", "Decompose.") == asked(f"{passage}Question: Why?", "Solve.")
    assert asked("Question: How long?", "Decompose.") == asked("Question: How long?\n\nSubquestions:\n1. Why?")
    assert asked("Question: How long?") != asked("Question: Why?")
    longer = [Message("user", f"{passage}Question: Why?"), Message("assistant", "So."), Message("user", "And now?")]
    assert prefix_key(longer) == asked(f"{passage}Question: How long?")
    assert prefix_key([]) == ""
    assert prefix_key([Message("system", "Only this.")]) == "Only this."
    order(asked("half an emoji \ud83d"), ["a", "b"])


def test_a_circuit_opens_after_failures_in_a_row_and_for_ever_longer() -> None:
    circuit, now = CircuitBreaker(), 10.0
    for _ in range(FAILURES - 1):
        assert not circuit.failed(now, now)
    assert not circuit.answered()
    for _ in range(FAILURES - 1):
        assert not circuit.failed(now, now)
    assert circuit.failed(now, now)
    assert not circuit.takes(now)
    waits = []
    for _ in range(10):
        waits.append(circuit.tried_at - now)
        assert not circuit.takes(circuit.tried_at - 0.001)
        now = circuit.tried_at
        assert circuit.takes(now)
        circuit.trying = True
        assert not circuit.takes(now), "one call tries it"
        circuit.trying = False
        assert not circuit.failed(now, now), "it was left out already"
    assert waits == sorted(waits)
    assert (waits[0], waits[1], waits[-1]) == (FIRST_OUT_S, 2 * FIRST_OUT_S, LONGEST_OUT_S)
    assert circuit.answered()
    assert circuit.takes(now)
    assert circuit.failed(now + 1, now + 1, at_once=True)
    assert circuit.tried_at == now + 1 + FIRST_OUT_S


def test_calls_that_were_under_way_when_a_server_fell_count_once() -> None:
    circuit = CircuitBreaker()
    assert circuit.failed(1.0, 2.0, at_once=True)
    for _ in range(20):
        assert not circuit.failed(1.5, 2.1, at_once=True)
    assert circuit.tried_at == 2.0 + FIRST_OUT_S
