"""Both archives contain every file, and the wheel works in an environment with nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "fractionate"
RECORDINGS = ROOT.parent / "shared" / "data"
NOT_SHIPPED = {".pyc", ".pyo"}


def run(command: list[str | Path], folder: Path, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, as a shell without this process's Python settings would."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=seconds
    )


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that was built from it alone."""
    pytest.importorskip("build", reason="the 'dev' extra is not installed")
    pytest.importorskip("hatchling", reason="the 'dev' extra is not installed")
    folder = tmp_path_factory.mktemp("dist")
    done = run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


def files_of_package() -> set[str]:
    """Every file of the source folder that belongs to the package."""
    return {
        f"fractionate/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in NOT_SHIPPED
    }


def in_wheel(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = [entry for entry in archive.namelist() if entry.endswith(f".dist-info/{name}")]
        return archive.read(found).decode()


def metadata(wheel: Path) -> Message:
    return Parser().parsestr(in_wheel(wheel, "METADATA"))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert shipped == files_of_package()
    for name in ("prompts/decompose.txt", "report/templates/report.html.j2", "report/templates/report.css", "py.typed",
                 "datasets/atlas/snapshot/atlas.json", "datasets/atlas/snapshot/README.md"):  # fmt: skip
        assert f"fractionate/{name}" in shipped


def test_the_source_archive_builds_the_wheel_and_holds_what_a_reader_needs(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[0]) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {f"src/{name}" for name in files_of_package()} <= held
    for name in ("LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml",
                 "Makefile", "tests/test_packaging.py", "docs/design.md", "examples/gsm8k-recorded.toml"):  # fmt: skip
        assert name in held
    assert not {name for name in held if name.endswith((".sqlite", ".pyc")) or name.startswith((".venv", "runs/"))}


def test_the_licence_is_whole_and_named(archives: tuple[Path, Path]) -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert in_wheel(archives[1], "licenses/LICENSE") == licence
    assert "GeoNames" in in_wheel(archives[1], "licenses/NOTICE")
    told = metadata(archives[1])
    assert told["License-Expression"] == "Apache-2.0 AND CC-BY-4.0"
    assert told.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert told["Description-Content-Type"] == "text/markdown"


def test_the_core_needs_no_training_library(archives: tuple[Path, Path]) -> None:
    needed = metadata(archives[1]).get_all("Requires-Dist") or []
    core = {re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in needed if "extra ==" not in line}
    assert core >= {"aiohttp", "pydantic"}
    assert not core & {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "pyarrow", "ray"}


def test_every_mention_of_the_version_is_the_same(archives: tuple[Path, Path]) -> None:
    version = metadata(archives[1])["Version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert version in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def installed(archives: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of the wheel, installed with its core dependencies into an environment that held nothing."""
    probe = tmp_path_factory.mktemp("probe")
    pip = [sys.executable, "-m", "pip"]
    reached = run([*pip, "download", "--quiet", "--no-deps", "--no-cache-dir", "--dest", probe, "markupsafe"], probe)
    if reached.returncode:
        pytest.skip(f"no package index can be reached: {reached.stderr.strip().splitlines()[-1]}")
    folder = tmp_path_factory.mktemp("bare")
    made = run([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    assert made.returncode == 0, made.stderr
    python = folder / "bin" / "python"
    done = run([*pip, "--python", python, "install", "--quiet", "--no-compile", archives[1]], folder, 600)
    assert done.returncode == 0, done.stderr
    command = folder / "bin" / "fractionate"
    assert command.exists()
    return command


def write_recording(folder: Path) -> Path:
    """Three questions about a passage, a recorded decomposer and solver (one answer wrong), and their config."""
    questions = [
        {"id": f"q{number}", "question": f"How many crates fit on {number} pallets of 12?", "answer": str(12 * number),
         "context": "A pallet takes 12 crates."}
        for number in (2, 3, 5)
    ]  # fmt: skip
    outputs = [
        {"id": row["id"], "decomposition": "1. How many crates does a pallet take?\n2. How many pallets are there?",
         "output": f"The answer is: {answer}"}
        for row, answer in zip(questions, ("24", "36", "61"), strict=True)
    ]  # fmt: skip
    for name, rows in (("test.jsonl", questions), ("recorded.jsonl", outputs)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = folder / "fractionate.toml"
    config.write_text(
        '[data]\ntest = "jsonl:test.jsonl"\n[models]\nteacher = "recorded:recorded.jsonl"\n'
        'solvers = ["recorded:recorded.jsonl"]\ndecomposers = ["teacher"]\n'
        '[run]\nstrategies = ["static"]\nvariants = []\n',
        encoding="utf-8",
    )
    return config


def test_the_installed_command_helps_and_imports_nothing_of_this_folder(installed: Path, tmp_path: Path) -> None:
    helped = run([installed, "--help"], tmp_path)
    assert helped.returncode == 0, helped.stderr
    assert "demonstrate" in helped.stdout
    where = run([installed.with_name("python"), "-c", "import fractionate; print(fractionate.__file__)"], tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(installed.parent.parent)
    assert list(tmp_path.iterdir()) == []


def test_a_recorded_run_from_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    config = write_recording(tmp_path)
    done = run([installed, "run", config, "--out", "run", "--quiet"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert [(cell["n"], cell["correct"]) for cell in results["cells"]] == [(3, 2)]
    assert f"Which part should you distill? {results['verdict']['action']}" in done.stdout.splitlines()[-3:]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "How many crates fit on 5 pallets of 12?" in page
    assert "66.7 %" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")


def test_the_embedded_data_set_is_installed_too(installed: Path, tmp_path: Path) -> None:
    config = tmp_path / "fractionate.toml"
    config.write_text(
        '[data]\ntest = "atlas#test@0-3"\n[models]\nteacher = "echo:"\nsolvers = ["teacher"]\n'
        'decomposers = ["none", "teacher"]\n[run]\nvariants = []\n',
        encoding="utf-8",
    )
    done = run([installed, "run", config, "--json", "--quiet"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {cell["n"] for cell in json.loads(done.stdout)["cells"]} == {4}


def test_the_recorded_example_from_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    """The first 40 questions of the example: the figures of the whole of it stand in docs/experiments."""
    if not (RECORDINGS / "gsm8k_ai_subq").is_dir():
        pytest.skip(f"no recordings at {RECORDINGS}")
    text = (ROOT / "examples" / "gsm8k-recorded.toml").read_text(encoding="utf-8")
    config = tmp_path / "gsm8k-recorded.toml"
    config.write_text(text.replace("../shared/data", str(RECORDINGS)).replace("@0-659", "@0-39"), encoding="utf-8")
    done = run([installed, "run", config, "--json", "--quiet"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = json.loads(done.stdout)["cells"]
    assert len(cells) == 16
    assert {cell["n"] for cell in cells} == {40}
    best = max(cells, key=lambda cell: cell["value"])
    assert (best["decomposer"], best["solver"]) == ("teacher", f"recorded:{RECORDINGS}/gsm8k_ai_subq/chatgpt")
