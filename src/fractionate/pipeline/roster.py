"""Who plays: what each name of the matrix stands for, which students are trained, which cells are measured.

A name is a role ("teacher", "solver", "student" for the untuned base), a variant ("D-R"), a student or decomposer
of the user's own naming (`[students.NAME]`, `[decomposers.NAME]`), or a model name in the grammar. "none" and "gold"
stand for no model at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from fractionate.config import DECOMPOSER_VARIANTS, STUDENTS, Config
from fractionate.errors import UsageError
from fractionate.evaluate.matrix import Pair, plan_pairs
from fractionate.models import check_name, is_model_name

NO_MODEL = ("none", "gold")
ROLES = ("teacher", "solver", "student")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")


def model_of(config: Config, role: str) -> str:
    """Return the model name that "teacher", "solver" or "student" stands for. Raises UsageError where it has none."""
    models = config.models
    if role == "student":
        return models.student
    if role == "solver" and models.solver:
        return models.solver
    if not models.teacher:
        raise UsageError("models.teacher is missing: name the model that decomposes (openai:NAME, recorded:PATH, …)")
    return models.teacher


def students_to_train(config: Config) -> list[str]:
    """Return the students that a run trains: `run.variants` with those the matrix names, and every [students.NAME].

    An empty `run.variants` trains no other than those of [students].
    """
    wanted = [*config.run.variants, *named(config)] if config.run.variants else []
    return list(dict.fromkeys([*(name for name in wanted if config.variant(name)), *config.students]))


def named(config: Config) -> list[str]:
    """Return every name in the matrix, decomposers first, as often as it occurs."""
    if config.run.pairs:
        return [name for pair in config.run.pairs for name in pair]
    return [*config.models.decomposers, *config.models.solvers]


def pairs_to_measure(config: Config, is_there: Callable[[str], bool]) -> tuple[list[Pair], list[str]]:
    """Return the cells of the matrix, and the students left out of it: neither trained by this run nor there already.

    The players are the names of the matrix and every student that is trained, each in its role; with `run.pairs` the
    ones in it and no more.
    """
    trained = students_to_train(config)
    chosen = config.run.pairs
    decomposers = [pair[0] for pair in chosen] or config.models.decomposers + _of_role(config, trained, "decomposer")
    solvers = [pair[1] for pair in chosen] or config.models.solvers + _of_role(config, trained, "solver")
    playing = {name for name in (*decomposers, *solvers) if not config.variant(name)}
    playing |= {name for name in (*decomposers, *solvers) if name in trained or is_there(name)}
    left_out = [name for name in dict.fromkeys((*decomposers, *solvers)) if name not in playing]
    planned = plan_pairs(
        config.run.strategies,
        [name for name in dict.fromkeys(decomposers) if name in playing],
        [name for name in dict.fromkeys(solvers) if name in playing],
    )
    return [pair for pair in planned if not chosen or (pair.decomposer, pair.solver) in chosen], left_out


def models_asked(config: Config, pairs: Iterable[Pair]) -> set[str]:
    """Return the names of the matrix that a model of the user's answers for: no students, nor "none" and "gold"."""
    players = {name for pair in pairs for name in (pair.decomposer, pair.solver)}
    return {name for name in players if name not in NO_MODEL and not config.variant(name)}


def check_names(config: Config) -> None:
    """Refuse names that mean nothing, before anything is opened or paid for."""
    models = config.models
    for section, names in (("students", config.students), ("decomposers", config.decomposers)):
        for name in names:
            _check_own_name(section, name)
    for name in config.decomposers:
        if name in config.students:
            raise UsageError(f"decomposers.{name}: a student has this name too: choose another")
        _check_players(config, f"decomposers.{name}.model", [config.decomposers[name].model], ROLES)
    decomposers = (*NO_MODEL, *ROLES, *config.decomposers)
    _check_players(config, "models.decomposers", models.decomposers, decomposers)
    _check_players(config, "models.solvers", models.solvers, ROLES)
    for decomposer, solver in config.run.pairs:
        _check_players(config, "run.pairs", [decomposer], decomposers)
        _check_players(config, "run.pairs", [solver], ROLES)
    if models.solver and "solver" not in named(config):
        raise UsageError('models.solver is named, but nothing is measured with it: put "solver" among models.solvers')
    for model in (models.teacher, models.solver, models.student, models.screen_solver):
        if model:
            check_name(model)
    _check_bases(config)
    if not config.run.strategies:
        raise UsageError("run.strategies is empty: name at least one, such as static")
    for name in models.options:
        if not config.variant(name):
            check_name(name)


def _of_role(config: Config, students: Sequence[str], role: str) -> list[str]:
    return [name for name in students if (config.variant(name) in DECOMPOSER_VARIANTS) == (role == "decomposer")]


def _check_own_name(section: str, name: str) -> None:
    if name in (*NO_MODEL, *ROLES, *STUDENTS):
        raise UsageError(f"{section}.{name}: this name has a meaning of its own already: choose another")
    if not _FILE_NAME.match(name):
        raise UsageError(f"{section}.{name!r} is no name: it takes letters, figures and . _ + - only")


def _check_players(config: Config, key: str, names: Sequence[str], allowed: Sequence[str]) -> None:
    if not names:
        raise UsageError(f"{key} is empty: name at least one")
    for name in names:
        if name in allowed or config.variant(name):
            continue
        if not is_model_name(name):
            known = ", ".join([*allowed, *STUDENTS, *config.students])
            raise UsageError(f"{key}: {name!r} is neither one of {known} nor a model name")
        check_name(name)


def _check_bases(config: Config) -> None:
    bases = {"models.student": config.models.student} if config.run.variants or config.students else {}
    bases |= {f"students.{name}.base": student.base for name, student in config.students.items() if student.base}
    for key, base in bases.items():
        if not base.startswith("local:"):
            raise UsageError(f"{key} is {base!r}: only local: models can be trained")
