"""One request worked through: the strategy's coroutine with live calls, and events while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fractionate import strategies
from fractionate.calls.drive import Stepper
from fractionate.errors import FractionateError, shortened
from fractionate.models.base import Call, CallCoroutine, CompositeModel, Model, SingleModel
from fractionate.models.faults import Fault, PermanentFault
from fractionate.models.tokens import count_tokens
from fractionate.serve.errors import of_fault
from fractionate.serve.metrics import Metrics
from fractionate.serve.plan import Plan
from fractionate.serve.upstream import Upstream
from fractionate.strategies.base import Solution, Task
from fractionate.strategies.decompose import decompose
from fractionate.strategies.prompting import numbered_lines
from fractionate.strategies.stepwise import short_answer
from fractionate.strategies.structured import as_text
from fractionate.tools.base import LISTING, ToolModel
from fractionate.types import Answer, Completion, Component, Decomposition, Role, ToolUse, Usage

SHOWN_OF_TOOL = 300
"""Characters of a tool's reply that a client is shown."""
DECOMPOSER_SHARE = 0.5
"""The share of the remaining time that a decomposer may take, so that time is left for the solver."""


@dataclass(frozen=True, slots=True)
class Event:
    """A piece that a client sees while its answer is made: text of the answer, or of the reasoning before it.

    `facts` has the same in fields: {"subquestions": […]}, {"sub_answer": {"number", "question", "answer"}} or
    {"tool_call": {"tool", "asked", "reply", "failed"}}.
    """

    choice: int
    content: str = ""
    reasoning: str = ""
    facts: dict[str, Any] | None = None


OnEvent = Callable[[Event], None]


@dataclass
class Choice:
    """One answer and its steps. `reasoning` is the text shown before the answer's first word."""

    index: int
    content: str = ""
    refusal: str = ""
    finish_reason: str = "stop"
    reasoning: str = ""
    answer: Answer | None = None
    decomposition: Decomposition | None = None
    sub_answers: Sequence[str] = ()
    degraded: bool = False
    """Whether the decomposer failed, so that the question was answered in a single stage."""
    cut_off: list[Role] = field(default_factory=list)
    """Roles whose replies were cut off at `max_tokens`."""


@dataclass
class Answered:
    """A request's answers, with usage and dollars by role (None: no price is known)."""

    plan: Plan
    choices: list[Choice]
    usage: dict[Role, Usage] = field(default_factory=lambda: {"decomposer": Usage(), "solver": Usage()})
    usd: dict[Role, float | None] = field(default_factory=lambda: {"decomposer": 0.0, "solver": 0.0})
    _tools: dict[tuple[Role, str], tuple[ToolUse, float | None]] = field(default_factory=dict)
    seconds: dict[Role, float] = field(default_factory=lambda: {"decomposer": 0.0, "solver": 0.0})
    """Summed wall seconds of the calls; calls that overlap count in full."""

    @property
    def degraded(self) -> bool:
        """Whether any of the answers was made without the decomposer."""
        return any(choice.degraded for choice in self.choices)

    @property
    def deviations(self) -> list[str]:
        """How this answer differs from the measured ones, in a word each; [] where it does not.

        A field that a server does not support counts: its requests were sent without it.
        """
        models = [self.plan.solver.model, *([self.plan.decomposer.model] if self.plan.decomposer else [])]
        left_out = sorted(frozenset().union(*(model.left_out for model in models)))
        differing = [*self.plan.deviations, *left_out, *(["decomposer"] if self.degraded else [])]
        return list(dict.fromkeys(differing))

    def count_tool(self, role: Role, tool: str, completion: Completion, usd: float | None) -> None:
        """Add a call of a tool, which is among the role's calls as well."""
        use = ToolUse(tool, 1, int(bool(completion.error)), count_tokens(completion.text), completion.latency_s)
        before, spent = self._tools.get((role, tool), (ToolUse(tool), 0.0))
        self._tools[role, tool] = before.plus(use), None if spent is None or usd is None else spent + usd

    @property
    def tools(self) -> list[tuple[Role, tuple[ToolUse, float | None]]]:
        """What each role used of each tool, and its dollars."""
        return [(role, used) for (role, _), used in self._tools.items()]

    def count(self, role: Role, completion: Completion, usd: float | None) -> None:
        """Add a call."""
        self.usage[role] += completion.usage
        self.seconds[role] += completion.latency_s
        before = self.usd[role]
        self.usd[role] = None if before is None or usd is None else before + usd


class DecomposerFailedError(Exception):
    """The decomposer gave no decomposition."""


class Answerer:
    """Answers planned requests."""

    def __init__(self, upstream: Upstream, metrics: Metrics) -> None:
        self._upstream = upstream
        self._metrics = metrics

    async def answer(self, plan: Plan, account: str, until: float, on_event: OnEvent | None = None) -> Answered:
        """Answer a request by `until` (loop time). Raises Refusal where its solver fails."""
        choices = [Choice(index) for index in range(plan.client_request.n)]
        answered = Answered(plan, choices)
        workings = [_Working(self._upstream, answered, choice, account, until, on_event) for choice in choices]
        if len(workings) == 1:
            await workings[0].run()
        else:
            await together([working.run() for working in workings])
        for choice in choices:
            if choice.degraded:
                self._metrics.degraded.add()
        return answered


class _Working:
    """One choice in progress."""

    def __init__(
        self,
        upstream: Upstream,
        answered: Answered,
        choice: Choice,
        account: str,
        until: float,
        on_event: OnEvent | None,
    ) -> None:
        self._upstream = upstream
        self._answered = answered
        self._plan = answered.plan
        self._choice = choice
        self._account = account
        self._until = until
        self._on_event = on_event
        self._final: Completion | None = None
        self._text_shown = False

    async def run(self) -> None:
        plan, choice = self._plan, self._choice
        try:
            solution = await self._solve()
        except DecomposerFailedError:
            choice.degraded = True
            single = strategies.get("single").coroutine(self._task(None).without_decomposition())
            solution = await self._drive(single)
        completion = self._final or _reply_behind(solution)
        choice.decomposition, choice.sub_answers = solution.decomposition, solution.sub_answers
        choice.cut_off += dict.fromkeys(role for role, call in solution.calls if call.finish_reason == "length")
        choice.answer = plan.dataset.extract(solution.output)
        if completion.reasoning:
            self._show_steps(reasoning=completion.reasoning)
        if completion.finish_reason == "refusal":
            choice.refusal = completion.error
        else:
            choice.finish_reason = completion.finish_reason
            shown = completion.text if self._final is not None and plan.streams_text else solution.output
            if not self._text_shown and shown:
                self._show_text(shown)
            elif shown:
                choice.content = shown  # the text with the key hidden in it as a whole, not piece by piece

    async def _solve(self) -> Solution:
        plan = self._plan
        decomposition = None
        if plan.pair.strategy.stages == "two-stage":
            assert plan.decomposer is not None, "a two-stage pair has a decomposer"
            settings = self._settings(as_decomposer=True)
            decomposition, said = await self._drive(decompose(plan.problem, plan.decomposer, settings))
            if said.finish_reason == "length":
                self._choice.cut_off.append("decomposer")
            if decomposition.subquestions:
                lines = numbered_lines(decomposition.subquestions)
                self._show_steps(lines + "\n", {"subquestions": list(decomposition.subquestions)})
        solution: Solution = await self._drive(plan.pair.strategy.coroutine(self._task(decomposition)))
        return solution

    def _task(self, decomposition: Decomposition | None) -> Task:
        plan = self._plan
        return Task(
            plan.problem,
            plan.dataset.answer_form,
            plan.solver,
            plan.decomposer,
            decomposition,
            self._settings(),
            plan.dataset,
        )

    def _settings(self, *, as_decomposer: bool = False) -> Any:
        """Return the settings of this choice; a decomposer at temperature 0 has only one sample."""
        decomposer = self._plan.decomposer
        same = as_decomposer and decomposer is not None and not decomposer.temperature
        sample = 0 if same else self._choice.index
        return self._plan.settings if sample == 0 else replace(self._plan.settings, sample=sample)

    async def _drive(self, coroutine: CallCoroutine[Any]) -> Any:
        """Run a coroutine to its end and return its value."""
        stepper = Stepper(coroutine, whole=True)
        completions: list[Completion] | None = None
        try:
            while (calls := stepper.send(completions)) is not None:
                if len(calls) == 1:
                    completions = [await self._reply(calls[0])]
                else:
                    completions = await together([self._reply(call, alone=False) for call in calls])
            return stepper.value
        finally:
            stepper.close()

    async def _reply(self, call: Call, *, alone: bool = True) -> Completion:
        final = call.final and alone
        if call.subquestion and self._plan.pair.strategy.stages == "dynamic":
            number = len(self._choice.sub_answers) + 1
            self._show_steps(f"{number}. {call.subquestion}\n", {"subquestions": [call.subquestion]})
        composite = isinstance(call.model, CompositeModel)
        live = final and self._on_event is not None and self._plan.streams_text and not composite
        if call.request.role == "decomposer":
            completion = await self._decomposed(call)
        else:
            try:
                completion = await self._send(
                    call, self._plan.pair.solver, self._until, self._show_text if live else None
                )
            except (Fault, FractionateError) as fault:
                raise of_fault(fault) from fault
        if final:
            self._final = completion
        if call.subquestion:
            answer = short_answer(as_text(completion.text))
            self._choice.sub_answers = [*self._choice.sub_answers, answer]
            number = len(self._choice.sub_answers)
            fact = {"number": number, "question": call.subquestion, "answer": answer}
            self._show_steps(f"Answer {number}: {answer}\n", {"sub_answer": fact})
        return completion

    async def _decomposed(self, call: Call) -> Completion:
        """Return the decomposer's reply. Raises DecomposerFailedError where there is none in time."""
        now = asyncio.get_running_loop().time()
        until = now + DECOMPOSER_SHARE * (self._until - now)
        pair = self._plan.pair
        component = pair.decomposer if pair.decomposer.model else pair.solver
        try:
            if call.model.replays:
                return await self._send(call, component, until, None)
            async with asyncio.timeout_at(until):
                return await self._send(call, component, until, None)
        except (Fault, FractionateError, TimeoutError) as error:
            raise DecomposerFailedError from error

    async def _send(
        self, call: Call, component: Component, until: float, on_text: Callable[[str], None] | None
    ) -> Completion:
        if isinstance(call.model, CompositeModel):
            return await self._use_tools(call.model, call, component, until)
        request = self._plan.request(call)
        priced_as = call.model.name if isinstance(call.model, ToolModel) else component.model
        completion, usd = await self._upstream.call(
            _single(call.model), request, priced_as, self._account, until, on_text
        )
        role: Role = "decomposer" if request.role == "decomposer" else "solver"
        self._answered.count(role, completion, usd)
        if isinstance(call.model, ToolModel) and request.messages[-1] != LISTING:
            self._answered.count_tool(role, call.model.short_name, completion, usd)
        return completion

    async def _use_tools(self, model: CompositeModel, call: Call, component: Component, until: float) -> Completion:
        """Return the reply of a model with tools. Each look-up is shown as a step, and a failed one is told the model.

        Its text is shown whole at the end: only then is it known that a reply is the answer and not another look-up.
        """
        answering = model.answer(call)
        completions: list[Completion] | None = None
        while True:
            try:
                calls = answering.send(completions)  # type: ignore[arg-type]  # None starts it
            except StopIteration as stop:
                completion: Completion = stop.value
                break
            completions = await together([self._part(one, component, until) for one in calls])
        if completion.error and completion.finish_reason == "error":
            raise PermanentFault("failed", f"{model.name}: {completion.error}")
        return completion

    async def _part(self, call: Call, component: Component, until: float) -> Completion:
        """Return the reply to one call of a model with tools."""
        if not isinstance(call.model, ToolModel):
            return await self._send(call, component, until, None)
        asked = call.request.messages[-1]
        try:
            completion = await self._send(call, component, until, None)
        except Fault as fault:
            completion = Completion("", "error", error=fault.message)
        if asked != LISTING:
            name, failed = call.model.short_name, bool(completion.error)
            said = shortened(" ".join((completion.error or completion.text).split()), SHOWN_OF_TOOL)
            fact = {"tool": name, "asked": asked.content, "reply": said, "failed": failed}
            self._show_steps(f"{name}: {asked.content}\n{said}\n", {"tool_call": fact})
        return completion

    def _show_text(self, text: str) -> None:
        self._text_shown = True
        self._choice.content += text
        if self._on_event is not None:
            self._on_event(Event(self._choice.index, content=text))

    def _show_steps(self, reasoning: str, facts: dict[str, Any] | None = None) -> None:
        self._choice.reasoning += reasoning
        if self._on_event is not None:
            self._on_event(Event(self._choice.index, reasoning=reasoning, facts=facts))


def _single(model: Model) -> SingleModel:
    assert isinstance(model, SingleModel), f"{model.name} answers no single requests"
    return model


def _reply_behind(solution: Solution) -> Completion:
    """Return the reply that the output comes from: of several votes, the winning one."""
    completions = [completion for _, completion in solution.calls]
    own = (completion for completion in reversed(completions) if as_text(completion.text) == solution.output)
    return next(own, completions[-1])


async def together(works: Sequence[Any]) -> list[Any]:
    """Await several coroutines at once; when one fails the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
