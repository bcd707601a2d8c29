from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caches import CLASS_NAMES, RECIPE, make_batch, make_row
from headstart.backbones.registry import BACKBONES
from headstart.cache.reader import open_cache
from headstart.cache.writer import ShardWriter
from headstart.errors import DataError
from headstart.evaluate.folds import make_folds
from headstart.evaluate.leakage import deepest_feature, find_leaks, last_block, last_block_of, near_units
from headstart.evaluate.splits import split_by_column


class Photos:
    """Two hundred images to fit on and a hundred to score, all different; features of two classes."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.arange(300) % 2
        self.splits = ["train"] * 200 + ["test"] * 100
        self.sha256 = [f"{i:064x}" for i in range(300)]
        self.groups = [""] * 300
        centres = np.abs(rng.normal(size=(2, 64)))
        self.pooled = (centres[self.labels] + np.abs(rng.normal(size=(300, 64)))).astype(np.float32)

    def found(self) -> dict[tuple[str, str, str], tuple[list[int], list[int]]]:
        leaks = find_leaks(self.labels, self.splits, sha256=self.sha256, groups=self.groups, pooled=self.pooled)
        return {
            (leak.kind, leak.fitted, leak.scored): (leak.fitted_rows.tolist(), leak.scored_rows.tolist())
            for leak in leaks
        }


@pytest.fixture
def photos() -> Photos:
    return Photos()


def test_where_all_images_differ_nothing_leaks(photos: Photos) -> None:
    assert photos.found() == {}


def test_test_images_copied_into_train_are_reported_and_left_out_of_training(photos: Photos) -> None:
    copied = np.arange(200, 300, 10)  # one test image in ten
    for target, source in enumerate(copied):
        photos.sha256[target], photos.pooled[target] = photos.sha256[source], photos.pooled[source]
    assert photos.found() == {("identical", "train", "test"): (list(range(10)), copied.tolist())}
    leaks = find_leaks(photos.labels, photos.splits, sha256=photos.sha256)
    assert [leak.sentence for leak in leaks] == [
        "10 of the 100 test images (10.0%) have the same bytes as 10 train images."
    ]
    split = split_by_column(photos.labels, photos.splits, validation="test", sha256=photos.sha256)
    assert split.train.tolist() == list(range(10, 200))
    assert split.n_dropped == 10


def test_copies_that_were_saved_again_are_reported_and_can_be_left_out(photos: Photos) -> None:
    rng = np.random.default_rng(1)
    copied = np.arange(200, 300, 10)
    photos.pooled[:10] = photos.pooled[copied] * (1 + 0.02 * rng.normal(size=(10, 64)))
    assert photos.found() == {("near", "train", "test"): (list(range(10)), copied.tolist())}
    assert find_leaks(photos.labels, photos.splits, sha256=photos.sha256, groups=photos.groups) == []
    groups = [str(unit) for unit in near_units(photos.pooled)]
    split = split_by_column(photos.labels, photos.splits, validation="test", sha256=photos.sha256, groups=groups)
    assert split.train.tolist() == list(range(10, 200))


def test_groups_on_both_sides_are_reported(photos: Photos) -> None:
    photos.groups[3] = photos.groups[4] = photos.groups[250] = "patient 7"
    photos.groups[5] = photos.groups[6] = "patient 8"
    assert photos.found() == {("group", "train", "test"): ([3, 4], [250])}


def test_each_two_splits_are_compared_in_the_order_of_their_use(photos: Photos) -> None:
    photos.splits[180:200] = ["validation"] * 20
    photos.splits[0] = ""
    photos.sha256[0] = photos.sha256[1] = photos.sha256[190] = photos.sha256[250]
    photos.labels[2] = -1
    photos.sha256[2] = photos.sha256[260]
    assert photos.found() == {
        ("identical", "train", "validation"): ([1], [190]),
        ("identical", "train", "test"): ([1], [250]),
        ("identical", "validation", "test"): ([190], [250]),
    }


def test_without_two_splits_there_is_nothing_to_compare(photos: Photos) -> None:
    photos.splits = [""] * 200 + ["test"] * 100
    photos.sha256[0] = photos.sha256[250]
    assert photos.found() == {}


@given(
    st.lists(
        st.tuples(st.integers(-1, 1), st.sampled_from(["", "train", "test", "extra"]), st.integers(0, 9)), max_size=40
    )
)
def test_what_is_reported_is_what_a_slow_search_finds(rows: list[tuple[int, str, int]]) -> None:
    labels = np.array([label for label, _, _ in rows], int)
    splits, contents = [split for _, split, _ in rows], [str(content) for _, _, content in rows]
    expected = {
        (i, j)
        for i, (a, side, content) in enumerate(rows)
        for j, (b, other, same) in enumerate(rows)
        if a >= 0 and b >= 0 and content == same and "" not in (side, other) and side != other
    }
    leaks = find_leaks(labels, splits, sha256=contents)
    reported = {
        pair
        for leak in leaks
        for i in leak.fitted_rows.tolist()
        for j in leak.scored_rows.tolist()
        if contents[i] == contents[j]
        for pair in ((i, j), (j, i))
    }
    assert reported == expected
    assert {leak.fitted for leak in leaks} <= {"train", "test"}  # other names come last


def test_columns_of_other_lengths_are_refused(photos: Photos) -> None:
    with pytest.raises(DataError, match=r"one of pooled for each of 300 labels\. Received: 299"):
        find_leaks(photos.labels, photos.splits, sha256=photos.sha256, pooled=photos.pooled[1:])


# Units of images that look the same


def test_pictures_saved_again_stay_together_in_folds(photos: Photos) -> None:
    rng = np.random.default_rng(2)
    photos.pooled[100:150] = photos.pooled[:50] * (1 + 0.02 * rng.normal(size=(50, 64)))
    units = near_units(photos.pooled)
    assert units.tolist() == [*range(100), *range(50), *range(100, 250)]
    for fold in make_folds(photos.labels, units=units).splits:
        assert not set(units[fold.train].tolist()) & set(units[fold.test].tolist())


def test_the_averages_of_a_cache_are_those_of_its_last_pooled_layer(tmp_path: Path) -> None:
    recipe, layers = replace(RECIPE, pooled_layers=("early", "late")), ("early",) * 3 + ("late",) * 2
    with ShardWriter(tmp_path / "a.h5", recipe=recipe, class_names=CLASS_NAMES) as writer:
        batch = replace(make_batch([0, 1]), pooled_column_layer=layers)
        writer.append(batch, [make_row(0), make_row(1)])
    with open_cache(tmp_path / "a.h5") as cache:
        np.testing.assert_array_equal(last_block(cache), batch.pooled[:, 3:])
        np.testing.assert_array_equal(last_block_of(batch, recipe), batch.pooled[:, 3:])


def test_near_duplicates_are_found_by_the_deepest_layer() -> None:
    def deepest(backbone: str, **options: str) -> str:
        return deepest_feature(BACKBONES[backbone].recipe(weights_sha256="", **options))

    assert deepest("vgg16") == "block5_conv3"
    assert deepest("vgg19") == "block5_conv4"
    assert {deepest(name) for name in BACKBONES if not name.startswith("vgg")} == {"avg"}
    assert deepest("efficientnet-lite2", layer="stem") == "block16_expand"
    assert deepest_feature(replace(RECIPE, pooled_layers=())) == "avg"


def test_features_that_are_not_finite_are_like_no_others() -> None:
    pooled = np.ones((5, 8), np.float32)
    pooled[1], pooled[3] = np.nan, np.inf
    assert near_units(pooled).tolist() == [0, 1, 0, 2, 0]
    assert near_units(pooled[:0]).tolist() == []


def test_features_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match="Received"):
        near_units(np.ones(4))
