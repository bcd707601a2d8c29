"""Rows of one group, as crops of an image, are left out together wherever a head learns from left-out rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.errors import DataError
from headstart.heads import class_mean, dense, svm
from headstart.heads.base import hold_out, stratified_folds
from headstart.heads.class_mean import ClassMeanHead
from headstart.heads.dense import DenseHead
from headstart.heads.ridge import RidgeHead, ridge_path, signs
from headstart.heads.svm import LinearSVMHead, RBFSVMHead

N, WIDTH = 36, 8


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images of three classes that overlap, and two or three rows of each that are nearly the image."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 3
    X = rng.normal(size=(N, WIDTH)) + 0.5 * np.eye(WIDTH)[y]
    groups = np.concatenate([np.arange(N), np.arange(N), np.arange(N)[::2]])
    order = rng.permutation(len(groups))
    crops = X[groups] + np.where(np.arange(len(groups)) < N, 0, 0.05)[:, None] * rng.normal(size=(len(groups), WIDTH))
    return crops[order], y[groups][order], groups[order]


@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_leaves_out_a_group_exactly(rows: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool) -> None:
    X, y, groups = rows
    weights = np.random.default_rng(1).uniform(0.5, 2, len(y)) if weighted else np.ones(len(y))
    targets = signs(y, 3)
    found = ridge_path(X, targets, [0.5], weights=weights, counts=weights, groups=groups).left_out[0]
    for group in (0, 1, 7):
        out = groups == group
        path = ridge_path(X[~out], targets[~out], [0.5], weights=weights[~out])
        np.testing.assert_allclose(found[out], X[out] @ path.coefs[0].T + path.intercepts[0], atol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
def test_class_means_leave_out_a_group_exactly(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y, groups = rows
    weights = np.random.default_rng(1).uniform(0.5, 2, len(y)) if weighted else None
    seen: list[np.ndarray] = []
    monkeypatch.setattr(class_mean, "fit_temperature", lambda scores, labels, *_: seen.extend((scores, labels)) or 1.0)
    monkeypatch.setattr(class_mean, "blocks", lambda length, _: [slice(i, i + 5) for i in range(0, length, 5)])
    head = ClassMeanHead(shrinkage=0.3).fit(X, y, sample_weight=weights, groups=groups)
    found, labels = seen[0], seen[1]
    order = np.argsort(groups * 3 + y, kind="stable")
    np.testing.assert_array_equal(labels, y[order])
    for group in (0, 1, 7):
        out = groups == group
        own = None if weights is None else weights[~out]
        without = ClassMeanHead(shrinkage=0.3).fit(X[~out], y[~out], sample_weight=own)
        np.testing.assert_allclose(
            found[groups[order] == group], without._class_scores(X[order][groups[order] == group])
        )
    assert head.temperature_ == 1


@pytest.mark.parametrize("head", [RidgeHead(), ClassMeanHead()], ids=lambda head: type(head).__name__)
def test_groups_of_one_row_are_no_groups(head: Any, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    X, y, _ = rows
    alone = head.fit(X, y).predict_proba(X)
    np.testing.assert_allclose(head.fit(X, y, groups=np.arange(len(y))[::-1]).predict_proba(X), alone, rtol=1e-6)


@pytest.mark.parametrize(
    "head", [RidgeHead(), ClassMeanHead(), LinearSVMHead(random_state=0), RBFSVMHead(C=100, random_state=0)],
    ids=lambda head: type(head).__name__,
)  # fmt: skip
def test_crops_of_images_do_not_make_a_head_surer(head: Any, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    X, y, groups = rows
    confident = head.fit(X, y).predict_proba(X).max(axis=1).mean()
    assert head.fit(X, y, groups=groups).predict_proba(X).max(axis=1).mean() < confident - 0.01


@pytest.mark.parametrize("classes", [2, 3])
def test_an_svm_is_calibrated_on_whole_groups(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray], classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y, groups = (column[rows[1] < classes] for column in rows)
    seen: list[Any] = []
    folds = svm.stratified_folds
    monkeypatch.setattr(svm, "stratified_folds", lambda *args, **more: seen.append(folds(*args, **more)) or seen[0])
    weights = np.where(groups == 3, 0.0, 1.0)
    head = LinearSVMHead(random_state=0).fit(X, y, sample_weight=weights, groups=groups)
    kept = groups[weights > 0]
    assert len(seen[0]) == 5
    assert not any(set(kept[train]) & set(kept[test]) for train, test in seen[0])
    if classes == 2:
        assert head.calibrated_.get_params()["cv"] == 5  # a saved head does not hold the numbers of its rows
    with pytest.raises(DataError, match="at least two images of each class"):
        head.fit(X, y, groups=y)


def test_folds_and_rows_that_are_held_out_hold_whole_groups(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, y, groups = rows
    parts = stratified_folds(y, 4, seed=0, groups=groups)
    assert sorted(np.concatenate([test for _, test in parts]).tolist()) == list(range(len(y)))
    assert not any(set(groups[train]) & set(groups[test]) for train, test in parts)
    held_out = hold_out(y, 0.25, seed=0, groups=groups)
    assert len(set(groups[held_out])) == 9
    assert not set(groups[held_out]) & set(np.delete(groups, held_out))
    assert stratified_folds(np.array([0, 0, 1]), 5, seed=0) == []


@pytest.mark.slow
def test_a_dense_head_holds_out_whole_groups(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y, groups = rows
    seen: list[Any] = []
    for name in ("hold_out", "stratified_folds"):
        given = getattr(dense, name)
        monkeypatch.setattr(
            dense, name, lambda *args, given=given, **more: seen.append(more["groups"]) or given(*args, **more)
        )
    DenseHead(hidden=(), epochs=2, early_stopping=True, cv=2, random_state=0).fit(X, y, groups=groups)
    np.testing.assert_array_equal(seen[0], groups)
    np.testing.assert_array_equal(seen[1], groups)
