"""All-Pairs: the released generator's properties hold, and a sample does not depend on how it is generated."""

import concurrent.futures

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_allpairs import Plain
from scipy import ndimage, stats

from fractionate.errors import UsageError
from fractionate.testbeds.allpairs import generator
from fractionate.testbeds.allpairs.generator import AllPairs
from fractionate.testbeds.allpairs.symbols import NAMES
from fractionate.testbeds.pictures import symbol_patches

FIELDS = ("images", "labels", "classes", "boxes", "redrawn", "histogram")


def patches(name: str, count: int = 300) -> np.ndarray:
    return symbol_patches(AllPairs(), 0, count)[NAMES.index(name)]


def same(one: object, other: object, rows: slice = slice(None)) -> bool:
    return all((np.asarray(getattr(one, field)) == getattr(other, field)[rows]).all() for field in FIELDS)


# ---------------------------------------------------------------- labels and marginals


@pytest.mark.parametrize(("pairs", "types"), [(1, 2), (2, 2), (3, 3), (4, 4), (5, 18), (8, 8)])
def test_true_means_every_count_even_and_false_exactly_two_odd(pairs: int, types: int) -> None:
    batch = AllPairs(pairs, types, seed=3).take(0, 300)
    odd = batch.parities.sum(1)
    assert set(odd[batch.labels == 1]) == {0}
    assert set(odd[batch.labels == 0]) == {2}
    assert (batch.histogram.sum(1) == 2 * pairs).all()
    assert batch.images.shape == (300, 76 if pairs <= 5 else 96, 76 if pairs <= 5 else 96)


def test_labels_classes_sizes_and_places_are_uniform() -> None:
    batch = AllPairs(4, 4, seed=1).take(0, 4000)
    assert stats.binomtest(int(batch.labels.sum()), 4000).pvalue > 1e-4
    # An image's classes come in pairs, so the independent unit is the image: one symbol of each is tested.
    for place in (0, 7):
        assert stats.chisquare(np.bincount(batch.classes[:, place], minlength=4)).pvalue > 1e-4
    assert stats.chisquare(np.bincount(batch.boxes[:, 0, 2] - 15)).pvalue > 1e-4
    first = batch.boxes[batch.boxes[:, 0, 2] == 15, 0]
    assert first[:, :2].min() == 2
    assert first[:, :2].max() == 76 - 15 - 2
    for axis in (0, 1):
        assert stats.chisquare(np.bincount(first[:, axis] - 2, minlength=58)).pvalue > 1e-4


def test_labels_follow_the_plain_generator_s_distribution() -> None:
    plain, batch = Plain(0), AllPairs(3, 3, seed=5).take(0, 6000)
    drawn = [plain.contents(3, 3) for _ in range(6000)]
    histograms = np.array([np.bincount(symbols, minlength=3) for _, symbols in drawn])
    mine, theirs = (
        np.unique(histogram @ (1, 8, 64) + 512 * labels, return_counts=True)
        for histogram, labels in (
            (batch.histogram, batch.labels),
            (histograms, np.array([label for label, _ in drawn])),
        )
    )
    assert (mine[0] == theirs[0]).all()
    assert stats.chi2_contingency([mine[1], theirs[1]]).pvalue > 1e-4


# ---------------------------------------------------------------- images


def test_ink_is_about_six_per_cent_at_4_4_and_collisions_are_rare() -> None:
    batch = AllPairs(4, 4, seed=0).take(0, 3000)
    assert (batch.images > 0).mean() == pytest.approx(0.060, abs=0.0015)
    assert batch.redrawn.sum() / (3000 + batch.redrawn.sum()) == pytest.approx(0.006, abs=0.005)


def test_symbols_keep_their_distance_from_each_other_and_from_the_edge() -> None:
    batch = AllPairs(5, 18, seed=2).take(0, 200)
    assert not batch.images[:, :2].any()
    assert not batch.images[:, :, -2:].any()
    for image, boxes in zip(batch.images, batch.boxes, strict=True):
        inside = np.zeros(image.shape, bool)
        for top, left, size in boxes:
            inside[top : top + size, left : left + size] = True
        assert not image[~inside].any(), "all ink lies in the boxes of the hints"
        # Each symbol is at least one blob; two would merge here were there fewer than two dark pixels between them.
        assert ndimage.label(ndimage.binary_dilation(image > 0, np.ones((2, 2))), np.ones((3, 3)))[1] >= 10


def test_whole_images_follow_the_plain_generator() -> None:
    """Ink and restarts of crowded images, with every symbol among them, by two independent programs."""
    plain, batch = Plain(1), AllPairs(5, 18, seed=7).take(0, 1500)
    theirs = [plain.image([NAMES[symbol] for symbol in plain.contents(5, 18)[1]], 76) for _ in range(150)]
    ink = [(image > 1 / 510).mean() for image, _ in theirs]
    assert stats.ttest_ind((batch.images > 0).mean((1, 2)), ink, equal_var=False).pvalue > 1e-4
    light = [image.mean() for image, _ in theirs]
    assert stats.ttest_ind(batch.images.mean((1, 2)) / 255, light, equal_var=False).pvalue > 1e-4
    again, theirs_again = int((batch.redrawn > 0).sum()), sum(redrawn > 0 for _, redrawn in theirs)
    assert stats.fisher_exact([[again, 1500 - again], [theirs_again, 150 - theirs_again]]).pvalue > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_each_symbol_is_the_plain_one_on_average(name: str) -> None:
    plain = Plain(NAMES.index(name))
    mine = patches(name, 400) / 255
    theirs = np.zeros((150, 18, 18))
    for place in range(len(theirs)):
        patch = plain.draw(name).clip(0, 1)
        theirs[place, : len(patch), : len(patch)] = patch
    for weight in (np.ones(18), np.arange(18.0), (np.arange(18) - 8.5) ** 2):
        for axis in (1, 2):
            moments = [(part.sum(axis) * weight).sum(1) for part in (mine, theirs)]
            assert stats.ttest_ind(*moments, equal_var=False).pvalue > 1e-5


# ---------------------------------------------------------------- what each symbol looks like


def holes(patch: np.ndarray) -> int:
    """Return how many dark regions ink closes in; ink closes diagonally too."""
    return ndimage.label(np.pad(patch < 64, 1, constant_values=True))[1] - 1


def parts(patch: np.ndarray) -> int:
    return ndimage.label(patch >= 64, np.ones((3, 3)))[1]


def dots(patch: np.ndarray) -> int:
    """Return how many separate full 3 × 3 squares there are."""
    return ndimage.label(ndimage.minimum_filter(patch, 3) == 255, np.ones((3, 3)))[1]


def edges_met(patch: np.ndarray, size: int) -> int:
    whole = patch[:size, :size]
    return sum(bool(side.max() > 100) for side in (whole[0], whole[-1], whole[:, 0], whole[:, -1]))


def size_of(patch: np.ndarray) -> int:
    """Return the patch's size where strokes end on its far edges, else the largest possible."""
    return 1 + max(np.argwhere(patch > 0).max(0))


def share(name: str, holds: object, count: int = 300) -> float:
    return float(np.mean([holds(patch) for patch in patches(name, count)]))  # type: ignore[operator]


def test_open_strokes_enclose_nothing_and_hang_together() -> None:
    for name in ("line", "cross", "angle", "three_star", "barbell", "dot_line", "dot_on_line"):
        assert share(name, lambda patch: parts(patch) == 1) == 1, name
        assert share(name, lambda patch: holes(patch) == 0) > 0.9, name


def test_closed_shapes_enclose_what_their_edges_say() -> None:
    # Small drawings close up: at 15 px a box's radius may be 3 px. Large ones must show every hole.
    closed = {"box": 1, "box_diag": 2, "triangle_lid": 1, "hourglass": 2, "triangle": 1, "zshape": 0}
    for name, expected in closed.items():
        found = np.array([holes(patch) for patch in patches(name)])
        assert np.mean(found == expected) > (0.3 if expected == 2 else 0.6), name
        assert np.mean(found > expected) < 0.2, name


def test_circles_are_round_and_may_be_clipped() -> None:
    whole = [patch for patch in patches("circle") if holes(patch) == 1 and not patch[0].any() and not patch[:, 0].any()]
    assert len(whole) > 30
    for patch in whole:
        ys, xs = np.nonzero(patch > 64)
        away = np.hypot(ys - ys.mean(), xs - xs.mean())
        assert away.max() - away.min() < 2.5, "all ink is about equally far from the middle"
    assert 0.05 < share("circle", lambda patch: bool(patch[0].any())) < 0.8


def test_lines_cross_the_patch_from_edge_to_edge() -> None:
    for patch in patches("line"):
        height, width = np.ptp(np.argwhere(patch > 100), axis=0) + 1
        assert max(height, width) in (15, 16, 17, 18)
    for patch in patches("cross"):
        assert edges_met(patch, size_of(patch)) == 4


def test_rays_reach_so_many_edges() -> None:
    assert {edges_met(patch, size_of(patch)) for patch in patches("three_star")} <= {2, 3}
    assert all(patch[0].max() > 100 or patch[:, 0].max() > 100 for patch in patches("angle") if size_of(patch) < 15)


def test_theta_is_phi_turned_over() -> None:
    def lean(name: str) -> float:
        return float(np.mean([np.ptp(np.argwhere(patch > 100), axis=0) for patch in patches(name)], axis=0) @ (1, -1))

    assert lean("phi") > 1
    assert lean("theta") < -1
    assert share("phi", lambda patch: holes(patch) >= 2) > 0.9
    assert share("theta", lambda patch: holes(patch) >= 2) > 0.9


def test_two_circles_enclose_three_regions_where_they_are_whole() -> None:
    assert share("double_circle", lambda patch: holes(patch) >= 2) > 0.5
    assert share("double_circle", lambda patch: parts(patch) == 1) > 0.9
    assert share("circle_3star", lambda patch: edges_met(patch, 18) >= 1) > 0.2


def test_dots_are_where_the_name_says() -> None:
    assert share("barbell", lambda patch: dots(patch) == 2) > 0.9
    assert share("dot_line", lambda patch: dots(patch) == 1) == 1
    assert share("dot_on_line", lambda patch: dots(patch) == 1) > 0.98
    for patch in patches("dot_on_line", 100):
        ink, middle = np.argwhere(patch > 0), np.argwhere(ndimage.minimum_filter(patch, 3) == 255).mean(0)
        assert abs(ink.mean(0) - middle).max() < 1


# ---------------------------------------------------------------- the same samples, always


@settings(max_examples=15, deadline=None)
@given(start=st.integers(0, 10**12), count=st.integers(1, 40), skip=st.integers(0, 39))
def test_a_sample_does_not_depend_on_its_batch(start: int, count: int, skip: int) -> None:
    source = AllPairs(3, 5, seed=9)
    whole = source.take(start, 40)
    count = min(count, 40 - skip)
    assert same(source.take(start + skip, count), whole, slice(skip, skip + count))


@pytest.mark.parametrize(("pairs", "types"), [(4, 4), (8, 18)])
def test_torch_makes_the_same_samples(pairs: int, types: int) -> None:
    pytest.importorskip("torch")
    on_torch, on_numpy = (AllPairs(pairs, types, seed=4, device=device).take(10, 150) for device in ("cpu", None))
    assert same(on_torch, on_numpy)


def test_other_processes_make_the_same_samples() -> None:
    source = AllPairs(4, 4, seed=4)
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        made = list(pool.map(source.take, (0, 64), (64, 64)))
    whole = source.take(0, 128)
    assert same(made[0], whole, slice(0, 64))
    assert same(made[1], whole, slice(64, 128))


def test_samples_stay_what_they_are_from_version_to_version() -> None:
    import hashlib

    batch = AllPairs(4, 18, seed=0).take(0, 32)
    digest = hashlib.sha256(batch.images.tobytes() + batch.labels.tobytes() + batch.boxes.tobytes()).hexdigest()
    assert digest[:16] == "5e00d7be977fa2ee"


def test_seeds_and_splits_are_streams_of_their_own() -> None:
    one, seed, split = AllPairs(), AllPairs(seed=1), AllPairs(split="test")
    assert not (one.take(0, 50).images == seed.take(0, 50).images).all((1, 2)).any()
    assert not (one.take(0, 50).images == split.take(0, 50).images).all((1, 2)).any()


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pairs": 0}, "pairs must be 1 or more"),
        ({"types": 1}, "types must be 2 to 18"),
        ({"types": 19}, "types must be 2 to 18"),
        ({"side": 21}, "side must be 22 px or more"),
    ],
)
def test_settings_that_cannot_be_are_named(options: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        AllPairs(**options)


def test_symbols_that_do_not_fit_are_an_error_and_not_an_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "MOST_ATTEMPTS", 30)
    with pytest.raises(UsageError, match="do not fit into 40 × 40 px"):
        AllPairs(8, 2, side=40).take(0, 2)


def test_other_sides_work() -> None:
    assert AllPairs(1, 2, side=22 + 20).take(0, 10).images.shape == (10, 42, 42)
    assert AllPairs(10, 18, side=150).take(0, 4).images.shape == (4, 150, 150)
