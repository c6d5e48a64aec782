"""Money in a whole run, against a real server: forecast first, a cap that stops cleanly, half price for batches."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from commands import Done, fractionate
from fractionate.analysis.pricing import Pricing
from fractionate.calls.budget import BudgetReached
from fractionate.cli import main
from fractionate.config import override, parse_config
from fractionate.errors import FractionateError
from fractionate.run.forecast import forecast_run
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import evaluate_stage, run_everything
from fractionate.types import Usage
from servers.chat_server import ChatServer
from servers.threaded import in_thread


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


def test_a_dry_run_needs_no_key_writes_nothing_and_checks_what_a_run_checks(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(folder)
    lines = ['[data]\ntest = "jsonl:test.jsonl"\n[models]\nteacher = "openai:gpt-4o-mini"\n[run]\nvariants = []']
    (folder / "run.toml").write_text("\n".join(lines))
    before = sorted(folder.rglob("*"))
    assert main(["run", "run.toml"]) == 2
    assert "needs a key" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before, "a run that cannot begin leaves nothing behind"
    assert main(["run", "run.toml", "--dry-run"]) == 0
    assert "at most" in capsys.readouterr().out
    assert main(["run", "run.toml", "--dry-run", "--set", "budget.usd=0.000001"]) == 1
    assert "passes budget.usd" in capsys.readouterr().err
    assert main(["run", "run.toml", "--dry-run", "--set", "budget.usd=0.000001", "--start-anyway"]) == 0
    assert main(["run", "run.toml", "--dry-run", "--set", 'data.test="jsonl:absent.jsonl"']) == 2
    assert main(["run", "run.toml", "--dry-run", "--on", "nowhere"]) == 2
    assert sorted(folder.rglob("*")) == before


def test_without_a_price_the_total_is_unknown(
    server: ChatServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = f'[data]\ntest = "jsonl:test.jsonl"\n[models]\nteacher = "{server.name}"\n[run]\nvariants = []'
    (folder / "run.toml").write_text(table)
    assert main(["run", str(folder / "run.toml"), "--dry-run", "--out", str(folder / "run")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "dollars unknown" in last
    assert "$" not in last
    assert main(["run", str(folder / "run.toml"), "--dry-run", "--json", "--out", str(folder / "run")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["calls"], told["expected_usd"], told["most_usd"]) == (40, None, None)


def test_a_run_over_its_forecast_can_be_started_anyway_and_stops_at_the_cap(server: ChatServer, folder: Path) -> None:
    with opened(folder, config(server), "whole") as run:
        expected = forecast_run(run).usd()
        assert expected is not None
    with opened(folder, config(server, usd=expected / 10)) as run:
        with pytest.raises(FractionateError, match="--start-anyway"):
            run_everything(run)
        assert not server.asked
        with pytest.raises(BudgetReached):
            run_everything(run, start_anyway=True)
        assert server.asked
        assert run.engine.budget.total_usd() <= expected / 10


class Brief(ChatServer):
    """Every reply has seven tokens."""

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        message = {"role": "assistant", "content": "1. What is it? 2. And that?"}
        usage = {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})


def test_expectations_are_learnt_from_stored_replies(folder: Path) -> None:
    """Half of the questions are asked; of the others it is expected that their replies are as long as those."""
    with in_thread(Brief()) as server:
        half = config(server)
        half["data"] = {"test": "jsonl:test.jsonl@0-4"}
        with opened(folder, half) as run:
            before = [entry.stage for entry in forecast_run(run).stages]
            evaluate_stage(run)
        with opened(folder, config(server)) as run:
            after = [entry.stage for entry in forecast_run(run).stages]
    assert [stage.calls for stage in after] == [stage.calls for stage in before]
    assert [stage.expected_output_tokens for stage in after] == [7 * stage.calls for stage in after]
    assert all(stage.expected_output_tokens > 20 * stage.calls for stage in before)


def test_three_folders_over_one_store_share_one_cap(server: ChatServer, folder: Path) -> None:
    """One run after another, each asking what the others have not: the cap is the store's, not the folder's."""
    (folder / "run.toml").write_text(
        f'[data]\ntest = "jsonl:test.jsonl"\n[models]\nteacher = "{server.name}"\n[run]\nvariants = []\n'
        f'[prices."{server.name}"]\ninput_per_million = 100.0\noutput_per_million = 100.0\n'
    )

    def spend(number: int, *more: str) -> Done:
        command = ["run", "run.toml", "--out", f"out{number}", "--start-anyway"]
        warmth = f'models.options."{server.name}".temperature=0.{number}'  # so that no call serves another folder
        return fractionate(*command, "--set", "budget.usd=0.3", "--set", warmth, *more, cwd=folder)

    ends = [spend(number) for number in (1, 2, 3)]
    assert [done.returncode for done in ends[1:]] == [1, 1]
    assert all("budget.usd is reached" in done.stderr for done in ends[1:])
    assert "what other runs over this store have spent counts" in ends[2].stderr
    assert 0.2 < server.billed_tokens * 1e-4 <= 0.3
    before = server.billed_tokens
    spend(3, "--set", "budget.scope=run")
    assert before < server.billed_tokens <= before + 0.3e4, "a run with a cap of its own has that to spend"


def test_the_batch_endpoint_is_half_the_table_s_price() -> None:
    usage = Usage(calls=1, input_tokens=1000, output_tokens=1000)
    direct, batched = Pricing().usd("openai:gpt-4o-mini", usage), Pricing({}, ["openai:gpt-4o-mini"])
    assert direct is not None
    assert batched.usd("openai:gpt-4o-mini", usage) == pytest.approx(direct / 2)
    assert "batch endpoint" in batched.source("openai:gpt-4o-mini")
