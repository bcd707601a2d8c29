"""Targets: what a head predicts for an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from caches import everything, write_cache
from headstart.cache.reader import open_cache
from headstart.errors import DataError, ParameterError
from headstart.evaluate import folds
from headstart.evaluate.target_types.class_target import SingleLabel
from headstart.evaluate.targets import TARGETS, encoded, target_named
from headstart.fit import fit_head
from headstart.heads.catalogue import HEAD_TYPES
from headstart.selection.compare import compare_heads
from labelled import labelled_cache


class OneClassLess(SingleLabel):
    """Leaves the first class out."""

    def encode(self, labels, class_names):
        return np.where(labels < 1, -1, labels - 1), tuple(class_names[1:])


def test_single_labels_are_those_of_the_cache(tmp_path: Path) -> None:
    with open_cache(write_cache(tmp_path / "cache.h5")) as cache:
        assert encoded(cache, TARGETS["single-label"]) is cache


def test_an_encoded_cache_has_other_labels_and_the_same_rest(tmp_path: Path) -> None:
    with open_cache(write_cache(tmp_path / "cache.h5")) as cache:
        view = encoded(cache, OneClassLess())
        assert (view.class_names, view.labels.max()) == (("bees",), 0)
        assert cache.labels.max() == 1
        assert (view.paths, view.recipe, view.refs()) == (cache.paths, cache.recipe, cache.refs())


def test_a_target_without_two_classes_cannot_be_learnt() -> None:
    with pytest.raises(DataError, match="at least two classes"):
        SingleLabel().stratify(np.array([0, 0, -1]))


class ByPatient(SingleLabel):
    """The first twenty rows are a stratum of their own."""

    def stratify(self, y):
        return np.where(np.arange(len(y)) < 20, 0, 1)


def test_splits_and_folds_keep_the_strata_of_the_target_in_proportion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "by-patient", ByPatient())
    cache = labelled_cache(tmp_path / "cache.h5", [row % 2 for row in range(80)])
    drawn: list[list[int]] = []
    whole = folds._assign

    def assign(units, strata, n_splits, rng):
        found = whole(units, strata, n_splits, rng)
        drawn.append(np.bincount(found[: np.bincount(strata)[0]]).tolist())
        return found

    monkeypatch.setattr(folds, "_assign", assign)
    result = fit_head(cache, "ridge", validation=0.25, target="by-patient")
    assert result.scored is not None
    with open_cache(cache) as opened:
        first = {path for path, row in zip(opened.paths, range(80), strict=True) if row < 20}
    assert len(first.intersection(result.scored.paths)) == 5
    assert drawn == [[3, 3, 3, 3, 3]]
    drawn.clear()
    compare_heads(cache, heads=("ridge",), n_splits=4, target="by-patient")
    assert drawn == [[5] * 4, *[[3] * 5] * 4]


def test_an_unknown_target_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"no target 'singel-label'.*single-label"):
        fit_head(write_cache(tmp_path / "cache.h5"), target="singel-label")


def test_a_head_of_another_task_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEAD_TYPES, "ridge", replace(HEAD_TYPES["ridge"], task="regression"))
    assert target_named("single-label", ["logistic"]).tasks == ("classification",)
    with pytest.raises(ParameterError, match=r"classification task, which these heads cannot do: ridge\."):
        fit_head(write_cache(tmp_path / "cache.h5"), "ridge")


def test_a_reader_ignores_groups_that_it_does_not_know(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "cache.h5")
    before = everything(path)
    with h5py.File(path, "r+") as file:
        file.create_group("targets")["several-labels"] = np.zeros((7, 3), np.int8)
        file["rows"]["measured"] = np.zeros(7)
        file.attrs["of a later version"] = 1
    assert everything(path) == before
