"""The commands from a user's view: help with an example, one line for every error, exit codes of the contract."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from commands import fractionate
from fractionate.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
ROWS = '{"question": "What is 1?", "answer": "1"}\n{"question": "What is 2?", "answer": "2"}\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "test.jsonl").write_text(ROWS)
    path = tmp_path / "run.toml"
    path.write_text(
        '[data]\ntest = "jsonl:test.jsonl"\n[models]\nteacher = "echo:1"\nsolvers = ["echo:1"]\n[run]\nvariants = []\n'
    )
    return path


@pytest.mark.parametrize("command", [name for name, _, _ in COMMANDS])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert "example" in said
    assert f"fractionate {command}" in said


def test_the_help_page_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    for name, _, purpose in COMMANDS:
        assert name in said
        assert purpose in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "did you mean 'run'?"),
        (["run", "none.toml"], "fractionate init"),
        (["run"], "CONFIG"),
        (["run", "run.toml", "--set", "run.sead=1"], "did you mean 'run.seed'?"),
        (["run", "run.toml", "--set", "models.teacher=opnai:x"], "did you mean 'openai:'?"),
        (["run", "run.toml", "--set", "models.solvers=openai:gpt-4o-mini"], "OPENAI_API_KEY"),
        (["run", "run.toml", "--set", 'models.decomposers=["D-Q"]'], "D-Q"),
        (["run", "run.toml", "--set", "models.teacher=recorded:none.jsonl"], "none.jsonl"),
        (["run", "run.toml", "--set", "models.solvers=local:/no/such/folder"], "/no/such/folder"),
        (["run", "run.toml", "--set", "data.test=jsonl:none.jsonl"], "none.jsonl"),
        (["run", "run.toml", "--set", "data.test=jsonl:empty.jsonl"], "empty.jsonl"),
        (["run", "run.toml", "--set", "data.test=jsonl:bad.jsonl"], "bad.jsonl:2"),
        (["run", "run.toml", "--set", "data.test=gsm9k"], "gsm8k"),
        (["run", "run.toml", "--set", 'run.variants=["D-R"]'], "data.train"),
        (["run", "run.toml", "--set", 'run.variants=["D-R"]', "--set", "data.train=jsonl:test.jsonl"], "allow_overlap"),
        (["run", "run.toml", "--set", 'models.decomposers=["gold"]'], "reference decomposition"),
        (
            ["screen", "run.toml", "--set", 'run.variants=["D-R"]', "--set", "data.train=jsonl:train.jsonl"],
            "demonstrate",
        ),
        (["report", "run.toml"], "fractionate evaluate"),
        (["report", "."], "config file"),
        (["score", "none.jsonl", "--dataset", "gsm8k"], "none.jsonl"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(config: Path, arguments: list[str], said: str) -> None:
    (config.parent / "empty.jsonl").write_text("")
    (config.parent / "bad.jsonl").write_text(ROWS.splitlines()[0] + "\n{]\n")
    (config.parent / "train.jsonl").write_text('{"question": "What is 7?", "answer": "7"}\n')
    done = fractionate(*arguments, cwd=config.parent)
    assert done.returncode == 2, done.stderr
    problem = done.stderr.strip().splitlines()[-1]
    assert said in problem
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.strip().splitlines() if not line.startswith("[")] == [problem]


def test_a_missing_extra_names_itself(config: Path) -> None:
    rows = "data.train=train.jsonl"
    hidden = "import sys; sys.modules['trl'] = None; from fractionate.cli import main; sys.exit(main(sys.argv[1:]))"
    (config.parent / "train.jsonl").write_text('{"question": "What is 7?", "answer": "7"}\n')
    done = subprocess.run(
        [sys.executable, "-c", hidden, "run", "run.toml", "--set", 'run.variants=["D-T"]', "--set", rows],
        capture_output=True, text=True, cwd=config.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'fractionate[train]'" in done.stderr


def test_a_folder_that_cannot_be_written_is_named(config: Path) -> None:
    (config.parent / "taken").write_text("a file, not a folder")
    done = fractionate("run", "run.toml", "--out", "taken", cwd=config.parent)
    assert done.returncode == 1
    assert "taken" in done.stderr


def test_init_writes_a_config_that_is_read_and_never_overwrites(tmp_path: Path) -> None:
    from fractionate.config import load_config

    assert fractionate("init", "mine", cwd=tmp_path).returncode == 0
    assert load_config(tmp_path / "mine" / "fractionate.toml").run.variants == ["D-R", "E-A"]
    again = fractionate("init", "mine", cwd=tmp_path)
    assert again.returncode == 2
    assert "fractionate.toml exists" in again.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_completed(shell: str) -> None:
    done = fractionate("completion", shell)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name, _, _ in COMMANDS)
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=done.stdout, text=True, check=False).returncode == 0


def test_bash_completes_a_command_and_an_option() -> None:
    script = fractionate("completion", "bash").stdout
    ask = (
        'COMP_WORDS=(fractionate {words}); COMP_CWORD={at}; compgen() {{ builtin compgen "$@"; }}; '
        "_shtab_fractionate; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    for words, at, wanted in (("com", 1, "compare"), ("score --data", 2, "--dataset")):
        done = subprocess.run(
            ["bash", "-c", script + "\n" + ask.format(words=words, at=at)], capture_output=True, text=True, check=False
        )
        assert wanted in done.stdout.split(), done.stderr


def test_doctor_says_what_is_there() -> None:
    done = fractionate("doctor", "--json", OPENAI_API_KEY="a-secret-value")
    assert done.returncode == 0, done.stdout
    assert "a-secret-value" not in done.stdout
    said = {finding["what"] for finding in json.loads(done.stdout)}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {what.removeprefix("extra ") for what in said if what.startswith("extra ")} == set(declared) - {"dev"}


def test_results_as_json_are_the_file(config: Path) -> None:
    done = fractionate("run", "run.toml", "--json", "--quiet", cwd=config.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((config.parent / "runs/run/results.json").read_text())


def test_a_run_s_folder_is_named_by_one_rule(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command and Python alike: --out, run.out, or runs/NAME of the working directory; opening makes no folder."""
    import fractionate as fr

    monkeypatch.chdir(config.parent)
    (config.parent / "mine").mkdir()
    started = config.parent / "mine/fractionate.toml"
    started.write_text(config.read_text())
    for path, name in ((config, config.stem), (started, "mine")):
        with fr.Run(path) as opened:
            assert opened.folder.path == Path("runs") / name
        assert fractionate("run", str(path), "--dry-run", cwd=config.parent).returncode == 0
        assert not Path("runs").exists()
        assert fractionate("run", str(path), "--quiet", cwd=config.parent).returncode == 0
        assert Path("runs", name, "results.json").exists()
        shutil.rmtree("runs")


def test_doctor_looks_at_every_address_of_a_model() -> None:
    from servers.chat_server import ChatServer
    from servers.threaded import in_thread

    with in_thread(ChatServer()) as has, in_thread(ChatServer(serves="other")) as lacks:
        fine = fractionate("doctor", has.name)
        assert fine.returncode == 0, fine.stdout
        assert f"{has.name} answers, it has the model" in fine.stdout
        asked = f"{has.base_url},{lacks.base_url},http://127.0.0.1:1/v1#test"
        mixed = fractionate("doctor", asked)
    assert mixed.returncode == 1
    (missing,) = [line for line in mixed.stdout.splitlines() if "does not list" in line]
    assert f"{lacks.base_url}#test: the server does not list 'test' (it has: other)" in missing
    assert "BROKEN   server: http://127.0.0.1:1/v1#test: cannot connect" in mixed.stdout
    twice = fractionate("doctor", f"{has.base_url},{has.base_url}#test")
    assert twice.returncode == 2
    assert "twice" in twice.stderr
