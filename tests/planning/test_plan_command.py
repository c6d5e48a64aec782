"""`fractionate plan` on the real command line."""

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from measured import cell_of, problem

from commands import fractionate
from fractionate.averages import MeanAttempts
from fractionate.cli import main
from fractionate.cli.plan import _SETS
from fractionate.planning import SCENARIOS, SETS
from fractionate.planning.power import Design, questions_needed
from fractionate.run.attempt_rows import attempt_lines
from fractionate.run.folder import write_rows
from planning.published import UNIT_VECTORS
from planning.synthetic import distillation_runs, supervised_runs


def answered(capsys, *arguments):
    assert main(["plan", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments, code=2):
    assert main(["plan", *map(str, arguments)]) == code
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.count("\n") == 1
    return out.err


def csv_of(runs, path):
    names = ("n_s", "d_s", "l_t", "l_s") if hasattr(runs, "teacher_loss") else ("n", "d", "l")
    columns = [runs.params, runs.tokens, *([runs.teacher_loss] if len(names) == 4 else []), runs.loss]
    lines = [",".join(names), *(",".join(repr(float(value)) for value in row) for row in zip(*columns, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_names_in_the_help_are_the_ones_there_are():
    assert _SETS.split(", ") == list(SETS)


def test_law(capsys):
    for (params, tokens), (supervised, _, corrected) in UNIT_VECTORS.items():
        answer = answered(capsys, "law", "--student-params", params, "--student-tokens", tokens, "--teacher-loss", 2.2)
        assert answer["supervised_loss"] == pytest.approx(supervised, abs=1e-6)
        assert answer["student_loss"] == pytest.approx(corrected[1], abs=1e-6)
        assert answer["coefficients"] == "paper-corrected"
        assert answer["within_range"] is True
        low, high = answer["range"]["student_loss"]
        assert low < answer["student_loss"] < high


def test_law_outside_the_range_says_so(capsys):
    answer = answered(capsys, "law", "--student-params", 1e7, "--student-tokens", 1e9, "--teacher-loss", 3)
    assert answer["within_range"] is False
    assert len(answer["warnings"]) == 3
    assert main(["plan", "law", "--student-params", "1e7", "--student-tokens", "1e9"]) == 0
    assert "outside the fitted range" in capsys.readouterr().out


def test_law_without_a_teacher_and_with_one_by_its_training(capsys):
    arguments = ["law", "--student-params", 1e9, "--student-tokens", 2e10]
    alone = answered(capsys, *arguments, "--coefficients", "chinchilla")
    assert alone["student_loss"] is None
    trained = answered(capsys, *arguments, "--teacher-params", 7e9, "--teacher-tokens", 1.4e11)
    by_hand = 1.220 + (3355 * 7e9**-0.408 + 18186 * 1.4e11**-0.431) ** 0.452
    assert trained["teacher_loss"] == pytest.approx(by_hand)
    assert trained["student_loss"] > trained["best_student_loss"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_recipe(capsys, scenario):
    answer = answered(capsys, "recipe", "--student-params", 1e9, "--compute", 1e21, "--scenario", scenario)
    expected = dict(zip(SCENARIOS, (2.2004, 2.2165, 2.2847, 2.3025), strict=True))
    assert answer["student_loss"] == pytest.approx(expected[scenario], rel=2e-4)
    assert answer["supervised_loss"] == pytest.approx(2.2215, abs=1e-4)
    for name in ("student_tokens", "teacher_params", "teacher_tokens", "teacher_loss"):
        low, high = answer["range"][name]
        assert low <= answer[name] * (1 + 1e-9)
        assert answer[name] <= high * (1 + 1e-9)
    assert answer["advice"] == ("supervised" if scenario in ("teacher-pretraining", "both") else "undecided")
    assert answer["crossover_compute"] > 0


def test_recipes_in_words(capsys, tmp_path):
    arguments = ["plan", "recipe", "--student-params", "1e9", "--loss", "2.3", "--lifetime-tokens", "1e10"]
    assert main([*arguments, "--plot", str(tmp_path / "recipe.svg")]) == 0
    out = capsys.readouterr().out
    for words in (*SCENARIOS, "train without a teacher", "a loss of 2.3 takes", "catches up at", "serving takes"):
        assert words in out
    assert (tmp_path / "recipe.svg").stat().st_size > 5000


def test_recipe_for_the_best_size(capsys):
    answer = answered(
        capsys, "recipe", "--student-params", "best", "--compute", 1e20, "--scenario", "both", "--lifetime-tokens", 1e11
    )
    assert 1e7 < answer["student_params"] < 1e10
    assert answer["serving_flops"] < 1e20


def test_power(capsys):
    answer = answered(capsys, "power", "--margin", 5, "--discordance", 0.2)
    once = answered(capsys, "power", "--margin", 5, "--discordance", 0.2, "--looks", "one")
    assert 600 < once["questions"] < 680 < answer["questions"], "a verdict keeps error for further looks"
    assert (once["confidence"], answer["confidence"]) == (0.95, pytest.approx(0.96))
    several = answered(capsys, "power", "--margin", 5, "--discordance", 0.2, "--candidates", 4)
    assert several["confidence"] == pytest.approx(0.99)
    peeking = answered(capsys, "power", "--margin", 5, "--discordance", 0.2, "--looks", "any")
    assert 1.5 < peeking["questions"] / once["questions"] < 2.2
    assert answer["power"] >= 0.8
    clustered = answered(capsys, "power", "--margin", 5, "--accuracy", 0.7, "--correlation", 0.5,
                         "--cluster-size", 8, "--cluster-correlation", 0.1)  # fmt: skip
    assert clustered["discordance"] == pytest.approx(0.21)
    assert clustered["questions"] == pytest.approx(1.7 * clustered["independent_questions"], abs=1)


def test_samples_beat_questions_as_far_as_differences_are_noise(capsys):
    def samples(*more):
        return answered(capsys, "power", "--margin", 2, "--discordance", 0.1, *more)

    pure = samples("--noise", 1)
    assert [row["questions"] for row in pure["samples"]] == [math.ceil(pure["questions"] / k) for k in (1, 2, 4, 8)]
    assert pure["samples"][2]["outputs_per_question_saved"] == pytest.approx(0, abs=0.01)
    half = samples("--noise", 0.5)["samples"]
    assert half[1]["questions"] == pytest.approx(0.75 * half[0]["questions"], abs=1)
    assert half[1]["outputs_per_question_saved"] == pytest.approx(2.0, abs=0.01)
    assert samples("--noise", 0)["samples"][1]["outputs_per_question_saved"] is None
    assert "samples" not in samples()
    for noise, said in ((1, "as good as questions"), (0.5, "costs more than 2.0 outputs"), (0, "ask more questions")):
        main(["plan", "power", "--margin", "2", "--discordance", "0.1", "--noise", str(noise)])
        assert said in capsys.readouterr().out


def test_the_noise_of_stored_repeats_is_known_to_plan_power(capsys, tmp_path):
    random = np.random.default_rng(0)

    def repeated(name, chances):
        right = (random.random((len(chances), 4)) < chances[:, None]).astype(float).ravel().tolist()
        made = cell_of(right, decomposer=name).attempts
        outputs = [replace(one, problem=problem(place // 4)) for place, one in enumerate(made)]
        return replace(cell_of([0.0], decomposer=name), attempts=MeanAttempts.of_repeats(outputs, 4))

    hard = random.random(400)
    noisy = [repeated("teacher", hard), repeated("D-R", hard)]
    write_rows(tmp_path / "attempts.jsonl", attempt_lines(noisy))
    assert answered(capsys, "power", "--margin", 2, "--discordance", 0.1, "--repeats", tmp_path)["noise"] > 0.9
    apart = [repeated("teacher", (hard < 0.5).astype(float)), repeated("D-R", (hard > 0.4).astype(float))]
    write_rows(tmp_path / "attempts.jsonl", attempt_lines(apart))
    assert answered(capsys, "power", "--margin", 2, "--discordance", 0.1, "--repeats", tmp_path)["noise"] == 0
    write_rows(tmp_path / "attempts.jsonl", attempt_lines([cell_of([1.0]), cell_of([1.0], decomposer="D-R")]))
    said = refused(capsys, "power", "--margin", 2, "--discordance", 0.1, "--repeats", tmp_path)
    assert "answers each question once: set run.repeats" in said


def test_the_difference_of_plan_power_is_in_percentage_points_as_the_margin_is(capsys):
    equal = answered(capsys, "power", "--margin", 5, "--discordance", 0.2)
    better = answered(capsys, "power", "--margin", 5, "--discordance", 0.2, "--difference", 3)
    shown = questions_needed(Design(0.2, 0.05, difference=0.03, confidence=1 - 0.05 * 0.8))
    assert (better["difference"], better["questions"]) == (3, shown)
    assert better["questions"] < equal["questions"]


@pytest.mark.parametrize("points", ["0.03", "-0.03"])
def test_a_difference_that_looks_like_a_share_is_asked_about(capsys, points):
    assert main(["plan", "power", "--margin", "5", "--discordance", "0.2", f"--difference={points}"]) == 0
    assert f"--difference {points}: a difference is in percentage points" in capsys.readouterr().err
    assert main(["plan", "power", "--margin", "5", "--discordance", "0.2", "--difference", "0"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("law --student-params -1 --student-tokens 1e9", "student-params must be a number above 0, not -1"),
        ("law --student-params 1e9 --student-tokens 1e10 --teacher-loss 0.9", "below the entropy floor E = 1.22"),
        (
            "law --student-params 1e9 --student-tokens 1e10 --teacher-params 1e9",
            "--teacher-params and --teacher-tokens",
        ),
        ("law --student-params 1e9 --student-tokens 1e10 --coefficients chinchila", "did you mean 'chinchilla'?"),
        ("law --student-params 1e9 --student-tokens 1e10 --coefficients none.json", "none.json cannot be read"),
        ("recipe --student-params 1e9", "a recipe needs a limit: give --compute, --loss or --student-tokens"),
        ("recipe --student-params 1e9 --compute 1e10", "too small for any recipe"),
        ("recipe --student-params 1e9 --compute -5", "compute must be a number above 0"),
        ("recipe --student-params big --compute 1e20", "neither a number (write 1.8e9) nor 'best'"),
        ("recipe --student-params 1e9 --compute 1e20 --loss 2.4", "--compute and --loss exclude each other"),
        ("recipe --student-params 1e9 --loss 1.1", "below the entropy floor E = 1.22"),
        ("recipe --student-params 1e9 --loss 1.7", "take a larger student"),
        ("recipe --student-params 1e9 --compute 1e20 --teacher-loss 2.1", "needs --teacher-params too"),
        ("power --margin 5", "needs --discordance, or --accuracy"),
        ("fit none.csv", "none.csv does not exist"),
        ("law --student-params 1e9 --student-tokens 1e10 --plot x.pdf", "written as .svg or .png"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *arguments.split())


def test_fit_of_the_whole_grid_s_starts(capsys, tmp_path):
    """End to end: a file of runs, the law written, and the law used."""
    runs = csv_of(distillation_runs(40, 0.001), tmp_path / "runs.csv")
    law, plot = tmp_path / "law.json", tmp_path / "fit.svg"
    answer = answered(capsys, "fit", runs, "--resamples", 32, "--out", law, "--plot", plot, "--quiet")
    assert answer["points"] == 40
    assert answer["rms_relative_error"] < 0.0015
    assert answer["held_out"]["rms_relative_error"] < 0.005
    assert set(answer["intervals"]) == set(answer["coefficients"])
    told = answered(
        capsys, "law", "--student-params", 1e9, "--student-tokens", 2e10, "--teacher-loss", 2.1, "--coefficients", law
    )
    published = answered(capsys, "law", "--student-params", 1e9, "--student-tokens", 2e10, "--teacher-loss", 2.1)
    assert told["student_loss"] == pytest.approx(published["student_loss"], rel=0.005)
    assert told["range"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.svg", "law.json", "runs.csv"]


def test_fit_of_a_supervised_law_in_words(capsys, tmp_path):
    runs = csv_of(supervised_runs(40, 0.002), tmp_path / "runs.csv")
    assert main(["plan", "fit", str(runs), "--resamples", "32", "--quiet"]) == 0
    out = capsys.readouterr().out
    for words in ("supervised law, 40 runs", "runs held out", "gamma", "trade off against each other"):
        assert words in out


def test_ctrl_c_keeps_what_is_done_and_the_same_command_resumes(tmp_path):
    runs = csv_of(supervised_runs(60, 0.002), tmp_path / "runs.csv")
    command = [sys.executable, "-m", "fractionate", "plan", "fit", str(runs), "--resamples", "2000", "--json"]
    state = tmp_path / "runs.csv.fit-state"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if state.is_file() and state.read_text().count("\n") > 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the same command resumes" in err
    assert state.read_text().count("\n") > 2
    done = fractionate(*command[3:])
    assert done.returncode == 0
    assert "parts were done before" in done.stderr
    assert json.loads(done.stdout)["points"] == 60
    assert not state.exists()


def test_a_margin_that_looks_like_a_share_is_questioned(capsys):
    assert main(["plan", "power", "--margin", "0.05", "--discordance", "0.0004", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["margin"] == 0.05
    assert "if a share is meant, write 5" in err
    assert err.count("\n") == 1
