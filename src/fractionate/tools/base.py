"""What a tool is, and the model that makes a call of a tool like any other call: stored, replayed, paid for, bounded.

A kind of tool subclasses `Tool`. `ToolModel` is the only caller of tools: it adds time limit, size limit, concurrency
and the rule for errors. What the tool itself says of a wrong call (`ToolError`) is a reply, which is stored and given
back to the model; what keeps a tool from being called at all is a fault, which the engine treats as that of a server.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, TypeVar

from fractionate.config import LimitsConfig, ToolConfig
from fractionate.config.addresses import TOOL
from fractionate.errors import printable, shortened
from fractionate.files import utf8
from fractionate.models.base import SingleModel, request_key
from fractionate.models.faults import Fault, PermanentFault, TransientFault
from fractionate.types import CallRole, Completion, Message, Request, Usage

T = TypeVar("T")

LISTING = Message("functions", "")
"""The message that asks a tool for its functions, where only its server knows them."""
LONGEST_ERROR = 500
"""Characters of an error that a model is told."""


class ToolError(Exception):
    """The tool was called and says that the call is wrong. Its message is the tool's reply."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a tool, as models are told of it. `parameters` is the JSON schema of its arguments.

    `argument` is the argument that a bare question is passed as, "" where the function takes no bare question.
    """

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    argument: str = ""

    @classmethod
    def of_text(cls, name: str, description: str, argument: str, meaning: str) -> Function:
        """Return a function of one text."""
        schema = {
            "type": "object",
            "properties": {argument: {"type": "string", "description": meaning}},
            "required": [argument],
            "additionalProperties": False,
        }
        return cls(name, description, schema, argument)


class Tool:
    """One tool. `fingerprint` stands for all that its replies depend on besides the call: files, code, address."""

    fingerprint: str = ""
    functions: Sequence[Function] | None = None
    """Its functions; None until `list_functions` has asked for them."""

    async def list_functions(self) -> Sequence[Function]:
        """Return its functions, having asked its server where it has one. Raises Fault."""
        assert self.functions is not None, "a tool that does not know its functions asks for them"
        return self.functions

    async def call(self, function: Function, arguments: Mapping[str, Any]) -> str:
        """Return the reply to one call. Raises ToolError for a wrong call, Fault where it cannot be made."""
        raise NotImplementedError

    async def close(self) -> None:
        """Release connections and processes."""


class ToolModel(SingleModel):
    """The calls of one tool.

    A request's last message is the call: "user" with a bare text, "arguments" with the JSON of a function's name and
    arguments, or `LISTING`. `name` is `tool:NAME`.
    """

    style = "tool"

    def __init__(self, name: str, config: ToolConfig, tool: Tool) -> None:
        self.name = f"{TOOL}{name}"
        self.tool = tool
        self.config = config
        self.paid = config.usd_per_call > 0
        self.identity = f"{self.name}+{_digest(config, tool)}"
        self._size = int(config.reply_kb * 1024)
        self._slots: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    @property
    def short_name(self) -> str:
        """The name under [tools]."""
        return self.name.removeprefix(TOOL)

    def key(self, request: Request) -> str:
        """Return the store key of a call: the tool and its arguments decide its reply, and nothing else."""
        return request_key(self.identity, Request(request.messages[-1:], "solver", 0))

    def limits(self, limits: LimitsConfig) -> LimitsConfig:
        """Return the tool's own concurrency; limits per minute are those of models. What writes is sent once."""
        return limits.model_copy(
            update={
                "concurrency": min(limits.concurrency, self.config.concurrency),
                "requests_per_minute": None,
                "tokens_per_minute": None,
                "attempts": 1 if self.config.writes else limits.attempts,
            }
        )

    def at_once(self, limit: int) -> int:
        """Return how many calls are under way together."""
        return min(limit, self.config.concurrency)

    def most_usage(self, request: Request) -> Usage:
        """Return the usage of one call: a tool is paid by the call."""
        return Usage(calls=1)

    async def complete(self, request: Request) -> Completion:
        """Make one call. Raises Fault where the tool cannot be called or takes too long."""
        message, started = request.messages[-1], perf_counter()
        try:
            async with self._slot(), asyncio.timeout(self.config.timeout_s):
                text = await (self._list() if message == LISTING else self._call(message))
        except ToolError as error:
            seconds = perf_counter() - started
            return Completion("", "error", Usage(calls=1), seconds, error=_one_line(str(error)))
        except TimeoutError:
            limit = f"{self.config.timeout_s:g} s (tools.{self.short_name}.timeout_s)"
            raise PermanentFault("timeout", f"{self.name} gave no reply within {limit}", maybe_paid=True) from None
        except Fault as fault:
            raise self._named(fault) from None
        usage = Usage(calls=0 if message == LISTING else 1)
        return Completion(self._cut(text), "stop", usage, perf_counter() - started)

    async def close(self) -> None:
        """Release what the tool holds."""
        await self.tool.close()

    async def _list(self) -> str:
        return json.dumps([asdict(function) for function in await self.tool.list_functions()], ensure_ascii=False)

    async def _call(self, message: Message) -> str:
        functions = await self.tool.list_functions()
        if message.role == "user":
            function = next((one for one in functions if one.argument), None)
            if function is None:
                raise ToolError(f"{self.name} takes no bare question: only a model can call it ({_names(functions)})")
            return await self.tool.call(function, {function.argument: message.content})
        asked = json.loads(message.content)
        function = next((one for one in functions if one.name == asked["name"]), None)
        if function is None:
            raise ToolError(f"there is no {asked['name']!r} (there are: {_names(functions)})")
        return await self.tool.call(function, asked["arguments"])

    def _named(self, fault: Fault) -> Fault:
        """Return a fault that names the tool; what writes may have been done, so such a call is not sent again."""
        message = fault.message if fault.message.startswith(self.name) else f"{self.name}: {fault.message}"
        if self.config.writes and isinstance(fault, TransientFault):
            return PermanentFault(fault.cause, f"{message} (it writes, so the call is not sent again)", maybe_paid=True)
        fault.message, fault.args = message, (message,)
        return fault

    def _cut(self, text: str) -> str:
        data = utf8(text)
        if len(data) <= self._size:
            return printable(text)
        kept = data[: self._size].decode("utf-8", "ignore")
        return printable(f"{kept}\n(cut off after {self.config.reply_kb:g} KB)")

    def _slot(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._slots is None or self._slots[0] is not loop:  # a semaphore belongs to the loop it was waited for in
            self._slots = loop, asyncio.Semaphore(self.config.concurrency)
        return self._slots[1]


def call_request(message: Message, role: CallRole, request: Request | None = None) -> Request:
    """Return the request of a call of a tool, for the same question as another request."""
    return Request((message,), role, 0, origin=request.origin if request else None)


def arguments_message(function: Function, arguments: Mapping[str, Any]) -> Message:
    """Return the message of a call. One of a bare text is the same call whether a model made it or a strategy."""
    if set(arguments) == {function.argument} and isinstance(arguments[function.argument], str):
        return Message("user", arguments[function.argument])
    asked = {"name": function.name, "arguments": arguments}
    return Message("arguments", json.dumps(asked, ensure_ascii=False, sort_keys=True, separators=(",", ":")))


class Threads:
    """Runs blocking functions in daemon threads, so that one that hangs keeps neither the run nor its end waiting.

    A thread cannot be stopped from outside: one whose time is up is left behind. Once `most` are left behind, further
    calls fail at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._left_behind = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Return what a function returns, or raise what it raises."""
        if self._left_behind >= self._most:
            raise PermanentFault("hanging", f"{self._left_behind} earlier calls still hang")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def finish(result: T | None, error: BaseException | None) -> None:
            if done.cancelled():
                self._left_behind -= 1
            elif error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # None only where T is None

        def body() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                # StopIteration cannot be set on a future; SystemExit is no reason to end the run.
                error = raised if isinstance(raised, Exception) else ToolError(f"{type(raised).__name__}: {raised}")
                error = ToolError("StopIteration") if isinstance(error, StopIteration) else error
            try:
                loop.call_soon_threadsafe(finish, result, error)
            except RuntimeError:
                return  # the loop is gone: the run was interrupted

        threading.Thread(target=body, name="tool", daemon=True).start()
        try:
            return await done
        except asyncio.CancelledError:
            if done.cancelled():
                self._left_behind += 1
            raise


def hash_of(*contents: bytes) -> str:
    """Return 16 hex digits that stand for contents."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:16]


def _digest(config: ToolConfig, tool: Tool) -> str:
    """Return what tells a tool from another one: its settings, but for limits and prices, and its fingerprint."""
    unrelated = {"description", "timeout_s", "usd_per_call", "concurrency", "writes", "api_key_env"}
    settings = config.model_dump(mode="json", exclude=unrelated, exclude_defaults=True)
    return hash_of(json.dumps(settings, sort_keys=True).encode(), tool.fingerprint.encode())


def _names(functions: Sequence[Function]) -> str:
    return ", ".join(function.name for function in functions) or "none"


def _one_line(text: str) -> str:
    return shortened(printable(" ".join(text.split())) or "the tool failed", LONGEST_ERROR)
