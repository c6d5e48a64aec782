"""Decompositions as recorded logs write them: text, lists, JSON in a string, and trees; all become numbered lines.

A tree of subquestions is written as nested objects or as text numbered `1.`, `1.1`, `1.2`, `2.`. It is put into the
order in which it can be answered, children before their parent, and numbered through from 1. `#k` means, in a
subquestion without children, the k-th subquestion beside it (same parent); in one with children, its own k-th child, or
where it has no such child the k-th subquestion beside it. `#1.2` means the subquestion of that label. References are
rewritten to the new numbers, because strategies fill `#k` in by position.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Label = tuple[int, ...]
"""Where a subquestion stands in its tree: (1, 2) is `1.2`."""

QUESTION_FIELDS = ("subquestion", "question", "text")
CHILD_FIELDS = ("subquestions", "children", "questions")
LONGEST_LIST = 1 << 20
"""Characters of a list inside a string that are parsed: `ast.literal_eval` takes memory many times that of its text."""

_LINE = re.compile(
    r"\s*+(?:(?:sub-?question|step|q)\s*+)?(\d{1,3}(?:\.\d{1,3}){0,9})[.:)\]]*+\s++(\S.*)", re.IGNORECASE
)
_REFERENCE = re.compile(r"#(\d{1,3}(?:\.\d{1,3}){0,9})")


@dataclass
class _Node:
    """A subquestion of a tree, and what the log holds beside its text (a reply, its usage)."""

    label: Label
    text: str
    children: list[_Node] = field(default_factory=list)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decomposed:
    """A recorded decomposition. `text` is the decomposer's output: as recorded, or the numbered lines of a list.

    `labels` are those of the subquestions in the order of the lines, empty for plain text. `nodes` are the objects
    that a list holds, in the same order.
    """

    text: str
    labels: tuple[Label, ...] = ()
    nodes: tuple[Mapping[str, Any], ...] = ()


def read_decomposition(value: Any) -> Decomposed:
    """Read a recorded decomposition. Raises ValueError, saying what is wrong with it."""
    text, value = value, listed(value)
    if isinstance(value, dict):
        value = _of_object(value, text)
    if isinstance(value, str):
        roots = _from_lines(value)
        return Decomposed(value) if roots is None else _flat(roots)
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be text or a list of subquestions, not {type(value).__name__}")
    if all(isinstance(item, str) for item in value):
        roots = _from_lines("\n".join(value))
        if roots is not None:
            return _flat(roots)
    return _flat([_node(item, (number,)) for number, item in enumerate(value, 1)])


def listed(value: Any) -> Any:
    """Return the list or object that a string writes as JSON, or the list that it writes as Python does (tables do).

    Any other value is returned as it is.
    """
    if not isinstance(value, str) or not value.strip().startswith(("[", "{")):
        return value
    text = value.strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if not (text.startswith("[") and text.endswith("]") and len(text) <= LONGEST_LIST):
        return value
    try:
        read = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value  # a text in brackets that is no list
    return read if isinstance(read, list) else value


def read_label(value: Any) -> Label:
    """Return the label of a step: a whole number from 1, or text such as "2" or "1.2". Raises ValueError for others."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # A number with a fraction is refused: 1.10 would be read as 1.1.
    if isinstance(value, bool | float) or not isinstance(value, int | str):
        raise ValueError('must be a whole number from 1, or a label in quotes such as "1.2"')
    text = str(value).strip().rstrip(".").removesuffix(".0")
    if not re.fullmatch(r"[1-9]\d{0,3}(?:\.[1-9]\d{0,3}){0,9}", text):
        raise ValueError('counts from 1, such as 2 or "1.2"')
    return tuple(int(part) for part in text.split("."))


def shown_label(label: Iterable[int]) -> str:
    """Return a label as it is written: `1.2`."""
    return ".".join(map(str, label))


def _of_object(value: Mapping[str, Any], text: Any) -> Any:
    """Return the decomposition that an object holds: the raw text of an attempt, or a list of subquestions."""
    raw = value.get("raw")
    if isinstance(raw, str) and raw:
        return raw
    children = next((value[name] for name in CHILD_FIELDS if isinstance(value.get(name), list)), None)
    if children is None and isinstance(text, str):
        return text
    if children is None:
        raise ValueError(f"an object without a list of {CHILD_FIELDS[0]!r}")
    return children


def _node(item: Any, label: Label) -> _Node:
    if isinstance(item, str):
        return _Node(label, " ".join(item.split()))
    if not isinstance(item, dict):
        raise ValueError(f"subquestion {shown_label(label)} must be text or an object, not {type(item).__name__}")
    if len(label) > 10:
        raise ValueError("a tree of subquestions is at most 10 levels deep")
    text = next((item[name] for name in QUESTION_FIELDS if isinstance(item.get(name), str)), None)
    if text is None:
        raise ValueError(f"subquestion {shown_label(label)} is an object without {QUESTION_FIELDS[0]!r}")
    below: Any = next((item[name] for name in CHILD_FIELDS if item.get(name)), [])
    if not isinstance(below, list):
        raise ValueError(f"the subquestions of {shown_label(label)} must be a list")
    children = [_node(child, (*label, number)) for number, child in enumerate(below, 1)]
    return _Node(label, " ".join(text.split()), children, item)


def _from_lines(text: str) -> list[_Node] | None:
    """Return the tree that lines numbered `1.`, `1.1`, … write; None where no line has a label of two levels."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = [_LINE.match(line) for line in lines]
    labels = [tuple(map(int, match[1].split("."))) if match else () for match in found]
    # "1.5 times what is 30?" is no label: a second level begins with x.1.
    if not any(len(label) > 1 and label[-1] == 1 for label in labels):
        return None
    if not all(labels):
        return None
    nodes: dict[Label, _Node] = {}
    for label, match in zip(labels, found, strict=True):
        if label in nodes:
            raise ValueError(f"names {shown_label(label)} twice")
        assert match is not None
        nodes[label] = _Node(label, " ".join(match[2].split()))
    roots: list[_Node] = []
    for label, node in sorted(nodes.items()):
        if label[-1] > 1 and (*label[:-1], label[-1] - 1) not in nodes:
            raise ValueError(f"names {shown_label(label)}, but not {shown_label((*label[:-1], label[-1] - 1))}")
        parent = nodes.get(label[:-1])
        # A parent may be left out ("1.1", "1.2", "2"): its children then stand where it would.
        (parent.children if parent else roots).append(node)
    return roots


def _flat(roots: Sequence[_Node]) -> Decomposed:
    ordered: list[_Node] = []

    def visit(node: _Node) -> None:
        for child in node.children:
            visit(child)
        ordered.append(node)

    for root in roots:
        visit(root)
    is_tree = any(len(node.label) > 1 for node in ordered)
    positions = {node.label: position for position, node in enumerate(ordered, 1)}
    texts = [_renumbered(node, positions) if is_tree else node.text for node in ordered]
    lines = "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))
    return Decomposed(lines, tuple(node.label for node in ordered), tuple(node.values for node in ordered))


def _renumbered(node: _Node, positions: Mapping[Label, int]) -> str:
    """Return a subquestion's text with its references as positions in the order of answering."""

    def position(match: re.Match[str]) -> str:
        path = tuple(int(part) for part in match[1].split("."))
        if len(path) > 1:
            meant = path
        elif path[0] <= len(node.children):
            meant = (*node.label, path[0])
        else:
            meant = (*node.label[:-1], path[0])
        if positions.get(meant, len(positions) + 1) >= positions[node.label]:
            raise ValueError(
                f"subquestion {shown_label(node.label)} refers to {match[0]}, which is not answered before it"
            )
        return f"#{positions[meant]}"

    return _REFERENCE.sub(position, node.text)
