"""Clusters of cached features: their number, their order, what cannot be clustered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from headstart.cache.reader import FeatureCache
from headstart.errors import DataError
from headstart.labelling import clustering
from headstart.labelling.clustering import cluster_images
from labelled import labelled_cache

pytestmark = pytest.mark.slow

LABELS = [0] * 30 + [1] * 20 + [2] * 10


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return labelled_cache(tmp_path / "c.h5", LABELS, distance=3)


def test_the_range_finds_the_classes_by_the_silhouette(cache: Path) -> None:
    found = cluster_images(cache, (2, 6))
    assert found.n_clusters == 3
    assert sorted(found.silhouettes) == [2, 3, 4, 5, 6]
    assert adjusted_rand_score(LABELS, found.labels) == 1
    assert np.bincount(found.labels).tolist() == [30, 20, 10]  # the largest first


def test_a_given_number_is_the_number(cache: Path) -> None:
    found = cluster_images(cache, 5)
    assert found.n_clusters == 5
    assert list(found.silhouettes) == [5]


def test_members_begin_with_the_nearest_to_the_centre(cache: Path) -> None:
    found = cluster_images(cache, 3)
    rows = found.members(0)
    assert len(rows) == 30
    assert (np.diff(found.distances[rows]) >= 0).all()


def test_equal_seeds_give_equal_clusters(cache: Path) -> None:
    first, second = (cluster_images(cache, 4, random_state=3) for _ in range(2))
    assert (first.labels == second.labels).all()


def test_a_sample_and_mini_batches_find_the_same_classes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "MAX_SAMPLE", 40)
    monkeypatch.setattr(clustering, "MINI_BATCH_ROWS", 50)
    monkeypatch.setattr(clustering, "BLOCK_ROWS", 7)
    assert adjusted_rand_score(LABELS, cluster_images(cache, (2, 5)).labels) == 1


def test_images_whose_features_are_not_finite_are_in_no_cluster(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = FeatureCache.read_rows

    def damaged(self: FeatureCache, name: str, rows: np.ndarray) -> np.ndarray:
        values = read(self, name, rows)
        values[rows == 7] = np.nan
        return values

    monkeypatch.setattr(FeatureCache, "read_rows", damaged)
    found = cluster_images(cache, 3)
    assert np.flatnonzero(found.labels < 0).tolist() == [7]
    assert np.isnan(found.distances[7])
    assert adjusted_rand_score(np.delete(LABELS, 7), np.delete(found.labels, 7)) == 1


@pytest.mark.parametrize("n_clusters", [(2, 30), 2, 1])
def test_two_images_are_clusters_too(tmp_path: Path, n_clusters: int | tuple[int, int]) -> None:
    found = cluster_images(labelled_cache(tmp_path / "c.h5", [0, 1]), n_clusters)
    assert set(found.silhouettes.values()) == {0.0}  # none is defined where each image is a cluster, or all are one


def test_as_many_clusters_as_images(cache: Path) -> None:
    assert cluster_images(cache, len(LABELS)).n_clusters == len(LABELS)


def test_a_class_of_equal_images_is_no_reason_to_fail(tmp_path: Path) -> None:
    path = labelled_cache(tmp_path / "c.h5", [0] * 6, copies=dict.fromkeys(range(1, 5), 0))
    assert cluster_images(path, (2, 30)).n_clusters == 2


@pytest.mark.parametrize(
    ("labels", "copies", "n_clusters", "words"),
    [
        ([0], {}, 2, "at least two"),
        ([0, 1, 2], {}, 4, r"3 different images, too few for 4 clusters\. Ask for fewer"),
        ([0, 0], {1: 0}, 2, r"1 different image, too few for 2 clusters\. They look the same"),
        ([0, 0, 0], {1: 0, 2: 0}, (2, 5), "1 different image, too few"),
        ([0, 1, 2], {}, (5, 2), "Received: 5 to 2"),
        ([0, 1, 2], {}, 0, "Received: 0 to 0"),
    ],
)
def test_what_cannot_be_clustered_is_said(
    tmp_path: Path, labels: list[int], copies: dict[int, int], n_clusters: int | tuple[int, int], words: str
) -> None:
    path = labelled_cache(tmp_path / "c.h5", labels, copies=copies)
    with pytest.raises(DataError, match=words):
        cluster_images(path, n_clusters)
