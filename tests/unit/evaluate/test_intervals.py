from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headstart.errors import DataError
from headstart.evaluate import intervals
from headstart.evaluate.intervals import bca_levels, bootstrap_metrics, draws, left_out, paired_differences
from headstart.evaluate.metrics import metric_values, wilson_interval
from headstart.schema import Estimate


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
def test_every_score_lies_in_its_interval(seed: int, n: int, n_classes: int) -> None:
    y, probabilities = sample(seed, n, n_classes)
    found = bootstrap_metrics(y, probabilities, np.arange(n) // 2, n_resamples=40, random_state=seed)
    expected = metric_values(y, probabilities)
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected, nan_ok=True)
    for name, estimate in found.items():
        assert np.isnan(estimate.value) or estimate.low <= estimate.value <= estimate.high, name
        assert not estimate.low < 0
    again = bootstrap_metrics(y, probabilities, np.arange(n) // 2, n_resamples=40, random_state=seed)
    assert repr(found) == repr(again)


def test_the_interval_of_accuracy_is_near_the_binomial_one() -> None:
    y, probabilities = sample(0, 1000, 2)
    found = bootstrap_metrics(y, probabilities, np.arange(1000))["accuracy"]
    low, high = wilson_interval(round(found.value * 1000), 1000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)


def test_intervals_hold_the_true_value_as_often_as_they_say() -> None:
    truth = metric_values(*sample(1, 200_000))
    held = dict.fromkeys(truth, 0)
    for seed in range(100):
        y, probabilities = sample(1000 + seed, 150)
        for name, found in bootstrap_metrics(y, probabilities, np.arange(150), n_resamples=300).items():
            held[name] += found.low <= truth[name] <= found.high
    # 95 expected; 88 or fewer of 100 in less than 1 % of such tests.
    assert all(count > 88 for name, count in held.items() if name != "ece"), held
    assert held["ece"] > 75


def test_copies_make_no_score_more_certain() -> None:
    y, probabilities = sample(0, 100)
    once = bootstrap_metrics(y, probabilities, np.arange(100))
    copied = bootstrap_metrics(np.tile(y, 4), np.tile(probabilities, (4, 1)), np.tile(np.arange(100), 4) + 7)
    for name, estimate in once.items():
        other = copied[name]
        assert (other.low, other.high) == pytest.approx((estimate.low, estimate.high), abs=1e-9), name
    alone = bootstrap_metrics(np.tile(y, 4), np.tile(probabilities, (4, 1)), np.arange(400))["accuracy"]
    assert alone.high - alone.low < 0.6 * (once["accuracy"].high - once["accuracy"].low)


def test_without_a_mistake_accuracy_is_not_certain() -> None:
    y = np.arange(40) % 2
    found = bootstrap_metrics(y, np.eye(2)[y], np.arange(40) // 2, n_resamples=50)
    assert found["accuracy"] == Estimate(1.0, wilson_interval(20, 20)[0], 1.0)


def test_calibration_error_is_not_said_to_be_above_what_it_is() -> None:
    # Of a head that is perfectly calibrated; plain percentiles of the draws hold hardly ever what is below the figure.
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(2) * 2, 300)
    y = (rng.random(300) < probabilities[:, 1]).astype(int)
    found = bootstrap_metrics(y, probabilities, np.arange(300))["ece"]
    assert found.low < 0.6 * found.value < found.high


def test_draws_are_of_whole_units_and_do_not_depend_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    inverse = np.array([0, 0, 1, 2, 2, 2])
    whole = np.concatenate(list(draws(inverse, 3, 50, 0)), axis=1)
    monkeypatch.setattr(intervals, "BLOCK", 20)
    np.testing.assert_array_equal(np.concatenate(list(draws(inverse, 3, 50, 0)), axis=1), whole)
    assert (whole[[0, 2, 3]].sum(axis=0) == 3).all()
    np.testing.assert_array_equal(whole[0], whole[1])
    np.testing.assert_array_equal(whole[3], whole[5])
    without = np.concatenate(list(left_out(inverse, 3, 0)), axis=1)
    assert sorted((without == 0).sum(axis=0).tolist()) == [1, 2, 3]


def test_the_area_under_the_curve_has_fewer_draws_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    y, probabilities = sample(0, 100)
    monkeypatch.setattr(intervals, "MAX_AREA_WORK", 1.0)
    monkeypatch.setattr(intervals, "BLOCK", 100 * 150)
    fewer = bootstrap_metrics(y, probabilities, np.arange(100), n_resamples=1000)
    assert np.isfinite([fewer["roc_auc_ovr"].low, fewer["roc_auc_ovr"].high]).all()
    expected = bootstrap_metrics(y, probabilities, np.arange(100), n_resamples=200)["roc_auc_ovr"]
    assert fewer["roc_auc_ovr"] == expected


def test_levels_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=60)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=5000, method="BCa", vectorized=True, rng=np.random.default_rng(0)
    )
    drawn = expected.bootstrap_distribution
    without = np.array([np.delete(values, i).mean() for i in range(60)])
    low, high = np.quantile(drawn, bca_levels(float(values.mean()), drawn, without))
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), abs=2e-3)


def test_differences_are_paired() -> None:
    y, best = sample(0, 300)
    worse = best.copy()
    worse[:30] = np.roll(worse[:30], 1, axis=1)  # differs in these rows alone
    _, other = sample(5, 300)
    found = paired_differences(y, {"best": best, "worse": worse, "same": best, "other": other}, np.arange(300), "best")
    assert list(found) == ["worse", "same", "other"]
    assert found["same"] == Estimate(0.0, 0.0, 0.0)
    accuracies = [(p.argmax(axis=1) == y).mean() for p in (worse, best)]
    assert found["worse"].value == pytest.approx(accuracies[0] - accuracies[1])
    alone = bootstrap_metrics(y, best, np.arange(300))["accuracy"]
    assert found["worse"].high - found["worse"].low < alone.high - alone.low < found["other"].high - found["other"].low
    assert found["worse"].high < 0


@pytest.mark.parametrize(("units", "n_resamples"), [(np.arange(3), 10), (np.arange(4), 1), (np.zeros(4), 10)])
def test_what_does_not_fit_is_refused(units: np.ndarray, n_resamples: int) -> None:
    with pytest.raises(DataError, match="Received"):
        bootstrap_metrics(np.array([0, 1, 0, 1]), np.full((4, 2), 0.5), units, n_resamples=n_resamples)


def test_a_best_head_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(DataError, match=r"among those compared, ridge\. Received: 'svm'"):
        paired_differences(np.array([0, 1]), {"ridge": np.full((2, 2), 0.5)}, np.arange(2), "svm")
