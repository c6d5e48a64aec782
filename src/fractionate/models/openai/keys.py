"""The API key of a server: how it is read, and how it is hidden in everything the server says.

A server may repeat the key in a reply or an error, as it is or escaped. The key is searched for in the decoded and
joined text, so that it is found in any format.
"""

from __future__ import annotations

import base64
import os
import re
import string
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
_GAP = 16
"""Characters between two letters or digits of a key at most, times what the key has there itself."""
_WINDOW = 1 << 16
_PLAIN_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_ALPHANUMERIC = string.ascii_letters + string.digits
_PRINTABLE = "".join(map(chr, range(32, 127)))
_HEX = "([0-9a-fA-F]{2})"
_NAMES = "|".join(name[:-1] for name, text in html5.items() if text in [*_PRINTABLE] and name.endswith(";"))
# The first set lets the search pass over plain text quickly.
_ESCAPE = re.compile(
    rf"[\\%&](?:(?:(?<=\\)\\{{0,7}}(?:u00|U000000|x)|(?<=%)(?:25){{0,3}}){_HEX}"
    rf"|(?<=\\)\\{{0,7}}(?:[ux]\{{0{{0,4}}{_HEX}\}}|([01][0-7]{{2}}))"
    rf"|(?<=&)(?:amp;){{0,3}}(?:#[xX]0{{0,5}}{_HEX}(?:;|(?![0-9a-fA-F;]))|#0{{0,5}}([0-9]{{2,3}})(?:;|(?![0-9;]))"
    rf"|({_NAMES});))"
)
_BASES = 16, 16, 8, 16, 10
"""Of the groups of `_ESCAPE` that hold a number; the last group holds a name."""
_LONGEST_ESCAPE = 40
# The end of a text that may be the beginning of one escaped character, whichever that is.
_BEGUN_ESCAPE = re.compile(
    r"[\\%&](?:(?<=\\)\\{0,7}(?:[uUx]\{?[0-9a-fA-F]{0,8}|[01][0-7]{0,1})?|(?<=%)(?:25){0,3}[0-9a-fA-F]?"
    r"|(?<=&)(?:amp;){0,3}(?:#[xX]?[0-9a-fA-F]{0,8}|[a-zA-Z]{0,20}))\Z"
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

    The forms: plain; backwards; in base64 or hexadecimal; spaced out or broken by at most `_GAP` characters that are no
    letters or digits between any two that are; and each of these with any characters escaped as JSON, Python, C, URLs
    or HTML escape them, once or several times over. A key of letters alone or digits alone may be words or a count
    ("1, 2, 3"), so it is not searched for backwards or spaced out.

    All of them are one search: escapes are undone, all but letters and digits is left out of text and forms alike.
    Time is linear in the text. What `split` holds back is at most a form with its gaps.
    """

    def __init__(self, key: str) -> None:
        spaced = sum(map(str.isalnum, key)) >= SHORTEST and not (key.isalpha() or key.isdigit())
        kept = _ALPHANUMERIC if spaced else _PRINTABLE
        self._left_out = bytes(set(range(256)) - set(kept.encode()))
        # A gap also holds the key's own dashes.
        own = max(map(len, re.findall(r"[^0-9A-Za-z]+", key)), default=0)
        self._gap = _GAP * (1 + own) if spaced else 1
        encoded = [key, key[::-1], *_encodings(key)] if spaced else [key, *_encodings(key)]
        forms = {"".join(letter for letter in form if letter in kept) for form in encoded}
        secret = len(key) >= SHORTEST
        self._forms = sorted((form for form in forms if secret and len(form) >= SHORTEST), key=len, reverse=True)
        self._searched = [form.encode() for form in self._forms]
        self._form = re.compile("|".join(map(re.escape, self._forms)))
        self._character = re.compile(f"{_ESCAPE.pattern}|[{re.escape(kept)}]")
        self._kept = frozenset(kept)
        self._reach = (_LONGEST_ESCAPE + self._gap) * max(map(len, self._forms), default=0)

    def hide(self, text: str) -> str:
        """Return a text of the server without the key."""
        if not (self._forms and self._may_hold(text)):
            return text
        parts, held = [], ""
        for start in range(0, len(text), _WINDOW):
            shown, held = self.split(held + text[start : start + _WINDOW])
            parts.append(shown)
        return "".join(parts) + self._hidden(held)[0]

    def hide_cut(self, text: str) -> str:
        """Return a text that may end in "…", where it was cut short, without the key or the beginning of one."""
        if not text.endswith("…"):
            return self.hide(text)
        return self.split(self.hide(text[:-1]))[0] + "…"

    def split(self, text: str) -> tuple[str, str]:
        """Return a growing text in two parts without the key: what may be shown now, and the tail to hold back.

        Whole keys are hidden first: the last characters of one may also be the first of another form.
        """
        if not self._forms:
            return text, ""
        begun = _BEGUN_ESCAPE.search(text, max(0, len(text) - _LONGEST_ESCAPE))
        whole = text[: begun.start()] if begun else text
        if not self._may_hold(whole):
            start = max(0, len(whole) - self._reach)
            tail = self._hidden(whole[start:])[1]
            return whole[: len(whole) - tail], text[len(whole) - tail :]
        hidden, tail = self._hidden(whole)
        shown = hidden[: len(hidden) - tail]
        return shown, hidden[len(shown) :] + text[len(whole) :]

    def _may_hold(self, text: str) -> bool:
        """Return whether the key's characters occur in this order, whatever stands between them. Takes 1 ns a byte."""
        if "\\" in text or "%" in text or "&" in text:
            text = _ESCAPE.sub(_unescaped, text)
        letters = text.encode("utf-8", "surrogatepass").translate(None, self._left_out)
        return any(form in letters for form in self._searched)

    def _hidden(self, text: str) -> tuple[str, int]:
        """Return a text without the key, and how many characters at its end may be the beginning of a form."""
        letters: list[str] = []
        places: list[tuple[int, int]] = []
        end = 0
        for match in self._character.finditer(text):
            letter = _unescaped(match) if match.lastindex else match[0]
            if letter in self._kept:
                if match.start() - end > self._gap:
                    letters.append("\n")  # of no form
                    places.append((end, match.start()))
                letters.append(letter)
                places.append(match.span())
                end = match.end()
        read = "".join(letters)
        parts, shown, last = [], 0, 0
        for found in self._form.finditer(read):
            parts += [text[shown : places[found.start()][0]], BLOT]
            shown, last = places[found.end() - 1][1], found.end()
        begun = 0 if len(text) - end > self._gap else self._begun(read[last:])
        return "".join([*parts, text[shown:]]), len(text) - places[-begun][0] if begun else 0

    def _begun(self, letters: str) -> int:
        """Return how many characters at the end may be the beginning of a form."""
        most = 0
        for form in self._forms:
            longest = min(len(form) - 1, len(letters))
            most = next((length for length in range(longest, most, -1) if letters.endswith(form[:length])), most)
        return most

    def hide_in(self, completion: Completion) -> Completion:
        """Return a completion whose text, reasoning and error do not hold the key."""
        said = completion.text, completion.reasoning, completion.error
        text, reasoning, error = hidden = tuple(self.hide(part) for part in said)
        return completion if hidden == said else replace(completion, text=text, reasoning=reasoning, error=error)


def _unescaped(escape: re.Match[str]) -> str:
    """Return the character that an escape stands for."""
    group = escape.lastindex or 0
    said = escape[group]
    return chr(int(said, _BASES[group - 1])) if group <= len(_BASES) else html5[f"{said};"]


def _encodings(key: str) -> list[str]:
    """Return what shows of a key in base64 (at each of three offsets) and in hexadecimal."""
    data = key.encode()
    forms = [data.hex(), data.hex().upper()]
    for before in range(3):
        # The first and last characters depend on what stands around the key.
        inner = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        start = -(-before * 4 // 3)
        end = len(inner) - (1 if (before + len(data)) % 3 else 0)
        forms += [inner[start:end], inner[start:end].translate(str.maketrans("+/", "-_"))]
    return forms
