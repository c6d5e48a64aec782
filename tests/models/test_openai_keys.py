"""An API key that a server repeats is hidden in every escaped form, wherever a stream cuts it."""

from __future__ import annotations

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


def test_a_tail_that_cannot_become_the_key_is_not_held_back() -> None:
    assert KeyHider(KEY).split("It costs 5 % of 80 & more") == ("It costs 5 % of 80 & more", "")
    assert KeyHider(KEY).split("ends in a percent sign %") == ("ends in a percent sign ", "%")
    assert KeyHider("").split("% \\u00") == ("% \\u00", "")
