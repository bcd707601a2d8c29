"""Sets of classes hold the true class as often as asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import GaussianNB

from headstart.decisions.conformal import PredictionSets, choose_sets, least_images, quantile_from_above, score_sets
from headstart.errors import DataError

NAMES = ("a", "b", "c")


def sample(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose three classes overlap; class c is rare, and hard to tell from b."""
    y = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    return rng.normal(size=(n, 4)) + np.array([[0, 0, 0, 0], [1.5, 0, 0, 0], [1.5, 1, 0, 0]])[y], y


@pytest.mark.parametrize("per_class", [False, True])
def test_the_coverage_on_further_images_is_the_one_asked_for(per_class: bool) -> None:
    rng = np.random.default_rng(0)
    covered, of_class = [], []
    for _ in range(100):
        X, y = sample(rng, 200)
        model = GaussianNB()
        left_out = cross_val_predict(model, X, y, cv=5, method="predict_proba")
        sets = choose_sets(y, left_out, NAMES, coverage=0.95, per_class=per_class)
        model.fit(X, y)
        X, y = sample(rng, 2000)
        score = score_sets(sets, y, model.predict_proba(X), NAMES)
        covered.append(score.coverage.value)
        of_class.append([score.of_each_class[name].value for name in NAMES])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015 if per_class else 0.01)
    if per_class:
        assert np.mean(of_class, axis=0) == pytest.approx([0.95] * 3, abs=0.03)
    else:
        assert np.mean(of_class, axis=0).min() < 0.93  # all together are covered, a hard class is not


def test_the_rank_is_that_of_one_image_more() -> None:
    values = np.arange(1.0, 101)
    assert quantile_from_above(values, 0.95) == 100 - math.ceil(0.95 * 101) + 1
    assert quantile_from_above(np.arange(19.0), 0.95) == 0  # 0.95 · 20 is 19, whatever its rounding error
    assert quantile_from_above(np.arange(18.0), 0.95) is None
    assert quantile_from_above(np.empty(0), 0.5) is None
    for level in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999):
        n = least_images(level)
        assert quantile_from_above(np.zeros(n), level) == 0
        assert quantile_from_above(np.zeros(n - 1), level) is None


def test_too_few_images_are_refused_and_counted() -> None:
    probabilities = np.full((40, 3), 1 / 3)
    y = np.repeat([0, 1, 2], [30, 5, 5])
    with pytest.raises(DataError, match=r"at least 19 training images of each class. Too few: b \(5\), c \(5\)"):
        choose_sets(y, probabilities, NAMES, coverage=0.95, per_class=True)
    with pytest.raises(DataError, match=r"at least 99 training images. Received: 40"):
        choose_sets(y, probabilities, NAMES, coverage=0.99, per_class=False)


def test_sets_hold_the_classes_that_reach_their_cutoff() -> None:
    sets = PredictionSets(0.9, True, (0.5, 0.2, 0.3))
    probabilities = np.array([[0.5, 0.2, 0.3], [0.49, 0.31, 0.2], [0.49, 0.19, 0.29]])
    assert sets.of(probabilities).tolist() == [[True, True, True], [False, True, False], [False, False, False]]
    found = score_sets(sets, np.array([0, 1, 2]), probabilities, NAMES)
    assert found.coverage.value == pytest.approx(2 / 3)
    assert found.mean_size == pytest.approx(4 / 3)
    assert found.unsure.value == pytest.approx(2 / 3)
    assert found.accuracy_of_sure.value == 1
    assert {name: one.value for name, one in found.of_each_class.items()} == {"a": 1, "b": 1, "c": 0}
