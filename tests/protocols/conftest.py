"""Session fixture for all protocols: the servers start once, and each protocol runs once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from protocol_world import Served, World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[World]:
    """The data sets as files, the models behind a server, and what each protocol came to."""
    pytest.importorskip("trl", reason="the 'train' extra is not installed")
    made = World(tmp_path_factory.mktemp("protocols"), tiny_model)
    with pytest.MonkeyPatch.context() as patch, Served(made.server):
        patch.setenv("FRACTIONATE_DATA", str(made.data))
        patch.setenv("OPENAI_API_KEY", "no-key")
        patch.setenv("OPENAI_BASE_URL", made.server.base_url)
        yield made
