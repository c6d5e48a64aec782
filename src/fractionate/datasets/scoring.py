"""Recorded outputs scored by a data set's reader or the user's scorer: the plain function of `fractionate score`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NotRequired, Protocol, TypedDict

from fractionate import datasets
from fractionate.config import ScorerConfig
from fractionate.datasets.base import Dataset
from fractionate.datasets.gold import Gold, find_gold
from fractionate.datasets.own_scorers import Scale, call_for_each
from fractionate.datasets.row_fields import MISSING, row_answers, row_output, row_prediction
from fractionate.errors import FractionateError, UsageError
from fractionate.plugin import load_function
from fractionate.rows import TEXT_TABLES, Row, at, list_in, read_rows
from fractionate.scoring.forms import infer_form
from fractionate.scoring.labels import Labels, measure, one_output_each
from fractionate.scoring.metrics import ZERO
from fractionate.types import Answer, AnswerForm, Problem, Score

REPEATS = ("repeat", "epoch", "sample", "seed")
"""Fields that tell several answers to one question apart."""


class RowJudge(Protocol):
    """Scores outputs by calls of a judge."""

    @property
    def identity(self) -> str:
        """What its scores depend on."""

    def grade(self, problems: Sequence[Problem], outputs: Sequence[str]) -> list[Score | None]:
        """Score outputs; None where no verdict could be read."""


class Summary(TypedDict):
    """What a file scored: rows, means over all rows (0 to 1), and the share of rows without an answer to score.

    With gold from a data set: how many rows match no question and are left out, and how many questions have no row.
    `note` says that more than half of the outputs are unparsed, and which reader fits better. `judge` says what the
    judge is, how far it agrees with labels by people, and the outcome corrected by them.
    """

    n: int
    exact_match: float
    f1: float
    unextracted: float
    unmatched_rows: NotRequired[int]
    unmatched_gold: NotRequired[int]
    note: NotRequired[str]
    judge: NotRequired[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One row: its answer (None when there is none), its score, and whether there was an answer to score.

    `identity` is what the row calls its question: its `id`, else its `index`, else its position among the rows, which
    is `position`. `output` is the raw text, None where the row has none. `lenient` is the score under the lenient
    reading, None where there is no such reading. `label` is a person's, from 0 to 1.
    """

    prediction: Answer | None
    score: Score
    extracted: bool
    identity: str = ""
    id: Any = None
    output: str | None = None
    position: int = 0
    lenient: Score | None = None
    label: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the row as `--rows` writes it; an answer of several spans is a list."""
        prediction = self.prediction
        written = prediction[0] if prediction is not None and len(prediction) == 1 else prediction
        return {
            "id": self.identity if self.id is None else self.id,
            "output": self.output,
            "prediction": written,
            "exact_match": self.score.exact_match,
            "f1": self.score.f1,
            "extracted": self.extracted,
        }


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row hold what; "a.b" is `b` inside `a`. "" is the usual one: `output`, `answers`, `index`."""

    output: str = ""
    answers: str = ""
    index: str = ""


@dataclass(frozen=True)
class Scoring:
    """How outputs are scored.

    `dataset` names the data set whose reader and metric are used ("" for that of `gold`). `scorer` is a plug-in's
    scorer, another data set's, or FILE.py:FUNCTION: function(output, answers) → a number from 0 to 1, or on `scale`.
    With a scale and neither, the output itself is the rating. `gold` is a data reference that holds the answers, its
    columns mapped by `columns`. `answer` is the form in which answers are read and scored, in place of the data set's
    own ("" for that); with it no data set has to be named. Gold answers in rows of one's own (`jsonl:`) are scored in
    the form that they have, where nothing else says it. The scorer is a name or an inline table, as `data.scorer` is
    (`ScorerConfig.parse`); its files are looked for in `base`. `judge` opens the judge that the scorer "judge" takes,
    and `labels` measure it.
    """

    dataset: str = ""
    scorer: str = ""
    scale: Scale | None = None
    gold: str = ""
    fields: Fields = field(default_factory=Fields)
    columns: Mapping[str, str] = field(default_factory=dict)
    answer: AnswerForm | Literal[""] = ""
    base: Path = Path()
    judge: Callable[[], RowJudge] | None = None
    labels: Labels | None = None

    def __post_init__(self) -> None:
        if self.answer and (self.scorer or self.scale):
            raise UsageError(
                f"answers of the form {self.answer} are scored as that form says: leave out --answer, or --scorer and "
                "--scale"
            )

    @property
    def names_reader(self) -> bool:
        """Whether anything says how outputs are read: a data set, a form of answers, gold data or a scorer."""
        return bool(self.dataset or self.answer or self.gold or self.scorer)

    @property
    def is_figure(self) -> bool:
        """Whether a row's score is a plain figure: a function's, or a rating."""
        is_function = ".py:" in self.scorer and not self.scorer.startswith("{")
        is_rating = self.scale is not None and not (self.scorer or self.dataset or self.gold)
        return is_function or is_rating

    def reader(self) -> Dataset:
        """Return the data set whose reader and metric are used. Raises UsageError where none is named."""
        name = self.dataset or (datasets.parse_reference(self.gold).name if self.gold else "")
        if self.scorer:
            return datasets.scored_as(name or "jsonl", ScorerConfig.parse(self.scorer), self.base)
        if self.answer:
            return datasets.answered_as(datasets.get(name or "jsonl"), self.answer)
        if not name:
            raise UsageError(
                "nothing says how outputs are scored: name a data set (--dataset), a form of answers (--answer) or a "
                "scorer (--scorer)"
            )
        return datasets.get(name)


@dataclass(frozen=True)
class Scored:
    """Scored rows in order, without those that match no question of the gold data: `unmatched_rows`."""

    rows: list[ScoredRow]
    scorer: str
    against: str
    gold: Gold | None = None
    unmatched_rows: int = 0
    unmatched_gold: int = 0
    judge: str = ""
    """The identity of the judge that scored them, if one did."""

    def summary(self) -> Summary:
        """Return the means of at least one scored row, and what does not fit."""
        summary = summarize(self.rows)
        if self.gold is not None:
            summary["unmatched_rows"], summary["unmatched_gold"] = self.unmatched_rows, self.unmatched_gold
        if self.judge:
            summary["judge"] = {"identity": self.judge, **self._measured()}
        note = misfit(self.rows, self.scorer)
        if note:
            summary["note"] = note
        return summary

    def _measured(self) -> dict[str, Any]:
        """Return what labels say of the judge, and the outcome corrected by them with its interval of 95 %."""
        import numpy as np

        gold = np.array([math.nan if row.label is None else row.label for row in self.rows])
        judged = np.array([row.score.exact_match for row in self.rows])
        found = measure(gold, judged)
        if found is None:
            return {"labels": 0}
        measured, corrected = found
        if not measured.corrects:
            return measured.as_dict()
        low, high = corrected.interval()
        return {**measured.as_dict(), "corrected": corrected.estimate, "ci_low": low, "ci_high": high}

    def described(self) -> list[str]:
        """Return what was scored against what, and what was left out."""
        lines = [f"scored by {self.scorer} against {self.against}"]
        if self.unmatched_rows or self.unmatched_gold:
            lines.append(
                f"{self.unmatched_rows} rows match no question and are left out; {self.unmatched_gold} questions of "
                "the gold data have no row"
            )
        return lines


def score_file(
    path: Path,
    dataset: str = "",
    rows_out: Path | None = None,
    *,
    gold: str = "",
    fields: Fields | None = None,
    columns: Mapping[str, str] | None = None,
    scorer: str = "",
    scale: Scale | None = None,
    answer: AnswerForm | Literal[""] = "",
) -> Summary:
    """Score every row of a data file, and write the scored rows to `rows_out` where given; see `Scoring`.

    A row holds `output` (a model's raw text; null counts as unextracted) or `prediction` (already extracted: a string,
    or a list of spans), and `answers`: alternatives, each a string or a list of spans. `fields` names other fields for
    them. `gold` is a data reference ("gsm8k:test.jsonl"): then the answers are those of the problem that the row names.
    In CSV and TSV a cell that begins with "[" is read as JSON.

    Nothing is written before every row was read. Raises UsageError with file, line and reason for a row that cannot be
    scored, or where `rows_out` is the file itself; FractionateError when `rows_out` cannot be written.
    """
    scoring = Scoring(dataset, scorer, scale, gold, fields or Fields(), columns or {}, answer)
    return score_to(path, rows_out, scoring).summary()


def score_to(path: Path, rows_out: Path | None, scoring: Scoring) -> Scored:
    """Score a file as `score_file` does, and return its rows."""
    if rows_out is not None and rows_out.exists() and path.exists() and rows_out.samefile(path):
        raise UsageError(f"{rows_out} is the file that is scored: name another for the scored rows")
    scored = score_rows(file_rows(path), scoring)
    if not scored.rows:
        raise UsageError(f"{path} has no rows to score")
    if rows_out is not None:
        _write(scored.rows, rows_out)
    return scored


def score_rows(rows: Iterable[Row], scoring: Scoring, *, repeats: bool = False, lenient: bool = False) -> Scored:
    """Score rows as `score_file` does those of a file. Raises UsageError as it does.

    `repeats` allows several rows of one gold question; `lenient` also scores the lenient reading, where there is one.
    """
    rows = list(rows)
    gold = find_gold(scoring.gold, scoring.columns, scoring.fields.index, rows) if scoring.gold else None
    matched = list(enumerate(rows))
    if gold is not None:
        if not repeats:
            _refuse_twice(rows, gold)
        matched = [(position, row) for position, row in matched if gold.key(row) in gold.problems]
        named = {gold.key(row) for _, row in matched}
    answers = [row_answers(row, gold, scoring) for _, row in matched]
    identity = ""
    if scoring.is_figure:
        scored, scorer = _figures(matched, answers, scoring), scoring.scorer or f"its rating, {scoring.scale}"
    else:
        inferred = _inferred_form(scoring, gold)
        dataset = replace(scoring, answer=inferred).reader() if inferred else scoring.reader()
        form = f"--answer {scoring.answer}" if scoring.answer else ""
        if inferred:
            form = f"--answer {inferred} (the form of the known answers)"
        scorer = scoring.scorer or form or dataset.name
        if dataset.by_calls and scoring.judge:
            judge = scoring.judge()
            scored, identity = _judged(matched, answers, gold, scoring, judge), judge.identity
        else:
            scored = [
                _read(row, _of_several(dataset, of_row, scoring), of_row, scoring.fields, position, lenient)
                for (position, row), of_row in zip(matched, answers, strict=True)
            ]
    against = repr(scoring.fields.answers or "answers")
    if gold is not None:
        against = f"the answers of {gold.reference} by {gold.described()}"
        unmatched = len(rows) - len(matched), len(gold.problems) - len(named)
        return Scored(scored, scorer, against, gold, *unmatched, judge=identity)
    return Scored(scored, scorer, against, judge=identity)


def _inferred_form(scoring: Scoring, gold: Gold | None) -> AnswerForm | Literal[""]:
    """Return the form of the answers of gold data in the user's own rows, "" where something else says it."""
    if gold is None or scoring.dataset or scoring.scorer or scoring.answer:
        return ""
    if datasets.parse_reference(scoring.gold).name != datasets.OWN_ROWS:
        return ""
    form = infer_form(problem.answers for problem in gold.problems.values())
    return "" if form == "text" else form


def summarize(scored: Sequence[ScoredRow]) -> Summary:
    """Return the means of at least one scored row."""
    n = len(scored)
    return {
        "n": n,
        "exact_match": sum(row.score.exact_match for row in scored) / n,
        "f1": sum(row.score.f1 for row in scored) / n,
        "unextracted": sum(not row.extracted for row in scored) / n,
    }


def misfit(scored: Sequence[ScoredRow], scorer: str) -> str:
    """Return that a scorer parses less than half of the outputs, and which one parses more; "" where it fits."""
    unparsed = sum(not row.extracted for row in scored)
    outputs = [row.output for row in scored if row.output]
    if 2 * unparsed <= len(scored):
        return ""
    fix = "no other reader parses more: check that --output-field names the model's raw output"
    if better := better_reader(outputs, len(scored) - unparsed):
        name, form, parsed = better
        fix = f"--dataset {name} (answers of the form {form}) parses {parsed} of {len(outputs)}"
    return f"the scorer {scorer} does not fit: {unparsed} of {len(scored)} unparsed; {fix}"


def better_reader(outputs: Sequence[str], parsed: int) -> tuple[str, AnswerForm, int] | None:
    """Return the data set whose reader parses the most outputs, its form of answer and their number.

    None where no reader parses more than `parsed`.
    """
    readers = {name: datasets.get(name).extract for name in ("gsm8k", "strategyqa", "aqua", "drop", "jsonl")}
    counts = {name: sum(read(output) is not None for output in outputs) for name, read in readers.items()}
    best = max(counts, key=lambda name: counts[name])
    return (best, datasets.get(best).answer_form, counts[best]) if counts[best] > parsed else None


def file_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of outputs; in tables of text a cell that writes a list as JSON is that list."""
    for row in read_rows(path):
        if path.suffix.lower() in TEXT_TABLES:
            row = Row({name: list_in(cell) for name, cell in row.values.items()}, row.where)
        yield row


def _refuse_twice(rows: Sequence[Row], gold: Gold) -> None:
    """Raise UsageError where two rows answer one question of the gold data, and no field tells them apart."""
    seen: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = (gold.key(row), *(str(row.values[name]) for name in REPEATS if row.values.get(name) is not None))
        if key in seen:
            raise row.error(
                f"{gold.field!r} is {key[0]!r} as in {seen[key].where}: a question has one row, or rows with a field "
                f"{', '.join(REPEATS)}"
            )
        seen[key] = row


def _identity(row: Row, fields: Fields, position: int) -> dict[str, Any]:
    given = (at(row.values, name) for name in ("id", fields.index or "index"))
    found = next((value for value in given if value not in (None, "")), None)
    return {"identity": str(position if found is None else found), "id": found, "position": position}


def _of_several(dataset: Dataset, answers: Sequence[Answer], scoring: Scoring) -> Dataset:
    """Return how one row is read: as a set of numbers where a number data set's gold answer has several.

    The reader of a single number refuses "4 and 9", which it cannot choose from.
    """
    several = dataset.answer_form == "number" and any(len(answer) > 1 for answer in answers)
    return datasets.answered_as(dataset, "numbers") if several and not (scoring.answer or scoring.scorer) else dataset


def _read(
    row: Row, dataset: Dataset, answers: tuple[Answer, ...], fields: Fields, position: int, lenient: bool
) -> ScoredRow:
    output = row_output(row, fields.output)
    prediction = row_prediction(row) if output is MISSING else None if output is None else dataset.extract(output)
    text = output if isinstance(output, str) else None
    score = dataset.score(prediction, answers)
    return ScoredRow(
        prediction,
        score,
        prediction is not None and any(span.strip() for span in prediction),
        **_identity(row, fields, position),
        output=text,
        lenient=dataset.lenient_score(text, answers, prediction, score) if lenient and text is not None else None,
    )


def _figures(
    matched: Sequence[tuple[int, Row]], answers: Sequence[tuple[Answer, ...]], scoring: Scoring
) -> list[ScoredRow]:
    """Score by the user's function or by rating. A row without an output scores 0 and counts as unparsed."""
    function = load_function(scoring.scorer) if scoring.scorer else None
    outputs = []
    for _, row in matched:
        fields = (scoring.fields.output,) if scoring.fields.output else ("output", "prediction")
        value = next((found for name in fields if (found := at(row.values, name, MISSING)) is not MISSING), MISSING)
        if value is MISSING:
            raise row.error(f"no field {' or '.join(map(repr, fields))}: name the field with --output-field")
        outputs.append(value if value is None or isinstance(value, str) or function is None else json.dumps(value))
    figures: list[Any] = list(outputs)
    if function is not None:
        plain = [[spans[0] if len(spans) == 1 else list(spans) for spans in of_row] for of_row in answers]
        figures = call_for_each(function, [row for _, row in matched], outputs, plain, scoring.scorer)
    found = []
    for (position, row), output, figure in zip(matched, outputs, figures, strict=True):
        extracted = output is not None and (not isinstance(output, str) or bool(output.strip()))
        said = f"{row.where}: {scoring.scorer or 'the rating'}"
        share = (scoring.scale or Scale(0.0, 1.0)).share(figure, said) if extracted else 0.0
        text = output if isinstance(output, str) else None if output is None else str(output)
        found.append(
            ScoredRow(
                None if text is None else (text,),
                Score(share, share),
                extracted,
                **_identity(row, scoring.fields, position),
                output=text,
            )
        )
    return found


def _judged(
    matched: Sequence[tuple[int, Row]],
    answers: Sequence[tuple[Answer, ...]],
    gold: Gold | None,
    scoring: Scoring,
    judge: RowJudge,
) -> list[ScoredRow]:
    """Score by a judge, all rows together. A row without an output scores 0 and counts as unparsed."""
    named = [_identity(row, scoring.fields, position) for position, row in matched]
    outputs = [row_output(row, scoring.fields.output) for _, row in matched]
    if any(output is MISSING for output in outputs):
        raise matched[outputs.index(MISSING)][1].error("no 'output': name the field with --output-field")
    problems = [
        gold.problems[gold.key(row)] if gold else _problem(row, known, name["identity"])
        for (_, row), known, name in zip(matched, answers, named, strict=True)
    ]
    scores = judge.grade(problems, [output or "" for output in outputs])
    said: dict[str, list[str]] = {}
    for name, output in zip(named, outputs, strict=True):
        said.setdefault(name["identity"], []).append(output or "")
    alone, labels = one_output_each(said), scoring.labels or Labels(Path())
    return [
        ScoredRow(
            None if output is None or score is None else (output,),
            score or ZERO,
            bool(output and output.strip()) and score is not None,
            **name,
            output=output,
            label=labels.of(name["identity"], output or "", only_output=name["identity"] in alone),
        )
        for output, score, name in zip(outputs, scores, named, strict=True)
    ]


def _problem(row: Row, answers: tuple[Answer, ...], identity: str) -> Problem:
    """Return the question of a row that the judge is shown."""
    question, context = (str(row.values.get(name) or "") for name in ("question", "context"))
    if not question:
        raise row.error("no 'question' for the judge to read: name the data that hold it with --gold")
    return Problem(identity, question, answers, context)


def _write(scored: Sequence[ScoredRow], path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8", errors="backslashreplace") as out:
            out.writelines(json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in scored)
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None
