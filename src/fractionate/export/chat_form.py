"""The chat form of a student, as the programs that will serve it write it: a Jinja template, a Go template.

A student is trained on prompts without a default system message (models/local/chat.py). Its base's template may add
one, and the student would get prompts unlike those of training. So the form is read off rendered training prompts,
piece by piece, and written as a template of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fractionate.errors import FractionateError
from fractionate.models.local.chat import end_of_turn, render_text
from fractionate.types import Message

_USER, _SYSTEM, _ASSISTANT = "§user§", "§system§", "§assistant§"


@dataclass(frozen=True)
class ChatForm:
    """The text around messages: `begin` before all of them, a pair around each role's content, `reply` at the end.

    `begin` is the beginning-of-text token where prompts start with it. `end` is the token that ends the model's words.
    `trims`: white space around a message is left out. A role that the base's template does not take has no pair.
    """

    begin: str
    turns: Mapping[str, tuple[str, str]]
    reply: str
    end: str
    trims: bool = False

    def jinja(self) -> str:
        """Return the form as a chat template of transformers, vLLM and llama.cpp."""
        content = "message['content'] | trim" if self.trims else "message['content']"
        branches = [
            f"message['role'] == '{role}' %}}{{{{ {_quoted(before)} + ({content}) + {_quoted(after)} }}}}"
            for role, (before, after) in self.turns.items()
        ]
        chosen = "{% if " + "{% elif ".join(branches)
        refused = "{% else %}{{ raise_exception('this student takes no ' + message['role'] + ' message') }}{% endif %}"
        begin = f"{{{{ {_quoted(self.begin)} }}}}" if self.begin else ""
        reply = f"{{% if add_generation_prompt %}}{{{{ {_quoted(self.reply)} }}}}{{% endif %}}"
        return f"{begin}{{% for message in messages %}}{chosen}{refused}{{% endfor %}}{reply}"

    def go(self) -> str:
        """Return the form as a template of Ollama (Go's text/template), without `begin`, which its runner adds itself.

        Line breaks stand as escapes in strings: nothing that reads a Modelfile can trim them.
        """
        branches = [
            f'if eq .Role "{role}" }}}}{{{{ {_go_quoted(before)} }}}}{{{{ .Content }}}}{{{{ {_go_quoted(after)} }}}}'
            for role, (before, after) in self.turns.items()
        ]
        chosen = "{{ " + "{{ else ".join(branches) + "{{ end }}"
        return f"{{{{ range .Messages }}}}{chosen}{{{{ end }}}}{{{{ {_go_quoted(self.reply)} }}}}"


def chat_form(tokenizer: Any) -> ChatForm:
    """Read a student's form off its base's tokenizer. Raises FractionateError where its template hides the form."""
    end = str(tokenizer.decode([end_of_turn(tokenizer)]))
    if not tokenizer.chat_template:
        return _plain(tokenizer, end)
    whole, bare = (render_text(tokenizer, [Message("user", _USER)], "student", reply=reply) for reply in (True, False))
    before, found, after = bare.rpartition(_USER)
    if not found or not whole.startswith(bare):
        raise FractionateError(
            f"the chat template in {tokenizer.name_or_path} cannot be taken apart: its user turn changes with what "
            "follows, so no template that asks as training did can be written; serve the student with fractionate"
        )
    begin = tokenizer.bos_token or ""
    if not before.startswith(begin) or whole.count(begin) > 1:  # else it opens turns, as SmolLM2's does, not texts
        begin = ""
    turns = {"user": (before.removeprefix(begin), after)}
    if system := _system(tokenizer, begin, turns["user"]):
        turns = {"system": system, **turns}
    if assistant := _assistant(tokenizer, bare):
        turns["assistant"] = assistant
    spaced = render_text(tokenizer, [Message("user", f" {_USER} ")], "student", reply=False)
    return ChatForm(begin, turns, whole.removeprefix(bare), end, trims=spaced == bare)


def asks_alike(tokenizer: Any) -> bool:
    """Return whether the tokenizer's own template renders prompts as training did, with no system message added."""
    if not tokenizer.chat_template:
        return False
    message = [Message("user", _USER)]
    return render_text(tokenizer, message, "student") == render_text(tokenizer, message, "instruct")


def _plain(tokenizer: Any, end: str) -> ChatForm:
    """Return the form of a base without a template: messages as plain lines."""
    ids = tokenizer("?").input_ids
    begin = tokenizer.bos_token if tokenizer.bos_token and ids and ids[0] == tokenizer.bos_token_id else ""
    return ChatForm(begin, dict.fromkeys(("system", "user", "assistant"), ("", "\n")), "", end)


def _system(tokenizer: Any, begin: str, user: tuple[str, str]) -> tuple[str, str] | None:
    messages = [Message("system", _SYSTEM), Message("user", _USER)]
    try:
        text = render_text(tokenizer, messages, "student", reply=False)
    except FractionateError:
        return None
    before, _, rest = text.removeprefix(begin).partition(_SYSTEM)
    between, _, after = rest.rpartition(_USER)
    fits = before and between.endswith(user[0]) and after == user[1]
    return (before, between.removesuffix(user[0])) if fits else None


def _assistant(tokenizer: Any, bare: str) -> tuple[str, str] | None:
    messages = [Message("user", _USER), Message("assistant", _ASSISTANT)]
    try:
        text = render_text(tokenizer, messages, "student", reply=False)
    except FractionateError:
        return None
    before, found, after = text.removeprefix(bare).partition(_ASSISTANT)
    return (before, after) if found and text.startswith(bare) else None


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t")
    return f"'{escaped}'"


def _go_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def modelfile(file: str, form: ChatForm, max_tokens: int, context: int) -> str:
    """Return a Modelfile beside `file`: its template, its stop token, greedy, replies of at most `max_tokens`."""
    return "\n".join(
        (
            f"FROM ./{file}",
            f'TEMPLATE """{form.go()}"""',
            "PARAMETER temperature 0",
            f'PARAMETER stop "{form.end}"',
            f"PARAMETER num_predict {max_tokens}",
            f"PARAMETER num_ctx {context}",
            "",
        )
    )
