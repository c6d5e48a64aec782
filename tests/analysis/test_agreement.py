"""Agreement compares decompositions of the same questions, word by word."""

from measured import TEACHER, component_of

from fractionate.analysis.students import measure_agreement
from fractionate.types import Attempt, Cell, Decomposition, Problem, Score


def cell(decomposer: str, *decompositions: tuple[str, ...]) -> Cell:
    attempts = tuple(
        Attempt(Problem(f"p{number}", "Q?", (("a",),)), ("a",), Score(1, 1), "", Decomposition(subquestions))
        for number, subquestions in enumerate(decompositions)
    )
    solver = component_of("teacher", "solver")
    return Cell("d", "test", "static", "two-stage", component_of(decomposer), solver, "exact_match", attempts)


def test_agreement_is_measured_against_the_teacher() -> None:
    teacher = cell("teacher", ("Who is it?", "Where?"), ("What now?",))
    (found,) = measure_agreement([teacher, cell("D-R", ("who is it?", "Where?"), ("What then?", "Why?"))])
    assert (found.decomposer, found.reference, found.n, found.exact) == ("D-R", "teacher", 2, 0.5)
    assert found.token_f1 == (1 + 2 * 1 / 5) / 2
    assert (found.subquestions, found.reference_subquestions) == (2.0, 1.5)


def test_the_teacher_is_known_by_its_models_name_too() -> None:
    (found,) = measure_agreement([cell("D-R", ("Who?",)), cell(TEACHER, ("Who?",))])
    assert (found.decomposer, found.reference, found.exact) == ("D-R", TEACHER, 1.0)


def test_without_a_reference_or_shared_questions_there_is_none() -> None:
    assert measure_agreement([cell("D-R", ("Who?",))]) == []
    assert measure_agreement([cell("teacher"), cell("D-R", ("Who?",))]) == []


def test_an_unreadable_decomposition_agrees_with_nothing() -> None:
    (found,) = measure_agreement([cell("gold", ("Who?",)), cell("D-T", ())])
    assert (found.exact, found.token_f1) == (0.0, 0.0)
