"""Whether going on with a model makes sense: a run stops early rather than failing 10,000 calls one by one."""

from __future__ import annotations

FRUITLESS = 10
"""Calls that may fail one after another, with none ever having succeeded, before the run stops."""


class Health:
    """How many calls to one model have failed since one last succeeded."""

    def __init__(self) -> None:
        self.successes = 0
        self.streak = 0

    def succeeded(self) -> None:
        """Note a call that came back."""
        self.successes += 1
        self.streak = 0

    def failed(self, hopeless: bool) -> bool:
        """Note a failed call; returns whether to stop."""
        self.streak += 1
        if self.successes == 0 and (hopeless or self.streak >= FRUITLESS):
            return True
        # A server that has died in the middle: many more in a row than chance would give.
        return self.streak >= 5 * FRUITLESS
