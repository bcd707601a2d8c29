from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headstart.errors import DataError
from headstart.evaluate.intervals import CV_VARIANCE, Influence, Units
from headstart.evaluate.significance import differences, range_test
from headstart.scores import ALPHA


def of_rows(right: np.ndarray) -> Influence:
    return Influence(float(right.mean()), (right - right.mean()) / len(right))


@settings(max_examples=200, deadline=None)
@given(st.floats(-1, 1), st.floats(1e-4, 1), st.integers(2, 9))
def test_interval_and_p_value_never_disagree(difference: float, error: float, n_heads: int) -> None:
    found = range_test(difference, error, n_heads)
    assert found.estimate.low <= found.estimate.value <= found.estimate.high
    assert (found.p_value < ALPHA) == (found.estimate.low > 0 or found.estimate.high < 0)
    edge = range_test(found.estimate.high - difference, error, n_heads)
    assert (edge.p_value < ALPHA) == (edge.estimate.low > 0)


def test_of_two_heads_it_is_the_paired_test_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.1, 1, 30), rng.normal(size=30)
    one, two = of_rows(a), of_rows(b)
    found = differences({"a": one, "b": two}, Units(None, 30), "b")["a"]
    error = np.sqrt(CV_VARIANCE * (a - b).var(ddof=1) / 30 + 2 / 30**2)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs((a - b).mean()) / error), rel=1e-6)
    half = stats.norm.ppf(0.975) * error
    assert found.estimate.high - found.estimate.value == pytest.approx(half, rel=1e-6)


def test_equal_heads_are_told_apart_as_rarely_as_the_test_says() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        heads = {str(number): of_rows((rng.random(150) < 0.8).astype(float)) for number in range(6)}
        best = max(heads, key=lambda name: heads[name].value)
        wrong += any(one.p_value < ALPHA for one in differences(heads, Units(None, 150), best).values())
    assert wrong <= 10  # of 100; at most 5 expected


def test_a_real_difference_is_found_and_copies_prove_nothing() -> None:
    rng = np.random.default_rng(0)
    good, bad = (rng.random(60) < 0.95).astype(float), (rng.random(60) < 0.65).astype(float)
    heads = {"good": of_rows(good), "bad": of_rows(bad)}
    assert differences(heads, Units(None, 60), "good")["bad"].p_value < 0.01
    close = {"good": of_rows(np.tile(good, 4)), "same": of_rows(np.tile(np.roll(good, 1), 4))}
    copies = Units(np.tile(np.arange(60), 4), 240)
    assert differences(close, copies, "good")["same"].p_value > ALPHA
    equal = differences({"a": of_rows(good), "b": of_rows(good)}, Units(None, 60), "a")["b"]
    assert equal.p_value == 1
    assert equal.estimate.low < 0 < equal.estimate.high


def test_other_rows_and_a_missing_best_are_refused() -> None:
    with pytest.raises(DataError, match=r"'best'.*Received: a of 3 rows"):
        differences({"a": of_rows(np.zeros(3))}, Units(None, 3), "best")
