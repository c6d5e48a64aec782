"""The key of a server: whose it is, and how it is kept out of all that the server says.

A server may repeat the key in a reply or an error, as it is or in some disguise. It is searched for in the words
themselves, after everything was decoded and joined, so that it is found whatever it was wrapped in on its way.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from fractionate.errors import UsageError
from fractionate.types import Completion

BLOT = "[key]"
SHORTEST = 8
"""Characters under which a key is no secret but a word ("none", "EMPTY"), which replies may well hold."""
_ESCAPES = re.compile(r"[\\%&\0]")
_PLAIN_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_needed: ContextVar[bool] = ContextVar("needed", default=True)


@contextmanager
def keys_not_needed() -> Iterator[None]:
    """Let models be opened without their keys: to be counted and priced, not called."""
    token = _needed.set(False)
    try:
        yield
    finally:
        _needed.reset(token)


def read_key(model: str, variable: str) -> str:
    """Return the key in an environment variable ("" names none). Raises UsageError, which never shows a key.

    What does not look like the name of a variable may be the key itself, so it is not repeated.
    """
    if not variable:
        return ""
    shown = variable if _PLAIN_NAME.fullmatch(variable) else "the variable that api_key_env names"
    key = os.environ.get(variable, "").strip() if "\0" not in variable and "=" not in variable else ""
    if not key and not _needed.get():
        return ""
    if not key:
        hint = "" if shown == variable else "; api_key_env takes a variable's name, such as OPENAI_API_KEY, not the key"
        raise UsageError(
            f"{model} needs a key: set {shown} in the environment, or name another variable with api_key_env{hint}"
        )
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{model}: the key in {shown} has characters that no header can hold: set it again")
    return key


class KeyHider:
    """Blots a key out of text, in every form that it commonly takes there.

    As it is; with any of its characters escaped as JSON, Python, URLs or HTML escape them; with the zero bytes that
    UTF-16 read as bytes leaves; in base64 or hexadecimal.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._forms = _encoded_forms(key) if len(key) >= SHORTEST else []
        self._pattern = re.compile("\0?".join(map(_any_form, key))) if len(key) >= SHORTEST else None

    def hide(self, text: str) -> str:
        """Return a text of the server without the key."""
        if self._pattern is None:
            return text
        for form in self._forms:
            if form in text:
                text = text.replace(form, BLOT)
        return self._pattern.sub(BLOT, text) if _ESCAPES.search(text) else text

    def begun_at_end(self, text: str) -> int:
        """Return how many characters at the end of a text may be the beginning of the key, or of a form of it."""
        most = 0
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), most, -1):
                if form.startswith(text[-length:]):
                    most = length
                    break
        return most

    def hide_in(self, completion: Completion) -> Completion:
        """Return a completion whose words do not hold the key."""
        said = completion.text, completion.reasoning, completion.error
        text, reasoning, error = hidden = tuple(self.hide(words) for words in said)
        return completion if hidden == said else replace(completion, text=text, reasoning=reasoning, error=error)


def _any_form(letter: str) -> str:
    """Return a pattern of one character of the key, plain or escaped. Every branch begins with a plain character."""
    code = ord(letter)
    upper_or_lower = "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{code:02x}")
    return (
        rf"(?:{re.escape(letter)}|\\\\{{0,7}}(?:u00|x|u{{00){upper_or_lower}}}?|%{upper_or_lower}"
        rf"|&#(?:0{{0,4}}{code}|[xX]0{{0,4}}{upper_or_lower});)"
    )


def _encoded_forms(key: str) -> list[str]:
    """Return the key itself, and what of it shows in base64 (at each of three offsets) and in hexadecimal."""
    data = key.encode()
    forms = {key, data.hex(), data.hex().upper()}
    for before in range(3):
        # The first and last characters depend on what stands around the key.
        inner = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        start = -(-before * 4 // 3)
        end = len(inner) - (1 if (before + len(data)) % 3 else 0)
        forms |= {inner[start:end], inner[start:end].translate(str.maketrans("+/", "-_"))}
    return sorted(forms, key=len, reverse=True)
