"""What the walks of this folder need, so that they take no key and cost nothing: questions, and models to ask.

    python examples/warehouse.py questions FILE     questions with their answers, as a spreadsheet exports them
    python examples/warehouse.py chats FILE         the same kind of questions, asked late in a chat, as JSON lines
    python examples/warehouse.py logs FOLDER        what two systems answered to them, as JSON lines
    python examples/warehouse.py serve PORT         an OpenAI-compatible server of made-up models

A made-up model reads the numbers in a question and works the answer out. How often it errs is made up too (`RIGHT`):
the walks show what the commands do and print, and say nothing about real models.
"""

from __future__ import annotations

import csv
import json
import random
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COUNT = 600
WORDINGS = (
    ("A depot has {a} pallets of {b} crates each.", "{c} crates are sold. How many crates are left?"),
    ("A café keeps {a} shelves of {b} tins each.", "{c} more tins arrive. How many tins are there now?"),
    ("A van takes {a} boxes on each of its {b} trips a day.", "How many boxes does it take in {c} days?"),
)
RIGHT = {
    ("gpt-4o", "think"): 0.95,
    ("gpt-4o-mini", "decompose"): 0.96,
    ("gpt-4o-mini", "answer"): 0.35,
    ("gpt-4o-mini", "think"): 0.62,
    ("gpt-4o-mini", "solve"): 0.97,
    ("student", "decompose"): 0.97,
    ("untrained", "decompose"): 0.10,
}
"""How often a model is right, by what it is asked for. Led by flawed subquestions it answers as if it had none."""


def numbers() -> Iterator[tuple[int, int, int, int]]:
    """Yield which wording a question has, and its three numbers; no question comes twice."""
    chance, seen = random.Random(0), set()
    while len(seen) < COUNT:
        one = chance.randrange(3), chance.randint(3, 40), chance.randint(6, 48), chance.randint(2, 17)
        if one not in seen:
            seen.add(one)
            yield one


def answer(text: str) -> int:
    """Return the answer to a question by the numbers and words in it."""
    a, b, c = map(int, re.findall(r"\d+", text)[-3:])
    return a * b - c if "left" in text else a * b + c if "arrive" in text else a * b * c


def write_questions(path: Path) -> None:
    """Write a table as some spreadsheets do: semicolons, Windows letters, columns of their own names."""
    with path.open("w", encoding="cp1252", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["Ticket", "Question", "Expected answer"])
        for number, (wording, a, b, c) in enumerate(numbers(), 1):
            text = " ".join(WORDINGS[wording]).format(a=a, b=b, c=c)
            table.writerow([f"T-{number}", text, answer(text)])


def write_chats(path: Path) -> None:
    """Write logs of chats: the facts are told in one turn and asked about in a later one."""
    with path.open("w", encoding="utf-8") as file:
        for wording, a, b, c in numbers():
            told, asked = (text.format(a=a, b=b, c=c) for text in WORDINGS[wording])
            turns = [
                ("system", "You are the warehouse's assistant."),
                ("user", told),
                ("assistant", "Noted. What would you like to know?"),
                ("user", asked),
                ("assistant", str(answer(f"{told} {asked}"))),
            ]
            messages = [{"role": role, "content": text} for role, text in turns]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def write_logs(folder: Path) -> None:
    """Write the raw outputs of the system in use, and of a smaller model that is led by subquestions."""
    led = "\n\nSubquestions:\n1. What is the product?\n2. What follows from it?"
    systems = {"today": ("gpt-4o", "Think step by step.", ""), "new": ("gpt-4o-mini", "Answer them.", led)}
    for name, (model, instruction, more) in systems.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for number, (wording, a, b, c) in enumerate(numbers(), 1):
                question = " ".join(WORDINGS[wording]).format(a=a, b=b, c=c)
                asked = [
                    {"role": "system", "content": f"{instruction} End with: The answer is: …"},
                    {"role": "user", "content": f"{question}{more}"},
                ]
                output = reply(model, asked)
                row = {
                    "id": f"T-{number}",
                    "model": model,
                    "output": output,
                    "answers": [answer(question)],
                    "usage": usage(asked, output),
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def usage(messages: list[dict[str, str]], text: str) -> dict[str, int]:
    """Return about how many tokens a call read and wrote."""
    inputs = sum(len(one["content"]) // 4 + 4 for one in messages)
    return {"prompt_tokens": inputs, "completion_tokens": len(text) // 4 + 1}


def reply(model: str, messages: list[dict[str, str]]) -> str:
    """Return what a model says to a prompt of fractionate's, or to one of the user's own that ends alike."""
    said = " ".join(one["content"] for one in messages if one["role"] == "user")
    instructions = " ".join(one["content"] for one in messages if one["role"] == "system")
    question, _, subquestions = said.partition("Subquestions:")
    a, b, c = re.findall(r"\d+", question)[-3:]
    if "The answer is:" not in instructions:
        whole = f"1. What is {a} times {b}?\n2. What follows from #1 and {c}?"
        return whole if _is_right(model, "decompose", question) else "1. How many are there?"
    asked_for = "solve" if "\n2." in subquestions else "think" if "step" in instructions else "answer"
    right = answer(question)
    stated = f"The answer is: {right if _is_right(model, asked_for, question) else right + int(c)}"
    worked = f"1. {a} times {b} is {int(a) * int(b)}.\n2. With {c} that makes {right}.\n"
    return stated if asked_for == "answer" else f"{worked}{stated}"


def _is_right(model: str, asked_for: str, question: str) -> bool:
    """Draw whether a model is right, the same for the same question each time."""
    drawn = zlib.crc32(f"{model} {asked_for} {re.findall(r'[0-9]+', question)}".encode()) / 2**32
    return drawn < RIGHT.get((model, asked_for), 0.0)


def serve(port: int) -> None:
    """Answer requests of OpenAI's chat API on loopback until the process is ended."""
    from aiohttp import web

    async def chat(request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        text = reply(body["model"], body["messages"])
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": usage(body["messages"], text)})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["questions", path]:
            write_questions(Path(path))
        case ["chats", path]:
            write_chats(Path(path))
        case ["logs", path]:
            write_logs(Path(path))
        case ["serve", port]:
            serve(int(port))
        case _:
            sys.exit(__doc__)
