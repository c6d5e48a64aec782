"""Which part distills, over the knowledge that solving needs and the difficulty of dividing? A map.

    .venv/bin/python docs/experiments/which_part.py [--out runs/which-part] [--seeds 3] [--minutes 60] [--small]

Every question has a path of one to three relations ("the mentor of the rival of Bado"). A teacher, always right,
divides it into look-ups and solves them. Students are transformers trained from scratch on its demonstrations: one
divides, one solves. Solving has the facts in a passage, finds them by search, or knows them (closed book, over 32, 128
or 512 facts). Dividing meets phrasings as in training, or new combinations of the same words. Each training is saved in
the folder, so the same command resumes. At the end it prints the table of docs/experiments/which-part.md and draws its
figure. `--small` is the whole course in a minute, with students that learn nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parent))

import torch
from scipy.stats import t as student_t
from tiny_transformer import Transformer
from torch.nn import functional as F  # noqa: N812

from fractionate.files import write_text

Way = Literal["passage", "search", "closed"]
COLUMNS: tuple[tuple[Way, int], ...] = (("passage", 1), ("search", 1), ("closed", 1), ("closed", 4), ("closed", 16))
"""What solving needs: how it comes by facts, and the size of the world in multiples of 32 facts."""
HOPS, ENTITIES, RELATIONS, SYLLABLES, WORDS, TEMPLATES, PASSAGE = (1, 2, 3), 8, 4, 16, 3, 4, 6
MARGIN = 5.0
"""Percentage points: a part distills where its student loses less than this to the teacher, who is always right."""
PAD, END, SEP, FACT, THEN = range(5)
REFERENCES = 5
"""The first token of "#1", "#2"."""
RELATION = REFERENCES + 2
SYLLABLE = RELATION + RELATIONS
WORD = SYLLABLE + SYLLABLES
FILLER = WORD + RELATIONS * WORDS
VOCABULARY = FILLER + 3 * TEMPLATES
CONTEXT = 80


@dataclass(frozen=True)
class Sizes:
    """How much a student learns and how it is tested."""

    examples: int = 1024
    steps: int = 1000
    batch: int = 32
    test: int = 200
    layers: int = 2
    width: int = 64


SMALL = Sizes(examples=32, steps=3, batch=8, test=8, layers=1, width=32)


@dataclass(frozen=True)
class Question:
    """A start, the relations that lead from it to the answer, and how it is put: a template, a word each relation."""

    start: int
    path: tuple[int, ...]
    template: int
    words: tuple[int, ...]

    @property
    def is_new(self) -> bool:
        """Whether its phrasing combines a template and a word that training never combines."""
        return any((self.template + word) % TEMPLATES == 0 for word in self.words)


class World:
    """Entities and their relations, drawn from a seed; `size` in multiples of 32 facts."""

    def __init__(self, size: int, seed: int) -> None:
        self.draw = random.Random(f"which part/{size}/{seed}")
        count = ENTITIES * size
        self.names = self.draw.sample([(a, b) for a in range(SYLLABLES) for b in range(SYLLABLES)], count)
        self.facts = [[self.draw.randrange(count) for _ in range(RELATIONS)] for _ in range(count)]

    def question(self, hops: int, *, new: bool) -> Question:
        """Draw a question whose phrasing is new, or as in training."""
        while True:
            template = self.draw.randrange(TEMPLATES)
            path = tuple(self.draw.randrange(RELATIONS) for _ in range(hops))
            words = tuple(self.draw.randrange(WORDS) for _ in range(hops))
            question = Question(self.draw.randrange(len(self.names)), path, template, words)
            if question.is_new == new:
                return question

    def answers(self, question: Question) -> list[int]:
        """Return the entity that each relation of the path leads to; the last one is the answer."""
        found = [question.start]
        for relation in question.path:
            found.append(self.facts[found[-1]][relation])
        return found[1:]

    def name(self, entity: int) -> list[int]:
        """Return an entity's name as tokens."""
        return [SYLLABLE + syllable for syllable in self.names[entity]]

    def fact(self, entity: int, relation: int) -> list[int]:
        """Return a fact as tokens."""
        return [FACT, *self.name(entity), RELATION + relation, *self.name(self.facts[entity][relation])]


def asked(world: World, question: Question) -> list[int]:
    """Return a question as tokens. Even templates name the last relation first, odd ones the first."""
    filler = FILLER + 3 * question.template
    words = [
        [WORD + relation * WORDS + word, filler] for relation, word in zip(question.path, question.words, strict=True)
    ]
    if question.template % 2:
        return [filler + 1, *world.name(question.start), *(token for word in words for token in word), filler + 2]
    return [filler + 1, *(token for word in reversed(words) for token in word), *world.name(question.start), filler + 2]


def divided(world: World, question: Question) -> list[int]:
    """Return the teacher's subquestions as tokens: a relation and what it is asked of, a name or an earlier answer."""
    tokens: list[int] = []
    for place, relation in enumerate(question.path):
        subject = world.name(question.start) if place == 0 else [REFERENCES + place - 1]
        tokens += [THEN, RELATION + relation, *subject]
    return tokens


def passage(world: World, question: Question) -> list[int]:
    """Return the facts that a question needs among others, in any order, as tokens."""
    subjects = [question.start, *world.answers(question)[:-1]]
    needed = dict.fromkeys(zip(subjects, question.path, strict=True))
    while len(needed) < PASSAGE:
        needed[world.draw.randrange(len(world.names)), world.draw.randrange(RELATIONS)] = None
    facts = world.draw.sample(list(needed), len(needed))
    return [token for fact in facts for token in world.fact(*fact)]


def found(world: World, entity: int | None) -> list[int]:
    """Return what a search for an entity finds, its facts in any order, as tokens; of no entity, any facts."""
    of = world.draw.randrange(len(world.names)) if entity is None else entity
    relations = world.draw.sample(range(RELATIONS), RELATIONS)
    return [token for relation in relations for token in world.fact(of, relation)]


def solver_examples(world: World, question: Question, way: Way) -> Iterator[tuple[list[int], list[int]]]:
    """Yield what a solver learns from a question: prompt and reply. By search each subquestion is an example."""
    answers = world.answers(question)
    if way != "search":
        front = passage(world, question) if way == "passage" else []
        replies = [token for answer in answers for token in (THEN, *world.name(answer))]
        yield [*front, *divided(world, question), SEP], [*replies, END]
        return
    for subject, relation, answer in zip([question.start, *answers], question.path, answers, strict=False):
        prompt = [*found(world, subject), THEN, RELATION + relation, *world.name(subject), SEP]
        yield prompt, [THEN, *world.name(answer), END]


def train(examples: Sequence[tuple[list[int], list[int]]], sizes: Sizes, seed: int) -> Transformer:
    """Train a student from scratch on prompts and replies; the loss is on the replies alone."""
    torch.manual_seed(seed)
    model = Transformer(sizes.layers, sizes.width, VOCABULARY, CONTEXT)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05)
    rows = torch.full((len(examples), CONTEXT), PAD)
    learnt = torch.zeros(len(examples), CONTEXT, dtype=torch.bool)
    for at, (prompt, reply) in enumerate(examples):
        rows[at, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        learnt[at, len(prompt) : len(prompt) + len(reply)] = True
    longest = max(len(prompt) + len(reply) for prompt, reply in examples)
    rows, learnt = rows[:, :longest], learnt[:, :longest]
    draw = torch.Generator().manual_seed(seed)
    for step in range(sizes.steps):
        share = min(1.0, (step + 1) / 50) * (0.55 + 0.45 * math.cos(math.pi * step / sizes.steps))
        optimiser.param_groups[0]["lr"] = 3e-3 * share
        chosen = torch.randint(len(rows), (sizes.batch,), generator=draw)
        batch, mask = rows[chosen], learnt[chosen][:, 1:]
        loss = F.cross_entropy(model(batch[:, :-1])[mask], batch[:, 1:][mask])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model


@torch.no_grad()
def replies(model: Transformer, prompts: Sequence[list[int]], most: int) -> list[list[int]]:
    """Return the greedy replies to prompts, cut at their end token; at most `most` tokens each."""
    rows = torch.full((len(prompts), max(map(len, prompts)) + most), PAD)
    for at, prompt in enumerate(prompts):
        rows[at, : len(prompt)] = torch.tensor(prompt)
    ends = torch.tensor([len(prompt) for prompt in prompts])
    places = torch.arange(len(prompts))
    for _ in range(most):
        # What stands behind a row's end is padding, which no earlier position attends to.
        rows[places, ends] = model(rows)[places, ends - 1].argmax(dim=-1)
        ends = ends + 1
    written = [row[len(prompt) : len(prompt) + most].tolist() for row, prompt in zip(rows, prompts, strict=True)]
    return [one[: one.index(END)] if END in one else one for one in written]


def decomposer_outcome(size: int, hops: int, sizes: Sizes, seed: int) -> dict[str, float]:
    """Train a decomposer and let the teacher solve by its subquestions. Returns right answers in %, by phrasing."""
    world = World(size, seed)
    lessons = [world.question(hops, new=False) for _ in range(sizes.examples)]
    model = train([([*asked(world, one), SEP], [*divided(world, one), END]) for one in lessons], sizes, seed)
    outcome = {}
    for phrasing in ("seen", "new"):
        tests = _fresh(world, hops, lessons, sizes.test, new=phrasing == "new")
        said = replies(model, [[*asked(world, one), SEP] for one in tests], 4 * hops + 1)
        right = [reply == divided(world, one) for reply, one in zip(said, tests, strict=True)]
        outcome[phrasing] = 100 * statistics.fmean(right)
    return outcome


def solver_outcome(way: Way, size: int, hops: int, sizes: Sizes, seed: int) -> dict[str, float]:
    """Train a solver and let it follow the teacher's subquestions. Returns right answers in %."""
    world = World(size, seed)
    lessons = [world.question(hops, new=False) for _ in range(sizes.examples)]
    model = train([example for one in lessons for example in solver_examples(world, one, way)], sizes, seed)
    tests = _fresh(world, hops, lessons, sizes.test, new=False)
    if way != "search":
        prompts = [next(solver_examples(world, one, way))[0] for one in tests]
        said = [reply[-2:] for reply in replies(model, prompts, 3 * hops + 1)]
    else:
        said = [world.name(one.start) for one in tests]
        entities = {tuple(world.name(entity)): entity for entity in range(len(world.names))}
        for place in range(hops):
            prompts = [
                [*found(world, entities.get(tuple(name))), THEN, RELATION + one.path[place], *name, SEP]
                for name, one in zip(said, tests, strict=True)
            ]
            said = [[*reply[-2:], PAD, PAD][:2] for reply in replies(model, prompts, 4)]
    right = [name == world.name(world.answers(one)[-1]) for name, one in zip(said, tests, strict=True)]
    return {"solver": 100 * statistics.fmean(right)}


def _fresh(world: World, hops: int, lessons: Sequence[Question], count: int, *, new: bool) -> list[Question]:
    """Draw test questions whose text training does not hold; where it holds nearly all, any (one hop, few facts)."""
    known, tests = set(lessons), list[Question]()
    for _ in range(40 * count):
        question = world.question(hops, new=new)
        if question not in known:
            tests.append(question)
        if len(tests) == count:
            return tests
    return tests + [world.question(hops, new=new) for _ in range(count - len(tests))]


# ---------------------------------------------------------------- the map


def units(seeds: int) -> Iterator[tuple[str, Any]]:
    """Yield every training by name, seed by seed, so that an interrupted map is whole for fewer seeds."""
    for seed in range(seeds):
        for hops in HOPS:
            for size in (1, 4, 16):
                yield f"{seed}/decomposer-{size}-{hops}", (decomposer_outcome, (size, hops))
            for way, size in COLUMNS:
                yield f"{seed}/{way}-{size}-{hops}", (solver_outcome, (way, size, hops))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean over seeds and its 95 % t interval, in [0, 100]; one seed gives all of it."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, 0.0, 100.0
    half = float(student_t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, max(0.0, mean - half), min(100.0, mean + half)


def distills(values: Sequence[float]) -> str:
    """Return "yes" where the interval lies within the margin of 100 %, "no" where it lies below, else "open"."""
    _, low, high = interval(values)
    return "yes" if low > 100 - MARGIN else "no" if high < 100 - MARGIN else "open"


ANSWERS = {
    ("yes", "no"): "decomposer",
    ("no", "yes"): "solver",
    ("yes", "yes"): "both",
    ("no", "no"): "neither",
}
Cell = tuple[str, tuple[Way, int], int]


def cells(results: dict[str, dict[str, float]], seeds: int) -> dict[Cell, tuple[list[float], list[float], str]]:
    """Return the outcomes of decomposer and solver by seed, and the answer, for each point that was measured."""
    table = {}
    for phrasing in ("seen", "new"):
        for way, size in COLUMNS:
            for hops in HOPS:
                names = [(f"{seed}/decomposer-{size}-{hops}", f"{seed}/{way}-{size}-{hops}") for seed in range(seeds)]
                done = [(results[d][phrasing], results[s]["solver"]) for d, s in names if d in results and s in results]
                if done:
                    dividing, solving = map(list, zip(*done, strict=True))
                    answer = ANSWERS.get((distills(dividing), distills(solving)), "open")
                    table[phrasing, (way, size), hops] = dividing, solving, answer
    return table


def shown(values: Sequence[float]) -> str:
    """Return outcomes over seeds as a mean with its interval."""
    mean, low, high = interval(values)
    return f"{mean:.0f} ({low:.0f}–{high:.0f})" if len(values) > 1 else f"{mean:.0f} (one seed)"


def column_name(way: Way, size: int) -> str:
    """Return what a column of the map is called."""
    return {"passage": "passage", "search": "search"}.get(way, f"closed book, {32 * size} facts")


def print_table(table: dict[Cell, tuple[list[float], list[float], str]]) -> None:
    """Print the map's table in Markdown."""
    print(
        "| phrasing | hops | solving has | decomposer, % right | solver, % right | distill | seeds |\n"
        + "| --- " * 7
        + "|"
    )
    for (phrasing, column, hops), (dividing, solving, answer) in table.items():
        figures = f"{shown(dividing)} | {shown(solving)} | {answer} | {len(dividing)}"
        print(f"| {phrasing} | {hops} | {column_name(*column)} | {figures} |")


def draw_map(table: dict[Cell, tuple[list[float], list[float], str]], path: Path) -> None:
    """Draw the plane for phrasings as in training and new ones; a thick line stands where the answer turns."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {"decomposer": "#7fb3d5", "both": "#a9dfbf", "solver": "#f5cba7", "neither": "#d5d8dc", "open": "#ffffff"}
    figure, panels = pyplot.subplots(1, 2, figsize=(12, 3.6), sharey=True)
    for panel, phrasing in zip(panels, ("seen", "new"), strict=True):
        answers = {}
        for x, column in enumerate(COLUMNS):
            for hops in HOPS:
                if (phrasing, column, hops) not in table:
                    continue
                dividing, solving, answer = table[phrasing, column, hops]
                answers[x, hops] = answer
                box = pyplot.Rectangle((x - 0.5, hops - 0.5), 1, 1, facecolor=colours[answer], edgecolor="white")
                panel.add_patch(box)
                label = f"{answer}\nD {statistics.fmean(dividing):.0f}  S {statistics.fmean(solving):.0f}"
                panel.text(x, hops, label, ha="center", va="center", fontsize=8)
        for (x, y), answer in answers.items():
            if answers.get((x + 1, y), answer) != answer:
                panel.plot([x + 0.5, x + 0.5], [y - 0.5, y + 0.5], color="black", linewidth=2)
            if answers.get((x, y + 1), answer) != answer:
                panel.plot([x - 0.5, x + 0.5], [y + 0.5, y + 0.5], color="black", linewidth=2)
        panel.set(
            title=f"phrasings {'as in training' if phrasing == 'seen' else 'new'}", xlim=(-0.5, 4.5), ylim=(0.5, 3.5)
        )
        panel.set_xticks(range(len(COLUMNS)), [column_name(*one).replace(", ", "\n") for one in COLUMNS], fontsize=8)
        panel.set_yticks(HOPS)
    panels[0].set_ylabel("hops")
    figure.suptitle("Which part distills? D, S: % right with the student as decomposer, as solver", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/which-part"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after the training that passes this")
    parser.add_argument("--small", action="store_true", help="tiny students and few questions: a test of the command")
    chosen = parser.parse_args(arguments)
    sizes, deadline = SMALL if chosen.small else Sizes(), time.monotonic() + 60 * chosen.minutes
    results: dict[str, dict[str, float]] = {}
    for name, (work, settings) in units(chosen.seeds):
        file = chosen.out / f"{name}.json"
        if file.is_file():
            results[name] = json.loads(file.read_text(encoding="utf-8"))
        elif time.monotonic() < deadline:
            began = time.process_time()
            results[name] = work(*settings, sizes, int(name.partition("/")[0]))
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(json.dumps(results[name]) + "\n", file)
            print(f"{name}: {results[name]}, {time.process_time() - began:.0f} CPU s", file=sys.stderr, flush=True)
    table = cells(results, chosen.seeds)
    print_table(table)
    draw_map(table, chosen.out / "which-part.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
