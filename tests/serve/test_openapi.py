"""The gateway matches its own OpenAPI document: generated requests get only documented answers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from serving import Measured, through

from fractionate.serve.gateway import Gateway
from fractionate.serve.openapi import document
from fractionate.serve.parameters import ChatParameters, ResponseParameters

UNSAID = "positive_data_acceptance"
"""What a schema cannot say is refused all the same: whose turn is last, and what a pair's solver can heed."""


def test_schemathesis_finds_nothing(run: Measured) -> None:
    pytest.importorskip("schemathesis", reason="a development install")
    program = Path(sys.executable).with_name("schemathesis")
    options = ["--max-examples", "6", "--seed", "1", "--exclude-checks", UNSAID, "--generation-database", "none"]
    options += ["--header", "Authorization: Bearer alpha"]

    async def work(url: str, gateway: Gateway) -> tuple[int, str]:
        command = [str(program), "run", f"{url}/openapi.json", *options]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=590)
        assert gateway.metrics.requests.total() + gateway.metrics.refused.total() > 100
        return done.returncode, done.stdout + done.stderr

    code, said = through(run, work, keys="alpha")
    assert code == 0, said[-3000:]


def test_the_document_and_the_reading_have_one_table(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        schemas = document(gateway)["components"]["schemas"]
        for model in (ChatParameters, ResponseParameters):
            assert set(schemas[model.__name__]["properties"]) == set(model.model_fields)
            assert schemas[model.__name__]["additionalProperties"] is False
        assert {"safety_identifier", "prompt_cache_key", "tools", "modalities"} <= set(ChatParameters.model_fields)

    through(run, work)
