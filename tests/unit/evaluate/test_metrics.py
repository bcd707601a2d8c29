from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from headstart.errors import DataError
from headstart.evaluate.metrics import score, wilson_interval


@pytest.fixture
def example() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    probabilities = rng.dirichlet(np.ones(3), 200)
    probabilities[np.arange(200), y] += 0.5
    return y, probabilities / probabilities.sum(axis=1, keepdims=True)


def test_scores_are_those_of_scikit_learn(example: tuple[np.ndarray, np.ndarray]) -> None:
    y, probabilities = example
    predicted = probabilities.argmax(axis=1)
    result = score(y, probabilities, ("a", "b", "c"))
    assert result.accuracy == pytest.approx(metrics.accuracy_score(y, predicted))
    assert result.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(y, predicted))
    assert result.f1_macro == pytest.approx(metrics.f1_score(y, predicted, average="macro"))
    assert result.log_loss == pytest.approx(metrics.log_loss(y, probabilities))
    assert result.confusion == metrics.confusion_matrix(y, predicted).tolist()
    assert [row["support"] for row in result.per_class] == np.bincount(y).tolist()


def test_a_class_that_is_absent_counts_for_nothing() -> None:
    y = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.3, 0.7, 0], [0.6, 0.4, 0]])
    result = score(y, probabilities, ("a", "b", "never"))
    assert result.balanced_accuracy == 0.75
    assert result.f1_macro == pytest.approx(metrics.f1_score(y, probabilities.argmax(axis=1), average="macro"))
    assert result.per_class[2] == {"class": "never", "precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert result.log_loss == pytest.approx(metrics.log_loss(y, probabilities, labels=[0, 1, 2]))


def test_a_certain_mistake_has_a_finite_loss() -> None:
    assert np.isfinite(score(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), ("a", "b")).log_loss)


def test_wilson_interval_as_published() -> None:
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for right, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("shape", [(0, 2), (3, 3)])
def test_nothing_to_score_and_wrong_shapes_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="Received"):
        score(np.zeros(shape[0], int), np.ones(shape), ("a", "b"))
