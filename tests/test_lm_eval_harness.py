"""The endpoint under the real lm-evaluation-harness, with the guide's task."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from echo_run import PAIR, measured_echo_run

TASKS = Path(__file__).resolve().parent.parent / "examples" / "lm-eval"
HARNESS = shutil.which("lm_eval")
pytestmark = pytest.mark.skipif(HARNESS is None, reason="lm-evaluation-harness (lm_eval) is not installed")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with questions of which two thirds are answered rightly, and a run that measured them."""
    answers = [str(n if n % 3 else n + 1) for n in range(12)]
    rows = [
        {"question": f"Which number is {n}?", "answer": answer, "context": f"It is {n}."}
        for n, answer in enumerate(answers)
    ]
    measured_echo_run(tmp_path, rows)
    return tmp_path


@pytest.fixture
def url(home: Path) -> Iterator[str]:
    """The address of a server of that run."""
    command = [sys.executable, "-m", "fractionate", "serve", str(home / "run"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        line = server.stdout.readline()
        yield next(word for word in line.split() if word.startswith("http"))
        server.terminate()


def test_the_harness_finds_what_the_run_measured(home: Path, url: str) -> None:
    asked = f"model={PAIR},base_url={url}/chat/completions,num_concurrent=4"
    command = [
        str(HARNESS), "--model", "local-chat-completions", "--model_args", asked, "--tasks", "fractionate_questions",
        "--include_path", str(TASKS), "--apply_chat_template", "--output_path", "out",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(home / "cache")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = (home / "out").rglob("results_*.json")
    scored = json.loads(found.read_text())["results"]["fractionate_questions"]["exact_match,stated"]
    cells = json.loads((home / "run/results.json").read_text())["cells"]
    (measured,) = [cell["value"] for cell in cells if cell["strategy"] == "static"]
    assert scored == pytest.approx(measured)
    assert 0 < scored < 1
