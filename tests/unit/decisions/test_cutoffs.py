"""Thresholds: equal to a search through all of them, or refused where none meets the goal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from headstart.decisions.cutoffs import Cutoff, parse_goal, score_cutoff, threshold_for
from headstart.errors import DataError, ParameterError
from headstart.scores import wilson


def predictions(seed: int, n: int = 200, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Positive images and their probabilities, with many equal ones."""
    rng = np.random.default_rng(seed)
    is_positive = rng.random(n) < 0.3
    return is_positive, np.round(1 / (1 + np.exp(-(rng.normal(size=n) + 2 * is_positive - 1))), decimals)


def by_search(goal: str, is_positive: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold by its definition, every one tried."""
    kind, _, value = goal.partition("=")
    found, costs = [], []
    for threshold in sorted(set(probabilities.tolist()), reverse=True):
        called = probabilities >= threshold
        if kind == "recall" and (called & is_positive).sum() >= math.ceil(
            float(value) * (is_positive.sum() + 1) - 1e-9
        ):
            return threshold
        if kind == "precision" and is_positive[called].sum() >= float(value) * (called.sum() + 1):
            found.append(threshold)
        costs.append((10 * (is_positive & ~called).sum() + (called & ~is_positive).sum(), -threshold))
    return found[-1] if kind == "precision" else -min(costs)[1]


@pytest.mark.parametrize("goal", ["recall=0.95", "recall=0.5", "precision=0.8", "precision=0.6", "cost=fn:10,fp:1"])
def test_a_threshold_is_that_of_a_search_through_all(goal: str) -> None:
    for seed in range(50):
        is_positive, probabilities = predictions(seed)
        threshold = threshold_for(parse_goal(goal), is_positive, probabilities)
        assert threshold == by_search(goal, is_positive, probabilities)
        kind, _, value = goal.partition("=")
        if kind != "cost":
            metric = recall_score if kind == "recall" else precision_score
            assert metric(is_positive, probabilities >= threshold) >= float(value)


def test_the_recall_on_further_images_is_the_one_asked_for() -> None:
    """Mean over samples of 40 positive images: the rank without the further image would give 38 of 41, 0.927."""
    rng = np.random.default_rng(0)
    recalls = []
    for _ in range(2000):
        probabilities = rng.random(40)
        recalls.append(1 - threshold_for(parse_goal("recall=0.95"), np.ones(40, bool), probabilities))
    assert np.mean(recalls) == pytest.approx(39 / 41, abs=0.003)


@pytest.mark.parametrize(
    ("goal", "n", "message"),
    [
        ("recall=0.95", 18, "A recall of 0.95 needs at least 19 positive training images. Received: 18"),
        (
            "precision=0.9",
            18,
            "No threshold reaches a precision of 0.9 on enough images: the best is",
        ),
        ("cost=fn:1,fp:5", 18, "no threshold is cheaper"),
    ],
)
def test_a_goal_that_cannot_be_met_is_refused(goal: str, n: int, message: str) -> None:
    is_positive = np.repeat([True, False], n)
    with pytest.raises(DataError, match=message):
        threshold_for(parse_goal(goal), is_positive, np.tile(np.linspace(0, 1, n), 2))


def test_nineteen_images_are_enough_for_a_recall_of_95_percent() -> None:
    probabilities = np.linspace(0.1, 1, 19)
    assert threshold_for(parse_goal("recall=0.95"), np.ones(19, bool), probabilities) == 0.1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "recall",
        "recall=",
        "recall=1",
        "recall=0",
        "recall=nan",
        "recal=0.9",
        "f1=0.5",
        "cost=fn:1",
        "cost=fn:1,fp:0",
        "cost=fn:inf,fp:1",
        "cost=fn:1,fp:2,tp:3",
        "precision=2",
        "cost=",
        "recall=0.9,fp:1",
        "cost=fn:-1,fp:1",
    ],
)
def test_a_text_that_names_no_goal_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="Received"):
        parse_goal(text)


def test_goals_are_written_the_same_way() -> None:
    assert parse_goal(" cost=fp:1,fn:10.0").text == "cost=fn:10,fp:1"
    assert parse_goal("recall=.950").text == "recall=0.95"


def test_an_image_below_the_threshold_gets_the_most_probable_other_class() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6], [0.4, 0.29, 0.31], [0.5, 0.5, 0.0]])
    assert Cutoff("b", 0.3, "recall=0.95").decide(probabilities, 1).tolist() == [1, 1, 0, 1]
    assert Cutoff("a", 0.7, "precision=0.9").decide(probabilities, 0).tolist() == [1, 2, 2, 1]
    assert probabilities[0, 1] == 0.3


def test_rates_are_those_of_scikit_learn() -> None:
    is_positive, probabilities = predictions(0)
    found = score_cutoff(Cutoff("a", 0.4, "recall=0.9"), is_positive, probabilities)
    called = probabilities >= 0.4
    assert found.recall.value == recall_score(is_positive, called)
    assert (found.recall.low, found.recall.high) == wilson(found.recall.value, is_positive.sum())
    assert found.precision.value == precision_score(is_positive, called)
    assert found.specificity.value == recall_score(~is_positive, ~called)
    assert found.called_per_1000.value == pytest.approx(5 * called.sum())
    assert math.isnan(score_cutoff(Cutoff("a", 1.0, "x"), is_positive, probabilities * 0).precision.value)


def test_a_precision_is_not_met_by_a_single_image() -> None:
    probabilities = np.linspace(1, 0, 40)
    is_positive = np.arange(40) % 2 == 0  # the most probable one is positive, and of all others every second one
    with pytest.raises(DataError, match="the best is"):
        threshold_for(parse_goal("precision=0.8"), is_positive, probabilities)
    is_positive[:4] = True
    assert threshold_for(parse_goal("precision=0.8"), is_positive, probabilities) == probabilities[4]  # 5 of 5
