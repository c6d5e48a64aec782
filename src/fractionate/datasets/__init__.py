"""Data sets, one file each: loader, answer extractor, scorer, source. Looked up by name, imported when asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from operator import attrgetter
from pathlib import Path

from fractionate.config.scorers import OPTIONS, ScorerConfig
from fractionate.datasets.base import Dataset, Metric, Reference
from fractionate.datasets.reference import MODULES, parse_reference, resolve, unknown_name
from fractionate.errors import UsageError
from fractionate.plugin import find_plugin
from fractionate.scoring.scorers import open_scorer
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


def scored_as(name: str, scorer: ScorerConfig, base: Path | None = None) -> Dataset:
    """Return a data set whose answers are read and scored by a scorer, or as another data set's.

    Relative paths are looked for in `base`. Raises UsageError that names the nearest known scorer or data set.
    """
    found = None if scorer.name in MODULES else open_scorer(scorer, base or Path())
    if found is None:
        return _scored_as_dataset(scorer.name)
    return replace(
        get(name),
        metric=found.metric,
        answer_form=found.answer_form,
        extract=found.extract,
        score=found.score,
        by_calls=found.by_calls,
    )


def _scored_as_dataset(scorer: str) -> Dataset:
    if scorer in MODULES or find_plugin("datasets", scorer) is not None:
        return get(scorer)
    known = [*OPTIONS, *MODULES]
    nearest = difflib.get_close_matches(scorer, known, n=1, cutoff=0.6)
    raise UsageError(
        f"no scorer or data set is called {scorer!r}: "
        + (f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}, and FILE.py:FUNCTION")
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
