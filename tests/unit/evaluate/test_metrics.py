from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from headstart.errors import DataError
from headstart.evaluate.metrics import all_metrics, ece, roc_auc_ovr, score, wilson_interval
from headstart.evaluate.weighted import WeightedMetrics
from headstart.report.comparison import METRICS


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
    assert result.ece == ece(y, probabilities)
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


def test_one_class_alone_has_no_area_and_the_score_stays_valid_json() -> None:
    result = score(np.zeros(3, int), np.full((3, 2), 0.5), ("a", "b"))
    assert result.roc_auc_ovr is None
    json.dumps(result.to_dict(), allow_nan=False)


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


def test_all_metrics_are_those_of_scikit_learn_under_the_names_of_the_comparison(
    example: tuple[np.ndarray, np.ndarray],
) -> None:
    y, probabilities = example
    predicted = probabilities.argmax(axis=1)
    found = all_metrics(y, probabilities, 3)
    assert tuple(found) == tuple(metric.name for metric in METRICS)
    assert found == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(y, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
            "f1_macro": metrics.f1_score(y, predicted, average="macro"),
            "roc_auc_ovr": metrics.roc_auc_score(y, probabilities, multi_class="ovr"),
            "log_loss": metrics.log_loss(y, probabilities),
            "ece": ece(y, probabilities),
        }
    )


@given(st.integers(2, 4), st.integers(5, 60), st.integers(0, 10_000))
def test_weights_are_repeated_rows(n_classes: int, n_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n_rows)
    # Coarse, so that scores are tied within classes and between them.
    probabilities = rng.multinomial(6, np.ones(n_classes) / n_classes, n_rows) / 6
    weights = rng.integers(0, 3, n_rows)
    weights[0] = 1
    repeated = np.repeat(np.arange(n_rows), weights)
    weighted = WeightedMetrics(y, probabilities)
    columns = np.stack([weights, np.ones(n_rows)], axis=1).astype(float)
    found = weighted(columns) | {"roc_auc_ovr": weighted.roc_auc_ovr(columns)}
    expected = all_metrics(y[repeated], probabilities[repeated], n_classes)
    assert {name: values[0] for name, values in found.items()} == pytest.approx(expected, nan_ok=True)
    assert {name: values[1] for name, values in found.items()} == pytest.approx(
        all_metrics(y, probabilities, n_classes), nan_ok=True
    )
    areas = [
        metrics.roc_auc_score(y[repeated] == c, probabilities[repeated, c])
        for c in ([1] if n_classes == 2 else range(n_classes))
        if 0 < (y[repeated] == c).sum() < len(repeated)
    ]
    assert expected["roc_auc_ovr"] == pytest.approx(np.mean(areas) if areas else np.nan, nan_ok=True)


def test_two_classes_have_the_area_of_the_second_and_one_class_has_none() -> None:
    y, probabilities = np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.65, 0.35], [0.2, 0.8]])
    assert roc_auc_ovr(y, probabilities) == 0.75
    assert np.isnan(roc_auc_ovr(np.zeros(4, int), probabilities))


def test_calibration_error_by_hand() -> None:
    # Two bins: confidence 0.60 with 1 of 2 right, 0.92 with 2 of 2 right.
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.92, 0.08], [0.08, 0.92]])
    assert ece(np.array([0, 1, 0, 1]), probabilities) == pytest.approx(0.5 * 0.1 + 0.5 * 0.08)
    assert ece(np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]])) == 0


@pytest.mark.parametrize(
    ("y", "probabilities"),
    [
        (np.array([0, 2]), np.full((2, 2), 0.5)),
        (np.array([0, -1]), np.full((2, 2), 0.5)),
        (np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]])),
        (np.array([0]), np.full((2, 2), 0.5)),
        (np.array([0, 1]), np.full((2, 3), 0.5)),
    ],
)
def test_labels_and_probabilities_that_do_not_fit_are_refused(y: np.ndarray, probabilities: np.ndarray) -> None:
    with pytest.raises(DataError, match="Received"):
        all_metrics(y, probabilities, 2)
