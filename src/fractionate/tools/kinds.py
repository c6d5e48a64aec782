"""The kinds of tools that need no server of their own: a Python function, documents (BM25), a database, an address."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fractionate.config import ToolConfig
from fractionate.config.addresses import check_base
from fractionate.databases import Database, QueryError, Rows
from fractionate.errors import UsageError, missing_extra
from fractionate.models.faults import FatalFault, Fault, PermanentFault, TransientFault
from fractionate.models.openai.keys import KeyHider, read_key
from fractionate.models.openai.wire import fault_of, one_line
from fractionate.rows import READERS, at, read_rows
from fractionate.tools.base import Function, Threads, Tool, ToolError, hash_of

if TYPE_CHECKING:
    import aiohttp

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_TEXTS = (".txt", ".md", ".rst")
NOTHING_FOUND = "Nothing was found."
STOP_S = 1.0
"""Seconds after its time is up until a query is stopped: the call has been given up then."""
MOST_BYTES = 2 << 20
"""Bytes of a reply over HTTP that are read; a field is looked for in them."""


class PythonTool(Tool):
    """A function of the user's: `module:function`. Its source file is part of its fingerprint."""

    def __init__(self, name: str, config: ToolConfig, base: Path) -> None:
        self._function = load_tool_function(config.function, base, f"tools.{name}.function")
        source = inspect.getsourcefile(inspect.unwrap(self._function))
        self.fingerprint = hash_of(Path(source).read_bytes()) if source and Path(source).is_file() else ""
        self.functions = [_described(name, self._function, config.description)]
        self._threads = Threads(config.concurrency)

    async def call(self, function: Function, arguments: Mapping[str, Any]) -> str:
        """Call the function; what it raises is a wrong call."""
        try:
            if inspect.iscoroutinefunction(self._function):
                return _as_text(await self._function(**arguments))
            return _as_text(await self._threads.run(lambda: self._function(**arguments)))
        except (Fault, ToolError, TimeoutError):
            raise
        except Exception as error:
            raise ToolError(f"{type(error).__name__}: {error}") from error


def load_tool_function(text: str, base: Path, key: str) -> Callable[..., Any]:
    """Return the function that `module:function` names, found beside the config or on PYTHONPATH.

    Raises UsageError, which names `key`, where there is none.
    """
    module_name, _, name = text.rpartition(":")
    file = base / (module_name if module_name.endswith(".py") else f"{module_name.replace('.', '/')}.py")
    try:
        module = _module_of(module_name, file, base)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(f"{key}: {file} cannot be loaded: {error}") from None
        raise UsageError(f"{key}: no module {module_name!r} in {base} or on PYTHONPATH") from None
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"{key}: {module_name} cannot be loaded: {said}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"{key}: {module_name} has no function {name!r}")
    found: Callable[..., Any] = function
    return found


def _module_of(name: str, file: Path, base: Path) -> Any:
    """Import a module; one beside the config is loaded from its file, whatever else has its name."""
    sys.path.insert(0, str(base))
    try:
        if not file.is_file() or "." in name.removesuffix(".py"):
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(f"_fractionate_tool_{hash_of(str(file).encode())}", file)
        if spec is None or spec.loader is None:
            raise UsageError(f"{file} is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        with suppress(ValueError):
            sys.path.remove(str(base))


def _described(name: str, function: Callable[..., Any], description: str) -> Function:
    """Return how a function is described to models: by its signature and the first paragraph of its docstring."""
    try:
        parameters = [
            one
            for one in inspect.signature(function, eval_str=True).parameters.values()
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        ]
    except (TypeError, ValueError, NameError):
        parameters = [inspect.Parameter("text", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    required = [one.name for one in parameters if one.default is one.empty]
    schema = {
        "type": "object",
        "properties": {one.name: {"type": _TYPES.get(one.annotation, "string")} for one in parameters},
        "required": required,
        "additionalProperties": False,
    }
    takes_text = bool(parameters) and set(required) <= {parameters[0].name}
    told = description or (inspect.getdoc(function) or "").partition("\n\n")[0] or f"Answers a question ({name})."
    return Function(name, " ".join(told.split()), schema, parameters[0].name if takes_text else "")


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


class SearchTool(Tool):
    """The documents that match a text best by BM25 (Lù, arXiv 2407.03618: the library bm25s)."""

    def __init__(self, name: str, config: ToolConfig, base: Path) -> None:
        key = f"tools.{name}.documents"
        if importlib.util.find_spec("bm25s") is None:
            raise missing_extra("bm25s", "tools", f"{key}: a search")
        path = _there(config.documents, base, key)
        files = _files_of(path, key)
        self.fingerprint = hash_of(*(part for file in files for part in (file.name.encode(), file.read_bytes())))
        self._passages = [passage for file in files for passage in _passages(file, config.fields, key)]
        if not self._passages:
            raise UsageError(f"{key}: {path} holds no text")
        told = config.description or f"Searches {len(self._passages):,} documents ({path.name}) for words."
        self.functions = [Function.of_text(name, told, "text", "the words to look for")]
        self._k = min(config.k, len(self._passages))
        self._index: Any = None
        self._indexing = threading.Lock()
        self._threads = Threads(config.concurrency)

    async def call(self, function: Function, arguments: Mapping[str, Any]) -> str:
        """Return the best documents that share a word with the text, best first, a line or paragraph each."""
        text = _text_of(function, arguments)
        return await self._threads.run(lambda: "\n".join(self._find(text)) or NOTHING_FOUND)

    def _find(self, text: str) -> list[str]:
        import bm25s

        with self._indexing:
            if self._index is None:
                index = bm25s.BM25()
                index.index(bm25s.tokenize(self._passages, stopwords="en", show_progress=False), show_progress=False)
                self._index = index
        words = bm25s.tokenize([text], stopwords="en", return_ids=False, show_progress=False)
        if not words[0]:
            return []
        places, scores = self._index.retrieve(words, k=self._k, show_progress=False, n_threads=0)
        return [self._passages[place] for place, score in zip(places[0], scores[0], strict=True) if score > 0]


def _files_of(path: Path, key: str) -> list[Path]:
    if path.is_file():
        return [path]
    known = (*_TEXTS, *READERS)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in known)
    if not files:
        raise UsageError(f"{key}: {path} holds no documents ({', '.join(known)})")
    return files


def _passages(file: Path, fields: Sequence[str], key: str) -> Iterator[str]:
    """Yield the documents of a file: paragraphs of a text, rows of anything else, their fields joined."""
    if file.suffix.lower() in _TEXTS:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"{key}: {file} cannot be read: {error}") from None
        yield from (" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())
        return
    for row in read_rows(file):
        chosen = [row.text(name) for name in fields] if fields else [
            value for value in row.values.values() if isinstance(value, str) and value.strip()
        ]  # fmt: skip
        if chosen:
            yield " ".join(" ".join(chosen).split())


class SqlTool(Tool):
    """Read-only queries of an SQLite or DuckDB file."""

    def __init__(self, name: str, config: ToolConfig, base: Path) -> None:
        key = f"tools.{name}.database"
        path = _there(config.database, base, key)
        if not path.is_file():
            raise UsageError(f"{key}: {path} is no file")
        self._database = Database(path, key)
        self.fingerprint = hash_of(path.read_bytes())
        self._query = config.query
        self._seconds = config.timeout_s + STOP_S
        self._size = int(config.reply_kb * 1024)
        self._threads = Threads(config.concurrency)
        try:
            schema = "; ".join(self._database.schema())
        except Exception as error:
            raise UsageError(f"{key}: {path} cannot be read as a database: {error}") from None
        if config.query:
            self.functions = [Function.of_text(name, config.description or "Looks a text up.", "text", "the text")]
        else:
            told = config.description or f"Runs a query over the tables {schema}."
            self.functions = [Function.of_text(name, told, "query", f"one SELECT of {self._database.dialect}")]

    async def call(self, function: Function, arguments: Mapping[str, Any]) -> str:
        """Return the rows of a query: a line each, the columns' names before them; a single value alone."""
        text = _text_of(function, arguments)
        query, values = (self._query, {"text": text}) if self._query else (text, {})
        try:
            return await self._threads.run(lambda: self._database.query(query, values, self._seconds, self._table))
        except QueryError as error:
            raise ToolError(str(error)) from None

    def _table(self, names: Sequence[str], rows: Rows) -> str:
        lines, size = [" | ".join(names)], 0
        for row in rows:
            lines.append(" | ".join("" if value is None else str(value) for value in row))
            size += len(lines[-1])
            if size > self._size:
                break
        if len(lines) == 1:
            return NOTHING_FOUND
        return lines[1] if len(lines) == 2 and len(names) == 1 else "\n".join(lines)


class HttpTool(Tool):
    """An address that answers a text, which stands in it for {text}; without {text} it is posted as JSON."""

    def __init__(self, name: str, config: ToolConfig, base: Path) -> None:
        key = f"tools.{name}"
        check_base(f"{key}.url", config.url.partition("{text}")[0].partition("?")[0])
        self._config = config
        self._key = read_key(f"{key}", config.api_key_env) if config.api_key_env else ""
        self._hider = KeyHider(self._key)
        told = config.description or f"Looks a text up at {config.url.partition('?')[0]}."
        self.functions = [Function.of_text(name, told, "text", "the text to look up")]
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def call(self, function: Function, arguments: Mapping[str, Any]) -> str:
        """Return the body of the reply, or the field of it that the settings name."""
        import aiohttp

        text, url = _text_of(function, arguments), self._config.url
        posted = None if "{text}" in url else {"text": text}
        url = url.replace("{text}", quote(text, safe=""))
        method = "GET" if posted is None else "POST"
        try:
            async with self._open().request(method, url, json=posted, allow_redirects=False) as response:
                status, headers = response.status, response.headers
                most = max(MOST_BYTES, int(self._config.reply_kb * 1024)) if status == 200 else 2000
                data = b""
                while len(data) < most and (part := await response.content.read(most - len(data))):
                    data += part
        except aiohttp.ClientConnectorError as error:
            said = one_line(self._hider.hide(str(error.os_error)))
            raise TransientFault("connect", f"cannot connect: {said}", systematic=True) from None
        except (aiohttp.ClientError, OSError) as error:
            said = one_line(self._hider.hide(str(error)) or type(error).__name__)
            raise TransientFault("connection lost", f"connection lost: {said}", maybe_paid=True) from None
        body = self._hider.hide(data.decode("utf-8", "replace"))
        if status == 200:
            return self._field_of(body)
        fault = fault_of(status, one_line(body, 200), headers)
        if isinstance(fault, PermanentFault) or status == 404:
            raise ToolError(f"HTTP {status}: {one_line(body, 200)}")
        raise fault

    def _field_of(self, body: str) -> str:
        if not self._config.field:
            return body
        try:
            value = at(json.loads(body), self._config.field)
        except (ValueError, AttributeError, RecursionError):
            raise FatalFault("bad body", f"the reply is no JSON object with a field {self._config.field!r}") from None
        return NOTHING_FOUND if value is None else _as_text(value)

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            import aiohttp

            headers = {"User-Agent": "fractionate"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, headers=headers, trust_env=True)
            self._loop = loop
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None and self._loop is asyncio.get_running_loop():
            await self._session.close()
        self._session = None


class AtlasTool(Tool):
    """The facts behind the data set `atlas`, one subquestion at a time (`datasets.atlas.closed`)."""

    def __init__(self, name: str, config: ToolConfig, base: Path) -> None:
        from fractionate.datasets.atlas.closed import answer, fact_sentences

        self._answer = answer
        self.fingerprint = hash_of(*(sentence.encode() for sentence in fact_sentences()))
        told = config.description or "Looks one fact on a country or city up, compares, selects or counts."
        self.functions = [Function.of_text(name, told, "text", "one question of one step")]

    async def call(self, function: Function, arguments: Mapping[str, Any]) -> str:
        """Return the answer to one subquestion, "unknown" where it is none of the language's."""
        return self._answer(_text_of(function, arguments))


def _text_of(function: Function, arguments: Mapping[str, Any]) -> str:
    """Return the one text of a call. Raises ToolError for other arguments."""
    text = arguments.get(function.argument)
    if set(arguments) != {function.argument} or not isinstance(text, str):
        raise ToolError(f"{function.name} takes one argument, {function.argument!r}, a text")
    return text


def _there(path: str, base: Path, key: str) -> Path:
    """Return a path of the config: beside it, else in the working directory. Raises UsageError."""
    for found in (base / Path(path).expanduser(), Path(path).expanduser()):
        if found.exists():
            return found
    raise UsageError(f"{key}: {path} does not exist")
