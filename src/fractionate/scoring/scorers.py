"""The scorers that a config may name besides data sets: one table, for runs, `score` and `compare` alike.

A scorer reads an answer out of an output, and scores it against the known answers. All of them are plain objects that
can be sent to another process. `docs/guide/scoring.md` says which one is for which answers.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from fractionate.config.scorers import OPTIONS, ScorerConfig
from fractionate.databases import Database
from fractionate.errors import UsageError, missing_extra, shortened
from fractionate.plugin import find_plugin, load_function
from fractionate.scoring.forms import READERS, read_whole
from fractionate.scoring.metrics import ONE, ZERO, text_score
from fractionate.scoring.structured import SameFields, SameRows, read_json, read_query, whole
from fractionate.types import Answer, AnswerForm, Score

Metric = Literal["exact_match", "f1"]
Extract = Callable[[str], Answer | None]
ScoreAnswer = Callable[[Answer | None, Sequence[Answer]], Score]
EXTRA = "scorers"
"""The optional install of fractionate with what "json" and "math" need."""


@dataclass(frozen=True)
class Scorer:
    """How answers of a user's own rows are read and scored (`data.scorer`), where no data set here does it so.

    Other packages bring them (`fractionate.scorers`); the fields are those of `Dataset`.
    """

    name: str
    metric: Metric
    answer_form: AnswerForm
    extract: Extract
    score: ScoreAnswer
    by_calls: bool = False
    """Whether calls score an output (a judge, an async function), so that `score` is only what stands in for them."""


def open_scorer(config: ScorerConfig, base: Path) -> Scorer | None:
    """Return the scorer that a config names, None where only a data set can have that name.

    Relative paths are looked for in `base`, then in the working directory. Raises UsageError for a missing file or
    package, and for a plug-in that is no scorer.
    """
    name = config.name
    if name in get_args(AnswerForm):
        form = cast(AnswerForm, name)
        reader = READERS[form]
        return Scorer(name, "f1" if form == "span" else "exact_match", form, reader.extract, reader.score)
    if config.is_function:
        return _of_function(config, base)
    if name in OPTIONS:
        return _MAKERS[name](config, base)
    plugin = find_plugin("scorers", name)
    if plugin is not None and not isinstance(plugin, Scorer):
        raise UsageError(f"the plug-in {name!r} of fractionate.scorers is no Scorer: see fractionate.plugin")
    return plugin


@dataclass(frozen=True)
class Contains:
    """Scores 1 where every span of an alternative stands in the output."""

    ignore_case: bool
    whole_words: bool

    def __call__(self, prediction: Answer | None, answers: Sequence[Answer]) -> Score:
        """Return the score against the best alternative; no prediction scores 0."""
        said = prediction[0] if prediction else ""
        right = bool(said) and any(answer and all(self._holds(said, span) for span in answer) for answer in answers)
        return ONE if right else ZERO

    def _holds(self, said: str, span: str) -> bool:
        wanted = " ".join(span.split())
        if not wanted:
            return False
        before, after = (r"(?<!\w)", r"(?!\w)") if self.whole_words else ("", "")
        text = before + re.escape(wanted).replace(r"\ ", r"\s+") + after
        return re.search(text, said, re.IGNORECASE if self.ignore_case else 0) is not None


@dataclass(frozen=True)
class Match:
    """Reads the last match of a pattern: its first group, or all of it."""

    pattern: str
    ignore_case: bool

    def __call__(self, output: str) -> Answer | None:
        """Return the match as one span, None where there is none."""
        flags = re.IGNORECASE if self.ignore_case else 0
        matches = list(re.finditer(self.pattern, whole(output), flags))
        if not matches:
            return None
        found = matches[-1]
        said = (found[1] if found.re.groups else found[0]) or ""
        return (said.strip(),) if said.strip() else None


@dataclass(frozen=True)
class IsMatched:
    """Scores 1 where a known answer, as a pattern, matches the output."""

    ignore_case: bool

    def __call__(self, prediction: Answer | None, answers: Sequence[Answer]) -> Score:
        """Return the score against the best alternative; no prediction scores 0."""
        flags = re.IGNORECASE if self.ignore_case else 0
        for answer in answers if prediction else ():
            try:
                if prediction and answer and all(re.search(span, prediction[0], flags) for span in answer):
                    return ONE
            except re.error as error:
                raise UsageError(
                    f"the known answer {shortened(repr(answer[0]), 60)} is no regular expression ({error}): give "
                    'the scorer "regex" a pattern'
                ) from None
        return ZERO


LONGEST_MATH = 2_000
"""Characters at the end of an output in which an expression is looked for."""


def score_math(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    """Score 1 where math-verify finds an output's last expression equal to a known answer."""
    from math_verify import parse, verify

    if not prediction:
        return ZERO
    # Its timeouts are signals, which only the main thread may set, and which stop a run here: texts are cut instead.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    said = parse(prediction[0][-LONGEST_MATH:], parsing_timeout=None)
    for answer in answers:
        gold = parse(_in_math(answer[0]), parsing_timeout=None) if answer else []
        if said and gold and verify(gold, said, timeout_seconds=None):
            return ONE
    return ZERO


def _in_math(text: str) -> str:
    """Return a known answer as math-verify reads LaTeX: inside dollar signs, which data sets leave out."""
    return text if "$" in text or "\\boxed" in text or "\\(" in text else f"${text}$"


@dataclass(frozen=True)
class ByFunction:
    """Scores by the user's function(output, answers), which returns a number from 0 to 1."""

    name: str
    file: str

    def __call__(self, prediction: Answer | None, answers: Sequence[Answer]) -> Score:
        """Return the score against the best alternative; no prediction scores 0."""
        if not prediction:
            return ZERO
        try:
            value = self.function(prediction[0], plain_answers(answers))
            if inspect.isawaitable(value):
                value = _awaited(value)
        except (Exception, SystemExit) as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(f"{self.name} failed: {said}") from None
        return share_of(value, self.name)

    @property
    def function(self) -> Callable[..., Any]:
        """The function, loaded where it is first used: only its name is sent to another process."""
        return _loaded(f"{self.file}:{self.name.rpartition(':')[2]}")

    @property
    def is_async(self) -> bool:
        """Whether it has to be awaited."""
        return inspect.iscoroutinefunction(self.function)


def _awaited(value: Any) -> Any:
    async def wait() -> Any:
        return await value

    # In a thread of its own: where a loop runs already, asyncio.run is refused in its thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, wait()).result()


@lru_cache(maxsize=64)
def _loaded(name: str) -> Callable[..., Any]:
    return load_function(name)


def share_of(value: Any, name: str) -> Score:
    """Return a number from 0 to 1, or a truth value, as a score. Raises UsageError for anything else."""
    if hasattr(value, "item"):
        value = value.item()  # numpy's numbers are no numbers of Python
    if isinstance(value, int | float) and 0 <= value <= 1:
        return Score(float(value), float(value))
    raise UsageError(f"{name} returned {shortened(repr(value), 60)}, which is no number from 0 to 1")


def plain_answers(answers: Sequence[Answer]) -> list[str | list[str]]:
    """Return known answers as a user's function takes them: a text each, or a list of texts for several spans."""
    return [answer[0] if len(answer) == 1 else list(answer) for answer in answers]


def _there(path: str, base: Path, key: str) -> Path:
    for found in (base / Path(path).expanduser(), Path(path).expanduser()):
        if found.is_file():
            return found
    raise UsageError(f"{key}: {path} does not exist")


def _contains(config: ScorerConfig, base: Path) -> Scorer:
    score = Contains(config.ignore_case, config.whole_words)
    return Scorer("contains", "exact_match", "free", read_whole, score)


def _regex(config: ScorerConfig, base: Path) -> Scorer:
    if not config.pattern:
        return Scorer("regex", "exact_match", "free", read_whole, IsMatched(config.ignore_case))
    extract = Match(config.pattern, config.ignore_case)
    return Scorer("regex", "exact_match", config.compare, extract, READERS[config.compare].score)


def _json(config: ScorerConfig, base: Path) -> Scorer:
    schema = ""
    if config.schema_file:
        if importlib.util.find_spec("jsonschema") is None:
            raise missing_extra("jsonschema", EXTRA, 'the scorer "json" with a schema_file')
        path = _there(config.schema_file, base, "schema_file")
        schema = _read_schema(path)
    return Scorer("json", "exact_match", "free", read_json, SameFields(tuple(config.fields), schema))


def _read_schema(path: Path) -> str:
    import jsonschema

    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validators.validator_for(table, default=jsonschema.Draft202012Validator).check_schema(table)
    except (OSError, ValueError, RecursionError, jsonschema.SchemaError) as error:
        said = getattr(error, "message", None) or " ".join(str(error).split())
        raise UsageError(f"schema_file: {path} is no JSON Schema: {shortened(said, 160)}") from None
    return json.dumps(table)


def _math(config: ScorerConfig, base: Path) -> Scorer:
    if importlib.util.find_spec("math_verify") is None:
        raise missing_extra("math-verify", EXTRA, 'the scorer "math"')
    return Scorer("math", "exact_match", "free", read_whole, score_math)


def _sql(config: ScorerConfig, base: Path) -> Scorer:
    database = Database(_there(config.database, base, "database"), "database")
    try:
        database.schema()
    except Exception as error:
        raise UsageError(f"database: {database.path} cannot be read as a database: {error}") from None
    return Scorer("sql", "exact_match", "free", read_query, SameRows(database, config.ordered, config.timeout_s))


def _judge(config: ScorerConfig, base: Path) -> Scorer:
    return Scorer("judge", "exact_match", "free", read_whole, text_score, by_calls=True)


def _of_function(config: ScorerConfig, base: Path) -> Scorer:
    file, _, _ = config.name.rpartition(":")
    score = ByFunction(config.name, str(_there(file, base, f"{config.name}: write FILE.py:FUNCTION")))
    return Scorer(config.name, "exact_match", "free", read_whole, score, by_calls=score.is_async)


_MAKERS: Mapping[str, Callable[[ScorerConfig, Path], Scorer]] = {
    "contains": _contains,
    "regex": _regex,
    "json": _json,
    "math": _math,
    "sql": _sql,
    "judge": _judge,
}
