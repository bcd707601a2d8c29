from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from headstart.heads.base import fit_temperature


@pytest.mark.parametrize("temperature", [0.02, 1.0, 300.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20_000, 4))
    drawn = softmax(scores / 0.5, axis=1).cumsum(axis=1)
    labels = (rng.random((len(scores), 1)) < drawn).argmax(axis=1)
    assert fit_temperature(scores * temperature, labels) == pytest.approx(0.5 * temperature, rel=0.05)


def test_weights_are_rows_repeated() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    weights = rng.integers(1, 4, 60)
    repeated = fit_temperature(np.repeat(scores, weights, axis=0), np.repeat(labels, weights))
    # The smoothing of the targets knows of rows, not of weights: the two differ by little.
    assert fit_temperature(scores, labels, weights.astype(float)) == pytest.approx(repeated, rel=0.1)


def test_scores_without_a_mistake_have_a_temperature() -> None:
    labels = np.repeat([0, 1], 50)
    scores = np.eye(2)[labels]
    probabilities = softmax(scores / fit_temperature(scores, labels), axis=1)
    # Two outcomes only: the best answer is the smoothed target itself, 1 of 102 rows.
    np.testing.assert_allclose(probabilities[np.arange(100), 1 - labels], 1 / 102, rtol=1e-4)


def test_scores_that_say_nothing_have_temperature_1() -> None:
    assert fit_temperature(np.full((4, 3), 7.0), np.array([0, 1, 2, 0])) == 1.0


def test_the_temperature_of_views_is_that_of_their_mean() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(scale=2.0, size=(20_000, 3, 4))
    drawn = softmax(scores / 0.5, axis=-1).mean(axis=1).cumsum(axis=1)
    labels = (rng.random((len(scores), 1)) < drawn).argmax(axis=1)
    assert fit_temperature(scores, labels) == pytest.approx(0.5, rel=0.1)
    same = np.repeat(scores[:, :1], 3, axis=1)
    assert fit_temperature(same, labels) == pytest.approx(fit_temperature(scores[:, 0], labels))
