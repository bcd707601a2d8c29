from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headstart.errors import DataError
from headstart.evaluate.significance import compare, corrected_resampled_t, holm, mcnemar


def test_without_shared_training_images_it_is_the_plain_t_test() -> None:
    differences = np.array([0.01, 0.03, -0.01, 0.02, 0.02])
    assert corrected_resampled_t(differences, 1e12, 1) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_corrected_t_by_hand() -> None:
    # Mean 0.02, variance 0.00025 of five folds; t = 0.02 / √((1/5 + 1/4) · 0.00025) = 1.885618 with 4 degrees of freedom
    differences = np.array([0.0, 0.01, 0.02, 0.03, 0.04])
    expected = 2 * (1 - stats.t.cdf(1.885618, 4))
    assert corrected_resampled_t(differences, 80, 20) == pytest.approx(expected, rel=1e-5)
    assert corrected_resampled_t(-differences, 80, 20) == pytest.approx(expected, rel=1e-5)


def test_no_difference_and_equal_differences() -> None:
    assert corrected_resampled_t(np.zeros(5), 80, 20) == 1
    assert corrected_resampled_t(np.full(5, 0.1), 80, 20) == 0
    # Heads that differ by one image of twenty in each of two folds differ by less than certainty.
    # √((1/2 + 20/20) / (12 · 20²)) = 0.0176777, t = 0.05 / 0.0176777 = 2.828427 with 1 degree of freedom
    assert compare({"a": [0.9, 0.9], "b": [0.85, 0.85]}, 20, 20, "a")["b"] == pytest.approx(0.216347, abs=1e-6)


@pytest.mark.parametrize("differences", [[0.1], [0.1, np.nan], []])
def test_what_cannot_be_tested_is_refused(differences: list[float]) -> None:
    with pytest.raises(DataError, match="Received"):
        corrected_resampled_t(np.array(differences), 80, 20)


def test_mcnemar_as_published() -> None:
    # Fagerland, Lydersen & Laake, 2013, table 1: airway hyper-responsiveness, 1 and 7 discordant pairs of 21
    y = np.ones(21, int)
    a, b = y.copy(), y.copy()
    a[:1] = 0
    b[1:8] = 0
    assert mcnemar(y, a, b, mid_p=False) == pytest.approx(0.0703125)
    assert mcnemar(y, a, b) == pytest.approx(0.0390625)
    assert mcnemar(y, b, a) == mcnemar(y, a, b)
    assert mcnemar(y, a, b, mid_p=False) == pytest.approx(stats.binomtest(1, 8).pvalue)


def test_mcnemar_of_equal_heads_is_one() -> None:
    y = np.array([0, 1, 2, 0])
    assert mcnemar(y, y, y) == 1
    assert mcnemar(y, np.array([1, 1, 2, 0]), np.array([0, 1, 2, 1])) == pytest.approx(1)
    assert mcnemar(y, np.array([1, 1, 2, 0]), np.array([2, 1, 2, 0])) == 1  # both wrong: nothing to tell them by


def test_mcnemar_of_other_lengths_is_refused() -> None:
    with pytest.raises(DataError, match="4 labels, 3 and 4 predictions"):
        mcnemar(np.zeros(4, int), np.zeros(3, int), np.zeros(4, int))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])
    assert len(holm([])) == 0


def test_heads_are_compared_with_the_best_and_corrected() -> None:
    rng = np.random.default_rng(0)
    best = 0.9 + rng.normal(scale=0.01, size=10)
    folds = {"near": best - 0.001 + rng.normal(scale=0.01, size=10), "best": best, "far": best - 0.1, "same": best}
    found = compare(folds, 900, 100, "best")
    assert list(found) == ["near", "far", "same"]
    assert found["far"] < 1e-6
    assert found["near"] > 0.3
    assert found["same"] == 1
    alone = compare({"best": best, "near": folds["near"]}, 900, 100, "best")["near"]
    assert found["near"] == pytest.approx(min(1.0, 2 * alone))
    assert compare({"best": best}, 900, 100, "best") == {}


@pytest.mark.parametrize("folds", [{"a": [0.5, 0.6]}, {"best": [0.5, 0.6], "a": [0.5, 0.6, 0.7]}])
def test_other_folds_and_a_missing_best_are_refused(folds: dict[str, list[float]]) -> None:
    with pytest.raises(DataError, match=r"'best'.*Received: .*a of"):
        compare(folds, 80, 20, "best")


def test_equal_heads_are_told_apart_as_rarely_as_the_test_says() -> None:
    # Two nearest-centroid rules on different, equally good columns; ten random divisions of 60 images, as in the paper.
    rng = np.random.default_rng(0)
    corrected = plain = 0
    for _ in range(200):
        y = np.arange(60) % 2
        X = rng.normal(size=(60, 2)) + y[:, None]
        differences = []
        for _ in range(10):
            order = rng.permutation(60)
            train, test = order[:50], order[50:]
            middle = (X[train][y[train] == 0].mean(axis=0) + X[train][y[train] == 1].mean(axis=0)) / 2
            right = (X[test] > middle) == y[test][:, None].astype(bool)
            differences.append(right[:, 0].mean() - right[:, 1].mean())
        corrected += corrected_resampled_t(np.array(differences), 50, 10) < 0.05
        plain += corrected_resampled_t(np.array(differences), 1e12, 1) < 0.05
    assert corrected <= 20  # of 200, 10 expected
    assert plain > 25
