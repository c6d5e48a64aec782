"""Recordings and run folders that are truncated, edited or damaged: they are read, or refused in one line."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path

import pytest
from attack_size import TIMES
from mutation import OF_BYTES, OF_ROWS, mutate

from fractionate.cli import main

CONFIG = """
[data]
test = "jsonl:test.jsonl"
[models]
teacher = "{recording}"
solvers = ["teacher"]
decomposers = ["none", "teacher"]
[run]
variants = []
strategies = ["single", "static"]
[prices."{recording}"]
input_per_million = 1.0
output_per_million = 1.0
"""
QUESTIONS = [{"id": f"q{n}", "question": f"How many crates of {n}?", "answer": str(n)} for n in range(3)]


def recorded() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for n, asked in enumerate(QUESTIONS):
        about = {"id": asked["id"], "index": n, "question": asked["question"]}
        usage = {"input_tokens": 10, "output_tokens": 5}
        rows += [
            {**about, "role": "decomposer", "decomposition": f"1. What is {n}?", "usage": usage, "latency_s": 0.5},
            {**about, "role": "solver", "output": f"The answer is: {n}", "usage": usage, "sample": 0},
            {**about, "role": "solver", "decomposition": f"1. What is {n}?", "output": "The answer is: 7", "sample": 0},
        ]
        rows[-3]["output"] = rows[-3]["decomposition"]
    return rows


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[json.dumps(v) if isinstance(v := row.get(name, ""), dict) else v for name in names] for row in rows]
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([names, *cells])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, recordings, their configs, and the folder of a run that is complete."""
    folder = tmp_path_factory.mktemp("good")
    write_lines(folder / "test.jsonl", [dict(row) for row in QUESTIONS])
    write_lines(folder / "rec.jsonl", recorded())
    write_table(folder / "rec.csv", recorded())
    for suffix in ("jsonl", "csv"):
        (folder / f"{suffix}.toml").write_text(CONFIG.format(recording=f"recorded:rec.{suffix}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for suffix in ("jsonl", "csv"):
            assert main(["run", f"{suffix}.toml", "--out", suffix, "--quiet"]) == 0
    shutil.rmtree(folder / "csv")
    return folder


def one_line_at_most(arguments: list[str], said: str, how: str) -> None:
    assert "please report it" not in said, (how, arguments, said)
    assert "Traceback" not in said, (how, arguments, said)
    for line in said.splitlines():
        assert line.isprintable(), (how, line)
        assert len(line) < 1500, (how, line[:100])


def use(arguments: list[str], capsys: pytest.CaptureFixture[str], how: str) -> int:
    code = main(arguments)
    said = capsys.readouterr()
    assert code in (0, 1, 2), (how, arguments)
    one_line_at_most(arguments, said.err, how)
    if code == 2:
        assert len(said.err.splitlines()) == 1, (how, said.err)
    return code


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_mutated_recording(
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    part: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("test.jsonl", f"{suffix}.toml"):
        shutil.copy(good / name, tmp_path)
    codes = []
    for number in range(10 * TIMES):
        draw = random.Random(f"{suffix} {part} {number}")
        for left in ("calls.sqlite", "run"):
            shutil.rmtree(left, ignore_errors=True) if Path(left).is_dir() else Path(left).unlink(missing_ok=True)
        if suffix == "jsonl":
            shutil.copy(good / "rec.jsonl", tmp_path)
            how = mutate(tmp_path / "rec.jsonl", OF_ROWS, draw)
        else:
            shutil.copy(good / "rec.jsonl", tmp_path / "rec.csv")
            how = mutate(tmp_path / "rec.csv", OF_ROWS[3:7], draw)
            rows = [json.loads(line) for line in (tmp_path / "rec.csv").read_text().splitlines()]
            write_table(tmp_path / "rec.csv", rows)
            if number % 2:
                how += ", " + mutate(tmp_path / "rec.csv", OF_BYTES, draw)
        codes.append(use(["run", f"{suffix}.toml", "--out", "run", "--quiet"], capsys, how))
        results = Path("run/results.json")
        if results.exists():
            for cell in json.loads(results.read_text())["cells"]:
                assert cell["usd"]["total"] is None or cell["usd"]["total"] >= 0, how
                for role in ("decomposer", "solver"):
                    assert min(cell["usage"][role].values(), default=0) >= 0, how
    assert len(set(codes)) > 1, "some are refused and some are not"


@pytest.mark.parametrize(
    "name",
    [
        "attempts.jsonl",
        "attempts.sqlite",
        "demonstrations.jsonl",
        "notes.json",
        "config.json",
        "run.json",
        "throughput.json",
        "results.json",
    ],
)
def test_a_mutated_run_folder(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Reports are made again from it, its calls are listed, and the same command goes on in it."""
    monkeypatch.chdir(tmp_path)
    for file in ("test.jsonl", "jsonl.toml", "rec.jsonl"):
        shutil.copy(good / file, tmp_path)
    for number in range(12 * TIMES):
        draw = random.Random(f"{name} {number}")
        shutil.rmtree("jsonl", ignore_errors=True)
        shutil.copytree(good / "jsonl", "jsonl")
        Path("jsonl/.lock").unlink(missing_ok=True)
        shutil.copy(good / "calls.sqlite", tmp_path)
        file = tmp_path / "jsonl" / name
        if name == "attempts.jsonl":
            Path("jsonl/attempts.sqlite").unlink(missing_ok=True)  # which is read in its place
        if not file.exists():
            file.write_text("{}\n")
        how = mutate(file, OF_ROWS if name in ("attempts.jsonl", "run.json", "config.json") else OF_BYTES, draw)
        use(["report", "jsonl"], capsys, how)
        use(["report", "jsonl.toml", "--out", "jsonl", "--json"], capsys, how)
        use(["store", "list", "jsonl"], capsys, how)
        use(["evaluate", "jsonl.toml", "--out", "jsonl", "--quiet"], capsys, how)


@pytest.mark.parametrize("usage", [{"input_tokens": -5}, {"output_tokens": 10**30}, {"completion_tokens": -(10**30)}])
def test_a_recorded_count_of_tokens_that_cannot_be_is_refused(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], usage: object
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("test.jsonl", "jsonl.toml"):
        shutil.copy(good / file, tmp_path)
    write_lines(Path("rec.jsonl"), [*recorded()[:-1], {**recorded()[-1], "usage": usage}])
    assert main(["run", "jsonl.toml", "--out", "run", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "rec.jsonl:9" in said
    assert "tokens" in said
