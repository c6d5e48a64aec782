"""Logs that are damaged, hostile or of another kind: one line names the file, without traceback or memory blow-up."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fractionate
from fractionate.cli import main
from fractionate.logs import harnesses

REAL = Path(__file__).parent / "real"
VALUES: list[Any] = [
    None, True, -1, 0, 1e308, 10**400, float("nan"), "", "x", "\ud800", "1" * 5000, [], [[]], {}, {"a": {}}, ["\udfff"],
]  # fmt: skip
"""What a value is replaced by."""


def bomb(path: Path, unpacked: int) -> Path:
    """Write a `.eval` of some kilobytes whose one sample unpacks to so many bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps({"status": "success", "eval": {}}))
        with archive.open("samples/1_epoch_1.json", "w", force_zip64=True) as entry:
            entry.write(b'{"id": 1, "scores": {"s": {"value": 1}}, "input": [')
            for _ in range(unpacked // 2**20):
                entry.write(b"[]," * (2**20 // 3))
            entry.write(b"[]]}")
    return path


@pytest.mark.parametrize(
    ("entry", "log", "said"),
    [(2, 100, "samples/1_epoch_1.json unpacks to more than 2 MiB"), (100, 2, "times its size"), (100, 100, "")],
)
def test_what_a_log_unpacks_to_is_bounded(
    entry: int, log: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harnesses, "LARGEST_ENTRY", entry * 2**20)
    monkeypatch.setattr(harnesses, "LARGEST_LOG", log * 2**20)
    path = bomb(tmp_path / "log.eval", 4 * 2**20)
    assert path.stat().st_size < 2**16
    if said:
        with pytest.raises(fractionate.UsageError, match=said):
            fractionate.read_system(path)
    else:
        assert fractionate.read_system(path).outcomes == {"1": 1.0}


def test_what_a_directory_of_a_zip_file_says_of_a_size_is_not_believed(tmp_path: Path) -> None:
    log = bomb(tmp_path / "log.eval", 4 * 2**20)
    content = log.read_bytes()
    central = content.rindex(b"PK\x01\x02")
    size = content[central + 24 : central + 28]
    log.write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(fractionate.UsageError, match=r"log\.eval"):
        fractionate.read_system(log)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutated(value: Any, draw: random.Random) -> Any:
    """Return a JSON value with one place in it replaced, left out or renamed."""
    value = json.loads(json.dumps(value))
    path = draw.choice([path for path in places(value) if path])
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    kind = draw.random()
    if kind < 0.25:
        del holder[path[-1]]
    elif kind < 0.35 and isinstance(holder, dict):
        holder[str(path[-1]) + "_"] = holder.pop(path[-1])
    else:
        holder[path[-1]] = draw.choice(VALUES)
    return value


def mutated_text(text: str, draw: random.Random) -> bytes:
    """Return text with some bytes changed, or cut off."""
    raw = bytearray(text.encode())
    if draw.random() < 0.3:
        return bytes(raw[: draw.randrange(len(raw))])
    for _ in range(draw.randint(1, 4)):
        raw[draw.randrange(len(raw))] = draw.randrange(256)
    return bytes(raw)


def damaged_eval(path: Path, draw: random.Random) -> None:
    with zipfile.ZipFile(REAL / "old-strong.eval") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice([name for name in files if name == "header.json" or name.startswith("samples/")])
    files[name] = json.dumps(mutated(json.loads(files[name]), draw)).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in files.items():
            archive.writestr(each, content)
    if draw.random() < 0.2:
        path.write_bytes(mutated_text(path.read_bytes().decode("latin-1"), draw))


def damaged_json(path: Path, draw: random.Random) -> None:
    log = mutated(json.loads((REAL / "strong.json").read_text()), draw)
    path.write_bytes(mutated_text(json.dumps(log), draw) if draw.random() < 0.2 else json.dumps(log).encode())


def damaged_lines(source: Path) -> Callable[[Path, random.Random], None]:
    def damage(path: Path, draw: random.Random) -> None:
        rows = [json.loads(line) for line in source.read_text().splitlines()]
        place = draw.randrange(len(rows))
        rows[place] = mutated(rows[place], draw)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(mutated_text(text, draw) if draw.random() < 0.2 else text.encode())

    return damage


ROW = {
    "output": "The answer is 3.",
    "answers": ["3", ["1", "2"]],
    "question": "q",
    "usage": {"input_tokens": 5, "output_tokens": 2},
    "usd": 0.5,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with logs that are whole, one of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    rows = [{"id": n, **ROW, "group": f"g{n // 2}"} for n in range(4)]
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"id": n, "correct": n % 2, "usd": 0.1} for n in range(4)]
    (folder / "outcomes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (lm_eval,) = (REAL / "lm_eval_one").glob("samples_choosing*")
    shutil.copy(lm_eval, folder / "samples.jsonl")
    config = fractionate.parse_config(
        {
            "data": {"test": "atlas#test@0-3"},
            "models": {"teacher": "echo:0.9", "solvers": ["echo:0.4"], "decomposers": ["none"]},
            "run": {"variants": [], "strategies": ["single"]},
        }
    )
    with fractionate.Run(config, folder / "run", base=folder) as run:
        run.run()
    return folder


KINDS: dict[str, tuple[str, list[str]]] = {
    "eval": ("log.eval", ["--scorer", "graded"]),
    "json": ("log.json", ["--scorer", "graded"]),
    "samples": ("samples.jsonl", ["--metric", "acc"]),
    "table": ("table.jsonl", []),
    "outcomes": ("outcomes.jsonl", []),
    "attempts": ("attempts.jsonl", []),
    "results": ("results.json", []),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_log_is_one_line_that_names_it(
    kind: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRACTIONATE_DEBUG", "1")  # what is unexpected is raised
    name, options = KINDS[kind]
    source = {"attempts": whole / "run/attempts.jsonl", "results": whole / "run/results.json"}.get(kind, whole / name)
    damage = {"eval": damaged_eval, "json": damaged_json}.get(kind) or damaged_lines(source)
    log = tmp_path / name
    other = {"eval": REAL / "old-strong.eval", "json": REAL / "strong.json", "results": whole / "outcomes.jsonl"}
    beside = str(other.get(kind, source))
    refused = 0
    for seed in range(50):
        draw = random.Random(f"{kind} {seed}")
        if kind == "results":
            log.write_text(json.dumps(mutated(json.loads(source.read_text()), draw)))
        else:
            damage(log, draw)
        code = main(["compare", f"a={log}", f"b={beside}", *options])
        out, err = capsys.readouterr()
        assert code in (0, 1, 2), (seed, err)
        if code == 2:
            refused += 1
            assert out == ""
            assert len(err.strip().splitlines()) == 1, (seed, err)
            assert name in err or "b" in err.split(), (seed, err)
        else:
            out.encode()
    assert refused > 5, "damage shows"


def test_figures_that_cannot_be_are_refused_with_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for field, value in {"input_tokens": 10**400, "usd": 1e308, "output_tokens": -1}.items():
        row = {"id": 0, "correct": 1, "input_tokens": 1, "output_tokens": 1, field: value}
        (tmp_path / "a.jsonl").write_text('{"id": 1, "correct": 1}\n' + json.dumps(row) + "\n")
        assert main(["compare", f"a={tmp_path / 'a.jsonl'}", f"b={tmp_path / 'a.jsonl'}"]) == 2
        assert f"a.jsonl:2: '{field}' must be a number from 0 to" in capsys.readouterr().err


def test_lone_surrogates_are_printed_as_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "\\ud800", "correct": 1}\n{"id": 2, "correct": 0, "group": "\\udfff"}\n')
    logs = [f"a\ud800={tmp_path / 'a.jsonl'}", f"b={tmp_path / 'a.jsonl'}"]
    for options in ([], ["--json"]):
        assert main(["compare", *logs, *options]) == 0
        capsys.readouterr().out.encode()


def test_named_fields_make_a_table_of_rows_with_feedback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": n, "feedback": {"stars": n}, "text": "The answer is 3.", "answers": "3", "gold": 1, "doc_id": n,
         "doc": {}, "resps": []} for n in range(3)
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = str(tmp_path / "a.jsonl")
    assert main(["compare", f"a={log}", f"b={log}", "--output-field", "text", "--dataset", "gsm8k", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"] == 1.0
    assert main(["compare", f"a={log}", f"b={log}", "--outcome-field", "gold", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"] == 1.0
    rows = [{"id": n, "feedback": {"stars": n}, "correct": 1} for n in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["compare", f"a={log}", f"b={log}", "--json"]) == 0, "no record of traffic: its marks name requests"
