"""A law fitted to runs predicts other runs; unidentified quantities are refused or named; finished work is kept."""

import json
import threading

import numpy as np
import pytest

from fractionate.errors import FractionateError, UsageError
from fractionate.planning import SETS, DistillationRuns, SupervisedRuns, fit_distillation, fit_supervised
from fractionate.planning import protocol as protocol_module
from fractionate.planning.laws import DistillationLaw
from fractionate.planning.minimise import Minimum, SupervisedCurve
from fractionate.planning.protocol import Journal, Options, run_blocks
from planning.synthetic import PAPER, distillation_runs, supervised_runs

QUICK = Options(resamples=64, workers=1)


@pytest.fixture(autouse=True)
def fewer_starts(monkeypatch):
    """Some of the starts: the whole grid is begun by the command's own test."""
    whole = protocol_module.starts

    def some(curve):
        grid = whole(curve)
        return grid[np.random.default_rng(0).permutation(len(grid))[:300]]

    monkeypatch.setattr(protocol_module, "starts", some)


def far_errors(fit, seed=9):
    """Relative errors at runs that the fit has not seen, against the true law."""
    fresh = distillation_runs(200, seed=seed)
    own = fit.set.supervised.loss(fresh.params, fresh.tokens)
    told = fit.set.distilled.loss(fresh.params, fresh.tokens, fresh.teacher_loss, own)
    return told / fresh.loss - 1


def test_a_supervised_law_is_found_again():
    fit = fit_supervised(supervised_runs(73, 0.002), QUICK)
    fresh = supervised_runs(200, seed=9)
    errors = fit.set.supervised.loss(fresh.params, fresh.tokens) / fresh.loss - 1
    assert np.abs(errors).max() < 0.005
    assert fit.rms_relative_error == pytest.approx(0.002, rel=0.3)
    assert fit.points == 73
    low, high = fit.intervals["E"]
    assert low < fit.coefficients["E"] < high


def test_a_distillation_law_is_found_again_and_foretells_runs_it_has_not_seen():
    fit = fit_distillation(distillation_runs(120, 0.002), PAPER, QUICK)
    assert np.sqrt(np.mean(far_errors(fit) ** 2)) < 0.005
    assert np.abs(far_errors(fit)).max() < 0.01
    assert fit.coefficients["K"] == pytest.approx(2.24, rel=0.1)
    assert fit.coefficients["f1"] == pytest.approx(0.09, rel=0.1)
    assert fit.held_out_rms == pytest.approx(0.002, rel=0.3)
    assert fit.largest_rms < 0.005
    assert any("these runs do not identify c1" in note for note in fit.notes)
    assert fit.intervals["c1"] == (pytest.approx(522.6), pytest.approx(522.6))


def test_both_laws_of_one_s_own_runs():
    supervised = fit_supervised(supervised_runs(60, 0.001), QUICK)
    fit = fit_distillation(distillation_runs(90, 0.001), supervised, QUICK)
    assert np.sqrt(np.mean(far_errors(fit) ** 2)) < 0.005
    assert not any("not of your runs" in note for note in fit.notes)


def test_runs_without_noise_are_met_exactly():
    fit = fit_distillation(distillation_runs(60), PAPER, Options(resamples=0, workers=1))
    assert fit.rms_relative_error < 1e-4
    assert np.abs(far_errors(fit)).max() < 1e-3
    assert fit.intervals == {}


def test_c1_is_fitted_where_the_runs_tell_it():
    """A law with a soft bend, far from the published one: keeping c1 there would show in the losses."""
    law = DistillationLaw(2243.0, 1.97e6, 0.321, 0.637, 0.764, 2.549, 1.0, 0.05, 0.9)
    fit = fit_distillation(distillation_runs(150, 0.0005, law=law), PAPER, Options(resamples=0, workers=1))
    assert any("c1 was fitted too" in note for note in fit.notes)
    assert fit.coefficients["c1"] == pytest.approx(1.0, rel=0.4)
    assert fit.rms_relative_error < 0.001


def test_the_intervals_hold_predictions_about_as_often_as_they_say():
    """90 % intervals of one loss, over 20 sets of runs: the coefficients are resampled together, so losses are too."""
    held = 0
    truth = PAPER.supervised.loss(1e9, 2e10)
    for seed in range(20):
        runs = supervised_runs(40, 0.003, seed)
        curve = SupervisedCurve(*map(np.log, (runs.params, runs.tokens, runs.loss)))
        fitted = protocol_module.fit_curve(curve, Options(resamples=150, workers=1), Journal(None, ""))
        told = [curve.law(theta).loss(1e9, 2e10) for theta in fitted.resampled]
        low, high = np.quantile(told, [0.05, 0.95])
        held += low <= truth <= high
    assert 14 <= held <= 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n, d, t: (n[:9], d[:9], t[:9]), "9 runs are fewer than 11; add 2 or more"),
        (
            lambda n, d, t: (np.full_like(n, 1e9), d, t),
            "1 size from 1e\\+09 to 1e\\+09 .* add runs at 3.3e\\+08 and at 3e\\+09",
        ),
        (lambda n, d, t: (n, np.where(d > 2e10, 1e10, 9e9), t), "2 number of tokens.* add runs at"),
        (
            lambda n, d, t: (n, 20 * n, t),
            "about 20 tokens per parameter.* add runs of one size with fewer and more tokens",
        ),
        (
            lambda n, d, t: (n, d, np.full_like(t, 2.1)),
            "1 teacher loss from 2.1 to 2.1.* with a better and a worse teacher",
        ),
        (lambda n, d, t: (n, d, 1.3 + (t - 1.9) * 0.2), "capacity gap, stay unknown; add runs of weak teachers"),
    ],
)
def test_runs_that_cannot_tell_the_law_are_refused_with_the_runs_to_add(change, said):
    runs = distillation_runs(60, 0.002)
    n, d, t = change(runs.params, runs.tokens, runs.teacher_loss)
    loss = PAPER.distilled.loss(n, d, t, PAPER.supervised.loss(n, d))
    with pytest.raises(UsageError, match=f"these runs cannot tell the law: .*{said}"):
        fit_distillation(DistillationRuns(n, d, t, loss), PAPER, QUICK)


def test_supervised_runs_at_one_ratio_are_refused():
    runs = supervised_runs(40)
    with pytest.raises(UsageError, match="tokens per parameter"):
        fit_supervised(SupervisedRuns(runs.params, 20 * runs.params, runs.loss), QUICK)


def test_losses_below_the_entropy_floor_of_the_law_inside_are_refused():
    runs = distillation_runs(60)
    low = DistillationRuns(runs.params, runs.tokens, runs.teacher_loss - 1, runs.loss - 1)
    with pytest.raises(UsageError, match=r"l_t = 0.8953 \(run \d+\) is below the entropy floor E = 1.22.*--supervised"):
        fit_distillation(low, PAPER, QUICK)


def test_students_better_than_their_teacher_are_counted():
    runs = distillation_runs(60, 0.002)
    loss = runs.loss.copy()
    loss[:5] = runs.teacher_loss[:5] - 0.01
    fit = fit_distillation(DistillationRuns(runs.params, runs.tokens, runs.teacher_loss, loss), PAPER, QUICK)
    counted = int(np.sum(loss <= runs.teacher_loss))
    assert any(f"{counted} of 60 students are no worse than their teacher" in note for note in fit.notes)


def test_what_is_done_is_kept_and_not_done_again(tmp_path):
    runs, state = supervised_runs(40, 0.002), tmp_path / "state"
    whole = fit_supervised(runs, QUICK)

    class InterruptError(Exception):
        pass

    def interrupt(line):
        if "resamples" in line:
            raise InterruptError

    with pytest.raises(InterruptError):
        fit_supervised(runs, Options(resamples=64, workers=1, say=interrupt), state)
    kept = state.read_text().count("\n")
    assert kept > 1
    with state.open("a") as file:
        file.write('{"block": "half a li')
    said = []
    again = fit_supervised(runs, Options(resamples=64, workers=1, say=said.append), state)
    assert again.coefficients == whole.coefficients
    assert again.intervals == whole.intervals
    assert not any("grid of starts" in line for line in said)
    assert not state.exists(), "a finished fit leaves nothing behind"


def test_parts_of_other_runs_are_not_taken(tmp_path):
    state = tmp_path / "state"
    state.write_text(
        json.dumps({"key": "of something else"}) + "\n" + json.dumps({"block": "x 0", "theta": [], "loss": []})
    )
    journal = Journal(state, "mine")
    assert len(journal) == 0
    assert json.loads(state.read_text()) == {"key": "mine"}


def test_a_file_of_the_user_s_is_not_overwritten(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("dear diary\n")
    with pytest.raises(UsageError, match=r"notes.txt exists already .* name another file with --state"):
        Journal(notes, "mine")
    assert notes.read_text() == "dear diary\n"


def test_a_state_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(FractionateError, match=r"cannot be written .*--state"):
        Journal(tmp_path / "no" / "folder" / "state", "mine")


def test_interrupted_work_stops_soon_and_keeps_finished_blocks(tmp_path):
    journal = Journal(tmp_path / "state", "mine")
    begun = []

    def work(number: int, stop: threading.Event) -> Minimum:
        begun.append(number)
        stop.wait(0.01)
        if number == 3:
            raise KeyboardInterrupt
        return Minimum(np.full((1, 2), float(number)), np.zeros(1))

    with pytest.raises(KeyboardInterrupt):
        run_blocks("part", 200, work, journal, lambda _: None, workers=1)
    assert len(begun) < 200
    kept = Journal(tmp_path / "state", "mine")
    assert kept.get("part 0").theta.tolist() == [[0.0, 0.0]]


def test_a_block_s_result_does_not_depend_on_the_number_of_threads():
    runs = supervised_runs(40, 0.002)
    one = fit_supervised(runs, Options(resamples=600, workers=1))
    two = fit_supervised(runs, Options(resamples=600, workers=3))
    assert one.coefficients == two.coefficients
    assert one.intervals == two.intervals


def test_coefficients_by_file_are_those_that_were_fitted(tmp_path):

    from fractionate.planning import load_coefficients

    fit = fit_distillation(distillation_runs(60, 0.002), PAPER, QUICK)
    path = tmp_path / "law.json"
    fit.write(path)
    again = load_coefficients(str(path))
    own = again.supervised.loss(1e9, 2e10)
    assert again.distilled.loss(1e9, 2e10, 2.1, own) == pytest.approx(fit.set.distilled.loss(1e9, 2e10, 2.1, own))
    assert dict(again.ranges) == dict(fit.set.ranges)
    assert again.drawn(10).distilled.c0.std() > 0
    path.write_text('{"law": "distillation"}')
    with pytest.raises(UsageError, match="holds no fitted law"):
        load_coefficients(str(path))
    with pytest.raises(UsageError, match="did you mean 'paper-printed'"):
        load_coefficients("paper-print")
    assert load_coefficients("chinchilla") is SETS["chinchilla"]
