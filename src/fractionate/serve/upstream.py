"""One call to a model on a client's behalf: through the model's client, within a deadline and a served budget."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from fractionate.analysis.pricing import Pricing
from fractionate.calls.client import CallHooks, ModelClients
from fractionate.calls.dispatch import OnNews
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.base import Model, SingleModel
from fractionate.models.faults import Fault, PermanentFault
from fractionate.serve.ledger import Ledger, Reservation
from fractionate.serve.metrics import Metrics
from fractionate.types import Completion, Request, Usage

OnText = Callable[[str], None]


class Upstream:
    """The path from a served request's call to its completion. Nothing is stored or shared between requests."""

    def __init__(
        self,
        limits: LimitsConfig,
        pricing: Pricing,
        ledger: Ledger,
        metrics: Metrics,
        on_news: OnNews = lambda count, line: None,
    ) -> None:
        """`on_news` is called when an endpoint of a model on several is left out, and when it is back."""
        self._clients = ModelClients(limits, on_news=on_news)
        self._pricing = pricing
        self._ledger = ledger
        self._metrics = metrics

    async def call(
        self,
        model: SingleModel,
        request: Request,
        priced_as: str,
        account: str,
        until: float,
        on_text: OnText | None = None,
    ) -> tuple[Completion, float | None]:
        """Return the reply and its dollars (None: no price is known); `on_text` is handed its text as it comes.

        Retries and waits are those of `ModelClient`, until `until` (loop time). Raises Fault, FractionateError, or
        Refusal (402) where a budget has no room.
        """
        if model.paid:
            call = _ServedCall(self, model, request, account, on_text)
            taken = call.take if on_text is not None else None
            completion = await self._clients.of(model).complete(request, call, until=until, on_text=taken)
        else:  # in this process: no server to spare, nothing to pay
            completion = await _answered_here(model, request, on_text)
        if completion.finish_reason == "error":
            cause = "context too long" if "does not fit" in completion.error else "failed"
            raise PermanentFault(cause, completion.error or "the model failed")
        return completion, self._count(request, priced_as, completion.usage)

    def check_priced(self, model: Model) -> None:
        """Raise UsageError where a budget is to be kept and a model has no price."""
        self._ledger.check_priced(model)

    def _count(self, request: Request, priced_as: str, usage: Usage) -> float | None:
        metrics, role = self._metrics, request.role
        metrics.calls.add(role)
        metrics.tokens.add(role, "input", amount=usage.input_tokens)
        metrics.tokens.add(role, "output", amount=usage.output_tokens)
        usd = self._pricing.usd(priced_as, usage)
        if usd:
            metrics.usd.add(role, amount=usd)
        return usd


class _ServedCall(CallHooks):
    """One call of a served request: its most expensive outcome is reserved before each attempt."""

    __slots__ = ("_account", "_model", "_on_text", "_request", "_reservation", "_upstream")

    def __init__(
        self, upstream: Upstream, model: SingleModel, request: Request, account: str, on_text: OnText | None
    ) -> None:
        self._on_text = on_text
        self._upstream = upstream
        self._model = model
        self._request = request
        self._account = account
        self._reservation: Reservation | None = None

    async def reserve(self) -> None:
        self._reservation = self._upstream._ledger.reserve(self._account, self._model, self._request)

    def take(self, text: str) -> None:
        """Hand on the next text of a stream. Raises PermanentFault once the text passes its reservation."""
        assert self._on_text is not None, "only a streamed call takes text"
        self._on_text(text)
        if self._reservation is not None:
            self._reservation.take(text)

    def failed(self, fault: Fault | None) -> None:
        self._charge(None if fault is None or fault.maybe_paid else 0.0)

    async def keep(self, completion: Completion) -> Completion:
        usage = completion.usage
        usd = self._upstream._pricing.usd(self._model.name, usage)
        self._charge(usd, estimated=usage.counted > 0)
        return completion

    def retrying(self, fault: Fault, wait_s: float) -> None:
        self._upstream._metrics.retries.add(self._request.role, fault.cause)

    def _charge(self, usd: float | None, *, estimated: bool = False) -> None:
        reservation, self._reservation = self._reservation, None
        self._upstream._ledger.charge(reservation, usd, estimated=estimated)


async def _answered_here(model: SingleModel, request: Request, on_text: OnText | None) -> Completion:
    started = perf_counter()
    try:
        return await (model.complete(request) if on_text is None else model.stream(request, on_text))
    except (Fault, FractionateError):
        raise
    except (OSError, RuntimeError) as error:  # what local weights raise when memory is full, for example
        said = f"{model.name} failed after {perf_counter() - started:.1f} s: {type(error).__name__}"
        raise PermanentFault("failed", said) from error
