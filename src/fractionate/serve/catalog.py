"""The models of a server: each pair that its run measured, with outcome, interval, price and the verdict."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fractionate import strategies
from fractionate.config import Config
from fractionate.errors import UsageError
from fractionate.run.attempts import is_measured, read_attempts
from fractionate.run.folder import RunFolder
from fractionate.run.names import Names
from fractionate.run.reporting import load_stored_config
from fractionate.serve.errors import Refusal
from fractionate.strategies.base import Strategy
from fractionate.types import Component

OWNER = "fractionate"
BEST = f"{OWNER}/best"
Record = Mapping[str, Any]


class _Read(BaseModel):
    """A part of results.json. A changed file may hold anything, so every field that is used is checked."""

    model_config = ConfigDict(allow_inf_nan=False, frozen=True)


class _Dollars(_Read):
    total: Annotated[float, Field(ge=0, le=1e12)] | None


class _Cell(_Read):
    name: str
    strategy: str
    decomposer: str
    solver: str
    test_set: str
    dataset: str
    split: str
    metric: str
    n: Annotated[int, Field(ge=0, le=10**12)]
    outputs: Annotated[int, Field(ge=0, le=10**12)] | None = None
    unextracted: int
    value: float
    ci_low: float | None
    ci_high: float | None
    confidence: float | None
    usd: _Dollars
    latency_p50_s: float | None
    latency_p95_s: float | None


class _Judged(_Read):
    recommended: str | None = None


class _Evidence(_Read):
    part: str | None = None
    b: str | None = None


class _Verdict(_Read):
    distill: str
    because: str
    action: str = ""
    effect: str = ""
    next: str = ""
    datasets: list[_Judged] = []
    evidence: list[_Evidence] = []


class _Results(_Read):
    cells: list[_Cell]
    verdict: _Verdict


@dataclass(frozen=True)
class Served:
    """One pair that is served. `facts` are its measured cells, one for each test set; () if it was not measured."""

    id: str
    strategy: Strategy
    decomposer: Component
    solver: Component
    facts: tuple[Record, ...] = ()

    @property
    def answers_anew(self) -> bool:
        """Whether it can answer a question that the run has not seen: no part of it is a recording."""
        return not any(one.model.startswith("recorded:") for one in (self.decomposer, self.solver))

    def fact(self, test_set: str) -> Record | None:
        """Return the measured cell on a test set, on the first one for ""; None where there is none."""
        found = (fact for fact in self.facts if test_set in ("", fact["test_set"]))
        return next(found, None)


@dataclass(frozen=True)
class Alias:
    """A shorter name of a pair, and the reason why it names that pair."""

    id: str
    pair: Served
    because: str


class Catalog:
    """The pairs of one run, by the names that clients send. Raises UsageError for a run that cannot be served."""

    def __init__(self, folder: RunFolder, *, allow_unmeasured: bool = False) -> None:
        self.folder = folder
        self.results = _results(folder)
        self.config: Config = load_stored_config(folder, ())
        self.names = Names(self.config)
        self.allow_unmeasured = allow_unmeasured
        self.created = int(folder.results.stat().st_mtime)
        cells = [cell for cell in self.results.cells if cell.n]
        self.test_sets: dict[str, str] = {cell.test_set: cell.dataset for cell in cells}
        """The data set behind each test set, by the test set's name; the first one is the default."""
        self.pairs = {pair.id: pair for pair in self._measured(cells)}
        if not self.pairs:
            raise UsageError(f"{folder.results} has no cell that can be served: run fractionate evaluate again")
        self._by_cell = {cell.name: _id(cell.strategy, cell.decomposer, cell.solver) for cell in cells}
        self.aliases = {alias.id: alias for alias in [self._best(), *self._baselines()]}

    def find(self, model: str) -> Served:
        """Return the pair of a model's name. Raises Refusal (404) naming the nearest one."""
        alias = self.aliases.get(model)
        found = alias.pair if alias else self.pairs.get(model) or self._unmeasured(model)
        if isinstance(found, Served):
            return found
        known = [*self.aliases, *self.pairs]
        nearest = difflib.get_close_matches(model, known, n=1, cutoff=0.3)
        shown = ascii(model[:200])
        if found:
            why = f"{shown} was not measured in this run (--allow-unmeasured serves it all the same)"
        else:
            why = f"no model {shown}"
        hint = f": did you mean {nearest[0]}?" if nearest else ": GET /v1/models lists them"
        raise Refusal(404, why + hint, code="model_not_found", param="model")

    def listing(self) -> dict[str, Any]:
        """Return the list of models: the verdict's pair first, then aliases, then every measured pair."""
        names = [*self.aliases, *self.pairs]
        return {"object": "list", "data": [self.entry(name) for name in names]}

    @cached_property
    def example(self) -> dict[str, str] | None:
        """A test question, with its passage, that the best pair answered right, else its first one.

        None where the attempts were not kept beside the results.
        """
        if not self.folder.attempts.is_file():
            return None
        try:
            cells = read_attempts(self.folder.attempts)
            cell = next(
                one
                for one in cells
                if _id(one.strategy, one.decomposer.name, one.solver.name) == self.aliases[BEST].pair.id
            )
            right = (at for at, value in enumerate(cell.values()) if value == 1)
            problem = cell.attempts[next(right, 0)].problem
        except (UsageError, StopIteration, IndexError):
            return None
        return {"question": problem.question, "context": problem.context}

    def entry(self, name: str) -> dict[str, Any]:
        """Return one model as `GET /v1/models/NAME` shows it. Raises Refusal (404) for an unknown one."""
        pair, alias, verdict = self.find(name), self.aliases.get(name), self.results.verdict
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": OWNER,
            "fractionate": {
                **({"stands_for": pair.id, "because": alias.because} if alias else {}),
                "strategy": pair.strategy.name,
                "strategy_label": pair.strategy.label,
                "decomposer": pair.decomposer.name,
                "decomposer_model": pair.decomposer.model,
                "solver": pair.solver.name,
                "solver_model": pair.solver.model,
                "answers_new_questions": pair.answers_anew,
                "outcomes": list(pair.facts),
                "verdict": verdict.model_dump(include={"distill", "because", "action", "effect", "next"}),
            },
        }

    def _unmeasured(self, model: str) -> Served | bool:
        """Return a pair of this run's names that was not measured; True where it exists but is not served."""
        strategy, colon, pair = model.removeprefix(f"{OWNER}/").partition(":")
        if not (colon and model.startswith(f"{OWNER}/") and strategy in strategies.built_in()):
            return False
        two_stage = strategies.get(strategy).stages != "single"
        none = Component("none", "none", "decomposer")
        for decomposer in [*self.names.decomposers, none]:
            for solver in self.names.solvers:
                if pair == f"{decomposer.name}+{solver.name}" and two_stage == (decomposer.kind != "none"):
                    if decomposer.kind == "gold" or not self.allow_unmeasured:
                        return decomposer.kind != "gold"
                    return Served(model, strategies.get(strategy), decomposer, solver)
        return False

    def _measured(self, cells: Sequence[_Cell]) -> Iterable[Served]:
        grouped: dict[tuple[str, str, str], list[_Cell]] = {}
        for cell in cells:
            if cell.decomposer != "gold":  # a client's question has no gold decomposition
                grouped.setdefault((cell.strategy, cell.decomposer, cell.solver), []).append(cell)
        for (strategy, decomposer, solver), of_pair in grouped.items():
            yield Served(
                _id(strategy, decomposer, solver),
                strategies.get(strategy),
                self.names.component(decomposer, "decomposer"),
                self.names.component(solver, "solver"),
                tuple(_fact(cell) for cell in of_pair),
            )

    def _best(self) -> Alias:
        """Return the verdict's pair; where it recommends none, the baseline that students were compared with."""
        verdict = self.results.verdict
        for judged in verdict.datasets:
            pair = self._pair_of(judged.recommended)
            # A recording knows the run's questions alone: it cannot stand behind a name that takes any question.
            if pair is not None and pair.answers_anew and verdict.distill not in ("neither", "undecided"):
                return Alias(BEST, pair, f"the verdict recommends it: {verdict.because}")
        evidence = [row.b for row in verdict.evidence if row.part != "decomposing"]
        baseline = next((pair for name in evidence if (pair := self._pair_of(name)) is not None), None)
        if baseline is not None and baseline.answers_anew:
            why = "the verdict recommends no student, so this is the undistilled pair"
            return Alias(BEST, baseline, f"{why}: {verdict.because}")
        first = next(iter(self.test_sets))
        able = [pair for pair in self.pairs.values() if pair.answers_anew and pair.fact(first)]
        able = able or list(self.pairs.values())
        best = max(able, key=lambda pair: fact["value"] if (fact := pair.fact(first)) else -1.0)
        why = "the verdict recommends no student; of the pairs that can answer new questions this has the highest "
        return Alias(BEST, best, f"{why}outcome on {first}: {verdict.because}")

    def _baselines(self) -> Iterable[Alias]:
        """Yield each strategy's undistilled pair, with the solver that students are compared with where possible."""
        solvers = [solver for solver in self.names.solvers if not solver.is_student]
        wanted = self.config.verdict.solver
        solvers.sort(key=lambda one: (one.name != wanted, one.name != "teacher", one.kind != "teacher"))
        for name in dict.fromkeys(pair.strategy.name for pair in self.pairs.values()):
            of_strategy = [pair for pair in self.pairs.values() if pair.strategy.name == name]
            ranked = sorted(
                (pair for pair in of_strategy if not pair.decomposer.is_student and pair.solver in solvers),
                key=lambda pair: (not pair.answers_anew, solvers.index(pair.solver), pair.decomposer.kind != "teacher"),
            )
            if ranked:
                yield Alias(f"{OWNER}/{name}", ranked[0], f"the undistilled pair of {name}")

    def _pair_of(self, cell: str | None) -> Served | None:
        return self.pairs.get(self._by_cell.get(cell or "", ""))


def _id(strategy: str, decomposer: str, solver: str) -> str:
    return f"{OWNER}/{strategy}:{decomposer}+{solver}"


def _fact(cell: _Cell) -> dict[str, Any]:
    kept = ("test_set", "dataset", "split", "metric", "value", "ci_low", "ci_high", "confidence", "n", "unextracted")
    total = cell.usd.total
    return {
        **{name: getattr(cell, name) for name in kept},
        "usd_per_1000": None if total is None else 1000 * total / (cell.outputs or cell.n),
        "latency_p50_s": cell.latency_p50_s,
        "latency_p95_s": cell.latency_p95_s,
    }


def _results(folder: RunFolder) -> _Results:
    if not folder.path.is_dir():
        raise UsageError(f"no run at {folder.path}: give the folder of a run (fractionate run CONFIG makes one)")
    try:
        return _Results.model_validate(json.loads(folder.results.read_text(encoding="utf-8")))
    except FileNotFoundError:
        made = "fractionate report" if is_measured(folder) else "fractionate run CONFIG, or its evaluate stage,"
        raise UsageError(f"{folder.results} is not there, so no pair is measured: {made} makes it") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    except (OSError, ValueError, RecursionError) as error:
        why = str(error)
    raise UsageError(f"{folder.results} cannot be read ({why}): run fractionate report {folder.path}")


def folder_of_config(folder: RunFolder) -> Path:
    """Return the folder of a run's config, to which its relative paths refer."""
    try:
        about = json.loads(folder.about.read_text(encoding="utf-8"))
        seen = Path(about["run"])
        beside = Path(about["store"]).parent if about.get("store") else Path.cwd()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Path.cwd()
    here = folder.path.resolve()
    if not seen.is_absolute():
        parts = [part for part in seen.parts if part != "."]
        if not parts:
            return here
        if here.parts[-len(parts) :] == tuple(parts):
            return Path(*here.parts[: -len(parts)])
    return beside if beside.is_dir() else Path.cwd()
