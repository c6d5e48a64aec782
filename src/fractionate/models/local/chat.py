"""From chat messages to the tokens a local model reads: one rendering, used by generation and by training alike.

A student that was trained on one form and asked in another answers worse and nobody sees why; so there is one function.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fractionate.errors import UsageError
from fractionate.models.base import Style
from fractionate.types import Message

_PROBE = "§probe§"


def render(tokenizer: Any, messages: Sequence[Message], style: Style) -> list[int]:
    """Return the token ids of a prompt, up to where the model's own words begin.

    "instruct" is the model's chat template as its makers wrote it. "student" is the shortest form the template allows:
    without a default system prompt (SmolLM2's adds 18 tokens that teach a student nothing). Models with no chat
    template get the messages as plain lines. `tokenizer` is a transformers tokenizer.
    """
    if not tokenizer.chat_template:
        return list(tokenizer("\n".join(content for _, content in messages) + "\n").input_ids)
    text = render_text(tokenizer, messages, style)
    with _clear_errors(tokenizer):
        return list(tokenizer(text, add_special_tokens=False).input_ids)


def render_text(tokenizer: Any, messages: Sequence[Message], style: Style, *, reply: bool = True) -> str:
    """Return what `render` cuts into tokens, of a tokenizer with a chat template; special tokens stand as their text.

    Without `reply` the text ends where the last message does, not where the model's own words begin.
    """
    turns = [{"role": role, "content": content} for role, content in messages]
    with _clear_errors(tokenizer):
        write = _student_text if style == "student" else _template
        return write(tokenizer, turns, generation_prompt=reply)


def render_target(tokenizer: Any, target: str) -> list[int]:
    """Return the token ids a student learns to say: the target and the end of its turn."""
    return [*tokenizer(target, add_special_tokens=False).input_ids, end_of_turn(tokenizer)]


def end_of_turn(tokenizer: Any) -> int:
    """Return the id of the token that ends the model's turn: what the template puts behind its words, else eos."""
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
        with _clear_errors(tokenizer):
            _, found, tail = _template(tokenizer, turns, generation_prompt=False).rpartition(_PROBE)
        ids = tokenizer(tail.lstrip(), add_special_tokens=False).input_ids if found else []
        if ids and ids[0] in tokenizer.all_special_ids:
            return int(ids[0])
    if tokenizer.eos_token_id is None:
        raise UsageError(f"the tokenizer in {tokenizer.name_or_path} has no end-of-text token: name one in its files")
    return int(tokenizer.eos_token_id)


@contextmanager
def _clear_errors(tokenizer: Any) -> Iterator[None]:
    """Turn whatever a model's own template or tokenizer does into one line that names it."""
    try:
        yield
    except Exception as error:  # a template is a program: it may raise anything
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"the chat template in {tokenizer.name_or_path} fails: {words}: fix its files") from None


def _template(tokenizer: Any, turns: list[dict[str, str]], generation_prompt: bool = True) -> str:
    from jinja2.exceptions import TemplateError

    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)
    except TemplateError:
        # Some templates (Gemma's) refuse a system turn: its text then leads the user's.
        if turns[0]["role"] != "system" or len(turns) < 2:
            raise
        system, first, *rest = turns
        merged = {"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}
        text = tokenizer.apply_chat_template([merged, *rest], tokenize=False, add_generation_prompt=generation_prompt)
    return str(text)


def _student_text(tokenizer: Any, turns: list[dict[str, str]], generation_prompt: bool = True) -> str:
    """Render without any system prompt: what the template says after an empty one, or as it stands if that fails."""
    from jinja2.exceptions import TemplateError

    if turns[0]["role"] == "system":
        return _template(tokenizer, turns, generation_prompt)
    empty = {"role": "system", "content": ""}
    plain = _template(tokenizer, turns, generation_prompt)
    try:
        head = tokenizer.apply_chat_template([empty], tokenize=False, add_generation_prompt=False)
        whole = tokenizer.apply_chat_template([empty, *turns], tokenize=False, add_generation_prompt=generation_prompt)
    except (TemplateError, IndexError):
        return plain
    if not whole.startswith(head):
        return plain
    short = str(whole)[len(head) :]
    # Templates such as Llama 3's open the whole text with a beginning-of-text token, which belongs to every prompt.
    begin = tokenizer.bos_token or ""
    if begin and head.startswith(begin) and not short.startswith(begin):
        short = begin + short
    return min(short, plain, key=len)
