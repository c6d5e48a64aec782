"""A server's traffic as data: what it answered is recorded, marks are taken, and a shadow is measured beside it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractionate.datasets.base import Dataset
from fractionate.errors import UsageError
from fractionate.serve.feedback import Mark, marked, unknown_answer
from fractionate.serve.metrics import Counter
from fractionate.serve.record import Finished, answer_line, feedback_line, shadow_line
from fractionate.serve.record_file import KNOWN, RecordFile
from fractionate.serve.refusals import Refusal, bad
from fractionate.serve.shadow import Shadow, Shadowed
from fractionate.types import Answer

LOG = logging.getLogger("fractionate.serve")
if TYPE_CHECKING:
    from fractionate.serve.gateway import Gateway

REMEMBERED = 10_000
"""The latest marks and shadows' answers that are held to be laid beside each other in the metrics."""


class Traffic:
    """The record of one server and, where one is asked, its shadow. Raises what `RecordFile` does.

    A request with `store: false` is not recorded, and has no shadow.
    """

    def __init__(self, gateway: Gateway, path: Path) -> None:
        self._gateway = gateway
        self._scorer = gateway.catalog.config.data.scorer
        self._shadow: Shadow | None = None
        self._marks: dict[str, Mark] = {}
        self._shadowed: dict[str, Shadowed] = {}
        self._written = Counter("fractionate_recorded_total", "Lines put in the record, by what they say.", ("kind",))
        self._left_out = Counter(
            "fractionate_record_left_out_total", "Lines that are not in the record, by why.", ("why",)
        )
        self._feedback = Counter("fractionate_feedback_total", "Marks of answers, by pair.", ("pair", "right"))
        self._judged = Counter(
            "fractionate_shadow_judged_total",
            "Marked answers that a shadow answered too, by who was right.",
            ("answered", "shadow"),
        )
        gateway.metrics.further += [self._written, self._left_out, self._feedback, self._judged]
        self._file = RecordFile(path, lambda count, why: self._left_out.add(why, amount=count))

    def shadow(self, shadow: Shadow) -> None:
        """Let a shadow answer beside the pairs that clients ask for."""
        self._shadow = shadow

    def answered(self, finished: Finished) -> None:
        """Record an answered request, and let the shadow answer it too. Returns at once, and never fails an answer."""
        try:
            self._answered(finished)
        except Exception as error:  # its words may be a client's
            LOG.error("unexpected %s when recording", type(error).__name__)
            self._left_out.add("failed")

    def _answered(self, finished: Finished) -> None:
        if not finished.answered.plan.asked.store:
            self._left_out.add("store_false")
            return
        seal = self._gateway.keys.seal(finished.account, finished.id)
        self._file.add(answer_line(finished, self._scorer, seal), finished.id)
        self._written.add("answer")
        if self._shadow is not None:
            self._shadow.follow(finished, self._keep_shadow)

    async def mark(self, mark: Mark, account: str) -> Mapping[str, Any]:
        """Record a mark and return the reply to it. Raises Refusal where the answer is not this asker's, or not known.

        The reply comes when the mark is written.
        """
        text = await asyncio.to_thread(self._file.find, mark.id)
        row = json.loads(text) if text else {}
        if not row or row.get("seal", "") != self._gateway.keys.seal(account, mark.id):
            raise unknown_answer(mark.id, KNOWN)
        right = self._is_right(row, mark)
        if self._marks.get(mark.id) != mark:
            written: Future[bool] = Future()
            self._file.add(feedback_line(mark.id, right, mark.answers), written=written)
            if not await asyncio.wrap_future(written):
                raise Refusal(503, "the mark could not be written down: try again", code="not_recorded", after_s=5)
            self._written.add("feedback")
            self._feedback.add(row["pair"], str(right).lower())
            _remember(self._marks, mark.id, mark)
            self._judge(mark.id, right)
        return marked(mark, right)

    async def close(self) -> None:
        """Let the shadow go and write what waits."""
        if self._shadow is not None:
            await self._shadow.close()
        await asyncio.to_thread(self._file.close)

    def _is_right(self, row: Mapping[str, Any], mark: Mark) -> bool:
        """Return whether the answer is right: as it was said, or as its data set's scorer finds."""
        if mark.right is not None:
            if len(row["replies"]) > 1:
                raise bad(f"that request has {len(row['replies'])} answers: say answer, the right one", "right")
            return mark.right
        return _scores(self._dataset(row), _answer(row), mark.answers)

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
        mark = self._marks.get(finished.id)
        if mark is not None:
            answer = finished.answered.choices[0].answer
            self._judge(
                finished.id, _scores(shadowed.dataset, answer, mark.answers) if mark.answers else bool(mark.right)
            )

    def _judge(self, id: str, right: bool) -> None:
        """Count who was right, where the answer is marked and its shadow is there."""
        mark, shadowed = self._marks[id], self._shadowed.get(id)
        if shadowed is None:
            return
        if mark.answers:
            shadow_right = str(_scores(shadowed.dataset, shadowed.answer, mark.answers)).lower()
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
