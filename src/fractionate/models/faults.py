"""What can go wrong with one model call, sorted by what the client does about it.

A model's `complete` raises one of these; nothing here holds a key, a header or a request body.
"""

from __future__ import annotations

from dataclasses import dataclass


class Fault(Exception):  # noqa: N818 - the field's word
    """One call went wrong. `cause` is the short name it is counted under; `message` is one line for a person.

    `maybe_paid`: the provider may have done the work and billed it (a timeout, a reply cut short), so a budget must
    count the call's reservation as spent. `attempts`: how often the call was sent before it was given up.
    """

    attempts = 1

    def __init__(self, cause: str, message: str, *, maybe_paid: bool = False) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.maybe_paid = maybe_paid


class TransientFault(Fault):
    """Worth sending again: rate limits, overload, timeouts, broken connections, unreadable replies.

    `after_s`: seconds the server asked to wait (Retry-After), None if it did not say. `congested`: the server has too
    much to do, so the number of calls in flight should fall. `systematic`: every call will meet it (connection
    refused, TLS failure, a redirect), so that once retries are used up and no call has succeeded, the run stops.
    """

    def __init__(
        self,
        cause: str,
        message: str,
        *,
        after_s: float | None = None,
        congested: bool = False,
        systematic: bool = False,
        maybe_paid: bool = False,
    ) -> None:
        super().__init__(cause, message, maybe_paid=maybe_paid)
        self.after_s = after_s
        self.congested = congested
        self.systematic = systematic


class PermanentFault(Fault):
    """This one request will never succeed as it is: the call fails, the run goes on.

    `finish_reason` is what its completion says ("error" or "content_filter"). `keep`: the server's answer depends on
    the request alone (the context is too long, a filter), so it is stored and a repeated run does not ask again.
    """

    def __init__(
        self,
        cause: str,
        message: str,
        *,
        finish_reason: str = "error",
        keep: bool = False,
        maybe_paid: bool = False,
    ) -> None:
        super().__init__(cause, message, maybe_paid=maybe_paid)
        self.finish_reason = finish_reason
        self.keep = keep


class FatalFault(Fault):
    """No call can succeed until the user fixes something (a refused key, an unknown model, no credit left)."""


@dataclass(frozen=True, slots=True)
class RateHeaders:
    """What a server's x-ratelimit headers said last: what remains, and seconds until it is full again."""

    remaining_requests: int | None = None
    reset_requests_s: float = 0.0
    remaining_tokens: int | None = None
    reset_tokens_s: float = 0.0
