"""Candidates tried on the dev split: the best is kept, all are reported, and an interruption changes nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="the 'train' extra is not installed")

from fractionate.cli import main
from fractionate.config import parse_config
from fractionate.errors import FractionateError, UsageError
from fractionate.run import tuning as search_module
from fractionate.run.folder import RunFolder
from fractionate.run.progress import Progress
from fractionate.run.records import read_tried
from fractionate.run.run import Run
from fractionate.run.stages import demonstrate_stage, screen_stage, train_stage
from fractionate.run.training import dev_examples_for, examples_for
from fractionate.run.tuning import StudentTraining
from fractionate.students import train as train_module

CONFIG = """
[data]
train = "jsonl:train.jsonl"
dev = "jsonl:dev.jsonl"
test = "jsonl:test.jsonl"
[models]
teacher = "echo:0.4"
solvers = ["echo:0.5"]
decomposers = ["none", "teacher"]
student = "local:{model}"
[run]
variants = ["D-R"]
strategies = ["static"]
[train]
batch_size = 4
lora_rank = 2
epochs = 2
[train.search]
learning_rate = [1e-9, 0.02, 1e15]
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    return write_data(tmp_path, tiny_model)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder whose run has tried its three candidates."""
    folder = write_data(tmp_path_factory.mktemp("searched"), tiny_model)
    with open_run(folder, tiny_model) as run:
        train_stage(prepared(run))
    return folder


def write_data(tmp_path: Path, model: Path) -> Path:
    for name, first, count in (("train", 0, 12), ("dev", 50, 5), ("test", 100, 3)):
        rows = [{"question": f"What is number {first + n}?", "answer": f"it {n}"} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.toml").write_text(CONFIG.format(model=model))
    return tmp_path


def open_run(folder: Path, model: Path, out: str = "run", **changes: object) -> Run:
    table: dict[str, Any] = {
        "data": {"train": "jsonl:train.jsonl", "dev": "jsonl:dev.jsonl", "test": "jsonl:test.jsonl"},
        "models": {"teacher": "echo:0.8", "solvers": ["echo:0.5"], "student": f"local:{model}"},
        "run": {"variants": ["D-R"], "strategies": ["static"]},
        "train": {"batch_size": 4, "lora_rank": 2, "search": {"learning_rate": [1e-9, 0.02, 0.01]}},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        table[section][name] = value
    return Run(parse_config(table), folder / out, folder, Progress(quiet=True))


def prepared(run: Run) -> Run:
    demonstrate_stage(run)
    screen_stage(run)
    return run


def count_trainings(monkeypatch: pytest.MonkeyPatch, cut_at: tuple[int, int] = (0, 0)) -> list[float]:
    """Note the rate of every training that begins; in the so-manyth, Ctrl-C comes in the so-manyth step."""
    rates: list[float] = []
    train_student = train_module.train_student

    def counting(base: str, examples: Any, out: Path, settings: Any, seed: int, on_step: Any, **others: Any) -> Any:
        rates.append(settings.learning_rate)
        cut = len(rates) == cut_at[0]

        def step(at: int, of: int, loss: float) -> None:
            if cut and at == cut_at[1]:
                raise KeyboardInterrupt

        return train_student(base, examples, out, settings, seed, step, **others)

    monkeypatch.setattr(train_module, "train_student", counting)
    return rates


def weights_of(folder: Path) -> bytes:
    return (folder / "students/D-R/adapter_model.safetensors").read_bytes()


def test_a_run_tries_its_candidates_keeps_the_best_and_reports_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["run", "run.toml", "--dry-run", "--out", "run"]) == 0
    planned = capsys.readouterr().out
    assert "train D-R (decomposer): 3 candidates on up to 12 examples" in planned
    assert "18 steps" in planned, "12 examples in batches of 4, 2 epochs, 3 candidates"
    assert "loss on up to 5 dev examples, measured up to 6 times" in planned

    assert main(["run", "run.toml", "--out", "run"]) == 0
    assert "diverged" in capsys.readouterr().err
    results = json.loads((folder / "run/results.json").read_text())
    still, best, diverged = results["tried"]
    assert [row["chosen"] for row in (still, best, diverged)] == [False, True, False]
    assert best["dev_loss"] < still["dev_loss"]
    assert diverged["dev_loss"] is None
    demonstrations = [json.loads(line) for line in (folder / "run/screened.jsonl").read_text().splitlines()]
    kept = [row["id"].partition("-")[0] for row in demonstrations]
    assert (best["examples"], best["dev_examples"]) == (kept.count("train"), kept.count("dev"))
    assert 0 < best["dev_examples"] < 5, "a dev question that the teacher got wrong judges no D-R"
    trained = json.loads((folder / "run/students/D-R/training.json").read_text())
    assert trained["settings"]["learning_rate"] == 0.02
    assert min(loss for _, loss in trained["dev_losses"]) == best["dev_loss"]
    assert not list((folder / "run/search").rglob("*.safetensors"))
    cells = {cell["decomposer"]: cell for cell in results["cells"]}
    assert cells["D-R"]["n"] == 3

    page = (folder / "run/report.md").read_text()
    assert "Candidates tried on the dev split" in page
    (line,) = [line for line in page.splitlines() if "✓ kept" in line]
    assert "0.02" in line
    assert f"{best['dev_loss']:.4f}" in line
    assert "Candidates tried on the dev split" in (folder / "run/report.html").read_text()
    assert any("Dev split: 5 questions" in note and "12 are learnt from" in note for note in results["notes"])

    before = (folder / "run/results.json").read_bytes()
    rates = count_trainings(monkeypatch)
    assert main(["run", "run.toml", "--out", "run", "--quiet"]) == 0
    assert rates == []
    assert (folder / "run/results.json").read_bytes() == before


@pytest.mark.parametrize("cut_at", [(1, 2), (3, 3)])
def test_an_interrupted_search_goes_on_to_the_same_student(
    folder: Path, searched: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, cut_at: tuple[int, int]
) -> None:
    with monkeypatch.context() as patched, open_run(folder, tiny_model, "cut") as run:
        prepared(run)
        rates = count_trainings(patched, cut_at)
        with pytest.raises(KeyboardInterrupt):
            train_stage(run)
        assert len(rates) == cut_at[0]
        assert not run.folder.is_trained("D-R"), "no student of half a search is measured"
    with monkeypatch.context() as patched, open_run(folder, tiny_model, "cut") as run:
        rates = count_trainings(patched)
        train_stage(run)
        assert len(rates) == 4 - cut_at[0], "what was tried is not tried again"
        assert read_tried(run.folder) == read_tried(RunFolder(searched / "run"))
    assert weights_of(folder / "cut") == weights_of(searched / "run")


def test_an_interruption_while_the_best_is_put_in_its_place_costs_no_training(
    folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    remember = search_module._remember
    with monkeypatch.context() as patched, open_run(folder, tiny_model) as run:
        prepared(run)

        def at_the_end(run: Run, candidate: StudentTraining, at: Path) -> None:
            killed() if run.folder.is_trained("D-R") else remember(run, candidate, at)

        patched.setattr(search_module, "_remember", at_the_end)
        with pytest.raises(KeyboardInterrupt):
            train_stage(run)
        made = weights_of(folder / "run")
        rates = count_trainings(patched)
        patched.setattr(search_module, "_remember", remember)
        train_stage(run)
        assert rates == []
        assert [row["chosen"] for row in read_tried(run.folder)] == [False, True, False]
    assert weights_of(folder / "run") == made


def test_without_the_best_the_next_is_trained_again(
    folder: Path, searched: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beaten candidate keeps its record alone: it is trained anew where the one that beat it is taken out."""
    shutil.copytree(searched / "run", folder / "run")
    rows = {row["learning_rate"]: row["dev_loss"] for row in read_tried(RunFolder(searched / "run"))}
    rest = [rate for rate in (1e-9, 0.02, 0.01) if rate != min(rows, key=rows.__getitem__)]
    rates = count_trainings(monkeypatch)
    with open_run(folder, tiny_model, train__search={"learning_rate": rest}) as run:
        train_stage(run)
        (chosen,) = [row for row in read_tried(run.folder) if row["chosen"]]
    assert rates == [chosen["learning_rate"]] == [min(rest, key=rows.__getitem__)]
    assert chosen["dev_loss"] == rows[chosen["learning_rate"]]


def test_where_every_candidate_diverges_training_fails_in_one_line(folder: Path, tiny_model: Path) -> None:
    with open_run(folder, tiny_model, train__search={"learning_rate": [1e14, 1e15]}) as run:
        prepared(run)
        with pytest.raises(FractionateError, match=r"every candidate.*train\.search\.learning_rate") as caught:
            train_stage(run)
        assert "\n" not in str(caught.value)


def test_a_solver_is_judged_by_answers_to_dev_questions(folder: Path, tiny_model: Path) -> None:
    with open_run(folder, tiny_model, run__variants=["E-A"]) as run:
        demonstrations = demonstrate_stage(run)
        (student,) = run.names.students
        dev = dev_examples_for(run, student, demonstrations, [])
        assert [one.problem_id for one in dev] == list(run.data.dev)
        assert [one.target.rpartition(": ")[2] for one in dev] == [f"it {n}" for n in range(5)]


def test_a_student_with_nothing_to_judge_it_by_is_left_out(folder: Path, tiny_model: Path) -> None:
    with open_run(folder, tiny_model) as run:
        prepared(run)
        rows = (folder / "run/screened.jsonl").read_text().splitlines(keepends=True)
        (folder / "run/screened.jsonl").write_text("".join(row for row in rows if '"id": "dev' not in row))
        train_stage(run)
        (warning,) = run.notes.warnings()
        assert warning.startswith("Student D-R was not trained: the dev split has no example to judge by")
        assert not run.folder.is_trained("D-R")


def test_demonstrations_of_before_the_dev_split_are_not_taken_for_it(folder: Path, tiny_model: Path) -> None:
    with open_run(folder, tiny_model, data__dev=[], train__search={}) as run:
        prepared(run)
    with open_run(folder, tiny_model) as run, pytest.raises(UsageError, match="run fractionate demonstrate again"):
        train_stage(run)


def test_without_a_dev_split_a_student_is_what_it_has_always_been(folder: Path, tiny_model: Path) -> None:
    """Its digest is of base, examples, seven settings and seed, so that students trained before are kept."""
    with open_run(folder, tiny_model, data__dev=[], train__search={}, train__learning_rate=5e-3) as run:
        demonstrations = demonstrate_stage(run)
        kept = screen_stage(run)
        assert kept is not None
        train_stage(run)
        (student,) = run.names.students
        examples, _ = examples_for(run, student, demonstrations, kept.kept)
        assert read_tried(run.folder) == []
    settings = {
        "method": "lora", "epochs": 1.0, "learning_rate": 0.005, "batch_size": 4, "lora_rank": 2, "max_length": 1024,
        "max_examples": 0,
    }  # fmt: skip
    pairs = [[[list(message) for message in one.messages], one.target] for one in examples]
    text = json.dumps([f"local:{tiny_model}", pairs, settings, 0], ensure_ascii=False)
    digest = (folder / "run/students/D-R/inputs.sha256").read_text().strip()
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert json.loads((folder / "run/students/D-R/training.json").read_text())["settings"] == settings


def test_the_notes_count_what_was_learnt_from_and_what_was_too_long(folder: Path, tiny_model: Path) -> None:
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    rows[:4] = [{**row, "question": f"Once upon a time {'long ' * 40}: {row['question']}"} for row in rows[:4]]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"data__dev": [], "train__search": {}, "train__max_length": 200}
    for again in (False, True):
        with open_run(folder, tiny_model, run__variants=["D-T"], **changes) as run:
            if not again:
                demonstrate_stage(run)
            train_stage(run)
            assert "Student D-T (decomposer) learnt from 8 examples; 4 left out: longer than train.max_length." in (
                run.notes.all()
            )


@pytest.mark.parametrize(("own", "most", "learnt"), [(6, 4, 6), (3, 4, 3)])
def test_a_student_s_own_number_of_examples_goes_before_that_of_all(
    folder: Path, tiny_model: Path, own: int, most: int, learnt: int
) -> None:
    changes = {"data__dev": [], "train__search": {}, "train__max_examples": most, "run__variants": []}
    with open_run(folder, tiny_model, **changes) as run:
        table = run.config.model_dump()
    table["students"] = {"mine": {"variant": "D-T", "max_examples": own}}
    with Run(parse_config(table), folder / "other", folder, Progress(quiet=True)) as run:
        demonstrate_stage(run)
        train_stage(run)
        assert json.loads((folder / "other/students/mine/training.json").read_text())["examples"] == learnt
        assert any(f"learnt from {learnt} examples" in note for note in run.notes.all())
