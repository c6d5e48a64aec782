"""Models that use tools: `MODEL[NAME,…]`, and tools in the place of a model: `tool:NAME`.

A reply takes several calls, each an ordinary one: of the model, which asks for tools, and of the tools. There are three
ways: calls by the OpenAI protocol; actions written in plain text (ReAct, Yao et al., arXiv 2210.03629); and
retrieve-then-read, where the tools are asked the question itself and the model reads what they say. A model uses tools
for one reply at most `turns` times, with at most `MOST_A_TURN` calls at once; then it has to answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from fractionate.files import utf8
from fractionate.models.base import Call, CallCoroutine, CompositeModel, Model, Style
from fractionate.models.tokens import FILLER, FILLER_BYTES, REPLY_BYTES, count_tokens
from fractionate.prompts import SHIPPED, instruction
from fractionate.tools.base import LISTING, Function, ToolModel, arguments_message, call_request, hash_of
from fractionate.types import Completion, Message, Problem, Request, Role, ToolUse, Usage

How = Literal["calls", "react", "retrieve"]
MOST_A_TURN = 4
"""Calls of tools that one reply of a model may ask for; further ones are refused."""
EXPECTED_BYTES = 1000
"""Bytes that a tool is expected to reply where nothing is known."""
_ACTION = re.compile(
    r"^[ \t>*]*Action[ \t*]*:[ \t*]*(?P<tool>[^\n]*?)[ \t*`]*\n\s*(?:Action )?Input[ \t*]*:(?P<text>.*)", re.M | re.S
)
_OBSERVATION = "Observation:"
_UNNAMED = re.compile(r"[^A-Za-z0-9_-]")

Offered = Mapping[str, tuple[ToolModel, Function]]
"""The functions that a model may call, by the names that it knows them by."""


_LISTED = Completion(json.dumps([{"name": "lookup", "description": "", "parameters": {}, "argument": "text"}]))
"""What stands in a forecast for a server's list of functions."""


class _NoFunctionsError(Exception):
    """A tool's server did not name its functions; the argument is its reply."""


class ToolSolver(CompositeModel):
    """A tool that answers by itself: it is asked the bare question or subquestion."""

    style: Style = "tool"

    def __init__(self, tool: ToolModel) -> None:
        self._tool = tool
        self.name, self.identity, self.paid = tool.name, tool.identity, tool.paid

    @property
    def parts(self) -> Sequence[Model]:
        """The tool."""
        return (self._tool,)

    def with_parts(self, parts: Sequence[Model]) -> ToolSolver:
        """Return the same with another tool."""
        (tool,) = parts
        assert isinstance(tool, ToolModel), "a tool is replaced by a tool"
        return ToolSolver(tool)

    def answer(self, call: Call) -> CallCoroutine[Completion]:
        """Ask the tool. What it says of a wrong question is no answer, and counts as its error."""
        message = Message("user", call.request.messages[-1].content)
        asked = _call_of(self._tool, message, call.request)
        (reply,) = yield [replace(asked, final=call.final, subquestion=call.subquestion)]
        used = _Used([self._tool])
        used.of_tool(self._tool, reply)
        return replace(reply, tools=used.tools)


class ToolUser(CompositeModel):
    """A model that uses tools in one of the three ways."""

    def __init__(self, name: str, model: Model, tools: Sequence[ToolModel], how: How, turns: int) -> None:
        self.name = name
        self.how = how
        self.turns = turns
        self._model = model
        self._tools = tuple(tools)
        self.identity = f"{model.identity}[{how}:{','.join(tool.identity for tool in tools)}]"
        self.style = model.style
        self.paid = model.paid or any(tool.paid for tool in tools)
        self.takes = model.takes
        self.local, self.replays = model.local, model.replays

    @property
    def parts(self) -> Sequence[Model]:
        """The model, then its tools."""
        return (self._model, *self._tools)

    def with_parts(self, parts: Sequence[Model]) -> ToolUser:
        """Return the same with another model and other tools."""
        model, *tools = parts
        return ToolUser(self.name, model, [tool for tool in tools if isinstance(tool, ToolModel)], self.how, self.turns)

    @property
    def left_out(self) -> frozenset[str]:
        """Fields that the model's server does not support."""
        return self._model.left_out

    def samples(self, problem: Problem, role: Role = "decomposer") -> int | None:
        """Return how many samples the model has."""
        return self._model.samples(problem, role)

    @property
    def counts_tokens_with(self) -> str:
        """How the model's tokens are counted."""
        return self._model.counts_tokens_with

    def answer(self, call: Call) -> CallCoroutine[Completion]:
        """Reply to a call."""
        used = _Used(self._tools)
        ways = {"calls": self._by_calls, "react": self._by_actions, "retrieve": self._by_reading}
        try:
            reply = yield from ways[self.how](call, used)
        except _NoFunctionsError as failed:
            reply = failed.args[0]
        return used.completion(reply)

    def _by_calls(self, call: Call, used: _Used) -> CallCoroutine[Completion]:
        offered = yield from self._offered(call)
        described = [_openai_tool(name, function) for name, (_, function) in offered.items()]
        messages = list(call.request.messages)
        for turn in range(1, self.turns + 2):
            fields = {"tools": described} | ({"tool_choice": "none"} if turn > self.turns else {})
            given = json.loads(call.request.further) if call.request.further else {}
            request = replace(call.request, messages=tuple(messages), further=_canonical(given | fields))
            stand_ins = _asking_json(offered, call.request, turn) if turn <= self.turns else (None, None)
            (reply,) = yield [_of_model(call, self._model, request, *stand_ins)]
            used.of_model(reply)
            if reply.finish_reason != "tool_calls":
                return reply
            if turn > self.turns:
                break
            asked = json.loads(reply.text)["tool_calls"]
            texts = yield from self._use(call, used, [_parsed(one, offered) for one in asked])
            messages.append(Message("tool_calls", reply.text))
            for one, text in zip(asked, texts, strict=True):
                messages.append(Message("tool", _canonical({"tool_call_id": one["id"], "content": text})))
        return _never_answered(reply, self.turns)

    def _by_actions(self, call: Call, used: _Used) -> CallCoroutine[Completion]:
        offered = yield from self._offered(call)
        listed = "\n".join(f"- {name}: {function.description}" for name, (_, function) in offered.items())
        messages = _with_system(call.request.messages, SHIPPED.fill("use-tools", tools=listed))
        for turn in range(1, self.turns + 2):
            if turn > self.turns:
                messages = [*messages[:-1], Message("user", f"{messages[-1].content}\n{instruction('no-more-tools')}")]
            stop = (*call.request.stop, f"\n{_OBSERVATION}")
            request = replace(call.request, messages=tuple(messages), stop=stop)
            stand_ins = _asking_text(offered, call.request, turn) if turn <= self.turns else (None, None)
            (reply,) = yield [_of_model(call, self._model, request, *stand_ins)]
            used.of_model(reply)
            action = _ACTION.search(reply.text)
            if action is None or reply.finish_reason not in ("stop", "length"):
                return reply
            if turn > self.turns:
                break
            # A model that runs on makes up the tool's reply: what it writes after its input is not read.
            text = action["text"].partition(f"\n{_OBSERVATION}")[0].strip()
            (found,) = yield from self._use(call, used, [_action(action["tool"].strip(" `*"), text, offered)])
            said = f"{reply.text[: action.start('text')].rstrip()} {text}".strip()
            messages += [Message("assistant", said), Message("user", f"{_OBSERVATION} {found}")]
        return _never_answered(reply, self.turns)

    def _by_reading(self, call: Call, used: _Used) -> CallCoroutine[Completion]:
        queries = _queries(call.request)
        asked = [_call_of(tool, Message("user", query), call.request) for query in queries for tool in self._tools]
        replies = yield asked
        lines: dict[str, None] = {}
        for one, reply in zip(asked, replies, strict=True):
            assert isinstance(one.model, ToolModel), "only tools were asked"
            used.of_tool(one.model, reply)
            lines |= dict.fromkeys(reply.text.splitlines())
        found = "\n".join(lines) if self._model.style == "student" else "Context: " + "\n".join(lines)
        messages = list(call.request.messages)
        last = max(place for place, message in enumerate(messages) if message.role == "user")
        messages[last] = Message("user", f"{found}\n\n{messages[last].content}" if lines else messages[last].content)
        (reply,) = yield [_of_model(call, self._model, replace(call.request, messages=tuple(messages)))]
        used.of_model(reply)
        return reply

    def _offered(self, call: Call) -> CallCoroutine[Offered]:
        """Return the functions of the tools; those that only a server knows take a call, which is stored as well.

        Raises _NoFunctions where a server does not name them.
        """
        known = {tool: tool.tool.functions for tool in self._tools}
        unknown = [tool for tool, functions in known.items() if functions is None]
        if unknown:
            replies = yield [
                Call(tool, call_request(LISTING, call.request.role), expected=_LISTED, longest=_LISTED)
                for tool in unknown
            ]
            for tool, reply in zip(unknown, replies, strict=True):
                if reply.error:
                    raise _NoFunctionsError(reply)
                known[tool] = [Function(**function) for function in json.loads(reply.text)]
                if reply is not _LISTED:
                    tool.tool.functions = known[tool]
        offered: dict[str, tuple[ToolModel, Function]] = {}
        for tool, functions in known.items():
            for function in functions or ():
                alone = len(functions or ()) == 1
                name = tool.short_name if alone else f"{tool.short_name}_{function.name}"
                offered[_UNNAMED.sub("_", name)[:64]] = tool, function
        return offered

    def _use(
        self, call: Call, used: _Used, asked: Sequence[tuple[ToolModel, Message] | str]
    ) -> CallCoroutine[list[str]]:
        """Make the calls that a model asks for; a text in the place of a call says what is wrong with it."""
        calls = [one for one in asked[:MOST_A_TURN] if not isinstance(one, str)]
        longest = max(int(tool.config.reply_kb * 1024) for tool in self._tools)
        replies = iter((yield [_call_of(tool, message, call.request, longest) for tool, message in calls]))
        texts = []
        for number, one in enumerate(asked):
            if number >= MOST_A_TURN:
                one = f"at most {MOST_A_TURN} tools can be called at once"
            if isinstance(one, str):
                used.wrong(self._tools[0])
                texts.append(f"Error: {one}")
                continue
            reply = next(replies)
            used.of_tool(one[0], reply)
            texts.append(f"Error: {reply.error}" if reply.error else reply.text)
        return texts


class _Used:
    """What a reply has used so far: of the model and of each tool."""

    def __init__(self, tools: Iterable[ToolModel]) -> None:
        self._usage = Usage()
        self._latency_s = 0.0
        self._tools = {tool.short_name: ToolUse(tool.short_name) for tool in tools}

    @property
    def tools(self) -> tuple[ToolUse, ...]:
        return tuple(self._tools.values())

    def of_model(self, reply: Completion) -> None:
        self._usage += reply.usage
        self._latency_s += reply.latency_s

    def of_tool(self, tool: ToolModel, reply: Completion) -> None:
        tokens = count_tokens(reply.text)
        use = ToolUse(tool.short_name, 1, int(bool(reply.error)), tokens, reply.latency_s)
        self._tools[tool.short_name] = self._tools[tool.short_name].plus(use)

    def wrong(self, tool: ToolModel) -> None:
        """Count a call that no tool could be made of."""
        self._tools[tool.short_name] = self._tools[tool.short_name].plus(ToolUse(tool.short_name, errors=1))

    def completion(self, reply: Completion) -> Completion:
        """Return a model's last reply with all that was used for it."""
        seconds = self._latency_s + sum(use.seconds for use in self._tools.values())
        return replace(reply, usage=self._usage, latency_s=seconds, tools=self.tools)


def used_tools(calls: Iterable[tuple[Role, Completion]]) -> dict[Role, tuple[ToolUse, ...]]:
    """Return what several replies used of tools, by role."""
    found: dict[Role, dict[str, ToolUse]] = {}
    for role, completion in calls:
        for use in completion.tools:
            of_role = found.setdefault(role, {})
            of_role[use.tool] = of_role[use.tool].plus(use) if use.tool in of_role else use
    return {role: tuple(uses.values()) for role, uses in found.items()}


def _of_model(
    call: Call, model: Model, request: Request, expected: Completion | None = None, longest: Completion | None = None
) -> Call:
    return replace(call, model=model, request=request, subquestion="", expected=expected, longest=longest)


def _call_of(tool: ToolModel, message: Message, request: Request, longest: int = 0) -> Call:
    """Return a call of a tool, for the question of a request, with what stands for its reply in a forecast."""
    most = longest or int(tool.config.reply_kb * 1024)
    text = "What was found. " * (min(EXPECTED_BYTES, most) // 16)
    return Call(
        tool,
        call_request(message, request.role, request),
        expected=Completion(text),
        longest=Completion(FILLER * -(-most // FILLER_BYTES)),
    )


def _queries(request: Request) -> list[str]:
    """Return what the tools are asked before a model reads: the subquestions that a prompt asks, or the question."""
    origin = request.origin
    if origin is None:
        return [request.messages[-1].content]
    if origin.subquestion:
        return [origin.subquestion]
    whole = origin.subquestions if origin.prompt == "static" else ()
    return list(dict.fromkeys([origin.problem.question, *whole]))


def _openai_tool(name: str, function: Function) -> dict[str, Any]:
    schema = dict(function.parameters) or {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": name, "description": function.description, "parameters": schema}}


def _parsed(asked: Mapping[str, Any], offered: Offered) -> tuple[ToolModel, Message] | str:
    """Return the call that an entry of `tool_calls` asks for, or what is wrong with it."""
    found = offered.get(asked["name"])
    if found is None:
        return f"there is no tool {asked['name']!r} (there are: {', '.join(offered) or 'none'})"
    try:
        arguments = json.loads(asked["arguments"] or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        return "the arguments are no JSON object"
    tool, function = found
    return tool, arguments_message(function, arguments)


def _action(name: str, text: str, offered: Offered) -> tuple[ToolModel, Message] | str:
    """Return the call that an action asks for: its input is a text, or JSON for a function of several arguments."""
    known = {each.lower(): found for each, found in offered.items()}
    found = known.get(name.lower())
    if found is None:
        return f"there is no tool {name!r} (there are: {', '.join(offered) or 'none'})"
    tool, function = found
    if function.argument and not (text.startswith("{") and len(function.parameters.get("properties", ())) > 1):
        return tool, arguments_message(function, {function.argument: text})
    return _parsed({"name": next(each for each in offered if each.lower() == name.lower()), "arguments": text}, offered)


def _with_system(messages: Sequence[Message], text: str) -> list[Message]:
    """Return messages with a text after the system message, which is made where there is none."""
    first, *rest = messages
    if first.role == "system":
        return [Message("system", f"{first.content}\n\n{text}"), *rest]
    return [Message("system", text), *messages]


def _never_answered(reply: Completion, turns: int) -> Completion:
    why = f"the model still asks for tools after {turns} turns (tool_turns)"
    return replace(reply, text="", finish_reason="error", error=why)


def _asking_json(offered: Offered, request: Request, turn: int) -> tuple[Completion | None, Completion | None]:
    """Return what stands for a reply of the protocol in a forecast: one question at first, or all that can be asked."""
    if not offered:
        return None, None
    dearest = max(offered, key=lambda name: offered[name][0].config.usd_per_call)
    argument = offered[dearest][1].argument or "text"

    def reply(texts: Sequence[str]) -> Completion:
        calls = [
            {"id": f"call_{turn}_{number}", "name": dearest, "arguments": json.dumps({argument: text})}
            for number, text in enumerate(texts)
        ]
        return Completion(_canonical({"content": "", "tool_calls": calls}), "tool_calls")

    long = FILLER * (request.max_tokens * REPLY_BYTES // FILLER_BYTES)
    most = [f"{turn}.{number}: {_told_apart(request)}{long * (number == 0)}" for number in range(MOST_A_TURN)]
    return reply([_queries(request)[0]]) if turn == 1 else None, reply(most)


def _asking_text(offered: Offered, request: Request, turn: int) -> tuple[Completion | None, Completion | None]:
    """Return the same for actions in plain text."""
    if not offered:
        return None, None
    dearest = max(offered, key=lambda name: offered[name][0].config.usd_per_call)
    long = FILLER * (request.max_tokens * REPLY_BYTES // FILLER_BYTES)

    def reply(text: str) -> Completion:
        return Completion(f"Action: {dearest}\nInput: {text}")

    return reply(_queries(request)[0]) if turn == 1 else None, reply(f"{turn}: {_told_apart(request)}{long}")


def _told_apart(request: Request) -> str:
    """Return a text that no other request has, so that the calls of two questions are counted as two."""
    return hash_of(utf8(repr(request.messages)))


def _canonical(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
