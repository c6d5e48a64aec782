"""A real run over a real server, for the gateway's tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from serving import CONFIG, ROWS, Measured

from fractionate.cli import main
from servers.solver_server import SolverServer
from servers.threaded import in_thread


@pytest.fixture(scope="session")
def measured_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    base = tmp_path_factory.mktemp("served")
    with in_thread(SolverServer()) as server:
        (base / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        (base / "fractionate.toml").write_text(CONFIG.format(url=server.base_url))
        assert main(["run", str(base / "fractionate.toml"), "--out", str(base / "run"), "--quiet"]) == 0
        yield Measured(base / "run", server, list(server.bodies))


@pytest.fixture
def run(measured_run: Measured) -> Iterator[Measured]:
    """The run, its server as if new."""
    server = measured_run.server
    server.bodies.clear()
    server.asked.clear()
    server.gate, server.holding, server.gone = threading.Event(), 0, 0
    server.fail_every, server.requests, server.refused_fields = 0, 0, ()
    yield measured_run
    (measured_run.folder / "serving.sqlite").unlink(missing_ok=True)
