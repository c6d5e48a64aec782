"""Resolves and checks every name of a run once, before anything is opened or paid for.

A name is a role ("teacher", "solver", "student" for the untrained base), a variant ("D-R"), a student or decomposer of
the user's own naming (`[students.NAME]`, `[decomposers.NAME]`), a student that learnt from a share of its
demonstrations ("D-R@1/4", `[curve]`), or a model name in the grammar; "none" and "gold" stand for no model at all.
Later code reads the `Component` that a name was resolved to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from fractionate import strategies
from fractionate.config import DECOMPOSER_VARIANTS, STUDENTS, Config, StudentConfig
from fractionate.config.addresses import split_tools
from fractionate.errors import UsageError
from fractionate.models import check_name, is_model_name
from fractionate.run.cells import Pair, plan_pairs
from fractionate.strategies.base import Strategy
from fractionate.tools import check_tools, has_tools
from fractionate.types import Component, Kind, Role

NO_MODEL = ("none", "gold")
ROLE_NAMES = ("teacher", "solver", "student")


@dataclass(frozen=True)
class Student:
    """One student to train: what it learns, from which data (all of data.train if empty), and from which base."""

    name: str
    variant: str
    base: str
    train: tuple[str, ...]
    max_examples: int
    seed: int
    share: Fraction = Fraction(1)
    """The share of its examples that it learns from. Below 1, the student belongs to a learning curve."""

    @property
    def whole(self) -> str:
        """The name of the student that learns from all of them."""
        return self.name.partition("@")[0]

    @property
    def role(self) -> Role:
        """The role it is trained for."""
        return "decomposer" if self.variant in DECOMPOSER_VARIANTS else "solver"


def judge_model(config: Config) -> str:
    """Return the model that scores outputs, "" where a config names none."""
    name = config.judge.model
    return Names(config).model_of(name) if name in ROLE_NAMES else name


class Names:
    """Every name of one config, resolved. The constructor raises UsageError for the first unknown name."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.strategies: tuple[Strategy, ...] = tuple(strategies.get(name) for name in config.run.strategies)
        _check(config, self.strategies)
        whole = tuple(self._student(name) for name in self._to_train())
        self.students: tuple[Student, ...] = (*whole, *(self._student(name) for name in _on_curve(config, whole)))
        """The students to train, in the order of the config; those of a learning curve come last."""
        trained = {role: [one.name for one in whole if one.role == role] for role in ("decomposer", "solver")}
        chosen = config.run.pairs
        decomposers = [pair[0] for pair in chosen] or self._matrix_names("decomposer") + trained["decomposer"]
        solvers = [pair[1] for pair in chosen] or self._matrix_names("solver") + trained["solver"]
        self.decomposers = tuple(self.component(name, "decomposer") for name in dict.fromkeys(decomposers))
        self.solvers = tuple(self.component(name, "solver") for name in dict.fromkeys(solvers))

    @property
    def teacher(self) -> Component:
        """The teacher as decomposer. Raises UsageError where the config names none."""
        return self.component("teacher", "decomposer")

    @property
    def screen_solver(self) -> Component:
        """The solver that screens the teacher's decompositions."""
        return self.component(self._config.models.screen_solver or "teacher", "solver")

    @property
    def variants(self) -> list[str]:
        """The variants of the students to train, each once."""
        return list(dict.fromkeys(student.variant for student in self.students))

    def component(self, name: str, role: Role) -> Component:
        """Return what a name stands for in a role."""
        if name in NO_MODEL:
            return Component(name, "none" if name == "none" else "gold", role)
        if variant := self._variant(name):
            student = self._student(name)
            learnt_from = student.train or tuple(self._config.data.train)
            share = float(student.share)
            return Component(name, "student", role, student.base, variant, student.role, learnt_from, share)
        own = self._config.decomposers.get(name)
        asked = own.model if own is not None else name
        of, tools = split_tools(asked)
        model = self.model_of(of) if of in ROLE_NAMES else of
        if tools:
            model, asked = f"{model}[{','.join(tools)}]", ""
        kind = self._kind(asked, model, role)
        if kind != "distilled":
            return Component(name, kind, role, model)
        base = self._config.models.distilled_in(role)[model].base
        return Component(name, kind, role, model, trained_for=role, base=base)

    def model_of(self, role: str) -> str:
        """Return the model that "teacher", "solver" or "student" stands for. Raises UsageError where it has none."""
        models = self._config.models
        if role == "student":
            return models.student
        if role == "solver" and models.solver:
            return models.solver
        if not models.teacher:
            raise UsageError(
                "models.teacher is missing: name the model that decomposes (openai:NAME, recorded:PATH, …)"
            )
        return models.teacher

    def student(self, name: str) -> Student:
        """Return the settings of the student of this name, whether this run trains it or not."""
        return self._student(name)

    def pairs(self, is_there: Callable[[str], bool]) -> tuple[list[Pair], list[Component]]:
        """Return the cells of the matrix, and the students without a cell: those for which `is_there` is false.

        With `run.pairs` the cells are those pairs and no more. A student of a learning curve is measured in one cell,
        in the place of the one that learnt from everything.
        """

        def takes_part(one: Component) -> bool:
            return not one.is_student or is_there(one.name)

        planned = plan_pairs(
            self.strategies,
            strategies.get("single"),
            [one for one in self.decomposers if takes_part(one)],
            [one for one in self.solvers if takes_part(one)],
        )
        chosen = self._config.run.pairs
        planned += self._tool_controls(planned)
        pairs = [pair for pair in planned if not chosen or (pair.decomposer.name, pair.solver.name) in chosen]
        on_curve = [self.component(one.name, one.role) for one in self.students if one.share < 1]
        pairs += self._curve_pairs(pairs, [one for one in on_curve if takes_part(one)])
        left_out = {one.name: one for one in (*self.decomposers, *self.solvers, *on_curve) if not takes_part(one)}
        return list(dict.fromkeys(pairs)), list(left_out.values())

    def _tool_controls(self, planned: Sequence[Pair]) -> Iterator[Pair]:
        """Yield the control of each solver with tools that is not measured alone: the whole question in one stage."""
        alone = {pair.solver for pair in planned if pair.strategy.stages == "single"}
        none = Component("none", "none", "decomposer")
        for solver in dict.fromkeys(pair.solver for pair in planned):
            if has_tools(solver.model) and solver not in alone:
                yield Pair(strategies.get("single"), none, solver)

    def _curve_pairs(self, planned: Sequence[Pair], parts: Sequence[Component]) -> Iterator[Pair]:
        """Yield a cell for each student of a learning curve: the plainest cell of the student with all examples."""
        for part in parts:
            whole = self.component(self._student(part.name).whole, part.role)
            found = [pair for pair in planned if getattr(pair, part.role) == whole]
            if found:
                plainest = min(found, key=lambda pair: self._plainness(pair, whole))
                in_place = part.role == "decomposer"
                yield replace(plainest, decomposer=part) if in_place else replace(plainest, solver=part)

    def _plainness(self, pair: Pair, whole: Component) -> tuple[bool, ...]:
        """Return how a cell differs from the judged strategy with an undistilled partner (False sorts first)."""
        partner = pair.solver if whole.role == "decomposer" else pair.decomposer
        two_stage = [strategy.name for strategy in self.strategies if strategy.stages != "single"]
        judged = self._config.verdict.strategy or ("static" if "static" in two_stage else (two_stage or [""])[0])
        alone = whole.variant.startswith("S-")
        wanted = (self._config.verdict.solver or "teacher") if whole.role == "decomposer" else "teacher"
        return (
            partner.is_student,
            pair.strategy.stages != "single" if alone else pair.strategy.name != judged,
            partner.name != wanted,
            partner.kind != "teacher",
        )

    def _matrix_names(self, role: Role) -> list[str]:
        """Return the decomposers or solvers: the config's, students from elsewhere in this role, and their bases.

        A student whose entry names no role takes part where the config lists it.
        """
        listed = self._by_default(role)
        elsewhere = self._config.models.distilled_in(role).values()
        listed += [one.name for one in elsewhere if one.role == role]
        return listed + [one.base for one in elsewhere if one.base and one.name in listed]

    def _by_default(self, role: Role) -> list[str]:
        """Return the config's decomposers or solvers. Where the config names none, the untrained base is added.

        A student is judged against its untrained base in the same role (docs/verdict.md), so the base is measured
        unless the user chose the components. A base that is listed under another name is not measured twice.
        """
        models = self._config.models
        field = f"{role}s"
        listed: list[str] = list(getattr(models, field))
        trained = any(student.role == role for student in self.students)
        if field in models.model_fields_set or not trained:
            return listed
        there = {self.component(name, role).model for name in listed}
        return listed if models.student in there else [*listed, "student"]

    def _variant(self, name: str) -> str:
        whole, _ = _parted(self._config, name)
        if whole in self._config.students:
            return self._config.students[whole].variant
        return whole if whole in STUDENTS else ""

    def _kind(self, asked: str, model: str, role: Role) -> Kind:
        models = self._config.models
        if asked == "teacher" or (models.teacher and model == models.teacher):
            return "teacher"
        if model in models.distilled_in(role):
            return "distilled"
        if asked == "solver":
            return "solver"
        return "base" if model == models.student else "model"

    def _student(self, name: str) -> Student:
        config = self._config
        whole, share = _parted(config, name)
        own = config.students.get(whole) or StudentConfig.model_validate({"variant": whole})
        return Student(
            name,
            own.variant,
            own.base or config.models.student,
            tuple(own.train),
            own.max_examples or config.train.max_examples,
            config.run.seed if own.seed is None else own.seed,
            Fraction(share or 1),
        )

    def _to_train(self) -> list[str]:
        """Return the students that a run trains: `run.variants` with those the matrix names, and every [students.NAME].

        An empty `run.variants` trains no other than those of [students].
        """
        wanted = [*self._config.run.variants, *_named(self._config)] if self._config.run.variants else []
        whole = [_parted(self._config, name)[0] for name in wanted if self._variant(name)]
        return list(dict.fromkeys([*whole, *self._config.students]))


def _parted(config: Config, name: str) -> tuple[str, str]:
    """Return the student that a name is a share of, and the share: ("D-R", "1/4") of D-R@1/4, (name, "") of others."""
    whole, _, share = name.partition("@")
    on_curve = config.curve is not None and share in config.curve.shares
    return (whole, share) if on_curve else (name, "")


def _on_curve(config: Config, students: Sequence[Student]) -> list[str]:
    """Return the names of the students to train on shares. Raises UsageError for a curve of no student."""
    if config.curve is None:
        return []
    trained = [one.name for one in students]
    if not trained:
        raise UsageError("a learning curve needs a student to train: name one in run.variants or as [students.NAME]")
    for name in config.curve.students:
        if name not in trained:
            raise UsageError(f"curve.students: {name!r} is no student that this run trains ({', '.join(trained)})")
    chosen = config.curve.students or trained
    return [f"{name}@{share}" for name in dict.fromkeys(chosen) for share in config.curve.shares]


def _named(config: Config) -> list[str]:
    """Return every name in the matrix, decomposers first, as often as it occurs."""
    if config.run.pairs:
        return [name for pair in config.run.pairs for name in pair]
    return [*config.models.decomposers, *config.models.solvers]


def _check(config: Config, strategies: Sequence[Strategy]) -> None:
    """Raise UsageError for an unknown name."""
    models = config.models
    for section, names in (("students", config.students), ("decomposers", config.decomposers)):
        for name in names:
            _check_own_name(section, name)
    for name, own in config.decomposers.items():
        if name in config.students:
            raise UsageError(f"decomposers.{name}: a student has this name too: choose another")
        _check_named(config, f"decomposers.{name}.model", [own.model], ROLE_NAMES)
    decomposers = (*NO_MODEL, *ROLE_NAMES, *config.decomposers)
    _check_named(config, "models.decomposers", models.decomposers, decomposers)
    _check_named(config, "models.solvers", models.solvers, ROLE_NAMES)
    for decomposer, solver in config.run.pairs:
        _check_named(config, "run.pairs", [decomposer], decomposers)
        _check_named(config, "run.pairs", [solver], ROLE_NAMES)
    if models.solver and "solver" not in _named(config):
        raise UsageError('models.solver is named, but nothing is measured with it: put "solver" among models.solvers')
    elsewhere = [name for one in models.distilled for name in (one.name, one.base)]
    for model in (models.teacher, models.solver, models.student, models.screen_solver, *elsewhere):
        if model:
            check_name(model)
            check_tools(model, config.all_tools())
    _check_bases(config)
    _check_dev(config)
    for name in models.options:
        if not _is_student(config, name):
            check_name(name)
    _check_verdict(config, strategies)


def _check_verdict(config: Config, strategies: Sequence[Strategy]) -> None:
    if not strategies:
        raise UsageError("run.strategies is empty: name at least one, such as static")
    judged = config.verdict.strategy
    two_stage = [strategy.name for strategy in strategies if strategy.stages != "single"]
    if judged and judged not in two_stage:
        among = ", ".join(two_stage) or "none: name one in run.strategies"
        raise UsageError(f"verdict.strategy is {judged!r}, which is no two-stage strategy of this run ({among})")
    if config.verdict.solver:
        _check_named(config, "verdict.solver", [config.verdict.solver], ROLE_NAMES)


def _is_student(config: Config, name: str) -> bool:
    whole, _ = _parted(config, name)
    return whole in STUDENTS or whole in config.students


def _check_own_name(section: str, name: str) -> None:
    if name in (*NO_MODEL, *ROLE_NAMES, *STUDENTS):
        raise UsageError(f"{section}.{name}: this name has a meaning of its own already: choose another")


def _check_named(config: Config, key: str, names: Sequence[str], allowed: Sequence[str]) -> None:
    if not names:
        raise UsageError(f"{key} is empty: name at least one")
    for name in names:
        if name in allowed or _is_student(config, name):
            continue
        model, tools = split_tools(name)
        if tools and model in ROLE_NAMES and model in allowed:
            check_tools(name, config.all_tools(), key)
            continue
        if tools and _is_student(config, model):
            raise UsageError(f"{key}: {name!r}: a student that the run trains uses no tools: name its solver's instead")
        if not is_model_name(name):
            known = ", ".join([*allowed, *STUDENTS, *config.students])
            raise UsageError(f"{key}: {name!r} is neither one of {known} nor a model name")
        check_name(name)
        check_tools(name, config.all_tools(), key)


def _check_dev(config: Config) -> None:
    data, train = config.data, config.train
    if data.dev and data.dev_share:
        raise UsageError("data.dev and data.dev_share both give a dev split: keep one of them")
    if train.search.lora_rank and train.method == "full":
        raise UsageError('train.search.lora_rank: train.method = "full" trains every weight: leave it out')
    if len(train.candidates()) > 1 and not (data.dev or data.dev_share):
        raise UsageError(
            "train.search names candidates, but nothing to choose by: name data.dev, or data.dev_share = 0.1"
        )


def _check_bases(config: Config) -> None:
    bases = {"models.student": config.models.student} if config.run.variants or config.students else {}
    bases |= {f"students.{name}.base": student.base for name, student in config.students.items() if student.base}
    for key, base in bases.items():
        if not base.startswith("local:"):
            raise UsageError(f"{key} is {base!r}: only local: models can be trained")
