"""Where a data set's rows come from: a local file or folder, `$FRACTIONATE_DATA`, or the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fractionate.datasets.base import Reference
from fractionate.errors import UsageError, missing_extra
from fractionate.rows import SUFFIXES, Row, read_rows, shown
from fractionate.types import Problem

DATA_FOLDER = "FRACTIONATE_DATA"
"""The environment variable that names a folder of local copies: NAME/SPLIT.jsonl in it is read instead of the hub."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SAME_SPLIT = {"dev": "validation", "val": "validation", "validation": "dev"}


@dataclass(frozen=True, slots=True)
class Home:
    """Where a data set lives on the hub. `splits` maps our split names to the hub's."""

    name: str
    hub_id: str
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})


def loader(
    read: Callable[[Row], Problem], *homes: Home, default_split: str = "test"
) -> Callable[[Reference], Iterator[Problem]]:
    """Return the loader of a set whose every row is one problem, given how a row is read.

    `read` returns a problem that has no place yet: its data set, split and index, and its id where that is empty, are
    given here. Of several homes the one that has the split is read, the first where none has.
    """

    def load(reference: Reference) -> Iterator[Problem]:
        split = split_of(reference, default_split)
        home = next((home for home in homes if split in home.splits), homes[0])
        yield from placed(map(read, rows(reference, home, default_split)), home.name, split)

    return load


def placed(problems: Iterable[Problem], dataset: str, split: str) -> Iterator[Problem]:
    """Yield the problems of a split with their places in it, in order; one without an id gets `DATASET/SPLIT/INDEX`."""
    for index, problem in enumerate(problems):
        identity = problem.id or f"{dataset}/{split}/{index}"
        yield replace(problem, id=identity, dataset=dataset, split=split, index=index)


def split_of(reference: Reference, default: str) -> str:
    """Return the split a reference means: the one it names, else its file's name, else the default."""
    if reference.split:
        return reference.split
    path = Path(reference.path)
    return path.stem if reference.path and path.suffix in SUFFIXES else default


def rows(reference: Reference, home: Home, default_split: str) -> Iterator[Row]:
    """Yield the rows of a reference in order: from its path, else from `$FRACTIONATE_DATA`, else from the hub.

    A path is a file, a folder with SPLIT.jsonl (or .json, .csv, .parquet), or a hub id.

    Raises UsageError for a missing file, split, package or connection, and for a row that is not one.
    """
    split = split_of(reference, default_split)
    path = Path(reference.path)
    if reference.path and _HUB_ID.fullmatch(reference.path) and not path.exists() and path.suffix not in SUFFIXES:
        return _hub_rows(replace(home, hub_id=reference.path), split)
    if reference.path:
        return read_rows(_file_of(path, split))
    folder = os.environ.get(DATA_FOLDER)
    local = _find(Path(folder) / home.name, split) if folder else None
    return read_rows(local) if local else _hub_rows(home, split)


def _file_of(path: Path, split: str) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"no data file at {path}: check the path, or leave it out to read the set from the hub")
    found = _find(path, split)
    if found is None:
        raise UsageError(f"{path} has no {split}.jsonl (or .json, .csv, .parquet): name the file, or another #SPLIT")
    return found


def _find(folder: Path, split: str) -> Path | None:
    names = [split, _SAME_SPLIT[split]] if split in _SAME_SPLIT else [split]
    candidates = (folder / f"{name}{ending}" for name in names for ending in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _hub_rows(home: Home, split: str) -> Iterator[Row]:
    hub_split = home.splits.get(split) or home.splits.get(_SAME_SPLIT.get(split, ""))
    if hub_split is None:
        raise UsageError(f"{home.name} has no split {split!r}: it has {', '.join(home.splits)}")
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "train", f"reading {home.name} from the hub") from None
    try:
        table = datasets.load_dataset(home.hub_id, home.config, split=hub_split)
    # The hub's client raises errors of many libraries: no network, no such set, a gated set, a broken cache.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(
            f"{home.hub_id} could not be read from the hub ({reason}): give a local file as {home.name}:PATH, "
            f"or set {DATA_FOLDER} to a folder with {home.name}/{split}.jsonl"
        ) from None
    for number, value in enumerate(table, 1):
        yield Row(value, f"{home.hub_id} {hub_split}: row {number}")


def number_answer(row: Row, *names: str) -> str:
    """Return a field's number, written exactly. Raises UsageError when it holds none."""
    from fractionate.scoring.number_answers import format_number, number_of

    text = row.text(*names)
    number = number_of(text)
    if number is None:
        raise row.error(f"{names[0]!r} has no number: {shown(text)}")
    return format_number(number)


def spans(answer: Sequence[str]) -> tuple[str, ...]:
    """Return the spans of an answer that hold anything, stripped."""
    return tuple(span.strip() for span in answer if span.strip())
