from __future__ import annotations

import numpy as np
import pytest

from headstart.evaluate.intervals import CV_VARIANCE, Units, estimates, influences
from headstart.evaluate.significance import corrected
from headstart.scores import METRICS


def heads(rng: np.random.Generator, n: int, n_heads: int, share: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return labels, and probabilities of heads that are right for a share of the images, each for its own."""
    y = np.arange(n) % 2
    return y, [np.where((rng.random(n) < share)[:, None] == (y[:, None] == [0, 1]), 0.8, 0.2) for _ in range(n_heads)]


def test_the_best_of_equal_heads_is_expected_to_be_as_good_as_each() -> None:
    rng = np.random.default_rng(0)
    plain, expected, held = [], [], 0
    for _ in range(100):
        y, made = heads(rng, 100, 6, 0.8)
        units = Units(None, 100)
        found = [influences(y, probabilities)["accuracy"] for probabilities in made]
        best = int(np.argmax([one.value for one in found]))
        estimate = corrected(METRICS[0], found, y, made[best], units)
        plain.append(found[best].value)
        expected.append(estimate.value)
        held += estimate.low <= 0.8 <= estimate.high
    assert np.mean(plain) > 0.83
    assert abs(np.mean(expected) - 0.8) < 0.01
    assert held >= 93


def test_a_single_head_needs_no_correction() -> None:
    y, (probabilities,) = heads(np.random.default_rng(0), 60, 1, 0.8)
    found = influences(y, probabilities)["log_loss"]
    (metric,) = [metric for metric in METRICS if metric.name == "log_loss"]
    plain = estimates(y, probabilities, variance_factor=CV_VARIANCE)["log_loss"]
    assert corrected(metric, [found], y, probabilities, Units(None, 60)) == plain


def test_a_head_that_is_far_better_stays_what_it_is() -> None:
    rng = np.random.default_rng(0)
    y, made = heads(rng, 100, 1, 0.95)
    made += heads(rng, 100, 3, 0.5)[1]
    found = [influences(y, probabilities)["accuracy"] for probabilities in made]
    assert abs(corrected(METRICS[0], found, y, made[0], Units(None, 100)).value - found[0].value) < 0.003


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1_macro", "roc_auc_ovr", "average_precision"])
def test_heads_without_a_mistake_on_a_draw_share_it(name: str) -> None:
    """Whichever comes first: two of six heads have one mistake, which most draws of the images do not hold."""
    y = np.arange(60) % 2
    made = [np.array([[0.9, 0.1], [0.1, 0.9]])[y] for _ in range(6)]
    made[0][0], made[1][1] = (0.05, 0.95), (0.95, 0.05)
    (metric,) = [metric for metric in METRICS if metric.name == name]
    expected = []
    for order in (made, made[::-1]):
        found = [influences(y, probabilities)[name] for probabilities in order]
        expected.append(corrected(metric, found, y, made[5], Units(None, 60)))
    assert expected[0].value == pytest.approx(expected[1].value, abs=1e-9)
    assert 0.99 < expected[0].value <= 1
    assert expected[0].high > 0.999
