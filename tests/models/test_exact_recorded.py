"""Recorded rows value by value: trees, labels, steps, usage, passages and log-probabilities, at their edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_recorded_strategies import asked, opened, row

from fractionate.errors import UsageError
from fractionate.models._recorded_rows import FIELDS, Recording, Reply, StepReply, read_recording, whole
from fractionate.models._trees import listed, read_decomposition, read_label
from fractionate.models.recorded import _same_question
from fractionate.rows import Row


def read(**values: Any) -> Recording:
    return read_recording(Row({"id": "p0", **values}, "log:1"), "log", {**FIELDS})


@pytest.mark.parametrize(
    ("value", "label"),
    [(1, (1,)), (2.0, (2,)), ("1.2", (1, 2)), (" 3. ", (3,)), ("2.0", (2,)), ("9999", (9999,)),
     (".".join("1" * 10), (1,) * 10)],
)  # fmt: skip
def test_a_label_is_a_path_of_numbers_from_1(value: Any, label: tuple[int, ...]) -> None:
    assert read_label(value) == label


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, True, None, "0", "1.0.1", "01", "10000", "a", "", ".".join("1" * 11), [1]]
)
def test_what_is_no_label_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="from 1"):
        read_label(value)


@pytest.mark.parametrize(
    ("value", "read_as"),
    [("[1, 2]", [1, 2]), (' {"a": 1} ', {"a": 1}), ("['a', 'b']", ["a", "b"]), ("[a]", "[a]"), ("{1}", "{1}"),
     ("x [1]", "x [1]"), ("[1] x", "[1] x"), (5, 5), (None, None), ("(1, 2)", "(1, 2)"), ("", "")],
)  # fmt: skip
def test_a_list_inside_a_string_is_read(value: Any, read_as: Any) -> None:
    assert listed(value) == read_as


def test_a_long_list_of_python_is_left_as_text() -> None:
    assert listed("['" + "a" * ((1 << 20) - 4) + "']") == ["a" * ((1 << 20) - 4)]
    long = "['" + "a" * ((1 << 20) - 3) + "']"
    assert listed(long) == long


def test_a_tree_is_answered_children_first() -> None:
    found = read_decomposition("1.1 a?\n1.2 Is #1 b?\n1. Of #2 and #1?\n2. Is #1 c?\n3. Is #1.2 d?")
    assert found.text == "1. a?\n2. Is #1 b?\n3. Of #2 and #1?\n4. Is #3 c?\n5. Is #2 d?"
    assert found.labels == ((1, 1), (1, 2), (1,), (2,), (3,))
    nested = [{"question": "Of #2 and #1?", "subquestions": ["a?", {"text": "Is #1 b?"}]}, "Is  #1 c?"]
    assert read_decomposition(nested).text == "1. a?\n2. Is #1 b?\n3. Of #2 and #1?\n4. Is #3 c?"
    assert read_decomposition(nested).nodes[2]["question"] == "Of #2 and #1?"


@pytest.mark.parametrize(
    ("value", "said"),
    [("1. a?\n1.1 b?\n2. Then #3?", "subquestion 2 refers to #3"), ("1.1 a #1?\n1.2 b?", "refers to #1"),
     ("1.1 a #2?\n1.2 b?", "refers to #2"), ("1.1 a?\n1.1 b?", "names 1.1 twice"),
     ("1.1 a?\n1.3 b?", "names 1.3, but not 1.2"), (5, "must be text or a list"), ([5], "subquestion 1 must be text"),
     ([{"x": 1}], "an object without 'subquestion'"), ([{"text": "a", "children": 5}], "of 1 must be a list"),
     ({"x": 1}, "an object without a list")],
)  # fmt: skip
def test_a_tree_that_cannot_be_answered_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_decomposition(value)


def test_a_tree_has_at_most_ten_levels() -> None:
    def deep(levels: int) -> Any:
        node: Any = "q?"
        for _ in range(levels - 1):
            node = {"text": "q?", "children": [node]}
        return [node]

    assert read_decomposition(deep(10)).labels[0] == (1,) * 10
    with pytest.raises(ValueError, match="at most 10 levels"):
        read_decomposition([{"text": "q?", "children": deep(11)}])


@pytest.mark.parametrize(
    ("value", "text"),
    [("1. a?\n2. Is #1 b?", "1. a?\n2. Is #1 b?"), ("1.5 times 20?\n2. b?", "1.5 times 20?\n2. b?"),
     (["a?", "b #1?"], "1. a?\n2. b #1?"), ('["a?", "b?"]', "1. a?\n2. b?"), ({"raw": "x", "subquestions": []}, "x"),
     ({"raw": "", "questions": ["a?"]}, "1. a?"), ('{"x": 1}', '{"x": 1}'), ([], ""),
     ("1.1 a?\nfree text", "1.1 a?\nfree text"),
     (["1.1 a?", "1.2 b #1?"], "1. a?\n2. b #1?"), ("Step 1.1: a?\nQ1.2) b?", "1. a?\n2. b?")],
)  # fmt: skip
def test_a_decomposition_is_numbered_lines(value: Any, text: str) -> None:
    assert read_decomposition(value).text == text


def test_the_labels_of_a_flat_list_count_from_1() -> None:
    found = read_decomposition(["a?", {"question": "b?", "answer": "x"}])
    assert (found.labels, [dict(node) for node in found.nodes]) == (
        ((1,), (2,)),
        [{}, {"question": "b?", "answer": "x"}],
    )


@pytest.mark.parametrize(
    ("value", "number"), [(0, 0), ("7", 7), (7.0, 7), ("7.0", 7), (None, None), ("", None), (10**9 - 1, 10**9 - 1)]
)
def test_a_whole_number_is_at_least_0(value: Any, number: int | None) -> None:
    assert whole(Row({}, "log:1"), "x", value) == number


@pytest.mark.parametrize("value", [-1, 10**9, 0.5, "x", True, [1], 1e400, "nan"])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="log:1: 'x' must be"):
        whole(Row({}, "log:1"), "x", value)


def test_a_reply_holds_what_the_row_tells_about_it() -> None:
    usage = {"prompt_tokens": 11, "cached_input_tokens": 11, "completion_tokens": 0}
    found = read(output="9", usage=usage, latency_s="2.5", passages=["a", {"text": "b"}, {"content": "c"}])
    assert found.output == Reply("9", 11, 11, 0, 2.5, "a\nb\nc")
    assert read(output=None).output == Reply("")
    assert read(output=9).output == Reply("9")
    assert read(output=["a", "b"]).output == Reply("1. a\n2. b")
    assert read(output="9", logprobs=[-0.5, 0, None]).output == Reply("9", None, 0, 3)
    assert read(output="9", logprobs={"content": [{"logprob": -1.0}]}).output == Reply("9", None, 0, 1)
    assert read(output="9", logprobs={"token_logprobs": [-1.0, -2.0]}).output == Reply("9", None, 0, 2)
    assert read(output="9", logprobs=[-1.0], usage={"output_tokens": 7}).output == Reply("9", None, 0, 7)
    assert read(output="9", logprobs=[], passages=None, latency_s="", usage="").output == Reply("9")


@pytest.mark.parametrize(
    ("values", "said"),
    [({"usage": {"input_tokens": 4, "cached_input_tokens": 5}}, "5 cached input tokens are more than the 4"),
     ({"usage": "x"}, "'usage' must be an object"), ({"usage": [1]}, "'usage' must be an object"),
     ({"latency_s": -1}, "'latency_s' must be seconds"), ({"latency_s": 1e9}, "'latency_s' must be seconds"),
     ({"latency_s": True}, "'latency_s' must be seconds"), ({"latency_s": "nan"}, "'latency_s' must be seconds"),
     ({"passages": 5}, "'passages' must be texts"), ({"passages": [{"x": "a"}]}, "'passages' must be texts"),
     ({"logprobs": [0.1]}, "'logprobs' must be"), ({"logprobs": [True]}, "'logprobs' must be"),
     ({"logprobs": 5}, "'logprobs' must be"), ({"logprobs": ["x"]}, "'logprobs' must be"),
     ({"output": True}, "'output' must be text"), ({"output": {"a": 1}}, "'output' must be text"),
     ({"role": "judge"}, "role is 'decomposer' or 'solver'"), ({"question": True}, "'question' must be text"),
     ({"sample": 10**6}, "'sample' must be at least 0 and below 1,000,000"), ({"sample": -1}, "'sample' must be"),
     ({"step": 1}, "step 1 of what"), ({"step": 3, "decomposition": ["a?", "b?"]}, "step 3 is out of range"),
     ({"step": "1.2", "decomposition": "1. a?"}, "step 1.2 is a tree's"), ({"step": 0, "subquestion": "a?"}, "'step'"),
     ({"step": 1, "steps": ["x"], "subquestion": "a?"}, "not both"), ({"steps": 5}, "'steps' must be a list"),
     ({"steps": [{"step": 1, "output": "a"}, {"step": 1, "output": "b"}]}, "answers one step twice"),
     ({"steps": {"1001": "x"}}, "step 1001 is out of range"),
     ({"steps": ["x"], "decomposition": "1.1 a?\n1.2 b?"}, "of a tree name their labels"),
     ({"steps": [{"subquestion": 5, "output": "a"}]}, "'subquestion' must be text")],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"log:1: .*{said}"):
        read(**{"output": "9", **values})


def test_a_row_names_its_question() -> None:
    for named in ({"id": "x"}, {"index": 0}, {"question": "q?"}, {"id": 2.0}):
        found = read_recording(Row({**named, "output": "9"}, "log:1"), "log", {**FIELDS})
        assert (found.identifier, found.index, found.question) == (
            {"x": "x", 2.0: "2"}.get(named.get("id")), named.get("index"), named.get("question", ""),
        )  # fmt: skip
    with pytest.raises(UsageError, match="names no question"):
        read_recording(Row({"output": "9"}, "log:1"), "log", {**FIELDS})


def test_both_roles_of_a_row_have_usage_of_their_own() -> None:
    both = read(decomposition=["a?"], output="9", usage={"input_tokens": 5}, decomposition_usage={"input_tokens": 3},
                latency_s=2.0)  # fmt: skip
    assert both.decomposing == Reply("1. a?", 3)
    assert both.output == Reply("9", 5, 0, None, 2.0)
    alone = read(decomposition=["a?"], usage={"input_tokens": 5}, latency_s=2.0)
    assert (alone.decomposing, alone.output) == (Reply("1. a?", 5, 0, None, 2.0), None)
    of_role = read(role="decomposer", output=["a?", "b?"], usage={"input_tokens": 5})
    assert (of_role.decomposing, of_role.output, of_role.decomposition) == (
        Reply("1. a?\n2. b?", 5),
        None,
        "1. a?\n2. b?",
    )
    assert read(role="solver", decomposition=["a?"], output="9").decomposing is None
    assert read(role="decomposer", decomposition=["a?"]).decomposing == Reply("1. a?")
    assert read(output="9").decomposing is None


def test_steps_are_placed_by_their_position() -> None:
    one, three = StepReply("", Reply("x")), StepReply("c?", Reply("z", 5))
    found = read(steps=["x", None, {"subquestion": "c?", "output": "z", "usage": {"input_tokens": 5}}])
    assert found.steps == (one, StepReply("", None), three)
    assert found.strategy == "stepwise"
    assert read(steps=["x"], strategy="mine").strategy == "mine"
    assert read(steps={"1": "x", "3": {"question": " c? ", "answer": "z", "usage": {"input_tokens": 5}}}).steps == (
        one, None, three,
    )  # fmt: skip
    assert read(steps=[{"step": 2, "output": "x"}]).steps == (None, one)
    assert read(steps="['x']").steps == (one,)
    tree = read(decomposition="1.1 a?\n1.2 b?\n1. c?", steps={"1.2": "x", "1": "y"})
    assert tree.steps == (None, one, StepReply("", Reply("y")))
    inside = read(decomposition=[{"question": "a?", "output": "x"}, "b?"])
    assert inside.steps == (StepReply("a?", Reply("x")), None)
    for nothing in (None, "", [], {}):
        assert read(output="9", steps=nothing).steps == ()
    assert read(output="x", step="2", decomposition=["a?", "b?"]).step == 2
    assert read(output="x", step=1, subquestion=" a  b? ").subquestion == "a b?"
    assert read(output="x", step="", subquestion="a?").step == 0


def test_a_row_is_the_same_after_a_spool_held_it() -> None:
    for one in (
        read(output="9", usage={"input_tokens": 1}),
        read(decomposition=["a?", "b?"], steps={"2": "x"}, sample=3),
        read(steps=["x", None], step=None),
    ):
        assert Recording.from_plain(one.plain()) == one


def test_a_question_is_the_same_where_its_beginning_is_alike() -> None:
    assert _same_question("How  old is he?", "How old is he?")
    assert _same_question("abcdefghij", "abcdefxxxx"), "a ratio of 0.6 is enough"
    assert not _same_question("abcdefghij", "abcdexxxxx")
    alike = "ab" * 500
    assert _same_question(alike + "x" * 5000, alike + "y" * 5000), "1,000 characters are compared"
    assert not _same_question("x" + "ab" * 200 + "x" * 5000, "y" * 700 + "ab" * 200)


TWO = "1. Who is he?\n2. How old is #1?"


def test_a_step_is_answered_by_its_own_reply_alone(tmp_path: Any) -> None:
    model = opened(tmp_path, row(decomposition=TWO, steps=["Bob", None], output="9"))
    assert model.replay(asked("step", "stepwise", step=1, given=TWO)) == "Bob"
    for step in (2, 3):
        with pytest.raises(UsageError, match="record the steps"):
            model.replay(asked("step", "stepwise", step=step, given=TWO))
    assert model.replay(asked("final", "stepwise", given=TWO)) == "9"


def test_the_number_of_samples_is_that_of_rows_of_the_role(tmp_path: Any) -> None:
    model = opened(
        tmp_path, *(row(decomposition=TWO, output=str(n), sample=n) for n in range(3)), {"id": "p1", "output": "x"}
    )
    problem = asked("single").origin.problem  # type: ignore[union-attr]
    assert (model.samples(problem), model.samples(problem, "solver")) == (3, 3)
    assert not model.lacks_decomposition(problem)
    other = replace(problem, id="p1", index=7, question="Another question altogether?")
    assert (model.samples(other), model.samples(other, "solver"), model.lacks_decomposition(other)) == (None, 1, True)
    unknown = replace(other, id="p9")
    assert (model.samples(unknown), model.lacks_decomposition(unknown)) == (0, False)
