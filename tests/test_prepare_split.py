"""Which rows are held out: exact numbers of each class, whole groups, nothing that blocks could change."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xwb import DataError, OptionError
from xwb.training import _split as split
from xwb.training._prepare import prepare
from xwb.training._split import Draw, choose_groups, shares

GRAIN = 512


@pytest.fixture(autouse=True, scope="module")
def grains():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "GRAINS", (64, GRAIN))
        yield


def _held(y, **options):
    """The numbers of the rows of each part."""
    with prepare(np.arange(len(y))[:, None], y, standardise=False, **options) as data:
        return {
            name: np.concatenate([block.X[:, 0].astype(int) for block in part.blocks()])
            for name, part in data.parts.items()
        }


@pytest.mark.parametrize(
    ("holdout", "rows", "expected"), [(0.2, 7, 1), (0.3, 5, 2), (0.1, 5, 1), (0.5, 1, 1), (0.0, 9, 0), (0.29, 50, 15)]
)
def test_a_half_is_rounded_up_in_decimal(holdout, rows, expected):
    assert shares(holdout, np.array([rows, 0])).tolist() == [expected, 0]


@settings(max_examples=50, deadline=None)
@given(data=st.data(), holdout=st.sampled_from([0.1, 0.25, 0.5, 0.77]), seed=st.integers(0, 2**40))
def test_exact_counts_in_any_blocks(data, holdout, seed):
    counts = data.draw(st.lists(st.integers(1, 3 * GRAIN), min_size=1, max_size=5))
    codes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    wanted = shares(holdout, np.array(counts))
    together = Draw(np.array(counts), wanted, seed).mask(codes)
    np.testing.assert_array_equal(np.bincount(codes[together], minlength=len(counts)), wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(codes)), max_size=5)))
    draw = Draw(np.array(counts), wanted, seed)
    np.testing.assert_array_equal(np.concatenate([draw.mask(part) for part in np.split(codes, cuts)]), together)


def test_each_row_is_as_likely():
    rows, wanted, draws = 3 * GRAIN, GRAIN // 2, 2000
    times = np.zeros(rows)
    pairs = 0
    for seed in range(draws):
        mask = Draw(np.array([rows]), np.array([wanted]), seed).mask(np.zeros(rows, np.intp))
        times += mask
        pairs += mask[0] and mask[GRAIN]
    p = wanted / rows
    deviation = np.sqrt(draws * p * (1 - p))
    assert abs(times - draws * p).max() < 5 * deviation
    # And two rows at the same place of two grains have nothing to do with each other.
    both = p * (wanted - 1) / (rows - 1)
    assert abs(pairs - draws * both) < 5 * np.sqrt(draws * both)


def test_more_classes_than_two_bytes_number():
    wanted = np.arange(70_000) % 2
    codes = np.random.default_rng(0).permutation(70_000)
    np.testing.assert_array_equal(Draw(np.ones(70_000, int), wanted, 0).mask(codes), codes % 2)


def test_grains_share_as_a_hypergeometric_draw_does():
    rows, wanted = 2 * GRAIN, GRAIN
    first = [
        Draw(np.array([rows]), np.array([wanted]), seed).mask(np.zeros(GRAIN, np.intp)).sum() for seed in range(1000)
    ]
    variance = GRAIN * 0.5 * 0.5 * GRAIN / (rows - 1)
    assert abs(np.mean(first) - GRAIN / 2) < 5 * np.sqrt(variance / 1000)
    assert 0.75 < np.var(first) / variance < 1.25


def test_strata_and_seeds():
    y = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [9, 500, 1]))
    found = _held(y, holdout=0.25)
    np.testing.assert_array_equal(np.bincount(y[found["validation"]], minlength=3), [2, 125, 0])
    np.testing.assert_array_equal(np.sort(np.concatenate(list(found.values()))), np.arange(len(y)))
    assert all((np.diff(rows) > 0).all() for rows in found.values())
    again, other = _held(y, holdout=0.25), _held(y, holdout=0.25, seed=1)
    np.testing.assert_array_equal(again["validation"], found["validation"])
    assert set(other["validation"]) != set(found["validation"])
    assert len(_held(y + 0.5, holdout=0.25)["validation"]) == 128


@pytest.mark.parametrize("kind", [int, str, float])
def test_groups_stay_together(kind):
    rng = np.random.default_rng(1)
    groups, y = rng.integers(0, 40, 1000), rng.integers(0, 2, 1000)
    found = _held(y, groups=groups.astype(kind), holdout=0.3)
    train, held = (set(groups[found[name]]) for name in ("train", "validation"))
    assert not train & held
    assert len(train | held) == 40
    sizes = Counter(groups.tolist())
    assert abs(len(found["validation"]) - 300) <= max(sizes.values()) / 2
    assert all(
        abs(len(found["validation"]) + sizes[int(g)] - 300) >= abs(len(found["validation"]) - 300) for g in train
    )
    other = _held(y, groups=groups.astype(kind), holdout=0.3, seed=1)
    assert set(groups[other["validation"]]) != held
    assert set(_held(y, groups=groups, holdout=0)) == {"train"}


def test_groups_of_text_in_a_file(tmp_path):
    rows = [f"{i},{i % 2},{'007' if i % 3 else '7'}" for i in range(30)]
    (tmp_path / "a.csv").write_text("x,y,g\n" + "\n".join(rows))
    with prepare(tmp_path / "a.csv", "y", groups="g", holdout=0.3, standardise=False) as data:
        assert data.feature_names == ["x"]
        found = np.concatenate([block.X[:, 0] for block in data.parts["validation"].blocks()])
        np.testing.assert_array_equal(found, np.arange(0, 30, 3))


def test_a_large_group_does_not_end_the_search():
    sizes = {"large": 90, **{f"g{i}": 1 for i in range(10)}}
    for seed in range(20):
        chosen = choose_groups(sizes, 0.05, seed)
        assert sum(sizes[group] for group in chosen) == round(Fraction("0.05") * 100)


def test_a_row_without_a_group():
    for groups in (np.array([1.0, np.nan, 2]), np.array(["a", "", "b"])):
        with pytest.raises(DataError, match="row 2: the group groups is missing"):
            prepare(np.zeros((3, 1)), np.arange(3), groups=groups)


@pytest.mark.parametrize("holdout", [-0.1, 1, 1.0, np.nan, "0.2", None, True])
def test_holdouts_that_are_none(holdout):
    with pytest.raises(OptionError, match="--holdout is a fraction from 0 and below 1; this is"):
        prepare(np.zeros((4, 1)), np.arange(4), holdout=holdout)


@pytest.mark.parametrize("seed", [-1, 1.0, None, True])
def test_seeds_that_are_none(seed):
    with pytest.raises(OptionError, match="--seed is an integer from 0; this is"):
        prepare(np.zeros((4, 1)), np.arange(4), seed=seed)


def test_parts_without_rows():
    X, y = np.arange(4)[:, None], np.arange(4)
    with pytest.raises(DataError, match=r"--holdout 0\.5 of 4 rows leaves none to train on; give a smaller fraction"):
        prepare(X, y, holdout=0.5)
    with pytest.raises(
        DataError,
        match=r"--holdout 0.2 of 4 rows holds none out: none of the 4 classes has 3 rows; give a larger.*--holdout 0",
    ):
        prepare(X, y)
    with pytest.raises(DataError, match=r"--groups groups has one value in all 4 rows, .*; leave --groups out"):
        prepare(X, y % 2, groups=np.ones(4, int))
    with prepare(X, y, holdout=0) as data:
        assert data.class_counts == {"train": [1, 1, 1, 1]}


def test_a_class_that_is_not_in_training():
    y = np.repeat([0, 1], [1, 9])
    with prepare(np.arange(10)[:, None], y, holdout=0.5) as data:
        assert data.class_counts == {"train": [0, 4], "validation": [1, 5]}
        assert "no training row is of the class 0" in data.notes
    with pytest.raises(DataError, match="--class-weight balanced: no training row with a weight is of the class 0"):
        prepare(np.arange(10)[:, None], y, holdout=0.5, class_weight="balanced")
