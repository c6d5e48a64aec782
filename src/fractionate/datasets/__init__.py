"""Data sets, one file each: loader, answer extractor, scorer, source. Looked up by name, imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from operator import attrgetter
from pathlib import Path

from fractionate.datasets.base import Dataset, Metric, Reference, Scorer
from fractionate.datasets.reference import MODULES, parse_reference, resolve, unknown_name
from fractionate.errors import UsageError
from fractionate.plugin import find_plugin
from fractionate.spool import Spool, collect
from fractionate.types import AnswerForm, Problem

OWN_ROWS = "jsonl"
"""The data set of the user's own rows, whose form of answer `data.answer` says."""

__all__ = ["OWN_ROWS", "answered_as", "get", "iter_problems", "load", "names", "parse_reference", "scored_as"]

_FIELDS = attrgetter(*(field.name for field in fields(Problem)))


def names() -> tuple[str, ...]:
    """Return the names of all data sets."""
    return tuple(MODULES)


def get(name: str) -> Dataset:
    """Return a data set by name, of this package or a plug-in's. Raises UsageError that names the nearest known one."""
    if name in MODULES:
        dataset: Dataset = importlib.import_module(MODULES[name]).DATASET
        return dataset
    plugin = find_plugin("datasets", name)
    if plugin is None:
        raise unknown_name(name)
    if not isinstance(plugin, Dataset):
        raise UsageError(f"the plug-in {name!r} of fractionate.datasets is no Dataset: see fractionate.datasets.base")
    return plugin


def scored_as(name: str, scorer: str) -> Dataset:
    """Return a data set whose answers are read and scored as another one's, or by a plug-in's scorer."""
    plugin = find_plugin("scorers", scorer) if scorer not in MODULES else None
    if plugin is None:
        return get(scorer)
    if not isinstance(plugin, Scorer):
        raise UsageError(f"the plug-in {scorer!r} of fractionate.scorers is no Scorer: see fractionate.datasets.base")
    return replace(
        get(name),
        metric=plugin.metric,
        answer_form=plugin.answer_form,
        extract=plugin.extract,
        score=plugin.score,
    )


def answered_as(dataset: Dataset, form: AnswerForm) -> Dataset:
    """Return a data set with its answers read and scored in a form; a set of that form is returned as it is."""
    from fractionate.scoring.forms import READERS

    reader = READERS[form]
    if dataset.answer_form == form:
        return dataset
    metric: Metric = "f1" if form == "span" else "exact_match"
    return replace(dataset, metric=metric, answer_form=form, extract=reader.extract, score=reader.score)


def iter_problems(
    reference: str | Reference, columns: Mapping[str, str] | None = None, base: Path | None = None
) -> Iterator[Problem]:
    """Yield the problems of a data reference, sliced, one by one: nothing past the slice is read.

    A relative path is looked for in `base` (the working directory where None). Raises UsageError, while iterating, for
    a row that cannot be used, naming file, line and reason.
    """
    parsed = parse_reference(reference, columns) if isinstance(reference, str) else reference
    end = None if parsed.end is None else parsed.end + 1
    rows = islice(get(parsed.name).load(resolve(parsed, base)), parsed.start or 0, end, parsed.step)
    return _of_kinds(rows, parsed) if parsed.kinds else rows


def _of_kinds(rows: Iterator[Problem], reference: Reference) -> Iterator[Problem]:
    """Yield the rows of the reference's kinds. Raises UsageError, at the end, for a kind that no row is of."""
    seen: set[str] = set()
    for problem in rows:
        seen.add(problem.kind)
        if problem.kind in reference.kinds:
            yield problem
    missing = [kind for kind in reference.kinds if kind not in seen]
    if missing:
        known = ", ".join(sorted(seen - {""})) or "none: its questions are of no stated kind"
        raise UsageError(f"{reference.text} holds no question of kind {missing[0]!r}; its kinds are {known}")


def load(
    reference: str | Reference, columns: Mapping[str, str] | None = None, base: Path | None = None
) -> Sequence[Problem]:
    """Return the problems of a data reference as `iter_problems` yields them. An empty result is a UsageError.

    Few problems are a list; of more only those that are looked at are in memory.
    """
    problems = collect(iter_problems(reference, columns, base), Spool(_FIELDS, lambda row: Problem(*row)))
    if not problems:
        text = reference if isinstance(reference, str) else reference.text
        raise UsageError(f"{text} holds no problems: check the file, the split and the slice")
    return problems
