"""Who is let in, in which order, and the status of every refusal: without a server."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from fractionate.errors import FractionateError, UsageError
from fractionate.models.faults import FatalFault, PermanentFault, TransientFault
from fractionate.serve.admission import Admission, Keys, check_browser, check_host, is_loopback
from fractionate.serve.errors import Refusal, bad, of_fault


def test_a_key_names_its_account_and_every_other_is_refused() -> None:
    keys = Keys("first, second")
    accounts = [f"key-{hashlib.sha256(key).hexdigest()[:8]}" for key in (b"first", b"second")]
    assert keys.accounts == accounts
    assert keys.account({"Authorization": "bearer  second "}) == accounts[1]
    for given, said in (("", "is needed"), ("Bearer third", "is unknown"), ("Basic first", "is unknown")):
        with pytest.raises(Refusal, match=said) as refused:
            keys.account({"Authorization": given})
        assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
    assert not Keys(" ")
    assert Keys("").account({}) == "everybody"
    assert Keys("").accounts == ["everybody"]


@pytest.mark.parametrize(
    ("listed", "number"), [("a,,b", 2), ("two words", 1), ("a, b,ключ", 3), ("tab\tin", 1), ("a,", 2)]
)
def test_a_key_that_no_header_can_hold_is_refused(listed: str, number: int) -> None:
    with pytest.raises(UsageError, match=f"FRACTIONATE_KEYS: key {number} is"):
        Keys(listed)


def test_an_ownership_token_needs_the_same_key_and_text() -> None:
    keys = Keys("first,second")
    first, second = keys.accounts
    token = keys.ownership_token(first, "text")
    assert len(token) == 32
    assert token == Keys("first").ownership_token(first, "text")
    assert token not in (keys.ownership_token(second, "text"), keys.ownership_token(first, "other"))
    assert keys.ownership_token("everybody", "text") == ""


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False),
     ("0.0.0.0", False), ("localhost.example", False), ("", False)],
)  # fmt: skip
def test_only_this_machine_needs_no_keys(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    check_host(host, Keys("a"))
    if loopback:
        check_host(host, Keys(""))
    else:
        with pytest.raises(UsageError, match="FRACTIONATE_KEYS"):
            check_host(host, Keys(""))


def test_a_page_of_another_site_is_refused() -> None:
    check_browser({"Host": "localhost:8000"})
    check_browser({"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"})
    for host, origin, code in (
        ("evil.example", "", "wrong_host"),
        ("[broken", "", "wrong_host"),
        ("localhost:8000", "http://evil.example", "wrong_origin"),
        ("localhost:8000", "http://localhost:9000", "wrong_origin"),
    ):
        with pytest.raises(Refusal) as refused:
            check_browser({"Host": host, "Origin": origin})
        assert (refused.value.status, refused.value.code) == (403, code)


def test_slots_pass_on_in_order_and_a_full_queue_says_when_to_come_again() -> None:
    async def main() -> None:
        admission, order = Admission(slots=1, queue=2), []

        async def request(name: str, gate: asyncio.Event) -> None:
            async with admission:
                order.append(name)
                await gate.wait()

        gate = asyncio.Event()
        several = []
        for name in ("first", "second", "third"):
            several.append(asyncio.create_task(request(name, gate)))
            await asyncio.sleep(0)
        assert (admission.inside, admission.waiting) == (1, 2)
        admission.finished(40.0)
        assert admission.seconds == pytest.approx(4.0)
        admission.finished(14.0)
        assert admission.seconds == pytest.approx(5.0)
        with pytest.raises(Refusal) as full:
            await admission.__aenter__()
        assert (full.value.status, full.value.code, full.value.after_s) == (429, "server_full", pytest.approx(15.0))
        several[1].cancel()
        await asyncio.sleep(0)
        assert admission.waiting == 1
        gate.set()
        await asyncio.gather(several[0], several[2])
        assert order == ["first", "third"]
        assert (admission.inside, admission.waiting) == (0, 0)
        admission.draining = True
        with pytest.raises(Refusal) as closing:
            await admission.__aenter__()
        assert (closing.value.status, closing.value.code, closing.value.after_s) == (503, "shutting_down", 5)

    asyncio.run(main())


def test_a_quick_server_asks_for_a_second_at_least() -> None:
    async def main() -> None:
        admission = Admission(slots=0, queue=0)
        admission.slots, admission.inside = 1, 1
        with pytest.raises(Refusal) as full:
            await admission.__aenter__()
        assert full.value.after_s == 1.0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "kind", "retried"),
    [(400, "invalid_request_error", False), (401, "authentication_error", False), (402, "insufficient_quota", False),
     (403, "permission_error", False), (404, "invalid_request_error", False), (408, "invalid_request_error", True),
     (409, "invalid_request_error", True), (429, "rate_limit_error", True), (499, "cancelled", False),
     (500, "api_error", False), (502, "api_error", False), (503, "overloaded_error", True),
     (504, "timeout_error", False)],
)  # fmt: skip
def test_a_status_has_its_kind_and_says_whether_to_try_again(status: int, kind: str, retried: bool) -> None:
    refusal = Refusal(status, "said", code="", after_s=0.2)
    assert refusal.body() == {"error": {"message": "said", "type": kind, "param": None, "code": None}}
    headers = refusal.headers()
    assert headers["x-should-retry"] == str(retried).lower()
    assert headers["Retry-After"] == "1"
    assert ("WWW-Authenticate" in headers) == (status == 401)
    assert Refusal(status, "said", after_s=1.2, allow="GET").headers()["Retry-After"] == "2"
    assert "Retry-After" not in Refusal(status, "said").headers()


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(FatalFault("refused key", "x"), 502, "solver_unusable"),
     (PermanentFault("context too long", "x"), 400, "context_length_exceeded"),
     (PermanentFault("filtered", "x"), 400, "content_filter"),
     (PermanentFault("400", "x"), 400, "solver_rejects"), (PermanentFault("499", "x"), 400, "solver_rejects"),
     (PermanentFault("399", "x"), 502, "solver_failed"), (PermanentFault("500", "x"), 502, "solver_failed"),
     (PermanentFault("max_tokens ignored", "x"), 502, "solver_failed"),
     (TransientFault("timeout", "x"), 504, "solver_timeout"), (TransientFault("408", "x"), 504, "solver_timeout"),
     (TransientFault("504", "x"), 504, "solver_timeout"), (TransientFault("500", "x"), 502, "solver_failed"),
     (TransientFault("429", "x", congested=True, after_s=7.0), 503, "solver_busy"),
     (FractionateError("x"), 502, "solver_failed")],
)  # fmt: skip
def test_a_solvers_failure_becomes_one_status(fault: FractionateError, status: int, code: str) -> None:
    refusal = of_fault(fault)
    assert (refusal.status, refusal.code) == (status, code)
    assert refusal.after_s == (7.0 if code == "solver_busy" else None)


def test_a_solvers_message_is_one_line_of_at_most_500_characters() -> None:
    assert of_fault(PermanentFault("400", "a\n b")).message == "a b"
    assert len(of_fault(PermanentFault("400", "x" * 500)).message) == 500
    assert len(of_fault(PermanentFault("400", "x" * 501)).message) == 500
    assert len(of_fault(PermanentFault("400", "x " * 300)).message) <= 500


def test_a_faulty_request_is_a_400() -> None:
    assert (bad("x").status, bad("x").code, bad("x", "n").param) == (400, "invalid_value", "n")
