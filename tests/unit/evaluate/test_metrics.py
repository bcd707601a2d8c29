from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn import metrics

from headstart.errors import DataError
from headstart.evaluate.target_types.class_target import metric_values, positive_rates, score
from headstart.scores import METRICS, wilson


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
    assert result.roc_auc_ovr == pytest.approx(metrics.roc_auc_score(y, probabilities, multi_class="ovr"))
    assert result.average_precision == pytest.approx(metrics.average_precision_score(np.eye(3)[y], probabilities))
    assert result.confusion == metrics.confusion_matrix(y, predicted).tolist()
    assert [row["support"] for row in result.per_class] == np.bincount(y).tolist()


def test_a_class_that_is_absent_counts_for_nothing() -> None:
    y = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.3, 0.7, 0], [0.6, 0.4, 0]])
    result = score(y, probabilities, ("a", "b", "never"))
    assert result.balanced_accuracy == 0.75
    assert result.f1_macro == pytest.approx(metrics.f1_score(y, probabilities.argmax(axis=1), average="macro"))
    assert result.per_class[2]["support"] == result.per_class[2]["f1"] == 0
    assert result.per_class[2]["recall_interval"] == (0, 1)
    assert result.log_loss == pytest.approx(metrics.log_loss(y, probabilities, labels=[0, 1, 2]))


def test_one_class_alone_has_no_area_and_the_score_stays_valid_json() -> None:
    result = score(np.zeros(3, int), np.full((3, 2), 0.5), ("a", "b"))
    assert result.roc_auc_ovr is None
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_certain_mistake_has_a_finite_loss() -> None:
    assert np.isfinite(score(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), ("a", "b")).log_loss)


def test_every_figure_of_a_class_has_an_interval(example: tuple[np.ndarray, np.ndarray]) -> None:
    y, probabilities = example
    for label, row in enumerate(score(y, probabilities, ("a", "b", "c")).per_class):
        rest = probabilities.argmax(axis=1) != label
        assert row["specificity"] == pytest.approx(rest[y != label].mean())
        for name in ("precision", "recall", "specificity", "f1"):
            low, high = row[f"{name}_interval"]
            assert 0 < low < row[name] < high < 1
        assert row["recall_interval"] == wilson(row["recall"], row["support"])


def test_every_score_has_an_interval_that_repeated_images_do_not_narrow(example: tuple[np.ndarray, np.ndarray]) -> None:
    y, probabilities = example
    once = score(y, probabilities, ("a", "b", "c"))
    assert set(once.intervals) == {metric.name for metric in METRICS}
    assert once.accuracy_interval == once.intervals["accuracy"]
    units = np.tile(np.arange(200), 3)
    copied = score(np.tile(y, 3), np.tile(probabilities, (3, 1)), ("a", "b", "c"), units=units)
    for name, interval in once.intervals.items():
        assert copied.intervals[name] == pytest.approx(interval, abs=1e-3), name


@pytest.mark.parametrize("shape", [(0, 2), (3, 3)])
def test_nothing_to_score_and_wrong_shapes_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="Received"):
        score(np.zeros(shape[0], int), np.ones(shape), ("a", "b"))


def test_every_metric_has_the_value_of_scikit_learn(example: tuple[np.ndarray, np.ndarray]) -> None:
    y, probabilities = example
    predicted = probabilities.argmax(axis=1)
    found = metric_values(y, probabilities)
    assert tuple(found) == tuple(metric.name for metric in METRICS)
    assert found == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(y, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
            "f1_macro": metrics.f1_score(y, predicted, average="macro"),
            "roc_auc_ovr": metrics.roc_auc_score(y, probabilities, multi_class="ovr"),
            "average_precision": metrics.average_precision_score(np.eye(3)[y], probabilities, average="macro"),
            "log_loss": metrics.log_loss(y, probabilities),
            "ece": found["ece"],
        }
    )


def test_average_precision_is_of_the_positive_class_where_one_is_named(example: tuple[np.ndarray, np.ndarray]) -> None:
    y, probabilities = example
    expected = metrics.average_precision_score(y == 2, probabilities[:, 2])
    assert metric_values(y, probabilities, positive=2)["average_precision"] == pytest.approx(expected)
    assert score(y, probabilities, ("a", "b", "c"), positive=2).average_precision == pytest.approx(expected)
    assert score(np.zeros(3, int), np.full((3, 2), 0.5), ("a", "b"), positive=1).average_precision is None


def test_two_classes_have_the_area_of_the_second_and_one_class_has_none() -> None:
    y, probabilities = np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.65, 0.35], [0.2, 0.8]])
    assert metric_values(y, probabilities)["roc_auc_ovr"] == 0.75
    assert np.isnan(metric_values(np.zeros(4, int), probabilities)["roc_auc_ovr"])


def test_calibration_error_by_hand() -> None:
    # Two bins: confidence 0.60 with 1 of 2 right, 0.92 with 2 of 2 right.
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.92, 0.08], [0.08, 0.92]])
    assert metric_values(np.array([0, 1, 0, 1]), probabilities)["ece"] == pytest.approx(0.5 * 0.1 + 0.5 * 0.08)
    assert metric_values(np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]))["ece"] == 0


@pytest.mark.parametrize(
    ("y", "probabilities"),
    [
        (np.array([0, 2]), np.full((2, 2), 0.5)),
        (np.array([0, -1]), np.full((2, 2), 0.5)),
        (np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]])),
        (np.array([0]), np.full((2, 2), 0.5)),
    ],
)
def test_labels_and_probabilities_that_do_not_fit_are_refused(y: np.ndarray, probabilities: np.ndarray) -> None:
    with pytest.raises(DataError, match="Received"):
        metric_values(y, probabilities)


def test_the_rates_of_the_positive_class_are_those_of_a_table_of_four() -> None:
    y_true = np.array([1] * 10 + [0] * 20 + [2] * 10)
    predicted = np.array([1] * 8 + [0, 2] + [0] * 17 + [1] * 3 + [2] * 10)
    found = positive_rates(metrics.confusion_matrix(y_true, predicted), 1, "bee")
    values = [rate.value for rate in (found.sensitivity, found.specificity, found.precision, found.npv)]
    assert values == [8 / 10, 27 / 30, 8 / 11, 27 / 29]
    assert (found.sensitivity.low, found.sensitivity.high) == wilson(0.8, 10)


def test_a_rate_of_no_images_does_not_exist() -> None:
    found = positive_rates(metrics.confusion_matrix([0, 0, 1], [0, 0, 0]), 1, "bee")
    assert math.isnan(found.precision.value)
    assert found.sensitivity.value == 0
    scored = score(np.array([0, 0, 1]), np.array([[0.9, 0.1]] * 3), ("ant", "bee"), positive=1)
    assert scored.to_dict()["positive"]["precision"] == {"value": None, "low": None, "high": None}
