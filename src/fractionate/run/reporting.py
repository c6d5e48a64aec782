"""From a run's attempts to its three reports; needs no model and no network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fractionate import __version__
from fractionate.analysis.matrix import pool_cells
from fractionate.analysis.next_step import Place
from fractionate.analysis.rule import Rule
from fractionate.config import Config, override, parse_config
from fractionate.errors import UsageError
from fractionate.files import write_text
from fractionate.report.examples import pick_examples
from fractionate.report.render import write_html, write_markdown
from fractionate.report.results import build_results, write_json
from fractionate.run.attempts import read_measured
from fractionate.run.caps import output_caps
from fractionate.run.folder import RunFolder, as_typed
from fractionate.run.labelling import with_labels
from fractionate.run.looks import enter_looks
from fractionate.run.names import Names
from fractionate.run.records import Notes, read_throughput, read_tried
from fractionate.run.run import config_digest
from fractionate.run.spending import add_spending, read_spending
from fractionate.scoring.labels import OPINION, Measured
from fractionate.types import Cell

_OF_ONE_RUN: dict[str, Any] = {
    "data": {"train"},
    "run": {"name", "out", "store", "seed", "rows_at_most"},
    **dict.fromkeys(("budget", "limits", "prices", "verdict", "published"), True),
}
"""Settings in which pooled runs may differ: their draws, where they are kept, and what is said of them afterwards."""


def write_report(folder: RunFolder, config: Config, name: str) -> dict[str, Any]:
    """Write results.json, report.md and report.html. Returns the results."""
    cells, judged = with_labels(_measured(folder), folder, config)
    Names(config)  # a changed setting may name what is not there: that is said before anything is written
    notes = Notes(folder.notes)
    results = build_results(
        cells,
        config,
        [*notes.all(), *_judge_notes(cells, judged)],
        _about(config, name),
        warnings=notes.warnings(),
        throughput=read_throughput(folder),
        standings=enter_looks(_ledger(folder), name, config, cells),
        spent=read_spending(folder, config, cells),
        tried=read_tried(folder),
        caps=output_caps(config, cells),
        place=_place(folder, config, folder.source()),
    )
    if judged:
        results["judge"] = judged.as_dict()
    return _write(folder, config, results, cells)


def _judge_notes(cells: Sequence[Cell], judged: Measured | None) -> Iterator[str]:
    """Yield what there is to say of the judges that scored cells."""
    for judge in dict.fromkeys(cell.judge for cell in cells if cell.judge):
        yield f"Outcomes are scored by a judge: {judge}."
    if judged:
        line = judged.line()
        yield f"{line[0].upper()}{line[1:]}."
    elif any(cell.judge for cell in cells):
        yield f"{OPINION[0].upper()}{OPINION[1:]}."


def write_pooled_report(runs: Sequence[RunFolder], out: RunFolder, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Write the reports of several runs of one protocol as one, by the first one's config. Returns the results.

    Raises UsageError where two runs have one name, are of different configs, or put other questions to a cell, and
    where the reports would overwrite those of one of the runs.
    """
    for folder in runs:
        if out.path.exists() and folder.path.exists() and out.path.samefile(folder.path):
            raise UsageError(f"the reports of {folder.path} would be overwritten: name a folder of its own with --out")
    config = load_stored_config(runs[0], overrides)
    for other in runs[1:]:
        _check_same_protocol(runs[0], other)
    measured = {folder.path.name: _measured(folder) for folder in runs}
    if len(measured) < len(runs):
        raise UsageError("two of the runs' folders have one name: rename one of them")
    cells, values = pool_cells(measured)
    notes = [f"Pooled over {len(runs)} runs: each question counts with its mean over {', '.join(measured)}."]
    notes += [f"{folder.path.name}: {note}" for folder in runs for note in Notes(folder.notes).all()]
    warnings = [f"{folder.path.name}: {warning}" for folder in runs for warning in Notes(folder.notes).warnings()]
    tried = [{"run": folder.path.name, **row} for folder in runs for row in read_tried(folder)]
    results = build_results(
        cells,
        config,
        notes,
        _about(config, out.path.name),
        values,
        warnings,
        throughput=read_throughput(runs[0]),
        standings=enter_looks(_ledger(runs[0]), out.path.name, config, cells),
        spent=add_spending([read_spending(folder, config, measured[folder.path.name]) for folder in runs]),
        tried=tried,
        caps=output_caps(config, cells),
        place=_place(out, config, runs[0].source()),
    )
    out.create()
    out.record_answer_form(runs[0].answer_form())
    return _write(out, config, results, cells)


def _check_same_protocol(first: RunFolder, other: RunFolder) -> None:
    """Refuse two runs whose configs differ in more than seeds, training draws, and what changes no outcome."""
    ours, theirs = (_protocol(load_stored_config(folder, ())) for folder in (first, other))
    different = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    if different:
        key = different[0]
        raise UsageError(
            f"{first.path.name} and {other.path.name} are runs of different configs: {key} is {ours.get(key)!r} and "
            f"{theirs.get(key)!r}. Only runs that differ in seeds and training draws can be pooled"
        )


def _protocol(config: Config) -> dict[str, Any]:
    """Return every setting that makes a run the experiment it is, by its dotted name."""
    settings = _flat(config.model_dump(mode="json", exclude=_OF_ONE_RUN))
    own = tuple(f"students.{name}.{key}" for name in config.students for key in ("seed", "train"))
    return {key: value for key, value in settings.items() if key not in own}


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _measured(folder: RunFolder) -> list[Cell]:
    cells = read_measured(folder)
    if not cells:
        raise UsageError(f"{folder.path} holds no attempts: run fractionate evaluate again")
    return cells


def _ledger(folder: RunFolder) -> Path:
    """Return the store that keeps the looks of a run's project; a file in the folder where no store is there."""
    store = folder.store()
    return store if store is not None and store.is_file() else folder.path / "looks.sqlite"


def _place(folder: RunFolder, config: Config, source: str) -> Place:
    return Place.of(config, as_typed(folder.path), source)


def _about(config: Config, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "fractionate": __version__,
        "config": config_digest(config),
        "seed": config.run.seed,
        "repeats": config.run.repeats,
        "teacher": config.models.teacher,
        "student": config.models.student,
        "train": config.data.train,
        "dev": config.data.dev or config.data.dev_share or None,
        "test": config.data.test,
    }


def _write(folder: RunFolder, config: Config, results: dict[str, Any], cells: Sequence[Cell]) -> dict[str, Any]:
    write_text(
        json.dumps(config.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n", folder.config, private=True
    )
    write_json(results, folder.results)
    write_markdown(results, folder.markdown)
    write_html(results, folder.html, pick_examples(cells, Rule.of(config)))
    return results


def load_stored_config(folder: RunFolder, overrides: Sequence[str]) -> Config:
    """Return the config that a run's folder was reported with, `a.b=c` overrides applied."""
    try:
        table = json.loads(folder.config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{folder.path} holds no run (there is no {folder.config.name}): name a run's folder, or its config file"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{folder.config} cannot be read ({error}): name the run's config file instead") from None
    if not isinstance(table, dict):
        raise UsageError(f"{folder.config} holds no config: name the run's config file instead")
    return parse_config(override(table, overrides), str(folder.config))
