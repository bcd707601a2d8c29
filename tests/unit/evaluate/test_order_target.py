"""Ordered levels: their order, kappa and the error in levels, and heads for them on a cache."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from commands import exit_code
from headstart.bundles.bundle import load_bundle
from headstart.errors import DataError, ParameterError
from headstart.evaluate.target_types.order_target import Order, weighted_kappa
from headstart.evaluation import evaluate_head
from headstart.exchange.keras_file import as_layers
from headstart.fit import fit_head
from headstart.heads.catalogue import HEAD_TYPES, default_spec, make_head
from headstart.heads.grid_predictions import Table, outcomes
from headstart.heads.regression.ordinal_ridge import OrdinalRidgeHead, best_thresholds
from headstart.report.html_pages import benchmark_page
from headstart.selection.compare import compare_heads
from labelled import labelled_cache

pytestmark = pytest.mark.slow

ORDER = Order(("bees", "ants", "wasps"))


def levels(n: int, seed: int = 0, n_levels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=n)
    y = np.digitize(latent, [-0.5, 0.2, 1.0][: n_levels - 1])
    return y, latent + 0.6 * rng.normal(size=n)


def as_probabilities(predicted: np.ndarray, n_levels: int = 4) -> np.ndarray:
    return np.eye(n_levels)[predicted] * 0.7 + 0.3 / n_levels


def test_levels_are_in_the_order_that_is_given_or_in_that_of_their_numbers() -> None:
    y, names = Order(("low", "mid", "high")).encode(np.array([0, 1, 2, -1]), ("high", "low", "mid"))
    assert (y.tolist(), names) == ([2, 0, 1, -1], ("low", "mid", "high"))
    y, names = Order().encode(np.array([0, 1, 2, -1]), ("0.5", "10", "9"))
    assert (y.tolist(), names) == ([0, 2, 1, -1], ("0.5", "9", "10"))
    with pytest.raises(ParameterError, match="order of the classes ants, bees is not known"):
        Order().encode(np.array([0]), ("ants", "bees"))
    with pytest.raises(ParameterError, match="no different numbers"):
        Order().encode(np.array([0]), ("1", "1.0"))
    with pytest.raises(DataError, match="do not name the class mid"):
        Order(("low", "high")).encode(np.array([0, 1]), ("low", "mid"))
    with pytest.raises(ParameterError, match="two or more different"):
        Order(("a", "a"))


def test_kappa_is_scikit_learns_and_its_influences_are_derivatives() -> None:
    y, scores = levels(60)
    predicted = np.digitize(scores, [-0.5, 0.2, 1.0])
    found = weighted_kappa(y, predicted)
    assert found.value == pytest.approx(cohen_kappa_score(y, predicted, labels=range(4), weights="quadratic"))
    assert found.rows.sum() == pytest.approx(0, abs=1e-12)
    for row in (0, 13, 59):
        repeats = np.full(60, 2000)
        repeats[row] += 20
        moved = weighted_kappa(y.repeat(repeats), predicted.repeat(repeats)).value
        assert (moved - found.value) / 20 * 2000 == pytest.approx(found.rows[row], rel=0.03, abs=1e-5)
    assert np.isnan(weighted_kappa(np.zeros(3, int), np.zeros(3, int)).value)


def test_the_score_knows_the_order() -> None:
    y, scores = levels(80)
    predicted = np.digitize(scores, [-0.5, 0.2, 1.0])
    found = Order().metrics(y, as_probabilities(predicted), ("0", "1", "2", "3"))
    assert found.qwk == pytest.approx(cohen_kappa_score(y, predicted, weights="quadratic"))
    assert found.mae_levels == pytest.approx(np.abs(y - predicted).mean())
    assert found.accuracy == pytest.approx((y == predicted).mean())
    assert found.main.low < found.qwk < found.main.high
    assert set(found.to_dict()) >= {"qwk", "mae_levels", "confusion"}
    near, far = (np.where(y == 0, shifted, y) for shifted in (1, 3))
    scored = [Order().metrics(y, as_probabilities(one), ("0", "1", "2", "3")) for one in (near, far)]
    assert scored[0].accuracy == scored[1].accuracy
    assert scored[0].qwk > scored[1].qwk + 0.1


def test_the_interval_of_kappa_has_about_its_nominal_coverage() -> None:
    y, scores = levels(200_000, seed=9)
    truth = weighted_kappa(y, np.digitize(scores, [-0.5, 0.2, 1.0])).value
    inside = 0
    for seed in range(300):
        y, scores = levels(80, 100 + seed)
        found = Order().estimates(y, as_probabilities(np.digitize(scores, [-0.5, 0.2, 1.0])))["qwk"]
        inside += found.low <= truth <= found.high
    assert 0.91 < inside / 300 < 0.985


@pytest.mark.parametrize("n_levels", [2, 3])
def test_thresholds_have_the_largest_kappa_of_all(n_levels: int) -> None:
    y, scores = levels(24, seed=3, n_levels=n_levels)
    scores = np.round(scores, 1)  # ties
    found = best_thresholds(scores, y, np.ones(24))
    values = np.unique(scores)
    edges = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    every = (weighted_kappa(y, np.digitize(scores, cut)).value for cut in combinations(edges, n_levels - 1))
    assert weighted_kappa(y, np.digitize(scores, found)).value == pytest.approx(np.nanmax(list(every)))
    assert (np.diff(found) >= 0).all()


@parametrize_with_checks([OrdinalRidgeHead()])
def test_scikit_learn_conventions(estimator: object, check: object) -> None:
    check(estimator)


def rows(n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.random((n, 10)).astype(np.float32)
    latent = X @ rng.normal(size=10) + 0.3 * rng.normal(size=n)
    return X, np.digitize(latent, np.quantile(latent, [0.4, 0.6, 0.9])) * 2


def test_the_most_probable_level_is_the_one_that_the_score_lies_in() -> None:
    X, y = rows()
    head = OrdinalRidgeHead(0.1).fit(X, y)
    probabilities = head.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    expected = head.classes_[np.digitize(head.positions(X), head.thresholds_)]
    np.testing.assert_array_equal(head.predict(X), expected)
    assert cohen_kappa_score(y, head.predict(X), weights="quadratic") > 0.7
    (layer,) = as_layers(head).layers
    scores = X @ layer.kernel + layer.bias
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(exponentials / exponentials.sum(axis=1, keepdims=True), probabilities, atol=1e-4)


def test_shared_work_changes_no_prediction() -> None:
    X, y = rows()
    train, test = np.arange(0, 120, 2), np.arange(1, 120, 2)
    settings = [{"alpha": alpha} for alpha in HEAD_TYPES["ordinal-ridge"].grid["alpha"]]
    for one in outcomes("ordinal-ridge", Table(X, ("avg",), "l2"), y, train, test, settings, 0):
        head = make_head(default_spec("ordinal-ridge", scaling="l2", params=settings[one.setting]))
        np.testing.assert_array_equal(one.predicted, head.fit(X[train], y[train]).predict(X[test]))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return labelled_cache(tmp_path / "c.h5", [row % 3 for row in range(90)])


def test_a_head_for_levels_from_fit_to_evaluation(cache: Path, tmp_path: Path) -> None:
    found = fit_head(cache, target=ORDER, output=tmp_path / "head", validation=0.3)
    assert (found.spec.type, found.score.class_names) == ("ordinal-ridge", ("bees", "ants", "wasps"))
    assert found.score.qwk > 0.5
    assert found.search is not None
    assert found.search.trials[0].metric == "qwk"
    bundle = load_bundle(tmp_path / "head")
    assert (bundle.target, bundle.class_names) == ("order", ("bees", "ants", "wasps"))
    assert json.loads((tmp_path / "head" / "bundle.json").read_text())["format_version"] >= 4
    again = evaluate_head(tmp_path / "head", cache).score
    assert again.qwk == pytest.approx(found.score.qwk)
    assert again.class_names == ("bees", "ants", "wasps")


def test_heads_for_classes_are_compared_with_those_for_levels(cache: Path) -> None:
    found = compare_heads(cache, target=ORDER, heads=("ordinal-ridge", "ridge", "majority"), n_splits=3)
    assert found.metric == "qwk"
    assert [metric.name for metric in found.metrics][:2] == ["qwk", "mae_levels"]
    for head in found.heads:
        predicted = head.probabilities.argmax(axis=1)
        expected = cohen_kappa_score(found.y_true, predicted, labels=range(3), weights="quadratic")
        assert head.metrics["qwk"].value == pytest.approx(expected, abs=1e-6)
    assert found["majority"].metrics["qwk"].value < 0.2
    page = benchmark_page(found)
    assert "quadratic weighted kappa" in page
    assert "Confusion matrix" in page


def test_what_cannot_be_is_refused(cache: Path) -> None:
    with pytest.raises(ParameterError, match="order of the classes ants, bees, wasps is not known"):
        fit_head(cache, target="order")
    with pytest.raises(ParameterError, match="cannot do: svr"):
        fit_head(cache, "svr", target=ORDER)
    with pytest.raises(ParameterError, match="cannot do: ordinal-ridge"):
        fit_head(cache, "ordinal-ridge")
    with pytest.raises(ParameterError, match="among qwk, mae_levels"):
        fit_head(cache, target=ORDER, metric="rmse")


def test_commands(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--target", "order", "--levels", "bees,ants,wasps")
    assert exit_code(monkeypatch, "fit-head", cache, *options, "-o", tmp_path / "head") == 0
    assert "quadratic weighted kappa" in capsys.readouterr().out
    assert exit_code(monkeypatch, "evaluate", tmp_path / "head", cache) == 0
    assert "error in levels" in capsys.readouterr().out
    assert exit_code(monkeypatch, "fit-head", cache, "--levels", "a,b") == 2
    assert "--levels goes with --target order" in capsys.readouterr().err
    assert exit_code(monkeypatch, "fit-head", cache, "--target", "order", "-o", tmp_path / "other") == 1
    assert "--levels" in capsys.readouterr().err
