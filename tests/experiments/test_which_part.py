"""The map's command: it resumes, and its questions, lessons and answers are what its page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the 'local' extra is not installed")
import which_part
from which_part import END, FACT, SEP, THEN, World, distills, divided, solver_examples, solver_outcome


def test_the_small_map_is_drawn_and_the_same_command_trains_nothing_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the 'plots' extra is not installed")
    command = ["--small", "--seeds", "2", "--out", str(tmp_path)]
    assert which_part.main([*command, "--minutes", "0"]) == 0
    assert capsys.readouterr().out.count("\n") == 2  # the table's head alone
    assert which_part.main(command) == 0
    first = capsys.readouterr()
    assert first.out.count("\n| ") == 1 + 2 * len(which_part.COLUMNS) * len(which_part.HOPS)
    assert first.err.count("CPU s") == 2 * 3 * (3 + len(which_part.COLUMNS))
    assert (tmp_path / "which-part.png").stat().st_size > 10_000
    (tmp_path / "0" / "search-1-2.json").write_text(json.dumps({"solver": 75.0}))
    assert which_part.main(command) == 0
    again = capsys.readouterr()
    assert again.err == ""
    changed = set(again.out.splitlines()) - set(first.out.splitlines())
    assert {line.split(" | ")[2] for line in changed} == {"search"}


@pytest.mark.parametrize("hops", which_part.HOPS)
def test_following_the_teacher_through_the_prompt_leads_to_the_answer(hops: int) -> None:
    """A passage, and what a search finds, hold each fact that their subquestions need."""
    world = World(4, 0)
    for question in (world.question(hops, new=False) for _ in range(50)):
        ((prompt, reply),) = solver_examples(world, question, "passage")
        facts = {
            tuple(prompt[at + 1 : at + 4]): prompt[at + 4 : at + 6] for at, token in enumerate(prompt) if token == FACT
        }
        name = world.name(question.start)
        written = []
        for relation in question.path:
            name = facts[(*name, which_part.RELATION + relation)]
            written += [THEN, *name]
        assert reply == [*written, END]
        assert prompt[-1 - len(divided(world, question)) : -1] == divided(world, question)
        for searched, answered in solver_examples(world, question, "search"):
            *found, _, relation, first, second, end = searched
            facts = {tuple(found[at + 1 : at + 4]): found[at + 4 : at + 6] for at in range(0, len(found), 6)}
            assert end == SEP
            assert answered == [THEN, *facts[first, second, relation], END]
        ((asked, _),) = solver_examples(world, question, "closed")
        assert FACT not in asked


def test_new_phrasings_are_never_trained_on_and_hold_no_new_word() -> None:
    world = World(1, 0)
    old = [world.question(2, new=False) for _ in range(300)]
    new = [world.question(2, new=True) for _ in range(300)]
    assert not {(one.template, word) for one in old for word in one.words} >= {
        (one.template, word) for one in new for word in one.words
    }
    words = {token for one in old for token in which_part.asked(world, one)}
    assert {token for one in new for token in which_part.asked(world, one)} <= words


@pytest.mark.parametrize(
    ("values", "answer"),
    [((99.0, 99.5, 99.2), "yes"), ((40.0, 44.0, 41.0), "no"), ((99.0, 80.0, 97.0), "open"), ((100.0,), "open")],
)
def test_a_part_distills_where_its_interval_by_seed_lies_within_the_margin(values: tuple[float], answer: str) -> None:
    assert distills(values) == answer


def test_a_student_with_a_search_that_it_reads_right_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop over subquestions feeds each answer to the next search."""

    def reads(model: object, prompts: list[list[int]], most: int) -> list[list[int]]:
        answers = []
        for prompt in prompts:
            asked = tuple(prompt[-3:-1]), prompt[-4]
            facts = {
                (tuple(prompt[at + 1 : at + 3]), prompt[at + 3]): prompt[at + 4 : at + 6] for at in range(0, 24, 6)
            }
            answers.append([THEN, *facts[asked]])
        return answers

    monkeypatch.setattr(which_part, "train", lambda *_: None)
    monkeypatch.setattr(which_part, "replies", reads)
    assert solver_outcome("search", 4, 3, which_part.SMALL, 0) == {"solver": 100.0}
