"""The scorers that a config may name: what each reads, what it compares, and what it refuses in one line."""

from __future__ import annotations

import json
import pickle
import sqlite3
from pathlib import Path

import pytest

from fractionate import datasets
from fractionate.config import ScorerConfig
from fractionate.config.scorers import OPTIONS
from fractionate.errors import UsageError
from fractionate.scoring.scorers import open_scorer


def score(scorer: str, output: str, *answers: str, base: Path = Path()) -> float:
    """Score one output; the scorer travels to another process first."""
    opened = open_scorer(ScorerConfig.parse(scorer), base)
    assert opened is not None
    opened = pickle.loads(pickle.dumps(opened))
    return opened.score(opened.extract(output), [(answer,) for answer in answers]).exact_match


def test_contains_takes_whole_words_and_no_case() -> None:
    assert score("contains", "It was Marie  Curie.", "marie curie") == 1
    assert score("contains", "It is 14.", "4") == 0
    assert score('{name = "contains", whole_words = false}', "It is 14.", "4") == 1
    assert score('{name = "contains", ignore_case = false}', "paris", "Paris") == 0
    assert score("contains", "<think>Paris</think>Rome", "Paris") == 0, "thoughts are no answer"
    assert score("contains", "anything", "") == 0


def test_a_pattern_reads_the_last_match() -> None:
    assert score(r'{name = "regex", pattern = "ans=(\\w+)"}', "ans=no, so ans=Yes", "yes") == 1
    assert score(r'{name = "regex", pattern = "([\\d.]+) km", compare = "number"}', "about 5.0 km", "5") == 1
    assert score(r'{name = "regex", pattern = "ans=(\\w+)"}', "no answer", "yes") == 0
    assert score("regex", "order 66 shipped", r"\b66\b") == 1, "without a pattern the known answer is one"


def test_json_compares_fields_and_keeps_to_a_schema(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps({"type": "object", "required": ["city"]}))
    gold = '{"city": "Paris", "at": {"x": 1}}'
    assert score("json", 'Sure:\n```json\n{"at": {"x": 1.0}, "city": " paris "}\n```', gold) == 1
    assert score("json", '{"city": "Paris", "at": {"x": true}}', gold) == 0, "true is not 1"
    by_field = '{name = "json", fields = ["at.x"], schema_file = "schema.json"}'
    assert score(by_field, '{"city": "Rome", "at": {"x": 1}}', gold, base=tmp_path) == 1
    assert score(by_field, '{"at": {"x": 1}}', gold, base=tmp_path) == 0, "the schema wants a city"
    assert score("json", "{not json}", gold) == 0
    opened = open_scorer(ScorerConfig(name="json"), Path())
    assert opened is not None
    assert opened.score(('{"city": "Paris"}',), [(gold,)]).f1 == 0.5, "half of the fields agree"


def test_math_takes_equal_expressions() -> None:
    pytest.importorskip("math_verify")
    assert score("math", r"So it is \boxed{0.5}.", r"\frac{1}{2}") == 1
    assert score("math", "The answer is $(x+1)^2$", "$x^2+2x+1$") == 1
    assert score("math", "The answer is 3.", "2") == 0
    for known in ("3", "$3$", r"\boxed{3}", r"\(3\)"):
        assert [score("math", said, known) for said in ("The answer is $3$.", "The answer is $4$.")] == [1, 0], known


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "shop.db") as made:
        made.execute("CREATE TABLE sold (what TEXT, n INTEGER)")
        made.executemany("INSERT INTO sold VALUES (?, ?)", [("tea", 3), ("milk", 5), ("tea", 4)])
    return tmp_path


def test_sql_compares_result_sets(database: Path) -> None:
    sql = '{name = "sql", database = "shop.db"}'
    fenced = "```sql\nSELECT what, SUM(n) AS total FROM sold GROUP BY what ORDER BY total;\n```"
    assert score(sql, fenced, "select what, sum(n) from sold group by 1", base=database) == 1
    assert score(sql, "SELECT n FROM sold", "SELECT n FROM sold ORDER BY n DESC", base=database) == 0
    assert score(sql, "SELECT n FROM sold", "[[3], [5], [4]]", base=database) == 1, "rows as JSON are a known answer"
    assert score(sql, "I do not know.", "SELECT 1", base=database) == 0
    assert score(sql, "SELECT nothing FROM nowhere", "SELECT 1", base=database) == 0


def test_sql_never_writes(database: Path) -> None:
    before = (database / "shop.db").read_bytes()
    sql = '{name = "sql", database = "shop.db"}'
    assert score(sql, "WITH x AS (SELECT 1) DELETE FROM sold", "SELECT 1", base=database) == 0
    assert (database / "shop.db").read_bytes() == before


def test_duckdb_is_a_database_too(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as made:
        made.execute("CREATE TABLE sold AS SELECT 7 AS n")
    sql = '{name = "sql", database = "shop.duckdb"}'
    assert score(sql, "SELECT n FROM sold", "SELECT 7", base=tmp_path) == 1
    assert score(sql, "SELECT * FROM read_csv('/etc/passwd')", "SELECT 7", base=tmp_path) == 0


def test_functions_may_be_plain_or_async(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def plain(output, answers): return output in answers\n"
        "async def later(output, answers): return output in answers\n"
        "def wrong(output, answers): return 'good'\n"
        "def fails(output, answers): return 1 / 0\n"
    )
    assert score("own.py:plain", "a", "a", base=tmp_path) == 1
    assert score("own.py:later", "b", "a", base=tmp_path) == 0
    for name, said in (("wrong", "no number from 0 to 1"), ("fails", "ZeroDivisionError")):
        with pytest.raises(UsageError, match=said):
            score(f"own.py:{name}", "a", "a", base=tmp_path)


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        ("sql", "needs database"),
        ('{name = "sql", database = "nowhere.db"}', "nowhere.db does not exist"),
        ('{name = "contains", pattern = "x"}', 'pattern is no option of the scorer "contains"'),
        ('{name = "regex", pattern = "("}', "no regular expression"),
        ('{name = "regex"', "no inline table"),
        ("nowhere.py:f", "nowhere.py does not exist"),
        ("regx", "did you mean 'regex'"),
        ('{name = "json", schema_file = "nowhere.json"}', "nowhere.json does not exist"),
    ],
)
def test_what_cannot_be_a_scorer_is_one_line(scorer: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        datasets.scored_as("jsonl", ScorerConfig.parse(scorer))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'fractionate\[scorers\]'"):
        open_scorer(ScorerConfig(name="math"), Path())


def test_a_scorer_is_written_as_it_is_read() -> None:
    text = ScorerConfig(name="regex", pattern='a"b\\d', ignore_case=False).text
    assert ScorerConfig.parse(text).pattern == 'a"b\\d'
    assert ScorerConfig.parse(text).text == text
    assert [ScorerConfig(name=name).text for name in OPTIONS if name != "sql"] == [n for n in OPTIONS if n != "sql"]
