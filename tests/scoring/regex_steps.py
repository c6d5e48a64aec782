"""A backtracking matcher of Python's regular expressions that counts its steps, and the readers' matching work.

`steps` walks the parse tree of a pattern as CPython's `sre` does and counts each try of a node, so that a pattern which
takes quadratic or exponential time is found by counting, on any machine. `counting` charges every call of a compiled
pattern with the characters it may look at.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from re import _constants as c  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, cast

Rest = Callable[[int], bool]
Node = Callable[[int, Rest], bool]
CATEGORIES: dict[Any, Callable[[str], bool]] = {
    c.CATEGORY_DIGIT: str.isdecimal,
    c.CATEGORY_NOT_DIGIT: lambda char: not char.isdecimal(),
    c.CATEGORY_SPACE: str.isspace,
    c.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    c.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    c.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_"),
}


class Steps:
    """One pattern: where it matches in a text, and how many steps that takes."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.text, self.count = "", 0
        self.groups: dict[int, tuple[int, int]] = {}
        tree = _parser.parse(pattern.pattern, pattern.flags)
        self.node = self._sequence(list(tree), pattern.flags)
        self.end = -1

    def begin(self, text: str) -> Steps:
        """Take another text, and count from zero."""
        self.text, self.count = text, 0
        return self

    def match(self, start: int) -> int:
        """Return where the match that begins at `start` ends, -1 where there is none."""
        self.groups.clear()
        self.end = -1
        return self.end if self.node(start, self._finish) else -1

    def _finish(self, end: int) -> bool:
        self.end = end
        return True

    def _sequence(self, items: list[tuple[Any, Any]], flags: int) -> Node:
        nodes = [self._node(op, argument, flags) for op, argument in items]

        def run(place: int, index: int, rest: Rest) -> bool:
            if index == len(nodes):
                return rest(place)
            return nodes[index](place, lambda end: run(end, index + 1, rest))

        return lambda place, rest: run(place, 0, rest)

    def _node(self, op: Any, argument: Any, flags: int) -> Node:
        single = _single(op, argument, flags)
        if single is not None:
            return self._character(single)
        return cast("Node", getattr(self, f"_{str(op).lower()}")(argument, flags))

    def _character(self, fits: Callable[[str], bool]) -> Node:
        def node(place: int, rest: Rest) -> bool:
            self.count += 1
            return place < len(self.text) and fits(self.text[place]) and rest(place + 1)

        return node

    def _subpattern(self, argument: Any, flags: int) -> Node:
        group, add, remove, items = argument
        inner = self._sequence(list(items), (flags | add) & ~remove)

        def node(place: int, rest: Rest) -> bool:
            before = self.groups.get(group)

            def closed(end: int) -> bool:
                old = self.groups.get(group)
                if group is not None:
                    self.groups[group] = (place, end)
                if rest(end):
                    return True
                self._restore(group, old)
                return False

            if inner(place, closed):
                return True
            self._restore(group, before)
            return False

        return node

    def _restore(self, group: Any, span: tuple[int, int] | None) -> None:
        if span is None:
            self.groups.pop(group, None)
        else:
            self.groups[group] = span

    def _branch(self, argument: Any, flags: int) -> Node:
        branches = [self._sequence(list(items), flags) for items in argument[1]]

        def node(place: int, rest: Rest) -> bool:
            self.count += 1
            return any(branch(place, rest) for branch in branches)

        return node

    def _max_repeat(self, argument: Any, flags: int) -> Node:
        return self._repeat(argument, flags, greedy=True)

    def _min_repeat(self, argument: Any, flags: int) -> Node:
        return self._repeat(argument, flags, greedy=False)

    def _possessive_repeat(self, argument: Any, flags: int) -> Node:
        greedy = self._repeat(argument, flags, greedy=True)
        return self._atomic(greedy)

    def _atomic_group(self, argument: Any, flags: int) -> Node:
        return self._atomic(self._sequence(list(argument), flags))

    def _atomic(self, inner: Node) -> Node:
        def node(place: int, rest: Rest) -> bool:
            reached: list[int] = []
            return inner(place, lambda end: not reached.append(end)) and rest(reached[0])  # type: ignore[func-returns-value]

        return node

    def _repeat(self, argument: Any, flags: int, *, greedy: bool) -> Node:
        least, most, items = argument
        most = sys.maxsize if most is c.MAXREPEAT else most
        inner = self._sequence(list(items), flags)

        def node(place: int, rest: Rest, done: int = 0) -> bool:
            self.count += 1

            def again(end: int) -> bool:
                return (end > place or done < least) and node(end, rest, done + 1)

            if done < least:
                return inner(place, again)
            if greedy:
                return (done < most and inner(place, again)) or rest(place)
            return rest(place) or (done < most and inner(place, again))

        return node

    def _assert(self, argument: Any, flags: int) -> Node:
        return self._look(argument, flags, wanted=True)

    def _assert_not(self, argument: Any, flags: int) -> Node:
        return self._look(argument, flags, wanted=False)

    def _look(self, argument: Any, flags: int, *, wanted: bool) -> Node:
        direction, items = argument
        inner = self._sequence(list(items), flags)
        width = items.getwidth()[0] if direction < 0 else 0

        def node(place: int, rest: Rest) -> bool:
            self.count += 1
            found = place >= width and inner(place - width, lambda end: True)
            return found is wanted and rest(place)

        return node

    def _at(self, where: Any, flags: int) -> Node:
        def fits(place: int) -> bool:
            before = self.text[place - 1 : place] if place else ""
            after = self.text[place : place + 1]
            if where is c.AT_BEGINNING:
                return place == 0 or bool(flags & re.MULTILINE and before == "\n")
            if where is c.AT_BEGINNING_STRING:
                return place == 0
            if where is c.AT_END_STRING:
                return not after
            if where is c.AT_END:
                return self.text[place:] in ("", "\n") or bool(flags & re.MULTILINE and after == "\n")
            edge = _is_word(before) != _is_word(after)
            return edge if where is c.AT_BOUNDARY else not edge

        def node(place: int, rest: Rest) -> bool:
            self.count += 1
            return fits(place) and rest(place)

        return node

    def _groupref(self, group: int, flags: int) -> Node:
        def node(place: int, rest: Rest) -> bool:
            self.count += 1
            if group not in self.groups:
                return False
            start, end = self.groups[group]
            return self.text.startswith(self.text[start:end], place) and rest(place + end - start)

        return node

    def _groupref_exists(self, argument: Any, flags: int) -> Node:
        group, then, otherwise = argument
        yes = self._sequence(list(then), flags)
        no = self._sequence(list(otherwise) if otherwise else [], flags)
        return lambda place, rest: (yes if group in self.groups else no)(place, rest)

    def _failure(self, argument: Any, flags: int) -> Node:
        return lambda place, rest: False


def _is_word(char: str) -> bool:
    return bool(char) and (char.isalnum() or char == "_")


def _single(op: Any, argument: Any, flags: int) -> Callable[[str], bool] | None:
    """Return whether a character fits a node that matches just one, None for other nodes."""
    if op is c.ANY:
        return (lambda char: True) if flags & re.DOTALL else (lambda char: char != "\n")
    if op is c.LITERAL or op is c.NOT_LITERAL:
        wanted = op is c.LITERAL
        return lambda char: any(ord(one) == argument for one in _cases(char, flags)) is wanted
    if op is not c.IN:
        return None
    negated = argument[0][0] is c.NEGATE
    tests = argument[1:] if negated else argument
    return lambda char: any(_in_set(one, tests) for one in _cases(char, flags)) is not negated


def _cases(char: str, flags: int) -> set[str]:
    forms = {char, char.lower(), char.upper()} if flags & re.IGNORECASE else {char}
    return {form for form in forms if len(form) == 1}


def _in_set(char: str, tests: list[tuple[Any, Any]]) -> bool:
    for op, argument in tests:
        if op is c.LITERAL and ord(char) == argument:
            return True
        if op is c.RANGE and argument[0] <= ord(char) <= argument[1]:
            return True
        if op is c.CATEGORY and CATEGORIES[argument](char):
            return True
    return False


@cache
def _steps_of(pattern: re.Pattern[str]) -> Steps:
    """Build the matcher of a pattern once: that takes longer than a short text."""
    return Steps(pattern)


def search_steps(pattern: re.Pattern[str], text: str) -> tuple[int, list[tuple[int, int]]]:
    """Return the steps of finding every match of a pattern in a text, and the matches' spans."""
    engine, spans, place = _steps_of(pattern).begin(text), [], 0
    while place <= len(text):
        end = engine.match(place)
        if end >= 0:
            spans.append((place, end))
        place = max(end, place + 1)
    return engine.count, spans


def match_steps(pattern: re.Pattern[str], text: str) -> tuple[int, int]:
    """Return the steps of matching a pattern at the start of a text, and where the match ends (-1: no match)."""
    engine = _steps_of(pattern).begin(text)
    end = engine.match(0)
    return engine.count, end


class Counted:
    """A compiled pattern whose calls are charged with the characters that they may look at."""

    def __init__(self, pattern: re.Pattern[str], work: list[int], methods: set[tuple[re.Pattern[str], str]]) -> None:
        self._pattern, self._work, self._methods = pattern, work, methods
        self._width = min(_parser.parse(pattern.pattern, pattern.flags).getwidth()[1], 10**9)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._pattern, name)
        if name not in ("match", "fullmatch", "search", "finditer", "findall", "sub", "subn", "split"):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._methods.add((self._pattern, name))
            text, *window = arguments[1:2] if name in ("sub", "subn") else arguments[:3]
            start = window[0] if window and name not in ("split",) else 0
            end = min(window[1], len(text)) if len(window) > 1 else len(text)
            length = max(0, end - start)
            self._work[0] += 1 + (min(length, self._width) if name in ("match", "fullmatch") else length)
            return found(*arguments, **named)

        return call


@contextmanager
def counting() -> Iterator[tuple[list[int], set[tuple[re.Pattern[str], str]]]]:
    """Let every compiled pattern of the package count: yields the work so far, and which method each was called by."""
    work, methods = [0], set()
    known: dict[int, Counted] = {}
    replaced: list[tuple[Any, str, Any]] = []

    def counted(value: Any) -> Any:
        if isinstance(value, re.Pattern):
            return known.setdefault(id(value), Counted(value, work, methods))
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return type(value)(map(counted, value))
        return value

    for name, module in list(sys.modules.items()):
        if not name.startswith("fractionate"):
            continue
        for attribute, value in list(vars(module).items()):
            if isinstance(value, re.Pattern) or (
                type(value) in (list, tuple) and any(isinstance(one, tuple | re.Pattern) for one in value)
            ):
                replaced.append((module, attribute, value))
                setattr(module, attribute, counted(value))
    try:
        yield work, methods
    finally:
        for module, attribute, value in replaced:
            setattr(module, attribute, value)
