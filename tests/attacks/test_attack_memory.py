"""Endless replies: 64 of them in flight stay under 500 MB, and each becomes a counted fault in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attack_size import TIMES

from servers.endless_server import KINDS

MEASURE = """
import asyncio, json, resource, sys, time
from fractionate.config import LimitsConfig, ModelOptions
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.errors import FractionateError
from fractionate.models.openai.api import OpenAIModel
from fractionate.types import Message, Request

async def main(path, url):
    model = OpenAIModel(url + "#m", ModelOptions())
    limits = LimitsConfig(attempts=1, timeout_s=float(sys.argv[3]), concurrency=64)
    engine = Engine(Store(path), limits)
    for endpoint in engine._clients.of(model).dispatcher.endpoints:
        endpoint.limit = 64.0  # all at once, without the ramp-up
    asked = [Request((Message("user", f"q{n}"),), "solver", max_tokens=16) for n in range(64)]
    ends = await asyncio.gather(*(engine.complete(model, one) for one in asked), return_exceptions=True)
    await model.close()
    engine.close()
    causes = dict(engine.counters.failures)
    odd = [repr(end) for end in ends if isinstance(end, BaseException) and not isinstance(end, FractionateError)]
    return {"causes": causes, "odd": odd}

result = asyncio.run(main(*sys.argv[1:3]))
try:  # ru_maxrss begins at what the process had that started this one: pytest, with all that it has loaded
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    result["peak_mb"] = int(status["VmHWM"].split()[0]) / 1024
except OSError:  # no Linux
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, str(Path(__file__).parents[1] / "servers" / "endless_server.py")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    yield int(process.stdout.readline())
    process.kill()
    process.wait(10)


@pytest.mark.parametrize("kind", KINDS)
def test_what_never_ends_is_read_within_bounds(tmp_path: Path, port: int, kind: str) -> None:
    url, patience = f"http://127.0.0.1:{port}/{kind}/v1", 2 if TIMES == 1 else 60
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "calls.sqlite"), url, str(patience)]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(kind, result)
    assert result["odd"] == []
    assert result["causes"], "each is a counted fault"
    assert result["peak_mb"] < 500
