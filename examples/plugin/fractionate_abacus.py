"""Five small plug-ins for fractionate, one of each kind, registered in pyproject.toml."""

import re
from collections.abc import Iterator
from typing import Any

from fractionate import plugin as fr


def make_sums(reference: fr.Reference) -> Iterator[fr.Problem]:
    """Yield addition problems: `sums#40` has forty."""
    for n in range(int(reference.split or 10)):
        yield fr.Problem(f"sum-{n}", f"What is {n} + {3 * n}?", ((str(4 * n),),), dataset="sums", index=n)


SUMS = fr.Dataset("sums", "made here", "CC0", "exact_match", "number", 3, make_sums, fr.extract_number, fr.score_number)


def score_rounded(prediction: fr.Answer | None, answers: tuple[fr.Answer, ...]) -> fr.Score:
    """Score 1 if the predicted number, rounded to an integer, is correct."""
    said = fr.number_of(prediction[0]) if prediction else None
    gold = [fr.number_of(answer[0]) for answer in answers]
    right = said is not None and any(number is not None and round(said) == round(number) for number in gold)
    return fr.Score(float(right), float(right))


ROUNDED = fr.Scorer("rounded", "exact_match", "number", fr.extract_number, score_rounded)


def answer_twice(task: fr.Task) -> Any:
    """Answer in one stage, then again with the first answer in the prompt."""
    (first,) = yield [fr.ask(task.solver, "solver", said(task), task.origin(), task.settings, 64)]
    (second,) = yield [fr.ask(task.solver, "solver", said(task, first.text), task.origin(), task.settings, 64)]
    return fr.Solution(second.text, [("solver", first), ("solver", second)])


def said(task: fr.Task, earlier: str = "") -> tuple[fr.Message, ...]:
    """Return the question and the earlier answer."""
    return (fr.Message("user", f"{task.problem.question}\n{earlier}".strip()),)


VERIFIED = fr.Strategy("verified", answer_twice, "single", "single stage, verified")


class Abacus(fr.SingleModel):
    """`abacus:1` adds the first two numbers of a question."""

    def __init__(self, name: str, options: object) -> None:
        self.name = self.identity = name

    async def complete(self, request: fr.Request) -> fr.Completion:
        """Reply at once."""
        numbers = [int(text) for text in re.findall(r"\d+", request.messages[-1].content)]
        return fr.Completion(f"The answer is: {sum(numbers[:2])}", usage=fr.Usage(1, len(numbers), output_tokens=1))


def dearest(facts: Any) -> fr.Section | None:
    """Show the cell that used the most tokens."""
    used = {
        cell["name"]: sum(use["input_tokens"] + use["output_tokens"] for use in cell["usage"].values())
        for cell in facts.results["cells"]
    }
    if not used:
        return None
    name = max(used, key=used.__getitem__)
    columns = [fr.Column("cell", "cell"), fr.Column("tokens", "tokens", "number")]
    return fr.table_section("dearest", "Most tokens", columns, [{"cell": name, "tokens": f"{used[name]:,}"}])
