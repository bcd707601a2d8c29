"""What plots count, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from sklearn import metrics

from headstart.report import curve_points
from headstart.report.curve_points import Curve


def data(
    seed: int, n_classes: int = 4, n_samples: int = 60, ties: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    y_true = random.integers(n_classes, size=n_samples)
    y_true[:n_classes] = np.arange(n_classes)
    scores = random.random((n_samples, n_classes))
    scores[np.arange(n_samples), y_true] += 0.4
    if ties:
        scores = np.round(scores, 1) + 0.05
    return y_true, scores / scores.sum(axis=1, keepdims=True)


seeds = st.integers(0, 10_000)


@given(seeds)
@settings(max_examples=30)
def test_roc_is_scikit_learns(seed: int) -> None:
    y_true, scores = data(seed)
    truth, score = y_true == 1, scores[:, 1]
    curve, _ = curve_points.both_curves(truth, score)
    x, y, _ = metrics.roc_curve(truth, score, drop_intermediate=False)
    assert_allclose((curve.x, curve.y), (x, y))
    assert curve.area == pytest.approx(metrics.roc_auc_score(truth, score))


@given(seeds)
@settings(max_examples=30)
def test_precision_and_recall_are_scikit_learns(seed: int) -> None:
    y_true, scores = data(seed)
    truth, score = y_true == 1, scores[:, 1]
    _, curve = curve_points.both_curves(truth, score)
    precision, recall, _ = metrics.precision_recall_curve(truth, score)
    assert_allclose((curve.x[1:], curve.y[1:]), (recall[-2::-1], precision[-2::-1]))
    assert curve.area == pytest.approx(metrics.average_precision_score(truth, score))


@given(seeds)
@settings(max_examples=30)
def test_averages_over_classes_are_scikit_learns(seed: int) -> None:
    y_true, scores = data(seed)
    one_hot = np.eye(4)[y_true]
    for average, (roc, precision) in {
        "macro": curve_points.macro_curves(y_true, scores),
        "micro": curve_points.micro_curves(y_true, scores),
    }.items():
        assert roc.area == pytest.approx(metrics.roc_auc_score(one_hot, scores, average=average))
        assert precision.area == pytest.approx(metrics.average_precision_score(one_hot, scores, average=average))
        # The drawn curve has the area that is written beside it.
        assert np.trapezoid(roc.y, roc.x) == pytest.approx(roc.area, abs=0.002)
        steps = np.diff(precision.x) @ precision.y[1:]
        assert steps == pytest.approx(precision.area, abs=0.01)
        assert np.all(np.diff(roc.x) >= 0)
        assert np.all(np.diff(precision.x) >= 0)


def test_a_class_without_images_is_left_out() -> None:
    y_true, scores = data(3)
    with_another = np.c_[scores, np.zeros(len(scores))]
    assert curve_points.macro_curves(y_true, with_another)[0].area == curve_points.macro_curves(y_true, scores)[0].area


@given(seeds)
@settings(max_examples=30)
def test_classes_are_counted_as_scikit_learn_does(seed: int) -> None:
    y_true, scores = data(seed, n_classes=6, n_samples=20)
    y_true[y_true == 5] = 0
    labels = np.arange(6)
    counts = curve_points.confusion_matrix(y_true, scores)
    assert counts.tolist() == metrics.confusion_matrix(y_true, scores.argmax(axis=1), labels=labels).tolist()
    made = curve_points.class_tallies(counts, [str(i) for i in labels])
    expected = metrics.precision_recall_fscore_support(y_true, scores.argmax(axis=1), labels=labels, zero_division=0.0)
    assert_allclose([[c.precision, c.recall, c.f1, c.support] for c in made], np.transpose(expected))


def test_confusions_are_counted_from_the_most_frequent_on() -> None:
    counts = np.array([[9, 3, 0], [5, 2, 0], [0, 1, 7]])
    made = curve_points.confusions(counts, "abc", most=2)
    assert [(c.true, c.predicted, c.count, c.support) for c in made] == [("b", "a", 5, 7), ("a", "b", 3, 12)]
    assert len(curve_points.confusions(counts, "abc", most=99)) == 3


def test_mistakes_come_by_cell_and_confidence() -> None:
    y_true = np.array([0, 1, 0, 1, 0, 0])
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.1, 0.9], [0.3, 0.7]])
    made = curve_points.mistakes_by_cell(y_true, probabilities, ("a", "b"), list("123456"), per_cell=2, most=9)
    assert [(cell.true, cell.predicted, cell.count) for cell in made] == [("a", "b", 3), ("b", "a", 1)]
    assert [(m.path, m.probability, m.true_probability) for m in made[0].mistakes] == [("5", 0.9, 0.1), ("3", 0.8, 0.2)]
    short = curve_points.mistakes_by_cell(y_true, probabilities, ("a", "b"), list("123456"), per_cell=2, most=2)
    assert [cell.true for cell in short] == ["a"]
    right = curve_points.mistakes_by_cell(y_true[:1], probabilities[:1], ("a", "b"), ["1"], per_cell=2, most=2)
    assert right == []


@given(seeds)
@settings(max_examples=30)
def test_bins_hold_every_image_once_where_its_confidence_lies(seed: int) -> None:
    y_true, scores = data(seed)
    bins = curve_points.reliability(y_true, scores, n_bins=10)
    assert sum(b.count for b in bins) == len(y_true)
    assert sum(b.right for b in bins) == (scores.argmax(axis=1) == y_true).sum()
    assert sum(b.confidence * b.count for b in bins) == pytest.approx(scores.max(axis=1).sum())
    assert all(0 <= b.interval[0] <= b.accuracy <= b.interval[1] <= 1 for b in bins)


def test_certainty_is_in_the_last_bin() -> None:
    bins = curve_points.reliability(np.array([0, 0]), np.array([[1.0, 0.0], [0.0, 1.0]]), n_bins=10)
    assert [(b.confidence, b.right, b.count) for b in bins] == [(1.0, 1, 2)]


@given(seeds, st.integers(3, 3000))
def test_a_thinned_curve_keeps_its_ends_and_its_shape(seed: int, n_points: int) -> None:
    random = np.random.default_rng(seed)
    x, y = np.sort(random.random(n_points)), np.sort(random.random(n_points))
    made = curve_points.thinned(Curve(x, y, 0.3))
    assert len(made.x) <= 200
    assert (made.x[0], made.y[0], made.x[-1], made.y[-1]) == (x[0], y[0], x[-1], y[-1])
    assert made.area == 0.3
    # A vertical step lies between two vertices; elsewhere no point is further off than two steps along the curve.
    assert np.abs(np.interp(x, made.x, made.y) - y).max() < max(0.05, 4 * np.diff(y).max())
