"""Labels by people: which outputs they found right, by question and output. They measure a judge, and correct it.

A file of labels has a row for each: `label` (true or false, yes or no, a grade on the judge's scale), and what it is
about: `id` and `output`, or one of the two. `fractionate label` writes such rows. A label of an output is that of every
system that said exactly this to the question. A label by `id` alone is taken where only one output is in question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractionate.columns import digest
from fractionate.errors import UsageError
from fractionate.rows import Row, read_rows, shown
from fractionate.statistics.prediction_powered import LEAST_GOLD, Corrected, corrected

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fractionate.statistics.clusters import Groups

_WORDS = {
    **dict.fromkeys(("yes", "right", "correct", "true"), 1.0),
    **dict.fromkeys(("no", "wrong", "incorrect", "false"), 0.0),
}
OPINION = (
    "no label by a person measures the judge, so these outcomes are its opinion: set judge.labels, or write some with "
    "fractionate label"
)
"""What is said of a judge without labels."""


@dataclass(frozen=True)
class Labels:
    """The labels of a file, each from 0 (wrong) to 1 (right)."""

    path: Path
    by_output: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """By question id ("" where the row has none) and digest of the output."""
    by_id: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.by_output) + len(self.by_id)

    def of(self, question: str, output: str, *, only_output: bool = False) -> float:
        """Return the label of an output to a question, NaN where there is none.

        `only_output` says that no other output to the question is in play, so that a label by id alone is about it.
        """
        said = digest(output.strip())
        found = self.by_output.get((question, said), self.by_output.get(("", said)))
        if found is None and only_output:
            found = self.by_id.get(question)
        return math.nan if found is None else found


def read_labels(path: Path, scale: str) -> Labels:
    """Read a file of labels on a judge's scale, "yes-no" or "1-5".

    Raises UsageError, with the place, for a row without a label or anything that it is about, and for two labels of
    one output that differ.
    """
    by_output: dict[tuple[str, int], float] = {}
    by_id: dict[str, float] = {}
    for row in read_rows(path):
        label = _label(row, scale)
        if label is None:
            continue
        question, output = row.values.get("id"), row.values.get("output")
        if output is not None and not isinstance(output, str):
            raise row.error(f"'output' must be text, not {shown(output)}")
        if question in (None, "") and output is None:
            raise row.error("neither 'id' nor 'output': a label is about an output to a question")
        name = "" if question is None else str(question)
        table: dict[Any, float] = by_id if output is None else by_output
        key: Any = name if output is None else (name, digest(output.strip()))
        if table.setdefault(key, label) != label:
            raise row.error(f"this output to {name or 'a question'!r} has another label in the file: keep one of them")
    if not by_output and not by_id:
        raise UsageError(f"{path} holds no label")
    return Labels(path, by_output, by_id)


def _label(row: Row, scale: str) -> float | None:
    """Return a row's label from 0 to 1, None for null: an output that was skipped."""
    if "label" not in row.values:
        raise row.error(f"no field 'label' (the row has {', '.join(map(str, row.values))})")
    value = row.values["label"]
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if scale == "1-5" and not isinstance(value, bool) and number in (1, 2, 3, 4, 5):
        return (number - 1) / 4
    if scale != "1-5" and number in (0, 1):
        return number
    wanted = "a grade from 1 to 5" if scale == "1-5" else "true or false (yes or no, 1 or 0)"
    raise row.error(f"'label' must be {wanted}, not {shown(value)}")


@dataclass(frozen=True, slots=True)
class Measured:
    """A judge measured by labels: what it is worth, and whether there are labels enough to correct by."""

    n_labels: int
    agreement: float
    agreement_low: float
    agreement_high: float
    kappa: float
    bias: float
    corrects: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them; all are shares of 1 but the count."""
        return {
            "labels": self.n_labels,
            "agreement": self.agreement,
            "agreement_low": self.agreement_low,
            "agreement_high": self.agreement_high,
            "kappa": self.kappa,
            "bias": self.bias,
            "corrects": self.corrects,
        }

    def line(self) -> str:
        """Return what the labels say of the judge, in one sentence."""
        said = (
            f"the judge agrees with {self.n_labels} labels by people on {self.agreement:.0%} "
            f"({self.agreement_low:.0%} to {self.agreement_high:.0%}; Cohen's kappa {self.kappa:.2f}) and is "
            f"{abs(self.bias) * 100:.1f} pp too {'lenient' if self.bias >= 0 else 'strict'} on them"
        )
        if self.corrects:
            return f"{said}; outcomes are corrected by these labels (prediction-powered inference)"
        return f"{said}; {LEAST_GOLD} labels are needed to correct outcomes by them, so these are the judge's opinion"


def measure(
    gold: NDArray[np.float64], judged: NDArray[np.float64], groups: Groups | None = None, confidence: float = 0.95
) -> tuple[Measured, Corrected] | None:
    """Measure a judge by labels: `gold` (NaN for none) and `judged`, both of shape (n,); None without any label."""
    import numpy as np

    from fractionate.statistics import mean_interval

    has = ~np.isnan(gold)
    count = int(has.sum())
    if not count:
        return None
    found = corrected(gold, judged, groups)
    agree = 1 - np.abs(gold - judged)[has]
    units = None if groups is None else [groups[place] for place in np.flatnonzero(has).tolist()]
    low, high = mean_interval(agree, confidence, units)
    measured = Measured(count, float(agree.mean()), low, high, found.kappa, found.bias, count >= LEAST_GOLD)
    return measured, found


def one_output_each(outputs: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the questions, by id, that got one and the same output from all systems in play."""
    return {question for question, said in outputs.items() if len({digest(one.strip()) for one in said}) == 1}
