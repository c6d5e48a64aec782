"""What an engine has done, counted: the run prints it, and "zero model calls" is read from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

from fractionate.types import Completion, Role, Usage


@dataclass(slots=True)
class Counters:
    """Counters of one engine.

    `sent`: calls that left for a model, retries and local rows included. `served`: completions read from the store.
    `joined`: requests that shared an identical one in flight. `stored`: rows committed. `retries` by cause; `failures`:
    calls given up, by cause; `endings`: finish reasons other than "stop". `usage`: calls made now, by model and role.
    `cuts`: times that the number of calls in flight was cut because a server complained.
    """

    sent: int = 0
    served: int = 0
    joined: int = 0
    stored: int = 0
    cuts: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    usage: dict[tuple[str, Role], Usage] = field(default_factory=dict)

    def completed(self, model: str, role: Role, completion: Completion) -> None:
        """Count a completion that a model has just given."""
        self.usage[model, role] = self.usage.get((model, role), Usage()) + completion.usage
        if completion.finish_reason != "stop":
            self.endings[completion.finish_reason] += 1

    def add(self, now: Counters, before: Counters) -> None:
        """Add what other counters have counted between two readings."""
        for name in ("sent", "served", "joined", "stored", "cuts"):
            setattr(self, name, getattr(self, name) + getattr(now, name) - getattr(before, name))
        for name in ("retries", "failures", "endings"):
            getattr(self, name).update(getattr(now, name) - getattr(before, name))
        for key, usage in now.usage.items():
            old = before.usage.get(key, Usage())
            since = Usage(*(getattr(usage, each.name) - getattr(old, each.name) for each in fields(Usage)))
            self.usage[key] = self.usage.get(key, Usage()) + since

    def usage_by_role(self) -> dict[Role, Usage]:
        """Return the usage of calls made now, by role."""
        total: dict[Role, Usage] = {}
        for (_, role), usage in self.usage.items():
            total[role] = total.get(role, Usage()) + usage
        return total

    def line(self) -> str:
        """Return one line for a person: calls sent, served, retries and failures by cause, tokens by role."""
        parts = [f"{self.sent:,} model calls", f"{self.served:,} from the store"]
        if self.joined:
            parts.append(f"{self.joined:,} shared in flight")
        for name, counter in (("retries", self.retries), ("failed", self.failures), ("endings", self.endings)):
            if counter:
                causes = ", ".join(f"{count} {cause}" for cause, count in sorted(counter.items()))
                parts.append(f"{counter.total():,} {name} ({causes})")
        for role, usage in sorted(self.usage_by_role().items()):
            guessed = f", {usage.counted:,} calls counted here" if usage.counted else ""
            parts.append(f"{role} {usage.input_tokens:,} tokens in, {usage.output_tokens:,} out{guessed}")
        return "; ".join(parts)
