"""An API key that a server repeats is hidden in every escaped form, wherever a stream cuts it."""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.models.openai.keys import KeyHider

KEY = "sk-proj-Ab_0123456789xyz"
NAMED = {"_": "&lowbar;", "-": "-"}
FORMS: dict[str, Callable[[str], str]] = {
    "URL": lambda letter: f"%{ord(letter):02X}",
    "URL, lower case": lambda letter: f"%{ord(letter):02x}",
    "URL, twice": lambda letter: f"%25{ord(letter):02X}",
    "JSON": lambda letter: f"\\u{ord(letter):04x}",
    "JSON, twice": lambda letter: f"\\\\u{ord(letter):04X}",
    "Python": lambda letter: f"\\x{ord(letter):02x}",
    "Python, long": lambda letter: f"\\U{ord(letter):08x}",
    "ECMAScript": lambda letter: f"\\u{{{ord(letter):x}}}",
    "C": lambda letter: f"\\{ord(letter):03o}",
    "HTML": lambda letter: f"&#{ord(letter)};",
    "HTML, hexadecimal": lambda letter: f"&#x{ord(letter):X};",
    "HTML, twice": lambda letter: f"&amp;#{ord(letter)};",
    "HTML, named": lambda letter: NAMED.get(letter, letter),
}
UNENDED: dict[str, Callable[[str], str]] = {
    "HTML, unended": lambda letter: f"&#{ord(letter)}",
    "HTML, hexadecimal, unended": lambda letter: f"&#x{ord(letter):x}",
}
"""A digit that follows these would be read as part of them, so they mix with themselves alone."""


DISGUISES: dict[str, Callable[[str], str]] = {
    "spaces": " ".join,
    "commas": ", ".join,
    "dashes": "-".join,
    "quoted list": lambda key: "['" + "', '".join(key) + "']",
    "bold letters": "****".join,
    "one a line": "\n".join,
    "zero-width spaces": "\u200b".join,
    "no-break spaces": "\u00a0".join,
    "UTF-16 as bytes": lambda key: key.encode("utf-16-le").decode("latin-1"),
    "line breaks": lambda key: "\r\n    ".join(key[at : at + 7] for at in range(0, len(key), 7)),
    "backwards": lambda key: key[::-1],
    "backwards and spaced": lambda key: " ".join(key[::-1]),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(b"key=" + key.encode() + b"&").decode(),
    "base64 in lines": lambda key: codecs.encode(b"Bearer " * 8 + key.encode(), "base64").decode(),
    "base64 of user and password": lambda key: base64.b64encode(f"me:{key}".encode()).decode(),
    "base64, spaced": lambda key: " ".join(base64.b64encode(key.encode()).decode()),
    "hexadecimal": lambda key: key.encode().hex(),
    "hexadecimal with colons": lambda key: key.encode().hex(":").upper(),
    "escaped and spaced": lambda key: " ".join(f"%{ord(letter):02x}" for letter in key),
    "escaped backwards": lambda key: "".join(f"\\u{ord(letter):04x}" for letter in reversed(key)),
}


def shown(text: str, cuts: list[int]) -> str:
    """Return what a client sees of a text that arrives cut at these places."""
    hider = KeyHider(KEY)
    seen = held = ""
    places = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    for start, end in pairwise(places):
        ready, held = hider.split(held + text[start:end])
        seen += ready
    # `\\u{7a` is a whole escape to readers that need no brace, so a brace that comes later is shown.
    return (seen + hider.hide(held)).replace("[key]}", "[key]")


@pytest.mark.parametrize("form", [*FORMS, *UNENDED])
def test_a_key_with_every_character_escaped_is_hidden_wherever_it_is_cut(form: str) -> None:
    text = f"You sent {''.join(map((FORMS | UNENDED)[form], KEY))}, which is 100 % \\wrong & old."
    expected = "You sent [key], which is 100 % \\wrong & old."
    assert shown(text, list(range(len(text)))) == expected, "one character at a time"
    for cut in range(len(text)):
        assert shown(text, [cut]) == expected


@given(
    st.lists(st.sampled_from([str, *FORMS.values()]), min_size=len(KEY), max_size=len(KEY)),
    st.text("sk-pr%\\&u0x; ", max_size=12),
    st.text("sk-pr%\\&u0x; ", max_size=12),
    st.lists(st.integers(0, 1000), max_size=40),
)
def test_a_mixture_of_forms_is_hidden_however_it_is_cut(
    forms: list[Callable[[str], str]], before: str, after: str, cuts: list[int]
) -> None:
    # The bars keep the surroundings from being read as part of the first or last escape.
    text = f"{before}|{''.join(form(letter) for form, letter in zip(forms, KEY, strict=True))}|{after}"
    seen = shown(text, cuts)
    assert seen == KeyHider(KEY).hide(text) == f"{before}|[key]|{after}"


@pytest.mark.parametrize("disguise", DISGUISES)
def test_no_part_of_a_disguised_key_is_shown_wherever_it_is_cut(disguise: str) -> None:
    disguised = DISGUISES[disguise](KEY)
    text = f"You sent ({disguised}), or so."
    expected = KeyHider(KEY).hide(text)
    assert re.fullmatch(r"You sent \(.*\[key\].*\), or so\.", expected, re.DOTALL)
    assert not any(
        disguised[at : at + 9] in expected for at in range(len(disguised) - 9) if "QmVhcmVy" not in disguised
    )
    assert shown(text, list(range(len(text)))) == expected, "one character at a time"
    for cut in range(len(text)):
        assert shown(text, [cut]) == expected


@given(
    st.sampled_from(["|", "_", " ", "--", " . ", "\t", "\u200b", "é", "\n\n", "%", "&", "\\", "漢字"]),
    st.booleans(),
    st.lists(st.integers(0, 1000), max_size=40),
)
def test_a_spaced_key_is_hidden_however_it_is_cut(separator: str, backwards: bool, cuts: list[int]) -> None:
    key = KEY[::-1] if backwards else KEY
    assert shown(f"({separator.join(key)})", cuts) == "([key])"


@given(st.text("skproj-Ab_0123456789xyz \n.,%\\&#u;", max_size=300), st.lists(st.integers(0, 1000), max_size=40))
def test_a_text_that_does_not_hold_the_key_stays_as_it_is(text: str, cuts: list[int]) -> None:
    assert shown(text, cuts) == text == KeyHider(KEY).hide(text)


def test_a_simple_key_is_not_found_in_a_count_or_in_words() -> None:
    """A local server takes any key: a count or a phrase in a reply is not the key spaced out."""
    assert KeyHider("12345678").hide("1, 2, 3, 4, 5, 6, 7, 8; 87654321") == "1, 2, 3, 4, 5, 6, 7, 8; 87654321"
    assert KeyHider("password").hide("I pass word for word on") == "I pass word for word on"
    assert KeyHider("password").hide("It is p%61ssword, cGFzc3dvcmQ=") == "It is [key], [key]Q="
    assert KeyHider("a-b-c-d-").hide("a b c d; a-b-c-d-e") == "a b c d; [key]e"
    assert KeyHider("EMPTY-1").hide("EMPTY-1") == "EMPTY-1", "too short to be a secret"


def test_the_letters_of_a_key_in_words_of_their_own_are_no_key() -> None:
    apart = " (seventeen of them) ".join(KEY)
    assert KeyHider(KEY).hide(apart) == apart
    far = ("." * 40).join(KEY)
    assert KeyHider(KEY).hide(far) == far


def test_what_is_held_back_is_bounded() -> None:
    hider = KeyHider(KEY)
    for filler in ("s" * 9, "s ", "\\", "%25", "&amp;", "&#0", "s" + "." * 50, " ".join(KEY[:-1]) + "!", "\\u{0"):
        held, most = "", 0
        for _ in range(60):
            _, held = hider.split(held + filler)
            most = max(most, len(held))
        assert most <= 100, filler


def test_a_tail_that_cannot_become_the_key_is_not_held_back() -> None:
    assert KeyHider(KEY).split("It costs 5 % of 80 & more") == ("It costs 5 % of 80 & more", "")
    assert KeyHider(KEY).split("ends in a percent sign %") == ("ends in a percent sign ", "%")
    assert KeyHider(KEY).split("all the cats") == ("all the cat", "s")
    assert KeyHider(KEY).split("all the cats and") == ("all the cats and", "")
    assert KeyHider("").split("% \\u00") == ("% \\u00", "")
