"""Tools of an MCP server, started by a command or reached at a URL, by the official SDK (https://modelcontextprotocol.io).

The connection is opened at the first call and kept by a task of its own, since the SDK wants it closed by the task
that opened it. A server that dies is started again for the next call. What it writes to stderr stays out of the
terminal; its last line is part of the error.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from fractionate.config import ToolConfig
from fractionate.config.addresses import check_base
from fractionate.errors import missing_extra
from fractionate.models.faults import FatalFault, Fault, TransientFault
from fractionate.models.openai.keys import read_key
from fractionate.models.openai.wire import one_line
from fractionate.tools.base import Function, Tool, ToolError

if TYPE_CHECKING:
    from mcp import Client

MOST_PAGES = 100
"""Pages of a server's list of tools that are read."""
CLOSE_S = 5.0
"""Seconds that a server has to end."""
_HANDSHAKE_SHARE = 0.9
"""The share of a call's time that the handshake may take, so that a server which hangs in it is named as such."""


class McpTool(Tool):
    """The tools of one MCP server, or the one of them that `tool` names."""

    def __init__(self, name: str, config: ToolConfig, base: Path) -> None:
        if importlib.util.find_spec("mcp") is None:
            raise missing_extra("mcp", "mcp", f"tools.{name}: an MCP server")
        importlib.import_module("mcp")  # it takes a second, which is not to count as the first call's
        if config.url:
            check_base(f"tools.{name}.url", config.url.partition("?")[0])
        self._config = config
        self._base = base
        self._key = read_key(f"tools.{name}", config.api_key_env)
        self._shown = config.url.partition("?")[0] or shlex.join(_words(config.command))
        self._connection: _Connection | None = None
        self._ending: list[_Connection] = []
        self._opening = asyncio.Lock()
        self._reached = False

    async def list_functions(self) -> Sequence[Function]:
        """Return the server's tools, asked for once. Raises FatalFault where it lacks the one that is named."""
        if self.functions is None:
            client = await self._client()
            found: list[Any] = []
            cursor = None
            for _ in range(MOST_PAGES):
                page = await self._guarded(client.list_tools(cursor=cursor))
                found += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    break
            wanted = self._config.tool
            chosen = [tool for tool in found if wanted in ("", tool.name)]
            if not chosen:
                known = ", ".join(tool.name for tool in found) or "none"
                raise FatalFault("no such tool", f"{self._shown} has no tool {wanted!r} (it has: {known})")
            self.functions = [self._function(tool) for tool in chosen]
        return self.functions

    async def call(self, function: Function, arguments: Mapping[str, Any]) -> str:
        """Call one of the server's tools; what it marks as an error is a wrong call."""
        client = await self._client()
        result = await self._guarded(client.call_tool(function.name, dict(arguments)))
        text = "\n".join(_text(block) for block in result.content)
        if not result.content and result.structured_content is not None:
            text = json.dumps(result.structured_content, ensure_ascii=False)
        if result.is_error:
            raise ToolError(text or "the tool failed")
        return text

    async def close(self) -> None:
        """End the connection, and the server that a command started."""
        if self._connection is not None:
            self._leave(self._connection)
        ending, self._ending, self._connection, self._opening = self._ending, [], None, asyncio.Lock()
        await asyncio.gather(*(connection.end() for connection in ending))

    def _function(self, tool: Any) -> Function:
        told = self._config.description if self._config.tool else ""
        description = " ".join((told or tool.description or tool.name).split())
        argument = self._config.argument or _text_argument(tool.input_schema)
        return Function(tool.name, description, tool.input_schema, argument)

    async def _client(self) -> Client:
        """Return the open connection, opened now if there is none. Raises Fault."""
        async with self._opening:
            if self._connection is None or self._connection.ended:
                self._connection = await self._connected()
                self._reached = True
            return self._connection.client

    async def _connected(self) -> _Connection:
        connection, seconds = _Connection(self._transport), _HANDSHAKE_SHARE * self._config.timeout_s
        try:
            async with asyncio.timeout(seconds):
                await connection.open()
        except TimeoutError:
            why = f"did not answer the MCP handshake within {seconds:g} s (timeout_s)"
        except Exception as error:
            why = _why(error)
        except asyncio.CancelledError:
            self._leave(connection)
            raise
        else:
            return connection
        self._leave(connection)
        raise self._failure(f"{self._shown} {why}{connection.last_line()}")

    def _leave(self, connection: _Connection) -> None:
        """Let a connection end by itself: its server may take seconds to."""
        self._ending.append(connection)
        connection.give_up()

    def _failure(self, said: str) -> Fault:
        """Return the fault of a connection that does not come about: it may pass only if there was one before."""
        fault = TransientFault if self._reached else FatalFault
        return fault("no MCP server", said)

    async def _guarded(self, work: Any) -> Any:
        """Return what a request to the server gives; errors of the protocol are replies, a lost server is a fault."""
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED

        connection = self._connection
        try:
            return await work
        except MCPError as error:
            if error.error.code != CONNECTION_CLOSED:
                raise ToolError(error.error.message) from None
            why = "ended before it replied"
        except (OSError, RuntimeError, ExceptionGroup) as error:
            why = _why(error)
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("anyio", "httpx2", "httpx", "pydantic_core"):
                raise
            why = _why(error)
        last_line = ""
        if connection is not None and connection is self._connection:
            self._connection = None
            last_line = connection.last_line()
            self._leave(connection)
        raise TransientFault("MCP server lost", f"{self._shown} {why}{last_line}", maybe_paid=True)

    def _transport(self, stderr: TextIO) -> AbstractAsyncContextManager[Any]:
        from mcp import StdioServerParameters, stdio_client

        config = self._config
        if config.url:
            from mcp.client.streamable_http import streamable_http_client
            from mcp.shared._httpx_utils import create_mcp_http_client

            headers = {"Authorization": f"Bearer {self._key}"} if self._key else None
            return streamable_http_client(config.url, http_client=create_mcp_http_client(headers=headers))
        program, *words = _words(config.command)
        environment = {name: os.environ[name] for name in config.env if name in os.environ}
        server = StdioServerParameters(command=program, args=words, env=environment, cwd=self._base)
        return stdio_client(server, errlog=stderr)


class _Connection:
    """One connection, kept by a task from `open` to `give_up`."""

    def __init__(self, transport: Callable[[TextIO], AbstractAsyncContextManager[Any]]) -> None:
        import anyio

        self._transport = transport
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by _keep
        self._last_line = ""
        self._loop = asyncio.get_running_loop()
        self._scope = anyio.CancelScope()
        self._opened: asyncio.Future[Client] = self._loop.create_future()
        self._task = self._loop.create_task(self._keep())

    @property
    def ended(self) -> bool:
        """Whether it is there no more, or belongs to an event loop that has ended."""
        return self._task.done() or self._loop is not asyncio.get_running_loop()

    @property
    def client(self) -> Client:
        """The open client."""
        return self._opened.result()

    async def open(self) -> None:
        """Connect. Raises what the SDK raises."""
        await asyncio.shield(self._opened)

    def give_up(self) -> None:
        """Begin to end it, and its server: a plain cancellation of the task would leave that running."""
        if self._loop is asyncio.get_running_loop():
            self._scope.cancel()

    async def end(self) -> None:
        """Wait until it has ended, for a while."""
        if self._loop is asyncio.get_running_loop():
            await asyncio.wait([self._task], timeout=CLOSE_S)

    def last_line(self) -> str:
        """Return the last line that the server wrote to stderr, after a colon; "" where there is none."""
        if self._stderr.closed:
            return self._last_line
        self._stderr.seek(0)
        lines = [line for line in self._stderr.read()[-20_000:].splitlines() if line.strip()]
        return f": {one_line(lines[-1], 200)}" if lines else ""

    async def _keep(self) -> None:
        import anyio
        from mcp import Client

        try:
            with self._scope:
                async with Client(self._transport(self._stderr), cache=None) as client:
                    self._opened.set_result(client)
                    await anyio.sleep_forever()
        except Exception as error:
            if not self._opened.done():
                self._opened.set_exception(error)
        finally:
            if not self._opened.done():
                self._opened.set_exception(ConnectionError("it was given up"))
            self._opened.exception()  # seen, so that it is not reported as forgotten
            self._last_line = self.last_line()
            self._stderr.close()


def _words(command: Sequence[str]) -> list[str]:
    """Return the words of a command: a single text is split as a shell does."""
    return shlex.split(command[0]) if len(command) == 1 else list(command)


def _text_argument(schema: Mapping[str, Any]) -> str:
    """Return the only argument that takes a bare text: the one that is required, or the only text; "" if none does."""
    properties = schema.get("properties") or {}
    required = schema.get("required") or []
    texts = [name for name, of in properties.items() if isinstance(of, dict) and of.get("type") == "string"]
    wanted = [name for name in texts if name in required] or texts
    return wanted[0] if len(wanted) == 1 and set(required) <= set(wanted) else ""


def _text(block: Any) -> str:
    """Return a block of a reply as text: other media are named, not shown."""
    if block.type == "text":
        return str(block.text)
    resource = getattr(block, "resource", None)
    text = getattr(resource, "text", None)
    return str(text) if text is not None else f"[{block.type}]"


def _why(error: BaseException) -> str:
    """Return what went wrong, the innermost of grouped errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, FileNotFoundError):
        return "cannot be started: no such command"
    if isinstance(error, PermissionError):
        return "cannot be started: it is not executable"
    said = one_line(str(error), 160)
    if said == "Connection closed":
        return "ended before it answered the MCP handshake"
    return f"cannot be reached: {said or type(error).__name__}"
