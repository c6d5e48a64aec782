"""`fractionate serve` as a process: starting, refusing to start, ending."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from serving import CONFIG, ROWS, Measured

from fractionate.cli import main
from fractionate.prompts import instruction

LINE = re.compile(r"^serving (\d+) pairs? at (http://127\.0\.0\.1:\d+)/v1 \(fractionate/best is (\S+)\)$")


@contextmanager
def serving(folder: Path, *options: str, keys: str = "") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start the command and yield its URL, which it says in its one line."""
    command = [sys.executable, "-m", "fractionate", "serve", str(folder), "--port", "0", *options]
    environment = {**os.environ, "FRACTIONATE_KEYS": keys, "NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = LINE.match(said)
        assert found, said + (process.stderr.read() if process.stderr and process.poll() is not None else "")
        yield found[2], process
    finally:
        process.kill()
        process.wait()


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def wait_until_draining(url: str) -> None:
    while True:
        if status_of(f"{url}/healthz") == 503:
            return
        time.sleep(0.01)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit code and the one line of a command that does not start."""
    code = main(["serve", *arguments, "--port", "0"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return code, lines[0]


def test_it_says_its_url_once_it_answers_and_ends_after_its_last_answer(run: Measured) -> None:
    with serving(run.folder) as (url, process):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        replies: list[Any] = []

        def ask() -> None:
            messages: Any = [{"role": "user", "content": "[slow] secret-question-5512 7"}]
            replies.append(client.chat.completions.create(model=run.pair("single"), messages=messages))

        asking = threading.Thread(target=ask)
        asking.start()
        while run.server.holding == 0:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        wait_until_draining(url)
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            client.chat.completions.create(model="fractionate/best", messages=[{"role": "user", "content": "7?"}])
        assert process.poll() is None
        run.server.gate.set()
        asking.join(30)
        assert process.wait(30) == 0
        assert replies[0].choices[0].message.content == "The answer is: 7."
        out, err = process.communicate()
        assert (out, err) == ("", "")  # and no word of what was asked


def test_a_second_signal_ends_it_at_once(run: Measured) -> None:
    hung_before = len(run.server.hanging)  # by the tests that shared this server
    with serving(run.folder) as (url, process):
        asked = json.dumps({"model": run.pair("single"), "messages": [{"role": "user", "content": "[hang] 7"}]})
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        waiting = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        waiting.sendall(f"{head}Content-Length: {len(asked)}\r\n\r\n{asked}".encode())
        while len(run.server.hanging) == hung_before:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        wait_until_draining(url)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0  # long before the 30 s that it would have waited
        waiting.close()


def test_a_port_in_use_is_one_line(run: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", str(run.folder), "--port", port]) == 2
    assert f"port {port} of 127.0.0.1 is in use" in capsys.readouterr().err


def test_others_may_ask_only_with_a_key(
    run: Measured, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FRACTIONATE_KEYS", raising=False)
    code, said = refused(capsys, str(run.folder), "--host", "0.0.0.0")
    assert code == 2
    assert "set FRACTIONATE_KEYS" in said
    for bad in ("good,,better", "ключ", "two words"):
        monkeypatch.setenv("FRACTIONATE_KEYS", bad)
        code, said = refused(capsys, str(run.folder))
        assert code == 2
        assert bad not in said


def test_a_folder_that_is_no_finished_run(tmp_path: Path, run: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, str(tmp_path / "nowhere"))
    assert (code, "no run at" in said) == (2, True)
    code, said = refused(capsys, str(tmp_path))
    assert (code, "results.json is not there" in said) == (2, True)
    (tmp_path / "results.json").write_text("{")
    code, said = refused(capsys, str(tmp_path))
    assert (code, "results.json cannot be read" in said) == (2, True)
    shutil.copy(run.folder / "results.json", tmp_path)
    code, said = refused(capsys, str(tmp_path))
    assert (code, "there is no config.json" in said) == (2, True)


def test_a_student_that_is_not_there(
    tmp_path: Path, run: Measured, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["run"]["variants"], config["models"]["student"] = ["D-R"], f"local:{tiny_model}"
    (folder / "config.json").write_text(json.dumps(config))
    results = json.loads((folder / "results.json").read_text())
    cell = next(cell for cell in results["cells"] if cell["strategy"] == "static")
    results["cells"].append({**cell, "decomposer": "D-R", "name": "jsonl/static/D-R/x"})
    (folder / "results.json").write_text(json.dumps(results))
    code, said = refused(capsys, str(folder))
    assert code == 2
    assert "student D-R is not trained yet" in said
    student = folder / "students" / "D-R"
    student.mkdir(parents=True)
    (student / "training.json").write_text("{}")
    (student / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    code, said = refused(capsys, str(folder))
    assert code == 2
    assert "D-R" in said


def test_a_solver_that_is_down(tmp_path: Path, run: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    for name in ("config.json", "results.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace(run.server.base_url, f"http://127.0.0.1:{port}/v1"))
    code, said = refused(capsys, str(folder))
    assert code == 1
    assert f"127.0.0.1:{port}" in said
    assert "cannot be reached" in said
    with serving(folder, "--no-check") as (url, _):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.InternalServerError, match="cannot connect"):
            client.chat.completions.create(
                model=f"fractionate/single:none+http://127.0.0.1:{port}/v1#test",
                messages=[{"role": "user", "content": "7?"}],
                extra_headers={"x-fractionate-deadline-s": "1"},
            )


@pytest.fixture
def inferred(tmp_path: Path, run: Measured) -> Path:
    """The folder of a small run whose config names no form of answer: numbers, by the known answers of its rows."""
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "own.toml").write_text(CONFIG.format(url=run.server.base_url).replace('answer = "text"\n', ""))
    small = ("--set", 'run.strategies=["single"]', "--set", "models.solvers=['teacher', '{url}']")
    small = tuple(part.replace("{url}", run.solver) for part in small)
    assert main(["run", str(tmp_path / "own.toml"), "--out", str(tmp_path / "own"), "--quiet", *small]) == 0
    return tmp_path / "own"


def test_a_run_is_served_without_its_data_and_config(tmp_path: Path, run: Measured, inferred: Path) -> None:
    """The form of answer was inferred from rows that are gone: the run's folder keeps it."""
    folder = tmp_path / "elsewhere" / "run"
    shutil.copytree(inferred, folder)
    about = json.loads((folder / "run.json").read_text())
    assert about["answer"] == "number"
    (folder / "run.json").write_text(json.dumps({**about, "run": "run", "store": str(tmp_path / "gone" / "x.sqlite")}))
    with serving(folder) as (url, _):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        messages: Any = [{"role": "user", "content": "How far is it to 7?"}]
        reply = client.chat.completions.create(model=run.pair("single"), messages=messages)
    assert reply.choices[0].message.content == "The answer is: 7."
    assert instruction("form-number") in run.server.bodies[-1]["messages"][0]["content"]


def test_a_run_that_does_not_say_how_it_was_measured_is_refused(
    inferred: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = inferred
    about = json.loads((folder / "run.json").read_text())
    del about["answer"]
    (folder / "run.json").write_text(json.dumps(about))
    code, said = refused(capsys, str(folder), "--no-check")
    assert code == 2
    assert "does not say which form of answer was measured" in said
    assert "set data.answer in" in said


def test_a_budget_needs_prices(tmp_path: Path, run: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["prices"] = {}
    (folder / "config.json").write_text(json.dumps(config))
    code, said = refused(capsys, str(folder), "--budget-usd", "1")
    assert code == 2
    assert "no price is known" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", "70000"), ("--concurrency", "0"), ("--deadline", "-1"), ("--budget-usd", "free"), ("--queue", "many")],
)
def test_bad_options_are_one_line(run: Measured, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(run.folder), option, value])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err


@pytest.mark.model
def test_the_embedded_model_answers(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the 'local' extra is not installed")
    model = "local:HuggingFaceTB/SmolLM2-135M-Instruct"
    (tmp_path / "test.jsonl").write_text('{"question": "What is the capital of France?", "answer": "Paris"}\n')
    (tmp_path / "fractionate.toml").write_text(
        f'[data]\ntest = ["jsonl:test.jsonl"]\n[models]\nteacher = "{model}"\ndecomposers = ["none", "teacher"]\n'
        f'[models.options."{model}"]\nmax_tokens = 6\n[run]\nstrategies = ["single", "static"]\nvariants = []\n'
    )
    assert main(["run", str(tmp_path / "fractionate.toml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    measured = [json.loads(line) for line in (tmp_path / "run" / "attempts.jsonl").read_text().splitlines()]
    with serving(tmp_path / "run") as (url, _):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        for attempt in measured:
            reply: Any = client.chat.completions.create(
                model=f"fractionate/{attempt['strategy']}:{attempt['decomposer']}+teacher",
                messages=[{"role": "user", "content": "What is the capital of France?"}],
            )
            assert reply.choices[0].message.content == attempt["output"]
            assert reply.fractionate["subquestions"] == (attempt["subquestions"] or [])
