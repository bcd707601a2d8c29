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
from headstart.evaluate.targets import TARGETS, SingleLabel, encoded, encoded_names, target_named
from headstart.fit import fit_head
from headstart.heads.catalogue import HEAD_TYPES


class OneClassLess(SingleLabel):
    """Leaves the first class out."""

    def encode(self, labels, class_names):
        return np.where(labels < 1, -1, labels - 1), tuple(class_names[1:])


def test_single_labels_are_those_of_the_cache(tmp_path: Path) -> None:
    with open_cache(write_cache(tmp_path / "cache.h5")) as cache:
        assert encoded(cache, TARGETS["single-label"]) is cache
    assert encoded_names(["ants", "bees"], SingleLabel()) == {"ants": "ants", "bees": "bees"}


def test_an_encoded_cache_has_other_labels_and_the_same_rest(tmp_path: Path) -> None:
    with open_cache(write_cache(tmp_path / "cache.h5")) as cache:
        view = encoded(cache, OneClassLess())
        assert (view.class_names, view.labels.max()) == (("bees",), 0)
        assert cache.labels.max() == 1
        assert (view.paths, view.recipe, view.refs()) == (cache.paths, cache.recipe, cache.refs())
    assert encoded_names(["ants", "bees"], OneClassLess()) == {"bees": "bees"}


def test_a_target_without_two_classes_cannot_be_learnt() -> None:
    with pytest.raises(DataError, match="at least two classes"):
        SingleLabel().check(np.array([0, 0, -1]))


def test_an_unknown_target_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"no target 'singel-label'.*single-label"):
        fit_head(write_cache(tmp_path / "cache.h5"), target="singel-label")


def test_a_head_of_another_task_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEAD_TYPES, "ridge", replace(HEAD_TYPES["ridge"], task="regression"))
    assert target_named("single-label", ["logistic"]).task == "classification"
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
