"""Counters of a gateway, in Prometheus' text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the buckets of durations, in seconds."""
CONTENT_TYPE = "text/plain; version=0.0.4"


@dataclass
class Counter:
    """A measure that only grows, by the values of its labels."""

    name: str
    help: str
    labels: tuple[str, ...]
    values: dict[tuple[str, ...], float] = field(default_factory=dict)

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Add an amount under these labels."""
        self.values[labels] = self.values.get(labels, 0.0) + amount

    def total(self) -> float:
        """Return the sum over all labels."""
        return sum(self.values.values())

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text format."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} counter"
        for labels, value in sorted(self.values.items()):
            yield f"{self.name}{_labels(self.labels, labels)} {value:.10g}"


@dataclass
class Histogram:
    """Durations in seconds, counted in buckets."""

    name: str
    help: str
    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    sum: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds

    @property
    def mean(self) -> float:
        """Return the mean, 0 before the first."""
        return self.sum / max(1, sum(self.counts))

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text format."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} histogram"
        below = 0
        for bound, count in zip([*SECONDS, float("inf")], self.counts, strict=True):
            below += count
            yield f'{self.name}_bucket{{le="{"+Inf" if bound == float("inf") else f"{bound:g}"}"}} {below}'
        yield f"{self.name}_sum {self.sum:.10g}"
        yield f"{self.name}_count {below}"


class Metrics:
    """All measures of one gateway. `gauges` are read on each scrape."""

    def __init__(self) -> None:
        self.requests = Counter("fractionate_requests_total", "Requests by model and HTTP status.", ("model", "status"))
        self.refused = Counter("fractionate_refused_total", "Requests that were refused, by code.", ("code",))
        self.calls = Counter("fractionate_calls_total", "Model calls that came back, by role.", ("role",))
        self.tokens = Counter("fractionate_tokens_total", "Tokens by role and direction.", ("role", "direction"))
        self.usd = Counter("fractionate_usd_total", "Dollars by role, of calls with a known price.", ("role",))
        self.retries = Counter("fractionate_retries_total", "Calls sent again, by cause.", ("role", "cause"))
        self.degraded = Counter("fractionate_degraded_total", "Answers without the decomposer, which failed.", ())
        self.gone = Counter("fractionate_clients_gone_total", "Requests whose client went away.", ())
        self.seconds = Histogram("fractionate_request_seconds", "Seconds from a request's body to its last byte.")
        self.first_text = Histogram("fractionate_first_word_seconds", "Seconds to the first streamed piece.")
        self.further: list[Counter | Histogram] = []
        """Counters of optional features."""
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._measures: tuple[Counter | Histogram, ...] = (
            *(self.requests, self.refused, self.calls, self.tokens, self.usd, self.retries, self.degraded, self.gone),
            *(self.seconds, self.first_text),
        )

    def text(self) -> str:
        """Return everything in the text format."""
        lines = [line for measure in (*self._measures, *self.further) for line in measure.lines()]
        for name, (help_text, read) in self.gauges.items():
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge", f"{name} {read():.10g}"]
        return "\n".join(lines) + "\n"


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
