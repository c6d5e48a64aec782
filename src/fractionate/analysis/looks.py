"""The ledger of looks: every verdict spends from one error per test set, whichever folder it was made in.

A look is one verdict: these questions, these candidates and this reference, with what they scored. The same look again
costs nothing. A look at more questions of the same systems continues a *family*: its error is spent as the questions
grow (`statistics/multiplicity.py`). Any other look at the same questions (fewer of them, students that were trained
again, another reference, another margin, seeds added), or by the same students at other questions of the data set,
opens a new family, which gets a share of what the first one has left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fractionate.analysis.contrasts import paired_places
from fractionate.analysis.corrections import outcomes_of
from fractionate.analysis.matrix import Matrix
from fractionate.analysis.rule import Rule, Standing
from fractionate.analysis.verdict import candidates_of
from fractionate.types import Cell, Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Digests = NDArray[np.uint64]


@dataclass(frozen=True)
class Look:
    """An entry of the ledger. `parent` is the place of the look that it extends, -1 where it begins a family."""

    test_set: str
    questions: Digests
    """Sorted."""
    candidates: tuple[str, ...]
    fingerprint: str
    parent: int = -1
    family: int = 1
    """The number of its family among those that share its error."""
    sealed: bool = False


class Judged:
    """What a verdict on one test set rests on: settings, questions, and what reference and candidates scored."""

    def __init__(self, matrix: Matrix, rule: Rule, reference: Cell, questions: Digests) -> None:
        """`questions` are digests of the reference's questions, in its order."""
        import numpy as np

        first = matrix.cells[0]
        found = [cell for _, cell in candidates_of(matrix, reference)]
        self.test_set = f"{first.dataset}#{first.split}"
        self.candidates = tuple(sorted(_identity(cell) for cell in found))
        self._settings = repr((rule.margin, rule.confidence, rule.usd_per_correct, reference.strategy))
        self._order = np.argsort(questions, kind="stable")
        self.questions: Digests = questions[self._order]
        self._scores = {_identity(cell): self._aligned(cell, reference) for cell in (reference, *found)}

    def _aligned(self, cell: Cell, reference: Cell) -> Array:
        """Return a cell's outcomes in the order of the sorted questions, NaN where it lacks one."""
        import numpy as np

        mine, theirs = paired_places(cell, reference)
        scores = np.full(len(reference.columns), np.nan)
        all_outcomes = outcomes_of(cell.columns, cell.metric).values  # more gold is another look
        scores[slice(None) if theirs is None else theirs] = all_outcomes if mine is None else all_outcomes[mine]
        return scores[self._order]

    def fingerprint(self, of: Digests | None = None) -> str:
        """Return a digest of settings, systems and outcomes, over all questions or some of them."""
        import numpy as np

        held = slice(None) if of is None else np.isin(self.questions, of)
        text = hashlib.blake2b(self._settings.encode(), digest_size=12)
        text.update(self.questions[held].tobytes())
        for name in sorted(self._scores):
            text.update(name.encode() + self._scores[name][held].tobytes())
        return text.hexdigest()


@dataclass
class Ledger:
    """The looks so far, in order."""

    looks: list[Look] = field(default_factory=list)

    def standing(self, judged: Judged, *, sealed: bool = False) -> Standing:
        """Return where a verdict stands among the looks before it."""
        place = self._known(judged)
        if place is not None:
            look = self.looks[place]
            return Standing(look.family, self._sizes(look.parent), known=True)
        related = self._related(judged)
        if sealed and any(self.looks[one].sealed for one in related):
            return Standing(len(self._roots(related)) + 1, opened=True)
        parent = self._parent(judged)
        if parent >= 0:
            return Standing(self.looks[parent].family, self._sizes(parent))
        return Standing(len(self._roots(related)) + 1)

    def add(self, judged: Judged, *, sealed: bool = False) -> Look | None:
        """Enter a verdict, and return its entry; None where it was entered before, or its sealed set was opened."""
        standing = self.standing(judged, sealed=sealed)
        if standing.known or standing.opened:
            return None
        parent = self._parent(judged)
        look = Look(
            judged.test_set,
            judged.questions,
            judged.candidates,
            judged.fingerprint(),
            parent,
            standing.family,
            sealed,
        )
        self.looks.append(look)
        return look

    def _known(self, judged: Judged) -> int | None:
        fingerprint = judged.fingerprint()
        return next((place for place, one in enumerate(self.looks) if one.fingerprint == fingerprint), None)

    def _parent(self, judged: Judged) -> int:
        """Return the last look of a family whose questions and outcomes the new one holds and adds to; -1 for none."""
        import numpy as np

        extended = {one.parent for one in self.looks}
        for place in range(len(self.looks) - 1, -1, -1):
            look = self.looks[place]
            if place in extended or len(look.questions) >= len(judged.questions):
                continue
            held = look.candidates == judged.candidates and bool(np.isin(look.questions, judged.questions).all())
            if held and judged.fingerprint(look.questions) == look.fingerprint:
                return place
        return -1

    def _related(self, judged: Judged) -> list[int]:
        import numpy as np

        return [
            place
            for place, look in enumerate(self.looks)
            if np.isin(look.questions, judged.questions).any()
            or (look.test_set == judged.test_set and set(look.candidates) & set(judged.candidates))
        ]

    def _roots(self, places: Sequence[int]) -> set[int]:
        found = set()
        for place in places:
            while self.looks[place].parent >= 0:
                place = self.looks[place].parent
            found.add(place)
        return found

    def _sizes(self, place: int) -> tuple[int, ...]:
        sizes: list[int] = []
        while place >= 0:
            sizes.append(len(self.looks[place].questions))
            place = self.looks[place].parent
        return tuple(reversed(sizes))


def _identity(cell: Cell) -> str:
    def said(component: Component) -> tuple[Any, ...]:
        return component.name, component.model, component.variant, component.learnt_from

    judge = (cell.judge,) if cell.judge else ()
    return repr((cell.strategy, said(cell.decomposer), said(cell.solver), *judge))
