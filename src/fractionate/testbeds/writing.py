"""Write samples as files: PNG + CSV, WebDataset tar shards, or Parquet shards.

Samples are made in parts of 512, one after the other or by several processes, and written in order as they come, so
that memory stays flat and the files are the same, byte for byte, for any number of workers. `settings.json` says what
the folder holds and which shards are complete: the same command goes on after them. Shards and the CSV appear whole;
images cut off before their CSV are written again.
"""

from __future__ import annotations

import csv
import io
import json
import signal
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from fractionate.errors import FractionateError, UsageError, missing_extra
from fractionate.files import write_text

PART = 512
FORMS = ("png", "webdataset", "parquet")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample as it is written: a PNG, the label, and hints as plain numbers."""

    number: int
    png: bytes
    label: int
    hints: dict[str, Any]

    @property
    def name(self) -> str:
        """The sample's name, from its number."""
        return f"{self.number:08d}"


def write_samples(
    source: Any,
    out: Path,
    start: int,
    count: int,
    *,
    form: str = "png",
    shard_size: int = 10_000,
    hints: bool = True,
    workers: int = 1,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Write samples start … start + count − 1 of an `AllPairs` or `Pentomino` into the folder `out`.

    Returns {"count", "share_true", "files"}, the files relative to `out`: the CSV first, or the shards. Raises
    UsageError for a folder that is not empty, numbers that cannot be, or a package that is missing.
    """
    _check(count, start, form, shard_size, workers)
    note = _Note(out, [type(source).__name__, *source.__reduce__()[1]], start, count, form, shard_size, hints)
    if note.summary is not None:
        say(f"{out} holds these samples already")
        return note.summary
    # Shards that are complete are not made again; a folder of images has its CSV, and so its end, or begins anew.
    done = len(note.shards) * shard_size
    counted = _Counted(_samples(source, start + done, count - done, hints, workers), count, done, say)
    if form == "png":
        files = _write_pngs(counted, out)
        note.shards.append(counted.true)
    else:
        write, ending = (_write_tar, "tar") if form == "webdataset" else (_write_parquet, "parquet")
        files = [f"shard-{shard:05d}.{ending}" for shard in range(-(-count // shard_size))]
        stream = iter(counted)
        for name in files[len(note.shards) :]:
            before = counted.true
            write(islice(stream, shard_size), out / name)
            note.shards.append(counted.true - before)
            note.write()
    note.summary = {"count": count, "share_true": sum(note.shards) / count, "files": files}
    note.write()
    return note.summary


class _Note:
    """The content of a folder's `settings.json`: its plan, true samples per complete shard, and the end's summary."""

    def __init__(self, out: Path, *plan: Any) -> None:
        self._path, self._plan = out / "settings.json", list(plan)
        self.shards: list[int] = []
        self.summary: dict[str, Any] | None = None
        if self._path.is_file():
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if found.get("plan") != json.loads(json.dumps(self._plan)):
                raise UsageError(f"{out} holds other samples: give another --out, or remove it")
            self.shards, self.summary = found["shards"], found["summary"]
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is not an empty folder: give another --out, or remove it")
        else:
            self.write()

    def write(self) -> None:
        """Write the note, whole or not at all."""
        held = {"plan": self._plan, "shards": self.shards, "summary": self.summary}
        write_text(json.dumps(held, indent=2) + "\n", self._path)


def _check(count: int, start: int, form: str, shard_size: int, workers: int) -> None:
    for name, value, least in (
        ("count", count, 1),
        ("start", start, 0),
        ("shard-size", shard_size, 1),
        ("workers", workers, 1),
    ):
        if value < least:
            raise UsageError(f"{name} must be {least} or more, not {value}")
    if form not in FORMS:
        raise UsageError(f"format must be one of {', '.join(FORMS)}, not {form!r}")
    if find_spec("PIL") is None:
        raise missing_extra("pillow", "testbeds", "writing images")
    if form == "parquet" and find_spec("pyarrow") is None:
        raise missing_extra("pyarrow", "parquet", "writing Parquet")


class _Counted:
    """Samples as they pass: how many were true, and a line now and then."""

    def __init__(self, samples: Iterator[Sample], count: int, done: int, say: Say) -> None:
        self._samples, self._count, self._done, self._say, self.true = samples, count, done, say, 0

    def __iter__(self) -> Iterator[Sample]:
        for done, sample in enumerate(self._samples, self._done + 1):
            self.true += sample.label
            if done % 10_000 == 0:
                self._say(f"{done:,} of {self._count:,} samples")
            yield sample


def _samples(source: Any, start: int, count: int, hints: bool, workers: int) -> Iterator[Sample]:
    parts = [(source, first, min(PART, start + count - first), hints) for first in range(start, start + count, PART)]
    if workers == 1:
        for part in parts:
            yield from _part(part)
        return
    with ProcessPoolExecutor(workers, initializer=_leave_interrupts_to_the_parent) as pool:
        # A few parts ahead and no more, so that memory stays flat where writing is slower than making.
        ahead = [pool.submit(_part, part) for part in parts[: 2 * workers]]
        for place in range(len(parts)):
            made = ahead.pop(0).result()
            if place + 2 * workers < len(parts):
                ahead.append(pool.submit(_part, parts[place + 2 * workers]))
            yield from made


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal


def _part(part: tuple[Any, int, int, bool]) -> list[Sample]:
    source, first, count, hints = part
    batch = source.take(first, count)
    scale = 255 if int(batch.images.max(initial=0)) <= 1 else 1
    return [
        Sample(
            first + row, _png(batch.images[row] * scale), int(batch.labels[row]), _hints(batch, row) if hints else {}
        )
        for row in range(count)
    ]


def _hints(batch: Any, row: int) -> dict[str, Any]:
    if hasattr(batch, "hints"):
        return {"blocks": batch.hints[row].tolist()}
    return {
        "classes": batch.classes[row].tolist(),
        "boxes": batch.boxes[row].tolist(),
        "histogram": batch.histogram[row].tolist(),
        "parities": batch.parities[row].tolist(),
    }


def _png(image: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _write_pngs(samples: _Counted, out: Path) -> list[str]:
    (out / "images").mkdir(exist_ok=True)
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    head = False
    for sample in samples:
        if not head:
            writer.writerow(["file", "label", *sample.hints])
            head = True
        file = f"images/{sample.name}.png"
        _write_bytes(sample.png, out / file)
        writer.writerow([file, sample.label, *(json.dumps(value) for value in sample.hints.values())])
    write_text(rows.getvalue(), out / "samples.csv")
    return ["samples.csv", "images"]


def _write_bytes(content: bytes, path: Path) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None


def _write_tar(samples: Iterator[Sample], path: Path) -> None:
    """Write a WebDataset shard: for each sample NAME.png, NAME.cls and, with hints, NAME.json."""
    beside = path.with_suffix(".part")
    try:
        with tarfile.open(beside, "w") as tar:
            for sample in samples:
                members = {"png": sample.png, "cls": str(sample.label).encode()}
                if sample.hints:
                    members["json"] = json.dumps(sample.hints).encode()
                for ending, content in members.items():
                    member = tarfile.TarInfo(f"{sample.name}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        beside.replace(path)
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)


def _write_parquet(samples: Iterator[Sample], path: Path) -> None:
    """Write a Parquet shard: the image as {"bytes", "path"}, as Hugging Face's Image feature reads it, label and
    hints."""
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"image": {"bytes": sample.png, "path": f"{sample.name}.png"}, "label": sample.label, **sample.hints}
        for sample in samples
    ]
    beside = path.with_suffix(".part")
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), beside)
        beside.replace(path)
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)
