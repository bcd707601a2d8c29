"""Heads that are fitted on normal images alone, from a cache to a comparison and an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from commands import exit_code
from headstart.bundles.bundle import load_bundle, short_digests
from headstart.cache.reader import open_cache
from headstart.errors import DataError, ParameterError
from headstart.evaluate.target_types.normal_target import Normal
from headstart.evaluation import evaluate_head
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec, heads_for, make_head
from headstart.heads.regression.anomaly_heads import (
    MahalanobisHead,
    NearestNormalHead,
    PatchMemoryHead,
    conformal_quantile,
    greedy_coreset,
)
from headstart.report.html_pages import benchmark_page
from headstart.selection.compare import compare_heads
from labelled import labelled_cache

pytestmark = pytest.mark.slow

#: Heads that take any rows.
OF_ROWS = ("anomaly", "anomaly-knn")

#: Twice as many ants as bees and wasps.
LABELS = [(0, 0, 1, 2)[row % 4] for row in range(120)]
ANTS = Normal("ants")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return labelled_cache(tmp_path / "c.h5", LABELS)


def matrix(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    with open_cache(path) as opened:
        X = np.concatenate([batch.features.mean(axis=(1, 2)) for batch in opened.batches()])
        return X, opened.labels, opened.paths


def data(n: int = 300, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)), rng.normal(3, 2, size=(50, d))


def test_distances_are_those_of_scikit_learn() -> None:
    X, others = data()
    head = MahalanobisHead(random_state=0).fit(X)
    expected = np.sqrt(LedoitWolf().fit(X).mahalanobis(others))
    np.testing.assert_allclose(head._distances(others), expected, rtol=1e-6)
    scores = head.predict_proba(others)[:, 1]
    np.testing.assert_allclose(scores, expected / (expected + head.threshold_), rtol=1e-6)
    near = NearestNormalHead(4, metric="euclidean", random_state=0).fit(X)
    expected = NearestNeighbors(n_neighbors=4).fit(X).kneighbors(others)[0].mean(axis=1)
    np.testing.assert_allclose(near._distances(others), expected, rtol=1e-6)


@pytest.mark.parametrize("name", OF_ROWS)
def test_a_new_normal_image_is_called_an_anomaly_as_often_as_it_is_said(name: str) -> None:
    X, _ = data(3000)
    spec = default_spec(name, scaling="none", params={"false_alarms": 0.1})
    head = make_head(spec).fit(X[:1500], np.zeros(1500, int))
    assert 0.06 < head.predict(X[1500:]).mean() < 0.14
    assert conformal_quantile(np.arange(1.0, 20), 0.05) == 19
    assert conformal_quantile(np.arange(1.0, 100), 0.05) == 95


@pytest.mark.parametrize("name", OF_ROWS)
def test_labels_and_rows_of_weight_0_do_not_count(name: str) -> None:
    X, others = data()
    weights = np.r_[np.ones(len(X)), np.zeros(len(others))]
    y = np.r_[np.zeros(len(X), int), np.ones(len(others), int)]
    head = make_head(default_spec(name, scaling="none"))
    both = head.fit(np.r_[X, others], y, classifier__sample_weight=weights).predict_proba(others)
    np.testing.assert_array_equal(both, head.fit(X, y[: len(X)]).predict_proba(others))


def maps(n: int, seed: int = 0) -> np.ndarray:
    """Return maps of 3 × 3 positions and 8 channels, flattened."""
    rng = np.random.default_rng(seed)
    return ((0.8 + 0.4 * rng.random((n, 3, 3, 8))) * np.arange(1, 9)).astype(np.float32).reshape(n, -1)


def test_one_odd_position_makes_a_map_odd() -> None:
    X, others = maps(80), maps(20, seed=1)
    odd = others.reshape(20, 3, 3, 8).copy()
    odd[:, 1, 1] = odd[:, 1, 1, ::-1] * 3
    head = PatchMemoryHead(9, memory_size=200, random_state=0).fit(X)
    scores = head.predict_proba(np.r_[others, odd.reshape(20, -1)])[:, 1]
    assert roc_auc_score(np.arange(40) >= 20, scores) > 0.95
    own = PatchMemoryHead(9, memory_size=720, random_state=0).fit(X)
    assert own._distances(X).max() < 1e-2, "all positions are kept"
    np.testing.assert_allclose(np.linalg.norm(own.memory_, axis=1), 1, rtol=1e-5)
    with pytest.raises(DataError, match="no square map of 10 positions"):
        PatchMemoryHead(10).fit(maps(4))


def test_a_coreset_is_spread_out() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(300, 4)), 50 * np.eye(3, 4)])
    chosen = greedy_coreset(rows, 5, np.random.default_rng(1))
    assert {300, 301, 302} <= set(chosen.tolist())
    assert len(set(chosen.tolist())) == 5
    assert greedy_coreset(rows, 1000, np.random.default_rng(1)).tolist() == list(range(303))


def test_copies_of_a_row_are_left_out_together() -> None:
    X, _ = data(60)
    twice, groups = np.r_[X, X], np.r_[np.arange(60), np.arange(60)]
    alone = NearestNormalHead(1, metric="euclidean", random_state=0)
    assert alone.fit(twice).threshold_ < 1e-6 or alone.threshold_ < alone.fit(twice, groups=groups).threshold_


@pytest.mark.parametrize("name", OF_ROWS)
def test_a_head_is_fitted_on_normal_images_alone(cache: Path, tmp_path: Path, name: str) -> None:
    spec = default_spec(name, features=["avg"])
    found = fit_head(cache, spec, target=ANTS, validation=0.5, output=tmp_path / "head")
    assert found.score.class_names == ("ants", "not ants")
    X, labels, paths = matrix(cache)
    assert found.scored is not None
    scored = np.isin(paths, found.scored.paths)
    normal = ~scored & (labels == 0)
    assert found.n_train == normal.sum() == 30
    bundle = load_bundle(tmp_path / "head")
    with open_cache(cache) as opened:
        digests = np.unique(short_digests(opened.sha256)[normal])
    np.testing.assert_array_equal(bundle.training_digests, digests)
    expected = make_head(spec).fit(X[normal], np.zeros(30, int)).predict_proba(X[scored])[:, 1]
    truth = labels[scored] != 0
    assert found.score.roc_auc_ovr == pytest.approx(roc_auc_score(truth, expected))
    assert found.score.average_precision == pytest.approx(average_precision_score(truth, expected))
    assert found.score.roc_auc_ovr > 0.8
    assert found.score.positive is not None
    assert found.score.positive.class_name == "not ants"
    assert found.score.positive.specificity.value == pytest.approx(((expected < 0.5) & ~truth).sum() / (~truth).sum())
    assert (bundle.target, bundle.class_names, bundle.task) == ("normal", ("ants", "not ants"), "anomaly")
    assert json.loads((tmp_path / "head" / "bundle.json").read_text())["format_version"] >= 4


def test_training_sides_without_anomalies_are_enough(tmp_path: Path) -> None:
    """As in MVTec AD: the split train has normal images alone."""
    splits = ["test" if label or row % 3 == 0 else "train" for row, label in enumerate(LABELS)]
    path = labelled_cache(tmp_path / "c.h5", LABELS, splits=splits)
    found = fit_head(path, "anomaly", target=ANTS)
    assert found.n_train == sum(split == "train" for split in splits)
    assert found.score.n_samples == sum(split == "test" for split in splits)
    assert {row["class"]: row["support"] for row in found.score.per_class}["not ants"] == 60


def test_a_saved_head_is_scored_on_classes_that_it_has_never_seen(cache: Path, tmp_path: Path) -> None:
    fit_head(cache, "anomaly", target=ANTS, output=tmp_path / "head")
    others = labelled_cache(tmp_path / "o.h5", [0, 2] * 20, of="other")
    score, _ = evaluate_head(tmp_path / "head", others, include_training=True)
    assert score.n_samples == 40
    assert score.roc_auc_ovr > 0.7
    none = labelled_cache(tmp_path / "none.h5", [1, 2] * 10, of="none")
    found = evaluate_head(tmp_path / "head", none, include_training=True)
    assert found.score.roc_auc_ovr is None
    assert any("ants: no image to score" in note for note in found.notes)


def test_heads_for_anomalies_are_compared(cache: Path) -> None:
    assert set(heads_for("anomaly")) == {*OF_ROWS, "anomaly-patches"}
    found = compare_heads(cache, target=ANTS, heads=(*OF_ROWS, "majority"), n_splits=3)
    assert {head.name for head in found.heads} == {"anomaly", "anomaly-knn", "majority"}
    assert (found.metric, found.positive) == ("roc_auc_ovr", "not ants")
    for head in found.heads:
        expected = roc_auc_score(found.y_true, head.probabilities[:, 1])
        assert head.metrics["roc_auc_ovr"].value == pytest.approx(expected, abs=1e-6)
    assert found.heads[0].metrics["roc_auc_ovr"].value > 0.8
    assert found["majority"].metrics["roc_auc_ovr"].value == pytest.approx(0.5, abs=0.1)
    page = benchmark_page(found)
    assert "ROC of not ants" in page
    assert 'id="calibration"' not in page, "anomaly scores are no probabilities"


def test_what_cannot_be_is_refused(cache: Path) -> None:
    with pytest.raises(ParameterError, match=r"not known\. Expected one of: ants, bees, wasps"):
        fit_head(cache, target="normal")
    with pytest.raises(DataError, match=r"normal class 'antz'\. Found 0"):
        fit_head(cache, target=Normal("antz"))
    with pytest.raises(DataError, match="not searched in a fit"):
        fit_head(cache, target=ANTS, search="params")
    with pytest.raises(ParameterError, match="anomaly task, which these heads cannot do: ridge"):
        fit_head(cache, "ridge", target=ANTS)
    with pytest.raises(DataError, match="at least two normal images"):
        MahalanobisHead().fit(np.ones((1, 3)))
    with pytest.raises(DataError, match="covariance of 5,000 columns"):
        MahalanobisHead().fit(np.ones((4, 5000)))


def test_commands(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, "fit-head", cache, "--type", "anomaly", "--normal", "ants", "-o", tmp_path / "h") == 0
    text = capsys.readouterr().out
    assert "ROC-AUC" in text
    assert "not ants against the rest: sensitivity" in " ".join(text.split())
    assert exit_code(monkeypatch, "evaluate", tmp_path / "h", cache) == 0
    assert exit_code(monkeypatch, "fit-head", cache, "--normal", "ants", "--target", "number") == 2
