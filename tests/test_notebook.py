"""A run in a real Jupyter kernel, where an event loop is running already, and the notebooks of examples/notebooks."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

jupyter_client = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PRINTED = {
    "a_run_in_code": "static",
    "compare_logs": "gpt4-cot against gpt-3.5-cot: +13.3 points",
    "read_a_report": "gained",
}
RUN = """
import fractionate as fr
config = fr.parse_config({"data": {"test": "atlas#test@0-7"}, "models": {"teacher": "echo:0.5"},
    "run": {"variants": []}, "limits": {"concurrency": 2}})
with fr.Run(config, "run") as run:
    report = run.run()
print(report.verdict)
report
"""


class Kernel:
    """A kernel of its own process, and how a cell ended there."""

    def __init__(self, folder: Path) -> None:
        self.manager, self.client = jupyter_client.manager.start_new_kernel(kernel_name="python3", cwd=str(folder))

    def run(self, code: str) -> str:
        """Send a cell. Returns the message's id."""
        return str(self.client.execute(code))

    def result(self, message: str, timeout_s: float = 120) -> tuple[str, str]:
        """Wait for a cell. Returns what it printed or showed, and the name of its error, "" for none."""
        shown, failed, deadline = "", "", time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                came = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if came["parent_header"].get("msg_id") != message:
                continue
            content = came["content"]
            if came["msg_type"] == "stream":
                shown += content["text"]
            elif came["msg_type"] == "execute_result":
                shown += content["data"].get("text/html", content["data"]["text/plain"])
            elif came["msg_type"] == "error":
                failed = content["ename"]  # the kernel drops cells that come before it is idle again
            elif came["msg_type"] == "status" and content["execution_state"] == "idle":
                return shown, failed
        raise AssertionError(f"the cell did not end: {shown}")


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    started = Kernel(tmp_path)
    yield started
    started.client.stop_channels()
    started.manager.shutdown_kernel(now=True)


def test_a_cell_runs_a_run_and_shows_its_report(kernel: Kernel) -> None:
    shown, error = kernel.result(kernel.run(RUN))
    assert not error
    assert "Undecided" in shown
    assert "<iframe srcdoc=" in shown


def test_a_cell_that_is_interrupted_keeps_what_was_answered_and_goes_on(kernel: Kernel, tmp_path: Path) -> None:
    """The kernel's interrupt is the notebook's stop button. The next cell asks only for what is not stored."""
    slow = (
        "import asyncio, fractionate.models.echo as echo\n"
        "complete = echo.EchoModel.complete\n"
        "async def slowly(*given):\n"
        "    open('asked', 'a').write('.')\n"
        "    await asyncio.sleep(0.3)\n"
        "    return await complete(*given)\n"
        "echo.EchoModel.complete = slowly\n"
    )
    interrupted = kernel.run(slow + RUN)
    asked, deadline = tmp_path / "asked", time.monotonic() + 60
    while not (asked.exists() and len(asked.read_text()) > 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    kernel.manager.interrupt_kernel()
    assert kernel.result(interrupted)[1] == "KeyboardInterrupt"
    before = len(asked.read_text())
    shown, error = kernel.result(kernel.run(RUN))
    assert not error
    assert "Undecided" in shown
    calls = "import sqlite3; print(sqlite3.connect('calls.sqlite').execute('SELECT count(*) FROM calls').fetchone()[0])"
    made = int(kernel.result(kernel.run(calls))[0])
    assert len(asked.read_text()) == made, f"{before} were asked before the interrupt, none of them again"


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_notebook_runs_from_its_first_cell_to_its_last(kernel: Kernel, tmp_path: Path, name: str) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "examples").symlink_to(EXAMPLES)
    notebook = json.loads((EXAMPLES / "notebooks" / f"{name}.ipynb").read_text())
    shown = ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "notebooks are kept without their outputs"
            text, error = kernel.result(kernel.run("".join(cell["source"])))
            assert not error, f"{''.join(cell['source'])}: {error}"
            shown += text
    assert PRINTED[name] in shown
