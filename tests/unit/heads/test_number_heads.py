"""Heads for numbers: equal to plain scikit-learn, saved and loaded, with settings that share work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.utils.estimator_checks import parametrize_with_checks

from caches import RECIPE
from headstart.bundles.bundle import Bundle, load_bundle, save_bundle
from headstart.bundles.metadata import read_metadata
from headstart.errors import BundleError
from headstart.heads.catalogue import HEAD_TYPES, default_spec, heads_for, make_head
from headstart.heads.grid_predictions import Table, outcomes
from headstart.heads.regression.dense_regression import DenseRegressionHead
from headstart.heads.regression.number_heads import (
    KernelRidgeHead,
    NeighboursRegressionHead,
    RidgeRegressionHead,
    SVRHead,
)
from headstart.types import FeatureBatch

pytestmark = pytest.mark.slow

NAMES = heads_for("regression")


def data(n: int = 80, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.random((n, d)).astype(np.float32)
    return X, 1e6 + 1000 * (X @ rng.normal(size=d)) + rng.normal(size=n)


@parametrize_with_checks(
    [
        RidgeRegressionHead(),
        KernelRidgeHead(),
        SVRHead(),
        NeighboursRegressionHead(metric="euclidean"),
        DenseRegressionHead(hidden=(8,), epochs=30, learning_rate=0.05, random_state=0),
    ],
    expected_failed_checks=lambda head: {
        f"check_sample_weight_equivalence_on_{kind}_data": "batches are drawn from the rows; libsvm stops at a tolerance"
        for kind in ("dense", "sparse")
        if isinstance(head, DenseRegressionHead | SVRHead)
    },
)
def test_scikit_learn_conventions(estimator: object, check: object) -> None:
    check(estimator)


def test_predictions_are_those_of_plain_scikit_learn() -> None:
    X, y = data()
    X64, weights = X.astype(np.float64), np.random.default_rng(1).uniform(0.5, 2, len(y))
    plain = Ridge(alpha=0.3).fit(X64, y, sample_weight=weights)
    own = RidgeRegressionHead(alpha=0.3).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(own.predict(X), plain.predict(X64), rtol=1e-9)
    gamma = 1 / (X.shape[1] * X64.var())
    for own, plain in (
        (KernelRidgeHead(alpha=0.2, gamma_factor=3), KernelRidge(alpha=0.2, kernel="rbf", gamma=3 * gamma)),
        (SVRHead(C=2, epsilon=0.05, gamma_factor=3), SVR(C=2, epsilon=0.05, gamma=3 * gamma)),
    ):
        both = TransformedTargetRegressor(plain, transformer=StandardScaler()).fit(X64, y)
        np.testing.assert_allclose(own.fit(X, y).predict(X), both.predict(X64), rtol=1e-7)
    own = NeighboursRegressionHead(5).fit(X, y)
    plain = KNeighborsRegressor(5, metric="cosine").fit(X64, y)
    np.testing.assert_allclose(own.predict(X), plain.predict(X64), rtol=1e-9)


def test_a_dense_head_learns_numbers_in_any_unit() -> None:
    X, y = data(200)
    head = DenseRegressionHead((16,), epochs=60, learning_rate=0.01, random_state=0).fit(X, y)
    assert head.score(X, y) > 0.9
    far = DenseRegressionHead((16,), epochs=60, learning_rate=0.01, random_state=0).fit(X, y * 1e-9)
    np.testing.assert_allclose(far.predict(X) * 1e9, head.predict(X), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"dense-regression"}))
@pytest.mark.parametrize("weighted", [False, True])
def test_shared_work_changes_no_prediction(name: str, weighted: bool) -> None:
    X, y = data()
    weights = np.random.default_rng(1).uniform(0.5, 2, len(y)) if weighted else None
    train, test = np.arange(0, 80, 2), np.arange(1, 80, 2)
    settings = [{key: value} for key, values in HEAD_TYPES[name].grid.items() for value in values]
    table = Table(X, ("avg",), "l2", weights=weights)
    found = {one.setting: one for one in outcomes(name, table, y, train, test, settings, 0, probabilities=False)}
    assert sorted(found) == list(range(len(settings)))
    for number, setting in enumerate(settings):
        head = make_head(default_spec(name, scaling="l2", params=setting))
        takes = weighted and name != "knn-regression"
        given = {"classifier__sample_weight": weights[train]} if takes else {}
        head.fit(X[train], y[train], **given)
        np.testing.assert_allclose(found[number].predicted, head.predict(X[test]), rtol=1e-6, err_msg=str(setting))
        assert found[number].outputs_of(1).shape == (40, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_head_predicts_the_same(name: str, tmp_path: Path) -> None:
    X, y = data()
    spec = default_spec(name, features=["avg"], params={"epochs": 2} if name == "dense-regression" else {})
    head = make_head(spec).fit(X, y)
    save_bundle(tmp_path / "head", Bundle(head, spec, RECIPE, ("target",), target="number"), metrics={})
    loaded = load_bundle(tmp_path / "head")
    batch = FeatureBatch(X[:, None, None, :], np.empty((len(X), 0), np.float32))
    np.testing.assert_array_equal(loaded.outputs([batch], RECIPE), head.predict(X)[:, None])
    assert '"format_version": 4' in (tmp_path / "head" / "bundle.json").read_text()
    assert read_metadata(tmp_path / "head").target == "number"
    with pytest.raises(BundleError, match="has no probabilities"):
        loaded.predict_proba([batch], RECIPE)


def test_a_head_with_another_regressor_in_it_is_not_loaded(tmp_path: Path) -> None:
    X, y = data()
    spec = default_spec("ridge-regression")
    head = make_head(spec).fit(X, y)
    head[-1].regressor_ = KernelRidge().fit(X, y)
    save_bundle(tmp_path / "head", Bundle(head, spec, RECIPE, ("target",), target="number"), metrics={})
    with pytest.raises(BundleError, match="holds a KernelRidge in the place of a Ridge"):
        load_bundle(tmp_path / "head")
