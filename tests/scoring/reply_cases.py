"""Cases of replies by class, as the tests of forms list them."""

from __future__ import annotations

import pytest

Classes = dict[str, list[tuple[str, str | None]]]
"""By class, replies with the answer that each states; None for one that states none."""


def cases(classes: Classes) -> list[object]:
    """Return a parameter for each reply, named by its class and place."""
    return [
        pytest.param(output, answer, id=f"{name}-{place}")
        for name, listed in classes.items()
        for place, (output, answer) in enumerate(listed)
    ]
