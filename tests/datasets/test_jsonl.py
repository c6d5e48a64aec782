"""The user's own files: what is read, and how what cannot be used is refused."""

from __future__ import annotations

import builtins
import csv
import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fractionate import datasets
from fractionate.errors import UsageError


@pytest.fixture
def load(tmp_path):
    """Write a file and load it."""

    def write_and_load(content, suffix=".jsonl", columns=None, tail=""):
        path = tmp_path / f"mine{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return datasets.load(f"jsonl:{path}{tail}", columns)

    return write_and_load


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# ---------------------------------------------------------------------- what is read


def test_a_row_may_hold_everything(load):
    row = {"id": 7, "question": " How? ", "answers": ["a", "b"], "context": "C.", "subquestions": ["x?", "y #1?"]}
    (problem,) = load(lines(row))
    assert (problem.id, problem.question, problem.context) == ("7", "How?", "C.")
    assert problem.answers == (("a",), ("b",))
    assert problem.subquestions == ("x?", "y #1?")
    assert (problem.dataset, problem.index) == ("jsonl", 0)


@pytest.mark.parametrize("question", ["question", "problem", "input", "query"])
@pytest.mark.parametrize("answer", ["answers", "answer", "gold", "target", "label"])
def test_usual_column_names_are_known(load, question, answer):
    (problem,) = load(lines({question: "q", answer: "a", "passage": "p"}))
    assert (problem.question, problem.answers, problem.context) == ("q", (("a",),), "p")


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ("Paris", (("Paris",),)),
        (" Paris\n", (("Paris",),)),
        (42, (("42",),)),
        (-0.5, (("-0.5",),)),
        (3.0, (("3",),)),
        (["Paris", "the city of Paris"], (("Paris",), ("the city of Paris",))),
        (["a", "a"], (("a",),)),
        ([1, "one"], (("1",), ("one",))),
        ([["a", "b"], ["c"]], (("a", "b"), ("c",))),
        ([["a", "b"], "c"], (("a", "b"), ("c",))),
        (True, (("yes",), ("true",))),
        (False, (("no",), ("false",))),
        ("[1, 2]", (("[1, 2]",),)),
        ("nan", (("nan",),)),
    ],
)
def test_answers_come_in_several_forms(load, value, answers):
    assert load(lines({"question": "q", "answer": value}))[0].answers == answers


def test_columns_are_mapped(load):
    columns = {"question": "prompt", "answers": "reply", "context": "text", "id": "key", "subquestions": "steps"}
    row = {"prompt": "q", "reply": "a", "text": "t", "key": "k", "steps": ["s?"], "question": "other"}
    (problem,) = load(lines(row), columns=columns)
    assert (problem.question, problem.answers, problem.context, problem.id) == ("q", (("a",),), "t", "k")
    assert problem.subquestions == ("s?",)


def test_rows_without_an_id_are_named_by_the_file_and_their_position(load):
    problems = load(lines({"question": "a", "answer": 1}, {"question": "b", "answer": 2}))
    assert [problem.id for problem in problems] == ["mine-0", "mine-1"]


def test_byte_order_mark_crlf_blank_lines_and_line_separators_are_no_trouble(load):
    text = '\ufeff{"question": "a\u2028b", "answer": 1}\r\n\r\n   \n{"question": "c", "answer": 2}'
    assert [problem.question for problem in load(text)] == ["a\u2028b", "c"]
    assert [problem.index for problem in load(text)] == [0, 1]


def test_a_json_file_holds_a_list(load):
    assert load('[{"question": "q", "answer": 1}]', ".json")[0].question == "q"


CSV = 'id,question,answers,subquestions\r\n1,"Who, then?","[""A"", ""B""]","first?\nsecond?"\r\n\r\n2,q,"[odd",""\r\n'


def test_a_csv_cell_may_hold_lists_and_line_ends(load):
    first, second = load(CSV, ".csv")
    assert (first.question, first.answers) == ("Who, then?", (("A",), ("B",)))
    assert first.subquestions == ("first?", "second?")
    assert (second.answers, second.subquestions) == ((("[odd",),), ())


def test_tsv_and_byte_order_mark(load):
    assert load("\ufeffquestion\tanswer\nq, r\ta\n", ".tsv")[0].question == "q, r"


def test_a_long_csv_cell_is_read(load):
    assert len(load(f"question,answer,context\nq,a,{'x' * 300_000}\n", ".csv")[0].context) == 300_000


def test_a_split_is_taken_by_its_column(load):
    rows = lines(*({"question": f"q{n}", "answer": n, "split": "dev" if n % 2 else "train"} for n in range(6)))
    problems = load(rows, tail="#dev@1-2")
    assert [problem.question for problem in problems] == ["q3", "q5"]
    assert {problem.split for problem in problems} == {"dev"}
    with pytest.raises(UsageError, match="no column 'split'"):
        load(lines({"question": "q", "answer": 1}), tail="#dev")
    with pytest.raises(UsageError, match="holds no problems"):
        load(rows, tail="#test")


# ---------------------------------------------------------------------- what is refused

GOOD = '{"question": "q", "answer": "a"}\n'


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"question": "q", ', "malformed JSON"),
        ("q,a", "malformed JSON"),
        ("[" * 100_000, "malformed JSON"),
        ('["q", "a"]', "an object with named fields, not a list"),
        ("null", "not null"),
        ('{"answer": "a"}', "no column question or problem or input or query (the row has answer)"),
        ('{"question": "q"}', "no column answers or answer or gold"),
        ('{"question": "", "answer": "a"}', "question: empty"),
        ('{"question": "  ", "answer": "a"}', "question: empty"),
        ('{"question": null, "answer": "a"}', "question: empty"),
        ('{"question": 3, "answer": "a"}', "question: a question is a string, not a number"),
        ('{"question": "q", "answer": ""}', "answer: empty"),
        ('{"question": "q", "answer": null}', "answer: empty"),
        ('{"question": "q", "answer": []}', "answer: the list of answers is empty"),
        ('{"question": "q", "answer": ["a", ""]}', "answer: empty"),
        ('{"question": "q", "answer": [["a"], []]}', "answer: an alternative without spans"),
        ('{"question": "q", "answer": {"a": 1}}', "answer: a string, a number or a list of these is wanted"),
        ('{"question": "q", "answer": NaN}', "answer: nan is no answer"),
        ('{"question": "q", "answer": -Infinity}', "answer: -inf is no answer"),
        ('{"question": "q", "answer": 1e999}', "answer: inf is no answer"),
        ('{"question": "q", "answer": "a", "context": ["c"]}', "context: a string"),
        ('{"question": "q", "answer": "a", "subquestions": [1]}', "subquestions: a subquestion is a string"),
        ('{"question": "q", "answer": "a", "subquestions": {}}', "subquestions: a list of strings"),
        ('{"question": "\\ud800", "answer": "a"}', "question: a broken \\u escape"),
        ('{"question": "q", "answer": "a", "id": "mine-0"}', "the id 'mine-0' stands on an earlier row"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_file_line_and_reason(load, row, reason):
    with pytest.raises(UsageError) as caught:
        load(GOOD + "\n" + row + "\n" + GOOD)
    message = str(caught.value)
    assert "mine.jsonl:3: " in message
    assert reason in message
    assert "\n" not in message


def test_an_id_that_comes_twice_is_refused(load):
    with pytest.raises(UsageError, match=r"mine\.jsonl:2: the id '5'"):
        load(lines({"id": 5, "question": "q", "answer": 1}, {"id": "5", "question": "r", "answer": 2}))


def test_a_mapped_column_that_is_missing_is_refused_even_where_it_is_optional(load):
    with pytest.raises(UsageError, match=r"mine\.jsonl:1: no column txt .*fix data\.columns"):
        load(GOOD, columns={"context": "txt"})


def test_text_that_is_not_utf8_is_refused_with_its_line(load):
    with pytest.raises(UsageError, match=r"mine\.jsonl:2: not UTF-8"):
        load(GOOD.encode() + '{"question": "é", "answer": 1}'.encode("latin-1"))
    with pytest.raises(UsageError, match=r"mine\.csv:\d: not UTF-8"):
        load("question,answer\né,1\n".encode("latin-1"), ".csv")


@pytest.mark.parametrize(
    ("content", "suffix", "reason"),
    [
        ("question,answer\nq,a\nr,a,b\n", ".csv", r"mine\.csv:3: 3 cells, but the header names 2"),
        ("question,answer\nq,a\nr\n", ".csv", r"mine\.csv:3: no column answers"),
        ('question,answer\nq,a\n"r" x,a\n', ".csv", r"mine\.csv:3: malformed CSV"),
        ('question,answer\n"q\nq",a\nr,\n', ".csv", r"mine\.csv:4: answer: empty"),
        ("question,question,answer\nq,r,a\n", ".csv", r"mine\.csv:1: the header names the column 'question' twice"),
        ('{"question": "q", "answer": 1}', ".json", r"mine\.json:1: a \.json file holds a list"),
        ('[{"question": "q", "answer": 1}, 3]', ".json", r"mine\.json:2: a row is an object"),
        ('[\n{"question": "q",\n]', ".json", r"mine\.json:3: malformed JSON"),
        ("question\n", ".csv", "holds no problems"),
        ("", ".csv", "holds no problems"),
        ("", ".jsonl", "holds no problems"),
        ("\n\n", ".jsonl", "holds no problems"),
        ("[]", ".json", "holds no problems"),
        ("", ".json", "malformed JSON"),
        ("q", ".txt", r"\.txt is not read: use \.jsonl"),
        ("not parquet", ".parquet", "is not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(load, content, suffix, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        load(content, suffix)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.jsonl does not exist"):
        datasets.load("nowhere.jsonl", base=tmp_path)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"folder\.jsonl is a folder"):
        datasets.load("folder.jsonl", base=tmp_path)
    with pytest.raises(UsageError, match="names no file"):
        datasets.load("jsonl")


# ---------------------------------------------------------------------- Parquet


def write_parquet(path, columns):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow

    parquet.write_table(pyarrow.table(columns), path)


def test_parquet_is_read(tmp_path):
    columns = {"question": ["q", "r"], "answers": [["a", "b"], ["c"]], "context": ["p", None]}
    write_parquet(tmp_path / "mine.parquet", columns)
    first, second = datasets.load("mine.parquet", base=tmp_path)
    assert (first.answers, first.context) == ((("a",), ("b",)), "p")
    assert (second.answers, second.context) == ((("c",),), "")


@pytest.mark.parametrize(
    ("answers", "reason"), [([1.0, float("nan")], "nan is no answer"), ([1.0, None], "answer: empty")]
)
def test_missing_values_in_parquet_are_refused_with_their_row(tmp_path, answers, reason):
    write_parquet(tmp_path / "mine.parquet", {"question": ["q", "r"], "answer": answers})
    with pytest.raises(UsageError, match=rf"mine\.parquet:2: .*{reason}"):
        datasets.load("mine.parquet", base=tmp_path)


def test_parquet_without_its_package_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "mine.parquet").write_bytes(b"")
    real = builtins.__import__

    def without_pyarrow(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(UsageError, match=r"fractionate\[parquet\]"):
        datasets.load("mine.parquet", base=tmp_path)


# ---------------------------------------------------------------------- as a whole

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=30).filter(
    lambda text: text.strip()
)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6))
def test_every_form_of_a_file_gives_the_same_problems(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("forms")
    records = [{"question": q, "answer": [a], "context": c} for q, a, c in rows]
    (folder / "mine.jsonl").write_text(lines(*records), encoding="utf-8")
    (folder / "mine.json").write_text(json.dumps(records), encoding="utf-8")
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["question", "answer", "context"])
    writer.writerows([q, json.dumps([a]), c] for q, a, c in rows)
    (folder / "mine.csv").write_bytes(table.getvalue().encode())
    read = {suffix: datasets.load(f"mine.{suffix}", base=folder) for suffix in ("jsonl", "json", "csv")}
    assert read["jsonl"] == read["json"]
    assert [problem.question for problem in read["jsonl"]] == [q.strip() for q, _, _ in rows]
    # A CSV file cannot tell a NUL or the form of a line end inside a cell; all else is the same.
    if not any("\0" in text or "\r" in text for row in rows for text in row):
        assert read["csv"] == read["jsonl"]


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet"]))
def test_any_bytes_are_either_read_or_refused_in_one_line(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"mine{suffix}"
    path.write_bytes(content)
    try:
        datasets.load(str(path))
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_reading_row_by_row_holds_few_rows_in_memory(tmp_path):
    row = json.dumps({"question": "q" * 900, "answer": "a"}) + "\n"
    (tmp_path / "mine.jsonl").write_text(row * 20_000, encoding="utf-8")
    tracemalloc.start()
    count = sum(1 for _ in datasets.iter_problems("mine.jsonl", base=tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 5_000_000, "18 MB of rows were held at once"


def test_answers_are_read_and_scored():
    dataset = datasets.get("jsonl")
    assert dataset.extract("Let me think.\nThe answer is: Paris") == ("Paris",)
    assert dataset.score(("paris",), (("Paris",),)) == (1.0, 1.0)
    assert dataset.score(None, (("Paris",),)) == (0.0, 0.0)


def test_rows_may_say_of_what_kind_they_are(tmp_path):
    rows = [{"q": f"Question {n}?", "answer": "a", "sort": ["billing", "returns", None][n % 3]} for n in range(9)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    columns = {"question": "q", "kind": "sort"}
    assert [one.index for one in datasets.load("jsonl:mine.jsonl?returns", columns, tmp_path)] == [1, 4, 7]
    assert [one.kind for one in datasets.load("mine.jsonl@0-2", columns, tmp_path)] == ["billing", "returns", ""]
    with pytest.raises(UsageError, match="no question of kind 'return'; its kinds are billing, returns"):
        datasets.load("jsonl:mine.jsonl?return", columns, tmp_path)
