"""Logs are read as their tools define them: inspect_ai, lm-evaluation-harness, runs, one's own rows."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import fractionate
from fractionate import UsageError, read_system
from fractionate.config import PriceConfig
from fractionate.datasets.scoring import Fields, Scoring
from fractionate.logs.choices import Choices, outcome_of
from fractionate.logs.read import read_systems

REAL = Path(__file__).parent / "real"


def rows(path: Path, *values: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in values))
    return path


def reported(path: Path) -> dict[str, float]:
    """What inspect_ai itself reports: the accuracy by scorer."""
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("header.json"))
    return {one["name"]: one["metrics"]["accuracy"]["value"] for one in header["results"]["scores"]}


@pytest.mark.parametrize("name", ["old-strong.eval", "old-weak.eval"])
def test_the_mean_over_questions_is_the_accuracy_that_inspect_ai_reports(name: str) -> None:
    for scorer, accuracy in reported(REAL / name).items():
        system = read_system(REAL / name, scorer=scorer)
        assert sum(system.outcomes.values()) / len(system.outcomes) == pytest.approx(accuracy)
        assert len(system.answers) == 2 * len(system.outcomes), "two epochs"
        assert len(set(system.groups.values())) == 3, "by the passage in the metadata"


def test_partly_right_counts_half_and_no_answer_nothing() -> None:
    weak = read_system(REAL / "old-weak.eval", scorer="graded").outcomes
    assert weak == {"q1": 0.5, "q2": 0.0, "q3": 0.5, "q4": 0.5, "q5": 1.0, "q6": 0.25}
    assert read_system(REAL / "old-weak.eval", scorer="includes").outcomes["q6"] == 0.0


def test_a_log_in_zstandard_says_the_same() -> None:
    pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
    for system in ("strong", "weak"):
        new, old = (read_system(REAL / f"{form}{system}.eval", scorer="graded") for form in ("", "old-"))
        assert new.outcomes == old.outcomes
        assert new.groups == old.groups


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python reads Zstandard itself")
def test_what_zstandard_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with pytest.raises(UsageError, match=r"strong.eval, which is compressed with Zstandard.*fractionate\[logs\]"):
        read_system(REAL / "strong.eval")


def test_the_json_form_of_a_log_is_read_too() -> None:
    system = read_system(REAL / "strong.json", scorer="graded")
    assert system.outcomes == {"q1": 1.0, "q2": 1.0}
    assert system.tokens(["q1", "q2"]) == (20.0, 2.0)


def test_samples_without_a_score_are_left_out_and_counted(tmp_path: Path) -> None:
    log = json.loads((REAL / "strong.json").read_text())
    log["samples"][0] |= {"scores": None, "error": {"message": "timeout"}}
    log["status"] = "error"
    (tmp_path / "failed.json").write_text(json.dumps(log))
    system = read_system(tmp_path / "failed.json", scorer="graded")
    assert (system.outcomes, system.unscored) == ({"q2": 1.0}, 1)
    assert "status is 'error'" in system.notes[0]


def test_a_log_that_failed_before_its_first_sample_says_why(tmp_path: Path) -> None:
    log = json.loads((REAL / "strong.json").read_text())
    log |= {"samples": [], "status": "error", "error": {"message": "RateLimitError: try later"}}
    (tmp_path / "failed.json").write_text(json.dumps(log))
    with pytest.raises(UsageError, match=r"failed.json: the log's status is 'error' .*RateLimitError.* no sample"):
        read_system(tmp_path / "failed.json", scorer="graded")


def test_a_folder_of_logs_is_each_of_its_logs(tmp_path: Path) -> None:
    for name in ("strong.eval", "weak.eval"):
        shutil.copy(REAL / name, tmp_path / name)
    choices = Choices(scoring=Scoring(scorer="graded"))
    assert [system.name for system in read_systems([str(tmp_path)], choices)] == ["strong", "weak"]
    with pytest.raises(UsageError, match=r"holds 2 logs \(strong.eval, weak.eval, …\), so not all can be mine"):
        read_systems([f"mine={tmp_path}"], choices)
    with pytest.raises(UsageError, match=r"holds 2 logs \(strong, weak\): name one"):
        fractionate.read_system(tmp_path, scorer="graded")
    (tmp_path / "weak.eval").unlink()
    assert read_system(tmp_path, scorer="graded").name == "strong"


def test_a_score_of_several_values_needs_one_named(tmp_path: Path) -> None:
    log = json.loads((REAL / "strong.json").read_text())
    for place, sample in enumerate(log["samples"]):
        sample["scores"] = {"both": {"value": {"form": 1, "substance": place / 4}}}
    (tmp_path / "log.json").write_text(json.dumps(log))
    assert read_system(tmp_path / "log.json", metric="substance").outcomes == {"q1": 0.0, "q2": 0.25}
    with pytest.raises(UsageError, match="values form, substance: choose one with --metric"):
        read_system(tmp_path / "log.json")


def test_dollars_that_inspect_ai_states_are_taken_where_no_price_is_given(tmp_path: Path) -> None:
    log = json.loads((REAL / "strong.json").read_text())
    for sample in log["samples"]:
        sample["model_usage"]["mockllm/strong"] |= {"total_cost": 0.5, "input_tokens_cache_read": 80}
    (tmp_path / "log.json").write_text(json.dumps(log))
    choices = Choices(scoring=Scoring(scorer="graded"))
    (stated,) = read_systems([str(tmp_path / "log.json")], choices)
    assert stated.usd(["q1", "q2"]) == 0.5
    assert stated.tokens(["q1"]) == (100.0, 2.0), "cached tokens are read too"
    prices = {"mockllm/strong": PriceConfig(input_per_million=1e4, output_per_million=5e5)}
    (priced,) = read_systems([str(tmp_path / "log.json")], choices, prices)
    assert priced.usd(["q1", "q2"]) == pytest.approx(100 * 0.01 + 2 * 0.5)


def test_lm_eval_metrics_filters_and_tasks() -> None:
    one = REAL / "lm_eval_one"
    choosing = read_system(one, task="choosing", metric="acc")
    assert choosing.outcomes == {f"choosing/{n}": float(n in (0, 5)) for n in range(6)}
    assert sum(read_system(one, task="choosing", metric="acc_norm").outcomes.values()) == 1
    strict = read_system(one, task="counting", filter="strict").outcomes
    flexible = read_system(one, task="counting", filter="flexible").outcomes
    assert strict == {f"counting/{n}": float(n % 2 == 0) for n in range(6)}
    assert flexible == {name: 1 - value for name, value in strict.items()}
    assert len(set(choosing.groups.values())) == 3, "by the passage of the doc"
    (file,) = one.glob("samples_choosing*")
    assert read_system(file, metric="acc").outcomes == choosing.outcomes


def test_of_two_runs_of_a_task_the_newest_is_read_and_it_is_said(tmp_path: Path) -> None:
    (file,) = (REAL / "lm_eval_one").glob("samples_choosing*")
    shutil.copy(file, tmp_path / file.name)
    rows(tmp_path / "samples_choosing_2020-01-01T00-00-00.000000.jsonl", {"doc_id": 9, "doc": {}, "resps": []})
    system = read_system(tmp_path, metric="acc")
    assert len(system.outcomes) == 6
    assert f"2 runs of choosing, of which {file.name} is read" in system.notes[0]


def test_other_questions_under_one_doc_id_are_refused(tmp_path: Path) -> None:
    (file,) = (REAL / "lm_eval_one").glob("samples_choosing*")
    changed = [{**json.loads(line), "doc_hash": "another"} for line in file.read_text().splitlines()]
    rows(tmp_path / file.name, *changed)
    systems = [read_system(file, metric="acc"), read_system(f"b={tmp_path / file.name}", metric="acc")]
    with pytest.raises(UsageError, match=r"6 of 6 ids name other questions .* --id-field"):
        fractionate.compare_systems(systems)
    systems = [read_system(one, metric="acc", id_field="id") for one in (f"a={file}", f"b={file}")]
    assert fractionate.compare_systems(systems).n == 6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    config = fractionate.parse_config(
        {
            "data": {"test": "atlas#test@0-15"},
            "models": {"teacher": "echo:0.9", "solvers": ["echo:0.4"], "decomposers": ["none", "teacher"]},
            "run": {"variants": [], "strategies": ["single", "static"]},
            "prices": {"echo:0.4": {"input_per_million": 1, "output_per_million": 1}},
        }
    )
    with fractionate.Run(config, folder, base=folder.parent) as one:
        one.run()
    return folder


def test_a_cell_of_a_run_is_what_the_run_says_of_it(run: Path) -> None:
    for cell in fractionate.read_cells(run):
        name = f"{cell.strategy}/{cell.decomposer.name}/{cell.solver.name}"
        reported = next(
            one for one in fractionate.read_report(run).cells
            if (one["strategy"], one["decomposer"], one["solver"]) == tuple(name.split("/"))
        )  # fmt: skip
        for log in (f"{run}:{name}", f"{run / 'attempts.jsonl'}:atlas/{name}"):
            system = read_system(log)
            assert list(system.outcomes.values()) == cell.values()
            assert list(system.groups.values()) == [one.problem.cluster for one in cell.attempts]
            questions = list(system.outcomes)
            assert system.usd(questions) == pytest.approx(reported["usd"]["total"] / reported["n"])


def test_a_run_of_several_cells_needs_one_named(run: Path) -> None:
    with pytest.raises(
        UsageError, match=r"2 cells: write .*:CELL with one of atlas/single/none/echo:0.4, atlas/static"
    ):
        read_system(run)
    with pytest.raises(UsageError, match="no cell 'stepwise/teacher/x'"):
        read_system(f"{run}:stepwise/teacher/x")


def test_outcomes_in_many_forms(tmp_path: Path) -> None:
    given = [True, 0, "1", 0.25, "C", "I", "P", "yes", "False", "0.75", None, ""]
    path = rows(tmp_path / "a.jsonl", *({"id": n, "correct": one} for n, one in enumerate(given)))
    system = read_system(path)
    assert list(system.outcomes.values()) == [1, 0, 1, 0.25, 1, 0, 0.5, 1, 0, 0.75]
    assert system.unscored == 2
    assert outcome_of(float("nan"), "x") is None


@pytest.mark.parametrize("wrong", ["maybe", 1.5, -0.1, "17", [1], {"a": 1}, "inf"])
def test_what_is_no_outcome_is_named(wrong: object, tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", {"id": 1, "correct": 1}, {"id": 2, "correct": wrong})
    with pytest.raises(UsageError, match=r"a.jsonl:2: 'correct' is .* no outcome: a number from 0 to 1"):
        read_system(path)


def test_outputs_are_scored_as_the_command_score_does(tmp_path: Path) -> None:
    gold = rows(tmp_path / "gold.jsonl", *(
        {"question": f"What is {n}?", "answer": str(n), "context": f"passage {n // 2}"} for n in range(4)
    ))  # fmt: skip
    path = rows(tmp_path / "a.jsonl", *({"index": n, "said": f"The answer is: {min(n, 2)}"} for n in range(4)))
    (system,) = read_systems([str(path)], Choices(scoring=Scoring(gold=f"jsonl:{gold}", fields=Fields(output="said"))))
    assert system.outcomes == {"0": 1, "1": 1, "2": 1, "3": 0}
    assert list(system.groups.values()) == ["passage 0", "passage 0", "passage 1", "passage 1"]


def test_csv_and_parquet_rows_say_the_same(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    table = {
        "id": ["a", "b"],
        "score": [0.5, 1.0],
        "group": ["x", "x"],
        "input_tokens": [3, 4],
        "output_tokens": [1, 2],
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    lines = [",".join(table), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    one, other = (read_system(tmp_path / f"a.{form}") for form in ("csv", "parquet"))
    assert one.outcomes == other.outcomes == {"a": 0.5, "b": 1.0}
    assert one.groups == other.groups == {"a": "x", "b": "x"}
    assert one.tokens(["a", "b"]) == other.tokens(["a", "b"]) == (3.5, 1.5)


def test_several_answers_count_by_their_mean(tmp_path: Path) -> None:
    answers = [{"id": "a", "correct": 1}, {"id": "a", "correct": 0}, {"id": "b", "correct": 1}]
    path = rows(tmp_path / "a.jsonl", *answers)
    with pytest.raises(UsageError, match="'a' was answered twice: ids must be unique"):
        read_system(path)
    assert read_system(path, repeats=True).outcomes == {"a": 0.5, "b": 1.0}
    told_apart = rows(tmp_path / "b.jsonl", *({**one, "epoch": n} for n, one in enumerate(answers)))
    assert read_system(told_apart).outcomes == {"a": 0.5, "b": 1.0}
    priced = rows(tmp_path / "c.jsonl", *({**one, "epoch": n, "usd": n} for n, one in enumerate(answers)))
    assert read_system(priced).usd(["a", "b"]) == 1.25, "dollars of one answer, each question once"


def test_systems_are_named_by_the_end_of_their_path_or_as_one_says(tmp_path: Path) -> None:
    paths = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        paths.append(rows(tmp_path / folder / "log.jsonl", {"id": 1, "correct": 1}))
    named = read_systems([f"mine={paths[0]}", str(paths[1]), str(paths[0])], Choices())
    assert [system.name for system in named] == ["mine", "two/log", "one/log"]
    assert read_system(paths[0]).name == "log"
