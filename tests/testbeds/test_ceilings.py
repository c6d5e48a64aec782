"""The Bayes ceilings: the reference table to three decimals, and a literal enumeration of every draw."""

import itertools
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest

from fractionate.testbeds.allpairs.generator import AllPairs
from fractionate.testbeds.ceilings import allpairs_ceilings, pentomino_ceilings, stage
from fractionate.testbeds.pentomino.generator import Pentomino

TABLE = {
    "presence per class": (".750", ".667", ".609", ".620", ".590"),
    "any class seen exactly once": ("1.000", ".889", ".859", ".845", ".826"),
    "largest count only": ("1.000", ".944", ".844", ".772", ".686"),
    "parity of one class": ("1.000", ".833", ".750", ".700", ".625"),
    "parities, two classes confused": (None, ".833", ".917", ".950", ".982"),
    "full histogram": ("1.000",) * 5,
}
SETTINGS = ((2, 2), (3, 3), (4, 4), (5, 5), (8, 8))
FEATURES = {
    "presence per class": lambda counts: tuple(count > 0 for count in counts),
    "any class seen exactly once": lambda counts: 1 in counts,
    "largest count only": max,
    "parity of one class": lambda counts: counts[0] % 2,
    "parities, two classes confused": lambda counts: (
        (counts[0] + counts[1]) % 2,
        *(count % 2 for count in counts[2:]),
    ),
    "full histogram": tuple,
}


@pytest.mark.parametrize("column", range(len(SETTINGS)), ids=[f"{k}-{m}" for k, m in SETTINGS])
def test_the_reference_table_to_three_decimals(column: int) -> None:
    found = allpairs_ceilings(*SETTINGS[column])
    for name, row in TABLE.items():
        assert (f"{float(found[name]):.3f}".lstrip("0") if name in found else None) == (
            row[column].removeprefix("0") if row[column] else None
        )


@pytest.mark.parametrize(("pairs", "types"), [(1, 2), (2, 2), (2, 4), (3, 3), (4, 4), (3, 5), (5, 3)])
def test_every_list_of_classes_written_out_gives_the_same(pairs: int, types: int) -> None:
    joint: dict[str, dict[object, list[Fraction]]] = {name: defaultdict(lambda: [Fraction(0)] * 2) for name in FEATURES}
    share = Fraction(1, 2 * types**pairs)
    for drawn in itertools.product(range(types), repeat=pairs):
        scenes = [(1, (*drawn, *drawn), share)]
        for shift in range(1, types):
            changed = (drawn[0] + shift) % types
            scenes.append((0, (changed, *drawn[1:], *drawn), share / (types - 1)))
        for label, symbols, weight in scenes:
            counts = [symbols.count(symbol) for symbol in range(types)]
            for name, feature in FEATURES.items():
                values = joint[name][feature(counts)]
                joint[name][feature(counts)] = [values[at] + weight * (at == label) for at in (0, 1)]
    for name, value in allpairs_ceilings(pairs, types).items():
        assert value == sum(max(values) for values in joint[name].values()), name


def test_generated_samples_reach_the_ceilings_they_should() -> None:
    batch = AllPairs(4, 4, seed=8).take(0, 6000)
    for name, value in allpairs_ceilings(4, 4).items():
        joint: dict[object, list[int]] = defaultdict(lambda: [0, 0])
        for counts, label in zip(batch.histogram.tolist(), batch.labels, strict=True):
            joint[FEATURES[name](counts)][label] += 1
        # The best guess on the samples themselves is at most a little better than the best guess.
        assert sum(map(max, joint.values())) / 6000 == pytest.approx(float(value), abs=0.025), name


def test_pentomino_ceilings_are_what_generated_samples_say() -> None:
    batch = Pentomino(seed=8).take(0, 40_000)
    classes = np.sort(np.where(batch.hints > 0, batch.hints, 99), axis=1)[:, :3] - 1
    named = pentomino_ceilings()
    for confused in range(6):
        merged = np.where((classes >= 5) & (classes < 5 + confused), classes - 5, classes)
        guess = (merged.min(1) == merged.max(1)).astype(int)
        name = "all classes" if not confused else f"all classes, {confused} pair{'s' * (confused > 1)} of them confused"
        assert (guess == batch.labels).mean() == pytest.approx(float(named[name]), abs=0.004)
    flat = batch.hints[batch.hints > 0].reshape(-1, 3)
    assert ((flat[:, 0] == flat[:, 1]) == batch.labels).mean() == pytest.approx(5 / 6, abs=0.008)


def test_a_run_s_stage_is_named() -> None:
    ceilings = allpairs_ceilings(4, 4)
    assert "two classes confused” (0.917)" in stage(ceilings, 0.91, 0.92)
    assert stage(ceilings, 0.88, 0.89).startswith("above “any class seen exactly once” (0.859) and below")
    assert "prior" in stage(ceilings, 0.49, 0.51)
    assert stage(ceilings, 0.999, 1.0).startswith("at “full histogram”")
