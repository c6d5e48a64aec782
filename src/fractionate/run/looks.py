"""How many questions each verdict of a run has rested on: whoever adds questions until one falls has had several looks.

Kept in looks.json of the run's folder. Reporting the same questions again is no new look.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from fractionate.analysis.matrix import matrices
from fractionate.errors import UsageError
from fractionate.files import write_text
from fractionate.run.folder import RunFolder
from fractionate.types import Cell

Looks = dict[str, tuple[int, ...]]


def read_looks(folder: RunFolder) -> Looks:
    """Return the questions of earlier verdicts, by test set, in ascending order."""
    try:
        table = json.loads(folder.looks.read_text(encoding="utf-8"))
        return {str(name): tuple(sorted(int(size) for size in sizes)) for name, sizes in table.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{folder.looks} cannot be read ({error}): delete it and report again") from None


def note_look(folder: RunFolder, cells: Iterable[Cell]) -> None:
    """Note the questions that a verdict has just rested on."""
    looks = read_looks(folder)
    for matrix in matrices(cells):
        size = max((len(cell.columns) for cell in matrix.cells), default=0)
        looks[matrix.label] = tuple(sorted({*looks.get(matrix.label, ()), size} - {0}))
    write_text(json.dumps(looks, ensure_ascii=False) + "\n", folder.looks, private=True)
