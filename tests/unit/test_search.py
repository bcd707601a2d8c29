"""A search looks at training images alone, and chooses what predicts held-out images best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart import search as searching
from headstart.cache.store import open_cache
from headstart.fit import fit_head
from headstart.heads.catalogue import default_spec
from headstart.search import best_trial, search_head
from labelled import labelled_cache

LABELS = [row % 3 for row in range(90)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = ["test" if row >= 60 else "train" for row in range(90)]
    return labelled_cache(tmp_path_factory.mktemp("search") / "c.h5", LABELS, splits=splits, distance=0.6)


def test_the_best_of_all_settings_is_chosen_and_all_are_listed(cache: Path) -> None:
    with open_cache(cache) as opened:
        found = search_head(opened, "logistic", np.arange(60))
    assert [trial.spec.params["C"] for trial in found.trials] == [10.0**k for k in range(-3, 5)]
    assert found.spec == best_trial(found.trials).spec
    assert max(trial.accuracy for trial in found.trials) == best_trial(found.trials).accuracy
    assert all(len(trial.fold_accuracy) == 5 for trial in found.trials)
    assert "5 folds of 60 images" in found.folds


def test_held_out_rows_have_no_part_in_it(cache: Path, tmp_path: Path) -> None:
    """Other labels and features of the rows that are scored: nothing that was chosen changes."""
    other = labelled_cache(tmp_path / "o.h5", [*LABELS[:60], *[0] * 30], distance=0.6)
    with open_cache(cache) as one, open_cache(other) as two:
        first, second = (search_head(opened, "ridge", np.arange(60)) for opened in (one, two))
    assert first.spec == second.spec
    np.testing.assert_allclose([t.accuracy for t in first.trials], [t.accuracy for t in second.trials])


def test_what_is_given_is_not_searched(cache: Path) -> None:
    with open_cache(cache) as opened:
        found = search_head(
            opened, "rbf-svm", np.arange(60), features=("max",), scaling="l2", params={"C": 3.0, "class_weight": None}
        )
    assert {(t.spec.features, t.spec.scaling, t.spec.params["C"]) for t in found.trials} == {(("max",), "l2", 3.0)}
    assert len({t.spec.params["gamma_factor"] for t in found.trials}) == len(found.trials)


def test_threads_change_nothing(cache: Path) -> None:
    with open_cache(cache) as opened:
        one, two = (search_head(opened, "linear-svm", np.arange(60), n_jobs=jobs) for jobs in (1, 2))
    assert one.trials == two.trials


def test_many_images_are_sampled_by_class_and_that_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "MAX_IMAGES", 30)
    with open_cache(cache) as opened:
        rows, notes = searching.sample(opened.labels, np.arange(60), 30, 0)
        assert np.bincount(opened.labels[rows]).tolist() == [10, 10, 10]
        assert "chosen on 30 of 60 training images" in notes[0]
        assert "30 of 60" in search_head(opened, "logistic", np.arange(60)).notes[0]


def test_a_setting_at_the_edge_of_the_grid_is_said() -> None:
    specs = [default_spec("logistic", params={"C": C}) for C in (1.0, 10.0, 100.0)]
    trials = [searching.Trial(spec, (value,), True) for spec, value in zip(specs, (0.7, 0.8, 0.9), strict=True)]
    assert "The best C, 100, is at the edge" in searching.search_notes(trials, best_trial(trials))[0]
    level = [searching.Trial(spec, (0.9,), True) for spec in specs]
    assert best_trial(level) is level[0]
    assert searching.search_notes(level, best_trial(level)) == []
    unfinished = [searching.Trial(spec, (0.9,), False) for spec in specs]
    assert "3 of 3 settings did not converge" in searching.search_notes(unfinished, best_trial(unfinished))[0]


def test_fit_head_saves_what_was_chosen_and_scores_it_on_other_images(cache: Path, tmp_path: Path) -> None:
    result = fit_head(cache, "logistic", search="features", output=tmp_path / "head")
    assert result.search is not None
    assert result.spec == result.search.spec
    assert result.n_train == 60
    assert "60 images" in result.search.folds
    assert result.score.n_samples == 30
    assert fit_head(cache, "logistic").search is None
