import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.errors import UsageError
from fractionate.planning import SCENARIOS, Architecture, training_flops
from planning.published import FORWARD_GFLOPS


@pytest.mark.parametrize(("billions", "gigaflops"), FORWARD_GFLOPS.items())
def test_the_table_of_forward_passes(billions, gigaflops):
    assert Architecture().forward(billions * 1e9) / 1e9 == pytest.approx(gigaflops, rel=0.005)


def test_without_context_and_vocabulary_a_pass_is_two_flops_per_parameter():
    assert Architecture(0, 0).forward(np.array([1e6, 1e9])) == pytest.approx([2e6, 2e9])


@given(st.floats(1e6, 1e12), st.floats(1e6, 1e15), st.floats(1e6, 1e12), st.floats(1e6, 1e15))
def test_scenarios_add_up(n_s, d_s, n_t, d_t):
    cost = {name: training_flops(n_s, d_s, n_t, d_t, name) for name in SCENARIOS}
    architecture = Architecture()
    assert cost["best-case"] == pytest.approx(3 * architecture.forward(n_s) * d_s)
    assert cost["teacher-inference"] - cost["best-case"] == pytest.approx(
        architecture.forward(n_t) * d_s, rel=1e-6, abs=1e-6 * cost["both"]
    )
    assert cost["teacher-pretraining"] - cost["best-case"] == pytest.approx(
        3 * architecture.forward(n_t) * d_t, rel=1e-6, abs=1e-6 * cost["both"]
    )
    assert cost["both"] + cost["best-case"] == pytest.approx(cost["teacher-inference"] + cost["teacher-pretraining"])


def test_many_students_share_the_teacher_s_pretraining():
    alone = training_flops(1e9, 2e10, 7e9, 1e11, "teacher-pretraining")
    shared = training_flops(1e9, 2e10, 7e9, 1e11, "teacher-pretraining", students=10)
    own = training_flops(1e9, 2e10)
    assert shared - own == pytest.approx((alone - own) / 10)


def test_an_unknown_scenario_names_those_there_are():
    with pytest.raises(UsageError, match="best-case, teacher-inference, teacher-pretraining, both"):
        training_flops(1e9, 2e10, paid="worst-case")
