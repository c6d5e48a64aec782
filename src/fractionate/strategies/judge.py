"""Scoring by calls: a judge (a model with a rubric), or a user's async function. Coroutines, as strategies are.

So judgements are stored, paid for, bounded and forecast as all other calls are. The judge sees the question, the known
answers and the output, never the name of the system that wrote it. Two outputs are compared in both orders, since
judges prefer a place (Zheng et al., arXiv 2306.05685, section 3.3): a preference that turns with the order is a tie.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from fractionate.config import JudgeConfig
from fractionate.errors import UsageError
from fractionate.files import utf8
from fractionate.models.base import Call, CallCoroutine, Model, SingleModel
from fractionate.models.faults import PermanentFault
from fractionate.prompts import SHIPPED, Instructions
from fractionate.scoring.metrics import ZERO
from fractionate.scoring.scorers import ByFunction, plain_answers, share_of
from fractionate.strategies.base import Sampler
from fractionate.types import Completion, Message, Origin, Problem, Request, Score, Usage

DEFAULT_RUBRIC = (
    "An answer is right where it says the same as a known answer. Wording, length, order and form do not matter; an "
    "answer that leaves out a part of what is asked, contradicts itself or names several answers is not right."
)
PREFERENCE_RUBRIC = "The better answer is the one that is right and helps the asker more."
MOST_CHARACTERS = 20_000
"""Characters of an output that the judge is shown; of a longer one its two ends."""
TRIES = 2
"""How often a judge is asked for a verdict that can be read."""
_VERDICT = re.compile(r"verdict\W{1,8}([a-z]+|[1-5])(?![\w.,]*\d)", re.IGNORECASE)
_GRADES = {
    "yes-no": {"yes": 1.0, "no": 0.0},
    "1-5": {str(grade): (grade - 1) / 4 for grade in range(1, 6)},
    "preference": {"a": 1.0, "tie": 0.5, "b": 0.0},
}


class Graded(NamedTuple):
    """One output's score (None where no verdict could be read), what scoring it took, and why it failed."""

    score: Score | None
    usage: Usage = Usage()
    failure: str = ""


class Grader(Protocol):
    """Scores outputs by calls."""

    @property
    def model(self) -> Model:
        """The model that is called."""

    @property
    def identity(self) -> str:
        """Everything that its scores depend on, as text: outcomes of different identities are not comparable."""

    def grade(self, problem: Problem, output: str) -> CallCoroutine[Graded]:
        """Score one output."""


@dataclass(frozen=True)
class Judge:
    """A model with a rubric."""

    sampler: Sampler
    config: JudgeConfig
    instructions: Instructions = SHIPPED

    @property
    def model(self) -> Model:
        """The model that is called."""
        return self.sampler.model

    @cached_property
    def instruction(self) -> str:
        """The instruction, with the rubric."""
        scale, reasons = self.config.scale, self.config.reasons
        standard = PREFERENCE_RUBRIC if scale == "preference" else DEFAULT_RUBRIC
        how = "First write your reasons in a few sentences. Then write" if reasons else "Write nothing but"
        return self.instructions.fill(f"judge-{scale}", rubric=self.config.rubric or standard, reasons=how)

    @cached_property
    def identity(self) -> str:
        """Model, version, scale, and a digest of the prompt and how it is sampled."""
        sampled = repr((self.instruction, self.sampler.temperature, self.config.max_tokens))
        digest = hashlib.sha256(utf8(sampled)).hexdigest()[:8]
        version = f", version {self.config.version}" if self.config.version else ""
        return f"{self.model.name}{version}, {self.config.scale}, prompt {digest}"

    @cached_property
    def _first_sample(self) -> int:
        """The number of the first sample: another for each version, so that a changed judge is asked anew."""
        version = self.config.version
        return int(hashlib.sha256(utf8(version)).hexdigest()[:7], 16) if version else 0

    def grade(self, problem: Problem, output: str) -> CallCoroutine[Graded]:
        """Score one output; an empty one is wrong, without a call."""
        if not output.strip():
            return Graded(ZERO)
        share, usage, failure = yield from self._ask(problem, [("Answer to grade", output)])
        return Graded(None if share is None else Score(share, share), usage, failure)

    def prefer(self, problem: Problem, a: str, b: str) -> CallCoroutine[tuple[float | None, Usage]]:
        """Return 1 where a is better, 0 where b is, 0.5 for a tie or where the order decides; None where not read."""
        if a.strip() == b.strip():
            return 0.5, Usage()
        first, usage, _ = yield from self._ask(problem, [("Answer A", a), ("Answer B", b)])
        second, more, _ = yield from self._ask(problem, [("Answer A", b), ("Answer B", a)])
        if first is None or second is None:
            return None, usage + more
        return (first if first + second == 1.0 else 0.5), usage + more

    def _ask(
        self, problem: Problem, shown: Sequence[tuple[str, str]]
    ) -> CallCoroutine[tuple[float | None, Usage, str]]:
        request = Request(
            (Message("system", self.instruction), Message("user", _case(problem, shown))),
            "judge",
            self.sampler.max_tokens or self.config.max_tokens,
            self.sampler.temperature,
            origin=Origin(problem),
        )
        usage, failure = Usage(), ""
        for sample in range(TRIES):
            asked = Call(
                self.model,
                replace(request, sample=self._first_sample + sample),
                expected=Completion(f"Verdict: {next(iter(_GRADES[self.config.scale]))}"),
                longest=Completion(""),
            )
            (reply,) = yield [asked]
            usage += reply.usage
            share = read_verdict(reply.text, self.config.scale)
            if share is not None:
                return share, usage, ""
            failure = f"judge: {reply.error or 'no verdict could be read'}"
        return None, usage, failure


def read_verdict(reply: str, scale: str) -> float | None:
    """Return the last verdict of a judge's reply as a share of its scale, 0 to 1; None where there is none."""
    grades = _GRADES[scale]
    said = [match[1].lower() for match in _VERDICT.finditer(reply)]
    if not said:
        said = [reply.strip().strip(".*\"'").lower()]
    return grades.get(said[-1])


def _case(problem: Problem, shown: Sequence[tuple[str, str]]) -> str:
    known = ["; ".join(answer) for answer in problem.answers if any(answer)]
    parts = [f"Context: {problem.context}"] if problem.context else []
    parts.append(f"Question: {problem.question}")
    if known:
        parts.append("Known answers:\n" + "\n".join(f"- {answer}" for answer in known))
    parts += [f"{title}:\n<<<\n{_shortened(output)}\n>>>" for title, output in shown]
    return "\n\n".join(parts)


def _shortened(output: str) -> str:
    if len(output) <= MOST_CHARACTERS:
        return output
    half = MOST_CHARACTERS // 2
    return f"{output[:half]}\n[… {len(output) - MOST_CHARACTERS:,} characters left out …]\n{output[-half:]}"


class FunctionModel(SingleModel):
    """A user's async function as a model: each call scores an output. Its file is part of its identity."""

    takes = frozenset()

    def __init__(self, score: ByFunction) -> None:
        self.name = score.name
        content = Path(score.file).read_bytes() if Path(score.file).is_file() else b""
        self.identity = f"{score.name}@{hashlib.sha256(content).hexdigest()[:16]}"
        self._score = score

    async def complete(self, request: Request) -> Completion:
        """Call the function; what it raises is a failed call."""
        case = json.loads(request.messages[0].content)
        try:
            value = self._score.function(case["output"], case["answers"])
            value = await value if inspect.isawaitable(value) else value
            share = share_of(value, self.name)
        except asyncio.CancelledError:
            raise
        except (Exception, SystemExit) as error:
            kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
            said = " ".join(f"{kind}{error}".split())
            raise PermanentFault("scorer", f"{self.name} failed: {said}") from None
        return Completion(repr(share.exact_match), usage=Usage(calls=1))


@dataclass(frozen=True)
class FunctionGrader:
    """A user's async function."""

    model: FunctionModel

    @property
    def identity(self) -> str:
        """The function's name, with a digest of its file."""
        return self.model.identity

    def grade(self, problem: Problem, output: str) -> CallCoroutine[Graded]:
        """Score one output; an empty one is wrong, without a call."""
        if not output.strip():
            return Graded(ZERO)
        case = json.dumps({"output": output, "answers": plain_answers(problem.answers)}, ensure_ascii=False)
        request = Request((Message("arguments", case),), "judge", max_tokens=16, origin=Origin(problem))
        (reply,) = yield [Call(self.model, request, expected=Completion("1.0"), longest=Completion("1.0"))]
        if reply.error:
            return Graded(None, failure=reply.error)
        value = float(reply.text)
        return Graded(Score(value, value))
