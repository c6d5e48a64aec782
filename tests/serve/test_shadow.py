"""A shadow pair is measured next to the serving pair: it delays nothing and has its own budget."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from serving import Measured, through
from test_feedback import mark
from test_official_client import client
from test_record import ask, lines

from fractionate.cli import main
from fractionate.datasets.traffic import read_exchanges
from fractionate.errors import UsageError
from fractionate.serve import shadow as shadow_room
from fractionate.serve.gateway import Gateway
from fractionate.serve.shadow import Shadow
from fractionate.serve.traffic import Traffic
from servers.solver_server import SolverServer
from servers.threaded import in_thread
from tests_tiny import build_tiny_model

CONFIG = """
data.test = "jsonl:test.jsonl"
data.answer = "text"
run = {{strategies = ["single", "static"], variants = []}}
models.teacher = "echo:"
models.solvers = ["{url}#test", "{url}#second", "teacher"]
models.decomposers = ["none", "teacher"]
{prices}
"""
PRICE = 'prices."{url}#{name}" = {{input_per_million = {usd}, output_per_million = {usd}}}\n'


class TwoMindedServer(SolverServer):
    """The model "second" answers with the first word instead of the last; it hangs if `stuck`, fails if `failing`."""

    stuck = False
    failing = False

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        if body["model"] == "second" and self.stuck:
            forever = asyncio.get_running_loop().create_future()
            self.hanging.add(forever)
            await forever
        if body["model"] == "second" and self.failing:
            return web.json_response({"error": {"message": "no"}}, status=400)
        return await super().reply(request, body, question)

    def answered_by(self, body: dict[str, Any], bare: str) -> dict[str, Any]:
        reply = super().answered_by(body, bare)
        if body["model"] == "second":
            reply["choices"][0]["message"]["content"] = f"The answer is: {bare.split()[0]}"
        return reply


@pytest.fixture(scope="module")
def shadowed_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    base = tmp_path_factory.mktemp("shadowed")
    with in_thread(TwoMindedServer()) as server:
        prices = "".join(
            PRICE.format(url=server.base_url, name=name, usd=n) for name, n in (("test", 1), ("second", 2))
        )
        (base / "fractionate.toml").write_text(CONFIG.format(url=server.base_url, prices=prices))
        (base / "test.jsonl").write_text(json.dumps({"question": "Seven or 7?", "answer": "7"}) + "\n")
        assert main(["run", str(base / "fractionate.toml"), "--out", str(base / "run"), "--quiet"]) == 0
        yield Measured(base / "run", server, [])


@pytest.fixture
def run(shadowed_run: Measured, tmp_path: Path) -> Iterator[Measured]:
    server = shadowed_run.server
    assert isinstance(server, TwoMindedServer)
    server.stuck = server.failing = False
    server.bodies.clear()
    yield shadowed_run
    for book in shadowed_run.folder.glob("s*.sqlite*"):
        book.unlink()


ENDS = ('total{result="different"}', 'total{result="same"}', 'dropped_total{why="budget_reached"}')
"""What becomes of a request that a shadow might answer."""


def second(run: Measured, strategy: str = "single", decomposer: str = "none") -> str:
    return run.pair(strategy, decomposer, f"{run.server.base_url}#second")


def beside(
    run: Measured, record: Path, work: Any, pair: str = "", share: float = 1.0, usd: float | None = 1.0, **options: Any
) -> Any:
    """Let a gateway with a shadow answer while `work(client, url, gateway)` is done."""

    async def inside(url: str, gateway: Gateway) -> Any:
        gateway.traffic = Traffic(gateway, record)
        gateway.traffic.shadow(Shadow(gateway, pair or second(run), share, usd))
        async with client(url) as openai_client:
            return await work(openai_client, url, gateway)

    return through(run, inside, **options)


async def until(gateway: Gateway, line: str) -> None:
    """Wait for a line of the metrics."""
    while line not in gateway.metrics.text():
        await asyncio.sleep(0.01)


def value(text: str, name: str) -> float:
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " ")), 0.0)


def test_both_answers_are_recorded_counted_and_compared(
    run: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "traffic.jsonl"
    questions = ["7 or 7?", "Seven or 7?", "8 or 9?", "8 or 5?", "6 or 6?"]

    async def work(openai_client: Any, url: str, gateway: Gateway) -> str:
        ids = []
        for number, question in enumerate(questions, 1):
            ids.append((await ask(openai_client, run.pair("single"), question)).id)
            await until(gateway, f'fractionate_recorded_total{{kind="shadow"}} {number}')
        await mark(url, {"id": ids[0], "right": True}, "")  # both say 7
        await mark(url, {"id": ids[1], "right": True}, "")  # only the one that was sent says 7
        await mark(url, {"id": ids[2], "answer": "8"}, "")  # only the shadow says 8
        await mark(url, {"id": ids[3], "right": False}, "")  # the shadow said something else: nobody knows
        await mark(url, {"id": ids[4], "right": False}, "")  # both say 6
        return gateway.metrics.text()

    metrics = beside(run, record, work)
    shadows = [row for row in lines(record) if "shadow" in row]
    assert [row["same"] for row in shadows] == [True, False, False, False, True]
    answers = {row["id"]: row for row in lines(record) if "id" in row}
    for row in shadows:
        assert (row["pair"], row["usd"]["solver"]) == (second(run), row["usd"]["total"])
        assert row["latency_s"] > 0
        assert row["usd"]["total"] > answers[row["shadow"]]["usd"]["total"] > 0, "it is the dearer one"
    assert value(metrics, 'fractionate_shadow_total{result="same"}') == 2
    assert value(metrics, 'fractionate_shadow_total{result="different"}') == 3
    spent = sum(row["usd"]["total"] for row in shadows)
    assert value(metrics, 'fractionate_shadow_usd_total{by="shadow"}') == pytest.approx(spent)
    assert value(metrics, 'fractionate_shadow_usd_total{by="answered"}') < spent
    assert value(metrics, "fractionate_shadow_p50_seconds_shadow") > 0
    assert value(metrics, "fractionate_shadow_p50_seconds_answered") > 0
    for sent, other, count in (
        ("true", "true", 1),
        ("true", "false", 1),
        ("false", "true", 1),
        ("false", "unknown", 1),
        ("false", "false", 1),
    ):
        assert value(metrics, f'fractionate_shadow_judged_total{{answered="{sent}",shadow="{other}"}}') == count
    assert value(metrics, 'fractionate_usd_total{role="solver"}') == pytest.approx(
        sum(row["usd"]["total"] for row in answers.values())
    ), "what the shadow spends is not the server's"

    compared = [f"{record}:{pair.removeprefix('fractionate/')}" for pair in (run.pair("single"), second(run))]
    assert main(["compare", f"sent={compared[0]}", f"shadow={compared[1]}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["a"], found["b"]) == (4, 0.5, 0.5)
    assert [system["left_out"] for system in found["systems"]] == [1, 0]
    assert "favours the pair that answered" in json.dumps(found)
    assert main(["compare", str(record), compared[0]]) == 2
    assert "has answers of 2 pairs" in capsys.readouterr().err


def test_a_mark_that_comes_before_the_shadow_is_counted_too(run: Measured, tmp_path: Path) -> None:
    async def work(openai_client: Any, url: str, gateway: Gateway) -> None:
        id = (await ask(openai_client, run.pair("single"), "8 or 9?")).id
        await mark(url, {"id": id, "answer": "8"}, "")
        await until(gateway, 'fractionate_shadow_judged_total{answered="false",shadow="true"} 1')
        await ask(openai_client, run.pair("single"), "8 or 9?", n=2, temperature=1)
        await until(gateway, 'fractionate_shadow_dropped_total{why="several_answers"} 1')

    beside(run, tmp_path / "traffic.jsonl", work)


def test_a_shadow_that_hangs_delays_and_fails_nothing(run: Measured, tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"
    run.server.stuck = True  # type: ignore[attr-defined]

    async def work(openai_client: Any, url: str, gateway: Gateway) -> list[str]:
        replies = [await ask(openai_client, run.pair("single"), f"Is it {n}?") for n in range(20)]
        await until(gateway, f'fractionate_shadow_dropped_total{{why="too_many"}} {20 - shadow_room.AT_ONCE}')
        asked = [body for body in run.server.bodies if body["model"] == "second"]
        while len(asked) < shadow_room.AT_ONCE:
            await asyncio.sleep(0.01)
            asked = [body for body in run.server.bodies if body["model"] == "second"]
        return [reply.choices[0].message.content for reply in replies]

    said = beside(run, record, work)  # and the server ends while they hang
    assert said == [f"The answer is: {n}." for n in range(20)]
    assert [row for row in lines(record) if "shadow" in row] == []


def test_a_shadow_past_its_deadline_or_failing_is_recorded_as_failed(run: Measured, tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"

    async def work(openai_client: Any, url: str, gateway: Gateway) -> None:
        run.server.failing = True  # type: ignore[attr-defined]
        await ask(openai_client, run.pair("single"))
        await until(gateway, 'fractionate_shadow_total{result="failed"} 1')
        run.server.failing, run.server.stuck = False, True  # type: ignore[attr-defined]
        await ask(openai_client, run.pair("single"))
        await until(gateway, 'fractionate_shadow_total{result="failed"} 2')

    beside(run, record, work, deadline_s=0.5)
    failed = [row["failed"] for row in lines(record) if "shadow" in row]
    assert failed == ["solver_rejects", "deadline_passed"]
    assert [one.shadow.failed for one in read_exchanges(record) if one.shadow] == failed


def test_its_budget_is_its_own_and_outlives_the_server(run: Measured, tmp_path: Path) -> None:
    """The most that a call may cost is set aside: too much for this budget, so nothing is ever asked."""

    async def spend(openai_client: Any, url: str, gateway: Gateway) -> str:
        for n in range(1, 4):
            await ask(openai_client, run.pair("single"), f"Is it {n}?")
            while sum(value(gateway.metrics.text(), f"fractionate_shadow_{name}") for name in ENDS) < n:
                await asyncio.sleep(0.01)
        return gateway.metrics.text()

    tiny = beside(run, tmp_path / "one.jsonl", spend, usd=1e-5, budget_usd=1.0)
    assert value(tiny, 'fractionate_shadow_dropped_total{why="budget_reached"}') == 3
    assert value(tiny, 'fractionate_shadow_total{result="different"}') == 0
    assert value(tiny, "fractionate_budget_spent_usd") > 0, "and the server's own is another"

    free = beside(run, tmp_path / "two.jsonl", spend, usd=1.0)
    assert value(free, 'fractionate_shadow_total{result="different"}') == 3
    spent = value(free, 'fractionate_shadow_usd_total{by="shadow"}')
    again = beside(run, tmp_path / "three.jsonl", spend, usd=spent)
    assert value(again, 'fractionate_shadow_dropped_total{why="budget_reached"}') == 3, "a restart is no new budget"


def test_only_its_share_is_answered_and_nothing_while_the_server_is_busy(run: Measured, tmp_path: Path) -> None:
    async def work(openai_client: Any, url: str, gateway: Gateway) -> None:
        await asyncio.gather(*(ask(openai_client, run.pair("single"), f"Is it {n}?") for n in range(40)))

    beside(run, tmp_path / "few.jsonl", work, share=0.01)
    answered = [int(row["id"][-6:], 16) < 0.01 * 16**6 for row in lines(tmp_path / "few.jsonl") if "id" in row]
    assert len(answered) == 40
    assert sum("shadow" in row for row in lines(tmp_path / "few.jsonl")) <= sum(answered)

    async def busy(openai_client: Any, url: str, gateway: Gateway) -> None:
        held = asyncio.create_task(ask(openai_client, run.pair("single"), "[slow] Is it 8?"))
        while not gateway.admission.inside:
            await asyncio.sleep(0.01)
        await ask(openai_client, run.pair("single"))
        await until(gateway, 'fractionate_shadow_dropped_total{why="busy"} 1')
        run.server.gate.set()
        await held

    run.server.gate.clear()
    beside(run, tmp_path / "busy.jsonl", busy, concurrency=2)


def test_local_weights_make_way_for_a_request(run: Measured, tmp_path: Path) -> None:
    """A shadow in this process is begun only when nothing is answered, and given up when something is."""
    pytest.importorskip("torch")
    tiny = f"local:{build_tiny_model(tmp_path / 'tiny')}"

    async def work(openai_client: Any, url: str, gateway: Gateway) -> None:
        sampler = gateway.sampler(gateway.catalog.find(pair).solver)
        entered = asyncio.Event()

        async def long(request: Any) -> Any:
            entered.set()
            await asyncio.Event().wait()

        sampler.model.complete = long  # type: ignore[attr-defined]  # as slow as a large model
        await ask(openai_client, run.pair("single"))
        await entered.wait()
        await ask(openai_client, run.pair("single"))
        await until(gateway, 'fractionate_shadow_dropped_total{why="interrupted"} 1')

    base = tmp_path / "local"
    base.mkdir()
    config = CONFIG.format(url=run.server.base_url, prices="").replace(
        '"teacher"]\nmodels.dec', f'"{tiny}"]\nmodels.dec'
    )
    config = config.replace('"single", "static"', '"single"')
    (base / "fractionate.toml").write_text(config + f'models.options."{tiny}".max_tokens = 2\n')
    (base / "test.jsonl").write_text(json.dumps({"question": "Seven or 7?", "answer": "7"}) + "\n")
    assert main(["run", str(base / "fractionate.toml"), "--out", str(base / "run"), "--quiet"]) == 0
    pair = run.pair("single", "none", tiny)
    beside(Measured(base / "run", run.server, []), tmp_path / "t.jsonl", work, pair=pair, usd=None)


@pytest.mark.parametrize(
    ("pair", "usd", "said"),
    [
        ("fractionate/single:none+nobody", 1.0, "--shadow: .*did you mean"),
        ("", None, "set a budget with --shadow-usd"),
    ],
)
def test_a_shadow_that_cannot_be_had_is_one_line(
    run: Measured, tmp_path: Path, pair: str, usd: float | None, said: str
) -> None:
    async def work(openai_client: Any, url: str, gateway: Gateway) -> None:
        raise AssertionError("it does not start")

    with pytest.raises(UsageError, match=said) as error:
        beside(run, tmp_path / "traffic.jsonl", work, pair=pair, usd=usd)
    assert "\n" not in str(error.value)


def test_a_shadow_without_a_record_is_refused(run: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(run.folder), "--port", "0", "--shadow", second(run)]) == 2
    assert "--shadow needs --record FILE" in capsys.readouterr().err
    assert main(["serve", str(run.folder), "--port", "0", "--shadow-usd", "1"]) == 2
    assert "name its pair with --shadow" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", str(run.folder), "--shadow-share", "2"])
    assert "'2' is no share above 0 and up to 1" in capsys.readouterr().err
