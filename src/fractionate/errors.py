"""The two ways a command fails: the user can fix the input (exit 2), or the work itself failed (exit 1).

Both print as one line that names the thing and the fix.
"""

from __future__ import annotations

import re


class FractionateError(Exception):
    """The work failed: a model refused, a file could not be written, a stage could not go on. Exit code 1."""

    exit_code = 1


class UsageError(FractionateError):
    """The input is wrong: a config, a data row, a model name, a missing key or extra. Exit code 2."""

    exit_code = 2


def missing_extra(package: str, extra: str, purpose: str) -> UsageError:
    """Return the error for an optional install that is not there, naming the command that fixes it."""
    return UsageError(f"{purpose} needs the package {package!r}: pip install 'fractionate[{extra}]'")


def shortened(text: str, length: int = 200) -> str:
    """Return text cut to what a message can hold."""
    return text if len(text) <= length else text[: length - 1] + "…"


def without_secrets(text: str) -> str:
    """Return text with what URLs in it hold besides an address (users, passwords, queries) left out."""
    text = re.sub(r"([A-Za-z]+://)[^\s#\"']*@", r"\1…@", text)
    return re.sub(r"([A-Za-z]+://[^\s?#\"']*)\?[^\s#\"']*", r"\1?…", text)


def printable(text: str) -> str:
    """Return text that a terminal only shows: control characters (but line breaks and tabs) stand as escapes.

    Replies and errors of servers, and cells of files, may hold sequences that clear a screen, retitle a window or turn
    the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)
