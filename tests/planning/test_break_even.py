import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.errors import UsageError
from fractionate.planning import Bill, Saving, pay_back, saved_at
from fractionate.planning.break_even import saved

rates = st.floats(-5, 5).filter(lambda rate: rate == 0 or abs(rate) > 1e-6)


def test_an_example_by_hand():
    bill = Bill({"demonstrations": 4.0, "evaluation": 1.0}).with_training(hours=2.5, usd_per_hour=2.0)
    assert bill.usd == 10.0
    found = pay_back(bill, Saving(0.50, 0.40, 0.80))
    assert (found.questions, found.low, found.high) == (20_000, 12_500, 25_000)
    assert saved_at(bill, Saving(0.50, 0.40, 0.80))[1_000_000] == pytest.approx((490.0, 390.0, 790.0))


def test_a_saving_that_may_be_none_may_never_pay_back():
    found = pay_back(Bill({"all": 3.0}), Saving(0.1, -0.2, 0.4))
    assert (found.questions, found.low, found.high) == (30_000, 7_500, None)
    assert pay_back(Bill({"all": 3.0}), Saving(-0.1, -0.2, -0.05)).questions is None
    assert pay_back(Bill(), Saving(0.0, 0.0, 0.1)).questions == 0


@given(st.floats(0, 1e6), rates, st.floats(0, 3), st.floats(0, 3))
def test_what_is_saved_is_zero_at_break_even_and_grows_after(usd, rate, below, above):
    bill, saving = Bill({"all": usd}), Saving(rate, rate - below, rate + above)
    found = pay_back(bill, saving)
    if found.questions is None:
        assert rate <= 0
        return
    value, low, high = saved(bill, saving, found.questions)
    assert low <= value + 1e-9 <= high + 2e-9
    assert value >= -1e-6 * max(1.0, usd)
    if found.questions > 1:
        assert saved(bill, saving, found.questions - 1)[0] < 1e-6 * max(1.0, usd)
    assert found.low is not None
    assert found.low <= found.questions
    assert found.high is None or found.questions <= found.high


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Bill({"training": -1.0}), "the bill's 'training' must be 0 dollars or more"),
        (lambda: Bill({"training": math.nan}), "the bill's 'training'"),
        (lambda: Saving(1.0, 2.0, 3.0), "outside its own interval"),
        (lambda: saved(Bill(), Saving(1, 1, 1), -5), "questions must be 0 or more"),
    ],
)
def test_bad_values_are_named(call, said):
    with pytest.raises(UsageError, match=said):
        call()
