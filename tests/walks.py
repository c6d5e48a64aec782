"""Walks a page of Markdown as its reader would: files and commands from top to bottom, and what the commands print.

Blocks of `toml` and `python` that open with a comment naming a file are written to that file. Blocks of `sh` are run
in order by one shell. A block of `text` right after one of them is what it prints; a line `…` in it stands for lines
that the page leaves out.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"```(sh|python|toml|text)\n(.*?)```", re.DOTALL)
_MARK = "\x1e"
"""The character that divides what one block prints from what the next one does."""


def walk(page: Path, folder: Path, environment: Mapping[str, str] = {}) -> str:
    """Take the steps of a page in a folder, and compare what they print with what it shows. Returns what they print.

    The reader's commands are those of this Python's environment; installing is left out. Free ports stand in for those
    that pages name, 8120 to 8129.
    """
    text = page.read_text(encoding="utf-8")
    for port in set(re.findall(r"\b812\d\b", text)):
        text = text.replace(port, str(_free_port()))
    blocks = _BLOCK.findall(text)
    script, shown, asked = ["set -e", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"], {}, -1
    for number, (kind, body) in enumerate(blocks):
        first = body.splitlines()[0]
        if kind in ("toml", "python") and re.fullmatch(r"# [\w./-]+\.(toml|py)", first):
            script.append(f"cat > {shlex.quote(first[2:])} <<'END OF FILE'\n{body}END OF FILE")
        elif kind == "sh":
            asked = number
            commands = [line for line in body.splitlines() if not line.startswith("pip install")]
            script += [f"printf '{_MARK}%d\\n' {number}", *commands]
        elif kind == "text" and asked == number - 1:
            shown[asked] = body
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert shown, f"{page.name} shows nothing of what its commands print"
    printed = dict(part.partition("\n")[::2] for part in done.stdout.split(_MARK)[1:])
    for number, body in shown.items():
        assert _fits(body, printed[str(number)]), (
            f"{page.name} shows\n{body}\nof {blocks[number][1]}which prints\n{printed[str(number)]}"
        )
    return done.stdout


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _fits(shown: str, printed: str) -> bool:
    """Whether the page shows what was printed, lines that it leaves out apart; blanks at the ends do not count."""
    parts = [re.escape("\n".join(map(str.rstrip, part))) for part in _apart(shown.strip("\n").splitlines())]
    whole = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
    return re.fullmatch("(?:.*\n)*?".join(part and f"{part}\n" for part in parts), f"{whole}\n") is not None


def _apart(lines: list[str]) -> list[list[str]]:
    """Cut lines at those that stand for others."""
    parts: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == "…":
            parts.append([])
        else:
            parts[-1].append(line)
    return parts
