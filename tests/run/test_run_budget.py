"""Money in a whole run, against a real server: forecast first, a cap that stops cleanly, half price for batches."""

import json
from pathlib import Path

import pytest

from fractionate.analysis.pricing import Pricing
from fractionate.calls.budget import BudgetReached
from fractionate.cli import main
from fractionate.config import override, parse_config
from fractionate.run.forecast import forecast_run
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import evaluate_stage, run_everything
from fractionate.types import Usage
from servers.chat_server import ChatServer


def config(server: ChatServer, **budget: float) -> dict[str, object]:
    return {
        "data": {"test": "jsonl:test.jsonl"},
        "models": {"teacher": server.name, "solvers": [server.name], "decomposers": ["none", "teacher"]},
        "run": {"variants": [], "strategies": ["single", "single-cot", "static"], "name": "money"},
        "prices": {server.name: {"input_per_million": 100.0, "output_per_million": 100.0}},
        "budget": budget,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"question": f"What is number {n}?", "answer": f"it {n}"} for n in range(10)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def opened(folder: Path, table: dict[str, object], out: str = "run") -> Run:
    """Open a run with a store of its own: runs that share one do not pay for the same calls again."""
    settings = [f"run.store={json.dumps(str(folder / out / 'calls.sqlite'))}"]
    return Run(parse_config(override(table, settings)), folder / out, folder, Progress(quiet=True))


def test_a_forecast_over_the_cap_refuses_before_anything_is_sent(server: ChatServer, folder: Path) -> None:
    with opened(folder, config(server, usd=0.001)) as run:
        assert forecast_run(run).calls == 40
        with pytest.raises(Exception, match=r"budget\.usd"):
            run_everything(run)
    assert not server.asked


def test_a_reached_cap_leaves_a_partial_report_and_a_higher_one_resumes(server: ChatServer, folder: Path) -> None:
    with opened(folder, config(server, usd=1000.0), "whole") as run:
        evaluate_stage(run)
        whole = run.engine.budget.total_usd()
    with opened(folder, config(server, usd=0.7 * whole)) as run:
        with pytest.raises(BudgetReached, match=r"--set budget\.usd"):
            evaluate_stage(run)
        assert run.engine.budget.total_usd() <= 0.7 * whole
        sent = run.engine.counters.sent
    results = json.loads((folder / "run/results.json").read_text())
    assert 0 < len(results["cells"]) < 3
    assert any("Partial" in note for note in results["notes"])
    with opened(folder, config(server)) as run:
        results = run_everything(run)
        assert run.engine.counters.served >= sent - 1
    assert len(results["cells"]) == 3
    assert not any("Partial" in note for note in results["notes"])


def test_dry_run_prints_the_forecast_and_sends_nothing(
    server: ChatServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        '[data]\ntest = "jsonl:test.jsonl"',
        f'[models]\nteacher = "{server.name}"\nsolvers = ["{server.name}"]\n[run]\nvariants = []',
        f'[prices."{server.name}"]\ninput_per_million = 1.0\noutput_per_million = 2.0\n',
    ]
    (folder / "run.toml").write_text("\n".join(lines))
    assert main(["run", str(folder / "run.toml"), "--dry-run", "--out", str(folder / "run")]) == 0
    said = capsys.readouterr().out
    assert "40 calls" in said
    assert "$" in said
    assert not server.asked


def test_the_batch_endpoint_is_half_the_table_s_price() -> None:
    usage = Usage(calls=1, input_tokens=1000, output_tokens=1000)
    direct, batched = Pricing().usd("openai:gpt-4o-mini", usage), Pricing({}, ["openai:gpt-4o-mini"])
    assert direct is not None
    assert batched.usd("openai:gpt-4o-mini", usage) == pytest.approx(direct / 2)
    assert "batch endpoint" in batched.source("openai:gpt-4o-mini")
