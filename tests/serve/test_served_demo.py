"""The demo with a tiny model in the place of SmolLM2, then served: its best pair answers new questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from serving import Measured, through

from fractionate import datasets
from fractionate.cli import demo, main
from fractionate.run.folder import RunFolder
from fractionate.serve.catalog import BEST, Catalog
from fractionate.serve.gateway import Gateway

TINY_TRAINING = "batch_size = 2\nmax_length = 2048\nmin_examples = 1"
TINY = demo.Size(train=4, test=2, max_tokens=24)


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("trl", reason="the 'train' extra is not installed")
    folder = tmp_path_factory.mktemp("demo") / "demo"
    settings = demo.CLOSED_BOOK.settings.replace(
        "batch_size = 4", "batch_size = 2\nmax_length = 2048\nmin_examples = 1"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "MODEL", f"local:{tiny_model}")
        patch.setattr(demo, "CLOSED_BOOK", demo.Demo("atlas-closed", TINY, TINY, settings))
        assert main(["demo", "--smoke", "--out", str(folder), "--quiet"]) == 0
    return folder


def test_the_last_line_says_how_to_ask_and_what(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {problem.question for problem in datasets.load("atlas-closed#test@0-8/8")}
    command, _, question = demo.serving(folder).partition(", then open ")
    assert command == f"Ask it: fractionate serve {folder}"
    assert question.partition('"')[2].rstrip('"') in asked


def test_the_verdict_of_the_demo_takes_60_words_at_most(folder: Path) -> None:
    verdict = json.loads((folder / "results.json").read_text())["verdict"]
    assert 5 < len(verdict["because"].split()) <= 60


def test_the_served_demo_opens_with_a_pair_and_a_question_that_it_answers_anew(folder: Path) -> None:
    seen = {problem.question for problem in datasets.load("atlas-closed#test@0-8/8")}
    new = next(one.question for one in datasets.load("atlas-closed#test-5@0-63") if one.question not in seen)

    async def work(url: str, gateway: Gateway) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/v1/models") as response:
                listed = await response.json()
            body = {"model": BEST, "messages": [{"role": "user", "content": new}]}
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                return {"listed": listed, "status": response.status, "answer": await response.json()}

    found = through(Measured(folder, None, []), work)  # type: ignore[arg-type]  # no server is behind it
    assert found["listed"]["fractionate"]["example"]["question"] in seen
    assert [model["id"] for model in found["listed"]["data"]][:2] == [BEST, "fractionate/single"]
    assert found["listed"]["data"][0]["fractionate"]["answers_new_questions"]
    assert found["status"] == 200
    assert found["answer"]["choices"][0]["finish_reason"] in ("stop", "length")


def test_a_recommended_recording_is_not_what_best_stands_for(folder: Path, tmp_path: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    recorded = next(one["name"] for one in results["cells"] if (one["decomposer"], one["solver"]) == ("teacher", "E-A"))
    results["verdict"]["distill"] = "solver"
    results["verdict"]["datasets"][0]["recommended"] = recorded
    for name in ("config.json", "run.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert Catalog(RunFolder(tmp_path)).aliases[BEST].pair.answers_anew


def test_without_its_attempts_a_run_has_no_example(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "run.json", "results.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert Catalog(RunFolder(tmp_path)).example is None
