"""Metrics of predicted numbers, the influence of each row, and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from headstart.errors import DataError, ParameterError
from headstart.evaluate.intervals import Influence
from headstart.evaluate.target_types.number_target import Number, determination, rank_correlation
from headstart.scores import NUMBER_METRICS

NUMBER = Number()


def pairs(n: int, seed: int = 0, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    predicted = 0.8 * y + 0.5 * rng.normal(size=n)
    return (np.round(y), np.round(predicted)) if ties else (y, predicted)


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_are_those_of_scikit_learn_and_scipy(ties: bool) -> None:
    y, predicted = pairs(80, ties=ties)
    found = NUMBER.metrics(y, predicted[:, None], ("target",))
    assert found.mae == pytest.approx(metrics.mean_absolute_error(y, predicted))
    assert found.rmse == pytest.approx(metrics.root_mean_squared_error(y, predicted))
    assert found.r2 == pytest.approx(metrics.r2_score(y, predicted))
    assert found.spearman == pytest.approx(stats.spearmanr(y, predicted).statistic)
    assert set(found.intervals) == {metric.name for metric in NUMBER_METRICS}
    for name, (low, high) in found.intervals.items():
        assert low < getattr(found, name) < high
    assert found.main.value == found.rmse


def weighted_value(name: str, y: np.ndarray, predicted: np.ndarray, repeats: np.ndarray) -> float:
    """Return a metric of rows repeated so often."""
    return NUMBER.influences(y.repeat(repeats), predicted.repeat(repeats)[:, None])[name].value


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", [metric.name for metric in NUMBER_METRICS])
def test_influences_are_derivatives_with_respect_to_row_weights(name: str, ties: bool) -> None:
    y, predicted = pairs(30, seed=1, ties=ties)
    rows = NUMBER.influences(y, predicted[:, None])[name].rows
    assert rows.sum() == pytest.approx(0, abs=1e-12)
    many, n = 2000, len(y)
    for row in (0, 7, 29):
        repeats = np.full(n, many)
        before = weighted_value(name, y, predicted, repeats)
        repeats[row] += 20
        slope = (weighted_value(name, y, predicted, repeats) - before) / 20 * many
        assert slope == pytest.approx(rows[row], rel=0.03, abs=1e-4), (name, row)


@pytest.mark.parametrize("name", [metric.name for metric in NUMBER_METRICS])
def test_intervals_have_about_their_nominal_coverage(name: str) -> None:
    y, predicted = pairs(200_000, seed=5)
    truth = NUMBER.influences(y, predicted[:, None])[name].value
    inside = 0
    for seed in range(300):
        found = NUMBER.estimates(*_sample(60, seed))[name]
        inside += found.low <= truth <= found.high
    assert 0.91 < inside / 300 < 0.985


def _sample(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    y, predicted = pairs(n, 1000 + seed)
    return y, predicted[:, None]


def test_dependent_rows_widen_an_interval() -> None:
    y, predicted = pairs(60)
    alone = NUMBER.estimates(y, predicted[:, None])
    doubled = NUMBER.estimates(y.repeat(4), predicted.repeat(4)[:, None], np.arange(60).repeat(4))
    as_if_independent = NUMBER.estimates(y.repeat(4), predicted.repeat(4)[:, None])
    for name, one in alone.items():
        assert (doubled[name].low, doubled[name].high) == pytest.approx((one.low, one.high), rel=1e-6)
        assert as_if_independent[name].high - as_if_independent[name].low < 0.6 * (one.high - one.low)


def test_a_single_unit_knows_nothing() -> None:
    found = NUMBER.estimates(*_sample(20, 0), np.zeros(20, int))
    assert (found["rmse"].low, found["rmse"].high) == (0, math.inf)
    assert (found["r2"].low, found["r2"].high) == (-math.inf, 1)
    assert (found["spearman"].low, found["spearman"].high) == (-1, 1)


def test_undefined_metrics_are_none() -> None:
    score = NUMBER.metrics(np.ones(5), np.arange(5.0)[:, None], ("target",))
    assert (score.r2, score.spearman) == (None, None)
    assert set(score.intervals) == {"rmse", "mae"}
    assert math.isnan(determination(np.ones(3), np.ones(3)).value)
    assert isinstance(rank_correlation(np.arange(3.0), np.ones(3)), Influence)
    assert NUMBER.metrics(np.arange(5.0), np.arange(5.0)[:, None], ("target",)).main.high == math.inf


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match="finite numbers"):
        NUMBER.influences(np.array([1.0, np.nan]), np.zeros((2, 1)))
    with pytest.raises(DataError, match=r"shape \(n, 1\)"):
        NUMBER.influences(np.array([1.0, 2.0]), np.zeros((2, 2)))
    with pytest.raises(ParameterError, match="no positive class"):
        NUMBER.positive_index("ants", ("target",))


def test_strata_are_tenths_and_equal_numbers_are_together() -> None:
    y = np.r_[np.zeros(50), np.arange(1.0, 51), np.nan]
    strata = NUMBER.stratify(y)
    assert strata[-1] == -1
    assert np.unique(strata[:50]).tolist() == [0]
    assert np.unique(strata[50:100], return_counts=True)[1].tolist() == [10] * 5
    with pytest.raises(DataError, match="different numbers: all are the same"):
        NUMBER.stratify(np.ones(4))
    with pytest.raises(DataError, match="no image has one"):
        NUMBER.stratify(np.full(4, np.nan))
