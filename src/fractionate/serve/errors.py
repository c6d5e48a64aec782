"""Errors as a client sees them: an HTTP status and OpenAI's error object with a message of one line."""

from __future__ import annotations

import math
from typing import Any

from fractionate.errors import FractionateError, shortened
from fractionate.models.faults import FatalFault, Fault, PermanentFault, TransientFault

_KINDS = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
    499: "cancelled",
    503: "overloaded_error",
    504: "timeout_error",
}
_RETRIED = (408, 409, 429, 503)
"""Statuses after which another try may help."""


class Refusal(Exception):  # noqa: N818 - an answer too
    """A request that is not answered, and why.

    `param` names the field at fault, `after_s` the seconds after which to try again, `allow` the method of the path.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        param: str | None = None,
        after_s: float | None = None,
        allow: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.after_s = after_s
        self.allow = allow

    def body(self) -> dict[str, Any]:
        """Return the error as OpenAI's API writes it."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code or None}}

    def headers(self) -> dict[str, str]:
        """Return the headers that say whether and when to try again."""
        headers = {"x-should-retry": "true" if self.status in _RETRIED else "false"}
        if self.after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.allow:
            headers["Allow"] = self.allow
        return headers


def bad(message: str, param: str | None = None, code: str = "invalid_value") -> Refusal:
    """Return the refusal (400) of a faulty request."""
    return Refusal(400, message, code=code, param=param)


def of_fault(fault: Fault | FractionateError) -> Refusal:
    """Return the refusal that a solver's failure becomes."""
    said = shortened(" ".join(str(fault).split()), 500)
    if isinstance(fault, FatalFault):
        return Refusal(502, said, code="solver_unusable")
    if isinstance(fault, PermanentFault):
        if fault.cause == "context too long":
            return Refusal(400, said, code="context_length_exceeded", param="messages")
        if fault.cause == "filtered":
            return Refusal(400, said, code="content_filter")
        rejected = fault.cause.isdigit() and 400 <= int(fault.cause) < 500
        return Refusal(400 if rejected else 502, said, code="solver_rejects" if rejected else "solver_failed")
    if isinstance(fault, TransientFault):
        if fault.cause in ("timeout", "408", "504"):
            return Refusal(504, said, code="solver_timeout")
        status = 503 if fault.congested else 502
        return Refusal(status, said, code="solver_busy" if fault.congested else "solver_failed", after_s=fault.after_s)
    return Refusal(502, said, code="solver_failed")
