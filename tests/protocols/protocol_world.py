"""A small environment in which every protocol runs unchanged: data sets as files, models behind a server.

The three public data sets are a few questions of our own in their true formats, in a folder that FRACTIONATE_DATA
names, so that the protocols' own references are read. The models are served over HTTP and answer these questions, at
times wrongly; the student is a tiny transformer that is really trained.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from fractionate.cli import main
from fractionate.datasets import load, parse_reference
from fractionate.datasets.atlas.teacher import write_recording
from servers.chat_server import ChatServer, answer

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = sorted((ROOT / "protocols").glob("*.toml"))
ATLAS = "@0-7"
"""The slice that stands for any slice of atlas: one question of each of its eight kinds."""

CARGOES = ("apples", "bells", "candles", "drums", "eels", "figs", "globes", "hats", "inks", "jars", "kites", "lamps")
WORDS = [
    (f"A barge carries {n + 3} crates of {12 + n} {cargo}. On the way {n + 2} {cargo} are lost. How many arrive?",
     (n + 3) * (12 + n) - n - 2)
    for n, cargo in enumerate((*CARGOES, "maps", "nets", "oars", "pots", "quills"))
]  # fmt: skip
LEARNT, ASKED = WORDS[:12], WORDS[12:]
TOWNS = {
    "train": (("Osterby", 4, 3), ("Vindeln", 6, 2)),
    "dev": (("Karlsa", 5, 1),),
}
RIDDLES = [
    (f"Who was the mother of {whom}?", f"Anna {name}")
    for whom, name in (
        ("the first postmaster of Oulu", "Berg"),
        ("the founder of Brno's zoo", "Dvorak"),
        ("the architect of Tartu's town hall", "Saar"),
        ("the second mayor of Umea", "Lund"),
    )
]


def write_data(folder: Path) -> dict[str, str]:
    """Write gsm8k, drop and bamboogle below a folder. Returns the gold answers as text, by question."""
    gold: dict[str, str] = {}
    for split, words in (("train", LEARNT), ("test", ASKED)):
        rows = [{"question": text, "answer": f"Count the crates, take away the loss.\n#### {n}"} for text, n in words]
        _write(folder / f"gsm8k/{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        gold |= {text: str(number) for text, number in words}
    for split, towns in TOWNS.items():
        passages = {f"{split}_{town}": _passage(town, goals, misses) for town, goals, misses in towns}
        _write(folder / f"drop/{split}.json", json.dumps(passages))
        gold |= {
            pair["question"]: pair["answer"]["number"] or pair["answer"]["spans"][0]
            for passage in passages.values()
            for pair in passage["qa_pairs"]
        }
    path = folder / "bamboogle/test.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("Question", "Answer"), *RIDDLES])
    return gold | dict(RIDDLES)


def _passage(town: str, goals: int, misses: int) -> dict[str, Any]:
    """Return a passage of DROP's official form, with answers that are numbers and spans."""
    asked = [
        (f"How many shots did {town} take in all?", str(goals + misses), []),
        (f"How many more goals than misses had {town}?", str(goals - misses), []),
        (f"Which team did {town} play?", "", ["Nordby"]),
    ]
    pairs = [
        {"query_id": f"{town}-{n}", "question": question, "answer": {"number": number, "spans": spans, "date": {}}}
        for n, (question, number, spans) in enumerate(asked)
    ]
    text = f"{town} played Nordby on Sunday. {town} scored {goals} goals and missed {misses} times."
    return {"passage": text, "qa_pairs": pairs}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class ProtocolServer(ChatServer):
    """Answers the world's questions as a model would that is right in about three of four; a decomposer's call too."""

    def __init__(self, gold: dict[str, str]) -> None:
        super().__init__()
        self.gold = gold

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        reply = answer(body)
        reply["choices"][0]["message"]["content"] = self.say(body)
        self.paid(question, reply)
        return web.json_response(reply)

    def say(self, body: dict[str, Any]) -> str:
        """Return what a model says, by the body alone: subquestions, a follow-up, or a solution."""
        system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
        if system.startswith("Answer the subquestion"):
            return "The answer is: it is so"
        (question,) = (known for known in self.gold if known in user)
        seen = json.dumps([body["model"], body["messages"], body.get("temperature")])
        right = hashlib.sha256(seen.encode()).digest()[0] % 4 > 0
        final = self.gold[question] if right else "999"
        if system.startswith("Break the question"):
            return "\n".join(f"{n}. What is fact {n} of this?" for n in (1, 2, 3, 4, 5)) + f"\n6. Given #5, {question}"
        if "Follow-up:" in system:
            return f"So the final answer is: {final}" if "What comes first?" in user else "Follow-up: What comes first?"
        steps = "1. It is so.\n2. So it is.\n" if "Subquestions:" in user else ""
        return f"{steps}The answer is: {final}"


class World:
    """The files and the server of one test module, and how a protocol is run in it."""

    def __init__(self, folder: Path, tiny: Path) -> None:
        self.folder = folder
        self.tiny = f"local:{tiny}"
        self.data = folder / "data"
        self.server = ProtocolServer(write_data(self.data))
        self.teacher = folder / "atlas-teacher.jsonl"
        self._results: dict[str, dict[str, Any]] = {}

    def results(self, protocol: str) -> dict[str, Any]:
        """Run a protocol once. Returns its results.json."""
        if protocol not in self._results:
            code, out = self.run(protocol, protocol)
            assert code == 0, f"{protocol} did not run"
            self._results[protocol] = json.loads((out / "results.json").read_text(encoding="utf-8"))
        return self._results[protocol]

    def run(self, protocol: str, out: str, *arguments: str) -> tuple[int, Path]:
        """Run a protocol with the world's models. Returns the exit code and the run's folder."""
        folder = self.folder / "runs" / out
        settings = [word for one in self.settings(protocol) for word in ("--set", one)]
        path = ROOT / "protocols" / f"{protocol}.toml"
        kept = ["--out", str(folder), "--store", str(self.folder / "calls.sqlite")]
        return main(["run", str(path), *kept, "--quiet", *settings, *arguments]), folder

    def settings(self, protocol: str) -> list[str]:
        """Return what a user sets: the models; and the slices of atlas, which is generated in any size."""
        table = read_protocol(protocol)
        settings = [f"models.student={self.tiny}"] if "student" in table["models"] else []
        settings += [
            "train.batch_size=16",
            "train.min_examples=1",
            f'models.options."{self.tiny}".max_tokens=6',
            "train.max_length=2048",
        ]
        if not table["models"]["teacher"].startswith("recorded:"):
            url = self.server.base_url
            return [*settings, f"models.teacher={url}#teacher", f"models.solver={url}#solver"]
        if not self.teacher.exists():
            problems = [one for split in ("train", "test") for one in load(parse_reference(f"atlas#{split}{ATLAS}"))]
            write_recording(self.teacher, problems)
        return [*settings, f"models.teacher=recorded:{self.teacher}", *sliced(table)]


def sliced(table: dict[str, Any]) -> list[str]:
    """Return settings that cut every atlas reference of a protocol down to the same few rows."""
    named = {f"data.{key}": table["data"].get(key, []) for key in ("train", "test")}
    named |= {f"students.{name}.train": one.get("train", []) for name, one in table.get("students", {}).items()}
    return [f"{key}={json.dumps(short)}" for key, references in named.items() if (short := _short(references))]


def _short(references: str | list[str]) -> list[str]:
    each = [references] if isinstance(references, str) else references
    return [reference.partition("@")[0] + ATLAS for reference in each]


def read_protocol(protocol: str) -> dict[str, Any]:
    """Return a protocol's table as it is written."""
    return tomllib.loads((ROOT / "protocols" / f"{protocol}.toml").read_text(encoding="utf-8"))


class Served:
    """A server in a thread of its own, for tests that block."""

    def __init__(self, server: ChatServer) -> None:
        self._server = server
        self._ready = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> ChatServer:
        self._thread.start()
        assert self._ready.wait(60), "the server did not start"
        return self._server

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join(60)

    async def _serve(self) -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(end.set)
        async with self._server:
            self._ready.set()
            await end.wait()
