"""The API key of a server: how it is read, and how it is hidden in everything the server says.

A server may repeat the key in a reply or an error, as it is or escaped. The key is searched for in the decoded and
joined text, so that it is found in any format.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from html.entities import html5

from fractionate.errors import UsageError
from fractionate.types import Completion

BLOT = "[key]"
SHORTEST = 8
"""Characters under which a key is no secret but a word ("none", "EMPTY"), which replies may well hold."""
_ESCAPES = re.compile(r"[\\%&\0]")
_PLAIN_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
# Whether the rest of a text may be the beginning of one escaped character, whichever that is.
_BEGUN_ESCAPE = re.compile(
    r"\\+(?:[uUx]?\{?[0-9a-fA-F]{0,8})?|%(?:25){0,3}2?[0-9a-fA-F]?|&(?:amp;){0,3}(?:#?[xX]?[0-9a-fA-F]{0,8}|[a-zA-Z]{0,32})"
)
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

    A text that does not look like the name of a variable may be the key itself, so it is not repeated.
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
    """Replaces a key in text by `BLOT`, in every form that it commonly takes there.

    The forms: plain; any of its characters escaped as JSON, Python, C, URLs or HTML escape them, once or several times
    over; with the zero bytes that UTF-16 read as bytes leaves; in base64 or hexadecimal.
    """

    def __init__(self, key: str) -> None:
        secret = len(key) >= SHORTEST
        self._key = key
        self._forms = _encoded_forms(key) if secret else []
        self._escaped = [re.compile(_escaped_forms(letter)) for letter in key] if secret else []
        each = (rf"(?:{re.escape(letter)}|{_escaped_forms(letter)})" for letter in key)
        self._pattern = re.compile("\0?".join(each)) if secret else None

    def hide(self, text: str) -> str:
        """Return a text of the server without the key."""
        return self._hide(f"{text} ")[:-1]  # HTML ends a reference at any character that cannot go on with it

    def _hide(self, text: str) -> str:
        if self._pattern is None:
            return text
        for form in self._forms:
            if form in text:
                text = text.replace(form, BLOT)
        return self._pattern.sub(BLOT, text) if _ESCAPES.search(text) else text

    def split(self, text: str) -> tuple[str, str]:
        """Return a growing text in two parts without the key: what may be shown now, and the tail to hold back.

        Whole keys are hidden first: the last characters of one may also be the first of another form.
        """
        hidden = self._hide(text)
        shown = len(hidden) - self._begun_at_end(hidden)
        return hidden[:shown], hidden[shown:]

    def _begun_at_end(self, text: str) -> int:
        """Return how many characters at the end of a text may be the beginning of the key, or of a form of it."""
        most = 0
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), most, -1):
                if form.startswith(text[-length:]):
                    most = length
                    break
        if not (self._escaped and _ESCAPES.search(text)):
            return most
        return next((len(text) - start for start in self._starts(text, most) if self._may_go_on(text, start)), most)

    def _starts(self, text: str, most: int) -> Iterator[int]:
        """Yield the places, earliest first, at which an escaped form may begin that the text does not end."""
        first = self._key[0]
        return (at for at in range(len(text) - most) if text[at] == first or text[at] in "\\%&")

    def _may_go_on(self, text: str, start: int) -> bool:
        """Return whether the text from `start` on is a proper beginning of the key with any characters escaped.

        One character of the key may match in several ways, so all places that its matches end at are followed.
        """
        ends = {start}
        for letter, escaped in zip(self._key, self._escaped, strict=True):
            ends |= {at + 1 for at in ends if at > start and text.startswith("\0", at)}
            if any(at == len(text) or _BEGUN_ESCAPE.fullmatch(text, at) for at in ends):
                return True
            matches = {at: escaped.match(text, at) for at in ends}
            ends = {at + 1 for at in ends if text.startswith(letter, at)}
            ends |= {match.end() for match in matches.values() if match is not None}
            if not ends:
                return False
        return False

    def hide_in(self, completion: Completion) -> Completion:
        """Return a completion whose text, reasoning and error do not hold the key."""
        said = completion.text, completion.reasoning, completion.error
        text, reasoning, error = hidden = tuple(self.hide(part) for part in said)
        return completion if hidden == said else replace(completion, text=text, reasoning=reasoning, error=error)


def _escaped_forms(letter: str) -> str:
    """Return a pattern of one character in its escaped forms, those that were escaped several times over included."""
    code = ord(letter)
    digits = "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{code:02x}")
    names = "|".join(name.rstrip(";") for name, text in html5.items() if text == letter and name.endswith(";"))
    named = f"|(?:{names});" if names else ""
    # A backslash before a letter or digit makes another character of it.
    itself = "" if letter.isalnum() else rf"|{re.escape(letter)}"
    return (
        rf"(?:\\{{1,8}}(?:(?:u00|x|u\{{0{{0,4}}|U000000){digits}\}}?|{code:03o}{itself})|%(?:25){{0,3}}{digits}"
        rf"|&(?:amp;){{0,3}}(?:#0{{0,4}}{code}(?:;|(?=[^0-9;]))|#[xX]0{{0,4}}{digits}(?:;|(?=[^0-9a-fA-F;])){named}))"
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
