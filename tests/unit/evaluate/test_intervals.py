from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.evaluate.intervals import estimates, f1_interval, wilson
from headstart.evaluate.target_types.class_target import metric_values


def sample(seed: int, n: int = 200, n_classes: int = 3, sharpness: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, and probabilities that are right more often than not."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    scores = rng.normal(size=(n, n_classes))
    scores[np.arange(n), y] += sharpness
    probabilities = np.exp(scores)
    return y, probabilities / probabilities.sum(axis=1, keepdims=True)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(3, 60), st.integers(2, 4))
@example(131, 3, 4)  # the variance of macro F1 is of rounding alone
def test_every_score_lies_in_its_interval(seed: int, n: int, n_classes: int) -> None:
    y, probabilities = sample(seed, n, n_classes)
    found = estimates(y, probabilities, np.arange(n) // 2)
    expected = metric_values(y, probabilities)
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected, nan_ok=True)
    for name, estimate in found.items():
        assert np.isnan(estimate.value) or 0 <= estimate.low <= estimate.value <= estimate.high, name
    assert repr(found) == repr(estimates(y, probabilities, np.arange(n) // 2))


def test_wilson_interval_as_published() -> None:
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for right, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_f1_by_hand() -> None:
    low, high = wilson(0.8, 50)
    assert f1_interval(40, 50) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    assert f1_interval(0, 0) == (0, 1)


def test_the_interval_of_accuracy_is_near_the_binomial_one() -> None:
    y, probabilities = sample(0, 1000, 2)
    found = estimates(y, probabilities)["accuracy"]
    assert (found.low, found.high) == pytest.approx(wilson(found.value, 1000), abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize(("sharpness", "n", "n_classes"), [(1.5, 150, 3), (7.0, 60, 2), (6.0, 150, 5)])
def test_intervals_hold_the_true_value_as_often_as_they_say(sharpness: float, n: int, n_classes: int) -> None:
    truth = metric_values(*sample(1, 100_000, n_classes, sharpness))
    held = dict.fromkeys(truth, 0)
    for seed in range(100):
        for name, found in estimates(*sample(1000 + seed, n, n_classes, sharpness)).items():
            held[name] += found.low <= truth[name] <= found.high
    # 95 expected; 88 or fewer of 100 in less than 1 % of such tests.
    assert all(count > 88 for count in held.values()), held


def test_copies_make_no_score_more_certain() -> None:
    y, probabilities = sample(0, 100)
    once = estimates(y, probabilities)
    copied = estimates(np.tile(y, 4), np.tile(probabilities, (4, 1)), np.tile(np.arange(100), 4) + 7)
    for name, estimate in once.items():
        assert (copied[name].low, copied[name].high) == pytest.approx((estimate.low, estimate.high), abs=1e-3), name
    alone = estimates(np.tile(y, 4), np.tile(probabilities, (4, 1)))["accuracy"]
    assert alone.high - alone.low < 0.6 * (once["accuracy"].high - once["accuracy"].low)


def test_without_a_mistake_no_score_is_certain() -> None:
    y = np.arange(40) % 2
    found = estimates(y, np.array([[0.98, 0.02], [0.02, 0.98]])[y])
    for name in ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc_ovr", "average_precision"):
        assert found[name].value == found[name].high == 1
        assert 0.85 < found[name].low < 0.95, name
    assert found["log_loss"].high > 0.05
    # A class of few images leaves more room.
    y = np.array([0] * 35 + [1] * 5)
    few = estimates(y, np.eye(2)[y])
    assert few["balanced_accuracy"].low < found["balanced_accuracy"].low - 0.05


@pytest.mark.parametrize("n_right", [28, 2])
def test_the_far_end_is_that_of_jeffreys(n_right: int) -> None:
    predicted = np.eye(2)[(np.arange(30) >= n_right).astype(int)]
    # As many images as have the unbiased variance: one less.
    found = estimates(np.zeros(30, int), predicted, variance_factor=29 / 30)["accuracy"]
    far = 1 - found.high if n_right == 28 else found.low
    assert far == pytest.approx(0.0141123, abs=1e-6)  # scipy.stats.beta.ppf(0.025, 2 + 0.5, 28 + 0.5)


def test_where_some_mistakes_are_seen_the_far_end_allows_for_no_other() -> None:
    y = np.arange(100) % 2
    score = np.where(y == 1, 0.9, 0.1)
    score[[1, 3, 5]] = 0.05  # below all of the other class
    found = estimates(y, np.stack([1 - score, score], axis=1))["roc_auc_ovr"]
    assert found.value == 0.94
    assert 0.8 < found.low < 0.88
    assert 0.97 < found.high < 0.985
    score[[0, 1, 3, 5]] = 0.1, 0.9, 0.9, 0.05  # one of them is left
    assert estimates(y, np.stack([1 - score, score], axis=1))["roc_auc_ovr"].high < 1


def test_a_mistake_that_a_sure_head_may_make_is_no_fault_of_calibration() -> None:
    y = np.arange(60) % 2
    probabilities = np.array([[0.998, 0.002], [0.002, 0.998]])[y]
    probabilities[0] = probabilities[0, ::-1]
    assert estimates(y, probabilities)["ece"].low == 0  # 1 - 0.998 ** 60: with 11 % of calibrated heads
    probabilities[1] = probabilities[1, ::-1]
    assert estimates(y, probabilities)["ece"].low > 0.001  # two: with 0.7 %


def test_calibration_error_is_not_said_to_be_above_what_it_is() -> None:
    # A calibrated head: what is seen is chance.
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(2) * 2, 300)
    y = (rng.random(300) < probabilities[:, 1]).astype(int)
    assert estimates(y, probabilities)["ece"].low == 0


def test_units_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="Received: 3 units"):
        estimates(np.array([0, 1, 0, 1]), np.full((4, 2), 0.5), np.arange(3))
