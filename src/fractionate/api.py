"""The Python interface: what the commands do, as objects. `import fractionate` offers all of it under one name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fractionate.analysis.comparison import Comparison, PairedComparison, compare_systems, compare_two
from fractionate.analysis.findings import Distill
from fractionate.analysis.rule import Rule
from fractionate.analysis.systems import Answered, System
from fractionate.config import Config, load_config
from fractionate.datasets.own_scorers import Scale
from fractionate.datasets.scoring import Fields, ScoredRow, Scoring, Summary, file_rows, score_rows, summarize
from fractionate.errors import UsageError, missing_extra
from fractionate.logs.choices import Choices
from fractionate.logs.read import read_systems
from fractionate.report.examples import pick_examples
from fractionate.report.facts import verdict_lines
from fractionate.report.render import html
from fractionate.report.results import read_results
from fractionate.rows import Row
from fractionate.run import run as pipeline_run
from fractionate.run import stages
from fractionate.run.attempt_rows import attempt_lines
from fractionate.run.attempts import is_measured, read_measured
from fractionate.run.folder import RunFolder, run_folder
from fractionate.run.progress import Progress
from fractionate.run.reporting import load_stored_config
from fractionate.students.demonstrate import Demonstration
from fractionate.students.examples import Screening
from fractionate.types import AnswerForm, Cell


class Run(pipeline_run.Run):
    """One run, as `fractionate run` opens it, with its stages as methods. Use it in a `with` block.

    `config` is a `Config` or the path of a TOML file; `folder` is the run's own (`runs/NAME` if absent). Relative paths
    in a config of your own making, and its store, lie in `base` (the working directory). Nothing is printed unless
    `quiet` is false. Raises UsageError for whatever is wrong with the config.
    """

    def __init__(
        self,
        config: Config | str | Path,
        folder: str | Path | None = None,
        *,
        base: str | Path = ".",
        quiet: bool = True,
        on: str = "",
    ) -> None:
        source = None
        if not isinstance(config, Config):
            source = Path(config)
            config, base = load_config(source), source.resolve().parent
        where = run_folder(config, source, Path(folder) if folder else None)
        super().__init__(config, where, Path(base), Progress(quiet=quiet), on=on, source=source)

    def __enter__(self) -> Run:
        return self

    def run(self) -> Report:
        """Demonstrate, screen, train, evaluate and report; what is done already is kept."""
        return Report(stages.run_everything(self), self.folder)

    def demonstrate(self) -> list[Demonstration]:
        """Let the teacher decompose, and where a student needs it solve, the training questions."""
        stages.check_before_spending(self)
        return stages.demonstrate_stage(self)

    def screen(self) -> Screening | None:
        """Keep the demonstrations whose solution reached the gold answer; None where nothing was solved."""
        return stages.screen_stage(self)

    def train(self) -> None:
        """Train the students that are not trained yet."""
        stages.train_stage(self)

    def evaluate(self) -> list[Cell]:
        """Measure every pair on every test set."""
        stages.check_before_spending(self)
        return stages.evaluate_stage(self)

    def report(self) -> Report:
        """Write results.json, report.md and report.html from what was measured."""
        return Report(stages.report_stage(self), self.folder)

    def cells(self) -> list[Cell]:
        """Return the cells measured so far, their attempts in the order of the test sets."""
        return read_cells(self.folder.path)


@dataclass(frozen=True)
class Verdict:
    """A run's verdict; as text, its three lines.

    `distill` is "decomposer", "solver", "both", "neither" or "undecided"; `because` says why, in at most 60 words;
    `next` is the command that follows. `recommended` names the pair to serve (None where there is none): its cell,
    strategy, decomposer, solver, and the change as text. `outcome` (shares of 1) and `saving` (dollars per 1,000
    questions, and the share of today's bill) have before and after with an interval; None where it is not known. Where
    nothing is recommended they are those of the pair that comes nearest.
    """

    distill: Distill
    because: str
    recommended: Mapping[str, str] | None = None
    outcome: Mapping[str, Any] | None = None
    saving: Mapping[str, Any] | None = None
    next: str = ""
    lines: tuple[str, ...] = ()

    @classmethod
    def of(cls, verdict: Mapping[str, Any]) -> Verdict:
        """Return the answer that results.json holds under "verdict"."""
        known = {name: verdict.get(name) for name in ("recommended", "outcome", "saving")}
        said = tuple(verdict_lines(verdict))
        return cls(verdict["distill"], verdict["because"], **known, next=verdict.get("next") or "", lines=said)

    def __str__(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Report:
    """The results of a run: `results` is the content of results.json. Shows itself as the HTML report in a notebook."""

    results: Mapping[str, Any]
    folder: RunFolder

    @property
    def verdict(self) -> Verdict:
        """Which part to distill, what that does to outcome and bill, and what to do next."""
        return Verdict.of(self.results["verdict"])

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The cells as results.json holds them: outcome with its interval, usage, dollars."""
        return list(self.results["cells"])

    @property
    def warnings(self) -> list[str]:
        """What went wrong on the way."""
        return list(self.results["warnings"])

    def to_pandas(self) -> Any:
        """Return the cells as a pandas data frame, one row each; nested fields become columns such as usd.total."""
        with self._damage_named():
            return _pandas().json_normalize(self.cells)

    def _repr_html_(self) -> str:
        from html import escape

        examples = []
        if is_measured(self.folder):
            rule = Rule.of(load_stored_config(self.folder, []))
            examples = pick_examples(read_measured(self.folder), rule)
        with self._damage_named():
            page = escape(html(self.results, examples), quote=True)
        # In a frame of its own: the page's style must not reach the notebook's.
        return f'<iframe srcdoc="{page}" style="width:100%;height:45rem;border:0" title="fractionate report"></iframe>'

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        """Turn errors of showing results of another form into one line that names the file."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise UsageError(
                f"{self.folder.results} cannot be shown ({type(error).__name__}: {error}): run fractionate report again"
            ) from None


def read_report(folder: str | Path) -> Report:
    """Return the report of a run's folder. Raises UsageError where there is none."""
    of = RunFolder(Path(folder))
    return Report(read_results(of.results), of)


def read_cells(folder: str | Path) -> list[Cell]:
    """Return the cells of a run's folder; the attempts of a large run are read as they are asked for."""
    return read_measured(RunFolder(Path(folder)))


def to_pandas(cells: Iterable[Cell]) -> Any:
    """Return the attempts of cells as a pandas data frame, one row each, with the fields of attempts.jsonl."""
    return _pandas().DataFrame(list(attempt_lines(cells)))


@dataclass(frozen=True)
class Scores:
    """Scored outputs: the rows in order, their means, and how they compare with others."""

    rows: tuple[ScoredRow, ...]

    @property
    def summary(self) -> Summary:
        """Rows, means over all of them (0 to 1), and the share without an answer that could be read."""
        return summarize(list(self.rows))

    def outcomes(self, metric: str = "exact_match") -> dict[str, float]:
        """Return a metric's value by question: by the rows' `id`, else their `index`, else their place."""
        return {row.identity: float(getattr(row.score, metric)) for row in self.rows}

    def to_pandas(self) -> Any:
        """Return the rows as a pandas data frame."""
        return _pandas().DataFrame([{**row.as_json(), "identity": row.identity} for row in self.rows])


def score(
    outputs: str | Path | Iterable[Mapping[str, Any]],
    dataset: str = "",
    *,
    gold: str = "",
    output_field: str = "",
    answers_field: str = "",
    index_field: str = "",
    columns: Mapping[str, str] | None = None,
    scorer: str = "",
    scale: str = "",
    answer: AnswerForm | Literal[""] = "",
) -> Scores:
    """Score outputs (a data file, or rows as mappings) as a data set or a scorer does; see `fractionate score --help`.

    Raises UsageError with the row and the reason for one that cannot be scored, and where there is none.
    """
    if isinstance(outputs, str | Path):
        rows: Iterable[Row] = file_rows(Path(outputs))
    else:
        rows = (Row(values, f"row {number}") for number, values in enumerate(outputs, 1))
    fields = Fields(output_field, answers_field, index_field)
    ratings = Scale.parse(scale) if scale else None
    scored = score_rows(rows, Scoring(dataset, scorer, ratings, gold, fields, columns or {}, answer)).rows
    if not scored:
        raise UsageError("there are no rows to score")
    return Scores(tuple(scored))


def read_system(
    log: str | Path,
    *,
    id_field: str = "",
    outcome_field: str = "",
    group_field: str = "",
    metric: str = "",
    scorer: str = "",
    filter: str = "",
    task: str = "",
    repeats: bool = False,
) -> System:
    """Read one log as `fractionate compare` does: a run's cell, rows, or what inspect_ai or lm-eval wrote.

    `log` is `[NAME=]PATH[:CELL]`; see `fractionate compare --help` for what the options choose. Raises UsageError where
    the log cannot be read, or leaves a choice that was not made.
    """
    choices = Choices(
        id=id_field,
        outcome=outcome_field,
        group=group_field,
        metric=metric,
        filter=filter,
        task=task,
        scoring=Scoring(scorer=scorer),
        repeats=repeats,
    )
    systems = read_systems([str(log)], choices)
    if len(systems) > 1:
        raise UsageError(f"{log} holds {len(systems)} logs ({', '.join(one.name for one in systems)}): name one")
    return systems[0]


def compare(
    a: System | Scores | Cell | Mapping[str, float] | Sequence[float],
    b: System | Scores | Cell | Mapping[str, float] | Sequence[float],
    metric: str = "exact_match",
    confidence: float = 0.95,
) -> PairedComparison:
    """Compare two systems over the questions that both answered: logs, scored outputs, cells, or outcomes from 0 to 1.

    Outcomes are matched by question id; two plain sequences by position. Of logs and cells, questions on one passage
    count as one independent unit, by whichever of the two says so: `compare(b, a)` mirrors `compare(a, b)`. Raises
    UsageError where nothing is shared, or the two group a question differently. `compare_systems` compares several.
    """
    return compare_two(_system(a, "a", metric), _system(b, "b", metric), confidence)


def _system(of: System | Scores | Cell | Mapping[str, float] | Sequence[float], name: str, metric: str) -> System:
    if isinstance(of, System):
        return of
    if isinstance(of, Cell):
        answers = [
            Answered(one.problem.id, float(getattr(one.score, metric)), one.problem.group or one.problem.context)
            for one in of.attempts
        ]
    else:
        items = of.outcomes(metric) if isinstance(of, Scores) else of
        pairs = items.items() if isinstance(items, Mapping) else enumerate(items)
        answers = [Answered(str(identity), float(value)) for identity, value in pairs]
    return System(name, tuple(answers))


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise missing_extra("pandas", "pandas", "a data frame") from None
    return pandas


__all__ = [
    "Comparison", "PairedComparison", "Report", "Run", "Scores", "System", "compare", "compare_systems", "read_cells",
    "read_report", "read_system", "score", "to_pandas",
]  # fmt: skip
