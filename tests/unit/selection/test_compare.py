"""Heads on the same folds: what is compared, what is kept apart, what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import DataError, HeadstartError, ParameterError
from headstart.report.comparison import Comparison, recommend
from headstart.scores import METRICS, Estimate
from headstart.selection.compare import compare_heads
from headstart.selection.comparison_setup import CompareOptions, large_groups
from headstart.selection.costs import draw, watched_memory
from labelled import labelled_cache

pytestmark = pytest.mark.slow

LABELS = [row % 3 for row in range(120)]
SPLITS = ["test" if row >= 90 else "train" for row in range(120)]
ACCURACY = METRICS[0]
QUICK = ("logistic", "ridge", "nearest-class-mean", "majority")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    cache = labelled_cache(tmp_path_factory.mktemp("compare") / "c.h5", LABELS, splits=SPLITS, distance=0.8)
    return compare_heads(cache, heads=QUICK, learning_curve=True)


def test_every_head_has_every_figure(found: Comparison) -> None:
    assert {head.name for head in found.heads} == set(QUICK)
    for head in found.heads:
        assert set(head.metrics) == {metric.name for metric in METRICS}
        for name, figure in head.metrics.items():
            assert figure.low <= figure.value <= figure.high, (head.name, name)
        assert len(head.fold_accuracy) == 5
        assert head.probabilities.shape == (90, 3)
        np.testing.assert_allclose(head.probabilities.sum(axis=1), 1, atol=1e-5)
        assert head.held_out is not None
        assert head.held_out.n_samples == 30
        accuracy = (head.probabilities.argmax(axis=1) == found.y_true).mean()
        assert head.metrics["accuracy"].value == pytest.approx(accuracy, abs=1e-6)
    best = found[found.recommended]
    assert best.metrics["accuracy"].value > 0.8
    assert best.difference is None
    for head in found.heads[1:]:
        assert head.difference is not None
        assert head.p_value is not None
        assert (head.p_value < 0.05) == (not head.difference.low <= 0 <= head.difference.high)
    assert found.expected is not None
    assert found.expected.low < found.expected.value <= best.metrics["accuracy"].value + 0.01
    assert f"expect {found.expected.value:.3f}" in found.recommendation
    assert found["majority"].metrics["accuracy"].value < 0.4


def test_the_cost_of_a_head_is_measured(found: Comparison) -> None:
    cost = found["logistic"].cost
    assert cost.fit_seconds > 0
    assert cost.search_seconds > 0
    assert cost.head_ms > 0
    assert cost.total_ms is None
    assert cost.size_bytes > 1000
    assert found["majority"].cost.size_bytes == 0


def test_a_learning_curve_rises_and_ends_with_all_images(found: Comparison) -> None:
    curve = found["logistic"].learning_curve
    assert [point.images_per_class for point in curve] == [2, 5, 10, 20, 24]
    assert curve[-1].accuracy.value > curve[0].accuracy.value
    rows = np.arange(90)
    few, more = (draw(np.array(LABELS), rows, n, 0) for n in (2, 5))
    assert set(few) <= set(more)


def test_the_same_seed_gives_the_same_comparison(found: Comparison, tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path / "c.h5", LABELS, splits=SPLITS, distance=0.8)
    again = compare_heads(cache, heads=QUICK[:2], n_jobs=1)
    for head in again.heads:
        np.testing.assert_array_equal(head.probabilities, found[head.name].probabilities)
        assert head.metrics == found[head.name].metrics


@pytest.mark.parametrize("kind", ["copies", "near"])
def test_a_planted_leak_is_said_and_left_out_of_every_fit(kind: str, tmp_path: Path) -> None:
    """A tenth of the test images stand among the training images too, with labels that are wrong: a head would notice."""
    leaked = {row: row + 90 for row in range(3)}
    labels = LABELS.copy()
    for row, source in leaked.items():
        labels[row] = (LABELS[source] + 1) % 3
    cache = labelled_cache(tmp_path / "c.h5", labels, splits=SPLITS, distance=0.8, **{kind: leaked})
    found = compare_heads(cache, heads=("logistic", "majority"))
    words = "have the same bytes as" if kind == "copies" else "look nearly the same as"
    assert any(f"3 of the 30 test images (10.0%) {words} 3 train images" in leak for leak in found.leaks)
    assert len(found.y_true) == 87
    assert not {path.split("/")[1] for path in found.paths} & {"0.jpg", "1.jpg", "2.jpg"}
    assert "3 training images" in found.held_out


def test_images_that_look_the_same_stay_in_one_fold(tmp_path: Path) -> None:
    """Classes that cannot be told apart, every image twice: a neighbour knows the answer unless its twin is kept away."""
    twins = {row + 60: row for row in range(60)}
    labels = [row % 60 % 3 for row in range(120)]
    cache = labelled_cache(tmp_path / "c.h5", labels, near=twins, distance=0.0)
    apart, mixed = (
        compare_heads(cache, heads=("knn",), near_duplicates=kept)["knn"].metrics["accuracy"].value
        for kept in (True, False)
    )
    assert mixed > 0.7
    assert apart < 0.55


def test_a_head_that_cannot_be_fitted_is_left_out_with_its_reason(tmp_path: Path) -> None:
    labels = [row % 2 for row in range(40)] + [2]
    cache = labelled_cache(tmp_path / "c.h5", labels)
    found = compare_heads(cache, heads=("ridge", "linear-svm"))
    assert found.recommended == "ridge"
    assert list(found.left_out) == ["linear-svm"]
    assert "wasps" in " ".join(found.leaks)


@pytest.mark.parametrize(
    ("labels", "n_held_out", "note"),
    [
        ([2] * 4, None, "wasps: 4 scored images, none to fit on."),
        ([-1] * 4, None, "The split test has no labels (4 images)."),
        ([0, 1, 2], 2, "wasps: 1 scored image, none to fit on."),
    ],
    ids=["a class of its own", "no labels", "one class too many"],
)
def test_what_cannot_be_scored_is_said_and_left_out(
    tmp_path: Path, labels: list[int], n_held_out: int | None, note: str
) -> None:
    splits = ["train"] * 40 + ["test"] * len(labels)
    cache = labelled_cache(tmp_path / "c.h5", [0, 1] * 20 + labels, splits=splits, failed=["wasps"])
    found = compare_heads(cache, heads=("ridge", "majority"), features=("avg",))
    assert note in found.leaks
    assert found.class_names == ("ants", "bees")
    assert found["ridge"].probabilities.shape == (40, 2)
    score = found["ridge"].held_out
    assert (score and score.n_samples) == n_held_out
    if n_held_out is None:
        with pytest.raises(DataError, match=r"test"):
            compare_heads(cache, heads=("ridge",), features=("avg",), held_out="test")


def test_a_class_that_could_not_be_read_is_said_and_left_out(tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path / "c.h5", [0, 2] * 20, failed=["bees"] * 3)
    found = compare_heads(cache, heads=("ridge",), features=("avg",))
    assert found.leaks == ("bees: none to fit on; 3 images could not be read.",)
    assert found.class_names == ("ants", "wasps")


def test_heads_are_ranked_by_the_metric_that_is_asked_for(tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path / "c.h5", [0] * 50 + [1] * 10, distance=0.5)
    for metric in METRICS[:-1]:
        found = compare_heads(cache, heads=("ridge", "knn"), n_splits=3, metric=metric.name)
        gains = [metric.gain(head.metrics[metric.name].value) for head in found.heads]
        assert gains == sorted(gains, reverse=True)
        assert (found.metric, found.recommended) == (metric.name, found.heads[0].name)
        assert metric.title in found.recommendation


def test_wrong_questions_are_refused(tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path / "c.h5", LABELS, splits=SPLITS)
    with pytest.raises(HeadstartError, match=r"average_precision, log_loss\. Received: 'ece'"):
        compare_heads(cache, heads=("majority",), metric="ece")
    with pytest.raises(HeadstartError, match="forest"):
        compare_heads(cache, heads=("forest",))
    with pytest.raises(DataError, match="nothing"):
        compare_heads(cache, heads=("ridge",), held_out="nothing")
    assert compare_heads(cache, CompareOptions(heads=("majority",), held_out="")).held_out == ""


def test_the_recommendation_tells_noise_from_a_difference(found: Comparison) -> None:
    best, other = found.heads[:2]
    high, low = Estimate(0.9, 0.85, 0.95), Estimate(0.7, 0.6, 0.8)
    best = replace(best, metrics={**best.metrics, "accuracy": high}, cost=replace(best.cost, fit_seconds=10.0))
    other = replace(other, metrics={**other.metrics, "accuracy": low}, cost=replace(other.cost, fit_seconds=1.0))
    name, noise = recommend([best, replace(other, p_value=0.4)], ACCURACY)
    assert name == best.name
    assert f"its difference to {other.name} is within noise ({other.name} fits 10 × faster)" in noise
    assert "beyond noise" in recommend([best, replace(other, p_value=0.001)], ACCURACY)[1]
    assert recommend([best], ACCURACY)[1].endswith("fitted on.")
    both = recommend([best, replace(other, p_value=0.4)], ACCURACY, Estimate(0.87, 0.8, 0.92))[1]
    assert "accuracy 0.900" in both
    assert "as the best of 2 heads, expect 0.870 (95 % interval 0.800–0.920) on other images" in both


def test_it_is_said_where_no_head_is_better_than_chance(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, 60).tolist()
    cache = labelled_cache(tmp_path / "c.h5", labels, distance=0.0)
    found = compare_heads(cache, heads=("ridge", "logistic", "majority"))
    assert found.recommendation.startswith("By accuracy, no head is better than chance: the best, ")
    assert found.recommendation.endswith("the difference is within noise. Check the labels, or add images.")


def test_a_baseline_that_is_as_good_is_named(tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path / "c.h5", [row % 2 for row in range(40)])
    found = compare_heads(cache, heads=("ridge", "nearest-class-mean", "majority"))
    assert "its difference to nearest-class-mean is within noise" in found.recommendation
    assert "chance" not in found.recommendation


def test_a_baseline_that_is_better_is_named(found: Comparison) -> None:
    best, other = found.heads[:2]
    best = replace(best, metrics={**best.metrics, "accuracy": Estimate(0.7, 0.6, 0.8)}, p_value=None)
    metrics = {**other.metrics, "accuracy": Estimate(0.9, 0.85, 0.95)}
    better = replace(other, name="nearest-class-mean", baseline=True, metrics=metrics, p_value=0.001)
    assert recommend([best, better], ACCURACY)[1].endswith("; nearest-class-mean, a baseline, is better beyond noise.")


def test_memory_is_watched_while_a_block_runs() -> None:
    with watched_memory() as peak:
        block = np.ones((4000, 4000))
        del block
    assert peak.bytes is None or peak.bytes > 50e6


def test_the_positive_class_has_rates_and_the_metric_chooses(tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path / "c.h5", [row % 3 for row in range(60)], distance=1.0)
    found = compare_heads(cache, heads=("ridge", "majority"), metric="log_loss", positive="bees", n_splits=3)
    assert (found.metric, found.positive) == ("log_loss", "bees")
    ridge = found["ridge"]
    called = ridge.probabilities.argmax(axis=1) == 1
    assert ridge.positive is not None
    assert ridge.positive.sensitivity.value == called[found.y_true == 1].mean()
    assert found["majority"].positive is not None
    with pytest.raises(ParameterError, match="Received: 'bee'"):
        compare_heads(cache, heads=("ridge",), positive="bee")


def test_a_large_group_of_images_that_look_the_same_is_reported() -> None:
    units = np.array([*range(70), *[70] * 30])
    (sentence,) = large_groups(units)
    assert sentence.startswith("30 of 100 images look the same by these features")
    assert large_groups(np.arange(100)) == []
    assert large_groups(np.array([0] * 19 + [1])) == []  # too few to say anything
    assert large_groups(np.array([], np.intp)) == []
