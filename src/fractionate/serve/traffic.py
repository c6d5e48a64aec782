"""A server's traffic as data: answers are recorded, feedback is taken, and a shadow is measured beside them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from fractionate.datasets.base import Dataset
from fractionate.errors import UsageError
from fractionate.serve.errors import Refusal, bad
from fractionate.serve.gateway import Gateway
from fractionate.serve.metrics import Counter
from fractionate.serve.record import KNOWN, Finished, RecordFile, answer_line, feedback_line, shadow_line
from fractionate.serve.requests import Feedback
from fractionate.serve.shadow import Shadow, Shadowed
from fractionate.types import Answer

LOG = logging.getLogger("fractionate.serve")

REMEMBERED = 10_000
"""The latest feedback and shadow answers that are kept in memory, to be compared in the metrics."""


class Traffic:
    """The record of one server and, where there is one, its shadow. Raises the errors of `RecordFile`.

    A request with `store: false` is not recorded, and has no shadow.
    """

    def __init__(self, gateway: Gateway, path: Path) -> None:
        self._gateway = gateway
        self._scorer = gateway.catalog.config.data.scorer.text
        self._shadow: Shadow | None = None
        self._given: dict[str, Feedback] = {}
        self._shadowed: dict[str, Shadowed] = {}
        self._written = Counter("fractionate_recorded_total", "Lines put in the record, by kind.", ("kind",))
        self._left_out = Counter(
            "fractionate_record_left_out_total", "Lines that are not in the record, by reason.", ("why",)
        )
        self._counted = Counter("fractionate_feedback_total", "Feedback on answers, by pair.", ("pair", "right"))
        self._judged = Counter(
            "fractionate_shadow_judged_total",
            "Answers with feedback and a shadow answer, by which were right.",
            ("answered", "shadow"),
        )
        gateway.metrics.further += [self._written, self._left_out, self._counted, self._judged]
        self._file = RecordFile(path, lambda count, why: self._left_out.add(why, amount=count))

    def shadow(self, shadow: Shadow) -> None:
        """Set the pair that answers beside those that clients name."""
        self._shadow = shadow

    def answered(self, finished: Finished) -> None:
        """Record an answered request, and let the shadow answer it too. Returns at once, and never fails an answer."""
        try:
            self._answered(finished)
        except Exception as error:  # its message may hold a client's text
            LOG.error("unexpected %s when recording", type(error).__name__)
            self._left_out.add("failed")

    def _answered(self, finished: Finished) -> None:
        if not finished.answered.plan.client_request.store:
            self._left_out.add("store_false")
            return
        token = self._gateway.keys.ownership_token(finished.account, finished.id)
        self._file.add(answer_line(finished, self._scorer, token), finished.id)
        self._written.add("answer")
        if self._shadow is not None:
            self._shadow.follow(finished, self._keep_shadow)

    async def feedback(self, feedback: Feedback, account: str) -> Mapping[str, Any]:
        """Record feedback and return the reply to it, once it is written.

        Raises Refusal where the answer is unknown or was given to another key.
        """
        text = await asyncio.to_thread(self._file.find, feedback.id)
        row = json.loads(text) if text else {}
        token = row.get("ownership_token", row.get("seal", ""))  # `seal` is its name in records made by 0.1
        if not row or token != self._gateway.keys.ownership_token(account, feedback.id):
            said = (
                f"no answer {feedback.id!a} of yours is recorded: feedback is for answers to requests with the same "
                f"key, recorded by this server and among its latest {KNOWN:,}"
            )
            raise Refusal(404, said, code="answer_not_found", param="id")
        right = self._is_right(row, feedback)
        if self._given.get(feedback.id) != feedback:
            written: Future[bool] = Future()
            self._file.add(feedback_line(feedback.id, right, feedback.answers), written=written)
            if not await asyncio.wrap_future(written):
                raise Refusal(503, "the feedback could not be written: try again", code="not_recorded", after_s=5)
            self._written.add("feedback")
            self._counted.add(row["pair"], str(right).lower())
            _remember(self._given, feedback.id, feedback)
            self._compare(feedback.id, right)
        return {"object": "feedback", "id": feedback.id, "right": right}

    async def close(self) -> None:
        """Stop the shadow and write the lines that wait."""
        if self._shadow is not None:
            await self._shadow.close()
        await asyncio.to_thread(self._file.close)

    def _is_right(self, row: Mapping[str, Any], feedback: Feedback) -> bool:
        """Return whether the answer is right: by the client's word, or by its data set's scorer."""
        if feedback.right is not None:
            if len(row["replies"]) > 1:
                raise bad(f"that request has {len(row['replies'])} answers: give answer, the right one", "right")
            return feedback.right
        return _scores(self._dataset(row), _answer(row), feedback.answers)

    def _dataset(self, row: Mapping[str, Any]) -> Dataset:
        try:
            return self._gateway.dataset_named(row["dataset"])
        except UsageError as error:  # the record of another run
            raise Refusal(409, f"its answer cannot be scored here: {error}", code="not_scored", param="id") from None

    def _keep_shadow(self, finished: Finished, shadowed: Shadowed) -> None:
        self._file.add(shadow_line(finished.id, shadowed.row, same=shadowed.same, failed=shadowed.failed))
        self._written.add("shadow")
        if shadowed.failed:
            return
        _remember(self._shadowed, finished.id, shadowed)
        feedback = self._given.get(finished.id)
        if feedback is not None:
            answer = finished.answered.choices[0].answer
            self._compare(
                finished.id,
                _scores(shadowed.dataset, answer, feedback.answers) if feedback.answers else bool(feedback.right),
            )

    def _compare(self, id: str, right: bool) -> None:
        """Count which answers were right, where there is both feedback and a shadow answer."""
        feedback, shadowed = self._given[id], self._shadowed.get(id)
        if shadowed is None:
            return
        if feedback.answers:
            shadow_right = str(_scores(shadowed.dataset, shadowed.answer, feedback.answers)).lower()
        elif shadowed.same:
            shadow_right = str(right).lower()
        else:
            shadow_right = "false" if right else "unknown"
        self._judged.add(str(right).lower(), shadow_right)


def _remember(table: dict[str, Any], id: str, value: object) -> None:
    table.pop(id, None)
    table[id] = value
    if len(table) > REMEMBERED:
        del table[next(iter(table))]


def _answer(row: Mapping[str, Any]) -> Answer | None:
    answer = row["replies"][0]["answer"]
    return None if answer is None else tuple(answer)


def _scores(dataset: Dataset, answer: Answer | None, right: tuple[Answer, ...]) -> bool:
    return dataset.score(answer, right).exact_match == 1.0
