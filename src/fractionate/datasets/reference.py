"""Data references, `NAME[:PATH][#SPLIT][?KIND,…][@START-END[/STEP]]`, and the table that NAME is looked up in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fractionate.datasets.base import Reference
from fractionate.errors import UsageError
from fractionate.plugin import find_plugin
from fractionate.rows import SUFFIXES

MODULES: Mapping[str, str] = {
    name: f"fractionate.datasets.{name}"
    for name in ("gsm8k", "drop", "bamboogle", "strategyqa", "svamp", "multiarith", "aqua", "atlas", "jsonl", "traffic")
} | {"atlas-closed": "fractionate.datasets.atlas.closed"}
"""The module of each data set; it has a module-level `DATASET`."""

COLUMNS = ("question", "answers", "context", "id", "subquestions", "kind", "group")
"""The columns that a user may map to names of their own."""

_SLICE = re.compile(r"@(\d{1,15})-(\d{1,15})(?:/(\d{1,15}))?\Z", re.ASCII)
_BROKEN_SLICE = re.compile(r"@[\d\s,:.-]*(?:/[\d\s,:./-]*)?\Z", re.ASCII)
_SPLIT = re.compile(r"#([A-Za-z0-9_-]*)\Z")
_KINDS = re.compile(r"\?([\w-]+(?:,[\w-]+)*)\Z")
_FORM = "NAME[:PATH][#SPLIT][?KIND,KIND][@START-END[/STEP]]"


def parse_reference(text: str, columns: Mapping[str, str] | None = None) -> Reference:
    """Parse a data reference; a bare path of a data file stands for `jsonl:PATH`.

    START and END are row indices from 0, both included; every STEP-th of these rows is meant, from START on (one per
    passage, say, where each has STEP questions), and of those only the ones of the KINDs. Raises UsageError naming
    what is wrong and the form, or the nearest known name.
    """
    rest, start, end, step = _cut_slice(text.strip(), text)
    rest, kinds = _cut_kinds(rest)
    rest, split = _cut_split(rest, text)
    name, colon, path = rest.partition(":")
    if name not in MODULES and rest.lower().endswith(SUFFIXES):
        name, colon, path = "jsonl", ":", rest
    if name not in MODULES and find_plugin("datasets", name) is None:
        raise unknown_name(name, text)
    if colon and not path:
        raise UsageError(f"data reference {text!r} has no path after the colon: write {name}:PATH")
    return Reference(text, name, path, split, start, end, step, kinds, _checked(columns or {}))


def resolve(reference: Reference, base: Path | None) -> Reference:
    """Return the reference with `~` and a relative path resolved against `base`; a hub id is left as it is."""
    if not reference.path:
        return reference
    written = Path(reference.path).expanduser()
    path = written if base is None or written.is_absolute() else base / written
    is_file = path.exists() or reference.name == "jsonl" or str(path).lower().endswith(SUFFIXES)
    return replace(reference, path=str(path)) if is_file else reference


def unknown_name(name: str, text: str = "") -> UsageError:
    """Return the error for a data set that is not in the table, naming the nearest that is."""
    from difflib import get_close_matches

    known = list(MODULES)
    near = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    fix = f"did you mean {near[0]!r}?" if near else "name one or a file such as train.jsonl."
    where = f" in {text!r}" if text and text != name else ""
    return UsageError(f"unknown data set {name!r}{where}: {fix} Known data sets: {', '.join(known)}")


def _cut_slice(rest: str, text: str) -> tuple[str, int | None, int | None, int]:
    if match := _SLICE.search(rest):
        start, end, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if end < start:
            raise UsageError(f"data reference {text!r} ends before it starts: write @{end}-{start}")
        if step < 1:
            raise UsageError(
                f"data reference {text!r} takes every 0th row: write @{start}-{end}, or /2 for every other"
            )
        return rest[: match.start()], start, end, step
    if _BROKEN_SLICE.search(rest):
        raise UsageError(
            f"data reference {text!r} has a slice that is not @START-END or @START-END/STEP: write for example @0-99"
        )
    return rest, None, None, 1


def _cut_kinds(rest: str) -> tuple[str, tuple[str, ...]]:
    if match := _KINDS.search(rest):
        return rest[: match.start()], tuple(dict.fromkeys(match[1].split(",")))
    return rest, ()


def _cut_split(rest: str, text: str) -> tuple[str, str]:
    if match := _SPLIT.search(rest):
        if not match[1]:
            raise UsageError(f"data reference {text!r} has no split after '#': the form is {_FORM}")
        return rest[: match.start()], match[1]
    return rest, ""


def _checked(columns: Mapping[str, str]) -> Mapping[str, str]:
    for ours in columns:
        if ours not in COLUMNS:
            raise UsageError(f"data.columns maps {', '.join(COLUMNS)}, not {ours!r}: write ours = yours")
    return dict(columns)
