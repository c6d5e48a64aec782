"""A pair of local weights: sampled with the client's parameters, in one model shared by all requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from serving import Measured, through

from fractionate.cli import main
from fractionate.serve.gateway import Gateway


def test_local_weights_heed_temperature_seed_and_limits(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "What is two and two?", "answer": "4"}) + "\n")
    (tmp_path / "fractionate.toml").write_text(
        f'[data]\ntest = ["jsonl:test.jsonl"]\n[models]\nteacher = "local:{tiny_model}"\n'
        f'decomposers = ["none", "teacher"]\n[models.options."local:{tiny_model}"]\nmax_tokens = 8\n'
        '[run]\nstrategies = ["single", "static"]\nvariants = []\n'
    )
    assert main(["run", str(tmp_path / "fractionate.toml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "attempts.jsonl").read_text().splitlines()]
    measured = {row["strategy"]: row["output"] for row in rows}

    async def work(url: str, gateway: Gateway) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

            async def ask(strategy: str = "single", **fields: Any) -> Any:
                messages: Any = [{"role": "user", "content": "What is two and two?"}]
                return await client.chat.completions.create(
                    model=f"fractionate/{strategy}", messages=messages, **fields
                )

            for strategy, output in measured.items():
                assert (await ask(strategy)).choices[0].message.content == output
            warm = [(await ask(temperature=1.5, seed=seed)).choices[0].message.content for seed in (1, 1, 2)]
            assert warm[0] == warm[1]
            assert len({measured["single"], *warm}) == 3
            several = (await ask(temperature=1.5, seed=1, n=2)).choices
            assert [choice.message.content for choice in several] == [warm[0], warm[2]]
            cut = (await ask(max_tokens=3)).choices[0]
            assert cut.finish_reason == "length"
            assert measured["single"].startswith(cut.message.content or "?")
            with pytest.raises(openai.BadRequestError, match="top_p is not supported"):
                await ask(top_p=0.5)
        models = {id(gateway.sampler(one).model) for pair in gateway.catalog.pairs.values() for one in (pair.solver,)}
        assert len(models) == 1

    through(Measured(tmp_path / "run", None, []), work)  # type: ignore[arg-type]  # no server is behind it
