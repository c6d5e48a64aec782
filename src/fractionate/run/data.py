"""The questions of a run: training, dev and test questions, that they are apart, and what traffic adds to them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fractionate import datasets
from fractionate.config import Config, DecomposerConfig
from fractionate.datasets import OWN_ROWS
from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.near import Leak, find_leak
from fractionate.datasets.overlap import find_overlap
from fractionate.datasets.reference import resolve
from fractionate.datasets.traffic import CORRECTED, RIGHT, Exchange, learnable, read_exchanges
from fractionate.datasets.traffic import NAME as TRAFFIC
from fractionate.errors import UsageError, shortened
from fractionate.files import utf8
from fractionate.run.cells import TestSet
from fractionate.run.names import Student
from fractionate.scoring.forms import FORM_NAMES, infer_form
from fractionate.scoring.metrics import text_score
from fractionate.scoring.scorers import ByFunction, Contains
from fractionate.strategies.base import Settings
from fractionate.strategies.prompting import final_line
from fractionate.students.demonstrate import Demonstration, demonstration_of
from fractionate.types import AnswerForm, Example, Problem

_GOLDS_TRIED = 50
"""Known answers of a test set that its scorer is tried on, the first ones."""
_SENTENCE_WORDS = 12
"""Words from which on a known answer is a sentence, which no two writers put alike."""
_EXAMPLES = 3
"""Ids named in a note on what test and training share."""


class RunData:
    """The problems that a config names, read when they are first asked for, each reference once.

    `base` is the config's folder, in which relative paths are looked for before the working directory. `measured_form`
    is the form of answer that the user's own rows were measured with; "" infers it from their known answers.
    """

    def __init__(self, config: Config, base: Path, measured_form: AnswerForm | Literal[""] = "") -> None:
        self._config = config
        self._base = base
        self._measured_form = measured_form
        self._loaded: dict[str, Sequence[Problem]] = {}

    @cached_property
    def train(self) -> dict[str, Problem]:
        """The training problems by id: all that may be learnt from but for those that the dev split holds out."""
        held_out = self.dev if self._config.data.dev_share else {}
        return {key: problem for key, problem in self._learnable.items() if key not in held_out}

    @cached_property
    def dev(self) -> dict[str, Problem]:
        """The problems of the dev split by id: data.dev, or a share of the training ones; none where neither is named.

        Raises UsageError where data.dev and the training problems share an id.
        """
        data = self._config.data
        if data.dev_share:
            return hold_out(self._learnable, data.dev_share, self._config.run.seed)
        problems = {problem.id: problem for problem in self._problems(data.dev)}
        for key in problems.keys() & self._learnable.keys() if problems else ():
            if problems[key] != self._learnable[key]:
                raise UsageError(f"data.dev and data.train both have a question {key}: ids must be unique")
        return problems

    @cached_property
    def demonstrated(self) -> dict[str, Problem]:
        """The problems that the teacher demonstrates, by id: the training ones and the dev split."""
        return {**self._learnable, **self.dev}

    @cached_property
    def _learnable(self) -> dict[str, Problem]:
        """What may be learnt from, over all references: data.train and what single students learn from."""
        problems: dict[str, Problem] = {}
        for reference in self._config.data.train:
            for problem in self._load(reference):
                if problem.id in problems:
                    raise UsageError(f"data.train: {problem.id} occurs twice (in {reference}): ids must be unique")
                problems[problem.id] = problem
        for student in self._config.students.values():
            for problem in self._problems(student.train):
                if problems.setdefault(problem.id, problem) != problem:
                    raise UsageError(f"two training problems have the id {problem.id}: ids must be unique")
        if not problems:
            raise UsageError(
                "data.train is empty: students are trained on its questions; name data or set run.variants=[]"
            )
        return problems

    @cached_property
    def traffic(self) -> dict[str, list[Exchange]]:
        """The records of traffic that are learnt from, by their references."""
        data = self._config.data
        students = (reference for student in self._config.students.values() for reference in student.train)
        named = dict.fromkeys([*data.train, *data.dev, *students])
        found = {reference: self._found(reference) for reference in named}
        return {text: read_exchanges(Path(one.path)) for text, one in found.items() if one.name == TRAFFIC}

    @cached_property
    def recorded(self) -> dict[str, Demonstration]:
        """The demonstrations that traffic brings, by problem: the teacher is not asked for these."""
        exchanges = {one.id: one for several in self.traffic.values() for one in several}
        found = {
            key: demonstration_of(replace(exchanges[key], given=problem.answers), self.dataset_of(problem))
            for key, problem in self.demonstrated.items()
            if key in exchanges
        }
        return {key: demonstration for key, demonstration in found.items() if demonstration}

    def train_of(self, student: Student) -> Mapping[str, Problem]:
        """Return the problems that a student learns from, by id: its own, else all of data.train."""
        return {key: problem for key, problem in self._named_for(student).items() if key in self.train}

    def dev_of(self, student: Student) -> Mapping[str, Problem]:
        """Return the dev problems that a student is judged by, by id: data.dev, or what is held out of its own."""
        if not self._config.data.dev_share:
            return self.dev
        return {key: problem for key, problem in self._named_for(student).items() if key in self.dev}

    def _named_for(self, student: Student) -> dict[str, Problem]:
        return {problem.id: problem for problem in self._problems(student.train or self._config.data.train)}

    @cached_property
    def tests(self) -> list[TestSet]:
        """The test sets."""
        _ = self._with_own_scorer  # a misspelt name in data.scorers is said first
        if not self._config.data.test:
            raise UsageError("data.test is empty: name the data that the pairs are to be measured on")
        return _told_apart([self._test(reference) for reference in self._config.data.test])

    def overlaps(self) -> Iterator[str]:
        """Yield sentences on what every test set shares with training and dev: questions, near repetitions, passages.

        Raises UsageError for a test set that holds their questions, where the config does not allow it by name, and
        for a dev split that is learnt from.
        """
        if not self._config.data.train and not any(student.train for student in self._config.students.values()):
            return
        train = list(self.train.values())
        yield from dev_overlaps(self.train, self.dev)
        for test in self.tests:
            trained_on = find_overlap(train, test.problems)
            yield from _shared_besides(test, find_leak(train, test.problems, known=trained_on))
            shared = trained_on or find_overlap(self.dev.values(), test.problems)
            if not shared:
                continue
            whose = "training questions" if trained_on else "questions of the dev split"
            said = f"{len(shared)} of {len(test.problems)} test questions of {test.reference} are {whose}"
            if test.reference not in self._config.data.allow_overlap:
                raise UsageError(
                    f"{said} (first: {shared[0]}): take them out, or add {test.reference!r} to data.allow_overlap"
                )
            seen = "students may have learnt these answers" if trained_on else "students were chosen by these answers"
            yield f"Overlap allowed by name: {said}, so {seen}."

    def dataset(self, name: str, reference: str = "") -> Dataset:
        """Return how the rows of a data set are read and scored, or those of one reference to it.

        `data.scorers` says it for the reference or the data set. Other jsonl rows are scored as `data.scorer` says,
        else by their form of answer: `data.answer`, else the form that they were measured with, else what it is
        inferred to be.
        """
        data = self._config.data
        scorer = data.scorers.get(reference) or data.scorers.get(name) or (data.scorer if name == OWN_ROWS else None)
        if scorer:
            chosen = datasets.scored_as(name, scorer, self._base)
        elif name != OWN_ROWS:
            chosen = datasets.get(name)
        else:
            form = data.answer or self._measured_form or self.inferred_form
            chosen = datasets.answered_as(datasets.get(name), form)
        return replace(chosen, metric=data.metric) if data.metric else chosen

    def dataset_of(self, problem: Problem) -> Dataset:
        """Return how the answers to one question are read and scored."""
        return self.dataset(problem.dataset, self._with_own_scorer.get(problem.id, ""))

    @cached_property
    def _with_own_scorer(self) -> dict[str, str]:
        """The references of `data.scorers` by the training and dev questions that they hold.

        Raises UsageError for an entry that is neither a data set nor a reference of this config.
        """
        data = self._config.data
        own = (reference for student in self._config.students.values() for reference in student.train)
        named = dict.fromkeys([*data.train, *data.dev, *data.test, *own])
        found: dict[str, str] = {}
        for key in data.scorers:
            if key not in named and key not in {self._parse(reference).name for reference in named}:
                raise UsageError(
                    f"data.scorers: {key!r} is none of this config's data (there are {', '.join(named)}): name one of "
                    "them, or a data set"
                )
            if key in named and key not in data.test:
                found |= dict.fromkeys((problem.id for problem in self._load(key)), key)
        return found

    @cached_property
    def inferred_form(self) -> AnswerForm:
        """The form that the known answers of the user's own test rows have, else of the training rows."""
        for references in (self._config.data.test, self._config.data.train):
            own = [reference for reference in references if self._parse(reference).name == OWN_ROWS]
            if own:
                return infer_form(problem.answers for problem in self._problems(own))
        return "text"

    @property
    def infers_form(self) -> bool:
        """Whether the test sets hold the user's own rows, and the config leaves their form of answer to be inferred."""
        data = self._config.data
        inferred = [one for one in data.test if not (data.scorers.get(one) or data.scorers.get(OWN_ROWS))]
        return not data.scorer and not data.answer and any(self._parse(one).name == OWN_ROWS for one in inferred)

    def answer_notes(self) -> Iterator[str]:
        """Yield a sentence on the form of answer that was inferred, where one was."""
        if self.infers_form:
            yield f"Answers are read as {FORM_NAMES[self.inferred_form]}, as the known ones are; data.answer sets it."

    def scorer_notes(self) -> Iterator[str]:
        """Yield a sentence for every test set whose known answers its scorer cannot read, or hardly ever matches."""
        for test in self.tests:
            if isinstance(test.dataset.score, ByFunction) or test.dataset.by_calls:
                continue
            sample = test.problems[:_GOLDS_TRIED]
            unread = [problem for problem in sample if not _reads_itself(test.dataset, problem)]
            if 2 * len(unread) > len(sample):
                example = shortened(repr("; ".join(unread[0].answers[0])), 60)
                yield (
                    f"{test.reference}: the scorer reads nothing in {len(unread)} of {len(sample)} known answers (such "
                    f'as {example}), so no output can be right: set data.scorer = "text", "contains" or "judge".'
                )
                continue
            words = sorted(len(" ".join(problem.answers[0]).split()) for problem in sample)
            middle = words[len(words) // 2]
            word_for_word = test.dataset.score is text_score or isinstance(test.dataset.score, Contains)
            if word_for_word and middle >= _SENTENCE_WORDS:
                yield (
                    f"{test.reference}: known answers have {middle} words (median), so hardly any output is word for "
                    'word the same: data.scorer = "judge" compares what they say.'
                )

    def settings(self, dataset: Dataset, decomposer: str = "") -> Settings:
        """Return how calls on a data set are sampled, for a decomposer with a way of its own or for all others."""
        run, own = self._config.run, self._config.decomposers.get(decomposer, DecomposerConfig())
        cap = run.cap if own.cap is None else own.cap
        return Settings(
            cap=dataset.default_cap if cap == "default" else None if cap == "none" else cap,
            shots=run.shots if own.shots is None else own.shots,
            decomposer_context=run.decomposer_context if own.context is None else own.context,
            sample_temperature=run.sample_temperature,
            votes=run.votes,
        )

    def _problems(self, references: Sequence[str]) -> Iterator[Problem]:
        return (problem for reference in references for problem in self._load(reference))

    def _load(self, reference: str) -> Sequence[Problem]:
        if reference not in self._loaded:
            self._loaded[reference] = datasets.load(self._found(reference))
        return self._loaded[reference]

    def _found(self, reference: str) -> Reference:
        """Return a reference with its file where it is: beside the config, or else from the working directory."""
        parsed = self._parse(reference)
        beside = bool(parsed.path) and (self._base / parsed.path).exists()
        return resolve(parsed, self._base if beside else None)

    def _test(self, reference: str) -> TestSet:
        parsed = self._parse(reference)
        if parsed.name == TRAFFIC:
            raise UsageError(
                f"data.test: {reference} knows the right answers mostly where the pair that answered was right, so it "
                "would flatter that pair: test on other questions, or compare shadows with fractionate compare"
            )
        problems = self._load(reference)
        dataset = self.dataset(parsed.name, reference)
        split = problems[0].split or Path(parsed.path).stem
        own = {name: self.settings(dataset, name) for name in self._config.decomposers}
        settings, repeats = self.settings(dataset), self._config.run.repeats
        return TestSet(reference, parsed.name, split, problems, dataset, dataset.metric, settings, own, repeats)

    def _parse(self, reference: str) -> Reference:
        data, parsed = self._config.data, datasets.parse_reference(reference, self._config.data.columns)
        scorer = data.scorers.get(reference) or data.scorers.get(parsed.name) or data.scorer
        judged = reference in data.test and scorer.name == "judge" and bool(self._config.judge.rubric)
        return replace(parsed, needs_answers=not judged)


def _reads_itself(dataset: Dataset, problem: Problem) -> bool:
    """Return whether a known answer, stated plainly, is scored as right."""
    answer = problem.answers[0]
    said = "; ".join(answer) if dataset.answer_form == "free" else final_line(answer)
    return dataset.score(dataset.extract(said), problem.answers).f1 > 0.5


def _shared_besides(test: TestSet, leak: Leak) -> Iterator[str]:
    """Yield a sentence for each way in which a test set meets training without repeating its questions."""
    total = len(test.problems)
    for found, what, so in (
        (leak.near, "nearly repeat a training question", "students may have learnt them"),
        (leak.passages, "are on a passage of training questions", "students have met what they ask about"),
        (leak.near_passages, "are on nearly the same passage as training questions", "students may have met it"),
    ):
        if found:
            examples = ", ".join(f"{mine} like {theirs}" for mine, theirs in list(found.items())[:_EXAMPLES])
            yield f"{len(found)} of {total} test questions of {test.reference} {what}, so {so}: {examples}" + (
                "." if len(found) <= _EXAMPLES else ", …"
            )


def _told_apart(tests: list[TestSet]) -> list[TestSet]:
    """Give test sets of one data set and split (two slices, two files of one name) splits of their own."""
    seen = Counter((test.name, test.split) for test in tests)
    return [
        test
        if seen[test.name, test.split] == 1
        else replace(test, split=test.reference.removeprefix(test.name).lstrip(":#") or test.reference)
        for test in tests
    ]


def hold_out(problems: Mapping[str, Problem], share: float, seed: int) -> dict[str, Problem]:
    """Return about a share (0 to 1) of the problems by id, in their order: whole groups or passages, drawn by the seed.

    Each group drawn is held out where that comes closer to the share; where none does, a smallest one is. A group with
    a question that is asked outside it too is not held out. Raises UsageError where no group is left to hold out.
    """
    sizes = Counter(problem.cluster for problem in problems.values())
    drawn = sorted(sizes, key=lambda one: hashlib.sha256(utf8(f"{seed} {one}")).digest())
    wanted, count, taken = share * len(problems), 0, set[str]()
    for cluster in drawn:
        if abs(count + sizes[cluster] - wanted) < abs(count - wanted):
            taken.add(cluster)
            count += sizes[cluster]
    taken = taken or {min(drawn, key=lambda one: sizes[one])}
    if len(taken) == len(sizes):
        taken.clear()  # something has to be learnt from
    while repeated := _asked_outside(problems, taken):
        taken -= repeated
    if not taken:
        raise UsageError(
            f"data.dev_share = {share:g} of {len(problems)} training questions holds out none: they are of "
            f"{len(sizes)} passages or repeat each other; name other questions as data.dev"
        )
    return {key: problem for key, problem in problems.items() if problem.cluster in taken}


def dev_overlaps(train: Mapping[str, Problem], dev: Mapping[str, Problem]) -> Iterator[str]:
    """Yield what the report must say of a dev split beside training. Raises UsageError where it is learnt from."""
    shared = find_overlap(train.values(), dev.values())
    if shared:
        raise UsageError(
            f"{len(shared)} of {len(dev)} questions of the dev split are training questions (first: {shared[0]}): "
            "take them out of data.train or data.dev"
        )
    passages = {problem.cluster for problem in train.values() if problem.cluster != problem.id}
    beside = sum(problem.cluster in passages for problem in dev.values())
    if beside:
        yield (
            f"{beside} of {len(dev)} questions of the dev split share a passage with training questions, so the loss "
            "on them is lower than on new passages; data.dev_share holds out whole passages."
        )


def _asked_outside(problems: Mapping[str, Problem], taken: set[str]) -> set[str]:
    """Return the clusters taken that hold a question which is asked in one that was not."""
    rest = (problem for problem in problems.values() if problem.cluster not in taken)
    held = {key: problem for key, problem in problems.items() if problem.cluster in taken}
    return {held[key].cluster for key in find_overlap(rest, held.values())}


def traffic_notes(
    records: Mapping[str, Sequence[Exchange]], problems: Mapping[str, Problem], recorded: Mapping[str, Demonstration]
) -> Iterator[str]:
    """Yield a sentence or two on each record of traffic, by its reference: what it teaches, and what it does not."""
    for reference, exchanges in records.items():
        kept, left_out = learnable(exchanges)
        taken = [problems[one.id] for one in kept if one.id in problems]
        kinds = Counter(problem.kind for problem in taken)
        unused = "".join(f"; {count} {reason}" for reason, count in sorted(left_out.items()))
        unused += f"; {len(kept) - len(taken)} outside the reference" if len(kept) > len(taken) else ""
        yield (
            f"Traffic {reference}: of {len(exchanges)} answered requests {len(taken)} are learnt from "
            f"({kinds[RIGHT]} right, {kinds[CORRECTED]} with the right answer given){unused}."
        )
        shown = [recorded[problem.id] for problem in taken if problem.id in recorded]
        yield (
            f"Traffic {reference}: {len(shown)} answers are demonstrations as they were recorded; the teacher "
            f"demonstrates the other {len(taken) - len(shown)} questions."
        )
        for role, doing in (("decomposer", "decomposed"), ("solver", "solved")):
            own = sum(role in one.by_students for one in shown)
            if own:
                yield f"Self-training: {own} of these {len(shown)} demonstrations were {doing} by a student."


def learnt_from(
    references: Iterable[str], examples: Sequence[Example], recorded: Mapping[str, Demonstration], role: str
) -> dict[str, Any]:
    """Return what training.json says of a student's teachers: its data, and how many examples came from whom."""
    shown = [recorded[example.problem_id] for example in examples if example.problem_id in recorded]
    return {
        "data": list(references),
        "examples_by_teacher": len(examples) - len(shown),
        "examples_by_traffic": len(shown),
        "of_these_by_students": sum(role in one.by_students for one in shown),
    }
