"""The strategies by name."""

from __future__ import annotations

from collections.abc import Callable

from fractionate.reasoning.dynamic import dynamic
from fractionate.reasoning.program import Program, Solution, Task
from fractionate.reasoning.single import single, single_cot
from fractionate.reasoning.static import static
from fractionate.reasoning.stepwise import stepwise
from fractionate.types import Strategy

PROGRAMS: dict[Strategy, Callable[[Task], Program[Solution]]] = {
    "single": single,
    "single-cot": single_cot,
    "static": static,
    "stepwise": stepwise,
    "dynamic": dynamic,
}
SINGLE_STAGE: frozenset[Strategy] = frozenset({"single", "single-cot"})
