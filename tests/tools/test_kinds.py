"""The kinds of tools by themselves: a Python function, documents, SQLite, an address, the facts of atlas."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fractionate.config import ToolConfig
from fractionate.datasets import load
from fractionate.datasets.atlas.closed import answer, fact_sentences, main
from fractionate.errors import UsageError
from fractionate.models.faults import Fault, PermanentFault, TransientFault
from fractionate.strategies.decompose import fill_references
from fractionate.tools import open_tool
from fractionate.tools.base import ToolModel, call_request
from fractionate.types import Completion, Message
from servers.chat_server import ChatServer
from servers.threaded import in_thread

BASE = Path()


def tool(base: Path = BASE, **config: Any) -> ToolModel:
    return open_tool("it", ToolConfig(**config), base)


def ask(model: ToolModel, *texts: str) -> list[Completion]:
    """Return the replies to bare texts, in one event loop."""

    async def work() -> list[Completion]:
        try:
            return [await model.complete(call_request(Message("user", text), "solver")) for text in texts]
        finally:
            await model.close()

    return asyncio.run(work())


def call(model: ToolModel, **arguments: Any) -> Completion:
    (function,) = model.tool.functions or ()
    message = Message("arguments", json.dumps({"name": function.name, "arguments": arguments}))
    return asyncio.run(model.complete(call_request(message, "solver")))


class TestPython:
    @pytest.fixture
    def module(self, tmp_path: Path) -> Path:
        (tmp_path / "own.py").write_text(
            "import asyncio, threading, time\n"
            "def upper(text: str) -> str: return text.upper()\n"
            "async def later(text): await asyncio.sleep(0); return {'said': text}\n"
            "def two(a: int, b: int = 1) -> int: return a + b\n"
            "def hang(text): time.sleep(60)\n"
            "def leave(text): raise SystemExit(3)\n"
            "def much(text): return 'é' * 10_000\n"
            "def bell(text): return 'a\\x1b[2Jb'\n"
        )
        (tmp_path / "own_pack").mkdir()
        (tmp_path / "own_pack/inner.py").write_text("def same(text): return text\n")
        return tmp_path

    def test_a_function_beside_the_config(self, module: Path) -> None:
        (reply,) = ask(tool(module, kind="python", function="own:upper"), "abc")
        assert (reply.text, reply.finish_reason, reply.error) == ("ABC", "stop", "")
        (reply,) = ask(tool(module, kind="python", function="own:later"), "abc")
        assert reply.text == '{"said": "abc"}', "what is no text is given as JSON"
        (reply,) = ask(tool(module, kind="python", function="own_pack.inner:same"), "abc")
        assert reply.text == "abc"
        assert str(module) not in sys.path

    def test_a_function_of_several_arguments_is_described_by_its_signature(self, module: Path) -> None:
        two = tool(module, kind="python", function="own:two")
        (function,) = two.tool.functions or ()
        assert function.parameters["properties"] == {"a": {"type": "integer"}, "b": {"type": "integer"}}
        assert function.parameters["required"] == ["a"]
        assert call(two, a=2, b=5).text == "7"
        assert "TypeError" in call(two, c=2).error

    def test_what_goes_wrong_is_a_reply(self, module: Path) -> None:
        (reply,) = ask(tool(module, kind="python", function="own:leave"), "abc")
        assert (reply.text, reply.finish_reason, reply.error) == ("", "error", "SystemExit: 3")

    def test_a_reply_is_bounded_and_shows_no_controls(self, module: Path) -> None:
        (reply,) = ask(tool(module, kind="python", function="own:much", reply_kb=1), "abc")
        assert reply.text == "é" * 512 + "\n(cut off after 1 KB)"
        (reply,) = ask(tool(module, kind="python", function="own:bell"), "abc")
        assert reply.text == "a\\x1b[2Jb"

    def test_a_function_that_hangs_is_left_behind(self, module: Path) -> None:
        hanging = tool(module, kind="python", function="own:hang", timeout_s=0.05, concurrency=2)
        for said in ("no reply within 0.05 s (tools.it.timeout_s)",) * 2 + ("2 earlier calls still hang",):
            with pytest.raises(PermanentFault) as fault:
                ask(hanging, "abc")
            assert said in str(fault.value)

    def test_its_source_is_part_of_what_it_is(self, module: Path) -> None:
        before = tool(module, kind="python", function="own:upper").identity
        assert tool(module, kind="python", function="own:upper", timeout_s=7, usd_per_call=1).identity == before
        (module / "own.py").write_text("def upper(text): return text.lower()\n")
        assert tool(module, kind="python", function="own:upper").identity != before


class TestSearch:
    def test_paragraphs_rows_and_folders(self, tmp_path: Path) -> None:
        (tmp_path / "docs/more").mkdir(parents=True)
        (tmp_path / "docs/a.md").write_text("Lima is the capital\nof Peru.\n\nQuito is a city.\n")
        (tmp_path / "docs/more/b.jsonl").write_text('{"title": "Kenya", "text": "Its capital is Nairobi.", "n": 3}\n')
        (tmp_path / "docs/c.bin").write_bytes(b"\xff\x00")
        search = tool(tmp_path, kind="search", documents="docs", k=1)
        replies = ask(search, "the capital of Peru?", "Kenya's capital", "the of is", "Zanzibar", "")
        assert [reply.text for reply in replies] == [
            "Lima is the capital of Peru.",
            "Kenya Its capital is Nairobi.",
            *["Nothing was found."] * 3,
        ]
        assert ask(tool(tmp_path, kind="search", documents="docs/more/b.jsonl", fields="text"), "capital")[0].text == (
            "Its capital is Nairobi."
        )

    def test_the_facts_of_atlas(self, tmp_path: Path) -> None:
        """BM25 finds the fact that each look-up of a gold decomposition asks for, among 935."""
        main([str(tmp_path / "facts.txt")])
        search = tool(tmp_path, kind="search", documents="facts.txt", k=3)
        cities = [problem for problem in load("atlas-closed#test@0-79") if problem.kind == "bridge"]
        asked = [problem.subquestions[0] for problem in cities]
        found = [answer(text) in reply.text for text, reply in zip(asked, ask(search, *asked), strict=True)]
        assert sum(found) == len(found) == 10

    def test_other_documents_are_another_tool(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("one")
        before = tool(tmp_path, kind="search", documents="a.txt").identity
        (tmp_path / "a.txt").write_text("two")
        assert tool(tmp_path, kind="search", documents="a.txt").identity != before

    def test_no_documents(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("\n\n")
        (tmp_path / "empty").mkdir()
        for documents, said in (("a.txt", "holds no text"), ("empty", "holds no documents"), ("b", "does not exist")):
            with pytest.raises(UsageError, match=said):
                tool(tmp_path, kind="search", documents=documents)


class TestSql:
    @pytest.fixture
    def database(self, tmp_path: Path) -> Path:
        with sqlite3.connect(tmp_path / "facts.sqlite") as made:
            made.execute("CREATE TABLE facts (name TEXT, capital TEXT)")
            made.executemany("INSERT INTO facts VALUES (?, ?)", [("Kenya", "Nairobi"), ("Peru", "Lima")])
        made.close()
        return tmp_path

    def test_a_model_writes_queries(self, database: Path) -> None:
        sql = tool(database, kind="sql", database="facts.sqlite")
        (function,) = sql.tool.functions or ()
        assert "facts (name, capital)" in function.description
        replies = ask(
            sql,
            "SELECT capital FROM facts WHERE name = 'Kenya'",
            "SELECT * FROM facts",
            "SELECT * FROM facts WHERE name = 'Mars'",
            "SELECT river FROM facts",
        )
        assert [reply.text for reply in replies[:3]] == [
            "Nairobi",
            "name | capital\nKenya | Nairobi\nPeru | Lima",
            "Nothing was found.",
        ]
        assert replies[3].error == "no such column: river"

    def test_a_query_of_the_user_s_answers_a_text(self, database: Path) -> None:
        query = "SELECT capital FROM facts WHERE :text LIKE '%' || name || '%'"
        sql = tool(database, kind="sql", database="facts.sqlite", query=query)
        assert ask(sql, "What is the capital of Peru?")[0].text == "Lima"

    @pytest.mark.parametrize(
        "query",
        [
            "DELETE FROM facts",
            "INSERT INTO facts VALUES ('a', 'b')",
            "CREATE TABLE other (a)",
            "ATTACH DATABASE 'other.sqlite' AS other",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA query_only = OFF",
            "VACUUM INTO 'copy.sqlite'",
            "SELECT load_extension('nothing')",
            "SELECT 1; DELETE FROM facts",
        ],
    )
    def test_a_query_that_writes_is_refused(self, database: Path, query: str) -> None:
        before = (database / "facts.sqlite").read_bytes()
        (reply,) = ask(tool(database, kind="sql", database="facts.sqlite"), query)
        assert reply.error
        assert (database / "facts.sqlite").read_bytes() == before
        assert sorted(path.name for path in database.iterdir()) == ["facts.sqlite"]

    def test_a_query_without_end_is_stopped(self, database: Path) -> None:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        sql = tool(database, kind="sql", database="facts.sqlite", timeout_s=0.2)
        before = set(threading.enumerate())  # a tool of another test may still be busy
        with pytest.raises(PermanentFault, match=r"no reply within 0\.2 s"):
            ask(sql, endless)
        until = time.monotonic() + 60
        while any(thread.name == "tool" for thread in set(threading.enumerate()) - before):
            assert time.monotonic() < until, "the query still runs"
            time.sleep(0.05)

    def test_a_reply_without_end_is_cut_off(self, database: Path) -> None:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
        (reply,) = ask(tool(database, kind="sql", database="facts.sqlite", reply_kb=1), endless)
        assert reply.text.startswith("i\n1\n2\n")
        assert reply.text.endswith("(cut off after 1 KB)")

    def test_duckdb(self, tmp_path: Path) -> None:
        duckdb = pytest.importorskip("duckdb", reason="the 'duckdb' extra is not installed")
        with duckdb.connect(str(tmp_path / "facts.duckdb")) as made:
            made.execute("CREATE TABLE facts AS SELECT 'Kenya' AS name, 'Nairobi' AS capital")
        sql = tool(tmp_path, kind="sql", database="facts.duckdb")
        (function,) = sql.tool.functions or ()
        assert "facts (name, capital)" in function.description
        queries = ["SELECT capital FROM facts", "DELETE FROM facts", f"COPY facts TO '{tmp_path}/copy.csv'"]
        replies = ask(sql, *queries, "SELECT * FROM read_text('/etc/hostname')")
        assert [bool(reply.error) for reply in replies] == [False, True, True, True]
        assert replies[0].text == "Nairobi"
        query = "SELECT capital FROM facts WHERE :text LIKE '%' || name || '%'"
        asked = tool(tmp_path, kind="sql", database="facts.duckdb", query=query)
        assert ask(asked, "What is the capital of Kenya?")[0].text == "Nairobi"
        assert [path.name for path in tmp_path.iterdir()] == ["facts.duckdb"]

    def test_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "a.sqlite").write_text("this is no database, but a text that is long enough to be one")
        with pytest.raises(UsageError, match="cannot be read as a database: file is not a database"):
            tool(tmp_path, kind="sql", database="a.sqlite")


class Looker(ChatServer):
    """Answers look-ups over HTTP."""

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/look", self.look)
        app.router.add_post("/look", self.look)

    async def look(self, request: web.Request) -> web.Response:
        text = request.query.get("q") or (await request.json())["text"]
        self.asked[text] += 1
        self.authorizations.append(request.headers.get("Authorization", ""))
        if text == "busy" and self.asked[text] == 1:
            return web.Response(status=503, headers={"Retry-After": "0"})
        if text == "gone":
            return web.Response(status=404, text="no such thing")
        key = self.authorizations[-1].removeprefix("Bearer ")
        return web.json_response({"hits": [{"text": f"{text}! {key}"}], "none": []})


class TestHttp:
    @pytest.fixture
    def looker(self) -> Iterator[Looker]:
        with in_thread(Looker()) as server:
            yield server

    def test_get_post_and_fields(self, looker: Looker) -> None:
        url = f"http://127.0.0.1:{looker.port}/look"
        (reply,) = ask(tool(kind="http", url=url + "?q={text}", field="hits.0.text"), "a & b/c")
        assert reply.text == "a & b/c! "
        (reply,) = ask(tool(kind="http", url=url), "abc")
        assert json.loads(reply.text)["hits"] == [{"text": "abc! "}]
        (reply,) = ask(tool(kind="http", url=url, field="hits.7.text"), "abc")
        assert reply.text == "Nothing was found."

    def test_errors_are_replies_or_faults(self, looker: Looker) -> None:
        url = f"http://127.0.0.1:{looker.port}/look"
        (reply,) = ask(tool(kind="http", url=url), "gone")
        assert reply.error == "HTTP 404: no such thing"
        with pytest.raises(TransientFault, match="tool:it: overloaded"):
            ask(tool(kind="http", url=url), "busy")
        with pytest.raises(Fault, match="tool:it: cannot connect"):
            ask(tool(kind="http", url="http://127.0.0.1:9/look"), "abc")

    def test_what_writes_is_never_sent_twice(self, looker: Looker) -> None:
        writing = tool(kind="http", url=f"http://127.0.0.1:{looker.port}/look", writes=True)
        with pytest.raises(PermanentFault, match="it writes, so the call is not sent again"):
            ask(writing, "busy")

    def test_the_key_is_sent_and_hidden(self, looker: Looker, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOOK_KEY", "secret-of-looking")
        url = f"http://127.0.0.1:{looker.port}/look"
        (reply,) = ask(tool(kind="http", url=url, api_key_env="LOOK_KEY", field="hits.0.text"), "abc")
        assert looker.authorizations == ["Bearer secret-of-looking"]
        assert reply.text == "abc! [key]"


class TestAtlas:
    def test_gold_decompositions_lead_to_the_answers(self) -> None:
        problems = load("atlas-closed#test")
        for problem in problems:
            answers: list[str] = []
            for subquestion in problem.subquestions:
                answers.append(answer(fill_references(subquestion, answers)))
            assert answers[-1] == problem.answers[0][0], problem.id

    def test_a_whole_question_is_not_answered(self) -> None:
        """The tool fails at two hops: nothing but dividing answers them."""
        atlas = tool(kind="atlas")
        assert {reply.text for reply in ask(atlas, *(one.question for one in load("atlas-closed#test@0-79")))} == {
            "unknown"
        }

    def test_questions_come_without_their_passages(self) -> None:
        closed, read = load("atlas-closed#train@0-79"), load("atlas#train@0-79")
        assert all(problem.context == "" for problem in closed)
        assert [problem.kind for problem in closed] == [problem.kind for problem in read]
        assert len({problem.cluster for problem in closed}) == 10, "eight questions share their countries"

    def test_train_and_test_ask_for_other_places(self) -> None:
        places = [sentence.partition(" is in ")[0] for sentence in fact_sentences() if " is in " in sentence]
        train, test = ("\n".join(one.question for one in load(f"atlas-closed#{split}")) for split in ("train", "test"))
        assert not [place for place in places if place in train and place in test]
