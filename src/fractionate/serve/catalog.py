"""What a run has measured, as models to ask: each pair with its outcome, interval, price and the verdict."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate import strategies
from fractionate.config import Config
from fractionate.errors import UsageError
from fractionate.run.attempts import is_measured
from fractionate.run.folder import RunFolder
from fractionate.run.names import Names
from fractionate.run.reporting import load_stored_config
from fractionate.serve.refusals import Refusal
from fractionate.strategies.base import Strategy
from fractionate.types import Component

OWNER = "fractionate"
BEST = f"{OWNER}/best"
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Served:
    """One pair that can be asked. `facts` are its measured cells, one a test set; () if it was not measured."""

    id: str
    strategy: Strategy
    decomposer: Component
    solver: Component
    facts: tuple[Record, ...] = ()

    @property
    def answers_anew(self) -> bool:
        """Whether it can answer a question that the run has not seen: nothing of it is a recording."""
        return not any(one.model.startswith("recorded:") for one in (self.decomposer, self.solver))

    def fact(self, test_set: str) -> Record | None:
        """Return what was measured on a test set, on the first one if "" is given; None where nothing was."""
        found = (fact for fact in self.facts if test_set in ("", fact["test_set"]))
        return next(found, None)


@dataclass(frozen=True)
class Alias:
    """A shorter name of a pair, and why it stands for that one."""

    id: str
    pair: Served
    because: str


class Catalog:
    """The pairs of one run, by the names that clients ask for. Raises UsageError for a run that cannot be served."""

    def __init__(self, folder: RunFolder, *, allow_unmeasured: bool = False) -> None:
        self.folder = folder
        self.results = _results(folder)
        self.config: Config = load_stored_config(folder, ())
        self.names = Names(self.config)
        self.allow_unmeasured = allow_unmeasured
        self.created = int(folder.results.stat().st_mtime)
        cells: list[Record] = [cell for cell in self.results["cells"] if cell["n"]]
        self.test_sets: dict[str, str] = {cell["test_set"]: cell["dataset"] for cell in cells}
        """The data set behind each test set, by the test set's name; the first one is the default."""
        self.pairs = {pair.id: pair for pair in self._measured(cells)}
        if not self.pairs:
            raise UsageError(f"{folder.results} has no cell that can be served: run fractionate evaluate again")
        self._by_cell = {cell["name"]: _id(cell["strategy"], cell["decomposer"], cell["solver"]) for cell in cells}
        self.aliases = {alias.id: alias for alias in [self._best(), *self._baselines()]}

    def find(self, model: str) -> Served:
        """Return the pair that a client asks for. Raises Refusal (404) naming the nearest one."""
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

    def _unmeasured(self, model: str) -> Served | bool:
        """Return a pair of this run's names that was not measured; True where such a pair is not served."""
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

    def _measured(self, cells: Sequence[Record]) -> Iterable[Served]:
        grouped: dict[tuple[str, str, str], list[Record]] = {}
        for cell in cells:
            if cell["decomposer"] != "gold":  # nobody has written the decompositions of a client's question
                grouped.setdefault((cell["strategy"], cell["decomposer"], cell["solver"]), []).append(cell)
        for (strategy, decomposer, solver), of_pair in grouped.items():
            yield Served(
                _id(strategy, decomposer, solver),
                strategies.get(strategy),
                self.names.component(decomposer, "decomposer"),
                self.names.component(solver, "solver"),
                tuple(_fact(cell) for cell in of_pair),
            )

    def _best(self) -> Alias:
        """Return the verdict's pair; where it recommends none, the pair that students had to be no worse than."""
        verdict = self.results["verdict"]
        for judged in verdict.get("datasets", []):
            pair = self._pair_of(judged.get("recommended"))
            if pair is not None and verdict["distill"] not in ("neither", "undecided"):
                return Alias(BEST, pair, f"the verdict recommends it: {verdict['because']}")
        evidence = [row.get("b") for row in verdict.get("evidence", []) if row.get("part") != "decomposing"]
        baseline = next((pair for name in evidence if (pair := self._pair_of(name)) is not None), None)
        if baseline is not None and baseline.answers_anew:
            why = "the verdict recommends no student, so this is the undistilled pair"
            return Alias(BEST, baseline, f"{why}: {verdict['because']}")
        first = next(iter(self.test_sets))
        able = [pair for pair in self.pairs.values() if pair.answers_anew and pair.fact(first)]
        able = able or list(self.pairs.values())
        best = max(able, key=lambda pair: fact["value"] if (fact := pair.fact(first)) else -1.0)
        why = "the verdict recommends no student; of the pairs that can answer new questions this has the highest "
        return Alias(BEST, best, f"{why}outcome on {first}: {verdict['because']}")

    def _baselines(self) -> Iterable[Alias]:
        """Yield each strategy's undistilled pair: single-stage ones with the solver that students are compared with."""
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


def _fact(cell: Record) -> dict[str, Any]:
    total, outputs = cell["usd"]["total"], cell.get("outputs") or cell["n"]
    kept = ("test_set", "dataset", "split", "metric", "value", "ci_low", "ci_high", "confidence", "n", "unextracted")
    return {
        **{name: cell[name] for name in kept},
        "usd_per_1000": None if total is None else 1000 * total / outputs,
        "latency_p50_s": cell["latency_p50_s"],
        "latency_p95_s": cell["latency_p95_s"],
    }


def _results(folder: RunFolder) -> dict[str, Any]:
    if not folder.path.is_dir():
        raise UsageError(f"no run at {folder.path}: give the folder of a run (fractionate run CONFIG makes one)")
    try:
        results = json.loads(folder.results.read_text(encoding="utf-8"))
        if not isinstance(results["cells"], list) or not isinstance(results["verdict"], dict):
            raise TypeError("cells or verdict are of another kind")
    except FileNotFoundError:
        made = "fractionate report" if is_measured(folder) else "fractionate run CONFIG, or its evaluate stage,"
        raise UsageError(f"{folder.results} is not there, so no pair is measured: {made} makes it") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{folder.results} cannot be read ({error}): run fractionate report {folder.path}") from None
    return dict(results)


def folder_of_config(folder: RunFolder) -> Path:
    """Return the folder that a run's config lay in, from which its relative paths are read."""
    try:
        about = json.loads(folder.about.read_text(encoding="utf-8"))
        seen, store = Path(about["run"]), about.get("store")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Path.cwd()
    here = folder.path.resolve()
    if not seen.is_absolute():
        parts = [part for part in seen.parts if part != "."]
        if not parts:
            return here
        if here.parts[-len(parts) :] == tuple(parts):
            return Path(*here.parts[: -len(parts)])
    beside = Path(store).parent if store else Path.cwd()
    return beside if beside.is_dir() else Path.cwd()
