"""The student to export: its weights, its prompts, and the questions to check it on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate.config import Config
from fractionate.errors import UsageError
from fractionate.models.local.weights import Weights, resolve
from fractionate.rows import read_rows
from fractionate.run.attempts import is_measured, read_measured
from fractionate.run.folder import RunFolder
from fractionate.run.models import student_options
from fractionate.run.names import Names
from fractionate.run.records import TRAINING
from fractionate.run.reporting import load_stored_config
from fractionate.run.tuning import EXAMPLES
from fractionate.strategies.base import DECOMPOSE_TOKENS, WORKED_TOKENS
from fractionate.strategies.prompting import decompose_messages, single_messages, static_messages
from fractionate.students.examples import VARIANTS
from fractionate.types import Cell, Component, Message


@dataclass(frozen=True)
class Student:
    """A trained student of a run. `max_tokens` is what its replies were measured with at most."""

    component: Component
    folder: Path
    run: RunFolder
    config: Config
    weights: Weights
    training: dict[str, Any]
    max_tokens: int

    @property
    def name(self) -> str:
        """Its name in the run."""
        return self.component.name

    @property
    def is_adapter(self) -> bool:
        """Whether it rides on its base; a student of full training is a model of its own."""
        return self.weights.adapter is not None

    @property
    def base(self) -> str:
        """What it was trained from: a hub id, or the name of a local folder."""
        base = str(self.training["base"]).removeprefix("local:")
        return Path(base).name if Path(base).expanduser().exists() else base

    @property
    def base_is_public(self) -> bool:
        """Whether its base is named by a hub id."""
        return "/" in self.base and not self.base.endswith(".gguf")

    @property
    def base_was_converted(self) -> bool:
        """Whether its base's weights came out of a GGUF file: then those under the same name on the hub are others."""
        return self.is_adapter and self.base_is_public and self.weights.source.is_file()

    @property
    def form(self) -> str:
        """What its one user message holds, in words."""
        sees = VARIANTS[self.component.variant].sees_subquestions and self.component.trained_for == "solver"
        passage = "the passage if there is one, a blank line, " if self.sees_context else ""
        return f"{passage}the question{', and each subquestion on a numbered line' if sees else ''}"

    @property
    def sees_context(self) -> bool:
        """Whether its prompts hold the passage of a question."""
        return self.component.trained_for == "solver" or self.config.run.decomposer_context

    def prompts(self, count: int) -> list[tuple[Message, ...]]:
        """Return up to `count` different prompts: those it was measured with, then those it was trained on."""
        found: dict[tuple[Message, ...], None] = {}
        for messages in self._all_prompts():
            found.setdefault(messages)
            if len(found) == count:
                break
        return list(found)

    def _all_prompts(self) -> Iterator[tuple[Message, ...]]:
        cells = read_measured(self.run) if is_measured(self.run) else []
        for cell in cells:
            yield from self._asked(cell)
        learnt = self.folder / EXAMPLES
        if learnt.is_file():
            for row in read_rows(learnt):
                yield tuple(Message(role, content) for role, content in row.values["messages"])

    def _asked(self, cell: Cell) -> Iterator[tuple[Message, ...]]:
        decomposes, solves = cell.decomposer == self.component, cell.solver == self.component
        # The form of an answer stands in instructions, which students are not given.
        for problem, decomposition in ((one.problem, one.decomposition) for one in cell.attempts):
            if decomposes:
                yield decompose_messages(problem, "student", with_context=self.sees_context)
            elif solves and decomposition and decomposition.subquestions:
                yield static_messages(problem, decomposition.subquestions, "student", "text")
            elif solves:
                yield single_messages(problem, "student", "text", chain_of_thought=False)


def open_student(folder: Path, name: str = "") -> Student:
    """Find a run's student; without a name, its only one. Raises UsageError for what is not there or does not fit."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: give a run's folder, such as runs/NAME")
    run = RunFolder(folder)
    config = load_stored_config(run, ())
    names = Names(config)
    trained = [one.name for one in names.students if run.is_trained(one.name)]
    chosen = name or (trained[0] if len(trained) == 1 else "")
    if not trained:
        raise UsageError(f"the run in {folder} has no trained student to export: train one (run.variants)")
    if chosen not in trained:
        what = f"no trained student {chosen!r} in {folder}" if chosen else f"{folder} has several students"
        raise UsageError(f"{what}: name one of {', '.join(trained)}")
    component = names.component(chosen, names.student(chosen).role)
    options = student_options(config, component)
    if options.style != "student":
        raise UsageError(f"{chosen} is asked with instructions (its style is {options.style!r}): set style = 'student'")
    at = run.student(chosen)
    # An adapter names its base itself; a fully trained student is a model folder.
    weights = resolve(f"local:{at}")
    most = options.max_tokens or (DECOMPOSE_TOKENS if component.trained_for == "decomposer" else WORKED_TOKENS)
    return Student(component, at, run, config, weights, _record(at), most)


def _record(folder: Path) -> dict[str, Any]:
    path = folder / TRAINING
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {**record, "base": str(record["base"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error}): train the student again") from None


def adapter_rank(folder: Path) -> int:
    """Return the highest rank of an adapter's matrices, which vLLM must be told."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
