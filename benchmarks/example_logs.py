"""Make examples/compare: the outcomes of three models on 660 GSM8K questions, with four prompting methods.

    python benchmarks/example_logs.py RECORDINGS GSM8K_TEST.jsonl

RECORDINGS holds `gpt4_cot.jsonl` and others with {index, completion}: the recorded outputs of Faithful CoT
(https://github.com/veronica320/Faithful-COT, MIT), restricted to rows 0-659 of GSM8K's test split.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fractionate

SYSTEMS = {
    "gpt4-cot": "gpt4_cot",
    "gpt4-subquestions": "gpt4_ltm",
    "gpt-3.5-cot": "gpt-3.5-turbo_cot",
    "text003-cot": "text003_cot",
}


def main(recordings: Path, gold: str) -> None:
    out = Path(__file__).resolve().parent.parent / "examples" / "compare"
    out.mkdir(exist_ok=True)
    for name, recorded in SYSTEMS.items():
        path = recordings / f"{recorded}.jsonl"
        scored = fractionate.score(path, "gsm8k", gold=f"gsm8k:{gold}", output_field="completion")
        rows = [f"{place},{row.score.exact_match:g}\n" for place, row in enumerate(scored.rows)]
        (out / f"{name}.csv").write_text("index,correct\n" + "".join(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
