from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.evaluate.folds import Fold, Folds, inner_folds, make_folds, untrained
from headstart.evaluate.splits import coded, joined_units

ROWS = st.lists(
    st.tuples(st.integers(-1, 3), st.integers(0, 12), st.sampled_from(["", "", "", "p", "q", "r"]), st.integers(-1, 6)),
    min_size=4,
    max_size=70,
)


def table(rows: Sequence[tuple[int, int, str, int]]) -> tuple[np.ndarray, list[str], list[str], np.ndarray]:
    """Return labels, digests, groups and units."""
    labels, contents, groups, units = zip(*rows, strict=True)
    return np.array(labels), [f"{c:064x}" for c in contents], list(groups), np.array(units)


def folds_or_none(labels: np.ndarray, **options: object) -> Folds | None:
    try:
        return make_folds(labels, **options)
    except DataError:
        return None


@given(ROWS, st.integers(2, 6), st.integers(1, 2), st.integers(0, 2))
def test_every_labelled_row_is_tested_once_and_nothing_is_parted(rows, n_splits, n_repeats, random_state) -> None:
    labels, sha256, groups, units = table(rows)
    folds = folds_or_none(
        labels, n_splits=n_splits, n_repeats=n_repeats, sha256=sha256, groups=groups, units=units,
        random_state=random_state,
    )  # fmt: skip
    if folds is None:
        return
    labelled = np.flatnonzero(labels >= 0).tolist()
    assert len(folds.splits) == folds.n_splits * n_repeats
    for repeat in range(n_repeats):
        part = folds.splits[repeat * folds.n_splits :][: folds.n_splits]
        assert sorted(row for fold in part for row in fold.test.tolist()) == labelled
    for fold in folds.splits:
        train, test = set(fold.train.tolist()), set(fold.test.tolist())
        assert test
        assert sorted(train | test) == labelled
        for values, unshared in ((sha256, None), (groups, ""), (units.tolist(), -1)):
            assert not ({values[i] for i in train} & {values[i] for i in test}) - {unshared}


@given(ROWS, st.integers(2, 6), st.integers(0, 2))
def test_a_class_of_two_units_is_always_fitted_on(rows, n_splits, random_state) -> None:
    labels, _, _, units = table(rows)
    units = np.where(units < 0, -1, units * 10 + labels + 1)  # no unit of two classes
    folds = folds_or_none(labels, n_splits=n_splits, units=units, random_state=random_state)
    if folds is None:
        return
    own = joined_units(units)
    several = {c for c in np.unique(labels[labels >= 0]).tolist() if len(np.unique(own[labels == c])) > 1}
    assert folds.n_splits == min(n_splits, *(len(np.unique(own[labels == c])) for c in several))
    for fold in folds.splits:
        assert several <= set(labels[fold.train].tolist())
    assert any("tested without" in note for note in folds.notes) == (several != set(labels[labels >= 0].tolist()))


@given(ROWS, st.integers(2, 6))
def test_a_class_that_some_fold_does_not_fit_is_noted(rows, n_splits) -> None:
    labels, sha256, groups, units = table(rows)
    names = ("ant", "bee", "wasp", "moth")
    folds = folds_or_none(labels, n_splits=n_splits, sha256=sha256, groups=groups, units=units, class_names=names)
    if folds is None:
        return
    classes = set(labels[labels >= 0].tolist())
    missing = set().union(*(classes - set(labels[fold.train].tolist()) for fold in folds.splits))
    said = [note for note in folds.notes if "instead of" not in note]
    assert {c for c in classes if any(names[c] in note for note in said)} == missing


@given(st.lists(st.integers(10, 40), min_size=2, max_size=6), st.integers(2, 10), st.integers(0, 3))
def test_single_images_are_spread_evenly(sizes, n_splits, random_state) -> None:
    labels = np.random.default_rng(random_state).permutation(np.repeat(np.arange(len(sizes)), sizes))
    folds = make_folds(labels, n_splits=n_splits, random_state=random_state)
    counts = np.array([np.bincount(labels[fold.test], minlength=len(sizes)) for fold in folds.splits])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= len(sizes) / 2 + 1  # what is left over of each class goes where there is least


def test_large_units_are_balanced_too() -> None:
    labels = np.array([0] * 60 + [1] * 60)
    units = np.r_[np.repeat(np.arange(12), 5), 100 + np.repeat(np.arange(12), 5)]
    units[[0, 1, 2, 60, 61, 62]] = 500  # one unit of both classes
    folds = make_folds(labels, n_splits=4, units=units)
    counts = np.array([np.bincount(labels[fold.test]) for fold in folds.splits])
    assert np.ptp(counts, axis=0).max() <= 5


def test_a_seed_is_a_set_of_folds_and_repeats_differ() -> None:
    labels = np.repeat([0, 1], 30)
    once, twice = make_folds(labels, random_state=3), make_folds(labels, n_repeats=2, random_state=3)
    for one, other in zip(once.splits, twice.splits, strict=False):
        np.testing.assert_array_equal(one.test, other.test)
    assert set(twice.splits[0].test.tolist()) != set(twice.splits[5].test.tolist())
    assert set(make_folds(labels, random_state=4).splits[0].test.tolist()) != set(once.splits[0].test.tolist())


def test_a_rare_class_lowers_the_number_of_folds_and_is_named() -> None:
    labels = np.array([0] * 20 + [1] * 3)
    folds = make_folds(labels, n_splits=10, class_names=("ant", "bee"))
    assert folds.n_splits == 3
    assert folds.notes == ("3 folds instead of 10: bee has only 3 images that do not belong together.",)


def test_a_class_of_one_image_is_tested_once_unseen_and_noted() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2])
    folds = make_folds(labels, n_splits=5)
    assert folds.n_splits == 5
    assert sum(20 in fold.test for fold in folds.splits) == 1
    assert len(folds.notes) == 1
    assert folds.notes[0].startswith("class 2 has a single image")


@pytest.mark.parametrize(
    ("labels", "units"),
    [([0, 0, 0, 1], None), ([0, 1], None), ([0, 0, 1, 1], [0, 0, 1, 1]), ([0, 0, 1, 1, 0, 1], [5, 5, 5, 5, 5, 5])],
)
def test_what_cannot_be_divided_is_refused(labels: list[int], units: list[int] | None) -> None:
    with pytest.raises(DataError, match=r"at least two images each.*Received: "):
        make_folds(np.array(labels), units=None if units is None else np.array(units))


def test_a_fold_with_one_class_to_fit_on_is_refused() -> None:
    fold = Fold(np.array([0, 1]), np.array([2, 3]))
    with pytest.raises(DataError, match="single class to fit on"):
        untrained(np.array([0, 0, 0, 1]), [fold], {0: "ant", 1: "bee"}, np.array([3, 1]))


@pytest.mark.parametrize("options", [{"n_splits": 1}, {"n_repeats": 0}, {"groups": ["p"]}, {"units": np.arange(3)}])
def test_wrong_options_are_refused_with_what_was_received(options: dict[str, object]) -> None:
    with pytest.raises(DataError, match="Received"):
        make_folds(np.repeat([0, 1], 5), **options)


def test_inner_folds_have_the_numbers_of_the_outer_rows() -> None:
    rng = np.random.default_rng(0)
    labels, units = rng.integers(-1, 3, 200), rng.integers(0, 60, 200)
    outer = make_folds(labels, units=units).splits[0]
    inner = inner_folds(rng.permutation(outer.train), labels, units, n_splits=3)
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.test for fold in inner.splits])), outer.train)
    for fold in inner.splits:
        assert not set(units[fold.train].tolist()) & set(units[fold.test].tolist())
        assert not set(fold.train.tolist()) & set(fold.test.tolist())


@given(ROWS)
def test_units_hang_together_through_any_chain(rows) -> None:
    _, sha256, groups, units = table(rows)
    found = joined_units(coded(sha256), coded(group or None for group in groups), units)
    expected = list(range(len(rows)))
    changed = True
    while changed:  # the slow way: the smallest number of any relative, until nothing changes
        changed = False
        for i in range(len(rows)):
            for j in range(len(rows)):
                related = sha256[i] == sha256[j] or groups[i] == groups[j] != "" or units[i] == units[j] != -1
                if related and expected[i] > expected[j]:
                    expected[i], changed = expected[j], True
    np.testing.assert_array_equal(found, np.unique(expected, return_inverse=True)[1])


def test_no_balance_is_worth_a_class_that_is_not_fitted_on() -> None:
    # Twenty classes of 12, 9 and 8 images want the third unit beside the second, where the other image of class 0 is.
    many = np.arange(1, 21)
    parts = [np.repeat(many, 12), np.r_[0, np.full(200, 21)], np.repeat(many, 9), np.r_[0, np.repeat(many, 8)]]
    units = np.repeat(np.arange(4), [len(part) for part in parts])
    labels = np.concatenate(parts)
    folds = make_folds(np.r_[labels, 21], n_splits=2, units=np.r_[units, 4])
    assert all(0 in labels[fold.train[fold.train < len(labels)]] for fold in folds.splits)
    assert folds.notes == ()
