"""Fitting a head on a cache within a bound of memory."""

from pathlib import Path

import numpy as np
import pytest

from bundles import networks_are_slow
from caches import write_cache
from headstart import fit
from headstart.bundles.bundle import load_bundle
from headstart.errors import DataError, HeadstartError
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from headstart.heads.out_of_core import Memory, matrix_fits
from labelled import labelled_cache


@pytest.fixture
def cache(tmp_path):
    return write_cache(tmp_path / "cache.h5", range(60))


def test_what_fits_is_not_streamed(cache):
    assert not fit_head(cache, "logistic", validation=0.3).streamed


@pytest.mark.parametrize("head_type", networks_are_slow(["logistic", "ridge", "dense"]))
def test_what_does_not_fit_is_streamed_and_saved_as_any_head(cache, tmp_path, monkeypatch, head_type):
    spec = default_spec(head_type, features=["flatten"])
    whole = fit_head(cache, spec, validation=0.3)
    monkeypatch.setattr(fit, "matrix_fits", lambda *_: False)
    result = fit_head(cache, spec, validation=0.3, output=tmp_path / "head")
    assert result.streamed
    assert result.score.accuracy == pytest.approx(whole.score.accuracy, abs=0.11)
    loaded = load_bundle(tmp_path / "head").head
    X = np.abs(np.random.default_rng(0).normal(size=(5, 24))).astype(np.float32)
    np.testing.assert_allclose(loaded.predict_proba(X), result.head.predict_proba(X), atol=1e-6)


def test_a_head_that_cannot_be_streamed_is_refused_before_the_features_are_read(cache, monkeypatch):
    monkeypatch.setattr(fit, "matrix_fits", lambda kind, _, memory: matrix_fits(kind, (200_000, 25_088), memory))
    with pytest.raises(HeadstartError, match="rbf-svm is fitted on all images at once"):
        fit_head(cache, "rbf-svm", validation=0.3, max_memory=2**32)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("head_type", ["logistic", "ridge", "knn"])
def test_a_class_without_an_image_to_fit_on_is_no_output(tmp_path, monkeypatch, head_type, streamed):
    monkeypatch.setattr(fit, "matrix_fits", lambda *_: not streamed or head_type == "knn")
    labels, splits = [0, 2] * 10 + [0, 1, 2, 1], ["train"] * 20 + ["test"] * 4
    result = fit_head(
        labelled_cache(tmp_path / "c.h5", labels, splits=splits), default_spec(head_type), output=tmp_path / "head"
    )
    assert result.notes == ("bees: 2 scored images, none to fit on.",)
    assert (result.score.n_samples, result.score.accuracy) == (2, 1)
    assert result.score.class_names == ("ants", "wasps")
    bundle = load_bundle(tmp_path / "head")
    assert bundle.class_names == ("ants", "wasps")
    assert bundle.metrics["notes"] == list(result.notes)
    assert len(bundle.training_digests) == 20


def test_the_bound_is_that_of_the_process():
    assert Memory(2**33).left("ridge") < 2**33


def test_scored_images_that_look_as_one_that_is_fitted_on_are_counted(tmp_path: Path) -> None:
    labels = [row % 2 for row in range(40)]
    cache = labelled_cache(tmp_path / "c.h5", labels)
    saved_again = labelled_cache(tmp_path / "again.h5", labels, of="again")  # other bytes, the same features
    spec = default_spec("ridge", features=["avg"])
    assert fit_head(cache, spec, validation=saved_again).notes[-1] == (
        "The score is too good: it includes 40 images that the head has seen (40 nearly the same picture as one)."
    )
    assert not any("too good" in note for note in fit_head(cache, spec).notes)


def test_the_split_that_is_fitted_on_is_not_scored(tmp_path: Path) -> None:
    cache = labelled_cache(tmp_path / "c.h5", [0, 1] * 10, splits=["train"] * 10 + ["test"] * 10)
    with pytest.raises(DataError, match="The split train is fitted on"):
        fit_head(cache, default_spec("ridge", features=["avg"]), validation="train")
