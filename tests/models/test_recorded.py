"""Replay: the matching row for every question, and a plain error if there is none."""

import asyncio
import json
from pathlib import Path

import pytest

from fractionate import spool
from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models import open_model
from fractionate.models.recorded import RecordedModel
from fractionate.models.tokens import reference_counter
from fractionate.types import ROLES, Message, Origin, Problem, Request, Role

PROBLEM = Problem("p0", "How many eggs are left?", (("9",),), index=0)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def request(role: Role, problem: Problem = PROBLEM, sample: int = 0, **origin: str) -> Request:
    return Request((Message("user", problem.question),), role, sample=sample, origin=Origin(problem, **origin))


def reply(model: RecordedModel, wanted: Request) -> str:
    model.key(wanted)
    return asyncio.run(model.complete(wanted)).text


def opened(path: Path, **options: object) -> RecordedModel:
    return RecordedModel(f"recorded:{path}", ModelOptions.model_validate(options))


def test_one_row_may_hold_both_roles(tmp_path: Path) -> None:
    model = opened(write(tmp_path / "log.jsonl", {"index": 0, "questions": "Q1: a?", "answers": "A1: 9"}))
    assert reply(model, request("decomposer")) == "Q1: a?"
    assert reply(model, request("solver", decomposition="Q1: a?")) == "A1: 9"


def test_solver_rows_are_matched_by_what_they_answered(tmp_path: Path) -> None:
    rows = [{"id": "p0", "decomposition": d, "output": o} for d, o in (("1. a?", "A"), ("1. b?", "B"))]
    model = opened(write(tmp_path / "log.jsonl", *rows, {"id": "p0", "output": "alone"}))
    assert reply(model, request("solver", decomposition="1.  b?\n")) == "B"
    assert reply(model, request("solver")) == "alone"
    with pytest.raises(UsageError, match="pair them as recorded"):
        reply(model, request("solver", decomposition="1. c?"))


def test_a_recording_too_large_for_memory_replays_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ({"id": "p"}, {"index": 3}, {"question": "How many  eggs of 7?"})
    rows = [
        {
            **name,
            "sample": sample,
            "decomposition": f"1. {name}?",
            "output": f"{name} {sample}",
            "usage": {"input_tokens": 3},
        }
        for name in named
        for sample in range(2)
    ]
    path = write(tmp_path / "log.jsonl", *rows, *({"id": f"other {n}", "output": "no"} for n in range(20)))
    asked = [
        Problem("p", "a", ((),)),
        Problem("q", "b", ((),), index=3),
        Problem("r", "How many eggs of 7?", ((),), index=9),
    ]
    wanted = [
        request(role, problem, sample, decomposition=f"1. {name}?")
        for problem, name in zip(asked, named, strict=True)
        for role in ROLES
        for sample in range(2)
    ]
    replies = []
    for kept in (100, 0):
        monkeypatch.setattr(spool, "KEPT", kept)
        model = opened(path)
        assert [model.samples(problem) for problem in asked] == [2, 2, 2]
        replies.append([(model.key(one), asyncio.run(model.complete(one))) for one in wanted])
    assert replies[0] == replies[1]
    assert len(set(dict(replies[0]))) == len(wanted)


def test_equal_decompositions_of_two_decomposers_keep_their_own_answers(tmp_path: Path) -> None:
    for name, output in (("first", "one"), ("second", "two")):
        write(tmp_path / f"{name}.jsonl", {"index": 0, "questions": "Q1: a?", "answers": output})
    model = opened(tmp_path)
    for name, output in (("first", "one"), ("second", "two")):
        wanted = request("solver", decomposition="Q1: a?", decomposer=f"recorded:{tmp_path}/{name}.jsonl")
        assert reply(model, wanted) == output
    keys = {
        model.key(request("solver", decomposition="Q1: a?", decomposer=f"recorded:{n}.jsonl"))
        for n in ("first", "second")
    }
    assert len(keys) == 2


def test_samples_are_rows_of_their_own(tmp_path: Path) -> None:
    rows = [{"role": "decomposer", "id": "p0", "sample": k, "output": f"1. try {k}?"} for k in range(2)]
    model = opened(write(tmp_path / "log.jsonl", *rows))
    assert [reply(model, request("decomposer", sample=k)) for k in range(2)] == ["1. try 0?", "1. try 1?"]
    assert model.samples(PROBLEM) == 2
    with pytest.raises(UsageError, match=r"run\.samples"):
        reply(model, request("decomposer", sample=2))


def test_a_null_output_is_an_empty_reply_not_a_missing_row(tmp_path: Path) -> None:
    model = opened(write(tmp_path / "log.jsonl", {"index": 0, "questions": "Q1: a?", "answers": None}))
    assert reply(model, request("solver", decomposition="Q1: a?")) == ""


def test_own_field_names_are_mapped(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", {"prompt": PROBLEM.question, "reply": "9"})
    model = opened(path, format={"question": "prompt", "output": "reply"})
    assert reply(model, request("solver")) == "9"


def test_reported_usage_is_taken_and_missing_usage_counted(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 2}
    model = opened(write(tmp_path / "log.jsonl", {"index": 0, "output": "nine it is", "usage": usage}))
    told = asyncio.run(model.complete(request("solver"))).usage
    assert (told.input_tokens, told.output_tokens, told.counted) == (11, 2, 0)
    model = opened(write(tmp_path / "log2.jsonl", {"index": 0, "output": "nine it is"}))
    counted = asyncio.run(model.complete(request("solver"))).usage
    assert counted.counted == 1
    assert counted.output_tokens > 0
    assert counted.input_tokens > 0


def test_csv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('question,output\n"How many eggs are left?","9, I think"\n')
    assert reply(opened(path), request("solver")) == "9, I think"


def test_a_quoted_csv_cell_may_hold_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('index,questions,answers\n0,"1. First?\n2. Second?","1. Yes.\nThe answer is: 9"\n')
    model = opened(path)
    assert reply(model, request("decomposer")) == "1. First?\n2. Second?"
    assert reply(model, request("solver", decomposition="1. First?\n2. Second?")) == "1. Yes.\nThe answer is: 9"


def test_parquet_json_and_tsv_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"question": PROBLEM.question, "output": "9"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "log.parquet")
    (tmp_path / "log.json").write_text(json.dumps(rows))
    (tmp_path / "log.tsv").write_text(f"question\toutput\n{PROBLEM.question}\t9\n")
    for name in ("log.parquet", "log.json", "log.tsv"):
        assert reply(opened(tmp_path / name), request("solver")) == "9", name


def test_the_whole_input_may_have_been_cached(tmp_path: Path) -> None:
    usage = {"input_tokens": 11, "cached_input_tokens": 11, "output_tokens": 2}
    model = opened(write(tmp_path / "log.jsonl", {"index": 0, "output": "nine it is", "usage": usage}))
    assert asyncio.run(model.complete(request("solver"))).usage.cached_input_tokens == 11


def test_what_a_row_does_not_tell_of_its_usage_is_counted_with_a_tokenizer(tmp_path: Path) -> None:
    count, _ = reference_counter()
    usage = {"prompt_tokens": 11, "completion_tokens": 2, "cached_tokens": 0}
    for left_out, expected in (
        ("prompt_tokens", (count(PROBLEM.question), 2)),
        ("completion_tokens", (11, count("nine it is"))),
    ):
        told = {name: value for name, value in usage.items() if name != left_out}
        row = {"index": 0, "output": "nine it is", "usage": told}
        found = asyncio.run(opened(write(tmp_path / "log.jsonl", row)).complete(request("solver"))).usage
        assert (found.input_tokens, found.output_tokens) == expected
        assert (found.calls, found.counted) == (1, 1)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"index": "first", "output": "9"}, "'index' must be a whole number, not 'first'"),
        ({"index": 0, "output": "9", "usage": "much"}, "'usage' must be an object"),
        ({"index": 0, "output": "9", "usage": {"output_tokens": "x"}}, "'output_tokens' must be a whole number"),
        ({"index": 0, "output": "9", "sample": 0.5}, "'sample' must be a whole number"),
        ({"index": 0, "output": "9", "latency_s": "soon"}, "'latency_s' must be seconds"),
    ],
)
def test_a_field_of_another_kind_is_refused_by_its_line(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(UsageError, match=rf"log\.jsonl:1: {said}"):
        opened(write(tmp_path / "log.jsonl", row))


def test_usage_may_stand_in_a_csv_cell(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('index,output,usage\n0,nine,"{""prompt_tokens"": 11, ""completion_tokens"": 2}"\n')
    told = asyncio.run(opened(path).complete(request("solver"))).usage
    assert (told.input_tokens, told.output_tokens, told.counted) == (11, 2, 0)


def test_a_changed_file_is_another_model(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", {"index": 0, "output": "9"})
    before = opened(path).key(request("solver"))
    write(path, {"index": 0, "output": "10"})
    assert opened(path).key(request("solver")) != before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no recorded rows"),
        ("{]\n", r"log\.jsonl:1: malformed JSON"),
        ("3\n", r"log\.jsonl:1: a row is an object with named fields"),
        ('{"output": "9"}\n', r"log\.jsonl:1: the row names no question"),
        ('{"index": 0, "role": "judge", "output": "9"}\n', "role is 'decomposer' or 'solver'"),
    ],
)
def test_unusable_files_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=said):
        opened(path)


def test_missing_files_and_questions_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        opened(tmp_path / "none.jsonl")
    model = opened(write(tmp_path / "log.jsonl", {"index": 5, "output": "9"}))
    with pytest.raises(UsageError, match="no solver output for p0"):
        reply(model, request("solver"))


def test_rows_of_another_data_set_are_not_taken_by_index(tmp_path: Path) -> None:
    model = opened(
        write(tmp_path / "log.jsonl", {"index": 0, "problem": "Which river flows through Rome?", "output": "9"})
    )
    with pytest.raises(UsageError, match="another question"):
        reply(model, request("solver"))


@pytest.mark.parametrize("name", ["opnai:gpt", "gpt-4o", "openai:", "nothing", ":x"])
def test_unknown_model_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="unknown model"):
        open_model(name, ModelOptions())


def test_a_relative_path_is_found_beside_the_config(tmp_path: Path) -> None:
    write(tmp_path / "log.jsonl", {"index": 0, "output": "9"})
    assert open_model("recorded:log.jsonl", ModelOptions(), tmp_path).name == "recorded:log.jsonl"
