"""Several caches of the same images, read as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from caches import RECIPE, write_cache
from headstart.cache.reader import FeatureCache, open_cache
from headstart.errors import CacheError, DataError
from headstart.evaluate.joined_caches import join_caches

ALL = np.arange(7)


@pytest.fixture
def caches(tmp_path: Path) -> Iterator[list[FeatureCache]]:
    """The same seven images in two orders, of two recipes, the second time among others."""
    one = write_cache(tmp_path / "one.h5", range(7))
    two = write_cache(tmp_path / "two.h5", [8, 3, 6, 0, 5, 1, 4, 2, 7], recipe=replace(RECIPE, input_size_px=16))
    with ExitStack() as stack:
        yield [stack.enter_context(open_cache(path)) for path in (one, two)]


def test_a_row_has_the_features_of_one_image_in_every_cache(caches: list[FeatureCache]) -> None:
    joined = join_caches(caches, ALL)
    rows = np.array([6, 0, 0, 3, 5])
    batches = list(joined.batches(rows, batch_rows=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    expected = np.concatenate([batch.features for batch in caches[0].batches(rows)])
    for part in (
        batches,
        [batch.others[0] for batch in batches],
    ):  # features follow from the image
        np.testing.assert_array_equal(np.concatenate([one.features for one in part]), expected)
    assert (joined.sha256, joined.class_names, joined.n_images) == (caches[0].sha256, caches[0].class_names, 7)


def test_batches_are_as_small_as_the_cache_with_the_largest_rows_needs(
    caches: list[FeatureCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches[1], "rows_per_batch", lambda _: 3)
    assert [len(batch) for batch in join_caches(caches, ALL).batches(ALL)] == [3, 3, 1]


def test_values_that_are_not_finite_are_found_in_every_cache(tmp_path: Path, caches: list[FeatureCache]) -> None:
    caches[1].close()
    with h5py.File(tmp_path / "two.h5", "r+") as file:
        file["pooled"][3] = np.nan
    with open_cache(tmp_path / "two.h5") as damaged:
        joined = join_caches([caches[0], damaged], ALL)
        with pytest.raises(CacheError, match=r"two.h5 is damaged: row 3"):
            list(joined.batches(ALL, finite=True))


def test_images_that_are_missing_are_counted_and_only_those_that_are_used_count(caches: list[FeatureCache]) -> None:
    two, one = caches
    with pytest.raises(DataError, match=r"one.h5 lacks 2 of the 9 images of .*two.h5: .*8.jpg"):
        join_caches([one, two], np.arange(9))
    assert join_caches([one, two], np.array([1, 2])).n_images == 9


def test_one_recipe_twice_is_refused(tmp_path: Path, caches: list[FeatureCache]) -> None:
    with pytest.raises(DataError, match=r"one.h5 is named twice"):
        join_caches([caches[0], caches[0]], ALL)
    again = write_cache(tmp_path / "again.h5")
    refused = pytest.raises(DataError, match=r"one.h5 and .*again.h5 were made by the same recipe")
    with open_cache(again) as same, refused:
        join_caches([*caches, same], ALL)
    with pytest.raises(DataError, match="nothing to join"):
        join_caches(caches[:1], ALL)
