"""Whole runs whose solvers look things up: a Python function, documents, a model that calls tools over loopback."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from tool_runs import FACTS, Opened, asked, results_of

from fractionate.calls.budget import BudgetReached
from fractionate.errors import FractionateError, UsageError
from fractionate.run.attempt_rows import read_jsonl
from fractionate.run.attempts import read_attempts
from fractionate.run.forecast import forecast_run
from fractionate.run.stages import run_everything
from servers.threaded import in_thread
from servers.tool_calling_server import ToolCallingServer

PRICED = {"input_per_million": 1.0, "output_per_million": 1.0}


def test_a_tool_answers_subquestions_by_itself(folder: Path, opened: Opened) -> None:
    """Stepwise and static ask it each subquestion, and the last one's answer is the question's."""
    with opened(["tool:facts"], {"facts": FACTS}, run={"strategies": ["stepwise", "static"]}) as run:
        results = results_of(run)
    cells = results["by"]
    assert cells["stepwise", "tool:facts"]["value"] == cells["static", "tool:facts"]["value"] == 1.0
    alone = cells["single", "tool:facts"]
    assert alone["value"] == 0.5, "the whole question in one stage is a control, which fails where there are two hops"
    assert alone["tools"][0]["errors"] == alone["failures"] == 1
    assert sorted(asked(folder)) == sorted(
        [
            "What is the capital of Kenya?",
            "Which country has the capital Nairobi?",
            "What is the currency of Kenya?",
            "What is the currency of the country whose capital is Nairobi?",
        ]
    ), "cells share the store: each text is looked up once"


def test_calls_of_tools_are_stored_and_replayed(folder: Path, opened: Opened) -> None:
    with opened(["tool:facts"], {"facts": FACTS}) as run:
        first = results_of(run)
    before = asked(folder)
    with opened(["tool:facts"], {"facts": FACTS}, out="again") as run:
        second = results_of(run)
        assert run.engine.counters.sent == 0
    assert asked(folder) == before, "failed look-ups are replies, and replayed too"
    assert first["cells"] == second["cells"]


def test_a_changed_function_is_called_again_and_the_run_says_so(folder: Path, opened: Opened) -> None:
    with opened(["tool:facts"], {"facts": FACTS}) as run:
        results_of(run)
    before = len(asked(folder))
    source = folder / "look.py"
    source.write_text(source.read_text().replace("Kenyan shilling", "shilling of Kenya"))
    with opened(["tool:facts"], {"facts": FACTS}, out="again") as run:
        results = results_of(run)
    assert len(asked(folder)) == 2 * before
    assert any("tool:facts has changed since 4 of its calls were stored" in note for note in results["notes"])


def test_a_model_calls_tools_by_the_protocol(folder: Path, opened: Opened) -> None:
    with in_thread(ToolCallingServer()) as server:
        name = f"{server.name}[facts]"
        tools = {"facts": {**FACTS, "usd_per_call": 0.01}}
        with opened([name], tools, prices={server.name: PRICED}) as run:
            cell = results_of(run)["by"]["stepwise", name]
    assert cell["value"] == 1.0
    (used,) = cell["tools"]
    # Three subquestions and two final answers; a final answer's question is looked up as well.
    assert (used["tool"], used["role"], used["calls"], used["errors"]) == ("facts", "solver", 5, 1)
    assert used["usd"] == pytest.approx(0.05)
    assert used["per_question"]["calls"] == 2.5
    assert cell["usage"]["solver"]["calls"] == 10, "the model's calls are counted apart from the tool's"
    assert cell["usd"]["solver"] == pytest.approx(10 * 25e-6 + 0.05)
    first = next(body for body in server.bodies if len(body["messages"]) == 2)
    (described,) = first["tools"]
    assert described["function"]["name"] == "facts"
    assert described["function"]["description"] == "Looks a fact up.", "the first paragraph of its docstring"
    later = next(body for body in server.bodies if len(body["messages"]) == 4)
    assert [message["role"] for message in later["messages"]] == ["system", "user", "assistant", "tool"]
    assert later["messages"][2]["tool_calls"][0]["id"] == later["messages"][3]["tool_call_id"] == "call_0"


def test_a_model_s_look_ups_and_a_strategy_s_are_the_same_calls(folder: Path, opened: Opened) -> None:
    with in_thread(ToolCallingServer()) as server, opened(["tool:facts"], {"facts": FACTS}) as run:
        results_of(run)
        before = asked(folder)
        with opened([f"{server.name}[facts]"], {"facts": FACTS}, out="model", prices={server.name: PRICED}) as other:
            results_of(other)
    assert set(asked(folder)) == set(before)
    assert len(asked(folder)) == len(before)


@pytest.mark.parametrize("habit", ["loop", "stubborn"])
def test_a_model_that_loops_is_stopped(folder: Path, opened: Opened, habit: str) -> None:
    with in_thread(ToolCallingServer(habit)) as server:
        name = f"{server.name}[facts]"
        models = {"options": {server.name: {"tool_turns": 3}}}
        with opened([name], {"facts": FACTS}, models=models, prices={server.name: PRICED}) as run:
            cell = results_of(run)["by"]["single", name]
    assert cell["tools"][0]["calls"] == 2 * 3
    assert cell["usage"]["solver"]["calls"] == 2 * 4, "three turns with the tool, one without"
    last = [body for body in server.bodies if body.get("tool_choice") == "none"]
    assert last
    assert cell["failures"] == (2 if habit == "stubborn" else 0)
    if habit == "stubborn":
        lines = (folder / "out/attempts.jsonl").read_text()
        assert "the model still asks for tools after 3 turns (tool_turns)" in lines


@pytest.mark.parametrize(("habit", "said"), [("invent", "there is no tool"), ("garble", "are no JSON object")])
def test_what_is_wrong_with_a_call_goes_back_to_the_model(opened: Opened, habit: str, said: str) -> None:
    with in_thread(ToolCallingServer(habit)) as server:
        name = f"{server.name}[facts]"
        with opened([name], {"facts": FACTS}, prices={server.name: PRICED}) as run:
            cell = results_of(run)["by"]["stepwise", name]
    assert cell["value"] == 1.0, "the model is told, and looks up again"
    assert cell["tools"][0]["errors"] == 5 + 1
    replies = [
        message["content"] for body in server.bodies for message in body["messages"] if message["role"] == "tool"
    ]
    assert any(reply.startswith("Error: ") and said in reply for reply in replies)


def test_documents_are_searched_and_a_reader_reads_them(folder: Path, opened: Opened) -> None:
    """Retrieve, then read: what the search finds for the subquestion stands in the reader's prompt."""
    docs = {"kind": "search", "documents": "facts.md", "k": 2}
    with in_thread(ToolCallingServer("lone")) as server:
        name = f"{server.name}[docs]"
        models = {"options": {server.name: {"tools": "retrieve"}}}
        with opened([name], {"docs": docs}, models=models, prices={server.name: PRICED}) as run:
            cell = results_of(run)["by"]["stepwise", name]
    assert cell["tools"][0]["calls"] == 5
    asked = {
        body["messages"][-1]["content"].rpartition("\n")[2]: body["messages"][-1]["content"] for body in server.bodies
    }
    found = asked["Subquestion: What is the capital of Kenya?"]
    assert found.startswith("Context: The capital of Kenya is Nairobi.\n"), "the best document comes first"
    assert len(found.partition("\n\n")[0].splitlines()) == 2
    assert all("tools" not in body for body in server.bodies)


def test_a_budget_counts_what_tools_cost(folder: Path, opened: Opened) -> None:
    tools = {"facts": {**FACTS, "usd_per_call": 0.01}}
    with opened(["tool:facts"], tools) as run:
        planned = forecast_run(run)
        (stage,) = planned.stages
        assert (stage.stage.model, stage.stage.calls, stage.stage.role) == ("tool:facts", 4, "solver")
        assert planned.usd() == planned.most_usd == pytest.approx(0.04)
    with opened(["tool:facts"], tools, budget={"usd": 0.02}) as run, pytest.raises(FractionateError, match="forecast"):
        results_of(run)
    assert asked(folder) == []

    with (
        opened(["tool:facts"], tools, budget={"usd": 0.025}) as run,
        pytest.raises(BudgetReached, match=r"budget\.usd"),
    ):
        run_everything(run, start_anyway=True)
    assert len(asked(folder)) == 2, "a third call would have passed the cap"
    with opened(["tool:facts"], tools, budget={"usd": 1.0}) as run:
        results = results_of(run)
        assert run.engine.budget.total_usd() == pytest.approx(0.04), "what was stored is not paid for again"
    assert results["by"]["stepwise", "tool:facts"]["usd"]["total"] == pytest.approx(0.03)


def test_a_forecast_bounds_a_model_s_look_ups(opened: Opened) -> None:
    with in_thread(ToolCallingServer("loop")) as server:
        name = f"{server.name}[facts]"
        tools = {"facts": {**FACTS, "usd_per_call": 0.01}}
        with opened([name], tools, prices={server.name: PRICED}, models={"decomposers": ["none"]}) as run:
            planned = forecast_run(run)
            results = results_of(run)
    by_model = {entry.stage.model: entry for entry in planned.stages}
    assert by_model["tool:facts"].stage.calls == 2, "one look-up a question is expected"
    assert by_model[server.name].stage.calls == 4
    assert planned.most_usd is not None
    total = sum(cell["usd"]["total"] for cell in results["cells"])
    assert total <= planned.most_usd
    assert [cell["tools"][0]["usd"] for cell in results["cells"]] == [pytest.approx(2 * 6 * 0.01)]


def test_what_attempts_used_of_tools_is_read_back(folder: Path, opened: Opened) -> None:
    with opened(["tool:facts", "echo:1[facts]"], {"facts": FACTS}) as run:
        results_of(run)
    rows = [json.loads(line) for line in (folder / "out/attempts.jsonl").read_text().splitlines()]
    mine = [row for row in rows if row["solver"] == "tool:facts" and row["strategy"] == "stepwise"]
    assert [row["tools"]["solver"][0]["calls"] for row in mine] == [1, 2]
    with sqlite3.connect(folder / "out/attempts.sqlite") as database:
        names = {name for (name,) in database.execute("SELECT DISTINCT name FROM arrays")}
    assert "tool:solver:facts:calls" in names
    stored, lines = read_attempts(folder / "out/attempts.sqlite"), read_jsonl(folder / "out/attempts.jsonl")
    for one, other in zip(stored, lines, strict=True):
        for name in ("calls", "errors", "tokens", "seconds"):
            column = f"tool:solver:facts:{name}"
            assert one.columns.column(column).tolist() == other.columns.column(column).tolist()


def test_the_report_shows_what_tools_were_used(folder: Path, opened: Opened) -> None:
    with opened(["tool:facts"], {"facts": {**FACTS, "usd_per_call": 0.01}}) as run:
        results_of(run)
    page = (folder / "out/report.md").read_text()
    table = page.partition("## Tools")[2].partition("\n## ")[0]
    assert "facts" in table
    assert "$15.0" in table, "dollars per 1,000 questions"


@pytest.mark.parametrize(
    ("solvers", "tools", "said"),
    [
        (["tool:fact"], {"facts": FACTS}, "names the tool 'fact', which is not there: did you mean 'facts'?"),
        (["echo:[search]"], {}, "names the tool 'search', which is not there: describe it under [tools.search]"),
        (["echo:[]"], {}, "leaves a tool unnamed"),
        (["tool:facts[facts]"], {"facts": FACTS}, "a tool uses no tools"),
        (["D-R[facts]"], {"facts": FACTS}, "a student that the run trains uses no tools"),
        (["tool:facts"], {"facts": {"kind": "python", "function": "nowhere:look"}}, "no module 'nowhere'"),
        (["tool:facts"], {"facts": {"kind": "python", "function": "look:see"}}, "look has no function 'see'"),
        (["tool:facts"], {"facts": {"kind": "pyhton"}}, "is no kind of tool: did you mean 'python'?"),
        (["tool:facts"], {"facts": {"kind": "python"}}, "'tools.facts': a tool of kind \"python\" needs function"),
        (["tool:facts"], {"facts": {**FACTS, "k": 5}}, "k is no key of a tool of kind"),
        (
            ["tool:facts"],
            {"facts": {"kind": "search", "documents": "gone"}},
            "tools.facts.documents: gone does not exist",
        ),
    ],
)
def test_bad_input_gets_its_line(
    opened: Opened, solvers: list[str], tools: dict[str, dict[str, object]], said: str
) -> None:
    with pytest.raises(UsageError) as raised, opened(solvers, tools) as run:
        results_of(run)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
