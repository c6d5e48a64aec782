"""`fractionate compare` from a user's view: tables, the JSON of the contract, one line for every error."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from fractionate.cli import main
from fractionate.datasets.base import Scorer
from fractionate.scoring import scorers
from fractionate.types import Score

REAL = Path(__file__).parent / "real"
OLD = [f"a={REAL / 'old-strong.eval'}", f"b={REAL / 'old-weak.eval'}"]


def logs(folder: Path, **systems: str) -> list[str]:
    """Write outcomes, a digit per question ("." is a question that was not asked), as logs."""
    for name, digits in systems.items():
        lines = [json.dumps({"id": n, "correct": int(one)}) for n, one in enumerate(digits) if one != "."]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return [str(folder / f"{name}.jsonl") for name in systems]


def test_the_json_of_two_has_their_comparison_at_the_top(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *logs(tmp_path, a="1111111110.", b="0000111110."), "--json", "--margin", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"n", "clusters", "a", "b", "difference", "ci_low", "ci_high", "p_value", "test"} <= found.keys()
    assert (found["n"], found["clusters"], found["a"], found["b"]) == (10, 10, 0.9, 0.5)
    assert (found["difference"], found["p_value"], found["test"]) == (pytest.approx(0.4), 0.125, "exact McNemar")
    (pair,) = found["pairs"]
    assert pair["needed"]["low"] <= pair["needed"]["likely"]
    assert found["ties"] == [["a", "b"]]


def test_questions_that_not_all_answered_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *logs(tmp_path, a="1111", b="..10", c=".111"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 2
    assert [one["left_out"] for one in found["systems"]] == [2, 0, 1]
    assert "difference" not in found, "of three there is no one difference"


def test_the_tables_say_who_is_better_who_is_tied_and_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    prices = ["--price", "mockllm/strong=1,2", "--price", "mockllm/weak=0.1,0.2"]
    assert main(["compare", *OLD, "--scorer", "graded", "--margin", "5", *prices]) == 0
    said = capsys.readouterr().out
    assert "Systems over 6 questions that all answered, in 3 groups" in said
    assert "95.8 % (" in said
    assert "$0.0235" in said, "20 tokens read at $1 and 1.75 written at $2 per million, per 1,000 questions"
    assert "b is not shown to be less than 5 percentage points worse than a" in said
    assert said.rstrip().endswith("Not told apart: a, b. That does not show that they are alike.")


def test_systems_that_are_told_apart_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    systems = logs(tmp_path, good="1" * 40, fair="1" * 38 + "00", poor="0" * 30 + "1" * 10)
    assert main(["compare", *systems, "--margin", "25"]) == 0
    said = capsys.readouterr().out
    assert "Not told apart: good, fair." in said
    assert "good is better than poor." in said
    assert "fair is less than 25 percentage points worse than good" in said
    assert "told apart" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.jsonl"], "two logs or more"),
        (["a.jsonl", "none.jsonl"], "none.jsonl does not exist"),
        (["a=", "b="], "names no log"),
        (["a.jsonl", ""], "names no log"),
        (["a.jsonl", "other.jsonl"], "no question was answered by all: ids must agree (the first are '0' in a and 'x'"),
        (["a.jsonl", "empty.jsonl"], "empty.jsonl is empty"),
        (["a.jsonl", "garbage.jsonl"], "garbage.jsonl:1: not UTF-8"),
        (["a.jsonl", "garbage.eval"], "garbage.eval is no inspect_ai log that can be read"),
        (["a.jsonl", "other.eval"], "other.eval is a ZIP file, but no inspect_ai log"),
        (["a.jsonl", "cut.eval"], "cut.eval is no inspect_ai log that can be read"),
        (["a.jsonl", "twice.jsonl"], "'0' was answered twice"),
        (["a.jsonl", "numbers.jsonl"], "nothing to score"),
        (["a.jsonl", "null.jsonl"], "1 answers, none with an outcome"),
        (["a.jsonl", "notes.md"], ".md is not read"),
        (["a.jsonl", "folder"], "neither attempts.jsonl, samples_*.jsonl nor *.eval"),
        (["a.jsonl", "a.jsonl"], "names of their own"),
        (["a.jsonl", "grouped.jsonl", "regrouped.jsonl"], "put the question '0' in different groups"),
        (["a.jsonl", "b.jsonl", "--group-field", "page"], "no field 'page' to group by (there are id, correct)"),
        (["a.jsonl", "b.jsonl", "--id-field", "key"], "no field 'key' to match by"),
        (["a.jsonl", "b.jsonl", "--outcome-field", "right"], "no field 'right'"),
        (["a.jsonl", "b.jsonl", "--margin", "-1"], "the margin"),
        (["a.jsonl", "b.jsonl", "--confidence", "95"], "such as 0.95"),
        (["a.jsonl", "b.jsonl", "--price", "m=1"], "--price takes MODEL=IN,OUT"),
        (["a.jsonl", "b.jsonl:cell"], "it has no cell 'cell'"),
        (["a.jsonl", "tokens.jsonl"], "'input_tokens' must be a number from 0"),
        ([OLD[0], OLD[1]], "scorers graded, includes: choose one with --scorer"),
        ([OLD[0], OLD[1], "--scorer", "best"], "no scorer 'best': it has graded, includes"),
        ([f"a={REAL / 'lm_eval_one'}", f"b={REAL / 'lm_eval_two'}"], "metrics acc, acc_norm: choose one with --metric"),
        ([str(REAL / "lm_eval_one"), str(REAL / "lm_eval_two"), "--task", "counting"], "strict, flexible: choose one"),
        (
            [str(REAL / "lm_eval_one"), str(REAL / "lm_eval_two"), "--task", "x"],
            "no task 'x': it has choosing, counting",
        ),
        ([str(REAL), "a.jsonl"], "samples of several models: name one of the folders"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_whatever_is_wrong_is_said_in_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    logs(tmp_path, a="1100", b="1010")
    for name, text in {
        "other.jsonl": '{"id": "x", "correct": 1}',
        "empty.jsonl": "\n",
        "twice.jsonl": '{"id": 0, "correct": 1}\n{"id": 0, "correct": 0}',
        "numbers.jsonl": '{"id": 0, "tokens": 1}',
        "null.jsonl": '{"id": 0, "correct": null}',
        "notes.md": "text",
        "grouped.jsonl": '{"id": 0, "correct": 1, "group": "x"}',
        "regrouped.jsonl": '{"id": 0, "correct": 1, "group": "y"}',
        "tokens.jsonl": '{"id": 0, "correct": 1, "input_tokens": "many", "output_tokens": 1}',
    }.items():
        (tmp_path / name).write_text(text)
    for name in ("garbage.jsonl", "garbage.eval"):
        (tmp_path / name).write_bytes(b"\x80\x02PK\xff\xfe\x00" * 50)
    (tmp_path / "folder").mkdir()
    with zipfile.ZipFile(tmp_path / "other.eval", "w") as archive:
        archive.writestr("readme.txt", "no log")
    (tmp_path / "cut.eval").write_bytes((REAL / "old-weak.eval").read_bytes()[:9000])
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert said in err


@pytest.mark.parametrize(
    ("new", "old", "options", "code"),
    [
        ("1" * 150, "1" * 150, ["not-worse", "--margin", "5"], 0),
        ("1" * 20, "1" * 20, ["not-worse", "--margin", "5"], 3),
        ("1" * 30 + "0" * 10, "1" * 40, ["not-worse", "--margin", "5"], 3),
        ("1" * 40, "1" * 20 + "0" * 20, ["better"], 0),
        ("1" * 20 + "0" * 20, "1" * 40, ["better"], 3),
        ("1" * 40, "1" * 39 + "0", ["better"], 3),
    ],
)
def test_a_required_claim_is_the_exit_code(
    new: str, old: str, options: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = logs(tmp_path, new=new, old=old)
    assert main(["compare", *given, "--require", *options]) == code
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("new is shown to be" if code == 0 else "new is not shown to be")
    assert main(["compare", *given, "--require", *options, "--json"]) == code
    json.loads(capsys.readouterr().out)


def test_what_a_claim_needs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = logs(tmp_path, a="10", b="11", c="11")
    assert main(["compare", *given[:2], "--require", "not-worse"]) == 2
    assert "needs --margin, in percentage points" in capsys.readouterr().err
    assert main(["compare", *given, "--require", "better"]) == 2
    assert "two logs, NEW and OLD, not 3" in capsys.readouterr().err


def test_a_margin_below_a_tenth_is_questioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *logs(tmp_path, a="10", b="11"), "--margin", "0.02"]) == 0
    err = capsys.readouterr().err
    assert "0.02" in err
    assert "if a share is meant, write 2" in err
    assert err.count("\n") == 1


def table(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_two_columns_of_one_file_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": n, "gpt": {"text": f"The answer is {n}."}, "llama": f"The answer is {n % 3}.", "ok_a": n > 1, "gold": n}
        for n in range(6)
    ]
    log = table(tmp_path / "rows.jsonl", *rows)
    options = ["--answers-field", "gold", "--dataset", "gsm8k", "--json"]
    assert main(["compare", f"{log}#gpt.text", f"{log}#llama", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["value"]) for one in found["systems"]] == [("gpt.text", 1.0), ("llama", 0.5)]
    assert main(["compare", f"{log}#ok_a", f"other={log}#ok_a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"] == pytest.approx(4 / 6)
    assert main(["compare", f"{log}#none", f"{log}#ok_a"]) == 2
    assert "rows.jsonl:1: no field 'none'" in capsys.readouterr().err


def test_a_scorer_of_ones_own_and_ratings_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("async def short(output, answers):\n    return len(output) < 4\n")
    a, b = (
        table(tmp_path / f"{name}.jsonl", *({"id": n, "output": name * n, "stars": {"n": n}} for n in range(1, 6)))
        for name in ("a", "bb")
    )
    assert main(["compare", a, b, "--scorer", f"{tmp_path / 'mine.py'}:short", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"]) == (pytest.approx(0.6), pytest.approx(0.2))
    assert main(["compare", a, b, "--outcome-field", "stars.n", "--scale", "1-5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"] == 0.5
    assert main(["compare", a, b, "--outcome-field", "stars.n", "--scale", "1-4"]) == 2
    assert "a.jsonl:5: 'stars.n' is 5, which is no rating from 1 to 4" in capsys.readouterr().err


def test_ratings_in_columns_compare_whatever_stands_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ({"id": n, "answers": ["7"], "of": {"one": 5, "two": 1 + n % 5}} for n in range(20))
    file = table(tmp_path / "rated.jsonl", *rows)
    assert main(["compare", f"{file}#of.one", f"{file}#of.two", "--scale", "1-5", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["a"], printed["b"]) == (1.0, 0.5)


def test_a_plug_ins_scorer_scores_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = Scorer(
        "loud",
        "exact_match",
        "text",
        lambda output: (output.upper(),),
        lambda found, right: Score(*[found in right] * 2),
    )
    monkeypatch.setattr(scorers, "find_plugin", lambda group, name: scorer if name == "loud" else None)
    log = table(
        tmp_path / "a.jsonl", {"id": 1, "output": "yes", "answers": "YES"}, {"id": 2, "output": "x", "answers": "Y"}
    )
    assert main(["score", log, "--scorer", "loud", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exact_match"] == 0.5
    assert main(["compare", f"a={log}", f"b={log}", "--scorer", "loud", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"] == 0.5


def test_nothing_is_compared_where_a_scorer_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (
        table(tmp_path / f"{name}.jsonl", *({"id": n, "output": said, "answers": "yes"} for n in range(30)))
        for name, said in (("a", "So the answer is yes."), ("b", "The answer is 3."))
    )
    assert main(["compare", a, b, "--dataset", "gsm8k"]) == 1
    out, err = capsys.readouterr()
    assert "a: the scorer gsm8k does not fit: 30 of 30 unparsed; --dataset strategyqa" in err
    assert "a: the scorer gsm8k does not fit: 30 of 30 unparsed" in out
    assert "So nothing is compared." in out
    assert "better than" not in out
    assert main(["compare", a, b, "--dataset", "gsm8k", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["difference"], found["p_value"], found["pairs"], found["ties"]) == (None, None, [], [])
    assert main(["compare", a, b, "--dataset", "gsm8k", "--require", "better"]) == 3


def test_the_filter_that_finds_nothing_names_the_one_that_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"doc_id": n, "doc": {}, "resps": [["x"]], "filter": name, "filtered_resps": [found], "exact_match": 0.0}
        for n in range(4)
        for name, found in (("strict", "[invalid]"), ("flexible", "3"))
    ]
    log = table(tmp_path / "samples_sums.jsonl", *rows)
    assert main(["compare", f"a={log}", f"b={log}", "--filter", "strict"]) == 1
    assert "the filter strict does not fit: 4 of 4 unparsed; --filter flexible parses 4" in capsys.readouterr().err
    assert main(["compare", f"a={log}", f"b={log}", "--filter", "flexible", "--json"]) == 0
    assert [one["unparsed"] for one in json.loads(capsys.readouterr().out)["systems"]] == [0.0, 0.0]


def test_what_score_writes_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": n, "output": "The answer is 3." if n else "no idea", "answers": "3"} for n in range(4)]
    log, scored = table(tmp_path / "a.jsonl", *rows), str(tmp_path / "scored.jsonl")
    assert main(["score", log, "--dataset", "gsm8k", "--rows", scored]) == 0
    capsys.readouterr()
    assert main(["compare", scored, log, "--dataset", "", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["systems"][0]["unparsed"] == 0.25
    assert found["n"] == 4
