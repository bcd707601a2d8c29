from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from headstart.errors import DataError
from headstart.evaluate.calibration import apply_temperature, fit_temperature, reliability_curve
from headstart.evaluate.metrics import ece, log_loss, wilson_interval
from headstart.report.tallies import reliability


def drawn(seed: int, n: int = 4000, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return labels that are drawn with the probabilities ``softmax(logits)``, and the logits."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, n_classes))
    shares = softmax(logits, axis=1).cumsum(axis=1)
    return (rng.random(n)[:, None] > shares).sum(axis=1).clip(max=n_classes - 1), logits


@pytest.mark.parametrize("sharper", [0.25, 1.0, 6.0])
def test_the_temperature_that_was_applied_is_found(sharper: float) -> None:
    y, logits = drawn(0)
    assert fit_temperature(logits * sharper, y) == pytest.approx(sharper, rel=0.06)
    probabilities = apply_temperature(logits * sharper, sharper)
    np.testing.assert_allclose(probabilities, softmax(logits, axis=1))


def test_logarithms_of_probabilities_are_logits() -> None:
    y, logits = drawn(1)
    once = fit_temperature(3 * logits, y)
    assert fit_temperature(log_softmax(3 * logits, axis=1), y) == pytest.approx(once, rel=1e-4)


def test_no_other_temperature_is_better_and_no_prediction_changes() -> None:
    y, logits = drawn(2)
    t = fit_temperature(5 * logits, y)
    losses = [log_loss(y, apply_temperature(5 * logits, factor * t)) for factor in (0.9, 1.0, 1.1)]
    assert min(losses) == losses[1]
    assert ece(y, apply_temperature(5 * logits, t)) < 0.5 * ece(y, softmax(5 * logits, axis=1))
    np.testing.assert_array_equal(apply_temperature(5 * logits, t).argmax(axis=1), logits.argmax(axis=1))


@pytest.mark.parametrize("t", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_is_a_positive_number(t: float) -> None:
    with pytest.raises(DataError, match="positive number"):
        apply_temperature(np.zeros((1, 2)), t)


def test_logits_that_are_not_finite_are_refused_as_such() -> None:
    with pytest.raises(DataError, match="finite logits"):
        fit_temperature(np.array([[0.0, -np.inf], [1.0, 0.0]]), np.array([0, 1]))


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 80), st.integers(1, 20))
def test_the_curve_is_what_the_error_and_the_page_show(seed: int, n: int, n_bins: int) -> None:
    y, logits = drawn(seed, n)
    probabilities = softmax(logits, axis=1)
    curve = reliability_curve(y, probabilities, n_bins)
    assert curve.count.sum() == n
    if n_bins == 15:
        assert (curve.count * abs(curve.accuracy - curve.confidence)).sum() / n == pytest.approx(ece(y, probabilities))
    bins = reliability(y, probabilities, n_bins)
    np.testing.assert_array_equal(curve.count, [one.count for one in bins])
    np.testing.assert_allclose(curve.confidence, [one.confidence for one in bins])
    np.testing.assert_allclose(curve.accuracy, [one.accuracy for one in bins])
    np.testing.assert_allclose([curve.low, curve.high], np.transpose([one.interval for one in bins]), atol=1e-12)


def test_a_curve_by_hand() -> None:
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.92, 0.08], [0.0, 1.0]])
    curve = reliability_curve(np.array([0, 1, 0, 1]), probabilities, 10)
    np.testing.assert_allclose(curve.confidence, [0.6, 0.96])
    np.testing.assert_allclose(curve.accuracy, [0.5, 1.0])
    assert (curve.low[0], curve.high[0]) == wilson_interval(1, 2)
    shown = reliability_curve(np.array([0, 1, 0, 1]), probabilities)
    assert (shown.count * abs(shown.accuracy - shown.confidence)).sum() / 4 == pytest.approx(
        ece(np.array([0, 1, 0, 1]), probabilities)
    )


def test_no_bins_are_refused() -> None:
    with pytest.raises(DataError, match="Received: 0"):
        reliability_curve(np.array([0, 1]), np.full((2, 2), 0.5), 0)
