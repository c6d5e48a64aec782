"""Pushing to a hub: the client is the real one, the hub a server on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="the 'local' extra is not installed")

from servers.hub_server import TOKEN, HubServer
from servers.threaded import in_thread

PUSH = (
    "import sys\nfrom pathlib import Path\nfrom fractionate.errors import FractionateError\n"
    "from fractionate.export.write import check_can_push, push\n"
    "try:\n    check_can_push(sys.argv[2])\n    print(push(Path(sys.argv[1]), sys.argv[2], private=True))\n"
    "except FractionateError as error:\n    sys.exit(f'{error.exit_code} {error}')"
)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with in_thread(HubServer()) as made:  # type: ignore[type-var]  # a server like the others
        yield made


def run(hub: str, command: list[str], token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """Run Python with a hub of its own. Large files go by git-lfs: the newer protocol's store is not spoken here."""
    environment = {
        **os.environ, "HF_ENDPOINT": hub, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/README.md").write_text("---\ntags: [x]\n---\n# x\n")
    (tmp_path / "out/model.safetensors").write_bytes(bytes(range(256)) * 400)
    return tmp_path / "out"


def test_a_folder_is_in_the_repository_afterwards(hub: HubServer, folder: Path) -> None:
    done = run(hub.url, ["-c", PUSH, str(folder), "org/student"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/org/student"
    assert hub.private == {"org/student": True}
    files = {path: content for path, content in hub.files.items() if path != ".gitattributes"}
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("repository", "token", "says"),
    [
        ("org/student", "", "2 --push needs a token of the hub that may write: set HF_TOKEN"),
        ("org/student", "hf_wrong", "1 the hub refused the token for org/student (401)"),
        ("student", TOKEN, "2 --push takes ORG/NAME, not 'student'"),
        ("org/a b", TOKEN, "2 --push takes ORG/NAME, not 'org/a b'"),
    ],
)
def test_what_keeps_it_from_being_pushed_is_one_line(
    repository: str, token: str, says: str, hub: HubServer, folder: Path
) -> None:
    done = run(hub.url, ["-c", PUSH, str(folder), repository], token)
    assert done.returncode == 1
    assert done.stderr.startswith(says), done.stderr
    assert done.stderr.count("\n") == 1
    assert not hub.files


def test_without_a_network_it_is_one_line_and_the_export_is_kept(folder: Path) -> None:
    done = run("http://127.0.0.1:9", ["-c", PUSH, str(folder), "org/student"])
    assert done.returncode == 1
    assert done.stderr.startswith("1 org/student could not be pushed to http://127.0.0.1:9: ")
    assert done.stderr.endswith(f"the export in {folder} is kept\n")
    assert done.stderr.count("\n") == 1


def test_the_command_exports_and_pushes(hub: HubServer, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "d-r"
    command = ["-m", "fractionate", "export", str(tiny_run), "D-R", "--out", str(out), "--push", "me/d-r", "--quiet"]
    done = run(hub.url, [*command, "--prompts", "4"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"pushed: {hub.url}/me/d-r"
    assert hub.private == {"me/d-r": False}
    assert hub.files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    assert b"4 of 4 greedy replies identical" in hub.files["README.md"]
