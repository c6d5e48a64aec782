"""OpenAI's batch endpoint: half the price, an answer within a day.

Requests are written to a file, handed over as a batch and polled for; replies are stored under the keys that a direct
call would have, so a batch and a direct run share results. A batch's id is stored before it is waited for: a run that
was stopped polls the batch it has paid for instead of submitting another.
Source: https://platform.openai.com/docs/guides/batch
"""

from __future__ import annotations

import asyncio
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from fractionate.errors import FractionateError
from fractionate.models.base import ProviderBatchModel
from fractionate.models.faults import Fault, TransientFault
from fractionate.models.openai.api import OpenAIModel
from fractionate.models.openai.reading import MEGABYTE
from fractionate.models.openai.wire import completion_of, encode, error_of, fault_of, one_line
from fractionate.types import Completion, Request, Usage

LARGEST = 50_000
"""Requests a batch at most (the provider's limit)."""
LARGEST_BYTES = 190_000_000
"""Bytes a batch's file at most (the provider allows 200 MB)."""
LARGEST_RESULTS = 4096 * MEGABYTE
"""Bytes of a batch's results that are fetched at most, to a file on the disk."""
POLL_S = 30.0
ROUNDS = 3
"""Times that requests which a batch left unanswered are submitted again."""
_OVER = {"completed", "failed", "expired", "cancelled"}
_ID = re.compile(r"[\w.:-]{1,200}")
_CAUSE = re.compile(r"\w{1,40}")
_PAGES = 100
"""Pages of a provider's list of batches that are looked through for one whose id was never heard."""


class BatchLedger(Protocol):
    """Where it is written down which batches a provider holds, and which replies are there already (the store)."""

    def open_batches(self, identity: str) -> list[tuple[str, list[str]]]:
        """Return the batches of a model that are not done: (batch id, store keys), oldest first."""

    def put_batch(self, batch: str, identity: str, run: str, keys: Sequence[str]) -> None:
        """Write down a batch that was handed to a provider."""

    def close_batch(self, batch: str) -> None:
        """Note that a batch is done."""

    def get_many(self, keys: Sequence[str]) -> Mapping[str, Completion]:
        """Return the completions that are there under any of the keys."""


class OpenAIBatchModel(ProviderBatchModel):
    """An `OpenAIModel` whose calls go through the batch endpoint. Store keys are the same as of direct calls.

    `run` is noted beside each batch, `poll_s` is the pause between checks of it, `say` is called with the state of a
    batch.
    """

    def __init__(
        self,
        model: OpenAIModel,
        ledger: BatchLedger,
        *,
        run: str = "",
        poll_s: float = POLL_S,
        largest: int = LARGEST,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.name, self.identity, self.style = model.name, model.identity, model.style
        self._model = model
        self._ledger = ledger
        self._run = run
        self._poll_s = poll_s
        self._largest = largest
        self._say = say or (lambda _: None)

    def key(self, request: Request) -> str:
        """Return the store key of a request, a direct call's."""
        return self._model.key(request)

    async def close(self) -> None:
        """Close the connections."""
        await self._model.close()

    def expected_seconds(self, output_tokens: float) -> float:
        """Return the time of a direct call: a batch may take any time up to a day."""
        return self._model.expected_seconds(output_tokens)

    def most_usage(self, request: Request) -> Usage:
        """Return what a direct call can use at most."""
        return self._model.most_usage(request)

    async def complete_many(
        self, requests: Sequence[Request], on_sent: Callable[[int], None] = lambda count: None
    ) -> AsyncIterator[tuple[int, Completion | Fault]]:
        """Answer requests through batches; yields (position, completion or fault) in the order batches give them.

        First come the batches that an earlier run left open. Requests that a batch leaves unanswered (it expired, or
        some failed for a passing reason) are submitted again, at most `ROUNDS` times in all. `on_sent` is called with
        the number of requests of each batch.
        """
        wanted = {self.key(request): position for position, request in enumerate(requests)}
        faults: dict[str, Fault] = {}
        for batch in await self._left_open():
            async for key, outcome in self._outcomes(batch, wanted, requests):
                if isinstance(outcome, TransientFault):
                    faults[key] = outcome
                else:
                    yield wanted.pop(key), outcome
        for _ in range(ROUNDS):
            if not wanted:
                return
            batches = [await self._submit(part, on_sent) for part in self._parts(wanted, requests)]
            for batch in batches:
                async for key, outcome in self._outcomes(batch, wanted, requests):
                    if isinstance(outcome, TransientFault):
                        faults[key] = outcome
                    else:
                        yield wanted.pop(key), outcome
        for key, position in wanted.items():
            yield position, faults.get(key) or TransientFault("unanswered", f"{self.name}: the batch gave no reply")

    async def _left_open(self) -> list[str]:
        """Return the ids of batches still open, those included whose id a killed process had no time to note."""
        batches: list[str] = []
        for batch, keys in self._ledger.open_batches(self.identity):
            if not batch.startswith("local-"):
                batches.append(batch)
                continue
            async for entry in self._listed():
                if _table(entry, "metadata").get("fractionate") == batch:
                    found = self._id_of(entry)
                    self._ledger.put_batch(found, self.identity, self._run, keys)
                    batches.append(found)
            self._ledger.close_batch(batch)
        return batches

    async def _listed(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the provider says of each batch of the account, newest first, page by page."""
        after = ""
        for _ in range(_PAGES):
            listed = await self._call("GET", f"/batches?limit=100{after}")
            entries = [entry for entry in _rows_in(listed, "data") if isinstance(entry, dict)]
            for entry in entries:
                yield entry
            if not (listed.get("has_more") and entries):
                return
            after = f"&after={self._id_of(entries[-1])}"

    def _parts(self, wanted: dict[str, int], requests: Sequence[Request]) -> list[list[tuple[str, bytes]]]:
        """Cut what is wanted into batches' lines that keep the provider's limits: (store key, line)."""
        parts: list[list[tuple[str, bytes]]] = [[]]
        size = 0
        for key, position in wanted.items():
            line = encode(
                {
                    "custom_id": key,
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": self._model.body(requests[position]),
                }
            )
            if parts[-1] and (len(parts[-1]) >= self._largest or size + len(line) > LARGEST_BYTES):
                parts.append([])
                size = 0
            parts[-1].append((key, line))
            size += len(line) + 1
        return parts

    async def _submit(self, part: list[tuple[str, bytes]], on_sent: Callable[[int], None]) -> str:
        """Upload a batch's file and create the batch; its id is stored at once."""
        import aiohttp

        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        lines = b"\n".join(line for _, line in part) + b"\n"
        form.add_field("file", lines, filename="requests.jsonl", content_type="application/jsonl")
        uploaded = await self._call("POST", "/files", data=form)
        keys = [key for key, _ in part]
        note = f"local-{secrets.token_hex(8)}"
        # Noted before the batch exists, so that a process killed in between finds it again by its metadata.
        self._ledger.put_batch(note, self.identity, self._run, keys)
        body = {
            "input_file_id": self._id_of(uploaded),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"fractionate": note},
        }
        created = await self._call("POST", "/batches", data=encode(body))
        batch = self._id_of(created)
        self._ledger.put_batch(batch, self.identity, self._run, keys)
        self._ledger.close_batch(note)
        on_sent(len(keys))
        self._say(f"{self.name}: batch {batch} submitted with {len(keys):,} requests")
        return batch

    async def _outcomes(
        self, batch: str, wanted: dict[str, int], requests: Sequence[Request]
    ) -> AsyncIterator[tuple[str, Completion | Fault]]:
        """Wait for a batch and read its output and error files: (store key, completion or fault) of what is wanted."""
        state = await self._wait(batch)
        if state["status"] == "failed":
            self._ledger.close_batch(batch)
            errors = _rows_in(_table(state, "errors"), "data") or [{}]
            raise FractionateError(
                f"{self.name}: batch {batch} was refused: {error_of(errors[0])[0] or 'no reason given'}"
            )
        for field in ("output_file_id", "error_file_id"):
            if state.get(field):
                async for key, row in self._rows(self._id_of(state, field)):
                    if key in wanted:
                        yield key, self._outcome(row, requests[wanted[key]])
        # The caller has stored the last reply by now; what another run asked for stays to be fetched.
        keys = next((keys for name, keys in self._ledger.open_batches(self.identity) if name == batch), [])
        if len(self._ledger.get_many(keys)) + sum(key in wanted for key in keys) >= len(keys):
            self._ledger.close_batch(batch)

    async def _wait(self, batch: str) -> dict[str, Any]:
        while True:
            state = await self._call("GET", f"/batches/{batch}")
            counts, status = _table(state, "request_counts"), one_line(state.get("status", "in no state"), 40)
            done, total = one_line(counts.get("completed", 0), 20), one_line(counts.get("total", 0), 20)
            self._say(f"{self.name}: batch {batch} is {status}, {done} of {total} answered")
            if status in _OVER:
                return state
            await asyncio.sleep(self._poll_s)

    async def _rows(self, file: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield (store key, row) of a batch's results, which wait on the disk meanwhile."""
        with _Results() as results:
            status, _, headers = await self._patiently("GET", f"/files/{file}/content", into=results)
            if status != 200:
                raise FractionateError(self._model.named(fault_of(status, None, headers)).message)
            for line in results.lines(int(self._model.options.reply_mb * MEGABYTE)):
                row = self._model.parsed(line)  # a line cut short counts as unanswered and is submitted again
                if isinstance(row, dict):
                    yield str(row.get("custom_id")), row

    def _outcome(self, row: dict[str, Any], request: Request) -> Completion | Fault:
        response = _table(row, "response")
        status, body = response.get("status_code"), response.get("body")
        try:
            if status == 200:
                return self._model.hide_key(completion_of(body, request, 0.0))
        except Fault as fault:
            return self._model.named(fault)
        if isinstance(status, int) and status >= 300:
            return self._model.named(fault_of(status, body, {}))
        message, _, code, _ = error_of(row)
        cause = code if _CAUSE.fullmatch(code) else "unanswered"
        return self._model.named(TransientFault(cause, message or "the batch gave no reply"))

    def _id_of(self, reply: Mapping[str, Any], field: str = "id") -> str:
        """Return an id that the provider gave, which goes into addresses."""
        found = reply.get(field)
        if not isinstance(found, str) or not _ID.fullmatch(found):
            raise FractionateError(f"{self.name}: the batch endpoint's reply has no {field} that can be used")
        return found

    async def _call(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        status, data, headers = await self._patiently(method, path, **content)
        reply = self._model.parsed(data)
        if status != 200:
            fault = self._model.named(fault_of(status, reply, headers))
            raise FractionateError(f"{fault.message} ({method} {path.partition('?')[0]})")
        if not isinstance(reply, dict):
            raise FractionateError(f"{self.name}: {method} {path.partition('?')[0]}: the reply is no JSON object")
        return reply

    async def _patiently(self, method: str, path: str, **content: Any) -> tuple[int, bytes, Any]:
        """Send with retries for passing faults. Creating a batch is not repeated: it could be paid twice."""
        tries = 1 if method == "POST" else 6
        for attempt in range(1, tries + 1):
            try:
                status, data, headers = await self._model.send(method, f"{self._model.base_url}{path}", **content)
            except Fault as fault:
                if attempt == tries or not isinstance(fault, TransientFault):
                    raise FractionateError(fault.message) from None
            else:
                if attempt == tries or not (status == 429 or status >= 500):
                    return status, data, headers
            await asyncio.sleep(min(self._poll_s, 2.0**attempt))
        raise AssertionError("the last try returns or raises")


class _Results:
    """A batch's results on their way through the disk, where 50,000 replies have room."""

    takes_all = True
    most_bytes = LARGEST_RESULTS

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the block of this object ends

    def __enter__(self) -> _Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self) -> None:
        """Forget what an earlier try brought."""
        self._file.seek(0)
        self._file.truncate()

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._file.write(data)

    def lines(self, longest: int) -> Iterator[bytes]:
        """Yield the lines; one over `longest` bytes is left out."""
        self._file.seek(0)
        whole = True
        while line := self._file.readline(longest):
            ended = line.endswith(b"\n")
            if whole and (ended or len(line) < longest):
                yield line
            whole = ended


def _table(reply: Mapping[str, Any], field: str) -> dict[str, Any]:
    inner = reply.get(field)
    return inner if isinstance(inner, dict) else {}


def _rows_in(reply: Mapping[str, Any], field: str) -> list[Any]:
    inner = reply.get(field)
    return inner if isinstance(inner, list) else []
