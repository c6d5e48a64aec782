"""A whole run over a model on several servers: no call is paid again when servers join, leave or move."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fractionate.cli import main
from servers.chat_server import ChatServer
from servers.threaded import in_thread

CONFIG = """
[data]
test = ["jsonl:test.jsonl"]
[models]
teacher = "{name}"
decomposers = ["none", "teacher"]
[models.options."{known}"]
max_tokens = 40
[run]
name = "mine"
strategies = ["single", "static"]
variants = []
[budget]
usd = 1.0
[prices."{known}"]
input_per_million = 1.0
output_per_million = 2.0
"""


@pytest.fixture
def servers() -> Iterator[list[ChatServer]]:
    with in_thread(ChatServer()) as one, in_thread(ChatServer()) as two:
        yield [one, two]


def write_config(folder: Path, name: str, known: str) -> str:
    rows = [{"question": f"How many are {number} and one?", "answer": str(number + 1)} for number in range(12)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "fractionate.toml").write_text(CONFIG.format(name=name, known=known))
    return str(folder / "fractionate.toml")


def test_servers_come_and_change_places_and_nothing_is_paid_for_again(
    tmp_path: Path, servers: list[ChatServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """Options and prices stay written under the first server's own name; the budget reads what it has spent by it."""
    one, two = servers
    assert main(["run", write_config(tmp_path, one.name, one.name), "--out", str(tmp_path / "run")]) == 0
    paid = one.answered.total()
    assert paid == 24  # no subquestion can be read in what this server says: solved in single stage, as stored
    for name in (f"{one.base_url},{two.base_url}#test", f"{two.base_url},{one.base_url}#test"):
        capsys.readouterr()
        config = write_config(tmp_path, name, one.name)
        assert main(["run", config, "--dry-run"]) == 0
        assert "0 calls" in capsys.readouterr().out
        assert main(["run", config, "--out", str(tmp_path / "run")]) == 0
        said = capsys.readouterr()
        assert "0 model calls; 36 from the store" in said.out + said.err
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        assert all(cell["usd"]["total"] > 0 for cell in results["cells"])
    assert one.answered.total() + two.answered.total() == paid


def test_two_servers_share_a_run(tmp_path: Path, servers: list[ChatServer]) -> None:
    one, two = servers
    name = f"{one.base_url},{two.base_url}#test"
    assert main(["run", write_config(tmp_path, name, name), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert one.answered.total() + two.answered.total() == 24
    assert min(one.answered.total(), two.answered.total()) > 3
    assert {body["max_tokens"] for server in servers for body in server.bodies} == {40}
    cells = json.loads((tmp_path / "run" / "results.json").read_text())["cells"]
    assert {cell["solver"] for cell in cells} == {"teacher"}


def test_a_batch_at_several_servers_is_refused(
    tmp_path: Path, servers: list[ChatServer], capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{servers[0].base_url},{servers[1].base_url}#test"
    config = write_config(tmp_path, name, name)
    Path(config).write_text(Path(config).read_text().replace("max_tokens = 40", "batch = true"))
    assert main(["run", config, "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert "a batch lies at one server" in capsys.readouterr().err
