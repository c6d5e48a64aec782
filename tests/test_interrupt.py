"""Ctrl-C in every stage of real processes: one line, exit code 1, no loss, and the same command resumes.

Also what else can happen to a process: a second one, a full disk.
"""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import fractionate
from fractionate.calls.store import Store
from fractionate.cli import demo

COMMAND = [sys.executable, "-m", "fractionate"]
SMALL = """
demo.MODEL = model
small = demo.OPEN_BOOK.settings.replace("batch_size = 8", "batch_size = 2\\nmax_length = 2048\\nmin_examples = 1")
demo.OPEN_BOOK = demo.Demo("atlas", demo.Size(4, 2, 48), demo.Size(4, 2, 48), small)
"""
SMALL_DEMO = f"""
import sys
from fractionate.cli import demo, main
model = sys.argv.pop(1)
{SMALL}
sys.exit(main())
"""
CONFIG = """
[data]
train = "jsonl:train.jsonl"
test = "jsonl:test.jsonl"
[models]
teacher = "{url}#teacher"
solvers = ["{url}#solver"]
decomposers = ["none", "teacher"]
[run]
variants = ["D-R"]
samples = 2
[limits]
concurrency = 2
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = [sys.executable, str(Path(__file__).parent / "servers" / "chat_server.py"), "--delay", "0.1"]
    process = subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    process.stdin.close()
    process.wait(10)


def asked(url: str) -> int:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/count") as reply:
        return sum(json.load(reply)["asked"].values())


@pytest.fixture
def folder(tmp_path: Path, url: str) -> Path:
    for name, first in (("train", 0), ("test", 100)):
        rows = [{"question": f"What is number {first + n}?", "answer": f"it {n}"} for n in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.toml").write_text(CONFIG.format(url=url))
    return tmp_path


def interrupt(
    arguments: list[str],
    when: str,
    cwd: Path,
    after_s: float = 0.0,
    command: list[str] = COMMAND,
    number: signal.Signals = signal.SIGINT,
) -> str:
    """Run a command and send it a signal `after_s` after a line of its progress matches `when`. Returns its words."""
    process = subprocess.Popen(
        [*command, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=cwd,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # which tests that run under nohup ignore
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if re.search(when, line):
            time.sleep(after_s)
            process.send_signal(number)
            break
    said += process.stderr.read()
    assert process.wait(120) == 1, said
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("fractionate: interrupted"), said
    return said


def complete(arguments: list[str], cwd: Path) -> str:
    """Run a command to its end, which needs no process of its own. Returns its words."""
    done = fractionate(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stderr


def outcomes(folder: Path) -> list[object]:
    rows = [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]
    return [(row["strategy"], row["decomposer"], row["id"], row["output"], row["prediction"]) for row in rows]


def calls(said: str) -> tuple[int, int]:
    sent, served = re.findall(r"([\d,]+) model calls; ([\d,]+) from the store", said)[-1]
    return int(sent.replace(",", "")), int(served.replace(",", ""))


def test_stages_that_call_a_server_resume_after_ctrl_c(folder: Path) -> None:
    whole = complete(["demonstrate", "run.toml", "--out", "whole"], folder)
    interrupt(["demonstrate", "run.toml", "--out", "cut"], r"demonstrate: ", folder)
    resumed = complete(["demonstrate", "run.toml", "--out", "cut"], folder)
    assert sum(calls(resumed)) == sum(calls(whole))
    assert (folder / "cut/demonstrations.jsonl").read_text() == (folder / "whole/demonstrations.jsonl").read_text()

    evaluate = ["evaluate", "run.toml", "--set", "run.variants=[]", "--out"]
    whole = complete([*evaluate, "whole"], folder)
    interrupt([*evaluate, "cut"], r"single, none", folder)
    resumed = complete([*evaluate, "cut"], folder)
    assert calls(resumed)[1] > 0, "what was completed before Ctrl-C is not asked again"
    assert outcomes(folder / "cut") == outcomes(folder / "whole")
    assert calls(complete([*evaluate, "cut"], folder))[0] == 0


@pytest.mark.parametrize("after_s", [0.0, 0.003, 0.03, 0.2])
def test_ctrl_c_is_one_line_whenever_it_comes(folder: Path, after_s: float) -> None:
    interrupt(["demonstrate", "run.toml", "--out", "cut"], r"demonstrate: ", folder, after_s)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_a_polite_kill_and_a_closed_terminal_drain_as_ctrl_c_does(
    folder: Path, url: str, command: str, number: signal.Signals
) -> None:
    """What was in flight comes back and is stored: nothing is paid for twice, and no money stays reserved."""
    started = asked(url)
    capped = [command, "run.toml", "--set", "run.variants=[]", "--set", "budget.tokens=100000", "--out", "cut"]
    interrupt(capped, r"single, none", folder, after_s=0.2, number=number)
    with Store(folder / "calls.sqlite", read_only=True) as store:
        assert store.held("cut")["solver"].tokens == 0
        assert len(store) == asked(url) - started > 0
    complete(capped, folder)
    with Store(folder / "calls.sqlite", read_only=True) as store:
        assert len(store) == asked(url) - started, "each call was paid for once"


def test_what_nohup_ignores_is_ignored(folder: Path) -> None:
    command = f"trap '' HUP; exec {' '.join(COMMAND)} demonstrate run.toml --out kept"
    process = subprocess.Popen(["bash", "-c", command], stderr=subprocess.PIPE, text=True, cwd=folder)
    assert process.stderr is not None
    for line in process.stderr:
        if "demonstrate: " in line:
            process.send_signal(signal.SIGHUP)
            break
    process.stderr.read()
    assert process.wait(120) == 0


IN_A_LOOP = """
import asyncio, sys
import fractionate as fr

async def cell():
    with fr.Run("run.toml", "inside") as run:
        return run.demonstrate()

print(len(asyncio.run(cell())))
"""


def test_a_run_works_inside_a_running_event_loop(folder: Path) -> None:
    """As in a notebook, whose cells a loop runs; Ctrl-C there drains too."""
    subprocess.run([sys.executable, "-c", IN_A_LOOP], cwd=folder, timeout=600, check=True)
    cut = subprocess.Popen(
        [sys.executable, "-c", IN_A_LOOP.replace("inside", "cut").replace('"cut")', '"cut", quiet=False)')],
        stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    assert cut.stderr is not None
    (folder / "calls.sqlite").unlink()
    for line in cut.stderr:
        if "demonstrate: " in line:
            cut.send_signal(signal.SIGINT)
            break
    assert cut.stderr.read().strip().endswith("KeyboardInterrupt")
    assert cut.wait(120) != 0


EVERY_LINE = """
import signal, sys
from pathlib import Path
from fractionate.config import load_config
from fractionate.calls.drive import Call, run_all
from fractionate.run.event_loop import in_loop
from fractionate.run.run import Run
from fractionate.types import Message, Request

def program(sample):
    model = run.models.sampler(run.names.component("echo:", "solver")).model
    (call,) = yield [Call(model, Request((Message("user", "How many?"),), "solver", sample=sample))]
    return call.text

def stage(sample):
    return in_loop(run, lambda: run_all([program(sample), program(sample + 1)], run.engine))

def interrupt_at(line):
    # Do what Ctrl-C does just before the given line of all that a stage makes Python execute.
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if event == "line" and frame.f_code.co_filename != __file__:
            lines += 1
            if lines == line:
                signal.raise_signal(signal.SIGINT)
        return trace
    sys.settrace(trace)
    try:
        stage(10 * line)
        return lines, "ended"
    except KeyboardInterrupt:
        return lines, "interrupted"
    finally:
        sys.settrace(None)

with Run(load_config(Path("run.toml"), []), Path("lines"), Path(".")) as run:
    stage(-10)
    total, how = interrupt_at(0)
    assert how == "ended", how
    for line in range(1, total, STEP):
        reached, how = interrupt_at(line)
        print(how if reached >= line else "not reached", flush=True)
    stage(-20)
"""


def test_ctrl_c_at_any_line_of_a_stage_is_a_clean_interrupt(folder: Path) -> None:
    """Wherever a stage is hit, in the making or closing of its loop too, it ends with KeyboardInterrupt and no word."""
    (folder / "lines.py").write_text(EVERY_LINE.replace("STEP", "11"))
    done = subprocess.run(
        [sys.executable, "lines.py"], capture_output=True, text=True, cwd=folder, timeout=300, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    ends = done.stdout.split("\n")[:-1]
    assert ends.count("interrupted") > 100
    assert "ended" not in ends


LEFT_BEHIND = """
import asyncio, sys, time
from pathlib import Path
from fractionate.calls import batches

class Slow:
    name = "slow:"
    def complete_batch(self, requests):
        time.sleep(1)
        Path("ended").touch()
        return []
    def interrupt(self):
        pass

async def cut():
    await asyncio.wait_for(batches.run_in_thread(Slow(), []), 0.05)

batches.GRACE_S = 0.05
try:
    asyncio.run(cut())
except TimeoutError:
    sys.exit(7)
"""


def test_the_process_ends_after_a_batch_that_was_left_behind(tmp_path: Path) -> None:
    """Python would end the batch's thread inside the C++ code of a model, which aborts the process."""
    assert subprocess.run([sys.executable, "-c", LEFT_BEHIND], cwd=tmp_path, timeout=60, check=False).returncode == 7
    assert (tmp_path / "ended").exists()


def test_the_demo_resumes_after_ctrl_c_in_training_and_generation_and_repeats_for_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tiny model in the place of SmolLM2: what is interrupted is the same."""
    pytest.importorskip("trl", reason="the 'train' extra is not installed")
    model = f"local:{tiny_model}"
    command, small = (
        ["demo", "--open-book", "--smoke", "--out", str(tmp_path / "demo")],
        [sys.executable, "-c", SMALL_DEMO, model],
    )
    said = interrupt(command, r"train D-R:", tmp_path, command=small)
    assert "train E-A:" not in said
    assert not (tmp_path / "demo/students/D-R/training.json").exists()
    said = interrupt(command, r"static, teacher → E-A", tmp_path, command=small)
    assert "train D-R" in said
    for name in ("MODEL", "OPEN_BOOK"):
        monkeypatch.setattr(demo, name, getattr(demo, name))  # so that they are put back
    exec(SMALL, {"demo": demo, "model": model})
    said = complete(command, tmp_path)
    assert "train D-R: kept" in said
    assert "train E-A: kept" in said

    results = json.loads((tmp_path / "demo/results.json").read_text())
    assert {(cell["strategy"], cell["decomposer"], cell["solver"]) for cell in results["cells"]} == {
        (strategy, decomposer, solver)
        for strategy, decomposer in (
            *((strategy, "none") for strategy in ("single", "single-cot")),
            *(("static", decomposer) for decomposer in ("teacher", "student", "D-R")),
        )
        for solver in ("E-A", model)
    }
    for name in ("report.md", "report.html", "students/D-R/adapter_model.safetensors", "students/E-A/examples.jsonl"):
        assert (tmp_path / "demo" / name).stat().st_size > 0

    before = (tmp_path / "demo/results.json").read_bytes()
    assert calls(complete(command, tmp_path))[0] == 0
    assert (tmp_path / "demo/results.json").read_bytes() == before


def test_a_run_is_one_process_s_at_a_time(folder: Path) -> None:
    command = [*COMMAND, "demonstrate", "run.toml", "--out", "shared"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=folder)
    assert first.stderr is not None
    assert any("demonstrate: " in line for line in first.stderr)
    first.send_signal(signal.SIGSTOP)  # so that it is not done before the second has come
    second = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1] == (
        f"fractionate: the run in shared is in progress in process {first.pid}: wait for it or stop it, "
        "then run the same command again"
    )
    complete(command[len(COMMAND) :], folder)


def test_a_full_disk_is_one_line_and_loses_nothing(folder: Path) -> None:
    (folder / "whole").mkdir()
    evaluate = ["evaluate", "run.toml", "--set", "run.variants=[]", "--out", "whole"]
    limited = f"ulimit -f 40; exec {' '.join(COMMAND)} {' '.join(evaluate[:2])} --set 'run.variants=[]' --out whole"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode in (1, -signal.SIGXFSZ, 128 + signal.SIGXFSZ), done.stderr
    assert "Traceback" not in done.stderr
    complete(evaluate, folder)
    assert outcomes(folder / "whole")
