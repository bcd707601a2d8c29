from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.evaluate.splits import split_by_caches, split_by_column, split_by_fraction


def digests(n: int) -> list[str]:
    return [f"{i:064x}" for i in range(n)]


def test_every_class_has_its_share() -> None:
    labels = np.repeat([0, 1, 2], [100, 40, 20])
    split = split_by_fraction(labels, fraction=0.25, sha256=digests(160))
    assert np.bincount(labels[split.validation]).tolist() == [25, 10, 5]
    assert sorted([*split.train, *split.validation]) == list(range(160))


def test_a_seed_is_a_split() -> None:
    labels = np.repeat([0, 1], 30)
    first, again, other = (
        split_by_fraction(labels, fraction=0.5, sha256=digests(60), random_state=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.validation, again.validation)
    assert set(first.validation) != set(other.validation)


@given(
    st.lists(
        st.tuples(st.integers(-1, 2), st.integers(0, 8), st.sampled_from(["", "", "p", "q", "r"])),
        min_size=4,
        max_size=60,
    ),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
)
def test_nothing_that_belongs_together_is_parted(
    rows: list[tuple[int, int, str]], fraction: float, random_state: int
) -> None:
    labels = np.array([label for label, _, _ in rows])
    sha256 = [f"{content:064x}" for _, content, _ in rows]
    groups = [group for _, _, group in rows]
    try:
        split = split_by_fraction(labels, fraction=fraction, sha256=sha256, groups=groups, random_state=random_state)
    except DataError:
        return
    train, held_out = set(split.train.tolist()), set(split.validation.tolist())
    assert train | held_out == set(np.flatnonzero(labels >= 0).tolist())
    assert not train & held_out
    assert not {sha256[i] for i in train} & {sha256[i] for i in held_out}
    assert not ({groups[i] for i in train} & {groups[i] for i in held_out}) - {""}
    assert len(np.unique(labels[split.train])) >= 2


def test_a_class_of_one_image_is_trained_on() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2])
    split = split_by_fraction(labels, fraction=0.5, sha256=digests(21))
    assert 20 in split.train


@pytest.mark.parametrize("labels", [[0, 0, 0], [-1, -1, -1], [0, -1, -1], []])
def test_fewer_than_two_classes_are_refused(labels: list[int]) -> None:
    with pytest.raises(DataError, match="at least two classes"):
        split_by_fraction(np.array(labels, int), fraction=0.5, sha256=digests(len(labels)))


@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.1])
def test_a_fraction_is_a_share(fraction: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        split_by_fraction(np.array([0, 1]), fraction=fraction, sha256=digests(2))


def test_training_copies_of_scored_images_are_dropped_and_counted() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    splits = ["train", "train", "train", "train", "validation", "validation"]
    sha256 = digests(6)
    sha256[4] = sha256[0]
    split = split_by_column(labels, splits, validation="validation", sha256=sha256)
    assert split.train.tolist() == [1, 2, 3]
    assert split.validation.tolist() == [4, 5]
    assert split.n_dropped == 1


def test_training_images_of_a_scored_group_are_dropped() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    splits = ["train", "train", "train", "train", "test", "test"]
    groups = ["p", "", "", "", "p", ""]
    split = split_by_column(labels, splits, validation="test", sha256=digests(6), groups=groups)
    assert split.train.tolist() == [1, 2, 3]


def test_a_split_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(DataError, match=r"'test' needs.*Received: train, validation"):
        split_by_column(np.array([0, 1]), ["train", "validation"], validation="test", sha256=digests(2))


def test_another_cache_is_scored_whole() -> None:
    labels, other = np.array([0, 1, 0, 1]), np.array([1, 0, -1])
    split = split_by_caches(labels, other, sha256=digests(4), other_sha256=[digests(4)[0], "x", "y"])
    assert split.train.tolist() == [1, 2, 3]
    assert split.validation.tolist() == [0, 1]
    assert split.n_dropped == 1


def test_without_any_label_clusters_are_named() -> None:
    with pytest.raises(DataError, match=r"Found no labelled images\..*headstart cluster CACHE"):
        split_by_fraction(np.array([-1, -1]), fraction=0.5, sha256=["a", "b"])
