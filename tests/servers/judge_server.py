"""The chat server as a solver and its judge: the solver answers by the question's last word, the judge reads it."""

from __future__ import annotations

import json
import re
from typing import Any

from servers.chat_server import answer
from servers.solver_server import SolverServer

_KNOWN = re.compile(r"Known answers:\n- (.*)")
_SHOWN = re.compile(r"<<<\n(.*?)\n>>>", re.DOTALL)


class JudgeServer(SolverServer):
    """A judge says yes where a known answer stands in the output; `lenient` words pass too, `mute` ones get no verdict.

    Of two outputs it prefers the one with the known answer; with `prefers_first` always the first. It is recognised by
    its instruction; `judged` counts its requests.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lenient: set[str] = set()
        self.mute: set[str] = set()
        self.prefers_first = False
        self.judged = 0

    def answered_by(self, body: dict[str, Any], bare: str) -> dict[str, Any]:
        system = body["messages"][0]["content"]
        if "Verdict:" not in system:
            return super().answered_by(body, bare)
        self.judged += 1
        reply = answer(body)
        case = body["messages"][-1]["content"]
        known, shown = _KNOWN.search(case), _SHOWN.findall(case)
        passes = {known[1] if known else "", *self.lenient} - {""}
        right = [any(word in output for word in passes) for output in shown]
        if len(shown) == 2:
            verdict = "A" if self.prefers_first or right[0] > right[1] else "B" if right[1] > right[0] else "tie"
        else:
            verdict = "yes" if right[0] else "no"
        if "1 to 5" in system:
            verdict = "5" if right[0] else "2"
        said = "I cannot say." if any(word in case for word in self.mute) else f"It says so.\nVerdict: {verdict}"
        reply["choices"][0]["message"]["content"] = said
        return json.loads(json.dumps(reply))
